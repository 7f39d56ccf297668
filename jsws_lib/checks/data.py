"""Checks of notebook 1: labels, colours, company, joint cropping, imbalance."""

from functools import cache

import numpy as np

from data_utils.datasets import read_class_mask
from data_utils.voc import NUM_CLASSES, VOC_CLASSES, VOID, image_labels, palette, read_ids
from jsws_lib.checks import Wrong, check, expect, expect_array, same
from jsws_lib.config import get_profile
from jsws_lib.metrics import ConfusionMatrix

NAMES = VOC_CLASSES[1:]


# --- 1.1 -----------------------------------------------------------------------------


def _annotation(names, *, part: str = "") -> str:
    part = f"\n\t\t<part>\n\t\t\t<name>{part}</name>\n\t\t</part>" if part else ""
    things = "".join(
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<difficult>0</difficult>{part}\n"
        "\t</object>\n"
        for name in names
    )
    return f"<annotation>\n\t<filename>x.jpg</filename>\n{things}</annotation>\n"


def _examine_labels(got, names):
    if np.shape(got) == (NUM_CLASSES + 1,):
        raise Wrong("t has 21 entries; it needs none for the background")
    got = expect_array(got, (NUM_CLASSES,), "t")
    want = np.array([name in names for name in NAMES], float)
    shown = " and ".join(names[:3])
    expect(got.any(), f"t is all zero for an annotation with {shown}")
    if not same(got, want) and same(got, np.roll(want, 1)):
        raise Wrong(f"{shown}: the 1 stands one place too late, it names the next category")
    if same(got > 0, want):
        expect(got.max() <= 1, "t says whether a category occurs, not how often")
    expect(got.sum() >= len(set(names)), f"{shown}: a category that occurs is missing")
    expect(same(got, want), f"t is wrong for an annotation with {shown}")


@check
def check_labels(multi_hot):
    """Exercise 1.1: the multi-hot labels of an annotation."""
    rng = np.random.default_rng(11)
    several = [list(rng.choice(NAMES, n, replace=False)) for n in (1, 2, 3, 5, 2)]
    for names in (["dog"], ["dog", "sofa"], *several, ["aeroplane"], ["tvmonitor"],
                  ["person", "person", "dog", "person"], NAMES):  # fmt: skip
        _examine_labels(multi_hot(_annotation(names)), names)
    try:
        got = multi_hot(_annotation(["person", "horse"], part="head"))
    except (ValueError, KeyError, IndexError):
        raise Wrong("it trips over an object with a part: parts have names too") from None
    _examine_labels(got, ["person", "horse"])
    return "No box, no mask, no count: only what occurs."


# --- 1.2 -----------------------------------------------------------------------------


_OTHER_ORDERS = ((2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1))


