"""Pictures, maps, categories and measures: what notebooks and the command line draw."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_utils.voc import VOID, overlay

# Short names of background and categories fit under bars and into legends.
SHORT = tuple(
    "bkg aero bike bird boat bottle bus car cat chair cow table dog horse mbike "
    "person plant sheep sofa train tv".split()
)
# Okabe and Ito's colours, told apart by colour-blind readers.
INK = {"a": "#0072B2", "b": "#D55E00", "c": "#009E73", "d": "#CC79A7"}
INK |= {"L_c": INK["a"], "L_s1": INK["b"], "L_s2": INK["c"]}
INK |= {"lit": "#F0E442", "grey": "#7f7f7f"}
CENTRED = {"ha": "center", "va": "center"}


def without_axes(ax: Axes, title: str = ""):
    """Leave a picture's title and nothing else around it."""
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


def open_frame(ax: Axes, title: str | None = None):
    """Take away a chart's upper and right line; entitle it if there is a title."""
    if title is not None:
        ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def in_formula(loss: str) -> str:
    """The symbol of a loss as Matplotlib sets it; `loss` is `L_c`, `L_s1` or `L_s2`."""
    return f"${loss[0]}_{{{loss[2:]}}}$"


def draw_image(ax: Axes, image, *, title: str = ""):
    """Draw a picture (H, W, 3) or (3, H, W) without axes."""
    image = np.asarray(image)
    ax.imshow(image.transpose(1, 2, 0) if image.shape[0] == 3 else image)
    without_axes(ax, title)


def draw_map(ax: Axes, values, *, title: str = "", vmin=0.0, vmax=1.0, cmap="gray"):
    """Draw a map (H, W) on a fixed scale; saliency grey, signed maps in another cmap."""
    shown = ax.imshow(np.asarray(values), vmin=vmin, vmax=vmax, cmap=cmap)
    without_axes(ax, title)
    return shown


def draw_segmentation(
    ax: Axes, segmentation, *, image=None, title: str = "", names: Sequence[str] = SHORT
):
    """Draw categories in VOC's colours, over the image or on grey, with `names` if any.

    Grey, as VOC's black background hides its darkest colours.
    """
    segmentation = np.asarray(segmentation)
    base = np.full((*segmentation.shape, 3), 205) if image is None else image
    ax.imshow(overlay(np.asarray(base), segmentation, alpha=1 if image is None else 0.65))
    without_axes(ax, title)
    if names:
        _name_regions(ax, segmentation, names)


def _name_regions(ax: Axes, segmentation: np.ndarray, names: Sequence[str]):
    """Write each category's short name on it, inside the picture."""
    size, area = 8, ax.get_window_extent()  # points; pixels of the screen
    height, width = segmentation.shape
    pixel = min(area.width / width, area.height / height) / ax.figure.dpi  # inches
    found, counts = np.unique(segmentation, return_counts=True)
    large = counts >= 0.01 * segmentation.size  # too small to name
    found = [i for i in found[large] if i not in (0, VOID)]
    if len(found) > 5 and pixel * max(height, width) < 2.5:
        return  # names would hide what they name
    letter = 0.6 * size / 72 / pixel  # about the width of one, in pixels
    frame = {"boxstyle": "round,pad=.15", "fc": (0, 0, 0, 0.6), "lw": 0}
    style = {"color": "white", "fontsize": size, "bbox": frame, "clip_on": True}
    for i in found:
        y, x = (np.median(axis) for axis in np.nonzero(segmentation == i))
        x = _inside(x, letter * (len(names[i]) / 2 + 0.3), width)
        ax.text(x, _inside(y, 1.2 * letter, height), names[i], **style, **CENTRED)


def _inside(at: float, half: float, whole: float) -> float:
    """The centre nearest to `at` of a span of 2 `half` that lies within 0 to `whole`."""
    return min(max(at, half), whole - half) if 2 * half < whole else whole / 2


