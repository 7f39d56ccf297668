"""Checks of notebook 4, the losses."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_utils.voc import VOID
from jsws_lib.checks import check, expect, expect_array, same
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
    got = float(expect_array(value, (), "`value`"))
    want = math.log(2) + math.log(4)
    if abs(got - want) > 1e-3:
        near = {
            want / 2: "you take the mean over the two labels; Eq. 2 sums over categories",
            want / 20: "you take the mean over categories; Eq. 2 sums over them",
            -want: "the sign is wrong: no cross-entropy is negative",
            math.log10(8): "take the natural logarithm",
            3: "take the natural logarithm",
            want + math.log(4): "the background is no category: Eq. 2 has no term for it",
            want - math.log(1 - 0.25): "one term too many: t is 0 or 1, so each category "
            "keeps one of its two logarithms",
            want - math.log(0.5) - math.log(0.75): "for a present category only the first "
            "logarithm of Eq. 2 counts, for an absent one only the second",
        }  # fmt: skip
        for number, words in near.items():
            expect(abs(got - number) > 1e-3, words)
        expect(False, f"`value` is not {got:.3f}: write down t-hat of both labels first")
    for p in (1, 2, 3, 7, 20):
        least = float(expect_array(lowest(p), (), f"`lowest({p})`"))
        if abs(least - p * math.log(p)) < 1e-3:
            continue
        case = f"for {p} label{'s' * (p > 1)}"
        expect(least > 1e-6 or p == 1, f"{case} it cannot be {least:.3g}: that needs every "
               "t-hat at one, and they share one unit")  # fmt: skip
        expect(abs(least - p * math.log(p + 1)) > 1e-3,
               f"{case} you leave the background a part; who asks for that?")  # fmt: skip
        expect(abs(least - math.log(p)) > 1e-3,
               f"{case} you count one label; Eq. 2 adds one term for each")  # fmt: skip
        expect(abs(least - p * math.log(21)) > 1e-3,
               f"{case} this is what a network pays that knows nothing")  # fmt: skip
        expect(least > p * math.log(p), f"{case} no network can reach {least:.3f}")
        expect(False, f"{case} one can do better than {least:.3f}")
    return ("One label can cost nothing. Two cannot: even a perfect answer pays 1.386, so "
            "this loss never rests.")  # fmt: skip


def _direction(reading: str, salient: bool) -> int:
    """Which way a step down the loss moves v_i at one pixel: 1, -1 or 0."""
    with torch.inference_mode(False), torch.enable_grad():
        out = _output(5, 1, 6, 1, 1, scale=1.0)
        a = out.sal_logits.clone().requires_grad_()
        mask = torch.full((1, 1, 1), int(salient), dtype=torch.uint8)
        loss = saliency_loss(out._replace(sal_logits=a), mask, reading=reading)
        (slope,) = torch.autograd.grad(loss, a, allow_unused=True)
    if slope is None or slope.abs().max() < 1e-9:
        return 0
    return 1 if slope[0, 0] < 0 else -1


@check
def check_directions(bce, background, nll_probs):
    """Exercise 4.2: which way each reading of L_s1 moves a score."""
    given = {"bce": bce, "background": background, "nll_probs": nll_probs}
    rows = {name: expect_array(row, (2,), f"`{name}`") for name, row in given.items()}
    want = {name: [_direction(name, salient) for salient in (True, False)]
            for name in given}  # fmt: skip
    values = np.concatenate(list(rows.values()))
    expect(set(values) <= {-1.0, 0.0, 1.0}, "use +1, -1 and 0 only")
    expect(not all(np.array_equal(rows[n], -np.array(want[n])) for n in rows),
           "every sign is the wrong way round: that is the gradient, and a step goes "
           "against it")  # fmt: skip
    for name, row in rows.items():
        for got, right, where in zip(row, want[name], ("salient", "other"), strict=True):
            if got == right:
                continue
            case = f"`{name}`, {where} pixel"
            expect(where == "other", f"{case}: S should rise there, and S = sum v H with "
                   "H above zero")  # fmt: skip
            if name == "bce":
                expect(False, f"{case}: 1 - S should rise there, and v is a part of S")
            expect(got != -1, f"{case}: this term should indeed make the pixel dark, but "
                   "is v in it?")  # fmt: skip
            expect(False, f"{case}: which variables does the term contain?")
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
        out_c = _output(seed, batch, 21, 6, 6)
        out_s = _output(seed + 10, batch, 21, 6, 6)
        labels = torch.zeros(batch, 20)
        labels[range(batch), range(batch)] = 1
        labels[0, 7] = 1
        mask = _void_mask(seed, batch, 6, 6)
        if seed == 1:
            mask[mask == VOID] = 0  # nothing to ignore
        kept = mask.clone()
        got = float(expect_array(answer(out_c, labels, out_s, mask), (), "the loss"))
        expect(torch.equal(mask, kept), "your function changes its input")
        l_c = class_loss(out_c, labels, reading="logits", share=0.5).item()
        l_s = saliency_loss(out_s, mask).item()
        if same(got, l_c + l_s, tolerance=1e-4):
            continue
        log_s = log_saliency(out_s.log_probs, out_s.sal_logits)
        known = mask != VOID
        pixel = -torch.where(mask == 1, log_s.yes, log_s.no)
        faulty = pixel.mean().item()
        bright = -torch.where(mask != 0, log_s.yes, log_s.no).mean().item()
        diluted = (pixel * known).mean().item()
        each = (pixel * known).sum((1, 2)) / known.sum((1, 2))
        terms = {"faulty": faulty, "right": l_s, "bright": bright, "diluted": diluted,
                 "each": each.mean().item()}  # fmt: skip
        for name, other in terms.items():
            small = any(same(got, l_c / n + other, tolerance=1e-4)
                        for n in (20, 20 * batch))  # fmt: skip
            summed = batch > 1 and same(got, l_c * batch + other, tolerance=1e-4)
            if name == "faulty" and known.all():
                name = "right"
            expect(not (small and name == "faulty"), "both faults are still there")
            expect(not small, "one fault is gone. L_c is still far too small: what does "
                   "Eq. 2 do with the categories?")  # fmt: skip
            expect(not summed, "now you sum over the images as well; Eq. 2 divides by "
                   "N_c")  # fmt: skip
            if not same(got, l_c + other, tolerance=1e-4):
                continue
            expect(name != "faulty", "one fault is gone. Pixels marked 255 still count as "
                   "not salient")  # fmt: skip
            expect(name != "bright", "now pixels marked 255 count as salient; nobody knows "
                   "what they are")  # fmt: skip
            expect(name != "diluted", "pixels marked 255 add nothing now, but you still "
                   "divide by their number")  # fmt: skip
            expect(name != "each", "you give each image the same weight, however few of "
                   "its pixels are known; take one mean over all known pixels")  # fmt: skip
        expect(False, f"the sum should be {l_c + l_s:.4f} here, and is {got:.4f}")
    return "Both faults leave a loss that falls in training. Only its balance is wrong."


def _largest_by_trial(logits: Tensor) -> list[int]:
    flat = logits.flatten(1)
    found = []
    for row in flat:
        means = [row.topk(k).values.mean().item() for k in range(1, len(row) + 1)]
        found.append(sum(mean >= 0 for mean in means))
    return found


@check
def check_reach(answer: Callable):
    """Exercise 4.4: over how many positions the mean of the best stays positive."""
    made = torch.Generator().manual_seed(9)
    hand = torch.tensor([[[3.0, -1], [-1, -1]], [[-2.0, -1], [-3, -1]], [[1.0, 1], [1, 1]],
                         [[0.0, 0], [0, 0]], [[2.0, -1], [-1, -5]]])  # fmt: skip
    cases = [hand, torch.randn(20, 4, 7, generator=made) - 0.3,
             torch.randn(1, 1, 6, generator=made)]  # fmt: skip
    for logits in cases:
        given = logits.clone()
        got = expect_array(answer(given), (len(logits),), "the count")
        expect(torch.equal(given, logits), "your function changes its input")
        want, flat = np.array(_largest_by_trial(logits)), logits.flatten(1)
        if np.array_equal(got, want):
            continue
        count = flat.shape[1]
        expect(not np.array_equal(got, (flat >= 0).sum(1).numpy())
               and not np.array_equal(got, (flat > 0).sum(1).numpy()),
               "you count the positive positions; but a high one can carry some that are "
               "negative")  # fmt: skip
        low = flat.sort(1).values.cumsum(1)
        expect(not np.array_equal(got, (low >= 0).sum(1).numpy()),
               "you begin with the lowest positions")  # fmt: skip
        unsorted = (flat.cumsum(1) >= 0).sum(1).numpy()
        expect(not np.array_equal(got, unsorted), "you take the positions in the order of "
               "the picture, not the best ones first")  # fmt: skip
        strict = (flat.sort(1, descending=True).values.cumsum(1) > 0).sum(1).numpy()
        expect(not np.array_equal(got, strict), "a mean of exactly zero gives t-hat = 1/2, "
               "which still counts")  # fmt: skip
        expect(not np.array_equal(got, want / count), "give the number of positions, not "
               "their share")  # fmt: skip
        expect(not (np.array_equal(got, want - 1) or np.array_equal(got, want + 1)
                    or np.array_equal(got, np.clip(want - 1, 0, None))),
               "you are off by one; try a map with one positive position")  # fmt: skip
        expect(not np.array_equal(got, np.full_like(got, got[0])) or len(got) == 1,
               "all categories get one number; sort each by itself")  # fmt: skip
        k = int(np.argmax(got != want))
        expect(False, f"a map with the logits {flat[k][:4].tolist()} ... gets {got[k]:.0f}")
    return "A sure object carries part of its surroundings along, an unsure one does not."


@check
def check_soft_dial(answer: Callable):
    """Exercise 4.5: a reading of t-hat between the mean and the maximum."""
    cases = [(1.0, 1.0), (0.05, 3.0), (4.0, 2.0), (2.0, 90.0)]
    for seed, (rate, scale) in enumerate(cases):
        out = _output(seed, 2, 6, 3, 5, scale=scale)
        given = answer(out, rate)
        expect(isinstance(given, tuple) and len(given) == 2,
               "return a LogPair: log t-hat and log(1 - t-hat)")  # fmt: skip
        z = out.seg_logits_low.double()[:, 1:].flatten(2)
        mean = (rate * z).logsumexp(2) - math.log(z.shape[2])
        want = mean / rate
        sides = {"log t-hat": (given[0], want), "log(1 - t-hat)": (given[1], -want)}
        for name, (part, evidence) in sides.items():
            raw = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
            expect(np.shape(raw) != (2, 6), f"{name} has six columns for five categories: "
                   "the background has no t-hat")  # fmt: skip
            if scale > 50 and np.shape(raw) == (2, 5):
                expect(np.isfinite(raw).all(), f"with logits near {scale:.0f} {name} is "
                       "not finite: something left log space on the way")  # fmt: skip
            got = expect_array(raw, (2, 5), name)
            right = torch.nn.functional.logsigmoid(evidence)
            if same(got, right, tolerance=1e-4):
                continue
            sign = 1 if evidence is want else -1

            def hit(e, got=got, sign=sign):
                log_sigmoid = torch.nn.functional.logsigmoid(sign * e)
                return same(got, log_sigmoid, tolerance=1e-4)

            expect(not hit(mean) or rate == 1, "with every position at logit 1 t-hat "
                   f"should not depend on r, but for r = {rate:g} it does: take r out "
                   "again after the logarithm")  # fmt: skip
            expect(not hit((rate * z).logsumexp(2) / rate), "t-hat grows with the size of "
                   "the picture: where did the mean go?")  # fmt: skip
            lead = out.seg_logits_low.double()
            lead = (lead[:, 1:] - lead[:, :1]).flatten(2)
            expect(not hit(((rate * lead).logsumexp(2) - math.log(z.shape[2])) / rate),
                   "you take the lead over the background; this dial is about the logits "
                   "themselves")  # fmt: skip
            for end, what in ((z.mean(2), "mean"), (z.amax(2), "maximum")):
                expect(not hit(end), f"this is the {what}, whatever the rate")
            expect(not same(got, evidence, tolerance=1e-4)
                   and not same(got, want, tolerance=1e-4), f"{name} holds the evidence; "
                   "what makes a log-probability of a logit?")  # fmt: skip
            expect(not same(got, right.exp(), tolerance=1e-4),
                   f"this is t-hat itself; {name} is wanted")  # fmt: skip
            expect(not same(got, torch.nn.functional.logsigmoid(-sign * want),
                            tolerance=1e-4),
                   "the two logarithms have changed places")  # fmt: skip
            expect(False, f"{name} is wrong for r = {rate:g}")
    out = _output(8, 1, 4, 3, 3)
    mean = class_evidence(out, reading="logits").yes
    near = expect_array(answer(out, 1e-3)[0], tuple(mean.shape), "log t-hat")
    expect(same(near, mean, tolerance=1e-2), "for r near 0 it should be the mean")
    return "Like `share`, and without a corner. Half of its family you know: odds is r = 1."
