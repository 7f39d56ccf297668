"""Bad settings, environments, places, and bad files that `jsws` itself writes.

As in `test_bad_files.py`: one sentence each.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import network
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from test_bad_files import LABELS_ONLY, MEASURE, PREDICT, PSEUDO, TRAIN
from trials import MARKS, ODD_FILES, full_disk, spoilt, swapped

from data_utils.errors import JswsError
from data_utils.fields import _fits, kind_of
from data_utils.real import download
from jsws_lib.cli.settings import FIELDS, configured
from jsws_lib.engine import doctor
from jsws_lib.experiments import ablation

pytestmark = MARKS

ABLATE = f"ablate --seeds 1 --settings S --jobs 1 {TRAIN} --out {{out}}.json"

# --- settings ------------------------------------------------------------------------

SETTINGS = """
accumulate=² accumulate=0 accumulate=1e3 accumulate=7 accumulate=9999999999 batch_class=0
batch_class=1e400 batch_class=99999999999 batch_saliency=-1 betas=1,2 betas=0.9,nan betas=a
cache=disk checkpointing=2 class_evidence= class_weight=-1 class_weight=inf class_weight=nan
compile=maybe crf=../../x crf_scale=0 crf_scale=1e-9 crf_scale=inf crop=0 crop=2 crop=nan
data= decay=0 decay=2 every=0 every=-3 evidence_share=0 evidence_share=1.5 final_relu=no
flip=0 kind=cosine leaky_labels=1 lr=-1 lr=0 lr=inf lr=nan lr=1,2,3 name=x optimizer=sgd
precision=int8 precision=fp16 rotate=1e9 rotate=nan saliency_reading=x sam_init_std=-1
sam_init_std=nan sam_rate=0 sam_rate=inf schedules=1 size=0 size=63 size=1e9 size=99999999
skips=? stage1_stride=4 stage2_init=me steps=0 steps=-5 steps=1,2,3 steps=99999999999999
suppress=all test_images=nowhere test_list=nowhere test_masks=nowhere train_list=nowhere
train_list=../../../etc/passwd upsample=x val_list= val_list=nowhere voc=nowhere weights=x
weight_decay=-1 weight_decay=nan workers=-1 workers=1e9 workers=999999999 =1 x x=1 backbone=
backbone=vgg saliency_list=nowhere saliency_images=nowhere saliency_masks=nowhere size=٣
""".split()
OPTIONS = """
ablate --seeds 400000000|ablate --seeds 0|ablate --seeds -1|ablate --seeds x
ablate --seeds 1,1|ablate --seeds 4294967296,1|ablate --seeds ²|ablate --seeds ,
ablate --settings Q|ablate --jobs 0|ablate --settings S,,M|ablate --seeds 1.5
ablate --jobs x|ablate --profile huge|ablate --recipe x|train stage1 --seed 4294967296
train stage1 --seed -1|train stage1 --seed 1e3|train stage1 --batch x
train stage1 --size 0|train stage1 --steps ²|train stage1 --steps 1,x
train stage1 --tracker nope|train stage2 --setting S|train stage2 --setting $x$
train stage2 --teacher {net}|train stage3|train stage2 --pseudo-labels {root}
train stage1 --batch 0|train stage1 --steps 0|train stage1 --size x|train stage1 --size 3
train stage2 --set lr=nan|train stage1 --backbone resnet|predict {net} --crf best
pseudo-label --set crf_scale=-1|evaluate network --checkpoint x --set workers=-1
predict {data}/ECSSD/images --crf-scale 1|predict {net} --checkpoint {net} --crf-scale 0
predict {root}/nowhere.jpg|predict {data}/VOCdevkit|train stage1 --data {out}
train stage2 --teacher {root}/nowhere --out {out}|ablate --settings S,Q
pretrain --images 5|pretrain --images 0|pretrain --size 8|pretrain --epochs -1
pseudo-label --processes -2|pseudo-label --seed 99999999999|bake|data bake
data download NOTHING|data download|data make-mini {out} --size 8
data make-mini {out} --seed -1|data make-mini {out} --seed 4294967296
data make-mini {out} --size 99999999|bench --size 8|data make-mini {out} --workers -1
bench --times 0|bench --backbone nope|bench --batch 0
study --seed -1|study --jobs 0|doctor --fast|settings x|compare
compare {net} --table 7|compare {net} --table 0|compare {net} --table 1 --format pdf
evaluate network|evaluate network --checkpoint {net} --absent no|evaluate all
evaluate saliency --pred {root} --gt {root} --protocol x
page {root} --variant a --out {out}.png
evaluate segmentation --pred {root} --gt {root} --figure {out}.xyz|predict|export
page {data}/ECSSD/images --variant a={net} --variant a={net} --out {out}.png
page {data}/ECSSD/images --variant a={net} --out {out}.xyz
submit --pred {root} --out {out}.zip
page {data}/ECSSD/images --variant a={net} --out {out}.png --rows 0
"""
OPTIONS = OPTIONS.strip().replace("\n", "|").split("|")


def test_settings(trials):
    short = f"train stage1 {TRAIN}".replace("--steps 1", "")
    for text in SETTINGS:
        name, words = text.partition("=")[0], short
        if name in ("test_images", "test_list", "test_masks", "val_list"):
            words = MEASURE
        if name == "crf_scale":
            words = PSEUDO
        trials(text, words + " --set", more=[text])
    for scale in ("1e-9", "nan", "0"):
        trials("no size", f"{PREDICT} --crf readme --crf-scale {scale}")


def test_options(trials):
    for words in OPTIONS:
        trials(words, words)


@given(
    st.sampled_from(sorted(FIELDS)), st.one_of(st.text(max_size=8), st.floats().map(str))
)
@settings(max_examples=300, deadline=None)
def test_a_setting_takes_only_what_it_says(name, text):
    """Whatever is typed is refused in a sentence, or within the field's limits."""
    try:
        p, r = configured("mini", "jsws2020", [f"{name}={text}"])
    except JswsError:
        return
    owner, one = FIELDS[name]
    holders = r.schedules if owner.__name__ == "Schedule" else [p, r]
    kind, pair, optional = kind_of(one)
    for holder in holders:
        value = getattr(holder, name, None)
        for part in value if pair and value else [value]:
            assert part is None or _fits(part, kind, one.metadata["limits"])


