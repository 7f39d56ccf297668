"""Readers say what a file means, or refuse it in one sentence that names it."""

import contextlib

import numpy as np
import pytest
from helpers import refuses
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_utils.datasets import saliency_pairs
from data_utils.errors import JswsError
from data_utils.pictures import (
    list_pictures,
    read_class_mask,
    read_image,
    read_saliency_map,
    read_saliency_mask,
)
from data_utils.voc import NAMES_KEY, overlay, palette, write_palette_png
from jsws_lib.experiments.folders import evaluate_saliency_folder
from jsws_lib.experiments.predictions import find_pictures

BOX = np.zeros((12, 16), np.uint8)
BOX[3:9, 4:12] = 1  # what is salient


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def with_alpha(colour, alpha):
    picture = grey(colour).convert("RGBA")
    picture.putalpha(grey(alpha))
    return picture


def indexed(values):
    picture = grey(values)
    picture.putpalette(palette().tobytes())
    return picture


def deep(values):
    return Image.fromarray(np.asarray(values, np.uint16))


def bordered(value, border=255):
    """A category's number inside a thin border of void."""
    mask = BOX * np.uint8(value)
    mask[2, 4:12] = mask[9, 4:12] = border
    return grey(mask)


def lying(picture):
    """As a camera held sideways stores and marks it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture.transpose(Image.Transpose.ROTATE_90), {"exif": exif}


def saved(path, made):
    picture, options = made if isinstance(made, tuple) else (made, {})
    picture.save(path, **options)
    return path


# --- masks ---------------------------------------------------------------------------

SMOOTH = np.clip(np.hypot(*np.mgrid[-6:6, -8:8]) * 30, 0, 255)
READ = {
    "0 and 255": grey(BOX * 255),
    "0 and 1": grey(BOX),
    "one bit": grey(BOX * 255).convert("1"),
    "grey": grey(np.where(BOX, 140, 100)),
    "RGB": grey(BOX * 255).convert("RGB"),
    "opaque": with_alpha(BOX * 255, BOX * 0 + 255),
    "16 bits": deep(np.where(BOX, 65_535, 0)),
    "grey palette": grey(BOX * 255).convert("P"),
    "lying": lying(grey(BOX * 255)),
}


@pytest.mark.parametrize("kind", READ)
def test_saliency_masks_that_are_read(tmp_path, kind):
    path = saved(tmp_path / "a.png", READ[kind])
    found = read_saliency_mask(path)
    assert found.mode == "L"
    np.testing.assert_array_equal(np.asarray(found), BOX)
    if kind != "grey":
        graded = read_saliency_mask(path, graded=True)
        np.testing.assert_array_equal(np.asarray(graded), BOX * 255)


REFUSED = {
    "categories": (grey(BOX * 15), "holds the values 0, 15, as masks of categories do"),
    "void around": (bordered(15), "holds the values 0, 15, 255"),
    "one category": (bordered(1), "holds the values 0, 1, 255"),
    "per cent": (grey(BOX * 100), "holds the values 0, 100"),
    "per cent, void": (bordered(100), "holds the values 0, 100, 255"),
    "two categories": (grey(BOX * ([7] * 8 + [15] * 8)), "holds the values 0, 7, 15"),
    "one dark grade": (grey(BOX * 127), "holds the values 0, 127"),
    "last of VOC": (bordered(20), "holds the values 0, 20, 255"),
    "no grading": (bordered(42, 100), "holds the values 0, 42, 100"),
    "neighbours": (bordered(42, 43), "holds the values 0, 42, 43"),
    "VOC's colours": (indexed(BOX * 15), "is in colour"),
    "coloured": (Image.merge("RGB", [grey(BOX * v) for v in (255, 0, 0)]), "is in colour"),
    "in the alpha": (with_alpha(BOX * 0, BOX * 255), "is transparent in places"),
    "cut out": (with_alpha(BOX * 90, BOX * 255), "is transparent in places"),
    "8 of 16 bits": (deep(BOX * 255), "has 16 bits a pixel, but no value above 255"),
    "1 of 16 bits": (deep(BOX), "has 16 bits a pixel, but no value above 1 of"),
    "floats": (Image.fromarray(BOX.astype(np.float32)), "is of mode F; save it"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_saliency_masks_that_are_refused(tmp_path, kind):
    made, words = REFUSED[kind]
    suffix = "tif" if kind == "floats" else "png"
    path = saved(tmp_path / f"a.{suffix}", made)
    for graded in (False, True):
        said = refuses(words, read_saliency_mask, path, graded=graded)
        assert said.startswith(str(path))


@pytest.mark.parametrize(
    "grades",  # as a number of people gave them, rounded or cut off
    [(0, 42, 106, 255), (0, 64, 85, 127, 255), (0, 21, 255), (0, 42, 106), (0, 51, 102)],
)
def test_graded_masks_are_no_categories(tmp_path, grades):
    values = np.resize(grades, BOX.shape)
    path = saved(tmp_path / "a.png", grey(values))
    np.testing.assert_array_equal(read_saliency_mask(path, graded=True), values)
    np.testing.assert_array_equal(read_saliency_mask(path), values > 127)


def test_soft_masks_and_dark_maps_are_no_categories(tmp_path):
    soft = saved(tmp_path / "soft.png", grey(SMOOTH))
    np.testing.assert_array_equal(read_saliency_mask(soft), SMOOTH.astype(np.uint8) > 127)
    edge = BOX * np.uint8(255)
    edge[3, 4:12] = 90  # one grey value at an edge
    read_saliency_mask(saved(tmp_path / "edge.png", grey(edge)))
    dark = saved(tmp_path / "dark.png", grey(BOX * 90))  # an unsure network's
    assert read_saliency_map(dark).getextrema() == (0, 90)
    for value in (0, 255):
        flat = saved(tmp_path / "flat.png", grey(BOX * 0 + value))
        assert np.unique(read_saliency_mask(flat)).tolist() == [value // 255]


@pytest.mark.parametrize(
    ("name", "made", "words"),
    [
        ("a.png", indexed(BOX * 15), None),
        ("b.png", bordered(15), None),
        ("c.png", lying(indexed(BOX * 15)), None),
        ("d.jpg", grey(BOX * 15), "d.jpg is a JPEG, which changes numbers"),
        ("e.png", deep(BOX * 15), "e.png is a I;16 picture"),
        ("f.png", grey(BOX * 21), "f.png holds the value 21"),
    ],
)
def test_class_masks(tmp_path, name, made, words):
    path = saved(tmp_path / name, made)
    if words:
        refuses(words, read_class_mask, path)
    else:
        np.testing.assert_array_equal(np.asarray(read_class_mask(path)) == 15, BOX)


# --- pictures ------------------------------------------------------------------------

RAMP = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (12, 1))
HIDDEN = np.dstack([RAMP, RAMP, RAMP, BOX * 255])
PLAIN = np.dstack([RAMP] * 3)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (deep(RAMP.astype(int) * 257), PLAIN),
        (deep(RAMP.astype(int) * 256), PLAIN),
        (lying(grey(RAMP)), PLAIN),
        (lying(grey(RAMP).convert("RGB")), PLAIN),
        (Image.fromarray(HIDDEN), np.where(BOX[..., None], PLAIN, 255)),
        (with_alpha(RAMP, BOX * 255).convert("LA"), np.where(BOX[..., None], PLAIN, 255)),
        (with_alpha(RAMP, RAMP * 0 + 255), PLAIN),
    ],
)
def test_pictures_show_what_viewers_show(tmp_path, made, expected):
    found = np.asarray(read_image(saved(tmp_path / "a.png", made)), int)
    assert found.shape == (12, 16, 3) and np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (b"", "cannot be decoded"),
        (b"<html>", "cannot be decoded"),
        (Image.fromarray(RAMP.astype(np.float32)), "is of mode F; save it"),
        (Image.fromarray(RAMP.astype(np.int32)), "is of mode I; save it"),
        (deep(RAMP), "has 16 bits a pixel, but no value above 255"),
        ((grey(RAMP), dict(save_all=True, append_images=[grey(BOX)])), "holds 2 pictures"),
    ],
)
def test_pictures_that_are_refused(tmp_path, made, words):
    path = tmp_path / "a.tif"
    path.write_bytes(made) if isinstance(made, bytes) else saved(path, made)
    assert str(path) in refuses(words, read_image, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_damage_is_one_error(tmp_path, kind):
    """Wherever a byte is wrong: in the pixels, in a camera's notes, in the header."""
    picture, options = lying(grey(RAMP).convert("RGB"))
    picture.save(tmp_path / "whole", kind, **options)
    whole, rng = (tmp_path / "whole").read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 300), 2):
            data[at] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        for read in (read_image, read_saliency_mask, read_class_mask):
            with contextlib.suppress(JswsError):
                read(tmp_path / "a")


