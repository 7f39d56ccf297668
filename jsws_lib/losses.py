"""The three losses, in log space and float32 (Section 3.4).

Sums over pixels in Eq. 3 and 4 are read as means: taken literally they make the saliency
gradient thousands of times the class gradient. The sum over categories in Eq. 2 stays.

Everything takes log H or its logits, never H: log t-hat, log S and log(1 - S) are
log-sum-exps, so nothing is clamped here and a missing category keeps its gradient. (The
recipe `paper` upsamples probabilities, and has to clamp those in ssnet.py.)

Where the paper can be read in several ways, each reading is a function, and a table names
them: `EVIDENCE` for t-hat of Eq. 2, `SALIENCY` for what a pixel asks for in Eq. 3.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data_utils.voc import VOID
from jsws_lib.sam import foreground
from jsws_lib.ssnet import SSNetOutput


class LogPair(NamedTuple):
    """log p and log(1 - p), each exact where the other rounds to zero."""

    yes: Tensor
    no: Tensor


# --- Eq. 2: is category i in the image? Each reading gives log t-hat, (B, C) ----------


def mean_probs(out: SSNetOutput, share: float = 1.0) -> LogPair:
    """The paper's reading: t-hat_i is the spatial mean of H_i.

    The t-hat of one image then sum to one at most, so two labels can never both be
    satisfied, and covering the whole image is rewarded. `share` is not looked at.
    """
    log_probs = out.log_probs.float().flatten(2)
    log_mean = log_probs.logsumexp(2) - math.log(log_probs.shape[2])  # (B, C+1)
    # 1 - t-hat_i is the sum of the other channels' means: row i holds all but channel i.
    others = log_mean[:, None].expand(-1, log_mean.shape[1], -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return LogPair(foreground(log_mean), foreground(others.logsumexp(2)))


def top_logits(out: SSNetOutput, share: float = 1.0) -> LogPair:
    """t-hat_i is the sigmoid of the mean of the highest logits of category i.

    That asks C separate yes/no questions, and none about the background. With `share` 1 a
    category should cover the image; with less it may leave the rest to others.
    """
    logits = foreground(out.seg_logits_low.flatten(2))  # (B, C, h * w)
    count = max(1, round(share * logits.shape[2]))
    evidence = logits.topk(count, 2).values.mean(2)
    return LogPair(F.logsigmoid(evidence), F.logsigmoid(-evidence))


def mean_odds(out: SSNetOutput, share: float = 1.0) -> LogPair:
    """t-hat_i / (1 - t-hat_i) is the spatial mean of H_i / H_bg.

    A category has to beat the background somewhere. `share` is not looked at.
    """
    logits = out.seg_logits_low.flatten(2)  # (B, C+1, h * w)
    log_odds = (foreground(logits) - logits[:, :1]).logsumexp(2)
    evidence = log_odds - math.log(logits.shape[2])
    return LogPair(F.logsigmoid(evidence), F.logsigmoid(-evidence))


EVIDENCE: dict[str, Callable[[SSNetOutput, float], LogPair]] = {
    "mean_probs": mean_probs,
    "logits": top_logits,
    "odds": mean_odds,
}


def class_evidence(
    out: SSNetOutput, *, reading: str = "mean_probs", share: float = 1.0
) -> LogPair:
    """log t-hat and log(1 - t-hat), each (B, C) float32, by a key of `EVIDENCE`."""
    return EVIDENCE[reading](out, share)


def class_loss(
    out: SSNetOutput, labels: Tensor, *, reading: str = "mean_probs", share: float = 1.0
) -> Tensor:
    """L_c, Eq. 2: binary cross-entropy summed over categories, mean over images.

    Args:
        out: SSNet's output on images of D_c.
        labels: t, (B, C) float multi-hot.
        reading, share: see `EVIDENCE`; training passes those of its recipe.
    """
    log_t = class_evidence(out, reading=reading, share=share)
    return -(labels * log_t.yes + (1 - labels) * log_t.no).sum(1).mean()


# --- Eq. 3: is pixel m salient? Each reading gives what it costs, (B, H, W) -----------


def log_saliency(log_probs: Tensor, sal_logits: Tensor) -> LogPair:
    """The paper's reading: log S and log(1 - S) of Eq. 1, each (B, H, W) float32.

    Because the channels of H sum to one, 1 - S = H_bg + sum_i (1 - v_i) H_i: positive
    terms, as in S. A pixel that is not salient is satisfied by H_bg, but also by any
    category whose v is near zero, so the background can hide there.
    """
    log_fg, log_bg = foreground(log_probs), log_probs[:, :1]
    log_v = F.logsigmoid(sal_logits)[..., None, None]
    log_not_v = F.logsigmoid(-sal_logits)[..., None, None]
    return LogPair(
        (log_fg + log_v).logsumexp(1),
        torch.cat([log_bg, log_fg + log_not_v], 1).logsumexp(1),
    )


def log_background(log_probs: Tensor, sal_logits: Tensor) -> LogPair:
    """A pixel that is not salient asks for H_bg itself.

    The background stays in its channel, and v no longer learns to suppress.
    """
    return LogPair(log_saliency(log_probs, sal_logits).yes, log_probs[:, 0])


def background_prob(log_probs: Tensor, sal_logits: Tensor) -> LogPair:
    """The released code's: S and H_bg, probabilities where logs belong; v can only rise."""
    yes, no = log_background(log_probs, sal_logits)
    return LogPair(yes.exp(), no.exp())


SALIENCY: dict[str, Callable[[Tensor, Tensor], LogPair]] = {
    "bce": log_saliency,
    "background": log_background,
    "nll_probs": background_prob,
}


def saliency_loss(out: SSNetOutput, sal_mask: Tensor, *, reading: str = "bce") -> Tensor:
    """L_s1, Eq. 3, mean over pixels.

    Args:
        out: SSNet's output on images of D_s.
        sal_mask: Y, (B, H, W) uint8: 1 salient, 0 not, 255 ignored.
        reading: key of `SALIENCY`.
    """
    yes, no = SALIENCY[reading](out.log_probs.float(), out.sal_logits.float())
    per_pixel = torch.where(sal_mask == 1, yes, no)
    return -per_pixel[sal_mask != VOID].mean()


def pseudo_label_loss(out: SSNetOutput, pseudo_label: Tensor) -> Tensor:
    """L_s2, Eq. 4: cross-entropy against pseudo labels, mean over labelled pixels.

    Args:
        out: SSNet's output on images of D_c.
        pseudo_label: (B, H, W) int64, 0 background, 1 to C categories, 255 ignored.
    """
    return F.nll_loss(out.log_probs.float(), pseudo_label, ignore_index=VOID)
