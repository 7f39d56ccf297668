"""The explorers of notebook 6; its galleries are in common.py, the method in method.py."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import (
    INK,
    SHORT,
    draw_image,
    draw_map,
    draw_segmentation,
)


def draw_suppressed(fig: Figure, image, label, scores, allowed, spot, *, title="", unit=""):
    """A label map made from scores times labels, and the scores of one of its pixels.

    Args:
        fig: an empty figure or subfigure, about five times as wide as high.
        label: (H, W) uint8 categories.
        scores: of that pixel after the product, (C+1,).
        allowed: the channels that may win: background and present categories.
        spot: row and column of the pixel.
        title, unit: above and beside the scores.
    """
    left, middle, right = fig.subplots(1, 3, width_ratios=(1, 1, 4))
    draw_image(left, image, title="image and one pixel")
    for ink, weight in (("white", 3), ("black", 1)):
        left.plot(spot[1], spot[0], "o", mfc="none", ms=10, mec=ink, mew=weight)
    lost = ~np.isin(label, allowed)
    draw_segmentation(middle, label, image=image, title=f"impossible: {lost.mean():.0%}")
    if lost.any():
        middle.contourf(lost, [0.5, 1.5], colors="none", hatches=["//"])
    _draw_scores(right, np.asarray(scores), allowed)
    right.set_ylabel(unit)
    right.set_title(title, fontsize=10, loc="left")


def _draw_scores(ax: Axes, scores: np.ndarray, allowed: Sequence[int]):
    """The scores of one pixel, (C+1,): which may win, which may not, and which does."""
    at = np.arange(len(scores))
    may = np.isin(at, allowed)
    ax.bar(at[may], scores[may], color=INK["a"], label="background, present")
    if not may.all():  # the product makes every absent score 0: no bar, a mark
        look = {"ms": 5, "mfc": "white", "mec": INK["b"], "mew": 1.5, "zorder": 3}
        ax.plot(at[~may], scores[~may], "D", clip_on=False, label="absent: 0", **look)
    ax.axhline(0, color="black", lw=0.8)
    low, high = min(0, scores.min()), max(0, scores.max())
    room, best = (high - low or 1) * 0.3, int(scores.argmax())
    style = {"fontsize": 9, "ha": "left" if best < 3 else "center"}
    ends = (best, scores[best]), (best, high + 0.5 * room)
    ax.annotate(f"{SHORT[best]} wins", *ends, arrowprops={"arrowstyle": "-"}, **style)
    ax.set(ylim=(low, high + room), xlim=(-0.8, len(scores) - 0.2))
    ax.set_xticks(at, SHORT, rotation=90, fontsize=8)
    ax.tick_params(axis="y", labelsize=8)
    marks = (part[::-1] for part in ax.get_legend_handles_labels())  # bars first
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
    ax.legend(*marks, frameon=False, fontsize=8, ncols=2, **place)
    ax.spines[["top", "right"]].set_visible(False)


def around(mask: np.ndarray, margin: int = 6) -> tuple[slice, slice]:
    """Rows and columns of a detail: what the mask (H, W) covers, and a margin."""
    covered = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return tuple(slice(max(0, at[0] - margin), at[-1] + margin + 1) for at in covered)


def draw_refined(fig: Figure, image, q, label, *, detail=np.s_[:, :], title: str = ""):
    """A CRF's belief that a pixel is no background, (H, W), and its label map.

    Args:
        q: (H, W), probabilities.
        label: (H, W) uint8 categories.
        detail: rows and columns to show.
    """
    left, right = fig.subplots(1, 2)
    draw_map(left, q[detail], title="$1 - Q_{bg}$", cmap="cividis")
    draw_segmentation(right, label[detail], image=image[detail], names=())
    fig.suptitle(title, fontsize=9)
