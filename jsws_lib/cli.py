"""`jsws`, the command line: data, pre-training, both stages, measures, prediction."""

import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.parallel import is_main, process_share
from jsws_lib import cli_measure
from jsws_lib.cli_options import (
    Accumulate,
    Backbone,
    Backbones,
    Batch,
    Cache,
    Change,
    Checkpointing,
    Compile,
    CrfScale,
    Data,
    Json,
    Leaky,
    Precision,
    Processes,
    Profile,
    Rate,
    Recipe,
    RecipeCrf,
    SalImages,
    SalList,
    SalMasks,
    Seed,
    Size,
    Steps,
    TestImages,
    TestList,
    TestMasks,
    Tracker,
    TrainList,
    ValList,
    Voc,
    Weights,
    Workers,
    echo,
    option,
    override,
    positive,
    profile_and_recipe,
)
from jsws_lib.config import PROFILES, ROOT, get_profile, get_recipe

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_show_locals=False, rich_markup_mode="markdown",
    help="SSNet: learn to segment 20 categories from image labels and saliency masks.\n\n"
    "A first run on the embedded data, on a laptop: `jsws data make-mini`, then "
    "`jsws train stage1`, `jsws pseudo-label`, `jsws train stage2`, and `jsws predict`.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Make or inspect data sets.")
train_app = typer.Typer(no_args_is_help=True, help="Train SSNet-1 or SSNet-2.")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(cli_measure.evaluate_app, name="evaluate")
app.command()(cli_measure.predict)
app.command()(cli_measure.page)
app.command()(cli_measure.compare)
app.command()(cli_measure.submit)


def _version(asked: bool):
    if asked:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        typer.echo(project["project"]["version"])
        raise typer.Exit


@app.callback()
def jsws(number: Annotated[bool, option(
    "print the version", "--version", callback=_version, is_eager=True)] = False):
    """Options of every command."""


@data_app.command("download")
def data_download(
    names: Annotated[list[str], typer.Argument(help="data sets; see `jsws data list`")],
    data: Data = None,
    from_: Annotated[Path | None, option(
        "an archive that was fetched already, or the folder that holds it",
        "--from")] = None,
    keep: Annotated[bool, option("do not delete the archives", "--keep")] = False,
):  # fmt: skip
    """Fetch real data sets: resumed, verified, unpacked where the profiles look."""
    from data_utils.download import download, sources

    known, root = sources(), get_profile("paper", data=data).data
    for name in names:
        if name not in known:
            raise JswsError(f"unknown data set '{name}'; choose from {', '.join(known)}")
    if (root / "mini.json").is_file():
        raise JswsError(f"{root} holds the embedded drawings; name another --data")
    failed = []
    for name in names:
        typer.echo(f"{name}: {known[name].title}\n  licence: {known[name].licence}\n"
                   f"  cite: {known[name].cite}")  # fmt: skip
        try:
            new = download(known[name], root, given=from_, keep=keep)
            typer.echo(f"  {'is now' if new else 'is there already'}: {root}")
        except JswsError as error:
            if len(names) == 1:
                raise
            failed.append(name)
            typer.echo(f"  FAIL: {error}")
    if failed:
        raise JswsError(f"not fetched: {', '.join(failed)}, for the reasons above; the "
                        "same command goes on from what has come")  # fmt: skip


@data_app.command("list")
def data_list(data: Data = None, as_json: Json = False):
    """List the data sets that can be fetched, and what of them is there."""
    from data_utils.download import missing, sources

    root = get_profile("paper", data=data).data
    rows = [{"name": one.name, "title": one.title, "gigabytes": one.gigabytes,
             "page": one.page, "licence": one.licence, "missing": missing(one, root)}
            for one in sources().values()]  # fmt: skip
    if as_json:
        return typer.echo(json.dumps(rows))
    for row in rows:
        state = "; ".join(row["missing"]) or "here"
        typer.echo(f"{row['name']:<10} {row['gigabytes']:>4} GB  {row['title']}: {state}")
    typer.echo(f"real data sets, looked for under {root}")


