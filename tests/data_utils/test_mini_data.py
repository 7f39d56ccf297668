"""The embedded data: what is on disk, what is drawn, and what must never leak."""

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import deque
from concurrent.futures import Future
from unittest.mock import Mock, call

import numpy as np
import pytest
from helpers import refuses
from PIL import Image

from data_utils import parallel
from data_utils.embedded import mini, openmoji, scenes
from data_utils.embedded.mini import image_id, make_mini, pretraining_images, render
from data_utils.embedded.scenes import RARELY_SALIENT, Item, class_scene
from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES, image_labels, palette, read_ids, write_palette_png

# Those of `mini_data`, and as few as can be.
SMALL = dict(size=64, n_class=24, n_saliency=24, n_val=8, n_test=8)
FEW = dict(size=48, n_class=1, n_saliency=1, n_val=1, n_test=1)


@pytest.fixture(scope="module")
def class_scenes():
    return [render(0, "train_aug", k, size=64) for k in range(250)]


@pytest.fixture(scope="module")
def saliency_scenes():
    return [render(0, "saliency", k, size=64) for k in range(250)]


# --- files ---------------------------------------------------------------------------


def test_workers_do_not_change_a_byte(mini_data, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "FEW", 0)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    other = make_mini(tmp_path / "two", **SMALL)
    for path in other.rglob("*.*"):
        if path.is_file():
            same = mini_data / path.relative_to(other)
            assert path.read_bytes() == same.read_bytes()


def test_an_image_depends_on_seed_split_and_k_only():
    first = render(3, "train_aug", 7, size=64)
    render(3, "saliency", 1, size=64)
    again = render(3, "train_aug", 7, size=64)
    np.testing.assert_array_equal(first.image, again.image)
    others = [(4, "train_aug", 7), (3, "train_aug", 8), (3, "val", 7)]
    for other in others:
        assert (render(*other, size=64).image != first.image).any()
    pair = [render(3, split, 7, size=64).image for split in ("saliency", "test")]
    assert (pair[0] != pair[1]).any()


def test_the_recipe_names_what_is_drawn():
    """Scenes that change must change `RECIPE`, or older data would stay in use."""
    drawn = hashlib.sha256()
    for split in ("train_aug", "val", "saliency", "test"):
        for k in range(12):
            scene = render(0, split, k, size=64)
            drawn.update(repr([item[:2] for item in scene.items]).encode())
            drawn.update(f"{scene.image.mean() / 8:.0f}".encode())  # on every platform
    assert (mini.RECIPE, drawn.hexdigest()[:8]) == ("9f6185cbadaf", "b8dacdfc")


