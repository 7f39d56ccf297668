"""Nothing lost: kill -9 anywhere, broken checkpoints, full disks, pictures that vanish.

The short form: `make soak` kills 20 times at random points.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import network, points, same, state

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib import training
from jsws_lib.config import STEADY
from jsws_lib.resume import KEEP, code_version, load_point, read_log, save_point
from jsws_lib.training import train

BOTH = ("L_c", "L_s1")
KILLS = int(os.environ.get("JSWS_KILLS", 1))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 1)


def interrupted(tiny, folder, steps=4, after=3):
    """A run that is stopped after some steps; gives the history so far."""
    class Stop(Exception):
        pass

    def stop(step, *_):
        if step + 1 == after:
            raise Stop

    with pytest.raises(Stop):
        train(network(), BOTH, profile=tiny, recipe=STEADY, steps=steps, folder=folder,
              on_step=stop, tag="run")  # fmt: skip


def go_on(tiny, folder, steps=4):
    seen, net = [], network(seed=5)
    train(net, BOTH, profile=tiny, recipe=STEADY, steps=steps, folder=folder, tag="run",
          on_step=lambda step, *_: seen.append(step))  # fmt: skip
    return seen, net


# --- kill -9 -------------------------------------------------------------------------


WHOLE_WAY = """
import os, sys
from dataclasses import replace
from pathlib import Path
from jsws_lib import training
from jsws_lib.config import PROFILES, STEADY
from jsws_lib.ablation import ablate

training.SAVE_EVERY = 1  # also in the processes that it starts
if __name__ == "__main__":
    profile = replace(PROFILES["mini"], data=Path(sys.argv[1]), size=64, steps=(5, 4),
                      batch_class=4, batch_saliency=4, cache="decoded")
    ablate(profile=profile, recipe=STEADY, seeds=[0], settings=["M", "MM"],
           jobs=int(sys.argv[2]), out=Path(os.environ["JSWS_RUNS"]) / "table.json")
