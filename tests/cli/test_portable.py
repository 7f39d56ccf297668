"""Where processes are spawned, not forked."""

import multiprocessing
import pickle
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
