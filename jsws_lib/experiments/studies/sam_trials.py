"""A trial of the SAM: what has to change for v to tell salient categories from others.

    python -m jsws_lib.experiments.studies.sam_trials

`steady` at first, then Eq. 2 on the mean of the highest H_i, with a standardised SAM: of
all trials the one that came closest, in three seeds, and an M-M that learns from the
first. A row goes to `results/sam_trials.json` at once, and a trial that has one is not run
again. The file keeps the rows of the others, too; their programs are gone.
"""

import math
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from data_utils.embedded.mini import drawn_scenes, roles
from data_utils.embedded.scenes import Scene
from jsws_lib.config import ROOT, STEADY, Profile, get_profile
from jsws_lib.engine.evaluation import measure_segmentation
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.experiments.studies.followed import complete
from jsws_lib.inference import predict, to_grey
from jsws_lib.losses import LogPair
from jsws_lib.metrics import SaliencyMeasure
from jsws_lib.sam import SaliencyAggregation, foreground
from jsws_lib.ssnet import SSNet, SSNetOutput
from jsws_lib.stage1 import train_stage1
from jsws_lib.stage2 import train_stage2
from jsws_lib.training import Loop, Objective

FILE = ROOT / "results" / "sam_trials.json"
WORDS = (
    "Setting M on the embedded data, and one M-M; the last four rows by python -m "
    "jsws_lib.experiments.studies.sam_trials, the programs of the others are gone."
)
# From step `late_from` on, L_c takes the mean of H over `late_share` of the positions.
CHANGES = {"late_evidence": "top_probs", "late_share": 0.05}
CHANGES |= {"late_from": 300, "sam_norm": True}
NAME, STUDENT = "switch-top-probs-norm", "switch-top-probs-norm-then-MM"
TRIALS = ((NAME, 0), (NAME, 1), (NAME, 2), (STUDENT, 0))  # and their seeds


# --- what a working SAM should buy ---------------------------------------------------


def sam_measures(net: SSNet, profile: Profile) -> dict[str, float]:
    """Measure M for its segmentation, its saliency, and what v adds.

    Args:
        net: in evaluation mode.
        profile: of the embedded data.

    Returns:
        `miou` and `iou_background` on VOC val. On the saliency test set `max_f`, also
        with v = 1 (`max_f_no_sam`) and with v = 0 for what is present and not salient,
        else 1 (`max_f_best_v`); mean v of what is salient and of what is present
        `beside`, and their gap; how many pixels of the latter the background takes. The
        gap on training images is `v_gap_train`.

    Raises:
        JswsError: data are missing or broken.
    """
    scores = measure_segmentation(net, profile).compute()
    train = _saliency(net, drawn_scenes(profile.data, "saliency", 200))
    found = {
        "miou": scores.miou,
        "iou_background": scores.iou[0],
        **_saliency(net, drawn_scenes(profile.data, "test")),
        "v_gap_train": train["v_gap"],
    }
    return {name: round(float(value), 5) for name, value in found.items()}


def _saliency(net: SSNet, shown: list[Scene]) -> dict[str, float]:
    v = {"v_salient": [], "v_beside": []}
    measures = {name: SaliencyMeasure() for name in ("", "_no_sam", "_best_v")}
    pixels, lost = 0, 0  # of what is present and not salient; to the background
    predictions = predict(net, (Image.fromarray(scene.image) for scene in shown))
    for scene, found in zip(shown, predictions, strict=True):
        role, mask = roles(scene), (scene.saliency_mask * 255).astype(np.uint8)
        v["v_salient"].extend(found.class_saliency[role == 1])
        v["v_beside"].extend(found.class_saliency[role == 0])
        best = np.einsum("c,chw->hw", (role != 0).astype(np.float32), found.probs[1:])
        maps = (found.sal_map, 1 - found.probs[0], best)
        for measure, sal in zip(measures.values(), maps, strict=True):
            measure.update(np.asarray(to_grey(sal.clip(0, 1))), mask)
        beside = np.isin(scene.class_mask, np.flatnonzero(role == 0) + 1)
        pixels += beside.sum()
        lost += (found.segmentation[beside] == 0).sum()
    means = {name: np.mean(values, dtype=float) for name, values in v.items()}
    return {
        **means,
        "v_gap": means["v_salient"] - means["v_beside"],
        **{f"max_f{name}": m.compute().max_f for name, m in measures.items()},
        "to_background_beside": lost / pixels,
    }


