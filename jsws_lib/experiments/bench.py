"""How fast is it, beside what the released code is known to do? `jsws bench`.

Each row is ours against a baseline, which is written here from what is known of the
released code: float32 and one memory format throughout, both graphs held at once, each
picture decoded and cropped in float64, and ten augmented copies of an image through a CRF
over all 21 labels.

The functions of a row take turns in one process, and what counts is the ratio of their
medians. On a CPU seconds are core seconds, summed over threads: on a busy machine they
grow far less than the time on a clock. On a GPU they are seconds on a clock, after
`torch.cuda.synchronize`.

`results.speed_table` shows them.
"""

import contextlib
import ctypes
import gc
import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, SaliencySet
from data_utils.files import write_png
from data_utils.parallel import available_cores
from jsws_lib.backbones import IMAGENET
from jsws_lib.config import PROFILES, STEADY, Schedule
from jsws_lib.crf import crf_probs
from jsws_lib.engine.devices import pick_device
from jsws_lib.engine.loop import RunLoop
from jsws_lib.experiments.ablation import RESULTS, store
from jsws_lib.experiments.memory import random_batches
from jsws_lib.losses import class_loss, saliency_loss
from jsws_lib.pseudo_labels import pseudo_label
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Objective, make_optimizer

MEAN, STD = map(np.array, IMAGENET)
COPIES = 10  # augmented copies of an image for one pseudo label, in the released code
LOSSES = ("L_c", "L_s1")
Row = dict[str, str | float]


@dataclass(frozen=True)
class Setup:
    """What the rows are measured with."""

    backbone: str
    size: int  # px, of the network's input
    batch: int  # images from each data set
    large: int  # the same, for one step more of which time and memory are measured
    times: int  # calls of each function, after one that warms up
    photograph: tuple[int, int] = (500, 375)  # px, width and height


# --- clocks --------------------------------------------------------------------------


def now() -> float:
    """Seconds: on a clock once the GPU has nothing to do, else of all cores together."""
    if pick_device().type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@contextlib.contextmanager
