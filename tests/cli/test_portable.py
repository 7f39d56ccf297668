"""Where processes are spawned, not forked, and a folder's name is not plain ASCII."""

import multiprocessing
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from data_utils.datasets import batches
from jsws_lib.config import STEADY
from jsws_lib.training import training_sets


@pytest.fixture
def spawn(monkeypatch):
    """Start processes as Windows and macOS do; none to decode pictures."""
    monkeypatch.setattr("data_utils.parallel.available_cores", lambda: 1)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])), key


def test_spawned_loaders_give_the_same_batches(spawn, tiny, own_data):
    profile = replace(tiny, data=own_data, cache="decoded")
    (data,) = training_sets(("L_c",), profile, STEADY)
    alone, spawned = (list(batches(data, 4, steps=2, workers=n)) for n in (0, 1))
    for a, b in zip(alone, spawned, strict=True):
        same(a, b)


@pytest.mark.parametrize("cache", ["none", "memory", "decoded"])
def test_both_sets_can_be_sent_to_a_spawned_process(spawn, tiny, own_data, cache):
    profile = replace(tiny, data=own_data, cache=cache)
    for data in training_sets(("L_c", "L_s1"), profile, STEADY):
        first = data[3, 0]  # decodes, maps files into memory
        same(pickle.loads(pickle.dumps(data))[3, 0], first)


def test_spaces_and_letters_in_every_path(jsws, mini_data, tmp_path, monkeypatch):
    """Data root, run folders, outputs and a picture under a name of every kind."""
    home = tmp_path / "Größe & 顕著性 (1) Ελ'"
    data, runs, labels = home / "data root", home / "runs é", home / "pseudo labels"
    shutil.copytree(mini_data, data)
    monkeypatch.setenv("JSWS_DATA", str(data))
    monkeypatch.setenv("JSWS_RUNS", str(runs))
    monkeypatch.setattr("data_utils.parallel.available_cores", lambda: 1)
    short = "--size 64 --steps 1 --batch 2"

    assert jsws("train stage1", short).status == 0  # a folder under $JSWS_RUNS
    (one,) = runs.glob("*/weights.safetensors")
    words = ("pseudo-label --size 64 --processes 0 --checkpoint", one, "--out", labels)
    assert jsws(*words).status == 0
    two = home / "run zwei"
    given = ("--teacher", one, "--pseudo-labels", labels, "--set cache=decoded")
    assert jsws("train stage2", short, "--data", data, *given, "--out", two).status == 0
    weights = two / "weights.safetensors"

    picture, out = home / "ein Bild ü.jpg", home / "Bilder – 1"
    shutil.copy(min((data / "ECSSD/images").glob("*.jpg")), picture)
    jsws("predict", picture, "--checkpoint", weights, "--out", out)
    assert {p.name for p in out.iterdir()} >= {"ein Bild ü.png", "ein Bild ü_overlay.png"}
    voc = data / "VOCdevkit/VOC2012"
    ids = ("--list", voc / "ImageSets/Segmentation/val.txt")
    given = ("--plain --checkpoint", weights, "--out", home / "maps")
    assert jsws("predict", voc / "JPEGImages", *ids, *given).status == 0
    folders = ("--pred", home / "maps/segmentation", "--gt", voc / "SegmentationClass")
    assert '"miou"' in jsws("evaluate segmentation --json", *folders, *ids).out
