"""Trials of the SAM: what has to change for v to tell salient categories from others.

    python -m jsws_lib.experiments.studies.sam_trials

Each trial is one training of setting M on the embedded data, some with an M-M that learns
from it, with an expectation written down before it. Its row goes to
`results/sam_trials.json` at once, and a trial that has a row is not run again: `happened`
is written there by hand, after a look at the numbers.
"""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from data_utils.categories import categories
from data_utils.embedded.mini import drawn_scenes, roles
from data_utils.embedded.scenes import RARELY_SALIENT, Scene
from data_utils.voc import VOC_CLASSES
from jsws_lib.config import ROOT, SETTINGS, STEADY, Profile, Recipe, get_profile
from jsws_lib.engine.checkpoints import load_ssnet, shipped
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.experiments.studies.followed import append, known
from jsws_lib.inference import predict, to_grey
from jsws_lib.losses import LogPair, class_loss, saliency_loss
from jsws_lib.metrics import SaliencyMeasure
from jsws_lib.sam import SaliencyAggregation, foreground
from jsws_lib.ssnet import SSNet, SSNetOutput, build_ssnet
from jsws_lib.stage2 import train_stage2
from jsws_lib.training import Loop, Objective, seed_everything, train

FILE = ROOT / "results" / "sam_trials.json"
WORDS = (
    "Setting M on the embedded data (python -m jsws_lib.experiments.studies.sam_trials)."
)


@dataclass(frozen=True)
class Trial:
    """One training of M, and what was expected of it.

    `changes` holds fields of `Recipe` and any of

    - `late_evidence`, `late_from`, `late_mix`: from step `late_from` on, L_c is
      (1 - mix) L_c + mix L_c under another reading of Eq. 2; "top_probs" is the reading
      of this file, with `late_share` of the positions;
    - `sam_norm`: the SAM's input is standardised per channel (batch norm without weights);
    - `sam_decay`: AdamW's weight decay of the SAM;
    - `sam_fresh`: the SAM starts anew.
    """

    name: str
    steps: int
    changes: dict
    expected: str
    start: str | None = None  # name of a shipped checkpoint
    seed: int = 0
    student: bool = False  # train M-M from it, too


SWITCH = {"late_evidence": "top_probs", "late_share": 0.05}
SWITCH |= {"late_from": 300, "sam_norm": True}
TRIALS = (
    Trial(
        "after-odds-norm-k2",
        300,
        {"class_evidence": "odds", "sam_norm": True, "sam_fresh": True, "sam_rate": 1 / 12},
        "F is never negative, so that one step of Adam moves all v of a category up or "
        "down together. Standardised, the SAM is the same function and learns the "
        "differences between images first: gap above .32, mIoU above 58.6",
        start="mini_M",
    ),
    Trial(
        "after-odds-fresh-decay",
        300,
        {"class_evidence": "odds", "sam_fresh": True, "sam_decay": 30.0},
        "M's SAM starts at |a| = 17; a fresh one with weight decay instead of a bound "
        "cannot run off: gap above .32",
        start="mini_M",
    ),
    Trial(
        "mix-norm",
        450,
        {"late_evidence": "odds", "late_mix": 0.5, "sam_norm": True},
        "`mix` with the standardised SAM instead of the bound: gap above .43, and more "
        "than .01 of max F from v",
    ),
    Trial(
        "top-probs-norm",
        450,
        {"late_evidence": "top_probs", "late_share": 0.05, "sam_norm": True},
        "The paper's t-hat, the mean of H, over the best twentieth of the positions, "
        "about a small object: it has to beat the background as with odds, but is "
        "content with H = 1 there. With only the last dense block trained, 1,200 images "
        "a set, it has mIoU .355, background IoU .86, gap .40 and .012 of max F from v, "
        "where odds have .295, .81, .48 and .038. Here: mIoU above odds' 46.0, gap .4",
    ),
    Trial(
        "switch-top-probs-norm",
        1200,
        SWITCH,
        "`steady` first keeps the large objects that `top-probs-norm` lost (a third of "
        "the salient pixels went to the background): with the schedule of the shipped M, "
        "mIoU 60, gap .4 and .01 of max F from v at once",
    ),
    Trial(
        "switch-top-probs-norm",
        1200,
        SWITCH,
        "as with seed 0, within the spread over seeds",
        seed=1,
    ),
    Trial(
        "switch-top-probs-norm-then-MM",
        1200,
        SWITCH,
        "This M keeps what is present and not salient, so its pseudo labels hold it "
        "and L_s2 forbids M-M to hand it to the background: only v can keep it out "
        "of S. More than .01 of max F from v, mIoU at least 66",
        student=True,
    ),
    Trial(
        "switch-top-probs-norm",
        1200,
        SWITCH,
        "as with seeds 0 and 1: gap .4, .006 to .008 of max F from v, mIoU above 60",
        seed=2,
    ),
)


