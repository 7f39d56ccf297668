"""The ablation of Section 4.4: six settings, several seeds, one JSON file.

    first:  S, M and 2S, then the pseudo labels of S and M
    then:   SS, MS and MM

Every run lives in its own folder (runs.py) and its figures beside it, so an interrupted
ablation takes up where it stopped, and a second one trains nothing.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial, partialmethod
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.datasets import saliency_pairs
from data_utils.embedded.mini import drawn_scenes, image_id, render_training_mask, roles
from data_utils.errors import JswsError
from data_utils.files import check_place, for_json, read_json, write_bytes
from data_utils.identity import class_digest, drawn, saliency_digest
from data_utils.parallel import (
    available_cores,
    gather,
    in_parallel,
    is_main,
    process_share,
    wait_for_everyone,
)
from data_utils.pictures import read_class_mask
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.config import ROOT, SETTINGS, STEADY, Profile, Recipe
from jsws_lib.engine.cam import cam_segmentation, class_activation_maps
from jsws_lib.engine.devices import pick_device, provenance
from jsws_lib.engine.evaluation import evaluate, evenly, validation
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.engine.runs import Run, runs_root, train_or_load, training_state
from jsws_lib.inference import predict, resize_nearest
from jsws_lib.metrics import ConfusionMatrix

RESULTS = ROOT / "results"
# M once more: where a category has to beat the background, only v can keep it out of S;
# and with the released code's saliency term, which cannot suppress.
CONTRASTS = {
    "M_odds": ("M", {"class_evidence": "odds"}),
    "M_nll_probs": ("M", {"saliency_reading": "nll_probs"}),
    "S_odds": ("S", {"class_evidence": "odds"}),
    "S_mean_probs": ("S", {"class_evidence": "mean_probs"}),
}
# A network of labels alone is no segmentation but a set of class activation maps: S-S
# with labels that are read so.
FAIR = {"SS_cam": ("SS", {"suppress": "cam"})}
# Rows that are no training of their own, but another read-out of one: what v adds is the
# difference from v = 1, and a network of labels alone is read as what it is.
READ_OUTS = {"S_cam": "S", "M_no_sam": "M", "MM_no_sam": "MM"}
# Trainings that ask what a row of the paper's would be worth otherwise: S-S with labels
# read as CAM, M-S with the true masks as its labels, 2S from where M-M starts.
BOUNDS = ("SS_cam", "full", "2S_from_M")
TABLE = (*SETTINGS, *READ_OUTS, *BOUNDS)
FRACTIONS = ("miou", "mae", "max_f", "mae_crf", "max_f_crf")  # figures from 0 to 1
JUDGED = 500  # training images whose pseudo labels are compared with their masks
CAM_THRESHOLDS = tuple(round(0.1 * k, 1) for k in range(1, 10))


@dataclass(frozen=True)
class Row:
    """One training of an ablation, under the name of its row in the results."""

    name: str
    run: Run
    teaches: bool = False  # whether a student learns from its pseudo labels

    @property
    def wave(self) -> int:
        """0 if it needs no other run, else 1."""
        return 1 if self.run.plan.teacher or self.run.teacher else 0


def plan(
    profile: Profile,
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    settings: Sequence[str] = tuple(SETTINGS),
) -> list[Row]:
    """List the runs of an ablation, those without a teacher first.

    A setting's teacher is added if it is not among `settings`. Embedded data, whose
    scenes are known, get `CONTRASTS`, `FAIR` and 2S from M's backbone too; and M-S with
    the true masks, which `draw_true_masks` draws, as its labels.
    """
    teachers = {SETTINGS[s].teacher for s in settings} - {None}
    wanted = [s for s in SETTINGS if s in {*settings, *teachers}]
    rows = [
        Row(s, Run(s, profile, recipe, seed), teaches=s in teachers)
        for seed in seeds
        for s in wanted
    ]
    if drawn(profile.data):
        rows += [
            Row(name, Run(setting, profile, replace(recipe, **change), seed))
            for name, (setting, change) in (CONTRASTS | FAIR).items()
            if setting in wanted
            for seed in seeds
        ]
        rows += from_m(rows)
        masks = masks_folder(profile)
        rows += [
            Row("full", replace(row.run, pseudo_labels=masks))
            for row in rows
            if row.name == "MS"
        ]
    return sorted(rows, key=lambda row: row.wave)


def from_m(rows: Sequence[Row]) -> list[Row]:
    """2S from M's backbone, for each seed of which both are among `rows`."""
    starts = {row.run.seed: row.run.weights for row in rows if row.name == "M"}
    return [
        Row("2S_from_M", replace(row.run, teacher=starts[row.run.seed]))
        for row in rows
        if row.name == "2S" and starts
    ]


