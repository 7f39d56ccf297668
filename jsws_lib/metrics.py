"""Scores: mean IoU for segmentation, MAE and max F-measure for saliency (section 4.1).

Every accumulator keeps sums only, so a data set of any size is scored in constant
memory: ``update`` once per image, ``compute`` at the end, ``+=`` merges two of them.
Each score carries the name of its convention, because the same maps differ by whole
points between conventions. `engine/evaluation.py` measures networks,
`experiments/folders.py` folders of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_utils.errors import JswsError
from data_utils.voc import NUM_CLASSES, VOC_CLASSES, VOID

BETA2 = 0.3  # F-measure weight: precision counts more than recall (section 4.1)


def _as_numpy(array) -> np.ndarray:
    """An array as it is, or a tensor on any device; NumPy has no bfloat16."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.double() if array.is_floating_point() else array
    return np.asarray(array)


# --- segmentation -------------------------------------------------------------------


class SegmentationScores(NamedTuple):
    """Result of `ConfusionMatrix.compute`; ``iou`` is (num_classes,), nan = skipped."""

    miou: float
    iou: np.ndarray
    pixel_accuracy: float
    absent: str
    names: Sequence[str] = ()  # of the classes; none for VOC's

    def __str__(self) -> str:
        names = VOC_CLASSES if len(self.iou) == len(VOC_CLASSES) else ()
        names = self.names or names or [f"class {i}" for i in range(len(self.iou))]
        rows = [*zip(names, self.iou, strict=True)]
        rows.append(("pixel accuracy", self.pixel_accuracy))
        rows.append((f"mean IoU (absent: {self.absent})", self.miou))
        return "\n".join(
            f"{name:<24}{'–' if np.isnan(value) else f'{100 * value:.1f}':>6}"
            for name, value in rows
        )