ENVIRONMENTS = [
    *({"JSWS_DEVICE": x} for x in "nope cuda:99 meta cpu:x ² xla mps:7".split()),
    *({"RANK": x} for x in ("x", "-1", "1", "²", "0.5", "99999999999999999999")),
    *({"WORLD_SIZE": x} for x in ("x", "-1", "0", "1.5", "1e3")),
    {"RANK": "5", "WORLD_SIZE": "2"},
    {"JSWS_DATA": "/nowhere"},
    {"JSWS_DATA": "/dev/null"},
    {"JSWS_PROFILE": "huge"},
    {"JSWS_RUNS": "/dev/null/x"},
    {"JSWS_RUNS": "/proc/nowhere"},
    {"JSWS_RUNS": "/" + "a" * 300},
]


def test_environments(trials, monkeypatch):
    train = LABELS_ONLY.replace("--profile mini", "").replace("--data {data}", "")
    monkeypatch.setenv("JSWS_TRAIN", "1")
    for names in ENVIRONMENTS:
        with monkeypatch.context() as patch:
            patch.setenv("JSWS_DATA", str(trials.world["data"]))
            for name, value in names.items():
                patch.setenv(name, value)
            trials(str(names), train)
    monkeypatch.setenv("JSWS_CACHE", "/dev/null/x")
    trials("no cache", f"{LABELS_ONLY} --set cache=decoded", names=["JSWS_CACHE"])


# --- places --------------------------------------------------------------------------

WRITERS = [
    PREDICT.replace("{out}", "{place}"),
    "page {data}/ECSSD/images --variant a={net} --out {place}.png",
    "evaluate saliency --pred {truth} --gt {truth} --figure {place}.svg",
    "pretrain --images 64 --epochs 1 --size 32 --out {place}",
    f"{LABELS_ONLY} --out {{place}}",
    PSEUDO.replace("{out}", "{place}"),
    "data make-mini {place} --workers 0",
    "data adopt {own} {own}/labels.csv --out {place}",
]
RESULT = {"settings": {"M": {"miou": [0.5]}, "MM": {"miou": [0.5]}}}