def thread_count(count: int):
    """Within this, PyTorch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turns(
    *functions: Callable, times: int, warm: bool = True, clock: Callable = now
) -> list[float]:
    """Median seconds of functions that take turns, after one call each if `warm`.

    What never runs on a GPU takes `time.process_time` for its clock.
    """
    spent = [[] for _ in functions]
    for k in range(times + warm):
        for function, own in zip(functions, spent, strict=True):
            start = clock()
            function()
            if k or not warm:
                own.append(clock() - start)
    return [median(own) for own in spent]


def peak(function: Callable) -> tuple[float, object]:
    """Bytes that memory grows by at most during a call, and what it returns.

    Of a GPU its tensors, else the resident memory of the process; nan where the system
    does not tell (Linux does).
    """
    gc.collect()
    if pick_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = function()
        return float(torch.cuda.max_memory_allocated() - before), result
    with contextlib.suppress(OSError, AttributeError):  # freed pages go back first
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # the highest mark starts anew
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    result = function()
    return _resident("VmHWM") - before, result


def _resident(name: str) -> float:
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return 1024.0 * int(re.search(rf"{name}:\s+(\d+)", status)[1])
    return float("nan")


def row(name: str, what: str, ours: float, baseline: float, unit: str = "s", **more) -> Row:
    """One line of the table; `ratio` says how many times less ours needs."""
    found = {"name": name, "what": what, "ours": ours, "baseline": baseline}
    return {**found, "ratio": baseline / ours, "unit": unit, **more}


# --- training ------------------------------------------------------------------------


def our_step(net: SSNet, batches: list[dict], *, precision: str = "float32") -> Callable:
    """A step of stage 1 as the real loop does it, on a batch of each set.

    It updates the weights and returns the losses.
    """
    loop = RunLoop()
    loop.place(net, replace(PROFILES["paper"], precision=precision), LOSSES)
    objective, optimizer = loop.prepare(
        Objective(net, LOSSES, STEADY),
        make_optimizer(net, Schedule(), sam_rate=STEADY.sam_rate),
    )

    def step() -> dict[str, float]:
        optimizer.zero_grad()
        values = {}
        for one in batches:
            values |= loop.backward(objective, one, last=one is batches[-1])
        optimizer.step()
        return values

    return step


def baseline_step(net: SSNet, batches: list[dict]) -> Callable:
    """The same with both graphs, one memory format, and Adam weight by weight."""
    net, (labelled, masked) = net.to(pick_device()).train(), batches
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, foreach=False, fused=False)
    reading = {"reading": STEADY.class_evidence, "share": STEADY.evidence_share}

    def step() -> dict[str, float]:
        optimizer.zero_grad()
        out = net(labelled["image"].contiguous())
        first = STEADY.class_weight * class_loss(out, labelled["labels"], **reading)
        out = net(masked["image"].contiguous())
        second = saliency_loss(out, masked["sal_mask"], reading=STEADY.saliency_reading)
        (first + second).backward()
        optimizer.step()
        return {"L_c": first.item(), "L_s1": second.item()}

    return step


def training(setup: Setup) -> list[Row]:
    """A step of each batch; of the large one, which takes long, only one."""
    small = _steps(setup, setup.batch, setup.times, "")
    return small + _steps(setup, setup.large, 1, "_large")


def _steps(setup: Setup, batch: int, times: int, ending: str) -> list[Row]:
    """Time and memory of a step, in float32 and in bfloat16."""

    def new() -> SSNet:
        torch.manual_seed(0)  # the same random weights each time
        shape = {"backbone": setup.backbone, "size": setup.size}
        return build_ssnet(1, **shape, recipe=STEADY, weights=None)

    nets = [new() for _ in range(3)]
    given = random_batches(1, batch, setup.size, device=pick_device())
    ways = [our_step(nets[0], given), our_step(nets[1], given, precision="bf16")]
    ways.append(baseline_step(nets[2], given))
    memory, values = zip(*map(peak, ways), strict=True)  # the first step warms up, too
    seconds = in_turns(*ways, times=times, warm=False)
    what = f"{setup.backbone}, {setup.size} px, {batch} + {batch} images"
    what += ", one step" if times == 1 else ""
    rows = []
    for k, half in enumerate(("", "_bf16")):
        words = f"{what}; ours in bfloat16" if half else what
        apart = max(abs(values[k][name] / values[-1][name] - 1) for name in LOSSES)
        end, spent = ending + half, (seconds[k], seconds[-1])
        rows.append(row(f"train_step{end}", words, *spent, loss_difference=apart))
        rows.append(row(f"peak_memory{end}", words, memory[k], memory[-1], "bytes"))
    return rows


# --- data ----------------------------------------------------------------------------


@thread_count(1)
def data_path(setup: Setup) -> list[Row]:
    """From a file to the network's tensor: a random crop of 256 px. The decoded file is
    made before the clock starts."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / name for name in ("images", "masks")]
        write_photographs(*folders, 8)
        data = SaliencySet(*folders, cache="decoded", augmentation=Augmentation(256))

        def ours():
            for k in range(len(data)):
                data[k, k]

        def baseline():
            for image_path, mask_path in data.pairs:
                image = np.asarray(Image.open(image_path).convert("RGB")) / 255.0
                mask = np.asarray(Image.open(mask_path).convert("L")) / 255.0
                released_crop(image, mask, rng)

        spent = in_turns(ours, baseline, times=4 * setup.times, clock=time.process_time)
    what = "500 x 375 px JPEG and mask, cropped, per image"
    return [row("data_path", what, *(seconds / len(data) for seconds in spent))]


