"""Measure a network on both test sets (Sections 4.1 and 4.2)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.categories import categories, combined
from data_utils.datasets import saliency_pairs
from data_utils.errors import JswsError
from data_utils.parallel import gather, process_share
from data_utils.pictures import (
    read_class_mask,
    read_image,
    read_saliency_mask,
    renumbering,
    same_size,
)
from data_utils.voc import VOID, read_ids
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import crf_saliency
from jsws_lib.inference import Prediction, predict, resize_nearest, to_grey
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure
from jsws_lib.ssnet import SSNet

CRF_PIXELS = 2_000_000  # largest picture that the CRF refines at its own size


class Confusion(ConfusionMatrix):
    """A `ConfusionMatrix` that knows which categories could be predicted: all, or `known`.

    The names are those of the classes, the background first.
    """

    def __init__(
        self, names: Sequence[str], *, absent: str = "union", known: Sequence[str] = ()
    ):
        super().__init__(len(names), absent=absent, names=names)
        self.known = known

    def check_truth(self, where):
        """Raise JswsError where no mask has a category: background alone says nothing."""
        if not self.matrix[1:].any():
            raise JswsError(
                f"no mask of {where} has a category, so there is nothing to measure: the "
                f"first category is the value 1, and {VOID} is void"
            )

    def unknown(self) -> dict:
        """What the truth holds of categories that were not `known` to whoever predicted.

        Returns:
            {} if nothing, else `unknown`, their names; `unknown_pixels`, their share of
            the pixels, all of them errors; `miou_known`, over the background and the
            others.
        """
        pixels = self.matrix.sum(1)
        known = {"background", *self.known}
        other = np.array([name not in known for name in self.names]) & (pixels > 0)
        if not self.known or not other.any():
            return {}
        return {
            "unknown": [self.names[k] for k in np.flatnonzero(other)],
            "unknown_pixels": float(pixels[other].sum() / pixels.sum()),
            "miou_known": float(np.nanmean(self.compute().iou[~other])),
        }


class Evaluation(NamedTuple):
    """The measures of Tables 5 and 6."""

    segmentation: Confusion
    saliency: SaliencyMeasure
    saliency_crf: SaliencyMeasure | None

    def figures(self) -> dict[str, float]:
        """`miou`, `mae`, `max_f` and, after CRF, `mae_crf`, `max_f_crf`."""
        figures = {"miou": float(self.segmentation.compute().miou)}
        for end, measure in (("", self.saliency), ("_crf", self.saliency_crf)):
            if measure:
                found = measure.compute()
                figures |= {f"mae{end}": float(found.mae)}
                figures |= {f"max_f{end}": float(found.max_f)}
        return figures


def evenly(things: Sequence, count: int) -> Sequence:
    """At most so many of the things, evenly over all of them."""
    count = min(count, len(things))
    return [things[k * len(things) // count] for k in range(count)]


def validation(
    net: SSNet,
    profile: Profile,
    *,
    known: Sequence[str] = (),
    pick: Callable[[Sequence], Sequence] = list,
) -> Iterator[tuple[Prediction, np.ndarray]]:
    """Predictions of VOC val, each with its mask, (H, W) uint8; each process its share.

    Both number categories as the data do; `known` are the network's, by default the same.
    `pick` chooses among the ids of the list.

    Raises:
        JswsError: data are missing or broken, or the network has another number of
            categories than `known`, or none of the data's.
    """
    voc, (rank, ranks) = profile.data / profile.voc, process_share()
    list_file = voc / "ImageSets" / "Segmentation" / f"{profile.val_list}.txt"
    ids = read_ids(list_file, image_dir=voc / "JPEGImages")
    ids, names = pick(ids)[rank::ranks], categories(voc)
    known = known or names
    if net.sam.conv.out_channels != len(known):
        raise JswsError(
            f"the network knows {net.sam.conv.out_channels} categories, "
            f"{voc} has {len(known)}; choose another checkpoint"
        )
    numbers = renumbering(known, combined(known, names))
    images = (voc / "JPEGImages" / f"{i}.jpg" for i in ids)
    for i, prediction in _predicted(net, images, ids, "segmentation"):
        path = voc / "SegmentationClass" / f"{i}.png"
        mask = read_class_mask(path, names=names)
        segmentation = numbers[prediction.segmentation]
        same_size(Image.fromarray(segmentation), mask, path)
        yield prediction._replace(segmentation=segmentation), np.asarray(mask)


def _predicted(net: SSNet, images: Iterable[Path], things: Sequence, title: str) -> tqdm:
    """Each of the things with the prediction of its image, behind a progress bar."""
    pairs = zip(things, predict(net, map(read_image, images)), strict=True)
    return tqdm(pairs, total=len(things), desc=title, leave=False)


def evaluate(
    net: SSNet,
    *,
    profile: Profile,
    recipe: Recipe,
    crf: bool = False,
    limit: int | None = None,
    sam: bool = True,
) -> Evaluation:
    """Measure a network on VOC val and on the saliency test set.

    The mean IoU is over the background and the categories that occur in the masks of
    val, on the full list all of them, whatever else the network predicts.

    Args:
        net: the network.
        profile, recipe: name the data and the CRF preset.
        crf: also measure saliency maps refined by the CRF.
        limit: at most so many images of each set.
        sam: False measures saliency maps with v = 1, see `without_sam`.

    Several processes share the images, and each gets the whole result.

    Raises:
        JswsError: data are missing or broken.
    """
    preset = recipe.crf if crf else None

    def pick(things: Sequence) -> Sequence:
        return things[:limit]

    segmentation = measure_segmentation(net, profile, pick=pick)
    saliency = measure_saliency(net, profile, preset=preset, pick=pick, sam=sam)
    return Evaluation(segmentation, *saliency)


def measure_segmentation(
    net: SSNet,
    profile: Profile,
    *,
    known: Sequence[str] = (),
    pick: Callable[[Sequence], Sequence] = list,
) -> Confusion:
    """The part of `evaluate` that looks at VOC val; `known`, `pick`: see `validation`.

    Categories are compared by name, and pixels of one that the network does not know are
    errors; one that val lacks is left out. Raises JswsError as `validation` does, or
    where no mask has any category.
    """

    def share() -> list[Confusion]:
        data = categories(profile.data / profile.voc)
        names = ("background", *combined(known or data, data))
        matrix = Confusion(names, absent="target", known=known)
        for prediction, mask in validation(net, profile, known=known, pick=pick):
            matrix.update(mask, prediction.segmentation)
        return [matrix]

    matrix = _together(share)[0]
    matrix.check_truth(f"{profile.data / profile.voc}, list {profile.val_list}")
    return matrix


def measure_saliency(
    net: SSNet,
    profile: Profile,
    *,
    preset: str | None = None,
    pick: Callable[[Sequence], Sequence] = list,
    sam: bool = True,
) -> tuple[SaliencyMeasure, SaliencyMeasure | None]:
    """The part of `evaluate` that looks at the saliency test set.

    Returns the measure, and that after the CRF where its preset is named; `pick` chooses
    among the pairs of picture and mask.
    """

    def share() -> list[SaliencyMeasure]:
        rank, ranks = process_share()
        ids = profile.test_list and read_ids(profile.data / profile.test_list)
        folders = profile.data / profile.test_images, profile.data / profile.test_masks
        pairs = pick(saliency_pairs(*folders, ids=ids))[rank::ranks]
        measures = [SaliencyMeasure() for _ in range(2 if preset else 1)]
        images = (image for image, _ in pairs)
        for pair, prediction in _predicted(net, images, pairs, "saliency"):
            image_path, mask_path = pair
            # Graded: where such a mask is cut belongs to the protocol.
            image, mask = read_image(image_path), read_saliency_mask(mask_path, graded=True)
            same_size(image, mask, mask_path)
            sal = prediction.sal_map if sam else without_sam(prediction)
            measures[0].update(np.asarray(to_grey(sal)), np.asarray(mask))
            if preset:
                sal = refine_saliency(image, sal, preset=preset, scale=profile.crf_scale)
                measures[1].update(np.asarray(to_grey(sal)), np.asarray(mask))
        return measures

    plain, *refined = _together(share)
    return plain, refined[0] if refined else None


def without_sam(prediction: Prediction) -> np.ndarray:
    """S with v = 1 for every category: 1 - H_bg, (H, W) float32 in [0, 1].

    What the SAM adds to a saliency map is the difference from this one.
    """
    height, width = prediction.sal_map.shape
    return resize_nearest(1 - prediction.probs[0], (width, height)).clip(0, 1)


def refine_saliency(
    image: Image.Image, sal_map: np.ndarray, *, preset: str, scale: float = 1.0
) -> np.ndarray:
    """`crf_saliency` on a picture of any size, in bounded memory.

    The CRF needs 200 to 300 bytes a pixel. A picture of more than `CRF_PIXELS` is refined
    at that many and the result enlarged, bilinear; `scale` shrinks along, so that the
    CRF reaches over the same part of the picture.

    An RGB picture and S to S, (H, W) float32 in [0, 1]. Raises JswsError as `crf_probs`.
    """
    shrink = min(1.0, (CRF_PIXELS / (image.width * image.height)) ** 0.5)
    if shrink == 1:
        return crf_saliency(np.asarray(image), sal_map, preset=preset, scale=scale)
    size = tuple(max(1, int(shrink * side)) for side in image.size)
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    refined = crf_saliency(
        small, resize_nearest(sal_map, size), preset=preset, scale=scale * shrink
    )
    large = Image.fromarray(refined).resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(large).clip(0, 1)


def _together(share: Callable[[], list]) -> list:
    """What the processes measured, each its share, summed.

    A process that fails tells the others, which would wait for it for ever.
    """
    try:
        mine = share()
    except JswsError as error:
        mine = str(error)
    found = gather([mine])
    if failed := [words for words in found if isinstance(words, str)]:
        raise JswsError(failed[0])
    first, *others = found
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            ours += theirs
    return first