@pytest.fixture
def writers(trials):
    """The world, with what commands need to come as far as writing."""
    root, data = trials.world["root"], trials.world["data"]
    own = Path(shutil.copytree(data / "ECSSD/images", root / "own"))
    names = sorted(path.name for path in own.iterdir())
    (own / "labels.csv").write_text("file,labels\n" + "".join(f"{n},cat\n" for n in names))
    (root / "result.json").write_text(json.dumps(RESULT))
    more = {"own": own, "truth": data / "ECSSD/ground_truth_mask"}
    trials.world |= more | {"result": root / "result.json"}
    return trials


@pytest.mark.parametrize("kind", ["file", "proc", "long", "full"])
def test_places(writers, kind):
    root = writers.world["root"]
    (root / "file").touch()
    places = {
        "file": root / "file/x",
        "proc": "/proc/nowhere/x",
        "long": root / ("a" * 300),
    }
    for words in WRITERS:
        writers.world["place"] = places.get(kind, root / f"new{writers.count}")
        if kind == "full":
            if "pretrain" in words:  # its pictures pass through no file
                continue
            with full_disk():
                writers("full disk", words, names=["free some room"])
        else:
            writers(kind, words)
            assert kind != "long" or "room" not in writers.answers[-1]


def test_folders_where_files_should_be(writers):
    place = writers.world["place"] = writers.world["root"] / "there"
    for suffix in ("", ".png", ".svg"):
        place.with_name(f"there{suffix}").mkdir()
        (place.with_name(f"there{suffix}") / "x").touch()
    for words in WRITERS[1:4]:
        writers("a folder", words, names=["there"])


# --- results, figures, manifests, notes ----------------------------------------------


def test_results(trials):
    bad = [None, 3, "x", [], {}, [[]]]
    figures = [None, 0.5, "x", [], {}, [2.0], [-0.1], ["x"], [None], [float("nan")], [True]]
    good = RESULT | {"protocol": "toolbox"}
    kind = spoilt(
        good, settings=bad, settings__MM=[None, 3, "x", []], settings__MM__miou=figures
    )
    kind |= ODD_FILES
    for harmless in ("settings__MM missing", "settings {}", "settings__MM__miou missing"):
        kind.pop(harmless, None)
    trials.files(kind, {"compare {root}/r.json --table 5": "{root}/r.json"})
    one = {"mae": 0.1, "max_f": 0.5, "protocol": "toolbox", "images": 1000}
    wrong = spoilt(
        one, mae=figures[2:-1], protocol=[3, [], {}, "pysod"], images=["x", [], 2.5]
    )
    wrong = {k: v for k, v in wrong.items() if "missing" not in k or "max" in k}
    on = "compare {root}/r.json --table 2 --on ECSSD"
    trials.files(wrong, {on: "{root}/r.json"})


def test_figures_and_former_results(trials, monkeypatch):
    root = trials.world["root"]
    monkeypatch.setattr(ablation, "RESULTS", root / "results")
    words = ABLATE.replace("--out {out}.json", "").format(**trials.world)
    assert trials.jsws(words).status == 0
    figures = min(root.parent.glob("runs/*/figures.json"))  # of S, or of a contrast
    (former,) = (root / "results").glob("*.json")
    bad = [None, 3, "x", []]
    kind = spoilt(json.loads(figures.read_text()), miou=[-1, 2, "x", [], {}], read_outs=bad)
    trials.files({k: kind[k] for k in kind if k != "miou missing"}, {ABLATE: str(figures)})
    good = json.loads(former.read_text())
    kind = spoilt(
        good,
        configuration=bad,
        configuration__profile=bad,
        configuration__recipe=bad,
        settings=bad,
        contrasts=bad[:-1],
        seeds=[None, 3, ["x"], [[]]],
    )
    trials.files(kind, {words: str(former)})
    trials.files(ODD_FILES, {words: str(former)})


