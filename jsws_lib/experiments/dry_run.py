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
from tqdm.auto import tqdm

from data_utils.categories import NOTE, categories
from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet
from data_utils.errors import JswsError
from data_utils.identity import drawn
from data_utils.parallel import available_cores
from data_utils.pictures import read_class_mask, read_image, same_size
from data_utils.real.download import missing, sources
from data_utils.voc import read_ids
from jsws_lib.config import Profile
from jsws_lib.engine.devices import pick_device
from jsws_lib.engine.evaluation import evenly
from jsws_lib.engine.look import LIMIT
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.runs import Run, runs_root
from jsws_lib.experiments.ablation import Row, default_jobs, measured
from jsws_lib.experiments.memory import random_network
from jsws_lib.inference import predict
from jsws_lib.pseudo_labels import pseudo_label
from jsws_lib.ssnet import SSNet
from jsws_lib.training import train

GB = 1e9
TIMED = 2  # steps, after those that warm up
SAMPLE = 5  # files of each folder that are opened


def describe_plan(rows: Sequence[Row], *, jobs: int | None = None) -> tuple[str, bool]:
    """What an ablation of these rows would do, and whether all that it needs is there.

    `jobs` are runs at a time; None for the default of `ablate`.
    """
    profile, recipe = rows[0].run.profile, rows[0].run.recipe
    lines = [
        f"{len(rows)} runs, profile {profile.name}, recipe {recipe.name}, "
        f"{profile.backbone}, {profile.size} px"
    ]
    if profile.name == "paper" and recipe.name != "paper":
        lines.append(
            "the paper's size and schedule, not its reading of the loss; that is "
            "--recipe paper"
        )
    for name in dict.fromkeys(row.name for row in rows):
        own = [row.run for row in rows if row.name == name]
        stage, losses = own[0].plan.stage, " + ".join(own[0].plan.losses)
        seeds = ", ".join(f"{run.seed} ({_state(run)})" for run in own)
        steps = f"{profile.steps[stage - 1]:,} steps"
        lines.append(f"  {name:<12}SSNet-{stage}, {losses}, {steps}; seed {seeds}")

    checks, sizes = check_data(profile)
    lines.append(f"data under {profile.data}")
    lines += [f"  {'ok  ' if fine else 'FAIL'}  {words}" for fine, words in checks]
    ready = all(fine for fine, _ in checks)
    if ready:
        lines += estimate(rows, sizes, jobs=jobs)
    else:
        lines += _archives(profile)
        lines.append("mend the data first; then the dry run measures a few steps")
    return "\n".join(lines), ready


