"""Checks of notebook 8: mean IoU, MAE, precision and recall, maximum F-measure."""

import numpy as np

from jsws_lib.checks import check, expect, expect_array, same
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure


def _number(got, what: str) -> float:
    return float(expect_array(got, (), what))


# --- Exercise 8.1 ---------------------------------------------------------------------


def _mean(iou, counted) -> float:
    return float(iou[counted].mean())


@check
def check_mean_iou(answer):
    """Exercise 8.1: mean IoU over the classes that occur in the truth."""
    rng = np.random.default_rng(81)
    whole = rng.integers(1, 50, (5, 5))
    nowhere = whole.copy()
    nowhere[3], nowhere[:, 3] = 0, 0
    alarm = whole.copy()
    alarm[3] = 0
    missed = whole.copy()
    missed[2, 2] = 0
    for matrix in (whole, nowhere, alarm, missed):
        with np.errstate(all="ignore"):
            value = answer(matrix.copy())
        expect(value is not None, "the function returns nothing")
        expect(np.ndim(value) == 0, "the result has to be one number")
        expect(matrix is not nowhere or np.isfinite(value),
               "a class found neither in the truth nor in the prediction makes your "
               "result 0/0")  # fmt: skip
        got = _number(value, "the mean IoU")
        tp = matrix.diagonal()
        truth, found = matrix.sum(1), matrix.sum(0)
        union = np.maximum(truth + found - tp, 1)
        present, seen = truth > 0, truth + found > 0
        everything = np.ones(5, bool)
        inner = matrix[np.ix_(present, present)]
        lost = inner.sum(0) + inner.sum(1) - inner.diagonal()
        plausible = [
            (_mean(inner.diagonal() / np.maximum(lost, 1), slice(None)),
             "pixels predicted as an absent class are still errors of their true class: "
             "drop no column"),
            (_mean(tp / np.maximum(truth + found, 1), present),
             "your union counts the intersection twice: it is in the row and in the "
             "column"),
            (_mean(tp / np.maximum(truth, 1), present),
             "you divide by the true pixels alone, so false alarms cost nothing"),
            (tp.sum() / matrix.sum(), "that is the pixel accuracy"),
            (_mean(tp / union, present & (tp > 0)),
             "a class that occurs and is never found has IoU 0, and 0 counts"),
            (_mean(tp / union, seen),
             "a class that is predicted but not in the truth still counts in your mean"),
            (_mean(tp / union, everything),
             "a class that the truth lacks is counted with an IoU of 0"),
        ]  # fmt: skip
        want = _mean(tp / union, present)
        if not same(got, want):
            for value, words in plausible:
                expect(not same(got, value), words)
        expect(same(got, want), f"for\n{matrix}\nyour mean is {got:.4f}, not {want:.4f}")
    confusion = ConfusionMatrix(5, absent="target")
    for matrix in rng.integers(0, 4, (20, 5, 5)):
        confusion.matrix = matrix
        got, want = float(answer(matrix.copy())), confusion.compute().miou
        expect(same(got, want), f"for\n{matrix}\nyour mean is {got:.4f}, not {want:.4f}")
    return "Absent classes are left out, missed ones are not."


# --- Exercise 8.2 ---------------------------------------------------------------------


def _slow_mae(sal_map, mask) -> float:
    total, scale = 0.0, 255 if sal_map.dtype == np.uint8 else 1
    for s, y in zip(sal_map.flat, mask.flat, strict=True):
        total += abs(float(s) / scale - (1.0 if y > 0 else 0.0))
    return total / mask.size


