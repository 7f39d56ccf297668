"""Every drawing function draws, and what it draws is right where a number can say so."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from data_utils.voc import VOC_CLASSES, palette
from jsws_lib import drawing
from jsws_lib.drawing import INK, PARTS, SHORT, draw_method, gallery, overlay

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (12, 10, 3), np.uint8)
CLASSES = np.zeros((12, 10), np.uint8)
CLASSES[3:8, 2:6], CLASSES[0] = 9, 255
HISTORY = [{"step": k, "lr": 0.1, "L_c": 1 / (k + 1), "L_s1": 0.5} for k in range(60)]


@pytest.fixture
def ax():
    _, ax = plt.subplots()
    yield ax
    ax.figure.canvas.draw()  # text, ticks and paths must survive
    plt.close("all")


def test_overlay_tints_categories_only():
    blend = overlay(IMAGE, CLASSES, alpha=0.5)
    assert (blend.shape, blend.dtype) == (IMAGE.shape, np.uint8)
    np.testing.assert_array_equal(blend[10], IMAGE[10])
    expected = (0.5 * IMAGE[4, 3] + 0.5 * palette()[9]).round()
    np.testing.assert_array_equal(blend[4, 3], expected)
    np.testing.assert_array_equal(overlay(IMAGE, CLASSES, alpha=1)[0], 255)


def test_names_fit_the_categories():
    assert len(SHORT) == len(VOC_CLASSES) and max(map(len, SHORT)) <= 6


def test_images_either_way_round(ax):
    drawing.draw_image(ax, IMAGE.transpose(2, 0, 1), title="a")
    np.testing.assert_array_equal(ax.images[0].get_array(), IMAGE)


def test_maps_keep_their_scale(ax):
    shown = drawing.draw_map(ax, np.full((4, 4), 0.3))
    assert shown.get_clim() == (0, 1)


def test_segmentations_name_what_they_show(ax):
    drawing.draw_segmentation(ax, CLASSES, image=IMAGE)
    assert [t.get_text() for t in ax.texts] == ["chair"]


def test_curves_show_each_loss_once(ax):
    drawing.draw_curves(ax, HISTORY, smooth=10)
    assert len(ax.lines) == 2
    styles = {(line.get_linestyle(), line.get_color()) for line in ax.lines}
    assert len(styles) == 2
    assert ax.lines[0].get_ydata()[0] == pytest.approx(
        np.mean([r["L_c"] for r in HISTORY[:10]])
    )
    assert ax.lines[0].get_color() == INK["L_c"]


def test_iou_confusion_and_curves(ax):
    drawing.draw_iou(ax, {"M": np.full(21, 0.5), "MM": np.r_[np.nan, np.full(20, 0.6)]})
    assert len(ax.patches) == 42
    shown = drawing.draw_confusion(plt.figure().gca(), np.diag(np.arange(21)))
    assert shown.get_array().max() == 1 and np.isfinite(shown.get_array()).all()
    pr = {"a": (np.ones(5), np.linspace(0, 1, 5))}
    drawing.draw_precision_recall(plt.figure().gca(), pr)


def test_gallery_tells_pictures_categories_and_maps_apart():
    fig = gallery([[IMAGE, CLASSES, np.zeros((12, 10))], [IMAGE]], titles=("a", "b", "c"))
    assert len(fig.axes) == 6
    assert [len(a.images) for a in fig.axes] == [1, 1, 1, 1, 0, 0]
    assert fig.axes[0].get_title() == "a" and fig.axes[3].get_title() == ""
    plt.close("all")


@pytest.mark.parametrize("part", PARTS)
def test_the_method_lights_one_part(ax, part):
    draw_method(ax, part)
    lit = [p for p in ax.patches if p.get_linewidth() > 2]
    assert len(lit) == len(PARTS[part])
    bold = [t for t in ax.texts if t.get_fontweight() == "bold"]
    assert len(bold) == len(lit)  # lit by weight too, not by colour alone
