"""What the commands of `jsws` share: options, and the settings that they ask for."""

import json
import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data_utils.decoded import CACHES
from data_utils.parallel import is_main
from data_utils.voc import read_ids
from jsws_lib.config import (
    PRECISIONS,
    PROFILES,
    RECIPES,
    get_profile,
    get_recipe,
    recipe_changes,
)
from jsws_lib.crf import CRF_PRESETS
from jsws_lib.metrics import PROTOCOLS

Backbones = StrEnum(
    "Backbones",
    {n: n for n in ("densenet169", "vgg16", "efficientnet_lite0", "densenet_mini")},
)
Protocols = StrEnum("Protocols", {name: name for name in PROTOCOLS})
Caches = StrEnum("Caches", {name: name for name in CACHES})
Precisions = StrEnum("Precisions", {name: name for name in PRECISIONS})
Presets = StrEnum("Presets", {name: name for name in CRF_PRESETS})


def option(help: str, *names: str, **more):
    """A documented option."""
    return typer.Option(*names, help=help, **more)


def positive(value: float | None) -> float | None:
    """Refuse what is not a positive finite number."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


Profile = Annotated[str, option(f"how large and how long: {', '.join(PROFILES)}; "
                                "default $JSWS_PROFILE, else mini")]  # fmt: skip
Recipe = Annotated[str, option(f"which reading of the paper: {', '.join(RECIPES)}")]
Change = Annotated[list[str] | None, option(
    "change one field of the recipe, for instance class_evidence=odds; again for more; "
    "`jsws_lib/config.py` has the fields", "--set")]  # fmt: skip
Backbone = Annotated[Backbones | None, option("instead of the profile's")]
Weights = Annotated[Path | None, option(
    "file of backbone weights; default: the published ones, or the shipped",
    exists=True, dir_okay=False, resolve_path=True)]  # fmt: skip
Size = Annotated[int | None, option("px, side of the square input; a multiple of 8",
                                    min=8)]  # fmt: skip
Steps = Annotated[int | None, option("training steps, instead of the profile's", min=1)]
Batch = Annotated[int | None, option("images a step from each set", min=1)]
Rate = Annotated[float | None, option("(peak) learning rate of this stage",
                                      callback=positive)]  # fmt: skip
Workers = Annotated[int | None, option("data-loading processes", min=0)]
Cache = Annotated[Caches | None, option(
    "of decoded pictures: none, memory, or decoded: a memory-mapped file beside the "
    "data or in $JSWS_CACHE")]  # fmt: skip
Precision = Annotated[Precisions | None, option(
    "of the network's products: float32, bf16, fp16, or auto: bf16 or else fp16 on a "
    "GPU")]  # fmt: skip
Accumulate = Annotated[str, option(
    "parts in which a batch goes through the network one by one, to save memory; auto: as "
    "few as fit")]  # fmt: skip
Checkpointing = Annotated[bool, option(
    "keep fewer activations and compute them twice, to save memory")]  # fmt: skip
Compile = Annotated[bool, option("torch.compile the network and its losses")]
Tracker = Annotated[str | None, option(
    "also log to what Accelerate knows and you have installed, such as tensorboard; "
    "log.csv is always written")]  # fmt: skip
Data = Annotated[Path | None, option("data root; default $JSWS_DATA or the profile's")]
Voc = Annotated[str | None, option("VOC2012 folder, under the data root or absolute")]
TrainList = Annotated[str | None, option(
    "id list in ImageSets/Segmentation, or a file of ids by its absolute path",
    callback=lambda name: name and name.removesuffix(".txt"))]
SalImages = Annotated[str | None, option("folder of saliency training images")]
SalMasks = Annotated[str | None, option("folder of saliency training masks")]
SalList = Annotated[str | None, option("file of saliency training ids, under the data "
                                       "root or absolute; default: all")]  # fmt: skip
Leaky = Annotated[bool, option(
    "labels from the cropped pixel masks, as the released code does: leaks "
    "ground truth, for comparison only")]  # fmt: skip
ValList = Annotated[str | None, option(
    "id list in ImageSets/Segmentation; default: val")]  # fmt: skip
TestImages = Annotated[str | None, option(
    "folder of saliency test images `<id>.jpg`; default: ECSSD's")]  # fmt: skip
TestMasks = Annotated[str | None, option(
    "folder of their masks `<id>.png`; default: ECSSD's")]  # fmt: skip
TestList = Annotated[str | None, option(
    "file of saliency test ids, under the data root or absolute; "
    "default: all")]  # fmt: skip
RecipeCrf = Annotated[Presets | None, option("CRF preset, instead of the recipe's")]
SaliencyCrf = Annotated[Presets | None, option(
    "refine saliency maps by the CRF of this preset")]  # fmt: skip
CrfScale = Annotated[float | None, option(
    "factor on the CRF's ranges, which suit photographs of 500 px",
    callback=positive)]  # fmt: skip
Seed = Annotated[int, option("of weights, image order and crops",
                             min=0, max=2**32 - 1)]  # fmt: skip
Processes = Annotated[int | None, option("CRF processes; default: one per core", min=0)]
Checkpoint = Annotated[Path, option("a *.safetensors file that `jsws train` wrote")]
Out = Annotated[Path, option("where results go")]
Json = Annotated[bool, option("print one JSON object", "--json")]


def profile_and_recipe(profile, recipe="", *, stage=1, steps=None, batch=None, lr=None,
                       backbone=None, weights=None, cache=None, crf=None,
                       leaky_labels=False, change=None, precision=None, accumulate="",
                       checkpointing=False, compile=False, **changes):  # fmt: skip
    """The profile and recipe that the options ask for; None leaves a field as it is."""
    p = get_profile(
        profile, backbone=backbone and str(backbone), weights=weights and str(weights),
        batch_class=batch, batch_saliency=batch, cache=cache and str(cache),
        precision=precision and str(precision), checkpointing=checkpointing or None,
        compile=compile or None, **changes,
    )  # fmt: skip
    r = get_recipe(recipe, **recipe_changes(change or ()))
    if crf:
        r = replace(r, crf=str(crf))
    if leaky_labels:
        r = replace(r, leaky_labels=True)
    return in_parts(*override(p, r, stage=stage, steps=steps, lr=lr), accumulate)


def in_parts(p, r, accumulate: str):
    """The profile with a batch in so many parts, or in as few as fit."""
    if accumulate == "auto":
        from jsws_lib.memory import parts_that_fit

        # The same for both stages: stage 2 looks for the run of its teacher.
        p = replace(p, accumulate=max(parts_that_fit(stage, p, r) for stage in (1, 2)))
        typer.echo(f"a batch goes through the network in {p.accumulate} part(s)", err=True)
    elif accumulate:
        if not accumulate.isdigit():
            raise typer.BadParameter(f"--accumulate {accumulate}: give a number, or auto")
        p = replace(p, accumulate=int(accumulate))
    return p, r


def override(p, r, *, stage, steps=None, lr=None):
    """One stage's steps and learning rate; None leaves them as they are."""
    if steps is not None:
        p = replace(p, steps=_swap(p.steps, stage, steps))
    if lr is not None:  # in the profile, unless the recipe overrides its schedules
        owner = r if r.schedules else p
        schedule = replace(owner.schedules[stage - 1], lr=lr)
        owner = replace(owner, schedules=_swap(owner.schedules, stage, schedule))
        p, r = (p, owner) if r.schedules else (owner, r)
    return p, r


def _swap(pair: tuple, stage: int, value) -> tuple:
    """One stage's entry replaced: the other stage's run stays what it was."""
    return (value, pair[1]) if stage == 1 else (pair[0], value)


def echo(record: dict, as_json: bool):
    """Print figures as one JSON object, or a line each; the main process does."""
    if not is_main():
        return
    typer.echo(json.dumps(record) if as_json else
               "\n".join(f"{key}: {value}" for key, value in record.items()))  # fmt: skip


def ids_in(file: Path | None) -> list[str] | None:
    """The ids of a file, None for all."""
    return read_ids(file) if file else None
