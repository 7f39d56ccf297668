"""`jsws`, the command line: data, pre-training, both stages, measures, prediction."""

import json
import math
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import PROFILES, RECIPES, get_profile, get_recipe
from jsws_lib.crf import CRF_PRESETS, crf_saliency
from jsws_lib.metrics import PROTOCOLS, SaliencyMeasure

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_show_locals=False, rich_markup_mode="markdown",
    help="SSNet: learn to segment 20 categories from image labels and saliency masks.\n\n"
    "A first run on the embedded data, on a laptop: `jsws data make-mini`, then "
    "`jsws train stage1`, `jsws pseudo-label`, `jsws train stage2`, and `jsws predict`.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Make or inspect data sets.")
train_app = typer.Typer(no_args_is_help=True, help="Train SSNet-1 or SSNet-2.")
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure a network or its files.")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

Backbones = StrEnum(
    "Backbones",
    {n: n for n in ("densenet169", "vgg16", "efficientnet_lite0", "densenet_mini")},
)
Protocols = StrEnum("Protocols", {name: name for name in PROTOCOLS})
Presets = StrEnum("Presets", {name: name for name in CRF_PRESETS})


def option(help: str, *names: str, **more):
    """A documented option."""
    return typer.Option(*names, help=help, **more)


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


Profile = Annotated[str, option(f"how large and how long: {', '.join(PROFILES)}; "
                                "default $JSWS_PROFILE, else mini")]  # fmt: skip
Recipe = Annotated[str, option(f"which reading of the paper: {', '.join(RECIPES)}")]
Backbone = Annotated[Backbones | None, option("instead of the profile's")]
Weights = Annotated[Path | None, option(
    "file of backbone weights; default: the published ones, or the shipped",
    exists=True, dir_okay=False, resolve_path=True)]  # fmt: skip
Size = Annotated[int | None, option("px, side of the square input; a multiple of 8",
                                    min=8)]  # fmt: skip
Steps = Annotated[int | None, option("training steps, instead of the profile's", min=1)]
Batch = Annotated[int | None, option("images a step from each set", min=1)]
Rate = Annotated[float | None, option("(peak) learning rate of this stage",
                                      callback=_positive)]  # fmt: skip
Workers = Annotated[int | None, option("data-loading processes", min=0)]
Data = Annotated[Path | None, option("data root; default $JSWS_DATA or the profile's")]
Voc = Annotated[str | None, option("VOC2012 folder, under the data root or absolute")]
TrainList = Annotated[str | None, option("id list in ImageSets/Segmentation")]
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
    callback=_positive)]  # fmt: skip
Seed = Annotated[int, option("of weights, image order and crops",
                             min=0, max=2**32 - 1)]  # fmt: skip
Processes = Annotated[int | None, option("CRF processes; default: one per core", min=0)]
Checkpoint = Annotated[Path, option("a *.safetensors file that `jsws train` wrote")]
Out = Annotated[Path, option("where results go")]
Json = Annotated[bool, option("print one JSON object", "--json")]


def _settings(profile, recipe="", *, stage=1, steps=None, batch=None, lr=None,
              backbone=None, weights=None, crf=None, leaky_labels=False,
              **changes):  # fmt: skip
    """The profile and recipe that the options ask for; None leaves a field as it is."""
    p = get_profile(
        profile, backbone=backbone and str(backbone), weights=weights and str(weights),
        batch_class=batch, batch_saliency=batch, **changes,
    )  # fmt: skip
    r = get_recipe(recipe)
    if crf:
        r = replace(r, crf=str(crf))
    if leaky_labels:
        r = replace(r, leaky_labels=True)
    return _override(p, r, stage=stage, steps=steps, lr=lr)


def _override(p, r, *, stage, steps=None, lr=None):
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


def _echo(record: dict, as_json: bool):
    typer.echo(json.dumps(record) if as_json else
               "\n".join(f"{key}: {value}" for key, value in record.items()))  # fmt: skip


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
    for name in names:
        typer.echo(f"{name}: {known[name].title}\n  licence: {known[name].licence}\n"
                   f"  cite: {known[name].cite}")  # fmt: skip
        new = download(known[name], root, given=from_, keep=keep)
        typer.echo(f"  {'is now' if new else 'is there already'}: {root}")


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
    raise typer.Exit(any(v.state == "FAIL" for v in verdicts))


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
    folder = out or run_folder(setting, profile=profile, recipe=recipe, seed=seed)
    last = {k: round(v, 4) for k, v in trained.history[-1].items()}
    record = {"setting": setting, "source": trained.source, "folder": str(folder)}
    _echo(record | last, as_json)