# --- folders -------------------------------------------------------------------------


def test_folders_are_listed_alike(tmp_path):
    """By training, measuring and predicting: whatever the suffix and its case."""
    names = ["a.JPG", "b.jpeg", "c.webp", "d.bmp", "e.TIF", "f.png"]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in names:
            grey(BOX * 255).convert("RGB").save(tmp_path / folder / name)
        (tmp_path / folder / "._a.png").write_bytes(b"what a Mac leaves")
        (tmp_path / folder / "notes.txt").touch()
    with pytest.warns(UserWarning, match=r"images: passed over notes.txt; read are \.jpg"):
        assert [p.name for p in list_pictures(tmp_path / "images").values()] == names
    with pytest.warns(UserWarning, match="notes.txt"):
        pairs = saliency_pairs(tmp_path / "images", tmp_path / "masks")
        assert [image.name for image, _ in pairs] == names
        assert [file.name for file in find_pictures([tmp_path / "images"], None)] == names
        scores = evaluate_saliency_folder(tmp_path / "images", tmp_path / "masks")
    assert scores.count == len(names)


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("A.jpg", "a.png"), ("ä.png",) * 2])
def test_two_pictures_of_one_name(tmp_path, names):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for k, name in enumerate(names):
            name = name.replace("ä", "a\u0308" if k else "\xe4")
            grey(BOX * 255).save(tmp_path / folder / name)
    words, images = "have the same name but for suffix and case", tmp_path / "images"
    refuses(words, saliency_pairs, images, tmp_path / "masks")
    refuses(words, evaluate_saliency_folder, images, tmp_path / "masks")
    refuses(words, find_pictures, [images], None)


