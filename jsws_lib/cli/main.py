"""`jsws`, the command line: data, pre-training, both stages, measures, prediction."""

import os
import sys
import tempfile
import tomllib
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from data_utils.categories import categories
from data_utils.errors import JswsError, remedy
from data_utils.parallel import is_main, process_share
from jsws_lib.cli import data, experiments, measure
from jsws_lib.cli.options import (
    AskedTraining,
    Count,
    Json,
    Pixels,
    RunFolder,
    Seed,
    command,
    echo,
    network,
    printable,
    say,
)
from jsws_lib.cli.settings import table
from jsws_lib.config import ROOT, SETTINGS

# As `jsws --help` lists them: in the order in which one needs them.
ORDER = (
    "data train pseudo-label evaluate predict page export ablate study bench compare "
    "submit pretrain settings doctor"
).split()


class InOrder(typer.core.TyperGroup):
    """A group whose commands are listed by `ORDER`, others behind them."""

    def list_commands(self, ctx) -> list[str]:
        """Names of the commands."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: [*ORDER, name].index(name))


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    help="SSNet: learn to segment 20 categories from image labels and saliency masks.\n\n"
    "A first run on the embedded data, on a laptop: `jsws data make-mini`, then "
    "`jsws train stage1`, `jsws pseudo-label`, `jsws train stage2`, and `jsws predict`.",
)
train_app = typer.Typer(no_args_is_help=True, help="Train SSNet-1 or SSNet-2.")
app.add_typer(data.app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(measure.evaluate_app, name="evaluate")
COMMANDS = (measure.predict, measure.export, measure.page, measure.compare, measure.submit)
for one in (*COMMANDS, experiments.ablate, experiments.study, experiments.bench):
    command(app)(one)

Tracker = Annotated[
    str | None,
    "also log to what Accelerate knows and you have installed, such as tensorboard; "
    "log.csv is always written.",
]


def _version(asked: bool):
    if asked:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        say(project["version"])
        raise typer.Exit


VERSION = {"help": "print the version", "callback": _version, "is_eager": True}


@app.callback()
def jsws(number: Annotated[bool, typer.Option("--version", **VERSION)] = False):
    """Options of every command."""


@command(app)
def pretrain(
    *,
    images: Count = 16_000,
    epochs: Count = 5,
    size: Pixels = 64,
    seed: Seed = 0,
    out: Path | None = None,
):
    """Pre-train the mini backbone on single drawings, which play ImageNet.

    `jsws train stage1 --set weights=FILE` starts from its features.

    Args:
        images: drawings to train on.
        epochs: passes over them.
        size: px.
        out: file; default runs/pretrain/densenet_mini.safetensors.
    """
    from jsws_lib.experiments import pretrain

    given = {"images": images, "epochs": epochs, "size": size, "seed": seed}
    accuracy = pretrain.pretrain(**given, out=(out := out or pretrain.OUT))
    say(f"accuracy {accuracy:.4f} on new pictures; features in {out}")


def _train(run, tracker: str | None, as_json: bool):
    """Train or load a run, and say which."""
    from jsws_lib.engine import runs

    trained = runs.train_or_load(run, tracker=tracker)
    record = {"setting": run.setting, "source": trained.source}
    shipped = trained.source.startswith("shipped")
    if not shipped:
        record["folder"] = str(run.folder)
    if trained.source == "trained":
        record |= {k: round(v, 4) for k, v in trained.history[-1].items()}
    elif shipped:
        record["note"] = "nothing was trained; JSWS_TRAIN=1 or an --out folder trains anew"
    else:
        record["note"] = (
            "nothing was trained: the run is finished, and a change of the code is not "
            "seen; delete its folder, or name another --out"
        )
    echo(record, as_json)


@command(train_app, "stage1")
def train_stage1(
    *,
    labels_only: bool = False,
    seed: Seed = 0,
    out: RunFolder = None,
    tracker: Tracker = None,
    json_: Json = False,
    asked: AskedTraining,
):
    """Train SSNet-1 with L_c + L_s1 (setting M), or L_c alone (setting S).

    A finished run in the same folder is loaded, an interrupted one continued. Without any
    option this loads the network that is shipped; JSWS_TRAIN=1 trains it.

    Args:
        labels_only: setting S: L_c alone, no saliency.
    """
    from jsws_lib.engine.runs import Run

    run = Run("S" if labels_only else "M", *asked.settings(stage=1), seed, out)
    _train(run, tracker, json_)


@command(train_app, "stage2")
def train_stage2(
    *,
    setting: str = "MM",
    teacher: Path | None = None,
    pseudo_labels: Path | None = None,
    seed: Seed = 0,
    out: RunFolder = None,
    tracker: Tracker = None,
    json_: Json = False,
    asked: AskedTraining,
):
    """Train SSNet-2 on pseudo labels and saliency masks (setting MM by default).

    A finished run in the same folder is loaded, an interrupted one continued. Without any
    option this loads the network that is shipped; JSWS_TRAIN=1 trains it.

    Args:
        setting: SS, MS, MM or 2S; see `SETTINGS` in `jsws_lib/config.py`.
        teacher: SSNet-1 checkpoint; default: trained or loaded.
        pseudo_labels: folder `jsws pseudo-label` wrote; default: made.
    """
    from jsws_lib.engine.runs import Run

    p, r = asked.settings(stage=2)
    if SETTINGS.get(setting, SETTINGS["S"]).stage != 2:
        raise JswsError(f"setting '{setting}' is not of stage 2; choose SS, MS, MM, 2S")
    if pseudo_labels and not SETTINGS[setting].teacher:
        raise JswsError(f"{setting} learns from no pseudo labels: leave the option out")
    if (teacher or pseudo_labels) and not out:
        raise JswsError("--teacher and --pseudo-labels need --out: name the run folder")
    _train(Run(setting, p, r, seed, out, teacher, pseudo_labels), tracker, json_)


@command(app, "pseudo-label")
def pseudo_label(
    *,
    checkpoint: Path | None = None,
    out: Path | None = None,
    processes: Annotated[int | None, {"min": 0, "max": 1024}] = None,
    asked: AskedTraining,
):
    """Write a palette PNG per training image: probabilities x labels, CRF, argmax.

    Args:
        checkpoint: SSNet-1 checkpoint; default: setting M, trained or loaded.
        out: folder; default beside the run.
        processes: of the CRF; default: one per core.
    """
    from jsws_lib.engine import labelling, runs

    p, r = asked.settings(stage=1)
    if checkpoint:
        names = categories(p.data / p.voc)
        expect = {"categories": names, "stage": 1, "backbone": p.backbone}
        expect |= {"size": asked.size} if asked.size else {}
        net, _ = network(checkpoint, **expect)
        out = out or checkpoint.parent / "pseudo_labels"
    else:
        run = runs.Run("M", p, r)
        net, out = runs.train_or_load(run).net, out or run.labels_folder
    labelling.make_pseudo_labels(net, profile=p, recipe=r, out=out, workers=processes)
    if is_main():
        count = len(list(out.glob("*.png")))
        what = f"CRF preset {r.crf}, scale {p.crf_scale:g}"
        say(f"{count} pseudo labels in {out}; {what}")


@command(app)
def settings():
    """List every setting: its default, its value elsewhere, what it takes and means.

    Each is changed by `--set FIELD=VALUE`; steps and what belongs to a schedule take one
    value, or two with a comma between them, for stage 1 and stage 2.
    """
    widths = (None, None, None, 22, 24, 40)
    say(tabulate(table(), "firstrow", "plain", maxcolwidths=widths, disable_numparse=True))


@command(app)
def doctor(*, json_: Json = False):
    """Check Python, PyTorch, GPU, CRF, drawings, widgets, memory, disk, data, checkpoints; say how to mend them."""
    from jsws_lib.engine.doctor import run

    raise typer.Exit(run(as_json=json_))


def main():
    """Run `jsws`: status 2 and a sentence for a user's mistake, 1 for a fault of ours."""
    for stream in (sys.stdout, sys.stderr):  # a Windows pipe may lack a path's letters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: printable(f"jsws: {message}\n")
    who = "jsws"
    try:
        rank, launched = process_share()  # any of them may fail alone, on its own images
        who += f", process {rank}" if launched > 1 else ""
        app(standalone_mode=True)
    except (JswsError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):  # a full disk, a file where a folder should be
            place = f"{error.filename}: " if error.filename else ""
            words = f"{place}{error.strerror or error}; {remedy(error)}"
        say(f"{who}: {words}", err=True)
        raise SystemExit(2) from None
    except Exception as error:
        file = Path(tempfile.gettempdir()) / f"jsws-fault-{os.getpid()}.txt"
        file.write_text(traceback.format_exc(), encoding="utf-8")
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        say(
            f"jsws: a fault of jsws itself ({words}); please report it with {file} and "
            "what `jsws doctor --json` prints",
            err=True,
        )
        raise SystemExit(1) from None
