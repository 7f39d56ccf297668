"""The figures of the notebooks: functions that take an `ax` or a figure and draw.

A notebook imports all its drawing from here; what the command line draws, too, comes
from `jsws_lib.pictures`.
"""

import io
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from data_utils.voc import VOID
from jsws_lib.metrics import f_measure
from jsws_lib.pictures import (
    INK,
    SHORT,
    draw_confusion,
    draw_image,
    draw_iou,
    draw_map,
    draw_precision_recall,
    draw_segmentation,
    gallery,
)

__all__ = [
    "INK", "LAYERS", "PARTS", "SHORT", "draw_aggregation", "draw_answers",
    "draw_before_after", "draw_beside", "draw_blocks", "draw_channel",
    "draw_confusion", "draw_cost", "draw_curves", "draw_frame", "draw_image",
    "draw_iou", "draw_labels", "draw_layer", "draw_line_of_pixels", "draw_map",
    "draw_method", "draw_precision_recall", "draw_predicted", "draw_progress",
    "draw_refined", "draw_segmentation", "draw_suppressed", "draw_taps",
    "draw_threshold", "draw_two_pixels", "draw_votes", "draw_walk", "gallery", "show",
    "show_method",
]  # fmt: skip


def show(alt: str) -> None:
    """Show the current Matplotlib figure, described for who cannot see it.

    Args:
        alt: what the figure shows, in a sentence.
    """
    fig, file = plt.gcf(), io.BytesIO()
    fig.savefig(file, format="png", bbox_inches="tight", dpi=fig.dpi)
    plt.close(fig)
    display({"image/png": file.getvalue(), "text/plain": alt}, raw=True,
            metadata={"image/png": {"alt": alt}})  # fmt: skip


def draw_curves(ax: Axes, history: Sequence[dict], *, smooth: int = 0, title: str = ""):
    """Losses over steps; `smooth` averages that many records."""
    smooth = smooth or max(1, len(history) // 50)
    steps = np.array([r["step"] for r in history], float)
    styles = dict(zip(("L_c", "L_s1", "L_s2"), ("-", "--", "-."), strict=True))
    for name in (n for n in styles if n in history[0]):
        values = np.array([r[name] for r in history])
        n = len(values) // smooth * smooth
        averaged = values[:n].reshape(-1, smooth).mean(1)
        ax.plot(steps[:n].reshape(-1, smooth).mean(1), averaged, styles[name],
                color=INK[name], label=f"${name[0]}_{{{name[2:]}}}$")  # fmt: skip
    ax.set(xlabel="step", ylabel="loss")
    ax.set_title(title, fontsize=9)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


# Box: name -> (x, y, width, height, text). Notebook n lights the n-th group.
_BOXES = {
    "class_set": (0.0, 2.1, 1.9, 1.0, "$D_c$: images with\nlabels $t$"),
    "saliency_set": (0.0, 0.3, 1.9, 1.0, "$D_s$: images with\nsaliency masks $Y$"),
    "backbone": (2.5, 1.2, 1.5, 1.0, "backbone\n$\\rightarrow$ features $F$"),
    "sn": (4.7, 2.1, 1.7, 1.0, "SN $\\rightarrow$\nmaps $H$"),
    "sam": (4.7, 0.3, 1.7, 1.0, "SAM $\\rightarrow$ scores $v$\n$S = \\sum v_i H_i$"),
    "losses": (7.1, 1.2, 1.7, 1.0, "$\\mathcal{L}_c$ on $\\hat t$,\n"
                                   "$\\mathcal{L}_{s1}$ on $S$"),
    "pseudo_labels": (9.7, 2.1, 1.8, 1.0, "CRF $\\rightarrow$\npseudo labels"),
    "stage2": (9.7, 0.3, 1.8, 1.0, "SSNet-2\n$\\mathcal{L}_{s1} + "
                                   "\\mathcal{L}_{s2}$"),
    "evaluation": (12.1, 1.2, 1.6, 1.0, "evaluation\nmIoU, MAE,\nmax $F_\\beta$"),
}  # fmt: skip
_ARROWS = [
    ("class_set", "backbone"), ("saliency_set", "backbone"), ("backbone", "sn"),
    ("backbone", "sam"), ("sn", "sam"), ("sn", "losses"), ("sam", "losses"),
    ("pseudo_labels", "stage2"), ("stage2", "evaluation"),
]  # fmt: skip
PARTS = {
    "data": ("class_set", "saliency_set"),
    "backbone": ("backbone",),
    "sam": ("sam",),
    "losses": ("losses",),
    "stage1": ("stage1",),
    "pseudo_labels": ("pseudo_labels",),
    "stage2": ("stage2",),
    "evaluation": ("evaluation",),
}


def draw_method(ax: Axes, part: str):
    """SSNet at a glance with the part a notebook is about lit: a key of `PARTS`."""

    def box(x, y, w, h, *, lit: bool, dashed: bool = False):
        ax.add_patch(
            FancyBboxPatch(
                (x, y), w, h, boxstyle="round,pad=.02,rounding_size=.12",
                fc=INK["lit"] if lit else ("none" if dashed else "white"),
                ec="black", lw=2.5 if lit else 1, ls="--" if dashed else "-",
                alpha=0.35 if lit and dashed else 1, zorder=1 if dashed else 3,
            )
        )  # fmt: skip

    lit = PARTS[part]
    box(2.25, -0.05, 6.85, 3.75, lit="stage1" in lit, dashed=True)
    ax.text(5.7, 3.38, "SSNet-1: stage 1", ha="center", va="center", fontsize=10,
            fontweight="bold" if "stage1" in lit else "normal", zorder=4)  # fmt: skip
    for name, (x, y, w, h, text) in _BOXES.items():
        box(x, y, w, h, lit=name in lit)
        ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9,
                fontweight="bold" if name in lit else "normal", zorder=4)  # fmt: skip
    for start, end in _ARROWS:
        _arrow(ax, _BOXES[start], _BOXES[end])
    ax.annotate(
        "", (9.68, 2.6), (9.12, 2.6), arrowprops={"arrowstyle": "-|>"}, zorder=2
    )
    ax.set(xlim=(-0.1, 13.9), ylim=(-0.15, 3.85), aspect="equal")
    ax.set_axis_off()


