"""Training of both stages (Sections 3.4 and 4.1), one loop for the six settings.

| setting | network | losses        | pseudo labels of | Table      |
|---------|---------|---------------|------------------|------------|
| S       | SSNet-1 | L_c           |                  | 5          |
| M       | SSNet-1 | L_c + L_s1    |                  | 5          |
| SS      | SSNet-2 | L_s2          | S                | 5          |
| MS      | SSNet-2 | L_s2          | M                | 5          |
| MM      | SSNet-2 | L_s1 + L_s2   | M                | 5, 6       |
| 2S      | SSNet-2 | L_s1          |                  | 6          |
"""

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, batches
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.voc import read_ids
from jsws_lib.backbones import MINI_WEIGHTS
from jsws_lib.checkpoints import (
    describe,
    load_ssnet,
    recipe_fields,
    save_weights,
    sha256,
    shipped,
)
from jsws_lib.config import ROOT, Profile, Recipe, Schedule
from jsws_lib.losses import class_loss, pseudo_label_loss, saliency_loss
from jsws_lib.pseudo_labels import make_pseudo_labels
from jsws_lib.ssnet import SSNet, build_ssnet


@dataclass(frozen=True)
class Setting:
    """One column of Tables 5 and 6."""

    stage: int
    losses: tuple[str, ...]
    teacher: str | None = None  # the setting whose pseudo labels L_s2 uses


SETTINGS = {
    "S": Setting(1, ("L_c",)),
    "M": Setting(1, ("L_c", "L_s1")),
    "SS": Setting(2, ("L_s2",), "S"),
    "MS": Setting(2, ("L_s2",), "M"),
    "MM": Setting(2, ("L_s1", "L_s2"), "M"),
    "2S": Setting(2, ("L_s1",)),
}
SAVE_EVERY = 250  # steps between resume points


class Trained(NamedTuple):
    """What training, or loading, gives."""

    net: SSNet  # in evaluation mode
    history: list[dict[str, float]]  # step, lr and losses; averaged if loaded
    source: str  # "trained", "loaded from ..." or "shipped"


