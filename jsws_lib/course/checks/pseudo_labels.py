"""Checks of notebook 6: suppression, a Gaussian kernel, a bug on logits, a weight.

`all_pairs` and `mean_field` are the notebook's own, for solutions and extras to import.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from jsws_lib.course.checks import array_of, ask, check, judge, number
from jsws_lib.crf import CRF_PRESETS, CRFPreset


def all_pairs(image, preset, scale):
    """Kappa of every pixel with every pixel, (N, N): for tiny images only."""
    spots = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], -1).reshape(-1, 2)
    colours = image.reshape(-1, 3) / preset.bilateral_srgb

    def kernel(features: np.ndarray) -> np.ndarray:
        squares = ((features[:, None] - features[None]) ** 2).sum(-1)
        weights = np.exp(-squares / 2)
        norm = 1 / np.sqrt(weights.sum(1))
        return norm[:, None] * weights * norm

    appearance = kernel(np.hstack([spots / (preset.bilateral_sxy * scale), colours]))
    smoothness = kernel(spots / preset.gauss_sxy)
    return preset.bilateral_compat * appearance + preset.gauss_compat * smoothness


def mean_field(unary, kappa, iterations):
    """Q from unary energies (L, N) and all pairs (N, N)."""
    q = np.exp(-unary)
    q /= q.sum(0)
    for _ in range(iterations):
        q = np.exp(-unary + q @ kappa)
        q /= q.sum(0)
    return q


@check
def check_suppress_batch(suppress_batch: Callable) -> str:
    """Exercise 6.1: suppression of a batch in the paper's order of channels."""
    for batch, count, height, width in [(3, 4, 5, 6), (1, 20, 2, 3), (4, 1, 3, 2)]:
        h = torch.rand(batch, count + 1, height, width).softmax(1)
        labels = torch.randint(0, 2, (batch, count))
        labels[0] = 0  # an image without labels
        labels[1:2] = 1
        where = f"at {batch} images, {count} categories, "
        for t in (labels.float(), labels):
            got = ask(suppress_batch, h, t)
            _judge_suppressed(got, h.numpy(), t.numpy()[..., None, None], where)
    return "The background has no label, so nothing may switch it off."


def _judge_suppressed(got, h, t, where):
    always = np.ones_like(t[:, :1])
    want = h * np.concatenate([t, always], 1)
    first = h * np.concatenate([always, t], 1)
    mistakes = {
        "the first channel always survives; in the paper's order that is a category": first,
        "the background is gone; no label speaks of it": lambda got: not got[:, -1].any(),
        "an absent category keeps a score": lambda got: (got[:, :-1] * (t == 0)).any(),
    }
    judge(got, want, mistakes, where=where)


@check
def check_appearance(appearance: Callable) -> str:
    """Exercise 6.2: the appearance kernel of one pair of pixels."""
    pairs = [
        ((3, 4), (3, 4), (9, 9, 9), (9, 9, 9), 80.0, 13.0),
        ((0, 0), (0, 30), (100, 100, 100), (113, 100, 100), 80.0, 13.0),
        ((0, 0), (0, 0), (0, 250, 3), (20, 240, 0), 80.0, 13.0),
        ((70, 5), (41, 60), (50, 90, 120), (60, 75, 135), 40.0, 17.0),
        ((3, 80), (9, 50), (150, 60, 90), (140, 72, 88), 25.0, 30.0),
        ((0, 0), (0, 0), (0, 0, 0), (255, 255, 255), 80.0, 13.0),
    ]
    for *given, alpha, beta in pairs:
        places = [np.array(place) for place in given[:2]]
        colours = [np.array(colour, np.uint8) for colour in given[2:]]
        got = number(ask(appearance, *places, *colours, alpha, beta))
        _judge_appearance(got, *places, *colours, alpha, beta)
    return "Near and alike, or nothing: a product is as small as its smaller factor."


def _judge_appearance(got, place_m, place_n, colour_m, colour_n, alpha, beta):
    far = float(((place_m - place_n) ** 2).sum())
    unlike = float(((colour_m.astype(float) - colour_n) ** 2).sum())
    wrapped = colour_m - colour_n  # in bytes
    short = ((colour_m.astype(np.int16) - colour_n) ** 2).sum()

    def kernel(far, unlike, alpha=2 * alpha**2, beta=2 * beta**2):
        return np.exp(-far / alpha - unlike / beta)

    in_bytes = (wrapped.astype(float) ** 2).sum(), (wrapped**2).astype(float).sum()
    added = kernel(far, 0) + kernel(0, unlike)
    swapped = kernel(far, unlike, 2 * beta**2, 2 * alpha**2)
    mistakes = {
        "bytes know no negative numbers, 100 - 113 makes 243; leave uint8 before you "
        "subtract": tuple(kernel(far, wrong) for wrong in in_bytes),
        "int16 ends at 32,767, and 182 squared is more": kernel(far, short),
        "the factor 2 below each square is missing": kernel(2 * far, 2 * unlike),
        "two kernels are added; the exponents add, so the kernels multiply": added,
        "theta_alpha belongs to places, theta_beta to colours": swapped,
    }
    where = (
        f"pixels {far**0.5:.3g} px and {unlike**0.5:.3g} grey levels apart "
        f"(widths {alpha:.3g} and {beta:.3g}) give {got:.3g}: "
    )
    judge(got, kernel(far, unlike), mistakes, where=where)


