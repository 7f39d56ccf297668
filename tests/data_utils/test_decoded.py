"""The decoded file: the same crops within a tolerance, whole or absent, never stale."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import refuses
from PIL import Image
from trials import full_disk

from data_utils import decoded as module
from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet
from data_utils.decoded import Decoded
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.config import STEADY, get_profile
from jsws_lib.engine.runs import Run
from jsws_lib.training import training_sets


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Twelve pictures of about 500 px with fine texture, and masks with sharp edges."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for k in range(12):
        w, h = [(500, 375), (375, 500), (400, 300)][k % 3]
        rough = rng.uniform(0, 255, (h // 25, w // 25, 3)).astype(np.uint8)
        image = Image.fromarray(rough).resize((w, h), Image.Resampling.BICUBIC)
        pixels = np.asarray(image) + rng.normal(0, 6, (h, w, 3))
        yy, xx = np.mgrid[:h, :w]
        cx, cy = rng.uniform(0.3, 0.7, 2) * (w, h)
        inside = ((xx - cx) / (w / 5)) ** 2 + ((yy - cy) / (h / 4)) ** 2 < 1
        pixels[inside] = pixels[inside] * 0.3 + 150
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(root / f"images/{k:02}.jpg", quality=95)
        Image.fromarray(inside.astype(np.uint8) * 255).save(root / f"masks/{k:02}.png")
    return root


def saliency(root, cache="decoded", size=256, **augmentation):
    how = {"cache": cache, "seed": 5, "augmentation": Augmentation(size, **augmentation)}
    return SaliencySet(root / "images", root / "masks", **how)


def classes(root, labels=None):
    how = {"augmentation": Augmentation(64), "cache": "decoded", "pseudo_labels": labels}
    return ClassificationSet(root / "VOCdevkit/VOC2012", **how)


@pytest.fixture
def pseudo_labels(mini_data, tmp_path):
    """Write a folder of masks that all show one number."""

    def write(value, **names):
        lists = mini_data / "VOCdevkit/VOC2012/ImageSets/Segmentation"
        for i in read_ids(lists / "train_aug.txt"):
            mask = np.full((64, 64), value, np.uint8)
            write_palette_png(tmp_path / f"{value}/{i}.png", mask, **names)
        return tmp_path / f"{value}"

    return write


def test_crops_are_those_of_the_direct_path(photographs):
    """The same draw gives the same place within half a pixel, and much the same values."""
    direct, fast = (saliency(photographs, cache) for cache in ("none", "decoded"))
    grey, mask = [], []
    for k in range(12):
        for draw in (k, k + 100):
            one, two = direct[k, draw], fast[k, draw]
            assert one["image"].shape == two["image"].shape == (3, 256, 256)
            assert two["image"].is_contiguous() and two["sal_mask"].dtype == torch.uint8
            assert set(two["sal_mask"].unique().tolist()) <= {0, 1}
            grey.append((one["image"].float() - two["image"].float()).abs().mean())
            mask.append((one["sal_mask"] == two["sal_mask"]).float().mean())
    # Texture of 25 px with noise: a shift by one pixel costs more than 4 levels.
    shifted = torch.roll(one["image"], 1, 2).float() - one["image"].float()
    assert np.mean(grey) < 0.8 * shifted.abs().mean(), (np.mean(grey), shifted.abs().mean())
    assert np.mean(mask) > 0.99, np.mean(mask)
    turned = [saliency(photographs, c, rotate=10) for c in ("none", "decoded")]
    assert turned[0][3, 3]["image"].equal(turned[1][3, 3]["image"])  # no slice: the same


def test_numbers_of_other_categories_are_not_taken_over(own_data, pseudo_labels):
    """A list of categories in another order gives the same masks other numbers."""
    labels = pseudo_labels(1, names=["cat", "dog"])

    def value(names):
        note = {"categories": names, "labels": {p.stem: ["cat"] for p in labels.iterdir()}}
        path = own_data / "VOCdevkit/VOC2012/categories.json"
        path.write_text(json.dumps(note))
        return classes(own_data, labels)[0, 0]["pseudo_label"].max().item()

    assert value(["cat", "dog"]) == 1 and value(["dog", "cat"]) == 2


def test_it_is_built_once_and_again_when_a_source_changes(own_data):
    one = classes(own_data)
    (file,) = (one.voc / ".decoded").glob("*[0-9a-f].npy")
    date = file.stat().st_mtime_ns
    classes(own_data)
    assert file.stat().st_mtime_ns == date
    changed = one.voc / "JPEGImages" / f"{one.ids[4]}.jpg"
    Image.new("RGB", (64, 64), (9, 200, 9)).save(changed)
    two = classes(own_data)
    assert abs(int(two[4, 0]["image"][1].float().mean()) - 200) <= 2
    assert not file.exists() and len(list(file.parent.glob("*[0-9a-f].npy"))) == 1


def test_sets_that_share_a_list_do_not_take_each_others_files(own_data, pseudo_labels):
    """Stage 1 and two students with labels of their own, one beside the other."""

    def dates():
        return {p: p.stat().st_mtime_ns for p in (plain.voc / ".decoded").iterdir()}

    plain = classes(own_data)
    students = {value: classes(own_data, pseudo_labels(value)) for value in (3, 7)}
    files = dates()
    assert len(files) == 3 and sum(p.stat().st_size > 24 * 71**2 * 3 for p in files) == 1
    for value, student in students.items():
        sent = pickle.dumps(student)  # what loading processes get: names, no pixels
        sample = pickle.loads(sent)[0, 0]
        assert sample["pseudo_label"].unique().tolist() == [value] and len(sent) < 20_000
        assert sample["pseudo_label"].dtype == torch.int64
        assert sample["image"].equal(plain[0, 0]["image"])
        assert sample["labels"].equal(plain[0, 0]["labels"])
    classes(own_data), classes(own_data, students[3].pseudo_labels)
    assert dates() == files


def test_a_moved_data_root_keeps_its_file(own_data, tmp_path):
    name = classes(own_data)._decoded.images.path.name
    assert classes(own_data.rename(tmp_path / "moved"))._decoded.images.path.name == name
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    assert classes(tmp_path / "link")._decoded.images.path.name == name


@pytest.mark.parametrize("left", [0, 100, None])
@pytest.mark.parametrize("layer", ["images", "masks"])
def test_what_a_power_cut_left(photographs, monkeypatch, tmp_path, left, layer):
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path))
    whole = saliency(photographs)
    expected = whole[11, 0]["image"]
    broken = {"images": whole._decoded.images, "masks": whole._decoded.masks[0]}[layer].path
    data = broken.read_bytes()
    broken.unlink()  # the whole one stays mapped
    if left is not None:
        broken.write_bytes(data[:left])
    assert torch.equal(saliency(photographs)[11, 0]["image"], expected)
    assert broken.read_bytes() == data
    assert torch.equal(whole[11, 0]["image"], expected)


def test_what_other_programs_keep_in_the_folder_stays(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path))
    (tmp_path / ".session.tmp").mkdir()
    others = [tmp_path / name for name in (".thesis.tmp", "images_284_notes.npy")]
    for other in others:
        other.write_text("mine")
    for other in (*others, tmp_path / ".session.tmp"):
        os.utime(other, (1, 1))
    saliency(photographs)
    assert all(other.read_text() == "mine" for other in others)
    assert len(list(tmp_path.glob("images_284_*.npy"))) == 3


def test_a_folder_that_can_only_be_read(photographs, tmp_path, monkeypatch):
    """There, deleting a file that does not exist is an error, too."""
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path))
    saliency(photographs)

    def refuse(*given, **_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(module.np.lib.format, "write_array_header_1_0", refuse)
    monkeypatch.setattr(module.Path, "unlink", refuse)
    saliency(photographs)  # it is there already
    refuses("cannot write .*Read-only.*JSWS_CACHE", saliency, photographs, crop=0.8)


def test_a_disk_that_fills_up(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path))
    with full_disk():
        refuses("cannot write .*JSWS_CACHE", saliency, photographs)
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
from data_utils import datasets, decoded
slow = decoded.decode
def decode(job, *, side):
    time.sleep(.2)
    print("one", flush=True)
    return slow(job, side=side)
decoded.decode = decode
root = Path(sys.argv[1])
datasets.SaliencySet(root / "images", root / "masks", cache="decoded",
                     augmentation=datasets.Augmentation(64))
"""


