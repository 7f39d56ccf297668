"""The figures of notebook 8, evaluation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jsws_lib.course.figures.common import (
    INK,
    draw_image,
    draw_map,
    draw_segmentation,
    fill_parts,
    open_frame,
)
from jsws_lib.metrics import f_measure

# A map cut at a threshold: colour and hatching; what is rightly left out stays white.
_CUT = {
    "found": ("#BBBBBB", ""),
    "false alarm": ("#D55E00", "////"),
    "missed": ("#0072B2", "...."),
}


def draw_threshold(fig: Figure, image, sal_map, mask, threshold: int):
    """Cut an 8-bit saliency map and mark its point on the precision-recall curve.

    Args:
        fig: an empty figure or subfigure, about four times as wide as high.
        sal_map: (H, W) uint8.
        mask: (H, W), 1 where salient.
        threshold: 0 to 255; a pixel at or above it is found.
    """
    left, middle, cut, chart = fig.subplots(1, 4, width_ratios=(1, 1, 1, 1.5))
    mask, found = np.asarray(mask) == 1, sal_map >= threshold
    draw_image(left, image, title="image")
    draw_map(middle, sal_map / 255, title="map $S$")
    fill_parts(cut, (found & mask, found & ~mask, ~found & mask), _CUT.values())
    patches = [
        Patch(fc=ink, hatch=hatch, ec="black", lw=0.5, label=name)
        for name, (ink, hatch) in _CUT.items()
    ]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.01), "ncols": 3}
    tight = {"handlelength": 1.2, "columnspacing": 0.8, "handletextpad": 0.4}
    cut.legend(handles=patches, fontsize=8, frameon=False, **place, **tight)
    counts = np.bincount(sal_map.ravel() + np.uint16(256) * mask.ravel(), minlength=512)
    wrong, right = counts.reshape(2, 256)[:, ::-1].cumsum(1)[:, ::-1]
    precision = right / np.maximum(right + wrong, 1)
    recall = right / max(right[0], 1)
    f = f_measure(precision, recall)
    cut.set_title(f"$S$ ≥ {threshold}: $F$ = {f[threshold]:.3f}", fontsize=9)
    _draw_equal_f(chart)
    seen = right + wrong > 0  # where nothing is found, precision is 0 by convention only
    chart.plot(recall[seen], precision[seen], "-", color=INK["a"])
    best, now = f"best: {f.argmax()}, $F$ = {f.max():.3f}", f"now: {threshold}"
    star = {"color": "black", "ms": 11, "label": best}
    chart.plot(recall[f.argmax()], precision[f.argmax()], "*", **star)
    dot = {"color": INK["b"], "ms": 8, "mec": "black", "label": now}
    chart.plot(recall[threshold], precision[threshold], "o", **dot)
    chart.set(xlabel="recall", ylabel="precision", xlim=(0, 1.03), ylim=(0, 1.03))
    chart.legend(fontsize=8, frameon=False, loc="lower left")
    open_frame(chart, f"P {precision[threshold]:.3f}, R {recall[threshold]:.3f}")


def _draw_equal_f(ax: Axes):
    """Dotted lines of equal F over recall and precision."""
    recall, precision = np.meshgrid(*[np.linspace(0.01, 1, 100)] * 2)
    dotted = {"colors": INK["grey"], "linewidths": 0.7, "linestyles": ":"}
    f = f_measure(precision, recall)
    lines = ax.contour(recall, precision, f, [0.5, 0.7, 0.9], **dotted)
    ax.clabel(lines, fmt="F = %.1f", fontsize=8)


def draw_predicted(fig: Figure, image, prediction, names: Sequence[str]):
    """A picture, its categories over it and its saliency map, side by side.

    Args:
        prediction: of `predict`, at the size of the image.
        names: of background and categories.
    """
    axes = fig.subplots(1, 3)
    width, height = image.shape[1::-1]
    draw_image(axes[0], image, title=f"{width} × {height}")
    found, title = prediction.segmentation, "segmentation"
    draw_segmentation(axes[1], found, image=image, title=title, names=names)
    draw_map(axes[2], prediction.sal_map, title="saliency map $S$")


def draw_beside(ax: Axes, columns: dict, here: dict, *, title: str = ""):
    """Published numbers, and apart from them those measured on other pictures.

    Args:
        columns: by test set, the competitors' numbers and the paper's own.
        here: by data set, one number a seed; may be empty.
    """
    looks = {
        "others, in the paper": ("o", {"color": INK["grey"], "alpha": 0.5, "ms": 5}),
        "the paper's method": ("D", {"color": INK["b"], "mec": "black", "ms": 7}),
        "M-M here": ("*", {"color": INK["a"], "mec": "black", "mew": 0.5, "ms": 11}),
    }

    def dots(k, values, label, first):
        (marker, look), said = looks[label], label if k == first else None
        ax.plot([k] * len(values), values, marker, label=said, **look)

    for k, (others, ours) in enumerate(columns.values()):
        dots(k, others, "others, in the paper", 0)
        dots(k, [ours], "the paper's method", 0)
    for k, values in enumerate(here.values(), start=len(columns)):
        dots(k, values, "M-M here", len(columns))
    edge = len(columns) - 0.5
    light = {"color": INK["lit"], "alpha": 0.25, "lw": 0}
    ax.axvspan(edge, edge + len(here), label="other pictures: no comparison", **light)
    ax.axvline(edge, color="black", lw=0.8, ls="--")
    names = [*columns, *here]
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
    ax.set_xticks(range(len(names)), names, **slanted)
    ax.set_xlim(-0.5, edge + len(here))
    ax.set_title(title, fontsize=10)
    open_frame(ax)
