"""Checks of notebook 2: memory, dilation by hand, the pixels seen, lost dilation."""

import math
from collections.abc import Callable

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from jsws_lib.backbones import SURGERY, dilate
from jsws_lib.checks import Wrong, check, expect, expect_array, same


def _kept_bytes(stride: int) -> int:
    """What VGG16 keeps for the backward pass of one image of 256 px, bytes."""
    with torch.device("meta"):
        layers = torchvision.models.vgg16().features
        image = torch.zeros(1, 3, 256, 256)
    if stride < 32:
        dilate(layers, SURGERY["vgg16", stride])
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _alive = layers(image)
    return sum(kept.values())


@check
def check_memory(ratio: float) -> str:
    """Exercise 2.1: memory of VGG16 at stride 8 over that at stride 32."""
    found = float(expect_array(ratio, (), "the ratio"))
    right = _kept_bytes(8) / _kept_bytes(32)
    if same(found, right, tolerance=0.002):
        return (f"{100 * right - 100:.0f} % more: the largest maps stand at the beginning, "
                "and surgery does not touch them.")  # fmt: skip
    expect(not same(found, 1 / right, tolerance=0.002),
           "this is stride 32 over stride 8; turn the fraction over")  # fmt: skip
    expect(not same(found, 16, tolerance=0.01),
           "16 is how many more pixels the last map has; measure all that is kept")
    expect(not 3 < found < 4, "this is what DenseNet-169 needs; measure VGG16")
    expect(not 1.2 < found < 1.35, "this compares operations; compare memory")
    expect(not abs(found) < 0.1, "this looks like gigabytes or a difference of them; "
           "a ratio has no unit")  # fmt: skip
    expect(False, f"measured here, the ratio is not {found:.3g}; is each network built "
           "anew, and at its own stride?")  # fmt: skip


@check
def check_conv(dilated_conv: Callable) -> str:
    """Exercise 2.2: a dilated convolution by hand, against PyTorch."""
    draw = torch.Generator().manual_seed(0)
    cases = [(9, 9, 3, 2), (8, 11, 3, 1), (12, 7, 5, 2), (10, 13, 3, 4), (5, 4, 3, 6),
             (6, 6, 1, 3)]  # fmt: skip
    for height, width, k, rate in cases:
        x = torch.randn(height, width, generator=draw)
        weight = torch.randn(k, k, generator=draw)
        before = x.clone(), weight.clone()
        try:
            got = dilated_conv(x, weight, rate)
        except RuntimeError as error:
            raise Wrong(f"for k = {k}, rate {rate} it stopped with {error}. The outermost "
                        "tap of a k × k filter is rate · (k - 1) / 2 away") from None
        got = expect_array(got, (height, width), f"for k = {k}, rate {rate}, the result")
        expect(same(x, before[0]) and same(weight, before[1]),
               "the function changes its arguments; work on a copy")  # fmt: skip
        case = f"at {height} x {width} px, k = {k}, rate {rate}"
        expect(got.any(), f"{case}, the result is zero everywhere")
        _compare_convolution(torch.from_numpy(got).float(), x, weight, rate, case)
    return "As many products a pixel at every rate: dilation costs no operation."


def _compare_convolution(got, x, weight, rate, case):
    def conv(weight, rate, **how):
        reach = rate * (weight.shape[-1] - 1) // 2
        padded = F.pad(x[None, None], (reach,) * 4, **how)
        return F.conv2d(padded, weight[None, None], dilation=rate)[0, 0]

    right = conv(weight, rate)
    if same(got, right, tolerance=1e-4):
        return
    expect(not same(got, conv(weight, 1), tolerance=1e-4),
           f"{case}, this is the convolution without dilation")  # fmt: skip
    expect(not same(got, conv(weight.flip(0, 1), rate), tolerance=1e-4),
           f"{case}, the filter is upside down: networks do not flip it")  # fmt: skip
    expect(not same(got, conv(weight.T, rate), tolerance=1e-4),
           f"{case}, rows and columns of the filter are swapped")  # fmt: skip
    expect(not same(got, conv(weight, rate + 1), tolerance=1e-4),
           f"{case}, the taps are too far apart: rate 1 means neighbours")  # fmt: skip
    if min(x.shape) >= rate * (len(weight) - 1) // 2:
        expect(not same(got, conv(weight, rate, mode="circular"), tolerance=1e-4),
               f"{case}, the image is continued on its other side; outside it "
               "there are zeros")  # fmt: skip
    middle = tuple(slice(rate, size - rate) for size in x.shape)
    if len(weight) == 3 and min(x.shape) > 2 * rate:
        expect(not same(got[middle], right[middle], tolerance=1e-4),
               f"{case}, the middle is right and the border is not: outside the image "
               "there are zeros")  # fmt: skip
    expect(False, f"{case}, it differs from PyTorch by up to "
           f"{(got - right).abs().max():.2g}")  # fmt: skip