@train_app.command("stage1")
def train_stage1(
    profile: Profile = "", recipe: Recipe = "",
    labels_only: Annotated[bool, option("setting S: L_c alone, no saliency")] = False,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps: Steps = None, batch: Batch = None, lr: Rate = None, workers: Workers = None,
    data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    leaky_labels: Leaky = False,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-1 with L_c + L_s1 (setting M), or L_c alone (setting S).

    A finished run in the same folder is loaded, an interrupted one continued.
    """
    p, r = _settings(
        profile, recipe, stage=1, backbone=backbone, weights=weights, size=size,
        steps=steps, batch=batch, lr=lr, workers=workers, data=data, voc=voc,
        train_list=train_list, saliency_images=saliency_images,
        saliency_masks=saliency_masks, saliency_list=saliency_list,
        leaky_labels=leaky_labels,
    )  # fmt: skip
    _train("S" if labels_only else "M", p, r, seed, out, as_json)


@train_app.command("stage2")
def train_stage2(
    setting: Annotated[str, option("SS, MS, MM or 2S; see `jsws_lib/runs.py`")] = "MM",
    profile: Profile = "", recipe: Recipe = "",
    teacher: Annotated[Path | None, option(
        "SSNet-1 checkpoint; default: trained or loaded")] = None,
    pseudo_labels: Annotated[Path | None, option(
        "folder `jsws pseudo-label` wrote; default: made")] = None,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps: Steps = None, batch: Batch = None, lr: Rate = None, workers: Workers = None,
    data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    crf: RecipeCrf = None, leaky_labels: Leaky = False,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-2 on pseudo labels and saliency masks (setting MM by default)."""
    from jsws_lib.runs import SETTINGS

    p, r = _settings(
        profile, recipe, stage=2, backbone=backbone, weights=weights, size=size,
        steps=steps, batch=batch, lr=lr, workers=workers, data=data, voc=voc,
        train_list=train_list, saliency_images=saliency_images,
        saliency_masks=saliency_masks, saliency_list=saliency_list,
        leaky_labels=leaky_labels, crf=crf,
    )  # fmt: skip
    if SETTINGS.get(setting, SETTINGS["S"]).stage != 2:
        raise JswsError(f"setting '{setting}' is not of stage 2; choose SS, MS, MM, 2S")
    if (teacher or pseudo_labels) and not out:
        raise JswsError("--teacher and --pseudo-labels need --out: name the run folder")
    _train(setting, p, r, seed, out, as_json, teacher=teacher,
           pseudo_labels=pseudo_labels)  # fmt: skip


@app.command("pseudo-label")
def pseudo_label_command(
    checkpoint: Annotated[Path | None, option(
        "SSNet-1 checkpoint; default: setting M, trained or loaded")] = None,
    out: Annotated[Path | None, option("folder; default beside the run")] = None,
    profile: Profile = "", recipe: Recipe = "",
    crf: RecipeCrf = None, crf_scale: CrfScale = None, seed: Seed = 0,
    backbone: Backbone = None, size: Size = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None, processes: Processes = None,
):  # fmt: skip
    """Write a palette PNG per training image: probabilities x labels, CRF, argmax."""
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.pseudo_labels import make_pseudo_labels
    from jsws_lib.runs import pseudo_label_folder, train_or_load
    from jsws_lib.training import pick_device

    p, r = _settings(profile, recipe, backbone=backbone, size=size, data=data, voc=voc,
                     train_list=train_list, crf=crf, crf_scale=crf_scale)  # fmt: skip
    if checkpoint:
        asked = {"backbone": backbone and str(backbone), "size": size}
        expect = {"stage": 1} | {k: v for k, v in asked.items() if v is not None}
        net, _ = load_ssnet(checkpoint, expect=expect, device=pick_device())
        out = out or checkpoint.parent / "pseudo_labels"
    else:
        net = train_or_load("M", profile=p, recipe=r, seed=seed).net
        out = out or pseudo_label_folder("M", p, r, seed)
    make_pseudo_labels(net, profile=p, recipe=r, out=out, workers=processes)
    typer.echo(f"{len(list(out.glob('*.png')))} pseudo labels in {out}")


def _ids(file: Path | None) -> list[str] | None:
    from data_utils.voc import read_ids

    return read_ids(file) if file else None


@evaluate_app.command("network")
def evaluate_network(
    checkpoint: Checkpoint, profile: Profile = "", data: Data = None, voc: Voc = None,
    val_list: ValList = None, test_images: TestImages = None,
    test_masks: TestMasks = None, test_list: TestList = None,
    crf: SaliencyCrf = None, crf_scale: CrfScale = None, as_json: Json = False,
):  # fmt: skip
    """Measure a checkpoint: mIoU on VOC val, MAE and max F on a saliency set.

    mIoU is over the categories that occur in the masks. Max F is the toolbox protocol's.
    With `--crf`, both saliency measures also after it. A network that saw no saliency
    mask gives no saliency map: only its mIoU is told.
    """
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.training import pick_device

    _crf_scale_needs_crf(crf, crf_scale)
    p, r = _settings(
        profile, data=data, voc=voc, val_list=val_list, test_images=test_images,
        test_masks=test_masks, test_list=test_list, crf=crf, crf_scale=crf_scale,
    )  # fmt: skip
    net, story = load_ssnet(checkpoint, device=pick_device())
    record = {"checkpoint": str(checkpoint), "setting": story["setting"]}
    record |= _figures(net, story["setting"], p, r, crf=bool(crf))
    if "max_f" in record:
        record["protocol"] = SaliencyMeasure().name
    _echo(record | ({"crf": r.crf, "crf_scale": p.crf_scale} if crf else {}), as_json)


def _crf_scale_needs_crf(crf, crf_scale):
    if crf_scale and not crf:
        raise JswsError("--crf-scale needs --crf: name the CRF preset")


def _figures(net, setting: str, profile, recipe, *, crf: bool) -> dict[str, float]:
    from jsws_lib.inference import evaluate
    from jsws_lib.runs import SETTINGS

    figures = evaluate(net, profile=profile, recipe=recipe, crf=crf).figures()
    if "L_s1" not in SETTINGS[setting].losses:
        figures = {"miou": figures["miou"]}  # its SAM is untrained
    return {name: round(value, 4) for name, value in figures.items()}


@evaluate_app.command("segmentation")
def evaluate_segmentation(
    pred: Annotated[Path, option("folder of predicted `<id>.png`")],
    gt: Annotated[Path, option("folder of true `<id>.png`")],
    list: Annotated[Path | None, option("ids to evaluate; default: all of gt")] = None,
    as_json: Json = False,
):
    """MIoU over 21 classes, 255 ignored, per-category table."""
    from jsws_lib.metrics import evaluate_segmentation_folder

    scores = evaluate_segmentation_folder(pred, gt, ids=_ids(list))
    record = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy,
              "iou": [None if i != i else i for i in scores.iou.tolist()],
              "absent": scores.absent}  # fmt: skip
    typer.echo(json.dumps(record) if as_json else str(scores))


