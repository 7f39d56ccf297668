"""The commands of `jsws` that measure, predict and compare."""

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.files import for_json
from data_utils.voc import VOC_CLASSES, read_ids
from jsws_lib.cli_options import (
    Backbones,
    Checkpoint,
    CrfScale,
    Data,
    Json,
    Out,
    Profile,
    Protocols,
    SaliencyCrf,
    TestImages,
    TestList,
    TestMasks,
    ValList,
    Voc,
    echo,
    ids_in,
    option,
    profile_and_recipe,
)
from jsws_lib.config import PROFILES
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure a network or its files.")
Pred = Annotated[Path, option("folder of predicted `<id>.png`")]
Truth = Annotated[Path, option("folder of true `<id>.png`")]
Ids = Annotated[Path | None, option("file of ids; default: all of the truth's")]
Cores = Annotated[int | None, option("processes; default: one per core for many images",
                                     min=0)]  # fmt: skip
Conventions = StrEnum("Conventions", {name: name for name in ConfusionMatrix.ABSENT})
Absent = Annotated[Conventions, option(
    "a category that the masks lack: counts 0, is left out if it is not predicted either "
    "(union), or is left out (target); all the same on the whole of VOC val")]


def _drawable(path: Path | None) -> Path | None:
    """Refuse a figure's file before hours of measuring, not after them."""
    if path:
        from jsws_lib.pages import check_format

        check_format(path)
    return path


Figure = Annotated[Path | None, option("also draw it into this file (.png, .pdf, .svg)",
                                       callback=_drawable)]  # fmt: skip


@evaluate_app.command("network")
def evaluate_network(
    checkpoint: Checkpoint, profile: Profile = "", data: Data = None, voc: Voc = None,
    val_list: ValList = None, test_images: TestImages = None,
    test_masks: TestMasks = None, test_list: TestList = None,
    crf: SaliencyCrf = None, crf_scale: CrfScale = None,
    absent: Absent = Conventions.target, as_json: Json = False,
):  # fmt: skip
    """Measure a checkpoint: mIoU on VOC val, MAE and max F on a saliency set.

    mIoU is over the categories that occur in the masks. Max F is the toolbox protocol's.
    With `--crf`, both saliency measures also after it. A network that saw no saliency
    mask gives no saliency map: only its mIoU is told.
    """
    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.devices import pick_device

    _crf_scale_needs_crf(crf, crf_scale)
    p, r = profile_and_recipe(
        profile, data=data, voc=voc, val_list=val_list, test_images=test_images,
        test_masks=test_masks, test_list=test_list, crf=crf, crf_scale=crf_scale,
    )  # fmt: skip
    expect = {"categories": categories(p.data / p.voc)}
    net, story = load_ssnet(checkpoint, expect=expect, device=pick_device())
    record = {"checkpoint": str(checkpoint), "setting": story["setting"]}
    record |= _figures(net, story["setting"], p, r, crf=bool(crf), absent=str(absent))
    record["absent"] = str(absent)
    if "max_f" in record:
        record["protocol"] = SaliencyMeasure().name
    record |= {"crf": r.crf, "crf_scale": p.crf_scale} if crf else {}
    echo(for_json(record), as_json)


def _crf_scale_needs_crf(crf, crf_scale):
    if crf_scale and not crf:
        raise JswsError("--crf-scale needs --crf: name the CRF preset")


def _figures(net, setting: str, profile, recipe, **options) -> dict[str, float]:
    from jsws_lib.inference import evaluate
    from jsws_lib.runs import SETTINGS

    figures = evaluate(net, profile=profile, recipe=recipe, **options).figures()
    if "L_s1" not in SETTINGS[setting].losses:
        figures = {"miou": figures["miou"]}  # its SAM is untrained
    return {name: round(value, 4) for name, value in figures.items()}


