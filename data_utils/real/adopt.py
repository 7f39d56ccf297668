"""Your own pictures, labels and saliency masks in the layout that the readers take.

    OUT/VOCdevkit/VOC2012/   JPEGImages, ImageSets/Segmentation/{train_aug,val}.txt,
                             SegmentationClass, and categories.json: names and image labels
    OUT/DUTS-TR/             saliency training: pictures and masks
    OUT/ECSSD/               saliency test: the pictures of val that have a saliency mask

A picture with a class mask is only measured on: no training set has it. Files are linked
where the file system can, else copied. Pictures that are no JPEG are written anew as JPEG
of quality 95, masks that are no PNG as PNG.
"""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from data_utils import pictures as readers
from data_utils.categories import MOST, NOTE, natural
from data_utils.errors import JswsError
from data_utils.files import (
    read_bytes,
    read_text,
    whole,
    whole_folder,
    write_bytes,
    write_png,
)
from data_utils.parallel import in_parallel
from data_utils.pictures import SUFFIXES, key
from data_utils.voc import SALIENCY_FOLDERS, VOID
from data_utils.voc import VOC_FOLDER as VOC


class Table(NamedTuple):
    """What a CSV file says."""

    categories: tuple[str, ...]
    labels: dict[str, list[str]]  # by key of the picture's name
    lines: dict[str, str]  # where it says so: "labels.csv, line 2: 'a.jpg'"


class Adopted(NamedTuple):
    """What `adopt` made."""

    categories: dict[str, int]  # training pictures that have each
    train: int
    val: int
    saliency: int
    saliency_test: int
    left_out: int  # saliency pictures that are only measured on


# --- the table of labels -------------------------------------------------------------


def read_table(path: Path | str) -> Table:
    """Read the labels of pictures.

    The first line is the header `file,labels`; the labels of a picture are separated by
    `;`. Categories are put in `natural` order. Commas, semicolons and tabs separate
    columns; a byte-order mark and any line ends are accepted.

    Raises:
        JswsError: no such file, not UTF-8, no header, a line without a label, two lines of
            one picture, or a name that is none of a category.
    """
    rows = _rows(path)
    header = [cell.casefold() for cell in rows[0][1]] if rows else []
    if header != ["file", "labels"]:
        raise JswsError(f"{path}: the first line must be the header `file,labels`")
    labels: dict[str, list[str]] = {}
    lines: dict[str, str] = {}
    for line, (name, *cells) in rows[1:]:
        where, picture = f"{path}, line {line}: {name!r}", key(name)
        if picture in lines:
            raise JswsError(f"{where} stands there twice: {lines[picture]}; keep one line")
        if not cells:
            raise JswsError(f"{where} has no label; a picture needs at least one")
        found = [_name(label) for cell in cells for label in cell.split(";")]
        labels[picture], lines[picture] = list(dict.fromkeys(found)), where
    names = {name for found in labels.values() for name in found}
    names = sorted(sorted(names), key=natural)
    _check_names(names, path)
    return Table(tuple(names), labels, lines)


def _rows(path: Path | str) -> list[tuple[int, list[str]]]:
    """The lines that say something, with their numbers."""
    text = read_text(path, advice="give a table of labels")
    delimiter = next((sign for sign in text if sign in ",;\t"), ",")
    reader, rows = csv.reader(text.splitlines(True), delimiter=delimiter, strict=True), []
    try:
        for row in reader:
            if fields := [field.strip() for field in row if field.strip()]:
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise JswsError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def _name(label: str) -> str:
    """One spelling of what looks alike: composed letters, single spaces."""
    return re.sub(" +", " ", unicodedata.normalize("NFC", label.strip()))