@evaluate_app.command("saliency")
def evaluate_saliency(
    pred: Annotated[Path, option("folder of predicted `<id>.png`")],
    gt: Annotated[Path, option("folder of masks `<id>.png`")],
    list: Annotated[Path | None, option("ids to evaluate; default: all of gt")] = None,
    protocol: Annotated[Protocols, option(
        "definition of max F; they differ by whole points on the same maps"
    )] = Protocols.toolbox,
    as_json: Json = False,
):  # fmt: skip
    """MAE and maximum F-measure under a named protocol."""
    from jsws_lib.metrics import evaluate_saliency_folder

    scores = evaluate_saliency_folder(pred, gt, ids=_ids(list), protocol=str(protocol))
    record = {"protocol": str(protocol), "mae": float(scores.mae),
              "max_f": float(scores.max_f), "mean_f": float(scores.f_curve.mean()),
              "images": scores.count}  # fmt: skip
    typer.echo(json.dumps(record) if as_json else str(scores))


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="pictures or folders of them")],
    checkpoint: Checkpoint,
    out: Out,
    list: Annotated[Path | None, option(
        "file of ids: only `<id>.jpg` of the one folder given")] = None,
    backbone: Annotated[Backbones | None, option("fail unless trained with it")] = None,
    crf: SaliencyCrf = None,
    crf_scale: CrfScale = None,
    plain: Annotated[bool, option(
        "write `<id>.png` into out/segmentation and out/saliency, as `jsws evaluate` "
        "reads them")] = False,
):  # fmt: skip
    """Segment pictures of any size: palette PNG, saliency PNG, overlay."""
    import numpy as np
    from tqdm.auto import tqdm

    from data_utils.datasets import read_image
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.inference import predict as stream
    from jsws_lib.inference import save_plain, save_prediction
    from jsws_lib.training import pick_device

    _crf_scale_needs_crf(crf, crf_scale)
    files = _pictures(images, list)
    _refuse_overwriting(files, out, PLAIN if plain else BESIDE)
    expect = {"backbone": str(backbone)} if backbone else None
    net, _ = load_ssnet(checkpoint, expect=expect, device=pick_device())
    save = save_plain if plain else save_prediction
    predictions = stream(net, (read_image(f) for f in files))
    for file in tqdm(files, desc="predicting", leave=False):
        image, prediction = read_image(file), next(predictions)
        if crf:
            refined = crf_saliency(np.asarray(image), prediction.sal_map,
                                   preset=str(crf), scale=crf_scale or 1)  # fmt: skip
            prediction = prediction._replace(sal_map=refined)
        save(prediction, image, out, file.stem)
    after = f"; saliency refined by the CRF preset {crf}" if crf else ""
    typer.echo(f"{len(files)} pictures segmented in {out}{after}")


