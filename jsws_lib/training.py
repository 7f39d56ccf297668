"""Training of both stages (Sections 3.4 and 4.1): one loop, whichever losses it gets."""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, batches
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.voc import read_ids
from jsws_lib.config import Profile, Recipe, Schedule
from jsws_lib.losses import class_loss, pseudo_label_loss, saliency_loss
from jsws_lib.ssnet import SSNet

SAVE_EVERY = 250  # steps between resume points


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


def make_optimiser(net: nn.Module, schedule: Schedule, *,
                   sam_rate: float | None = None) -> torch.optim.Optimizer:  # fmt: skip
    """Adam, or AdamW, with the SAM in a parameter group of its own.

    Args:
        net: an SSNet, or any module for `sam_rate=None`.
        schedule: names the optimiser and its settings.
        sam_rate: see `Recipe`; a group's key `scale` multiplies its learning rate.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[schedule.optimiser]
    groups = [{"params": list(net.parameters()), "scale": 1.0}]
    if sam_rate is not None:
        sam = list(net.sam.parameters())
        rest = [p for name, p in net.named_parameters() if not name.startswith("sam.")]
        scale = sam_rate / net.sam.conv.kernel_size[0]
        groups = [{"params": rest, "scale": 1.0}, {"params": sam, "scale": scale}]
    return kind(groups, lr=schedule.lr, betas=schedule.betas,
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
            out, batch["labels"], reading=recipe.class_evidence,
            share=recipe.evidence_share,
        )  # fmt: skip
    if "L_s2" in losses:
        values["L_s2"] = pseudo_label_loss(out, batch["pseudo_label"])
    return values


def losses_on_saliency_set(net: SSNet, batch: dict, recipe: Recipe) -> dict:
    """One forward on D_s: L_s1."""
    out = net(batch["image"])
    reading = recipe.saliency_reading
    return {"L_s1": saliency_loss(out, batch["sal_mask"], reading=reading)}


def class_set(profile: Profile, recipe: Recipe, *, seed: int = 0,
              pseudo_labels: Path | None = None) -> ClassificationSet:  # fmt: skip
    """D_c as a profile and a recipe want it augmented."""
    return ClassificationSet(
        profile.data / profile.voc, profile.train_list, seed=seed,
        augmentation=_augmentation(profile, recipe), pseudo_labels=pseudo_labels,
        leaky_labels=recipe.leaky_labels, cache=profile.cache,
    )  # fmt: skip


def saliency_set(profile: Profile, recipe: Recipe, *, seed: int = 0) -> SaliencySet:
    """D_s as a profile and a recipe want it augmented."""
    ids = profile.saliency_list and read_ids(profile.data / profile.saliency_list)
    return SaliencySet(
        profile.data / profile.saliency_images, profile.data / profile.saliency_masks,
        ids=ids, seed=seed, augmentation=_augmentation(profile, recipe),
        cache=profile.cache,
    )  # fmt: skip


def _augmentation(profile: Profile, recipe: Recipe) -> Augmentation:
    return Augmentation(profile.size, profile.crop, recipe.flip, recipe.rotate)


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
    optimiser, history = make_optimiser(net, schedule, sam_rate=recipe.sam_rate), []
    if resume_file and resume_file.is_file():
        history = _resume(resume_file, net, optimiser, tag)
    start = len(history)
    run = dict(steps=steps, start=start, workers=profile.workers)
    class_batches = saliency_batches = None
    if {"L_c", "L_s2"} & set(losses):
        class_data = class_set(profile, recipe, seed=2 * seed, pseudo_labels=pseudo_labels)
        class_batches = iter(batches(class_data, profile.batch_class, seed=2 * seed, **run))
    if "L_s1" in losses:
        other = 2 * seed + 1  # or image k of one set would always meet image k of the other
        saliency_data = saliency_set(profile, recipe, seed=other)
        saliency_batches = iter(
            batches(saliency_data, profile.batch_saliency, seed=other, **run)
        )

    bar = tqdm(range(start, steps), initial=start, total=steps, desc=title, leave=False)
    for step in bar:
        # A plain float: torch.load refuses NumPy's when a run is taken up again.
        rate = float(learning_rate(schedule, step, steps))
        if schedule.reset_moments and step and step % schedule.every == 0:
            optimiser = make_optimiser(net, schedule, sam_rate=recipe.sam_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
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
