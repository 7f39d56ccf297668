"""Checks of notebook 5, training SSNet-1."""

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_utils.voc import VOID
from jsws_lib.checks import Wrong, check, expect, expect_array, same
from jsws_lib.config import Schedule
from jsws_lib.training import learning_rate

PAPER = {"steps": 1000, "batch": 16, "images": 10_582}  # until the rate first halves


@check
def check_epochs(epochs: Callable, first_halving):
    """Exercise 5.1: how often a network sees each image."""
    for steps, batch, images in ((1200, 16, 2000), (10_000, 16, 10_553), (1, 1, 7)):
        got = float(expect_array(epochs(steps, batch, images), (), "the number of epochs"))
        want, case = steps * batch / images, f"{steps} steps of {batch} of {images} images"
        if same(got, want):
            continue
        expect(not same(got, 2 * want), f"{case}: a batch of the other set shows none of "
               "these images")  # fmt: skip
        expect(not same(got, steps / images), f"{case}: how many images does a step show?")
        expect(not same(got, steps * batch), f"{case}: these are the images shown; how "
               "often does each come?")  # fmt: skip
        expect(not same(got, 1 / want), f"{case}: the fraction is upside down")
        expect(got != want // 1 and got != -(-want // 1),
               f"{case}: do not round; a part of an epoch counts")  # fmt: skip
        expect(False, f"{case} are not {got:g} epochs")
    got = float(expect_array(first_halving, (), "`first_halving`"))
    want = PAPER["steps"] * PAPER["batch"] / PAPER["images"]
    expect(not same(got, 10 * want, tolerance=0.01),
           "`first_halving`: the rate halves long before the last step")  # fmt: skip
    expect(not same(got, PAPER["steps"]), "`first_halving` should be in epochs, not steps")
    expect(not same(got, 16_000 / 2000, tolerance=0.01),
           "`first_halving`: take the paper's data set, not the embedded one")  # fmt: skip
    expect(same(got, want, tolerance=0.01), f"`first_halving` is not {got:g}: see Section "
           "4.1 for the steps, and the paper's D_c for the images")  # fmt: skip
    return "The paper's rate halves before any image has been shown twice."


def _spent_by_trial(rates: np.ndarray, part: float) -> int:
    running = 0.0
    for done, rate in enumerate(rates, start=1):
        running += rate
        if running >= part * rates.sum() * (1 - 1e-12):
            return done
    raise AssertionError


@check
def check_spent(answer: Callable, ninety):
    """Exercise 5.2: after how many steps a part of all the rate is spent."""
    stairs, cycle = Schedule(), Schedule(lr=4e-3, kind="onecycle")
    cases = [(stairs, 10_000, 0.5), (stairs, 10_000, 0.3), (cycle, 1200, 0.5),
             (cycle, 40, 0.9), (Schedule(every=7), 20, 1.0), (stairs, 1, 0.4)]  # fmt: skip
    for schedule, steps, part in cases:
        rates = np.array([learning_rate(schedule, k, steps) for k in range(steps)])
        got = float(expect_array(answer(rates.copy(), part), (), "the number of steps"))
        want = _spent_by_trial(rates, part)
        case = f"{part:.0%} of a {'staircase' if schedule.kind == 'step' else 'cycle'}"
        if got == want:
            continue
        expect(got == int(got) and 0 <= got <= steps,
               f"{case}: {got:g} is not a number of steps")  # fmt: skip
        expect(got != want - 1 or steps == 1, f"{case}: one too few; steps count from 0, "
               "and a sum up to index k holds k + 1 rates")  # fmt: skip
        expect(got != want + 1, f"{case}: one too many; reaching the part is enough")
        below = np.flatnonzero(rates <= (1 - part) * rates.max())
        drop = int(below[0]) if len(below) else steps
        expect(got not in (drop, drop + 1), f"{case}: this is where the *rate* has fallen; "
               "asked is when the *sum* of the rates has been reached")  # fmt: skip
        expect(got not in (round(part * steps), round(part * steps) - 1),
               f"{case}: so it would be at a constant rate")  # fmt: skip
        expect(False, f"{case}: after {got:.0f} of {steps} steps "
               f"{rates[: int(got)].sum() / rates.sum():.1%} are spent")  # fmt: skip
    rates = np.array([learning_rate(stairs, k, 10_000) for k in range(10_000)])
    got = float(expect_array(ninety, (), "`ninety`"))
    want = _spent_by_trial(rates, 0.9)
    expect(abs(got - want) <= 1, f"after {got:,.0f} steps of the paper's staircase "
           f"{rates[: int(max(got, 0))].sum() / rates.sum():.1%} are spent")  # fmt: skip
    return "Two thirds of the paper's steps share the last tenth of the movement."


class _Toy(nn.Module):
    """Two layers behind batch norm; counts its forward passes."""

    def __init__(self):
        super().__init__()
        self.norm, self.body, self.sam = nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Linear(4, 2)
        self.seen = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.sam(self.body(self.norm(x)).tanh())


