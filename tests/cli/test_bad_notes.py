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
from jsws_lib.experiments import ablation

pytestmark = MARKS

ABLATE = f"ablate --seeds 1 --settings S --jobs 1 {TRAIN} --out {{out}}.json"

# --- settings ------------------------------------------------------------------------

# What is known only once the data are looked at, a network built, a step tried.
SETTINGS = """
accumulate=7 accumulate=9999999999 accumulate=² backbone= backbone=vgg crf=../../x data=
precision=fp16 saliency_images=nowhere saliency_list=nowhere saliency_masks=nowhere size=٣
test_images=nowhere test_list=nowhere test_masks=nowhere train_list=../../../etc/passwd
train_list=nowhere val_list= val_list=nowhere voc=nowhere weights=x
""".split()
OPTIONS = """
ablate --seeds 400000000|ablate --seeds 0|ablate --seeds x|ablate --seeds 1,1
ablate --seeds ²|ablate --seeds ,|ablate --seeds -1|ablate --settings S,Q|ablate --jobs 0
ablate --profile huge|ablate --recipe x|train stage1 --seed 4294967296
train stage1 --batch x|train stage1 --size 3|train stage1 --steps 1,x|train stage1 --steps ²
train stage1 --tracker nope|train stage1 --data {out}|train stage2 --setting $x$
train stage2 --setting 2S --pseudo-labels {root} --out {out}
train stage2 --pseudo-labels {root}|train stage2 --teacher {root}/nowhere --out {out}
pseudo-label --set crf_scale=-1|pseudo-label --processes -2|predict {net} --crf best
predict {root}/nowhere.jpg|predict {data}/VOCdevkit|predict {net} --checkpoint {net}|predict
pretrain --images 5|bench --threads 0|doctor --fast|bake|data bake
data download NOTHING|data download|compare {net} --table 7|compare {net} --table 1
compare {net} --table 1 --format pdf|evaluate network|evaluate all
evaluate network --checkpoint x|evaluate saliency --pred {root} --gt {root} --protocol x
evaluate segmentation --pred {root} --gt {root} --figure {out}.xyz
page {data}/ECSSD/images --variant a={net} --variant a={net} --out {out}.png
page {data}/ECSSD/images --variant a={net} --out {out}.xyz|submit --pred {root} --out {out}
"""
OPTIONS = OPTIONS.strip().replace("\n", "|").split("|")


def test_settings(trials):
    for text in SETTINGS:
        measured = text.startswith(("test", "val"))
        words = MEASURE if measured else f"train stage1 {TRAIN}"
        trials(text, f"{words} --set", more=[text])
    trials("no size", f"{PSEUDO} --set crf_scale=1e-9")


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


ENVIRONMENTS = """
JSWS_DATA=/dev/null JSWS_DATA=/nowhere JSWS_DEVICE=cuda:99 JSWS_DEVICE=meta JSWS_DEVICE=nope
JSWS_PROFILE=huge JSWS_RUNS=/dev/null/x JSWS_RUNS=/proc/nowhere RANK=-1 RANK=1 RANK=x RANK=²
WORLD_SIZE=0 WORLD_SIZE=1.5 WORLD_SIZE=x
""".split()


def test_environments(trials, monkeypatch):
    train = LABELS_ONLY.replace("--profile mini", "").replace("--data {data}", "")
    monkeypatch.setenv("JSWS_TRAIN", "1")
    monkeypatch.setenv("JSWS_DATA", str(trials.world["data"]))
    for text in ENVIRONMENTS:
        with monkeypatch.context() as patch:
            patch.setenv(*text.split("="))
            trials(text, train)
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
    "data make-mini {place}",
    "data adopt {own} {own}/labels.csv --out {place}",
]
RESULT = {"settings": {"M": {"miou": [0.5]}, "MM": {"miou": [0.5]}}}


