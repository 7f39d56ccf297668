"""Bad files, into every command that reads such a file.

Each ends in one sentence that names it: no traceback, no hang, no answer. What a reader
refuses its own tests say; here are kinds that they do not have, and one or two that do.
"""

import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from trials import MARKS, ODD_FILES, spoilt

from data_utils.pictures import list_pictures
from data_utils.voc import palette, write_palette_png
from jsws_lib.experiments import submission

pytestmark = MARKS

# --- commands ------------------------------------------------------------------------

TRAIN = "--profile mini --size 64 --steps 1 --batch 6 --data {data}"
NET = "--checkpoint {net}"
LABELS_ONLY = f"train stage1 --labels-only {TRAIN}"
STAGE_1 = f"train stage1 {TRAIN}"
STAGE_2 = f"train stage2 {TRAIN} --teacher {{net}} --pseudo-labels {{pred}} --out {{out}}"
PSEUDO = f"pseudo-label --processes 0 --size 64 --data {{data}} {NET} --out {{out}}"
MEASURE = f"evaluate network {NET} --data {{data}}"
SEGMENTATION = "evaluate segmentation --pred {pred} --gt {voc}/SegmentationClass"
SALIENCY = "evaluate saliency --pred {maps} --gt {data}/ECSSD/ground_truth_mask"
PREDICT = f"predict {{data}}/ECSSD/images {NET} --out {{out}}"
PAGE = "page {voc}/JPEGImages --list {lists}/val.txt --variant a={pred} --out {out}.png"
PAGE_S = "page {data}/ECSSD/images --kind saliency --variant a={maps} --out {out}.png"
CHECK = "data check --data {data}"
PLAN = f"ablate --seeds 1 --settings MM --dry-run {TRAIN}"
SUBMIT = "submit --pred {pred} --data {data} --out {out}.tgz"
ADOPT = (
    "data adopt {own}/photos {own}/labels.csv --out {out} "
    "--saliency-masks {own}/masks --class-masks {own}/truth"
)


@pytest.fixture
def trials(trials, monkeypatch):
    """The world with predictions, own data, and a list of the server's."""
    root, voc, data = (trials.world[key] for key in ("root", "voc", "data"))
    trials.world |= {
        "pred": root / "pred",
        "maps": root / "maps",
        "own": root / "own",
        "lists": voc / "ImageSets/Segmentation",
    }
    for path in (voc / "JPEGImages").iterdir():
        if path.stem.startswith("mini_1"):
            source = voc / f"SegmentationClass/{path.stem}.png"
            values = np.asarray(Image.open(source))
            write_palette_png(root / f"pred/{path.stem}.png", values * (values < 21))
        else:
            mask = np.zeros((64, 64), np.uint8)
            write_palette_png(root / f"labels/{path.stem}.png", mask)
    trials.world["labels"] = root / "labels"
    shutil.copy(voc / "ImageSets/Segmentation/val.txt", trials.world["lists"] / "test.txt")
    monkeypatch.setattr(submission, "COUNT", 3)
    shutil.copytree(data / "ECSSD/ground_truth_mask", root / "maps")
    shutil.copytree(data / "DUTS-TR/DUTS-TR-Image", root / "own/photos")
    shutil.copytree(data / "DUTS-TR/DUTS-TR-Mask", root / "own/masks")
    names = sorted(list_pictures(root / "own/photos"))
    write_palette_png(root / f"own/truth/{names[0]}.png", np.eye(64, dtype=np.uint8))
    table = [f"{name}.jpg,{'cat' if k % 2 else 'dog'}" for k, name in enumerate(names[1:])]
    (root / "own/labels.csv").write_text("\n".join(["file,labels", *table]))
    return trials


# --- pictures ------------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def stored(array, kind="PNG") -> bytes:
    """An array or a picture as a file."""
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def header(width: int, height: int, depth: int = 8, kind: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)


def rows(array) -> tuple[bytes, bytes]:
    lines = array.reshape(len(array), -1).view(np.uint8)
    return b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))


END = (b"IEND", b"")
BOMB = png(header(60_000, 60_000, 1), (b"IDAT", zlib.compress(bytes(1000))), END)
DAMAGED = {
    "half a JPEG": stored(NOISE, "JPEG")[:2000],
    "bomb": BOMB,
    "no size": png(header(0, 5), (b"IDAT", b""), END),
    "short header": png((b"IHDR", b"short"), END),
    "swollen text": png(
        header(8, 8), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24))), END
    ),
    "dim 16 bits a colour": png(header(64, 64, 16, 2), rows(NOISE.astype(">u2")), END),
    "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
    **ODD_FILES,
}
OF_PICTURES = {
    PREDICT: "{data}/ECSSD/images/mini_300001.jpg",
    f"predict {{data}}/ECSSD/images/mini_300001.jpg {NET} --crf readme --out {{out}}": (
        "{data}/ECSSD/images/mini_300001.jpg"
    ),
    PAGE: "{voc}/JPEGImages/mini_100001.jpg",
    LABELS_ONLY: "{voc}/JPEGImages/mini_000001.jpg",
    f"{STAGE_1} --set cache=decoded": "{data}/DUTS-TR/DUTS-TR-Image/mini_200001.jpg",
    MEASURE: "{voc}/JPEGImages/mini_100001.jpg",
    f"{MEASURE} --crf readme": "{data}/ECSSD/images/mini_300001.jpg",
    PSEUDO: "{voc}/JPEGImages/mini_000001.jpg",
    CHECK: "{voc}/JPEGImages/mini_000001.jpg",
    ADOPT: "{own}/photos/mini_200001.jpg",
}