def test_masks_that_say_what_they_number(tmp_path):
    """Other programs' and other data's numbers are found by name, or refused."""
    values = np.array([[0, 1, 255], [2, 3, 1]], np.uint8)
    write_palette_png(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_class_mask(tmp_path / "a.png"), values)
    write_palette_png(tmp_path / "a.png", values, names=("dog", "Äffchen", "cat"))
    names = ("cat", "horse", "Äffchen", "dog")
    expected = [[0, 4, 255], [3, 1, 4]]
    found = read_class_mask(tmp_path / "a.png", names=names)
    np.testing.assert_array_equal(found, expected)
    words = "a.png shows 'Äffchen', which is none of the 20"
    refuses(words, read_class_mask, tmp_path / "a.png")
    write_palette_png(tmp_path / "b.png", values, names=("dog", "cat"))
    refuses("b.png holds the value 3", read_class_mask, tmp_path / "b.png")
    note = PngInfo()
    note.add_itxt(NAMES_KEY, "[1")
    Image.fromarray(values).save(tmp_path / "c.png", pnginfo=note)
    words = "c.png: its note of categories is damaged"
    refuses(words, read_class_mask, tmp_path / "c.png")


def test_overlay_tints_categories_only():
    image = np.random.default_rng(0).integers(0, 256, (3, 2, 3), np.uint8)
    categories = np.array([[0, 0], [9, 9], [255, 255]], np.uint8)
    blend = overlay(image, categories, alpha=0.5)
    np.testing.assert_array_equal(blend[0], image[0])
    np.testing.assert_array_equal(blend[1], (0.5 * image[1] + 0.5 * palette()[9]).round())
    np.testing.assert_array_equal(overlay(image, categories, alpha=1)[2], 255)