def _collect(colours: np.ndarray) -> np.ndarray:
    """The numbers, (N,), behind colours, (N, 3), bit by bit."""
    return np.array([
        sum((int(colour[bit % 3]) >> 7 - bit // 3 & 1) << bit for bit in range(8))
        for colour in colours
    ])


@check
def check_numbers(numbers_of):
    """Exercise 1.2: category numbers from the colours of VOC's table."""
    table, want = palette(), np.arange(256)
    got = expect_array(numbers_of(table[None].copy()), (1, 256), "the array of numbers")[0]
    known = [*range(NUM_CLASSES + 1), VOID]
    for words, mistake in (
        ("one bit of each channel gives eight numbers; there are more bits", want & 7),
        ("two bits of each channel give 64 numbers; there are more bits", want & 63),
        *(("the channels are dealt out in another order: red comes first",
           _collect(table[:, list(order)])) for order in _OTHER_ORDERS),
    ):  # fmt: skip
        expect(not same(got % 256, mistake), words)
    if not same(got, want):
        expect(got[1:8].any(), "1 to 7 come back as 0: from which end is a channel filled?")
        expect(not same(got[known], known),
               "right for VOC's own numbers, but the rule covers all 256")  # fmt: skip
        expect(not same(got[:8], want[:8]),
               "right for 0 to 7 only: where do the channels' second bits go?")  # fmt: skip
        number = int(np.flatnonzero(got != want)[0])
        raise Wrong(f"the colour {table[number].tolist()} gave {got[number]:g}")
    rng = np.random.default_rng(12)
    for shape in ((5, 7), (1, 1), (8, 3)):
        mask = rng.integers(0, 256, shape)
        colours = table[mask]
        kept = colours.copy()
        got = expect_array(numbers_of(colours), shape, "the array of numbers")
        expect(same(got, mask), "the numbers are right but not where they belong")
        expect(same(colours, kept), "it changes the picture it is given")
    return "An RGB copy of a mask has lost nothing: the colours spell the numbers."


# --- 1.3 -----------------------------------------------------------------------------


def _company(labels: np.ndarray) -> np.ndarray:
    """The answer, slowly."""
    share = np.zeros((NUM_CLASSES, NUM_CLASSES))
    for i in range(NUM_CLASSES):
        images = [row for row in labels if row[i]]
        for j in range(NUM_CLASSES):
            share[i, j] = sum(row[j] for row in images) / max(len(images), 1)
    return share


@check
def check_company(company):
    """Exercise 1.3: how often a category comes with another."""
    rng = np.random.default_rng(13)
    shape = (NUM_CLASSES, NUM_CLASSES)
    for n, likely in ((60, 0.3), (200, 0.1), (35, 0.5)):
        labels = (rng.random((n, NUM_CLASSES)) < likely).astype(np.float32)
        labels[np.arange(NUM_CLASSES), np.arange(NUM_CLASSES)] = 1  # none is absent
        want = _company(labels)
        got = expect_array(company(labels.copy()), shape)
        if same(got, want, tolerance=1e-4):
            continue
        count = labels.sum(0)
        for mistake, words in (
            (want.T, "row and column are swapped: row i belongs to the images with i"),
            (want * count[:, None] / count,
             "divided by the images with j; asked is a share of the images with i"),
            (want * count[:, None], "these are numbers of images; asked is a share"),
            (want * count[:, None] / n,
             "a share of all images; asked is one of the images with i"),
        ):  # fmt: skip
            expect(not same(got, mistake, tolerance=1e-4), words)
        raise Wrong("the shares differ from those counted pair by pair")
    labels = np.zeros((3, NUM_CLASSES), np.float32)
    labels[:, 4], labels[1, 14] = 1, 1  # three bottles, one beside a person
    with np.errstate(all="ignore"):
        got = company(labels.copy())
    expect(not np.isnan(np.asarray(got, float)).any(),
           "a category that no image shows gives 0/0; its row has to be zero")  # fmt: skip
    expect(same(expect_array(got, shape), _company(labels), tolerance=1e-4),
           "wrong where most categories are absent")  # fmt: skip
    return _most_often_together()


@cache
def _most_often_together() -> str:
    voc = get_profile().data / get_profile().voc
    ids = read_ids(voc / f"ImageSets/Segmentation/{get_profile().train_list}.txt")
    labels = np.stack([image_labels(voc / f"Annotations/{i}.xml") for i in ids])
    count = labels.sum(0)
    share = labels.T @ labels / np.maximum(count, 1)[:, None]
    np.fill_diagonal(share, 0)
    i, j = np.unravel_index(share.argmax(), share.shape)
    return (
        f"In the training set, {share[i, j]:.0%} of the images with {NAMES[i]} also show "
        f"{NAMES[j]}; the other way round it is {share[j, i]:.0%}."
    )


# --- 1.4 -----------------------------------------------------------------------------

BLOCK = 16  # px, of one category in `_blocks`


def _blocks(rng, height: int, width: int):
    """A mask of blocks, and an image whose red and green tell where a pixel was."""
    numbers = rng.choice([0, 5, 12, 20, VOID], (height // BLOCK, width // BLOCK))
    mask = np.kron(numbers, np.ones((BLOCK, BLOCK))).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    image = np.stack((x * 255 / (width - 1), y * 255 / (height - 1), 0 * x + 128), -1)
    return image.round().astype(np.uint8), mask


def _origin(image: np.ndarray, height: int, width: int):
    """Where each pixel of a result came from: rows y and columns x of the input."""
    y = np.median(image[..., 1], 1) * (height - 1) / 255
    x = np.median(image[..., 0], 0) * (width - 1) / 255
    return y, x


def _agreement(mask: np.ndarray, origin: np.ndarray, y, x) -> float:
    """Share of pixels, away from the blocks' edges, with the mask value of their origin."""
    def safe(at):
        return np.abs((at + 0.5) % BLOCK - BLOCK / 2) < BLOCK / 2 - 1.5

    known = safe(y)[:, None] & safe(x)
    rows = np.clip(np.rint(y).astype(int), 0, origin.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int), 0, origin.shape[1] - 1)
    return (mask == origin[np.ix_(rows, columns)])[known].mean()


def _pair(got, size: int):
    expect(got is not None and got is not ...,
           "the result is missing: the function returns nothing")  # fmt: skip
    expect(isinstance(got, tuple | list) and len(got) == 2,
           "return two things, the image and the mask")  # fmt: skip
    image = expect_array(got[0], (size, size, 3), "the image")
    return image, expect_array(got[1], (size, size), "the mask")


@check
def check_crop_and_flip(crop_and_flip):
    """Exercise 1.4: one crop and one mirroring for an image and its mask."""
    rng = np.random.default_rng(14)
    for (height, width), crop, size in (((96, 128), 0.9, 64), ((128, 96), 0.6, 48)):
        image, mask = _blocks(rng, height, width)
        kept = image.copy(), mask.copy()
        lefts, mirrored = set(), set()
        for seed in range(24):
            def call(seed=seed, given=(image, mask), crop=crop, size=size):
                return crop_and_flip(np.random.default_rng(seed), *given,
                                     crop=crop, size=size)  # fmt: skip

            cropped, cut = _pair(call(), size)
            _examine_pair(cropped, cut, mask, crop)
            again, again_cut = _pair(call(), size)
            if not (same(cropped, again) and same(cut, again_cut)):
                raise Wrong("the same generator gives another result: draw from rng only")
            _, x = _origin(cropped, height, width)
            lefts.add(int(x.min()))
            mirrored.add(bool(x[0] > x[-1]))
        expect(len(mirrored) == 2, "in 24 draws, all or none of the images are mirrored")
        expect(len(lefts) > 3, "every draw cuts out the same part")
        expect(same(image, kept[0]) and same(mask, kept[1]), "it changes its arguments")
    return "One draw serves both pictures, and the mask keeps to its own values."


def _examine_pair(image: np.ndarray, cut: np.ndarray, mask: np.ndarray, crop: float):
    new = set(np.unique(cut)) - set(np.unique(mask).astype(float))
    if new:
        raise Wrong(f"the mask came back with the value {min(new):g}, which it did not "
                    "hold before: how was it resized?")  # fmt: skip
    height, width = mask.shape
    y, x = _origin(image, height, width)
    expect(np.ptp(y) > 0 and np.ptp(x) > 0, "the image came back in one colour")
    expect(y[0] < y[-1], "the image stands on its head: mirror left and right")
    for side, at, axis in (("high", y, height), ("wide", x, width)):
        part = np.ptp(at) / axis * len(at) / (len(at) - 1)
        expect(abs(part - crop) < 0.04,
               f"with crop={crop} the part cut out is {part:.0%} {side}")  # fmt: skip
    if _agreement(cut, mask, y, x) > 0.97:
        return
    if _agreement(cut[:, ::-1], mask, y, x) > 0.97:
        raise Wrong("in some draws only one of image and mask is mirrored")
    raise Wrong("in some draws image and mask show different parts: how often is it drawn?")


# --- 1.5 -----------------------------------------------------------------------------


@cache
def _lazy() -> dict[str, float]:
    """What calling everything background scores, and what mistakes make of it."""
    profile = get_profile()
    voc, matrix = profile.data / profile.voc, ConfusionMatrix()
    each, background, void, pixels = [], 0, 0, 0
    for name in read_ids(voc / f"ImageSets/Segmentation/{profile.val_list}.txt"):
        mask = np.asarray(read_class_mask(voc / f"SegmentationClass/{name}.png"))
        matrix.update(mask, np.zeros_like(mask))
        each.append((mask == 0).sum() / max((mask != VOID).sum(), 1))
        background += int((mask == 0).sum())
        void += int((mask == VOID).sum())
        pixels += mask.size
    scores = matrix.compute()
    return {"accuracy": scores.pixel_accuracy, "miou": scores.miou,
            "with void": background / pixels,
            "void is right": (background + void) / pixels,
            "mean of images": float(np.mean(each))}  # fmt: skip


@check
def check_lazy(accuracy, miou):
    """Exercise 1.5: accuracy and mean IoU of calling every pixel background."""
    accuracy = float(expect_array(accuracy, (), "accuracy"))
    miou = float(expect_array(miou, (), "miou"))
    want = _lazy()

    def near(a, b):
        return abs(a - b) < 2e-4

    expect(accuracy <= 1 and miou <= 1, "give shares between 0 and 1, not per cent")
    if not near(accuracy, want["accuracy"]):
        for key, words in (
            ("with void", "accuracy counts void pixels as wrong; they do not count at all"),
            ("void is right", "accuracy counts void pixels as right; they do not count"),
            ("mean of images", "accuracy is a mean over images; count pixels of the whole "
                               "set"),
        ):  # fmt: skip
            expect(not near(accuracy, want[key]), words)
        expect(not near(accuracy, 1 - want["accuracy"]),
               "accuracy is the share of objects, not of background")  # fmt: skip
        raise Wrong("accuracy is not the share of graded pixels that are background")
    for mistake, words in (
        (1, "miou is the background's IoU alone; the mean runs over all categories"),
        (NUM_CLASSES, "miou is a mean over 20; the background is a category here too"),
    ):
        expect(not near(miou, want["accuracy"] / mistake), words)
    expect(not near(miou, 0), "miou is 0, but the background's IoU is not")
    expect(abs(miou - want["miou"]) < 5e-4, "miou is not the mean of the categories' IoU")
    return (
        f"{accuracy:.0%} of the pixels are right and not one object was found; "
        f"a mean IoU of {miou:.1%} says so."
    )
