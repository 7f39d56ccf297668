"""The commands of `jsws` that train and time many things: ablation, study, bench."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from data_utils.errors import JswsError
from data_utils.parallel import is_main
from jsws_lib.cli.options import AskedTraining, Jobs, say
from jsws_lib.config import SETTINGS

MOST_SEEDS = 1000


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


def study(*, jobs: Jobs = None):
    """What makes stage 1 learn: the default recipe, one thing changed at a time."""
    from jsws_lib.experiments import results
    from jsws_lib.experiments.studies.one_change import study as run

    file = run(jobs=jobs)
    say(f"{results.study_table(json.loads(file.read_text()))}\n\nfigures in {file}")


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