@check
def check_sees(sees: Callable) -> str:
    """Exercise 2.3: the first and the last input pixel that an output pixel sees."""
    stacks = [
        [(3, 1, 1, 0)],
        [(3, 2, 1, 1)],
        [(3, 1, 4, 4)],
        [(3, 2, 1, 1), (3, 1, 2, 2)],
        [(7, 2, 1, 3), (3, 2, 1, 1), (2, 2, 1, 0), (3, 1, 2, 2), (3, 1, 4, 4)],
        [(4, 3, 2, 0), (1, 1, 1, 0), (5, 2, 3, 1)],
        [],
    ]
    for layers in stacks:
        for y in (0, 1, 6):
            got = sees(list(layers), y)
            expect(got is not None, "the function returns nothing")
            got = tuple(int(v) for v in expect_array(got, (2,), "(first, last)"))
            _compare_pixels(got, layers, y)
    return "Where it looks moves with y; how far it looks, last - first + 1, does not."


def _compare_pixels(got, layers, y):
    def seen(layers):
        """Every pixel, the slow way: follow each tap of each layer."""
        pixels = {y}
        for kernel, stride, dilation, padding in layers:
            pixels = {p * stride - padding + dilation * tap
                      for p in pixels for tap in range(kernel)}  # fmt: skip
        return min(pixels), max(pixels)

    right = seen(layers[::-1])
    if got == right:
        return
    case = f"for (kernel, stride, dilation, padding) = {layers} and y = {y}"
    expect(got != (y, y), f"{case}, the answer is still y itself")
    unpadded = seen([(k, s, d, 0) for k, s, d, _ in layers[::-1]])
    dense = seen([(k, s, 1, p) for k, s, _, p in layers[::-1]])
    expect(got != dense, f"{case}, the dilation is ignored")
    expect(got != unpadded, f"{case}, the padding is ignored: it shifts what is seen")
    expect(got != seen(layers),
           f"{case}, the layers are taken in the order of the network; the way back "
           "begins with the last")  # fmt: skip
    wide = seen([(k + 1, s, d, p) for k, s, d, p in layers[::-1]])
    expect(got != wide, f"{case}, the window is too wide: three taps leave two gaps")
    expect(got[1] - got[0] != right[1] - right[0],
           f"{case}, the width is right and the place is not")  # fmt: skip
    expect(False, f"{case}, {got[0]} to {got[1]} is not what reaches it")


def _network(*layers: tuple[int, int, int]) -> nn.Sequential:
    """Convolutions (kernel, stride, dilation) with ReLUs between them, float64."""
    parts, channels = [], 3
    for kernel, stride, rate in layers:
        pad = rate * (kernel // 2)
        parts += [nn.Conv2d(channels, 4, kernel, stride, pad, rate), nn.ReLU()]
        channels = 4
    return nn.Sequential(*parts[:-1]).double()


@check
def check_surgery(remove_strides: Callable) -> str:
    """Exercise 2.4: every shared pixel of the large map equals the small map."""
    plans = [
        [(3, 2, 1), (3, 1, 1)],
        [(3, 2, 1), (3, 2, 1), (3, 1, 1)],
        [(3, 1, 1), (5, 2, 1), (1, 1, 1), (3, 3, 1), (3, 1, 1)],
        [(3, 2, 1), (3, 1, 2), (3, 1, 1)],
        [(3, 1, 1), (3, 1, 1)],
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for plan in plans:
            _compare_networks(remove_strides, _network(*plan), plan)
    return "Every pixel that both maps have is equal, up to the border of the image."


def _compare_networks(remove_strides, network, plan):
    def convolutions(module):
        return [c for c in module.modules() if isinstance(c, nn.Conv2d)]

    def settings():
        return [(c.stride, c.dilation, c.padding) for c in convolutions(network)]

    strides, given = [stride for _, stride, _ in plan], [rate for _, _, rate in plan]
    reduced = [math.prod(strides[:k]) for k in range(len(plan) + 1)]
    x = torch.randn(1, 3, 36, 36, dtype=torch.float64)
    small, before = network(x), settings()
    altered = remove_strides(network)
    case = f"for strides {strides}"
    expect(isinstance(altered, nn.Module), f"{case}, no network comes back")
    expect(settings() == before,
           f"{case}, the given network was changed; work on a copy")  # fmt: skip
    left = [c.stride[0] for c in convolutions(altered)]
    expect(set(left) == {1}, f"{case}, a stride is left: {left}")
    large = altered(x)
    expect(large.shape == (1, 4, 36, 36),
           f"{case}, the map is {large.shape[-2]} x {large.shape[-1]}, not 36 x 36: a "
           "wider filter needs a wider border of zeros")  # fmt: skip
    if same(large[..., :: reduced[-1], :: reduced[-1]], small):
        return
    rates = [c.dilation[0] for c in convolutions(altered)]
    expect(rates != given,
           f"{case}, no filter reaches further than before, though its neighbours moved "
           "closer")  # fmt: skip
    for own in (strides, reduced[1:]):
        expect(rates != [r * g for r, g in zip(own, given, strict=True)],
               f"{case}, the rates are {rates}: a filter's own stride comes after its "
               "taps")  # fmt: skip
    expect(rates != [r * g for r, g in zip([1, *strides], given, strict=False)],
           f"{case}, the rates are {rates}: a stride counts for all filters behind it")
    expect(rates != reduced[:-1], f"{case}, the rates are {rates}: one filter was "
           "dilated before the surgery, and that is lost")  # fmt: skip
    expect(False, f"{case}, the rates are {rates}, and the shared pixels differ by up to "
           f"{(large[..., :: reduced[-1], :: reduced[-1]] - small).abs().max():.2g}")