def _check_names(names: Sequence[str], path: Path | str):
    """Refuse too many categories, and names that mean no or the same category."""
    if not 1 <= len(names) <= MOST:
        raise JswsError(f"{path} has {len(names)} categories; 1 to {MOST} are possible")
    for name in names:
        if name.casefold() in ("", "background") or not name.isprintable():
            raise JswsError(
                f"{path}: {name!r} is no name of a category; the background needs none, "
                "and an empty name comes from a separator too many"
            )
    for name, other in pairwise(sorted(names, key=str.casefold)):
        if name.casefold() == other.casefold():
            raise JswsError(
                f"{path}: the categories {name!r} and {other!r} differ in no letter; spell "
                "them alike, or rename one"
            )


# --- pictures and masks --------------------------------------------------------------


def _id(path: Path) -> str:
    """A name that id lists can hold: letters, digits, - and _."""
    return re.sub(r"[^\w-]", "_", unicodedata.normalize("NFC", path.stem))


def _files(folder: Path | str | None) -> dict[str, Path]:
    """The pictures of a folder by key, sorted; none of no folder."""
    if folder is None:
        return {}
    found = {key(path.name): path for path in readers.list_pictures(folder).values()}
    if not found:
        raise JswsError(f"no picture in {folder}; looked for {', '.join(SUFFIXES)}")
    ids: dict[str, Path] = {}
    for path in found.values():
        other = ids.setdefault(_id(path).casefold(), path)
        if other is not path:
            raise JswsError(
                f"{path} and {other.name} would both be called {_id(path)}; rename one"
            )
    return found


class _Job(NamedTuple):
    """One picture, with what it is written as."""

    picture: Path
    pictures: tuple[str, ...]  # folders that get it
    saliency: tuple[Path, str] | None  # mask, folder
    mask: Path | None  # of categories


def _take(job: _Job, *, root: Path, names: Sequence[str]) -> bool:
    """Read a picture and its masks, put them into their folders: has its class mask any?"""
    picture, name = readers.read_image(job.picture), _id(job.picture)
    first, *others = [root / folder / f"{name}.jpg" for folder in job.pictures]
    if job.picture.suffix.lower() in (".jpg", ".jpeg"):
        _link(job.picture, first)
    else:
        with whole(first) as file:
            picture.save(file, "JPEG", quality=95, subsampling=0)
    for other in others:
        _link(first, other)
    masks, category = [], False
    if job.saliency:
        masks.append((*job.saliency, partial(readers.read_saliency_mask, graded=True)))
    if job.mask:
        folder = f"{VOC}/SegmentationClass"
        masks.append((job.mask, folder, partial(readers.read_class_mask, names=names)))
    for source, folder, read in masks:
        mask = read(source)
        readers.same_size(picture, mask, source)
        category = source == job.mask and any(mask.histogram()[1:VOID])
        target = root / folder / f"{name}.png"
        if source.suffix.lower() == ".png":
            _link(source, target)
        else:
            write_png(target, mask)
    return category