# --- what a working SAM should buy ---------------------------------------------------


def sam_measures(net: SSNet, profile: Profile, limit: int | None = None) -> dict:
    """Measure M for its segmentation, its saliency, and what v adds.

    Args:
        net: in evaluation mode.
        profile: of the embedded data.
        limit: at most so many images of each set.

    Returns:
        `miou`, `iou_background`, `iou_rarely_salient` on VOC val. On the saliency test
        set `mae` and `max_f`, both also with v = 1 (`no_sam`) and with v = 0 for what
        is present and not salient, else 1 (`best_v`); mean v by role; and for the pixels
        of salient categories, and of those `beside` them, recall, IoU and how many the
        background takes.
    """
    result = evaluate(net, profile=profile, recipe=STEADY, limit=limit)
    iou = result.segmentation.compute().iou
    rare = [VOC_CLASSES.index(name) for name in RARELY_SALIENT]
    found = {
        "miou": result.figures()["miou"],
        "iou_background": iou[0],
        "iou_rarely_salient": np.nanmean(iou[rare]),
        **_saliency(net, drawn_scenes(profile.data, "test", limit)),
    }
    train_v = _by_role(net, drawn_scenes(profile.data, "saliency", 200))
    found["v_gap_train"] = train_v["v_salient"] - train_v["v_beside"]
    return {name: round(float(value), 5) for name, value in found.items()}


def _predictions(net: SSNet, shown: Iterable[Scene]):
    return predict(net, (Image.fromarray(scene.image) for scene in shown))


def _by_role(net: SSNet, shown: list[Scene]) -> dict[str, float]:
    """Mean v of salient, other and absent categories."""
    role = np.stack([roles(scene) for scene in shown])
    v = np.stack([p.class_saliency for p in _predictions(net, shown)]).astype(float)
    kinds = {"v_salient": 1, "v_beside": 0, "v_absent": -1}
    return {name: v[role == kind].mean() for name, kind in kinds.items()} | {
        "mean_v": v.mean(),
        "median_abs_a": np.median(np.abs(np.log(v.clip(1e-12) / (1 - v).clip(1e-7)))),
    }


def _saliency(net: SSNet, shown: list[Scene]) -> dict[str, float]:
    found = _by_role(net, shown)
    found["v_gap"] = found["v_salient"] - found["v_beside"]
    measures = {name: SaliencyMeasure() for name in ("", "_no_sam", "_best_v")}
    pixels = {kind: np.zeros(4) for kind in (0, 1)}  # of it, found, either, background
    for scene, p in zip(shown, _predictions(net, shown), strict=True):
        role, mask = roles(scene), (scene.saliency_mask * 255).astype(np.uint8)
        objects = p.probs[1:]
        best = np.einsum("c,chw->hw", (role != 0).astype(np.float32), objects)
        maps = (p.sal_map, 1 - p.probs[0], best)
        for measure, sal in zip(measures.values(), maps, strict=True):
            measure.update(np.asarray(to_grey(sal.clip(0, 1))), mask)
        for c in np.flatnonzero(role >= 0):
            true, got = scene.class_mask == c + 1, p.segmentation == c + 1
            lost = p.segmentation[true] == 0
            either = (true | got).sum()
            pixels[role[c]] += true.sum(), (true & got).sum(), either, lost.sum()
    for name, measure in measures.items():
        scores = measure.compute()
        found |= {f"mae{name}": scores.mae, f"max_f{name}": scores.max_f}
    for name, kind in (("salient", 1), ("beside", 0)):
        total, hit, either, lost = pixels[kind]
        found |= {f"recall_{name}": hit / total, f"iou_{name}": hit / either}
        found[f"to_background_{name}"] = lost / total
    return found


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


