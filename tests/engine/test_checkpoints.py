"""Checkpoints: whole, described, and refused in one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers import network, refuses, same, state, stored
from safetensors.torch import save

from data_utils.errors import JswsError
from data_utils.files import whole_folder, write_bytes
from jsws_lib.backbones import MINI_WEIGHTS
from jsws_lib.engine.checkpoints import (
    SHIPPED,
    find,
    load_ssnet,
    read_weights,
    save_weights,
)


@pytest.fixture
def saved(tmp_path):
    net = network().eval()
    return stored(tmp_path / "net.safetensors", net), net


def test_a_checkpoint_rebuilds_its_network(saved):
    path, net = saved
    again, story = load_ssnet(path, expect={"backbone": "densenet_mini", "stage": 1})
    assert same(state(net), state(again)) and not again.training
    assert story["torch"] and story["setting"] == "M"


def test_half_precision_keeps_batch_norm_statistics(tmp_path):
    net = network()
    with torch.no_grad():
        net.backbone.features.norm0.running_var.fill_(1e6)  # float16 ends at 65504
    path = save_weights(tmp_path / "half.safetensors", net, {"a": 1}, half=True)
    read, _ = read_weights(path)
    assert read["backbone.features.norm0.running_var"][0] == 1e6
    assert all(t.dtype != torch.float16 for t in read.values())
    full = save_weights(tmp_path / "full.safetensors", net, {"a": 1})
    assert path.stat().st_size < 0.6 * full.stat().st_size


def test_broken_checkpoints_are_one_line_each(saved, tmp_path):
    path, net = saved
    whole, story, weights = path.read_bytes(), read_weights(path)[1], net.state_dict()
    nan = weights | {"sam.conv.bias": torch.full_like(weights["sam.conv.bias"], torch.nan)}
    strange, other = "was not written by `jsws train`", "does not hold the network"
    files = {
        "cut": (whole[: len(whole) // 2], "is not a whole safetensors file"),
        "empty": (save({"a": torch.zeros(1)}), strange),
        "torn": (save(weights, {"story": "{"}), strange),
        "nan": (save(nan, {"story": json.dumps(story)}), "sam.conv.bias .* not finite"),
    }
    for change in (
        {"setting": "XX"},
        {"stage": "1"},
        {"setting": "MM", "stage": 2},  # another architecture
        {"size": 0},
        {"recipe": {"colour": "red"}},
        {"categories": []},
    ):
        header = {"story": json.dumps(story | change)}
        files["-".join(change)] = save(weights, header), other
    for name, (content, words) in files.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        refuses(f"{name}.safetensors.*{words}", load_ssnet, file)
    words = "backbone = densenet_mini, but vgg16 is asked"
    refuses(words, load_ssnet, path, expect={"backbone": "vgg16"})


def test_a_shipped_network_is_found_by_its_name(tmp_path, monkeypatch):
    assert load_ssnet("mini")[1]["setting"] == "MM"
    assert find("mini_S") == SHIPPED / "mini_S.safetensors"
    with pytest.raises(JswsError, match="no checkpoint at minis; .* photos"):
        load_ssnet("minis")
    monkeypatch.chdir(tmp_path)
    Path("mini").touch()  # a file of this name comes first
    with pytest.raises(JswsError, match="mini is not a whole safetensors file"):
        load_ssnet("mini")


def test_the_shipped_backbone_is_read_and_is_no_ssnet():
    assert read_weights(MINI_WEIGHTS)[1]["categories"] == 187  # kinds of drawing
    with pytest.raises(JswsError, match="densenet_mini.* holds a backbone, no SSNet"):
        load_ssnet(MINI_WEIGHTS)


def test_interrupted_writes_leave_nothing(tmp_path, monkeypatch):
    file, folder = tmp_path / "weights.safetensors", tmp_path / "data"
    write_bytes(file, b"old")

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as new:
        (new / "a").touch()
        fail()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", fail)
        write_bytes(file, b"new, and half of it")
    assert [*tmp_path.iterdir()] == [file] and file.read_bytes() == b"old"
    killed = tmp_path / ".data-making-x"
    killed.mkdir()
    os.utime(killed, (1, 1))  # an hour and more ago
    with whole_folder(folder) as new:
        (new / "a").touch()
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "a", file]
