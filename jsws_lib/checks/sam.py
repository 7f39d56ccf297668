"""Checks of notebook 3, the saliency aggregation module."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_utils.voc import NUM_CLASSES
from jsws_lib.checks import check, expect, expect_array, same
from jsws_lib.losses import saliency_loss
from jsws_lib.ssnet import SaliencyAggregation, SSNetOutput


def _maps(seed: int, *shape: int, peak: float = 2.0) -> Tensor:
    """Maps that sum to one over the channels, (B, C+1, H, W)."""
    made = torch.Generator().manual_seed(seed)
    return (peak * torch.randn(*shape, generator=made)).softmax(1)


def _scores(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@check
def check_background_last(answer: Callable):
    """Exercise 3.1: Eq. 1 with the background as the last channel."""
    cases = [_maps(0, 2, 21, 5, 7), _maps(1, 3, 4, 2, 2), _maps(2, 1, 21, 1, 6, peak=9)]
    for k, probs in enumerate(cases):
        v = _scores(k, len(probs), probs.shape[1] - 1)
        given = probs.clone(), v.clone()
        got = expect_array(answer(*given), tuple(probs[:, 0].shape), "S")
        expect(torch.equal(given[0], probs) and torch.equal(given[1], v),
               "your function changes its input")  # fmt: skip
        want = sum(v[:, i, None, None] * probs[:, i] for i in range(v.shape[1]))
        if same(got, want):
            continue
        first = torch.einsum("bc,bchw->bhw", v, probs[:, 1:])
        expect(not same(got, first), "each score meets its neighbour's map, and the "
               "last one the background. Which channel is the background?")  # fmt: skip
        for weight in (1.0, v.mean(1)[:, None, None]):
            expect(not same(got, want + weight * probs[:, -1]),
                   "the background shines in S, but it has no score")  # fmt: skip
        shares = want / v.sum(1)[:, None, None]
        expect(not same(got, shares) and not same(got, want / v.shape[1]),
               "S is too dark: Eq. 1 is a sum, no mean; scores are no shares")  # fmt: skip
        alone = torch.einsum("c,bchw->bhw", v[0], probs[:, :-1])
        expect(not same(got, alone), "every image of the batch gets the scores of the "
               "first")  # fmt: skip
        expect(False, "the shape is right, the values are not those of Eq. 1")
    return "The background has a place in H, and none in Eq. 1."


SIZES = ((1664, 256, 8), (512, 256, 8), (194, 96, 8), (1664, 256, 16), (7, 24, 4))
DENSENET_FEATURES = 12_484_480


def _parameters(channels: int, size: int, stride: int) -> int:
    with torch.device("meta"):  # shapes only
        sam = SaliencyAggregation(channels, size // stride)
    return sum(p.numel() for p in sam.parameters())


@check
def check_sam_size(count: Callable, smallest):
    """Exercise 3.2: the SAM's parameters, and where it outgrows its backbone."""
    for channels, size, stride in SIZES:
        got = float(expect_array(count(channels, size, stride), (), "the count"))
        want, k = _parameters(channels, size, stride), size // stride
        where = f"for {channels} channels, {size} px and stride {stride}"
        expect(got != want - NUM_CLASSES, f"{where} you miss the biases: one each score")
        for side in (size, 1):
            weights = channels * side**2 * NUM_CLASSES
            expect(got not in (weights, weights + NUM_CLASSES),
                   f"{where} the kernel is not {side} wide, but as wide as F")  # fmt: skip
        more = NUM_CLASSES + 1
        expect(got not in (channels * k**2 * more, (channels * k**2 + 1) * more),
               f"{where} you count a score for the background")  # fmt: skip
        expect(got != channels * k * NUM_CLASSES + NUM_CLASSES,
               f"{where} the kernel has two sides")  # fmt: skip
        expect(got == want, f"{where} it is not {got:,.0f}")
    side = float(expect_array(smallest, (), "`smallest`"))
    expect(side % 8 == 0 and side >= 64,
           "`smallest` is the side of the image in pixels, a multiple of 8")  # fmt: skip
    expect(_parameters(1664, int(side), 8) > DENSENET_FEATURES,
           f"at {side:.0f} px the SAM is still the smaller of the two")  # fmt: skip
    expect(_parameters(1664, int(side) - 8, 8) <= DENSENET_FEATURES,
           f"at {side:.0f} px it is larger, but there are smaller such sides")  # fmt: skip
    return "The count grows with the area of the image; a 1 x 1 head does not grow at all."


