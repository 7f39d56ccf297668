"""Checks of notebook 6: suppression, a Gaussian kernel, a logit bug, weights, mean field.

`all_pairs` and `mean_field` are the notebook's own, for its solutions to import.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from jsws_lib.checks import check, expect, expect_array, same
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


def _unmoved(before, after) -> None:
    expect(all(same(a, b) for a, b in zip(before, after, strict=True)),
           "the function changes its arguments; work on a copy")  # fmt: skip


@check
def check_suppress_batch(suppress_batch: Callable) -> str:
    """Exercise 6.1: suppression of a batch in the paper's order of channels."""
    draw = torch.Generator().manual_seed(0)
    for batch, count, height, width in [(3, 4, 5, 6), (1, 20, 2, 3), (4, 1, 3, 2)]:
        h = torch.rand(batch, count + 1, height, width, generator=draw).softmax(1)
        labels = torch.randint(0, 2, (batch, count), generator=draw)
        labels[0] = 0  # an image without labels
        if batch > 1:
            labels[1] = 1
        for t in (labels.float(), labels):
            kept = h.clone(), t.clone()
            got = suppress_batch(h, t)
            _unmoved(kept, (h, t))
            _compare_suppressed(got, h.numpy(), t.numpy())
    return "The background has no label, so nothing may switch it off."


def _compare_suppressed(got, h, t):
    got = expect_array(got, h.shape)
    want = h.copy()
    for n, labels in enumerate(t):
        want[n, :-1] *= labels[:, None, None]
    if same(got, want):
        return
    case = f"at {h.shape[0]} images, {t.shape[1]} categories"
    expect(got.any(), f"{case}, nothing is left, not even the background")
    first = np.concatenate([np.ones((len(t), 1)), t], 1)[..., None, None] * h
    expect(not same(got, first), f"{case}, the first channel always survives; in the "
           "paper's order that is a category")  # fmt: skip
    expect(got[:, -1].any() or not h[:, -1].any(),
           f"{case}, the background is gone; no label speaks of it")  # fmt: skip
    total = np.maximum(want.sum(1, keepdims=True), 1e-12)
    expect(not same(got, want / total), f"{case}, the channels were divided by their sum; "
           "Section 3.4 only multiplies")  # fmt: skip
    expect(same(got[:, -1], h[:, -1]), f"{case}, the background is altered")
    for n in range(1, len(t)):
        wrong = h[n, :-1] * t[0][:, None, None]
        expect(not same(got[n, :-1], wrong) or same(wrong, want[n, :-1]),
               "every image is treated with the labels of the first")  # fmt: skip
    absent = got[:, :-1][t == 0]
    expect(not absent.any(), f"{case}, an absent category keeps a score")
    expect(False, f"{case}, a present category does not keep its score")


@check
def check_appearance(appearance: Callable) -> str:
    """Exercise 6.2: the appearance kernel of one pair of pixels."""
    draw = np.random.default_rng(0)
    byte = np.uint8
    pairs = [((3, 4), (3, 4), (9, 9, 9), (9, 9, 9)),
             ((0, 0), (0, 30), (100, 100, 100), (113, 100, 100)),
             ((0, 0), (0, 30), (113, 100, 100), (100, 100, 100)),
             ((0, 0), (0, 0), (0, 250, 3), (20, 240, 0))]  # fmt: skip
    pairs += [(draw.integers(0, 90, 2), draw.integers(0, 90, 2),
               (c := draw.integers(40, 200, 3)), c + draw.integers(-20, 20, 3))
              for _ in range(20)]  # fmt: skip
    for k, (place_m, place_n, colour_m, colour_n) in enumerate(pairs):
        widths = (80.0, 13.0) if k < 4 else tuple(draw.uniform((20, 8), (90, 30)))
        given = (np.array(place_m), np.array(place_n), np.array(colour_m, byte),
                 np.array(colour_n, byte))  # fmt: skip
        kept = [array.copy() for array in given]
        with np.errstate(over="ignore"):  # what a learner's bytes do is told below
            got = float(expect_array(appearance(*given, *widths), ()))
        _unmoved(kept, given)
        _compare_appearance(got, *given, *widths)
    return "Near and alike, or nothing: a product is as small as its smaller factor."


