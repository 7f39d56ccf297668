"""Class activation maps: what a network of image labels alone says of place.

The paper reads setting S by its argmax; this is the other way, the labels given.
"""

import numpy as np
from PIL import Image

from jsws_lib.inference import Prediction

CAM_THRESHOLD = 0.6  # below it a class activation map is background; the best on mini


def class_activation_maps(prediction: Prediction, labels: np.ndarray) -> np.ndarray:
    """What a classifier's logits say of place: each map rectified, its maximum 1.

    A network that saw image labels alone has learned no background, so its argmax
    compares categories with noise; this compares a category with itself. The labels t,
    (C,) multi-hot, are given, not predicted.

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
    """The strongest category of each pixel of (C, H, W) float32 class activation maps.

    Background, 0, is where all are weaker than the threshold in (0, 1]; (H, W) uint8.
    """
    best = (cams.argmax(0) + 1).astype(np.uint8)
    return np.where(cams.max(0) >= threshold, best, np.uint8(0))


def cam_scores(cams: np.ndarray) -> np.ndarray:
    """Class activation maps with a background, as pseudo labels take them in place of H.

    (C, H, W) to (C+1, H, W) float32 that sum to one; their argmax is `cam_segmentation`
    at `CAM_THRESHOLD`.
    """
    scores = np.concatenate([np.full_like(cams[:1], CAM_THRESHOLD), cams])
    return scores / scores.sum(0)
