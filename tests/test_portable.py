"""Where there is no make, no fork, and a folder's name is not plain ASCII."""

import multiprocessing
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_utils.datasets import batches
from data_utils.voc import read_ids
from jsws_lib import checkpoints, cli
from jsws_lib import make as entry
from jsws_lib.config import STEADY
from jsws_lib.training import class_set, saliency_set

# --- python -m jsws_lib.make -----------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """Record the commands and their environments instead of running them."""
    found = []

    def run(words, *, cwd, env, **options):
        assert cwd == entry.ROOT
        found.append((words[1:], env))  # without the interpreter
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(entry.subprocess, "run", run)
    return found


def recipe(root, target):
    """The lines of a target in the Makefile, variables aside."""
    text = (root / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.M)[1].splitlines()


def test_it_does_what_make_does(root, ran, monkeypatch):
    monkeypatch.setenv("JSWS_TRAIN", "1")
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    monkeypatch.delenv("JSWS_STRICT", raising=False)
    entry.main(["run"])
    entry.main(["test"])
    words = [command for command, _ in ran]
    mini = ["-m", "jsws_lib.cli", "data", "make-mini"]
    assert words[:3] == [mini, ["-m", "jsws_lib.course"], mini]
    assert words[3] == ["-m", *recipe(root, "lint")[0].split(" -m ")[1].split()]
    by_make = recipe(root, "test")[0].split("$(PY) ")[1]
    assert words[4] == shlex.split(by_make)
    for _, env in ran:
        assert not {"JSWS_TRAIN", "MPLBACKEND"} & env.keys()
        assert env["PYTHONUTF8"] == "1"
        assert ("JSWS_STRICT" in env) == (env is ran[4][1])
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    unset = re.search(r"^CLEAN_ENV :=((?:.*\\\n)*.*)", makefile, re.M)[1]
    assert set(re.findall(r"-u (\w+)", unset)) == set(entry.NOT_INHERITED)


