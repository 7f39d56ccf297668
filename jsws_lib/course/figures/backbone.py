"""The figures of notebook 2, the backbone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import INK, draw_image, draw_map, open_frame


def draw_blocks(fig: Figure, blocks: Sequence[tuple], *, image_side: int, title: str = ""):
    """Stages of a backbone: their grid over the image, and the taps of a 3x3 filter.

    Args:
        blocks: (name, pixels a side, dilation rate, px between taps in training).
        image_side: px.
    """
    axes = fig.subplots(1, len(blocks), squeeze=False)[0]
    for ax, (name, side, rate, trained) in zip(axes, blocks, strict=True):
        apart = image_side // side * rate
        right = apart == trained
        grid = np.linspace(0, image_side, side + 1)
        ax.hlines(grid, 0, image_side, color=INK["grey"], lw=0.6)
        ax.vlines(grid, 0, image_side, color=INK["grey"], lw=0.6)
        at = (side // 2 + 0.5) * image_side / side + apart * np.array([-1, 0, 1])
        marker, ink = ("s", INK["a"]) if right else ("X", INK["b"])
        ax.plot(*np.meshgrid(at, at), marker, ms=7, mec="white", color=ink)
        ends = -0.02 * image_side, 1.02 * image_side
        ax.set(xlim=ends, ylim=ends[::-1], aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(f"{name}: {side} × {side}", fontsize=10)
        verdict = "✓ as trained" if right else f"✗ trained at {trained}"
        said = f"rate {rate}: taps {apart} px apart\n{verdict}"
        ax.set_xlabel(said, fontsize=10, fontweight="normal" if right else "bold")
    fig.suptitle(title, fontsize=11, fontweight="bold")


def draw_paths(fig: Figure, paths: np.ndarray, *, title: str = ""):
    """How many paths reach each pixel, as a map and as bars along its middle row.

    Args:
        paths: square map (side, side) >= 0, side odd; what is 0 is hatched.
    """
    paths = np.asarray(paths, float)
    side, reach = len(paths), len(paths) // 2
    top, below = fig.subplots(2, 1, height_ratios=(3, 2))
    top.patch.set(fc="white", ec="#bbbbbb", hatch="////", lw=0)
    edges = (-reach - 0.5, reach + 0.5)
    reached = np.ma.masked_equal(paths, 0) ** 0.5
    top.imshow(reached, cmap="cividis", vmin=0, extent=edges + edges[::-1])
    top.set(xticks=[], yticks=[])
    top.set_title(f"{np.count_nonzero(paths)} of {side**2} reached", fontsize=10)
    below.bar(np.arange(-reach, reach + 1), paths[reach], width=0.8, color=INK["a"])
    below.set(xlim=edges, xlabel="distance, pixels", ylabel="paths, middle row")
    open_frame(below)
    fig.suptitle(f"rates {title}", fontsize=11, fontweight="bold")


def draw_cost(fig: Figure, cost: dict, *, image_side: int, limit: float, title: str = ""):
    """Operations, memory and receptive field of several networks, as bars.

    Args:
        cost: name -> (GFLOP, GB kept for the backward pass, receptive field in px).
        image_side: px, a line among the receptive fields.
        limit: GB, a line in the memory if it comes near.
    """
    axes = fig.subplots(1, 3, sharey=True)
    labels = ("GFLOP, forward", "GB kept for backward", "receptive field, px")
    lines = ((None, ""), (limit, f"{limit:g} GB"), (image_side, "image"))
    frame = {"boxstyle": "square,pad=.1", "fc": "white", "lw": 0}
    for k, (ax, label, (line, said)) in enumerate(zip(axes, labels, lines, strict=True)):
        values = [row[k] for row in cost.values()]
        bars = ax.barh(list(cost), values, color=INK["acd"[k]])
        digits = "%.0f" if max(values) >= 100 else "%.1f"
        ax.bar_label(bars, fmt=digits, padding=4, bbox=frame)
        right = 1.28 * max(values)
        if line is not None and line < 2.5 * max(values):
            ax.axvline(line, color="black", ls="--", lw=1.2)
            ax.text(line, -0.75, said, ha="center", fontsize=9)
            right = max(right, 1.15 * line)
        ax.set(xlabel=label, xlim=(0, right), ylim=(len(cost) - 0.5, -0.6))
        open_frame(ax)
    fig.suptitle(title, fontsize=11, fontweight="bold")


def draw_channel(fig: Figure, picture, maps: dict, mask, *, title: str = ""):
    """One channel of several networks beside the picture they saw.

    Args:
        picture: (H, W, 3) uint8.
        maps: name -> (h, w), each drawn up to its own largest value.
        mask: (H, W) bool, outlined in every panel.
    """
    axes = fig.subplots(1, 1 + len(maps))
    draw_image(axes[0], picture, title=title)
    height, width = mask.shape
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        top = max(float(values.max()), 1e-6)
        draw_map(ax, values, vmax=top, title=name, cmap="cividis")
        ax.images[0].set_extent((-0.5, width - 0.5, height - 0.5, -0.5))
    for ax in axes if mask.any() else ():
        for ink, weight in (("black", 3), ("white", 1.2)):
            ax.contour(mask.astype(float), [0.5], colors=ink, linewidths=weight)
