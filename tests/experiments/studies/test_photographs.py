"""Photographs of a few categories: a network with as many outputs, and its rows."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_utils.categories import all_labels, categories
from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES, VOID, read_ids
from jsws_lib.experiments.studies import photographs
from jsws_lib.experiments.studies.photographs import ROWS, SIZES, entered, present, rows


@pytest.fixture
def few(own_data):
    """A VOC folder whose train_aug shows few categories, and a mask of the last of them."""
    voc = own_data / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    train, val = (read_ids(lists / f"{name}.txt")[:3] for name in ("train_aug", "val"))
    (lists / "train_aug.txt").write_text("\n".join(train))
    (lists / "val.txt").write_text("\n".join(val))
    here = np.flatnonzero(all_labels(voc, train).any(0))
    for name in val:
        path = voc / "SegmentationClass" / f"{name}.png"
        mask = np.zeros(Image.open(path).size[::-1], np.uint8)
        mask[:4], mask[-1] = here[-1] + 1, VOID
        Image.fromarray(mask).save(path)
    return voc, train, val, here


def test_only_what_occurs_gets_an_output(few, tmp_path):
    voc, train, val, here = few
    out = present(voc, tmp_path / "six") / "VOCdevkit" / "VOC2012"
    assert categories(out) == tuple(VOC_CLASSES[k + 1] for k in here)
    assert 0 < len(here) < 20
    np.testing.assert_array_equal(all_labels(out, train), all_labels(voc, train)[:, here])
    mask = np.asarray(Image.open(out / "SegmentationClass" / f"{val[0]}.png"))
    assert (mask[:4] == len(here)).all() and (mask[-1] == VOID).all()
    assert not mask[4:-1].any()


def test_a_mask_of_something_else_is_refused(few, tmp_path):
    voc, _, val, here = few
    path = voc / "SegmentationClass" / f"{val[-1]}.png"
    mask = np.array(Image.open(path))
    mask[5] = next(k + 1 for k in range(20) if k not in here)
    Image.fromarray(mask).save(path)
    with pytest.raises(JswsError, match=f"{val[-1]}.png holds a category that no image"):
        present(voc, tmp_path / "six")
    assert not (tmp_path / "six").exists()


def test_students_learn_from_this_seeds_teachers(tmp_path):
    found = {row.name: row.run for row in rows(tmp_path, seed=1)}
    assert sorted(found) == sorted(ROWS) and {run.seed for run in found.values()} == {1}
    for name, run in found.items():
        assert run.profile.size == SIZES[run.plan.stage - 1]
        teacher = run.plan.teacher and found[run.plan.teacher].weights
        assert run.teacher == teacher, name


def test_rows_are_entered_by_seed_and_nothing_is_lost():
    held = {"S": {"miou": [0.1]}, "2S": {"mae": [0.2]}}
    found = {"M_mirror": {"miou": [0.6]}, "M": {"miou": [0.5]}, "S": {"miou": [0.3]}}
    rows = entered(held, found, 0)
    assert [*rows] == ["S", "M", "2S", "M_mirror"]
    assert rows["S"] == {"miou": [0.3]} and rows["2S"] == {"mae": [0.2]}
    assert held["S"] == {"miou": [0.1]}
    again = entered(rows, {"S": {"miou": [0.4]}}, 1)
    assert again["S"] == {"miou": [0.3, 0.4]} and again["M"] == {"miou": [0.5]}
    with pytest.raises(JswsError, match="has no seed 0 of MM: measure that first"):
        entered(rows, {"MM": {"miou": [0.4]}}, 1)


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Rows that are trained and measured at once, each worth its seed."""
    monkeypatch.setattr(photographs, "FILE", tmp_path / "photographs.json")
    monkeypatch.setattr(photographs, "open_data", lambda given: given)
    monkeypatch.setattr(photographs, "run_all", lambda rows, jobs: rows)

    def collect(rows, *_):
        seed = rows[0].run.seed
        found = {row.name: {"miou": [seed / 10], "seconds": [1]} for row in rows}
        return {"settings": found, "seeds": [seed]}

    monkeypatch.setattr(photographs, "collect", collect)
    monkeypatch.setattr(
        photographs, "mirrored", lambda row: {f"{row.name}_mirror": {"miou": 0.5}}
    )
    return partial(photographs.photographs, tmp_path)


def test_a_file_keeps_what_was_not_asked_for(trained, monkeypatch):
    trained(["S", "MM"])
    result = trained(["S"], seed=1)
    assert result == json.loads(photographs.FILE.read_text())
    assert result["seeds"] == [0, 1] and result["recipe"] == "steady+stage1_stride=16"
    wanted = {"S": [0.0, 0.1], "MM": [0.0], "S_mirror": [0.5, 0.5]}  # MM is, as it is
    assert {name: row["miou"] for name, row in result["settings"].items()} == wanted
    monkeypatch.setattr(photographs, "run_all", None)  # nothing is trained in vain
    with pytest.raises(JswsError, match="has no seed 0 of M: measure that first"):
        trained(["M"], seed=1)
    monkeypatch.setattr(photographs, "STEPS", (1, 1))
    with pytest.raises(JswsError, match="photographs.json is of another configuration"):
        trained(["M"])
    assert result == json.loads(photographs.FILE.read_text())
