"""One training as a value: what identifies it, where it lives, and how to get it.

A run's folder is `runs/<profile>-<recipe>-<setting>-<seed>-<digest>`. The digest covers
every setting that changes the result and is not what `Profile` and `Recipe` have by
default: a new field with a default renames nobody, and what each field was at the time
stands in the checkpoint, where `train_or_load` compares it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.identity import class_digest, drawn, folder_digest, saliency_digest
from data_utils.parallel import is_main, wait_for_everyone
from data_utils.voc import read_ids
from jsws_lib.backbones import MINI_WEIGHTS
from jsws_lib.config import ROOT, SETTINGS, Profile, Recipe, Setting
from jsws_lib.engine import film
from jsws_lib.engine.checkpoints import (
    describe,
    load_ssnet,
    read_weights,
    recipe_fields,
    save_weights,
    sha256,
    shipped,
)
from jsws_lib.engine.devices import pick_device, provenance
from jsws_lib.engine.labelling import check_labels, check_source, make_pseudo_labels
from jsws_lib.engine.loop import RunLoop
from jsws_lib.ssnet import SSNet
from jsws_lib.stage1 import train_stage1
from jsws_lib.stage2 import train_stage2

# Fields of a profile that no weight depends on, and those that only stage 2 sees.
NOT_TRAINING = ("workers", "cache", "validate_every")
NOT_TRAINING += ("val_list", "test_images", "test_masks", "test_list")
# What stage 1 does not learn by; `mirror` changes the labels that it makes.
ONLY_STAGE_2 = ("crf_scale", "crf", "suppress", "mirror")
ONLY_STAGE_2 += ("stage2_stride", "stage2_init", "stage2_class_loss")
BY_STAGE = ("steps", "schedules")  # pairs, of which stage 1 sees the first


@dataclass(frozen=True)
class Run:
    """One training: a setting of Table 5 or 6, how large, which reading, which seed.

    Args:
        setting: key of `SETTINGS`.
        profile, recipe, seed: what to train.
        out: its folder, instead of one under `runs/`.
        teacher: stage-1 checkpoint for stage 2, instead of the setting's own; 2S, which
            has none, only starts from its backbone.
        pseudo_labels: finished folder of them, instead of making them.

    Raises:
        JswsError: there is no such setting.
    """

    setting: str
    profile: Profile
    recipe: Recipe
    seed: int = 0
    out: Path | None = None
    teacher: Path | None = None
    pseudo_labels: Path | None = None

    def __post_init__(self):
        if self.setting not in SETTINGS:
            raise JswsError(
                f"unknown setting '{self.setting}'; choose from {', '.join(SETTINGS)}"
            )

    @property
    def plan(self) -> Setting:
        """Its column of Table 5 or 6."""
        return SETTINGS[self.setting]

    @cached_property
    def name(self) -> str:
        """What identifies it, wherever it lies: settings and data, as they are now."""
        text = json.dumps(self._identity(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        where = f"{self.profile.name}-{self._recipe_name}-{self.setting}-{self.seed}"
        return f"{where}-{digest}"

    @property
    def _recipe_name(self) -> str:
        """The recipe's, without the changes that only stage 2 sees."""
        name, *changes = self.recipe.name.split("+")
        if self.plan.stage == 1:
            changes = [c for c in changes if c.partition("=")[0] not in ONLY_STAGE_2]
        return "+".join([name, *changes])

    @property
    def seen(self) -> set[str]:
        """Its losses and its teacher's: they say which data it learns from."""
        teacher = self.plan.teacher
        return {*self.plan.losses, *(SETTINGS[teacher].losses if teacher else ())}

    @property
    def folder(self) -> Path:
        """Where its weights, log, resume points and figures lie."""
        return self.out or runs_root() / self.name

    @property
    def weights(self) -> Path:
        """Its checkpoint, once it is trained."""
        return self.folder / "weights.safetensors"

    @property
    def labels_folder(self) -> Path:
        """Where its pseudo labels lie, those that it makes as a teacher."""
        rule = f"{self.recipe.suppress}-{self.recipe.crf}-{self.profile.crf_scale:g}"
        rule += "-mirror" * self.recipe.mirror
        return self.folder / f"pseudo_labels-{rule}"

    @property
    def teacher_run(self) -> "Run":
        """The run whose pseudo labels it learns from, unless it is given others."""
        return Run(self.plan.teacher, self.profile, self.recipe, self.seed)

    def _identity(self) -> dict:
        """Everything that changes its weights."""
        profile = differences(self.profile)
        recipe = differences(replace(self.recipe, name=self._recipe_name))
        if profile.get("cache") == "decoded":
            recipe["decoded"] = True  # crops at whole pixels of a square
        for name in ("data", *NOT_TRAINING):
            profile.pop(name, None)
        if self.plan.stage == 1:
            for part in (profile, recipe):
                for name in ONLY_STAGE_2:
                    part.pop(name, None)
                part |= {name: part[name][:1] for name in BY_STAGE if part.get(name)}
        identity = {"profile": profile, "recipe": recipe}
        identity["data"] = _data_identity(self.profile, self.seen)
        if (self.profile.backbone, self.profile.weights) == ("densenet_mini", "default"):
            identity["weights"] = sha256(MINI_WEIGHTS)
        elif Path(self.profile.weights).is_file():
            identity["weights"] = sha256(Path(self.profile.weights))
        if self.teacher:
            identity["teacher"] = _name_of(self.teacher)
        if self.pseudo_labels:
            folder = Path(self.pseudo_labels)
            identity["pseudo_labels"] = str(folder.resolve())
            identity["pseudo_label_files"] = folder_digest(folder)
        return identity