def _state(run: Run) -> str:
    if measured(run) is not None:
        return "done"
    if run.weights.is_file():
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
    crop = Augmentation(p.size)

    def look_into(data, kind: str):
        for k in evenly(range(len(data)), SAMPLE):
            data[k, 0]
        sizes[kind] = len(data)

    def train_images() -> str:
        data = ClassificationSet(voc, p.train_list, augmentation=crop)
        look_into(data, "train")
        labels = data.labels
        return (
            f"{len(data):,} training images with image labels ({p.train_list}), "
            f"{int((labels.sum(0) > 0).sum())} of {labels.shape[1]} categories, "
            f"{labels.sum(1).mean():.2f} labels an image"
        )

    def pairs(kind: str, images: str, masks: str, list_name: str | None) -> str:
        ids = list_name and read_ids(p.data / list_name)
        data = SaliencySet(p.data / images, p.data / masks, ids=ids, augmentation=crop)
        look_into(data, kind)
        what = "training" if kind == "saliency" else "test"
        return f"{len(data):,} saliency {what} images with masks ({images})"

    def val() -> str:
        file = voc / f"ImageSets/Segmentation/{p.val_list}.txt"
        ids = read_ids(file, image_dir=voc / "JPEGImages")
        masks = [voc / "SegmentationClass" / f"{i}.png" for i in ids]
        if lost := [m for m in masks if not m.is_file()]:
            raise JswsError(f"{len(lost)} masks are missing, the first is {lost[0]}")
        for mask in evenly(masks, SAMPLE):
            image = read_image(voc / "JPEGImages" / f"{mask.stem}.jpg")
            same_size(image, read_class_mask(mask, names=categories(voc)), mask)
        sizes["val"] = len(ids)
        return f"{len(ids):,} validation images with class masks ({p.val_list})"

    looks: list[Callable[[], str]] = [
        train_images,
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


def _archives(p: Profile) -> list[str]:
    """What is to be fetched of the published sets that a profile names."""
    if drawn(p.data) or (p.data / p.voc / NOTE).is_file():
        return []
    wanted = {p.saliency_images, p.test_images, f"{p.voc}/JPEGImages"}
    lines = []
    for name, source in sources().items():
        extra = name == "SBD" and p.train_list == "train_aug"  # VOC's list and SBD's
        if (extra or wanted & source.holds.keys()) and missing(source, p.data):
            files = ", ".join(archive.name for archive in source.archives)
            lines.append(
                f"  fetch {name}: {files}, {source.gigabytes:.1f} GB; `jsws data download "
                f"{name}`"
            )
    return lines


def estimate(rows: Sequence[Row], sizes: dict[str, int], *, jobs=None) -> list[str]:
    """Hours, memory and disk of what is still to do, from a few measured steps."""
    device, jobs = pick_device(), jobs or default_jobs()
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, available_cores() // jobs))
    kinds = {(row.run.plan.stage, row.run.plan.losses): row.run for row in rows}
    bar = tqdm(kinds.items(), desc="measuring", leave=False)
    try:
        cost = {kind: seconds_a_step(run) for kind, run in bar}
        memory = _peak_memory(device)
        image, crf = seconds_an_image(rows[0].run)
    finally:
        torch.set_num_threads(threads)
    profile, todo = rows[0].run.profile, [r for r in rows if measured(r.run) is None]
    labelled = sum(row.teaches for row in todo) * sizes["train"]
    seconds = labelled * (image + crf)
    for setting in (row.run.plan for row in todo):
        steps, saliency = profile.steps[setting.stage - 1], "L_s1" in setting.losses
        seconds += steps * cost[setting.stage, setting.losses] + sizes["val"] * image
        seconds += sizes["test"] * (image + crf) * saliency
        if profile.validate_every:  # while it trains
            seen = min(LIMIT, sizes["val"]) + min(LIMIT, sizes["test"]) * saliency
            seconds += steps // profile.validate_every * seen * image
    with torch.device("meta"):
        nets = [_network(row.run) for row in todo]
    # Three times as much for a resume point with Adam's moments.
    weights = 4 * 4 * sum(p.numel() for net in nets for p in net.parameters()) / GB
    labels = labelled * profile.size**2 / 20 / GB  # PNG, about 1:20
    place = runs_root()
    there = next(p for p in (place, *place.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(there).free / GB
    each = ", ".join(
        f"SSNet-{stage} {' + '.join(losses)} {value:.2f} s"
        for (stage, losses), value in cost.items()
    )
    return [
        f"measured on {device.type}, {jobs} at a time: a step of {each}; "
        f"inference {image:.3f} s, CRF {crf:.3f} s an image",
        f"  time    about {seconds / jobs / 3600:.1f} hours for {len(todo)} runs",
        f"  memory  about {memory * (jobs if device.type == 'cpu' else 1):.1f} GB, "
        f"peak, of {'the GPU' if device.type == 'cuda' else 'the machine'}",
        f"  disk    about {weights + labels:.1f} GB ({weights:.1f} weights and resume "
        f"points, {labels:.1f} pseudo labels); {free:.0f} GB are free in {place}",
        *_cache_words(todo, sizes),
    ]


def _cache_words(todo: Sequence[Row], sizes: dict[str, int]) -> list[str]:
    """Say what decoded pictures take: teachers share the pictures, not their labels."""
    profile = todo[0].run.profile if todo else None
    if not profile or profile.cache != "decoded":
        return []
    losses = {name for row in todo for name in row.run.plan.losses}
    pixels = Augmentation(profile.size, profile.crop).side ** 2
    pictures = 3 * pixels * sizes["train"] / GB if losses & {"L_c", "L_s2"} else 0
    saliency = 4 * pixels * sizes["saliency"] / GB if "L_s1" in losses else 0
    teachers = {row.run.teacher_run for row in todo if row.run.plan.teacher}
    labels = len(teachers) * pixels * sizes["train"] / GB
    return [
        f"  cache   about {pictures + saliency + labels:.1f} GB of decoded pictures: "
        f"{pictures:.1f} with image labels, {saliency:.1f} with saliency masks, "
        f"{labels:.1f} of pseudo labels, those of each teacher; beside the data or in "
        "$JSWS_CACHE; cache=none makes none"
    ]


def _network(run: Run) -> SSNet:
    return random_network(run.plan.stage, run.profile, run.recipe)


class Rehearsal(RunLoop):
    """The real loop, with blank pseudo labels: any cost the same."""

    def backward(self, objective, batch: dict, *, last: bool = True) -> dict[str, float]:
        """As in training."""
        if "labels" in batch:
            count, _, *sides = batch["image"].shape
            batch["pseudo_label"] = torch.zeros(count, *sides, dtype=torch.long)
        return super().backward(objective, batch, last=last)


def seconds_a_step(run: Run) -> float:
    """Train for a few steps, random weights and nothing written; time the last of them.

    Loader processes draw two batches ahead each: on a GPU, which may have to wait for
    them, these are used up first.
    """
    ahead = 0 if pick_device().type == "cpu" else 2 * run.profile.workers
    ends = []
    loop = Rehearsal(on_step=lambda *_: ends.append(time.perf_counter()))
    how = {"profile": run.profile, "recipe": run.recipe, "loop": loop}
    train(_network(run), run.plan.losses, steps=1 + ahead + TIMED, title=run.setting, **how)
    return (ends[-1] - ends[-1 - TIMED]) / TIMED


def seconds_an_image(run: Run) -> tuple[float, float]:
    """Inference, and a pseudo label's CRF, for one image of D_c at its own size."""
    p, whole = run.profile, Augmentation(run.profile.size)
    data = ClassificationSet(p.data / p.voc, p.train_list, augmentation=whole)
    image = read_image(data.voc / "JPEGImages" / f"{data.ids[0]}.jpg")
    net = _network(run).to(pick_device(), memory_format=torch.channels_last).eval()
    list(predict(net, 4 * [image]))  # warms up
    start = time.perf_counter()
    prediction, *others = predict(net, 4 * [image])
    inference = (time.perf_counter() - start) / (1 + len(others))
    options = {"rule": run.recipe.suppress, "preset": run.recipe.crf, "scale": p.crf_scale}
    start = time.perf_counter()
    pseudo_label(np.asarray(image), prediction.probs, data.labels[0], **options)
    return inference, time.perf_counter() - start


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GB
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / GB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB
