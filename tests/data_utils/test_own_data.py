"""`jsws data adopt`: other pictures, labels and categories, and the whole way with them."""

import csv
import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers import jsws, refuses
from PIL import Image, ImageDraw, ImageOps

from data_utils.categories import all_labels, categories
from data_utils.datasets import Augmentation, ClassificationSet
from data_utils.pictures import read_class_mask, read_image
from data_utils.real.adopt import adopt, read_table
from data_utils.real.check import check
from data_utils.voc import VOC_CLASSES, palette, read_ids
from jsws_lib.cli import main as cli
from jsws_lib.config import STEADY
from jsws_lib.engine import checkpoints, runs
from jsws_lib.engine.checkpoints import load_ssnet, read_weights
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.engine.runs import Run, train_or_load
from jsws_lib.experiments.pages import confusion_page, write_pages
from jsws_lib.metrics import ConfusionMatrix
from jsws_lib.ssnet import build_ssnet

NAMES = ("cross", "disc", "frame")  # sorted, as a table of names sorts them
INKS = {"cross": (40, 60, 230), "disc": (230, 50, 40), "frame": (30, 190, 60)}
SIZE = 56
TRAIN, VAL = 30, 6


def draw(k: int) -> tuple[Image.Image, list[str], np.ndarray]:
    """Picture k, its labels, and its categories (SIZE, SIZE) uint8."""
    rng = np.random.default_rng(k)
    noise = rng.normal(0, 9, (SIZE, SIZE, 3)) + rng.integers(90, 170, 3)
    picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    truth = Image.new("L", picture.size)
    names = [NAMES[k % 3]] + ([NAMES[(k // 3) % 3]] if k % 4 == 0 else [])
    names = list(dict.fromkeys(names))
    for at, name in enumerate(names):
        x, y = int(rng.integers(3, 9)) + 26 * at, int(rng.integers(4, 28))
        for canvas, ink in ((picture, INKS[name]), (truth, NAMES.index(name) + 1)):
            pen = ImageDraw.Draw(canvas)
            if name == "disc":
                pen.ellipse((x, y, x + 20, y + 20), fill=ink)
            elif name == "frame":
                pen.rectangle((x, y, x + 20, y + 20), outline=ink, width=6)
            else:
                pen.line((x + 10, y, x + 10, y + 20), ink, width=7)
                pen.line((x, y + 10, x + 20, y + 10), ink, width=7)
    return picture, names, np.asarray(truth)


def make_folder(root: Path) -> Path:
    """`photos`, `labels.csv`, `masks` and `truth`, as somebody might have them."""
    for name in ("photos", "masks", "truth"):
        (root / name).mkdir(parents=True)
    lines = ["file,labels"]
    for k in range(TRAIN + VAL):
        picture, labels, truth = draw(k)
        name = f"IMG {k:02d}" + (".PNG" if k == 1 else ".JPG" if k == 2 else ".jpg")
        picture.save(root / "photos" / name, quality=95)
        Image.fromarray((truth > 0).astype(np.uint8) * 255).save(
            root / "masks" / f"IMG {k:02d}.png"
        )
        if k < TRAIN:
            lines.append(f"{name},{';'.join(labels)}")
        else:
            Image.fromarray(truth).save(root / "truth" / f"IMG {k:02d}.png")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """The folder, and what was adopted from it in `data/mine`."""
    root = make_folder(tmp_path_factory.mktemp("own"))
    take(root)
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of its own, that a test may damage."""
    return make_folder(tmp_path)


def take(root: Path, **more):
    given = dict(saliency_masks=root / "masks", class_masks=root / "truth") | more
    return adopt(root / "photos", root / "labels.csv", root / "data" / "mine", **given)


@pytest.fixture
def small(tiny, world):
    """The mini profile on adopted data: 48 px, few steps."""
    return replace(tiny, name="small", data=world / "data/mine", size=48)


# --- the whole way -------------------------------------------------------------------

SMALL = {
    "train stage1": "--profile mini --size 48 --steps 60 --batch 8",
    "train stage2": "--profile mini --size 48 --steps 6 --batch 4",
    "pseudo-label": "--profile mini --processes 0",
}


def commands() -> list[list[str]]:
    """What docs/own_data.md says to type, with the settings of a test."""
    page = Path(__file__).parents[2] / "docs" / "own_data.md"
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M))
    lines = [
        re.sub(r"  +# .*", "", line) for line in blocks.replace("\\\n", " ").splitlines()
    ]
    found = []
    for line in filter(None, lines):
        for start, more in SMALL.items():
            if line.startswith(f"jsws {start} "):
                line = line.replace("--profile laptop", more)
        found.append(shlex.split(line))
    return found


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Every command of the page has run in one folder; give that and what they said."""
    root = make_folder(tmp_path_factory.mktemp("page"))
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("JSWS_RUNS", str(root / "runs"))
        patch.setenv("TQDM_DISABLE", "1")
        for name in ("JSWS_PROFILE", "JSWS_DATA", "JSWS_TRAIN"):
            patch.delenv(name, raising=False)
        for words in commands():
            said[" ".join(words[1:3])] = run(*words[1:])
    return root, said


def run(*words) -> str:
    """One command in this process; what it printed."""
    done = jsws(*words)
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.stdout


def test_adopting_says_what_there_is(walked):
    wanted = {"data adopt", "train stage1", "train stage2", "evaluate segmentation"}
    assert wanted < walked[1].keys()
    said = walked[1]["data adopt"]
    assert f"{TRAIN} pictures to train on, {VAL} to measure on" in said
    assert f"saliency masks: {TRAIN} and {VAL}" in said
    rows = re.findall(r"^ +(\d) (\w+): (\d+)$", said, re.M)
    assert [row[:2] for row in rows] == [("1", "cross"), ("2", "disc"), ("3", "frame")]
    labels = [draw(k)[1] for k in range(TRAIN)]
    assert [int(row[2]) for row in rows] == [sum(n in one for one in labels) for n in NAMES]


def test_check_looks_at_adopted_data(folder):
    take(folder)
    data = folder / "data/mine"
    found = {verdict.name: verdict for verdict in check(data)}
    assert set(found) == {"DUTS-TR", "ECSSD", "VOC2012 train_aug", "VOC2012 val"}
    assert all(v.state == "ok" and v.published is None for v in found.values())
    voc = data / "VOCdevkit/VOC2012"
    one = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")[0]
    note = json.loads((voc / "categories.json").read_text())
    del note["labels"][one]
    (voc / "categories.json").write_text(json.dumps(note))
    found = {verdict.name: verdict for verdict in check(data)}
    (said,) = found["VOC2012 train_aug"].findings["labels"]
    assert f"picture {one!r} has no label" in said


def test_networks_have_three_categories(walked):
    root, _ = walked
    for stage, name in ((1, "M"), (2, "MM")):
        net, story = load_ssnet(root / f"runs/mine-{name}/weights.safetensors")
        assert story["categories"] == list(NAMES) and net.stage == stage


def test_it_learns(walked):
    """Both losses fall, and pseudo labels find more than half of what is there."""
    root, _ = walked
    history = read_weights(root / "runs/mine-M/weights.safetensors")[1]["history"]
    for loss in ("L_c", "L_s1"):
        start, end = (
            np.mean([r[loss] for r in part]) for part in (history[:5], history[-5:])
        )
        assert end < 0.6 * start, (loss, start, end)
    right = np.zeros(2)
    for k in range(TRAIN):
        path = root / f"runs/mine-pseudo/IMG_{k:02d}.png"
        made = np.asarray(read_class_mask(path, names=NAMES))
        _, names, truth = draw(k)
        assert set(np.unique(made)) <= {0, *(NAMES.index(n) + 1 for n in names)}
        right += (made == truth)[truth > 0].sum(), (truth > 0).sum()
    assert right[0] > 0.5 * right[1], right


def test_predictions_carry_the_names(walked):
    root, said = walked
    ids = read_ids(root / "data/mine/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt")
    assert ids == [f"IMG_{k}" for k in range(TRAIN, TRAIN + VAL)]
    plain = root / "predictions"
    for name in ids:
        made = read_class_mask(plain / f"segmentation/{name}.png", names=NAMES)
        assert made.size == (SIZE, SIZE)
    for k in range(TRAIN + VAL):  # whatever the case of their suffix
        for kind in ("", "_saliency", "_overlay"):
            assert (root / f"pictures/IMG {k:02d}{kind}.png").is_file()
    rows = list(csv.reader((plain / "categories.csv").open()))
    assert [" ".join(row[:2]) for row in rows] == [
        "value category",
        *(f"{k} {name}" for k, name in enumerate(("background", *NAMES))),
    ]
    assert rows[2][2] == "#{:02x}{:02x}{:02x}".format(*palette()[1])
    words = said["evaluate segmentation"]
    assert [line.split()[0] for line in words.splitlines()[:4]] == ["background", *NAMES]
    assert "aeroplane" not in words
    assert "miou" in said["evaluate network"] and "max_f" in said["evaluate network"]


def test_json_of_evaluate_segmentation(walked):
    root, _ = walked
    truth = root / "data/mine/VOCdevkit/VOC2012/SegmentationClass"
    (root / "linked").symlink_to(truth)
    for gt in (truth, root / "linked"):
        words = ["evaluate", "segmentation", "--pred", truth, "--gt", gt, "--json"]
        record = json.loads(run(*words).splitlines()[-1])
        assert record["categories"] == ["background", *NAMES]
        assert record["iou"] == [1, 1, 1, 1] and record["miou"] == 1


# --- the folders ---------------------------------------------------------------------


def test_the_layout(world):
    root = world / "data/mine"
    voc = root / "VOCdevkit/VOC2012"
    assert categories(voc) == NAMES
    ids = read_ids(
        voc / "ImageSets/Segmentation/train_aug.txt", image_dir=voc / "JPEGImages"
    )
    assert ids == [f"IMG_{k:02d}" for k in range(TRAIN)]
    labels = all_labels(voc, ids)
    assert labels.shape == (TRAIN, 3) and labels.dtype == np.float32
    for k, row in enumerate(labels):
        assert {NAMES[i] for i in np.flatnonzero(row)} == set(draw(k)[1])
    assert {p.stem for p in (root / "DUTS-TR/DUTS-TR-Image").iterdir()} == set(ids)
    assert {p.stem for p in (root / "DUTS-TR/DUTS-TR-Mask").iterdir()} == set(ids)
    held = {f"IMG_{k}" for k in range(TRAIN, TRAIN + VAL)}
    for name in ("ECSSD/images", "ECSSD/ground_truth_mask"):
        assert {p.stem for p in (root / name).iterdir()} == held
    assert {p.stem for p in (voc / "SegmentationClass").iterdir()} == held
    assert not any(p.suffix == ".tmp" for p in root.rglob("*"))
    assert not list((world / "data").glob(".mine*"))


def test_pictures_are_what_they_were(world):
    """JPEGs are linked, bit by bit; a PNG is written as a JPEG that looks the same."""
    images = world / "data/mine/VOCdevkit/VOC2012/JPEGImages"
    for k in (0, 2, TRAIN):
        source = next((world / "photos").glob(f"IMG {k:02d}.*"))
        assert (images / f"IMG_{k:02d}.jpg").read_bytes() == source.read_bytes()
    with Image.open(images / "IMG_01.jpg") as made:
        assert made.format == "JPEG"
        close = np.abs(np.asarray(made).astype(int) - np.asarray(draw(1)[0]))
    assert close.mean() < 4  # of noise, which JPEG likes least


def test_pseudo_labels_of_other_data_are_refused(world, tmp_path):
    voc = world / "data/mine/VOCdevkit/VOC2012"
    for name in read_ids(voc / "ImageSets/Segmentation/train_aug.txt"):
        Image.new("L", (SIZE, SIZE), 4).save(tmp_path / f"{name}.png")
    data = ClassificationSet(voc, augmentation=Augmentation(32), pseudo_labels=tmp_path)
    refuses("holds the value 4; a VOC mask holds 0 to 3", lambda: data[0, 0])


def test_a_camera_held_sideways(folder):
    """A picture that says it lies on its side is read upright, as its mask is drawn."""
    path = folder / "photos/IMG 00.jpg"
    picture = Image.new("RGB", (60, 40), "grey")
    picture.paste("red", (0, 0, 20, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif, quality=95)
    refuses("00.png is 56 x 56 px but its image is 40 x 60", take, folder)
    Image.new("L", (40, 60), 255).save(folder / "masks/IMG 00.png")
    take(folder)
    for made in (folder / "data/mine").rglob("IMG_00.jpg"):
        upright = ImageOps.exif_transpose(Image.open(path))
        np.testing.assert_array_equal(read_image(made), upright)


def test_another_saliency_set(folder, tmp_path):
    """D_s need not show the categories: its own pictures, its own masks."""
    images, masks = tmp_path / "other", tmp_path / "other masks"
    for place, suffix in ((images, "png"), (masks, "jpg")):
        place.mkdir()
        for k in range(3):
            Image.new("RGB", (20, 30), "white").save(place / f"{k}.{suffix}")
    made = take(folder, saliency_images=images, saliency_masks=masks)
    assert made.saliency == 3 and made.saliency_test == 0
    masks = sorted((folder / "data/mine/DUTS-TR/DUTS-TR-Mask").iterdir())
    assert [p.name for p in masks] == ["0.png", "1.png", "2.png"]
    with Image.open(masks[0]) as mask:
        assert mask.mode == "L"
    assert not (folder / "data/mine/ECSSD").exists()


def test_measured_pictures_are_in_no_training_set(folder, tmp_path):
    """Though the saliency pictures have them: in the same folder, or copied and renamed."""
    copies, out = tmp_path / "copies", folder / "data/mine"
    shutil.copytree(folder / "photos", copies)
    (copies / "IMG 31.jpg").rename(copies / "another.jpg")
    given = (folder / "photos", folder / "labels.csv", "--class-masks", folder / "truth")
    given += ("--saliency-masks", folder / "masks", "--out", out, "--saliency-images")
    for images in (folder / "photos", copies):
        shutil.rmtree(out, ignore_errors=True)
        said = run("data", "adopt", *given, images)
        assert f"saliency masks: {TRAIN} and 0" in said
        assert f"pictures left out, for they are only measured on: {VAL}" in said
        names = {path.stem for path in (out / "DUTS-TR/DUTS-TR-Image").iterdir()}
        assert names == {f"IMG_{k:02d}" for k in range(TRAIN)}


def test_labels_alone(folder):
    made = take(folder, saliency_masks=None)
    assert (made.train, made.val, made.saliency) == (TRAIN, VAL, 0)
    assert not (folder / "data/mine/DUTS-TR").exists()


def test_files_are_copied_where_links_are_impossible(folder, monkeypatch):
    def no_links(*_, **__):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", no_links)
    take(folder)
    path = folder / "data/mine/VOCdevkit/VOC2012/JPEGImages/IMG_00.jpg"
    assert path.read_bytes() == (folder / "photos/IMG 00.jpg").read_bytes()
    assert path.stat().st_nlink == 1


# --- runs and checkpoints ------------------------------------------------------------


def test_the_run_knows_its_labels(folder, small):
    """Other labels or masks of the same pictures are another run."""
    profile = replace(small, data=folder / "data/mine")

    def taken():
        shutil.rmtree(profile.data, ignore_errors=True)
        take(folder)
        return Run("M", profile, STEADY).name

    found, table = [taken()], (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(table.replace("00.jpg,cross", "00.jpg,disc"))
    found.append(taken())
    (folder / "labels.csv").write_text(table)
    Image.new("L", (SIZE, SIZE), 255).save(folder / "masks/IMG 04.png")
    found.append(taken())
    assert len(set(found)) == 3


def test_a_network_of_other_categories_is_refused(small, world, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    net = build_ssnet(1, backbone="densenet_mini", size=48, recipe=STEADY)
    more = {"setting": "M", "recipe": checkpoints.recipe_fields(STEADY)}
    story = checkpoints.describe(net, backbone="densenet_mini", **more)
    path = checkpoints.save_weights(tmp_path / "voc.safetensors", net, story)
    words = "voc.safetensors was trained on other categories: number 1 is 'aeroplane' there"
    words += ", but 'cross' in the data; choose another checkpoint or other data"
    run = Run("MM", small, STEADY, teacher=path, out=tmp_path / "x")
    refuses(words, train_or_load, run)
    few = "knows 20 categories, .* has 3; choose another"
    refuses(few, evaluate, net, profile=small, recipe=STEADY)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("JSWS_DATA", raising=False)
    data = str(world / "data/mine")
    none = r"20 categories \(aeroplane to tvmonitor\) were predicted, and the data have 3"
    for command, refused in (("pseudo-label", words), ("evaluate network", none)):
        words_given = [*command.split(), "--checkpoint", str(path), "--data", data]
        monkeypatch.setattr(sys, "argv", ["jsws", *words_given])
        refuses(refused, cli.app, standalone_mode=False)
    images = small.data / small.voc / "JPEGImages"
    refuses(words, write_pages, images, ["IMG_00"], {"M": path}, tmp_path / "page.png")
    net = build_ssnet(1, backbone="densenet_mini", size=48, recipe=STEADY, categories=3)
    story |= {"categories": ["cross", "ring", "frame"]}
    other = checkpoints.save_weights(tmp_path / "other.safetensors", net, story)
    said = "number 2 is 'ring' there, but 'disc' in the data"
    refuses(said, load_ssnet, other, expect={"categories": NAMES})
    assert load_ssnet(path)[1]["categories"] == list(VOC_CLASSES[1:])  # it does not say


@pytest.mark.parametrize("count", [1, 254])
def test_any_number_of_categories(count):
    net = build_ssnet(
        2, backbone="densenet_mini", size=48, recipe=STEADY, weights=None, categories=count
    ).eval()
    with torch.inference_mode():
        out = net(torch.zeros(1, 3, 48, 48, dtype=torch.uint8))
    assert out.probs.shape == (1, count + 1, 48, 48)
    assert out.class_saliency.shape == (1, count)


def test_tables_and_figures_have_the_names(tmp_path):
    matrix = ConfusionMatrix(3, names=("background", "a cat", "a dog"))
    matrix.update(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]))
    rows = [line.split("  ")[0] for line in str(matrix.compute()).splitlines()[:3]]
    shown = confusion_page(matrix).axes[0].get_xticklabels()
    assert rows == [one.get_text() for one in shown] == ["background", "a cat", "a dog"]
    twenty = [f"kind {k}" for k in range(20)]  # as many as VOC has, but others
    matrix = ConfusionMatrix(21, names=("background", *twenty))
    matrix.update(np.array([3]), np.array([3]))
    assert "kind 2" in str(matrix.compute()) and "bird" not in str(matrix.compute())


def test_a_page_has_the_names(world, tmp_path, monkeypatch):
    from jsws_lib.experiments import pages

    voc, gallery = world / "data/mine/VOCdevkit/VOC2012", Mock(wraps=pages.gallery)
    monkeypatch.setattr(pages, "gallery", gallery)
    (tmp_path / "linked").symlink_to(voc / "JPEGImages")
    images, masks = tmp_path / "linked", voc / "SegmentationClass"
    write_pages(images, ["IMG_30"], {"truth": masks}, tmp_path / "a.png", masks=masks)
    assert tuple(gallery.call_args.kwargs["names"]) == ("background", *NAMES)


# --- tables of labels ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "file,labels\na.jpg,cat;dog\nb.jpg,dog\n",
        "file;labels\na.jpg;cat;dog\nb.jpg;dog\n",  # a spreadsheet's semicolons
        'file;labels\na.jpg;"cat;dog"\nb.jpg;dog\n',
        "file\tlabels\na.jpg\tcat;dog\nb.jpg\tdog\n",
        "file,labels\ra.jpg,cat;dog\rb.jpg,dog",
        "\ufeffFile,labels\r\na.jpg,cat;dog\r\n\r\nb.jpg,dog\r\n",
        " file , Labels ,\n A.JPG , cat ; dog ,\n b.png ,dog;dog\n",
    ],
)
def test_tables_that_say_the_same(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode())
    table = read_table(path)
    assert table.categories == ("cat", "dog")
    assert table.labels == {"a": ["cat", "dog"], "b": ["dog"]}


def test_one_category_in_two_spellings(tmp_path):
    text = "file,labels\na.jpg,caf\u00e9;big  cat\nb.jpg,big cat;cafe\u0301\n"
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "labels.csv")
    assert table.categories == ("big cat", "caf\u00e9")
    assert table.labels["b"] == ["big cat", "caf\u00e9"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("12;1;2", "1 2 12"),
        ("b10;B2;a", "a B2 b10"),
        ("Zebra;ape;10 x;9 x", "9 x;10 x;ape;Zebra"),
    ],
)
def test_names_are_sorted_as_people_do(tmp_path, names, expected):
    (tmp_path / "labels.csv").write_text(f"file,labels\na.jpg,{names}\n")
    found = read_table(tmp_path / "labels.csv").categories
    assert list(found) == expected.split(";" if ";" in expected else None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the first line must be the header"),
        ("a.jpg,cat\n", "the first line must be the header"),
        ("file,cat,dog\na.jpg,1,0\n", "the first line must be the header"),
        ("file,labels\n", "has 0 categories"),
        ("file,labels\na.jpg,cat\nb.jpg,\n", "line 3: 'b.jpg' has no label"),
        ("file,labels\na.jpg,cat;\n", "'' is no name of a category"),
        ("file,labels\na.jpg,cat\na.jpg,dog\n", "line 3: 'a.jpg' stands there twice"),
        ("file,labels\na.jpg,Cat\nb.jpg,cat\n", "'Cat' and 'cat' differ in no letter"),
        ("file,labels\na.jpg,background\n", "'background' is no name of a category"),
        (
            "file,labels\n" + "".join(f"{k}.jpg,{k}\n" for k in range(255)),
            "has 255 categories; 1 to 254 are possible",
        ),
        ('file,labels\na.jpg,"cat\n', "line 2: unexpected end of data"),
        ('file,labels\na.jpg,"cat\nb.jpg,dog\nc.jpg,"cat"\n', "line 4: "),
        ('file,labels\na.jpg,"cat\nb.jpg,dog"\nc.jpg,cat\n', "is no name of a category"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, words):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert str(path) in refuses(re.escape(words), read_table, path)


def test_tables_that_cannot_be_read(tmp_path):
    refuses("is no file", read_table, tmp_path / "nowhere.csv")
    (tmp_path / "latin.csv").write_bytes("file,labels\na.jpg,Bär\n".encode("latin-1"))
    refuses("is not UTF-8 text; save it", read_table, tmp_path / "latin.csv")


# --- mistakes in folders -------------------------------------------------------------


def add_line(folder, line):
    with (folder / "labels.csv").open("a") as table:
        table.write(line + "\n")


def flat(place, *, size=(SIZE, SIZE), value=0):
    """A mistake: a picture of one value at this place."""
    return lambda folder: Image.new("L", size, value).save(folder / place)


def never_seen(folder):
    """All training pictures with a frame go, and a measured one has it."""
    lines = (folder / "labels.csv").read_text().splitlines()
    for line in [line for line in lines if "frame" in line]:
        (folder / "photos" / line.partition(",")[0]).unlink()
        lines.remove(line)
    (folder / "labels.csv").write_text("\n".join([*lines, "IMG 32.jpg,frame"]))


def only_void(folder):
    """What a program of one category writes: 255 on it."""
    for path in (folder / "truth").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


# Files that no reader takes: tests/cli/test_bad_files.py.
MISTAKES = {
    "labels.csv, line 32: 'nowhere.jpg' is no picture in ": lambda folder: add_line(
        folder, "nowhere.jpg,disc"
    ),
    "more.jpg has no line in ": flat("photos/more.jpg"),
    "IMG 05.jpg has no saliency mask in ": lambda f: (f / "masks/IMG 05.png").unlink(),
    "truth/IMG 31.png is 9 x 9 px but its image is 56": flat(
        "truth/IMG 31.png", size=(9, 9)
    ),
    "IMG 31.png holds the value 4; a VOC mask holds 0 to 3 and 255": flat(
        "truth/IMG 31.png", value=4
    ),
    "IMG 99.png has no picture in ": flat("truth/IMG 99.png"),
    "have the same name but for suffix and case": flat("photos/img 00.png"),
    "would both be called IMG_00": flat("photos/IMG_00.png"),
    "no training picture has the label 'frame'": never_seen,
    "truth has a category: 1 to 3 are categories, 255 is void": only_void,
    "no picture in ": lambda f: [p.unlink() for p in (f / "photos").iterdir()],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_named_and_leave_nothing(folder, words):
    MISTAKES[words](folder)
    refuses(re.escape(words), take, folder)
    assert not list(folder.glob("data/*"))


def test_nothing_is_overwritten(world, folder):
    refuses("exists already; choose another folder", take, world)
    refuses("no such folder", take, folder, saliency_masks=folder / "nowhere")
    alone = {"saliency_masks": None, "saliency_images": folder / "photos"}
    refuses("need their masks, too: name the folder", take, folder, **alone)