def test_manifests(trials, checkpoint, monkeypatch):
    folder = trials.world["root"].parent / "checkpoints"
    folder.mkdir()
    shutil.copy(checkpoint, folder / "mini_M.safetensors")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    good = {"files": {"mini_M.safetensors": {"sha256": digest}}}
    bad = [None, 3, "x", [], {}]
    kind = spoilt(good, files=bad) | ODD_FILES
    wrong = spoilt({"files": {"m": {"sha256": digest}}}, files__m=bad, files__m__sha256=bad)
    kind |= {
        name: data.replace(b'"m"', b'"mini_M.safetensors"')
        for name, data in wrong.items()
        if "__" in name
    }
    monkeypatch.setattr(doctor, "ROOT", folder.parent)
    place = str(folder / "manifest.json")
    words = "train stage1 --profile mini"
    trials.files(kind, {words: place})
    for fine in ("files {}", "files__m missing"):  # nothing is missing
        del kind[fine]
    trials.files(kind, {"doctor": place}, names=[], verdict=True)


def test_notes_beside_pseudo_labels(trials):
    out, net = trials.world["root"] / "labels", trials.world["net"]
    make = PSEUDO.replace("{out}", str(out))
    assert trials.jsws(make.format(**trials.world)).status == 0
    teach = f"train stage2 {TRAIN} --teacher {net} --pseudo-labels {out} --out {{out}}"
    kind = {"empty": b"", "no UTF-8": b"\xff\xfe\0", "another": b"abc\n", "blank": b"\n \n"}
    kind |= {k: ODD_FILES[k] for k in ("folder", "pipe", "endless")}
    trials.files(kind, dict.fromkeys((make, teach), f"{out}.source"), names=["labels"])


# --- weights -------------------------------------------------------------------------


