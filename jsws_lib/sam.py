"""The saliency aggregation module: a score per category, and S (Section 3.3).

Channel 0 of H is the background, while v and the image labels have none: `foreground` and
`aggregate` own that shift.
"""

import torch
from torch import Tensor, nn

from data_utils.errors import JswsError
from data_utils.voc import NUM_CLASSES


def foreground(maps: Tensor) -> Tensor:
    """Drop the background: (B, C+1, ...) to the (B, C, ...) that v and t speak of."""
    return maps[:, 1:]


def aggregate(probs: Tensor, class_saliency: Tensor) -> Tensor:
    """S = sum_i v_i H_i, Eq. 1; below one, because H sums to one over its channels.

    Args:
        probs: H, (B, C+1, H, W) float in [0, 1]; `SegmentationNetwork` sees to its sum.
        class_saliency: v, (B, C) float in [0, 1].

    Returns:
        S, (B, H, W) float in [0, 1].
    """
    return torch.einsum("bc,bchw->bhw", class_saliency, foreground(probs))


class SaliencyAggregation(nn.Module):
    """SAM: a convolution as large as the feature map; `SSNetOutput` has the sigmoid (3.3).

    Args:
        channels: feature channels F.
        kernel: k, side of the feature map; 32 at 256 px and stride 8.
        init_std: standard deviation of a normal initialisation; None keeps PyTorch's,
            which starts near v = .5. The released code's .02 saturates at once.
        categories: C.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        init_std: float | None = None,
        categories: int = NUM_CLASSES,
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, categories, kernel)
        if init_std is not None:
            nn.init.normal_(self.conv.weight, std=init_std)
            nn.init.zeros_(self.conv.bias)

    def forward(self, feats: Tensor) -> Tensor:
        """(B, channels, k, k) float to the logits a of v, (B, C) float32.

        Raises:
            JswsError: the feature map is not k x k.
        """
        k = self.conv.kernel_size[0]
        if feats.shape[-2:] != (k, k):
            h, w = feats.shape[-2:]
            raise JswsError(
                f"the features are {h} x {w} but the saliency aggregation module was "
                f"built for {k} x {k}: resize the image to the size the network was "
                "trained at, or build SSNet with another size"
            )
        return self.conv(feats).flatten(1).float()
