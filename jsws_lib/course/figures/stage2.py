"""The figures of notebook 7, stage 2."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data_utils.voc import VOID
from jsws_lib.course.figures.common import INK, draw_image, draw_segmentation, fill_parts

# Rate: marker and colour of its taps.
_TAPS = {6: ("o", "a"), 12: ("s", "b"), 18: ("^", "c"), 24: ("D", "d")}
# Who is right, teacher or student: colour and hatching.
_CASES = {
    "both right": ("#DDDDDD", ""),
    "fixed": ("#009E73", "////"),
    "broken": ("#D55E00", "xxxx"),
    "both wrong": ("#555555", "...."),
}


def draw_taps(ax: Axes, image, side: int, rates: Sequence[int], row: int, column: int):
    """What 3x3 convolutions of SSNet-2's rates read at one cell of a map.

    Taps inside the map are filled; hollow ones lie outside, where padding reads zero.

    Args:
        image: (H, W, 3), drawn under the map whatever its size.
        side: cells of the square map each way.
        rates: of the convolutions, from 6, 12, 18 and 24.
        row, column: the cell, from 0.
    """
    ax.imshow(image, extent=(-0.5, side - 0.5, side - 0.5, -0.5), alpha=0.75)
    inside = 0
    for rate in rates:
        marker, ink = _TAPS[rate]
        offsets = np.mgrid[-1:2, -1:2].reshape(2, 9) * rate
        y, x = offsets + np.array([[row], [column]])
        seen = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < side)
        inside += seen.sum()
        ax.plot(x[~seen], y[~seen], marker, mfc="none", mec=INK[ink], mew=1.2, ms=6)
        ax.plot(x[seen], y[seen], marker, mfc=INK[ink], mec="white", mew=0.8, ms=8)
        if len(rates) > 1:  # beside the lower right tap
            frame = {"boxstyle": "round,pad=.1", "fc": (1, 1, 1, 0.7), "lw": 0}
            beside = {"xytext": (7, -3), "textcoords": "offset points", "bbox": frame}
            ax.annotate(str(rate), (x[-1], y[-1]), fontsize=8, **beside)
    ax.add_patch(Rectangle((-0.5, -0.5), side, side, fill=False, lw=1.2))
    reach = max(_TAPS) + 3
    ends = -reach, side - 1 + reach
    ax.set(xlim=ends, ylim=ends[::-1], aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    which = f"rate {rates[0]}" if len(rates) == 1 else f"{len(rates)} rates"
    taps = f"{inside} of {9 * len(rates)} taps inside"
    ax.set_title(f"{side}×{side} map, {which}:\n{taps}", fontsize=10)


def draw_answers(fig: Figure, image, truth, teacher, student, *, title: str = ""):
    """Image, truth, teacher, student, who is right where, and the share of each case.

    Args:
        truth, teacher, student: (H, W) categories; truth may hold 255.
    """
    image, truth = np.asarray(image), np.asarray(truth)
    known = truth != VOID
    axes = fig.subplots(1, 6, width_ratios=(1, 1, 1, 1, 1, 0.75))
    draw_image(axes[0], image, title=title or "image")
    maps = {"truth": np.where(known, truth, 0), "teacher": teacher, "student": student}
    for ax, (name, segmentation) in zip(axes[1:], maps.items(), strict=False):
        draw_segmentation(ax, segmentation, image=image, title=name)
    was, now = teacher == truth, student == truth
    cases = [case & known for case in (was & now, ~was & now, was & ~now, ~was & ~now)]
    fill_parts(axes[4], cases, _CASES.values())
    axes[4].set_title("who is right", fontsize=9)
    shares = [100 * case.sum() / max(1, known.sum()) for case in cases]
    for k, (name, (ink, hatch)) in enumerate(_CASES.items()):
        axes[5].barh(k, shares[k], 0.42, color=ink, hatch=hatch, edgecolor="black", lw=0.5)
        axes[5].text(0, k - 0.3, f"{name} {shares[k]:.0f} %", fontsize=8)
    axes[5].set(xlim=(0, 100), ylim=(3.4, -0.75))
    axes[5].set_axis_off()
