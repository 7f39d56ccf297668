"""The three losses, in log space and float32 (Section 3.4).

Sums over pixels in Eq. 3 and 4 are read as means: taken literally they make the saliency
gradient thousands of times the class gradient. The sum over categories in Eq. 2 stays.

Everything takes log H, never H: log t-hat, log S and log(1 - S) are log-sum-exps of log H,
so nothing is clamped here and a missing category keeps its gradient. (The recipe `paper`
upsamples probabilities, and has to clamp those in ssnet.py.)
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data_utils.voc import VOID
from jsws_lib.ssnet import SSNetOutput, foreground


class LogPair(NamedTuple):
    """log p and log(1 - p), each exact where the other rounds to zero."""

    yes: Tensor
    no: Tensor


def class_evidence(
    out: SSNetOutput, *, reading: str = "mean_probs", share: float = 1.0
) -> LogPair:
    """log t-hat and log(1 - t-hat) of Eq. 2, each (B, C) float32.

    Args:
        out: SSNet's output.
        reading: `"mean_probs"`, the paper's: t-hat_i is the spatial mean of H_i. The
            t-hat of one image then sum to one at most, so two labels can never both be
            satisfied, and covering the whole image is rewarded.
            `"logits"`: t-hat_i is the sigmoid of the mean of the highest logits of
            category i: twenty separate questions, and none about the background.
            `"odds"`: t-hat_i / (1 - t-hat_i) is the spatial mean of H_i / H_bg: a
            category has to beat the background somewhere.
        share: of the positions that `"logits"` averages over. With 1 a category should
            cover the image; with less it may leave the rest to others.
    """
    if reading in ("logits", "odds"):
        logits = out.seg_logits_low.flatten(2)  # (B, C+1, h * w)
        count = logits.shape[2]
        if reading == "odds":
            odds = (foreground(logits) - logits[:, :1]).logsumexp(2)
            evidence = odds - math.log(count)
        else:
            highest = foreground(logits).topk(max(1, round(share * count)), 2).values
            evidence = highest.mean(2)
        return LogPair(F.logsigmoid(evidence), F.logsigmoid(-evidence))
    log_probs = out.log_probs.float().flatten(2)
    log_mean = log_probs.logsumexp(2) - math.log(log_probs.shape[2])  # (B, C+1)
    # 1 - t-hat_i is the mean of all other channels: sum them, never subtract from one.
    others = log_mean[:, None].expand(-1, log_mean.shape[1], -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return LogPair(foreground(log_mean), foreground(others.logsumexp(2)))


def class_loss(
    out: SSNetOutput, labels: Tensor, *, reading: str = "mean_probs", share: float = 1.0
) -> Tensor:
    """L_c, Eq. 2: binary cross-entropy summed over categories, mean over images.

    Args:
        out: SSNet's output on images of D_c.
        labels: t, (B, C) float multi-hot.
        reading, share: see `class_evidence`.
    """
    log_t = class_evidence(out, reading=reading, share=share)
    return -(labels * log_t.yes + (1 - labels) * log_t.no).sum(1).mean()


def log_saliency(log_probs: Tensor, sal_logits: Tensor) -> LogPair:
    """log S and log(1 - S) of Eq. 1, each (B, H, W) float32.

    Because the channels of H sum to one, 1 - S = H_bg + sum_i (1 - v_i) H_i: a sum of
    positive terms again.
    """
    log_fg, log_bg = foreground(log_probs), log_probs[:, :1]
    log_v = F.logsigmoid(sal_logits)[..., None, None]
    log_not_v = F.logsigmoid(-sal_logits)[..., None, None]
    return LogPair(
        (log_fg + log_v).logsumexp(1),
        torch.cat([log_bg, log_fg + log_not_v], 1).logsumexp(1),
    )


def saliency_loss(
    out: SSNetOutput, sal_mask: Tensor, *, reading: str = "bce"
) -> Tensor:
    """L_s1, Eq. 3, mean over pixels.

    Args:
        out: SSNet's output on images of D_s.
        sal_mask: Y, (B, H, W) uint8: 1 salient, 0 not, 255 ignored.
        reading: what a pixel that is not salient asks for.
            `"bce"`, Eq. 3: -log(1 - S). Satisfied by H_bg, but also by any category
            whose v is near zero, so the background can hide there.
            `"background"`: -log H_bg. The background stays in its channel, and v no
            longer learns to suppress.
            `"nll_probs"`, the released code's: -H_bg, and -S on salient pixels;
            probabilities where logs belong. v can only rise.
    """
    log_probs, a = out.log_probs.float(), out.sal_logits.float()
    if reading == "bce":
        yes, no = log_saliency(log_probs, a)
    else:  # log(1 - S) is not needed
        yes = (foreground(log_probs) + F.logsigmoid(a)[..., None, None]).logsumexp(1)
        no = log_probs[:, 0]
    if reading == "nll_probs":
        yes, no = yes.exp(), no.exp()
    per_pixel = torch.where(sal_mask == 1, yes, no)
    return -per_pixel[sal_mask != VOID].mean()


def pseudo_label_loss(out: SSNetOutput, pseudo_label: Tensor) -> Tensor:
    """L_s2, Eq. 4: cross-entropy against pseudo labels, mean over labelled pixels.

    Args:
        out: SSNet's output on images of D_c.
        pseudo_label: (B, H, W) int64, 0 background, 1 to C categories, 255 ignored.
    """
    return F.nll_loss(out.log_probs.float(), pseudo_label, ignore_index=VOID)