@check
def check_mae(answer):
    """Exercise 8.2: MAE of 8-bit and float maps, as a fraction of 1."""
    rng = np.random.default_rng(82)
    grey = rng.integers(0, 201, (7, 9), dtype=np.uint8)
    mask = (rng.random((7, 9)) > 0.6).astype(np.uint8)
    grey[mask == 1] //= 40  # some are 0 under a 1: there bytes and numbers differ
    got = _number(answer(grey.copy(), mask.copy()), "the MAE")
    signed = np.abs(grey.astype(float) - mask).mean()
    if not same(got, _slow_mae(grey, mask)):
        expect(not same(got, np.abs(grey - mask).mean()),
               "the map holds 0 to 255, the mask 0 and 1; and 8-bit numbers have no "
               "sign: what is 0 - 1?")  # fmt: skip
        expect(not same(got, np.abs(grey - mask).mean() / 255),
               "8-bit numbers have no sign: print np.uint8(0) - np.uint8(1)")  # fmt: skip
        expect(not same(got, np.abs(grey - mask * np.uint8(255)).mean() / 255),
               "both sides reach 255 now, but 8-bit numbers have no sign: what is "
               "np.uint8(10) - np.uint8(255)?")  # fmt: skip
        expect(not same(got, signed), "the map reaches 255 and the mask only 1")
        expect(not same(got, signed / 255),
               "the mask was divided by 255 as well: its 1 became 1/255")  # fmt: skip
        expect(not same(got, np.abs(grey / grey.max() - mask).mean()),
               "you stretch the map to its own maximum; here 255 is white")  # fmt: skip
        expect(
            not same(got, np.abs(np.mean(grey / 255 - mask))),
            "errors of both signs cancel: take absolute values before the mean",
        )
    expect(
        same(got, _slow_mae(grey, mask)),
        f"an 8-bit map of 7 x 9 pixels: {got:.4f}, not {_slow_mae(grey, mask):.4f}",
    )
    cases = {
        "a float map in [0, 1]": (rng.random((4, 6)), mask[:4, :6]),
        "a mask of 0 and 255": (grey, mask * np.uint8(255)),
        "an 8-bit map with nothing above 1, which is all but black":
            ((grey > 100).astype(np.uint8), mask),
        "a perfect 8-bit map": (mask * np.uint8(255), mask),
        "a mask without a salient pixel": (grey, 0 * mask),
        "a mask that is all salient": (grey, np.ones_like(mask)),
    }  # fmt: skip
    for name, (sal_map, truth) in cases.items():
        got = _number(answer(sal_map.copy(), truth.copy()), "the MAE")
        want = _slow_mae(sal_map, truth)
        expect(same(got, want), f"{name}: {got:.4f}, not {want:.4f}")
    return "A fraction of 1, whatever the files store."


# --- Exercise 8.3 ---------------------------------------------------------------------


def _slow_curves(background, salient):
    precision, recall = np.zeros((2, 256))
    for threshold in range(256):
        wrong, right = background[threshold:].sum(), salient[threshold:].sum()
        precision[threshold] = right / (right + wrong) if right + wrong else 0
        recall[threshold] = right / salient.sum() if salient.sum() else 0
    return precision, recall


@check
def check_curves(answer):
    """Exercise 8.3: precision and recall at all thresholds, from two histograms."""
    rng = np.random.default_rng(83)
    full = rng.integers(1, 30, (2, 256))
    dark = full.copy()
    dark[:, 200:] = 0
    empty = full.copy()
    empty[1] = 0
    names = ("", "where no pixel is as bright as the threshold, ",
             "where no pixel is salient, ")  # fmt: skip
    for name, (background, salient) in zip(names, (full, dark, empty), strict=True):
        with np.errstate(all="ignore"):
            given = answer(background.copy(), salient.copy())
        expect(given is not None, "the function returns nothing")
        expect(len(given) == 2, "return two arrays: precision, recall")
        for what, curve in zip(("precision", "recall"), given, strict=True):
            expect(not np.isnan(np.asarray(curve, float)).any(),
                   f"{name}{what} is 0/0; the convention is 0")  # fmt: skip
        got = np.stack([expect_array(g, (256,), w) for g, w in
                        zip(given, ("precision", "recall"), strict=True)])  # fmt: skip
        want = np.stack(_slow_curves(background, salient))
        if not same(got, want) and not name:
            below = np.stack([background.cumsum(), salient.cumsum()])
            shifted = np.c_[want[:, 1:], [0, 0]]
            alone = salient / (salient + background)
            expect(not same(got, want[::-1]), "precision and recall are exchanged")
            expect(
                not same(got, want[:, ::-1]),
                "threshold 0 has to come first; your curves run from 255 down",
            )
            expect(not same(got[1], below[1] / salient.sum()),
                   "a running sum from the bottom counts pixels up to a level; at or "
                   "above it are the others")  # fmt: skip
            expect(
                not same(got, shifted),
                "you count pixels above the threshold; those at it belong, too",
            )
            expect(not same(got[0], alone),
                   "that is the share of salient pixels at each level alone; a threshold "
                   "lets all brighter ones pass as well")  # fmt: skip
            expect(not same(got[0], want[0]),
                   "precision is right, recall is not: divide by what?")  # fmt: skip
            expect(not same(got[1], want[1]),
                   "recall is right, precision is not: divide by what?")  # fmt: skip
        k = int(np.abs(got - want).max(0).argmax())
        expect(same(got, want),
               f"{name}threshold {k}: your P and R are {got[:, k].round(3).tolist()}, "
               f"not {want[:, k].round(3).tolist()}")  # fmt: skip
    return "Two running sums instead of 256 comparisons of every pixel."