def test_pictures(trials):
    trials.files(DAMAGED, OF_PICTURES)
    trials.files(BROKEN, {SUBMIT: "{voc}/JPEGImages/mini_100001.jpg"})


BOX = np.zeros((64, 64), np.uint8)
BOX[16:40, 20:50] = 1
COLOURS = {"colours": stored(np.dstack([BOX * 255, BOX, BOX]))}
NO_MASKS = {"numbers": stored(BOX * 15), **COLOURS}
SIZE = {"another size": stored(BOX[:30] * 255)}
BROKEN = {name: DAMAGED[name] for name in ("half a JPEG", "bomb", "short header", "pipe")}
OF_MAPS = {
    STAGE_1: "{data}/DUTS-TR/DUTS-TR-Mask/mini_200001.png",
    MEASURE: "{data}/ECSSD/ground_truth_mask/mini_300001.png",
    f"{CHECK} ": "{data}/ECSSD/ground_truth_mask/mini_300001.png",
    ADOPT: "{own}/masks/mini_200001.png",
}
OF_FOLDERS = {
    SALIENCY: "{data}/ECSSD/ground_truth_mask/mini_300001.png",
    f"{SALIENCY} --structure": "{data}/ECSSD/ground_truth_mask/mini_300001.png",
}


def test_saliency_masks(trials):
    trials.files(NO_MASKS | SIZE | BROKEN, OF_MAPS)
    trials.files(NO_MASKS | BROKEN, OF_FOLDERS)
    trials.files(COLOURS | BROKEN, {SALIENCY: "{maps}/mini_300001.png"})
    trials.files(COLOURS | BROKEN | SIZE, {PAGE_S: "{maps}/mini_300001.png"})
    trials.files(SIZE, {f"{SALIENCY} --protocol pysod": "{maps}/mini_300001.png"})


RGB = Image.fromarray(np.dstack([BOX] * 3))
MOVED = Image.fromarray(BOX)
MOVED.putpalette(palette()[[0, 15]].tobytes())  # as an editor numbers used colours anew
NO_CLASSES = {
    "RGB": stored(RGB),
    "value 254": stored(BOX * 254),
    "one bit": stored(Image.fromarray(BOX * 255).convert("1")),
    "four bits": png(header(64, 64, 4), rows(BOX[:, ::2] * 16 + BOX[:, 1::2]), END),
    "moved palette": stored(MOVED),
    "another size": stored(BOX[:30]),
    **BROKEN,
}
OF_CLASSES = {
    MEASURE: "{voc}/SegmentationClass/mini_100001.png",
    SEGMENTATION: "{voc}/SegmentationClass/mini_100001.png",
    f"{SEGMENTATION} --json": "{pred}/mini_100001.png",
    PAGE: "{pred}/mini_100001.png",
    STAGE_2.replace("{pred}", "{labels}"): "{labels}/mini_000001.png",
    CHECK: "{voc}/SegmentationClass/mini_100001.png",
    ADOPT: "{own}/truth/mini_200000.png",
    SUBMIT: "{pred}/mini_100001.png",
}


def test_class_masks(trials):
    trials.files(NO_CLASSES, OF_CLASSES)


