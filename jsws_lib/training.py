"""Training of both stages (Sections 3.4 and 4.1): one loop, whichever losses it gets."""

import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, batches
from data_utils.errors import JswsError
from data_utils.parallel import process_share
from data_utils.voc import read_ids
from jsws_lib.config import Profile, Recipe, Schedule
from jsws_lib.devices import make_accelerator, share_batch_norm
from jsws_lib.losses import class_loss, pseudo_label_loss, saliency_loss
from jsws_lib.resume import Log, keep_evidence, load_point, save_point
from jsws_lib.ssnet import SSNet

SAVE_EVERY, SAVE_AFTER = 250, 300  # steps and seconds from one resume point to the next


def seed_everything(seed: int):
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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
    fused = next(net.parameters()).is_cuda  # one kernel for all weights
    return kind(groups, lr=schedule.lr, betas=schedule.betas,
                weight_decay=schedule.weight_decay, fused=fused or None)  # fmt: skip


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


class Objective(nn.Module):
    """A network with its losses: what processes share and a compiler sees as a whole.
    """

    def __init__(self, net: SSNet, losses: tuple[str, ...], recipe: Recipe, *,
                 compiled: bool = False):  # fmt: skip
        super().__init__()
        self.net, self.losses, self.recipe = net, losses, recipe
        self.work = torch.compile(self._values) if compiled else self._values

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The losses on a batch of D_c, which has labels, or of D_s."""
        return self.work(batch)

    def give_up_compiling(self, error: Exception) -> bool:
        """Go on without `torch.compile`; False if that is so already."""
        if self.work == self._values:
            return False
        words = str(error).strip().splitlines()[0]
        tqdm.write(f"torch.compile does not work here ({words}); going on without")
        self.work = self._values
        return True

    def _values(self, batch):
        if "labels" in batch:
            return losses_on_class_set(self.net, batch, self.losses, self.recipe)
        return losses_on_saliency_set(self.net, batch, self.recipe)


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
          folder: Path | None = None, tag: str = "", tracker: str | None = None,
          on_step: Callable[[int, SSNet, dict], None] | None = None,
          title: str = "training") -> list[dict[str, float]]:  # fmt: skip
    """Train a network in place, in one process or in each of several.

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
        folder: of the run, see `resume.py`: gets `log.csv`, and a resume point every
            `SAVE_EVERY` steps and `SAVE_AFTER` seconds, from which training goes on.
        tag: names the run; a resume point of another is refused.
        tracker: a logger that Accelerate knows, such as "tensorboard"; writes to `folder`.
        on_step: called after each step with step, network and the step's record.
        title: of the progress bar.

    Returns:
        one record per step: step, lr and each loss as it was minimised, L_c with its
        weight.

    Raises:
        JswsError: data are missing or broken, a loss is not finite (the images are listed
            in `folder`), the memory or the disk is full.
    """
    steps = steps or profile.steps[net.stage - 1]
    schedule = (recipe.schedules or profile.schedules)[net.stage - 1]
    if recipe.stage2_class_loss and net.stage == 2 and "L_s2" in losses:
        losses = ("L_c", *losses)
    engine = make_accelerator(profile.precision, tracker=tracker, folder=folder,
                              unused="L_s1" not in losses)  # fmt: skip
    main, several = engine.is_main_process, engine.num_processes > 1
    net.to(engine.device, memory_format=torch.channels_last).train()
    net.backbone.checkpointing = profile.checkpointing
    if several:
        share_batch_norm(net)
    objective = Objective(net, losses, recipe, compiled=profile.compile)
    objective, optimiser = engine.prepare(
        objective, make_optimiser(net, schedule, sam_rate=recipe.sam_rate)
    )
    parts = {"net": net, "optimiser": optimiser}
    if engine.scaler:
        parts["scaler"] = engine.scaler
    history = load_point(folder / "resume", tag, **parts) if folder else []
    start, saved = len(history), time.monotonic()
    if start and main:
        tqdm.write(f"going on from step {start} of {steps}")
    loaders = _loaders(losses, profile, recipe, seed, pseudo_labels, steps, start)
    log = Log(folder / "log.csv", history) if folder and main else None
    if tracker:
        engine.init_trackers("tracker")

    bar = tqdm(range(start, steps), initial=start, total=steps, desc=title, leave=False,
               mininterval=1, disable=not main)  # fmt: skip
    try:
        for step in bar:
            # A plain float: torch.load refuses NumPy's when a run is taken up again.
            rate = float(learning_rate(schedule, step, steps))
            if schedule.reset_moments and step and step % schedule.every == 0:
                optimiser.state.clear()
            for group in optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            batch = [_next(loader) for loader in loaders]
            pieces = [p for one in batch for p in _split(one, profile.accumulate)]
            values = _gradients(engine, objective, optimiser, pieces, profile)
            if not all(map(math.isfinite, values.values())):
                _stop(step, values, loaders, batch, folder)  # the weights are still whole
            optimiser.step()
            history.append({"step": step, "lr": rate, **values})
            shown = {name: f"{value:.3f}" for name, value in values.items()}
            bar.set_postfix(shown, refresh=False)  # in a notebook refreshing costs messages
            if log:
                log.add(history[-1])
            engine.log({"lr": rate, **values}, step=step)
            if on_step:
                on_step(step, net, history[-1])
            due = (step + 1) % SAVE_EVERY == 0 or time.monotonic() - saved > SAVE_AFTER
            if log and due and step + 1 < steps:
                save_point(folder / "resume", tag, history, **parts)
                saved = time.monotonic()
    finally:
        if log:
            log.close()
        if tracker:
            engine.end_training()
    net.eval()
    return history


def _loaders(losses, profile: Profile, recipe: Recipe, seed: int, pseudo_labels,
             steps: int, start: int) -> list[Iterable]:  # fmt: skip
    """Batches of D_c and of D_s, as far as the losses need them, from step `start` on."""
    sets = []
    if {"L_c", "L_s2"} & set(losses):
        data = class_set(profile, recipe, seed=2 * seed, pseudo_labels=pseudo_labels)
        sets.append((data, profile.batch_class, 2 * seed))
    if "L_s1" in losses:
        other = 2 * seed + 1  # or image k of one set would always meet image k of the other
        data = saliency_set(profile, recipe, seed=other)
        sets.append((data, profile.batch_saliency, other))
    run = dict(steps=steps, start=start, workers=profile.workers, share=process_share())
    return [_Loader(batches(data, batch, seed=own, **run)) for data, batch, own in sets]


class _Loader:
    """The batches of a set, one after the other, and the names of their images."""

    def __init__(self, loader):
        self.data, self.batches = loader.dataset, iter(loader)

    def names(self, batch: dict) -> list[str]:
        return [self.data.ids[k] for k in batch["index"].tolist()]


def _next(loader: _Loader) -> dict:
    try:
        return next(loader.batches)
    except JswsError as error:
        # A loader process wraps its error in a traceback; the last line is ours.
        words = str(error).strip().rpartition("JswsError: ")[2]
        raise JswsError(words) from None


def _split(batch: dict, parts: int) -> list[dict]:
    """A batch as `parts` smaller ones."""
    count = len(batch["image"])
    if count % parts:
        raise JswsError(f"{count} images of a process's batch cannot be split into {parts} "
                        "equal parts; choose another --accumulate")  # fmt: skip
    cut = {key: value.split(count // parts) for key, value in batch.items()}
    return [dict(zip(cut, values, strict=True)) for values in zip(*cut.values())]  # noqa: B905


def _gradients(engine, objective, optimiser, pieces: list[dict],
               profile: Profile) -> dict[str, float]:  # fmt: skip
    """Sum the gradients of a step; processes exchange them with the last piece.

    Returns:
        each loss, the mean over pieces and processes.
    """
    optimiser.zero_grad()
    values: dict[str, torch.Tensor] = {}
    try:
        for k, piece in enumerate(pieces):
            last = k + 1 == len(pieces)
            with nullcontext() if last else engine.no_sync(objective):
                found = objective(_to(piece, engine.device))
                engine.backward(sum(found.values()) / profile.accumulate)
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / profile.accumulate
    except Exception as error:  # a compiler may raise any kind
        if isinstance(error, MemoryError) or should_reduce_batch_size(error):
            raise JswsError(
                f"out of memory on {engine.device} with {len(pieces[0]['image'])} images "
                f"at a time: ask for --accumulate {2 * profile.accumulate}, the same batch "
                "in smaller parts, for --accumulate auto, or for --checkpointing"
            ) from None
        if engine.unwrap_model(objective).give_up_compiling(error):
            return _gradients(engine, objective, optimiser, pieces, profile)
        raise
    together = engine.reduce(torch.stack(list(values.values())), "mean")
    return dict(zip(values, together.tolist(), strict=True))


def _to(batch: dict, device: torch.device) -> dict:
    batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def _stop(step: int, values: dict, loaders: list[_Loader], batch: list[dict], folder):
    total = sum(values.values())
    words = f"the loss is {total} at step {step}; lower the learning rate"
    if folder:
        images = {type(loader.data).__name__: loader.names(one)
                  for loader, one in zip(loaders, batch, strict=True)}  # fmt: skip
        file = keep_evidence(folder, step=step, values=values, images=images)
        words += f", or look at the images listed in {file}"
    raise JswsError(words)