def _name_of(teacher: Path) -> str:
    """The run that a checkpoint is of; one that is yet to be trained names its folder."""
    if not teacher.is_file():
        return teacher.parent.name
    return load_ssnet(teacher)[1].get("run", str(teacher))


def differences(config: Profile | Recipe) -> dict:
    """The fields of a configuration that are not as they are by default, for JSON."""
    plain = json.loads(json.dumps(asdict(config), default=str))
    changed = [f.name for f in fields(config) if getattr(config, f.name) != f.default]
    return {name: plain[name] for name in changed}


def runs_root() -> Path:
    """Where runs are kept: `$JSWS_RUNS`, else the repository's `runs/`."""
    return Path(os.environ.get("JSWS_RUNS") or ROOT / "runs")


def _data_identity(profile: Profile, losses: set[str]) -> dict:
    """How embedded data were drawn, wherever they lie; of other data their files' state."""
    note, identity = drawn(profile.data), {}
    if note:
        identity = {name: note["parameters"][name] for name in ("seed", "size", "images")}
    try:
        state = training_state(profile, losses)
    except JswsError:  # they are not there; training will say so
        return identity or {"folder": str(profile.data.resolve())}
    # A note without contents is of older drawings: nobody knows whether they changed.
    known = note.get("contents", {}) if note else {}
    changed = {name: one for name, one in state.items() if known.get(name) != one}
    return identity | changed


def training_state(profile: Profile, losses: set[str]) -> dict[str, str]:
    """Digests of the files of D_c and D_s, as far as the losses need them.

    Raises:
        JswsError: a file is missing.
    """
    p, state = profile, {}
    if losses & {"L_c", "L_s2"}:
        state["D_c"] = class_digest(p.data, p.voc, p.train_list)
    if "L_s1" in losses:
        folders = p.saliency_images, p.saliency_masks
        state["D_s"] = saliency_digest(p.data, *folders, p.saliency_list)
    return state


class Trained(NamedTuple):
    """What training, or loading, gives."""

    net: SSNet  # in evaluation mode
    history: list[dict[str, float]]  # step, lr and losses; averaged if loaded
    source: str  # "trained", "loaded from ..." or "shipped as ..."


def train_or_load(
    run: Run, *, use_shipped: bool = True, tracker: str | None = None
) -> Trained:
    """Give a trained network: from an earlier run, from the repository, or by training.

    The shipped checkpoints serve the unchanged `mini` profile, recipe and seed they were
    trained with, unless `JSWS_TRAIN=1`. Stage 2 sees to its teacher and pseudo labels.

    Args:
        run: which.
        use_shipped: False never takes a network from the repository.
        tracker: see `RunLoop`.

    Raises:
        JswsError: missing data, a broken checkpoint, or a folder that holds another run.
    """
    found = _load(run, use_shipped)
    if found:
        return found
    pick_device()  # connects the processes, if several were launched
    with _alone(run) if is_main() else nullcontext():
        wait_for_everyone()
        return _load(run, use_shipped) or _train(run, use_shipped, tracker)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold a run's folder: whoever comes second waits, and finds what the first trained.

    The lock goes with its process, however that ends.
    """
    lock = lock_of(run)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"waiting for another process, which trains {run.folder}")
        held = lock.acquire()
    with held:
        yield


def lock_of(run: Run) -> FileLock:
    """The lock of a run's folder, on this machine."""
    name = hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"jsws-{name}.lock", mode=0o666)


def _train(run: Run, use_shipped: bool, tracker: str | None) -> Trained:
    """Train a run, store it, and forget how it got there."""
    profile = run.profile
    lists = profile.data / profile.voc / "ImageSets" / "Segmentation"
    read_ids(lists / f"{profile.train_list}.txt")  # before weights are fetched for nothing
    recorder = None
    if drawn(profile.data) and is_main():
        steps = profile.steps[run.plan.stage - 1]
        recorder = film.recorder(profile, steps, run.folder / "film.npz")
    where = {"folder": run.folder, "tag": run.name, "tracker": tracker}
    loop = RunLoop(**where, on_step=recorder)
    settings = {"profile": profile, "recipe": run.recipe, "seed": run.seed, "loop": loop}
    if run.plan.stage == 1:
        net = train_stage1(run.setting, **settings)
    else:
        taught = run.plan.teacher or run.teacher
        given = _teacher_and_labels(run, use_shipped) if taught else (None, None)
        net = train_stage2(run.setting, *given, **settings)
    if not all(tensor.isfinite().all() for tensor in net.state_dict().values()):
        raise JswsError(
            f"after the last step the weights of {run.name} are not finite: lower the "
            f"learning rate, and delete {run.folder}"
        )
    if is_main():
        _store(run, net, loop.history)
    wait_for_everyone()
    return Trained(net, loop.history, "trained")