def test_nothing_to_measure(trials):
    """Masks of 0 and 255, as of one category; a list without any; maps of one pixel."""
    voc = trials.world["voc"]
    for path in (voc / "SegmentationClass").iterdir():
        path.write_bytes(stored((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255))
    trials("0 and 255", MEASURE, names=["VOC2012", "val"])
    trials("0 and 255", SEGMENTATION, names=["SegmentationClass"])
    (trials.world["lists"] / "mine.txt").write_text("mini_100001\n")
    trials("no category", f"{MEASURE} --set val_list=mine", names=["mine"])
    for folder in (trials.path("{maps}"), trials.path("{data}/ECSSD/ground_truth_mask")):
        (folder / "mini_300001.png").write_bytes(stored(np.full((1, 1), 255, np.uint8)))
    trials("one pixel", f"{SALIENCY} --structure", names=["mini_300001"])


def test_pseudo_labels_of_other_categories(trials):
    labels = {path: path.stem for path in trials.path("{labels}").iterdir()}
    for value, path in enumerate(labels, 1):
        write_palette_png(path, np.full((64, 64), value, np.uint8))
    words = STAGE_2.replace("{pred}", "{labels}")
    trials("other categories", words, names=["its image's labels lack", str(path.parent)])
    words = words.format(**trials.world, out=trials.world["root"] / "run").split()
    assert trials.jsws(*words, "--set", "suppress=logits").status == 0


# --- lists, labels, tables -----------------------------------------------------------

NO_LISTS = {
    "empty": b"",
    "Latin-1": "B\xe4r\n".encode("latin-1"),
    "twice": b"mini_000001\nmini_000001\n",
    "missing": b"nobody\n",
    "elsewhere": b"../../../../etc/passwd\n",
    "NUL": b"mini\0\n",
    "escape": b"mini\x1b[31m\n",
    "long": b"a" * 5000 + b"\n",
    **ODD_FILES,
}
OF_LISTS = {
    LABELS_ONLY: "{lists}/train_aug.txt",
    f"{STAGE_1} --set saliency_list=mine.txt": "{data}/mine.txt",
    PSEUDO: "{lists}/train_aug.txt",
    f"{MEASURE} --set val_list=mine": "{lists}/mine.txt",
    f"{MEASURE} --set test_list=mine.txt": "{data}/mine.txt",
    PREDICT + " --list {data}/mine.txt": "{data}/mine.txt",
    SEGMENTATION + " --list {data}/mine.txt": "{data}/mine.txt",
    SALIENCY + " --list {data}/mine.txt": "{data}/mine.txt",
    PAGE_S + " --list {data}/mine.txt": "{data}/mine.txt",
    SUBMIT: "{lists}/test.txt",
    PLAN: "{lists}/train_aug.txt",
}


def test_id_lists(trials):
    trials.files(NO_LISTS, OF_LISTS, names=[])


def annotation(name: str, head: str = "") -> bytes:
    return f"{head}<a><object><name>{name}</name></object></a>".encode()


LAUGHS = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10 if k else "ha"}">' for k in range(10))
NO_XML = {
    "cut": annotation("cat")[:-5],
    "unknown encoding": annotation("cat", '<?xml version="1.0" encoding="utf-99"?>'),
    "no UTF-8": annotation("B\xe4r").decode().encode("latin-1"),
    "laughs": annotation("&l9;", f"<!DOCTYPE a [{LAUGHS}]>"),
    "another file": annotation("&x;", '<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]>'),
    "background": annotation("background"),
    "escape": annotation("&#155;31m"),
    "deep": b"<a>" * 50_000,
    **ODD_FILES,
}


def test_annotations(trials):
    place = dict.fromkeys((LABELS_ONLY, PSEUDO, CHECK), "{voc}/Annotations/mini_000001.xml")
    trials.files(NO_XML, place, names=["mini_000001"])


NO_TABLES = {
    "NUL": b"file,labels\na\0.jpg,cat\n",
    "long": b"file,labels\nmini_200001.jpg," + b"x" * 200_000 + b"\n",
    "short": b"file,labels\nmini_200001.jpg,cat\n",
    "elsewhere": b"file,labels\n../../etc/passwd,cat\n",
    "escape": b"file,labels\nmini_200001.jpg,\x1b[31m\n",
    **ODD_FILES,
}


def test_tables_of_labels(trials):
    trials.files(NO_TABLES, {ADOPT: "{own}/labels.csv"})


# --- notes of ours -------------------------------------------------------------------


def test_categories(trials):
    ids = [f"mini_{k:06d}" for k in (*range(6), *range(100_000, 100_003))]
    names = [f"c{k}" for k in range(20)]
    good = {"categories": names, "labels": dict.fromkeys(ids, ["c1"]), "files": "0"}
    bad = [None, [], {}, [3], ["a", "a"], ["a"] * 300, [""], ["a\n"]]
    wrong = [None, "c1", [], {}, [3], ["nobody"], ["\x1b[31m"]]
    kind = spoilt(good, categories=bad, labels=[None, "x", []]) | ODD_FILES
    note = "{voc}/categories.json"
    readers = (LABELS_ONLY, PSEUDO, CHECK, SEGMENTATION, PAGE)
    trials.files(kind, dict.fromkeys(readers, note))
    labels = {k: v for k, v in spoilt(good, labels__mini_000001=wrong).items() if "__" in k}
    trials.files(labels, {LABELS_ONLY: note, CHECK: note}, names=["mini_000001"])


def test_notes_of_drawn_data(trials):
    good = json.loads((trials.world["data"] / "mini.json").read_text())
    bad = [None, -1, 2.5, "x", {}]
    kind = spoilt(
        good,
        parameters=[None, 3, {}],
        parameters__seed=bad,
        parameters__images=bad,
        parameters__images__test=bad,
        contents=[3, []],
        contents__D_c=[3, []],
    )
    for optional in ("contents", "contents__D_c"):
        del kind[f"{optional} missing"]
    commands = [STAGE_1, PSEUDO, "data make-mini {data}", PLAN]
    trials.files(kind, dict.fromkeys(commands, "{data}/mini.json"))
