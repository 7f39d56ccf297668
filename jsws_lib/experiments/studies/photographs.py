"""Rows of Tables 5 and 6 on real photographs of a few categories, on a CPU.

    python -m jsws_lib.experiments.studies.photographs DATA [ROW ...] [--seed N]

DATA holds `VOC2012` and `ECSSD`, both in their own layout. The network gets an output for
each category that occurs in the labels, and for no other: what never occurs could only be
unlearned. Finished rows are loaded; what `results/photographs.json` holds of others stays.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_utils.categories import all_labels, categories
from data_utils.errors import JswsError
from data_utils.files import read_json, write_bytes, write_png
from data_utils.pictures import read_class_mask, renumbering
from data_utils.real.adopt import adopt
from data_utils.voc import VOID, read_ids
from jsws_lib.config import ROOT, get_profile, get_recipe
from jsws_lib.engine.runs import Run, train_or_load
from jsws_lib.experiments.ablation import (
    RESULTS,
    TABLE,
    Row,
    collect,
    configuration,
    measure,
    run_all,
    same_configuration,
    store,
)

FILE = RESULTS / "photographs.json"
COMMAND = "python -m jsws_lib.experiments.studies.photographs DATA"
DATA = ROOT / "build" / "photographs"  # what `present` makes
ROWS = ("S", "M", "MM", "2S", "MS", "SS")
AGAIN = ("M_again", "M_again_no_sam")  # entered by hand: the same seed, one thread for two
# Stage 1 is wide and coarse: stride 16 costs a quarter of stride 8 at the same size, and
# its labels are refined by the CRF anyway. Stage 2 is the paper's, stride 8, where the
# dilated backbone draws a lattice over even areas: in use its logits are smoothed, and
# averaged with those of the mirror image. The other rows are read plainly and mirrored.
SIZES, STRIDE, STEPS = (224, 160), 16, (1500, 700)


def present(voc: Path, out: Path) -> Path:
    """Make a data root whose VOC2012 has only the categories that occur in train_aug.

    They keep VOC's order; masks of val are renumbered. Pictures are linked.

    Raises:
        JswsError: data are missing or broken, or a mask holds another category.
    """
    if out.is_dir():
        return out
    lists, known = voc / "ImageSets" / "Segmentation", categories(voc)
    train, val = (read_ids(lists / f"{name}.txt") for name in ("train_aug", "val"))
    labels = all_labels(voc, train)
    here = np.flatnonzero(labels.any(0))
    kept = [known[k] for k in here]
    number = renumbering(known, kept)
    with tempfile.TemporaryDirectory() as folder:
        pictures, masks = Path(folder) / "pictures", Path(folder) / "masks"
        pictures.mkdir()
        for name in (*train, *val):
            file = f"{name}.jpg"
            (pictures / file).symlink_to((voc / "JPEGImages" / file).resolve())
        for name in val:
            path = voc / "SegmentationClass" / f"{name}.png"
            mask = np.asarray(read_class_mask(path, names=known))
            if not {*np.unique(mask)} <= {0, VOID, *(here + 1)}:
                raise JswsError(f"{path} holds a category that no image of train_aug has")
            write_png(masks / f"{name}.png", Image.fromarray(number[mask]))
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["file", *kept])
        for name, row in zip(train, labels, strict=True):
            table.writerow([f"{name}.jpg", *row[here].astype(int)])
        write_bytes(Path(folder) / "labels.csv", text.getvalue().encode())
        adopt(pictures, Path(folder) / "labels.csv", out, class_masks=masks)
    return out


def open_data(given: Path) -> Path:
    """What `present` makes of a folder with VOC2012 and ECSSD, with ECSSD beside it."""
    data = present(given / "VOC2012", DATA)
    if not (data / "ECSSD").exists():
        (data / "ECSSD").symlink_to((given / "ECSSD").resolve())
    return data


def rows(data: Path, names: Sequence[str] = ROWS, *, seed: int = 0) -> list[Row]:
    """The trainings, teachers first.

    Args:
        data: what `open_data` made.
        names: keys of `SETTINGS`.
        seed: of all of them.
    """
    one = get_profile(
        "laptop",
        data=data,
        size=SIZES[0],
        steps=STEPS,
        cache="memory",
        validate_every=0,  # nothing of val is looked at before the end
        saliency_images="ECSSD/images",
        saliency_masks="ECSSD/ground_truth_mask",
        saliency_list="ECSSD/train.txt",
        test_list="ECSSD/test.txt",
    )
    two = replace(one, size=SIZES[1])
    recipe = get_recipe("steady", stage1_stride=STRIDE)
    found = {name: Run(name, one, recipe, seed) for name in ("S", "M")}
    changes = {"stage1_stride": STRIDE, "smooth": True, "mirror": True}
    student = {"profile": two, "recipe": get_recipe("steady", **changes), "seed": seed}
    for name in ("SS", "MS", "MM"):
        found[name] = Run(name, **student, teacher=found[name[0]].weights)
    found["2S"] = Run("2S", two, recipe, seed)
    return [Row(name, run) for name, run in found.items() if name in names]


def mirrored(row: Row) -> dict[str, dict]:
    """The figures of a row once more, each with the mirror image's maps averaged in."""
    net, profile = train_or_load(row.run).net, row.run.profile
    net.mirror = True
    record = measure(net, row.run.setting, profile=profile, recipe=row.run.recipe)
    others = record.pop("read_outs")
    return {f"{name}_mirror": one for name, one in {row.name: record, **others}.items()}


