"""Measures against other people's code on 200 pairs, and properties that must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure
from jsws_lib.structure import StructureMeasure

# The same examples each time, and nothing is kept on disk.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k-th of 200 pairs (map, mask), uint8: random ones, then what breaks programs."""
    rng = np.random.default_rng(k)
    h, w = rng.integers(6, 40, 2)
    mask = np.zeros((h, w), np.uint8)
    top, left = rng.integers(0, h - 4), rng.integers(0, w - 4)
    mask[top : top + rng.integers(2, h), left : left + rng.integers(2, w)] = 255
    noise = rng.normal(0, rng.uniform(5, 120), (h, w))
    sal_map = (mask * rng.uniform(0.2, 1) + noise).clip(0, 255).astype(np.uint8)
    kind = k % 10
    if kind == 1:
        sal_map[:] = rng.integers(0, 256)  # constant
    elif kind == 2:
        sal_map[:] = 0
    elif kind == 3:
        mask[:] = 0  # nothing is salient
    elif kind == 4:
        mask[:] = 255  # everything is
    elif kind == 5:
        sal_map = mask.copy()  # perfect
    elif kind == 6:
        sal_map = 255 - mask  # all wrong
    elif kind == 7:
        mask = rng.integers(0, 256, (h, w)).astype(np.uint8)  # graded
    elif kind == 8:
        sal_map = (sal_map > 128).astype(np.uint8) * 255  # two levels
    elif kind == 9:
        mask[:] = 0
        mask[h // 2, w // 2] = 255  # one pixel
    return sal_map, mask


@pytest.fixture(scope="module")
def oracle():
    return pytest.importorskip("py_sod_metrics")


@pytest.mark.parametrize("kind", range(10))
def test_pysod_and_adaptive_equal_pysodmetrics(oracle, kind):
    for k in range(kind, 200, 10):
        sal_map, mask = pair(k)
        theirs = oracle.Fmeasure(), oracle.MAE()
        for measure in theirs:
            measure.step(sal_map, mask)
        f, mae = theirs[0].get_results()["fm"], theirs[1].get_results()["mae"]
        ours = {name: SaliencyMeasure(name) for name in ("pysod", "adaptive")}
        for measure in ours.values():
            measure.update(sal_map, mask)
        scores = ours["pysod"].compute()
        curve = np.asarray(f["curve"])[::-1]  # the library begins with the threshold 255
        np.testing.assert_allclose(scores.f_curve, curve, atol=1e-12, err_msg=str(k))
        assert scores.mae == pytest.approx(mae, abs=1e-12), k
        assert ours["adaptive"].compute().max_f == pytest.approx(f["adp"], abs=1e-12), k


@pytest.mark.parametrize("kind", range(10))
def test_structure_measures_are_the_librarys_means(oracle, kind):
    ours = StructureMeasure()
    theirs = oracle.Smeasure(), oracle.Emeasure(), oracle.WeightedFmeasure()
    for k in range(kind, 200, 10):
        sal_map, mask = pair(k)
        ours.update(sal_map, mask)
        for measure in theirs:
            measure.step(sal_map, mask)
    scores = ours.compute()
    s, e, f = (measure.get_results() for measure in theirs)
    assert scores.count == 20 and np.isfinite(scores[:5]).all()
    assert scores.s_measure == pytest.approx(s["sm"], abs=1e-12)
    assert scores.max_e == pytest.approx(e["em"]["curve"].max(), abs=1e-12)
    assert scores.mean_e == pytest.approx(e["em"]["curve"].mean(), abs=1e-12)
    assert scores.adaptive_e == pytest.approx(e["em"]["adp"], abs=1e-12)
    assert scores.weighted_f == pytest.approx(f["wfm"], abs=1e-12)


def test_structure_reads_one_bit_masks_as_full_scale(oracle):
    sal_map, mask = pair(0)
    results = []
    for same in (mask, mask > 0, (mask > 0).astype(np.uint8)):
        measure = StructureMeasure()
        measure.update(sal_map, same)
        results.append(measure.compute()[:5])
    assert results[0] == results[1] == results[2]


labels = st.integers(0, 20)
truth = arrays(np.uint8, (5, 7), elements=st.one_of(labels, st.just(255)))
guess = arrays(np.uint8, (5, 7), elements=labels)


def matrix_of(*targets_and_preds, absent="union"):
    matrix = ConfusionMatrix(absent=absent)
    for target, pred in targets_and_preds:
        matrix.update(target, pred)
    return matrix


@settings(max_examples=60)
@given(truth, guess, guess)
def test_void_pixels_never_count(target, pred, other):
    changed = np.where(target == 255, other, pred)
    one, two = matrix_of((target, pred)), matrix_of((target, changed))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    assert one.matrix.sum() == (target != 255).sum()


@settings(max_examples=60)
@given(truth, guess, st.permutations(range(21)))
def test_miou_does_not_depend_on_the_order_of_classes(target, pred, order):
    table = np.append(order, [0] * 234 + [255]).astype(np.uint8)
    for absent in ("zero", "union", "target"):
        one = matrix_of((target, pred), absent=absent)
        two = matrix_of((table[target], table[pred]), absent=absent)
        if not one.matrix.any():
            continue
        a, b = one.compute(), two.compute()
        assert a.miou == pytest.approx(b.miou, abs=1e-12)
        assert a.pixel_accuracy == b.pixel_accuracy


@settings(max_examples=60)
@given(truth, guess, st.randoms())
def test_neither_order_nor_batching_of_pixels_matters(target, pred, random):
    order = list(range(target.size))
    random.shuffle(order)
    one = matrix_of((target, pred))
    whole = matrix_of((target.ravel()[order], pred.ravel()[order]))
    cut = random.randrange(target.size)
    parts = matrix_of((target.ravel()[:cut], pred.ravel()[:cut]))
    parts += matrix_of((target.ravel()[cut:], pred.ravel()[cut:]))
    np.testing.assert_array_equal(one.matrix, whole.matrix)
    np.testing.assert_array_equal(one.matrix, parts.matrix)


@settings(max_examples=60)
@given(truth, guess)
def test_absent_categories_follow_their_convention(target, pred):
    keep = target != 255
    if not keep.any():
        return
    in_truth, seen = set(target[keep]), set(target[keep]) | set(pred[keep])
    skipped = {"zero": 0, "union": 21 - len(seen), "target": 21 - len(in_truth)}
    values = {}
    for absent, count in skipped.items():
        scores = matrix_of((target, pred), absent=absent).compute()
        assert np.isnan(scores.iou).sum() == count
        values[absent] = scores.miou
    # The fewer classes of IoU 0 in the mean, the larger it is.
    assert values["zero"] <= values["union"] + 1e-12 <= values["target"] + 2e-12


grey = arrays(np.uint8, (6, 5), elements=st.integers(0, 255))
cut = arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 255]))


