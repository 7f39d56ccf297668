"""Devices and processes: precision, parts of a batch, two processes that equal one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import learn, network, same, state
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from data_utils.datasets import Draws, batches
from data_utils.errors import JswsError
from jsws_lib.config import STEADY
from jsws_lib.engine import devices
from jsws_lib.engine.devices import pick_device, pick_precision, share_batch_norm
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.resume import read_log
from jsws_lib.experiments import memory
from jsws_lib.experiments.memory import parts_that_fit, random_batches
from jsws_lib.training import Objective, seed_everything

BOTH = ("L_c", "L_s1")


# --- several processes ---------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_do_what_one_does(mini_data, tmp_path):
    """The same small ablation: both stages, pseudo labels, measures."""
    words = "-m jsws_lib.cli ablate --profile mini --size 64 --batch 4 --steps 3,2"
    command = [*words.split(), "--seeds", "1", "--settings", "S,MM,M", "--data", mini_data]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    found = []
    for name, start, more in (("two", launch, []), ("one", [], ["--jobs", "1"])):
        runs = tmp_path / name
        env = os.environ | {"JSWS_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        if torch.cuda.is_available():  # which two cannot share
            env["JSWS_DEVICE"] = "cpu"
        args = [sys.executable, *start, *command, "--out", runs / "out.json", *more]
        done = subprocess.run(list(map(str, args)), env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("figures in") == 1
        files = {str(f.relative_to(runs)) for f in runs.rglob("*")}
        logs = {f.parent.name: read_log(f) for f in runs.glob("*/log.csv")}
        found.append((files, logs, json.loads((runs / "out.json").read_text())["settings"]))
    (files, logs, figures), one = found
    assert files == one[0]
    assert any(name.endswith(".png") and "pseudo_labels" in name for name in files)
    assert logs.keys() == one[1].keys() and len(logs) == 7  # three settings, four contrasts
    for name, records in logs.items():
        for theirs, ours in zip(records, one[1][name], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-3), name
    for setting, record in one[2].items():
        for key in {"miou", "mae", "max_f"} & record.keys():
            wanted = pytest.approx(record[key], abs=0.02)
            assert figures[setting][key] == wanted, (setting, key)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_share_every_batch_without_duplicates(ranks):
    whole = list(Draws(10, start=8, stop=40, seed=3))
    parts = [
        list(Draws(10, start=8, stop=40, seed=3, batch=8, share=(rank, ranks)))
        for rank in range(ranks)
    ]
    own = 8 // ranks
    for step in range(4):
        taken = [draw for part in parts for draw in part[step * own : (step + 1) * own]]
        assert taken == whole[step * 8 : (step + 1) * 8]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(JswsError, match="batch of 6 cannot be shared by 4.*--batch 8"):
        batches(range(9), 6, steps=1, share=(0, 4))


def test_shared_batch_norm_is_batch_norm(monkeypatch):
    """With one process the mean over all is the mean; gradients and statistics too."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: x)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    found = []
    for share in (False, True):
        layer = nn.BatchNorm2d(3).double()
        net = nn.Sequential(layer)
        if share:
            share_batch_norm(net)
            assert type(layer) is not nn.BatchNorm2d
        inputs = x.clone().requires_grad_()
        out = net(inputs)
        (out**3).sum().backward()
        statistics = (layer.running_var, layer.running_mean)
        found.append([out, inputs.grad, layer.weight.grad, *statistics, net.eval()(x)])
    for plain, shared in zip(*found, strict=True):
        torch.testing.assert_close(plain, shared)


def test_a_batch_norm_of_another_kind_is_named():
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(JswsError, match="0 is a Own, which several processes cannot"):
        share_batch_norm(nn.Sequential(Own(3)))


# --- precision, parts, checkpointing: the same lesson ----------------------------------


def losses(profile, steps, **changes):
    net = network()
    history = learn(net, replace(profile, **changes), steps=steps)
    return np.array([[record[name] for name in BOTH] for record in history]), net


def test_bf16_learns_what_float32_learns(tiny):
    (plain, _), (half, net) = losses(tiny, steps=2), losses(tiny, 2, precision="bf16")
    assert not np.array_equal(plain, half)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert all(p.dtype == torch.float32 for p in net.parameters())
    again, _ = losses(tiny, steps=2)  # two precisions in one process do not mix
    np.testing.assert_array_equal(again, plain)


