"""Explorers: a strip for every reader, controls that change the picture."""

import io

import ipywidgets
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jsws_lib import drawing, widgets
from jsws_lib.widgets import Explorer, explore


def bars(fig, height=1.0, kind="bar", grid=False):
    ax = fig.subplots()
    (ax.bar if kind == "bar" else ax.scatter)([0], [height])
    ax.set_ylim(0, 3)
    ax.grid(grid)


STRIP = [{"height": 1.0, "kind": "bar", "grid": False},
         {"height": 2.0, "kind": "dot", "grid": True}]  # fmt: skip
CONTROLS = {"height": (0.5, 3.0, 0.5), "kind": ["bar", "dot"], "grid": False}


@pytest.fixture
def shown(monkeypatch):
    """What `display` was given: [(object, options)]."""
    monkeypatch.delenv("JSWS_STATIC", raising=False)
    monkeypatch.delenv("JSWS_STRICT", raising=False)
    found = []
    for module in (drawing, widgets):
        monkeypatch.setattr(module, "display", lambda it, **how: found.append((it, how)))
    return found


def make():
    return explore(bars, strip=STRIP, alt="Bars grow.", **CONTROLS)


def test_the_strip_comes_first_and_has_words(shown):
    explorer = make()
    (strip, how), (live, _) = shown
    assert strip["text/plain"] == "Bars grow."
    assert strip["image/png"].startswith(b"\x89PNG")
    assert how["metadata"]["image/png"] == {"alt": "Bars grow."}
    assert live is explorer.box


def test_setting_a_control_redraws(shown):
    explorer = make()
    assert explorer.state == STRIP[0]
    assert isinstance(explorer.controls["height"], ipywidgets.FloatSlider)
    assert isinstance(explorer.controls["kind"], ipywidgets.Dropdown)
    for name, value in (("height", 2.5), ("kind", "dot"), ("grid", True)):
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
        assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    explorer.check()
    assert explorer.state == {"height": 2.5, "kind": "dot", "grid": True}  # put back


def test_static_pages_get_the_strip_only(shown, monkeypatch):
    monkeypatch.setenv("JSWS_STATIC", "1")
    assert isinstance(make(), Explorer)
    assert len(shown) == 1


def test_a_control_without_effect_is_found_by_the_tests(shown, monkeypatch):
    monkeypatch.setenv("JSWS_STRICT", "1")

    def still(fig, height):
        fig.subplots()

    with pytest.raises(AssertionError, match="moving height to 3.0 changes nothing"):
        explore(still, strip=[{"height": 1.0}], alt="", height=(0.0, 3.0))


def titled(fig, theta_beta, kind):
    fig.subplots().set_title(f"$H$ of {kind}\n$\\times$ {theta_beta:.2f}")


def test_the_live_picture_is_described(shown):
    strip = [{"theta_beta": 0.5, "kind": "dog"}]
    explorer = explore(titled, strip=strip, alt="", theta_beta=(0.0, 1.0, 0.1),
                       kind=["dog", "cat"])  # fmt: skip
    assert explorer.picture.tooltip == "θ β 0.5, kind dog. H of dog × 0.50"
    explorer.controls["kind"].value = "cat"
    assert explorer.picture.tooltip == "θ β 0.5, kind cat. H of cat × 0.50"
    # Without it the front end fails on the tooltip and shows no picture at all.
    assert explorer.picture.get_state()["description"] == ""


def test_labels_are_never_cut(shown):
    upload = ipywidgets.FileUpload(description="a picture")
    controls = {"upload": upload, "much": ipywidgets.FloatSlider()}
    explorer = Explorer(lambda fig, **state: None, controls, size=(4, 3))
    assert explorer.controls["much"].style.description_width == "initial"
    assert explorer.picture.tooltip.startswith("a picture")


def test_pictures_are_crisp_and_keep_their_size_on_the_page(shown):
    explorer = make()
    width = Image.open(io.BytesIO(explorer.picture.value)).width
    assert explorer.picture.layout.width == "420px" and width == 840
    assert explorer.picture.layout.max_width == "100%"


def test_an_error_shows_in_place_of_the_picture(shown, monkeypatch):
    def fragile(fig, height):
        fig.subplots()
        if height > 2:
            raise ValueError("$no$ such\nheight")

    explorer = explore(fragile, strip=[{"height": 1.0}], alt="", height=(0.5, 3.0, 0.5))
    written = []
    text = Figure.text
    monkeypatch.setattr(Figure, "text", lambda self, x, y, s, **how: (
        written.append(s), text(self, x, y, s, **how))[1])  # fmt: skip
    sound = bytes(explorer.picture.value)
    explorer.controls["height"].value = 2.5
    assert "ValueError: $no$ such\nheight" in written[0]
    assert "ValueError" in explorer.picture.tooltip
    broken = bytes(explorer.picture.value)
    assert broken.startswith(b"\x89PNG") and broken != sound
    explorer.controls["height"].value = 1.0
    assert explorer.picture.value == sound

    monkeypatch.setenv("JSWS_STRICT", "1")
    with pytest.raises(ValueError, match="such"):
        explorer.controls["height"].value = 3.0