@data_app.command("check")
def data_check(data: Data = None, voc: Voc = None, as_json: Json = False):
    """Open every picture under the data root: whole, paired, and as published?"""
    from data_utils.check import check

    p = get_profile("paper", data=data, voc=voc)
    verdicts = check(p.data, voc=p.voc)
    if as_json:
        typer.echo(json.dumps([{**asdict(v), "state": v.state} for v in verdicts]))
    else:
        typer.echo("\n".join(line for v in verdicts for line in v.words()))
        found = {v.name.split()[0] for v in verdicts}
        absent = [name for name in ("VOC2012", "DUTS-TR", "ECSSD") if name not in found]
        if absent:
            typer.echo(f"not under {p.data}: {', '.join(absent)}, which the profiles train "
                       "or measure on")  # fmt: skip
    raise typer.Exit(any(v.state == "FAIL" for v in verdicts))


@data_app.command("adopt")
def data_adopt(
    pictures: Annotated[Path, typer.Argument(help="folder of your pictures")],
    labels: Annotated[Path, typer.Argument(
        help="CSV table with a header: `file,labels`, names separated by `;`, or `file` "
        "and a column of 1 and 0 for each category")],
    out: Annotated[Path, option("data root to make; give it to --data afterwards")],
    saliency_masks: Annotated[Path | None, option(
        "folder of saliency masks, named as their pictures; without them only "
        "--labels-only can be trained")] = None,
    saliency_images: Annotated[Path | None, option(
        "folder of the pictures of these masks; default: yours")] = None,
    class_masks: Annotated[Path | None, option(
        "folder of indexed PNGs, k for the k-th category; pictures that have one are only "
        "measured on")] = None,
    workers: Annotated[int | None, option(
        "processes; default: one per core for many pictures", min=0)] = None,
):  # fmt: skip
    """Take over your own pictures, labels and saliency masks, with categories of your own.

    Every file is opened and checked, and linked or copied into the layout that all other
    commands read. 1 to 254 categories.
    """
    from data_utils.adopt import adopt

    made = adopt(pictures, labels, out, saliency_masks=saliency_masks,
                 saliency_images=saliency_images, class_masks=class_masks,
                 workers=workers)  # fmt: skip
    typer.echo(f"{out}: {made.train:,} pictures to train on, {made.val:,} to measure on; "
               f"saliency masks: {made.saliency:,} and {made.saliency_test:,}")
    for k, (name, count) in enumerate(made.categories.items(), 1):
        typer.echo(f"{k:>4} {name}: {count:,}")


@data_app.command("make-mini")
def make_mini_command(
    root: Annotated[Path, typer.Argument(help="folder to make")] = PROFILES[
        "mini"
    ].data,
    seed: Annotated[int, option("another seed, other scenes", min=0)] = 0,
    size: Annotated[int, option("px, side of the images", min=32)] = 96,
    workers: Annotated[
        int | None, option("processes; default: one per core", min=0)
    ] = None,
):
    """Draw the embedded data: VOC, DUTS and ECSSD layouts from OpenMoji drawings.

    2,000 + 400 images of the 20 categories, 2,000 + 400 of the saliency sets. Nothing
    is done when the folder already holds them.
    """
    from data_utils.mini import make_mini

    typer.echo(
        f"embedded data in {make_mini(root, seed=seed, size=size, workers=workers)}"
    )


@app.command()
def pretrain(
    images: Annotated[int, option("drawings to train on", min=1)] = 16_000,
    epochs: Annotated[int, option("passes over them", min=1)] = 5,
    size: Annotated[int, option("px", min=32)] = 64,
    seed: Seed = 0,
    out: Annotated[
        Path | None, option("file; default runs/pretrain/densenet_mini.safetensors")
    ] = None,
):
    """Pre-train the mini backbone on single drawings, which play ImageNet.

    `jsws train stage1 --weights FILE` starts from its features.
    """
    from jsws_lib.pretrain import OUT
    from jsws_lib.pretrain import pretrain as run

    out = out or OUT
    accuracy = run(images=images, epochs=epochs, size=size, seed=seed, out=out)
    typer.echo(f"accuracy {accuracy:.4f} on new pictures; features in {out}")


def _train(setting: str, profile, recipe, seed: int, out: Path | None, as_json: bool,
           **given):  # fmt: skip
    from jsws_lib.runs import run_folder, train_or_load

    trained = train_or_load(
        setting, profile=profile, recipe=recipe, seed=seed, out=out, **given
    )
    record = {"setting": setting, "source": trained.source}
    if trained.source.startswith("shipped"):
        record["note"] = "nothing was trained; JSWS_TRAIN=1 or an --out folder trains anew"
    else:
        folder = out or run_folder(setting, profile=profile, recipe=recipe, seed=seed)
        record["folder"] = str(folder)
        record |= {k: round(v, 4) for k, v in trained.history[-1].items()}
    echo(record, as_json)