def test_a_killed_build_leaves_nothing_that_is_read(photographs, tmp_path, root):
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(photographs / name)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    work = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        work.stdout.readline()
    work.send_signal(signal.SIGKILL)
    work.wait(30)
    (left,) = (tmp_path / ".decoded").glob(".*.tmp")
    assert not list((tmp_path / ".decoded").glob("*[0-9a-f].npy"))
    os.utime(left, (1, 1))
    data = saliency(tmp_path, size=64)
    assert data[11, 0]["image"].float().std() > 10 and not left.exists()


def test_what_goes_wrong_is_one_clear_error(photographs, tmp_path, monkeypatch):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for k in range(3):
        shutil.copy(photographs / f"images/{k:02}.jpg", tmp_path / "images")
        Image.new("1", (9, 9)).save(tmp_path / f"masks/{k:02}.png")
    refuses("00.png is 9 x 9 px but its image is 500 x 375", saliency, tmp_path)
    assert len(list((tmp_path / ".decoded").iterdir())) == 1  # the images
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path / "file"))
    refuses("cannot write .*file", saliency, photographs)


def test_decoded_runs_have_a_name_of_their_own(tiny):
    plain = Run("M", tiny, STEADY).name
    assert Run("M", replace(tiny, cache="none"), STEADY).name == plain
    assert Run("M", replace(tiny, cache="decoded"), STEADY).name != plain
    assert get_profile("paper").cache == "decoded"
    (data,) = training_sets(("L_c",), replace(tiny, cache="decoded"), STEADY)
    assert isinstance(data._decoded, Decoded) and len(data._decoded) == len(data)


# --- crops of a stored square ----------------------------------------------------------


def test_an_upright_crop_is_a_slice(monkeypatch):
    square = np.random.default_rng(0).integers(0, 256, (284, 284, 5)).astype(np.uint8)
    for mirror in (False, True):
        draw = (np.array([3, 28]) / 28, 0.0, mirror)
        monkeypatch.setattr(Augmentation, "_draw", lambda self, rng, draw=draw: draw)
        squares = square[..., :3], square[..., 3:4], square[..., 4:]
        image, one, two = Augmentation(256).cut(None, squares)
        expected = square[28:284, 3:259][:, :: -1 if mirror else 1]
        np.testing.assert_array_equal(image, expected[..., :3].transpose(2, 0, 1))
        np.testing.assert_array_equal(one, expected[..., 3])
        np.testing.assert_array_equal(two, expected[..., 4])
        assert image.is_contiguous() and one.is_contiguous()
    assert Augmentation(256).side == 284  # 9/10 of it is 256 to the pixel
