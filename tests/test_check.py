"""`jsws data check`: every fault is found, and named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_utils import check as module
from data_utils.check import check, picture_hash
from data_utils.download import sources
from data_utils.errors import JswsError
from data_utils.voc import image_labels, read_ids

COUNTS = {"DUTS-TR": 24, "ECSSD": 8, "VOC2012 train_aug": 24, "VOC2012 val": 8}


@pytest.fixture
def root(own_data, monkeypatch):
    """The embedded data, whose numbers are taken as the published ones."""
    sets = {name: replace(one, holds=dict.fromkeys(one.holds, COUNTS.get(name, 0)))
            for name, one in sources().items()}  # fmt: skip
    lists = {"train_aug": (24, False, True), "val": (8, True, False)}
    monkeypatch.setattr(module, "sources", lambda: sets)
    monkeypatch.setattr(module, "VOC_LISTS", lists)
    return own_data


def found(root):
    return {v.name: v for v in check(root, workers=0)}


def test_whole_sets_are_ok(root):
    verdicts = found(root)
    assert {name: v.pairs for name, v in verdicts.items()} == COUNTS
    assert {v.state for v in verdicts.values()} == {"ok"}
    assert verdicts["ECSSD"].words() == ["ok    ECSSD: 8 of 8"]


def files(root, name):
    images, masks = sources()[name].holds
    return sorted((root / images).iterdir()), sorted((root / masks).iterdir())


def spoil_mask(root, change, name="ECSSD", k=2):
    path = files(root, name)[1][k]
    change(Image.open(path).convert("L")).save(path)
    return path


@pytest.mark.parametrize("kind, change", [
    ("one bit", lambda m: m.convert("1")),
    ("grey", lambda m: Image.fromarray((np.asarray(m) // 2).astype(np.uint8))),
    ("empty", lambda m: Image.new("L", m.size)),
    ("colour", lambda m: Image.merge("RGB", (m, Image.new("L", m.size), m))),
    ("size", lambda m: m.resize((10, 10))),
])  # fmt: skip
def test_masks(root, kind, change):
    path = spoil_mask(root, change)
    verdict = found(root)["ECSSD"]
    assert [n.removesuffix(".jpg") for n in verdict.findings[kind]] == [path.stem]
    assert verdict.state == ("FAIL" if kind == "size" else "warn")
    assert path.stem in "\n".join(verdict.words())


def test_zero_and_one_are_black_and_white(root):
    spoil_mask(root, lambda m: Image.fromarray((np.asarray(m) > 0).astype(np.uint8)))
    assert found(root)["ECSSD"].state == "ok"


def test_missing_and_broken_files(root):
    images, masks = files(root, "DUTS-TR")
    images[0].unlink()
    masks[1].unlink()
    images[2].write_bytes(images[2].read_bytes()[:200])
    masks[3].write_bytes(b"no picture")
    verdict = found(root)["DUTS-TR"]
    assert verdict.state == "FAIL" and verdict.pairs == 22
    assert verdict.findings["no image"] == [masks[0].name]
    assert verdict.findings["no mask"] == [images[1].name]
    assert verdict.findings["unreadable"] == [images[2].name, masks[3].name]
    assert "count" in verdict.findings


def test_voc(root):
    voc = root / "VOCdevkit" / "VOC2012"
    masks = sorted((voc / "SegmentationClass").iterdir())
    Image.open(masks[0]).convert("RGB").save(masks[0])
    masks[1].unlink()
    annotation = sorted((voc / "Annotations").glob("mini_0*.xml"))[0]
    annotation.write_text("<annotation>")
    verdicts = found(root)
    assert len(verdicts["VOC2012 val"].findings["values"]) == 1
    assert len(verdicts["VOC2012 val"].findings["no mask"]) == 1
    assert verdicts["VOC2012 train_aug"].findings["labels"] == [annotation.stem]


def test_a_test_picture_that_is_trained_on(root):
    train, test = files(root, "DUTS-TR"), files(root, "ECSSD")
    copy = Image.open(train[0][5])
    copy.save(test[0][1], quality=95)
    Image.open(train[1][5]).save(test[1][1])
    (name,) = found(root)["ECSSD"].findings["both"]
    assert name == f"{test[0][1].name} is {train[0][5].name} of DUTS-TR"
    assert "both" not in found(root)["DUTS-TR"].findings


def test_the_hash_tells_pictures_apart(root):
    images = [Image.open(p) for p in files(root, "DUTS-TR")[0]]
    assert len({picture_hash(i) for i in images}) == len(images)
    assert picture_hash(Image.new("RGB", (50, 40), "blue")) is None


def test_the_command(root, tmp_path, capsys, monkeypatch):
    from jsws_lib.cli import app

    monkeypatch.setattr(module, "in_parallel", lambda work, jobs, workers: map(work, jobs))

    def jsws(*words):
        with pytest.raises(SystemExit) as stop:
            app(["data", "check", "--data", *map(str, words)], standalone_mode=True)
        return stop.value.code, capsys.readouterr().out

    status, said = jsws(root)
    assert status == 0 and said.count("ok") == 4
    shutil.rmtree(root / "DUTS-TR" / "DUTS-TR-Mask")
    status, said = jsws(root, "--json")
    assert status == 1
    verdicts = {v["name"]: v for v in json.loads(said)}
    categories = verdicts["VOC2012 val"]["categories"]
    ids = read_ids(root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt")
    labels = [image_labels(root / f"VOCdevkit/VOC2012/Annotations/{i}.xml") for i in ids]
    assert [*categories.values()] == sum(labels).astype(int).tolist()
    states = {name: v["state"] for name, v in verdicts.items()}
    assert states["DUTS-TR"] == "FAIL" and states["ECSSD"] == "ok"
    with pytest.raises(JswsError, match="no data set under"):
        app(["data", "check", "--data", str(tmp_path / "x")], standalone_mode=False)