@evaluate_app.command("segmentation")
def evaluate_segmentation(
    pred: Pred, gt: Truth, list: Ids = None, absent: Absent = Conventions.union,
    named: Annotated[Path | None, option(
        "VOC folder that names the categories, where `jsws data adopt` put it; default: "
        "the parent of --gt", "--categories")] = None,
    figure: Figure = None, workers: Cores = None, as_json: Json = False,
):  # fmt: skip
    """MIoU over background and categories, 255 ignored; a row each; confusion matrix."""
    from jsws_lib.folders import evaluate_segmentation_folder

    own = categories(named or gt.absolute().parent)
    matrix = evaluate_segmentation_folder(pred, gt, ids=ids_in(list), absent=str(absent),
                                          names=("background", *own),
                                          workers=workers)  # fmt: skip
    scores = matrix.compute()
    record = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy,
              "iou": scores.iou.tolist(), "absent": scores.absent}  # fmt: skip
    if own != VOC_CLASSES[1:]:
        record["categories"] = scores.names
    typer.echo(json.dumps(for_json(record)) if as_json else str(scores))
    if figure:
        from jsws_lib.pages import confusion_page, save_figure

        save_figure(confusion_page(matrix), figure)


@evaluate_app.command("saliency")
def evaluate_saliency(
    pred: Pred, gt: Truth, list: Ids = None,
    protocol: Annotated[Protocols, option(
        "definition of max F; they differ by whole points on the same maps"
    )] = Protocols.toolbox,
    structure: Annotated[bool, option(
        "also S-measure, E-measure and weighted F, by PySODMetrics",
        "--structure")] = False,
    curves: Annotated[bool, option("with --json: the whole curves, too",
                                   "--curves")] = False,
    figure: Figure = None, workers: Cores = None, as_json: Json = False,
):  # fmt: skip
    """MAE and maximum F-measure under a named protocol."""
    from jsws_lib.folders import evaluate_saliency_folder, evaluate_structure_folder

    ids = ids_in(list)
    scores = evaluate_saliency_folder(pred, gt, ids=ids, protocol=str(protocol),
                                      workers=workers)  # fmt: skip
    record = {"protocol": str(protocol), "mae": scores.mae, "max_f": scores.max_f,
              "mean_f": float(scores.f_curve.mean()), "images": scores.count}  # fmt: skip
    words = [str(scores)]
    if structure:
        extra = evaluate_structure_folder(pred, gt, ids=ids, workers=workers)
        record |= {name: value for name, value in extra._asdict().items()
                   if name not in ("e_curve", "count")}  # fmt: skip
        words.append(str(extra))
    if curves:
        names = ("precision", "recall", "f_curve")
        record |= {name: getattr(scores, name).tolist() for name in names}
    typer.echo(json.dumps(for_json(record)) if as_json else "\n".join(words))
    if figure:
        from jsws_lib.pages import saliency_page, save_figure

        save_figure(saliency_page(scores, name=pred.resolve().name), figure)


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
    from tqdm.auto import tqdm

    from jsws_lib.checkpoints import load_ssnet
    from jsws_lib.devices import pick_device
    from jsws_lib.inference import predict as stream
    from jsws_lib.inference import (
        refine_saliency,
        save_legend,
        save_plain,
        save_prediction,
    )
    from jsws_lib.pages import read_upright
    from jsws_lib.runs import SETTINGS

    _crf_scale_needs_crf(crf, crf_scale)
    files = _pictures(images, list)
    _refuse_overwriting(files, out, PLAIN if plain else BESIDE)
    expect = {"backbone": str(backbone)} if backbone else None
    net, story = load_ssnet(checkpoint, expect=expect, device=pick_device())
    saliency = "L_s1" in SETTINGS[story["setting"]].losses  # else its SAM is untrained
    if crf and not saliency:
        raise JswsError(f"{checkpoint} saw no saliency mask (setting {story['setting']}): "
                        "it has no saliency map to refine; leave --crf out")  # fmt: skip
    known = PROFILES.get(story.get("profile"))
    scale = crf_scale or (known.crf_scale if known else 1.0)  # as in its training
    save = partial(save_plain if plain else save_prediction, saliency=saliency)
    predictions = stream(net, (read_upright(f) for f in files))
    for file in tqdm(files, desc="predicting", leave=False):
        image, prediction = read_upright(file), next(predictions)
        if crf:
            refined = refine_saliency(image, prediction.sal_map, preset=str(crf),
                                      scale=scale)  # fmt: skip
            prediction = prediction._replace(sal_map=refined)
        save(prediction, image, out, file.stem)
    if story["categories"] != [*VOC_CLASSES[1:]]:
        save_legend(story["categories"], out / "categories.csv")
    after = f"; saliency refined by the CRF preset {crf}, scale {scale:g}" if crf else ""
    if not saliency:
        after = f"; setting {story['setting']} saw no saliency mask: no saliency maps"
    typer.echo(f"{len(files)} picture{'s' * (len(files) > 1)} segmented in {out}{after}")


