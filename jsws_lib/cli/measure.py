"""The commands of `jsws` that measure, predict, export and compare."""

from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Literal

import typer

from data_utils.categories import categories, voc_of
from data_utils.errors import JswsError
from data_utils.pictures import list_pictures, read_image
from data_utils.voc import VOC_CLASSES, read_ids
from jsws_lib.cli.options import Asked, Checkpoint, Data, Json, command, echo, network, say
from jsws_lib.config import PROFILES, SETTINGS, Profile, get_profile
from jsws_lib.crf import CRF_PRESETS
from jsws_lib.metrics import PROTOCOLS, ConfusionMatrix, SaliencyMeasure

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure a network or its files.")


Pred = Annotated[Path, "folder of predicted `<id>.png`."]
Truth = Annotated[Path, "folder of true `<id>.png`."]
Ids = Annotated[Path | None, "file of ids; default: all of them."]
Preset = Annotated[
    Literal[*CRF_PRESETS] | None, "refine saliency maps by the CRF of this preset."
]
Absent = Annotated[
    Literal[*ConfusionMatrix.ABSENT],
    "a category that the masks lack: counts 0, is left out if it is not predicted either "
    "(union), or is left out (target); all the same on the whole of VOC val.",
]
NO_MAP = "{} saw no saliency mask (setting {}): it has no saliency map to refine; leave --crf out"
OF_TEST = ["test_images", "test_masks", "test_list"]  # fields of a saliency test set
Figure = Annotated[Path | None, "also draw it into this file (.png, .pdf, .svg)."]


def _test_sets(names: str, p: Profile) -> dict[str, Profile]:
    """The profile with each of the published saliency test sets that are asked for."""
    from data_utils.real.download import missing, sources

    known = {k: one for k, one in sources().items() if len(one.holds) == 2}
    del known["DUTS-TR"]
    whole = [name for name, one in known.items() if not missing(one, p.data)]
    wanted, sets = whole if names == "all" else names.split(","), {}
    if not wanted or not set(wanted) <= set(whole):
        raise JswsError(
            f"--test-sets {names}: of {', '.join(known)} whole under {p.data} are "
            f"{', '.join(whole) or 'none'}; `jsws data list` says what the others lack"
        )
    for name in wanted:
        images, masks = known[name].holds
        sets[name] = replace(p, test_list=None, test_images=images, test_masks=masks)
    return sets


def _read_by_measuring(asked: Asked, *, crf: str | None, test_sets: str) -> set[str]:
    """The fields that --set names; JswsError for one that changes no measure."""
    read = ["data", "voc", "val_list", "mirror", *(["crf_scale"] if crf else [])]
    read += [] if test_sets else OF_TEST
    given = {text.partition("=")[0]: text for text in asked.set_ or ()}
    for text in (text for name, text in given.items() if name not in read):
        raise JswsError(
            f"--set {text} changes nothing here; measuring reads {', '.join(read)}: leave "
            "it out"
        )
    return {*given}


@command(evaluate_app, "network")
def evaluate_network(
    *,
    checkpoint: Checkpoint,
    crf: Preset = None,
    test_sets: str = "",
    json_: Json = False,
    asked: Asked,
):
    """Measure a checkpoint: mIoU on VOC val, MAE and max F on a saliency set.

    mIoU is over the background and the categories that occur in the masks. A network that
    knows others than the data is measured by their names, and pixels of those that it does
    not know are errors: they are told. Max F is the toolbox protocol's.
    With `--crf`, both saliency measures also after it. A network that saw no saliency
    mask gives no saliency map: only its mIoU is told, as where there is no saliency set.
    A network trained under `mirror` is measured so, unless `--set mirror=false`.

    Args:
        test_sets: saliency sets instead of the profile's: names of `jsws data list` with
            commas between, or `all` that are whole under the data root.
    """
    from jsws_lib.engine import evaluation

    given = _read_by_measuring(asked, crf=crf, test_sets=test_sets)
    p, r = asked.settings()
    net, story = network(checkpoint)
    if "mirror" in given:  # else as in the recipe that it was trained under
        net.mirror = r.mirror
    setting, known = story["setting"], story["categories"]
    if crf and "L_s1" not in SETTINGS[setting].losses:
        raise JswsError(NO_MAP.format(checkpoint, setting))
    sets = _test_sets(test_sets, p) if test_sets else {"": p}
    folders = [p.data / p.test_images, p.data / p.test_masks]
    there = test_sets or given & {*OF_TEST} or any(folder.exists() for folder in folders)
    if not there or "L_s1" not in SETTINGS[setting].losses:
        sets = {}  # or its SAM is untrained
    matrix = evaluation.measure_segmentation(net, p, known=known)
    record = {"checkpoint": str(checkpoint), "setting": setting}
    record["miou"] = round(float(matrix.compute().miou), 4)
    for name, one in sets.items():
        measures = evaluation.measure_saliency(net, one, preset=crf)
        figures = evaluation.Evaluation(matrix, *measures).figures()
        figures = {key: round(x, 4) for key, x in figures.items() if key != "miou"}
        figures["images"] = measures[0].count
        if name:
            record.setdefault("test_sets", {})[name] = figures
        else:
            record |= figures
    record |= {"absent": matrix.absent, **matrix.unknown()}
    if sets:
        record["protocol"] = SaliencyMeasure().name
        record |= {"crf": crf, "crf_scale": p.crf_scale} if crf else {}
    elif not there:
        record["note"] = f"no saliency test set at {folders[0]}: only mIoU was measured"
    record |= {"mirror": True} if net.mirror else {}
    echo(record, json_)


