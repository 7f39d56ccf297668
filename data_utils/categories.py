"""Which categories a data set has: VOC's twenty, or those that `jsws data adopt` noted.

The note is one file in the VOC folder, `categories.json`:

    {"categories": ["cat", "dog"], "labels": {"<id>": ["dog"], ...}}

Category k of the list is channel k + 1 of the network and pixel value k + 1 of a mask; 0
is the background.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_utils.errors import JswsError
from data_utils.files import read_json
from data_utils.voc import VOC_CLASSES, image_labels

NOTE = "categories.json"
MOST = 254  # categories: 0 is the background, 255 is void


def categories(voc: Path | str) -> tuple[str, ...]:
    """The names of categories 1 to C of a VOC folder; VOC's own if it has no note.

    Raises:
        JswsError: the note is broken.
    """
    note = _read(voc)
    return tuple(note["categories"]) if note else VOC_CLASSES[1:]


def voc_of(folder: Path) -> Path:
    """The VOC folder around a folder, or around what it links to if no note is there."""
    near, far = folder.absolute().parent, folder.resolve().parent
    return near if os.path.lexists(near / NOTE) else far


def all_labels(voc: Path | str, ids: Sequence[str]) -> np.ndarray:
    """Image labels t of the pictures `ids`, (N, C) float32 multi-hot.

    From the note, or from the XML annotations if there is none.

    Raises:
        JswsError: the note, an annotation or a picture's labels are missing or broken.
    """
    voc, note = Path(voc), _read(voc)
    if not note:
        return np.stack([image_labels(voc / "Annotations" / f"{i}.xml") for i in ids])
    known = note["categories"]
    labels = np.zeros((len(ids), len(known)), np.float32)
    for row, one in zip(labels, ids, strict=True):
        names = note["labels"].get(one)
        if not names or not isinstance(names, list) or any(n not in known for n in names):
            raise JswsError(
                f"{voc / NOTE}: picture {one!r} has no label, or an unknown one; mend the "
                "table of labels and run `jsws data adopt` again"
            )
        row[[known.index(name) for name in names]] = 1
    return labels


def combined(known: Sequence[str], data: Sequence[str]) -> tuple[str, ...]:
    """The data's categories, then those that only a network or its predictions know.

    Raises:
        JswsError: not one name is in both, or they are too many for a mask.
    """
    if not set(known) & set(data):
        raise JswsError(
            f"{len(known)} categories ({known[0]} to {known[-1]}) were predicted, and the "
            f"data have {len(data)} others ({data[0]} to {data[-1]}): not one name is in "
            "both; choose another checkpoint or other data"
        )
    names = (*data, *(name for name in known if name not in data))
    if len(names) > MOST:
        raise JswsError(f"{len(names)} categories together; a mask can hold {MOST}")
    return names


def natural(name: str) -> list:
    """Sorts names as people do: numbers by size (2 before 12), letters in either case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def _read(voc: Path | str) -> dict | None:
    path = Path(voc) / NOTE
    if not os.path.lexists(path):
        return None
    note = read_json(path, "categories", "labels", advice="run `jsws data adopt` again")
    names = note["categories"]
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    good = good and "" not in names and all(map(str.isprintable, names))
    good = good and 1 <= len(names) == len({*names}) <= MOST
    if good and isinstance(note["labels"], dict):
        return note
    raise JswsError(
        f"{path} does not hold 1 to {MOST} different names of categories, and labels; run "
        "`jsws data adopt` again"
    )
