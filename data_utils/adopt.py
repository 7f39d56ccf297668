"""Your own pictures, labels and saliency masks in the layout that the readers take.

    OUT/VOCdevkit/VOC2012/   JPEGImages, ImageSets/Segmentation/{train_aug,val}.txt,
                             SegmentationClass, and categories.json: names and image labels
    OUT/DUTS-TR/             saliency training: pictures and masks
    OUT/ECSSD/               saliency test: the pictures of val that have a saliency mask

A picture with a class mask is only measured on: no training set has it. Files are linked
where the file system can, else copied. Pictures that are no upright JPEG are written anew
as JPEG of quality 95.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps
from tqdm.auto import tqdm

from data_utils.categories import MOST, NOTE
from data_utils.datasets import open_picture, read_class_mask
from data_utils.decoded import same_size
from data_utils.errors import JswsError
from data_utils.files import write_bytes, write_png
from data_utils.parallel import FEW, in_parallel

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MASKS = (".png", ".bmp", ".jpg", ".jpeg")
VOC, SALIENCY, TEST = "VOCdevkit/VOC2012", "DUTS-TR/DUTS-TR-{}", "ECSSD/{}"


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
    column `labels`, with the names separated by `;`, whose categories are sorted by name;
    or a column for each category, in that order, with 1 or 0. Commas, semicolons and tabs
    separate columns; a byte-order mark and any line ends are accepted.

    Raises:
        JswsError: no such file, not UTF-8, no header, or a line that says nothing, says it
            twice or says something else; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise JswsError(f"{path}: no such table of labels")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise JswsError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    first = text.lstrip().partition("\n")[0]
    delimiter = next((sign for sign in first if sign in ",;\t"), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, fields) for row in reader if (fields := _trimmed(row))]
    except csv.Error as error:
        raise JswsError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows or rows[0][1][0].casefold() != "file":
        raise JswsError(f"{path}: the first line must be a header whose first column is "
                        "`file`, such as `file,labels`")  # fmt: skip
    (at, header), rows = rows[0], rows[1:]
    columns = header[1:]
    listed = [name.casefold() for name in columns] in (["labels"], ["label"])
    if not columns:
        raise JswsError(f"{path}, line {at}: no category; add a column `labels`, or one "
                        "column for each category")  # fmt: skip
    labels: dict[str, list[str]] = {}
    lines: dict[str, tuple[int, str]] = {}
    for line, (name, *cells) in rows:
        where, key = f"{path}, line {line}", _key(name)
        if any(mark in field for field in (name, *cells) for mark in "\r\n"):
            raise JswsError(f"{where}: a line break within quotation marks; close the mark "
                            "that opens above")  # fmt: skip
        if key in lines:
            raise JswsError(f"{where}: {name!r} stands in line {lines[key][0]}, too; keep "
                            "one of them")  # fmt: skip
        found = _listed(cells, where) if listed else _marked(cells, columns, where)
        if not found:
            raise JswsError(f"{where}: {name!r} has no label; a picture needs at least one")
        labels[key], lines[key] = found, (line, name)
    if not rows:
        raise JswsError(f"{path} has a header, but no picture")
    names = sorted({n for found in labels.values() for n in found}) if listed else columns
    _check_names(names, path)
    return Table(tuple(names), labels, lines)


def _trimmed(row: list[str]) -> list[str]:
    """A line's fields without spaces around them, and without empty ones at the end."""
    fields = [field.strip() for field in row]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _listed(cells: list[str], where: str) -> list[str]:
    names = [name.strip() for cell in cells for name in cell.split(";")]
    if "" in names:
        raise JswsError(f"{where}: an empty label; remove the extra separator")
    return list(dict.fromkeys(names))


def _marked(cells: list[str], columns: Sequence[str], where: str) -> list[str]:
    if len(cells) > len(columns):
        raise JswsError(f"{where}: {len(cells) + 1} fields, but the header has "
                        f"{len(columns) + 1}")  # fmt: skip
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
        if name.casefold() in ("", "background"):
            raise JswsError(f"{path}: {name!r} is no name of a category; the background "
                            "needs no column and no label")  # fmt: skip
        if other := seen.get(name.casefold()):
            raise JswsError(f"{path}: the categories {other!r} and {name!r} differ in no "
                            "letter; spell them alike, or rename one")  # fmt: skip
        seen[name.casefold()] = name


