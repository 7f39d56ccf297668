"""Metrics against published values, other libraries and plain loops."""

import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from data_utils.errors import JswsError
from jsws_lib.metrics import (
    PROTOCOLS,
    ConfusionMatrix,
    SaliencyMeasure,
)

# --- mean IoU -----------------------------------------------------------------------


def random_segmentation(seed, *, shape=(4, 40, 50), classes=21):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, shape)
    pred = np.where(rng.random(shape) < 0.6, target, rng.integers(0, classes, shape))
    target[rng.random(shape) < 0.1] = 255
    return target.astype(np.uint8), pred.astype(np.uint8)


@pytest.mark.parametrize("classes", [21, 9])  # 9: the other 12 are absent everywhere
def test_miou_equals_scikit_learn_and_torchmetrics(classes):
    target, pred = random_segmentation(classes, classes=classes)
    matrix = ConfusionMatrix()
    matrix.update(target, pred)
    scores = matrix.compute()
    keep = target != 255
    oracle = confusion_matrix(target[keep], pred[keep], labels=range(21))
    assert np.array_equal(matrix.matrix, oracle) and matrix.matrix.dtype == np.int64
    jaccard = jaccard_score(target[keep], pred[keep], average="macro")
    assert scores.miou == pytest.approx(jaccard, abs=1e-12)
    assert np.isnan(scores.iou).sum() == 21 - classes
    metric = MulticlassJaccardIndex(21, average="macro", ignore_index=255)
    value = metric(torch.from_numpy(pred).long(), torch.from_numpy(target).long())
    assert scores.miou == pytest.approx(float(value), abs=1e-6)
    assert scores.pixel_accuracy == pytest.approx((target == pred)[keep].mean())


def test_absent_class_conventions_differ_on_a_small_set():
    # IoU: background 3/4, class 1 1/2; class 2 is only predicted; 18 are nowhere
    target = np.array([0, 0, 0, 0, 1, 1])
    pred = np.array([0, 0, 0, 2, 1, 2])
    expected = {"zero": 1.25 / 21, "union": 1.25 / 3, "target": 1.25 / 2}
    for absent, miou in expected.items():
        matrix = ConfusionMatrix(absent=absent)
        matrix.update(target, pred)
        scores = matrix.compute()
        assert scores.miou == pytest.approx(miou) and scores.absent == absent
    assert scores.iou[:2] == pytest.approx([0.75, 0.5])
    assert np.isnan(scores.iou[2:]).all()


def test_conventions_agree_when_every_class_occurs():
    target, pred = random_segmentation(0)
    mious = set()
    for absent in "zero", "union", "target":
        matrix = ConfusionMatrix(absent=absent)
        matrix.update(target, pred)
        mious.add(matrix.compute().miou)
    assert max(mious) - min(mious) < 1e-12


def test_void_pixels_do_not_count():
    target, pred = random_segmentation(1)
    one, other = ConfusionMatrix(), ConfusionMatrix()
    one.update(target, pred)
    other.update(target, np.where(target == 255, 20 - pred, pred))
    assert np.array_equal(one.matrix, other.matrix)
    assert one.matrix.sum() == (target != 255).sum() < target.size


def test_order_batching_merging_and_tensors_do_not_matter():
    target, pred = random_segmentation(2)
    whole = ConfusionMatrix()
    whole.update(target, pred)
    left, right = ConfusionMatrix(), ConfusionMatrix()
    for i in (3, 1):
        left.update(torch.from_numpy(target[i]), torch.from_numpy(pred[i]))
    for i in (2, 0):
        right.update(target[i].astype(np.int64).ravel(), pred[i].ravel())
    left += right
    assert np.array_equal(whole.matrix, left.matrix)
    shuffle = np.random.default_rng(0).permutation(target.size)
    again = ConfusionMatrix()
    again.update(target.ravel()[shuffle], pred.ravel()[shuffle])
    assert np.array_equal(whole.matrix, again.matrix)
    with pytest.raises(JswsError, match="absent='zero'"):
        left += ConfusionMatrix(absent="zero")


def test_counts_pass_32_bits():
    matrix = ConfusionMatrix()
    matrix.update(np.zeros(8, int), np.zeros(8, int))
    for _ in range(40):
        matrix += matrix
    assert matrix.matrix[0, 0] == 2**43


def test_confusion_matrix_rejects_bad_input():
    zeros = np.zeros((2, 3), np.uint8)
    for target, pred, words in [
        (zeros, zeros.T, "prediction is 2 x 3 px, target is 3 x 2 px"),
        (zeros + 77, zeros, "target holds the value 77"),
        (zeros, zeros + 21, "prediction holds the value 21"),
        (zeros + 255, zeros + 255, "prediction holds the value 255"),
        (zeros.astype(int) - 1, zeros, "target holds the value -1"),
        (zeros, zeros / 2, "integers, found float64"),
    ]:
        with pytest.raises(JswsError, match=words):
            ConfusionMatrix().update(target, pred)
    with pytest.raises(JswsError, match="'union'"):
        ConfusionMatrix(absent="none")
    with pytest.raises(JswsError, match="nothing to score"):
        ConfusionMatrix().compute()


