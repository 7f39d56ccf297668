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
from test_training import network, same, state
from torch import nn

from data_utils.datasets import Draws, batches
from data_utils.errors import JswsError
from data_utils.parallel import is_main, process_share
from jsws_lib import devices, memory
from jsws_lib.config import PROFILES, STEADY
from jsws_lib.devices import pick_device, pick_precision, share_batch_norm
from jsws_lib.memory import Kept, parts_that_fit, random_batches, step_bytes
from jsws_lib.resume import read_log
from jsws_lib.training import (
    Objective,
    class_set,
    learning_rate,
    losses_on_class_set,
    losses_on_saliency_set,
    make_optimiser,
    saliency_set,
    seed_everything,
    train,
)

BOTH = ("L_c", "L_s1")


# --- several processes ---------------------------------------------------------------


@pytest.fixture(scope="module")
def two_and_one(mini_data, tmp_path_factory):
    """The same small ablation by two processes and by one: both stages and measures."""
    command = ["-m", "jsws_lib.cli", "ablate", "--profile", "mini", "--data", mini_data,
               "--size", "64", "--batch", "4", "--steps1", "3", "--steps2", "2",
               "--seeds", "1", "--settings", "S,MM,M"]  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    found = []
    for name, start in (("two", launch), ("one", [])):
        runs = tmp_path_factory.mktemp(name)
        env = os.environ | {"JSWS_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        if torch.cuda.is_available():  # which two cannot share
            env["JSWS_DEVICE"] = "cpu"
        args = [sys.executable, *start, *command, "--out", runs / "out.json"]
        if name == "one":
            args += ["--jobs", "1"]
        done = subprocess.run(list(map(str, args)), env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append((runs, done.stdout))
    return found


def test_two_processes_have_the_losses_of_one(two_and_one):
    two, one = ({f.parent.name: read_log(f) for f in runs.glob("*/log.csv")}
                for runs, _ in two_and_one)  # fmt: skip
    assert two.keys() == one.keys() and len(two) == 5  # three settings, two contrasts
    for name, records in one.items():
        for theirs, ours in zip(two[name], records, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-3), name


def test_two_processes_measure_what_one_measures(two_and_one):
    two, one = (json.loads((runs / "out.json").read_text()) for runs, _ in two_and_one)
    for setting, record in one["settings"].items():
        theirs = two["settings"][setting]
        for key in ("miou", "mae", "max_f"):
            if key in record:
                assert theirs[key] == pytest.approx(record[key], abs=0.02), (setting, key)


def test_two_processes_write_once(two_and_one):
    (two, said), (one, _) = two_and_one
    names = [sorted(str(f.relative_to(runs)) for f in runs.rglob("*"))
             for runs in (two, one)]  # fmt: skip
    assert names[0] == names[1]
    assert any(name.endswith(".png") and "pseudo_labels" in name for name in names[0])
    assert said.count("figures in") == 1


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_share_every_batch_without_duplicates(ranks):
    whole = list(Draws(10, start=8, stop=40, seed=3))
    parts = [list(Draws(10, start=8, stop=40, seed=3, batch=8, share=(rank, ranks)))
             for rank in range(ranks)]  # fmt: skip
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
        found.append([out, inputs.grad, layer.weight.grad, layer.running_var,
                      layer.running_mean, net.eval()(x)])  # fmt: skip
    for plain, shared in zip(*found, strict=True):
        torch.testing.assert_close(plain, shared)


def test_a_batch_norm_of_another_kind_is_named():
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(JswsError, match="0 is a Own, which several processes cannot"):
        share_batch_norm(nn.Sequential(Own(3)))


# --- precision, parts, checkpointing: the same lesson ----------------------------------


def losses(profile, steps=6, **changes):
    net = network()
    history = train(net, BOTH, profile=replace(profile, **changes), recipe=STEADY,
                    steps=steps)  # fmt: skip
    return np.array([[record[name] for name in BOTH] for record in history]), net


def plain_losses(profile, steps):
    """The same lesson the plain way: one memory format, both graphs at once, one Adam."""
    net, recipe = network().train(), STEADY
    optimiser = make_optimiser(net, profile.schedules[0], sam_rate=recipe.sam_rate)
    sets = [class_set(profile, recipe, seed=0), saliency_set(profile, recipe, seed=1)]
    loaders = [iter(batches(data, 4, steps=steps, seed=k)) for k, data in enumerate(sets)]
    found = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * learning_rate(profile.schedules[0], step, steps)
        labelled, masked = (next(loader) for loader in loaders)
        values = losses_on_class_set(net, labelled, ("L_c",), recipe)
        values |= losses_on_saliency_set(net, masked, recipe)
        optimiser.zero_grad()
        sum(values.values()).backward()
        optimiser.step()
        found.append([values[name].item() for name in BOTH])
    return np.array(found)


def test_the_fast_step_learns_what_a_plain_one_learns(tiny):
    fast, _ = losses(tiny, 8)
    np.testing.assert_allclose(fast, plain_losses(tiny, 8), rtol=5e-3)


def test_bf16_learns_what_float32_learns(tiny):
    (plain, _), (half, net) = losses(tiny, steps=2), losses(tiny, 2, precision="bf16")
    assert not np.array_equal(plain, half)
    np.testing.assert_allclose(half, plain, rtol=0.03)
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_two_precisions_in_one_process_do_not_mix(tiny):
    first, _ = losses(tiny, steps=2)
    losses(tiny, steps=1, precision="bf16")
    again, _ = losses(tiny, steps=2)
    np.testing.assert_array_equal(first, again)


def test_checkpointing_changes_nothing_but_memory(tiny):
    (plain, net), (twice, other) = losses(tiny, 2), losses(tiny, 2, checkpointing=True)
    np.testing.assert_array_equal(plain, twice)
    assert same(state(net), state(other))  # running statistics as well


def test_checkpointing_keeps_less_for_backward(tiny):
    def kept(checkpointing):
        objective = Objective(network().train(), ("L_c",), STEADY)
        objective.net.backbone.checkpointing = checkpointing
        with Kept(objective) as counter:
            sum(objective(random_batches(1, 4, 64)[1]).values()).backward()
        return counter.peak

    assert kept(True) < 0.75 * kept(False)


def test_parts_add_up_to_the_batch(tiny):
    """But for batch norm, which sees smaller batches: here it is switched off."""
    def gradients(parts):
        net = network().eval()
        net.train = lambda mode=True: net
        train(net, BOTH, profile=replace(tiny, accumulate=parts), recipe=STEADY, steps=1)
        return {name: p.grad for name, p in net.named_parameters()}

    whole, halves = gradients(1), gradients(2)
    for name, grad in whole.items():
        torch.testing.assert_close(halves[name], grad, rtol=1e-3, atol=1e-5)
    with pytest.raises(JswsError, match="4 images .* into 3 equal parts.*--accumulate"):
        gradients(3)
    with pytest.raises(JswsError, match="accumulate is 0"):
        replace(tiny, accumulate=0)


def test_only_what_changes_a_step_names_another_run(tiny):
    from jsws_lib.runs import ENGINE, run_folder

    def name(**changes):
        return run_folder("M", profile=replace(tiny, **changes), recipe=STEADY).name

    others = dict(precision="bf16", accumulate=2, checkpointing=True, compile=True)
    assert set(others) == set(ENGINE)
    assert len({name(), *(name(**{k: v}) for k, v in others.items())}) == 5


def test_processes_that_do_not_find_each_other_are_told(monkeypatch):
    """Two that were launched and train alone would each keep half of every batch."""
    alone = SimpleNamespace(num_processes=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(devices, "PartialState", lambda cpu: alone)
    with pytest.raises(JswsError, match="2 processes were launched, but Accelerate joins"):
        pick_device()


def test_a_logger_that_is_not_installed_is_an_error():
    with pytest.raises(JswsError, match="'wandb' is not installed"):
        devices.make_accelerator(tracker="wandb")


def test_precision_by_device(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_precision("auto", cpu) == "float32"
    for newer, wanted in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda newer=newer, **k: newer)
        assert pick_precision("auto", gpu) == wanted
    with pytest.raises(JswsError, match="fp16 needs a GPU"):
        pick_precision("fp16", cpu)
    with pytest.raises(JswsError, match="precision is 'half'; choose from float32, bf16"):
        replace(PROFILES["mini"], precision="half")


def test_the_device_can_be_named(monkeypatch):
    monkeypatch.setenv("JSWS_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    assert process_share() == (0, 1) and is_main()


@pytest.mark.parametrize("fault", [None, "forward", "backward"])
def test_compiling_is_tried_and_done_without(tiny, monkeypatch, capsys, fault):
    calls = []

    def compile(function):
        def compiled(*args):
            calls.append(args)
            if fault == "forward":
                raise RuntimeError("no compiler")
            values = function(*args)
            if fault == "backward":
                for value in values.values():
                    value.register_hook(lambda grad: 1 / 0)
            return values

        return compiled

    plain, _ = losses(tiny, 2)
    monkeypatch.setattr(torch, "compile", compile)
    same_again, _ = losses(tiny, 2, compile=True)
    np.testing.assert_array_equal(same_again, plain)
    said = "".join(capsys.readouterr())
    assert len(calls) == (1 if fault else 4)
    words = {None: "", "forward": "(no compiler)", "backward": "(division by zero)"}
    assert words[fault] in said and ("does not work" in said) == bool(fault)


def test_tensorboard_gets_the_records(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(network(), ("L_c",), profile=tiny, recipe=STEADY, steps=3,
                    folder=tmp_path, tracker="tensorboard")  # fmt: skip
    (events,) = tmp_path.rglob("events.out.tfevents*")
    seen = EventAccumulator(str(events)).Reload().Scalars("L_c")
    assert [s.value for s in seen] == pytest.approx([r["L_c"] for r in history])


def test_an_unknown_tracker_is_refused(tiny, tmp_path):
    with pytest.raises(JswsError, match="nosuch"):
        train(network(), ("L_c",), profile=tiny, recipe=STEADY, steps=1,
              folder=tmp_path, tracker="nosuch")  # fmt: skip


# --- memory --------------------------------------------------------------------------


class Small(Objective):
    """Fits two images."""

    def forward(self, batch):
        if len(batch["image"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GB")
        return super().forward(batch)


def test_out_of_memory_names_the_setting(tiny, monkeypatch):
    monkeypatch.setattr("jsws_lib.training.Objective", Small)
    with pytest.raises(JswsError, match=r"4 images at a time: ask for --accumulate 2,"):
        train(network(), BOTH, profile=tiny, recipe=STEADY)
    train(network(), BOTH, profile=replace(tiny, accumulate=2), recipe=STEADY, steps=1)


def test_parts_are_found_that_fit(tiny, monkeypatch):
    assert parts_that_fit(1, tiny) == 1
    monkeypatch.setattr(memory, "Objective", Small)
    assert parts_that_fit(1, replace(tiny, batch_class=16)) == 8
    monkeypatch.setattr(Small, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # not taken for a lack of memory
        parts_that_fit(1, tiny)

    def never(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Small, "forward", never)
    with pytest.raises(JswsError, match="not even one image of 64 px.*--size"):
        parts_that_fit(1, tiny)


def test_a_step_s_memory_grows_with_the_images(tiny):
    one, two = step_bytes(1, tiny), step_bytes(1, replace(tiny, accumulate=2))
    weights = sum(p.numel() for p in network().parameters())
    assert one["fixed"] == 16 * weights
    assert one["step"] == one["fixed"] + 4 * one["per_image"]
    assert two["step"] == two["fixed"] + 2 * two["per_image"]


def test_the_memory_table_is_of_these_profiles():
    stored = json.loads(memory.FILE.read_text())["profiles"]
    assert stored.keys() == PROFILES.keys()
    now = step_bytes(1, PROFILES["mini"])
    assert stored["mini"]["1"] == pytest.approx(now, rel=0.02)


@pytest.fixture(autouse=True)
def a_seed():
    seed_everything(0)