# What `save_plain` and `save_prediction` write of a picture.
PLAIN = ("segmentation/{}.png", "saliency/{}.png")
BESIDE = ("{}.png", "{}_saliency.png", "{}_overlay.png")


def _pictures(given: list[Path], ids: Path | None) -> list[Path]:
    """The pictures that `jsws predict` is asked for."""
    if ids:
        if len(given) != 1 or not given[0].is_dir():
            raise JswsError("--list needs one folder of pictures <id>.jpg")
        return [given[0] / f"{i}.jpg" for i in read_ids(ids, image_dir=given[0])]
    files = []
    for path in given:
        kinds = (".jpg", ".jpeg", ".png")  # cameras write capitals
        inside = sorted(p for p in path.glob("*.*") if p.suffix.lower() in kinds)
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


Kinds = StrEnum("Kinds", {name: name for name in ("segmentation", "saliency", "both")})
Formats = StrEnum("Formats", {name: name for name in ("markdown", "latex", "html")})


def page(
    images: Annotated[Path, typer.Argument(help="folder of pictures `<id>.jpg`")],
    variants: Annotated[list[str], option(
        "a column: NAME=checkpoint.safetensors, or NAME=folder of predicted `<id>.png`; "
        "again for more columns", "--variant")],
    out: Annotated[Path, option("the page (.png, .pdf); more ids, more pages")],
    list: Annotated[Path | None, option("file of ids, a row each; default: all")] = None,
    masks: Annotated[Path | None, option("folder of true class masks `<id>.png`")] = None,
    saliency_masks: Annotated[Path | None, option(
        "folder of true saliency masks `<id>.png`")] = None,
    kind: Annotated[Kinds, option("what the columns show")] = Kinds.segmentation,
    rows: Annotated[int, option("rows a page", min=1)] = 8,
):  # fmt: skip
    """Draw pictures, truth and predictions side by side: Figures 1, 3, 4, 5."""
    from jsws_lib.pages import write_pages

    columns = {}
    for one in variants:
        name, sign, path = one.partition("=")
        if not sign or name in columns:
            raise JswsError(f"--variant {one}: give NAME=FILE or NAME=FOLDER, and each "
                            "name once")  # fmt: skip
        columns[name] = Path(path)
    ids = ids_in(list) or sorted(file.stem for file in images.glob("*.jpg"))
    written = write_pages(images, ids, columns, out, masks=masks, kind=str(kind), rows=rows,
                          saliency_masks=saliency_masks)  # fmt: skip
    typer.echo("\n".join(map(str, written)))


def compare(
    files: Annotated[list[Path], typer.Argument(
        help="results: a file of `jsws ablate`, or what `jsws evaluate --json` printed")],
    table: Annotated[int, option("the paper's table, 1 to 6", min=1, max=6)],
    on: Annotated[str | None, option(
        "the table's own test set on which yours was measured: a column of Tables 1 and "
        "2, val of 3, test of 4; default: other pictures, set apart")] = None,
    format: Annotated[Formats, option("of what is printed")] = Formats.markdown,
    figure: Figure = None,
):
    """Put results beside a table of the paper, with the table's own faults noted."""
    from jsws_lib import tables

    made = tables.beside(table, [tables.read(file) for file in files], on=on)
    typer.echo(getattr(made, str(format))())
    if figure:
        from jsws_lib.pages import save_figure

        save_figure(tables.chart(made), figure)


def submit(
    pred: Pred,
    out: Annotated[Path, option("the archive, .tgz or .tar.gz")],
    data: Data = None, voc: Voc = None,
):  # fmt: skip
    """Check predictions of VOC test and pack them for the evaluation server."""
    from jsws_lib.config import get_profile
    from jsws_lib.submission import NEXT, pack

    p = get_profile("paper", data=data, voc=voc)
    count = pack(pred, p.data / p.voc, out)
    typer.echo(f"{count:,} segmentations in {out}\n{NEXT}")
