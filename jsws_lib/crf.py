"""Dense CRF (Krähenbühl & Koltun 2011): snap soft maps to the edges of the photograph.

The paper refines pseudo-labels (section 3.4) and saliency maps (section 4.1) with it,
never the segmentation output. Its parameters are not given, so each result must name
its preset.

pydensecrf computes it, compiled C++. Where it cannot be imported `data_utils/crf_torch.py`
stands in for it, with the same result but for rounding.
"""

import multiprocessing
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np

from data_utils.errors import JswsError

MOST_WIDTHS = 3000  # a picture's largest side, in sxy of the bilateral kernel
PROB_MIN = 1e-5  # floor of a probability: the unary energy stays below 11.6


@dataclass(frozen=True)
class CRFPreset:
    """Parameters of one published dense CRF; lengths in pixels, colours in 0..255."""

    gauss_sxy: float  # smoothness kernel: a few pixels, against speckle
    gauss_compat: float
    bilateral_sxy: float  # appearance kernel: far neighbours of similar colour
    bilateral_srgb: float
    bilateral_compat: float
    iterations: int
    label_prob: float | None = None  # unary from the argmax, held with this confidence


# readme: of pydensecrf's README, and of the released code of 2020; seam, irn, oaa: of the
# methods of these names; deeplab: of DeepLab, taken over by EPS.
CRF_PRESETS: dict[str, CRFPreset] = {
    # gauss sxy, compat; bilateral sxy (times `crf_scale`), srgb, compat; iterations
    "readme": CRFPreset(3, 3, 80, 13, 10, 5),
    "seam": CRFPreset(3, 3, 80, 13, 10, 10),
    "irn": CRFPreset(3, 3, 50, 5, 10, 10, label_prob=0.7),
    "deeplab": CRFPreset(1, 3, 67, 3, 4, 10),
    "oaa": CRFPreset(3, 1, 67, 4, 3, 10),  # iterations unstated, our choice
}


def crf_probs(
    image: np.ndarray, probs: np.ndarray, *, preset: str = "readme", scale: float = 1.0
) -> np.ndarray:
    """Mean-field refinement of per-pixel probabilities.

    Args:
        image: H x W x 3 uint8 RGB, not normalised.
        probs: L x H x W float, L labels; columns need not sum to 1, since mean field
            ignores a per-pixel factor (up to the floor `PROB_MIN`).
        preset: name in `CRF_PRESETS`.
        scale: multiplies the bilateral ``sxy``, which suits photographs of about 500 px:
            for 96 px pass ``scale=96 / 500``. The small Gaussian stays.

    Returns:
        L x H x W float32 probabilities, summing to 1 over L.

    Raises:
        JswsError: unknown preset, wrong shapes or dtypes.
    """
    image, probs = np.asarray(image), np.asarray(probs)
    _check(image, probs, preset, scale)
    settings = CRF_PRESETS[preset]
    count, height, width = probs.shape
    if count == 1:
        return np.ones(probs.shape, np.float32)  # nothing to decide
    unary = _unary(probs, settings.label_prob)
    if (library := pydensecrf()) is None:
        from data_utils.crf_torch import refine  # PyTorch takes seconds to import

        return refine(image, unary, settings, scale=scale)
    crf = library.DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(unary.reshape(count, -1))
    crf.addPairwiseGaussian(sxy=settings.gauss_sxy, compat=settings.gauss_compat)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_sxy * scale,
        srgb=settings.bilateral_srgb,
        rgbim=np.require(image, requirements=["C", "W"]),  # Pillow's are read-only
        compat=settings.bilateral_compat,
    )
    return np.array(crf.inference(settings.iterations), np.float32).reshape(probs.shape)


def _check(image: np.ndarray, probs: np.ndarray, preset: str, scale: float):
    """Raise JswsError for what `crf_probs` cannot refine."""
    if preset not in CRF_PRESETS:
        raise JswsError(f"CRF preset {preset!r}: choose from {', '.join(CRF_PRESETS)}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise JswsError(f"image must be HxWx3 uint8, found {image.shape} {image.dtype}")
    if probs.ndim != 3 or probs.shape[1:] != image.shape[:2]:
        raise JswsError(f"probs {probs.shape} do not fit an image of {image.shape[:2]}")
    height, width = image.shape[:2]
    if not np.isfinite(probs).all():
        raise JswsError("the CRF needs finite probabilities")
    # pydensecrf counts cells of its lattice, some 5 to a kernel's width, in 16 bits.
    least = max(height, width) / MOST_WIDTHS / CRF_PRESETS[preset].bilateral_sxy
    if not least <= scale < np.inf:
        raise JswsError(
            f"CRF scale {scale:g} is outside [{least:.1g}, inf) for {width} x {height} px; "
            "it shrinks the reach with the picture, 1 for some 500 px"
        )


def crf_saliency(
    image: np.ndarray, sal_map: np.ndarray, *, preset: str = "readme", scale: float = 1.0
) -> np.ndarray:
    """Refine a saliency map by a CRF of two labels, not salient and salient.

    ``sal_map`` is H x W, float in [0, 1] or uint8. Returns H x W float32 in [0, 1].
    Raises JswsError as `crf_probs` does.
    """
    sal_map = np.asarray(sal_map)
    if sal_map.dtype == np.uint8:
        sal_map = sal_map / np.float32(255)
    if not (sal_map.ndim == 2 and sal_map.min() >= 0 and sal_map.max() <= 1):
        raise JswsError(f"need an HxW map in [0, 1], found shape {sal_map.shape}")
    probs = np.stack([1 - sal_map, sal_map])
    return crf_probs(image, probs, preset=preset, scale=scale)[1]


def _unary(probs: np.ndarray, label_prob: float | None) -> np.ndarray:
    """Energies -log p, float32 and C-contiguous as pydensecrf needs them."""
    if label_prob is not None:  # forget the soft scores, trust the argmax this much
        is_best = probs.argmax(0) == np.arange(len(probs))[:, None, None]
        probs = np.where(is_best, label_prob, (1 - label_prob) / (len(probs) - 1))
    return np.ascontiguousarray(-np.log(np.clip(probs, PROB_MIN, 1)), np.float32)


@cache
def pydensecrf():
    """The module `pydensecrf.densecrf`, or None where it cannot be imported.

    Then the first call warns; in a worker process none does, so whoever starts workers
    calls this first.
    """
    try:
        from pydensecrf import densecrf
    except Exception as error:  # whatever a broken binary raises
        if multiprocessing.parent_process() is None:
            warnings.warn(
                f"pydensecrf cannot be imported ({error}): the CRF runs in PyTorch, with "
                "the same result, but slower. `jsws doctor` says how to install it.",
                stacklevel=3,
            )
        return None
    return densecrf
