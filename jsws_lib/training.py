"""Training of both stages (Sections 3.4 and 4.1): one loop, whichever losses it gets.

What `train` comes to, in stage 1 with the paper's readings:

    for step in range(steps):
        set_rate(optimizer, schedule, step, steps)
        optimizer.zero_grad()
        class_loss(net(images_c), labels).backward()  # a batch of D_c
        saliency_loss(net(images_s), sal_mask).backward()  # a batch of D_s
        optimizer.step()

A `Loop` is what surrounds these lines: device, progress, records.
"""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, batches
from data_utils.errors import JswsError
from data_utils.parallel import process_share
from data_utils.voc import VOID, read_ids
from jsws_lib.config import Profile, Recipe, Schedule
from jsws_lib.losses import class_loss, pseudo_label_loss, saliency_loss
from jsws_lib.ssnet import SSNet


def train(
    net: SSNet,
    losses: tuple[str, ...],
    *,
    profile: Profile,
    recipe: Recipe,
    seed: int = 0,
    steps: int | None = None,
    pseudo_labels: Path | None = None,
    loop: "Loop | None" = None,
    title: str = "training",
) -> list[dict[str, float]]:
    """Train a network in place.

    The two sets go through the network one after the other, and each graph is freed by
    its own backward pass: batch norm sees one kind of image at a time, and memory holds
    one graph.

    Args:
        net: SSNet-1 or SSNet-2; afterwards in evaluation mode.
        losses: any of "L_c", "L_s1", "L_s2".
        profile, recipe: settings.
        seed: of the order of images and of the crops.
        steps: instead of the profile's.
        pseudo_labels: folder of `<id>.png`, for L_s2.
        loop: what surrounds the steps; default a plain `Loop`.
        title: of the progress bar.

    Returns:
        one record per step: step, lr and each loss as it was minimised, L_c with its
        weight.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    loop = loop or Loop()
    steps = profile.steps[net.stage - 1] if steps is None else steps
    schedule = (recipe.schedules or profile.schedules)[net.stage - 1]
    loop.place(net, profile, losses)
    optimizer = make_optimizer(net, schedule, sam_rate=recipe.sam_rate)
    objective, optimizer = loop.prepare(Objective(net, losses, recipe), optimizer)
    sets = training_sets(losses, profile, recipe, seed=seed, pseudo_labels=pseudo_labels)
    streams = [draw(one, profile, steps, start=loop.done) for one in sets]
    with loop.running(steps, title) as numbers:
        for step in numbers:
            rate = set_rate(optimizer, schedule, step, steps)
            batch = [next(stream) for stream in streams]  # of D_c, of D_s
            optimizer.zero_grad()
            values = {}
            for one in batch:  # `Loop`: sum(objective(one).values()).backward()
                values |= loop.backward(objective, one, last=one is batch[-1])
            if not all(map(math.isfinite, values.values())):
                loop.stop(step, values, sets, batch)  # the weights are still whole
            optimizer.step()
            loop.after_step(net, {"step": step, "lr": rate, **values})
    net.eval()
    return loop.history


class Objective(nn.Module):
    """A network with its losses: a batch of D_c or of D_s in, the losses on it out."""

    def __init__(self, net: SSNet, losses: tuple[str, ...], recipe: Recipe):
        super().__init__()
        self.net, self.losses, self.recipe = net, losses, recipe

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scalars by name; a batch of D_c has `labels`, one of D_s a `sal_mask`."""
        recipe = self.recipe
        if "sal_mask" in batch:
            out = self.net(batch["image"])
            reading = recipe.saliency_reading
            return {"L_s1": saliency_loss(out, batch["sal_mask"], reading=reading)}
        # Only these two look at H at the image's size.
        full_size = "L_s2" in self.losses or recipe.class_evidence == "mean_probs"
        out, values = self.net(batch["image"], full_size=full_size), {}
        if "L_c" in self.losses:
            reading, share = recipe.class_evidence, recipe.evidence_share
            loss = class_loss(out, batch["labels"], reading=reading, share=share)
            values["L_c"] = recipe.class_weight * loss
        if "L_s2" in self.losses:
            values["L_s2"] = pseudo_label_loss(out, batch["pseudo_label"])
        return values