"""


def without_times(found: dict) -> dict:
    return {key: value for key, value in found.items() if not key.endswith("seconds")}


def test_a_killed_run_ends_in_the_same_weights(own_data, tmp_path):
    """An ablation of M and M-M, in the soak by two processes, killed again and again: in
    training, writing points, caching, making pseudo labels, measuring."""
    (own_data / "mini.json").unlink()  # else it trains contrasts as well
    script = tmp_path / "whole_way.py"
    script.write_text(WHOLE_WAY)

    def start(name):
        env = os.environ | {"JSWS_RUNS": str(tmp_path / name), "JSWS_DEVICE": "cpu",
                            "JSWS_CACHE": str(tmp_path / name / "cache")}  # fmt: skip
        jobs = str(min(KILLS, 2))  # processes of an ablation take a while to start
        return subprocess.Popen([sys.executable, script, own_data, jobs], env=env,
                                stdout=subprocess.DEVNULL, start_new_session=True,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip

    began = time.monotonic()
    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read()[-2000:]
    length = time.monotonic() - began

    def left(name):  # a film has no frames from before a break; the cache has its own tests
        return {str(f.relative_to(tmp_path / name)): f
                for f in sorted((tmp_path / name).rglob("*")) if f.is_file()
                and f.name != "film.npz" and f.suffix != ".tmp"
                and "cache" not in f.parts}  # fmt: skip

    def compare():
        assert left("killed").keys() == left("whole").keys()
        for one, two in zip(left("whole").values(), left("killed").values(), strict=True):
            if one.suffix == ".safetensors":
                assert same(load_file(one), load_file(two)), one
            elif one.suffix == ".json":
                pair = [json.loads(f.read_text(), object_hook=without_times)
                        for f in (one, two)]  # fmt: skip
                assert pair[0] == pair[1], one
            else:  # pseudo labels, logs
                assert one.read_bytes() == two.read_bytes(), one

    rng, killed = random.Random(0), 0
    while True:
        fresh, began = not (tmp_path / "killed").exists(), time.monotonic()
        run = start("killed")
        try:
            # The first part of it all is the start of Python, when nothing happens.
            run.wait(None if killed == KILLS else length * rng.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its CRF processes
            run.wait()
            killed += 1
            continue
        assert run.returncode == 0, run.stderr.read()[-2000:]
        compare()
        if killed == KILLS:
            return
        if fresh:  # the machine has become faster
            length = time.monotonic() - began
        shutil.rmtree(tmp_path / "killed")  # done before it was killed often enough


# --- resume points -------------------------------------------------------------------


def test_the_last_points_and_the_best_are_kept(tmp_path):
    net = torch.nn.Linear(1, 1)
    history = []
    for step, loss in enumerate((5.0, 1.0, 4.0, 3.0, 3.5)):
        history.append({"step": step, "lr": 0.1, "L_c": loss})
        save_point(tmp_path / "resume", "run", history, net=net)
    kept = [p.name.split("_")[:2] for p in points(tmp_path)]
    assert kept == [["00000002", "1.0000"], ["00000004", "3.0000"], ["00000005", "3.5000"]]
    assert KEEP == 2


def test_progress_and_going_on_are_said_in_a_log_file(tiny, tmp_path, often, capsys):
    interrupted(tiny, tmp_path)
    assert "| 0/4 [" in capsys.readouterr().err  # a bar, though nobody looks at a terminal
    assert go_on(tiny, tmp_path)[0][0] == 2
    assert "going on from step 2 of 4" in "".join(capsys.readouterr())


def test_points_come_by_time_as_well(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_AFTER", 0)
    interrupted(tiny, tmp_path)
    assert len(points(tmp_path)) == 2  # the third step was stopped


def test_a_point_holds_what_a_run_is_made_of(tiny, tmp_path, often):
    interrupted(tiny, tmp_path)
    held = torch.load(points(tmp_path)[-1], weights_only=True)
    assert set(held) == {"net", "optimiser", "history", "tag", "random", "code"}
    assert set(held["random"]) == {"python", "numpy", "torch", "cuda"}
    assert held["code"] == code_version() and f"torch {torch.__version__}" in held["code"]


def test_random_states_come_back(tmp_path):
    net, drawn = torch.nn.Linear(1, 1), []
    save_point(tmp_path / "resume", "run", [{"step": 0, "lr": 1.0, "L_c": 1.0}], net=net)
    for _ in range(2):
        load_point(tmp_path / "resume", "run", net=net)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_point_falls_back_to_the_one_before(tiny, tmp_path, often, capsys, harm):
    whole = network()
    train(whole, BOTH, profile=tiny, recipe=STEADY, steps=4)
    interrupted(tiny, tmp_path)
    before, last = points(tmp_path)[-2:]
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes({"cut": data[:-100], "flip": data, "empty": b""}[harm])
    seen, net = go_on(tiny, tmp_path)
    assert seen[0] == int(before.name[:8])
    said = "".join(capsys.readouterr())
    assert f"{last} is damaged; going on from the one before" in said
    assert same(state(whole), state(net))


def test_without_a_whole_point_it_starts_anew(tiny, tmp_path, often):
    interrupted(tiny, tmp_path)
    for point in points(tmp_path):
        point.write_bytes(b"PK")
    seen, _ = go_on(tiny, tmp_path)
    assert seen == [0, 1, 2, 3]


def test_leftovers_of_a_killed_write_go(tiny, tmp_path, often):
    interrupted(tiny, tmp_path)
    leftover = tmp_path / "resume" / ".00000009_1.0_00000000.pt.77.tmp"
    leftover.write_bytes(b"half")
    go_on(tiny, tmp_path)
    assert not leftover.exists()


def test_a_log_cut_short_is_read_and_mended(tiny, tmp_path, often):
    interrupted(tiny, tmp_path)
    log = tmp_path / "log.csv"
    text = log.read_text()
    log.write_text(text[: text.rindex(",")])
    assert len(read_log(log)) == 2
    go_on(tiny, tmp_path)
    assert [r["step"] for r in read_log(log)] == [0, 1, 2, 3]
    with pytest.raises(JswsError, match="no log at"):
        read_log(tmp_path / "other.csv")


# --- what goes wrong outside ---------------------------------------------------------


FULL = """
import resource, sys
from pathlib import Path
from data_utils.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_bytes(Path(sys.argv[1]) / "big", bytes(2000))
"""


@pytest.mark.skipif(os.name == "nt", reason="no resource limits there")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], text=True,
                          capture_output=True)  # fmt: skip
    assert "JswsError: cannot write" in done.stderr and "free some room" in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_disk_full_leaves_the_point_before(tiny, tmp_path, often, monkeypatch):
    interrupted(tiny, tmp_path)
    before = points(tmp_path)

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(JswsError, match="cannot write .*No space left on device"):
            go_on(tiny, tmp_path)
    assert points(tmp_path) == before
    assert go_on(tiny, tmp_path)[0][-1] == 3


def test_a_folder_that_cannot_be_written_to_is_named_at_once(tiny, tmp_path):
    (tmp_path / "run").write_text("a file, not a folder")
    with pytest.raises(JswsError, match="cannot write .*run/log.csv.*name another place"):
        train(network(), BOTH, profile=tiny, recipe=STEADY, folder=tmp_path / "run")
    with pytest.raises(JswsError, match="cannot write"):
        write_bytes(tmp_path / "run" / "x", b"")


def test_a_loss_that_is_not_finite_leaves_its_images(tiny, tmp_path):
    net = network()
    with torch.no_grad():
        net.sn.head.bias[3] = torch.nan
    before = net.backbone.features.conv0.weight.clone()
    with pytest.raises(JswsError, match="loss is nan at step 0.*not_finite.json"):
        train(net, BOTH, profile=tiny, recipe=STEADY, folder=tmp_path)
    note = json.loads((tmp_path / "not_finite.json").read_text())
    assert note["step"] == 0 and note["losses"]["L_c"] == "nan"
    voc = tiny.data / tiny.voc
    for name in note["images"]["ClassificationSet"]:
        assert (voc / f"JPEGImages/{name}.jpg").is_file()
    assert {k: len(v) for k, v in note["images"].items()} == {
        "ClassificationSet": 4, "SaliencySet": 4
    }  # fmt: skip
    assert not points(tmp_path)
    assert torch.equal(before, net.backbone.features.conv0.weight)  # no step was made


def test_a_picture_that_vanishes_is_named_and_the_run_goes_on(
    tiny, own_data, tmp_path, often
):
    profile = replace(tiny, data=own_data, cache="none")
    whole = network()
    train(whole, BOTH, profile=profile, recipe=STEADY, steps=8)
    photos, aside = own_data / tiny.voc / "JPEGImages", tmp_path / "aside"

    def vanish(step, *_):
        if step == 2:
            shutil.move(photos, aside)

    with pytest.raises(JswsError, match=r"no picture at .*\.jpg"):
        train(network(), BOTH, profile=profile, recipe=STEADY, steps=8, on_step=vanish,
              folder=tmp_path / "run", tag="run")  # fmt: skip
    shutil.move(aside, photos)
    seen, net = go_on(profile, tmp_path / "run", steps=8)
    assert seen[0] == 3
    assert same(state(whole), state(net))
