"""Every figure of the course and the command line. Functions take an `ax` and draw."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from data_utils.voc import VOID, palette

# Short names fit under bars and into legends.
SHORT = ("bkg", "aero", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
         "cow", "table", "dog", "horse", "mbike", "person", "plant", "sheep", "sofa",
         "train", "tv")  # fmt: skip
# Okabe and Ito's colours, told apart by colour-blind readers.
INK = {"L_c": "#0072B2", "L_s1": "#D55E00", "L_s2": "#009E73", "grey": "#7f7f7f",
       "lit": "#F0E442", "a": "#0072B2", "b": "#D55E00", "c": "#009E73",
       "d": "#CC79A7"}  # fmt: skip


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


def colour(category: int) -> np.ndarray:
    """VOC's colour of a category, (3,) float in [0, 1]."""
    return palette()[category] / 255


def overlay(image: np.ndarray, segmentation: np.ndarray, *, alpha: float = 0.65):
    """Blend categories over a photograph.

    Args:
        image: (H, W, 3) uint8.
        segmentation: (H, W) uint8; background shows the image, 255 shows white.
        alpha: opacity of the categories.

    Returns:
        (H, W, 3) uint8.
    """
    tint = palette()[segmentation].astype(float)
    tint[segmentation == VOID] = 255
    weight = alpha * (segmentation > 0)[..., None]
    return ((1 - weight) * image + weight * tint).round().astype(np.uint8)


def draw_image(ax: Axes, image, *, title: str = ""):
    """Draw a picture (H, W, 3) or (3, H, W) without axes."""
    image = np.asarray(image)
    image = image.transpose(1, 2, 0) if image.shape[0] == 3 else image
    ax.imshow(image)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


def draw_map(ax: Axes, values, *, title: str = "", vmin=0.0, vmax=1.0, cmap="gray"):
    """Draw a map (H, W) on a fixed scale; saliency grey, signed maps in another cmap."""
    shown = ax.imshow(np.asarray(values), vmin=vmin, vmax=vmax, cmap=cmap)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()
    return shown


def draw_segmentation(ax: Axes, segmentation, *, image=None, title: str = "",
                      names: bool = True):  # fmt: skip
    """Draw categories in VOC's colours, over the image if given, with their names."""
    segmentation = np.asarray(segmentation)
    base = np.zeros((*segmentation.shape, 3), np.uint8) if image is None else image
    blend = overlay(np.asarray(base), segmentation, alpha=1 if image is None else 0.65)
    ax.imshow(blend)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()
    for i in np.unique(segmentation) if names else ():
        if i in (0, VOID) or (segmentation == i).mean() < 0.01:  # too small to name
            continue
        y, x = (np.median(axis) for axis in np.nonzero(segmentation == i))
        frame = {"boxstyle": "round,pad=.15", "fc": (0, 0, 0, 0.6), "lw": 0}
        ax.text(x, y, SHORT[i], color="white", fontsize=7, ha="center", va="center",
                bbox=frame, clip_on=True)  # fmt: skip


def gallery(rows: Sequence[Sequence[np.ndarray]], *, titles: Sequence[str] = (),
            size: float = 1.35) -> Figure:  # fmt: skip
    """A page of pictures: one inner sequence a row.

    (H, W, 3) is drawn as a picture, (H, W) uint8 as categories in VOC's colours,
    (H, W) float as a grey map.
    """
    columns = max(map(len, rows))
    fig, axes = plt.subplots(len(rows), columns, squeeze=False, layout="constrained",
                             figsize=(size * columns, size * len(rows) + 0.2))  # fmt: skip
    for r, row in enumerate(rows):
        for c, ax in enumerate(axes[r]):
            ax.set_axis_off()
            if c >= len(row):
                continue
            title = titles[c] if r == 0 and c < len(titles) else ""
            cell = np.asarray(row[c])
            if cell.ndim == 3:
                draw_image(ax, cell, title=title)
            elif cell.dtype == np.uint8:
                draw_segmentation(ax, cell, title=title)
            else:
                draw_map(ax, cell, title=title)
    return fig


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


def draw_iou(ax: Axes, series: dict[str, np.ndarray], *, title: str = ""):
    """Per-category IoU, one group of bars a category; `series` maps a name to (C+1,)."""
    width, inks = 0.8 / len(series), (INK["grey"], INK["a"], INK["b"], INK["c"])
    hatches = ("", "//", "..", "xx")
    for k, (name, iou) in enumerate(series.items()):
        at = np.arange(len(iou)) + (k - (len(series) - 1) / 2) * width
        ax.bar(at, iou, width, color=inks[k % 4], hatch=hatches[k % 4],
               edgecolor="white", linewidth=0, label=name)  # fmt: skip
    ax.set_xticks(range(len(SHORT)), SHORT, rotation=90, fontsize=7)
    ax.set(ylabel="IoU", ylim=(0, 1))
    ax.set_title(title, fontsize=9)
    ax.legend(frameon=False, fontsize=8, ncols=len(series))
    ax.spines[["top", "right"]].set_visible(False)


def draw_confusion(ax: Axes, matrix: np.ndarray, *, title: str = ""):
    """A confusion matrix (C+1, C+1), rows normalised to what the truth became."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = ax.imshow(share, vmin=0, vmax=1, cmap="cividis")
    ax.set_xticks(range(len(SHORT)), SHORT, rotation=90, fontsize=6)
    ax.set_yticks(range(len(SHORT)), SHORT, fontsize=6)
    ax.set(xlabel="predicted", ylabel="truth")
    ax.set_title(title, fontsize=9)
    return shown


def draw_precision_recall(ax: Axes, curves: dict[str, tuple], *, title: str = ""):
    """Precision over recall for each name; a value is `(precision, recall)`."""
    for (name, (precision, recall)), style in zip(
        curves.items(), ("-", "--", "-.", ":"), strict=False
    ):
        ax.plot(recall, precision, style, label=name)
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    ax.set_title(title, fontsize=9)
    ax.legend(frameon=False, fontsize=8)
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


# Case: colour and hatching; VOID stays white.
_CASES = {"both right": ("#DDDDDD", ""), "student only (fixed)": ("#009E73", "////"),
          "teacher only (broken)": ("#D55E00", "xxxx"),
          "both wrong": ("#555555", "....")}  # fmt: skip


def draw_cases(ax: Axes, truth, teacher, student, *, title: str = ""):
    """Where teacher, student, both or none are right; arguments (H, W) categories."""
    was, now, known = teacher == truth, student == truth, truth != VOID
    masks = (was & now, ~was & now, was & ~now, ~was & ~now)
    for mask, (ink, hatch) in zip(masks, _CASES.values(), strict=True):
        shape = np.pad(mask & known, 1).astype(float)
        if shape.any():
            ax.contourf(shape, [0.5, 1.5], colors=[ink], hatches=[hatch],
                        antialiased=False)  # fmt: skip
    height, width = truth.shape
    ax.set(xlim=(0.5, width + 0.5), ylim=(height + 0.5, 0.5), aspect="equal",
           xticks=[], yticks=[])  # fmt: skip
    ax.set_title(title, fontsize=9)


def case_legend(fig: Figure):
    """Explain `draw_cases` below a figure."""
    patches = [Patch(fc=ink, hatch=hatch, ec="black", lw=0.5, label=name)
               for name, (ink, hatch) in _CASES.items()]  # fmt: skip
    fig.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8,
               frameon=False)  # fmt: skip
