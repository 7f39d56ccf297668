"""Checks of notebook 3, the saliency aggregation module."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_utils.voc import NUM_CLASSES
from jsws_lib.course.checks import array_of, ask, check, either, expect, judge, number
from jsws_lib.losses import saliency_loss
from jsws_lib.sam import SaliencyAggregation
from jsws_lib.ssnet import SSNetOutput


def _maps(seed: int, *shape: int, peak: float = 2.0) -> Tensor:
    """Maps that sum to one over the channels, (B, C+1, H, W)."""
    made = torch.Generator().manual_seed(seed)
    return (peak * torch.randn(*shape, generator=made)).softmax(1)


def _sum(v: Tensor, maps: Tensor) -> Tensor:
    """Eq. 1 for scores (B, C) and maps (B, C, H, W)."""
    return torch.einsum("bc,bchw->bhw", v, maps)


@check
def check_background_last(answer: Callable):
    """Exercise 3.1: Eq. 1 with the background as the last channel."""
    cases = [_maps(0, 2, 21, 5, 7), _maps(1, 3, 4, 2, 2), _maps(2, 1, 21, 1, 6, peak=9)]
    for k, probs in enumerate(cases):
        torch.manual_seed(k)
        v = torch.rand(len(probs), probs.shape[1] - 1)
        got = array_of(ask(answer, probs, v), tuple(probs[:, 0].shape), "S")
        want, background = _sum(v, probs[:, :-1]), probs[:, -1]
        shining = want + background, want + v.mean(1)[:, None, None] * background
        dark = want / v.sum(1)[:, None, None], want / v.shape[1]
        of_the_first = _sum(v[:1].expand_as(v), probs[:, :-1])
        mistakes = {
            "each score meets its neighbour's map, and the last one the background. Which "
            "channel is the background?": _sum(v, probs[:, 1:]),
            "the background shines in S, but it has no score": either(*shining),
            "S is too dark: Eq. 1 is a sum, no mean; scores are no shares": either(*dark),
            "every image of the batch gets the scores of the first": of_the_first,
        }
        judge(got, want, mistakes)
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

    def counts(weights, scores=NUM_CLASSES):
        """Without biases, and with them."""
        return either(weights * scores, (weights + 1) * scores)

    for channels, size, stride in SIZES:
        got = number(count(channels, size, stride), "the count")
        want, k = _parameters(channels, size, stride), size // stride
        weights = channels * k**2
        mistakes = {
            "you miss the biases: one each score": want - NUM_CLASSES,
            f"the kernel is not {size} wide, but as wide as F": counts(channels * size**2),
            "the kernel is not 1 wide, but as wide as F": counts(channels),
            "you count a score for the background": counts(weights, NUM_CLASSES + 1),
            "the kernel has two sides": counts(channels * k),
        }
        where = f"for {channels} channels, {size} px and stride {stride} "
        otherwise = f"it is not {got:,.0f}"
        judge(got, want, mistakes, where=where, otherwise=otherwise, tolerance=0)
    side = number(smallest, "`smallest`")
    expect(
        side % 8 == 0 and side >= 64,
        "`smallest` is the side of the image in pixels, a multiple of 8",
    )
    expect(
        _parameters(1664, int(side), 8) > DENSENET_FEATURES,
        f"at {side:.0f} px the SAM is still the smaller of the two",
    )
    expect(
        _parameters(1664, int(side) - 8, 8) <= DENSENET_FEATURES,
        f"at {side:.0f} px it is larger, but there are smaller such sides",
    )
    return "The count grows with the area of the image; a 1 x 1 head does not grow at all."


@check
def check_mended(answer: Callable):
    """Exercise 3.3: two faults in an aggregation."""
    made = torch.Generator().manual_seed(3)
    for scale, *shape in ((2.0, 2, 21, 4, 5), (2.0, 3, 5, 3, 3), (12.0, 1, 21, 2, 6)):
        logits = scale * torch.randn(*shape, generator=made)
        a = 2 * torch.randn(shape[0], shape[1] - 1, generator=made)
        got = array_of(ask(answer, logits, a), tuple(logits[:, 0].shape), "S")
        want = SSNetOutput(logits.log_softmax(1), logits, a).sal_map
        probs, v = logits.softmax(1), a.sigmoid()
        background, objects = probs[:, 0], probs[:, 1:]
        shifted = _sum(v, probs[:, :-1])
        rest = _sum(v / v.sum(1, keepdim=True), objects)
        soft = _sum(a.softmax(1), objects)
        mistakes = {
            "both faults are still there": either(rest + background, soft + background),
            "one fault is gone. The scores still compete: raise one, and all others "
            "fall": either(rest, soft),
            "one fault is gone. Empty background is still bright": want + background,
            "now the background is missing from the softmax, and a pixel of plain grass "
            "has to be one of the objects": _sum(v, logits[:, 1:].softmax(1)),
            "each score meets its neighbour's map: channel 0 is the background": shifted,
        }
        judge(got, want, mistakes, otherwise="S still differs from Eq. 1")
    return "Neither fault raises an error, and both keep S between 0 and 1."


def _slope(probs: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    """dL_s1 / da by automatic differentiation, (C,)."""
    a = a.clone().requires_grad_()
    out = SSNetOutput(probs[None].log(), None, a[None])
    saliency_loss(out, mask[None].to(torch.uint8)).backward()
    return a.grad


@check
def check_slope(answer: Callable):
    """Exercise 3.4: the gradient of Eq. 3 at the SAM's logits."""
    made = torch.Generator().manual_seed(4)
    for k, shape in enumerate(((21, 6, 5), (3, 4, 4), (8, 3, 7), (4, 5, 5))):
        probs = _maps(k + 10, 1, *shape)[0]
        a = 1.5 * torch.randn(shape[0] - 1, generator=made)
        mask = (torch.rand(shape[1:], generator=made) < 0.4).long()
        if k > 1:  # nothing is salient, or all
            mask = torch.full(shape[1:], k - 2)
        with torch.no_grad():
            got = array_of(ask(answer, probs, a, mask), tuple(a.shape), "the gradient")
        _judge_slope(got, probs, a, mask)
    return "Two links of the chain: how S follows v, and how v follows a."


