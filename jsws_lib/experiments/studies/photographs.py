"""Rows of Tables 5 and 6 on real photographs of a few categories, on a CPU.

    python -m jsws_lib.experiments.studies.photographs DATA [ROW ...]

DATA holds `VOC2012` and `ECSSD`, both in their own layout. The network gets an output for
each category that occurs in the labels, and for no other: what never occurs could only be
unlearned. Finished rows are loaded, and `results/photographs.json` holds those asked for.
"""

import csv
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_utils.categories import all_labels, categories
from data_utils.errors import JswsError
from data_utils.files import write_bytes, write_png
from data_utils.pictures import read_class_mask, renumbering
from data_utils.real.adopt import adopt
from data_utils.voc import VOID, read_ids
from jsws_lib.config import ROOT, get_profile, get_recipe
from jsws_lib.engine.runs import Run
from jsws_lib.experiments.ablation import RESULTS, Row, collect, run_all

DATA = ROOT / "build" / "photographs"  # what `present` makes
ROWS = ("S", "M", "MM", "2S", "MS", "SS")
# Stage 1 is wide and coarse: stride 16 costs a quarter of stride 8 at the same size, and
# its labels are refined by the CRF anyway. Stage 2 is the paper's, stride 8, where the
# dilated backbone draws a lattice over even areas: in use its logits are smoothed.
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
    smooth = get_recipe("steady", stage1_stride=STRIDE, smooth=True)
    student = {"profile": two, "recipe": smooth, "seed": seed}
    for name in ("SS", "MS", "MM"):
        found[name] = Run(name, **student, teacher=found[name[0]].weights)
    found["2S"] = Run("2S", two, recipe, seed)
    return [Row(name, run) for name, run in found.items() if name in names]


def photographs(given: Path, names: Sequence[str] = ROWS) -> dict:
    """Train or load, measure, and write `results/photographs.json`."""
    wanted = rows(open_data(given), names)
    result = collect(wanted, run_all(wanted, 1), 1)
    text = json.dumps(result, indent=1) + "\n"
    write_bytes(RESULTS / "photographs.json", text.encode())
    return result


if __name__ == "__main__":
    photographs(Path(sys.argv[1]), sys.argv[2:] or ROWS)