def test_confusion_matrix_prints_class_names():
    matrix = ConfusionMatrix()
    matrix.update([0, 0, 15], [0, 15, 15])
    text = str(matrix).splitlines()
    assert text[0].split() == ["background", "50.0"]
    assert text[1].split() == ["aeroplane", "–"]
    assert text[15].split() == ["person", "50.0"]
    assert "mean IoU (absent: union)" in text[-1] and text[-1].endswith("50.0")


# --- saliency: plain loops over thresholds and images, straight from the recipes ------


def slow_scores(protocol, pairs):
    """(mae, max F, F curve) of full-scale uint8 pairs, a comparison per threshold."""
    maes, curves_p, curves_r, curves_f, zero_maps = [], [], [], [], 0
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
        precision, recall = [], []
        for threshold in thresholds:
            found = spread >= threshold
            tp = (found & g).sum()
            precision.append(tp / found.sum() if found.any() else 0)
            recall.append(tp / g.sum() if g.any() else 0)
        curves_p.append(precision)
        curves_r.append(recall)
        curves_f.append([slow_f(*pr) for pr in zip(precision, recall, strict=True)])
    mae = np.mean(maes)
    if protocol in ("toolbox", "jsws21"):
        count = len(pairs) - zero_maps
        mean_p, mean_r = np.sum(curves_p, 0) / count, np.sum(curves_r, 0) / count
        curve = [slow_f(*pr) for pr in zip(mean_p, mean_r, strict=True)]
        return mae, max(curve), curve
    curve = np.mean(curves_f, 0)
    if protocol == "per_image_max":
        return mae, np.mean([max(curve) for curve in curves_f]), curve
    return mae, max(curve), curve


def slow_f(p, r):
    return 1.3 * p * r / (0.3 * p + r) if p * r > 0 else 0


def saliency_pairs(kind):
    """Random and adversarial (map, mask) pairs, uint8, full scale, of varied sizes."""
    rng = np.random.default_rng(len(kind))
    pairs = []
    for i in range(4):
        shape = 23 + 7 * i, 31 + 3 * i
        mask = np.zeros(shape, np.uint8)
        mask[4:17, 6 : 20 + i] = 255
        sal_map = 0.6 * mask + rng.normal(60, 50, shape)
        pairs.append([sal_map.clip(0, 255).astype(np.uint8), mask])
    if kind == "dim":  # normalisation matters: maps in 37..204
        pairs = [[(37 + m * (167 / 255)).astype(np.uint8), g] for m, g in pairs]
    elif kind == "graded":  # greys around every mask threshold
        greys = [0, 1, 25, 26, 128, 129, 255]
        pairs = [[m, rng.choice(greys, m.shape).astype(np.uint8)] for m, _ in pairs]
    elif kind == "constant":
        pairs[1][0][:] = 90
        pairs[2][0][:] = 255
    elif kind == "zero map":
        pairs[1][0][:] = 0
    elif kind == "empty mask":
        pairs[1][1][:] = 0
        pairs[3][1][:] = 255
    elif kind == "binary map":
        pairs = [[(m > 99).astype(np.uint8) * 255, g] for m, g in pairs]
    elif kind == "one pixel":
        pairs[1][0][:] = 3
        pairs[1][0][5, 7] = 200
    elif kind == "inverted":
        pairs = [[255 - m, g] for m, g in pairs]
    return pairs


KINDS = [
    *("random", "dim", "graded", "constant", "zero map"),
    *("empty mask", "binary map", "one pixel", "inverted"),
]


def measured(protocol, pairs):
    measure = SaliencyMeasure(protocol)
    for sal_map, mask in pairs:
        measure.update(sal_map, mask)
    return measure.compute()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_saliency_scores_equal_plain_loops(protocol, kind):
    pairs = saliency_pairs(kind)
    scores = measured(protocol, pairs)
    mae, max_f, curve = slow_scores(protocol, pairs)
    assert scores.mae == pytest.approx(mae, abs=1e-12)
    assert scores.max_f == pytest.approx(max_f, abs=1e-12)
    assert scores.f_curve == pytest.approx(np.array(curve), abs=1e-12)
    assert scores.count == 4 and scores.protocol == protocol
    assert len(scores.f_curve) == {"jsws21": 21, "adaptive": 1}.get(protocol, 256)
    assert len(scores.precision) == len(scores.recall) == len(scores.f_curve)


