"""Checks of notebook 4, the losses."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_utils.voc import VOID
from jsws_lib.course.checks import array_of, ask, check, expect, judge, same
from jsws_lib.losses import class_loss, log_saliency, saliency_loss
from jsws_lib.ssnet import SSNetOutput


def _output(*shape: int, scale: float = 2.0) -> SSNetOutput:
    """SSNet's output for random logits, (B, C+1, h, w)."""
    logits = scale * torch.randn(*shape)
    a = scale * torch.randn(shape[0], shape[1] - 1)
    return SSNetOutput(logits.log_softmax(1), logits, a)


@check
def check_by_hand(value, lowest: Callable):
    """Exercise 4.1: L_c of two labels by hand, and the least that p labels cost."""
    want = math.log(2) + math.log(4)
    mistakes = {
        "you take the mean over the two labels; Eq. 2 sums over categories": want / 2,
        "you take the mean over categories; Eq. 2 sums over them": want / 20,
        "the sign is wrong: no cross-entropy is negative": -want,
        "the background is no category: Eq. 2 has no term for it": want + math.log(4),
        "for a present category only the first logarithm of Eq. 2 counts, for an absent "
        "one only the second": want - math.log(0.5) - math.log(0.75),
        "`value` is wrong: write down t-hat of both labels first": True,
    }
    judge(value, want, mistakes, what="`value`", tolerance=4e-4)
    for p in (1, 2, 3, 7, 20):
        got, want = float(lowest(p)), p * math.log(p)
        mistakes = {
            f"it cannot be {got:.3g}: that needs every t-hat at one, and they share one "
            "unit": got <= 1e-6,
            "you count one label; Eq. 2 adds one term for each": math.log(p),
        }
        where = f"for {p} label{'s' * (p > 1)} "
        judge(got, want, mistakes, where=where, tolerance=4e-4)
    return (
        "One label can cost nothing. Two cannot: even the cheapest answer pays 1.386, "
        "and the right one of this image 2.079."
    )


def _direction(reading: str, salient: bool) -> int:
    """Which way a step down the loss moves v_i at one pixel: 1, -1 or 0."""
    out = _output(1, 6, 1, 1, scale=1.0)
    a = out.sal_logits.requires_grad_()
    mask = torch.full((1, 1, 1), int(salient), dtype=torch.uint8)
    loss = saliency_loss(out, mask, reading=reading)
    (slope,) = torch.autograd.grad(loss, a, allow_unused=True)
    return 0 if slope is None else -int(slope[0, 0].sign())


@check
def check_directions(bce, background, nll_probs):
    """Exercise 4.2: which way each reading of L_s1 moves a score."""
    given = {"bce": bce, "background": background, "nll_probs": nll_probs}
    rows = np.stack([array_of(row, (2,), f"`{name}`") for name, row in given.items()])
    want = np.array([[_direction(name, salient) for salient in (1, 0)] for name in given])
    expect(np.isin(rows, (-1, 0, 1)).all(), "use +1, -1 and 0 only")
    expect(
        not same(rows, -want),
        "every sign is the wrong way round: that is the gradient, and a step goes against "
        "it",
    )
    for name, row, rights in zip(given, rows, want, strict=True):
        for where, got, right in zip(("salient", "other"), row, rights, strict=True):
            mistakes = {
                "S should rise there, and S = sum v H, H above zero": where == "salient",
                "1 - S should rise there, and v is a part of S": name == "bce",
                "this term should indeed make the pixel dark, but is v in it?": True,
            }
            judge(got, right, mistakes, where=f"`{name}`, {where} pixel: ")
    return "Only the first reading has an arrow that points down."