# --- pictures and masks --------------------------------------------------------------


def _key(name: str) -> str:
    """What pairs a picture with its line and its masks: the name without suffix."""
    path = Path(name)
    stem = path.stem if path.suffix.lower() in PICTURES else path.name
    return unicodedata.normalize("NFC", stem).casefold()


def _id(path: Path) -> str:
    """A name that id lists can hold: letters, digits, - and _."""
    return re.sub(r"[^\w-]", "_", unicodedata.normalize("NFC", path.stem))


def _files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder by key, sorted."""
    if not folder.is_dir():
        raise JswsError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if (key := _key(path.name)) in found:
                raise JswsError(f"{path} and {found[key].name} have the same name but for "
                                "suffix and case; rename one")  # fmt: skip
            found[key] = path
    if not found:
        raise JswsError(f"no picture in {folder}; looked for {', '.join(suffixes)}")
    return found


class _Job(NamedTuple):
    """One picture, with what it is written as."""

    picture: Path
    name: str
    pictures: tuple[str, ...]  # folders that get it
    saliency: tuple[Path, str] | None  # mask, folder
    mask: Path | None  # of categories


def _take(job: _Job, *, root: Path, count: int) -> str:
    """Check a picture and its masks, and put them into their folders."""
    picture = _open(job.picture)
    upright = picture.getexif().get(0x0112, 1) == 1  # else a camera was held sideways
    is_jpeg = picture.format in ("JPEG", "MPO")
    if not upright:
        picture = ImageOps.exif_transpose(picture)
    digest = hashlib.sha256(job.picture.read_bytes())
    first, *others = [root / folder / f"{job.name}.jpg" for folder in job.pictures]
    if is_jpeg and upright:
        _link(job.picture, first)
    else:
        file = io.BytesIO()
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        picture.convert("RGB").save(file, "JPEG", quality=95, subsampling=0)
        write_bytes(first, file.getvalue())
    for other in others:
        _link(first, other)
    if job.saliency:
        source, folder = job.saliency
        mask = _open(source)
        same_size(picture, mask, source)
        digest.update(source.read_bytes())
        target = root / folder / f"{job.name}.png"
        if mask.format == "PNG":
            _link(source, target)
        else:
            write_png(target, mask.convert("L"))
    if job.mask:
        same_size(picture, read_class_mask(job.mask, count=count), job.mask)
        digest.update(job.mask.read_bytes())
        _link(job.mask, root / VOC / "SegmentationClass" / f"{job.name}.png")
    return digest.hexdigest()


def _open(path: Path) -> Image.Image:
    picture = open_picture(path)
    if picture.mode[0] in "IF":
        raise JswsError(f"{path} has more than 8 bits a channel; save it with 8")
    return picture


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
        raise JswsError(f"{lost[0]} {what}" + (f"; {len(lost) - 1:,} more pictures lack it"
                                               if len(lost) > 1 else ""))  # fmt: skip


def adopt(pictures: Path, table: Path, out: Path, *, saliency_masks: Path | None = None,
          saliency_images: Path | None = None, class_masks: Path | None = None,
          workers: int | None = None) -> Adopted:  # fmt: skip
    """Take over a folder of pictures with a table of labels.

    Args:
        pictures: folder.
        table: CSV file, see `read_table`.
        out: data root to make; it appears only when it is whole.
        saliency_masks: folder of masks for D_s; pixels above half of full scale are
            salient. None: only setting S can be trained.
        saliency_images: the pictures of these masks; default `pictures`.
        class_masks: folder of indexed or grey PNGs, 0 background, k the k-th category,
            255 void. Pictures that have one are only measured on, and need no label.
        workers: processes; default one per core for more than `FEW` pictures.

    Raises:
        JswsError: `out` exists; or a file is missing, broken, twice there or of another
            size; the message names it.
    """
    out = Path(out)
    if out.exists():
        raise JswsError(f"{out} exists already; choose another folder, or delete it first")
    read, found = read_table(table), _files(Path(pictures), PICTURES)
    for key, (line, name) in read.lines.items():
        if key not in found:
            raise JswsError(f"{table}, line {line}: there is no picture {name!r} in "
                            f"{pictures}")  # fmt: skip
    truth = _files(Path(class_masks), (".png",)) if class_masks else {}
    for key, path in truth.items():
        if key not in found:
            raise JswsError(f"{path} has no picture in {pictures}")
    train = {key: path for key, path in found.items() if key not in truth}
    _must_have(train, read.labels, f"has no line in {table}; add one, or move the picture "
               "away")  # fmt: skip
    if not train:
        raise JswsError(f"every picture of {pictures} has a class mask: none is left to "
                        "train on")  # fmt: skip
    counts = {name: sum(name in read.labels[key] for key in train)
              for name in read.categories}  # fmt: skip
    if empty := [name for name, n in counts.items() if not n]:
        raise JswsError(f"{table}: no training picture has the label {empty[0]!r}; remove "
                        "the category, or add pictures")  # fmt: skip
    jobs = _jobs(found, truth, saliency_masks, saliency_images)
    saliency = [job for job in jobs if job.saliency]
    on_test = sum(job.mask is not None for job in saliency)

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp shuts everyone else out
        if workers is None and len(jobs) <= FEW:
            workers = 0
        work = partial(_take, root=temporary, count=len(read.categories))
        results = in_parallel(work, jobs, workers=workers)
        hashes = list(tqdm(results, total=len(jobs), desc="pictures", leave=False))
        lists = {"train_aug": train, "val": truth}
        for name, members in lists.items():
            if members:
                text = "".join(f"{_id(found[key])}\n" for key in members)
                write_bytes(temporary / VOC / f"ImageSets/Segmentation/{name}.txt",
                            text.encode())  # fmt: skip
        note = {"categories": read.categories,
                "labels": {_id(found[key]): names for key, names in read.labels.items()},
                "files": hashlib.sha256("".join(hashes).encode()).hexdigest()}  # fmt: skip
        text = json.dumps(note, ensure_ascii=False, indent=1)
        write_bytes(temporary / VOC / NOTE, text.encode())
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Adopted(counts, len(train), len(truth), len(saliency) - on_test, on_test)


def _jobs(found: dict[str, Path], truth: dict[str, Path], saliency_masks,
          saliency_images) -> list[_Job]:  # fmt: skip
    """What to do with each picture; every mask that is needed exists."""
    voc, train = f"{VOC}/JPEGImages", {k: p for k, p in found.items() if k not in truth}
    to_train = (SALIENCY.format("Image"), SALIENCY.format("Mask"))
    to_test = (TEST.format("images"), TEST.format("ground_truth_mask"))
    masks = _files(Path(saliency_masks), MASKS) if saliency_masks else {}
    others = _files(Path(saliency_images), PICTURES) if saliency_images else {}
    if others and not masks:
        raise JswsError("pictures of a saliency set need their masks, too: name the folder")
    if masks:
        _must_have(others or train, masks, f"has no saliency mask in {saliency_masks}; add "
                   "it, or name a folder that holds only pictures with a mask as the "
                   "saliency images")  # fmt: skip
    jobs = []
    for key, path in found.items():
        own = masks.get(key) if not others else None
        pair = to_test if key in truth else to_train
        folders = (voc, pair[0]) if own else (voc,)
        jobs.append(_Job(path, _id(path), folders, (own, pair[1]) if own else None,
                         truth.get(key)))  # fmt: skip
    jobs += [_Job(path, _id(path), to_train[:1], (masks[key], to_train[1]), None)
             for key, path in others.items()]  # fmt: skip
    seen: dict[tuple[str, str], Path] = {}
    for job in jobs:
        for folder in job.pictures:
            if other := seen.get((folder, job.name.casefold())):
                raise JswsError(f"{job.picture} and {other.name} would both be called "
                                f"{job.name}; rename one")  # fmt: skip
            seen[folder, job.name.casefold()] = job.picture
    return jobs