def _arrow(ax: Axes, start: tuple, end: tuple):
    x0, y0, w0, h0, _ = start
    x1, y1, w1, h1, _ = end
    if x0 == x1:  # one above the other
        a, b = (x0 + w0 / 2, y0), (x1 + w1 / 2, y1 + h1)
    else:
        a, b = (x0 + w0, y0 + h0 / 2), (x1, y1 + h1 / 2)
    ax.annotate("", b, a, arrowprops={"arrowstyle": "-|>", "shrinkA": 2, "shrinkB": 2},
                zorder=2)  # fmt: skip


def show_method(part: str):
    """The figure that opens each notebook."""
    _, ax = plt.subplots(figsize=(10.5, 3), layout="constrained")
    draw_method(ax, part)
    show(f"The method as boxes and arrows; the part of this notebook, {part}, is lit.")


# Who is right, teacher or student: colour and hatching.
_CASES = {"both right": ("#DDDDDD", ""), "fixed": ("#009E73", "////"),
          "broken": ("#D55E00", "xxxx"), "both wrong": ("#555555", "....")}  # fmt: skip


def _draw_parts(ax: Axes, parts: Sequence[np.ndarray], styles: Iterable[tuple]):
    """Fill each mask (H, W) with its (colour, hatching); the rest stays white."""
    for part, (ink, hatch) in zip(parts, styles, strict=True):
        shape = np.pad(part, 1).astype(float)
        if shape.any():
            ax.contourf(shape, [0.5, 1.5], colors=[ink], hatches=[hatch],
                        antialiased=False)  # fmt: skip
    height, width = parts[0].shape
    ax.set(xlim=(0.5, width + 0.5), ylim=(height + 0.5, 0.5), aspect="equal",
           xticks=[], yticks=[])  # fmt: skip


# What there is to know about a drawn scene, and where a network may learn it.
LAYERS = {"image": "always given", "labels": "as in $D_c$", "saliency": "as in $D_s$",
          "mask": "withheld"}  # fmt: skip