@pytest.fixture
def writers(trials, monkeypatch):
    """The world, with what commands need to come as far as writing."""
    monkeypatch.setattr("data_utils.parallel.available_cores", lambda: 1)
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
    good = RESULT | {"protocol": "toolbox"}
    figures = [None, 0.5, "x", [2.0], ["x"], [None], [float("nan")], [True]]
    kind = spoilt(good, settings=[None, 3, "x", []], settings__MM__miou=figures)
    kind |= ODD_FILES
    del kind["settings__MM__miou missing"]  # it is drawn without
    trials.files(kind, {"compare {root}/r.json --table 5": "{root}/r.json"})


def test_figures_and_former_results(trials, monkeypatch):
    root = trials.world["root"]
    monkeypatch.setattr(ablation, "RESULTS", root / "results")
    words = ABLATE.replace("--out {out}.json", "").format(**trials.world)
    assert trials.jsws(words).status == 0
    figures = min(root.parent.glob("runs/*/figures.json"))  # of S, or of a contrast
    (former,) = (root / "results").glob("*.json")
    bad = [None, 3, "x", []]
    kind = spoilt(json.loads(figures.read_text()), miou=[-1, 2, "x", [], {}], read_outs=bad)
    del kind["miou missing"]
    trials.files(kind, {ABLATE: str(figures)})
    parts = dict.fromkeys(("configuration__profile", "configuration__recipe"), bad)
    parts |= {"settings": bad, "contrasts": bad[:-1], "seeds": [None, 3, ["x"], [[]]]}
    kind = spoilt(json.loads(former.read_text()), configuration=bad, **parts)
    trials.files(kind | ODD_FILES, {words: str(former)})


def test_manifests(trials, checkpoint):
    folder = trials.world["root"].parent / "checkpoints"
    folder.mkdir()
    shutil.copy(checkpoint, folder / "mini_M.safetensors")
    good = {"files": {"mini_M.safetensors": {"sha256": "0"}}}
    bad = [None, 3, "x", [], {}]
    kind = spoilt(good, files=bad) | ODD_FILES
    for one in bad:
        text = json.dumps({"files": {"mini_M.safetensors": one}})
        kind[f"an entry {one!r}"] = text.encode()
    trials.files(kind, {"train stage1 --profile mini": str(folder / "manifest.json")})


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
    recipes = [{**good["recipe"], "schedules": x} for x in (3, [3], [{}], [{"lr": 1}])]
    bad = dict.fromkeys(("stage", "size", "backbone", "categories"), [3, "x", [], [3]])
    stories = spoilt(good, **bad, setting=[None, [], "2S"], recipe=[None, [], *recipes])
    stories = {k: v for k, v in stories.items() if k not in ("no UTF-8", "UTF-16")}
    kind = {k: save(state, {"story": v.decode()}) for k, v in stories.items()}
    trials.files(kind, {PREDICT: "{net}"})
    whole, key = {"story": json.dumps(good)}, "sam.conv.bias"
    kind = {
        "no story": save(state),
        "no tensors": save({}, whole),
        "huge": save({k: t.float() * 1e30 for k, t in state.items()}, whole),
        "another shape": save({**state, key: torch.zeros(3)}, whole),
        "one more": save({**state, "x": torch.zeros(3)}, whole),
        "huge header": b"\xff" * 8 + b"{}",
        **ODD_FILES,
    }
    teach = f"train stage2 {TRAIN} --teacher {{net}} --out {{out}}"
    page = "page {data}/ECSSD/images --variant a={net} --out {out}.png"
    trials.files(kind, dict.fromkeys([PREDICT, teach, PSEUDO, page, MEASURE], "{net}"))


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
        "numbers for names": pickled({1: torch.zeros(3)}),
        "another shape": pickled({**features, name: torch.zeros(3)}),
        "sparse": pickled({**features, name: torch.eye(3).to_sparse()}),
        "wrapped twice": pickled({"model": {"state_dict": 3}}),
        "code": pickled(Loud()),
        "cut": pickled(features)[:-200],
        **ODD_FILES,
    }
    file = "{root}/w.pth"
    trials.files(kind, {f"{LABELS_ONLY} --set weights={file}": file})
    assert not os.path.exists("/tmp/jsws-ran")
    file = "{root}/w.safetensors"
    kind = {"text": b"x", "cut": save(features)[:-9]}
    trials.files(kind, {f"{LABELS_ONLY} --set weights={file}": file})
    whole, words = "a whole SSNet", f"{LABELS_ONLY} --set weights={{net}}"
    trials(whole, words, names=[whole])


