"""Metrics against other libraries, plain loops, and the documented edge cases."""

import numpy as np
import pytest
import torch
from helpers import refuses
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from jsws_lib.experiments.folders import structure
from jsws_lib.metrics import PROTOCOLS, ConfusionMatrix, SaliencyMeasure


def merged(make, pairs):
    """Two accumulators, one of every second pair, one of the others, merged."""
    both = make(), make()
    for k, pair in enumerate(pairs):
        both[k % 2].update(*pair)
    one, other = both
    one += other
    return one


# --- mean IoU -----------------------------------------------------------------------


def matrix_of(*pairs, absent="union"):
    return merged(lambda: ConfusionMatrix(absent=absent), pairs)


@pytest.mark.parametrize("classes", [21, 9])  # 9: the other 12 are absent everywhere
def test_miou_equals_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, (4, 40, 50), np.uint8)
    wrong = rng.integers(0, classes, target.shape, np.uint8)
    pred = np.where(rng.random(target.shape) < 0.6, target, wrong)
    target[rng.random(target.shape) < 0.1] = 255
    matrix = matrix_of(*zip(target, pred, strict=True))
    scores, keep = matrix.compute(), target != 255
    oracle = confusion_matrix(target[keep], pred[keep], labels=range(21))
    assert np.array_equal(matrix.matrix, oracle) and matrix.matrix.dtype == np.int64
    jaccard = jaccard_score(target[keep], pred[keep], average="macro")
    assert scores.miou == pytest.approx(jaccard, abs=1e-12)
    assert np.isnan(scores.iou).sum() == 21 - classes
    assert scores.pixel_accuracy == pytest.approx((target == pred)[keep].mean())
    tensors = torch.from_numpy(target), torch.from_numpy(pred)
    assert np.array_equal(matrix_of(tensors).matrix, oracle)


def test_absent_class_conventions_differ_on_a_small_set():
    # IoU: background 3/4, class 1 1/2; class 2 is only predicted; 18 are nowhere
    target, pred = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 2, 1, 2])
    expected = {"zero": 1.25 / 21, "union": 1.25 / 3, "target": 1.25 / 2}
    for absent, miou in expected.items():
        scores = matrix_of((target, pred), absent=absent).compute()
        assert scores.miou == pytest.approx(miou) and scores.absent == absent
    assert scores.iou[:2] == pytest.approx([0.75, 0.5])
    assert np.isnan(scores.iou[2:]).all()


def test_confusion_matrix_rejects_bad_input():
    zeros = np.zeros((2, 3), np.uint8)
    one = ConfusionMatrix()
    refuses("prediction is 2 x 3 px, target is 3 x 2 px", one.update, zeros, zeros.T)
    refuses("target holds the value 77", one.update, zeros + 77, zeros)
    refuses("prediction holds the value 21", one.update, zeros, zeros + 21)
    refuses("prediction holds the value 255", one.update, zeros + 255, zeros + 255)
    refuses("target holds the value -1", one.update, zeros.astype(int) - 1, zeros)
    refuses("integers, found float64", one.update, zeros, zeros / 2)
    refuses("'union'", ConfusionMatrix, absent="none")
    refuses("nothing to score", one.compute)
    refuses("absent='zero'", one.__iadd__, ConfusionMatrix(absent="zero"))
    two, three = (ConfusionMatrix(2, names=names) for names in ("ab", "ac"))
    refuses("cannot merge names=", two.__iadd__, three)


def test_confusion_matrix_prints_class_names():
    text = str(matrix_of(([0, 0, 15], [0, 15, 15])).compute()).splitlines()
    assert text[0].split() == ["background", "50.0"]
    assert text[1].split() == ["aeroplane", "–"]
    assert text[15].split() == ["person", "50.0"]
    assert "mean IoU (absent: union)" in text[-1] and text[-1].endswith("50.0")


# --- saliency: maps and masks --------------------------------------------------------