def draw_labels(ax: Axes, labels, *, title: str = ""):
    """Draw t, (20,), as a table of five rows, category 1 to 20; a 1 is framed and bold."""
    for k, there in enumerate(np.asarray(labels) > 0):
        y, x = divmod(k, 4)
        weight = "bold" if there else "normal"
        ax.add_patch(Rectangle((x, y), 1, 1, fc=INK["lit"] if there else "white",
                               ec="black", lw=1.5 if there else 0.4,
                               zorder=2 if there else 1))  # fmt: skip
        ax.text(x + 0.5, y + 0.3, SHORT[k + 1], ha="center", va="center", fontsize=8,
                fontweight=weight, zorder=3)  # fmt: skip
        ax.text(x + 0.5, y + 0.7, int(there), ha="center", va="center", fontsize=8,
                fontweight=weight, zorder=3)  # fmt: skip
    ax.set(xlim=(-0.03, 4.03), ylim=(5.03, -0.03), aspect=0.8)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


def draw_layer(ax: Axes, scene, layer: str):
    """Draw one key of `LAYERS` of a `data_utils.scenes.Scene`."""
    title = f"{layer}: {LAYERS[layer]}"
    if layer == "image":
        draw_image(ax, scene.image, title=title)
    elif layer == "labels":
        draw_labels(ax, scene.labels, title=title)
    elif layer == "saliency":
        draw_map(ax, scene.saliency_mask, title=title)
    else:
        draw_segmentation(ax, scene.class_mask, title=title)


def draw_aggregation(fig, image, maps: dict, sal_map, mask):
    """A row of pictures: Eq. 1 at work, and where it misses the mask.

    Args:
        fig: a figure or subfigure to fill.
        image: (H, W, 3) uint8.
        maps: title -> category map, (H, W) in [0, 1], unweighted.
        sal_map: S, (H, W) in [0, 1].
        mask: Y, (H, W) of 0 and 1.
    """
    axes = fig.subplots(1, len(maps) + 4)
    draw_image(axes[0], image, title="image")
    for ax, (title, values) in zip(axes[1:], maps.items(), strict=False):
        draw_map(ax, values, title=title)
    sal_map, mask = np.asarray(sal_map), np.asarray(mask, float)
    error = np.abs(sal_map - mask)
    draw_map(axes[-3], sal_map, title="sum $S$")
    draw_map(axes[-2], mask, title="mask $Y$")
    draw_map(axes[-1], error, title=f"$|S-Y|$\nmean {error.mean():.3f}", cmap="inferno")


def draw_votes(ax: Axes, votes, *, title: str = ""):
    """Signed values on a coarse grid (k, k): colour, and a sign where they are large."""
    votes = np.asarray(votes)
    top = np.abs(votes).max()
    ax.imshow(votes, vmin=-top, vmax=top, cmap="PuOr_r")
    for y, x in np.argwhere(np.abs(votes) > top / 2):
        sign = "+" if votes[y, x] > 0 else "\N{MINUS SIGN}"
        ink = "white" if abs(votes[y, x]) > 0.75 * top else "black"
        ax.text(x, y, sign, ha="center", va="center", fontsize=9, color=ink)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


# Rate: marker and colour of its taps.
_TAPS = {6: ("o", "a"), 12: ("s", "b"), 18: ("^", "c"), 24: ("D", "d")}
_LABEL = {"boxstyle": "round,pad=.1", "fc": (1, 1, 1, 0.7), "lw": 0}


