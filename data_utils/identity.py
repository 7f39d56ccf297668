"""What a training learned from, as a digest: nothing may outlive its inputs.

A list, a label or a picture that is corrected gives another digest, and with it another
run, other resume points and other pseudo labels.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data_utils.categories import NOTE
from data_utils.errors import JswsError
from data_utils.files import read_json, sha256
from data_utils.voc import read_ids

EMBEDDED = "mini.json"  # the note of drawn data


def class_digest(root: Path, voc: str, list_name: str, *, masks: bool = False) -> str:
    """Of the pictures and labels of D_c: a list of the VOC folder under the data root.

    `masks`: of the masks that segmentation is measured on, instead of the labels.

    Raises:
        JswsError: the list, a picture, an annotation or a mask is missing.
    """
    folder = root / voc
    lists, images = folder / "ImageSets" / "Segmentation", folder / "JPEGImages"
    ids = read_ids(lists / f"{list_name}.txt", image_dir=images)
    own = [folder / NOTE] if (folder / NOTE).is_file() else []
    if masks:
        labels = [folder / f"SegmentationClass/{i}.png" for i in ids] + own
    else:
        labels = own or [folder / "Annotations" / f"{i}.xml" for i in ids]
    paths = [images / f"{i}.jpg" for i in ids] + labels
    return _digest(paths, dated=drawn(root) is None)


def saliency_digest(root: Path, images: str, masks: str, id_list: str | None = None) -> str:
    """Of the pictures and masks of D_s; folders and list are under the data root.

    Raises:
        JswsError: as `saliency_pairs` and `read_ids` do.
    """
    from data_utils.datasets import saliency_pairs  # brings torch; workers do without

    ids = read_ids(root / id_list) if id_list else None
    pairs = saliency_pairs(root / images, root / masks, ids=ids)
    paths = [path for pair in pairs for path in pair]
    return _digest(paths, dated=drawn(root) is None)


def folder_digest(folder: Path) -> str:
    """Of the PNGs of a folder, such as finished pseudo labels."""
    return _digest(sorted(folder.glob("*.png")), dated=True)


def _digest(paths: Iterable[Path], *, dated: bool) -> str:
    """A digest of files in their order: names, sizes and dates.

    Drawn data are the same whenever they are drawn: not dates, but contents.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, "no such file")
            found = path.stat()
            entry = [path.name, found.st_size, found.st_mtime_ns if dated else None]
            if not dated:
                entry.append(_contents(path, found.st_size, found.st_mtime_ns))
        except OSError as error:
            raise JswsError(f"{path} cannot be read ({error.strerror})") from None
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:16]


@cache
def _contents(path: Path, size: int, date: int) -> str:
    """The digest of a file; taken anew where its size or date is another."""
    return sha256(path)


def drawn(root: Path) -> dict | None:
    """What the note of embedded data says; None for other data.

    Raises:
        JswsError: the note is damaged.
    """
    note = root / EMBEDDED
    if not os.path.lexists(note):
        return None
    advice = f"delete {root}, then `jsws data make-mini`"
    found = read_json(note, "parameters", advice=advice)
    made = found["parameters"]
    try:
        counts = [made["images"][s] for s in ("train_aug", "val", "saliency", "test")]
        numbers = [made["seed"] + 1, made["size"], *counts]
        right = all(type(n) is int and n > 0 for n in numbers)
        right &= all(isinstance(one, str) for one in found.get("contents", {}).values())
    except (KeyError, TypeError, IndexError, AttributeError):
        right = False
    if not right:
        raise JswsError(f"{note} does not say how the data were drawn; {advice}")
    return found