def seed_everything(seed: int):
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device() -> torch.device:
    """What `$JSWS_DEVICE` names, else CUDA, else Apple's MPS, else the CPU."""
    if os.environ.get("JSWS_DEVICE"):
        return torch.device(os.environ["JSWS_DEVICE"])
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def make_optimiser(net: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Adam, or AdamW."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[schedule.optimiser]
    return kind(net.parameters(), lr=schedule.lr, betas=schedule.betas,
                weight_decay=schedule.weight_decay)  # fmt: skip


def learning_rate(schedule: Schedule, step: int, steps: int) -> float:
    """The rate at a step: a staircase (Section 4.1), or one cosine rise and fall."""
    if schedule.kind == "step":
        return schedule.lr * schedule.decay ** (step // schedule.every)
    warm = max(1, round(0.15 * steps))
    if step < warm:
        return schedule.lr * (step + 1) / warm
    return schedule.lr * 0.5 * (1 + np.cos(np.pi * (step - warm) / (steps - warm)))


def losses_on_class_set(net: SSNet, batch: dict, losses, recipe: Recipe) -> dict:
    """One forward on D_c: L_c, L_s2, or both."""
    full_size = "L_s2" in losses or recipe.class_evidence == "mean_probs"
    out, values = net(batch["image"], full_size=full_size), {}
    if "L_c" in losses:
        values["L_c"] = recipe.class_weight * class_loss(
            out, batch["labels"], reading=recipe.class_evidence
        )
    if "L_s2" in losses:
        values["L_s2"] = pseudo_label_loss(out, batch["pseudo_label"])
    return values


def losses_on_saliency_set(net: SSNet, batch: dict, recipe: Recipe) -> dict:
    """One forward on D_s: L_s1."""
    out = net(batch["image"])
    reading = recipe.saliency_reading
    return {"L_s1": saliency_loss(out, batch["sal_mask"], reading=reading)}


def train(net: SSNet, losses: tuple[str, ...], *, profile: Profile, recipe: Recipe,
          seed: int = 0, steps: int | None = None, pseudo_labels: Path | None = None,
          resume_file: Path | None = None, tag: str = "",
          on_step: Callable[[int, SSNet, dict], None] | None = None,
          title: str = "training") -> list[dict[str, float]]:  # fmt: skip
    """Train a network in place.

    The two sets go through the network one after the other, and each graph is freed by
    its own backward pass: batch norm sees one kind of image at a time, and memory holds
    one graph.

    Args:
        net: SSNet-1 or SSNet-2.
        losses: any of "L_c", "L_s1", "L_s2".
        profile, recipe: settings.
        seed: of the order of images and of the crops.
        steps: instead of the profile's.
        pseudo_labels: folder of `<id>.png`, for L_s2.
        resume_file: written every `SAVE_EVERY` steps; if it exists, training goes on
            from there.
        tag: names the run in the resume file; another run's is refused.
        on_step: called after each step with step, network and the step's record.
        title: of the progress bar.

    Returns:
        one record per step: step, lr and each loss as it was minimised, L_c with its
        weight.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    device = pick_device()
    steps = steps or profile.steps[net.stage - 1]
    schedule = (recipe.schedules or profile.schedules)[net.stage - 1]
    if recipe.stage2_class_loss and net.stage == 2 and "L_s2" in losses:
        losses = ("L_c", *losses)
    net.to(device, memory_format=torch.channels_last).train()
    optimiser, history = make_optimiser(net, schedule), []
    if resume_file and resume_file.is_file():
        history = _resume(resume_file, net, optimiser, tag)
    start = len(history)
    augmentation = Augmentation(profile.size, profile.crop, recipe.flip, recipe.rotate)
    shared = dict(augmentation=augmentation, cache=profile.cache)
    run = dict(steps=steps, start=start, seed=seed, workers=profile.workers)
    class_batches = saliency_batches = None
    if {"L_c", "L_s2"} & set(losses):
        class_set = ClassificationSet(
            profile.data / profile.voc, profile.train_list, seed=2 * seed,
            pseudo_labels=pseudo_labels, leaky_labels=recipe.leaky_labels, **shared,
        )  # fmt: skip
        class_batches = iter(batches(class_set, profile.batch_class, **run))
    if "L_s1" in losses:
        saliency_set = SaliencySet(
            profile.data / profile.saliency_images, profile.data / profile.saliency_masks,
            ids=profile.saliency_list and read_ids(profile.data / profile.saliency_list),
            seed=2 * seed + 1, **shared,
        )  # fmt: skip
        saliency_batches = iter(batches(saliency_set, profile.batch_saliency, **run))

    bar = tqdm(range(start, steps), initial=start, total=steps, desc=title, leave=False)
    for step in bar:
        # A plain float: torch.load refuses NumPy's when a run is taken up again.
        rate = float(learning_rate(schedule, step, steps))
        if schedule.reset_moments and step and step % schedule.every == 0:
            optimiser = make_optimiser(net, schedule)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        values = {}
        if class_batches:
            batch = _to(_next(class_batches), device)
            values |= _backward(losses_on_class_set(net, batch, losses, recipe), step)
        if saliency_batches:
            batch = _to(_next(saliency_batches), device)
            values |= _backward(losses_on_saliency_set(net, batch, recipe), step)
        optimiser.step()
        history.append({"step": step, "lr": rate, **values})
        shown = {name: f"{value:.3f}" for name, value in values.items()}
        bar.set_postfix(shown, refresh=False)  # in a notebook each refresh costs messages
        if on_step:
            on_step(step, net, history[-1])
        if resume_file and (step + 1) % SAVE_EVERY == 0 and step + 1 < steps:
            _save_resume(resume_file, net, optimiser, history, tag)
    net.eval()
    return history


def _next(loader) -> dict:
    try:
        return next(loader)
    except JswsError as error:
        # A loader process wraps its error in a traceback; the last line is ours.
        words = str(error).strip().rpartition("JswsError: ")[2]
        raise JswsError(words) from None


def _to(batch: dict, device: torch.device) -> dict:
    batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def _backward(values: dict[str, torch.Tensor], step: int) -> dict[str, float]:
    total = sum(values.values())
    if not torch.isfinite(total):
        raise JswsError(
            f"the loss is {total.item()} at step {step}; lower the learning rate"
        )
    total.backward()
    return {name: value.item() for name, value in values.items()}


def _resume(path: Path, net: SSNet, optimiser, tag: str) -> list[dict]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["tag"] != tag:
            raise ValueError(f"it belongs to {state['tag']}, not to {tag}")
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        return state["history"]
    except Exception as error:  # torch raises a different one for each kind of damage
        raise JswsError(
            f"{path} is not a resume point of this network "
            f"({str(error).splitlines()[0]}); delete it to start anew"
        ) from None


def _save_resume(path: Path, net: SSNet, optimiser, history: list[dict], tag: str):
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
    file = io.BytesIO()
    torch.save({**state, "history": history, "tag": tag}, file)
    write_bytes(path, file.getvalue())


def run_folder(setting: str, *, profile: Profile, recipe: Recipe, seed: int = 0,
               given: dict | None = None) -> Path:  # fmt: skip
    """Where a run lives: `runs/<profile>-<recipe>-<setting>-<seed>-<digest>`.

    The digest covers every setting that changes the result, the embedded data's seed,
    the mini backbone's weights and whatever stage 2 is `given`, so two different runs
    never share a folder.
    """
    fields = asdict(profile) | {"recipe": recipe_fields(recipe), "given": given or {}}
    fields |= {"workers": None, "cache": None, "data": _data_identity(profile.data)}
    if (profile.backbone, profile.weights) == ("densenet_mini", "default"):
        fields["weights"] = sha256(MINI_WEIGHTS)
    if SETTINGS[setting].stage == 1:
        fields["steps"] = fields["steps"][:1]
        fields["schedules"] = fields["schedules"][:1]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
    parts = (profile.name, recipe.name, setting, seed, digest)
    return ROOT / "runs" / "-".join(map(str, parts))


def _data_identity(root: Path):
    """How embedded data were drawn, wherever they lie; for other data their folder."""
    note = root / "mini.json"
    if not note.is_file():
        return str(root.resolve())
    drawn = json.loads(note.read_text())["parameters"]
    return {name: drawn[name] for name in ("seed", "size", "images")}


def train_or_load(setting: str, *, profile: Profile, recipe: Recipe, seed: int = 0,
                  out: Path | None = None, teacher: Path | None = None,
                  pseudo_labels: Path | None = None) -> Trained:  # fmt: skip
    """Give a trained network: from an earlier run, from the repository, or by training.

    The shipped checkpoints serve the unchanged `mini` profile, recipe and seed they were
    trained with, unless `JSWS_TRAIN=1`. Stage 2 sees to its teacher and pseudo labels.

    Args:
        setting: key of `SETTINGS`.
        profile, recipe, seed: what to train.
        out: run folder, instead of `run_folder(...)`.
        teacher: stage-1 checkpoint for stage 2, instead of the setting's own.
        pseudo_labels: finished folder of them, instead of making them.

    Raises:
        JswsError: unknown setting, missing data, broken checkpoint.
    """
    if setting not in SETTINGS:
        raise JswsError(
            f"unknown setting '{setting}'; choose from {', '.join(SETTINGS)}"
        )
    given = {}
    if teacher:
        given["teacher"] = load_ssnet(teacher)[1].get("run", str(teacher))
    if pseudo_labels:
        given["pseudo_labels"] = str(Path(pseudo_labels).resolve())
    run = run_folder(setting, profile=profile, recipe=recipe, seed=seed, given=given)
    folder = out or run
    file = folder / "weights.safetensors"
    if file.is_file():
        net, story = load_ssnet(file, device=pick_device())
        if story.get("run") != run.name:
            raise JswsError(
                f"{folder} holds the finished run {story.get('run')}, but {run.name} is "
                "asked for (another setting, profile, recipe, seed or teacher); choose "
                "another folder, or delete this one"
            )
        source = f"loaded from {folder.parent.name}/{folder.name}"
        return Trained(net, story["history"], source)
    if os.environ.get("JSWS_TRAIN") != "1" and out is None:
        path = shipped(f"{profile.name}_{setting}")
        if path:
            net, story = load_ssnet(path, device=pick_device())
            if story["run"] == run.name:
                return Trained(net, story["history"], f"shipped as {path.name}")

    plan, first = SETTINGS[setting], None
    if plan.teacher:
        if teacher:
            expect = {"stage": 1}
            if recipe.stage2_init == "ssnet1":  # its features are taken over
                expect["backbone"] = profile.backbone
            first, _ = load_ssnet(teacher, expect=expect, device=pick_device())
            where = folder / "pseudo_labels"
        else:
            first = train_or_load(
                plan.teacher, profile=profile, recipe=recipe, seed=seed
            ).net
            where = pseudo_label_folder(plan.teacher, profile, recipe, seed)
        pseudo_labels = pseudo_labels or make_pseudo_labels(
            first, profile=profile, recipe=recipe, out=where
        )
    seed_everything(seed)
    inherit = first is not None and recipe.stage2_init == "ssnet1"
    weights = None if inherit else profile.weights
    net = build_ssnet(plan.stage, backbone=profile.backbone, size=profile.size,
                      recipe=recipe, weights=weights)  # fmt: skip
    if inherit:
        net.backbone.load_state_dict(first.backbone.state_dict())
    history = train(net, plan.losses, profile=profile, recipe=recipe, seed=seed,
                    pseudo_labels=pseudo_labels, resume_file=folder / "resume.pt",
                    tag=run.name,
                    title=f"{setting} ({' + '.join(plan.losses)})")  # fmt: skip
    story = describe(net, setting=setting, backbone=profile.backbone, seed=seed,
                     recipe=recipe_fields(recipe), profile=profile.name,
                     run=run.name, history=thin(history))  # fmt: skip
    if plan.stage == 1 and out is None:  # those labels came from other, shipped weights
        shutil.rmtree(folder / "pseudo_labels", ignore_errors=True)
    save_weights(file, net, story)
    (folder / "resume.pt").unlink(missing_ok=True)
    return Trained(net, history, "trained")


def pseudo_label_folder(teacher: str, profile: Profile, recipe: Recipe,
                        seed: int = 0) -> Path:  # fmt: skip
    """Where the pseudo labels of a stage-1 run lie."""
    run = run_folder(teacher, profile=profile, recipe=recipe, seed=seed)
    return run / "pseudo_labels"


def thin(history: list[dict], points: int = 100) -> list[dict]:
    """Average a history down to about `points` records, to store with the weights."""
    chunk = max(1, len(history) // points)
    return [
        {k: round(float(np.mean([r[k] for r in part])), 6) for k in part[0]}
        for part in (history[i : i + chunk] for i in range(0, len(history), chunk))
    ]
