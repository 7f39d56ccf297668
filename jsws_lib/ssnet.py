"""SSNet: segmentation network plus saliency aggregation module (Sections 3.1 to 3.3).

    image -> backbone -> F -> SegmentationNetwork -> H, a map per category
                          \\-> SaliencyAggregation -> v, a score per category
                                                     S = sum_i v_i H_i      (Eq. 1)

Channel 0 is the background, channel i + 1 the category `VOC_CLASSES[i + 1]`, or other
data's.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_utils.errors import JswsError
from data_utils.voc import NUM_CLASSES
from jsws_lib.backbones import Backbone, build_backbone
from jsws_lib.config import Recipe
from jsws_lib.sam import SaliencyAggregation, aggregate


def no_autocast(device: torch.device):
    """A context in which products are computed at the precision of their factors."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class SSNetOutput(NamedTuple):
    """What SSNet predicts: logs and logits, so that losses need no clamp."""

    log_probs: Tensor  # log H, (B, C+1, H, W) float32
    seg_logits_low: Tensor  # before upsampling, (B, C+1, H/8, W/8) float32
    sal_logits: Tensor  # a, with v = sigmoid(a), (B, C) float32

    @property
    def probs(self) -> Tensor:
        """H, (B, C+1, H, W) float32; sums to one over channels."""
        return self.log_probs.exp()

    @property
    def class_saliency(self) -> Tensor:
        """v, (B, C) float32 in [0, 1]."""
        return self.sal_logits.sigmoid()

    @property
    def sal_map(self) -> Tensor:
        """S, (B, H, W) float32 in [0, 1]."""
        return aggregate(self.probs, self.class_saliency)


class Deconvolution(nn.Module):
    """Upsampling by transposed convolution, bilinear at the start (Section 3.2).

    With kernel 2s, stride s and padding s/2 it equals bilinear interpolation inside the
    map. At the rim a transposed convolution sees zeros, which dims edges to .5625 and
    corners to .3164 of their value at s = 8; repeating the rim first mends that.

    Args:
        channels: maps to upsample.
        factor: s, even.
        trainable: learn one full `channels` x `channels` kernel, as the released code
            does, instead of keeping one fixed kernel per channel. A trained kernel gives
            up sum(H) = 1 if it follows the softmax.
    """

    def __init__(self, channels: int, factor: int, *, trainable: bool = False):
        super().__init__()
        self.factor = factor
        self.groups = 1 if trainable else channels
        ramp = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
        weight = torch.zeros(channels, channels // self.groups, 2 * factor, 2 * factor)
        own = range(channels) if trainable else [0] * channels
        weight[range(channels), own] = torch.outer(ramp, ramp)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) float to (B, channels, h * factor, w * factor)."""
        maps = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        pad = self.factor // 2 + self.factor  # the layer's own, and the rim
        return F.conv_transpose2d(
            maps, self.weight, stride=self.factor, padding=pad, groups=self.groups
        )


class DilatedHead(nn.Module):
    """SSNet-2's four 3x3 convolutions at rates 6, 12, 18, 24, summed (Section 3.2)."""

    RATES = (6, 12, 18, 24)

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate)
            for rate in self.RATES
        )

    def forward(self, feats: Tensor) -> Tensor:
        """(B, in_channels, h, w) float to (B, out_channels, h, w)."""
        return sum(branch(feats) for branch in self.branches)