def draw_taps(ax: Axes, image, side: int, rates: Sequence[int], row: int, column: int):
    """What 3x3 convolutions of SSNet-2's rates read at one cell of a map.

    Taps inside the map are filled; hollow ones lie outside, where padding reads zero.

    Args:
        ax: to draw on.
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
            ax.annotate(str(rate), (x[-1], y[-1]), (7, -3), fontsize=8,
                        textcoords="offset points", bbox=_LABEL)  # fmt: skip
    ax.add_patch(Rectangle((-0.5, -0.5), side, side, fill=False, lw=1.2))
    reach = max(_TAPS) + 3
    ax.set(xlim=(-reach, side - 1 + reach), ylim=(side - 1 + reach, -reach),
           aspect="equal", xticks=[], yticks=[])  # fmt: skip
    ax.spines[:].set_visible(False)
    which = f"rate {rates[0]}" if len(rates) == 1 else f"{len(rates)} rates"
    ax.set_title(f"{side}×{side} map, {which}:\n{inside} of {9 * len(rates)} taps inside",
                 fontsize=10)  # fmt: skip


def draw_answers(fig, image, truth, teacher, student, *, title: str = "",
                 over_image: bool = False):  # fmt: skip
    """Image, truth, teacher, student, who is right where, and the share of each case.

    Args:
        fig: an empty figure.
        image: (H, W, 3) uint8.
        truth, teacher, student: (H, W) categories; truth may hold 255.
        title: stands above the image.
        over_image: draw categories over the image instead of black.
    """
    image, truth = np.asarray(image), np.asarray(truth)
    axes = fig.subplots(1, 6, width_ratios=(1, 1, 1, 1, 1, 0.75))
    draw_image(axes[0], image, title=title or "image")
    maps = {"truth": np.where(truth == VOID, 0, truth), "teacher": teacher,
            "student": student}  # fmt: skip
    for ax, (name, segmentation) in zip(axes[1:4], maps.items(), strict=True):
        draw_segmentation(ax, segmentation, image=image if over_image else None,
                          title=name)  # fmt: skip
    was, now, known = teacher == truth, student == truth, truth != VOID
    cases = [case & known for case in (was & now, ~was & now, was & ~now, ~was & ~now)]
    _draw_parts(axes[4], cases, _CASES.values())
    axes[4].set_title("who is right", fontsize=9)
    shares = [100 * case.sum() / max(1, known.sum()) for case in cases]
    for k, (name, (ink, hatch)) in enumerate(_CASES.items()):
        axes[5].barh(k, shares[k], 0.42, color=ink, hatch=hatch, edgecolor="black", lw=0.5)
        axes[5].text(0, k - 0.3, f"{name} {shares[k]:.0f} %", fontsize=8)
    axes[5].set(xlim=(0, 100), ylim=(3.4, -0.75))
    axes[5].set_axis_off()


# A map cut at a threshold: colour and hatching; what is rightly left out stays white.
_CUT = {"found": ("#BBBBBB", ""), "false alarm": ("#D55E00", "////"),
        "missed": ("#0072B2", "....")}  # fmt: skip


def draw_threshold(fig: Figure, image, sal_map, mask, threshold: int):
    """Cut an 8-bit saliency map and mark its point on the precision-recall curve.

    Args:
        fig: an empty figure or subfigure, about four times as wide as high.
        image: (H, W, 3) uint8.
        sal_map: (H, W) uint8.
        mask: (H, W), 1 where salient.
        threshold: 0 to 255; a pixel at or above it is found.
    """
    axes = fig.subplots(1, 4, width_ratios=(1, 1, 1, 1.5))
    mask = np.asarray(mask) == 1
    draw_image(axes[0], image, title="image")
    draw_map(axes[1], sal_map / 255, title="map $S$")
    found = sal_map >= threshold
    parts = (found & mask, found & ~mask, ~found & mask)
    _draw_parts(axes[2], parts, _CUT.values())
    patches = [Patch(fc=ink, hatch=hatch, ec="black", lw=0.5, label=name)
               for name, (ink, hatch) in _CUT.items()]  # fmt: skip
    axes[2].legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.01),
                   ncols=3, fontsize=8, frameon=False, handlelength=1.2,
                   columnspacing=0.8, handletextpad=0.4)  # fmt: skip
    counts = np.bincount(sal_map.ravel() + np.uint16(256) * mask.ravel(), minlength=512)
    wrong, right = counts.reshape(2, 256)[:, ::-1].cumsum(1)[:, ::-1]
    precision = right / np.maximum(right + wrong, 1)
    recall = right / max(right[0], 1)
    f = f_measure(precision, recall)
    axes[2].set_title(f"$S$ ≥ {threshold}: $F$ = {f[threshold]:.3f}", fontsize=9)
    grid = np.linspace(0.01, 1, 100)
    lines = axes[3].contour(grid, grid, f_measure(*np.meshgrid(grid, grid)[::-1]),
                            [0.5, 0.7, 0.9], colors=INK["grey"], linewidths=0.7,
                            linestyles=":")  # fmt: skip
    axes[3].clabel(lines, fmt="F = %.1f", fontsize=8)
    seen = right + wrong > 0  # where nothing is found, precision is 0 by convention only
    axes[3].plot(recall[seen], precision[seen], "-", color=INK["a"])
    axes[3].plot(recall[f.argmax()], precision[f.argmax()], "*", color="black", ms=11,
                 label=f"best: {f.argmax()}, $F$ = {f.max():.3f}")  # fmt: skip
    axes[3].plot(recall[threshold], precision[threshold], "o", color=INK["b"], ms=8,
                 mec="black", label=f"now: {threshold}")  # fmt: skip
    axes[3].set(xlabel="recall", ylabel="precision", xlim=(0, 1.03), ylim=(0, 1.03))
    axes[3].legend(fontsize=8, frameon=False, loc="lower left")
    axes[3].set_title(f"P {precision[threshold]:.3f}, R {recall[threshold]:.3f}",
                      fontsize=9)  # fmt: skip
    axes[3].spines[["top", "right"]].set_visible(False)


def draw_predicted(fig: Figure, image, segmentation, sal_map):
    """A picture, its categories over it and its saliency map, side by side."""
    axes = fig.subplots(1, 3)
    width, height = image.shape[1::-1]
    draw_image(axes[0], image, title=f"{width} × {height}")
    draw_segmentation(axes[1], segmentation, image=image, title="segmentation")
    draw_map(axes[2], sal_map, title="saliency map $S$")


def draw_beside(ax: Axes, columns: dict[str, tuple], here: dict[str, Sequence[float]], *,
                title: str = ""):  # fmt: skip
    """Published figures, and apart from them those measured on other pictures.

    Args:
        ax: where to draw.
        columns: by test set, the competitors' figures and the paper's own.
        here: by data set, one figure a seed; may be empty.
        title: says the measure.
    """
    for k, (others, ours) in enumerate(columns.values()):
        ax.plot([k] * len(others), others, "o", color=INK["grey"], alpha=0.5, ms=5,
                label="others, in the paper" if k == 0 else None)  # fmt: skip
        ax.plot(k, ours, "D", color=INK["b"], mec="black", ms=7,
                label="the paper's method" if k == 0 else None)  # fmt: skip
    for k, values in enumerate(here.values(), start=len(columns)):
        ax.plot([k] * len(values), values, "*", color=INK["a"], mec="black", mew=0.5,
                ms=11, label="M-M here" if k == len(columns) else None)  # fmt: skip
    edge = len(columns) - 0.5
    ax.axvspan(edge, edge + len(here), color=INK["lit"], alpha=0.25, lw=0,
               label="other pictures: no comparison")  # fmt: skip
    ax.axvline(edge, color="black", lw=0.8, ls="--")
    ax.set_xticks(range(len(columns) + len(here)), [*columns, *here], rotation=40,
                  ha="right", rotation_mode="anchor", fontsize=8)  # fmt: skip
    ax.set_xlim(-0.5, edge + len(here))
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)


def draw_blocks(fig, blocks: Sequence[tuple], *, image_side: int, title: str = ""):
    """Stages of a backbone: their grid over the image, and the taps of a 3x3 filter.

    Args:
        fig: a figure or subfigure to fill.
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
        ax.plot(*np.meshgrid(at, at), "s" if right else "X", ms=7, mec="white",
                color=INK["a" if right else "b"])  # fmt: skip
        margin = 0.02 * image_side
        ax.set(xlim=(-margin, image_side + margin), ylim=(image_side + margin, -margin),
               aspect="equal", xticks=[], yticks=[])  # fmt: skip
        ax.spines[:].set_visible(False)
        ax.set_title(f"{name}: {side} × {side}", fontsize=10)
        verdict = "✓ as trained" if right else f"✗ trained at {trained}"
        ax.set_xlabel(f"rate {rate}: taps {apart} px apart\n{verdict}", fontsize=10,
                      fontweight="normal" if right else "bold")  # fmt: skip
    fig.suptitle(title, fontsize=11, fontweight="bold")


