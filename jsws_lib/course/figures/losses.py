"""The figures of notebook 4, the losses, and of its extra notebook."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import CENTRED, INK, draw_map, in_formula, open_frame
from jsws_lib.ssnet import SSNetOutput

_LEGEND = {"fontsize": 9, "frameon": False, "ncols": 3}
_LEGEND |= {"handlelength": 1, "columnspacing": 0.8, "handletextpad": 0.3}


def draw_two_pixels(fig: Figure, maps, saliency, values: dict, steps: dict):
    """Two pixels, left and right: what each shows, and which way each loss moves them.

    Args:
        maps: H of the dog at both pixels, (2,) in [0, 1]; the rest is background.
        saliency: S at both pixels, (2,) in [0, 1].
        values: each loss by its name, a key of `INK`.
        steps: by the same names, minus the gradient at the dog's logit left and right, and
            at the score's logit, (3,).
    """
    shown, ax = fig.subplots(1, 2, width_ratios=(1, 2.1))
    _draw_values(shown, np.asarray(maps), saliency)
    ax.axhline(0, color=INK["grey"], lw=0.8)
    for k, (loss, value) in enumerate(values.items()):
        look = {"color": INK[loss], "hatch": ("", "//", "..")[k], "ec": "white", "lw": 0}
        label = f"{in_formula(loss)} = {value:.2f}"
        ax.bar(np.arange(3) + 0.27 * (k - 1), steps[loss], 0.25, label=label, **look)
    ax.set_xticks(range(3), ("dog's logit,\nleft", "dog's logit,\nright", "logit\nof $v$"))
    ax.tick_params(labelsize=9, length=0)
    ax.set(ylim=(-0.55, 0.55), yticks=(-0.5, 0, 0.5))
    ax.set_ylabel("minus the gradient", fontsize=9)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.05, 1), **_LEGEND)
    open_frame(ax)


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
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), **_LEGEND)


def draw_outcomes(fig: Figure, outcomes: Mapping[str, SSNetOutput], channels: dict):
    """A column for each outcome: the maps of some channels, then S.

    Args:
        outcomes: outputs for one image by their titles.
        channels: the channel of H by the name of its row, "bg" for the background.
    """
    axes = fig.subplots(len(channels) + 1, len(outcomes), squeeze=False)
    for k, (title, out) in enumerate(outcomes.items()):
        maps = {f"$H_{{{name}}}$": out.probs[0, i] for name, i in channels.items()}
        maps["$S$"] = out.sal_map[0]
        for ax, (name, values) in zip(axes[:, k], maps.items(), strict=True):
            draw_map(ax, values)
            ax.set_axis_on()  # a frame, for maps that are white at the rim
            ax.set(xticks=[], yticks=[])
            if k == 0:
                ax.set_ylabel(name, fontsize=10)
        axes[0, k].set_title(title, fontsize=9)


def draw_shares(ax: Axes, shares, rows: Sequence, columns: Sequence, *, title: str):
    """A table of shares in [0, 1], each number on its shade."""
    ax.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for (y, x), share in np.ndenumerate(np.asarray(shares)):
        ink = "white" if share < 0.5 else "black"
        ax.text(x, y, f"{share:.2f}", color=ink, fontsize=9, **CENTRED)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(title, fontsize=9)


def draw_line_of_pixels(fig: Figure, start, end, steps, inside, *, title: str = ""):
    """A line of pixels: a category's margin over the background, and its first step.

    Args:
        start, end: the category's logit minus the background's before and after, (M,).
        steps: minus the gradient at the start, at the category's and at the
            background's logits, (2, M).
        inside: where the object is, (M,) bool; nowhere if the category is absent.
    """
    at, margin, ink = np.arange(len(start)), np.asarray(end), INK["b"]
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.axhline(0, color="black", lw=0.8)
    top.plot(at, start, ":", color="black", lw=1.5)
    top.plot(at, margin, color=INK["a"], lw=2)
    top.fill_between(at, 0, margin.clip(0, None), color=INK["a"], alpha=0.35, lw=0)
    line = np.flatnonzero(inside)
    if len(line):
        top.plot(line[[0, -1]], (-5.4, -5.4), color=ink, lw=6, solid_capstyle="butt")
        above = {"ha": "center", "va": "bottom", "fontsize": 9}
        top.text(line.mean(), -4.8, "object", color=ink, **above)
    top.set(ylim=(-6, 10), yticks=(-4, 0, 4, 8))
    top.set_ylabel("margin", fontsize=9)
    top.set_title(f"{title}\ncalled dog: {(margin > 0).mean():.0%}", fontsize=10)
    category, background = np.asarray(steps) / max(np.abs(steps).max(), 1e-9)
    low.bar(at, category, 1, color=INK["a"], ec=INK["a"], lw=0.3)
    low.bar(at, background, 1, color="white", ec="black", lw=0.3, hatch="////")
    low.axhline(0, color="black", lw=0.8)
    low.set(ylim=(-1.15, 1.15), yticks=[], xticks=[])
    low.set_ylabel("first step", fontsize=9)
    for ax in (top, low):
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        ax.tick_params(labelsize=8)