def test_layout(mini_data):
    voc = mini_data / "VOCdevkit/VOC2012"
    lists = voc / "ImageSets/Segmentation"
    train, val = read_ids(lists / "train_aug.txt"), read_ids(lists / "val.txt")
    assert (len(train), len(val)) == (24, 8)
    assert not set(train) & set(val)
    stems = {p.stem for p in (voc / "JPEGImages").glob("*.jpg")}
    assert stems == {p.stem for p in (voc / "Annotations").glob("*.xml")}
    assert stems == set(train) | set(val)
    assert read_ids(lists / "val.txt", image_dir=voc / "JPEGImages") == val
    for images, masks, n in (
        ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", 24),
        ("ECSSD/images", "ECSSD/ground_truth_mask", 8),
    ):
        ids = sorted(p.stem for p in (mini_data / images).glob("*.jpg"))
        assert len(ids) == n
        assert ids == sorted(p.stem for p in (mini_data / masks).glob("*.png"))
        with Image.open(mini_data / masks / f"{ids[0]}.png") as mask:
            assert mask.mode == "L" and mask.size == (64, 64)
            assert set(np.unique(mask)) == {0, 255}
    with Image.open(voc / f"JPEGImages/{train[0]}.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert "CC BY-SA 4.0" in (mini_data / "README.txt").read_text()
    assert json.loads((mini_data / "mini.json").read_text())["parameters"]["seed"] == 0


def test_training_images_have_no_mask_on_disk(mini_data):
    voc = mini_data / "VOCdevkit/VOC2012"
    masks = {p.stem for p in voc.rglob("*.png")}
    assert masks == set(read_ids(voc / "ImageSets/Segmentation/val.txt"))
    for split in ("train_aug", "val"):
        # a bounding box would be more than an image label, too
        xml = ET.parse(voc / f"Annotations/{image_id(split, 0)}.xml").getroot()
        assert {child.tag for child in xml.find("object")} == {"name"}


def test_masks_agree_with_annotations(mini_data):
    voc = mini_data / "VOCdevkit/VOC2012"
    for name in read_ids(voc / "ImageSets/Segmentation/val.txt"):
        with Image.open(voc / f"SegmentationClass/{name}.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[: 21 * 3] == palette()[:21].ravel().tolist()
            mask = np.array(image)
        assert mask.shape == (64, 64)
        values = set(np.unique(mask).tolist())
        assert values <= {*range(21), 255} and 255 in values
        labels = image_labels(voc / f"Annotations/{name}.xml")
        assert values - {0, 255} == set((np.flatnonzero(labels) + 1).tolist())


def test_void_is_one_pixel_of_background_around_objects():
    mask = np.zeros((7, 7), np.uint8)
    mask[2:5, 3] = 9
    ringed = mini.with_void(mask)
    np.testing.assert_array_equal(ringed == 9, mask == 9)
    assert (ringed == 255).sum() == 8
    assert ringed[3, 1] == 0 and ringed[1, 2] == 0


def test_what_is_there_is_neither_drawn_again_nor_deleted(tmp_path):
    killed = tmp_path / ".data-making-1"
    killed.mkdir()
    os.utime(killed, (1, 1))
    root = make_mini(tmp_path / "data", **FEW)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]  # nothing left behind
    before = (root / "mini.json").stat()
    make_mini(root, **FEW)
    assert (root / "mini.json").stat() == before
    refuses("holds other drawings: delete it", make_mini, root, **{**FEW, "n_class": 2})
    refuses("what make-mini did not write: choose another", make_mini, tmp_path)
    assert (root / "mini.json").stat() == before
    (tmp_path / "file").touch()
    refuses("cannot write .*file/x", make_mini, tmp_path / "file/x", **FEW)


def test_two_at_once_give_the_same_data(tmp_path, monkeypatch):
    """Who is slower finds what it would have drawn."""
    root, write = tmp_path / "data", mini._write_all

    def overtaken(*given):
        monkeypatch.setattr(mini, "_write_all", write)
        make_mini(root, **FEW)
        write(*given)

    monkeypatch.setattr(mini, "_write_all", overtaken)
    assert make_mini(root, **FEW) == root.resolve()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_job_that_fails_is_heard_before_those_that_go_on():
    endless, failed = Future(), Future()
    failed.set_exception(JswsError("the second fails"))
    refuses("the second fails", parallel._first, deque([endless, failed]))


def test_scripts_without_a_main_guard(root, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from data_utils.parallel import in_parallel\n"
        "print(sum(in_parallel(abs, range(9), workers=2)))\n"
    )
    how = {"env": {**os.environ, "PYTHONPATH": str(root)}, "capture_output": True}
    done = subprocess.run([sys.executable, str(script)], text=True, **how)
    assert "put a script of yours behind" in done.stderr


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "_write_one", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_mini(tmp_path / "data", **SMALL)
    assert not list(tmp_path.iterdir())


# --- drawings ------------------------------------------------------------------------


def test_every_drawing_is_in_the_font_and_drawn_once():
    tables = [a + b for a, b in openmoji.VOC_DRAWINGS.values()]
    tables += openmoji.OUTSIDE_DRAWINGS.values()
    characters = "".join(tables)
    assert len(set(characters)) == len(characters) >= 300
    for character in characters:
        glyph = openmoji.render_glyph(character)
        solid = np.asarray(glyph)[..., 3] >= 128
        assert max(glyph.size) > 50 and solid.mean() > 0.1, character
    refuses(r"U\+0F00", openmoji.render_glyph, "\u0f00")


def test_held_out_drawings_appear_in_validation_only(class_scenes, saliency_scenes):
    held_out = {c for _, kept in openmoji.VOC_DRAWINGS.values() for c in kept}
    test = [render(0, "test", k, size=64) for k in range(50)]
    for scene in (*class_scenes, *saliency_scenes, *test):
        assert not held_out & {item.character for item in scene.items}
    val = [render(0, "val", k, size=64) for k in range(60)]
    seen = {item.character for scene in val for item in scene.items}
    assert len(seen & held_out) >= 5
    assert seen - held_out


def test_pretraining_pictures(monkeypatch):
    asked = Mock(wraps=openmoji.drawings)
    monkeypatch.setattr(scenes, "drawings", asked)
    images, targets = pretraining_images(60, size=48)
    assert (images.shape, images.dtype) == ((60, 48, 48, 3), np.uint8)
    assert targets.dtype == np.int64
    assert asked.mock_calls == [call(openmoji.CATEGORIES[t]) for t in targets]
    assert len(set(targets.tolist())) > 30
    other, _ = pretraining_images(60, size=48, split="pretrain_val")
    assert (other != images).any(axis=(1, 2, 3)).all()


# --- scenes --------------------------------------------------------------------------


def test_class_scenes_look_like_voc(class_scenes):
    labels = np.stack([scene.labels for scene in class_scenes])
    assert (labels.sum(0) > 0).all(), "every category occurs"
    assert labels.sum(0).argmax() == VOC_CLASSES.index("person") - 1
    several = (labels.sum(1) > 1).mean()
    assert 0.2 < several < 0.5
    assert (labels.sum(1) >= 1).all()


def test_what_is_labelled_is_what_shows(class_scenes):
    for scene in class_scenes:
        assert scene.labels.shape == (20,)
        present = np.flatnonzero(np.bincount(scene.class_mask.ravel(), minlength=21))
        assert set(present) - {0} == set(np.flatnonzero(scene.labels) + 1)
        for name in {item.category for item in scene.items}:
            pixels = (scene.class_mask == VOC_CLASSES.index(name)).sum()
            shown = sum(i.visible for i in scene.items if i.category == name)
            assert pixels == shown > 0


def test_training_mask_is_the_mask_of_the_image_on_disk(mini_data):
    k = 4
    voc = mini_data / "VOCdevkit/VOC2012"
    name = image_id("train_aug", k)
    mask = mini.render_training_mask(0, k, size=64)
    labels = image_labels(voc / f"Annotations/{name}.xml")
    assert set(np.unique(mask)) - {0} == set(np.flatnonzero(labels) + 1)
    with Image.open(voc / f"JPEGImages/{name}.jpg") as image:
        error = np.abs(np.int16(image) - render(0, "train_aug", k, size=64).image)
    assert error.mean() < 8  # JPEG


def test_hidden_objects_are_neither_drawn_nor_labelled():
    def layer(rows):
        alpha = np.zeros((96, 96), np.float32)
        alpha[rows, 20:60] = 1
        return scenes._Layer("dog", "🐕", np.zeros((96, 96, 3)), alpha, 0.5, False)

    back, front = layer(slice(40, 52)), layer(slice(43, 80))
    shown = scenes._visible([back, front], 96)
    assert [layer for layer, _ in shown] == [front]  # a quarter of `back` is seen
    shown = scenes._visible([layer(slice(38, 52)), front], 96)
    assert [int(seen.sum()) for _, seen in shown] == [5 * 40, 37 * 40]
    counts = [len(class_scene(np.random.default_rng(k), 64).items) for k in range(120)]
    assert min(counts) >= 1 and max(counts) == 3


def test_salient_objects_are_large_and_the_others_are_not(saliency_scenes):
    others: list[Item] = []
    for scene in saliency_scenes:
        salient = [item for item in scene.items if item.salient]
        assert 1 <= len(salient) <= 2
        assert scene.saliency_mask.sum() == sum(item.visible for item in salient)
        others += [item for item in scene.items if not item.salient]
        rest = (scene.class_mask > 0) & ~scene.saliency_mask
        voc = [i for i in scene.items if not i.salient and i.category in VOC_CLASSES]
        assert rest.sum() == sum(item.visible for item in voc)
    assert len(others) > 100
    rare = np.mean([item.category in RARELY_SALIENT for item in others])
    assert rare > 0.7
    salient = [i for s in saliency_scenes for i in s.items if i.salient]
    assert np.mean([item.category in RARELY_SALIENT for item in salient]) < 0.08
    outside = {i.category for i in salient} - set(VOC_CLASSES)
    assert len(outside) >= 40
    sizes = [np.median([i.visible for i in group]) for group in (salient, others)]
    assert sizes[0] > 3 * sizes[1]


# --- VOC's files ---------------------------------------------------------------------


def test_palette_is_vocs():
    colours = palette()
    assert (colours.shape, colours.dtype) == ((256, 3), np.uint8)
    assert colours[1].tolist() == [128, 0, 0]
    assert colours[15].tolist() == [192, 128, 128]
    assert colours[20].tolist() == [0, 64, 128]
    assert colours[255].tolist() == [224, 224, 192]


def test_bad_voc_files(tmp_path):
    refuses("is no file", image_labels, tmp_path / "a.xml")
    for text, words in (
        ("<annotation><object>", r"b\.xml.*not valid XML"),
        ("<annotation><object><name>zebra</name></object></annotation>", "'zebra'"),
        ("<annotation/>", "no <object>"),
    ):
        (tmp_path / "b.xml").write_text(text)
        refuses(words, image_labels, tmp_path / "b.xml")
    ids = tmp_path / "list.txt"
    refuses("is no file", read_ids, ids)
    ids.write_text("\n")
    refuses("empty", read_ids, ids)
    ids.write_text("2007_000032\n/JPEGImages/2007_000039.jpg /x/2007_000039.png\n")
    assert read_ids(ids) == ["2007_000032", "2007_000039"]
    refuses(r"2 missing image.*2007_000032\.jpg", read_ids, ids, image_dir=tmp_path)
    for values in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)):
        with pytest.raises((ValueError, TypeError)):
            write_palette_png(tmp_path / "x.png", values)
    assert not (tmp_path / "x.png").exists()
