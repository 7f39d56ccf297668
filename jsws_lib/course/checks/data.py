"""Checks of notebook 1: labels, company, joint cropping, the laziest segmenter."""

import numpy as np

from data_utils.pictures import read_class_mask
from data_utils.voc import NUM_CLASSES, VOC_CLASSES, VOID, image_labels, read_ids
from jsws_lib.config import get_profile
from jsws_lib.course.checks import Wrong, array_of, ask, check, expect, judge, same
from jsws_lib.metrics import ConfusionMatrix

NAMES = VOC_CLASSES[1:]
_OBJECT = (
    "<object><name>{}</name>\n<part><name>head</name></part></object>\n"  # VOC has both
)


@check
def check_labels(multi_hot):
    """Exercise 1.1: the multi-hot labels of an annotation."""
    repeated = ["person", "person", "dog", "person"]
    for names in (["dog"], ["dog", "sofa"], ["aeroplane"], ["tvmonitor"], repeated, NAMES):
        annotation = f"<annotation>\n{''.join(map(_OBJECT.format, names))}</annotation>\n"
        counts = np.array([names.count(name) for name in NAMES])
        want = counts > 0
        mistakes = {
            "t is all zero": lambda got: not got.any(),
            "the 1 stands one place too late, it names the next category": np.roll(want, 1),
            "t says whether a category occurs, not how often": counts,
        }
        where = f"{' and '.join(names[:3])}: "
        judge(multi_hot(annotation), want, mistakes, what="t", where=where)
    return "No box, no mask, no count: only what occurs."


def _company(labels: np.ndarray) -> np.ndarray:
    return labels.T @ labels / np.maximum(labels.sum(0), 1)[:, None]


@check
def check_company(company, together):
    """Exercise 1.2: how often a category comes with another, and which two are worst."""
    rng = np.random.default_rng(13)
    for n, likely in ((60, 0.3), (200, 0.1), (35, 0.5)):
        labels = (rng.random((n, NUM_CLASSES)) < likely).astype(np.float32)
        labels[range(NUM_CLASSES), range(NUM_CLASSES)] = 1  # none is absent
        want = _company(labels)
        mistakes = {
            "row and column are swapped: row i belongs to the images with i": want.T,
            "these are numbers of images; asked is a share": labels.T @ labels,
        }
        judge(ask(company, labels), want, mistakes, tolerance=1e-4)
    labels = np.zeros((3, NUM_CLASSES), np.float32)
    labels[:, 4], labels[1, 14] = 1, 1  # three bottles, one beside a person
    empty = "a category that no image shows gives 0/0; its row has to be zero"
    nan = {empty: lambda got: np.isnan(got).any()}
    judge(ask(company, labels), _company(labels), nan)
    return _judge_together(together)


def _judge_together(names: tuple) -> str:
    known = set(names) <= set(NAMES) and len(set(names)) == 2
    expect(known, "give two names of VOC_CLASSES, such as 'dog' and 'cat'")
    voc = get_profile().data / get_profile().voc
    ids = read_ids(voc / f"ImageSets/Segmentation/{get_profile().train_list}.txt")
    share = _company(np.stack([image_labels(voc / f"Annotations/{i}.xml") for i in ids]))
    np.fill_diagonal(share, 0)
    i, j = map(NAMES.index, names)
    shares = (
        f"{share[i, j]:.0%} of the images with {NAMES[i]} show {NAMES[j]}, "
        f"and {share[j, i]:.0%} of those with {NAMES[j]} show {NAMES[i]}"
    )
    smaller = np.minimum(share, share.T)
    expect(
        smaller[i, j] == smaller.max(),
        f"{shares}: images that show only one of the two separate them, and another pair "
        "has fewer of these on both sides",
    )
    return f"{shares}."


def _blocks():
    """An image and a mask of blocks: red and green tell where, blue the mask's value."""
    numbers = np.random.default_rng(14).choice([0, 5, 12, 20, VOID], (8, 6))
    mask = np.kron(numbers, np.ones((16, 16)))
    y, x = np.mgrid[:128, :96]
    image = np.stack((x * 255 / 95, y * 255 / 127, mask), -1)
    return image.round().astype(np.uint8), mask.astype(np.uint8)


