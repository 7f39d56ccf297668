"""`python -m tools.make` does what `make` does, also where there is none."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools import make as entry


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
    monkeypatch.delenv("JSWS_COURSE", raising=False)
    for given in (["run"], ["test"], ["run", "03"], ["test", "-x"]):
        entry.main(given)
    words = [command for command, _ in ran]
    mini = ["-m", "jsws_lib.cli", "data", "make-mini"]
    lint = [["-m", *line.split(" -m ")[1].split()] for line in recipe(root, "lint")]
    assert words[:5] == [mini, ["-m", "tools.course"], mini, *lint]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    pytest_by_make = re.search(r"^PYTEST := .*\$\(PY\) (.*)", makefile, re.M)[1]
    fast, rest = (
        shlex.split(recipe(root, name)[0].replace("$(PYTEST)", pytest_by_make))
        for name in ("test", "test-rest")
    )
    assert words[5] == fast
    both = " ".join(rest).replace("loadscope -m slow", "loadscope")
    assert both == " ".join(["-m", "pytest", *entry.TESTS["test-all"]])
    assert words[7] == ["-m", "tools.course", "03"]
    assert words[-1] == ["-m", "pytest", "-x"]
    for _, env in ran[:6]:
        assert not {"JSWS_TRAIN", "MPLBACKEND"} & env.keys()
        assert env["PYTHONUTF8"] == "1"
        assert ("JSWS_COURSE" in env) == (env is ran[5][1])
    unset = re.search(r"^CLEAN_ENV :=((?:.*\\\n)*.*)", makefile, re.M)[1]
    assert set(re.findall(r"-u (\w+)", unset)) == set(entry.NOT_INHERITED)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A checkout whose Python has no packages."""
    venv = tmp_path / ".venv"
    python = venv / "bin" / "python"
    places = {"ROOT": tmp_path, "VENV": venv, "PYTHON": python, "STAMP": venv / "stamp"}
    for name, value in places.items():
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
    entry.install()
    assert len(ran) == before
    newer = entry.STAMP.stat().st_mtime + 10
    os.utime(bare / "requirements.txt", (newer, newer))
    entry.install()
    assert len(ran) == 2 * before  # and the folder was not made anew


@pytest.mark.parametrize(("system", "tries"), [("posix", 1), ("nt", 0)])
def test_what_does_not_compile_stops_nobody(bare, ran, monkeypatch, capsys, system, tries):
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    run = entry._run

    def run_but_one(words, *more, **options):
        return run(words, *more, **options) or words[-1] == "pydensecrf2"

    monkeypatch.setattr(entry, "_run", run_but_one)
    monkeypatch.setattr(entry.os, "name", system)
    assert entry.install() == entry.PYTHON and entry.STAMP.is_file()
    asked = [words[-1] for words, _ in ran]
    assert asked.count("pydensecrf2") == tries and asked[-1] == "."
    assert ("delete .venv/.installed" in capsys.readouterr().out) == bool(tries)


def test_a_python_that_has_the_packages_is_used(bare, ran, monkeypatch):
    monkeypatch.setattr(entry, "find_spec", lambda name: name)
    assert entry.install() == Path(sys.executable)
    entry.main(["install"])
    assert not ran
    entry.main(["venv"])
    assert ran and entry.STAMP.is_file()


def test_the_status_of_what_fails_comes_through(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        entry.call(sys.executable, "-S", "-c", "raise SystemExit(3)")
    assert stopped.value.code == 3


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("bake", 2)])
def test_it_starts_without_any_package(root, word, status):
    command = [sys.executable, "-S", "-m", "tools.make", word]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.strip() == entry.USAGE


def test_it_says_when_python_is_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="3.11 or newer"):
        entry.install_venv()
