"""Explorers: a strip for every reader, controls that change the picture."""

import ipywidgets
import pytest

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
