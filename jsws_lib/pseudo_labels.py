"""Pseudo labels for stage 2 (Section 3.4): SSNet-1's maps, suppressed, refined, argmaxed.

`engine/labelling.py` makes those of a whole training set.
"""

import numpy as np
from PIL import Image

from data_utils.errors import JswsError
from jsws_lib.crf import crf_probs


def suppress(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Multiply class channels by the image's labels, keep the background (section 3.4).

    ``scores`` (C+1, ...) must be **probabilities**, ``labels`` (C,) multi-hot. On
    logits the rule misfires: they are often negative, so the 0 of an absent class is
    larger than what the present classes score, and the absent class wins.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if labels.ndim != 1 or len(scores) != len(labels) + 1:
        raise JswsError(
            f"{len(scores)} score channels need {len(scores) - 1} labels, "
            f"found {labels.shape}"
        )
    keep = np.concatenate([[1], labels]).astype(scores.dtype)  # channel 0 = background
    return scores * keep.reshape(-1, *[1] * (scores.ndim - 1))


def crf_segmentation(
    image: np.ndarray,
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    preset: str = "readme",
    scale: float = 1.0,
) -> np.ndarray:
    """Pseudo-label of one training image (section 3.4).

    Suppress absent classes, run the CRF over background and present classes only (all but
    some .04 % of pixels come out as with all 21, in half the time), argmax.

    ``image`` H x W x 3 uint8, ``probs`` (C+1) x H x W, ``labels`` (C,) multi-hot.
    Returns H x W uint8 channel numbers, 0 = background; all 0 for an image without
    labels. Raises JswsError as `crf_probs` does.
    """
    probs = suppress(probs, labels)
    channels = np.flatnonzero(np.concatenate([[1], labels]))
    refined = crf_probs(image, probs[channels], preset=preset, scale=scale)
    return channels.astype(np.uint8)[refined.argmax(0)]


def pseudo_label(
    image: np.ndarray,
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    rule: str = "probs",
    preset: str = "readme",
    scale: float = 1.0,
) -> np.ndarray:
    """Make one pseudo label.

    Args:
        image: (H, W, 3) uint8.
        probs: H from SSNet-1, (C+1, h, w) float32 in [0, 1].
        labels: t, (C,) multi-hot.
        rule: `"probs"` multiplies H by t, Section 3.4; `"cam"`, too, where `probs` are
            the scores of `engine.cam.cam_scores`. `"logits"` multiplies log H by t
            as the released code does its logits (log H less its mean over channels, the
            logits up to a constant): a suppressed category scores zero, above any
            unlikely present one, and may win.
        preset, scale: of the CRF.

    Returns:
        (H, W) uint8, 0 background, 1 to C categories. Raises JswsError as `crf_probs`
        does, and for an unknown rule.
    """
    if rule not in ("probs", "cam", "logits"):
        raise JswsError(f"rule {rule!r}: choose probs, cam or logits")
    size, channels = image.shape[1::-1], np.arange(len(probs), dtype=np.uint8)
    if rule != "logits":  # suppressed categories need no map
        channels = channels[np.concatenate([[1], labels]) > 0]
    large = (Image.fromarray(probs[k]).resize(size, Image.BILINEAR) for k in channels)
    probs = np.stack([np.asarray(one) for one in large])
    if rule != "logits":
        present = labels[labels > 0]  # all ones: maps of absent ones are left out
        found = crf_segmentation(image, probs, present, preset=preset, scale=scale)
        return channels[found]
    logits = np.log(probs.clip(1e-12))
    logits = suppress(logits - logits.mean(0), labels)
    exp = np.exp(logits - logits.max(0))
    refined = crf_probs(image, exp / exp.sum(0), preset=preset, scale=scale)
    return refined.argmax(0).astype(np.uint8)