class ConfusionMatrix:
    """Pixel counts ``matrix[target, pred]`` over a whole set, and the IoU from them.

    IoU of a class is tp / (target + pred - tp). What to do with a class that a set
    lacks decides the mean, and published code disagrees. ``absent`` names the choice:

    - ``"zero"``: IoU 0, the mean is always over ``num_classes``;
    - ``"union"``: skip a class found neither in targets nor in predictions (default);
    - ``"target"``: skip a class not found in targets, even if it is predicted.

    On the full VOC val set, which holds every class, the three agree.
    """

    ABSENT = ("zero", "union", "target")

    def __init__(
        self,
        num_classes: int = NUM_CLASSES + 1,
        *,
        absent="union",
        names: Sequence[str] = (),
    ):
        if absent not in self.ABSENT:
            raise JswsError(f"absent={absent!r}: choose 'zero', 'union' or 'target'")
        self.num_classes, self.absent = num_classes, absent
        self.names = names  # of the classes, for tables; none for VOC's
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    def update(self, target, pred) -> None:
        """Count integer arrays or tensors of one shape; void targets (255) are ignored.

        Raises JswsError on unequal shapes, on a target that is neither a class nor
        void, and on a prediction that is not a class.
        """
        target, pred = _as_numpy(target), _as_numpy(pred)
        if target.shape != pred.shape:
            raise JswsError(f"prediction is {_size(pred)}, target is {_size(target)}")
        for name, array, also in ("target", target, VOID), ("prediction", pred, 0):
            if array.dtype.kind not in "iub":
                raise JswsError(f"{name} must hold integers, found {array.dtype}")
            bad = ((array < 0) | (array >= self.num_classes)) & (array != also)
            if bad.any():
                void = f" or {VOID} (void)" if name == "target" else ""
                raise JswsError(
                    f"{name} holds the value {array[bad][0]}, "
                    f"expected 0..{self.num_classes - 1}{void}"
                )
        valid = target != VOID
        pair = target[valid].astype(np.int64) * self.num_classes + pred[valid]
        counts = np.bincount(pair, minlength=self.num_classes**2)
        self.matrix += counts.reshape(self.matrix.shape)

    def __iadd__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Merge the counts of another matrix, say of another worker."""
        for name in "num_classes", "absent", "names":
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise JswsError(f"cannot merge {name}={theirs!r} into {name}={mine!r}")
        self.matrix += other.matrix
        return self

    def compute(self) -> SegmentationScores:
        """Scores so far, as fractions of 1; JswsError if no pixel was counted."""
        if not self.matrix.any():
            raise JswsError("no labelled pixel was counted: nothing to score")
        tp = np.diag(self.matrix).astype(float)
        in_target, in_pred = self.matrix.sum(1), self.matrix.sum(0)
        union = in_target + in_pred - tp
        iou = tp / np.maximum(union, 1)
        if self.absent != "zero":
            iou[(union if self.absent == "union" else in_target) == 0] = np.nan
        accuracy = tp.sum() / self.matrix.sum()
        return SegmentationScores(
            float(np.nanmean(iou)), iou, float(accuracy), self.absent, self.names
        )


# --- saliency -----------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """One published recipe for the F-measure; the code below only interprets it."""

    gt_min: float  # a mask pixel is salient from this grey level (0..255) on
    divide_by_max: bool  # normalise for F by the maximum, otherwise min-max
    thresholds: tuple[float, ...]  # map * scale >= threshold is "salient"
    scale: float  # 1, or 255 where the map becomes uint8 by truncation
    average: str  # "pr": F of mean P and R; "f": mean F; "best": mean of the best F
    resize: bool = False  # bring a map of another size to the mask's size
    drop_degenerate: bool = False  # leave undefined maps out of the denominators


_BYTES = tuple(range(256))
_UNIT = tuple(k / 255 for k in _BYTES)
PROTOCOLS: dict[str, Protocol] = {
    # the tables of the paper: grey >= .1 of full scale, thresholds k / 255
    "toolbox": Protocol(25.5, True, _UNIT, 1, "pr", resize=True, drop_degenerate=True),
    "pysod": Protocol(129, False, _BYTES, 255, "f"),
    "per_image_max": Protocol(129, False, _BYTES, 255, "best"),
    "adaptive": Protocol(129, False, (), 1, "f"),  # one threshold from each map
    "jsws21": Protocol(1, False, tuple(np.linspace(0, 1, 21)), 1, "pr"),
}


class SaliencyScores(NamedTuple):
    """Result of `SaliencyMeasure.compute`; curves are (T,), one entry per threshold.

    T is 256, 21 (``jsws21``) or 1 (``adaptive``). ``precision`` and ``recall`` are
    means over the images. ``mae`` is nan if no map defines it.
    """

    mae: float
    max_f: float
    f_curve: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    count: int
    protocol: str

    def __str__(self) -> str:
        return (
            f"MAE {self.mae:.4f}, F {self.max_f:.4f} "
            f"({self.protocol} protocol, {self.count} images)"
        )


def f_measure(precision, recall) -> np.ndarray:
    """F = 1.3 PR / (.3 P + R), elementwise, 0 where both are 0."""
    precision, recall = np.asarray(precision, float), np.asarray(recall, float)
    below = BETA2 * precision + recall
    return (1 + BETA2) * precision * recall / np.where(below == 0, 1, below)


class SaliencyMeasure:
    """MAE and F-measure of saliency maps under a named protocol (see `PROTOCOLS`).

    ============= ======= ======= ============= ===============================
    name          mask    map     thresholds    averaging
    ============= ======= ======= ============= ===============================
    toolbox       >= 25.5 / max   k/255, 256    P and R over images, then F, max
    pysod         > 128   min-max k/255, 256    F curve over images, max
    per_image_max > 128   min-max k/255, 256    max of each image's F, mean
    adaptive      > 128   min-max 2 * mean <= 1 F of each image, mean
    jsws21        != 0    min-max k/20, 21      P and R over images, then F, max
    ============= ======= ======= ============= ===============================

    ``toolbox`` is the recipe of ArcherFMY/sal_eval_toolbox: all 88 figures of other
    methods in Tables 1 and 2 equal those published there, to three decimals. ``pysod`` is
    that of PySODMetrics, ``jsws21`` that of the released code.

    MAE is always mean abs(p - g) of the min-max normalised map, g by the protocol's own
    mask threshold, averaged over images. Cases the recipes leave open:

    - constant map: min-max is 0/0. The map is left as it is; ``toolbox`` instead leaves
      the image out of the MAE.
    - all-zero map under ``toolbox``: its P and R (it "finds" everything at threshold 0)
      stay in the sums, but it does not count in their denominator. So P and R may pass
      1 at threshold 0; if all maps are zero, F is nan.
    - all-background mask: recall, hence F, is 0. An empty prediction has precision 0.
    - a mask with no value above 1 (bool, 1-bit, 0/1) is read as 0/255: compared with
      128 as it stands, it would have no salient pixel and F would be 0 without a word.
    """

    def __init__(self, protocol: str = "toolbox"):
        if protocol not in PROTOCOLS:
            raise JswsError(f"protocol {protocol!r}: choose one of {[*PROTOCOLS]}")
        self.name, self.protocol = protocol, PROTOCOLS[protocol]
        size = len(self.protocol.thresholds) or 1
        self.precision, self.recall, self.f = np.zeros((3, size))  # sums over images
        self.best_f = self.mae = 0.0  # sums over images
        self.count = self.pr_count = self.mae_count = 0

    def update(self, sal_map, mask) -> None:
        """Add one image: map HxW, uint8 or float in [0, 1]; mask HxW, bool or 0..255.

        Under ``toolbox`` a map of another size is resized to the mask's size, bilinear,
        in float, without rounding. Otherwise that is a JswsError, as are values
        outside the ranges.
        """
        sal_map, salient = self.prepare(sal_map, mask)
        values, counts = _histogram(sal_map, salient)
        low, high = values.min(), values.max()
        constant = low == high
        total = counts.sum()

        spread = values if constant else (values - low) / (high - low)
        if not (constant and self.protocol.drop_degenerate):
            self.mae += (counts[0] @ spread + counts[1] @ (1 - spread)) / total
            self.mae_count += 1

        if self.protocol.divide_by_max:
            spread = np.maximum(values, 0) / (high if high > 0 else 1)
        self.pr_count += not (high <= 0 and self.protocol.drop_degenerate)
        thresholds = np.asarray(self.protocol.thresholds)
        if not len(thresholds):
            thresholds = np.minimum([2 * (counts.sum(0) @ spread) / total], 1)
        # Bin k counts pixels that pass k thresholds; summed from the top, "at least k".
        passed = np.searchsorted(thresholds, spread * self.protocol.scale, "right")
        fp, tp = (
            np.bincount(passed, row, len(thresholds) + 1)[:0:-1].cumsum()[::-1]
            for row in counts
        )
        precision = tp / np.maximum(tp + fp, 1)
        recall = tp / max(counts[1].sum(), 1)
        f_curve = f_measure(precision, recall)
        self.precision += precision
        self.recall += recall
        self.f += f_curve
        self.best_f += f_curve.max()
        self.count += 1

    def prepare(self, sal_map, mask) -> tuple[np.ndarray, np.ndarray]:
        """The map at the mask's size and the boolean mask; arguments as for `update`.

        Raises JswsError for values outside the ranges, and, unless the protocol
        resizes, for another size.
        """
        sal_map, mask = _as_numpy(sal_map), _as_numpy(mask)
        if sal_map.ndim != 2 or mask.ndim != 2 or not mask.size or not sal_map.size:
            raise JswsError(f"need HxW arrays, not {sal_map.shape} and {mask.shape}")
        if sal_map.dtype != np.uint8:
            low, high = sal_map.min(), sal_map.max()  # nan if any value is
            # toolbox clips at 0; infinity is nobody's
            least = np.finfo(float).min if self.protocol.divide_by_max else 0
            if sal_map.dtype.kind != "f" or not (least <= low and high <= 1):
                raise JswsError(
                    "a saliency map is uint8 or float in [0, 1], "
                    f"found {sal_map.dtype} in [{low:g}, {high:g}]"
                )
        grey = mask * 255.0 if mask.max() <= 1 else mask
        if not (grey.min() >= 0 and grey.max() <= 255):
            raise JswsError(f"mask spans [{mask.min()}, {mask.max()}], expected 0..255")
        if sal_map.shape != mask.shape:
            if not self.protocol.resize:
                raise JswsError(
                    f"map is {_size(sal_map)}, mask is {_size(mask)} "
                    f"(the {self.name} protocol does not resize)"
                )
            scale = 255 if sal_map.dtype == np.uint8 else 1
            image = Image.fromarray(sal_map.astype(np.float32) / scale)
            image = image.resize(mask.shape[::-1], Image.Resampling.BILINEAR)
            sal_map = np.asarray(image)
        return sal_map, grey >= self.protocol.gt_min

    def __iadd__(self, other: "SaliencyMeasure") -> "SaliencyMeasure":
        """Merge the sums of another measure of the same protocol."""
        if self.name != other.name:
            raise JswsError(f"cannot merge protocol {other.name!r} into {self.name!r}")
        for name in vars(self).keys() - {"name", "protocol"}:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def compute(self) -> SaliencyScores:
        """Scores so far, as fractions of 1; JswsError if no image was added."""
        if not self.count:
            raise JswsError("no saliency map was added: nothing to score")
        precision = self.precision / (self.pr_count or np.nan)
        recall = self.recall / (self.pr_count or np.nan)
        f_curve = self.f / self.count
        if self.protocol.average == "pr":
            f_curve = f_measure(precision, recall)
        max_f = f_curve.max()
        if self.protocol.average == "best":
            max_f = self.best_f / self.count
        mae = self.mae / (self.mae_count or np.nan)
        return SaliencyScores(
            float(mae), float(max_f), f_curve, precision, recall, self.count, self.name
        )


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[::-1])) + " px"  # width first


def _histogram(sal_map: np.ndarray, salient: np.ndarray):
    """Levels that occur in the map, (K,) in [0, 1], and their (background, salient)
    pixel counts (2, K).

    A uint8 map has at most 256 levels, so one bincount replaces its pixels, and
    normalising, thresholding and MAE work on the levels. A float map keeps every pixel.
    """
    if sal_map.dtype != np.uint8:
        salient = salient.ravel()
        return sal_map.ravel().astype(float), np.stack([~salient, salient])
    joint = sal_map + np.uint16(256) * salient
    counts = np.bincount(joint.ravel(), minlength=512).reshape(2, 256)
    (levels,) = counts.any(0).nonzero()
    return levels / 255, counts[:, levels]