def _judge_slope(got, probs, a, mask):
    want, v = _slope(probs, a, mask), a.sigmoid()
    unit, link = want.abs().max(), v * (1 - v)
    s = torch.einsum("c,chw->hw", v, probs[1:])
    bright, dark = mask / s, -(1 - mask) / (1 - s)

    def slopes(maps, pull):
        """The gradient at v, and at a."""
        at_v = -(maps * pull).mean((1, 2)) / unit
        return either(at_v, at_v * link)

    scaled, right = got / unit.item(), want / unit
    at_v, shifted = right / link, slopes(probs[:-1], bright + dark)
    downhill = either(-right, -at_v)
    mistakes = {
        "this is the gradient at v. From v to a it is one more link of the chain": at_v,
        "every sign is the wrong way round: the loss has a minus in front": downhill,
        "you add the pixels up; `saliency_loss` takes their mean": right * mask.numel(),
        "each score is paired with the map one channel too early": shifted,
        "the pixels that are not salient are left out": slopes(probs[1:], bright),
        "the pixels that are salient are left out": slopes(probs[1:], dark),
    }
    signs = (np.sign(got) == np.sign(want.numpy())).mean()
    otherwise = f"{signs:.0%} of the signs are right, the values are not"
    judge(scaled, right, mistakes, otherwise=otherwise, tolerance=1e-4)


# Share of salient pixels, and how sure the map is.
RESTS = ((0.25, 1), (0.5, 0.9), (0.3, 0.6), (0.8, 0.6), (0, 0.7), (1, 0.8), (0.05, 0.3))


@check
def check_resting_score(answer: Callable):
    """Exercise 3.5: the score at which Eq. 3 is content."""
    grid = np.linspace(0, 1, 4001)[1:-1]
    for share, sure in (*RESTS, (0.6, 0.6)):
        got = number(answer(float(share), float(sure)), "v")
        loss = -(share * np.log(grid * sure) + (1 - share) * np.log(1 - grid * sure))
        mistakes = {
            f"you say {got:.2f}, which no sigmoid can reach": not 0 <= got <= 1,
            "that would do for a map without doubt": share if share != sure else None,
            "an unsure map asks for a higher score, not a lower": share * sure,
            "Eq. 3 does not round: it stops in between": float(share > 0.5),
        }
        where = f"for share {share:g} and sure {sure:g} "
        otherwise = f"the loss is lower elsewhere than at {got:.2f}"
        want = grid[loss.argmin()]
        judge(got, want, mistakes, where=where, otherwise=otherwise, tolerance=6e-4)
    return (
        "An unsure map has its score at 1 as soon as more of its pixels are salient "
        "than it is sure of: v = 1 does not mean certain."
    )
