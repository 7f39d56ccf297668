"""Are the data sets whole, and the real ones as published? `jsws data check`.

Every picture is opened. What is found wrong is counted and the first case is named; what
is merely unusual (masks with grey values, one-bit masks) is said, because it changes
measures; and pictures that stand in a training and in a test set are found by a hash of
what they show.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.categories import NOTE, all_labels, categories
from data_utils.datasets import open_picture, read_class_mask, read_image
from data_utils.download import sources
from data_utils.errors import JswsError
from data_utils.parallel import FEW, in_parallel
from data_utils.voc import read_ids

TRAINED = ("DUTS-TR",)  # of the saliency sets; the others are for testing
# VOC's lists: published length, has class masks, is trained on.
VOC_LISTS = {
    "train": (1_464, True, True),
    "val": (1_449, True, False),
    "test": (1_456, False, False),
    "train_aug": (10_582, False, True),
}
ALIKE = 16  # of 256 bits; pictures that have nothing in common differ by about 128
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
WRONG = {
    "no mask": "images without a mask",
    "no image": "masks without an image",
    "unreadable": "files that cannot be decoded",
    "size": "masks of another size than their image",
    "values": "class masks with values no category has, or in colour",
    "labels": "images whose labels are missing or cannot be read",
}
UNUSUAL = {
    "count": "another number than published",
    "grey": "saliency masks with values between black and white",
    "one bit": "one-bit masks: convert before thresholding at 127",
    "colour": "saliency masks in colour",
    "empty": "saliency masks without a salient pixel",
    "both": "pictures that also stand in a set of the other kind (training, test)",
}


@dataclass
class Verdict:
    """What was found in one data set or list; `published` is None for your own data."""

    name: str
    pairs: int
    published: int | None
    findings: dict[str, list[str]] = field(default_factory=dict)  # kind: file names
    categories: dict[str, int] = field(default_factory=dict)  # images that have each

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
            what = {**WRONG, **UNUSUAL}[kind]
            count = "" if kind == "count" else f"{len(names):,} "
            lines.append(f"      {count}{what}" + (f"; first: {names[0]}" if names else ""))
        if self.categories:
            there = [f"{name} {n:,}" for name, n in self.categories.items() if n]
            absent = len(self.categories) - len(there)
            lines.append(f"      images with {', '.join(there)}"
                         + (f"; {absent} categories do not occur" if absent else ""))
        return lines


def check(root: Path | str, *, voc: str = "VOCdevkit/VOC2012",
          workers: int | None = None) -> list[Verdict]:  # fmt: skip
    """Look at every data set under a data root.

    Args:
        root: the data root.
        voc: VOC's folder under it.
        workers: processes; default one per core, 0 for none.

    Returns:
        one verdict for each saliency set that has a folder and each VOC list that exists.
        Data that `jsws data adopt` made have their own categories and no published number.

    Raises:
        JswsError: there is no data set at all.
    """
    root = Path(root)
    verdicts, hashes, adopted = [], [], (root / voc / NOTE).is_file()
    for name, source in sources().items():
        if name in ("VOC2012", "SBD"):
            continue
        (images, published), (masks, _) = source.holds.items()
        if (root / images).is_dir() or (root / masks).is_dir():
            verdict, seen = _check_saliency(name, root / images, root / masks,
                                            None if adopted else published, workers)
            verdicts.append(verdict)
            hashes.append((verdict, name in TRAINED, seen))
    for name, (published, masks, trained) in VOC_LISTS.items():
        if (root / voc / "ImageSets" / "Segmentation" / f"{name}.txt").is_file():
            labelled = trained or not adopted and name != "test"
            verdict, seen = _check_voc(name, root / voc, None if adopted else published,
                                       masks, labelled, workers)  # fmt: skip
            verdicts.append(verdict)
            hashes.append((verdict, trained, seen))
    if not verdicts:
        raise JswsError(f"no data set under {root}; fetch some with `jsws data download`, "
                        "or name another root with --data")  # fmt: skip
    _cross(hashes)
    return verdicts


def _check_saliency(name: str, images: Path, masks: Path, published: int | None, workers):
    image_of, mask_of = _pictures(images), _pictures(masks)
    verdict = Verdict(name, len(image_of.keys() & mask_of.keys()), published)
    for stem in sorted(image_of.keys() - mask_of.keys()):
        verdict.add("no mask", image_of[stem].name)
    for stem in sorted(mask_of.keys() - image_of.keys()):
        verdict.add("no image", mask_of[stem].name)
    both = sorted(image_of.keys() & mask_of.keys())
    jobs = [(image_of[stem], mask_of[stem]) for stem in both]
    return verdict, _gather(verdict, jobs, _look, workers)


def _check_voc(name: str, voc: Path, published: int | None, masks: bool, labelled: bool,
               workers):  # fmt: skip
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{name}.txt")
    names = categories(voc)
    verdict, jobs = Verdict(f"{voc.name} {name}", len(ids), published), []
    for one in ids:
        mask = voc / "SegmentationClass" / f"{one}.png" if masks else None
        if mask and not mask.is_file():
            verdict.add("no mask", f"{one}.jpg")
        jobs.append((voc / "JPEGImages" / f"{one}.jpg", mask if mask and mask.is_file()
                     else None))  # fmt: skip
    if labelled:
        counts = map(int, sum(_labels(voc, ids, verdict)))
        verdict.categories = dict(zip(names, counts, strict=True))
    return verdict, _gather(verdict, jobs, partial(_look, count=len(names)), workers)


def _labels(voc: Path, ids: list[str], verdict: Verdict) -> Iterator[np.ndarray]:
    """Labels of all pictures together, or of each that has some; the others are noted."""
    try:
        yield all_labels(voc, ids).sum(0)
    except JswsError:
        yield np.zeros(len(categories(voc)))
        for one in ids:
            try:
                yield all_labels(voc, [one])[0]
            except JswsError:
                verdict.add("labels", one)


def _gather(verdict: Verdict, jobs: list, look, workers) -> dict[bytes, str]:
    """Note every finding; return the pictures' hashes with their names."""
    if verdict.published not in (None, verdict.pairs):
        verdict.findings["count"] = []
    seen = {}
    if workers is None and len(jobs) < FEW:
        workers = 0
    results = in_parallel(look, jobs, workers=workers)
    bar = tqdm(results, total=len(jobs), desc=verdict.name, unit="file")
    for kinds, name, digest in bar:
        for kind in kinds:
            verdict.add(kind, name)
        if digest:
            seen[digest] = name
    return seen


