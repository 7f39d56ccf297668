"""PASCAL VOC 2012: class names, palette, id lists, image labels and label PNGs."""

import json
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_utils.errors import JswsError
from data_utils.files import read_bytes, read_text, write_png

VOC_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable "
    "dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
NUM_CLASSES = 20  # C in the paper: background is not counted
# Below a data root: VOC's folder; of saliency sets, those of pictures and of masks.
VOC_FOLDER = "VOCdevkit/VOC2012"
SALIENCY_FOLDERS = {
    "saliency": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
    "test": ("ECSSD/images", "ECSSD/ground_truth_mask"),
}
FETCH = (
    "name the data root with --data, or get some: `jsws data download` fetches the "
    "real sets, `jsws data make-mini` draws the embedded ones"
)
VOID = 255  # pixels that no loss and no metric may look at
NAMES_KEY = "jsws categories"  # under which a PNG names them, as a list in JSON


def palette() -> np.ndarray:
    """Return VOC's colour table, (256, 3) uint8.

    The bits of an index are dealt in turn to red, green and blue, each colour
    filling up from its highest bit: neighbouring indices look far apart.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> channel & 1) << 7 - bit).astype(np.uint8)
        index >>= 3
    return colours


def read_ids(list_file: Path | str, *, image_dir: Path | str | None = None) -> list[str]:
    """Read image ids, the first word of each line of `list_file`.

    The `/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png` lines of some
    `train_aug` lists give the same ids. With `image_dir`, every `<id>.jpg` must exist.

    Raises JswsError for a missing or empty list, one that is not UTF-8, one that names an
    image twice, or one that names a missing image.
    """
    list_file = Path(list_file)
    lines = read_text(list_file, advice=FETCH).splitlines()
    ids = [
        Path(words[0]).name.removesuffix(".jpg") for words in map(str.split, lines) if words
    ]
    if not ids:
        raise JswsError(f"{list_file}: the id list is empty; expected an id per line")
    if twice := [i for i, count in Counter(ids).items() if count > 1]:
        raise JswsError(
            f"{list_file}: names {twice[0]} more than once; keep one line of it"
        )
    if image_dir is not None:
        # one directory scan is much quicker than 10,582 calls of stat
        found = set(os.listdir(image_dir)) if Path(image_dir).is_dir() else set()
        missing = [i for i in ids if f"{i}.jpg" not in found]
        if missing:
            raise JswsError(
                f"{list_file}: names {len(missing)} missing image(s), first "
                f"{Path(image_dir) / missing[0]}.jpg; add them or shorten the list"
            )
    return ids


def image_labels(xml_path: Path | str) -> np.ndarray:
    """Return the image labels t of one annotation, (20,) float32 multi-hot.

    Only `<object><name>` is read: never a box, never a mask. Objects marked
    `difficult` count. `labels[i]` belongs to class i + 1, `VOC_CLASSES[i + 1]`.

    Raises JswsError for a missing or malformed file, an unknown name or no object.
    """
    text = read_bytes(xml_path, advice=FETCH)
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, LookupError, ValueError) as error:  # the latter of encodings
        message = f"{xml_path}: not valid XML ({error}); copy it again"
        raise JswsError(message) from None
    names = [str(o.findtext("name", "")).strip() for o in root.iter("object")]
    if not names:
        raise JswsError(f"{xml_path}: no <object>; an image needs at least one label")
    labels = np.zeros(NUM_CLASSES, np.float32)
    for name in names:
        if name not in VOC_CLASSES[1:]:
            raise JswsError(f"{xml_path}: {name!r} is none of VOC's categories; mend it")
        labels[VOC_CLASSES.index(name) - 1] = 1
    return labels


def write_palette_png(
    path: Path | str, array: np.ndarray, *, names: Sequence[str] = ()
) -> None:
    """Write class indices, (H, W) uint8, as an 8-bit palette PNG in VOC's colours.

    With `names` of categories 1 to C the file says which they are, so that
    `read_class_mask` finds them wherever they have other numbers.

    Pillow's TypeError or ValueError meets any other shape or dtype.
    """
    image = Image.fromarray(array)
    image.putpalette(palette().tobytes())
    note = PngInfo()
    if names:
        note.add_itxt(NAMES_KEY, json.dumps(list(names)))
    write_png(path, image, pnginfo=note)


def overlay(image: np.ndarray, segmentation: np.ndarray, *, alpha: float = 0.65):
    """Blend categories over a photograph.

    Args:
        image: (H, W, 3) uint8.
        segmentation: (H, W) uint8; background shows the image, 255 shows white.
        alpha: opacity of the categories.

    Returns:
        (H, W, 3) uint8.
    """
    tint = palette()[segmentation].astype(float)
    tint[segmentation == VOID] = 255
    weight = alpha * (segmentation > 0)[..., None]
    return ((1 - weight) * image + weight * tint).round().astype(np.uint8)
