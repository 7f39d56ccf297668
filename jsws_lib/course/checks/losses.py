"""Checks of notebook 4, the losses."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from data_utils.voc import VOID
from jsws_lib.course.checks import (
    array_of,
    ask,
    check,
    either,
    expect,
    judge,
    number,
    pair,
    same,
)
from jsws_lib.losses import class_evidence, class_loss, log_saliency, saliency_loss
from jsws_lib.ssnet import SSNetOutput


def _output(seed: int, *shape: int, scale: float = 2.0) -> SSNetOutput:
    """SSNet's output for random logits, (B, C+1, h, w)."""
    made = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, generator=made)
    a = scale * torch.randn(shape[0], shape[1] - 1, generator=made)
    return SSNetOutput(logits.log_softmax(1), logits, a)


@check
def check_by_hand(value, lowest: Callable):
    """Exercise 4.1: L_c of two labels by hand, and the least that p labels cost."""
    got, want = number(value, "`value`"), math.log(2) + math.log(4)
    mistakes = {
        "you take the mean over the two labels; Eq. 2 sums over categories": want / 2,
        "you take the mean over categories; Eq. 2 sums over them": want / 20,
        "the sign is wrong: no cross-entropy is negative": -want,
        "take the natural logarithm": either(math.log10(8), 3),
        "the background is no category: Eq. 2 has no term for it": want + math.log(4),
        "one term too many: t is 0 or 1, so each category keeps one of its two "
        "logarithms": want - math.log(0.75),
        "for a present category only the first logarithm of Eq. 2 counts, for an absent "
        "one only the second": want - math.log(0.5) - math.log(0.75),
    }
    otherwise = f"`value` is not {got:.3f}: write down t-hat of both labels first"
    judge(got, want, mistakes, otherwise=otherwise, tolerance=4e-4)
    for p in (1, 2, 3, 7, 20):
        got, want = number(lowest(p), f"`lowest({p})`"), p * math.log(p)
        mistakes = {
            f"it cannot be {got:.3g}: that needs every t-hat at one, and they share one "
            "unit": got <= 1e-6,
            "you leave the background a part; who asks for that?": p * math.log(p + 1),
            "you count one label; Eq. 2 adds one term for each": math.log(p),
            "this is what a network pays that knows nothing": p * math.log(21),
            f"no network can reach {got:.3f}": got < want,
        }
        where = f"for {p} label{'s' * (p > 1)} "
        otherwise = f"one can do better than {got:.3f}"
        judge(got, want, mistakes, where=where, otherwise=otherwise, tolerance=4e-4)
    return (
        "One label can cost nothing. Two cannot: even a perfect answer pays 1.386, so "
        "this loss never rests."
    )


def _direction(reading: str, salient: bool) -> int:
    """Which way a step down the loss moves v_i at one pixel: 1, -1 or 0."""
    out = _output(5, 1, 6, 1, 1, scale=1.0)
    a = out.sal_logits.requires_grad_()
    mask = torch.full((1, 1, 1), int(salient), dtype=torch.uint8)
    loss = saliency_loss(out, mask, reading=reading)
    (slope,) = torch.autograd.grad(loss, a, allow_unused=True)
    if slope is None or slope.abs().max() < 1e-9:
        return 0
    return 1 if slope[0, 0] < 0 else -1


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
                "this term should indeed make the pixel dark, but is v in it?": got == -1,
            }
            otherwise = "which variables does the term contain?"
            where = f"`{name}`, {where} pixel: "
            judge(got, right, mistakes, where=where, otherwise=otherwise)
    return "Only the first reading has an arrow that points down."