@command(evaluate_app, "segmentation")
def evaluate_segmentation(
    *,
    pred: Pred,
    gt: Truth,
    list_: Ids = None,
    absent: Absent = "union",
    figure: Figure = None,
    json_: Json = False,
):
    """MIoU over background and categories, 255 ignored; a row each; confusion matrix.

    Predictions of `jsws predict` say which categories they number, and are compared by
    these names; of others the numbers are taken for those of --gt. Masks elsewhere than
    in the VOC folder that `jsws data adopt` wrote are taken for VOC's.
    """
    from jsws_lib.experiments.folders import evaluate_segmentation_folder

    ids = read_ids(list_) if list_ else None
    names = ("background", *categories(voc_of(gt)))
    matrix = evaluate_segmentation_folder(pred, gt, ids=ids, absent=absent, names=names)
    scores = matrix.compute()
    record = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
    record |= {"iou": scores.iou.tolist(), "absent": scores.absent}
    if matrix.names != VOC_CLASSES:
        record["categories"] = matrix.names
    lines = [str(scores)]
    if other := matrix.unknown():
        record |= other
        lines.append(
            f"{', '.join(other['unknown'])}: not known to the network, so errors, on "
            f"{100 * other['unknown_pixels']:.1f} % of the pixels; mean IoU without them "
            f"{100 * other['miou_known']:.1f}"
        )
    echo(record, json_, *lines)
    if figure:
        from jsws_lib.experiments.pages import confusion_page, save_figure

        save_figure(confusion_page(matrix), figure)


@command(evaluate_app, "saliency")
def evaluate_saliency(
    *,
    pred: Pred,
    gt: Truth,
    list_: Ids = None,
    protocol: Literal[*PROTOCOLS] = "toolbox",
    structure: bool = False,
    figure: Figure = None,
    json_: Json = False,
):
    """MAE and maximum F-measure under a named protocol.

    Args:
        protocol: definition of max F; they differ by whole points on the same maps.
        structure: also S-measure, E-measure and weighted F, by PySODMetrics.
    """
    from jsws_lib.experiments import folders

    ids = read_ids(list_) if list_ else None
    scores = folders.evaluate_saliency_folder(pred, gt, ids=ids, protocol=protocol)
    record = {"protocol": protocol, "mae": scores.mae, "max_f": scores.max_f}
    record |= {"mean_f": float(scores.f_curve.mean()), "images": scores.count}
    words = [str(scores)]
    if structure:
        extra = folders.evaluate_structure_folder(pred, gt, ids=ids)
        more = extra._asdict().items()
        record |= {name: x for name, x in more if name != "count"}
        words.append(str(extra))
    echo(record, json_, *words)
    if figure:
        from jsws_lib.experiments.pages import saliency_page, save_figure

        save_figure(saliency_page(scores, name=pred.resolve().name), figure)