@check
def check_mended(answer: Callable):
    """Exercise 3.3: two faults in an aggregation."""
    made = torch.Generator().manual_seed(3)
    cases = [(2.0, 2, 21, 4, 5), (2.0, 3, 5, 3, 3), (12.0, 1, 21, 2, 6)]
    for scale, *shape in cases:
        logits = scale * torch.randn(*shape, generator=made)
        a = 2 * torch.randn(shape[0], shape[1] - 1, generator=made)
        got = expect_array(answer(logits, a), tuple(logits[:, 0].shape), "S")
        probs, v = logits.softmax(1), a.sigmoid()
        want = SSNetOutput(logits.log_softmax(1), logits, a).sal_map
        if same(got, want):
            continue
        background = probs[:, 0]
        shares = v / v.sum(1, keepdim=True)
        rest = torch.einsum("bc,bchw->bhw", shares, probs[:, 1:])
        soft = torch.einsum("bc,bchw->bhw", a.softmax(1), probs[:, 1:])
        expect(not any(same(got, s + background) for s in (rest, soft)),
               "both faults are still there")  # fmt: skip
        expect(not same(got, rest) and not same(got, soft),
               "one fault is gone. The scores still compete: raise one, and all others "
               "fall")  # fmt: skip
        expect(not same(got, want + background),
               "one fault is gone. Empty background is still bright")  # fmt: skip
        alone = logits[:, 1:].softmax(1)
        expect(not same(got, torch.einsum("bc,bchw->bhw", v, alone)),
               "now the background is missing from the softmax, and a pixel of plain "
               "grass has to be one of the objects")  # fmt: skip
        shifted = torch.einsum("bc,bchw->bhw", v, probs[:, :-1])
        expect(not same(got, shifted), "each score meets its neighbour's map: channel 0 "
               "is the background")  # fmt: skip
        expect(False, "S still differs from Eq. 1")
    return "Neither fault raises an error, and both keep S between 0 and 1."


def _slope(probs: Tensor, a: Tensor, mask: Tensor) -> np.ndarray:
    """dL_s1 / da by automatic differentiation, (C,)."""
    with torch.inference_mode(False), torch.enable_grad():
        a = a.clone().requires_grad_()
        out = SSNetOutput(probs.clone()[None].log(), None, a[None])
        saliency_loss(out, mask[None].to(torch.uint8)).backward()
        return a.grad.numpy()


@check
def check_slope(answer: Callable):
    """Exercise 3.4: the gradient of Eq. 3 at the SAM's logits."""
    made = torch.Generator().manual_seed(4)
    shapes = ((21, 6, 5), (3, 4, 4), (8, 3, 7), (4, 5, 5))
    for k, shape in enumerate(shapes):
        probs = _maps(k + 10, 1, *shape)[0]
        a = 1.5 * torch.randn(shape[0] - 1, generator=made)
        mask = (torch.rand(shape[1:], generator=made) < 0.4).long()
        if k > 1:  # nothing is salient, or all
            mask = torch.full(shape[1:], k - 2)
        with torch.no_grad():
            given = answer(probs.clone(), a.clone(), mask.clone())
        got = expect_array(given, tuple(a.shape), "the gradient")
        want, flat = _slope(probs, a, mask), (a.sigmoid() * (-a).sigmoid()).numpy()
        unit = np.abs(want).max()

        def hit(wrong, got=got, unit=unit):
            return same(got / unit, np.asarray(wrong) / unit, tolerance=1e-4)

        if hit(want):
            continue
        expect(not hit(want / flat), "this is the gradient at v. From v to a it is one "
               "more link of the chain")  # fmt: skip
        expect(not hit(-want) and not hit(-want / flat), "every sign is the wrong way "
               "round: the loss has a minus in front")  # fmt: skip
        expect(not hit(want * mask.numel()), "you add the pixels up; `saliency_loss` "
               "takes their mean")  # fmt: skip
        v = a.sigmoid()
        s = torch.einsum("c,chw->hw", v, probs[1:])
        pull = mask / s - (1 - mask) / (1 - s)
        shifted = -(probs[:-1] * pull).mean((1, 2)).numpy()
        expect(not hit(shifted * flat) and not hit(shifted),
               "each score is paired with the map one channel too early")  # fmt: skip
        for name, part in (("not salient", mask / s), ("salient", -(1 - mask) / (1 - s))):
            half = -(probs[1:] * part).mean((1, 2)).numpy()
            expect(not hit(half * flat) and not hit(half),
                   f"the pixels that are {name} are left out")  # fmt: skip
        signs = (np.sign(got) == np.sign(want)).mean()
        expect(False, f"{signs:.0%} of the signs are right, the values are not")
    return "Two links of the chain: how S follows v, and how v follows a."


@check
def check_resting_score(answer: Callable):
    """Exercise 3.5: the score at which Eq. 3 is content."""
    grid = np.linspace(0, 1, 4001)[1:-1]
    cases = [(0.25, 1.0), (0.5, 0.9), (0.3, 0.6), (0.8, 0.6), (0.0, 0.7), (1.0, 0.8),
             (0.05, 0.3), (0.6, 0.6)]  # fmt: skip
    for share, sure in cases:
        got = float(expect_array(answer(share, sure), (), "v"))
        loss = -(share * np.log(grid * sure) + (1 - share) * np.log(1 - grid * sure))
        want = grid[loss.argmin()]
        case = f"for share {share:g} and sure {sure:g}"
        if abs(got - want) < 1e-3:
            continue
        expect(0 <= got <= 1, f"{case} you say {got:.2f}, which no sigmoid can reach")
        expect(abs(got - share) > 1e-3 or share == sure,
               f"{case} that would do for a map without doubt")  # fmt: skip
        expect(abs(got - share * sure) > 1e-3,
               f"{case} an unsure map asks for a higher score, not a lower")  # fmt: skip
        expect(got != float(share > 0.5),
               f"{case} Eq. 3 does not round: it stops in between")  # fmt: skip
        expect(False, f"{case} the loss is lower elsewhere than at {got:.2f}")
    return ("An unsure map has its score at 1 as soon as more of its pixels are salient "
            "than it is sure of: v = 1 does not mean certain.")  # fmt: skip