def draw_walk(fig, maps: Sequence[np.ndarray], *, title: str = ""):
    """An impulse after each layer: bright where many paths lead, hatched where none.

    Args:
        fig: a figure or subfigure to fill.
        maps: square maps (side, side) >= 0, the impulse first; a smaller map covers the
            same ground with larger pixels.
    """
    axes = fig.subplots(1, len(maps))
    ground = len(maps[0])
    for k, (ax, values) in enumerate(zip(axes, maps, strict=True)):
        values = np.asarray(values, float)
        cell = -(-ground // len(values))
        end = cell * len(values)
        ax.patch.set(fc="white", ec="#bbbbbb", hatch="////", lw=0)
        ax.imshow(np.ma.masked_equal(values, 0) ** 0.5, cmap="cividis", vmin=0,
                  extent=(0, end, end, 0))  # fmt: skip
        ax.set(xlim=(0, ground), ylim=(ground, 0), xticks=[], yticks=[])
        width = np.ptp(np.flatnonzero(values.any(0))) + 1
        ax.set_title("impulse" if k == 0 else f"layer {k}: {width * cell} px wide",
                     fontsize=10)  # fmt: skip
        ax.set_xlabel(f"{np.count_nonzero(values)} of {width**2} reached", fontsize=10)
    fig.suptitle(title, fontsize=11, fontweight="bold")


def draw_cost(fig, cost: dict[str, tuple[float, float, int]], *, image_side: int,
              limit: float, title: str = ""):  # fmt: skip
    """Operations, memory and receptive field of several networks, as bars.

    Args:
        fig: a figure or subfigure to fill.
        cost: name -> (GFLOP, GB kept for the backward pass, receptive field in px).
        image_side: px, a line among the receptive fields.
        limit: GB, a line in the memory if it comes near.
    """
    axes = fig.subplots(1, 3, sharey=True)
    labels = ("GFLOP, forward", "GB kept for backward", "receptive field, px")
    lines = ((None, ""), (limit, f"{limit:g} GB"), (image_side, "image"))
    for k, (ax, label, (line, said)) in enumerate(zip(axes, labels, lines, strict=True)):
        values = [row[k] for row in cost.values()]
        bars = ax.barh(list(cost), values, color=INK["acd"[k]])
        frame = {"boxstyle": "square,pad=.1", "fc": "white", "lw": 0}
        ax.bar_label(bars, fmt="%.0f" if max(values) >= 100 else "%.1f", padding=4,
                     bbox=frame)  # fmt: skip
        right = 1.28 * max(values)
        if line is not None and line < 2.5 * max(values):
            ax.axvline(line, color="black", ls="--", lw=1.2)
            ax.text(line, -0.75, said, ha="center", fontsize=9)
            right = max(right, 1.15 * line)
        ax.set(xlabel=label, xlim=(0, right), ylim=(len(cost) - 0.5, -0.6))
        ax.spines[["top", "right"]].set_visible(False)
    fig.suptitle(title, fontsize=11, fontweight="bold")


def draw_channel(fig, picture: np.ndarray, maps: dict[str, np.ndarray],
                 mask: np.ndarray, *, title: str = ""):  # fmt: skip
    """One channel of several networks beside the picture they saw.

    Args:
        fig: a figure or subfigure to fill.
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
    ax = fig.add_subplot(grid[:, 0])
    ax.bar((0, 1), maps, 0.7, color=INK["a"], label="$H_{dog}$")
    ax.bar((0, 1), 1 - np.asarray(maps), 0.7, bottom=maps, color="white", ec="black",
           hatch="..", lw=0.5, label="$H_{bg}$")  # fmt: skip
    for x, s in zip((0, 1), saliency, strict=True):
        ax.plot((x - 0.45, x + 0.45), (s, s), color="white", lw=5)
        ax.plot((x - 0.45, x + 0.45), (s, s), color=INK["b"], lw=3,
                label="$S$" if x == 0 else None)  # fmt: skip
    ax.set_xticks((0, 1), ("left:\nsalient", "right:\nnot"), fontsize=9)
    ax.set(ylim=(0, 1.02), yticks=(0, 0.5, 1))
    ax.tick_params(axis="y", labelsize=8)
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3, fontsize=9,
              frameon=False, handlelength=1, columnspacing=0.8,
              handletextpad=0.3)  # fmt: skip
    names = ("dog\nleft", "dog\nright", "bg\nleft", "bg\nright", "score\n$a$")
    for row, (name, value) in enumerate(values.items()):
        ax = fig.add_subplot(grid[row, 1])
        ax.axhline(0, color=INK["grey"], lw=0.8)
        for x, pull in enumerate(pulls[name]):
            tip = float(np.sign(pull) * min(abs(pull) ** 0.5, 0.9))  # small ones show
            mark = "." if abs(pull) < 0.01 else "^" if pull > 0 else "v"
            ax.plot((x, x), (0, tip), color=INK[name], lw=4)
            ax.plot(x, tip, mark, ms=8, color=INK[name])
        ax.set(xlim=(-0.6, 4.6), ylim=(-1.05, 1.05), yticks=[])
        ax.set_xticks(range(5), names if row == 2 else [""] * 5, fontsize=9)
        ax.tick_params(length=0)
        ax.set_ylabel(f"${name[0]}_{{{name[2:]}}}$\n{value:.2f}", rotation=0, fontsize=10,
                      ha="right", va="center")  # fmt: skip
        ax.spines[["top", "right", "bottom"]].set_visible(False)


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
    at, lead = np.arange(len(start)), np.asarray(end)
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.axhline(0, color="black", lw=0.8)
    top.plot(at, start, ":", color="black", lw=1.5)
    top.plot(at, lead, color=INK["a"], lw=2)
    top.fill_between(at, 0, lead.clip(0, None), color=INK["a"], alpha=0.35, lw=0)
    line = np.flatnonzero(inside)
    if len(line):
        top.plot(line[[0, -1]], (-5.4, -5.4), color=INK["b"], lw=6, solid_capstyle="butt")
        top.text(line.mean(), -4.8, "object", ha="center", va="bottom", fontsize=9,
                 color=INK["b"])  # fmt: skip
    top.set(ylim=(-6, 10), yticks=(-4, 0, 4, 8))
    top.set_ylabel("lead", fontsize=9)
    top.set_title(f"{title}\npainted: {(lead > 0).mean():.0%}", fontsize=10)
    largest = max(np.abs(pulls).max(), 1e-9)
    for pull, ink, hatch in zip(pulls, (INK["a"], "white"), ("", "////"), strict=True):
        low.bar(at, np.asarray(pull) / largest, 1, color=ink, hatch=hatch, lw=0.3,
                ec="black" if hatch else ink)  # fmt: skip
    low.axhline(0, color="black", lw=0.8)
    low.set(ylim=(-1.15, 1.15), yticks=[], xticks=[])
    low.set_ylabel("pull", fontsize=9)
    for ax in (top, low):
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        ax.tick_params(labelsize=8)


def draw_suppressed(fig: Figure, image, label, scores, allowed: Sequence[int], spot, *,
                    title: str = "", unit: str = ""):  # fmt: skip
    """A label map made from scores times labels, and the scores of one of its pixels.

    Args:
        fig: an empty figure or subfigure, about five times as wide as high.
        image: (H, W, 3) uint8.
        label: (H, W) uint8 categories.
        scores: of that pixel after the product, (C+1,).
        allowed: the channels that may win: background and present categories.
        spot: row and column of the pixel.
        title, unit: above and beside the scores.
    """
    left, middle, right = fig.subplots(1, 3, width_ratios=(1, 1, 4))
    draw_image(left, image, title="image and one pixel")
    ring = {"mfc": "none", "ms": 10}
    left.plot(spot[1], spot[0], "o", mec="white", mew=3, **ring)
    left.plot(spot[1], spot[0], "o", mec="black", mew=1, **ring)
    lost = ~np.isin(label, allowed)
    draw_segmentation(middle, label, image=image, title=f"impossible: {lost.mean():.0%}")
    if lost.any():
        middle.contourf(lost, [0.5, 1.5], colors="none", hatches=["//"])
    scores = np.asarray(scores)
    at, may = np.arange(len(scores)), np.isin(np.arange(len(scores)), allowed)
    right.bar(at[may], scores[may], color=INK["a"], label="background, present")
    zero = ~may & (scores == 0)  # the product makes every absent score 0: no bar, a mark
    if (~may & ~zero).any():
        right.bar(at[~may], scores[~may], color="white", ec=INK["b"], hatch="////",
                  label="absent")  # fmt: skip
    if zero.any():
        right.plot(at[zero], scores[zero], "D", ms=5, mfc="white", mec=INK["b"], mew=1.5,
                   zorder=3, clip_on=False, label="absent: 0")  # fmt: skip
    right.axhline(0, color="black", lw=0.8)
    low, high = min(0, scores.min()), max(0, scores.max())
    room = (high - low or 1) * 0.3
    best = int(scores.argmax())
    right.annotate(f"{SHORT[best]} wins", (best, scores[best]), (best, high + 0.5 * room),
                   ha="left" if best < 3 else "center", fontsize=9,
                   arrowprops={"arrowstyle": "-"})  # fmt: skip
    right.set(ylim=(low, high + room), ylabel=unit, xlim=(-0.8, len(scores) - 0.2))
    right.set_xticks(at, SHORT, rotation=90, fontsize=8)
    right.tick_params(axis="y", labelsize=8)
    right.set_title(title, fontsize=10, loc="left")
    marks = (part[::-1] for part in right.get_legend_handles_labels())  # bars first
    right.legend(*marks, frameon=False, fontsize=8, ncols=2, loc="lower right",
                 bbox_to_anchor=(1, 0.98), borderaxespad=0)  # fmt: skip
    right.spines[["top", "right"]].set_visible(False)


def draw_refined(fig: Figure, image, q, label, *, title: str = ""):
    """A CRF's belief that a pixel is no background, (H, W), and its label map."""
    left, right = fig.subplots(1, 2)
    draw_map(left, q, title="$1 - Q_{bg}$", cmap="cividis")
    draw_segmentation(right, label, image=image, title=title)


def draw_before_after(ax: Axes, before, after, marked: dict[str, Sequence[int]], *,
                      what: str = "IoU"):  # fmt: skip
    """A point an image: a measure before and after; above the diagonal it gained.

    Args:
        ax: where to draw.
        before, after: the measure of each image, (N,).
        marked: indices to draw larger, by the name of the group.
        what: the measure.
    """
    before, after = np.asarray(before), np.asarray(after)
    ax.plot((0, 1), (0, 1), color="black", lw=0.8)
    ax.plot(before, after, ".", color=INK["grey"], ms=5, alpha=0.7)
    inks = (INK["c"], INK["b"], INK["a"])
    for (name, which), mark, ink in zip(marked.items(), "o^s", inks, strict=False):
        which = list(which)
        ax.plot(before[which], after[which], mark, ms=8, mec="black", color=ink, label=name)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel=f"{what} before",
           ylabel=f"{what} after")  # fmt: skip
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.spines[["top", "right"]].set_visible(False)