def _void_mask(seed: int, *shape: int) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    mask = (torch.rand(*shape, generator=made) < 0.4).to(torch.uint8)
    mask[torch.rand(*shape, generator=made) < 0.2] = VOID
    mask[0, : shape[1] // 2] = VOID  # uneven over the batch
    return mask


@check
def check_mended(answer: Callable):
    """Exercise 4.3: two faults in the loss of stage 1."""
    for seed, batch in enumerate((3, 1, 4)):
        out_c, out_s = _output(seed, batch, 21, 6, 6), _output(seed + 10, batch, 21, 6, 6)
        labels = torch.eye(batch, 20)
        labels[0, 7] = 1
        mask = _void_mask(seed, batch, 6, 6)
        if seed == 1:
            mask[mask == VOID] = 0  # nothing to ignore
        got = number(ask(answer, out_c, labels, out_s, mask), "the loss")
        l_c = class_loss(out_c, labels, reading="logits", share=0.5).item()
        l_s = saliency_loss(out_s, mask).item()
        log_s, known = log_saliency(out_s.log_probs, out_s.sal_logits), mask != VOID
        pixel = -torch.where(mask == 1, log_s.yes, log_s.no)
        bright = -torch.where(mask != 0, log_s.yes, log_s.no).mean().item()
        faulty, diluted = pixel.mean().item(), (pixel * known).mean().item()
        each = ((pixel * known).sum((1, 2)) / known.sum((1, 2))).mean().item()
        terms, small = (l_s, faulty, bright, diluted, each), (l_c / 20, l_c / (20 * batch))
        low = [part + term for part in small for term in terms]
        summed = [l_c * batch + term for term in terms if batch > 1]
        shining, thin = l_c + bright, l_c + diluted
        mistakes = {
            "both faults are still there": either(*(part + faulty for part in small)),
            "one fault is gone. L_c is still far too small: what does Eq. 2 do with the "
            "categories?": either(*low),
            "now you sum over the images as well; Eq. 2 divides by N_c": either(*summed),
            "one fault is gone. Pixels marked 255 still count as not salient": l_c + faulty,
            "now pixels marked 255 count as salient; nobody knows what they are": shining,
            "pixels marked 255 add nothing now, but you still divide by their number": thin,
            "you give each image the same weight, however few of its pixels are known; "
            "take one mean over all known pixels": l_c + each,
        }
        otherwise = f"the sum should be {l_c + l_s:.4f} here, and is {got:.4f}"
        judge(got, l_c + l_s, mistakes, otherwise=otherwise, tolerance=1e-4)
    return "Both faults leave a loss that falls in training. Only its balance is wrong."


HAND_MADE = (
    ((3, -1), (-1, -1)),
    ((-2, -1), (-3, -1)),
    ((1, 1), (1, 1)),
    ((0, 0), (0, 0)),
    ((2, -1), (-1, -5)),
)


@check
def check_reach(answer: Callable):
    """Exercise 4.4: over how many positions the mean of the best stays positive."""
    made = torch.Generator().manual_seed(9)
    drawn = (
        torch.randn(20, 4, 7, generator=made) - 0.3,
        torch.randn(1, 1, 6, generator=made),
    )
    for logits in (torch.tensor(HAND_MADE, dtype=torch.float32), *drawn):
        got = array_of(ask(answer, logits), (len(logits),), "the count")
        flat = logits.flatten(1).numpy()
        ranked = np.sort(flat, 1)
        sums = ranked[:, ::-1].cumsum(1)
        want, unsorted = (sums >= 0).sum(1), (flat.cumsum(1) >= 0).sum(1)
        alike = len(got) > 1 and np.ptp(got) == 0
        near = want - 1, want + 1, np.maximum(want - 1, 0)
        mistakes = {
            "you count the positive positions; but a high one can carry some that are "
            "negative": either((flat >= 0).sum(1), (flat > 0).sum(1)),
            "you begin with the lowest positions": (ranked.cumsum(1) >= 0).sum(1),
            "you take the positions in the picture's order, not the best first": unsorted,
            "a mean of zero gives t-hat = 1/2, which still counts": (sums > 0).sum(1),
            "give the number of positions, not their share": want / flat.shape[1],
            "you are off by one; try a map with one positive position": either(*near),
            "all categories get one number; sort each by itself": alike,
        }
        k = int((got != want).argmax())
        otherwise = f"a map with the logits {flat[k][:4].tolist()} ... gets {got[k]:.0f}"
        judge(got, want, mistakes, otherwise=otherwise)
    return "A sure object carries part of its surroundings along, an unsure one does not."


@check
def check_soft_dial(answer: Callable):
    """Exercise 4.5: a reading of t-hat between the mean and the maximum."""
    for seed, (rate, scale) in enumerate(((1, 1), (0.05, 3), (4, 2), (2, 90))):
        out = _output(seed, 2, 6, 3, 5, scale=scale)
        sides = pair(
            ask(answer, out, float(rate)), "log t-hat and log(1 - t-hat), a LogPair"
        )
        for side, sign in zip(sides, (1, -1), strict=True):
            _judge_side(side, sign, out.seg_logits_low.double(), rate)
    out = _output(8, 1, 4, 3, 3)
    mean = class_evidence(out, reading="logits").yes
    near = array_of(answer(out, 1e-3)[0], tuple(mean.shape), "log t-hat")
    expect(same(near, mean, tolerance=1e-2), "for r near 0 it should be the mean")
    return "Like `share`, and without a corner. Half of its family you know: odds is r = 1."


def _judge_side(side, sign: int, logits: Tensor, rate: float) -> None:
    """Judge log t-hat (sign 1) or log(1 - t-hat) (sign -1) at logits (B, C+1, h, w)."""
    name = "log t-hat" if sign > 0 else "log(1 - t-hat)"
    z, positions = logits[:, 1:].flatten(2), logits[0, 0].numel()

    def soft(z):
        return ((rate * z).logsumexp(2) - math.log(positions)) / rate

    def seen(evidence):
        return logsigmoid(sign * evidence)

    batch, categories = z.shape[:2]
    expect(
        np.shape(side) != (batch, categories + 1),
        f"{name} has six columns for five categories: the background has no t-hat",
    )
    nan = (
        f"with logits of {logits.abs().max():.0f} {name} is not finite: something left log "
        "space on the way"
    )
    got = array_of(side, (batch, categories), name, nan=nan)
    want, evidence = seen(soft(z)), either(soft(z), -soft(z))
    lead = soft((logits[:, 1:] - logits[:, :1]).flatten(2))
    grown = seen((rate * z).logsumexp(2) / rate)
    mistakes = {
        f"with every position at logit 1 t-hat should not depend on r, but for r = {rate:g}"
        " it does: take r out again after the logarithm": seen(rate * soft(z)),
        "t-hat grows with the size of the picture: where did the mean go?": grown,
        "you take the lead over the background; this dial is about the logits": seen(lead),
        "this is the mean, whatever the rate": seen(z.mean(2)),
        "this is the maximum, whatever the rate": seen(z.amax(2)),
        f"{name} holds the evidence; what makes a log-probability of a logit?": evidence,
        f"this is t-hat itself; {name} is wanted": want.exp(),
        "the two logarithms have changed places": seen(-soft(z)),
    }
    judge(
        got, want, mistakes, otherwise=f"{name} is wrong for r = {rate:g}", tolerance=1e-4
    )
