"""What an ablation would do and cost, before anything is trained.

Time is measured, not looked up: a few steps of each kind at the size, batch and backbone
asked for, on the images asked for, then multiplied.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import default_collate
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.datasets import (
    Augmentation,
    ClassificationSet,
    read_class_mask,
    read_image,
    read_saliency_mask,
    saliency_pairs,
)
from data_utils.decoded import same_size
from data_utils.errors import JswsError
from data_utils.parallel import available_cores
from data_utils.voc import read_ids
from jsws_lib.ablation import Run, default_jobs, measured
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import crf_saliency, crf_segmentation
from jsws_lib.devices import pick_device
from jsws_lib.runs import SETTINGS, runs_root
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import (
    class_set,
    losses_on_class_set,
    losses_on_saliency_set,
    make_optimiser,
    saliency_set,
)

TIMED = 2  # steps, after one that warms up
SAMPLE = 5  # files of each folder that are opened
GB = 1e9


def describe_plan(runs: Sequence[Run], *, jobs: int | None = None) -> tuple[str, bool]:
    """Say what an ablation would do.

    Args:
        runs: from `ablation.plan`.
        jobs: runs at a time; None for the default of `ablate`.

    Returns:
        the text, and whether everything it needs is there.
    """
    profile, recipe = runs[0].profile, runs[0].recipe
    lines = [f"{len(runs)} runs, profile {profile.name}, recipe {recipe.name}, "
             f"{profile.backbone}, {profile.size} px"]  # fmt: skip
    if profile.name == "paper" and recipe.name != "paper":
        lines.append("the paper's size and schedule, not its reading of the loss; that is "
                     "--recipe paper")  # fmt: skip
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        setting = SETTINGS[own[0].setting]
        seeds = ", ".join(f"{run.seed} ({_state(run)})" for run in own)
        losses, steps = " + ".join(setting.losses), profile.steps[setting.stage - 1]
        lines.append(f"  {name:<12}SSNet-{setting.stage}, {losses}, {steps:,} steps; "
                     f"seed {seeds}")  # fmt: skip

    checks, sizes = check_data(profile)
    lines.append(f"data under {profile.data}")
    lines += [f"  {'ok  ' if fine else 'FAIL'}  {words}" for fine, words in checks]
    ready = all(fine for fine, _ in checks)
    if ready:
        lines += estimate(runs, sizes, jobs=jobs)
    else:
        lines.append("mend the data first; then the dry run measures a few steps")
    return "\n".join(lines), ready


def _state(run: Run) -> str:
    if measured(run) is not None:
        return "done"
    if (run.folder / "weights.safetensors").is_file():
        return "trained, to be measured"
    resumed = any((run.folder / "resume").glob("*.pt"))
    return "interrupted, goes on" if resumed else "to do"


def check_data(p: Profile) -> tuple[list[tuple[bool, str]], dict[str, int]]:
    """Look at every list and folder a profile names, and into a few files of each.

    Returns:
        verdicts as (fine, words), and how many images each of `train`, `saliency`, `val`
        and `test` has.
    """
    voc, sizes = p.data / p.voc, {}

    def train() -> str:
        data = ClassificationSet(voc, p.train_list, augmentation=Augmentation(p.size))
        read_ids(voc / f"ImageSets/Segmentation/{p.train_list}.txt",
                 image_dir=voc / "JPEGImages")  # fmt: skip
        for name in _some(data.ids):
            read_image(voc / "JPEGImages" / f"{name}.jpg")
        sizes["train"], labels = len(data.ids), data.labels
        return (f"{len(data.ids):,} training images with image labels ({p.train_list}), "
                f"{int((labels.sum(0) > 0).sum())} of {labels.shape[1]} categories, "
                f"{labels.sum(1).mean():.2f} labels an image")  # fmt: skip

    def pairs(kind: str, images: str, masks: str, ids: str | None) -> str:
        found = saliency_pairs(p.data / images, p.data / masks,
                               ids=ids and read_ids(p.data / ids))  # fmt: skip
        for image, mask in _some(found):
            same_size(read_image(image), read_saliency_mask(mask), mask)
        sizes[kind] = len(found)
        what = "training" if kind == "saliency" else "test"
        return f"{len(found):,} saliency {what} images with masks ({images})"

    def val() -> str:
        ids = read_ids(voc / f"ImageSets/Segmentation/{p.val_list}.txt",
                       image_dir=voc / "JPEGImages")  # fmt: skip
        masks = [voc / "SegmentationClass" / f"{i}.png" for i in ids]
        if lost := [m for m in masks if not m.is_file()]:
            raise JswsError(f"{len(lost)} masks are missing, the first is {lost[0]}")
        for name, mask in _some(list(zip(ids, masks, strict=True))):
            image = read_image(voc / "JPEGImages" / f"{name}.jpg")
            same_size(image, read_class_mask(mask, count=len(categories(voc))), mask)
        sizes["val"] = len(ids)
        return f"{len(ids):,} validation images with class masks ({p.val_list})"

    looks: list[Callable[[], str]] = [
        train,
        lambda: pairs("saliency", p.saliency_images, p.saliency_masks, p.saliency_list),
        val,
        lambda: pairs("test", p.test_images, p.test_masks, p.test_list),
    ]
    verdicts = []
    for look in looks:
        try:
            verdicts.append((True, look()))
        except JswsError as error:
            verdicts.append((False, str(error)))
    return verdicts, sizes


def _some(things: list) -> list:
    return [things[k] for k in np.linspace(0, len(things) - 1, SAMPLE).astype(int)]


def estimate(runs: Sequence[Run], sizes: dict[str, int], *, jobs=None) -> list[str]:
    """Hours, memory and disk of what is still to do, from a few measured steps."""
    device, jobs = pick_device(), jobs or default_jobs()
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, available_cores() // jobs))
    profile, recipe = runs[0].profile, runs[0].recipe
    try:
        cost = {
            (stage, loss): _seconds_a_step(stage, loss, profile, recipe)
            for stage, loss in tqdm(_kinds(runs), desc="measuring", leave=False)
        }
        memory = _peak_memory(device)
        image, crf = _seconds_an_image(profile, recipe)
    finally:
        torch.set_num_threads(threads)
    todo = [run for run in runs if measured(run) is None]
    seconds = 0.0
    for run in todo:
        setting = SETTINGS[run.setting]
        for loss in setting.losses:
            seconds += run.profile.steps[setting.stage - 1] * cost[setting.stage, loss]
        seconds += sizes["val"] * image
        if "L_s1" in setting.losses:
            seconds += sizes["test"] * (image + crf)
    labelled = sum(run.teaches for run in todo) * sizes["train"]
    seconds += labelled * (image + crf)
    weights = sum(_megabytes(run) for run in todo) / 1e3
    labels = labelled * profile.size**2 / 20 / GB  # PNG, about 1:20
    place = runs_root()
    there = next(p for p in (place, *place.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(there).free / GB
    steps = ", ".join(f"SSNet-{stage} {loss} {value:.2f} s"
                      for (stage, loss), value in cost.items())  # fmt: skip
    return [
        f"measured on {device.type}, {jobs} at a time: a step of {steps}; "
        f"inference {image:.3f} s, CRF {crf:.3f} s an image",
        f"  time    about {seconds / jobs / 3600:.1f} hours for {len(todo)} runs",
        f"  memory  about {memory * (jobs if device.type == 'cpu' else 1):.1f} GB, "
        f"peak, of {'the GPU' if device.type == 'cuda' else 'the machine'}",
        f"  disk    about {weights + labels:.1f} GB ({weights:.1f} weights and resume "
        f"points, {labels:.1f} pseudo labels); {free:.0f} GB are free in {place}",
    ]


def _kinds(runs: Sequence[Run]) -> list[tuple[int, str]]:
    kinds = {(SETTINGS[r.setting].stage, loss): None
             for r in runs for loss in SETTINGS[r.setting].losses}  # fmt: skip
    return list(kinds)


def _network(stage: int, profile: Profile, recipe: Recipe):
    net = build_ssnet(stage, backbone=profile.backbone, size=profile.size,
                      recipe=recipe, weights=None,
                      categories=len(categories(profile.data / profile.voc)))  # fmt: skip
    return net.to(pick_device(), memory_format=torch.channels_last)


def _seconds_a_step(stage: int, loss: str, profile: Profile, recipe: Recipe) -> float:
    """One data set's share of a step: images, forward, backward and update."""
    device, net = pick_device(), _network(stage, profile, recipe).train()
    optimiser = make_optimiser(net, profile.schedules[stage - 1], sam_rate=recipe.sam_rate)
    if loss == "L_s1":
        data, batch = saliency_set(profile, recipe), profile.batch_saliency
    else:
        data, batch = class_set(profile, recipe), profile.batch_class
    workers = max(1, profile.workers)
    elapsed = []
    for step in range(1 + TIMED):
        start = time.perf_counter()
        samples = [data[k % len(data), 0] for k in range(step * batch, (step + 1) * batch)]
        drawn = time.perf_counter() - start
        images = {key: value.to(device) for key, value in default_collate(samples).items()}
        if loss == "L_s2":  # any pseudo label costs the same
            images["pseudo_label"] = torch.zeros(
                batch, profile.size, profile.size, dtype=torch.long, device=device
            )
        start = time.perf_counter()
        optimiser.zero_grad()
        if loss == "L_s1":
            values = losses_on_saliency_set(net, images, recipe)
        else:
            values = losses_on_class_set(net, images, (loss,), recipe)
        sum(values.values()).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        computed = time.perf_counter() - start
        # Loader processes draw while the network computes.
        overlap = profile.workers > 0
        elapsed.append(max(computed, drawn / workers) if overlap else computed + drawn)
    return float(np.mean(elapsed[1:]))