def photographs(given: Path, names: Sequence[str] = ROWS, *, seed: int = 0) -> dict:
    """Train or load rows, measure them, and enter them in `results/photographs.json`.

    Args:
        given: folder with VOC2012 and ECSSD.
        names: of `ROWS`.
        seed: of all of them; a row's figures are a list by seed.

    Raises:
        JswsError: data are missing or broken, the file holds another configuration, or
            a row there lacks the seeds before this one.
    """
    data = open_data(given)
    wanted, first = rows(data, names, seed=seed), rows(data, seed=seed)[0].run
    before = held(first)["settings"]
    entered(
        before, {row.name: {"seconds": [None]} for row in wanted}, seed
    )  # now, not late
    result = collect(wanted, run_all(wanted, 1), 1)
    found = result["settings"]
    for row in wanted:
        if not row.run.recipe.mirror:
            one = mirrored(row)
            found |= {name: {k: [v] for k, v in own.items()} for name, own in one.items()}
    before = held(first)  # other rows may have been entered meanwhile
    result["settings"] = entered(before["settings"], found, seed)
    result["seeds"] = sorted({*before["seeds"], seed})
    result |= {"recipe": first.recipe.name, "configuration": configuration(first)}
    result["command"] = COMMAND
    (student,) = (row.run for row in rows(data, ["MM"]))
    result["students"] = {"size": student.profile.size, "recipe": student.recipe.name}
    store(result, FILE)
    return result


def held(first: Run) -> dict:
    """What the file holds, as `collect` made it; no rows if there is none.

    Raises:
        JswsError: it is broken, or of another configuration than a run's.
    """
    if not FILE.is_file():
        return {"settings": {}, "seeds": []}
    advice = "move it away first"
    known = read_json(FILE, "settings", "seeds", "configuration", advice=advice)
    if not same_configuration(known["configuration"], first):
        raise JswsError(f"{FILE} is of another configuration: {advice}")
    return known


def entered(known: dict, found: dict, seed: int) -> dict:
    """Rows that are known, with those that were found, lists of one value, at a seed.

    Raises:
        JswsError: a row lacks the seeds before.
    """
    rows = {
        name: {k: [*values] for k, values in row.items()} for name, row in known.items()
    }
    for name, figures in found.items():
        for key, values in figures.items():
            row = rows.setdefault(name, {}).setdefault(key, [])
            if len(row) < seed:
                raise JswsError(
                    f"{FILE} has no seed {len(row)} of {name}: measure that first"
                )
            row[seed : seed + 1] = values
    order = [*TABLE, *AGAIN, *(f"{name}_mirror" for name in (*TABLE, *AGAIN))]
    return {name: rows[name] for name in sorted(rows, key=order.index)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if unknown := {*asked.rows} - {*ROWS}:
        parser.error(f"there is no row {unknown.pop()}; choose from {', '.join(ROWS)}")
    photographs(asked.data, asked.rows or ROWS, seed=asked.seed)