@check
def check_crop_and_flip(crop_and_flip):
    """Exercise 1.3: one crop and one mirroring for an image and its mask."""
    given, crop, size = _blocks(), 0.6, 48
    corners, mirrored = [], set()

    def draw(seed):
        def answer(image, mask):
            rng = np.random.default_rng(seed)
            return crop_and_flip(rng, image, mask, crop=crop, size=size)

        got = ask(answer, *given)
        two = isinstance(got, tuple | list) and len(got) == 2
        expect(two, "return two things: the image and the mask")
        image, mask = got
        image = array_of(image, (size, size, 3), "the image")
        return image, array_of(mask, (size, size), "the mask")

    for seed in range(24):
        image, cut = draw(seed)
        _judge_pair(image, cut, given[1], crop)
        again = all(map(same, draw(seed), (image, cut)))
        expect(again, "the same generator gives another result: draw from rng only")
        red = image[0, :, 0]
        corners.append((red.min(), image[:, 0, 1].min()))
        mirrored.add(bool(red[0] > red[-1]))
    expect(len(mirrored) == 2, "in 24 draws, all or none of the images are mirrored")
    expect(np.ptp(corners, 0).min() > 50, "in 24 draws left or top hardly changes")
    tied = abs(np.corrcoef(*np.transpose(corners))[0, 1]) > 0.9
    expect(not tied, "one number was drawn for left and top: every part is on a diagonal")
    return "One draw serves both pictures, and the mask keeps to its own values."


def _judge_pair(image: np.ndarray, cut: np.ndarray, mask: np.ndarray, crop: float):
    new = set(np.unique(cut)) - set(np.unique(mask).astype(float))
    expect(
        not new,
        f"the mask came back with the value {min(new, default=0):g}, which it did not hold "
        "before: how was it resized?",
    )
    red, green = np.median(image[..., 0], 0), np.median(image[..., 1], 1)
    expect(green[0] < green[-1], "the image stands on its head: mirror left and right")
    for side, at in (("high", green), ("wide", red)):
        part = np.ptp(at) / 255 * len(at) / (len(at) - 1)
        words = f"with crop={crop} the part cut out is {part:.0%} {side}"
        expect(abs(part - crop) < 0.04, words)
    if not _agree(image, cut):
        alone = _agree(image, cut[:, ::-1])
        expect(not alone, "in some draws only one of image and mask is mirrored")
        raise Wrong("in some draws image and mask show different parts: is it drawn twice?")


def _agree(image: np.ndarray, cut: np.ndarray) -> bool:
    """Whether blue tells the mask's value, but at the blocks' blurred edges."""
    return (np.abs(image[..., 2] - cut) < 2).mean() > 0.7


@check
def check_lazy(accuracy, miou):
    """Exercise 1.4: accuracy and mean IoU of calling every pixel background."""
    profile, matrix, counts = get_profile(), ConfusionMatrix(), np.zeros(3)
    voc = profile.data / profile.voc
    for name in read_ids(voc / f"ImageSets/Segmentation/{profile.val_list}.txt"):
        mask = np.asarray(read_class_mask(voc / f"SegmentationClass/{name}.png"))
        matrix.update(mask, np.zeros_like(mask))
        counts += (mask == 0).sum(), (mask == VOID).sum(), mask.size
    background, void, pixels = counts
    as_wrong, as_right = background / pixels, (background + void) / pixels
    right = matrix.compute()
    of_accuracy = {
        "accuracy counts void pixels as wrong; they do not count at all": as_wrong,
        "accuracy counts void pixels as right; they do not count": as_right,
    }
    judge(accuracy, right.pixel_accuracy, of_accuracy, what="accuracy", tolerance=1e-4)
    over_20 = accuracy / NUM_CLASSES
    of_miou = {
        "miou is the background's IoU alone; the mean runs over all categories": accuracy,
        "miou is a mean over 20; the background is a category here too": over_20,
    }
    judge(miou, right.miou, of_miou, what="miou", tolerance=4e-4)
    return (
        f"{accuracy:.0%} of the pixels are right and not one object was found; "
        f"a mean IoU of {miou:.1%} says so."
    )