def _compare_appearance(got, place_m, place_n, colour_m, colour_n, alpha, beta):
    far = float(((place_m - place_n) ** 2).sum())
    unlike = float(((colour_m.astype(float) - colour_n) ** 2).sum())
    want = np.exp(-far / (2 * alpha**2) - unlike / (2 * beta**2))
    if same(got, want):
        return
    case = (f"pixels {far**0.5:.3g} px and {unlike**0.5:.3g} grey levels apart "
            f"(widths {alpha:.3g} and {beta:.3g}) give {got:.3g}")  # fmt: skip
    with np.errstate(over="ignore"):
        bytes_ = (((colour_m - colour_n).astype(float) ** 2).sum(),
                  ((colour_m - colour_n) ** 2).astype(float).sum(),
                  float(((colour_m - colour_n) ** 2).sum(dtype=np.uint8)))  # fmt: skip
    for wrapped in bytes_:
        there = np.exp(-far / (2 * alpha**2) - wrapped / (2 * beta**2))
        expect(wrapped == unlike or not same(got, there),
               f"{case}: bytes know no negative numbers, 100 - 113 makes "
               f"{np.uint8(243)}; leave uint8 before you subtract")  # fmt: skip
    tempting = {
        "the factor 2 below each square is missing":
            np.exp(-far / alpha**2 - unlike / beta**2),
        "two kernels are added; the exponents add, so the kernels multiply":
            np.exp(-far / (2 * alpha**2)) + np.exp(-unlike / (2 * beta**2)),
        "distances are not squared": np.exp(-(far**0.5) / (2 * alpha**2)
                                            - unlike**0.5 / (2 * beta**2)),
        "the widths are not squared": np.exp(-far / (2 * alpha) - unlike / (2 * beta)),
        "the colours play no part": np.exp(-far / (2 * alpha**2)),
        "the places play no part": np.exp(-unlike / (2 * beta**2)),
        "theta_alpha belongs to places, theta_beta to colours":
            np.exp(-far / (2 * beta**2) - unlike / (2 * alpha**2)),
    }  # fmt: skip
    for words, value in tempting.items():
        expect(not same(got, value), f"{case}: {words}")
    expect(0 <= got <= 1, f"{case}; an affinity with w_1 = 1 lies between 0 and 1")
    expect(False, case)


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
                given = logits + shift, labels.copy()
                kept = given[0].copy(), labels
                with np.errstate(all="ignore"):  # what overflows is told below
                    got = repaired(*given)
                _unmoved(kept, given)
                _compare_labels(got, logits, labels, shift)
    return "No constant matters now: the winner is among the allowed, for any logits."


def _compare_labels(got, logits, labels, shift):
    got = expect_array(got, logits.shape[1:], "the label map")
    allowed = [0, *(1 + np.flatnonzero(labels))]
    want = np.array(allowed)[logits[allowed].argmax(0)]
    case = f"with {labels.sum()} of {len(labels)} categories present"
    case += f" and {shift:+} on all logits" if shift else ""
    places = logits[allowed].argmax(0)
    expect(np.array_equal(places, want) or not np.array_equal(got, places), f"{case}, the "
           "winner is counted among the allowed channels; give its own number")  # fmt: skip
    if abs(shift) == 1000 and not np.array_equal(got, want):
        keep = np.array([i in allowed for i in range(len(logits))])[:, None, None]
        with np.errstate(all="ignore"):
            e = np.exp(logits + shift)
            tempted = (e * keep).argmax(0), (e / e.sum(0) * keep).argmax(0)
        expect(not any(np.array_equal(got, t) for t in tempted), f"{case}, exp gives only "
               "infinities or zeros. Softmax ignores a constant: take the largest logit "
               "of each pixel away first")  # fmt: skip
    share = (~np.isin(got, allowed)).mean()
    reach = logits.max(0) - logits[allowed].max(0)
    expect(share == 0 or reach.max() < 50, f"{case}, some absent category leads by "
           f"{reach.max():.0f}, and {share:.0%} of the pixels get one that is not in the "
           "image: which number loses against every other?")  # fmt: skip
    expect(share == 0, f"{case}, {share:.0%} of the pixels get a category that is not in "
           "the image")  # fmt: skip
    if np.array_equal(got, want):
        return
    expect(not (len(allowed) > 1 and (got == 0).all()),
           f"{case}, everything is background")  # fmt: skip
    only = np.array(allowed[1:])
    if len(only) and (want == 0).any():
        expect((got[want == 0] == 0).any(), f"{case}, the background never wins")
    expect(False, f"{case}, {(got != want).mean():.0%} of the pixels get another allowed "
           "category than the one with the largest logit")  # fmt: skip


