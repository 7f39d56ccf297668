"""The figures of notebook 3, the saliency aggregation module."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import CENTRED, INK, draw_image, draw_map, open_frame


def draw_aggregation(fig: Figure, image, maps: dict, sal_map, mask):
    """A row of pictures: Eq. 1 at work, and where it misses the mask.

    Args:
        maps: title -> category map, (H, W) in [0, 1], unweighted.
        sal_map: S, (H, W) in [0, 1].
        mask: Y, (H, W) of 0 and 1.
    """
    first, *middle, sum_ax, mask_ax, error_ax = fig.subplots(1, len(maps) + 4)
    draw_image(first, image, title="image")
    for ax, (title, values) in zip(middle, maps.items(), strict=True):
        draw_map(ax, values, title=title)
    sal_map, mask = np.asarray(sal_map), np.asarray(mask, float)
    error = np.abs(sal_map - mask)
    draw_map(sum_ax, sal_map, title="sum $S$")
    draw_map(mask_ax, mask, title="mask $Y$")
    draw_map(error_ax, error, title=f"$|S-Y|$\nmean {error.mean():.3f}", cmap="inferno")


def draw_votes(ax: Axes, votes, *, title: str = ""):
    """Signed values on a coarse grid (k, k): colour, and a sign where they are large."""
    votes = np.asarray(votes)
    top = np.abs(votes).max()
    draw_map(ax, votes, title=title, vmin=-top, vmax=top, cmap="PuOr_r")
    for y, x in np.argwhere(np.abs(votes) > top / 2):
        sign = "+" if votes[y, x] > 0 else "\N{MINUS SIGN}"
        ink = "white" if abs(votes[y, x]) > 0.75 * top else "black"
        ax.text(x, y, sign, fontsize=9, color=ink, **CENTRED)


def draw_scores(fig: Figure, trainings: dict[str, dict]):
    """Two panels: mean v by role in each training, and what v adds to max F.

    Args:
        trainings: name -> lists of one number a run: `v_salient`, `v_not_salient`
            and `gain`, thousandths of max F that v adds.
    """
    left, right = fig.subplots(1, 2, sharey=True)
    looks = {"v_salient": ("o", "a", "salient"), "v_not_salient": ("s", "b", "beside it")}
    for row, values in enumerate(trainings.values()):
        for name, (marker, ink, label) in looks.items():
            at, label = [row] * len(values[name]), label if row == 0 else None
            look = {"alpha": 0.7, "clip_on": False, "label": label}
            left.plot(values[name], at, marker, color=INK[ink], **look)
        gain = values["gain"]
        right.plot(gain, [row] * len(gain), "D", color=INK["c"], alpha=0.7)
    left.set_yticks(range(len(trainings)), trainings)
    left.set(xlim=(0, 1), xlabel="mean $v$")
    left.set_ylim(len(trainings) - 0.5, -0.5)
    left.legend(frameon=False, fontsize=8, loc="upper left")
    right.axvline(0, color="black", lw=0.8)
    right.set(xlabel="thousandths of max $F$ added by $v$, against $v=1$")
    for ax in (left, right):
        open_frame(ax)
