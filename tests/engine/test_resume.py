"""Nothing lost: kill -9 anywhere, broken resume points, full disks, pictures that vanish.

The short form: `make soak` kills 20 times at random points.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import psutil
import pytest
import torch
from helpers import learn, network, points, same, state

from data_utils.errors import JswsError
from jsws_lib.engine import loop
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.resume import load_point, read_log, save_point


class Interrupted(Exception):
    pass


def go(profile, folder=None, *, steps=4, until=None, seed=0, tag="run", on_step=None):
    """Train M, up to a step; returns the numbers of the steps made, network and history."""
    made, net = [], network(seed=seed)

    def look(step, *_):
        made.append(step)
        if on_step:
            on_step(step)
        if step + 1 == until:
            raise Interrupted

    surroundings = RunLoop(folder=folder, tag=tag, on_step=look)
    with pytest.raises(Interrupted) if until else nullcontext():
        learn(net, profile, steps=steps, loop=surroundings)
    return made, net, surroundings.history


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)


@pytest.fixture
def broken(tiny, tmp_path, often):
    """The folder of a run that was stopped in its third step of four."""
    go(tiny, tmp_path, until=3)
    return tmp_path


# --- going on ------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_bit_by_bit(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    _, whole, history = go(tiny, steps=6)
    go(tiny, tmp_path, steps=6, until=5)
    assert "| 0/6 [" in capsys.readouterr().err  # a bar, though nobody looks at a terminal
    assert [p.name[:9] for p in points(tmp_path)] == ["00000002_", "00000004_"]
    assert len(read_log(tmp_path / "log.csv")) == 5
    made, net, again = go(tiny, tmp_path, steps=6, seed=7)  # whatever it starts from
    assert made == [4, 5]  # saved after step 3
    assert again == history == read_log(tmp_path / "log.csv")
    assert same(state(whole), state(net))
    assert "going on from step 4 of 6" in "".join(capsys.readouterr())


def test_a_resume_point_of_another_run_is_refused(tiny, broken):
    with pytest.raises(JswsError, match="belongs to run, not to two.*delete"):
        go(tiny, broken, tag="two")


def launch(*words, **more):
    """Start a program in a session of its own; its errors are kept in a pipe."""
    env = os.environ | {name: str(value) for name, value in more.items()}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    words = [sys.executable, *map(str, words)]
    return subprocess.Popen(words, env=env, start_new_session=True, **pipes)


def kill(run):
    """Kill a program, but none of its processes: they must end by themselves."""
    run.kill()
    run.wait()
    late = time.monotonic() + 60
    while left := [p for p in psutil.process_iter() if _is_of(p, run.pid)]:
        assert time.monotonic() < late, f"orphans: {left}"
        time.sleep(0.1)


def _is_of(process, group):
    with suppress(psutil.Error, ProcessLookupError):
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and os.getpgid(process.pid) == group
    return False


WHOLE_WAY = """
import os, sys
from dataclasses import replace
from pathlib import Path
from jsws_lib.engine import loop
from jsws_lib.config import PROFILES, STEADY
from jsws_lib.experiments.ablation import ablate

loop.SAVE_EVERY = 1  # also in the processes that it starts
if __name__ == "__main__":
    profile = replace(PROFILES["mini"], data=Path(sys.argv[1]), size=64, steps=(5, 4),
                      batch_class=4, batch_saliency=4, cache="decoded")
    ablate(profile=profile, recipe=STEADY, seeds=[0], settings=["M", "MM"],
           jobs=int(sys.argv[2]), out=Path(os.environ["JSWS_RUNS"]) / "table.json")
