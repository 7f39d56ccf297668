"""What the commands of `jsws` share: how they are declared, and common options."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, isclass, signature
from pathlib import Path
from typing import Annotated, get_args, get_origin

import typer

from data_utils.files import for_json
from data_utils.parallel import is_main
from jsws_lib.cli.settings import configured
from jsws_lib.config import Profile, Recipe

# Options of several commands: type, help, and what else typer is told.
Json = Annotated[bool, "print as JSON."]
Seed = Annotated[int, "of weights, image order and crops.", {"min": 0, "max": 2**32 - 1}]
Data = Annotated[Path | None, "data root; default $JSWS_DATA or the profile's."]
Checkpoint = Annotated[
    Path,
    "a *.safetensors file that `jsws train` wrote, or a shipped network: photos, mini, mini_S, mini_M.",
]
RunFolder = Annotated[Path | None, "run folder; default runs/..."]
Jobs = Annotated[
    int | None,
    "runs at a time; default: one per core, or one on a GPU.",
    {"min": 1, "max": 1024},
]
Count = Annotated[int, {"min": 1, "max": 1_000_000}]
Pixels = Annotated[int, {"min": 32, "max": 4096}]


def command(app: typer.Typer, name: str | None = None) -> Callable:
    """Make a function a command of an app.

    Its keyword-only parameters are options, the others arguments. Their help is what the
    docstring says of them, or `Annotated[type, help, {...}]`, which may hand typer more,
    such as a range. A parameter whose type is a dataclass stands for all of its fields.
    """

    def register(function: Callable) -> Callable:
        @wraps(function)
        def run(**given):
            for name, one in signature(function).parameters.items():
                if is_dataclass(kind := one.annotation):
                    given[name] = kind(**{x.name: given.pop(x.name) for x in fields(kind)})
            return function(**given)

        run.__signature__ = Signature([*_declared(function)])
        text = getdoc(function).partition("\n\nArgs:")[0]
        app.command(name, help=text)(run)
        return function

    return register


def _declared(thing: Callable) -> Iterator[Parameter]:
    """The parameters of a function or a dataclass, as typer declares them."""
    docs = "\n".join(map(getdoc, thing.__mro__ if isclass(thing) else [thing]))
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", docs, re.M)
    helps = {name: " ".join(text.split()) for name, text in found}
    for one in signature(thing).parameters.values():
        kind, more = one.annotation, {"help": helps.get(one.name)}
        if is_dataclass(kind):
            yield from _declared(kind)
            continue
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
            for note in notes:
                more |= {"help": note} if isinstance(note, str) else note
        if one.kind is Parameter.KEYWORD_ONLY:
            shown = f"--{one.name.strip('_').replace('_', '-')}"
            panel = "Settings" if isclass(thing) else None
            info = typer.Option(shown, rich_help_panel=panel, **more)
        else:
            info = typer.Argument(**more)
        kind = Annotated[kind, info]
        yield one.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind)


# Options that stand for settings, and for which.
SHORT = {name: (name,) for name in ("data", "backbone", "size", "steps")}
SHORT["batch"] = ("batch_class", "batch_saliency")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of a command that reads a profile.

    Args:
        profile: how large and how long: mini, laptop, colab or paper; default
            $JSWS_PROFILE, else mini.
        set_: change any setting, for instance rotate=10; again for more. `jsws settings`
            lists them.
    """

    profile: str = ""
    data: Data = None
    set_: Annotated[list[str] | None, {"metavar": "FIELD=VALUE"}] = None

    def settings(self, *, stage: int | None = None) -> tuple[Profile, Recipe]:
        """The profile and recipe that the options ask for; see `configured`."""
        short = [
            f"{name}={value}"
            for one, names in SHORT.items()
            for name in names
            if (value := getattr(self, one, None)) is not None
        ]
        recipe, changes = getattr(self, "recipe", ""), [*short, *(self.set_ or ())]
        return configured(self.profile, recipe, changes, stage=stage)


@dataclass(frozen=True, kw_only=True)
class AskedTraining(Asked):
    """The options of a command that may train.

    Args:
        recipe: which reading of the paper: steady, anchored, paper or jsws2020.
        backbone: instead of the profile's.
        size: px, side of the square input.
        steps: training steps; 300,150 for stage 1 and stage 2.
        batch: images a step from each set.
    """

    recipe: str = ""
    backbone: str | None = None
    size: int | None = None
    steps: Annotated[str | None, {"metavar": "<int>"}] = None
    batch: int | None = None


def echo(record: dict, as_json: bool, *lines: str):
    """Print figures as one JSON object, or as lines, one for each; the main process does."""
    lines = lines or [f"{key}: {value}" for key, value in record.items()]
    if is_main():
        say(json.dumps(for_json(record)) if as_json else "\n".join(lines))


def network(checkpoint: Path, **expect) -> tuple:
    """A checkpoint's network on the device in use, and its story; see `load_ssnet`."""
    from jsws_lib.engine.checkpoints import load_ssnet
    from jsws_lib.engine.devices import pick_device

    return load_ssnet(checkpoint, expect=expect, device=pick_device())


def say(text: str, *, err: bool = False):
    """Print, on standard output or error, what may hold names of files."""
    typer.echo(printable(text), err=err)


def printable(text: str) -> str:
    """A text whose control characters, which may change a terminal, are written out."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
