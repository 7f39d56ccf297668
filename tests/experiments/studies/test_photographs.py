"""Photographs of a few categories: a network with as many outputs, and its rows."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data_utils.categories import all_labels, categories
from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES, VOID, read_ids
from jsws_lib.experiments.studies import photographs
from jsws_lib.experiments.studies.photographs import present


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


def test_a_file_names_its_command_and_rows(few, tmp_path, monkeypatch):
    voc, *_ = few
    given, known = tmp_path / "given", {"miou": 0.5, "seconds": 1.0}
    given.mkdir()
    (given / "VOC2012").symlink_to(voc)
    test = given / "ECSSD"
    shutil.copytree(voc.parents[1] / "ECSSD", test)
    (test / "train.txt").write_text("mini_300001\n")
    (test / "test.txt").write_text("mini_300002\n")
    monkeypatch.setattr(photographs, "DATA", tmp_path / "few")
    monkeypatch.setattr(photographs, "FILE", tmp_path / "photographs.json")

    def run_all(rows, jobs):
        cam = {"S": {"S_cam": {"miou": 0.4}}}
        return {row: known | {"read_outs": cam.get(row.name, {})} for row in rows}

    monkeypatch.setattr(photographs, "run_all", run_all)
    photographs.photographs(given, ["S", "2S", "MM"], [0, 1])
    result = json.loads(photographs.FILE.read_text())
    assert result["command"] == f"{photographs.COMMAND} S 2S MM --seeds 0 1"
    assert [*result["settings"]] == ["S", "M", "MM", "2S", "S_cam", "2S_from_M"]
    assert result["settings"]["MM"]["miou"] == [0.5, 0.5]
    kept = result["configuration"]["profile"]
    assert not kept["validate_every"]  # val is not looked at before the end
