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
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from data_utils.categories import combined
from data_utils.errors import JswsError
from data_utils.parallel import FEW, available_cores, in_parallel
from data_utils.pictures import (
    category_names,
    list_pictures,
    open_picture,
    read_class_mask,
    read_saliency_map,
    read_saliency_mask,
)
from data_utils.voc import VOC_CLASSES
from jsws_lib.engine.evaluation import Confusion
from jsws_lib.metrics import SaliencyMeasure, SaliencyScores

CHUNK = 16  # images a job: the same sums, to the last bit, for any number of processes


def evaluate_segmentation_folder(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    ids: Sequence[str] | None = None,
    absent: str = "union",
    names: Sequence[str] = VOC_CLASSES,
    progress: bool = True,
    workers: int | None = None,
) -> Confusion:
    """Count ``pred_dir/<id>.png`` against ``gt_dir/<id>.png`` (indexed, VOC values).

    ``ids`` defaults to every mask of ``gt_dir``; then a prediction without a mask is an
    error. ``absent`` is that of `ConfusionMatrix`, ``names`` are the background's and the
    categories'. Predictions that say which categories they number, as those of `jsws
    predict` do, are renumbered by name; all of them say the same. What only they know gets
    a row at the end. ``workers`` defaults to one process per core for more than `FEW`
    images. Scores: ``.compute()`` of what is returned.

    Raises JswsError for missing files, a size or value that is not possible, and files
    that are not indexed images; the message names the file.
    """
    pairs = _pairs(pred_dir, gt_dir, ids)
    known = category_names(open_picture(pairs[0][0]), pairs[0][0])
    every = combined(known or names[1:], names[1:])
    new = partial(Confusion, (names[0], *every), absent=absent, known=known)
    count = partial(_count_segmentations, new, names=names[1:])
    matrix = _merge(count, pairs, workers, progress)
    matrix.check_truth(gt_dir)
    return matrix


def evaluate_saliency_folder(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    ids: Sequence[str] | None = None,
    protocol: str = "toolbox",
    progress: bool = True,
    workers: int | None = None,
) -> SaliencyScores:
    """Score ``pred_dir/<id>.png`` against the masks ``gt_dir/<id>.png``.

    Arguments and errors as in `evaluate_segmentation_folder`; `read_saliency_mask` says
    which masks are refused. 1-bit masks and those of 0 and 1 are read as 0/255.
    """
    measure = partial(_measure_maps, protocol)
    return _merge(measure, _pairs(pred_dir, gt_dir, ids), workers, progress).compute()


def _count_segmentations(
    new: Callable, pairs: list[tuple[Path, Path]], *, names: Sequence[str]
) -> Confusion:
    matrix = new()
    for pred, gt in pairs:
        target = np.asarray(read_class_mask(gt, names=names))
        labels = np.asarray(read_class_mask(pred, names=matrix.names[1:]))
        with _naming(prediction=pred, target=gt):
            matrix.update(target, labels)
    return matrix


def _measure_maps(protocol: str, pairs: list[tuple[Path, Path]]) -> SaliencyMeasure:
    measure = SaliencyMeasure(protocol)
    for pred, gt in pairs:
        sal_map, mask = _map_and_mask(pred, gt)
        with _naming(map=pred, mask=gt):
            measure.update(sal_map, mask)
    return measure


def _map_and_mask(pred: Path, gt: Path) -> tuple[np.ndarray, np.ndarray]:
    mask = read_saliency_mask(gt, graded=True)
    return np.asarray(read_saliency_map(pred)), np.asarray(mask)


def _merge(measure: Callable, pairs: list, workers: int | None, progress: bool):
    """Sum ``measure(chunk)`` over the chunks of ``pairs``, in order."""
    if workers is None:  # `in_parallel` would count chunks
        workers = available_cores() if len(pairs) > FEW else 0
    chunks = [pairs[k : k + CHUNK] for k in range(0, len(pairs), CHUNK)]
    parts, total = in_parallel(measure, chunks, workers=workers), None
    with tqdm(total=len(pairs), desc="evaluate", unit="image", disable=not progress) as bar:
        for part, chunk in zip(parts, chunks, strict=True):
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