@check
def check_repaired(repaired: Callable) -> str:
    """Exercise 6.3: labels on logits, repaired for every constant in the logits."""
    draw = np.random.default_rng(0)
    for count, present in [(3, (1,)), (20, (4, 14)), (5, ()), (4, (0, 1, 2, 3))]:
        labels = np.zeros(count, int)
        labels[list(present)] = 1
        # Spread 100 stays within what exp bears: at most some 600 apart at one pixel.
        for spread, shifts in (3, (0, -30, 30, -1000, 1000)), (100, (0,)):
            logits = draw.normal(0, spread, (count + 1, 6, 7))
            for shift in shifts:
                got = ask(repaired, logits + shift, labels)
                got = array_of(got, logits.shape[1:], "the label map")
                _judge_labels(got, logits + shift, labels, shift)
    return "No constant matters now: the winner is among the allowed, for any logits."


def _judge_labels(got, logits, labels, shift):
    allowed = np.array([0, *(1 + np.flatnonzero(labels))])
    places = logits[allowed].argmax(0)
    want = allowed[places]
    keep = np.isin(range(len(logits)), allowed)[:, None, None]
    e = np.exp(logits)
    overflown = (e * keep).argmax(0), (e / e.sum(0) * keep).argmax(0)
    lead = (logits.max(0) - logits[allowed].max(0)).max()
    share = (~np.isin(got, allowed)).mean()
    misled = f"{share or (got != want).mean():.0%} of the pixels get"
    mistakes = {
        "the winner is counted among the allowed channels; give its own number": places,
        "exp gives only infinities or zeros. Softmax ignores a constant: take the largest "
        "logit of each pixel away first": abs(shift) == 1000 and overflown,
        f"some absent category leads by {lead:.0f}, and {misled} one that is not in the "
        "image: which number loses against every other?": share > 0 and lead >= 50,
        f"{misled} a category that is not in the image": share > 0,
        f"{misled} an allowed category, but not that of the largest logit": True,
    }
    where = f"with {labels.sum()} of {len(labels)} categories present"
    where += f" and {shift:+} on all logits, " if shift else ", "
    judge(got, want, mistakes, where=where)


def _first_weight(image, unary, spot, preset: CRFPreset) -> int:
    """The slow loop: all weights from zero; 101 if none does it."""
    row = np.ravel_multi_index(spot, image.shape[:2])
    for weight in range(101):
        kappa = all_pairs(image, replace(preset, bilateral_compat=weight), 1.0)
        if mean_field(unary, kappa, 5)[:, row].argmax() == 1:
            return weight
    return 101


@check
def check_smallest_weight(smallest_weight: Callable) -> str:
    """Exercise 6.4: how strong the appearance term has to be."""
    draw = np.random.default_rng(0)
    image = np.full((6, 6, 3), 70, np.uint8)
    image[:, 3:] = 190
    preset = replace(CRF_PRESETS["readme"], gauss_compat=0)
    for trust in (0.3, 0.05, 0.6, 0.005):
        spot = (int(draw.integers(1, 5)), 4)
        p = np.full((6, 6), 0.1)
        p[:, 3:] = 0.9
        p[spot] = trust
        unary = -np.log(np.stack([1 - p, p])).reshape(2, -1)
        got = number(ask(smallest_weight, image, unary, spot), "it")
        want = _first_weight(image, unary, spot, preset)
        smooth = _first_weight(image, unary, spot, replace(preset, gauss_compat=3))
        swapped = _first_weight(image, unary, spot[::-1], preset)
        mistakes = {
            "the pixel is right before any CRF, and weight 0 does": want == 0,
            "the smoothness term helped; the question is for w_2 = 0": smooth,
            "is it the pixel that you mean? `spot` is row, then column": swapped,
            f"weight {got:g} leaves the pixel wrong": got < want,
            f"less than {got:g} is enough": got > want,
        }
        judge(got, want, mistakes, where=f"at H = {trust} for the object ")
    return (
        "The surer the network is of its mistake, the more weight it takes; not in "
        "proportion, because costs are logarithms."
    )