def released_crop(image: np.ndarray, mask: np.ndarray, rng):
    """A random crop of 256 px, by way of float64, (H, W, 3) and (H, W)."""
    h, w = mask.shape
    y, x = rng.integers(0, h // 10 + 1), rng.integers(0, w // 10 + 1)
    box = np.s_[y : y + h * 9 // 10, x : x + w * 9 // 10]
    crop = Image.fromarray((image[box] * 255).astype(np.uint8))
    pixels = np.asarray(crop.resize((256, 256), Image.BICUBIC)) / 255.0
    small = Image.fromarray((mask[box] * 255).astype(np.uint8))
    truth = np.asarray(small.resize((256, 256), Image.BICUBIC)) > 0
    torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1)).float()
    torch.from_numpy(truth)


def write_photographs(images: Path, masks: Path, count: int):
    """Textured pictures of 500 x 375 px and masks, as D_s lays them out."""
    rng, mask = np.random.default_rng(1), np.zeros((375, 500), np.uint8)
    mask[80:300, 100:350] = 255
    images.mkdir()
    for k in range(count):
        Image.fromarray(texture(rng, 500, 375)).save(images / f"{k}.jpg", quality=92)
        write_png(masks / f"{k}.png", Image.fromarray(mask))


def texture(rng, width: int, height: int) -> np.ndarray:
    """Soft patches of colour with some noise, (H, W, 3) uint8."""
    rough = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
    pixels = np.asarray(rough.resize((width, height), Image.BICUBIC)).astype(float)
    return (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)


# --- pseudo labels ---------------------------------------------------------------------


@thread_count(1)
def pseudo_labels(setup: Setup) -> list[Row]:
    """Core time of the pseudo label of an image in which two categories lead."""
    rng, size = np.random.default_rng(2), setup.photograph
    image = texture(rng, *size)
    logits = rng.normal(0, 1, (21, 32, 32)).astype(np.float32)
    logits[[0, 5, 12]] += 3
    probs = np.exp(logits) / np.exp(logits).sum(0)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1

    def baseline():
        for _ in range(COPIES):
            maps = [Image.fromarray(p).resize(size, Image.BILINEAR) for p in probs]
            crf_probs(image, np.stack(maps)).argmax(0)

    ours = partial(pseudo_label, image, probs, labels)
    what = f"{size[0]} x {size[1]} px: one copy and 3 labels, against {COPIES} and 21"
    spent = in_turns(ours, baseline, times=setup.times, clock=time.process_time)
    return [row("pseudo_labels", what, *spent)]


PARTS: list[Callable[[Setup], list[Row]]] = [data_path, pseudo_labels, training]


# --- all of it -------------------------------------------------------------------------


def bench(*, threads: int | None = None, out: Path | None = None) -> Path:
    """Measure every row and write `results/bench_<device>.json`.

    Args:
        threads: of the rows that run a network; default one per core. On a busy machine
            threads that wait for each other cost core seconds: then ask for 1.
        out: another file.
    """
    device, threads = pick_device(), threads or available_cores()
    on_gpu = device.type == "cuda"
    batch, large = (8, 16) if on_gpu else (2, 8)
    setup, rows = Setup("densenet169", 256, batch, large=large, times=3), []
    with thread_count(threads):
        for part in tqdm(PARTS, desc="bench"):
            rows += part(setup)
    conditions = {
        "device": device.type,
        "name": torch.cuda.get_device_name() if on_gpu else _processor(),
        "threads": threads,
        "clock": "wall" if on_gpu else "core",
        "torch": torch.__version__,
        "recipe": STEADY.name,
        "times": setup.times,
    }
    out = out or RESULTS / f"bench_{device.type}.json"
    store(conditions | {"rows": rows}, out)
    return out


def _processor() -> str:
    """The processor's name, and what it knows of bfloat16."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines if ":" in line)
        known = {key.strip(): value.strip() for key, value in known.items()}
        flags = {"avx512f", "avx512_bf16", "amx_bf16"} & set(known["flags"].split())
        return ", ".join([known["model name"], *sorted(flags, reverse=True)])
    return platform.machine()