@train_app.command("stage1")
def train_stage1(
    profile: Profile = "", recipe: Recipe = "", change: Change = None,
    labels_only: Annotated[bool, option("setting S: L_c alone, no saliency")] = False,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps: Steps = None, batch: Batch = None, lr: Rate = None, workers: Workers = None,
    cache: Cache = None, precision: Precision = None, accumulate: Accumulate = "",
    checkpointing: Checkpointing = False, compile: Compile = False,
    tracker: Tracker = None,
    data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    leaky_labels: Leaky = False,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-1 with L_c + L_s1 (setting M), or L_c alone (setting S).

    A finished run in the same folder is loaded, an interrupted one continued. Without any
    option this loads the network that is shipped; JSWS_TRAIN=1 trains it.
    """
    p, r = profile_and_recipe(
        profile, recipe, change=change, stage=1, backbone=backbone, weights=weights,
        size=size, steps=steps, batch=batch, lr=lr, workers=workers, cache=cache,
        data=data, voc=voc, train_list=train_list, saliency_images=saliency_images,
        saliency_masks=saliency_masks, saliency_list=saliency_list,
        leaky_labels=leaky_labels, precision=precision, accumulate=accumulate,
        checkpointing=checkpointing, compile=compile,
    )  # fmt: skip
    _train("S" if labels_only else "M", p, r, seed, out, as_json, tracker=tracker)


@train_app.command("stage2")
def train_stage2(
    setting: Annotated[str, option("SS, MS, MM or 2S; see `jsws_lib/runs.py`")] = "MM",
    profile: Profile = "", recipe: Recipe = "", change: Change = None,
    teacher: Annotated[Path | None, option(
        "SSNet-1 checkpoint; default: trained or loaded")] = None,
    pseudo_labels: Annotated[Path | None, option(
        "folder `jsws pseudo-label` wrote; default: made")] = None,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps: Steps = None, batch: Batch = None, lr: Rate = None, workers: Workers = None,
    cache: Cache = None, precision: Precision = None, accumulate: Accumulate = "",
    checkpointing: Checkpointing = False, compile: Compile = False,
    tracker: Tracker = None,
    data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    crf: RecipeCrf = None, leaky_labels: Leaky = False,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-2 on pseudo labels and saliency masks (setting MM by default).

    A finished run in the same folder is loaded, an interrupted one continued. Without any
    option this loads the network that is shipped; JSWS_TRAIN=1 trains it.
    """
    from jsws_lib.runs import SETTINGS

    p, r = profile_and_recipe(
        profile, recipe, change=change, stage=2, backbone=backbone, weights=weights,
        size=size, steps=steps, batch=batch, lr=lr, workers=workers, cache=cache,
        data=data, voc=voc, train_list=train_list, saliency_images=saliency_images,
        saliency_masks=saliency_masks, saliency_list=saliency_list,
        leaky_labels=leaky_labels, crf=crf, precision=precision, accumulate=accumulate,
        checkpointing=checkpointing, compile=compile,
    )  # fmt: skip
    if SETTINGS.get(setting, SETTINGS["S"]).stage != 2:
        raise JswsError(f"setting '{setting}' is not of stage 2; choose SS, MS, MM, 2S")
    if (teacher or pseudo_labels) and not out:
        raise JswsError("--teacher and --pseudo-labels need --out: name the run folder")
    _train(setting, p, r, seed, out, as_json, teacher=teacher,
           pseudo_labels=pseudo_labels, tracker=tracker)  # fmt: skip


@app.command("pseudo-label")
def pseudo_label_command(
    checkpoint: Annotated[Path | None, option(
        "SSNet-1 checkpoint; default: setting M, trained or loaded")] = None,
    out: Annotated[Path | None, option("folder; default beside the run")] = None,
    profile: Profile = "", recipe: Recipe = "", change: Change = None,
    crf: RecipeCrf = None, crf_scale: CrfScale = None, seed: Seed = 0,
    backbone: Backbone = None, size: Size = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None, processes: Processes = None,
):  # fmt: skip
    """Write a palette PNG per training image: probabilities x labels, CRF, argmax."""
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.devices import pick_device
    from jsws_lib.pseudo_labels import make_pseudo_labels
    from jsws_lib.runs import pseudo_label_folder, train_or_load

    p, r = profile_and_recipe(profile, recipe, change=change, backbone=backbone, size=size,
                              data=data, voc=voc, train_list=train_list, crf=crf,
                              crf_scale=crf_scale)  # fmt: skip
    if checkpoint:
        expect = {"categories": categories(p.data / p.voc), "stage": 1,
                  "backbone": p.backbone}  # fmt: skip
        expect |= {"size": size} if size else {}
        net, _ = load_ssnet(checkpoint, expect=expect, device=pick_device())
        out = out or checkpoint.parent / "pseudo_labels"
    else:
        net = train_or_load("M", profile=p, recipe=r, seed=seed).net
        out = out or pseudo_label_folder("M", p, r, seed)
    make_pseudo_labels(net, profile=p, recipe=r, out=out, workers=processes)
    if is_main():
        typer.echo(f"{len(list(out.glob('*.png')))} pseudo labels in {out}; CRF preset "
                   f"{r.crf}, scale {p.crf_scale:g}")  # fmt: skip


Seeds = Annotated[str, option("how many seeds from 0 on, or a list such as 3,5")]


@app.command()
def ablate(
    profile: Profile = "", recipe: Recipe = "", change: Change = None,
    seeds: Seeds = "3",
    settings: Annotated[str, option("some of S,M,SS,MS,MM,2S; default: all")] = "",
    dry_run: Annotated[bool, option(
        "only say what would be done: the runs, the state of the data, and the hours, "
        "memory and disk that a few measured steps suggest", "--dry-run")] = False,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps1: Annotated[int | None, option("steps of stage 1", min=1)] = None,
    steps2: Annotated[int | None, option("steps of stage 2", min=1)] = None,
    lr1: Annotated[float | None, option("(peak) learning rate of stage 1",
                                        callback=positive)] = None,
    lr2: Annotated[float | None, option("(peak) learning rate of stage 2",
                                        callback=positive)] = None,
    batch: Batch = None, workers: Workers = None, cache: Cache = None,
    precision: Precision = None, accumulate: Accumulate = "",
    checkpointing: Checkpointing = False, compile: Compile = False,
    data: Data = None, voc: Voc = None,
    train_list: TrainList = None, val_list: ValList = None,
    saliency_images: SalImages = None, saliency_masks: SalMasks = None,
    saliency_list: SalList = None, test_images: TestImages = None,
    test_masks: TestMasks = None, test_list: TestList = None,
    crf: RecipeCrf = None, crf_scale: CrfScale = None,
    jobs: Annotated[int | None, option(
        "runs at a time; default: one per core on the CPU, one on a GPU", min=1)] = None,
    out: Annotated[Path | None, option(
        "JSON file; default results/ablation_PROFILE.json, never replaced by less")] = None,
):  # fmt: skip
    """Tables 5 and 6 again: six settings, several seeds, one JSON file, a table, a chart.

    Interrupt it when you like: the same command goes on. Finished runs are not repeated.
    """
    from jsws_lib import ablation, results

    common = dict(
        backbone=backbone, weights=weights, size=size, batch=batch, workers=workers,
        cache=cache, data=data, voc=voc, train_list=train_list, val_list=val_list,
        saliency_images=saliency_images, saliency_masks=saliency_masks,
        saliency_list=saliency_list, test_images=test_images, test_masks=test_masks,
        test_list=test_list, crf=crf, crf_scale=crf_scale, precision=precision,
        accumulate=accumulate, checkpointing=checkpointing, compile=compile,
    )  # fmt: skip
    p, r = profile_and_recipe(profile, recipe, change=change, stage=1, steps=steps1,
                              lr=lr1, **common)  # fmt: skip
    p, r = override(p, r, stage=2, steps=steps2, lr=lr2)
    chosen = {"seeds": _seed_list(seeds), "settings": _setting_list(settings)}
    if dry_run:
        from jsws_lib.dry_run import describe_plan

        text, ready = describe_plan(ablation.plan(p, r, **chosen), jobs=jobs)
        typer.echo(text)
        raise typer.Exit(0 if ready else 1)
    file = ablation.ablate(profile=p, recipe=r, jobs=jobs, out=out, **chosen)
    if not is_main():
        return
    result = json.loads(file.read_text())
    picture = file.with_suffix(".png")
    results.ablation_chart(result).savefig(picture, dpi=110)
    typer.echo(results.ablation_table(result))
    typer.echo(f"\nfigures in {file}, chart in {picture}")


@app.command()
def study(
    seed: Seed = 0,
    jobs: Annotated[int | None, option("runs at a time; default: one per core",
                                       min=1)] = None,
):  # fmt: skip
    """What makes stage 1 learn: the default recipe, one thing changed at a time."""
    from jsws_lib import results
    from jsws_lib.study import study as run

    file = run(seed=seed, jobs=jobs)
    typer.echo(results.study_table(json.loads(file.read_text())))
    typer.echo(f"\nfigures in {file}")


@app.command()
def bench(
    backbone: Annotated[Backbones, option("of the rows that run a network")] =
    Backbones.densenet169,
    size: Annotated[int, option("px, side of the network's input", min=32)] = 256,
    batch: Annotated[int | None, option(
        "images a step from each set; default 2, on a GPU 8", min=1)] = None,
    large: Annotated[int | None, option(
        "the same for one more step; default 8, on a GPU 16", min=1)] = None,
    times: Annotated[int, option("runs of each function", min=1)] = 3,
    threads: Annotated[int | None, option(
        "of the rows that run a network; default: one per core, better 1 on a busy machine",
        min=1)] = None,
    only: Annotated[str, option(
        "measure again some of data,measures,pseudo_labels,mini_course,inference,training,"
        "large_step,profile,compile; default: all")] = "",
    out: Annotated[Path | None, option(
        "JSON file; default results/bench_DEVICE.json")] = None,
):  # fmt: skip
    """Time ours against what the released code is known to do, row by row."""
    from jsws_lib import bench as run
    from jsws_lib import speed_page

    file = run.bench(backbone=str(backbone), size=size, batch=batch, large=large,
                     times=times, threads=threads, out=out,
                     only=only.split(",") if only else run.PARTS_OF_ALL)  # fmt: skip
    result, picture = json.loads(file.read_text()), file.with_suffix(".png")
    speed_page.chart(result).savefig(picture, dpi=110)
    typer.echo(f"{speed_page.table(result)}\n\n{speed_page.shares_table(result)}")
    typer.echo(f"\nfigures in {file}, chart in {picture}")


def _seed_list(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
        seeds = numbers if "," in text else list(range(numbers[0]))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise JswsError(f"--seeds {text}: give a count such as 3, or a list such as 0,4")
    return seeds


def _setting_list(text: str) -> list[str]:
    from jsws_lib.runs import SETTINGS

    chosen = [part.strip() for part in text.split(",")] if text else list(SETTINGS)
    if unknown := [name for name in chosen if name not in SETTINGS]:
        raise JswsError(
            f"unknown setting '{unknown[0]}'; choose from {', '.join(SETTINGS)}"
        )
    return chosen


@app.command()
def ship(
    settings: Annotated[list[str], typer.Argument(help="settings to ship: S M MM")],
    seed: Seed = 0,
):
    """Store networks that `jsws ablate` trained on `mini` in checkpoints/ (maintainers)."""
    from jsws_lib import checkpoints
    from jsws_lib import film as films
    from jsws_lib.ablation import Run, measured

    p, r = get_profile("mini"), get_recipe()
    for setting in settings:
        record = measured(run := Run(setting, setting, p, r, seed))
        if record is None:
            raise JswsError(f"{run.folder} was not trained and measured: run `make ablate`")
        names = ("miou", "mae", "max_f", "mae_crf", "max_f_crf")
        figures = {name: record[name] for name in names if name in record}
        path = checkpoints.ship(
            run.folder / "weights.safetensors", f"mini_{setting}",
            command="jsws ablate --profile mini --seeds 3", figures=figures,
            threads=record["threads"],
        )  # fmt: skip
        film = path.with_name(f"mini_{setting}_film.npz")
        write_bytes(film, (run.folder / "film.npz").read_bytes())
        checkpoints.enter(film, command="jsws ablate --profile mini --seeds 3", seed=seed,
                          figures={"frames": len(films.load(film).steps)},
                          threads=record["threads"])  # fmt: skip
        typer.echo(f"{path.name}: {figures}")


@app.command()
def doctor(as_json: Json = False):
    """Check Python, PyTorch, CRF, fonts, data and checkpoints; say how to mend them."""
    from jsws_lib.doctor import run

    raise typer.Exit(run(as_json=as_json))


def main():
    """Run `jsws`; a user's mistake is one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # a Windows pipe may lack a path's letters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except JswsError as error:
        rank, launched = process_share()  # any of them may fail alone, on its own images
        who = f"jsws, process {rank}" if launched > 1 else "jsws"
        typer.echo(f"{who}: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