def test_it_passes_words_on(ran):
    entry.main(["run", "03"])
    entry.main(["test", "tests/test_losses.py", "-x"])
    assert ran[1][0] == ["-m", "jsws_lib.course", "03"]
    assert ran[-1][0] == ["-m", "pytest", "tests/test_losses.py", "-x"]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A checkout whose Python has no packages."""
    venv = tmp_path / ".venv"
    python = venv / "bin" / "python"
    for name, value in {"ROOT": tmp_path, "VENV": venv, "PYTHON": python,
                        "STAMP": venv / ".installed"}.items():  # fmt: skip
        monkeypatch.setattr(entry, name, value)
    monkeypatch.setattr(entry, "find_spec", lambda name: None)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()

    def create(folder, *, clear, with_pip):
        assert (folder, clear, with_pip) == (venv, True, True)
        python.parent.mkdir(parents=True)
        python.touch()

    monkeypatch.setattr(entry.venv, "create", create)
    return tmp_path


@pytest.mark.parametrize("backend", ["", "cpu"])
def test_it_installs_the_pins_once(bare, ran, monkeypatch, backend):
    monkeypatch.setenv("UV_TORCH_BACKEND", backend)
    assert entry.install() == entry.PYTHON
    packages = ran[1][0]
    assert ("--require-hashes" in packages) == (not backend)
    assert ("--no-verify-hashes" in packages) == bool(backend)
    assert ran[1][1].get("UV_TORCH_BACKEND") == (backend or None)
    later = Path(packages[packages.index("--excludes") + 1])
    assert later.read_text() == "pydensecrf2\n"  # which needs the tools that come next
    assert [words[-1] for words, _ in ran[2:4]] == ["wheel", "pydensecrf2"]
    assert ran[-1][0][-2:] == ["-e", "."]
    before = len(ran)
    assert entry.install() == entry.PYTHON and len(ran) == before
    newer = entry.STAMP.stat().st_mtime + 10
    os.utime(bare / "requirements.txt", (newer, newer))
    entry.install()
    assert len(ran) == 2 * before  # and the folder was not made anew


@pytest.mark.parametrize(("platform", "tries"), [("posix", 1), ("nt", 0)])
def test_what_does_not_compile_stops_nobody(bare, monkeypatch, capsys, platform, tries):
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    asked = []

    def run(words, *, cwd, env, **options):
        asked.append(words[-1])
        return subprocess.CompletedProcess(words, int(words[-1] == "pydensecrf2"))

    monkeypatch.setattr(entry.subprocess, "run", run)
    monkeypatch.setattr(entry.os, "name", platform)
    assert entry.install() == entry.PYTHON and entry.STAMP.is_file()
    assert asked.count("pydensecrf2") == tries and asked[-1] == "."
    assert ("delete .venv/.installed" in capsys.readouterr().out) == bool(tries)


def test_a_python_that_has_the_packages_is_used(bare, ran, monkeypatch):
    monkeypatch.setattr(entry, "find_spec", lambda name: name)
    assert entry.install() == Path(sys.executable)
    assert not ran
    monkeypatch.setattr(entry, "install_venv", lambda: pytest.fail("not asked for"))
    entry.main(["install"])
    with pytest.raises(pytest.fail.Exception):
        entry.main(["venv"])


def test_the_status_of_what_fails_comes_through(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        entry.call(sys.executable, "-S", "-c", "raise SystemExit(3)")
    assert stopped.value.code == 3


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("bake", 2)])
def test_it_starts_without_any_package(root, word, status):
    done = subprocess.run([sys.executable, "-S", "-m", "jsws_lib.make", word], cwd=root,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.strip() == entry.USAGE


def test_it_says_when_python_is_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="3.11 or newer"):
        entry.install_venv()


# --- spawned loaders -------------------------------------------------------------------


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
    data = class_set(replace(tiny, data=own_data, cache="decoded"), STEADY)
    alone, spawned = (list(batches(data, 4, steps=2, workers=n)) for n in (0, 1))
    for a, b in zip(alone, spawned, strict=True):
        same(a, b)


@pytest.mark.parametrize("cache", ["none", "memory", "decoded"])
def test_both_sets_can_be_sent_to_a_spawned_process(spawn, tiny, own_data, cache):
    profile = replace(tiny, data=own_data, cache=cache)
    for data in (class_set(profile, STEADY), saliency_set(profile, STEADY)):
        first = data[3, 0]  # decodes, maps files into memory
        same(pickle.loads(pickle.dumps(data))[3, 0], first)


# --- names of folders ------------------------------------------------------------------


@pytest.fixture
def jsws(monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "SHIPPED", Path("none"))
    for name in ("JSWS_PROFILE", "JSWS_TRAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["jsws", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stopped:
            assert not stopped.code, capsys.readouterr()
        return capsys.readouterr().out

    return run


def test_spaces_and_letters_in_every_path(jsws, mini_data, tmp_path, monkeypatch):
    """Data root, run folders, outputs and a picture under a name of every kind."""
    home = tmp_path / "Größe & 顕著性 (1) Ελ'"
    data, runs = home / "data root", home / "runs é"
    shutil.copytree(mini_data, data)
    monkeypatch.setenv("JSWS_DATA", str(data))
    monkeypatch.setenv("JSWS_RUNS", str(runs))
    short = ("--size", 64, "--steps", 1, "--batch", 2)

    jsws("train", "stage1", *short)  # its folder is chosen under $JSWS_RUNS
    (one,) = runs.glob("*/weights.safetensors")
    monkeypatch.setattr("data_utils.parallel.available_cores", lambda: 1)
    labels, two = home / "pseudo labels", home / "run zwei"
    jsws("pseudo-label", "--size", 64, "--checkpoint", one, "--out", labels,
         "--processes", 0)  # fmt: skip
    jsws("train", "stage2", *short, "--data", data, "--teacher", one, "--pseudo-labels",
         labels, "--cache", "decoded", "--out", two)  # fmt: skip
    weights = two / "weights.safetensors"

    picture = home / "ein Bild ü.jpg"
    first = data / "ECSSD/images"
    shutil.copy(sorted(first.glob("*.jpg"))[0], picture)
    out = home / "Bilder – 1"
    jsws("predict", picture, "--checkpoint", weights, "--out", out)
    assert {p.name for p in out.iterdir()} >= {"ein Bild ü.png", "ein Bild ü_overlay.png"}

    voc = data / "VOCdevkit/VOC2012"
    names = read_ids(voc / "ImageSets/Segmentation/val.txt")
    jsws("predict", *(voc / f"JPEGImages/{i}.jpg" for i in names), "--checkpoint", weights,
         "--out", home / "maps", "--plain")  # fmt: skip
    text = jsws("evaluate", "segmentation", "--pred", home / "maps/segmentation", "--gt",
                voc / "SegmentationClass", "--json")  # fmt: skip
    assert '"miou"' in text