def masks_folder(profile: Profile) -> Path:
    """Where the true masks of embedded D_c are drawn: beside the runs."""
    made = drawn(profile.data)["parameters"]
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode())
    return runs_root() / f"true_masks-{digest.hexdigest()[:8]}"


def draw_true_masks(profile: Profile):
    """Draw the masks of embedded D_c for the row `full`; no other training sees them."""
    folder = masks_folder(profile)
    pick_device()  # connects the processes, if several were launched
    for name, mask in true_masks(profile).items() if is_main() else ():
        if not (folder / f"{name}.png").is_file():
            write_palette_png(folder / f"{name}.png", np.asarray(mask()))
    wait_for_everyone()


def true_masks(p: Profile) -> dict[str, Callable]:
    """A function for each training image that gives its mask, (H, W) uint8.

    Embedded data have none on disk: they are drawn again. Other images without a mask are
    left out.
    """
    voc, note = p.data / p.voc, drawn(p.data)
    read = partial(read_class_mask, names=categories(voc))
    found = {x.stem: partial(read, x) for x in (voc / "SegmentationClass").glob("*.png")}
    if note:
        made = note["parameters"]
        draw = partial(render_training_mask, made["seed"], size=made["size"])
        for k in range(made["images"]["train_aug"]):
            found[image_id("train_aug", k)] = partial(draw, k)
    return {name: found[name] for name in _train_ids(p) if name in found}


def ablate(
    *,
    profile: Profile,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2),
    settings: Sequence[str] = tuple(SETTINGS),
    jobs: int | None = None,
    out: Path | None = None,
) -> Path:
    """Train and measure the settings of Tables 5 and 6 and write one JSON file.

    Args:
        profile, recipe, seeds, settings: what to train, all settings for each seed.
        jobs: runs at a time, each in a process with its share of the cores; default one
            per core on the CPU, one on a GPU.
        out: the file, which is returned, replaced if it is there; default
            `results/ablation_<profile>.json`, followed by the recipe's name where it is
            not the default, and never replaced by less than it holds.

    Raises:
        JswsError: data are missing or broken, a loss is not finite, or the default file
            holds something that would be lost.
    """
    rows = plan(profile, recipe, seeds=seeds, settings=settings)
    other = "" if recipe.name == STEADY.name else f"_{recipe.name}"
    file = out or RESULTS / f"ablation_{profile.name}{other}.json"
    check_place(file)
    if out is None and file.is_file():
        _refuse_loss(file, rows)
    if (jobs or 1) > 1 and process_share()[1] > 1:
        raise JswsError(
            "launched as several processes, an ablation does one run at a time: leave out "
            "--jobs"
        )
    if "full" in {row.name for row in rows}:
        draw_true_masks(profile)
    jobs = jobs or default_jobs()
    records = run_all(rows, jobs)
    if is_main():
        base, *changes = recipe.name.split("+")
        words = ["jsws ablate --profile", profile.name, "--recipe", base]
        words += [f"--set {change}" for change in changes]
        words += ["--seeds", ",".join(map(str, seeds)), "--settings", ",".join(settings)]
        store({"command": " ".join(words)} | collect(rows, records, jobs), file)
    return file


def store(result: dict, file: Path):
    """Write a file of results, nan as null. Raises as `write_bytes` does."""
    write_bytes(file, (json.dumps(for_json(result), indent=1) + "\n").encode())


