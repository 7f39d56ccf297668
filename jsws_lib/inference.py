"""Inference on pictures of any size (Section 4.1, "When testing").

The picture is resized to the network's square, predicted, and the result resized back by
nearest neighbour. No image label is used, and segmentations are not post-processed.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.datasets import (
    open_picture,
    read_class_mask,
    read_image,
    saliency_pairs,
)
from data_utils.decoded import same_size
from data_utils.errors import JswsError
from data_utils.files import write_bytes, write_png
from data_utils.parallel import process_share
from data_utils.voc import palette, read_ids, write_palette_png
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import crf_saliency
from jsws_lib.devices import gather
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure
from jsws_lib.pictures import overlay
from jsws_lib.ssnet import SSNet

CRF_PIXELS = 2_000_000  # largest picture that the CRF refines at its own size
BAND = 256  # rows of a picture that are blended at a time


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
    device, side = next(net.parameters()).device, (net.size, net.size)
    small = ((i.size, np.asarray(i.resize(side, Image.BILINEAR))) for i in images)
    # Only squares wait for their batch: sixteen large pictures would fill the memory.
    while chunk := list(islice(small, batch)):
        pixels = np.stack([square for _, square in chunk])
        with torch.inference_mode():
            out = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))
        probs, sal_map = out.probs.cpu().numpy(), out.sal_map.cpu().numpy()
        best = probs.argmax(1).astype(np.uint8)
        scores = out.class_saliency.cpu().numpy()
        for i, (size, _) in enumerate(chunk):
            yield Prediction(
                resize_nearest(best[i], size),
                resize_nearest(sal_map[i].clip(0, 1), size),
                scores[i],
                probs[i],
            )


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W) uint8 or float32 map to `size` = (width, height)."""
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))


def to_grey(sal_map: np.ndarray) -> Image.Image:
    """S as an 8-bit picture, rounded once: truncation would darken every pixel."""
    return Image.fromarray((sal_map * 255).round().astype(np.uint8))


def refine_saliency(image: Image.Image, sal_map: np.ndarray, *, preset: str,
                    scale: float = 1.0) -> np.ndarray:  # fmt: skip
    """`crf_saliency` on a picture of any size, in bounded memory.

    The CRF needs 200 to 300 bytes a pixel. A picture of more than `CRF_PIXELS` is refined
    at that many and the result enlarged, bilinear; `scale` shrinks along, so that the
    CRF reaches over the same part of the picture.

    Args:
        image: RGB picture.
        sal_map: S, (H, W) float32 in [0, 1].
        preset, scale: of the CRF.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        JswsError: as `crf_probs` does.
    """
    shrink = min(1.0, (CRF_PIXELS / (image.width * image.height)) ** 0.5)
    if shrink == 1:
        return crf_saliency(np.asarray(image), sal_map, preset=preset, scale=scale)
    size = tuple(max(1, int(shrink * side)) for side in image.size)
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    refined = crf_saliency(small, resize_nearest(sal_map, size), preset=preset,
                           scale=scale * shrink)  # fmt: skip
    large = Image.fromarray(refined).resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(large).clip(0, 1)


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

    Several processes share the images, and each gets the whole result.

    Raises:
        JswsError: data are missing or broken.
    """
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{profile.val_list}.txt",
                   image_dir=voc / "JPEGImages")[:limit]  # fmt: skip
    rank, ranks = process_share()
    ids, names = ids[rank::ranks], ("background", *categories(voc))
    if net.sam.conv.out_channels != len(names) - 1:
        raise JswsError(f"the network knows {net.sam.conv.out_channels} categories, "
                        f"{voc} has {len(names) - 1}; choose another checkpoint")
    segmentation = ConfusionMatrix(len(names), absent=absent, names=names)
    images = (read_image(voc / "JPEGImages" / f"{i}.jpg") for i in ids)
    stream = predict(net, images)
    for i, prediction in tqdm(zip(ids, stream, strict=True), total=len(ids),
                              desc="segmentation", leave=False):  # fmt: skip
        path = voc / "SegmentationClass" / f"{i}.png"
        mask = read_class_mask(path, count=len(names) - 1)
        same_size(Image.fromarray(prediction.segmentation), mask, path)
        segmentation.update(np.asarray(mask), prediction.segmentation)

    test_ids = profile.test_list and read_ids(profile.data / profile.test_list)
    pairs = saliency_pairs(profile.data / profile.test_images,
                           profile.data / profile.test_masks,
                           ids=test_ids)[:limit][rank::ranks]  # fmt: skip
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
            sal = refine_saliency(image, prediction.sal_map, preset=recipe.crf,
                                  scale=profile.crf_scale)  # fmt: skip
            refined.update(np.asarray(to_grey(sal)), np.asarray(mask))
    first, *others = gather([Evaluation(segmentation, saliency, refined)])
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            if mine is not None:
                mine += theirs
    return first


def save_plain(prediction: Prediction, image: Image.Image, out: Path, name: str, *,
               saliency: bool = True):  # fmt: skip
    """Write `segmentation/<name>.png` and `saliency/<name>.png`, for `jsws evaluate`.

    Without `saliency` no map is written: the network's SAM was not trained.
    """
    write_palette_png(out / "segmentation" / f"{name}.png", prediction.segmentation)
    if saliency:
        write_png(out / "saliency" / f"{name}.png", to_grey(prediction.sal_map))


def save_legend(names: Sequence[str], path: Path) -> Path:
    """Write number, name and colour (#rrggbb) of background and categories as CSV."""
    text, colours = io.StringIO(), palette()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["value", "category", "colour"])
    for k, name in enumerate(["background", *names]):
        rows.writerow([k, name, f"#{colours[k].tobytes().hex()}"])
    return write_bytes(path, text.getvalue().encode())


def save_prediction(prediction: Prediction, image: Image.Image, out: Path, name: str, *,
                    saliency: bool = True):  # fmt: skip
    """Write `<name>.png` (palette), `<name>_saliency.png`, `<name>_overlay.png`.

    Without `saliency` no map is written: the network's SAM was not trained.
    """
    write_palette_png(out / f"{name}.png", prediction.segmentation)
    if saliency:
        write_png(out / f"{name}_saliency.png", to_grey(prediction.sal_map))
    pixels = np.asarray(image)
    blend = np.empty_like(pixels)
    for k in range(0, len(pixels), BAND):  # floats of a whole picture take gigabytes
        rows = np.s_[k : k + BAND]
        blend[rows] = overlay(pixels[rows], prediction.segmentation[rows])
    write_png(out / f"{name}_overlay.png", Image.fromarray(blend))
