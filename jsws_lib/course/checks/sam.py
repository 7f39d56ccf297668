"""Checks of notebook 3, the saliency aggregation module."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsws_lib.course.checks import (
    array_of,
    ask,
    check,
    expect,
    judge,
    judge_verdict,
    number,
)
from jsws_lib.ssnet import DilatedHead


def _sum(v: Tensor, maps: Tensor) -> Tensor:
    """Eq. 1 for scores (B, C) and maps (B, C, H, W)."""
    return torch.einsum("bc,bchw->bhw", v, maps)


@check
def check_background_last(answer: Callable):
    """Exercise 3.1: Eq. 1 with the background as the last channel."""
    for peak, *shape in (2, 2, 21, 5, 7), (2, 3, 4, 2, 2), (9, 1, 21, 1, 6):
        probs = (peak * torch.randn(*shape)).softmax(1)
        v = torch.rand(len(probs), probs.shape[1] - 1)
        want, background = _sum(v, probs[:, :-1]), probs[:, -1]
        mistakes = {
            "each score meets its neighbour's map, and the last one the background. Which "
            "channel is the background?": _sum(v, probs[:, 1:]),
            "the background shines in S, but it has no score": want + background,
            "S is too dark: Eq. 1 is a sum, no mean": want / v.shape[1],
        }
        judge(ask(answer, probs, v), want, mistakes, what="S")
    return "The background has a place in H, and none in Eq. 1."


@check
def check_forward(answer: Callable):
    """Exercise 3.2: SSNet-2 from its parts."""
    for batch, channels, k, stride, categories in ((2, 6, 8, 4, 20), (1, 3, 9, 2, 5)):
        backbone = nn.Conv2d(3, channels, stride, stride)
        branches = DilatedHead(channels, categories + 1).branches
        sam = nn.Conv2d(channels, categories, k)
        for part in (backbone, sam, *branches):
            nn.init.normal_(part.weight, std=0.3 if part is sam else 1.5)
        image = torch.rand(batch, 3, k * stride, k * stride)
        with torch.no_grad():
            got = answer(image, backbone, branches, sam, stride)
            three = isinstance(got, tuple | list) and len(got) == 3
            expect(three, "return three things: H, v and S")
            _judge_forward(*got, backbone(image), branches, sam, stride)
    return "The same forward pass as in stage 1: only the head is larger."


def _judge_forward(H, v, S, feats: Tensor, branches, sam, stride: int):
    logits, a = sum(branch(feats) for branch in branches), sam(feats).flatten(1)

    def enlarged(x):
        return F.interpolate(x, scale_factor=stride, mode="bilinear")

    want, scores = enlarged(logits).softmax(1), a.sigmoid()
    mistakes = {
        "H takes the softmax before it upsamples": enlarged(logits.softmax(1)),
        "H still holds logits: a softmax is missing": enlarged(logits),
    }
    judge(H, want, mistakes, what="H")
    mistakes = {"v still holds logits: a sigmoid is missing": a}
    judge(v, scores, mistakes, what="v")
    right = _sum(scores, want[:, 1:])
    mistakes = {
        "S pairs each score with its neighbour's map": _sum(scores, want[:, :-1]),
        "S is bright where the background is; it has no score": right + want[:, 0],
    }
    judge(S, right, mistakes, what="S")


# Share of salient pixels, and how sure the map is.
RESTS = ((0.25, 1), (0.5, 0.9), (0.3, 0.6), (0.8, 0.6), (0, 0.7), (1, 0.8), (0.6, 0.6))


@check
def check_resting_score(answer: Callable):
    """Exercise 3.3: the score at which Eq. 3 is content."""
    grid = np.linspace(0, 1, 4001)[1:-1]
    for share, sure in RESTS:
        got = number(answer(float(share), float(sure)), "v")
        loss = -(share * np.log(grid * sure) + (1 - share) * np.log(1 - grid * sure))
        mistakes = {
            f"you say {got:.2f}, which no sigmoid can reach": not 0 <= got <= 1,
            "that would do for a map without doubt": share,
            "an unsure map asks for a higher score, not a lower": share * sure,
        }
        where = f"for share {share:g} and sure {sure:g} "
        judge(got, grid[loss.argmin()], mistakes, where=where, tolerance=6e-4)
    return (
        "An unsure map has its score at 1 as soon as `share` exceeds `sure`: v = 1 does "
        "not mean certain."
    )


@check
def check_experiment(change: Callable, predicted, verdict: Callable, errors: Callable):
    """Exercise 3.4: a change of the pictures chosen, predicted, run and judged."""
    expect(predicted in (-1, 1), "`predicted` is 1 or -1: say which before you run")
    made = np.random.default_rng(69)  # 5 of 20 by chance exceed 1.3 errors, 2 1.6
    picture = made.integers(0, 256, (96, 96, 3)).astype(np.uint8)
    changed = array_of(ask(change, picture), picture.shape, "the changed picture")
    expect((changed != picture).any(), "your change leaves the picture as it is")
    expect(
        _in_place(change, made),
        "your change moves objects, or resizes them: a bright block appears elsewhere, and "
        "no mask moves with it. Any such error says nothing of what S lives on",
    )

    def draw(way):
        before = made.gamma(2, 0.04, 100)
        moved = way * made.normal(0.0015, 0.002, 100) if way else made.normal(0, 0.02, 100)
        return before, before + moved

    before, after = errors(lambda image: image), errors(change)
    found = judge_verdict(
        verdict,
        draw,
        (before, after, predicted),
        clear="the error moves the same way in nearly every one of 100 scenes, and this "
        "should be {}, not {}. Compare each scene with itself: scenes differ among each "
        "other far more",
        chance="{} times of 20 you call it a finding where each scene's error moved by "
        "chance alone",
        chosen="change",
    )
    means = f"{before.mean():.3f} before and {after.mean():.3f} after"
    return f"On {len(before)} scenes the mean error is {means}: your prediction is {found}."


def _in_place(change: Callable, made: np.random.Generator) -> bool:
    """Whether a block that is put into a picture shows where it was put."""
    plain, top, left, side = made.integers(60, 121, (96, 96, 3)), 12, 52, 24
    block = plain.copy()
    block[top : top + side, left : left + side] += 120
    seen = (ask(change, picture.astype(np.uint8)) for picture in (plain, block))
    without, shown = (torch.as_tensor(np.asarray(image, float)) for image in seen)
    means = F.avg_pool2d((shown - without).abs().sum(2)[None], side, 1)[0]
    return bool(means[top, left] >= 0.8 * means.max())