def draw_frame(fig: Figure, image, labels_only, joint, sal_map, *, title: str = ""):
    """One frame of two trainings: the image, what S and M see in it, and S of M.

    Args:
        fig: an empty figure or subfigure.
        image: (H, W, 3) uint8.
        labels_only, joint: (H, W) uint8, categories by S and by M.
        sal_map: (H, W) uint8, M's saliency map.
        title: above all four.
    """
    axes = fig.subplots(2, 2).ravel()
    draw_image(axes[0], image, title="image")
    draw_segmentation(axes[1], labels_only, image=image, title="S: labels alone")
    draw_map(axes[2], sal_map, vmax=255, title="M: saliency map")
    draw_segmentation(axes[3], joint, image=image, title="M: labels and masks")
    fig.suptitle(title, fontsize=10, fontweight="bold")


def draw_progress(fig: Figure, history: Sequence[dict], images, predictions):
    """A training so far: its losses, and what the network says of a few images.

    Args:
        fig: an empty figure.
        history: one record a step.
        images: up to four, (H, W, 3) uint8.
        predictions: `jsws_lib.inference.Prediction` of each.
    """
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.3))
    draw_curves(left.subplots(), history, title=f"step {history[-1]['step'] + 1}")
    axes = right.subplots(2, len(images), squeeze=False)
    for column, image, seen in zip(axes.T, images, predictions, strict=True):
        draw_segmentation(column[0], seen.segmentation, image=np.asarray(image))
        draw_map(column[1], seen.sal_map)
    axes[0, 0].set_title("segmentation; below, saliency", fontsize=9, loc="left")
