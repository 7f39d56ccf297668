"""The figures of notebook 4, the losses."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import INK, in_formula


def draw_two_pixels(fig: Figure, maps, saliency, values: dict, pulls: dict):
    """Two pixels, left and right: what each shows, and where each loss pulls.

    Args:
        fig: an empty figure or subfigure.
        maps: H of the dog at both pixels, (2,) in [0, 1]; the rest is background.
        saliency: S at both pixels, (2,) in [0, 1].
        values: each loss by its name, a key of `INK`.
        pulls: by the same names, minus the gradient at the dog's logit left and right,
            the background's left and right, and the score's logit, (5,).
    """
    grid = fig.add_gridspec(3, 2, width_ratios=(1, 2.2))
    _draw_values(fig.add_subplot(grid[:, 0]), np.asarray(maps), saliency)
    names = ("dog\nleft", "dog\nright", "bg\nleft", "bg\nright", "score\n$a$")
    for row, (loss, value) in enumerate(values.items()):
        ax = fig.add_subplot(grid[row, 1])
        ax.axhline(0, color=INK["grey"], lw=0.8)
        for x, pull in enumerate(pulls[loss]):
            tip = float(np.sign(pull) * min(abs(pull) ** 0.5, 0.9))  # small ones show
            mark = "." if abs(pull) < 0.01 else "^" if pull > 0 else "v"
            ax.plot((x, x), (0, tip), color=INK[loss], lw=4)
            ax.plot(x, tip, mark, ms=8, color=INK[loss])
        ax.set(xlim=(-0.6, 4.6), ylim=(-1.05, 1.05), yticks=[])
        ax.set_xticks(range(5), names if row == 2 else [""] * 5, fontsize=9)
        ax.tick_params(length=0)
        label = {"rotation": 0, "fontsize": 10, "ha": "right", "va": "center"}
        ax.set_ylabel(f"{in_formula(loss)}\n{value:.2f}", **label)
        ax.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_values(ax: Axes, maps: np.ndarray, saliency):
    """Bars of H at two pixels, the dog's below and the background's above; S as lines."""
    white = {"color": "white", "ec": "black", "hatch": "..", "lw": 0.5}
    ax.bar((0, 1), maps, 0.7, color=INK["a"], label="$H_{dog}$")
    ax.bar((0, 1), 1 - maps, 0.7, bottom=maps, label="$H_{bg}$", **white)
    for x, s in enumerate(saliency):
        line = (x - 0.45, x + 0.45), (s, s)
        ax.plot(*line, color="white", lw=5)
        ax.plot(*line, color=INK["b"], lw=3, label=None if x else "$S$")
    ax.set_xticks((0, 1), ("left:\nsalient", "right:\nnot"), fontsize=9)
    ax.set(ylim=(0, 1.02), yticks=(0, 0.5, 1))
    ax.tick_params(axis="y", labelsize=8)
    place = {"loc": "lower center", "bbox_to_anchor": (0.45, 1), "ncols": 3}
    tight = {"handlelength": 1, "columnspacing": 0.8, "handletextpad": 0.3}
    ax.legend(fontsize=9, frameon=False, **place, **tight)


def draw_line_of_pixels(fig: Figure, start, end, pulls, inside, *, title: str = ""):
    """A line of pixels: a category's lead over the background, and what pulls at it.

    Args:
        fig: an empty figure or subfigure.
        start, end: the category's logit minus the background's before and after, (M,).
        pulls: minus the gradient at the start, at the category's and at the
            background's logits, (2, M).
        inside: where the object is, (M,) bool; nowhere if the category is absent.
        title: of the picture.
    """
    at, lead, ink = np.arange(len(start)), np.asarray(end), INK["b"]
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.axhline(0, color="black", lw=0.8)
    top.plot(at, start, ":", color="black", lw=1.5)
    top.plot(at, lead, color=INK["a"], lw=2)
    top.fill_between(at, 0, lead.clip(0, None), color=INK["a"], alpha=0.35, lw=0)
    line = np.flatnonzero(inside)
    if len(line):
        top.plot(line[[0, -1]], (-5.4, -5.4), color=ink, lw=6, solid_capstyle="butt")
        above = {"ha": "center", "va": "bottom", "fontsize": 9}
        top.text(line.mean(), -4.8, "object", color=ink, **above)
    top.set(ylim=(-6, 10), yticks=(-4, 0, 4, 8))
    top.set_ylabel("lead", fontsize=9)
    top.set_title(f"{title}\npainted: {(lead > 0).mean():.0%}", fontsize=10)
    category, background = np.asarray(pulls) / max(np.abs(pulls).max(), 1e-9)
    low.bar(at, category, 1, color=INK["a"], ec=INK["a"], lw=0.3)
    low.bar(at, background, 1, color="white", ec="black", lw=0.3, hatch="////")
    low.axhline(0, color="black", lw=0.8)
    low.set(ylim=(-1.15, 1.15), yticks=[], xticks=[])
    low.set_ylabel("pull", fontsize=9)
    for ax in (top, low):
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        ax.tick_params(labelsize=8)