@pytest.mark.parametrize("protocol", ["toolbox", "pysod", "adaptive", "jsws21"])
@settings(max_examples=40)
@given(sal_map=grey, mask=cut, random=st.randoms())
def test_order_of_pixels_does_not_matter_to_saliency(protocol, sal_map, mask, random):
    order = list(range(mask.size))
    random.shuffle(order)
    results = []
    for m, g in ((sal_map, mask), (sal_map.ravel()[order].reshape(sal_map.shape),
                                   mask.ravel()[order].reshape(mask.shape))):  # fmt: skip
        measure = SaliencyMeasure(protocol)
        measure.update(m, g)
        results.append(measure.compute())
    np.testing.assert_allclose(results[0].f_curve, results[1].f_curve, atol=1e-12)
    np.testing.assert_allclose(results[0].mae, results[1].mae, atol=1e-12)


@settings(max_examples=40)
@given(st.lists(st.tuples(grey, cut), min_size=2, max_size=5), st.integers(1, 4))
def test_merging_saliency_sums_is_measuring_at_once(pairs, at):
    whole = SaliencyMeasure("pysod")
    parts = SaliencyMeasure("pysod"), SaliencyMeasure("pysod")
    for k, (sal_map, mask) in enumerate(pairs):
        whole.update(sal_map, mask)
        parts[k >= at].update(sal_map, mask)
    parts[0].__iadd__(parts[1])
    one, two = whole.compute(), parts[0].compute()
    assert one.count == two.count
    np.testing.assert_allclose(one.f_curve, two.f_curve, atol=1e-12)
    assert one.mae == pytest.approx(two.mae, abs=1e-12)
