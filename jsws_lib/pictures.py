"""Pictures, maps, categories and measures: what the course and the command line draw."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_utils.voc import VOID, palette

# Short names fit under bars and into legends.
SHORT = ("bkg", "aero", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
         "cow", "table", "dog", "horse", "mbike", "person", "plant", "sheep", "sofa",
         "train", "tv")  # fmt: skip
# Okabe and Ito's colours, told apart by colour-blind readers.
INK = {"L_c": "#0072B2", "L_s1": "#D55E00", "L_s2": "#009E73", "grey": "#7f7f7f",
       "lit": "#F0E442", "a": "#0072B2", "b": "#D55E00", "c": "#009E73",
       "d": "#CC79A7"}  # fmt: skip


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
                      names: bool | Sequence[str] = True):  # fmt: skip
    """Draw categories in VOC's colours, over the image if given, with their names.

    `names` are of background and categories; True for VOC's, False for none.
    """
    segmentation = np.asarray(segmentation)
    base = np.zeros((*segmentation.shape, 3), np.uint8) if image is None else image
    blend = overlay(np.asarray(base), segmentation, alpha=1 if image is None else 0.65)
    ax.imshow(blend)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()
    if names:
        _name_regions(ax, segmentation, names=SHORT if names is True else names)


def _name_regions(ax: Axes, segmentation: np.ndarray, *, size: float = 8,
                  names: Sequence[str] = SHORT):  # fmt: skip
    """Write each category's short name on it, inside the picture; `size` in points."""
    area = ax.get_window_extent()
    height, width = segmentation.shape
    pixel = min(area.width / width, area.height / height) / ax.figure.dpi  # inches
    found, counts = np.unique(segmentation, return_counts=True)
    large = counts >= 0.01 * segmentation.size  # too small to name
    found = [i for i in found[large] if i not in (0, VOID)]
    if len(found) > 5 and pixel * max(height, width) < 2.5:
        return  # names would hide what they name
    for i in found:
        y, x = (np.median(axis) for axis in np.nonzero(segmentation == i))
        letter = 0.6 * size / 72 / pixel  # about the width of one, in pixels
        x = _inside(x, letter * (len(names[i]) / 2 + 0.3), width)
        y = _inside(y, 1.2 * letter, height)
        frame = {"boxstyle": "round,pad=.15", "fc": (0, 0, 0, 0.6), "lw": 0}
        ax.text(x, y, names[i], color="white", fontsize=size, ha="center", va="center",
                bbox=frame, clip_on=True)  # fmt: skip


def _inside(at: float, half: float, whole: float) -> float:
    """The centre nearest to `at` of a span of 2 `half` that lies within 0 to `whole`."""
    return min(max(at, half), whole - half) if 2 * half < whole else whole / 2


def gallery(rows: Sequence[Sequence[np.ndarray]], *, titles: Sequence[str] = (),
            size: float = 1.35, names: Sequence[str] = SHORT) -> Figure:  # fmt: skip
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
                draw_segmentation(ax, cell, title=title, names=names)
            else:
                draw_map(ax, cell, title=title)
    return fig


def draw_iou(ax: Axes, series: dict[str, np.ndarray], *, title: str = "",
             names: Sequence[str] = SHORT):  # fmt: skip
    """Per-category IoU, one group of bars a category; `series` maps a name to (C+1,)."""
    width, inks = 0.8 / len(series), (INK["grey"], INK["a"], INK["b"], INK["c"])
    hatches = ("", "//", "..", "xx")
    for k, (name, iou) in enumerate(series.items()):
        at = np.arange(len(iou)) + (k - (len(series) - 1) / 2) * width
        ax.bar(at, iou, width, color=inks[k % 4], hatch=hatches[k % 4],
               edgecolor="white", linewidth=0, label=name)  # fmt: skip
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set(ylabel="IoU", ylim=(0, 1))
    ax.set_title(title, fontsize=9)
    ax.legend(frameon=False, fontsize=8, ncols=len(series))
    ax.spines[["top", "right"]].set_visible(False)


def draw_confusion(ax: Axes, matrix: np.ndarray, *, title: str = "",
                   names: Sequence[str] = SHORT):  # fmt: skip
    """A confusion matrix (C+1, C+1), rows normalised to what the truth became."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = ax.imshow(share, vmin=0, vmax=1, cmap="cividis")
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
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