# --- a training with changes ---------------------------------------------------------


class StandardisedSAM(SaliencyAggregation):
    """A SAM behind a batch norm without weights.

    The same set of functions: the norm's mean and scale can be folded into the kernel.
    """

    def __init__(self, like: SaliencyAggregation):
        conv = like.conv
        super().__init__(
            conv.in_channels, conv.kernel_size[0], categories=conv.out_channels
        )
        self.norm = nn.BatchNorm2d(conv.in_channels, affine=False)

    def forward(self, feats):
        """(B, channels, k, k) float to the logits a of v, (B, C) float32."""
        return super().forward(self.norm(feats))


def top_probs(out: SSNetOutput, share: float) -> LogPair:
    """t-hat_i is the mean of the highest H_i, at the features' size; share 1 is Eq. 2.

    An object as large as the share satisfies it; what is smaller cannot, and nothing is
    won by covering more. A category has to beat the background there, and is asked for
    no more than that.
    """
    logits = out.seg_logits_low.flatten(2)  # (B, C+1, h * w)
    others = logits[:, None].expand(-1, logits.shape[1], -1, -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    total = logits.logsumexp(1, keepdim=True)
    log_not = foreground(others.logsumexp(2) - total)
    count = max(1, round(share * logits.shape[2]))
    best, where = foreground(logits - total).topk(count, 2)
    log_count = math.log(count)
    return LogPair(
        best.logsumexp(2) - log_count, log_not.gather(2, where).logsumexp(2) - log_count
    )


class SwitchedObjective(Objective):
    """`Objective`, but L_c on `top_probs` once it is `late`."""

    late = False

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `Objective`."""
        if not self.late or "sal_mask" in batch:
            return super().forward(batch)
        out, labels = self.net(batch["image"], full_size=False), batch["labels"]
        log_t = top_probs(out, CHANGES["late_share"])
        loss = -(labels * log_t.yes + (1 - labels) * log_t.no).sum(1).mean()
        return {"L_c": self.recipe.class_weight * loss}


class StandardisingLoop(Loop):
    """A plain loop that puts a batch norm in front of the SAM."""

    def place(self, net, profile, losses):
        """See `Loop`."""
        net.sam = StandardisedSAM(net.sam)
        super().place(net, profile, losses)


class SwitchingLoop(StandardisingLoop):
    """The same, and L_c changes on the way."""

    def prepare(self, objective, optimizer):
        """See `Loop`."""
        parts = objective.net, objective.losses, objective.recipe
        return SwitchedObjective(*parts), optimizer

    def backward(self, objective, batch, *, last=True):
        """See `Loop`."""
        objective.late = self.done >= CHANGES["late_from"]
        return super().backward(objective, batch, last=last)


def run_trial(name: str, seed: int, profile: Profile) -> list[dict]:
    """Train and measure a trial of `TRIALS`; its row of the results.

    Raises:
        JswsError: data or weights are missing or broken, or a loss is not finite.
    """
    given = {"profile": profile, "recipe": STEADY, "seed": seed}
    net = train_stage1("M", **given, loop=SwitchingLoop())
    row = {"steps": profile.steps[0], "changes": CHANGES, **sam_measures(net, profile)}
    if name == STUDENT:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "labels"
            labels = make_pseudo_labels(net, profile=profile, recipe=STEADY, out=out)
            student = train_stage2("MM", net, labels, **given, loop=StandardisingLoop())
        row["student"] = sam_measures(student, profile)
    return [row]


if __name__ == "__main__":
    run = partial(run_trial, profile=get_profile("mini"))
    complete(FILE, "trial", TRIALS, run, words=WORDS)