def _seconds_an_image(profile: Profile, recipe: Recipe) -> tuple[float, float]:
    """Inference, and the CRF, for one image of D_c at its own size."""
    voc = profile.data / profile.voc
    whole = Augmentation(profile.size)
    data = ClassificationSet(voc, profile.train_list, augmentation=whole)
    image = read_image(voc / "JPEGImages" / f"{data.ids[0]}.jpg")
    net = _network(1, profile, recipe).eval()
    pixels = torch.zeros(4, 3, profile.size, profile.size, dtype=torch.uint8)
    with torch.inference_mode():
        net(pixels.to(pick_device()))
        start = time.perf_counter()
        net(pixels.to(pick_device())).probs.cpu()
    inference = (time.perf_counter() - start) / len(pixels)
    height, width = image.height, image.width
    count = data.labels.shape[1] + 1
    probs = np.full((count, height, width), 1 / count, np.float32)
    options = dict(preset=recipe.crf, scale=profile.crf_scale)
    start = time.perf_counter()
    crf_segmentation(np.asarray(image), probs, data.labels[0], **options)
    crf_saliency(np.asarray(image), probs[0], **options)
    return inference, (time.perf_counter() - start) / 2


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GB
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / GB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB


def _megabytes(run: Run) -> float:
    """Weights, and three times as much for a resume point with Adam's moments."""
    with torch.device("meta"):
        net = build_ssnet(SETTINGS[run.setting].stage, backbone=run.profile.backbone,
                          size=run.profile.size, recipe=run.recipe,
                          weights=None)  # fmt: skip
    return 4 * 4 * sum(p.numel() for p in net.parameters()) / 1e6
