"""Checks of notebook 5, training SSNet-1."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector

from data_utils.voc import VOID
from jsws_lib.course.checks import array_of, ask, check, expect, judge, judge_verdict, same


def _trained(step: Callable, seed: int):
    """A toy's weights after three `step(net, optimizer, rate, *parts)`, the last losses."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Tanh())
    sam = nn.Linear(4, 2)
    x, y = torch.randn(6, 3), torch.randn(4, 3) + 2
    goal, target = torch.randn(6, 2), torch.randint(0, 2, (4,))
    groups = [
        {"params": body.parameters(), "scale": 1.0},
        {"params": sam.parameters(), "scale": 0.25},
    ]
    optimizer = torch.optim.SGD(groups, lr=123.0, momentum=0.9)
    parts = (
        lambda net: (net(x) - goal).square().mean(),
        lambda net: F.cross_entropy(net(y), target),
    )
    net = nn.Sequential(body, sam)
    for rate in (0.2, 0.1, 0.05):
        losses = step(net, optimizer, rate, *parts)
    return parameters_to_vector(net.parameters()), losses


def _step(*, between=False, scaled=True, each=False):
    """Make a training step, right or wrong in the ways that are asked for."""

    def step(net, optimizer, rate, *parts):
        for group in optimizer.param_groups:
            group["lr"] = rate * (group["scale"] if scaled else 1)
        optimizer.zero_grad()
        losses = []
        for part in parts:
            if between:
                optimizer.zero_grad()
            loss = part(net)
            loss.backward()
            losses.append(loss.item())
            if each:
                optimizer.step()
        if not each:
            optimizer.step()
        return losses

    return step


@check
def check_step(answer: Callable):
    """Exercise 5.1: two faults in the training step of stage 1."""
    for seed in (0, 1):

        def weights(seed=seed, **how):
            return _trained(_step(**how), seed)[0]

        want, right = _trained(_step(), seed)
        got, losses = _trained(answer, seed)
        losses = array_of(losses, (2,), "the pair of losses")
        mistakes = {
            "both faults are still there": weights(between=True, scaled=False),
            "one fault is gone. After the step the network knows nothing of the first "
            "batch": weights(between=True),
            "one fault is gone. The SAM still learns at the rate of everything "
            "else": weights(scaled=False),
            "the optimizer steps twice, and the second batch meets a network that has "
            "already moved": (weights(each=True), weights(each=True, between=True)),
        }
        where = "after three steps on a toy network, "
        judge(got, want, mistakes, where=where)
        expect(same(losses, right), "the losses you return are not those of the step")
    return "Set the rates, clear once, two passes that add up, one step."


def _counts(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of the background that is kept, and area covered over that of the objects."""
    p, t = (np.asarray(a)[np.asarray(truth) != VOID] for a in (prediction, truth))
    return (p == 0)[t == 0].mean(), (p > 0).sum() / (t > 0).sum()


@check
def check_background(answer: Callable, first_step, segmentation, truth, steps):
    """Exercise 5.2: background kept and area covered, and when M keeps its background."""
    made = np.random.default_rng(5)
    for shape in ((2, 6, 7), (1, 9, 5), (3, 4, 4)):
        p, t = (made.integers(0, 4, shape).astype(np.uint8) for _ in range(2))
        t[made.random(shape) < 0.3] = VOID
        _judge_counts(array_of(ask(answer, p, t), (2,), "the pair"), p, t)
    pairs = [_counts(frame, truth) for frame in segmentation]
    good = [kept >= 0.8 and covered >= 0.5 for kept, covered in pairs]
    first = next((k for k in range(len(good)) if all(good[k:])), None)
    expect(first is not None, "no snapshot does: those of another training may")
    got, steps = float(first_step), [int(step) for step in steps]
    expect(got in steps, f"no snapshot was taken at step {got:g}")
    at = steps.index(int(got))
    kept, covered = pairs[at]
    expect(
        good[at],
        f"at step {got:.0f} M keeps {kept:.0%} of its background and covers {covered:.2f} "
        "of the objects' area",
    )
    expect(at >= first, f"from step {got:.0f} on not every snapshot is good")
    expect(at == first, f"an earlier snapshot than step {got:.0f} does as well")
    return "A network that finds no object keeps its background: only the pair tells."


def _judge_counts(got, p, t):
    known, (kept, area) = t != VOID, _counts(p, t)
    called, covered, objects = (p == 0) & known, p > 0, (t > 0) & known
    first = {
        "the two numbers have changed places": area,
        "the first number divides by what is *predicted* as background; asked is the share "
        "of the *true* background": (t == 0)[called].mean(),
    }
    second = {
        "the second number includes covered pixels that are void in the "
        "truth": covered.sum() / objects.sum(),
        "the second number leaves out what is covered beside the objects, which it should "
        "reveal": (covered & objects).sum() / objects.sum(),
    }
    judge(got[0], kept, first, what="the first number")
    judge(got[1], area, second, what="the second number")


@check
def check_experiment(verdict: Callable, predicted, values, scores):
    """Exercise 5.3: an experiment chosen, predicted, run and judged."""
    expect(predicted in (-1, 1), "`predicted` is 1 or -1: say which before you run")
    values = array_of(values, (len(scores),), "the list of your property")
    expect(len(np.unique(values)) > 4, "your property hardly differs between the images")
    made = np.random.default_rng(31)  # as in `sam.check_experiment`

    def draw(way):
        x, noise = made.normal(size=(2, 1000 if way else 20))
        return x, way * 0.15 * x + noise

    found = judge_verdict(
        verdict,
        draw,
        (values, np.asarray(scores), predicted),
        clear="1000 pairs with a weak relation: this should be {}, not {}",
        chance="of twenty pairs of lists that have nothing to do with each other you call "
        "{} a finding",
        chosen="property",
    )
    return f"On {len(scores)} images your prediction is {found}."
