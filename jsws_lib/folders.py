"""Measure folders of predictions against folders of truth: whole, paired, on every core.

`metrics.py` says what the measures are. Here every file is accounted for before the first
one is read: a missing prediction is an error, never a smaller denominator. Each process
holds one image at a time, and hands back sums.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.parallel import in_parallel
from data_utils.voc import VOC_CLASSES
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure, SaliencyScores
from jsws_lib.structure import StructureMeasure, StructureScores

CHUNK = 16  # images a job: the same sums, to the last bit, for any number of processes
# What Pillow raises on files that are broken, or larger than its limit.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
FEW = 256  # images; below, starting processes takes longer than measuring


def evaluate_segmentation_folder(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    ids: Sequence[str] | None = None,
    absent: str = "union",
    names: Sequence[str] = VOC_CLASSES,
    progress: bool = True,
    workers: int | None = None,
) -> ConfusionMatrix:
    """Count ``pred_dir/<id>.png`` against ``gt_dir/<id>.png`` (indexed, VOC values).

    ``ids`` defaults to every mask of ``gt_dir``; then a prediction without a mask is an
    error. ``absent`` is that of `ConfusionMatrix`, ``names`` are the background's and the
    categories'. ``workers`` defaults to one process per core for more than `FEW` images.
    Scores: ``.compute()`` of what is returned.

    Raises JswsError for missing files, a size or value that is not possible, and files
    that are not indexed images; the message names the file.
    """
    pairs = _pairs(pred_dir, gt_dir, ids, (".png",))
    count = partial(_count_segmentations, absent=absent, names=names)
    return _merge(count, pairs, workers, progress)


def evaluate_saliency_folder(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    ids: Sequence[str] | None = None,
    protocol: str = "toolbox",
    progress: bool = True,
    workers: int | None = None,
) -> SaliencyScores:
    """Score ``pred_dir/<id>.png`` (or .jpg) against the masks ``gt_dir/<id>.png``.

    Arguments and errors as in `evaluate_segmentation_folder`; colour files are read as
    luminance, 1-bit masks as 0/255.
    """
    measure = partial(_measure_maps, partial(SaliencyMeasure, protocol))
    return _merge(measure, _maps(pred_dir, gt_dir, ids), workers, progress).compute()


def evaluate_structure_folder(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    ids: Sequence[str] | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> StructureScores:
    """S-measure, E-measure and weighted F of the same files; some 100 times slower."""
    measure = partial(_measure_maps, StructureMeasure)
    return _merge(measure, _maps(pred_dir, gt_dir, ids), workers, progress).compute()


def _count_segmentations(pairs: list[tuple[Path, Path]], *, absent: str,
                         names: Sequence[str]) -> ConfusionMatrix:  # fmt: skip
    matrix = ConfusionMatrix(len(names), absent=absent, names=names)
    for pred, gt in pairs:
        target, labels = _read(gt, indexed=True), _read(pred, indexed=True)
        with _naming(prediction=pred, target=gt):
            matrix.update(target, labels)
    return matrix


def _measure_maps(new: Callable, pairs: list[tuple[Path, Path]]):
    measure = new()
    for pred, gt in pairs:
        sal_map, mask = _read(pred), _read(gt)
        with _naming(map=pred, mask=gt):
            measure.update(sal_map, mask)
    return measure


def _merge(measure: Callable, pairs: list, workers: int | None, progress: bool):
    """Sum ``measure(chunk)`` over the chunks of ``pairs``, in order."""
    if workers is None and len(pairs) <= FEW:
        workers = 0
    chunks = [pairs[k : k + CHUNK] for k in range(0, len(pairs), CHUNK)]
    total = None
    with tqdm(total=len(pairs), desc="evaluate", unit="image", disable=not progress) as bar:
        for part, chunk in zip(in_parallel(measure, chunks, workers=workers), chunks,
                               strict=True):  # fmt: skip
            if total is None:
                total = part
            else:
                total += part
            bar.update(len(chunk))
    return total


@contextmanager
def _naming(**paths: Path) -> Iterator[None]:
    """Put the files behind an error's words in front of it."""
    try:
        yield
    except JswsError as error:
        files = ", ".join(f"{role} {path}" for role, path in paths.items())
        raise JswsError(f"{files}: {error}") from None


def _maps(pred_dir, gt_dir, ids) -> list[tuple[Path, Path]]:
    return _pairs(pred_dir, gt_dir, ids, (".png", ".jpg"))


def _pairs(pred_dir, gt_dir, ids, suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """Matching (prediction, mask) paths, all of which exist, each once."""
    preds, masks = _by_stem(pred_dir, suffixes), _by_stem(gt_dir, (".png",))
    wanted = sorted(masks) if ids is None else list(ids)
    if not wanted:
        raise JswsError(f"{gt_dir} has no .png mask, or the id list is empty")
    twice = sorted(i for i, count in Counter(wanted).items() if count > 1)
    _complain("the id list", "names more than once", twice)
    _complain(gt_dir, "lacks masks of", [i for i in wanted if i not in masks])
    _complain(pred_dir, "lacks predictions of", [i for i in wanted if i not in preds])
    if ids is None:
        stale = [i for i in sorted(preds) if i not in masks]
        _complain(pred_dir, "holds stale files, masks are missing of", stale)
    return [(preds[i], masks[i]) for i in wanted]


def _by_stem(folder, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not Path(folder).is_dir():
        raise JswsError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in suffixes:
            if path.stem in found:
                raise JswsError(f"{path} and {found[path.stem].name}: keep only one")
            found[path.stem] = path
    return found


def _complain(folder, what: str, ids: list[str]) -> None:
    """Raise one error for all ids: the first ten, then how many more."""
    if ids:
        more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
        raise JswsError(f"{folder} {what} {', '.join(ids[:10])}{more}")


def _read(path: Path, *, indexed: bool = False) -> np.ndarray:
    """HxW uint8: class indices as stored if ``indexed``, otherwise luminance."""
    try:
        with Image.open(path) as image:
            image.load()
    except BROKEN as error:
        raise JswsError(f"{path} cannot be read as an image: {error}") from error
    modes = ("P", "L") if indexed else ("1", "L", "P", "RGB", "RGBA")
    if image.mode not in modes:
        raise JswsError(f"{path} is an image of mode {image.mode}, need one of {modes}")
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        raise JswsError(f"{path} is transparent in places, and what is salient may stand "
                        "there: save it without transparency")  # fmt: skip
    return np.array(image if indexed else image.convert("L"))