class TrialObjective(Objective):
    """`Objective` with the terms that `Trial` lists; `step` is set by `TrialLoop`."""

    step, changes = 0, {}

    def forward(self, batch):
        """See `Objective`; L_c on means of H is not among the trials."""
        changes, saliency = self.changes, "sal_mask" in batch
        out = self.net(batch["image"], full_size=saliency)
        if saliency:
            return {"L_s1": saliency_loss(out, batch["sal_mask"])}
        begun = "late_evidence" in changes and self.step >= changes.get("late_from", 0)
        late, loss = changes.get("late_mix", 1.0) if begun else 0, 0
        if late < 1:
            recipe = self.recipe
            loss = (1 - late) * class_loss(
                out,
                batch["labels"],
                reading=recipe.class_evidence,
                share=recipe.evidence_share,
            )
        if late > 0:
            reading, share = changes["late_evidence"], changes.get("late_share", 1.0)
            loss = loss + late * self._late_loss(out, batch["labels"], reading, share)
        return {"L_c": self.recipe.class_weight * loss}

    @staticmethod
    def _late_loss(out: SSNetOutput, labels, reading: str, share: float):
        if reading == "top_probs":
            log_t = top_probs(out, share)
            return -(labels * log_t.yes + (1 - labels) * log_t.no).sum(1).mean()
        return class_loss(out, labels, reading=reading, share=share)


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


class TrialLoop(Loop):
    """A plain loop that carries a trial's changes into objective and optimizer."""

    def __init__(self, changes: dict, **options):
        super().__init__(**options)
        self.changes = changes

    def prepare(self, objective, optimizer):
        """See `Loop`."""
        objective.__class__ = TrialObjective
        objective.changes = self.changes
        self.objective, (_, sam) = objective, optimizer.param_groups
        sam["weight_decay"] = self.changes.get("sam_decay", sam["weight_decay"])
        return objective, optimizer

    def after_step(self, net, record):
        """See `Loop`."""
        super().after_step(net, record)
        self.objective.step = record["step"] + 1


class StandardisingLoop(Loop):
    """A plain loop that puts a batch norm in front of the SAM."""

    def place(self, net, profile, losses):
        """See `Loop`."""
        net.sam = StandardisedSAM(net.sam)
        super().place(net, profile, losses)


def split_changes(changes: dict) -> tuple[Recipe, dict]:
    """The recipe with its fields changed, and what is no field of a recipe."""
    known = {f.name for f in fields(Recipe)}
    own = {key: value for key, value in changes.items() if key in known}
    return replace(STEADY, **own), {k: v for k, v in changes.items() if k not in known}


def run_trial(trial: Trial, profile: Profile, limit: int | None = None) -> dict:
    """Train and measure a trial; its row of the results.

    Raises:
        JswsError: data or weights are missing or broken, or a loss is not finite.
    """
    recipe, changes = split_changes(trial.changes)
    seed_everything(trial.seed)
    if trial.start:
        net = load_ssnet(shipped(trial.start))[0]
    else:
        count = len(categories(profile.data / profile.voc))
        shape = {"backbone": profile.backbone, "size": profile.size, "categories": count}
        net = build_ssnet(1, recipe=recipe, **shape)
    if changes.get("sam_norm"):
        net.sam = StandardisedSAM(net.sam)
    elif changes.get("sam_fresh"):
        net.sam.conv.reset_parameters()
    start, loop = time.perf_counter(), TrialLoop(changes)
    options = {"profile": profile, "recipe": recipe, "seed": trial.seed}
    train(net, SETTINGS["M"].losses, **options, steps=trial.steps, loop=loop)
    row = {"trial": trial.name, "setting": "M", "seed": trial.seed, "steps": trial.steps}
    row |= {"changes": trial.changes, "start": trial.start, "expected": trial.expected}
    row |= {"happened": "", **sam_measures(net, profile, limit)}
    last = loop.history[-50:]
    names = [name for name in last[0] if name not in ("step", "lr")]
    row["loss"] = {n: round(float(np.mean([r[n] for r in last])), 4) for n in names}
    if trial.student:
        student = train_student(net, profile, recipe, trial)
        row["student"] = sam_measures(student, profile, limit)
    return row | {"seconds": round(time.perf_counter() - start)}


def train_student(teacher: SSNet, profile: Profile, recipe: Recipe, trial: Trial) -> SSNet:
    """M-M from a trial's M, its SAM standardised if the teacher's is."""
    norm = trial.changes.get("sam_norm")
    with tempfile.TemporaryDirectory() as folder:
        given = {"profile": profile, "recipe": recipe}
        labels = make_pseudo_labels(teacher, **given, out=Path(folder) / "labels")
        loop = StandardisingLoop() if norm else None
        return train_stage2("MM", teacher, labels, **given, seed=trial.seed, loop=loop)


def main(trials: Iterable[Trial] = TRIALS, file: Path = FILE):
    """Run the trials that have no row yet."""
    for trial in trials:
        if (trial.name, trial.seed) not in {(r["trial"], r["seed"]) for r in known(file)}:
            append(file, run_trial(trial, get_profile("mini")), words=WORDS)


if __name__ == "__main__":
    main()