# --- Exercise 8.4 ---------------------------------------------------------------------


def _slow_f(p: float, r: float, beta2: float) -> float:
    return (1 + beta2) * p * r / (beta2 * p + r) if p * r > 0 else 0.0


def _slow_best(precision, recall, beta2: float) -> tuple[int, float]:
    best = (0, _slow_f(precision[0], recall[0], beta2))
    for k, (p, r) in enumerate(zip(precision, recall, strict=True)):
        if _slow_f(p, r, beta2) > best[1]:
            best = (k, _slow_f(p, r, beta2))
    return best


@check
def check_best_f(answer):
    """Exercise 8.4: F for any beta^2, its maximum and where that lies."""
    rng = np.random.default_rng(84)
    for length in (256, 21, 1):
        precision = np.sort(rng.random(length))
        recall = np.sort(rng.random(length))[::-1]
        for beta2 in (0.3, 1.0, 4.0):
            given = answer(precision.copy(), recall.copy(), beta2)
            expect(given is not None, "the function returns nothing")
            expect(np.size(given) == 2, "return two numbers: the threshold and F there")
            k, f = (_number(g, w) for g, w in
                    zip(given, ("the threshold", "F"), strict=True))  # fmt: skip
            want = _slow_best(precision, recall, beta2)
            if not same((k, f), want):
                expect(not same((f, k), want), "return the threshold first, then F")
                for other, words in (
                    (beta2**2, "the argument is already the square of beta"),
                    (1 / beta2, "beta^2 stands at the other term of the denominator"),
                    (0.3, "your beta^2 is always 0.3"),
                    (1.0, "your F ignores beta^2"),
                ):
                    if other != beta2:
                        wrong = _slow_best(precision, recall, other)
                        expect(not same((k, f), wrong), words)
            expect(same((k, f), want),
                   f"for beta^2 = {beta2:g} you find F = {f:.3f} at {k:.0f}, not "
                   f"{want[1]:.3f} at {want[0]}")  # fmt: skip
    edge = (np.array([0, 0.5, 0.5, 1.0]), np.array([0, 0.5, 0.5, 0.0]))
    with np.errstate(all="ignore"):
        k, f = answer(*edge, 0.3)
    expect(np.isfinite(f), "where P and R are both 0, F is 0/0; the convention is 0")
    expect(same((k, f), (1, 0.5)), "of equal values the first counts")
    return "Where P = R, every beta gives that same number."


