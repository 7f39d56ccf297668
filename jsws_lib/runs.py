"""The six settings of Section 4.4, and where their runs live.

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
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_utils.categories import NOTE, categories
from data_utils.errors import JswsError
from data_utils.parallel import is_main
from data_utils.voc import read_ids
from jsws_lib import film
from jsws_lib.backbones import MINI_WEIGHTS
from jsws_lib.checkpoints import (
    describe,
    load_ssnet,
    read_weights,
    recipe_fields,
    save_weights,
    sha256,
    shipped,
)
from jsws_lib.config import ROOT, Profile, Recipe
from jsws_lib.devices import pick_device, wait_for_everyone
from jsws_lib.pseudo_labels import check_teacher, make_pseudo_labels
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import seed_everything, train


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


# How a step is computed; only what is not float32 in one piece names another run.
ENGINE = ("precision", "accumulate", "checkpointing", "compile")
# Fields of a profile that no weight depends on, and of a recipe that stage 1 never sees.
NOT_TRAINING = ("workers", "cache", "val_list", "test_images", "test_masks", "test_list")
ONLY_STAGE_2 = ("crf", "suppress", "stage2_init", "stage2_class_loss")


class Trained(NamedTuple):
    """What training, or loading, gives."""

    net: SSNet  # in evaluation mode
    history: list[dict[str, float]]  # step, lr and losses; averaged if loaded
    source: str  # "trained", "loaded from ..." or "shipped"


def run_folder(setting: str, *, profile: Profile, recipe: Recipe, seed: int = 0,
               given: dict | None = None) -> Path:  # fmt: skip
    """Where a run lives: `runs/<profile>-<recipe>-<setting>-<seed>-<digest>`.

    `$JSWS_RUNS` is another folder than the repository's `runs/`.

    The digest covers every setting that changes the result, the embedded data's seed,
    the mini backbone's weights and whatever stage 2 is `given`, so two different runs
    never share a folder.
    """
    fields = profile_fields(profile)
    fields |= {"recipe": recipe_fields(recipe), "given": given or {}}
    fields["data"] = _data_identity(profile.data)
    own = profile.data / profile.voc / NOTE
    if own.is_file():
        fields["categories"] = sha256(own)
    if (profile.backbone, profile.weights) == ("densenet_mini", "default"):
        fields["weights"] = sha256(MINI_WEIGHTS)
    for name in NOT_TRAINING:
        del fields[name]
    if profile.cache == "decoded":  # crops at whole pixels of a square
        fields["decoded"] = True
    if SETTINGS[setting].stage == 1:
        for name in ("steps", "schedules"):
            fields[name] = fields[name][:1]
        del fields["crf_scale"]
        schedules = fields["recipe"]["schedules"]
        fields["recipe"]["schedules"] = schedules and schedules[:1]
        for name in ONLY_STAGE_2:
            del fields["recipe"][name]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
    parts = (profile.name, recipe.name, setting, seed, digest)
    return runs_root() / "-".join(map(str, parts))


def runs_root() -> Path:
    """Where runs are kept: `$JSWS_RUNS`, else the repository's `runs/`."""
    return Path(os.environ.get("JSWS_RUNS") or ROOT / "runs")


def profile_fields(profile: Profile) -> dict:
    """A profile as JSON-ready fields; how a step is computed only if not in the usual way.

    The data root, a path of this machine, is left out.
    """
    fields = asdict(profile)
    del fields["data"]
    usual = {name for name in ENGINE if fields[name] == getattr(Profile, name)}
    return {name: value for name, value in fields.items() if name not in usual}


def _data_identity(root: Path):
    """How embedded data were drawn, wherever they lie; for other data their folder."""
    note = root / "mini.json"
    if not note.is_file():
        return str(root.resolve())
    drawn = json.loads(note.read_text())["parameters"]
    return {name: drawn[name] for name in ("seed", "size", "images")}