"""


def left(folder):
    """What must be the same in both runs: all but how long they took.

    A film has no frames from before a break; the cache has its own tests.
    """
    found, times = {}, rb'"\w*seconds": [^,}]*'
    for file in folder.rglob("*"):
        place = file.relative_to(folder)
        passing = file.name == "film.npz" or file.suffix == ".tmp" or "cache" in place.parts
        if file.is_file() and not passing:
            found[place] = re.sub(times, b"", file.read_bytes())
    return found


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_weights(own_data, tmp_path, pytestconfig):
    """An ablation of M and M-M, in the soak by two processes, killed again and again: in
    training, writing points, caching, making pseudo labels, measuring."""
    kills = pytestconfig.getoption("kills")
    (own_data / "mini.json").unlink()  # else it trains contrasts as well
    script = tmp_path / "whole_way.py"
    script.write_text(WHOLE_WAY)

    def start(name):
        runs = {"JSWS_RUNS": tmp_path / name, "JSWS_CACHE": tmp_path / name / "cache"}
        jobs = min(kills, 2)  # processes of an ablation take a while to start
        return launch(script, own_data, jobs, JSWS_DEVICE="cpu", **runs)

    def finish(name):
        run = start(name)
        assert run.wait() == 0, run.stderr.read()[-2000:]

    began = time.monotonic()
    finish("whole")
    length, rng, killed = time.monotonic() - began, random.Random(0), 0
    while killed < kills:
        run = start("killed")
        try:
            # The first part of it all is the start of Python, when nothing happens.
            run.wait(length * rng.uniform(0.3, 0.9))
            shutil.rmtree(tmp_path / "killed")  # done before it was killed often enough
        except subprocess.TimeoutExpired:
            kill(run)
            killed += 1
    finish("killed")
    whole, again = left(tmp_path / "whole"), left(tmp_path / "killed")
    assert whole.keys() == again.keys() and len(whole) > 30
    assert [place for place in whole if whole[place] != again[place]] == []


# --- resume points -------------------------------------------------------------------


def test_the_last_points_are_kept_and_chance_comes_back(tmp_path):
    net, history, drawn = torch.nn.Linear(1, 1), [], []
    for step in range(4):
        history.append({"step": step, "lr": 0.1, "L_c": 1.0})
        save_point(tmp_path / "resume", "run", history, net=net)
    assert [p.name[:9] for p in points(tmp_path)] == ["00000003_", "00000004_"]
    for _ in range(2):
        load_point(tmp_path / "resume", "run", net=net)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]


def test_points_come_by_time_as_well(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_AFTER", 0)
    go(tiny, tmp_path, until=3)
    assert len(points(tmp_path)) == 2  # the third step was stopped


def test_a_damaged_point_falls_back_to_the_one_before(tiny, broken, capsys):
    before, last = points(broken)[-2:]
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    made, net, _ = go(tiny, broken, seed=5)
    assert made[0] == int(before.name[:8])
    said = "".join(capsys.readouterr())
    assert f"{last} is damaged; going on from the one before" in said
    _, whole, _ = go(tiny)
    assert same(state(whole), state(net))


def test_without_a_whole_point_it_starts_anew_and_leftovers_go(tiny, broken):
    leftover = broken / "resume" / ".00000009_1.0_00000000.pt.77.tmp"
    for file in (*points(broken), leftover):
        file.write_bytes(b"PK")
    assert go(tiny, broken)[0] == [0, 1, 2, 3]
    assert not leftover.exists()


def test_a_log_cut_short_is_read_and_mended(tiny, broken):
    log = broken / "log.csv"
    text = log.read_text()
    log.write_text(text[: text.rindex(",")])
    assert len(read_log(log)) == 2
    go(tiny, broken)
    assert [r["step"] for r in read_log(log)] == [0, 1, 2, 3]
    with pytest.raises(JswsError, match="no log at"):
        read_log(broken / "other.csv")


# --- what goes wrong outside ---------------------------------------------------------


def test_a_full_disk_leaves_the_point_before(tiny, broken, monkeypatch):
    before = points(broken)

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(JswsError, match="cannot write .*No space left on device"):
            go(tiny, broken)
    assert points(broken) == before
    assert go(tiny, broken)[0][-1] == 3


def test_a_loss_that_is_not_finite_leaves_its_images(tiny, tmp_path):
    net = network()
    with torch.no_grad():
        net.sn.head.bias[3] = torch.nan
    before = net.backbone.features.conv0.weight.clone()
    with pytest.raises(JswsError, match="loss is nan at step 0.*not_finite.json"):
        learn(net, tiny, loop=RunLoop(folder=tmp_path))
    note = json.loads((tmp_path / "not_finite.json").read_text())
    assert note["step"] == 0 and note["losses"]["L_c"] == "nan"
    photos = tiny.data / tiny.voc / "JPEGImages"
    assert all((photos / f"{i}.jpg").is_file() for i in note["images"]["ClassificationSet"])
    count = {name: len(images) for name, images in note["images"].items()}
    assert count == {"ClassificationSet": 4, "SaliencySet": 4}
    assert not points(tmp_path)
    assert torch.equal(before, net.backbone.features.conv0.weight)  # no step was made


def test_a_picture_that_vanishes_is_named_and_the_run_goes_on(
    tiny, own_data, tmp_path, often
):
    profile = replace(tiny, data=own_data, cache="none")
    _, whole, _ = go(profile, steps=8)
    photos, aside = own_data / tiny.voc / "JPEGImages", tmp_path / "aside"
    with pytest.raises(JswsError, match=r"no picture at .*\.jpg"):
        vanish = lambda step: step == 2 and shutil.move(photos, aside)  # noqa: E731
        go(profile, tmp_path / "run", steps=8, on_step=vanish)
    shutil.move(aside, photos)
    made, net, _ = go(profile, tmp_path / "run", steps=8, seed=5)
    assert made[0] == 3
    assert same(state(whole), state(net))
