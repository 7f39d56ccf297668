"""What several GPUs would give: the computation, and that the page shows it."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jsws_lib import memory, scaling
from jsws_lib.config import PROFILES, STEADY
from jsws_lib.scaling import GPUS, Gpu, efficiency, flops_an_image, gradient_bytes, network
from jsws_lib.ssnet import build_ssnet


def test_the_sam_is_most_of_what_is_sent():
    sizes = gradient_bytes(network())
    assert sizes["SAM"] == 4 * (20 * 1664 * 32 * 32 + 20)
    assert sizes["segmentation head"] == 4 * (21 * 1664 + 21)
    assert 0.7 < sizes["SAM"] / sum(sizes.values()) < 0.8


def test_efficiency_by_hand():
    gpu = Gpu("one", peak=1.0, link=100.0, network=10.0)
    # 2 GPUs: 2 * 1/2 * 50 bytes at 100 a second: half a second beside one of computing.
    assert efficiency(gpu, 2, 1.0, 50) == pytest.approx((1 / 1.5, 1.0))
    # 64 GPUs: 2 * 63/64 * 50 bytes at 10 a second.
    slow = 2 * 63 / 64 * 5
    assert efficiency(gpu, 64, 1.0, 50) == pytest.approx((1 / (1 + slow), 1 / slow))


def test_flops_are_those_of_a_real_pass():
    mini = PROFILES["mini"]
    net = build_ssnet(1, backbone=mini.backbone, size=64, recipe=STEADY, weights=None)
    with FlopCounterMode(display=False) as counter:
        out = net(torch.zeros(1, 3, 64, 64, requires_grad=True))
        (out.log_probs.sum() + out.sal_logits.sum()).backward()
    with torch.device("meta"):
        same = build_ssnet(1, backbone=mini.backbone, size=64, recipe=STEADY, weights=None)
    assert flops_an_image(same) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_page_shows_the_tables(root):
    file = root / "results/bench_cpu.json"
    found = scaling.tables(json.loads(file.read_text()))
    page = (root / "docs/many_gpus.md").read_text()
    assert found in page and all(gpu.name in found for gpu in GPUS)
    table = memory.table(json.loads(memory.FILE.read_text()))
    assert table in page and table in (root / "README.md").read_text()
