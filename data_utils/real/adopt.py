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
import io
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from data_utils import pictures as readers
from data_utils.categories import MOST, NOTE, natural
from data_utils.errors import JswsError
from data_utils.files import read_text, whole, whole_folder, write_bytes, write_png
from data_utils.parallel import FEW, in_parallel
from data_utils.pictures import SUFFIXES, key
from data_utils.voc import VOID

VOC = "VOCdevkit/VOC2012"
PAIRS = {  # folders of pictures and saliency masks
    "train": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
    "test": ("ECSSD/images", "ECSSD/ground_truth_mask"),
}


class Table(NamedTuple):
    """What a CSV file says."""

    categories: tuple[str, ...]
    labels: dict[str, list[str]]  # by key of the picture's name
    lines: dict[str, tuple[int, str]]  # where it says so, and the name as written


class Adopted(NamedTuple):
    """What `adopt` made."""

    categories: dict[str, int]  # training pictures that have each
    train: int
    val: int
    saliency: int
    saliency_test: int


# --- the table of labels -------------------------------------------------------------


def read_table(path: Path | str) -> Table:
    """Read the labels of pictures.

    The first line is a header, and its first column is `file`. Then comes either one
    column `labels`, with the names separated by `;`, whose categories are put in `natural`
    order; or a column for each category, in that order, with 1 or 0. Commas, semicolons
    and tabs separate columns; a byte-order mark and any line ends are accepted.

    Raises:
        JswsError: no such file, not UTF-8, no header, or a line that says nothing, says it
            twice or says something else; the message names the line.
    """
    path = Path(path)
    (at, header), *rows = _rows(path)
    columns = header[1:]
    if not columns:
        raise JswsError(
            f"{path}, line {at}: no category; add a column `labels`, or one "
            "column for each category"
        )
    if not rows:
        raise JswsError(f"{path} has a header, but no picture")
    listed = [name.casefold() for name in columns] in (["labels"], ["label"])
    labels: dict[str, list[str]] = {}
    lines: dict[str, tuple[int, str]] = {}
    for line, (name, *cells) in rows:
        where, picture = f"{path}, line {line}", key(name)
        if any(mark in field for field in (name, *cells) for mark in "\r\n"):
            raise JswsError(
                f"{where}: a line break within quotation marks; close the mark "
                "that opens above"
            )
        if picture in lines:
            raise JswsError(
                f"{where}: {name!r} stands in line {lines[picture][0]}, too; keep one "
                "of them"
            )
        found = _listed(cells, where) if listed else _marked(cells, columns, where)
        if not found:
            raise JswsError(f"{where}: {name!r} has no label; a picture needs at least one")
        labels[picture], lines[picture] = found, (line, name)
    if listed:
        names = {name for found in labels.values() for name in found}
        columns = sorted(sorted(names), key=natural)
    _check_names(columns, path)
    return Table(tuple(columns), labels, lines)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that say something, with their numbers; the first is the header."""
    text = read_text(path, advice="give a table of labels")
    first = text.lstrip().partition("\n")[0]
    delimiter = next((sign for sign in first if sign in ",;\t"), ",")
    reader, rows = (
        csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True),
        [],
    )
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            while fields and not fields[-1]:  # empty ones at the end
                fields.pop()
            if fields:
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise JswsError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows or rows[0][1][0].casefold() != "file":
        raise JswsError(
            f"{path}: the first line must be a header whose first column is "
            "`file`, such as `file,labels`"
        )
    return rows


def _listed(cells: list[str], where: str) -> list[str]:
    names = [name.strip() for cell in cells for name in cell.split(";")]
    if "" in names:
        raise JswsError(f"{where}: an empty label; remove the extra separator")
    return list(dict.fromkeys(names))


def _marked(cells: list[str], columns: Sequence[str], where: str) -> list[str]:
    if len(cells) > len(columns):
        raise JswsError(
            f"{where}: {len(cells) + 1} fields, but the header has {len(columns) + 1}"
        )
    found = []
    for name, cell in zip(columns, cells, strict=False):
        if cell not in ("1", "0", "1.0", "0.0", ""):
            raise JswsError(f"{where}: column {name!r} holds {cell!r}; expected 1 or 0")
        if cell.startswith("1"):
            found.append(name)
    return found


def _check_names(names: Sequence[str], path: Path):
    """Refuse too many categories, and names that mean no or the same category."""
    if len(names) > MOST:
        raise JswsError(f"{path} has {len(names)} categories; {MOST} is the most")
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in ("", "background") or not name.isprintable():
            raise JswsError(
                f"{path}: {name!r} is no name of a category; the background "
                "needs no column and no label"
            )
        if other := seen.get(name.casefold()):
            raise JswsError(
                f"{path}: the categories {other!r} and {name!r} differ in no "
                "letter; spell them alike, or rename one"
            )
        seen[name.casefold()] = name


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
    return found


class _Job(NamedTuple):
    """One picture, with what it is written as."""

    picture: Path
    name: str
    pictures: tuple[str, ...]  # folders that get it
    saliency: tuple[Path, str] | None  # mask, folder
    mask: Path | None  # of categories


def _take(job: _Job, *, root: Path, names: Sequence[str]) -> tuple[str, bool]:
    """Check a picture and its masks, and put them into their folders.

    Returns a digest of the files, and whether the class mask has a category.
    """
    picture = readers.read_image(job.picture)
    digest = hashlib.sha256(job.picture.read_bytes())
    first, *others = [root / folder / f"{job.name}.jpg" for folder in job.pictures]
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
        digest.update(source.read_bytes())
        target = root / folder / f"{job.name}.png"
        if source.suffix.lower() == ".png":
            _link(source, target)
        else:
            write_png(target, mask)
    return digest.hexdigest(), category


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
        raise JswsError(
            f"{lost[0]} {what}"
            + (f"; {len(lost) - 1:,} more pictures lack it" if len(lost) > 1 else "")
        )


def adopt(
    pictures: Path,
    table: Path,
    out: Path,
    *,
    saliency_masks: Path | None = None,
    saliency_images: Path | None = None,
    class_masks: Path | None = None,
    workers: int | None = None,
) -> Adopted:
    """Take over a folder of pictures with a table of labels.

    Args:
        pictures: folder.
        table: CSV file, see `read_table`.
        out: data root to make; it appears only when it is whole.
        saliency_masks: folder of masks for D_s; pixels above half of full scale are
            salient. None: only setting S can be trained.
        saliency_images: the pictures of these masks; default `pictures`.
        class_masks: folder of indexed or grey pictures, 0 background, k the k-th category,
            255 void. Pictures that have one are only measured on, and need no label.
        workers: processes; default one per core for more than `FEW` pictures.

    Raises:
        JswsError: `out` exists; or a file is missing, broken, twice there or of another
            size; the message names it.
    """
    out = Path(out)
    if out.exists():
        raise JswsError(f"{out} exists already; choose another folder, or delete it first")
    read, found, truth = read_table(table), _files(pictures), _files(class_masks)
    train = _trained_on(read, found, truth, table=table, pictures=pictures)
    counts = {
        name: sum(name in read.labels[picture] for picture in train)
        for name in read.categories
    }
    if empty := [name for name, n in counts.items() if not n]:
        raise JswsError(
            f"{table}: no training picture has the label {empty[0]!r}; remove "
            "the category, or add pictures"
        )
    jobs = _jobs(found, truth, saliency_masks, saliency_images)
    if workers is None and len(jobs) <= FEW:
        workers = 0
    with whole_folder(out) as root:
        work = partial(_take, root=root, names=read.categories)
        results = in_parallel(work, jobs, workers=workers)
        bar = tqdm(results, total=len(jobs), desc="pictures", leave=False)
        hashes, measured = zip(*bar, strict=True)
        if truth and not any(measured):
            raise JswsError(
                f"no mask in {class_masks} has a category: 1 to {len(read.categories)} "
                f"are categories, {VOID} is void and not counted"
            )
        lists = {"train_aug": train, "val": truth}
        _write_notes(root / VOC, read, found, lists, "".join(hashes))
    test = [job.mask is not None for job in jobs if job.saliency]
    return Adopted(counts, len(train), len(truth), len(test) - sum(test), sum(test))


def _write_notes(voc: Path, read: Table, found: dict, lists: dict, hashes: str):
    """Write the id lists that are not empty, and the note of categories and labels."""
    for name, members in lists.items():
        if members:
            text = "".join(f"{_id(found[picture])}\n" for picture in members)
            write_bytes(voc / f"ImageSets/Segmentation/{name}.txt", text.encode())
    note = {
        "categories": read.categories,
        "labels": {_id(found[one]): names for one, names in read.labels.items()},
        "files": hashlib.sha256(hashes.encode()).hexdigest(),
    }
    write_bytes(voc / NOTE, json.dumps(note, ensure_ascii=False, indent=1).encode())


def _trained_on(
    read: Table, found: dict[str, Path], truth: dict[str, Path], *, table, pictures
) -> dict[str, Path]:
    """The pictures without a class mask; table, pictures and masks fit together."""
    for picture, (line, name) in read.lines.items():
        if picture not in found:
            raise JswsError(
                f"{table}, line {line}: there is no picture {name!r} in {pictures}"
            )
    _must_have(truth, found, f"has no picture in {pictures}")
    train = {picture: path for picture, path in found.items() if picture not in truth}
    _must_have(
        train, read.labels, f"has no line in {table}; add one, or move the picture away"
    )
    if not train:
        raise JswsError(
            f"every picture of {pictures} has a class mask: none is left to train on"
        )
    return train


def _jobs(
    found: dict[str, Path], truth: dict[str, Path], saliency_masks, saliency_images
) -> list[_Job]:
    """What to do with each picture; every mask that is needed exists."""
    voc, train = f"{VOC}/JPEGImages", {k: p for k, p in found.items() if k not in truth}
    masks, others = _files(saliency_masks), _files(saliency_images)
    if others and not masks:
        raise JswsError("pictures of a saliency set need their masks, too: name the folder")
    if masks:
        _must_have(
            others or train,
            masks,
            f"has no saliency mask in {saliency_masks}; add "
            "it, or name a folder that holds only pictures with a mask as the "
            "saliency images",
        )
    jobs = []
    for picture, path in found.items():
        images, folder = PAIRS["test" if picture in truth else "train"]
        if not others and picture in masks:
            folders, saliency = (voc, images), (masks[picture], folder)
        else:
            folders, saliency = (voc,), None
        jobs.append(_Job(path, _id(path), folders, saliency, truth.get(picture)))
    images, folder = PAIRS["train"]
    for picture, path in others.items():
        jobs.append(_Job(path, _id(path), (images,), (masks[picture], folder), None))
    seen: dict[tuple[str, str], Path] = {}
    for job in jobs:
        for folder in job.pictures:
            if other := seen.get((folder, job.name.casefold())):
                raise JswsError(
                    f"{job.picture} and {other.name} would both be called "
                    f"{job.name}; rename one"
                )
            seen[folder, job.name.casefold()] = job.picture
    return jobs