def _toy(seed: int):
    """A net, its optimiser with two groups, and the two parts of the loss."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = _Toy().train()
        x, y = torch.randn(6, 3), torch.randn(4, 3) + 2
        goal, target = torch.randn(6, 2), torch.randint(0, 2, (4,))
    groups = [{"params": [*net.norm.parameters(), *net.body.parameters()], "scale": 1.0},
              {"params": list(net.sam.parameters()), "scale": 0.25}]  # fmt: skip
    optimiser = torch.optim.SGD(groups, lr=123.0, momentum=0.9)
    return net, optimiser, (lambda net: (net(x) - goal).square().mean(),
                            lambda net: F.cross_entropy(net(y), target))  # fmt: skip


def _variant(net, optimiser, rate, parts, *, between=False, scaled=True, clear=True,
             half=False, each=False, keep=(0, 1)):  # fmt: skip
    """A training step, right or wrong in the ways that are asked for."""
    for group in optimiser.param_groups:
        group["lr"] = rate * (group["scale"] if scaled else 1)
    if clear:
        optimiser.zero_grad()
    for k, part in enumerate(parts):
        if between:
            optimiser.zero_grad()
        loss = part(net)
        if k in keep:
            (loss / 2 if half else loss).backward()
        if each:
            optimiser.step()
    if not each:
        optimiser.step()


TWICE = ("the optimiser steps twice, and the second batch meets a network that has already "
         "moved")  # fmt: skip
WRONG_STEPS = [
    ("both faults are still there", {"between": True, "scaled": False}),
    ("one fault is gone. After the step the network knows nothing of the first batch",
     {"between": True}),
    ("one fault is gone. The SAM still learns at the rate of everything else",
     {"scaled": False}),
    ("the gradient of the step before is still in .grad", {"clear": False}),
    ("the losses are added (Section 3.4), not averaged", {"half": True}),
    (TWICE, {"each": True}),
    (TWICE, {"each": True, "between": True}),
    ("the second batch does not reach the gradient", {"keep": (0,)}),
]  # fmt: skip


@check
def check_step(answer: Callable):
    """Exercise 5.3: two faults in the training step of stage 1."""
    with torch.inference_mode(False), torch.enable_grad():
        for seed in (0, 1):
            net, optimiser, parts = _toy(seed)
            right = copy.deepcopy(net)
            its, wrong = _same_optimiser(right, optimiser), []
            for words, how in WRONG_STEPS:
                other = copy.deepcopy(net)
                wrong.append((words, other, _same_optimiser(other, optimiser), how))
            for rate in (0.2, 0.1, 0.05):
                given = answer(net, optimiser, rate, *parts)
                numbers = isinstance(given, (list, tuple))
                expect(not numbers or not any(isinstance(g, Tensor) for g in given),
                       "return numbers, not tensors: a tensor in a history keeps a graph "
                       "alive")  # fmt: skip
                values = expect_array(given, (2,), "the pair of losses")
                _variant(right, its, rate, parts)
                for _, other, its_optimiser, how in wrong:
                    _variant(other, its_optimiser, rate, parts, **how)
            expect(net.seen == [6, 4] * 3, f"in three steps your network saw batches of "
                   f"{net.seen} images; each set should pass by itself, once a "
                   "step")  # fmt: skip
            got = _flat(net)
            if same(got, _flat(right)):
                continue
            for words, other, *_ in wrong:
                expect(not same(got, _flat(other)), words)
            expect(False, "after three steps on a toy network the weights are not those "
                   "of the library's loop")  # fmt: skip
        expect((values > 0).all(), "the losses you return are not those of the step")
    return "Set the rates, clear once, two passes that add up, one step."


def _same_optimiser(net: nn.Module, like: torch.optim.Optimizer):
    groups = [{"params": [*net.norm.parameters(), *net.body.parameters()], "scale": 1.0},
              {"params": list(net.sam.parameters()), "scale": 0.25}]  # fmt: skip
    return type(like)(groups, lr=like.defaults["lr"], momentum=like.defaults["momentum"])


def _flat(net: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()


@check
def check_accumulate(answer: Callable):
    """Exercise 5.4: the gradient of a large batch from small ones."""
    with torch.inference_mode(False), torch.enable_grad():
        for seed, (count, size) in enumerate([(16, 4), (10, 4), (7, 7), (5, 1), (6, 40)]):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
                images, labels = torch.randn(count, 3), torch.rand(count, 2)
            seen = []
            net.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))
            loss = F.binary_cross_entropy_with_logits
            net.zero_grad()
            answer(net, images, labels, loss, size)
            parts, got = list(seen), _gradient(net)
            case = f"{count} images, {size} at a time"
            expect(parts, f"{case}: the network never saw an image")
            expect(max(parts) <= size, f"{case}: {max(parts)} images at once do not fit")
            expect(sum(parts) == count, f"{case}: the network saw {sum(parts)} images")
            net.zero_grad()
            loss(net(images), labels).backward()
            want = _gradient(net)
            if same(got, want, tolerance=1e-4):
                continue
            chunks = list(zip(images.split(size), labels.split(size), strict=True))
            single = []
            for x, y in chunks:
                net.zero_grad()
                loss(net(x), y).backward()
                single.append(_gradient(net))
            expect(not same(got, np.zeros_like(got)), f"{case}: no gradient arrived in "
                   ".grad")  # fmt: skip
            expect(not same(got, sum(single), tolerance=1e-4), f"{case}: the gradient is "
                   f"{len(chunks)} times too long. A mean of means is no sum of "
                   "means")  # fmt: skip
            expect(not same(got, sum(single) / len(single), tolerance=1e-4),
                   f"{case}: the last part is smaller, and its images count too "
                   "much")  # fmt: skip
            expect(not same(got, single[-1], tolerance=1e-4),
                   f"{case}: only the last part is left in .grad")  # fmt: skip
            expect(not same(got, want * count, tolerance=1e-4),
                   f"{case}: this is the gradient of the sum over images; the loss is "
                   "their mean")  # fmt: skip
            expect(False, f"{case}: the gradient is not that of the whole batch")
    return ("The same gradient in a quarter of the memory. With batch norm it is no longer "
            "quite the same: each part is normalised by itself.")  # fmt: skip


def _gradient(net: nn.Module) -> np.ndarray:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    return torch.cat([p.flatten() for p in parts]).numpy()


def _counts(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    kept = empty = painted = objects = 0
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t == VOID:
            continue
        empty += t == 0
        kept += t == 0 and p == 0
        objects += t > 0
        painted += p > 0
    return kept / empty, painted / objects


@check
def check_background(answer: Callable, first_step, segmentation, truth, steps):
    """Exercise 5.5: background kept and area painted, and when M keeps its background."""
    made = np.random.default_rng(5)
    for shape in ((2, 6, 7), (1, 9, 5), (3, 4, 4)):
        p, t = (made.integers(0, 4, shape).astype(np.uint8) for _ in range(2))
        t[made.random(shape) < 0.3] = VOID
        given = answer(p.copy(), t.copy())
        got = expect_array(given, (2,), "the pair")
        want = np.array(_counts(p, t))
        if same(got, want):
            continue
        known = t != VOID
        full = [(p == 0)[t == 0].mean(), (p > 0).sum() / ((t > 0) & known).sum()]
        void_as_object = [full[0], (p > 0).sum() / (t > 0).sum()]
        expect(not same(got, full), "the painted area includes pixels that are void in the "
               "truth")  # fmt: skip
        expect(not same(got, void_as_object), "void pixels, 255, count as objects")
        expect(not same(got, want[::-1]), "the two numbers have changed places")
        expect(not same(got[0], (t == 0)[(p == 0) & known].mean())
               or same(got[0], want[0]), "the first number divides by what is *predicted* "
               "as background; asked is the share of the *true* background")  # fmt: skip
        expect(not same(got[0], ((p == 0) & known).sum() / known.sum()),
               "the first number counts all that is called background, right or "
               "wrong")  # fmt: skip
        right = ((p > 0) & (t > 0) & known).sum() / ((t > 0) & known).sum()
        expect(not same(got[1], right) or same(right, want[1]),
               "the second number leaves out what is painted beside the objects, which "
               "is what it should reveal")  # fmt: skip
        exact = ((p == t) & (t > 0) & known).sum() / ((t > 0) & known).sum()
        expect(not same(got[1], exact), "the second number asks only how much is painted, "
               "not whether the category is right")  # fmt: skip
        which = "first" if not same(got[0], want[0]) else "second"
        expect(False, f"the {which} number is wrong on random maps")
    pairs = [_counts(np.asarray(frame), np.asarray(truth)) for frame in segmentation]
    good = [kept >= 0.8 and painted >= 0.5 for kept, painted in pairs]
    first = next((k for k in range(len(good)) if all(good[k:])), None)
    if first is None:
        raise Wrong("this film has no such frame: another training may")
    got = float(expect_array(first_step, (), "`first_step`"))
    steps = [int(step) for step in steps]
    expect(got in steps, f"no frame of the film was taken at step {got:g}")
    at = steps.index(int(got))
    case = f"at step {got:.0f} M keeps {pairs[at][0]:.0%} of its background and paints "
    expect(good[at], case + f"{pairs[at][1]:.2f} of the objects' area")
    worse = [k for k in range(at, len(good)) if not good[k]]
    expect(not worse, f"from step {got:.0f} on not every frame is good: look at step "
           f"{steps[worse[0]] if worse else 0}")  # fmt: skip
    expect(at == first, f"an earlier frame than step {got:.0f} does as well")
    return "Keeping the background is easy for who paints nothing; only the pair tells."
