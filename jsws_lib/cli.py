"""`jsws`, the command line: data, pre-training, both stages, measures, prediction."""

import json
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data_utils.errors import JswsError
from jsws_lib.config import PROFILES, RECIPES, get_profile, get_recipe
from jsws_lib.metrics import PROTOCOLS

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_show_locals=False, rich_markup_mode="markdown",
    help="SSNet: learn to segment 20 categories from image labels and saliency masks.\n\n"
    "A first run on the embedded data, on a laptop: `jsws data make-mini`, then "
    "`jsws train stage1`, `jsws pseudo-label`, `jsws train stage2`, and `jsws predict`.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Make or inspect data sets.")
train_app = typer.Typer(no_args_is_help=True, help="Train SSNet-1 or SSNet-2.")
evaluate_app = typer.Typer(no_args_is_help=True, help="Compare folders of PNG files.")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")

Backbones = StrEnum(
    "Backbones",
    {n: n for n in ("densenet169", "vgg16", "efficientnet_lite0", "densenet_mini")},
)
Protocols = StrEnum("Protocols", {name: name for name in PROTOCOLS})


def option(help: str, *names: str):
    """A documented option."""
    return typer.Option(*names, help=help)


Profile = Annotated[str, option(f"how large and how long: {', '.join(PROFILES)}; "
                                "default $JSWS_PROFILE, else mini")]  # fmt: skip
Recipe = Annotated[str, option(f"which reading of the paper: {', '.join(RECIPES)}")]
Backbone = Annotated[Backbones | None, option("instead of the profile's")]
Size = Annotated[int | None, option("px, side of the square input; a multiple of 8")]
Steps = Annotated[int | None, option("training steps, instead of the profile's")]
Batch = Annotated[int | None, option("images a step from each set")]
Workers = Annotated[int | None, option("data-loading processes")]
Data = Annotated[Path | None, option("data root; default $JSWS_DATA or the profile's")]
Voc = Annotated[str | None, option("VOC2012 folder, under the data root or absolute")]
TrainList = Annotated[str | None, option("id list in ImageSets/Segmentation")]
SalImages = Annotated[str | None, option("folder of saliency training images")]
SalMasks = Annotated[str | None, option("folder of saliency training masks")]
SalList = Annotated[str | None, option("file of saliency training ids; default: all")]
Seed = Annotated[int, option("of weights, image order and crops")]
Checkpoint = Annotated[Path, option("a *.safetensors file that `jsws train` wrote")]
Out = Annotated[Path, option("where results go")]
Json = Annotated[bool, option("print one JSON object", "--json")]


def _settings(profile, recipe, **changes):
    stage = changes.pop("stage", None)
    steps, batch = changes.pop("steps", None), changes.pop("batch", None)
    backbone = changes.pop("backbone", None)
    lr = changes.pop("lr", None)
    crf = changes.pop("crf", None)
    base = get_profile(profile)
    if lr is not None:
        changes["schedules"] = tuple(replace(s, lr=lr) for s in base.schedules)
    if steps is not None:
        changes["steps"] = tuple(
            steps if k == stage - 1 else old for k, old in enumerate(base.steps)
        )
    profile = get_profile(
        profile, backbone=backbone and str(backbone), batch_class=batch,
        batch_saliency=batch, **changes,
    )  # fmt: skip
    return profile, get_recipe(recipe, **({"crf": crf} if crf else {}))


@data_app.command("make-mini")
def make_mini_command(
    root: Annotated[Path, typer.Argument(help="folder to make")] = PROFILES[
        "mini"
    ].data,
    seed: Annotated[int, option("another seed, other scenes")] = 0,
    size: Annotated[int, option("px, side of the images")] = 96,
    workers: Annotated[int | None, option("processes; default: one per core")] = None,
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
    images: Annotated[int, option("drawings to train on")] = 16_000,
    epochs: Annotated[int, option("passes over them")] = 5,
    size: Annotated[int, option("px")] = 64,
    seed: Seed = 0,
    out: Annotated[Path | None, option("default: the shipped file")] = None,
):
    """Pre-train the mini backbone on single drawings, which play ImageNet."""
    from jsws_lib.pretrain import MINI_WEIGHTS
    from jsws_lib.pretrain import pretrain as run

    out = out or MINI_WEIGHTS
    accuracy = run(images=images, epochs=epochs, size=size, seed=seed, out=out)
    typer.echo(f"accuracy {accuracy:.4f} on new pictures; features in {out}")