def _look(job: tuple[Path, Path | None], *, count: int | None = None):
    """Open an image and its mask: kinds of findings, file name, hash of the image.

    `count` is the number of categories of a class mask, None for a saliency mask.
    """
    image_path, mask_path = job
    kinds = []
    try:
        image = read_image(image_path)
    except JswsError:
        return ["unreadable"], image_path.name, None
    if mask_path:
        try:
            mask = open_picture(mask_path)
        except JswsError:
            return ["unreadable"], mask_path.name, None
        if mask.size != image.size:
            kinds.append("size")
        kinds += _class_kinds(mask_path, count) if count else _saliency_kinds(mask)
    return kinds, image_path.name, picture_hash(image)


def _saliency_kinds(mask: Image.Image) -> list[str]:
    kinds = []
    if mask.mode == "1":
        kinds.append("one bit")
    elif mask.mode not in ("L", "P"):
        channels = np.asarray(mask.convert("RGB"))
        if (channels != channels[..., :1]).any():
            kinds.append("colour")
    values = np.unique(np.asarray(mask.convert("L")))
    if not set(values.tolist()) <= ({0, 1} if values.max() == 1 else {0, 255}):
        kinds.append("grey")
    if values.max() == 0:
        kinds.append("empty")
    return kinds


def _class_kinds(path: Path, count: int) -> list[str]:
    try:
        read_class_mask(path, count=count)
    except JswsError:
        return ["values"]
    return []


def picture_hash(image: Image.Image) -> bytes | None:
    """Which neighbour is brighter on a 17 x 16 thumbnail, 32 bytes; None if it is flat.

    A copy has the same; one that was compressed again differs by `ALIKE` bits at most.
    """
    small = image.convert("L").resize((17, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    if np.ptp(values) < 8:
        return None
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


def _cross(hashes: Iterable[tuple[Verdict, bool, dict[bytes, str]]]):
    """Note pictures of a test set that a training set holds, too."""
    hashes = list(hashes)
    for verdict, trained, seen in hashes:
        for other, other_trained, theirs in hashes:
            if not trained and other_trained:
                for mine, its in _alike(seen, theirs):
                    verdict.add("both", f"{mine} is {its} of {other.name}")


def _alike(mine: dict[bytes, str], theirs: dict[bytes, str]) -> Iterator[tuple[str, str]]:
    """The names of pairs whose hashes differ by `ALIKE` bits at most."""
    if not (mine and theirs):
        return
    a, b = (np.unpackbits(np.array([list(h) for h in hashes], np.uint8), axis=1) * 2.0 - 1
            for hashes in (mine, theirs))  # fmt: skip
    a, b = a.astype(np.float32), b.astype(np.float32)
    names, its = list(mine.values()), list(theirs.values())
    for start in range(0, len(a), 1000):
        differ = (256 - a[start : start + 1000] @ b.T) / 2
        for i, j in zip(*np.nonzero(differ <= ALIKE), strict=True):
            yield names[start + i], its[j]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES}