def test_protocols_give_different_scores_for_the_same_maps():
    pairs = saliency_pairs("graded") + saliency_pairs("dim")
    values = sorted(measured(name, pairs).max_f for name in PROTOCOLS)
    assert min(np.diff(values)) > 1e-4  # so the loops above can tell them apart


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_float_and_uint8_maps_score_alike(protocol):
    pairs = saliency_pairs("dim")
    exact = measured(protocol, pairs)
    floats = measured(protocol, [(m / 255, torch.from_numpy(g)) for m, g in pairs])
    assert floats.mae == pytest.approx(exact.mae, abs=1e-12)
    assert np.allclose(floats.f_curve, exact.f_curve, atol=1e-12)
    # in float32, a level may fall on the other side of a threshold it equals
    pairs = [(torch.from_numpy(m).float() / 255, g) for m, g in pairs]
    floats = measured(protocol, pairs)
    assert floats.max_f == pytest.approx(exact.max_f, abs=2e-3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bool_and_one_bit_masks_mean_full_scale(protocol):
    pairs = saliency_pairs("random")
    full = measured(protocol, pairs)
    assert full.max_f > 0.5
    for convert in (lambda g: g > 0, lambda g: g // 255, lambda g: g / 255):
        scores = measured(protocol, [(m, convert(g)) for m, g in pairs])
        assert scores.mae == full.mae and scores.max_f == full.max_f


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_and_merging_of_images(protocol):
    pairs = saliency_pairs("zero map") + saliency_pairs("graded")
    whole = measured(protocol, pairs)
    left, right = SaliencyMeasure(protocol), SaliencyMeasure(protocol)
    for i in (6, 1, 4):
        left.update(*pairs[i])
    for i in (0, 7, 2, 3, 5):
        right.update(*pairs[i])
    left += right
    for one, other in zip(left.compute()[:-1], whole[:-1], strict=True):
        assert np.allclose(one, other, atol=1e-12)


def test_degenerate_inputs_have_the_documented_scores():
    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 255
    grey, zero = np.full((10, 10), 51, np.uint8), np.zeros((10, 10), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # constant map: kept as it is, but left out of the toolbox's MAE
        assert measured("pysod", [(grey, mask)]).mae == pytest.approx(0.5)
        assert np.isnan(measured("toolbox", [(grey, mask)]).mae)
        perfect = measured("toolbox", [(grey, mask), (mask, mask)])
        assert perfect.mae == 0 and perfect.count == 2
        # all-zero map: P = .5, R = 1 at threshold 0 join the sums, not the denominator
        scores = measured("toolbox", [(zero, mask), (mask, mask)])
        assert scores.precision[:2] == pytest.approx([0.5 + 0.5, 1])
        assert scores.recall[:2] == pytest.approx([2, 1])
        assert np.isnan(measured("toolbox", [(zero, mask)]).max_f)
        assert measured("pysod", [(zero, mask)]).f_curve[1:].max() == 0
        # all-background mask: F is 0, MAE counts
        for name in PROTOCOLS:
            scores = measured(name, [(mask, zero)])
            assert scores.max_f == 0 and scores.mae == pytest.approx(0.5)
            perfect = measured(name, [(mask, mask)])
            assert perfect.max_f == pytest.approx(1) and perfect.mae == 0
            assert f"({name} protocol, 1 images)" in str(perfect)


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
        with pytest.raises(JswsError, match="map is 2 x 2 px, mask is 20 x 12 px"):
            measured(name, [(small, mask)])


def test_saliency_measure_rejects_bad_input():
    mask = np.eye(4, dtype=bool)
    for sal_map, words in [
        (np.full((4, 4), 7.0), r"found float64 in \[7, 7\]"),
        (np.full((4, 4), np.nan), "found float64"),
        (np.full((4, 4), -0.1), "found float64"),
        (np.ones((4, 4), int), "found int64"),
        (np.ones((1, 4, 4), np.uint8), "HxW"),
    ]:
        with pytest.raises(JswsError, match=words):
            measured("pysod", [(sal_map, mask)])
    with pytest.raises(JswsError, match=r"expected 0..255"):
        measured("pysod", [(mask / 2, mask * 700)])
    with pytest.raises(JswsError, match="choose one of"):
        SaliencyMeasure("f_beta")
    with pytest.raises(JswsError, match="nothing to score"):
        SaliencyMeasure().compute()
    one = SaliencyMeasure("pysod")
    with pytest.raises(JswsError, match="'toolbox' into 'pysod'"):
        one += SaliencyMeasure()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_precision(dtype):
    mask = torch.tensor([[0, 255, 255]], dtype=torch.uint8)
    sal_map = torch.tensor([[0, 0.5, 1]], dtype=dtype, requires_grad=True)
    assert measured("pysod", [(sal_map, mask)]).mae == pytest.approx(0.5 / 3)


def test_toolbox_clips_negative_floats_for_f():
    mask = np.array([[0, 0, 255, 255]], np.uint8)
    scores = measured("toolbox", [(np.array([[-1.0, 0, 0.5, 0.5]]), mask)])
    assert scores.max_f == pytest.approx(1)


def test_one_bincount_is_thirty_times_faster_than_256_comparisons():
    rng = np.random.default_rng(0)
    sal_map = rng.integers(0, 256, (300, 400)).astype(np.uint8)
    mask = (rng.random((300, 400)) < 0.3).astype(np.uint8) * 255
    fast, slow = [], []
    for _ in range(5):  # interleaved, so that a busy machine slows both
        for function, times in (measured, fast), (slow_scores, slow):
            start = time.perf_counter()
            function("pysod", [(sal_map, mask)])
            times.append(time.perf_counter() - start)
    assert min(slow) / min(fast) >= 30
