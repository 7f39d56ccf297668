"""Inference on pictures of any size (Section 4.1, "When testing").

The picture is resized to the network's square, predicted, and the result resized back by
nearest neighbour. No image label is used, and segmentations are not post-processed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.datasets import (
    open_picture,
    read_class_mask,
    read_image,
    saliency_pairs,
)
from data_utils.decoded import same_size
from data_utils.files import write_png
from data_utils.voc import VOC_CLASSES, read_ids, write_palette_png
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import crf_saliency
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure
from jsws_lib.pictures import overlay
from jsws_lib.ssnet import SSNet


class Prediction(NamedTuple):
    """SSNet's answer for one picture, at the picture's size."""

    segmentation: np.ndarray  # (H, W) uint8, 0 background, 1 to C categories
    sal_map: np.ndarray  # S, (H, W) float32 in [0, 1]
    class_saliency: np.ndarray  # v, (C,) float32
    probs: np.ndarray  # H at the network's size, (C+1, size, size) float32


def predict(net: SSNet, images: Image.Image | Iterable[Image.Image], *,
            batch: int = 16) -> Iterator[Prediction] | Prediction:  # fmt: skip
    """Predict one RGB picture, or a stream of them in batches.

    Args:
        net: SSNet-1 or SSNet-2 in evaluation mode.
        images: one RGB picture, or an iterable of them, each of any size.
        batch: pictures per forward pass.

    Returns:
        a `Prediction`, or an iterator over them in order.
    """
    if isinstance(images, Image.Image):
        return next(_stream(net, iter([images]), 1))
    return _stream(net, iter(images), batch)


def _stream(net: SSNet, images: Iterator[Image.Image], batch: int):
    device = next(net.parameters()).device
    while chunk := [image for _, image in zip(range(batch), images, strict=False)]:
        side = (net.size, net.size)
        pixels = np.stack([np.asarray(i.resize(side, Image.BILINEAR)) for i in chunk])
        with torch.inference_mode():
            out = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))
        probs, sal_map = out.probs.cpu().numpy(), out.sal_map.cpu().numpy()
        best = probs.argmax(1).astype(np.uint8)
        scores = out.class_saliency.cpu().numpy()
        for i, image in enumerate(chunk):
            yield Prediction(
                resize_nearest(best[i], image.size),
                resize_nearest(sal_map[i].clip(0, 1), image.size),
                scores[i],
                probs[i],
            )


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W) uint8 or float32 map to `size` = (width, height)."""
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))


def to_grey(sal_map: np.ndarray) -> Image.Image:
    """S as an 8-bit picture, rounded once: truncation would darken every pixel."""
    return Image.fromarray((sal_map * 255).round().astype(np.uint8))


class Evaluation(NamedTuple):
    """The measures of Tables 5 and 6."""

    segmentation: ConfusionMatrix
    saliency: SaliencyMeasure
    saliency_crf: SaliencyMeasure | None

    def figures(self) -> dict[str, float]:
        """`miou`, `mae`, `max_f` and, after CRF, `mae_crf`, `max_f_crf`."""
        sal = self.saliency.compute()
        figures = {"miou": self.segmentation.compute().miou,
                   "mae": sal.mae, "max_f": sal.max_f}  # fmt: skip
        if self.saliency_crf:
            refined = self.saliency_crf.compute()
            figures |= {"mae_crf": refined.mae, "max_f_crf": refined.max_f}
        return {name: float(value) for name, value in figures.items()}


def evaluate(net: SSNet, *, profile: Profile, recipe: Recipe, crf: bool = False,
             limit: int | None = None, absent: str = "target") -> Evaluation:  # fmt: skip
    """Measure a network on VOC val and on the saliency test set.

    The mean IoU is over the background and the categories that occur in the masks of
    val, on the full list all of them, whatever else the network predicts; `absent` asks
    for another convention.

    Args:
        net: the network.
        profile: names the data.
        recipe: names the CRF preset.
        crf: also measure saliency maps refined by the CRF.
        limit: at most so many images of each set.
        absent: of categories that val lacks, see `ConfusionMatrix`.

    Raises:
        JswsError: data are missing or broken.
    """
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{profile.val_list}.txt",
                   image_dir=voc / "JPEGImages")[:limit]  # fmt: skip
    segmentation = ConfusionMatrix(len(VOC_CLASSES), absent=absent)
    images = (read_image(voc / "JPEGImages" / f"{i}.jpg") for i in ids)
    stream = predict(net, images)
    for i, prediction in tqdm(zip(ids, stream, strict=True), total=len(ids),
                              desc="segmentation", leave=False):  # fmt: skip
        path = voc / "SegmentationClass" / f"{i}.png"
        mask = read_class_mask(path)
        same_size(Image.fromarray(prediction.segmentation), mask, path)
        segmentation.update(np.asarray(mask), prediction.segmentation)

    test_ids = profile.test_list and read_ids(profile.data / profile.test_list)
    pairs = saliency_pairs(profile.data / profile.test_images,
                           profile.data / profile.test_masks,
                           ids=test_ids)[:limit]  # fmt: skip
    saliency, refined = SaliencyMeasure(), SaliencyMeasure() if crf else None
    stream = predict(net, (read_image(image) for image, _ in pairs))
    for (image_path, mask_path), prediction in tqdm(
        zip(pairs, stream, strict=True), total=len(pairs), desc="saliency", leave=False
    ):
        # Not `read_saliency_mask`: where a graded mask is cut belongs to the protocol.
        image, mask = read_image(image_path), open_picture(mask_path).convert("L")
        same_size(image, mask, mask_path)
        saliency.update(np.asarray(to_grey(prediction.sal_map)), np.asarray(mask))
        if refined:
            sal = crf_saliency(np.asarray(image), prediction.sal_map,
                               preset=recipe.crf, scale=profile.crf_scale)  # fmt: skip
            refined.update(np.asarray(to_grey(sal)), np.asarray(mask))
    return Evaluation(segmentation, saliency, refined)


def save_plain(prediction: Prediction, image: Image.Image, out: Path, name: str, *,
               saliency: bool = True):  # fmt: skip
    """Write `segmentation/<name>.png` and `saliency/<name>.png`, for `jsws evaluate`.

    Without `saliency` no map is written: the network's SAM was not trained.
    """
    write_palette_png(out / "segmentation" / f"{name}.png", prediction.segmentation)
    if saliency:
        write_png(out / "saliency" / f"{name}.png", to_grey(prediction.sal_map))


def save_prediction(prediction: Prediction, image: Image.Image, out: Path, name: str, *,
                    saliency: bool = True):  # fmt: skip
    """Write `<name>.png` (palette), `<name>_saliency.png`, `<name>_overlay.png`.

    Without `saliency` no map is written: the network's SAM was not trained.
    """
    write_palette_png(out / f"{name}.png", prediction.segmentation)
    if saliency:
        write_png(out / f"{name}_saliency.png", to_grey(prediction.sal_map))
    blend = overlay(np.asarray(image), prediction.segmentation)
    write_png(out / f"{name}_overlay.png", Image.fromarray(blend))
