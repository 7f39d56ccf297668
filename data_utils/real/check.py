"""Are the data sets whole, and the real ones as published? `jsws data check`.

Every file is read as training and measuring read it. What they would refuse or misread is
counted and the first case is told; what is merely unusual (masks with grey values, labels
that a mask lacks) is said, because it changes measures; and pictures that stand in a
training and in a test set are found by a hash of what they show.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils import pictures
from data_utils.categories import NOTE, all_labels, categories
from data_utils.errors import JswsError
from data_utils.parallel import in_parallel
from data_utils.real.download import sources
from data_utils.voc import VOC_FOLDER, VOID, read_ids

TRAINED = ("DUTS-TR",)  # of the saliency sets; the others are for testing
# VOC's lists: published length, has class masks, is trained on.
VOC_LISTS = {
    "train": (1_464, True, True),
    "val": (1_449, True, False),
    "test": (1_456, False, False),
    "train_aug": (10_582, False, True),
}
ALIKE = 16  # of 256 bits; pictures that have nothing in common differ by about 128
WRONG = {
    "no mask": "images without a mask",
    "no image": "masks without an image",
    "refused": "files that training and measuring refuse",
    "labels": "lists with labels that are missing or cannot be read",
    "nothing": "no mask of the list has a category: there is nothing to measure or learn",
}
UNUSUAL = {
    "count": "another number than published",
    "grey": "saliency masks with values between black and white",
    "empty": "saliency masks without a salient pixel",
    "void": f"class masks of 0 and {VOID} alone: {VOID} is void, which is not counted; "
    "category 1 is the value 1",
    "labels and mask": "class masks whose categories are not those of the labels",
    "palette": "class masks that give a value another colour than the masks before: are "
    "their values categories?",
    "both": "pictures that also stand in a set of the other kind (training, test)",
}


class _Job(NamedTuple):
    image: Path
    mask: Path | None
    labels: set[int] | None = None  # category numbers, where somebody gave them


@dataclass
class _Seen:
    """What one image and its mask show."""

    job: _Job
    finding: tuple[str, str] | None = None  # kind, and what to say first
    digest: bytes | None = None
    numbers: set[int] = field(default_factory=set)  # categories in the class mask
    colours: dict[int, list] = field(default_factory=dict)  # of an indexed mask's values


@dataclass
class Verdict:
    """What was found in one data set or list; `published` is None for your own data."""

    name: str
    pairs: int
    published: int | None
    # Kind: file names, none where it is said of the whole set.
    findings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """`ok`, `warn` or `FAIL`."""
        if any(kind in WRONG for kind in self.findings):
            return "FAIL"
        return "warn" if self.findings else "ok"

    def add(self, kind: str, name: str):
        """Note one file."""
        self.findings.setdefault(kind, []).append(name)

    def words(self) -> list[str]:
        """The verdict, and a line for each kind of finding."""
        of = "" if self.published is None else f" of {self.published:,}"
        lines = [f"{self.state:<4}  {self.name}: {self.pairs:,}{of}"]
        for kind, names in self.findings.items():
            what = (WRONG | UNUSUAL)[kind]
            first = f"{len(names):,} {what}; first: {names[0]}" if names else what
            lines.append(f"      {first}")
        return lines


def check(root: Path | str) -> list[Verdict]:
    """Look at every data set under a data root.

    Returns:
        one verdict for each saliency set that has a folder and each VOC list that exists.
        Data that `jsws data adopt` made have their own categories and no published number.

    Raises:
        JswsError: there is no data set at all, or a list cannot be read.
    """
    root, voc = Path(root), Path(root, VOC_FOLDER)
    found, adopted = [], (voc / NOTE).is_file()
    for name, source in sources().items():
        if name in ("VOC2012", "SBD"):
            continue
        (images, published), (masks, _) = source.holds.items()
        if (root / images).is_dir() or (root / masks).is_dir():
            verdict = Verdict(name, 0, None if adopted else published)
            jobs = _saliency_jobs(verdict, root / images, root / masks)
            found.append((verdict, name in TRAINED, _look_at(verdict, jobs)))
    for name, (published, masked, trained) in VOC_LISTS.items():
        if (voc / "ImageSets" / "Segmentation" / f"{name}.txt").is_file():
            verdict = Verdict(f"{voc.name} {name}", 0, None if adopted else published)
            folder = voc / "SegmentationClass" if masked else None
            labelled = trained or not adopted and name != "test"
            jobs = _voc_jobs(verdict, voc, name, folder, labelled=labelled)
            seen = _look_at(verdict, jobs, names=categories(voc))
            found.append((verdict, trained, seen))
    if not found:
        raise JswsError(
            f"no data set under {root}; fetch some with `jsws data download`, "
            "or name another root with --data"
        )
    _cross(found)
    return [verdict for verdict, *_ in found]


def _saliency_jobs(verdict: Verdict, images: Path, masks: Path) -> list[_Job]:
    try:
        image_of, mask_of = (
            pictures.list_pictures(folder) if folder.is_dir() else {}
            for folder in (images, masks)
        )
    except JswsError as error:
        verdict.add("refused", str(error))
        return []
    for stem in sorted(image_of.keys() - mask_of.keys()):
        verdict.add("no mask", image_of[stem].name)
    for stem in sorted(mask_of.keys() - image_of.keys()):
        verdict.add("no image", mask_of[stem].name)
    both = sorted(image_of.keys() & mask_of.keys())
    verdict.pairs = len(both)
    return [_Job(image_of[stem], mask_of[stem]) for stem in both]


def _voc_jobs(
    verdict: Verdict, voc: Path, name: str, masks: Path | None, *, labelled: bool
) -> list[_Job]:
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{name}.txt")
    verdict.pairs, labels = len(ids), {}
    try:
        labels = dict(zip(ids, all_labels(voc, ids), strict=True))
    except JswsError as error:
        if labelled:
            verdict.add("labels", str(error))
    jobs = []
    for one in ids:
        mask = masks and masks / f"{one}.png"
        if mask and not mask.is_file():
            verdict.add("no mask", f"{one}.jpg")
            mask = None
        known = {*(np.flatnonzero(labels[one]) + 1).tolist()} if one in labels else None
        jobs.append(_Job(voc / "JPEGImages" / f"{one}.jpg", mask, known))
    return jobs


def _look_at(
    verdict: Verdict, jobs: list[_Job], *, names: Sequence[str] = ()
) -> list[_Seen]:
    """Read every file and note every finding; `names` as in `_look`."""
    if verdict.published not in (None, verdict.pairs):
        verdict.findings["count"] = []
    results = in_parallel(partial(_look, names=names), jobs)
    everything, known = list(tqdm(results, total=len(jobs), desc=verdict.name)), {}
    for seen in everything:
        if seen.finding:
            verdict.add(*seen.finding)
        if any(known.setdefault(v, colour) != colour for v, colour in seen.colours.items()):
            verdict.add("palette", seen.job.mask.name)
    masked = names and any(job.mask for job in jobs)
    if masked and not any(seen.numbers for seen in everything):
        verdict.findings["nothing"] = []
    return everything


def _look(job: _Job, *, names: Sequence[str]) -> _Seen:
    """Read an image and its mask.

    `names` are the categories of a class mask, none for a saliency mask.
    """
    seen = _Seen(job)
    try:
        image = pictures.read_image(job.image)
        seen.digest = picture_hash(image)
        if job.mask is None:
            return seen
        if names:
            mask = pictures.read_class_mask(job.mask, names=names)
        else:
            mask = pictures.read_saliency_mask(job.mask, graded=True)
        pictures.same_size(image, mask, job.mask)
    except JswsError as error:
        seen.finding = "refused", str(error)
        return seen
    values, kind = {value for value, n in enumerate(mask.histogram()) if n}, None
    if not names:
        kind = "grey" if values - {0, 255} else "empty" if values == {0} else None
    else:
        seen.numbers = values - {0, VOID}
        if VOID in values and not seen.numbers:
            kind = "void"
        elif job.labels is not None and seen.numbers != job.labels:
            kind = "labels and mask"
        stored = pictures.open_picture(job.mask)
        if stored.mode == "P":
            palette = np.array(stored.getpalette("RGB")).reshape(-1, 3).tolist()
            seen.colours = {v: palette[v] for v in values if v < len(palette)}
    seen.finding = kind and (kind, job.mask.name)
    return seen


def picture_hash(image: Image.Image) -> bytes | None:
    """Which neighbour is brighter on a 17 x 16 thumbnail, 32 bytes; None if it is flat.

    A copy has the same; one that was compressed again differs by `ALIKE` bits at most.
    """
    small = image.convert("L").resize((17, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    if np.ptp(values) < 8:
        return None
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


def _cross(found: Iterable[tuple[Verdict, bool, list[_Seen]]]):
    """Note pictures of a test set that a training set holds, too.

    Their hashes differ by `ALIKE` bits at most.
    """
    sets = {True: [], False: []}
    for verdict, trained, seen in found:
        names = {one.digest: one.job.image.name for one in seen if one.digest}
        if names:
            bits = np.unpackbits(np.array([list(h) for h in names], np.uint8), axis=1)
            signs = bits.astype(np.float32) * 2 - 1
            sets[trained].append((verdict, signs, list(names.values())))
    for (verdict, a, names), (other, b, its) in product(sets[False], sets[True]):
        for start in range(0, len(a), 1000):
            differ = (256 - a[start : start + 1000] @ b.T) / 2
            for i, j in zip(*np.nonzero(differ <= ALIKE), strict=True):
                verdict.add("both", f"{names[start + i]} is {its[j]} of {other.name}")
