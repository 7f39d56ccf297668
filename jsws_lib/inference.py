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
from jsws_lib.ssnet import SSNet


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
        JswsError: the network is in training mode or gives no finite numbers, or a
            picture is not RGB.
    """
    if net.training:
        raise JswsError("in training mode an answer depends on the batch: call net.eval()")
    if isinstance(images, Image.Image):
        return next(_stream(net, iter([images]), 1))
    return _stream(net, iter(images), batch)


def _square(image: Image.Image, side: tuple[int, int]) -> np.ndarray:
    if getattr(image, "mode", "no picture") != "RGB":
        raise JswsError(f"{image} is not RGB: give Image.open(FILE).convert('RGB')")
    return np.asarray(image.resize(side, Image.BILINEAR))


def _stream(net: SSNet, images: Iterator[Image.Image], batch: int):
    device, side = next(net.parameters()).device, (net.size, net.size)
    small = ((i.size, _square(i, side)) for i in images)
    # Only squares wait for their batch: sixteen large pictures would fill the memory.
    while chunk := list(islice(small, batch)):
        pixels = np.stack([square for _, square in chunk])
        with torch.inference_mode():
            out = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))
        probs, sal_map = out.probs.cpu().numpy(), out.sal_map.cpu().numpy()
        if not (np.isfinite(probs).all() and np.isfinite(sal_map).all()):
            raise JswsError(
                f"this SSNet-{net.stage} of {net.size} px gives numbers that are not "
                "finite, so its weights are of no use: choose another checkpoint, or, "
                "where it was just trained, a lower learning rate"
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


def to_grey(sal_map: np.ndarray) -> Image.Image:
    """S as an 8-bit picture, rounded once: truncation would darken every pixel."""
    return Image.fromarray((sal_map * 255).round().astype(np.uint8))
