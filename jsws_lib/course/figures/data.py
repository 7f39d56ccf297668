"""The figures of notebook 1, the data."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from jsws_lib.course.figures.common import (
    CENTRED,
    INK,
    SHORT,
    draw_image,
    draw_map,
    draw_segmentation,
    without_axes,
)

# What there is to know about a drawn scene, and where a network may learn it.
LAYERS = {
    "image": "always given",
    "labels": "as in $D_c$",
    "saliency": "as in $D_s$",
    "mask": "withheld",
}


def draw_layer(ax: Axes, scene, layer: str):
    """Draw one key of `LAYERS` of a `data_utils.embedded.scenes.Scene`."""
    draw, what = {
        "image": (draw_image, scene.image),
        "labels": (draw_labels, scene.labels),
        "saliency": (draw_map, scene.saliency_mask),
        "mask": (draw_segmentation, scene.class_mask),
    }[layer]
    draw(ax, what, title=f"{layer}: {LAYERS[layer]}")


def draw_labels(ax: Axes, labels, *, title: str = ""):
    """Draw t, (20,), as a table of five rows, category 1 to 20; a 1 is framed and bold."""
    for k, there in enumerate(np.asarray(labels) > 0):
        y, x = divmod(k, 4)
        framed = {"fc": INK["lit"], "lw": 1.5, "zorder": 2}
        plain = {"fc": "white", "lw": 0.4, "zorder": 1}
        ax.add_patch(Rectangle((x, y), 1, 1, ec="black", **framed if there else plain))
        style = {"fontsize": 8, "fontweight": "bold" if there else "normal", "zorder": 3}
        ax.text(x + 0.5, y + 0.3, SHORT[k + 1], **style, **CENTRED)
        ax.text(x + 0.5, y + 0.7, int(there), **style, **CENTRED)
    ax.set(xlim=(-0.03, 4.03), ylim=(5.03, -0.03), aspect=0.8)
    without_axes(ax, title)