# What `save_plain` and `save_prediction` write of a picture.
PLAIN = ("segmentation/{}.png", "saliency/{}.png")
BESIDE = ("{}.png", "{}_saliency.png", "{}_overlay.png")


def _pictures(given: list[Path], ids: Path | None) -> list[Path]:
    """The pictures that `jsws predict` is asked for."""
    from data_utils.voc import read_ids

    if ids:
        if len(given) != 1 or not given[0].is_dir():
            raise JswsError("--list needs one folder of pictures <id>.jpg")
        return [given[0] / f"{i}.jpg" for i in read_ids(ids, image_dir=given[0])]
    files = []
    for path in given:
        inside = sorted([*path.glob("*.jpg"), *path.glob("*.png")])
        if path.is_dir() and not inside:
            raise JswsError(f"no *.jpg or *.png in {path}")
        files += inside if path.is_dir() else [path]
    return files


def _refuse_overwriting(files: list[Path], out: Path, names: tuple[str, ...]):
    """Raise JswsError if a result would replace a picture or another result."""
    pictures, source = {file.resolve() for file in files}, {}
    for file in files:
        for name in names:
            target = (out / name.format(file.stem)).resolve()
            if target in pictures:
                raise JswsError(
                    f"the results of {file} would overwrite the picture {target}; "
                    "choose another --out"
                )
            if target in source:
                raise JswsError(
                    f"{source[target]} and {file} would both be predicted into {target}; "
                    "predict them into two folders"
                )
            source[target] = file


Seeds = Annotated[str, option("how many seeds from 0 on, or a list such as 3,5")]


@app.command()
def ablate(
    profile: Profile = "", recipe: Recipe = "", seeds: Seeds = "3",
    settings: Annotated[str, option("some of S,M,SS,MS,MM,2S; default: all")] = "",
    dry_run: Annotated[bool, option(
        "only say what would be done: the runs, the state of the data, and the hours, "
        "memory and disk that a few measured steps suggest", "--dry-run")] = False,
    backbone: Backbone = None, weights: Weights = None, size: Size = None,
    steps1: Annotated[int | None, option("steps of stage 1", min=1)] = None,
    steps2: Annotated[int | None, option("steps of stage 2", min=1)] = None,
    lr1: Annotated[float | None, option("(peak) learning rate of stage 1",
                                        callback=_positive)] = None,
    lr2: Annotated[float | None, option("(peak) learning rate of stage 2",
                                        callback=_positive)] = None,
    batch: Batch = None, workers: Workers = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None, val_list: ValList = None,
    saliency_images: SalImages = None, saliency_masks: SalMasks = None,
    saliency_list: SalList = None, test_images: TestImages = None,
    test_masks: TestMasks = None, test_list: TestList = None,
    crf: RecipeCrf = None, crf_scale: CrfScale = None,
    jobs: Annotated[int | None, option(
        "runs at a time; default: one per core on the CPU, one on a GPU", min=1)] = None,
    out: Annotated[Path | None, option(
        "JSON file; default results/ablation_<profile>.json")] = None,
):  # fmt: skip
    """Tables 5 and 6 again: six settings, several seeds, one JSON file, a table, a chart.

    Interrupt it when you like: the same command goes on. Finished runs are not repeated.
    """
    from jsws_lib import ablation, results

    common = dict(
        backbone=backbone, weights=weights, size=size, batch=batch, workers=workers,
        data=data, voc=voc, train_list=train_list, val_list=val_list,
        saliency_images=saliency_images, saliency_masks=saliency_masks,
        saliency_list=saliency_list, test_images=test_images, test_masks=test_masks,
        test_list=test_list, crf=crf, crf_scale=crf_scale,
    )  # fmt: skip
    p, r = _settings(profile, recipe, stage=1, steps=steps1, lr=lr1, **common)
    p, r = _override(p, r, stage=2, steps=steps2, lr=lr2)
    chosen = {"seeds": _seed_list(seeds), "settings": _setting_list(settings)}
    if dry_run:
        from jsws_lib.dry_run import describe_plan

        text, ready = describe_plan(ablation.plan(p, r, **chosen), jobs=jobs)
        typer.echo(text)
        raise typer.Exit(0 if ready else 1)
    file = ablation.ablate(profile=p, recipe=r, jobs=jobs, out=out, **chosen)
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
    try:
        app(standalone_mode=True)
    except JswsError as error:
        typer.echo(f"jsws: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
