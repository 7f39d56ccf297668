"""Checks of notebook 7, the second stage."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_utils.voc import VOID
from jsws_lib.checks import check, expect, expect_array, same
from jsws_lib.ssnet import DilatedHead

MAPS = ((32, 32, 24), (12, 12, 6), (32, 32, 6), (7, 11, 3), (9, 5, 7), (12, 12, 12),
        (1, 1, 6))  # fmt: skip


def _taps_inside(height: int, width: int, rate: int) -> tuple[float, float, int]:
    """Count, cell by cell: over both axes, over rows alone, and at the centre."""
    steps = (-rate, 0, rate)
    rows = [sum(0 <= y + s < height for s in steps) for y in range(height)]
    columns = [sum(0 <= x + s < width for s in steps) for x in range(width)]
    mean = sum(a * b for a in rows for b in columns) / (height * width)
    return mean, sum(rows) / height, rows[height // 2] * columns[width // 2]


@check
def check_mean_taps(mean_taps: Callable):
    """Exercise 7.1: how many of nine taps lie inside a map, on average."""
    for height, width, rate in MAPS:
        got = expect_array(mean_taps(height, width, rate), (), "the mean")
        mean, one_axis, centre = _taps_inside(height, width, rate)
        if same(got, mean):
            continue
        at = f"{height} x {width}, rate {rate}: you say {float(got):.3f}. "
        far = rate > min(height, width)
        expect(not far, at + "This rate is larger than the map, so no neighbour lies "
               "inside. Can there be fewer neighbours than none?")  # fmt: skip
        expect(got >= 1, at + "The middle tap lies inside at every position, so the "
               "mean is at least 1")  # fmt: skip
        expect(got <= 9, at + "A 3 x 3 kernel has only nine taps")
        expect(not same(got, one_axis), at + "That counts along one axis. A tap has a "
               "row and a column, and both must lie inside")  # fmt: skip
        expect(not same(got, centre), at + "That is what the centre sees; average over "
               "all positions")  # fmt: skip
        expect(not same(got, 9 - mean), at + "Those are the taps outside")
        expect(height == width or not same(got, one_axis**2),
               at + "The map need not be square")  # fmt: skip
        expect(False, at + "Counting cell by cell gives another mean")
    return "The two axes do not know of each other, so their means multiply."


# Batch, channels in, channels out, height, width, rates.
HEADS = ((2, 3, 4, 12, 12, (6, 12, 18, 24)), (1, 2, 3, 9, 7, (2, 3)),
         (1, 2, 1, 32, 32, (6, 12, 18, 24)), (1, 1, 2, 5, 4, (1,)))  # fmt: skip


def _head(seed: int, inner: int, outer: int, rates) -> tuple[list[Tensor], list[Tensor]]:
    made = torch.Generator().manual_seed(seed)
    return ([torch.randn(outer, inner, 3, 3, generator=made) for _ in rates],
            [torch.randn(outer, generator=made) for _ in rates])  # fmt: skip


def _branches(feats: Tensor, weights, biases, rates) -> Tensor:
    return sum(F.conv2d(feats, w, b, padding=rate, dilation=rate)
               for w, b, rate in zip(weights, biases, rates, strict=True))  # fmt: skip


def _rolled(feats: Tensor, weights, biases, rates) -> Tensor:
    """Taps that leave on one side come back on the other."""
    total = sum(biases)[:, None, None]
    for weight, rate in zip(weights, rates, strict=True):
        for i in range(3):
            for j in range(3):
                moved = feats.roll(((1 - i) * rate, (1 - j) * rate), (2, 3))
                total = total + torch.einsum("oc,bchw->bohw", weight[:, :, i, j], moved)
    return total


@check
def check_by_shifts(by_shifts: Callable):
    """Exercise 7.2: the dilated head as a sum of shifted maps."""
    for k, (batch, inner, outer, height, width, rates) in enumerate(HEADS):
        made = torch.Generator().manual_seed(k)
        feats = torch.randn(batch, inner, height, width, generator=made)
        weights, biases = _head(k, inner, outer, rates)
        given = feats.clone()
        got = expect_array(by_shifts(given, weights, biases, rates),
                           (batch, outer, height, width), "the sum")  # fmt: skip
        expect(torch.equal(given, feats), "your function changes its input")
        want = _branches(feats, weights, biases, rates)
        if same(got, want, tolerance=1e-4):
            continue
        none = [torch.zeros_like(b) for b in biases]
        plain = _branches(feats, weights, none, rates)
        flipped = [w.flip(2, 3) for w in weights]
        turned = [w.mT for w in weights]
        if len(rates) > 1:
            expect(not same(got, want / len(rates), tolerance=1e-4),
                   "the branches are averaged; Section 3.2 sums them")  # fmt: skip
            expect(not same(got, plain + biases[0][:, None, None], tolerance=1e-4),
                   "only one branch adds its bias; each has one")  # fmt: skip
        for name, mistake in (
            ("the biases are missing", plain),
            ("each bias is added nine times; it belongs to a branch, not to a tap",
             plain + 9 * sum(biases)[:, None, None]),
            ("what leaves the map on one side comes back on the other. Padding brings "
             "zeros instead", _rolled(feats, weights, biases, rates)),
            ("each map moves the wrong way. Tap (0, 0) looks up and left; where must "
             "the map move, so that this value arrives here?",
             _branches(feats, flipped, biases, rates)),
            ("rows and columns of the kernel change places",
             _branches(feats, turned, biases, rates)),
            ("the taps lie one cell apart, whatever the rate",
             sum(F.conv2d(feats, w, b, padding=1)
                 for w, b in zip(weights, biases, strict=True))),
        ):  # fmt: skip
            expect(not same(got, mistake, tolerance=1e-4), _seen(k, name))
        expect(False, _seen(k, "the shape is right, the values are not those of "
                                    "PyTorch's convolutions"))  # fmt: skip
    return "A convolution is nothing but weighted copies of a map, moved and added."


def _seen(k: int, words: str) -> str:
    """Say on which map a mistake shows."""
    *_, height, width, rates = HEADS[k]
    return f"{words} (seen on a {height} x {width} map, rates {rates})"


def _lessons():
    """Log H and labels: a plain batch, one image all void, a tiny one, extreme logits."""
    made = torch.Generator().manual_seed(0)

    def one(batch, channels, height, width, peak=2.0):
        logits = peak * torch.randn(batch, channels, height, width, generator=made)
        label = torch.randint(channels, (batch, height, width), generator=made)
        return logits.log_softmax(1), label

    plain, half, tiny, sharp = one(2, 5, 4, 6), one(3, 21, 5, 3), one(1, 3, 1, 2), one(
        2, 4, 6, 6, peak=300)  # fmt: skip
    plain[1][0, 1:3, :2] = VOID  # one image has more of them than the other
    half[1][1] = VOID
    return [plain, half, tiny, sharp]


@check
def check_pseudo_label_loss(loss: Callable):
    """Exercise 7.3: Eq. 4 by hand, with pixels to ignore."""
    for log_probs, label in _lessons():
        given = log_probs.clone(), label.clone()
        got = loss(*given)
        endless = isinstance(got, Tensor) and got.shape == () and got.isinf()
        expect(not endless, "the loss is infinite where h rounds to zero: stay with the "
               "log h that you are given")  # fmt: skip
        got = expect_array(got, (), "the loss")
        expect(torch.equal(given[0], log_probs) and torch.equal(given[1], label),
               "your function changes its input")  # fmt: skip
        total, count, objects, each = 0.0, 0, [], []
        for n in range(len(label)):
            own = []
            for y, x in np.ndindex(*label.shape[1:]):
                i = int(label[n, y, x])
                if i != VOID:
                    own.append(-log_probs[n, i, y, x].item())
                    objects += own[-1:] if i > 0 else []
            total, count = total + sum(own), count + len(own)
            each += [np.mean(own)] if own else []
        want = total / count
        if same(got, want, tolerance=1e-4):
            continue
        last = log_probs.shape[1] - 1
        clamped = -log_probs.gather(1, label.clamp(max=last)[:, None]).mean()
        as_background = torch.where(label == VOID, 0, label)[:, None]
        background = -log_probs.gather(1, as_background).mean()
        for mistake, words in (
            (-want, "the sign is wrong: log h is negative, a loss is not"),
            (total, "that is the sum over pixels; the task asks for a mean"),
            (total / len(label), "that is Eq. 4 to the letter, a sum over pixels and a "
                                 "mean over images; the task asks for a mean over pixels"),
            (total / label.numel(), "ignored pixels are still counted below the "
                                    "fraction line"),
            (np.mean(objects or [0]), "pixels of the background are missing. Up to "
                                      "which channel does the sum of Eq. 4 run?"),
            (clamped, "a pixel marked 255 is punished as if it were the last category"),
            (background, "a pixel marked 255 is punished as if it were background"),
            (np.mean(each), "that is a mean of each image's mean. The batch has one "
                            "sum and one count"),
        ):  # fmt: skip
            expect(not same(got, mistake, tolerance=1e-4), words)
        expect(False, f"you get {float(got):.4f}, a loop over the pixels {want:.4f}")
    return "Neither above nor below the line: that is all `ignore_index` does."


@check
def check_mended_head(head: Callable):
    """Exercise 7.4: a head whose branches are registered and summed."""
    torch.manual_seed(0)
    for inner, outer, side in ((6, 5, 9), (3, 21, 32)):
        net = head(inner, outer)
        expect(isinstance(net, nn.Module), "the head is no nn.Module: keep the class")
        feats = torch.randn(2, inner, side, side)
        answer = net(feats)
        count = sum(p.numel() for p in net.parameters())
        want = sum(p.numel() for p in DilatedHead(inner, outer).parameters())
        expect(count > 0, "parameters() is empty: an optimiser would train nothing. "
               "Where does PyTorch look for the parts of a module?")  # fmt: skip
        expect(count >= want, f"{count} parameters, not {want}: some branches share their "
               "weights, or are missing")  # fmt: skip
        expect(count <= want, f"{count} parameters, more than the {want} of four branches")
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        rates = sorted(conv.dilation[0] for conv in convs)
        expect(rates == list(DilatedHead.RATES), f"the rates are {rates}")
        got = expect_array(answer, (2, outer, side, side), "the output")
        total = sum(F.conv2d(feats, c.weight, c.bias, padding=c.dilation,
                             dilation=c.dilation) for c in convs)  # fmt: skip
        expect(not same(got, total.detach() / 4), "the branches are averaged; Section 3.2 "
               "sums them, so the logits are four times as large")  # fmt: skip
        expect(same(got, total.detach()), "the output is not the sum of the four branches")
        answer.sum().backward()
        expect(all(p.grad is not None for p in net.parameters()),
               "some parameters get no gradient")  # fmt: skip
    return "A module trains what it registers, and only that."


@check
def check_noise(breaking_point: Callable, failed: dict, curves: dict):
    """Exercise 7.5: where labels stop teaching, in theory and in the measurement."""
    for spread in (1, 2, 3, 7, 20):
        got = expect_array(breaking_point(spread), (), "the breaking point")
        where = f"spread {spread}: you say {float(got):.3f}. "
        # Share p of the labels is wrong, evenly over `spread` names: find p by search.
        low, high = 0.0, 1.0
        for _ in range(60):
            p = (low + high) / 2
            low, high = (p, high) if 1 - p > p / spread else (low, p)
        if same(got, low):
            continue
        expect(0 <= got <= 1, where + "A share lies between 0 and 1")
        expect(not same(got, 1 - low), where + "At that share the *right* labels are; "
               "the question is for the wrong ones")  # fmt: skip
        expect(not same(got, 0.5), where + "Half suffices when all wrong labels agree. "
               "Here they do not: how large is one wrong name's part?")  # fmt: skip
        expect(not same(got, 20 / 21), where + "That answers for 20 wrong names only")
        expect(False, where + "Compare the share of the right name with the share of "
               "*one* wrong name")  # fmt: skip
    expect(isinstance(failed, dict) and set(failed) == set(curves),
           f"failed needs one share for each of the spreads {sorted(curves)}")  # fmt: skip
    for spread, curve in curves.items():
        clean = curve[min(curve)]
        want = min((p for p, right in curve.items() if right < clean / 2), default=None)
        held = max(p for p, right in curve.items() if right >= clean / 2)
        where = f"spread {spread}: you read {failed[spread]}. "
        expect(failed[spread] in curve, where + f"The shares tried are {sorted(curve)}")
        if failed[spread] != want:
            expect(failed[spread] != held, where + "There the head still passes; the "
                   "question is for the first share at which it fails")  # fmt: skip
            expect(curve[failed[spread]] < clean / 2, where + "There it still gets more "
                   "than half of what it gets with clean labels")  # fmt: skip
            expect(False, where + "It has failed at a smaller share already")
    return "It is not how many labels are wrong, but whether the errors agree."
