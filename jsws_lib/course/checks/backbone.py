"""Checks of notebook 2: dilation by hand, strides removed, what the surgery lost."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data_utils.embedded.mini import render
from jsws_lib.backbones import IMAGENET, MINI_WEIGHTS, mini_classifier
from jsws_lib.course.checks import ask, check, expect, judge
from jsws_lib.engine.checkpoints import read_weights

# Height, width, side of the filter, rate.
CONVOLUTIONS = ((9, 9, 3, 2), (8, 11, 3, 1), (12, 7, 5, 2), (10, 13, 3, 4), (5, 4, 3, 6))


@check
def check_conv(dilated_conv: Callable) -> str:
    """Exercise 2.1: a dilated convolution by hand, against PyTorch."""
    for height, width, k, rate in CONVOLUTIONS:
        x, weight = torch.randn(height, width), torch.randn(k, k)
        where = f"at {height} x {width} px, k = {k}, rate {rate}, "
        _judge_convolution(ask(dilated_conv, x, weight, rate), x, weight, rate, where)
    return "As many products a pixel at every rate: dilation costs no operation."


def _judge_convolution(got, x, weight, rate, where):
    def conv(weight, rate, **how):
        reach = rate * (len(weight) - 1) // 2
        padded = F.pad(x[None, None], (reach,) * 4, **how)
        return F.conv2d(padded, weight[None, None], dilation=rate)[0, 0]

    fits = min(x.shape) >= rate * (len(weight) - 1) // 2
    mistakes = {
        "the result is zero everywhere": lambda got: not got.any(),
        "this is the convolution without dilation": conv(weight, 1),
        "the filter is upside down: networks do not flip it": conv(weight.flip(0, 1), rate),
        "the image is continued on its other side; outside it there are zeros": fits
        and conv(weight, rate, mode="circular"),
    }
    judge(got, conv(weight, rate), mistakes, where=where, tolerance=1e-4)


# Convolutions, (kernel, stride, dilation) each.
PLANS = (
    [(3, 2, 1), (3, 1, 1)],
    [(3, 2, 1), (3, 2, 1), (3, 1, 1)],
    [(3, 1, 1), (5, 2, 1), (1, 1, 1), (3, 3, 1), (3, 1, 1)],
    [(3, 2, 1), (3, 1, 2), (3, 1, 1)],
)


def _network(plan) -> nn.Sequential:
    """The convolutions of a plan with ReLUs between them, float64."""
    parts, channels = [], 3
    for kernel, stride, rate in plan:
        pad = rate * (kernel // 2)
        parts += [nn.Conv2d(channels, 4, kernel, stride, pad, rate), nn.ReLU()]
        channels = 4
    return nn.Sequential(*parts[:-1]).double()


@check
def check_surgery(remove_strides: Callable) -> str:
    """Exercise 2.2: every shared pixel of the large map equals the small map."""
    with torch.no_grad():
        for plan in PLANS:
            _judge_surgery(remove_strides, _network(plan), plan)
    return "Every pixel that both maps have is equal, up to the border of the image."


def _judge_surgery(remove_strides, network, plan):
    def settings(module):
        convolutions = [c for c in module.modules() if isinstance(c, nn.Conv2d)]
        return [(np.max(c.stride), np.max(c.dilation), c.padding) for c in convolutions]

    def times(factors):
        return [rate * factor for rate, factor in zip(given, factors, strict=False)]

    strides, given = [stride for _, stride, _ in plan], [rate for _, _, rate in plan]
    reduced = [math.prod(strides[:k]) for k in range(len(plan) + 1)]
    where = f"for strides {strides}, "
    x = torch.randn(1, 3, 36, 36, dtype=torch.float64)
    small, before = network(x), settings(network)
    altered = remove_strides(network)
    untouched = settings(network) == before
    expect(untouched, where + "the given network was changed; work on a copy")
    left, rates = np.transpose([s[:2] for s in settings(altered)]).tolist()
    expect(set(left) == {1}, where + f"a stride is left: {left}")
    large = altered(x)
    border = "a wider filter needs a wider border of zeros"
    expect(large.shape == (1, 4, 36, 36), f"{where}the map is not 36 x 36: {border}")
    own_too = times(strides), times(reduced[1:])
    mistakes = {
        "no filter reaches further, though its neighbours moved closer": rates == given,
        "a filter's own stride comes after its taps": rates in own_too,
        "a stride counts for all filters behind it": rates == times([1, *strides]),
    }
    shared = large[..., :: reduced[-1], :: reduced[-1]]
    judge(shared, small, mistakes, where=f"{where}the rates are {rates}: ")


def _agreement(network: nn.Module) -> float:
    """Mean correlation of the channels with stride 32, where both maps have a pixel."""
    published = mini_classifier(num_classes=1).features.eval()
    published.load_state_dict(read_weights(MINI_WEIGHTS)[0])
    images = np.stack([render(0, "val", k).image for k in range(40)])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
    images = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        coarse, fine = published(images).relu(), network(images).relu()
    grid = tuple(fine.shape[-2:])
    expect(grid == (12, 12), f"the features are {grid[0]} x {grid[1]}, not 12 x 12")
    pairs = torch.stack((coarse, fine[..., ::4, ::4])).transpose(1, 2).flatten(2)
    pairs = pairs - pairs.mean(-1, keepdim=True)
    return F.cosine_similarity(*pairs, dim=-1).mean().item()


@check
def check_experiment(
    network: nn.Module, expected: float, measured: float, culprit: str
) -> str:
    """Exercise 2.3: what the dilated network lost, found by an experiment."""
    expect(
        _agreement(network) > 0.62,  # 0.54 without any change, 1 at best
        f"with {measured:.2f} this change does not bring back what was lost, and a fall "
        "convicts nobody: the suspect that it tests is not guilty. Test the other one",
    )
    expect(0.79 < measured < 0.9, "`measured` is not of this network: run the cell anew")
    expect(culprit == "averages", "the accuracy came back; which suspect was tested?")
    missed = abs(expected - measured) > 0.1
    doubt = " That is a miss: what did your expectation leave out?" if missed else ""
    return f"You expected {expected:.2f} and measured {measured:.2f}.{doubt}"