def _refuse_loss(file: Path, rows: Sequence[Row]):
    """Raise JswsError if a results file holds runs that are not among `rows`."""
    advice = "move it away, or name another file with --out"
    wanted = ("configuration", "seeds", "settings", "contrasts")
    held, asked = read_json(file, *wanted, advice=advice), configuration(rows[0].run)
    names, seeds = {row.name for row in rows}, {row.run.seed for row in rows}
    try:
        lost = [
            f"{field} = {value}"
            for part in ("profile", "recipe")
            for field, value in held["configuration"][part].items()
            if asked[part].get(field, value) != value
            and field not in ("workers", "cache", "validate_every")  # change no figure
        ]
        kept = (*held["settings"].keys(), *held["contrasts"].keys())
        lost += [name for name in kept if name not in names and name not in READ_OUTS]
        lost += [f"seed {seed}" for seed in map(int, held["seeds"]) if seed not in seeds]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise JswsError(f"{file} is not what `jsws ablate` wrote; {advice}") from None
    if lost:
        raise JswsError(
            f"{file} holds what this ablation has not: {', '.join(lost)}; name "
            "another file with --out, or this one to replace it"
        )


def configuration(run: Run) -> dict:
    """All fields of profile and recipe; the data root, a path of this machine, left out."""
    profile = asdict(run.profile)
    del profile["data"]
    return json.loads(json.dumps({"profile": profile, "recipe": asdict(run.recipe)}))


def default_jobs() -> int:
    """Runs at a time: one per core on the CPU, one on a GPU or in several processes."""
    alone = process_share()[1] == 1
    return available_cores() if alone and pick_device().type == "cpu" else 1


# --- running -------------------------------------------------------------------------


