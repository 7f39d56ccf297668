"""Explorers: a strip for every reader, controls that change the picture."""

import base64
import io

import ipywidgets
import pytest
from PIL import Image

from jsws_lib.course import frames, notebook, widgets
from jsws_lib.course.frames import MIME
from jsws_lib.course.widgets import Explorer, explore


def bars(fig, height=1.0, kind="bar", grid=False):
    ax = fig.subplots()
    (ax.bar if kind == "bar" else ax.scatter)([0], [height])
    ax.set_ylim(0, 3)
    ax.grid(grid)


STRIP = [
    {"height": 1.0, "kind": "bar", "grid": False},
    {"height": 2.0, "kind": "dot", "grid": True},
]
CONTROLS = {"height": (0.5, 3.0, 0.5), "kind": ["bar", "dot"], "grid": False}


@pytest.fixture
def shown(monkeypatch):
    """What `display` was given: [(object, options)]."""
    monkeypatch.delenv("JSWS_COURSE", raising=False)
    found = []
    for module in (notebook, widgets):
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
    monkeypatch.setenv("JSWS_COURSE", "static")
    assert not make().picture.value  # not drawn in vain
    assert len(shown) == 1


def test_a_control_without_effect_is_found_by_the_tests(shown, monkeypatch):
    monkeypatch.setenv("JSWS_COURSE", "strict")

    def still(fig, height):
        fig.subplots()

    with pytest.raises(AssertionError, match="moving height to 3.0 changes nothing"):
        explore(still, strip=[{"height": 1.0}], alt="", height=(0.0, 3.0))


def titled(fig, theta_beta, kind):
    fig.subplots().set_title(f"$H$ of {kind}\n$\\times$ {theta_beta:.2f}")


def test_the_live_picture_is_described(shown):
    strip = [{"theta_beta": 0.5, "kind": "dog"}]
    explorer = explore(
        titled, strip=strip, alt="", theta_beta=(0.0, 1.0, 0.1), kind=["dog", "cat"]
    )
    assert explorer.picture.tooltip == "θ β 0.5, kind dog. H of dog × 0.50"
    explorer.controls["kind"].value = "cat"
    assert explorer.picture.tooltip == "θ β 0.5, kind cat. H of cat × 0.50"
    # Without it the front end fails on the tooltip and shows no picture at all.
    assert explorer.picture.get_state()["description"] == ""


def test_labels_are_whole_and_pictures_crisp(shown):
    controls = {"upload": ipywidgets.FileUpload(description="a picture")}
    controls["much"] = ipywidgets.FloatSlider()
    explorer = Explorer(lambda fig, **state: None, controls, size=(4, 3))
    assert explorer.controls["much"].style.description_width == "initial"
    assert explorer.picture.tooltip.startswith("a picture")
    width = Image.open(io.BytesIO(explorer.picture.value)).width
    assert explorer.picture.layout.width == "420px" and width == 840
    assert explorer.picture.layout.max_width == "100%"


def test_an_error_shows_in_place_of_the_picture(shown, monkeypatch):
    def fragile(fig, height):
        fig.subplots()
        if height > 2:
            raise ValueError("$no$ such\nheight")

    explorer = explore(fragile, strip=[{"height": 1.0}], alt="", height=(0.5, 3.0, 0.5))
    sound = bytes(explorer.picture.value)
    explorer.controls["height"].value = 2.5
    assert "ValueError: no such height" in explorer.picture.tooltip
    broken = bytes(explorer.picture.value)
    assert broken.startswith(b"\x89PNG") and broken != sound
    explorer.controls["height"].value = 1.0
    assert explorer.picture.value == sound

    monkeypatch.setenv("JSWS_COURSE", "strict")
    with pytest.raises(ValueError, match="such"):
        explorer.controls["height"].value = 3.0


# --- for pages without a kernel -------------------------------------------------------


def test_states_for_a_page_are_stored_on_demand(shown, monkeypatch):
    make()
    assert MIME not in shown[0][0]
    monkeypatch.setenv("JSWS_COURSE", "frames")
    explorer = make()
    stored = shown[2][0][MIME]
    kinds = [control["kind"] for control in stored["controls"]]
    assert kinds == ["range", "select", "checkbox"]
    heights = [*map(float, stored["controls"][0]["options"])]
    assert heights == [0.5, 1, 1.5, 2, 2.5, 3]  # five of them, and 2 from the strip
    every = set(stored["states"])
    assert len(every) == len(stored["states"]) == 6 * 2 * 2 and stored["all"]
    assert stored["states"][0] == "1 0 0"  # where the controls start
    assert stored["words"][0] == "height 1, kind bar, grid no."
    column = Image.open(io.BytesIO(base64.b64decode(stored["webp"])))
    width, height = stored["size"]
    assert column.size == (width, 24 * height) and width == explorer.width
    parts = {
        column.crop((0, k * height, width, (k + 1) * height)).tobytes() for k in range(24)
    }
    assert len(parts) == 24


def test_where_combinations_are_many_each_control_moves_from_the_start():
    values = {name: range(9) for name in "abc"}
    strip = [{"a": 1, "b": 2, "c": 3}, {"a": 8, "b": 8, "c": 8}]
    found = frames.states(values, strip)
    assert found[:2] == strip and len(found) == 2 + 3 * 8
    for state in found[2:]:
        assert sum(state[name] != strip[0][name] for name in values) == 1
    shown = frames.choices(ipywidgets.IntSlider(50, 0, 100), [37])
    assert shown == [(str(k), k) for k in (0, 25, 37, 50, 75, 100)]
