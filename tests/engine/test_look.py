"""A look at validation images while training: seen at once, and nothing changed by it."""

import shutil
from dataclasses import replace

import pytest
from helpers import learn, network, same, state

from data_utils.voc import read_ids
from jsws_lib.config import STEADY
from jsws_lib.engine import look as module
from jsws_lib.engine import loop
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.engine.look import COLUMNS, look
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.resume import read_log

BOTH = ("L_c", "L_s1")


def trained(folder, profile, on_step=None):
    net, surroundings = network(), RunLoop(folder=folder, tag="a", on_step=on_step)
    return learn(net, profile, loop=surroundings), net


def test_a_look_changes_nothing_and_is_in_the_log(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    looking = replace(tiny, validate_every=2)
    blind, first = trained(tmp_path / "blind", tiny)
    seen, second = trained(tmp_path / "looking", looking)
    assert blind == seen and same(state(first), state(second))

    def stop(step, *_):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", looking, on_step=stop)
    resumed, third = trained(tmp_path / "stopped", looking)
    assert resumed == blind and same(state(first), state(third))
    texts = [(tmp_path / x / "log.csv").read_text() for x in ("looking", "stopped")]
    assert texts[0] == texts[1]
    rows = read_log(tmp_path / "looking/log.csv")
    assert [row["step"] for row in rows if "val_miou" in row] == [1, 3]
    assert set(COLUMNS) < set(rows[1]) and not set(COLUMNS) & set(rows[0])
    assert not set(COLUMNS) & set(read_log(tmp_path / "blind/log.csv")[1])


def test_a_look_is_spread_evenly_over_the_lists(tiny, own_data, monkeypatch):
    lists = own_data / tiny.voc / "ImageSets/Segmentation"
    val = read_ids(lists / "val.txt")
    (lists / "some.txt").write_text(f"{val[0]}\n{val[4]}\n")
    test = sorted(path.stem for path in (own_data / tiny.test_images).iterdir())
    (own_data / "some.txt").write_text(f"{test[0]}\n{test[4]}\n")
    net = network()
    whole = replace(tiny, data=own_data)
    right = look(net, replace(whole, val_list="some", test_list="some.txt"), BOTH)
    monkeypatch.setattr(module, "LIMIT", 2)
    assert look(net, whole, BOTH) == right


def test_the_figures_are_those_of_evaluate(tiny):
    net = network().train()
    found = look(net, tiny, BOTH)
    assert net.training and net.backbone.training
    right = evaluate(net.eval(), profile=tiny, recipe=STEADY)
    figures = right.figures()
    for name, value in found.items():
        if name != "val_background":
            assert value == pytest.approx(figures[name.removeprefix("val_")]), name
    counts = right.segmentation.matrix
    assert found["val_background"] == pytest.approx(counts[:, 0].sum() / counts.sum())
    assert set(look(net, tiny, ("L_c",))) == {"val_background", "val_miou"}
    assert set(look(net, tiny, ("L_s1",))) == set(COLUMNS) - {"val_miou"}


def test_what_is_missing_is_said(tiny, own_data, capsys):
    profile = replace(tiny, data=own_data)
    shutil.rmtree(own_data / "ECSSD")
    assert set(look(network(), profile, BOTH)) == {"val_background", "val_miou"}
    assert "one set is not looked at while training: no picture in" in "".join(
        capsys.readouterr()
    )


def test_a_notebook_shows_one_figure_that_grows(tiny, tmp_path, monkeypatch):
    shown, drawn = [], []

    class Handle:
        def update(self, picture):
            shown.append(picture)

    def display(picture, *, display_id):
        shown.append(picture)
        return Handle()

    def draw(*given):
        drawn.append(original(*given))
        return drawn[-1]

    original = module.draw
    monkeypatch.setattr(module, "draw", draw)
    monkeypatch.setattr("IPython.display.display", display)
    looking = replace(tiny, validate_every=2)
    trained(tmp_path / "terminal", looking)
    assert not shown
    monkeypatch.setattr(module, "in_notebook", lambda: True)
    trained(tmp_path / "notebook", looking)
    assert len(shown) == 2 and shown[0].alt and shown[0].data[:4] == b"\x89PNG"
    left, right = drawn[-1].axes
    assert [line.get_label() for line in left.lines] == ["L_c", "L_s1"]
    assert [line.get_label() for line in right.lines] == [*COLUMNS.values()]
    rows = read_log(tmp_path / "notebook/log.csv")
    assert list(right.lines[1].get_ydata()) == [rows[k]["val_miou"] for k in (1, 3)]
