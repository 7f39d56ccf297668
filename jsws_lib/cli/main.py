"""`jsws`, the command line: data, pre-training, both stages, measures, prediction."""

import json
import os
import re
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
from jsws_lib.cli import data, measure
from jsws_lib.cli.options import (
    AskedTraining,
    Count,
    Jobs,
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

app = typer.Typer(
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
for one in (measure.predict, measure.export, measure.page, measure.compare, measure.submit):
    command(app)(one)

Tracker = Annotated[
    str | None,
    "also log to what Accelerate knows and you have installed, such as tensorboard; "
    "log.csv is always written.",
]

MOST_SEEDS = 1000


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
    if trained.source.startswith("shipped"):
        record["note"] = "nothing was trained; JSWS_TRAIN=1 or an --out folder trains anew"
    else:
        record["folder"] = str(run.folder)
        record |= {k: round(v, 4) for k, v in trained.history[-1].items()}
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
def ablate(
    *,
    seeds: str = "3",
    settings: str = "",
    dry_run: bool = False,
    jobs: Jobs = None,
    out: Path | None = None,
    asked: AskedTraining,
):
    """Tables 5 and 6 again: six settings, several seeds, one JSON file, a table, a chart.

    Interrupt it when you like: the same command goes on. Finished runs are not repeated.

    Args:
        seeds: how many seeds from 0 on, or a list such as 3,5.
        settings: some of S,M,SS,MS,MM,2S; default: all.
        dry_run: only say what would be done: the runs, the state of the data, and the
            hours, memory and disk that a few measured steps suggest.
        out: JSON file; default results/ablation_PROFILE.json, never replaced by less.
    """
    from jsws_lib.experiments import ablation, results

    p, r = asked.settings()
    names = settings.replace(" ", "").split(",") if settings else list(SETTINGS)
    if not set(names) <= SETTINGS.keys():
        raise JswsError(f"--settings {settings}: give some of {', '.join(SETTINGS)}")
    chosen = {"seeds": _seed_list(seeds), "settings": names}
    if dry_run:
        from jsws_lib.experiments.dry_run import describe_plan

        text, ready = describe_plan(ablation.plan(p, r, **chosen), jobs=jobs)
        say(text)
        raise typer.Exit(0 if ready else 1)
    file = ablation.ablate(profile=p, recipe=r, jobs=jobs, out=out, **chosen)
    if is_main():
        result, picture = json.loads(file.read_text()), file.with_suffix(".png")
        results.ablation_chart(result).savefig(picture, dpi=110)
        say(f"{results.ablation_table(result)}\n\nfigures in {file}, chart in {picture}")


def _seed_list(text: str) -> list[int]:
    known = re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", text.replace(" ", ""))
    seeds = [int(part) for part in text.split(",")] if known else []
    if len(seeds) == 1:
        seeds = list(range(min(seeds[0], MOST_SEEDS + 1)))
    distinct = 0 < len(set(seeds)) == len(seeds) <= MOST_SEEDS
    if not distinct or max(seeds) >= 2**32:
        raise JswsError(
            f"--seeds {text}: give a count such as 3, at most {MOST_SEEDS:,}, or a list "
            "such as 0,4, each below 2^32"
        )
    return seeds


@command(app)
def study(*, jobs: Jobs = None):
    """What makes stage 1 learn: the default recipe, one thing changed at a time."""
    from jsws_lib.experiments import results
    from jsws_lib.experiments.studies.one_change import study as run

    file = run(jobs=jobs)
    say(f"{results.study_table(json.loads(file.read_text()))}\n\nfigures in {file}")


@command(app)
def bench(
    *,
    threads: Annotated[int | None, {"min": 1, "max": 1024}] = None,
    out: Path | None = None,
):
    """Time ours against what the released code is known to do, row by row.

    Args:
        threads: of the rows that run a network; default: one per core, better 1 on a busy
            machine.
        out: JSON file; default results/bench_DEVICE.json.
    """
    from jsws_lib.experiments import bench, results

    file = bench.bench(threads=threads, out=out)
    say(f"{results.speed_table(json.loads(file.read_text()))}\n\nfigures in {file}")


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