class SegmentationNetwork(nn.Module):
    """SN behind the features: a head, upsampling, softmax (Section 3.2).

    Args:
        head: features to (B, C+1, h, w) logits.
        factor: the backbone's stride.
        skip_channels: channels of finer stages to add FCN-8s style, coarse to fine.
        upsample: `"logits"` interpolates logits and then takes the log-softmax, so that
            H sums to one everywhere; `"probs"` takes the softmax first, as the paper
            describes.
        trainable: learn the deconvolution.
        categories: C.

    Raises:
        JswsError: the deconvolution of probabilities is to be learned.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        factor: int,
        skip_channels=(),
        upsample: str = "logits",
        trainable: bool = False,
        categories: int = NUM_CLASSES,
    ):
        super().__init__()
        if trainable and upsample == "probs":
            raise JswsError(
                "upsample=probs needs trainable_deconv=false: behind the softmax a trained "
                "kernel gives H that do not sum to one"
            )
        self.head, self.upsample = head, upsample
        channels = categories + 1
        self.skips = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in skip_channels)
        factor = min(factor, 8) if skip_channels else factor
        self.deconv = Deconvolution(channels, factor, trainable=trainable)

    def forward(
        self, feats: Tensor, skips=(), *, full_size: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return log H at input size and the logits at feature size.

        Args:
            feats: F, (B, channels, h, w) float.
            skips: the stages' maps `skip_channels` announced.
            full_size: False leaves log H at the logits' size.
        """
        logits = self.head(feats)
        for score, finer in zip(self.skips, skips, strict=True):
            logits = F.interpolate(logits, finer.shape[-2:], mode="bilinear")
            logits = logits + score(finer)
        logits = logits.float()
        if not full_size:
            return logits.log_softmax(1), logits
        with no_autocast(logits.device):  # float32 from here on
            if self.upsample == "logits":  # and then H sums to one at every pixel
                return self.deconv(logits).log_softmax(1), logits
            # 1e-12 is far above float32's smallest number and far below any probability
            # that matters; below it the gradient is lost, which "logits" never does.
            probs = self.deconv(logits.softmax(1)).clamp_min(1e-12)
        # Contiguous: on the CPU nll_loss has no backward pass for channels_last maps.
        return probs.log().contiguous(), logits


class SSNet(nn.Module):
    """SN and SAM on shared features; SSNet-1 and SSNet-2 differ in the head.

    The head of SSNet-1 is a 1x1 convolution, for labels that say little about place;
    pseudo labels can teach the larger `DilatedHead` of SSNet-2.

    Args:
        backbone: feature extractor.
        stage: 1 or 2.
        size: side of the square input, pixels.
        recipe: the readings of the paper that shape the network.
        categories: C.

    Raises:
        JswsError: `size` is not a multiple of the backbone's stride.
    """

    def __init__(
        self,
        backbone: Backbone,
        stage: int,
        *,
        size: int,
        recipe: Recipe,
        categories: int = NUM_CLASSES,
    ):
        super().__init__()
        if size % backbone.stride:
            raise JswsError(
                f"size {size} is not a multiple of the stride {backbone.stride}"
            )
        self.backbone, self.stage, self.size = backbone, stage, size
        self.mirror = recipe.mirror
        self.use_skips = recipe.skips and stage == 1
        shape = backbone.channels, categories + 1
        self.sn = SegmentationNetwork(
            nn.Conv2d(*shape, 1) if stage == 1 else DilatedHead(*shape),
            factor=backbone.stride,
            skip_channels=[c for _, c in backbone.skip_stages] if self.use_skips else (),
            upsample=recipe.upsample,
            trainable=recipe.trainable_deconv,
            categories=categories,
        )
        self.sam = SaliencyAggregation(
            backbone.channels,
            size // backbone.stride,
            init_std=recipe.sam_init_std,
            categories=categories,
        )

    def forward(self, image: Tensor, *, full_size: bool = True) -> SSNetOutput:
        """Segment and weigh; with `mirror`, in evaluation mode, twice.

        Args:
            image: (B, 3, size, size) uint8, or float in [0, 1].
            full_size: upsample log H to the image's size; a loss on mean logits does
                not look at it.

        Raises:
            JswsError: the image has another size.
        """
        out = self.once(image, full_size)
        if self.mirror and not self.training:
            logs, logits, a = self.once(image.flip(-1), full_size)
            logs = ((out.log_probs + logs.flip(-1)) / 2).log_softmax(1)
            logits = (out.seg_logits_low + logits.flip(-1)) / 2
            out = SSNetOutput(logs, logits, (out.sal_logits + a) / 2)
        return out

    def once(self, image: Tensor, full_size: bool) -> SSNetOutput:
        """What SN and SAM make of the features of an image as it is."""
        feats, skips = self.backbone(image, skips=True)
        skips = skips if self.use_skips else ()
        return SSNetOutput(*self.sn(feats, skips, full_size=full_size), self.sam(feats))


def build_ssnet(
    stage: int,
    *,
    backbone: str,
    size: int,
    recipe: Recipe,
    weights="default",
    categories: int = NUM_CLASSES,
) -> SSNet:
    """Build SSNet-1 or SSNet-2 with a pre-trained (`weights="default"`) backbone."""
    stride = recipe.stage1_stride if stage == 1 else recipe.stage2_stride
    features = build_backbone(
        backbone, stride=stride, weights=weights, final_relu=recipe.final_relu
    )
    return SSNet(features, stage, size=size, recipe=recipe, categories=categories)