@check
def check_mended(answer: Callable):
    """Exercise 4.3: two faults in the loss of stage 1."""
    for batch in (3, 1, 4):
        out_c, out_s = _output(batch, 21, 6, 6), _output(batch, 21, 6, 6)
        labels = torch.eye(batch, 20)
        labels[0, 7] = 1
        mask = (torch.rand(batch, 6, 6) < 0.4).to(torch.uint8)
        mask[torch.rand(batch, 6, 6) < 0.2] = VOID
        mask[0, :3] = VOID  # uneven over the batch
        l_c = class_loss(out_c, labels, reading="logits", share=0.5).item()
        l_s = saliency_loss(out_s, mask).item()
        log_s, known = log_saliency(out_s.log_probs, out_s.sal_logits), mask != VOID
        pixel = -torch.where(mask == 1, log_s.yes, log_s.no)
        bright = -torch.where(mask != 0, log_s.yes, log_s.no).mean().item()
        faulty, diluted = pixel.mean().item(), (pixel * known).mean().item()
        shining, thin = l_c + bright, l_c + diluted
        small = (l_c / 20, l_c / (20 * batch))
        mistakes = {
            "both faults are still there": tuple(part + faulty for part in small),
            "one fault is gone. L_c is still far too small: what does Eq. 2 do with the "
            "categories?": tuple(p + s for p in small for s in (l_s, bright, diluted)),
            "one fault is gone. Pixels marked 255 still count as not salient": l_c + faulty,
            "now pixels marked 255 count as salient; nobody knows what they are": shining,
            "pixels marked 255 add nothing now, but you still divide by their number": thin,
        }
        got = ask(answer, out_c, labels, out_s, mask)
        judge(got, l_c + l_s, mistakes, what="the loss", tolerance=1e-4)
    return (
        "Both faults leave a loss that falls in training: one spoils the balance, the "
        "other teaches that an unjudged pixel is not salient."
    )


# Rows of pixels that show one category or two.
_MASKS = ((0, 0, 0, 12, 12, 0, 0, 0), (0, 12, 12, 0, 0, 15, 15, 15, 0, 0), (3, 3, 3, 0))


def _truth(mask: Tensor) -> SSNetOutput:
    """The true maps of a mask (H, W), each pixel won by a logit of 10, and every v at 1."""
    logits = torch.full((1, 21, *mask.shape), -10.0)
    logits[:, [0, *mask.unique().tolist()]] = 0.0
    logits.scatter_(1, mask.long()[None, None], 10.0)
    return SSNetOutput(logits.log_softmax(1), logits, torch.full((1, 20), 10.0))


def _price(mask: Tensor, out: SSNetOutput) -> tuple[float, float]:
    """L_c and L_s1, Eq. 3 literal, of an output for one mask, (1, n)."""
    labels = torch.zeros(1, out.sal_logits.shape[1])
    labels[0, mask[mask > 0].long() - 1] = 1
    l_c = class_loss(out, labels, reading="logits", share=0.5).item()
    return l_c, saliency_loss(out, mask.clamp(max=1)[None]).item()


@check
def check_rival(experiment: Callable, choose: Callable, predicted):
    """Exercise 4.4: a wrong solution made by hand, priced and judged."""
    for pixels in _MASKS:
        given = torch.tensor([pixels])
        out = _output(1, 21, 1, len(pixels), scale=3.0)
        _judge_experiment(experiment, given, out, f"on a test mask of {len(pixels)} px, ")
    expect(predicted in ("cheaper", "dearer"), '`predicted` is "cheaper" or "dearer"')
    mask, rival = choose()
    expect(mask.ndim == 2 and (mask > 0).any(), "the mask is (H, W) and shows an object")
    wrong, gap = _judge_experiment(experiment, mask, rival, "on your own mask, ")
    expect(wrong >= 0.5, f"your rival names only {wrong:.0%} of the pixels wrongly")
    expect(
        abs(gap) >= 0.02,
        f"your two solutions cost nearly the same ({gap:+.3f}): there is nothing to claim",
    )
    found = "cheaper" if gap < 0 else "dearer"
    verdict = "supported" if found == predicted else "refuted"
    hole = "" if gap < 0 else " No hole yet: can you find a rival that is cheaper?"
    return f"Your rival is {found} by {abs(gap):.3f}: your prediction is {verdict}.{hole}"


def _judge_experiment(experiment: Callable, mask: Tensor, out: SSNetOutput, where: str):
    """The two numbers of an experiment, each judged."""
    wrong, apart = ask(experiment, mask, out)
    share = (out.probs[0].argmax(0) != mask).float().mean().item()
    (c, s), (c_true, s_true) = _price(mask, out), _price(mask, _truth(mask))
    gap = c + s - c_true - s_true
    mistakes = {"this is the share of the pixels that are right": 1 - share}
    judge(wrong, share, mistakes, what="the share of wrong pixels", where=where)
    mistakes = {
        "the gap has the wrong sign: it is the rival's loss minus the truth's": -gap,
        "this is what the rival costs; subtract what the truth costs": c + s,
        "L_s1 is missing": c - c_true,
        "L_c is missing": s - s_true,
    }
    judge(apart, gap, mistakes, what="the gap", where=where, tolerance=1e-4)
    return share, gap
