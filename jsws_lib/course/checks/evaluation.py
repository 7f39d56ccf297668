"""Checks of notebook 8: mean IoU, MAE, maximum F-measure."""

import numpy as np

from jsws_lib.course.checks import ask, check, judge
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure, f_measure


@check
def check_mean_iou(answer):
    """Exercise 8.1: mean IoU over the classes that occur in the truth."""
    rng = np.random.default_rng(81)
    whole = rng.integers(1, 50, (5, 5))
    nowhere, alarm, missed = whole.copy(), whole.copy(), whole.copy()
    nowhere[3], nowhere[:, 3] = 0, 0
    alarm[3] = 0
    missed[2, 2] = 0
    confusion = ConfusionMatrix(5, absent="target")
    for matrix in (whole, nowhere, alarm, missed, *rng.integers(0, 4, (20, 5, 5))):
        confusion.matrix = matrix
        want = confusion.compute().miou
        judge(ask(answer, matrix), want, _wrong_means(matrix), what="the mean IoU")
    return "Absent classes are left out, missed ones are not."


def _wrong_means(matrix) -> dict:
    tp, truth, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    present = truth > 0
    iou = tp / np.maximum(truth + found - tp, 1)
    inner = matrix[np.ix_(present, present)]
    union = inner.sum(0) + inner.sum(1) - inner.diagonal()
    without_missed, with_alarms = iou[truth * tp > 0].mean(), iou[truth + found > 0].mean()
    return {
        "a class in neither the truth nor the prediction makes your result 0/0": np.isnan,
        "pixels predicted as an absent class are still errors of their true class: drop no "
        "column": (inner.diagonal() / np.maximum(union, 1)).mean(),
        "a class that occurs and is never found has IoU 0, and 0 counts": without_missed,
        "a class that is predicted but not in the truth still counts in your "
        "mean": with_alarms,
        "a class that the truth lacks is counted with an IoU of 0": iou.mean(),
    }


def _mae(sal_map, mask) -> float:
    s = sal_map / (255 if sal_map.dtype == np.uint8 else 1)
    return np.abs(s - (mask > 0)).mean()


@check
def check_mae(answer):
    """Exercise 8.2: MAE of 8-bit and float maps, as a fraction of 1."""
    rng = np.random.default_rng(82)
    grey = rng.integers(0, 201, (7, 9), dtype=np.uint8)
    mask = (rng.random((7, 9)) > 0.6).astype(np.uint8)
    white = mask * np.uint8(255)
    grey[mask == 1] //= 40  # some are 0 under a 1: there bytes and numbers differ
    bytes_apart, signed = np.abs(grey - mask).mean(), np.abs(grey * 1.0 - mask).mean()
    stretched = np.abs(grey / grey.max() - mask).mean()
    mistakes = {
        "the map holds 0 to 255, the mask 0 and 1; and 8-bit numbers have no sign: what is "
        "0 - 1?": bytes_apart,
        "8-bit numbers have no sign: print np.uint8(0) - np.uint8(1)": bytes_apart / 255,
        "the map reaches 255 and the mask only 1": signed,
        "the mask was divided by 255 as well: its 1 became 1/255": signed / 255,
        "you stretch the map to its own maximum; here 255 is white": stretched,
    }
    judge(ask(answer, grey, mask), _mae(grey, mask), mistakes, what="the MAE")
    cases = {
        "a float map, where white is 1 and not 255": (rng.random((4, 6)), mask[:4, :6]),
        "a float32 map, as networks give it": (rng.random((7, 9), np.float32), mask),
        "a mask without a salient pixel": (grey, 0 * mask),
        "a mask of 0 and 255": (grey, white),
        "a map of 0 and 1, all but black": ((grey > 100).astype(np.uint8), mask),
    }
    for name, given in cases.items():
        judge(ask(answer, *given), _mae(*given), {}, where=f"{name}: ")
    return "A fraction of 1, whatever the files store."


def _scene(rng, images: int, size: tuple[int, int]):
    """Maps that reach white, masks, and the counts that the exercise starts from."""
    maps = rng.integers(0, 255, (images, *size), dtype=np.uint8)
    maps[:, 0, 0] = 255
    cut = rng.random((images, 1, 1))
    masks = (maps + 120 * rng.standard_normal(maps.shape) > 60 + 200 * cut).astype(int)
    masks[:, 0, 1] = 1
    over = maps[:, None] >= np.arange(256)[:, None, None]
    right = (over & (masks[:, None] == 1)).sum((2, 3))
    return maps, masks, (right, over.sum((2, 3)), masks.sum((1, 2)))


@check
def check_toolbox_f(answer):
    """Exercise 8.3: the maximum F of `toolbox`, from counts of each image."""
    rng = np.random.default_rng(85)
    for images, size in ((6, (9, 11)), (1, (5, 5)), (15, (8, 8))):
        maps, masks, counts = _scene(rng, images, size)
        measure = SaliencyMeasure("toolbox")
        for sal_map, mask in zip(maps, masks, strict=True):
            measure.update(sal_map, mask)
        right, found, true = counts
        p, r = right / np.maximum(found, 1), right / true[:, None]
        f = f_measure(p, r)
        pooled = f_measure(right.sum(0) / found.sum(0), right.sum(0) / true.sum())
        mistakes = {
            "that is `per_image_max`: each image picks its threshold": f.max(1).mean(),
            "that is `pysod`: F of each image first, the average after it": f.mean(0).max(),
            "you add the pixels of all images first, so an image with a large object "
            "weighs more": pooled.max(),
        }
        got = ask(answer, *counts)
        judge(got, measure.compute().max_f, mistakes, what="the maximum F")
    *_, (right, found, true) = _scene(rng, 3, (6, 6))
    right[1], true[1] = 0, 0
    p, r = right / np.maximum(found, 1), right / np.maximum(true, 1)[:, None]
    want = f_measure(p.mean(0), r.mean(0)).max()
    mistakes = {
        "an image without a salient pixel makes your recall 0/0; the convention is "
        "0": np.isnan,
        "an image without a salient pixel stays in the averages, with P and R 0": True,
    }
    judge(ask(answer, right, found, true), want, mistakes)
    return "P and R are averaged over images, then comes F, then the maximum."