def train_or_load(setting: str, *, profile: Profile, recipe: Recipe, seed: int = 0,
                  out: Path | None = None, teacher: Path | None = None,
                  pseudo_labels: Path | None = None, use_shipped: bool = True,
                  on_step: Callable | None = None,
                  tracker: str | None = None) -> Trained:  # fmt: skip
    """Give a trained network: from an earlier run, from the repository, or by training.

    The shipped checkpoints serve the unchanged `mini` profile, recipe and seed they were
    trained with, unless `JSWS_TRAIN=1`. Stage 2 sees to its teacher and pseudo labels.

    Args:
        setting: key of `SETTINGS`.
        profile, recipe, seed: what to train.
        out: run folder, instead of `run_folder(...)`.
        teacher: stage-1 checkpoint for stage 2, instead of the setting's own.
        pseudo_labels: finished folder of them, instead of making them.
        use_shipped: False never takes a network from the repository.
        on_step, tracker: passed to `train`.

    Raises:
        JswsError: unknown setting, missing data, broken checkpoint.
    """
    if setting not in SETTINGS:
        raise JswsError(f"unknown setting '{setting}'; choose from {', '.join(SETTINGS)}")
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
    if os.environ.get("JSWS_TRAIN") != "1" and out is None and use_shipped:
        path = shipped(f"{profile.name}_{setting}")
        if path:
            net, story = load_ssnet(path, device=pick_device())
            if story["run"] == run.name:
                return Trained(net, story["history"], f"shipped as {path.name}")

    plan, first = SETTINGS[setting], None
    lists = profile.data / profile.voc / "ImageSets" / "Segmentation"
    read_ids(lists / f"{profile.train_list}.txt")  # before weights are fetched for nothing
    names = categories(profile.data / profile.voc)
    if plan.teacher:
        if teacher:
            expect = {"stage": 1, "categories": names}
            if recipe.stage2_init == "ssnet1":  # its features are taken over
                expect["backbone"] = profile.backbone
            first, _ = load_ssnet(teacher, expect=expect, device=pick_device())
            where = folder / "pseudo_labels"
            if pseudo_labels:
                check_teacher(Path(pseudo_labels), first)
        else:
            first = train_or_load(plan.teacher, profile=profile, recipe=recipe, seed=seed,
                                  use_shipped=use_shipped).net  # fmt: skip
            where = pseudo_label_folder(plan.teacher, profile, recipe, seed)
        pseudo_labels = pseudo_labels or make_pseudo_labels(
            first, profile=profile, recipe=recipe, out=where
        )
    seed_everything(seed)
    inherit = first is not None and recipe.stage2_init == "ssnet1"
    weights = None if inherit else profile.weights
    net = build_ssnet(plan.stage, backbone=profile.backbone, size=profile.size,
                      recipe=recipe, weights=weights,
                      categories=len(names))  # fmt: skip
    if inherit:
        net.backbone.load_state_dict(first.backbone.state_dict())
    hooks = [on_step] if on_step else []
    if (profile.data / "mini.json").is_file() and is_main():
        steps = profile.steps[plan.stage - 1]
        hooks.append(film.recorder(profile, steps, folder / "film.npz"))
    history = train(net, plan.losses, profile=profile, recipe=recipe, seed=seed,
                    pseudo_labels=pseudo_labels, folder=folder, tag=run.name,
                    tracker=tracker, on_step=lambda *now: [hook(*now) for hook in hooks],
                    title=f"{setting} ({' + '.join(plan.losses)})")  # fmt: skip
    if is_main():
        if plan.stage == 1 and out is None:  # those labels came from other, shipped weights
            for labels in folder.glob("pseudo_labels*"):
                if labels.is_dir():
                    shutil.rmtree(labels)
                else:
                    labels.unlink()
        story = describe(net, setting=setting, backbone=profile.backbone, seed=seed,
                         recipe=recipe_fields(recipe), profile=profile.name,
                         categories=names, run=run.name,
                         history=thin(history))  # fmt: skip
        save_weights(file, net, story)
        shutil.rmtree(folder / "resume", ignore_errors=True)
    wait_for_everyone()
    return Trained(net, history, "trained")


def film_of(setting: str, *, profile: Profile, recipe: Recipe, seed: int = 0) -> film.Film:
    """The film of a training on embedded data: of an earlier run, or the shipped one.

    Raises:
        JswsError: neither is there.
    """
    run = run_folder(setting, profile=profile, recipe=recipe, seed=seed)
    path, name = run / "film.npz", f"{profile.name}_{setting}"
    weights = shipped(name)
    if not path.is_file() and weights and read_weights(weights)[1]["run"] == run.name:
        path = shipped(name, suffix="_film.npz") or path
    return film.load(path)


def pseudo_label_folder(teacher: str, profile: Profile, recipe: Recipe,
                        seed: int = 0) -> Path:  # fmt: skip
    """Where the pseudo labels of a stage-1 run lie."""
    run = run_folder(teacher, profile=profile, recipe=recipe, seed=seed)
    return run / f"pseudo_labels-{recipe.suppress}-{recipe.crf}-{profile.crf_scale:g}"


def thin(history: list[dict], points: int = 100) -> list[dict]:
    """Average a history down to about `points` records, to store with the weights."""
    chunk = max(1, len(history) // points)
    return [
        {k: round(float(np.mean([r[k] for r in part])), 6) for k in part[0]}
        for part in (history[i : i + chunk] for i in range(0, len(history), chunk))
    ]