def run_all(rows: Sequence[Row], jobs: int) -> dict[Row, dict]:
    """Train and measure every run, `jobs` at a time, and return the figures of each.

    In `rows`, as `plan` lists them, teachers stand before their students.
    """
    todo = [row for row in rows if measured(row.run) is None or not _has_labels(row)]
    work = _run if jobs == 1 else partial(_run_apart, max(1, available_cores() // jobs))
    done = len(rows) - len(todo)
    with tqdm(total=len(rows), initial=done, desc="ablation", unit="run") as bar:
        for wave in (0, 1):  # every teacher is ready before the first student starts
            own = [row for row in todo if row.wave == wave]
            for _ in in_parallel(work, own, workers=jobs):
                bar.update()
    return {row: measured(row.run) for row in rows}


def _run_apart(threads: int, row: Row):
    """One of several processes: it takes its share of the cores, and draws no bars."""
    torch.set_num_threads(threads)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    _run(row)


def _run(row: Row):
    """Train (or load) and measure one run; a teacher makes its pseudo labels as well."""
    run, start = row.run, time.perf_counter()
    resumed = any((run.folder / "resume").glob("*.pt"))
    trained = train_or_load(run, use_shipped=False)
    whole = trained.source == "trained" and not resumed
    seconds = round(time.perf_counter() - start, 1) if whole else None
    if row.teaches:
        settings = {"profile": run.profile, "recipe": run.recipe}
        make_pseudo_labels(trained.net, **settings, out=run.labels_folder, workers=0)
    if measured(run) is not None:
        return
    record = measure(trained.net, run.setting, profile=run.profile, recipe=run.recipe)
    record |= {"seconds": seconds, "threads": torch.get_num_threads()}
    text = json.dumps({"asked": _asked(run), **record})
    if is_main():
        write_bytes(run.folder / "figures.json", text.encode())
    wait_for_everyone()


def _has_labels(row: Row) -> bool:
    """Whether its students find every pseudo label: two at once would make them twice."""
    made = {path.stem for path in row.run.labels_folder.glob("*.png")}
    return not row.teaches or made >= set(_train_ids(row.run.profile))


def _train_ids(p: Profile) -> list[str]:
    return read_ids(p.data / p.voc / f"ImageSets/Segmentation/{p.train_list}.txt")


def _asked(run: Run) -> list:
    """What the figures depend on and the run's name does not."""
    p = run.profile
    read_outs = [name for name, setting in READ_OUTS.items() if setting == run.setting]
    pictures = [p.val_list, p.test_images, p.test_masks, p.test_list]
    try:
        pictures += [class_digest(p.data, p.voc, p.val_list, masks=True)]
        test = p.test_images, p.test_masks, p.test_list
        pictures += [saliency_digest(p.data, *test)]
    except JswsError:  # they are not there; measuring will say so
        pass
    read_outs += ["mirror"] * run.recipe.mirror  # which stage 1's name does not tell
    return [*pictures, p.crf_scale, run.recipe.crf, *read_outs]


def measured(run: Run) -> dict | None:
    """The figures of a finished run, None if it was not measured as it is asked for."""
    file = run.folder / "figures.json"
    if not file.is_file() or not run.weights.is_file():
        return None
    advice = "delete it, and the network is measured again"
    record = read_json(file, "asked", "seconds", "read_outs", advice=advice)
    wrong = [name for name in FRACTIONS if not _fraction(record.get(name, 0))]
    wrong += [] if isinstance(record["read_outs"], dict) else ["read_outs"]
    if wrong:
        raise JswsError(f"{file}: {wrong[0]} is not what was measured; {advice}")
    return record if record.pop("asked") == _asked(run) else None


def _fraction(value) -> bool:
    """From 0 to 1, or nan: the protocol's answer where every map is constant."""
    return type(value) in (int, float) and not (value < 0 or value > 1)


# --- measuring -----------------------------------------------------------------------


def measure(net, setting: str, *, profile: Profile, recipe: Recipe) -> dict:
    """Everything the ablation records of one network.

    Returns:
        `miou` and `iou` (21 numbers, None for a category that does not occur), unless
        the setting saw no category; `mae`, `max_f` and both after CRF, unless it saw no
        saliency mask; on embedded data what `suppression` returns; and under `read_outs`
        the figures of each of `READ_OUTS` that is this setting's.

    Raises:
        JswsError: data are missing or broken.
    """
    losses = SETTINGS[setting].losses
    result = evaluate(net, profile=profile, recipe=recipe, crf="L_s1" in losses)
    figures = result.figures()
    figures = {name: round(value, 5) for name, value in figures.items()}
    iou = result.segmentation.compute().iou
    figures["iou"] = [None if np.isnan(x) else round(float(x), 5) for x in iou]
    if losses == ("L_s1",):  # its category maps have no names
        del figures["miou"], figures["iou"]
    if "L_s1" not in losses:  # its SAM is untrained
        del figures["mae"], figures["max_f"]
    elif losses != ("L_s1",) and drawn(profile.data):
        figures |= suppression(net, profile)
    figures["read_outs"] = {}
    if setting == "S":
        figures["read_outs"]["S_cam"] = cam_figures(net, profile)
    elif f"{setting}_no_sam" in READ_OUTS:
        bare = evaluate(net, profile=profile, recipe=recipe, sam=False).figures()
        bare = {name: round(bare[name], 5) for name in ("mae", "max_f")}
        figures["read_outs"][f"{setting}_no_sam"] = bare
    return figures


def cam_figures(net, profile: Profile) -> dict:
    """Read a network as class activation maps, the labels of VOC val given.

    Returns:
        `miou` at the best of `CAM_THRESHOLDS`, chosen on the same images and so rather
        too high than too low, that `threshold`, and `miou_argmax`: the usual argmax
        with the same labels given. Labels are what a mask shows.

    Raises:
        JswsError: data are missing or broken.
    """
    names = ("background", *categories(profile.data / profile.voc))
    counts = {t: ConfusionMatrix(len(names), names=names) for t in CAM_THRESHOLDS}
    argmax = ConfusionMatrix(len(names), names=names)
    for prediction, mask in validation(net, profile):
        labels = np.isin(np.arange(1, len(names)), mask).astype(np.float32)
        cams = class_activation_maps(prediction, labels)
        for threshold, count in counts.items():
            count.update(mask, cam_segmentation(cams, threshold=threshold))
        allowed = prediction.probs * np.array([1, *labels])[:, None, None]
        best = allowed.argmax(0).astype(np.uint8)
        argmax.update(mask, resize_nearest(best, mask.shape[::-1]))
    first, *others = gather([(argmax, *counts.values())])
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            mine += theirs
    miou_argmax, *found = (float(count.compute().miou) for count in first)
    miou, low = max(found), CAM_THRESHOLDS[np.argmax(found)]
    figures = {"miou": miou, "threshold": low, "miou_argmax": miou_argmax}
    return {name: round(value, 5) for name, value in figures.items()}


_scenes = cache(drawn_scenes)  # some seconds, and the same for every network


def suppression(net, profile: Profile) -> dict:
    """What v the SAM gives to salient and to other categories of the embedded test set.

    Returns:
        `v_salient` and `v_not_salient`: mean v over all pairs of an image and a category
        that is salient in it, or only seen beside what is salient; `v_gap`, their
        difference; `v_by_category`: for each of the 20 the two means, None where it never
        occurs so; `v_by_image`: the two means for each image that shows both kinds.
    """
    scenes = _scenes(profile.data, "test")
    role = np.stack([roles(scene) for scene in scenes])
    stream = predict(net, (Image.fromarray(scene.image) for scene in scenes))
    v = np.stack([prediction.class_saliency for prediction in stream])
    salient, other = (np.ma.masked_where(role != kind, v) for kind in (1, 0))
    both = (role == 1).any(1) & (role == 0).any(1)

    def listed(means):
        return [None if x is np.ma.masked else round(float(x), 4) for x in means]

    means = [float(x.mean()) for x in (salient, other)]
    return {
        "v_salient": round(means[0], 5),
        "v_not_salient": round(means[1], 5),
        "v_gap": round(means[0] - means[1], 5),
        "v_by_category": [listed(x.mean(0)) for x in (salient, other)],
        "v_by_image": [listed(x[both].mean(1)) for x in (salient, other)],
    }


def label_quality(run: Run) -> dict:
    """A teacher's pseudo labels against the masks of training images, see `true_masks`.

    Returns:
        `miou` and the number of `images`, at most `JUDGED` evenly over the list; {} where
        no image has a mask.

    Raises:
        JswsError: a mask or a pseudo label is broken.
    """
    names, masks = categories(run.profile.data / run.profile.voc), true_masks(run.profile)
    paths = [run.labels_folder / f"{name}.png" for name in masks]
    paths = evenly([path for path in paths if path.is_file()], JUDGED)
    matrix = ConfusionMatrix(len(names) + 1, absent="target")
    for path in paths:
        label = read_class_mask(path, names=names)
        matrix.update(np.asarray(masks[path.stem]()), np.asarray(label))
    return {"miou": round(matrix.compute().miou, 5), "images": len(paths)} if paths else {}


# --- collecting ----------------------------------------------------------------------


def collect(rows: Sequence[Row], records: dict[Row, dict], jobs: int) -> dict:
    """The JSON file: figures as lists by seed."""
    found = _by_seed(pair for row in rows for pair in _named(row, records[row]))
    seconds = [records[row]["seconds"] for row in rows]
    first, profile = rows[0].run, rows[0].run.profile
    test = profile.data / profile.test_images, profile.data / profile.test_masks
    ids = profile.test_list and read_ids(profile.data / profile.test_list)
    return {
        "profile": profile.name,
        "recipe": first.recipe.name,
        "seeds": list(dict.fromkeys(row.run.seed for row in rows)),
        "settings": {name: found[name] for name in TABLE if name in found},
        "contrasts": {name: row for name, row in found.items() if name not in TABLE},
        "pseudo_labels": _by_seed(
            (row.name, label_quality(row.run)) for row in rows if row.teaches
        ),
        "categories": ["background", *categories(profile.data / profile.voc)],
        "images": len(saliency_pairs(*test, ids=ids)),  # that saliency was measured on
        **provenance(profile, training_state(profile, {"L_c", "L_s1"})),
        "jobs": jobs,
        "training_seconds": None if None in seconds else round(sum(seconds), 1),
        "configuration": configuration(first),
    }


def _named(row: Row, record: dict) -> Iterator[tuple[str, dict]]:
    """A run's figures, and those of each read-out; a contrast's are in its own row."""
    figures = dict(record)
    read_outs = figures.pop("read_outs", {})
    if row.run.setting != "M":  # long; only M's is drawn
        figures.pop("v_by_image", None)
    if row.name == row.run.setting:
        yield from read_outs.items()
    else:
        for name, other in read_outs.items():
            ending = name.removeprefix(row.run.setting)
            figures |= {f"{key}{ending}": value for key, value in other.items()}
    yield row.name, figures


def _by_seed(named: Iterable[tuple[str, dict]]) -> dict[str, dict[str, list]]:
    """Figures of one name as lists, in the order in which they come."""
    found: dict[str, dict[str, list]] = {}
    for name, figures in named:
        for key, value in figures.items():
            found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of one value is nan."""
    values = np.asarray(values, float)
    sd = values.std(ddof=1) if len(values) > 1 else math.nan
    return float(values.mean()), float(sd)
