"""Which categories a data set has: VOC's twenty, or those that `jsws data adopt` noted.

The note is one file in the VOC folder, `categories.json`:

    {"categories": ["cat", "dog"], "labels": {"<id>": ["dog"], ...}, "files": "<sha256>"}

Category k of the list is channel k + 1 of the network and pixel value k + 1 of a mask; 0
is the background.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_utils.errors import JswsError
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


def all_labels(voc: Path | str, ids: Sequence[str]) -> np.ndarray:
    """Image labels t of the pictures `ids`, (N, C) float32 multi-hot.

    From the note, or from the XML annotations if there is none.

    Raises:
        JswsError: the note, an annotation or a picture's labels are missing or broken.
    """
    voc, note = Path(voc), _read(voc)
    if not note:
        return np.stack([image_labels(voc / "Annotations" / f"{i}.xml") for i in ids])
    number = {name: k for k, name in enumerate(note["categories"])}
    labels = np.zeros((len(ids), len(number)), np.float32)
    for row, one in zip(labels, ids, strict=True):
        names = note["labels"].get(one)
        if not names or (unknown := [name for name in names if name not in number]):
            what = f"the unknown label {unknown[0]!r}" if names else "no label"
            raise JswsError(f"{voc / NOTE}: picture {one!r} has {what}; mend the table of "
                            "labels and run `jsws data adopt` again")  # fmt: skip
        row[[number[name] for name in names]] = 1
    return labels


def _read(voc: Path | str) -> dict | None:
    path = Path(voc) / NOTE
    if not path.is_file():
        return None
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if 1 <= len(note["categories"]) <= MOST and isinstance(note["labels"], dict):
            return note
        problem = f"it has {len(note['categories'])} categories, 1 to {MOST} are possible"
    except (ValueError, KeyError, TypeError) as error:
        problem = repr(error)
    raise JswsError(f"{path} is not what `jsws data adopt` wrote ({problem}); run it again")
