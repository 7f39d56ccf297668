"""Inference on pictures of any size (Section 4.1, "When testing").

The picture is resized to the network's square, predicted, and the result resized back by
nearest neighbour. No image label is used, and segmentations are not post-processed.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data_utils.errors import JswsError
from jsws_lib.crf import crf_saliency
from jsws_lib.ssnet import SSNet

CAM_THRESHOLD = 0.6  # below it a class activation map is background; the best on mini
CRF_PIXELS = 2_000_000  # largest picture that the CRF refines at its own size


class Prediction(NamedTuple):
    """SSNet's answer for one picture, at the picture's size."""

    segmentation: np.ndarray  # (H, W) uint8, 0 background, 1 to C categories
    sal_map: np.ndarray  # S, (H, W) float32 in [0, 1]
    class_saliency: np.ndarray  # v, (C,) float32
    probs: np.ndarray  # H at the network's size, (C+1, size, size) float32
    logits: np.ndarray  # before upsampling, (C+1, h, w) float32


def predict(
    net: SSNet, images: Image.Image | Iterable[Image.Image], *, batch: int = 16
) -> Iterator[Prediction] | Prediction:
    """Predict one RGB picture, or a stream of them in batches.

    Args:
        net: SSNet-1 or SSNet-2 in evaluation mode.
        images: one RGB picture, or an iterable of them, each of any size.
        batch: pictures per forward pass.

    Returns:
        a `Prediction`, or an iterator over them in order.

    Raises:
        JswsError: the network gives no finite numbers.
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
        if not (np.isfinite(probs).all() and np.isfinite(sal_map).all()):
            raise JswsError(
                f"this SSNet-{net.stage} of {net.size} px gives numbers that are not "
                "finite: its weights are of no use; choose another checkpoint"
            )
        best = probs.argmax(1).astype(np.uint8)
        scores = out.class_saliency.cpu().numpy()
        logits = out.seg_logits_low.cpu().numpy()
        for i, (size, _) in enumerate(chunk):
            yield Prediction(
                resize_nearest(best[i], size),
                resize_nearest(sal_map[i].clip(0, 1), size),
                scores[i],
                probs[i],
                logits[i],
            )


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W) uint8 or float32 map to `size` = (width, height)."""
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))


def without_sam(prediction: Prediction) -> np.ndarray:
    """S with v = 1 for every category: 1 - H_bg, (H, W) float32 in [0, 1].

    What the SAM adds to a saliency map is the difference from this one.
    """
    height, width = prediction.sal_map.shape
    return resize_nearest(1 - prediction.probs[0], (width, height)).clip(0, 1)


def class_activation_maps(prediction: Prediction, labels: np.ndarray) -> np.ndarray:
    """What a classifier's logits say of place: each map rectified, its maximum 1.

    A network that saw image labels alone has learned no background, so its argmax
    compares categories with noise; this compares a category with itself.

    Args:
        prediction: of the picture.
        labels: t of the picture, (C,) multi-hot; given, not predicted.

    Returns:
        (C, H, W) float32 in [0, 1], bilinear at the picture's size, zero where t is.
    """
    height, width = prediction.segmentation.shape
    cams = np.zeros((len(labels), height, width), np.float32)
    for k in np.flatnonzero(labels):
        cam = prediction.logits[k + 1].clip(0)
        small = Image.fromarray(cam / max(cam.max(), 1e-12))
        cams[k] = small.resize((width, height), Image.Resampling.BILINEAR)
    return cams


def cam_segmentation(cams: np.ndarray, *, threshold: float) -> np.ndarray:
    """The strongest category of each pixel, background where all are weak.

    Args:
        cams: class activation maps, (C, H, W) float32.
        threshold: what is weaker is background, in (0, 1].

    Returns:
        (H, W) uint8, 0 background, 1 to C categories.
    """
    best = (cams.argmax(0) + 1).astype(np.uint8)
    return np.where(cams.max(0) >= threshold, best, np.uint8(0))


def cam_scores(cams: np.ndarray) -> np.ndarray:
    """Class activation maps with a background, as pseudo labels take them in place of H.

    Args:
        cams: of `class_activation_maps`, (C, H, W) float32.

    Returns:
        (C+1, H, W) float32 that sum to one; their argmax is `cam_segmentation` at
        `CAM_THRESHOLD`.
    """
    scores = np.concatenate([np.full_like(cams[:1], CAM_THRESHOLD), cams])
    return scores / scores.sum(0)


def to_grey(sal_map: np.ndarray) -> Image.Image:
    """S as an 8-bit picture, rounded once: truncation would darken every pixel."""
    return Image.fromarray((sal_map * 255).round().astype(np.uint8))


def refine_saliency(
    image: Image.Image, sal_map: np.ndarray, *, preset: str, scale: float = 1.0
) -> np.ndarray:
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
    refined = crf_saliency(
        small, resize_nearest(sal_map, size), preset=preset, scale=scale * shrink
    )
    large = Image.fromarray(refined).resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(large).clip(0, 1)