def _pairs(pred_dir, gt_dir, ids) -> list[tuple[Path, Path]]:
    """Matching (prediction, mask) paths, all of which exist, each once."""
    preds, masks = list_pictures(pred_dir), list_pictures(gt_dir)
    wanted = sorted(masks) if ids is None else list(ids)
    if not wanted:
        raise JswsError(f"{gt_dir} has no mask, or the id list is empty")
    twice = sorted(i for i, count in Counter(wanted).items() if count > 1)
    _complain("the id list", "names more than once", twice)
    _complain(gt_dir, "lacks masks of", [i for i in wanted if i not in masks])
    _complain(pred_dir, "lacks predictions of", [i for i in wanted if i not in preds])
    if ids is None:
        stale = [i for i in sorted(preds) if i not in masks]
        _complain(pred_dir, "holds stale files, masks are missing of", stale)
    return [(preds[i], masks[i]) for i in wanted]


def _complain(folder, what: str, ids: list[str]) -> None:
    """Raise one error for all ids: the first ten, then how many more."""
    if ids:
        more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
        raise JswsError(f"{folder} {what} {', '.join(ids[:10])}{more}")


# --- measures that came after the paper ------------------------------------------------

# The paper has none of them, newer tables have all. PySODMetrics computes them (`pip
# install pysodmetrics`).


class StructureScores(NamedTuple):
    """Result of `evaluate_structure_folder`, fractions of 1."""

    s_measure: float
    max_e: float
    mean_e: float
    adaptive_e: float
    weighted_f: float
    count: int

    def __str__(self) -> str:
        return (
            f"S {self.s_measure:.4f}, E max {self.max_e:.4f} mean {self.mean_e:.4f} "
            f"adaptive {self.adaptive_e:.4f}, weighted F {self.weighted_f:.4f} "
            f"({self.count} images)"
        )


def evaluate_structure_folder(
    pred_dir: str | Path, gt_dir: str | Path, *, ids=None, progress=True, workers=None
) -> StructureScores:
    """S-measure (Fan et al. 2017), E-measure (Fan et al. 2018) and weighted F (Margolin et
    al. 2014) of the same files; some 100 times slower.

    Arguments and errors as in `evaluate_saliency_folder`; what is averaged over the images
    are the values of `structure`, the E-measure at each threshold k/255.
    """
    _sod_metrics()
    rows = _merge(_structures, _pairs(pred_dir, gt_dir, ids), workers, progress)
    s, adaptive, weighted_f, *curve = np.mean(rows, axis=0).tolist()
    return StructureScores(
        s_measure=s,
        max_e=max(curve),
        mean_e=float(np.mean(curve)),
        adaptive_e=adaptive,
        weighted_f=weighted_f,
        count=len(rows),
    )


def _structures(pairs: list[tuple[Path, Path]]) -> list[np.ndarray]:
    found = []
    for pred, gt in pairs:
        sal_map, mask = _map_and_mask(pred, gt)
        with _naming(map=pred, mask=gt):
            found.append(structure(sal_map, mask))
    return found


def _sod_metrics():
    try:
        import py_sod_metrics
    except ImportError as error:
        raise JswsError(
            f"S, E and weighted F need PySODMetrics ({error}): pip install pysodmetrics"
        ) from None
    return py_sod_metrics


def structure(sal_map, mask) -> np.ndarray:
    """S, the adaptive E, weighted F and E at 256 thresholds of one map, (259,) float64.

    Map and mask are prepared as under the protocol ``pysod`` of `metrics.PROTOCOLS`: a
    mask is salient above 128, a map is stretched to [0, 1], a constant one left as it is.
    S weighs region and object alike (alpha = .5); weighted F has beta = 1 and is 0 where
    the mask is all background; the adaptive threshold is min(2 * mean, 1).

    Arguments and errors as for `SaliencyMeasure.update`, or PySODMetrics is not installed.
    """
    package = _sod_metrics()
    sal_map, mask = SaliencyMeasure("pysod").prepare(sal_map, mask)
    sal_map = sal_map / (255 if sal_map.dtype == np.uint8 else 1.0)
    low, high = sal_map.min(), sal_map.max()
    if low < high:
        sal_map = (sal_map - low) / (high - low)
    results = {}
    for one in (package.Smeasure(), package.Emeasure(), package.WeightedFmeasure()):
        one.step(sal_map.astype(np.float64), mask, normalize=False)
        results |= one.get_results()
    e = results["em"]
    values = np.array([results["sm"], e["adp"], results["wfm"], *e["curve"]])
    if not (np.abs(values) < 2).all():  # E is n / (n - 1) at most; or nan
        raise JswsError("S, E or weighted F is no fraction; is the map but a pixel?")
    return values