def _first_weight(image, unary, spot, label, preset: CRFPreset):
    """The slow loop: all weights from zero; None if none does it."""
    row = np.ravel_multi_index(spot, image.shape[:2])
    for weight in range(101):
        kappa = all_pairs(image, replace(preset, bilateral_compat=weight), 1.0)
        if mean_field(unary, kappa, 5)[:, row].argmax() == label:
            return weight
    return None


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
        right = _first_weight(image, unary, spot, 1, preset)
        got = float(expect_array(smallest_weight(image, unary.copy(), spot), (), "it"))
        case = f"at H = {trust} for the object"
        if got == right:
            continue
        expect(right != 0, f"{case} the pixel is right before any CRF, and weight 0 does")
        smooth = replace(preset, gauss_compat=3)
        expect(got != _first_weight(image, unary, spot, 1, smooth),
               "the smoothness term helped; the question is for w_2 = 0")  # fmt: skip
        expect(got == int(got), f"{case} you found {got}, not a whole number")
        expect(got > right, f"{case} weight {got:g} leaves the pixel wrong")
        expect(False, f"{case} a smaller weight than {got:g} is enough")
    return "The surer the network is of its mistake, the more weight it takes."


@check
def check_update(update: Callable) -> str:
    """Exercise 6.5: one update of mean field, with a price for each pair of labels."""
    draw = np.random.default_rng(0)
    for labels, pixels in [(2, 4), (3, 4), (5, 9), (4, 1)]:
        unary = draw.uniform(0, 3, (labels, pixels))
        kappa = draw.uniform(0, 0.6, (pixels, pixels))
        kappa = (kappa + kappa.T) / 2
        mu = draw.uniform(0, 2, (labels, labels))
        q = draw.dirichlet(np.ones(labels), pixels).T
        given = unary.copy(), kappa.copy(), mu.copy(), q.copy()
        got = update(*given)
        _unmoved((unary, kappa, mu, q), given)
        _compare_update(got, unary, kappa, mu, q)
    return "With mu = 1 off the diagonal and 0 on it this is the notebook's, but for n = m."


def _compare_update(got, unary, kappa, mu, q):
    labels, pixels = unary.shape
    got = expect_array(got, unary.shape)
    others = kappa * (1 - np.eye(pixels))

    def plain(others=others, mu=mu, sign=-1.0, unary=unary, at_once=True):
        new = q.copy()
        for m in range(pixels):
            source = q if at_once else new
            energy = np.array([
                sum(mu[i, j] * others[m, n] * source[j, n]
                    for j in range(labels) for n in range(pixels))
                for i in range(labels)
            ])  # fmt: skip
            new[:, m] = np.exp(-unary[:, m] + sign * energy)
            if not at_once:
                new[:, m] /= new[:, m].sum()
        return new

    want = plain()
    if same(got, want / want.sum(0)):
        return
    case = f"at {labels} labels and {pixels} pixels"
    expect(not same(got, want) and (got >= 0).all(),
           f"{case}, Q does not sum to 1 over the labels of a pixel")  # fmt: skip
    expect(not same(got, want / want.sum(1, keepdims=True)),
           f"{case}, Q sums to 1 over the pixels; it must over the labels")  # fmt: skip
    tempting = {
        "a pixel persuades itself; the sum runs over n other than m": plain(kappa),
        "the price rewards: labels that cost more become likelier": plain(sign=1.0),
        "mu plays no part": np.exp(-unary + q @ others),
        "neighbours play no part": np.exp(-unary),
        "the unary term is missing": plain(unary=np.zeros_like(unary)),
        "the unary is an energy, likely where it is small": plain(unary=-unary),
        "mu is read the wrong way round: mu[i, j] is what i pays beside j": plain(mu=mu.T),
        "pixels see neighbours already updated; one update moves all at once":
            plain(at_once=False),
        "labels pay for neighbours of their own label and for no other": plain(
            mu=np.eye(labels)),
    }  # fmt: skip
    for words, value in tempting.items():
        expect(not same(got, value / value.sum(0)), f"{case}, {words}")
    expect(same(got.sum(0), 1), f"{case}, Q does not sum to 1 over the labels of a pixel")
    expect(False, f"{case}, Q differs from the formula by up to "
           f"{np.abs(got - want / want.sum(0)).max():.2g}")  # fmt: skip