def test_checkpointing_changes_nothing_but_memory(tiny):
    (plain, net), (twice, other) = losses(tiny, 2), losses(tiny, 2, checkpointing=True)
    np.testing.assert_array_equal(plain, twice)
    assert same(state(net), state(other))  # running statistics as well

    def kept(checkpointing):
        objective = Objective(network().train(), ("L_c",), STEADY)
        devices.recompute_stages(objective.net, checkpointing)
        sizes = []

        def pack(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            objective(random_batches(1, 4, 64)[1])
        return sum(sizes)

    assert kept(True) < 0.75 * kept(False)


def test_parts_add_up_to_the_batch(tiny):
    """But for batch norm, which sees smaller batches: here it is switched off."""

    def gradients(parts):
        net = network().eval()
        net.train = lambda mode=True: net
        learn(net, replace(tiny, accumulate=parts), steps=1)
        return {name: p.grad for name, p in net.named_parameters()}

    whole, halves = gradients(1), gradients(2)
    for name, grad in whole.items():
        torch.testing.assert_close(halves[name], grad, rtol=1e-3, atol=1e-5)
    with pytest.raises(JswsError, match="4 images .* into 3 equal parts.*accumulate"):
        gradients(3)


def test_processes_that_do_not_find_each_other_are_told(monkeypatch):
    """Two that were launched and train alone would each keep half of every batch."""
    alone = SimpleNamespace(num_processes=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(devices, "PartialState", lambda cpu: alone)
    with pytest.raises(JswsError, match="2 processes were launched, but Accelerate joins"):
        pick_device()


def test_precision_by_device(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_precision("auto", cpu) == "float32"
    for newer, wanted in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda newer=newer, **k: newer)
        assert pick_precision("auto", gpu) == wanted
    with pytest.raises(JswsError, match="fp16 needs a GPU"):
        pick_precision("fp16", cpu)


def test_the_device_can_be_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("JSWS_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")


def test_compiling_changes_nothing_or_is_refused(tiny, monkeypatch):
    plain, _ = losses(tiny, 2)
    calls = []

    def compiled(function):
        return lambda *given: calls.append(given) or function(*given)

    def breaks(function):
        return lambda *given: 1 / 0

    monkeypatch.setattr(torch, "compile", compiled)
    np.testing.assert_array_equal(losses(tiny, 2, compile=True)[0], plain)
    assert len(calls) == 4
    monkeypatch.setattr(torch, "compile", breaks)
    with pytest.raises(JswsError, match="division by zero.*leave --set compile=true out"):
        losses(tiny, 2, compile=True)


def test_tensorboard_gets_the_records(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def tracked(tracker):
        loop = RunLoop(folder=tmp_path, tracker=tracker)
        return learn(network(), tiny, ("L_c",), steps=3, loop=loop)

    history = tracked("tensorboard")
    (events,) = tmp_path.rglob("events.out.tfevents*")
    seen = EventAccumulator(str(events)).Reload().Scalars("L_c")
    assert [s.value for s in seen] == pytest.approx([r["L_c"] for r in history])
    with pytest.raises(JswsError, match="'nosuch' is not installed"):
        tracked("nosuch")


# --- memory --------------------------------------------------------------------------


class Small(Objective):
    """Fits two images."""

    most = 2

    def forward(self, batch):
        if len(batch["image"]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GB")
        return super().forward(batch)


def test_out_of_memory_names_the_setting(tiny, monkeypatch):
    monkeypatch.setattr("jsws_lib.training.Objective", Small)
    with pytest.raises(JswsError, match=r"4 images at a time: ask for --set accumulate=2"):
        learn(network(), tiny)
    learn(network(), replace(tiny, accumulate=2), steps=1)


def test_parts_are_found_that_fit(tiny, monkeypatch):
    assert parts_that_fit(1, tiny) == 1
    monkeypatch.setattr(memory, "Objective", Small)
    assert parts_that_fit(1, tiny) == 2
    assert parts_that_fit(1, replace(tiny, batch_class=6, batch_saliency=6)) == 3
    monkeypatch.setattr(Small, "most", None)
    with pytest.raises(TypeError):  # not taken for a lack of memory
        parts_that_fit(1, tiny)
    monkeypatch.setattr(Small, "most", 0)
    with pytest.raises(JswsError, match="not even 1 image.* of 64 px.*--size"):
        parts_that_fit(1, tiny)


@pytest.fixture(autouse=True)
def a_seed():
    seed_everything(0)
