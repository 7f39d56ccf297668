"""The figure that opens each notebook: the method, with the notebook's part lit."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from jsws_lib.course.figures.common import CENTRED, INK
from jsws_lib.course.notebook import show

HIGH = 1.0
# Box: name -> (x, y, width, text).
_BOXES = {
    "class_set": (0.0, 2.1, 1.9, "$D_c$: images with\nlabels $t$"),
    "saliency_set": (0.0, 0.3, 1.9, "$D_s$: images with\nsaliency masks $Y$"),
    "backbone": (2.5, 1.2, 1.5, "backbone\n$\\rightarrow$ features $F$"),
    "sn": (4.7, 2.1, 1.7, "SN $\\rightarrow$\nmaps $H$"),
    "sam": (4.7, 0.3, 1.7, "SAM $\\rightarrow$ scores $v$\n$S = \\sum v_i H_i$"),
    "losses": (7.1, 1.2, 1.7, "$\\mathcal{L}_c$ on $\\hat t$,\n$\\mathcal{L}_{s1}$ on $S$"),
    "pseudo_labels": (9.7, 2.1, 1.8, "CRF $\\rightarrow$\npseudo labels"),
    "stage2": (9.7, 0.3, 1.8, "SSNet-2\n$\\mathcal{L}_{s1} + \\mathcal{L}_{s2}$"),
    "evaluation": (12.1, 1.2, 1.6, "evaluation\nmIoU, MAE,\nmax $F_\\beta$"),
}
_ARROWS = {
    "class_set": ("backbone",),
    "saliency_set": ("backbone",),
    "backbone": ("sn", "sam"),
    "sn": ("sam", "losses"),
    "sam": ("losses",),
    "pseudo_labels": ("stage2",),
    "stage2": ("evaluation",),
}
# What goes around stage 1: from, to, the height of its way, what it carries.
_DETOURS = [
    ("class_set", "pseudo_labels", 4.0, "images and $t$"),
    ("saliency_set", "stage2", -0.35, "images and $Y$"),
]
# The boxes that each notebook lights; stage 1 is the frame around four of them.
_ALONE = ("backbone", "sam", "losses", "stage1", "pseudo_labels", "stage2", "evaluation")
PARTS = {"data": ("class_set", "saliency_set"), **{name: (name,) for name in _ALONE}}


def show_method(part: str):
    """Show SSNet at a glance with one part of it lit: a key of `PARTS`."""
    _, ax = plt.subplots(figsize=(10.5, 3.6), layout="constrained")
    draw_method(ax, part)
    show(f"The method as boxes and arrows; the part of this notebook, {part}, is lit.")


def draw_method(ax: Axes, part: str):
    """Draw SSNet at a glance with one part of it lit: a key of `PARTS`."""
    lit = PARTS[part]

    def box(name, x, y, w, h, **look):
        style = {"boxstyle": "round,pad=.02,rounding_size=.12", "ec": "black", "zorder": 3}
        style |= {"fc": INK["lit"], "lw": 2.5} if name in lit else {"fc": "white", "lw": 1}
        ax.add_patch(FancyBboxPatch((x, y), w, h, **style | look))

    def write(name, x, y, text, size):
        weight = "bold" if name in lit else "normal"
        ax.text(x, y, text, fontsize=size, fontweight=weight, zorder=4, **CENTRED)

    frame = {"alpha": 0.35} if "stage1" in lit else {"fc": "none"}
    box("stage1", 2.25, -0.05, 6.85, 3.75, ls="--", **frame | {"zorder": 1})
    write("stage1", 5.7, 3.38, "SSNet-1: stage 1", 10)
    for name, (x, y, w, text) in _BOXES.items():
        box(name, x, y, w, HIGH)
        write(name, x + w / 2, y + HIGH / 2, text, 9)
        for end in _ARROWS.get(name, ()):
            _arrow(ax, _BOXES[name], _BOXES[end])
    for start, end, height, words in _DETOURS:
        _detour(ax, _BOXES[start], _BOXES[end], height)
        ax.text(5.7, height, words, fontsize=9, backgroundcolor="white", **CENTRED)
    ax.annotate("", (9.68, 2.6), (9.12, 2.6), arrowprops={"arrowstyle": "-|>"}, zorder=2)
    ax.set(xlim=(-0.1, 13.9), ylim=(-0.6, 4.25), aspect="equal")
    ax.set_axis_off()


def _arrow(ax: Axes, start: tuple, end: tuple):
    (x0, y0, w0, _), (x1, y1, w1, _) = start, end
    if x0 == x1:  # one above the other
        a, b = (x0 + w0 / 2, y0), (x1 + w1 / 2, y1 + HIGH)
    else:
        a, b = (x0 + w0, y0 + HIGH / 2), (x1, y1 + HIGH / 2)
    style = {"arrowstyle": "-|>", "shrinkA": 2, "shrinkB": 2}
    ax.annotate("", b, a, arrowprops=style, zorder=2)


def _detour(ax: Axes, start: tuple, end: tuple, height: float):
    (x0, y0, w0, _), (x1, y1, w1, _) = start, end
    x0, x1 = x0 + w0 / 2, x1 + w1 / 2
    out, into = (y + HIGH if height > y else y for y in (y0, y1))
    ax.plot((x0, x0, x1), (out, height, height), color="black", lw=1, zorder=2)
    style = {"arrowstyle": "-|>", "shrinkA": 0}
    ax.annotate("", (x1, into), (x1, height), arrowprops=style)