def test_checkpoints(trials):
    net = trials.world["net"]
    with safe_open(net, "pt") as file:
        good = json.loads(file.metadata()["story"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    bad = [None, 3, 2.5, "x", [], {}, True, -1]
    no_recipe = [None, 3, "x", [], {"colour": 1}, {**good["recipe"], "rotate": "x"}]
    no_recipe += [{**good["recipe"], "schedules": x} for x in (3, [3], [{}], [{"lr": 1}])]
    places = dict.fromkeys(("stage", "backbone", "size"), bad)
    places |= {"setting": [*bad, "MM", "2S"], "recipe": no_recipe}
    stories = spoilt(good, **places, categories=[None, 3, "x", [], [3], [None], ["a"], {}])
    stories = {k: v for k, v in stories.items() if k not in ("no UTF-8", "UTF-16")}
    kind = {k: save(state, {"story": v.decode()}) for k, v in stories.items()}
    key = "sam.conv.bias"
    whole = {"story": json.dumps(good)}
    kind |= {
        "no story": save(state),
        "no tensors": save({}, whole),
        "nan": save({**state, key: state[key] * torch.nan}, whole),
        "huge": save({k: t.float() * 1e30 for k, t in state.items()}, whole),
        "another shape": save({**state, key: torch.zeros(3)}, whole),
        "one less": save({k: v for k, v in state.items() if k != key}, whole),
        "one more": save({**state, "x": torch.zeros(3)}, whole),
        "cut": net.read_bytes()[:-10],
        "text": b"no network",
        "huge header": b"\xff" * 8 + b"{}",
        **ODD_FILES,
    }
    trials.files(kind, {PREDICT: "{net}"})
    some = {k: v for n, (k, v) in enumerate(kind.items()) if n % 5 == 0}
    teach = f"train stage2 {TRAIN} --teacher {{net}} --out {{out}}"
    page = "page {data}/ECSSD/images --variant a={net} --out {out}.png"
    trials.files(some, dict.fromkeys([teach, PSEUDO, page, MEASURE], "{net}"))


class Loud:
    """What no reader may run."""

    def __reduce__(self):
        return os.system, ("touch /tmp/jsws-ran",)


def pickled(thing) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def test_weights(trials):
    features = network().backbone.features.state_dict()
    name = next(iter(features))
    kind = {
        "a list": pickled([1, 2]),
        "a tensor": pickled(torch.zeros(3)),
        "nothing": pickled({}),
        "numbers for names": pickled({1: torch.zeros(3)}),
        "numbers": pickled(dict.fromkeys(features, 1.0)),
        "another net": pickled({"x": torch.zeros(3)}),
        "another shape": pickled({**features, name: torch.zeros(3)}),
        "nan": pickled({**features, name: features[name] * torch.nan}),
        "sparse": pickled({**features, name: torch.eye(3).to_sparse()}),
        "wrapped list": pickled({"state_dict": [1]}),
        "wrapped twice": pickled({"model": {"state_dict": 3}}),
        "a module": pickled(torch.nn.Linear(1, 1)),
        "code": pickled(Loud()),
        "cut": pickled(features)[:-200],
        "text": b"no weights",
        "empty": b"",
        "zip": b"PK\x05\x06" + bytes(18),
        **ODD_FILES,
    }
    file = "{root}/w.pth"
    trials.files(kind, {f"{LABELS_ONLY} --set weights={file}": file})
    assert not os.path.exists("/tmp/jsws-ran")
    trials.files(
        {"text": b"x", "cut": save(features)[:-9]},
        {f"{LABELS_ONLY} --set weights={{root}}/w.safetensors": "{root}/w.safetensors"},
    )
    assert "weights_only" not in "\n".join(trials.answers)


def test_resume_points(trials):
    words = LABELS_ONLY + " --out {root}/run"
    assert trials.jsws(words.format(**trials.world)).status == 0
    run = trials.world["root"] / "run"
    with safe_open(run / "weights.safetensors", "pt") as file:
        tag = json.loads(file.metadata()["story"])["run"]
    (run / "weights.safetensors").unlink()
    record = {"step": 0, "lr": 0.1, "L_c": 1.0}
    good = {"tag": tag, "history": [record], "random": {}, "net": {}, "optimizer": {}}
    wrong = [None, 3, "x", [], {}, [[]], [{}], [{"step": 5}], [{"step": 0, "L_c": "x"}]]
    points = [good | {key: value} for key in good for value in wrong]
    points = [p for p in points if p != good]
    points += [[1], 3, "x", None, {}, torch.zeros(2)]
    for point in points:
        data = pickled(point)
        name = f"00000001_1.0000_{hashlib.sha256(data).hexdigest()[:8]}.pt"
        with swapped(run / "resume" / name, data):
            trials(str(point)[:200], words, names=[name])
    for name in ("a_b_c.pt", "x.pt", "1_2_3.pt"):  # of somebody else
        (run / "resume" / name).write_bytes(b"x")
    assert trials.jsws(words.format(**trials.world)).status == 0


# --- archives ------------------------------------------------------------------------


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for key, value in more.items():
        setattr(info, key, value)
    return packed((info, b"" if kind != tarfile.REGTYPE else b"x"))


def linked(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def zipped(name: str, data: bytes = b"x", mode: int = 0, method=zipfile.ZIP_DEFLATED):
    file, info = io.BytesIO(), zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, method
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, data)
    return file.getvalue()


PLAIN = zipped("MINE/images/a.jpg")
ARCHIVES = {
    "empty": b"",
    "text": b"no archive",
    "empty tar": packed(),
    "empty zip": b"PK\x05\x06" + bytes(18),
    "absolute": tarred("/tmp/jsws-out"),
    "above": tarred("../out"),
    "in between": tarred("MINE/../../out"),
    "symlink": tarred("MINE/images", tarfile.SYMTYPE, "/tmp"),
    "hard link": tarred("MINE/a", tarfile.LNKTYPE, "/etc/passwd"),
    "device": tarred("MINE/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": tarred("MINE/disk", tarfile.BLKTYPE),
    "pipe": tarred("MINE/pipe", tarfile.FIFOTYPE),
    "long name": tarred("MINE/" + "a" * 300),
    "escape": tarred("../\x1b[31m"),
    "no name": tarred(""),
    "this folder": tarred("."),
    "absolute, zip": zipped("/tmp/jsws-out"),
    "above, zip": zipped("../out"),
    "two of one name": packed(*[(tarfile.TarInfo(f"MINE/{x}.jpg"), b"x") for x in "aA"]),
    "a file and a folder": packed(*[(tarfile.TarInfo(x), b"x") for x in ("M", "M/a")]),
    "a link and a long name": packed(
        (linked("MINE/l", "/tmp"), b""), (tarfile.TarInfo("MINE/l/" + "a" * 150), b"x")
    ),
    "drive": zipped("C:\\out"),
    "back": zipped("..\\out"),
    "link, zip": zipped("MINE/a", b"/etc/passwd", 0o120777),
    "device, zip": zipped("MINE/a", b"", 0o020666),
    "bomb": lambda path: path.write_bytes(zipped("MINE/a", bytes(150 << 20))),
    "damaged": PLAIN.replace(b"PK\x03\x04", b"PK\x03\x05", 1),
    "another compression": PLAIN.replace(b"\x08\0", b"\x63\0"),
    "locked": PLAIN.replace(b"\x14\0\0\0", b"\x14\0\x01\0"),
    "less": PLAIN,
    **ODD_FILES,
}
SOURCE = """
[MINE]
title = "Mine"
page = "p"
licence = "l"
cite = "c"
holds = { "MINE/images" = 3, "MINE/masks" = 3 }
gigabytes = 0.001
archives = [{ name = "mine.zip", urls = ["https://example.org/mine.zip"] }]
"""


def test_archives(trials, monkeypatch):
    root = trials.world["root"]
    (root / "sources.toml").write_text(SOURCE)
    monkeypatch.setattr(download, "SOURCES", root / "sources.toml")
    place = "{root}/mine.zip"
    words = f"data download MINE --data {{out}} --from {place}"
    trials.files(ARCHIVES, {words: place}, names=[])
    outside = [root.parent / "out", root / "out", Path("/tmp/jsws-out")]
    assert not any(path.exists() for path in outside)


def sources(pattern: str, other: str) -> bytes:
    """SOURCE with another text in one place."""
    made = re.sub(pattern, lambda _: other, SOURCE)
    assert made != SOURCE, pattern
    return made.encode()


NO_SOURCES = {
    "empty": b"",
    "text": b"no table",
    "no UTF-8": b"a = '\xe9'",
    "a number": b"MINE = 3",
    **ODD_FILES,
}
NO_SOURCES |= {
    name: sources(pattern, other)
    for name, pattern, other in (
        ("no archives", "archives", "others"),
        ("a number of archives", "archives.*", "archives = 3"),
        ("no name", 'name = "mine.zip", ', ""),
        ("one more", "title", "colour = 1\ntitle"),
        ("no title", "title", "subtitle"),
        ("words", "0.001", '"much"'),
        ("holds", '"MINE/images" = 3', '"MINE/images" = "all"'),
        ("holds a list", "holds.*", "holds = [1]"),
        ("one folder", ', "MINE/masks" = 3', ""),
        ("above", '"mine.zip", ', '"../mine.zip", '),
        ("into above", "urls", 'into = "../..", urls'),
        ("a number of urls", r'\["https.*?"\]', "3"),
        ("no https", "https://example.org", "file:///etc"),
    )
}


def test_sources(trials, monkeypatch):
    place = trials.world["root"] / "sources.toml"
    monkeypatch.setattr(download, "SOURCES", place)
    words = dict.fromkeys(["data list", "data download MINE --data {out}"], str(place))
    trials.files(NO_SOURCES, words, names=[])


# --- names ---------------------------------------------------------------------------

NAMES = [*r"$x $\foo$ a_b^c <b> [red] %s a|b {x} `a` é".split(), "\x1b[31m"]


def test_odd_names_are_written_out(trials):
    """In figures, tables and on a terminal; these commands succeed."""
    root, data = trials.world["root"], trials.world["data"]
    truth = data / "ECSSD/ground_truth_mask"
    for name in NAMES:
        pred = shutil.copytree(truth, root / name)
        net = f"{name}={trials.world['net']}"
        result = root / f"{name}.json"
        result.write_text(json.dumps({"miou": 0.5, "setting": "M"}))
        page = ["page", data / "ECSSD/images", "--variant", net, "--out", root / "p.png"]
        given = ["--pred", pred, "--gt", truth, "--figure", root / "f.png"]
        for words in (
            page,
            ["evaluate", "saliency", *given],
            ["compare", result, "--table", "3"],
            ["compare", result, "--table", "3", "--format", "latex"],
        ):
            status, said, err = trials.jsws([*words])
            assert status == 0, (words, err)
            assert "\x1b" not in said + "".join(err), words