def one_pixel(mask):
    alone = mask * 0
    alone[len(mask) // 2, mask.shape[1] // 2] = 255
    return alone


KINDS = (  # what becomes of a random map and its mask
    lambda sal_map, mask, rng: (37 + sal_map * (167 / 255), mask),  # dim: 37 to 204
    lambda sal_map, mask, rng: (sal_map * 0 + rng.integers(0, 256), mask),  # constant
    lambda sal_map, mask, rng: (sal_map * 0, mask),
    lambda sal_map, mask, rng: (sal_map, mask * 0),  # nothing is salient
    lambda sal_map, mask, rng: (sal_map, mask * 0 + 255),  # everything is
    lambda sal_map, mask, rng: (mask, mask),  # perfect
    lambda sal_map, mask, rng: (255 - mask, mask),  # all wrong
    lambda sal_map, mask, rng: (sal_map, rng.choice(LEVELS, mask.shape)),  # graded
    lambda sal_map, mask, rng: ((sal_map > 128) * 255, mask),  # two levels
    lambda sal_map, mask, rng: (sal_map, one_pixel(mask)),
)
LEVELS = [0, 1, 25, 26, 128, 129, 200, 255]  # around every threshold of a mask


def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k-th of 200 pairs (map, mask), uint8: random ones, then what breaks programs."""
    rng = np.random.default_rng(k)
    h, w = rng.integers(6, 40, 2)
    mask = np.zeros((h, w), np.uint8)
    top, left = rng.integers(0, h - 4), rng.integers(0, w - 4)
    mask[top : top + rng.integers(2, h), left : left + rng.integers(2, w)] = 255
    noise = rng.normal(0, rng.uniform(5, 120), (h, w))
    sal_map = (mask * rng.uniform(0.2, 1) + noise).clip(0, 255).astype(np.uint8)
    return tuple(one.astype(np.uint8) for one in KINDS[k % 10](sal_map, mask, rng))


def measured(protocol, pairs):
    return merged(lambda: SaliencyMeasure(protocol), pairs).compute()


PAIRS = [pair(k) for k in range(40)]


# --- saliency: plain loops over thresholds and images, straight from the recipes ------


def slow_f(p, r):
    return 1.3 * p * r / np.where(p * r > 0, 0.3 * p + r, 1)


def slow_scores(protocol, pairs):
    """(mae, max F, F curve) of full-scale uint8 pairs, a comparison per threshold."""
    maes, found, zero_maps = [], [], 0
    for sal_map, mask in pairs:
        p, g = sal_map / 255, mask / 255
        g = {"toolbox": g >= 0.1, "jsws21": g != 0}.get(protocol, mask > 128)
        constant = p.max() == p.min()
        spread = p if constant else (p - p.min()) / (p.max() - p.min())
        if not (constant and protocol == "toolbox"):
            maes.append(np.abs(spread - g).mean())
        thresholds = [k / 255 for k in range(256)]
        if protocol == "toolbox":
            zero_maps += p.max() == 0
            spread = p / p.max() if p.max() > 0 else p
        elif protocol == "jsws21":
            thresholds = np.linspace(0, 1, 21)
        elif protocol == "adaptive":
            thresholds = [min(2 * spread.mean(), 1)]
        else:
            spread, thresholds = (spread * 255).astype(np.uint8), range(256)
        masks = [spread >= threshold for threshold in thresholds]
        hits = np.array([(one & g).sum() for one in masks])
        sizes = np.array([one.sum() for one in masks])
        found.append((hits / np.maximum(sizes, 1), hits / max(g.sum(), 1)))
    precision, recall = np.moveaxis(found, 1, 0)
    each = slow_f(precision, recall)
    if protocol in ("toolbox", "jsws21"):
        count = len(pairs) - zero_maps
        curve = slow_f(precision.sum(0) / count, recall.sum(0) / count)
    else:
        curve = each.mean(0)
    max_f = each.max(1).mean() if protocol == "per_image_max" else curve.max()
    return np.mean(maes), max_f, curve


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("start", range(0, 40, 4))  # four kinds of pairs at a time
def test_saliency_scores_equal_plain_loops(protocol, start):
    scores = measured(protocol, PAIRS[start : start + 4])
    mae, max_f, curve = slow_scores(protocol, PAIRS[start : start + 4])
    assert scores.mae == pytest.approx(mae, abs=1e-12)
    assert scores.max_f == pytest.approx(max_f, abs=1e-12)
    assert scores.f_curve == pytest.approx(np.array(curve), abs=1e-12)
    assert scores.count == 4 and scores.protocol == protocol
    assert len(scores.f_curve) == {"jsws21": 21, "adaptive": 1}.get(protocol, 256)
    assert len(scores.precision) == len(scores.recall) == len(scores.f_curve)


# --- saliency: PySODMetrics ----------------------------------------------------------


@pytest.mark.parametrize("kind", range(10))
def test_scores_equal_pysodmetrics(kind):
    oracle = pytest.importorskip("py_sod_metrics")
    rows = []
    theirs = oracle.Smeasure(), oracle.Emeasure(), oracle.WeightedFmeasure()
    for k in range(kind, 200, 10):
        sal_map, mask = pair(k)
        single = oracle.Fmeasure(), oracle.MAE()
        for measure in (*theirs, *single):
            measure.step(sal_map, mask)
        f, mae = single[0].get_results()["fm"], single[1].get_results()["mae"]
        scores = measured("pysod", [(sal_map, mask)])
        curve = np.asarray(f["curve"])[::-1]  # the library begins with the threshold 255
        np.testing.assert_allclose(scores.f_curve, curve, atol=1e-12, err_msg=str(k))
        assert scores.mae == pytest.approx(mae, abs=1e-12), k
        adaptive = measured("adaptive", [(sal_map, mask)]).max_f
        assert adaptive == pytest.approx(f["adp"], abs=1e-12), k
        rows.append(structure(sal_map, mask))
    s, e, f = (measure.get_results() for measure in theirs)
    wanted = s["sm"], e["em"]["adp"], f["wfm"], *e["em"]["curve"]
    assert np.mean(rows, axis=0) == pytest.approx(wanted, abs=1e-12)


# --- saliency: what goes in ----------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_form_of_maps_and_masks_does_not_matter(protocol):
    pairs = [pair(k) for k in (0, 10, 20)]
    exact = measured(protocol, pairs)
    for form in (torch.from_numpy, lambda g: g > 0, lambda g: g // 255, lambda g: g / 255):
        scores = measured(protocol, [(m, form(g)) for m, g in pairs])
        assert scores.mae == exact.mae and scores.max_f == exact.max_f > 0.2
    # Below float64 a level may fall on the other side of a threshold that it equals.
    off = {torch.float64: 1e-12, torch.float32: 2e-3, torch.bfloat16: 0.02}
    for dtype, most in off.items():
        maps = [torch.tensor(m / 255, dtype=dtype, requires_grad=True) for m, _ in pairs]
        masks = [g for _, g in pairs]
        scores = measured(protocol, zip(maps, masks, strict=True))
        assert scores.mae == pytest.approx(exact.mae, abs=most)
        assert scores.max_f == pytest.approx(exact.max_f, abs=most)


@pytest.mark.filterwarnings("error")
def test_degenerate_inputs_have_the_documented_scores():
    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 255
    constant, zero = np.full_like(mask, 51), np.zeros_like(mask)
    # a constant map is kept as it is, but left out of the toolbox's MAE
    assert measured("pysod", [(constant, mask)]).mae == pytest.approx(0.5)
    assert np.isnan(measured("toolbox", [(constant, mask)]).mae)
    # all-zero map: P = .5, R = 1 at threshold 0 join the sums, not the denominator
    scores = measured("toolbox", [(zero, mask), (mask, mask)])
    assert scores.precision[:2] == pytest.approx([0.5 + 0.5, 1])
    assert scores.recall[:2] == pytest.approx([2, 1])
    assert np.isnan(measured("toolbox", [(zero, mask)]).max_f)
    # all-background mask: F is 0, MAE counts
    scores = measured("toolbox", [(mask, zero)])
    assert (scores.max_f, scores.mae) == (0, pytest.approx(0.5))
    assert str(scores) == "MAE 0.5000, F 0.0000 (toolbox protocol, 1 images)"
    # the toolbox clips negative floats for F
    negative = np.array([[-1.0, 0, 0.5, 0.5]]), np.array([[0, 0, 255, 255]], np.uint8)
    assert measured("toolbox", [negative]).max_f == pytest.approx(1)


def test_only_toolbox_resizes_and_does_so_in_float():
    mask = np.zeros((12, 20), np.uint8)
    mask[3:9, 5:15] = 255
    small = np.array([[0, 1], [3, 2]], np.uint8) * 80
    image = Image.fromarray(small.astype(np.float32) / 255)
    resized = np.asarray(image.resize((20, 12), Image.Resampling.BILINEAR))
    scores = measured("toolbox", [(small, mask)])
    expected = measured("toolbox", [(resized, mask)])
    assert scores.max_f == expected.max_f and scores.mae == expected.mae
    for name in PROTOCOLS.keys() - {"toolbox"}:
        words = "map is 2 x 2 px, mask is 20 x 12 px"
        refuses(words, measured, name, [(small, mask)])


def test_saliency_measure_rejects_bad_input():
    mask = np.eye(4, dtype=bool)
    pysod, toolbox = SaliencyMeasure("pysod"), SaliencyMeasure("toolbox")
    refuses(r"found float64 in \[7, 7\]", pysod.update, np.full((4, 4), 7.0), mask)
    refuses("found float64", pysod.update, np.full((4, 4), np.nan), mask)
    refuses("found float64", pysod.update, np.full((4, 4), -0.1), mask)
    refuses("found int64", pysod.update, np.ones((4, 4), int), mask)
    refuses("HxW", pysod.update, np.ones((1, 4, 4), np.uint8), mask)
    refuses("found float64 in .-inf", toolbox.update, np.where(mask, 1, -np.inf), mask)
    refuses("expected 0..255", pysod.update, mask / 2, mask * 700)
    refuses("choose one of", SaliencyMeasure, "f_beta")
    refuses("nothing to score", SaliencyMeasure().compute)
    refuses("'toolbox' into 'pysod'", pysod.__iadd__, toolbox)