def _load(run: Run, use_shipped: bool) -> Trained | None:
    """A finished run, from its folder or from the repository."""
    path, source = run.weights, f"loaded from {run.folder.parent.name}/{run.folder.name}"
    own = path.is_file()
    if not own:
        if os.environ.get("JSWS_TRAIN") == "1" or run.out or not use_shipped:
            return None
        path = shipped(f"{run.profile.name}_{run.setting}")
        if path is None:
            return None
        source = f"shipped as {path.name}"
    net, story = load_ssnet(path, device=pick_device())
    if story.get("run") != run.name or _changed(run, story):
        if not own:
            return None
        raise JswsError(
            f"{run.folder} holds the finished run {story.get('run')}, but {run.name} is "
            "asked for (another setting, profile, recipe, seed or teacher); choose another "
            "folder, or delete this one"
        )
    net.mirror = run.recipe.mirror
    return Trained(net, story["history"], source)


def _changed(run: Run, story: dict) -> bool:
    """Whether the defaults of a recipe have changed since a checkpoint was written."""
    asked = recipe_fields(run.recipe)
    ignored = (*BY_STAGE, *(("name", *ONLY_STAGE_2) if run.plan.stage == 1 else ()))
    return any(
        asked[name] != value
        for name, value in story["recipe"].items()
        if name in asked and name not in ignored
    )


def _teacher_and_labels(run: Run, use_shipped: bool) -> tuple[SSNet, Path | None]:
    """SSNet-1 and the folder of its pseudo labels, which are made if need be."""
    if run.teacher:
        names = categories(run.profile.data / run.profile.voc)
        expect = {"stage": 1, "categories": names}
        if run.recipe.stage2_init == "ssnet1":  # its features are taken over
            expect["backbone"] = run.profile.backbone
        teacher, story = load_ssnet(run.teacher, expect=expect, device=pick_device())
        if not run.plan.teacher:
            return teacher, None
        if story["setting"] != run.plan.teacher:
            raise JswsError(
                f"{run.teacher} is of setting {story['setting']}, but {run.setting} learns "
                f"from {run.plan.teacher}; name another --teacher, or another --setting"
            )
        where = run.folder / "pseudo_labels"
    else:
        teacher = train_or_load(run.teacher_run, use_shipped=use_shipped).net
        where = run.teacher_run.labels_folder
    settings = {"profile": run.profile, "recipe": run.recipe}
    if run.pseudo_labels:
        check_source(Path(run.pseudo_labels), teacher, **settings)
        check_labels(Path(run.pseudo_labels), **settings)
        return teacher, run.pseudo_labels
    make_pseudo_labels(teacher, **settings, out=where)
    return teacher, where


def _store(run: Run, net: SSNet, history: list[dict]):
    """Write a finished run's checkpoint, and forget how it got there."""
    if run.plan.stage == 1 and not run.out:
        for labels in run.folder.glob("pseudo_labels*"):  # made by other, shipped weights
            shutil.rmtree(labels) if labels.is_dir() else labels.unlink()
    story = describe(
        net,
        setting=run.setting,
        backbone=run.profile.backbone,
        seed=run.seed,
        recipe=recipe_fields(run.recipe),
        profile=run.profile.name,
        categories=categories(run.profile.data / run.profile.voc),
        run=run.name,
        history=thin(history),
        provenance=provenance(run.profile, training_state(run.profile, run.seen)),
    )
    save_weights(run.weights, net, story)
    shutil.rmtree(run.folder / "resume", ignore_errors=True)


def film_of(run: Run) -> film.Film:
    """The film of a training on embedded data: of an earlier run, or the shipped one.

    Raises:
        JswsError: neither is there.
    """
    path, name = run.folder / "film.npz", f"{run.profile.name}_{run.setting}"
    weights = shipped(name)
    if not path.is_file() and weights and read_weights(weights)[1]["run"] == run.name:
        path = shipped(name, suffix="_film.npz") or path
    return film.load(path)


def thin(history: list[dict], points: int = 100) -> list[dict]:
    """Average a history down to about `points` records, to store with the weights."""
    chunk = max(1, len(history) // points)
    return [
        {k: round(float(np.mean([r[k] for r in part])), 6) for k in part[0]}
        for part in (history[i : i + chunk] for i in range(0, len(history), chunk))
    ]