def _link(source: Path, target: Path):
    """A second name for a file; a copy where the file system has no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        write_bytes(target, source.read_bytes())


def _must_have(found: dict[str, Path], others: dict, what: str):
    """Raise JswsError if one of `found` is not among the others."""
    if lost := [path for key, path in found.items() if key not in others]:
        raise JswsError(f"{lost[0]} {what}")


def adopt(
    pictures: Path,
    table: Path,
    out: Path,
    *,
    saliency_masks: Path | None = None,
    saliency_images: Path | None = None,
    class_masks: Path | None = None,
) -> Adopted:
    """Take over a folder of pictures with a table of labels.

    Args:
        pictures: folder.
        table: CSV file, see `read_table`.
        out: data root to make; it appears only when it is whole.
        saliency_masks: folder of masks for D_s; pixels above half of full scale are
            salient. None: only setting S can be trained.
        saliency_images: the pictures of these masks; default `pictures`. Those that are
            measured on, under whatever name, are left out.
        class_masks: folder of indexed or grey pictures, 0 background, k the k-th category,
            255 void. Pictures that have one are only measured on, and need no label.

    Raises:
        JswsError: `out` exists; or a file is missing, broken, twice there or of another
            size; the message names it.
    """
    out = Path(out)
    if out.exists():
        raise JswsError(f"{out} exists already; choose another folder, or delete it first")
    read, found, truth = read_table(table), _files(pictures), _files(class_masks)
    if lost := [line for picture, line in read.lines.items() if picture not in found]:
        raise JswsError(f"{lost[0]} is no picture in {pictures}")
    train = {picture: path for picture, path in found.items() if picture not in truth}
    _must_have(truth, found, f"has no picture in {pictures}")
    _must_have(train, read.labels, f"has no line in {table}; add one, or move it away")
    shown = Counter(name for picture in train for name in read.labels[picture])
    counts = {name: shown[name] for name in read.categories}
    if empty := [name for name, n in counts.items() if not n]:
        raise JswsError(
            f"{table}: no training picture has the label {empty[0]!r}; remove "
            "the category, or add pictures"
        )
    jobs, left_out = _jobs(found, truth, saliency_masks, saliency_images)
    with whole_folder(out) as root:
        work = partial(_take, root=root, names=read.categories)
        taken = tqdm(in_parallel(work, jobs), "pictures", len(jobs), leave=False)
        measured = list(taken)
        if truth and not any(measured):
            raise JswsError(
                f"no mask in {class_masks} has a category: 1 to {len(read.categories)} "
                f"are categories, {VOID} is void and not counted"
            )
        _write_notes(root / VOC, read, found, {"train_aug": train, "val": truth})
    test = [job.mask is not None for job in jobs if job.saliency]
    saliency = len(test) - sum(test), sum(test)
    return Adopted(counts, len(train), len(truth), *saliency, left_out)


def _write_notes(voc: Path, read: Table, found: dict, lists: dict):
    """Write the id lists that are not empty, and the note of categories and labels."""
    for name, members in lists.items():
        if members:
            text = "".join(f"{_id(found[picture])}\n" for picture in members)
            write_bytes(voc / f"ImageSets/Segmentation/{name}.txt", text.encode())
    note = {
        "categories": read.categories,
        "labels": {_id(found[one]): names for one, names in read.labels.items()},
    }
    write_bytes(voc / NOTE, json.dumps(note, ensure_ascii=False, indent=1).encode())


def _jobs(
    found: dict[str, Path], truth: dict[str, Path], saliency_masks, saliency_images
) -> tuple[list[_Job], int]:
    """What to do with each picture, and how many saliency pictures are measured on.

    Every mask that is needed exists.
    """
    voc, train = f"{VOC}/JPEGImages", {k: p for k, p in found.items() if k not in truth}
    masks, given = _files(saliency_masks), _files(saliency_images)
    if given and not masks:
        raise JswsError("pictures of a saliency set need their masks, too: name the folder")
    others = given
    if given and truth:
        measured = {_contents(found[picture]) for picture in truth}
        others = {k: path for k, path in given.items() if _contents(path) not in measured}
    if masks:
        _must_have(
            others if given else train,
            masks,
            f"has no saliency mask in {saliency_masks}; add it, or name a folder that "
            "holds only pictures with a mask as the saliency images",
        )
    jobs = []
    for picture, path in found.items():
        images, folder = SALIENCY_FOLDERS["test" if picture in truth else "saliency"]
        if not given and picture in masks:
            folders, saliency = (voc, images), (masks[picture], folder)
        else:
            folders, saliency = (voc,), None
        jobs.append(_Job(path, folders, saliency, truth.get(picture)))
    images, folder = SALIENCY_FOLDERS["saliency"]
    for picture, path in others.items():
        jobs.append(_Job(path, (images,), (masks[picture], folder), None))
    return jobs, len(given) - len(others)


def _contents(path: Path) -> bytes:
    """What a file holds, as a digest: the same under any name."""
    return hashlib.sha256(read_bytes(path, advice="give a picture")).digest()