def predict(
    images: list[Path],
    *,
    checkpoint: Checkpoint = Path("photos"),
    out: Path = Path("predictions"),
    list_: Ids = None,
    crf: Preset = None,
    plain: bool = False,
    numbers: Literal["own", "voc"] = "own",
):
    """Segment pictures of any size: palette PNG, saliency PNG, overlay.

    Without --checkpoint it is the shipped network for photographs, which knows six
    categories: docs/real_photographs.md says how well.

    Args:
        images: pictures or folders of them.
        out: where results go.
        list_: file of ids: only `<id>.jpg` of the one folder given.
        plain: write `<id>.png` into out/segmentation and out/saliency, as `jsws evaluate`
            reads them.
        numbers: of categories in the PNGs: the network's own, or VOC's, for programs that
            expect those; `jsws evaluate` compares names.
    """
    from tqdm.auto import tqdm

    from jsws_lib import inference
    from jsws_lib.engine.evaluation import refine_saliency
    from jsws_lib.experiments import predictions

    files = predictions.find_pictures(images, list_)
    predictions.refuse_overwriting(files, out, plain=plain)
    net, story = network(checkpoint)
    setting, own = story["setting"], story["categories"]
    saliency = "L_s1" in SETTINGS[setting].losses  # else its SAM is untrained
    if crf and not saliency:
        raise JswsError(NO_MAP.format(checkpoint, setting))
    scale = PROFILES.get(story.get("profile"), PROFILES["paper"]).crf_scale
    names, values = predictions.numbered(own, numbers)
    how = {"plain": plain, "saliency": saliency, "names": names}
    found = inference.predict(net, map(read_image, files))
    for file in tqdm(files, desc="predicting", leave=False):
        image, one = read_image(file), next(found)
        one = one._replace(segmentation=values[one.segmentation])
        if crf:
            refined = refine_saliency(image, one.sal_map, preset=crf, scale=scale)
            one = one._replace(sal_map=refined)
        predictions.save_prediction(one, image, out, file.stem, **how)
    if names != VOC_CLASSES[1:]:
        predictions.save_legend(names, out / "categories.csv")
    after = f"; saliency refined by the CRF preset {crf}, scale {scale:g}" if crf else ""
    if not saliency:
        after = f"; setting {setting} saw no saliency mask: no saliency maps"
    say(f"{len(files)} picture{'s' * (len(files) > 1)} segmented in {out}{after}")
    known = shorten(", ".join(own), 300, placeholder=" ...")
    say(f"categories that this network knows: {known}")


def page(
    images: Path,
    *,
    variant: list[str],
    out: Path,
    list_: Ids = None,
    masks: Path | None = None,
    kind: Literal["segmentation", "saliency"] = "segmentation",
):
    """Draw pictures, truth and predictions side by side: Figures 1, 3, 4, 5.

    Args:
        images: folder of pictures `<id>.jpg`.
        variant: a column: NAME=checkpoint.safetensors, or NAME=folder of predicted
            `<id>.png`; again for more columns.
        out: the page (.png, .pdf); more ids, more pages.
        masks: folder of true masks `<id>.png`, of what the columns show.
        kind: what the columns show.
    """
    from jsws_lib.experiments.pages import write_pages

    columns = {}
    for one in variant:
        name, sign, path = one.partition("=")
        if not sign or name in columns:
            raise JswsError(
                f"--variant {one}: give NAME=FILE or NAME=FOLDER, and each name once"
            )
        columns[name] = Path(path)
    ids = read_ids(list_) if list_ else sorted(list_pictures(images))
    written = write_pages(images, ids, columns, out, masks=masks, kind=kind)
    say("\n".join(map(str, written)))


def export(*, checkpoint: Checkpoint, out: Path, half: bool = False):
    """Write a network for other programs: image in; H, v and S out.

    The file is ONNX, for onnxruntime in whatever language.

    Args:
        out: file.onnx.
        half: store the weights in 16 bits, half the size.
    """
    from jsws_lib.engine.export import export

    known, bits = export(checkpoint, out, half=half), 16 if half else 32
    side, count = known["size"], len(known["categories"])
    say(f"{out}: {side} x {side} px, {count} categories, weights in {bits} bits")


def compare(
    files: list[Path],
    *,
    table: Annotated[int, {"min": 1, "max": 6}],
    on: str | None = None,
    format: Literal["markdown", "latex"] = "markdown",
):
    """Put results beside a table of the paper, with the table's own faults noted.

    Args:
        files: results: of `jsws ablate`, or what `jsws evaluate --json` printed.
        table: the paper's table, 1 to 6.
        on: the table's own test set on which yours was measured: a column of Tables 1 and
            2, val of 3, test of 4; default: other pictures, set apart.
        format: of what is printed.
    """
    from jsws_lib.experiments import paper_tables

    results = [paper_tables.read(file) for file in files]
    made = paper_tables.beside(table, results, on=on)
    say(getattr(made, format)())


def submit(*, pred: Pred, out: Path, data: Data = None):
    """Check predictions of VOC test and pack them for the evaluation server.

    Args:
        out: the archive, .tgz or .tar.gz.
    """
    from jsws_lib.experiments.submission import NEXT, pack

    p = get_profile("paper", data=data)
    count = pack(pred, p.data / p.voc, out)
    say(f"{count:,} segmentations in {out}\n{NEXT}")
