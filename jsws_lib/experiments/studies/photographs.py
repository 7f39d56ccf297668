"""Rows of Tables 5 and 6 on real photographs of a few categories, on a CPU.

    python -m jsws_lib.experiments.studies.photographs DATA [SETTING ...] [--seeds 0 1]

DATA holds `VOC2012` and `ECSSD`, both in their own layout. The network gets an output for
each category that occurs in the labels, and for no other: what never occurs could only be
unlearned. The rest is `jsws ablate` under the profile and the recipe that stand here.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_utils.categories import all_labels, categories, natural
from data_utils.errors import JswsError
from data_utils.files import write_bytes, write_png
from data_utils.pictures import read_class_mask, renumbering
from data_utils.real.adopt import adopt
from data_utils.voc import VOID, read_ids
from jsws_lib.config import ROOT, SETTINGS, Profile, get_profile, get_recipe
from jsws_lib.experiments.ablation import RESULTS, collect, from_m, plan, run_all, store

FILE = RESULTS / "photographs.json"
COMMAND = "python -m jsws_lib.experiments.studies.photographs DATA"
DATA = ROOT / "build" / "photographs"  # what `present` makes
# Both stages are wide and coarse: at the same size stride 16 costs a quarter of stride 8,
# the CRF refines the labels anyway, and a backbone that is dilated once draws no lattice.
SIZE, STRIDE, STEPS = 224, 16, (1500, 1000)
RECIPE = get_recipe("steady", stage1_stride=STRIDE, mirror=True, stage2_stride=STRIDE)


def present(voc: Path, out: Path) -> Path:
    """Make a data root whose VOC2012 has only the categories that occur in train_aug.

    They are sorted by name, as VOC's are; masks of val are renumbered. Pictures are linked.

    Raises:
        JswsError: data are missing or broken, or a mask holds another category.
    """
    if out.is_dir():
        return out
    lists, known = voc / "ImageSets" / "Segmentation", categories(voc)
    train, val = (read_ids(lists / f"{name}.txt") for name in ("train_aug", "val"))
    labels = all_labels(voc, train)
    here = np.flatnonzero(labels.any(0))
    kept = sorted((known[k] for k in here), key=natural)
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
        table = ["file,labels"]
        for name, row in zip(train, labels, strict=True):
            shown = [known[k] for k in np.flatnonzero(row)]
            table.append(f"{name}.jpg,{';'.join(shown)}")
        write_bytes(Path(folder) / "labels.csv", "\n".join(table).encode())
        adopt(pictures, Path(folder) / "labels.csv", out, class_masks=masks)
    return out


def open_data(given: Path) -> Path:
    """What `present` makes of a folder with VOC2012 and ECSSD, with ECSSD beside it."""
    data = present(given / "VOC2012", DATA)
    if not (data / "ECSSD").exists():
        (data / "ECSSD").symlink_to((given / "ECSSD").resolve())
    return data


def scale(data: Path) -> Profile:
    """The profile `laptop` for what `open_data` made.

    It looks at nothing of val before the end.
    """
    return get_profile(
        "laptop",
        data=data,
        size=SIZE,
        steps=STEPS,
        cache="memory",
        validate_every=0,
        saliency_images="ECSSD/images",
        saliency_masks="ECSSD/ground_truth_mask",
        saliency_list="ECSSD/train.txt",
        test_list="ECSSD/test.txt",
    )


def photographs(given: Path, settings: Sequence[str], seeds: Sequence[int]):
    """Train or load the rows, measure them, and write `results/photographs.json` anew.

    Args:
        given: folder with VOC2012 and ECSSD.
        settings, seeds: as `plan` takes them; the file holds no others, but for 2S from
            M's backbone beside M and 2S.

    Raises:
        JswsError: data are missing or broken.
    """
    profile = scale(open_data(given))
    rows = plan(profile, RECIPE, seeds=seeds, settings=settings)
    rows += from_m(rows)
    words = [COMMAND, *settings, "--seeds", *map(str, seeds)]
    made = {"command": " ".join(words)}
    store(made | collect(rows, run_all(rows, 1), 1), FILE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    if unknown := {*asked.settings} - {*SETTINGS}:
        known = ", ".join(SETTINGS)
        parser.error(f"there is no setting {unknown.pop()}; choose from {known}")
    photographs(asked.data, asked.settings or tuple(SETTINGS), asked.seeds)
