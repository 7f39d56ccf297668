"""`jsws data check`: every fault is found, and named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import jsws, refuses
from PIL import Image

from data_utils.real import check as module
from data_utils.real.check import check, picture_hash
from data_utils.real.download import sources
from data_utils.voc import write_palette_png

COUNTS = {"DUTS-TR": 24, "ECSSD": 8, "VOC2012 train_aug": 24, "VOC2012 val": 8}


@pytest.fixture
def root(own_data, monkeypatch):
    """The embedded data, whose numbers are taken as the published ones."""
    sets = {
        name: replace(one, holds=dict.fromkeys(one.holds, COUNTS.get(name, 0)))
        for name, one in sources().items()
    }
    lists = {"train_aug": (24, False, True), "val": (8, True, False)}
    monkeypatch.setattr(module, "sources", lambda: sets)
    monkeypatch.setattr(module, "VOC_LISTS", lists)
    return own_data


def found(root):
    return {v.name: v for v in check(root)}


def test_whole_sets_are_ok(root):
    verdicts = found(root)
    assert {name: v.pairs for name, v in verdicts.items()} == COUNTS
    assert {v.state for v in verdicts.values()} == {"ok"}
    assert verdicts["ECSSD"].words() == ["ok    ECSSD: 8 of 8"]


def files(root, name):
    images, masks = sources()[name].holds
    return sorted((root / images).iterdir()), sorted((root / masks).iterdir())


@pytest.mark.parametrize(
    "kind, change",
    [
        ("grey", lambda m: m.resize((32, 32)).resize(m.size)),
        ("empty", lambda m: Image.new("L", m.size)),
        ("refused", lambda m: m.point(lambda v: v // 2)),
        ("refused", lambda m: m.resize((10, 10))),
    ],
)
def test_masks(root, kind, change):
    path = files(root, "ECSSD")[1][2]
    change(Image.open(path).convert("L")).save(path)
    verdict = found(root)["ECSSD"]
    (said,) = verdict.findings[kind]
    assert path.name in said
    assert verdict.state == ("FAIL" if kind == "refused" else "warn")
    assert path.name in "\n".join(verdict.words())


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
    said = verdict.findings["refused"]
    assert images[2].name in said[0] and masks[3].name in said[1]
    assert "count" in verdict.findings


def test_voc(root):
    voc = root / "VOCdevkit/VOC2012"
    masks = sorted((voc / "SegmentationClass").iterdir())
    Image.open(masks[0]).convert("RGB").save(masks[0])
    masks[1].unlink()
    annotation = sorted((voc / "Annotations").glob("mini_0*.xml"))[0]
    annotation.write_text("<annotation>")
    verdicts = found(root)
    (said,) = verdicts["VOC2012 val"].findings["refused"]
    assert f"{masks[0].name} is a RGB picture" in said
    assert len(verdicts["VOC2012 val"].findings["no mask"]) == 1
    (said,) = verdicts["VOC2012 train_aug"].findings["labels"]
    assert f"{annotation.name}: not valid XML" in said


def change_masks(root, change, count=None):
    folder = root / "VOCdevkit/VOC2012/SegmentationClass"
    paths = sorted(folder.iterdir())[:count]
    for path in paths:
        with Image.open(path) as mask:
            changed = change(np.asarray(mask))
        write_palette_png(path, changed.astype(np.uint8))
    return [path.name for path in paths]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("void", lambda m: np.where(m > 0, 255, 0)),
        ("void", lambda m: np.where(m == 255, 255, 0)),
        ("labels and mask", lambda m: np.where(m > 0, 1, 0)),
        ("labels and mask", lambda m: m * 0),
    ],
)
def test_class_masks_and_labels(root, kind, change):
    """A mask of 0 and 255, of one category whatever is labelled, and of none."""
    names = change_masks(root, change, 3)
    verdict = found(root)["VOC2012 val"]
    assert verdict.state == "warn" and verdict.findings.keys() == {kind}
    assert verdict.findings[kind] and set(verdict.findings[kind]) <= set(names)


@pytest.mark.parametrize("value", [0, 255])
def test_a_list_without_any_category(root, value):
    change_masks(root, lambda m: np.where(m > 0, value, 0))
    verdict = found(root)["VOC2012 val"]
    assert verdict.state == "FAIL" and "nothing" in verdict.findings
    assert "there is nothing to measure or learn" in "\n".join(verdict.words())


def test_a_palette_that_was_sorted_anew(root):
    """Some programs keep the colours of a mask and change its numbers."""
    path = sorted((root / "VOCdevkit/VOC2012/SegmentationClass").iterdir())[3]
    with Image.open(path) as mask:
        mask.load()
    mask.convert("RGB").quantize(4).save(path)
    (words,) = found(root)["VOC2012 val"].findings["refused"]
    assert path.name in words and "palette was changed" in words
    mask.putpalette(np.roll(mask.getpalette(), 5).tolist())  # colours that are not VOC's
    mask.save(path)
    verdict = found(root)["VOC2012 val"]
    assert path.name in verdict.findings["palette"] and verdict.state == "warn"


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


def test_the_command(root, tmp_path):
    done = jsws("data", "check", "--data", root)
    assert done.exit_code == 0 and done.stdout.count("ok") == 4
    shutil.rmtree(root / "DUTS-TR" / "DUTS-TR-Mask")
    done = jsws("data", "check", "--data", root, "--json")
    assert done.exit_code == 1
    states = {v["name"]: v["state"] for v in json.loads(done.stdout)}
    assert states["DUTS-TR"] == "FAIL" and states["ECSSD"] == "ok"
    refuses("no data set under", check, tmp_path / "x")
