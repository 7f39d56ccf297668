"""Checks of notebook 7, the second stage."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data_utils.voc import VOID
from jsws_lib.course.checks import array_of, ask, check, expect, judge, number
from jsws_lib.ssnet import DilatedHead


def _lessons():
    """Log H and labels: a plain batch, one image all void, a tiny one, extreme logits."""

    def one(batch, channels, height, width, peak=2.0):
        logits = peak * torch.randn(batch, channels, height, width)
        return logits.log_softmax(1), torch.randint(channels, (batch, height, width))

    plain, half, tiny = one(2, 5, 4, 6), one(3, 21, 5, 3), one(1, 3, 1, 2)
    plain[1][0, 1:3, :2] = VOID  # one image has more of them than the other
    half[1][1] = VOID
    return [plain, half, tiny, one(2, 4, 6, 6, peak=300)]


@check
def check_pseudo_label_loss(loss: Callable):
    """Exercise 7.1: Eq. 4 by hand, with pixels to ignore."""
    for log_probs, label in _lessons():
        known = label != VOID
        each = F.nll_loss(log_probs, label, ignore_index=VOID, reduction="none")
        want, diluted = each[known].mean(), each.mean()
        as_if_background = F.nll_loss(log_probs, label * known)
        mistakes = {
            "the loss is infinite where h rounds to zero: stay with the log h you are "
            "given": lambda got: not np.isfinite(got),
            "the sign is wrong: log h is negative, a loss is not": -want,
            "that is Eq. 4 to the letter, a sum over pixels and a mean over images; the "
            "task asks for a mean over pixels": each.sum() / len(label),
            "ignored pixels are still counted below the fraction line": diluted,
            "pixels of the background are missing. Up to which channel does the sum of "
            "Eq. 4 run?": each[known & (label > 0)].mean(),
            "a pixel marked 255 is punished as if it were background": as_if_background,
        }
        got = ask(loss, log_probs, label)
        judge(got, want, mistakes, what="the loss", tolerance=1e-4)
    return "Neither above nor below the line: that is all `ignore_index` does."


@check
def check_mended_head(head: Callable):
    """Exercise 7.2: a head whose branches are registered and summed."""
    for inner, outer, side in ((6, 5, 9), (3, 21, 32)):
        net = head(inner, outer)
        feats = torch.randn(2, inner, side, side)
        count = sum(p.numel() for p in net.parameters())
        want = sum(p.numel() for p in DilatedHead(inner, outer).parameters())
        mistakes = {
            "parameters() is empty: an optimizer would train nothing. Where does PyTorch "
            "look for the parts of a module?": count == 0,
            f"{count} parameters, not {want}: some branches share their weights, or are "
            "missing": count < want,
        }
        judge(count, want, mistakes, what="the number of parameters")
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        rates = sorted(conv.dilation[0] for conv in convs)
        expect(rates == list(DilatedHead.RATES), f"the rates are {rates}")
        total = sum(
            F.conv2d(feats, c.weight, c.bias, padding=c.dilation, dilation=c.dilation)
            for c in convs
        )
        mistakes = {
            "the branches are averaged; Section 3.2 sums them, and its logits are four "
            "times as large as yours": total / 4
        }
        judge(net(feats), total, mistakes, what="the output")
    return "A module trains what it registers, and only that."


@check
def check_breaking_point(breaking_point: Callable):
    """Exercise 7.3: the share of wrong labels at which they stop teaching."""
    for spread in (1, 2, 3, 7, 20):
        got = number(breaking_point(spread), "the breaking point")
        want = spread / (spread + 1)  # of 1 - p = p / spread
        of_right = 1 - want
        mistakes = {
            "A share lies between 0 and 1": not 0 <= got <= 1,
            "That is the share of *right* labels; the question is for wrong ones": of_right,
            "One half is enough if all wrong labels agree. Here they do not: how large is "
            "the part of one wrong name?": 0.5,
            "Compare the share of the right name with that of *one* wrong name": True,
        }
        where = f"spread {spread}: you say {got:.3f}. "
        judge(got, want, mistakes, where=where)
    return "It matters less how many labels are wrong than whether the errors agree."


@check
def check_experiment(one, other, expected, gains, verdict, right_cells: Callable):
    """Exercise 7.4: one setting changed, a prediction, several seeds, their verdict."""
    settings = ("share", "spread", "count")
    changed = [key for key in settings if one[key] != other[key]]
    expect(changed, "one and other are the same: there is nothing to compare")
    expect(
        len(changed) == 1,
        f"one and other differ in {' and '.join(changed)}. If the results differ, too, "
        "which of these is the cause?",
    )
    several = np.ndim(gains) and len(gains) >= 3
    expect(several, "run returns a list of at least three gains: one seed may be luck")
    gains = array_of(gains, (len(gains),), "the list of gains")
    for seed, gain in enumerate(gains):
        want = right_cells(**one, seed=seed) - right_cells(**other, seed=seed)
        mistakes = {
            "that is other minus one": -want,
            "that is seed 0 again: does `seed` reach `right_cells`?": seed > 0 and gains[0],
        }
        judge(gain, want, mistakes, where=f"the gain of seed {seed}: ", tolerance=1e-3)
    said = "one" if gains.min() > 0 else "other" if gains.max() < 0 else "undecided"
    agree = "do not all agree" if said == "undecided" else "all agree"
    expect(verdict == said, f"your {len(gains)} seeds {agree} which of the two is better")
    if said == "undecided":
        return "But the seeds disagree: try more of them, or a larger change."
    return f"You expected {expected}, and all seeds say {said}."