def test_resume_points(trials):
    words = LABELS_ONLY + " --out {root}/run"
    assert trials.jsws(words.format(**trials.world)).status == 0
    run = trials.world["root"] / "run"
    with safe_open(run / "weights.safetensors", "pt") as file:
        tag = json.loads(file.metadata()["story"])["run"]
    (run / "weights.safetensors").unlink()
    good = {"tag": tag, "history": [{"step": 0, "L_c": 1.0}], "random": {}, "net": {}}
    for wrong in ({}, {"history": [{"step": 5}]}, {"random": 3}, {"net": []}, {"tag": "x"}):
        data = pickled(good | wrong)
        name = f"00000001_1.0000_{hashlib.sha256(data).hexdigest()[:8]}.pt"
        with swapped(run / "resume" / name, data):
            trials(str(wrong), words, names=[name])
    (run / "resume/a_b_c.pt").write_bytes(b"of somebody else")
    assert trials.jsws(words.format(**trials.world)).status == 0


# --- archives ------------------------------------------------------------------------


def tarred(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return file.getvalue()


ARCHIVES = {
    "empty": tarred(),
    "escape": tarred("../\x1b[31m"),
    "no name": tarred(""),
    "this folder": tarred("."),
    "two of one name": tarred("MINE/a.jpg", "MINE/A.jpg"),
    "a file and a folder": tarred("M", "M/a"),
    "less": tarred("MINE/images/a.jpg"),
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


NO_SOURCES = {  # what stands in SOURCE, and what in its place
    "no archives": ("archives", "others"),
    "a number of archives": ("archives.*", "archives = 3"),
    "no title": ("title", "subtitle"),
    "holds a list": ("holds.*", "holds = [1]"),
    "one folder": (', "MINE/masks" = 3', ""),
    "words": ("0.001", '"much"'),
    "holds": ('"MINE/images" = 3', '"MINE/images" = "all"'),
    "above": ('"mine.zip", ', '"../mine.zip", '),
    "into above": ("urls", 'into = "../..", urls'),
    "no https": ("https://example.org", "file:///etc"),
}


def test_sources(trials, monkeypatch):
    place = trials.world["root"] / "sources.toml"
    monkeypatch.setattr(download, "SOURCES", place)
    kind = {k: re.sub(*change, SOURCE).encode() for k, change in NO_SOURCES.items()}
    assert SOURCE.encode() not in kind.values()
    kind |= {"empty": b"", "text": b"no table", "no UTF-8": b"a = '\xe9'"}
    words = dict.fromkeys(["data list", "data download MINE --data {out}"], str(place))
    trials.files(kind, words, names=[])


# --- names ---------------------------------------------------------------------------

NAMES = [*r"$x $\foo$ a_b^c <b> [red] %s a|b {x} `a` é".split(), "\x1b[31m"]


def test_odd_names_are_written_out(trials):
    """In figures and on a terminal; these commands succeed."""
    root, data = trials.world["root"], trials.world["data"]
    truth = data / "ECSSD/ground_truth_mask"
    for name in NAMES:
        pred, net = shutil.copytree(truth, root / name), f"{name}={trials.world['net']}"
        page = ["page", data / "ECSSD/images", "--variant", net, "--out", root / "p.png"]
        given = ["--pred", pred, "--gt", truth, "--figure", root / "f.png"]
        for words in (page, ["evaluate", "saliency", *given]):
            status, said, err = trials.jsws([*words])
            assert status == 0, (words, err)
            assert "\x1b" not in said + "".join(err), words
