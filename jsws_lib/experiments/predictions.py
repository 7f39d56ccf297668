"""Predictions as files: category maps, saliency maps, and both over the picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_utils.errors import JswsError
from data_utils.files import write_bytes, write_png
from data_utils.pictures import SUFFIXES, list_pictures, renumbering
from data_utils.voc import VOC_CLASSES, overlay, palette, read_ids, write_palette_png
from jsws_lib.inference import Prediction, to_grey

BAND = 256  # rows of a picture that are blended at a time
# Files of a picture: categories, saliency map, overlay.
PLAIN = ("segmentation/{}.png", "saliency/{}.png")
BESIDE = ("{}.png", "{}_saliency.png", "{}_overlay.png")


def numbered(known: Sequence[str], numbers: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of categories as their numbers go, and each of the network's numbers there.

    `known` are the network's; `numbers` is "own", to keep its, or "voc", for VOC's.

    Raises:
        JswsError: VOC has not all of the categories.
    """
    names = tuple(known) if numbers == "own" else VOC_CLASSES[1:]
    if lacks := [name for name in known if name not in names]:
        raise JswsError(
            f"--numbers voc: VOC has no category {lacks[0]!r}; leave the option out"
        )
    return names, renumbering(known, names)


def save_legend(names: Sequence[str], path: Path) -> Path:
    """Write number, name and colour (#rrggbb) of background and categories as CSV."""
    text, colours = io.StringIO(), palette()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["value", "category", "colour"])
    for k, name in enumerate(["background", *names]):
        rows.writerow([k, name, f"#{colours[k].tobytes().hex()}"])
    return write_bytes(path, text.getvalue().encode())


def save_prediction(
    prediction: Prediction,
    image: Image.Image,
    out: Path,
    name: str,
    *,
    names: Sequence[str] = (),
    plain: bool = False,
    saliency: bool = True,
):
    """Write a picture's categories, its saliency map, and the categories over the picture.

    The files are those of `BESIDE` in `out`, with `plain` those of `PLAIN`, for `jsws
    evaluate`, without an overlay. The PNG of categories says their `names`. Without
    `saliency` no map is written: the network's SAM was not trained.
    """
    files = [out / file.format(name) for file in (PLAIN if plain else BESIDE)]
    write_palette_png(files[0], prediction.segmentation, names=names)
    if saliency:
        write_png(files[1], to_grey(prediction.sal_map))
    if plain:
        return
    pixels = np.asarray(image)
    blend = np.empty_like(pixels)
    for k in range(0, len(pixels), BAND):  # floats of a whole picture take gigabytes
        rows = np.s_[k : k + BAND]
        blend[rows] = overlay(pixels[rows], prediction.segmentation[rows])
    write_png(files[2], Image.fromarray(blend))


def find_pictures(given: list[Path], ids: Path | None) -> list[Path]:
    """The pictures that `jsws predict` is asked for: files, or all of folders.

    A file of `ids` takes only `<id>.jpg` of the one folder given.

    Raises:
        JswsError: an empty folder, or an id without its picture.
    """
    if ids:
        if len(given) != 1 or not given[0].is_dir():
            raise JswsError("--list needs one folder of pictures <id>.jpg")
        return [given[0] / f"{i}.jpg" for i in read_ids(ids, image_dir=given[0])]
    files = []
    for path in given:
        inside = [*list_pictures(path).values()] if path.is_dir() else [path]
        if not inside:
            raise JswsError(f"no picture in {path}; looked for {', '.join(SUFFIXES)}")
        files += inside
    if absent := [path for path in files if not path.is_file()]:
        raise JswsError(f"no picture at {absent[0]}")
    return files


def refuse_overwriting(files: list[Path], out: Path, *, plain: bool):
    """Raise JswsError if a result would replace a picture or another result."""
    names = PLAIN if plain else BESIDE
    pictures, source = {file.resolve() for file in files}, {}
    for file in files:
        for name in names:
            target = (out / name.format(file.stem)).resolve()
            if target in pictures:
                raise JswsError(
                    f"the results of {file} would overwrite the picture {target}; "
                    "choose another --out"
                )
            if target in source:
                raise JswsError(
                    f"{source[target]} and {file} would both be predicted into {target}; "
                    "predict them into two folders"
                )
            source[target] = file
