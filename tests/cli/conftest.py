"""Run the command line in this process."""

import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import network, stored
from trials import Trials

from data_utils.embedded.mini import make_mini
from jsws_lib.cli import main as cli
from jsws_lib.engine import checkpoints, runs


class Result(NamedTuple):
    status: int
    out: str
    err: list[str]  # lines, without progress bars

    def refuses(self, *words):
        """One line, status 2, and every word in it."""
        assert self.status == 2 and len(self.err) == 1, self
        assert self.err[0].startswith("jsws: ")
        assert all(str(word) in self.err[0] for word in words), self.err[0]


@pytest.fixture
def jsws(monkeypatch, capsys, tmp_path):
    """`jsws("data check --data", path)`; runs are kept in a folder of the test.

    A text is several words, a list has them as they are.
    """
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "checkpoints")
    for name in ("JSWS_PROFILE", "JSWS_DATA", "JSWS_RUNS", "JSWS_TRAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        words = [w.split() if isinstance(w, str) else w for w in words]
        words = [w if isinstance(w, list) else [w] for w in words]
        monkeypatch.setattr(sys, "argv", ["jsws", *map(str, sum(words, []))])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        bar = re.compile(r"%\||\[\d\d:\d\d, ")
        lines = [x for x in err.replace("\r", "\n").split("\n") if x.strip()]
        lines = [x for x in lines if not bar.search(x)]
        return Result(stopped.value.code or 0, out, lines)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An untrained SSNet-1 of 64 px."""
    return stored(tmp_path_factory.mktemp("net") / "m.safetensors", network())


@pytest.fixture(scope="session")
def small_world(tmp_path_factory, checkpoint):
    """Six and six images to train on, three and three to measure on, and a network."""
    root = tmp_path_factory.mktemp("world")
    counts = dict(n_class=6, n_saliency=6, n_val=3, n_test=3)
    make_mini(root / "data", size=64, **counts)
    shutil.copy(checkpoint, root / "m.safetensors")
    return root


@pytest.fixture
def trials(jsws, small_world, tmp_path):
    """Try bad input on a copy of the world; the test fails for all faults together."""
    root = Path(shutil.copytree(small_world, tmp_path / "world"))
    voc = root / "data/VOCdevkit/VOC2012"
    world = {"root": root, "data": root / "data", "voc": voc, "net": root / "m.safetensors"}
    tried = Trials(jsws, world)
    yield tried
    left = [p for p in tmp_path.rglob(".*") if p.suffix == ".tmp" or "making" in p.name]
    assert not left, "half-written"
    many = f"{len(tried.faults)} of {tried.count}:\n"
    assert not tried.faults, many + "\n".join(tried.faults)