def _train(setting: str, profile, recipe, seed: int, out: Path | None, as_json: bool,
           **given):  # fmt: skip
    from jsws_lib.training import run_folder, train_or_load

    trained = train_or_load(
        setting, profile=profile, recipe=recipe, seed=seed, out=out, **given
    )
    folder = out or run_folder(setting, profile=profile, recipe=recipe, seed=seed)
    last = {k: round(v, 4) for k, v in trained.history[-1].items()}
    record = {
        "setting": setting,
        "source": trained.source,
        "folder": str(folder),
        **last,
    }
    typer.echo(json.dumps(record) if as_json else
               "\n".join(f"{key}: {value}" for key, value in record.items()))  # fmt: skip


@train_app.command("stage1")
def train_stage1(
    profile: Profile = "", recipe: Recipe = "anchored",
    labels_only: Annotated[bool, option("setting S: L_c alone, no saliency")] = False,
    backbone: Backbone = None, size: Size = None, steps: Steps = None, batch: Batch = None,
    lr: Annotated[float | None, option("peak learning rate")] = None,
    workers: Workers = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    leaky_labels: Annotated[bool, option(
        "labels from the cropped pixel masks, as the released code does: leaks "
        "ground truth, for comparison only")] = False,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-1 with L_c + L_s1 (setting M), or L_c alone (setting S).

    A finished run in the same folder is loaded, an interrupted one continued.
    """
    p, r = _settings(
        profile, recipe, stage=1, backbone=backbone, size=size, steps=steps, batch=batch,
        lr=lr, workers=workers, data=data, voc=voc, train_list=train_list,
        saliency_images=saliency_images, saliency_masks=saliency_masks,
        saliency_list=saliency_list,
    )  # fmt: skip
    if leaky_labels:
        r = get_recipe(recipe, leaky_labels=True)
    _train("S" if labels_only else "M", p, r, seed, out, as_json)


@train_app.command("stage2")
def train_stage2(
    setting: Annotated[str, option("SS, MS, MM or 2S; see `jsws_lib/training.py`")] = "MM",
    profile: Profile = "", recipe: Recipe = "anchored",
    teacher: Annotated[Path | None, option(
        "SSNet-1 checkpoint; default: trained or loaded")] = None,
    pseudo_labels: Annotated[Path | None, option(
        "folder `jsws pseudo-label` wrote; default: made")] = None,
    backbone: Backbone = None, size: Size = None, steps: Steps = None, batch: Batch = None,
    lr: Annotated[float | None, option("peak learning rate")] = None,
    workers: Workers = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None, saliency_images: SalImages = None,
    saliency_masks: SalMasks = None, saliency_list: SalList = None, seed: Seed = 0,
    out: Annotated[Path | None, option("run folder; default runs/...")] = None,
    as_json: Json = False,
):  # fmt: skip
    """Train SSNet-2 on pseudo labels and saliency masks (setting MM by default)."""
    from jsws_lib.training import SETTINGS

    p, r = _settings(
        profile, recipe, stage=2, backbone=backbone, size=size, steps=steps, batch=batch,
        lr=lr, workers=workers, data=data, voc=voc, train_list=train_list,
        saliency_images=saliency_images, saliency_masks=saliency_masks,
        saliency_list=saliency_list,
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
    profile: Profile = "", recipe: Recipe = "anchored",
    crf: Annotated[str | None, option("CRF preset, instead of the recipe's")] = None,
    crf_scale: Annotated[float | None, option("factor on the CRF's ranges")] = None,
    backbone: Backbone = None, size: Size = None, data: Data = None, voc: Voc = None,
    train_list: TrainList = None,
    processes: Annotated[int | None, option("CRF processes; default one a core")] = None,
):  # fmt: skip
    """Write a palette PNG per training image: probabilities x labels, CRF, argmax."""
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.pseudo_labels import make_pseudo_labels
    from jsws_lib.training import pick_device, pseudo_label_folder, train_or_load

    p, r = _settings(profile, recipe, backbone=backbone, size=size, data=data, voc=voc,
                     train_list=train_list, crf=crf, crf_scale=crf_scale)  # fmt: skip
    if checkpoint:
        asked = {"backbone": backbone and str(backbone), "size": size}
        expect = {"stage": 1} | {k: v for k, v in asked.items() if v is not None}
        net, _ = load_ssnet(checkpoint, expect=expect, device=pick_device())
        out = out or checkpoint.parent / "pseudo_labels"
    else:
        net = train_or_load("M", profile=p, recipe=r).net
        out = out or pseudo_label_folder("M", p, r)
    make_pseudo_labels(net, profile=p, recipe=r, out=out, workers=processes)
    typer.echo(f"{len(list(out.glob('*.png')))} pseudo labels in {out}")


def _ids(file: Path | None) -> list[str] | None:
    from data_utils.voc import read_ids

    return read_ids(file) if file else None


@evaluate_app.command("segmentation")
def evaluate_segmentation(
    pred: Annotated[Path, option("folder of predicted <id>.png")],
    gt: Annotated[Path, option("folder of true <id>.png")],
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
    pred: Annotated[Path, option("folder of predicted <id>.png")],
    gt: Annotated[Path, option("folder of masks <id>.png")],
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
    backbone: Annotated[Backbones | None, option("fail unless trained with it")] = None,
    plain: Annotated[bool, option(
        "write <id>.png into out/segmentation and out/saliency, as `jsws evaluate` "
        "reads them")] = False,
):  # fmt: skip
    """Segment pictures of any size: palette PNG, saliency PNG, overlay."""
    from tqdm.auto import tqdm

    from data_utils.datasets import read_image
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.inference import predict as stream
    from jsws_lib.inference import save_plain, save_prediction
    from jsws_lib.training import pick_device

    files = []
    for path in images:
        inside = sorted([*path.glob("*.jpg"), *path.glob("*.png")])
        if path.is_dir() and not inside:
            raise JswsError(f"no *.jpg or *.png in {path}")
        files += inside if path.is_dir() else [path]
    twice = [name for name, n in Counter(f.stem for f in files).items() if n > 1]
    if twice:
        raise JswsError(
            f"{len(twice)} names occur twice, the first is {twice[0]}: their results would "
            "overwrite each other; predict them into two folders"
        )
    expect = {"backbone": str(backbone)} if backbone else None
    net, _ = load_ssnet(checkpoint, expect=expect, device=pick_device())
    save = save_plain if plain else save_prediction
    predictions = stream(net, (read_image(f) for f in files))
    for file in tqdm(files, desc="predicting", leave=False):
        save(next(predictions), read_image(file), out, file.stem)
    typer.echo(f"{len(files)} pictures segmented in {out}")


@app.command()
def ship(
    settings: Annotated[list[str], typer.Argument(help="settings to ship: S M MM")],
    seed: Seed = 0,
):
    """Measure trained `mini` networks and store them in checkpoints/ (maintainers)."""
    from jsws_lib import checkpoints, training
    from jsws_lib.inference import evaluate

    p, r = get_profile("mini"), get_recipe()
    for setting in settings:
        trained = training.train_or_load(setting, profile=p, recipe=r, seed=seed)
        folder = training.run_folder(setting, profile=p, recipe=r, seed=seed)
        figures = evaluate(trained.net, profile=p, recipe=r, crf=True).figures()
        if "L_s1" not in training.SETTINGS[setting].losses:
            figures = {"miou": figures["miou"]}  # its SAM is untrained
        stage = f"stage{training.SETTINGS[setting].stage}"
        choice = {"S": " --labels-only", "M": ""}.get(setting, f" --setting {setting}")
        path = checkpoints.ship(
            folder / "weights.safetensors", f"mini_{setting}",
            command=f"JSWS_TRAIN=1 jsws train {stage}{choice} --seed {seed}",
            figures={name: round(value, 4) for name, value in figures.items()},
        )  # fmt: skip
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
