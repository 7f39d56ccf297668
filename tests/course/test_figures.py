"""What the figures of the notebooks draw is right where a number can say so."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from data_utils.voc import VOC_CLASSES
from jsws_lib.course.figures import common
from jsws_lib.course.figures.common import INK, SHORT, gallery
from jsws_lib.course.figures.losses import draw_outcomes, draw_shares, draw_two_pixels
from jsws_lib.course.figures.method import PARTS, draw_method
from jsws_lib.course.figures.pseudo_labels import around, draw_suppressed
from jsws_lib.course.figures.sam import draw_scores
from jsws_lib.ssnet import SSNetOutput

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (12, 10, 3), np.uint8)
CLASSES = np.zeros((12, 10), np.uint8)
CLASSES[3:8, 2:6], CLASSES[0] = 9, 255
HISTORY = [{"step": k, "lr": 0.1, "L_c": 1 / (k + 1), "L_s1": 0.5} for k in range(500)]


@pytest.fixture(autouse=True)
def ax():
    _, ax = plt.subplots()
    yield ax
    for figure in map(plt.figure, plt.get_fignums()):
        figure.canvas.draw()  # text, ticks and paths must survive
        small = [text for text in figure.findobj(Text) if text.get_fontsize() < 8]
        assert not [text.get_text() for text in small if text.get_text()]
    plt.close("all")


def test_pictures_maps_and_categories(ax):
    assert len(SHORT) == len(VOC_CLASSES) and max(map(len, SHORT)) <= 6
    common.draw_segmentation(ax, CLASSES, image=IMAGE)
    assert [t.get_text() for t in ax.texts] == ["chair"]
    common.draw_image(ax, IMAGE.transpose(2, 0, 1), title="a")  # either way round
    np.testing.assert_array_equal(ax.images[1].get_array(), IMAGE)
    assert common.draw_map(ax, np.full((4, 4), 0.3)).get_clim() == (0, 1)


def test_curves_show_each_loss_once(ax):
    common.draw_curves(ax, HISTORY)
    first, second = ax.lines
    assert first.get_linestyle() != second.get_linestyle()
    assert (first.get_color(), second.get_color()) == (INK["L_c"], INK["L_s1"])
    mean = np.mean([r["L_c"] for r in HISTORY[:10]])
    assert first.get_ydata()[0] == pytest.approx(mean)


def test_a_confusion_matrix_shows_shares_of_the_true_pixels(ax):
    shown = common.draw_confusion(ax, np.diag(np.arange(20), 1)).get_array()
    np.testing.assert_array_equal(shown, np.diag(np.arange(20) > 0, 1))


def test_gallery_tells_pictures_categories_and_maps_apart():
    fig = gallery([[IMAGE, CLASSES, np.zeros((12, 10))], [IMAGE]], titles=("a", "b", "c"))
    assert len(fig.axes) == 6
    assert [len(a.images) for a in fig.axes] == [1, 1, 1, 1, 0, 0]
    assert fig.axes[0].get_title() == "a" and fig.axes[3].get_title() == ""


@pytest.mark.parametrize("part", PARTS)
def test_the_method_lights_one_part(ax, part):
    draw_method(ax, part)
    lit = [p for p in ax.patches if p.get_linewidth() > 2]
    assert len(lit) == len(PARTS[part])
    bold = [t for t in ax.texts if t.get_fontweight() == "bold"]
    assert len(bold) == len(lit)  # lit by weight too, not by colour alone


def test_names_stay_inside_the_picture():
    fig, ax = plt.subplots(figsize=(1.4, 1.4), layout="constrained")
    corners = np.zeros((96, 96), np.uint8)
    corners[:14, :14], corners[-14:, -14:], corners[40:50, 40:50] = 5, 15, 12
    common.draw_segmentation(ax, corners)
    fig.canvas.draw()
    assert {text.get_text() for text in ax.texts} == {"bottle", "person", "dog"}
    area = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_bbox_patch().get_window_extent()
        assert area.x0 <= box.x0 and box.x1 <= area.x1, text.get_text()
        assert area.y0 <= box.y0 and box.y1 <= area.y1, text.get_text()
    x, y = ax.texts[1].get_position()  # what has room is named where it is
    assert (ax.texts[1].get_text(), x, y) == ("dog", 44.5, 44.5)


@pytest.mark.parametrize(
    ("count", "inches", "named"), [(5, 1.4, 5), (6, 1.4, 0), (6, 4, 6)]
)
def test_a_small_picture_names_few_categories(count, inches, named):
    many = np.zeros((96, 96), np.uint8)
    for k in range(count):
        many[16 * k : 16 * k + 10] = k + 1
    _, ax = plt.subplots(figsize=(inches, inches))
    common.draw_segmentation(ax, many)
    assert len(ax.texts) == named


def test_a_detail_holds_its_mask_and_a_margin():
    mask = np.zeros((20, 30), bool)
    mask[5:8, 28] = mask[6, 1] = True
    assert mask[around(mask, 2)].sum() == mask.sum()
    assert around(mask, 2) == (slice(3, 10), slice(0, 31))


def test_scores_of_absent_categories_are_seen_at_zero(ax):
    scores = np.zeros(21)
    scores[[0, 12]] = -9, -3
    fig = plt.figure(figsize=(10, 2), layout="constrained")
    draw_suppressed(fig, IMAGE, CLASSES, scores, [0, 12], (4, 4), unit="logits")
    right = fig.axes[-1]
    assert [bar.get_height() for bar in right.patches] == [-9, -3]
    (marks,) = (line for line in right.lines if line.get_label() == "absent: 0")
    assert set(marks.get_xdata()) == set(range(21)) - {0, 12}
    assert not marks.get_ydata().any()
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["background, present", "absent: 0"]
    assert "aero wins" in [text.get_text() for text in right.texts]


def test_figures_of_the_losses_show_maps_and_steps():
    logits = torch.zeros(1, 21, 4, 4)
    logits[:, 12] = 9.0
    out = SSNetOutput(logits.log_softmax(1), logits, torch.full((1, 20), -9.0))
    fig = plt.figure()
    draw_outcomes(fig, {"one": out, "two": out}, {"bg": 0, "dog": 12})
    column = fig.axes[::2]
    assert [part.get_ylabel() for part in column] == ["$H_{bg}$", "$H_{dog}$", "$S$"]
    shown = [part.images[0].get_array().mean() for part in column]
    assert shown == pytest.approx([0, 1, 0], abs=0.01)

    draw_shares(plt.figure().gca(), [[0.25, 1], [0, 0.5]], "ab", "cd", title="t")
    found = {t.get_position(): t.get_text() for t in plt.gca().texts}
    assert found[0, 0] == "0.25" and found[1, 0] == "1.00" and found[0, 1] == "0.00"

    fig = plt.figure()
    steps = {"L_c": (0.1, 0, 0), "L_s1": (0.2, -0.3, 0.4)}
    draw_two_pixels(fig, (0.9, 0.2), (0.8, 0.1), {"L_c": 1.0, "L_s1": 0.5}, steps)
    heights = [bar.get_height() for bar in fig.axes[1].patches]
    assert heights == [*steps["L_c"], *steps["L_s1"]]


def test_scores_show_every_run(ax):
    one = {"v_salient": [0.4], "v_not_salient": [0.3], "gain": [2]}
    two = {"v_salient": [1, 0.9], "v_not_salient": [0.5, 0.6], "gain": [8, -6]}
    fig = plt.figure(figsize=(9, 2), layout="constrained")
    draw_scores(fig, {"one": one, "two": two})
    left, right = fig.axes
    runs = [(list(line.get_xdata()), list(line.get_ydata())) for line in left.lines]
    assert runs[-2:] == [([1, 0.9], [1, 1]), ([0.5, 0.6], [1, 1])]
    gains = [(list(line.get_xdata()), list(line.get_ydata())) for line in right.lines]
    assert gains[:2] == [([2], [0]), ([8, -6], [1, 1])]