@check
def check_lost(answer, scores):
    """Exercise 8.4: points of F that threshold 128 gives away against the best one."""
    got = _number(answer, "the answer")
    f_curve = np.array([_slow_f(p, r, 0.3) for p, r in
                        zip(scores.precision, scores.recall, strict=True)])  # fmt: skip
    want = 100 * (f_curve.max() - f_curve[128])
    equal = {"tolerance": 0.006 + 0.01 * want}  # two digits will do
    if not same(got, want, **equal):
        expect(not same(-got, want, **equal), "the sign: what is lost is a positive number")
        expect(abs(got - want / 100) > 1e-4 + 1e-3 * want,
               "a fraction; in points of F it is a hundred times that")  # fmt: skip
        expect(not same(got, 100 * f_curve.max(), **equal), "that is the best F itself")
        expect(not same(got, 100 * f_curve[128], **equal), "that is F at 128 itself")
        expect(
            not same(got, abs(f_curve.argmax() - 128), **equal),
            "that is how far the thresholds lie apart, not the values of F",
        )
    expect(
        same(got, want, **equal),
        "not the difference of the two; both stand on the curve of F over all maps",
    )
    return f"The best threshold is {f_curve.argmax()}, and {want:.2f} points are lost."


# --- Exercise 8.5 ---------------------------------------------------------------------


def _scene(rng, images: int, size: tuple[int, int]):
    """Maps that reach white, masks, and the counts that the exercise starts from."""
    maps = rng.integers(0, 255, (images, *size), dtype=np.uint8)
    maps[:, 0, 0] = 255
    cut = rng.random((images, 1, 1))
    masks = (maps + 120 * rng.standard_normal(maps.shape) > 60 + 200 * cut).astype(int)
    masks[:, 0, 1] = 1
    over = maps[:, None] >= np.arange(256)[:, None, None]
    right = (over & (masks[:, None] == 1)).sum((2, 3))
    return maps, masks, right, over.sum((2, 3)), masks.sum((1, 2))


@check
def check_toolbox_f(answer):
    """Exercise 8.5: the maximum F of `toolbox`, from counts of each image."""
    rng = np.random.default_rng(85)
    for images, size in ((6, (9, 11)), (1, (5, 5)), (15, (8, 8))):
        maps, masks, right, found, true = _scene(rng, images, size)
        measure = SaliencyMeasure("toolbox")
        for sal_map, mask in zip(maps, masks, strict=True):
            measure.update(sal_map, mask)
        want = measure.compute().max_f
        got = _number(answer(right.copy(), found.copy(), true.copy()), "the maximum F")
        if not same(got, want):
            p, r = right / np.maximum(found, 1), right / true[:, None]
            f = 1.3 * p * r / np.maximum(0.3 * p + r, 1e-12)
            pooled = right.sum(0) / found.sum(0), right.sum(0) / true.sum()
            pooled_f = 1.3 * pooled[0] * pooled[1] / (0.3 * pooled[0] + pooled[1])
            pr = p.mean(0), r.mean(0)
            each = 1.3 * pr[0].max() * pr[1].max() / (0.3 * pr[0].max() + pr[1].max())
            for value, words in (
                (f.max(1).mean(), "that is `per_image_max`: each image picks a threshold "
                                  "of its own"),
                (f.mean(0).max(), "that is the order of `pysod`: F of each image first, "
                                  "the average after it"),
                (f.mean(), "a mean over thresholds is no maximum"),
                (pooled_f.max(), "you add the pixels of all images first, so an image "
                                 "with a large object weighs more"),
                (each, "the largest P and the largest R belong to different thresholds"),
            ):  # fmt: skip
                expect(not same(got, value), words)
        expect(same(got, want), f"for {images} maps your F is {got:.4f}, not {want:.4f}")
    maps, masks, right, found, true = _scene(rng, 3, (6, 6))
    right[1], true[1] = 0, 0
    with np.errstate(all="ignore"):
        value = answer(right.copy(), found.copy(), true.copy())
    expect(np.isfinite(value), "an image without a salient pixel makes your recall 0/0; "
           "the convention is 0")  # fmt: skip
    p = (right / np.maximum(found, 1)).mean(0)
    r = (right / np.maximum(true, 1)[:, None]).mean(0)
    want = max(_slow_f(a, b, 0.3) for a, b in zip(p, r, strict=True))
    expect(same(value, want), "an image without a salient pixel stays in the averages, "
           "with precision and recall 0")  # fmt: skip
    return "P and R are averaged over images, then comes F, then the maximum."
