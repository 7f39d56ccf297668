"""The figures of notebook 3, the saliency aggregation module."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import CENTRED, draw_image, draw_map, without_axes


def draw_aggregation(fig: Figure, image, maps: dict, sal_map, mask):
    """A row of pictures: Eq. 1 at work, and where it misses the mask.

    Args:
        fig: a figure or subfigure to fill.
        image: (H, W, 3) uint8.
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
    ax.imshow(votes, vmin=-top, vmax=top, cmap="PuOr_r")
    for y, x in np.argwhere(np.abs(votes) > top / 2):
        sign = "+" if votes[y, x] > 0 else "\N{MINUS SIGN}"
        ink = "white" if abs(votes[y, x]) > 0.75 * top else "black"
        ax.text(x, y, sign, fontsize=9, color=ink, **CENTRED)
    without_axes(ax, title)
