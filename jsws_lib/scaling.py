"""What more GPUs would give, computed: `python -m jsws_lib.scaling` writes the tables.

A step is taken to last as long as its multiplications at a stated share of a GPU's peak.
Every process then sends and receives 2 (n - 1) / n times the gradients (a ring). Two
bounds are given: nothing of that is hidden behind the backward pass, and all of it is.
"""

import json
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from data_utils.files import write_bytes
from jsws_lib.config import PROFILES, ROOT, STEADY
from jsws_lib.results import insert
from jsws_lib.ssnet import SSNet, build_ssnet

PAGE = ROOT / "docs" / "many_gpus.md"
UTILISATION = 0.3  # share of the peak: assumed, not measured


class Gpu(NamedTuple):
    """A GPU by its maker's data sheet."""

    name: str
    peak: float  # multiplications and additions a second at 16 bits, dense
    link: float  # bytes a second each way to others in its machine
    network: float  # bytes a second each way to other machines, per GPU


# Data sheets of NVIDIA T4 (PCIe 3 x16), A100 SXM (NVLink 3), H100 SXM (NVLink 4); networks
# of 100, 200 and 400 Gb/s a machine or GPU as such machines usually have them.
GPUS = (
    Gpu("T4", 65e12, 16e9, 12.5e9 / 8),
    Gpu("A100", 312e12, 300e9, 25e9),
    Gpu("H100", 989e12, 450e9, 50e9),
)
COUNTS = (2, 8, 64)  # 8 GPUs to a machine


def network() -> SSNet:
    """SSNet-1 of the profile `paper`, without memory for its weights."""
    paper = PROFILES["paper"]
    with torch.device("meta"):
        return build_ssnet(1, backbone=paper.backbone, size=paper.size, recipe=STEADY,
                           weights=None)  # fmt: skip


def gradient_bytes(net: SSNet) -> dict[str, int]:
    """Bytes of float32 gradients of each part."""
    parts = {"backbone": net.backbone, "segmentation head": net.sn, "SAM": net.sam}
    return {name: 4 * sum(p.numel() for p in part.parameters())
            for name, part in parts.items()}  # fmt: skip


def flops_an_image(net: SSNet) -> int:
    """Multiplications and additions of one image's forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, net.size, net.size, device="meta"))
    return 3 * counter.get_total_flops()  # backward: for the weights and for the inputs


def efficiency(gpu: Gpu, count: int, seconds: float, size: float) -> tuple[float, float]:
    """Share of `count` times one GPU's speed that is reached: nothing hidden, all hidden.

    Args:
        gpu: which.
        count: of GPUs, 8 to a machine.
        seconds: a step's computing, the same on each GPU.
        size: bytes of gradients.
    """
    speed = gpu.link if count <= 8 else min(gpu.link, gpu.network)
    sending = 2 * (count - 1) / count * size / speed
    return seconds / (seconds + sending), seconds / max(seconds, sending)


def tables(bench: dict) -> str:
    """The tables of `docs/many_gpus.md`, as Markdown.

    Args:
        bench: what `jsws bench` measured on a CPU.
    """
    net, batch = network(), PROFILES["paper"].batch_class
    sizes, flops = gradient_bytes(net), flops_an_image(net)
    total = sum(sizes.values())
    lines = ["| part | weights | gradients a step | share |",
             "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for name, size in [*sizes.items(), ("all", total)]:
        lines.append(f"| {name} | {size / 4e6:.1f} M | {size / 1e6:.0f} MB | "
                     f"{100 * size / total:.0f} % |")  # fmt: skip
    lines += ["", f"An image's forward and backward pass takes {flops / 1e12:.3f} TFLOP, "
              f"a step of {batch} + {batch} images {2 * batch * flops / 1e12:.1f}.", ""]
    head = [f"{n} GPUs{form}" for form in ("", ", bf16") for n in COUNTS]
    lines += [f"| GPU | a step alone | images a second | {' | '.join(head)} |",
              f"| --- | ---: | ---: |{' ---: |' * len(head)}"]  # fmt: skip
    for gpu in GPUS:
        seconds = 2 * batch * flops / (UTILISATION * gpu.peak)
        cells = [f"{1000 * seconds:.0f} ms", f"{2 * batch / seconds:.0f}"]
        for share in (1, 0.5):
            cells += ["{:.0f} to {:.0f} %".format(*(100 * e for e in efficiency(
                gpu, count, seconds, share * total))) for count in COUNTS]  # fmt: skip
        lines.append(f"| {gpu.name} | {' | '.join(cells)} |")
    lines += ["", f"*Each GPU has {batch} + {batch} images of its own; {UTILISATION:.0%} "
              "of the peak is assumed, not measured; a slower step hides more. First: no "
              "sending hidden behind the backward pass; second: all of it. 'bf16': sent in "
              "16 bits.*"]  # fmt: skip
    rate = 1 / next(r["ours"] for r in bench["rows"] if r["name"] == "data_path_upright")
    needs = {gpu.name: UTILISATION * gpu.peak / flops / rate for gpu in GPUS}
    words = ", ".join(f"{n:.2g} ({name})" for name, n in needs.items())
    lines += ["", f"One loading core of the machine in `results/bench_cpu.json` gives "
              f"{rate:.0f} images a second from the decoded cache, nothing turned. To keep "
              f"up with the speed above takes {words} such cores."]  # fmt: skip
    return "\n".join(lines)


def write() -> str:
    """Write the tables into the page, and return them."""
    file = ROOT / "results" / "bench_cpu.json"
    found = tables(json.loads(file.read_text()))
    write_bytes(PAGE, insert(PAGE.read_text(encoding="utf-8"), found).encode())
    return found


if __name__ == "__main__":
    print(write())