class Loop:
    """What surrounds the steps: here one device, float32 and a progress bar.

    `engine.loop.RunLoop` adds processes, precision, resume points and logs.

    Args:
        on_step: called after each step with step, network and the step's record.
    """

    def __init__(self, *, on_step: Callable[[int, SSNet, dict], None] | None = None):
        self.on_step, self.history = on_step, []

    @property
    def done(self) -> int:
        """How many steps were done when this training began, or goes on."""
        return len(self.history)

    def place(self, net: SSNet, profile: Profile, losses: tuple[str, ...]):
        """Bring the network to where it trains.

        Raises:
            JswsError: the profile asks for what only `engine.loop.RunLoop` does.
        """
        plain = profile.precision in ("float32", "auto") and profile.accumulate == 1
        if not plain or profile.checkpointing or profile.compile:
            raise JswsError(
                "the plain loop has float32 alone, and none of accumulate, checkpointing "
                "and compile; give train(...) a jsws_lib.engine.loop.RunLoop"
            )
        net.to(memory_format=torch.channels_last).train()

    def prepare(self, objective: Objective, optimizer: torch.optim.Optimizer):
        """Objective and optimizer, wrapped in whatever shares their work."""
        return objective, optimizer

    def running(self, steps: int, title: str) -> tqdm:
        """The numbers of the steps that are still to do, behind a progress bar."""
        self.bar = tqdm(
            range(self.done, steps),
            initial=self.done,
            total=steps,
            desc=title,
            leave=False,
            mininterval=1,
            disable=process_share()[0] > 0,
        )
        return self.bar

    def backward(self, objective, batch: dict, *, last: bool = True) -> dict[str, float]:
        """The losses on one batch; their gradients are added to the weights'."""
        device = next(objective.parameters()).device
        values = objective(to_device(batch, device))
        sum(values.values()).backward()
        return {name: value.item() for name, value in values.items()}

    def stop(self, step: int, values: dict, sets: list[Dataset], batch: list[dict]):
        """Raise JswsError: a loss is not finite."""
        labels = next((x["pseudo_label"] for x in batch if "pseudo_label" in x), None)
        advice = "lower the learning rate"
        if labels is not None and bool((labels == VOID).all()):
            advice = "every pixel of the batch's pseudo labels is void: make them anew"
        raise JswsError(f"the loss is {sum(values.values())} at step {step}; {advice}")

    def after_step(self, net: SSNet, record: dict[str, float]):
        """Keep a step's record, and show it."""
        self.history.append(record)
        shown = {k: f"{v:.3f}" for k, v in record.items() if k not in ("step", "lr")}
        self.bar.set_postfix(shown, refresh=False)  # refreshing costs a notebook messages
        if self.on_step:
            self.on_step(record["step"], net, record)


# --- the learning rate -----------------------------------------------------------------


def learning_rate(schedule: Schedule, step: int, steps: int) -> float:
    """The rate at a step: a staircase (Section 4.1), or one cosine rise and fall."""
    if schedule.kind == "step":
        return schedule.lr * schedule.decay ** (step // schedule.every)
    warm = max(1, round(0.15 * steps))
    if step < warm:
        return schedule.lr * (step + 1) / warm
    return schedule.lr * 0.5 * (1 + np.cos(np.pi * (step - warm) / (steps - warm)))


def set_rate(optimizer, schedule: Schedule, step: int, steps: int) -> float:
    """Give the optimizer a step's rate, each group its multiple of it; returns the rate."""
    decays = schedule.kind == "step" and step and step % schedule.every == 0
    if schedule.reset_moments and decays:
        optimizer.state.clear()
    # A plain float: torch.load refuses NumPy's when a run is taken up again.
    rate = float(learning_rate(schedule, step, steps))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def make_optimizer(
    net: nn.Module, schedule: Schedule, *, sam_rate: float | None = None
) -> torch.optim.Optimizer:
    """Adam, or AdamW, with the SAM in a parameter group of its own.

    Args:
        net: an SSNet, or any module for `sam_rate=None`.
        schedule: names the optimizer and its settings.
        sam_rate: see `Recipe`; a group's key `scale` multiplies its learning rate.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[schedule.optimizer]
    groups = [{"params": list(net.parameters()), "scale": 1.0}]
    if sam_rate is not None:
        sam = list(net.sam.parameters())
        rest = [p for name, p in net.named_parameters() if not name.startswith("sam.")]
        scale = sam_rate / net.sam.conv.kernel_size[0]
        groups = [{"params": rest, "scale": 1.0}, {"params": sam, "scale": scale}]
    fused = next(net.parameters()).is_cuda  # one kernel for all weights
    return kind(
        groups,
        lr=schedule.lr,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=fused or None,
    )


# --- the two training sets -------------------------------------------------------------


def training_sets(
    losses: tuple[str, ...],
    profile: Profile,
    recipe: Recipe,
    *,
    seed: int = 0,
    pseudo_labels: Path | None = None,
) -> list[Dataset]:
    """D_c and D_s as far as the losses need them, augmented as the settings say."""
    augmentation = Augmentation(profile.size, profile.crop, recipe.flip, recipe.rotate)
    common, sets = {"augmentation": augmentation, "cache": profile.cache}, []
    if {"L_c", "L_s2"} & set(losses):
        voc = profile.data / profile.voc
        given = {"pseudo_labels": pseudo_labels, "leaky_labels": recipe.leaky_labels}
        own = ClassificationSet(voc, profile.train_list, seed=2 * seed, **given, **common)
        sets.append(own)
    if "L_s1" in losses:
        images, masks = profile.saliency_images, profile.saliency_masks
        ids = profile.saliency_list and read_ids(profile.data / profile.saliency_list)
        other = 2 * seed + 1  # or image k of one set would always meet image k of the other
        folders = profile.data / images, profile.data / masks
        sets.append(SaliencySet(*folders, ids=ids, seed=other, **common))
    return sets


def draw(data: Dataset, profile: Profile, steps: int, *, start: int = 0) -> Iterator[dict]:
    """The batches of a training set, from step `start` on.

    Raises:
        JswsError: a picture is missing or broken.
    """
    on_classes = isinstance(data, ClassificationSet)
    size = profile.batch_class if on_classes else profile.batch_saliency
    run = {"steps": steps, "start": start, "workers": profile.workers}
    try:
        yield from batches(data, size, seed=data.seed, share=process_share(), **run)
    except JswsError as error:
        # A loader process wraps its error in a traceback; the last line is ours.
        words = str(error).strip().rpartition("JswsError: ")[2]
        raise JswsError(words) from None


def to_device(batch: dict, device: torch.device) -> dict:
    """A batch on a device, its images with their channels last."""
    batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def seed_everything(seed: int):
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
