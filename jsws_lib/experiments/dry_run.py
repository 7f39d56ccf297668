"""What an ablation would do and cost, before anything is trained.

Time is measured, not looked up: a few steps of each kind at the size, batch and backbone
asked for, on the images asked for, then multiplied.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, saliency_pairs
from data_utils.errors import JswsError
from data_utils.parallel import available_cores
from data_utils.pictures import read_class_mask, read_image, same_size
from data_utils.voc import read_ids
from jsws_lib.config import Profile
from jsws_lib.engine.devices import pick_device
from jsws_lib.engine.evaluation import evenly
from jsws_lib.engine.look import LIMIT
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.runs import Run, runs_root
from jsws_lib.experiments.ablation import Row, default_jobs, measured
from jsws_lib.experiments.bench import thread_count
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
        lines.append(f"  {name:<13}SSNet-{stage}, {losses}, {steps}; seed {seeds}")

    checks, sizes = check_data(profile)
    lines.append(f"data under {profile.data}")
    lines += [f"  {'ok  ' if fine else 'FAIL'}  {words}" for fine, words in checks]
    ready = all(fine for fine, _ in checks)
    if ready:
        lines += estimate(rows, sizes, jobs=jobs)
    else:
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
    looks = {
        "train": (_labelled, f"training images with image labels ({p.train_list})"),
        "saliency": (
            partial(_masked, p.saliency_images, p.saliency_masks, p.saliency_list),
            f"saliency training images with masks ({p.saliency_images})",
        ),
        "val": (_validation, f"validation images with class masks ({p.val_list})"),
        "test": (
            partial(_masked, p.test_images, p.test_masks, p.test_list),
            f"saliency test images with masks ({p.test_images})",
        ),
    }
    verdicts, sizes = [], {}
    for kind, (look, words) in looks.items():
        try:
            sizes[kind] = look(p)
            verdicts.append((True, f"{sizes[kind]:,} {words}"))
        except JswsError as error:
            verdicts.append((False, str(error)))
    return verdicts, sizes


def _labelled(p: Profile) -> int:
    crop = Augmentation(p.size)
    return _opened(ClassificationSet(p.data / p.voc, p.train_list, augmentation=crop))


def _masked(images: str, masks: str, list_name: str | None, p: Profile) -> int:
    ids = list_name and read_ids(p.data / list_name)
    given = {"ids": ids, "augmentation": Augmentation(p.size)}
    return _opened(SaliencySet(p.data / images, p.data / masks, **given))


def _opened(data: Dataset) -> int:
    """Read a few pictures of a set, and count them all."""
    for k in evenly(range(len(data)), SAMPLE):
        data[k, 0]
    return len(data)


def _validation(p: Profile) -> int:
    voc = p.data / p.voc
    ids = read_ids(voc / f"ImageSets/Segmentation/{p.val_list}.txt")
    pairs = saliency_pairs(voc / "JPEGImages", voc / "SegmentationClass", ids=ids)
    for image, mask in evenly(pairs, SAMPLE):
        same_size(read_image(image), read_class_mask(mask, names=categories(voc)), mask)
    return len(pairs)


def estimate(rows: Sequence[Row], sizes: dict[str, int], *, jobs=None) -> list[str]:
    """Hours, memory and disk of what is still to do, from a few measured steps."""
    device, jobs = pick_device(), jobs or default_jobs()
    on_cpu = device.type == "cpu"
    kinds = {(row.run.plan.stage, row.run.plan.losses): row.run for row in rows}
    bar = tqdm(kinds.items(), desc="measuring", leave=False)
    cores = max(1, available_cores() // jobs)
    with thread_count(cores if on_cpu else torch.get_num_threads()):
        cost = {kind: seconds_a_step(run) for kind, run in bar}
        memory = _peak_memory(device)
        image, crf = seconds_an_image(rows[0].run)
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
    lines = [
        f"measured on {device.type}, {jobs} at a time: a step of {each}; "
        f"inference {image:.3f} s, CRF {crf:.3f} s an image",
        f"  time    about {seconds / jobs / 3600:.1f} hours for {len(todo)} runs",
        f"  memory  about {memory * (jobs if on_cpu else 1):.1f} GB, "
        f"peak, of {'the GPU' if device.type == 'cuda' else 'the machine'}",
        f"  disk    about {weights + labels:.1f} GB ({weights:.1f} weights and resume "
        f"points, {labels:.1f} pseudo labels); {free:.0f} GB are free in {place}",
    ]
    if todo and profile.cache == "decoded" and not todo[0].run.recipe.rotate:
        lines.append(
            f"  cache   about {_decoded(todo, sizes):.1f} GB of decoded pictures, beside "
            "the data or in $JSWS_CACHE; cache=none makes none"
        )
    return lines


def _decoded(todo: Sequence[Row], sizes: dict[str, int]) -> float:
    """GB of decoded pictures; teachers share the pictures, not their labels."""
    profile, losses = todo[0].run.profile, {x for row in todo for x in row.run.plan.losses}
    teachers = {row.run.teacher_run for row in todo if row.run.plan.teacher}
    labelled = 3 * bool(losses & {"L_c", "L_s2"}) + len(teachers)  # bytes a pixel
    pixels = Augmentation(profile.size, profile.crop).side ** 2 / GB
    return pixels * (labelled * sizes["train"] + 4 * ("L_s1" in losses) * sizes["saliency"])


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