def fill_parts(ax: Axes, parts: Sequence[np.ndarray], styles: Iterable[tuple]):
    """Fill each mask (H, W) with its (colour, hatching); the rest stays white."""
    for part, (ink, hatch) in zip(parts, styles, strict=True):
        shape = np.pad(part, 1).astype(float)
        if shape.any():
            ax.contourf(shape, [0.5, 1.5], colors=[ink], hatches=[hatch], antialiased=False)
    height, width = parts[0].shape
    ax.set(xlim=(0.5, width + 0.5), ylim=(height + 0.5, 0.5), aspect="equal")
    ax.set(xticks=[], yticks=[])


def gallery(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str] = (),
    size: float = 1.35,
    names: Sequence[str] = SHORT,
) -> Figure:
    """A page of pictures: one inner sequence a row.

    (H, W, 3) is drawn as a picture, (H, W) uint8 as categories in VOC's colours,
    (H, W) float as a grey map.
    """
    shape = len(rows), max(map(len, rows))
    figsize = size * shape[1], size * shape[0] + 0.2
    fig, axes = plt.subplots(*shape, squeeze=False, layout="constrained", figsize=figsize)
    for ax in axes.flat:
        ax.set_axis_off()
    for r, row in enumerate(rows):
        for c, (ax, cell) in enumerate(zip(axes[r], map(np.asarray, row), strict=False)):
            title = titles[c] if r == 0 and c < len(titles) else ""
            if cell.ndim == 3:
                draw_image(ax, cell, title=title)
            elif cell.dtype == np.uint8:
                draw_segmentation(ax, cell, title=title, names=names)
            else:
                draw_map(ax, cell, title=title)
    return fig


def draw_curves(ax: Axes, history: Sequence[dict], *, title: str = ""):
    """Losses over steps, averaged to some fifty points."""
    smooth = max(1, len(history) // 50)
    n = len(history) // smooth * smooth

    def averaged(key):
        return np.array([r[key] for r in history[:n]], float).reshape(-1, smooth).mean(1)

    for loss, style in {"L_c": "-", "L_s1": "--", "L_s2": "-."}.items():
        if loss in history[0]:
            drawn = {"color": INK[loss], "label": in_formula(loss)}
            ax.plot(averaged("step"), averaged(loss), style, **drawn)
    ax.set(xlabel="step", ylabel="loss")
    ax.legend(frameon=False)
    open_frame(ax, title)


def draw_iou(ax: Axes, series: dict[str, np.ndarray], *, names: Sequence[str] = SHORT):
    """Per-category IoU, one group of bars a category; `series` maps a name to (C+1,)."""
    width, inks = 0.8 / len(series), (INK["grey"], INK["a"], INK["b"], INK["c"])
    for k, (name, iou) in enumerate(series.items()):
        at = np.arange(len(iou)) + (k - (len(series) - 1) / 2) * width
        look = {"color": inks[k % 4], "hatch": ("", "//", "..", "xx")[k % 4]}
        ax.bar(at, iou, width, edgecolor="white", linewidth=0, label=name, **look)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set(ylabel="IoU", ylim=(0, 1))
    ax.legend(frameon=False, fontsize=8, ncols=len(series))
    open_frame(ax)


def draw_confusion(
    ax: Axes, matrix: np.ndarray, *, title: str = "", names: Sequence[str] = SHORT
):
    """A confusion matrix (C+1, C+1), rows normalised to what the truth became."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = ax.imshow(share, vmin=0, vmax=1, cmap="cividis")
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="predicted", ylabel="truth")
    ax.set_title(title, fontsize=9)
    return shown


def draw_precision_recall(ax: Axes, curves: dict[str, tuple]):
    """Precision over recall for each name; a value is `(precision, recall)`."""
    styles = ("-", "--", "-.", ":")
    for (name, (precision, recall)), style in zip(curves.items(), styles, strict=False):
        ax.plot(recall, precision, style, label=name)
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(frameon=False, fontsize=8)
    open_frame(ax)
