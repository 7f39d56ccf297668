"""How fast is it, beside what the released code is known to do? `jsws bench`.

Three kinds of rows. *beside*: ours against a baseline, which is written here from what is
known of the released code: float32 and one memory format throughout, both graphs held at
once, each picture decoded and turned in float64, ten augmented copies of an image through
a CRF over all 21 labels, and loops over thresholds and classes. *change*: ours with and
without one thing. *limit*: ours against what the machine can do at all.

The functions of a row take turns in one process, and what counts is the ratio of their
medians. On a CPU seconds are core seconds, summed over threads: on a busy machine they
grow far less than the time on a clock. On a GPU they are seconds on a clock, after
`torch.cuda.synchronize`.

`jsws_lib/speed_page.py` shows the results.
"""

import contextlib
import ctypes
import gc
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, batches
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.mini import make_mini
from data_utils.parallel import available_cores, in_parallel
from jsws_lib.ablation import RESULTS
from jsws_lib.backbones import IMAGENET
from jsws_lib.config import PROFILES, STEADY, Schedule
from jsws_lib.crf import CRF_PRESETS, _unary, crf_probs
from jsws_lib.crf_torch import refine
from jsws_lib.devices import pick_device
from jsws_lib.inference import predict
from jsws_lib.losses import class_loss, saliency_loss
from jsws_lib.memory import random_batches
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure, f_measure
from jsws_lib.pseudo_labels import _write, pseudo_label
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import (
    losses_on_class_set,
    losses_on_saliency_set,
    make_optimiser,
    train,
)

MEAN, STD = map(np.array, IMAGENET)
COPIES = 10  # augmented copies of an image for one pseudo label, in the released code
Row = dict[str, str | float]


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


def in_turns(*functions: Callable, times: int, clock: Callable = now) -> list[float]:
    """Median seconds of functions that are called in turns, after one call each."""
    spent = [[] for _ in functions]
    for k in range(times + 1):
        for function, own in zip(functions, spent, strict=True):
            start = clock()
            function()
            if k:  # the first call warms up
                own.append(clock() - start)
    return [median(own) for own in spent]


def peak(function: Callable) -> tuple[float, float]:
    """Bytes that memory grows by at most during a call, and the seconds it takes.

    Of a GPU its tensors, else the resident memory of the process; nan where the system
    does not tell (Linux does).
    """
    gc.collect()
    if pick_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        with contextlib.suppress(OSError, AttributeError):  # freed pages go back first
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # the highest mark starts anew
            Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
    start = now()
    function()
    seconds = now() - start
    if pick_device().type == "cuda":
        return float(torch.cuda.max_memory_allocated() - before), seconds
    return _resident("VmHWM") - before, seconds


def _resident(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024.0 * int(line.split()[1])


def row(name: str, what: str, ours: float, baseline: float, unit: str = "s", *,
        kind: str = "beside", **more) -> Row:  # fmt: skip
    """One line of the table.

    `ratio` says how many times less ours needs; for `kind="limit"` how large ours is in
    terms of the limit.
    """
    ratio = ours / baseline if kind == "limit" else baseline / ours
    return {"name": name, "what": what, "ours": ours, "baseline": baseline,
            "ratio": ratio, "unit": unit, "kind": kind, **more}  # fmt: skip


# --- training ------------------------------------------------------------------------


class Steps:
    """A step of stage 1 in every way that is compared, on one random batch.

    Args:
        backbone: of SSNet-1, random weights, the same for ours and the baseline.
        size: px.
        batch: images from each data set.
    """

    def __init__(self, *, backbone: str, size: int, batch: int):
        device = pick_device()
        torch.manual_seed(0)
        labelled, masked = random_batches(1, batch, size, device=device)
        self.images = [labelled["image"], masked["image"]]
        self.labels, self.mask = labelled["labels"], masked["sal_mask"]
        self.nets = [build_ssnet(1, backbone=backbone, size=size, recipe=STEADY,
                                 weights=None).to(device).train() for _ in range(2)]
        self.nets[1].load_state_dict(self.nets[0].state_dict())
        self.nets[0].to(memory_format=torch.channels_last)
        self.optimisers = [
            make_optimiser(self.nets[0], Schedule(), sam_rate=STEADY.sam_rate),
            torch.optim.Adam(self.nets[1].parameters(), lr=1e-4, foreach=False,
                             fused=False),
        ]  # fmt: skip

    def ours(self, *, bf16: bool = False, channels_last: bool = True,
             both_graphs: bool = False, update: bool = True) -> dict:  # fmt: skip
        """As `train` does it; each word takes one thing away, or adds it."""
        net = self.nets[0 if channels_last else 1]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        net.zero_grad()
        images = [x.contiguous(memory_format=layout) for x in self.images]
        halves = (
            partial(losses_on_class_set, net, {"image": images[0], "labels": self.labels},
                    ("L_c",), STEADY),
            partial(losses_on_saliency_set, net,
                    {"image": images[1], "sal_mask": self.mask}, STEADY),
        )  # fmt: skip
        values, waiting = {}, []
        for half in halves:
            with torch.autocast(self.mask.device.type, torch.bfloat16, enabled=bf16):
                found = half()
            values |= {name: value.detach() for name, value in found.items()}
            if both_graphs:
                waiting.append(sum(found.values()))
            else:
                sum(found.values()).backward()
            del found
        if both_graphs:
            sum(waiting).backward()
        if update:
            self.optimisers[0 if channels_last else 1].step()
        return values

    def twice(self) -> dict:
        """Ours with activation checkpointing."""
        self.nets[0].backbone.checkpointing = True
        try:
            return self.ours()
        finally:
            self.nets[0].backbone.checkpointing = False

    def baseline(self, *, update: bool = True) -> dict:
        """Both graphs, one memory format, Adam weight by weight."""
        net = self.nets[1]
        net.zero_grad()
        images = [x.contiguous() for x in self.images]
        first = STEADY.class_weight * class_loss(
            net(images[0]), self.labels, reading=STEADY.class_evidence,
            share=STEADY.evidence_share)  # fmt: skip
        second = saliency_loss(net(images[1]), self.mask,
                               reading=STEADY.saliency_reading)  # fmt: skip
        (first + second).backward()
        if update:
            self.optimisers[1].step()
        return {"L_c": first.detach(), "L_s1": second.detach()}

    def differences(self) -> list[dict[str, float]]:
        """How far losses and gradients of ours are from the baseline's, relative: in
        float32 and in bfloat16."""
        expected = self.baseline(update=False)
        exact = [p.grad for p in self.nets[1].parameters()]
        total, found = sum(float(g.double().square().sum()) for g in exact), []
        for bf16 in (False, True):
            values = self.ours(update=False, bf16=bf16)
            loss = max(abs(float(values[k] / expected[k]) - 1) for k in expected)
            apart = sum(float((p.grad - g).double().square().sum())
                        for p, g in zip(self.nets[0].parameters(), exact, strict=True))
            found.append({"loss_difference": loss,
                          "gradient_difference": (apart / total) ** 0.5})  # fmt: skip
        return found


def training(*, backbone: str, size: int, batch: int, times: int,
             threads: int) -> list[Row]:  # fmt: skip
    """Time and memory of a step, what each change does to them, and the limits.

    Args:
        backbone, size: of the network; px.
        batch: images from each data set.
        times: steps of each, after one that memory is measured in.
        threads: of PyTorch.
    """
    with thread_count(threads):
        steps = Steps(backbone=backbone, size=size, batch=batch)
        what = f"{backbone}, {size} px, {batch} + {batch} images"
        same, half = steps.differences()
        ways = {
            "ours": steps.ours,
            "baseline": steps.baseline,
            "bf16": partial(steps.ours, bf16=True),
            "nchw": partial(steps.ours, channels_last=False),
            "both": partial(steps.ours, both_graphs=True),
            "twice": steps.twice,
        }
        memory, time_of = {}, {name: [] for name in ways}
        for k in range(times + 1):
            for name, way in ways.items():
                if k == 0:  # whose time is not counted
                    memory[name], _ = peak(way)
                    continue
                start = now()
                way()
                time_of[name].append(now() - start)
        time_of = {name: median(spent) for name, spent in time_of.items()}
        extra = [*optimisers(steps.nets[0], times=times),
                 *limits(steps, time_of, what=what)]  # fmt: skip
    rows = [
        row("train_step", what, time_of["ours"], time_of["baseline"], **same),
        row("train_step_bf16", f"{what}; ours in bfloat16", time_of["bf16"],
            time_of["baseline"], **half),
        row("peak_memory", what, memory["ours"], memory["baseline"], "bytes"),
        row("peak_memory_bf16", f"{what}; ours in bfloat16", memory["bf16"],
            memory["baseline"], "bytes"),
    ]  # fmt: skip
    for name, with_it, without in (
        ("channels_last", "ours", "nchw"), ("one_backward", "ours", "both"),
        ("bf16", "bf16", "ours"), ("checkpointing", "twice", "ours"),
    ):  # fmt: skip
        rows += [row(name, what, time_of[with_it], time_of[without], kind="change"),
                 row(f"{name}_memory", what, memory[with_it], memory[without], "bytes",
                     kind="change")]  # fmt: skip
    return rows + extra


def large_step(*, backbone: str, size: int, batch: int, threads: int) -> list[Row]:
    """Time and memory of one step at a larger batch; on a GPU of the second one."""
    found = {}
    with thread_count(threads):
        steps = Steps(backbone=backbone, size=size, batch=batch)
        for name, way in (("ours", steps.ours), ("baseline", steps.baseline),
                          ("bf16", partial(steps.ours, bf16=True))):  # fmt: skip
            if pick_device().type == "cuda":  # the first step asks for memory
                way()
            found[name] = peak(way)
    rows, what = [], f"{backbone}, {size} px, {batch} + {batch} images, one step"
    for k, (name, unit) in enumerate((("peak_memory", "bytes"), ("train_step", "s"))):
        ours, baseline, half = (found[way][k] for way in ("ours", "baseline", "bf16"))
        rows += [row(f"{name}_large", what, ours, baseline, unit),
                 row(f"{name}_large_bf16", f"{what}; ours in bfloat16", half, baseline,
                     unit)]  # fmt: skip
    return rows


def optimisers(net: torch.nn.Module, *, times: int) -> list[Row]:
    """Adam over all weights: one after the other, in lists, in one kernel."""
    steps = [torch.optim.Adam(net.parameters(), lr=1e-9, **how).step
             for how in ({"foreach": False, "fused": False}, {"foreach": True},
                         {"fused": True})]  # fmt: skip
    single, foreach, fused = in_turns(*steps, times=times)
    count = sum(p.numel() for p in net.parameters())
    what = f"Adam alone, {count / 1e6:.1f} M weights"
    return [row("adam_foreach", what, foreach, single, kind="change"),
            row("adam_fused", what, fused, single, kind="change")]  # fmt: skip


@thread_count(1)
def compilation(*, times: int) -> list[Row]:
    """`torch.compile` on the mini network; the large one takes far longer to compile."""
    steps = Steps(backbone="densenet_mini", size=96, batch=16)
    net = steps.nets[0]
    batch = {"image": steps.images[0], "labels": steps.labels}

    def step(losses: Callable):
        net.zero_grad()
        sum(losses(net, batch, ("L_c",), STEADY).values()).backward()

    fast, start = torch.compile(losses_on_class_set), time.perf_counter()
    try:
        step(fast)
    except Exception as error:  # no compiler, or one of its own faults
        tqdm.write(f"torch.compile does not work here: {str(error).splitlines()[0]}")
        return []
    seconds = time.perf_counter() - start
    with_it, without = in_turns(partial(step, fast), partial(step, losses_on_class_set),
                                times=times)  # fmt: skip
    what = f"densenet_mini, 96 px, 16 images, L_c; compiling took {seconds:.0f} s"
    return [row("compile", what, with_it, without, kind="change",
                compile_seconds=seconds)]  # fmt: skip


def limits(steps: Steps, time_of: dict[str, float], *, what: str) -> list[Row]:
    """Operations a second of a step, against those of a matrix product alone."""
    with FlopCounterMode(display=False) as counter:
        steps.ours(update=False)
    flops, rows = counter.get_total_flops(), []
    for name, way, kind in (("float32", "ours", torch.float32),
                            ("bf16", "bf16", torch.bfloat16)):  # fmt: skip
        rate = matmul_rate(kind)
        rows.append(row(f"flops_{name}", f"{what}: {flops / 1e9:.0f} GFLOP a step, against "
                        f"a product of matrices", flops / time_of[way], rate, "FLOP/s",
                        kind="limit"))  # fmt: skip
    return rows


def matmul_rate(kind: torch.dtype, *, side: int = 2048) -> float:
    """FLOP a (core) second of a product of two square matrices."""
    one = torch.randn(side, side, device=pick_device()).to(kind)
    (seconds,) = in_turns(lambda: one @ one, times=5)
    return 2 * side**3 / seconds


def copy_rate(*, size: int = 2**28) -> float:
    """Bytes a second, read and written, of a copy in this machine's memory."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    (seconds,) = in_turns(lambda: np.copyto(target, source), times=5,
                          clock=time.process_time)  # fmt: skip
    return 2 * size / seconds


# Of a step, by the operator that spends the time.
PARTS = {
    "Adam": ("foreach", "fused", "addcmul", "addcdiv", "lerp", "sqrt"),
    "convolution": ("convolution", "conv2d", "mkldnn", "cudnn", "mm"),
    "batch norm": ("batch_norm",),
    "ReLU, pooling": ("threshold", "clamp", "relu", "pool"),
    "concatenation, sums, copies": ("cat", "copy_", "add", "clone", "narrow", "slice"),
}


def where_time_goes(*, backbone: str, size: int, batch: int,
                    threads: int) -> dict[str, float]:  # fmt: skip
    """Shares of a step's time, by kind of operator."""
    steps = Steps(backbone=backbone, size=size, batch=batch)
    kinds = [ProfilerActivity.CPU]
    on_gpu = pick_device().type == "cuda"
    with thread_count(threads):
        steps.ours()
        with profile(activities=[*kinds, *[ProfilerActivity.CUDA] * on_gpu]) as found:
            steps.ours()
    shares = dict.fromkeys([*PARTS, "everything else"], 0.0)
    for event in found.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((part for part, words in PARTS.items()
                     if any(word in name for word in words)),
                    "everything else")  # fmt: skip
        shares[kind] += spent
    return {part: value / sum(shares.values()) for part, value in shares.items()}


@thread_count(1)
def mini_loader(*, times: int, images: int = 96, skip: int = 1) -> list[Row]:
    """A step of the mini course in the real loop, against one on a batch in memory.

    Both take turns: after each step of the loop a twin steps on its own batch. The first
    pass through the data decodes pictures, the later ones find them in memory.
    """
    profile, passes = PROFILES["mini"], 1 + times
    each = images // profile.batch_class
    with tempfile.TemporaryDirectory() as folder:
        data = make_mini(Path(folder) / "mini", n_class=images, n_saliency=images, n_val=1,
                         n_test=1, workers=1, progress=False)  # fmt: skip
        profile = replace(profile, data=data, steps=(passes * each, 1))
        twin = Steps(backbone=profile.backbone, size=profile.size,
                     batch=profile.batch_class)  # fmt: skip
        labelled, masked = _first_batches(profile)
        for own, batch in zip(twin.images, (labelled, masked), strict=True):
            own.copy_(batch["image"])
        twin.labels.copy_(labelled["labels"])
        twin.mask.copy_(masked["sal_mask"])
        twin.optimisers[0] = make_optimiser(twin.nets[0], profile.schedules[0],
                                            sam_rate=STEADY.sam_rate)  # fmt: skip
        spent, last = [], [0.0]

        def on_step(step: int, net, record: dict):
            loop = now() - last[0]
            start = now()
            [float(value) for value in twin.ours().values()]
            spent.append((loop, now() - start))
            last[0] = now()

        net = build_ssnet(1, backbone=profile.backbone, size=profile.size, recipe=STEADY,
                          weights=None)  # fmt: skip
        last[0] = now()
        train(net, ("L_c", "L_s1"), profile=profile, recipe=STEADY, on_step=on_step)
    rows = []
    for name, part, words in (
        ("mini_loader", spent[each:], "pictures in memory"),
        ("mini_loader_first_pass", spent[skip:each], "pictures decoded on the way"),
    ):
        loop, alone = (median(column) for column in zip(*part, strict=True))
        what = "a step in the training loop against one on a batch at hand"
        rows.append(row(name, f"profile mini, {what}; {words}", loop, alone, kind="limit"))
    return rows


def _first_batches(profile) -> list[dict]:
    crop = Augmentation(profile.size)
    sets = (ClassificationSet(profile.data / profile.voc, augmentation=crop),
            SaliencySet(profile.data / profile.saliency_images,
                        profile.data / profile.saliency_masks, augmentation=crop))
    return [next(iter(batches(data, profile.batch_class, steps=1))) for data in sets]


# --- data ----------------------------------------------------------------------------


@thread_count(1)
def data_path(*, times: int, pictures: int = 8) -> list[Row]:
    """From a file to the network's tensor: a random crop of 256 px, with and without a
    rotation of up to 10 degrees. The decoded file is made before the clock starts."""
    try:
        from skimage.transform import rotate
    except ImportError:
        raise JswsError("the baseline of `data_path` needs scikit-image: pip install "
                        "scikit-image") from None  # fmt: skip
    rng = np.random.default_rng(0)
    rows, bandwidth = [], copy_rate()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _photographs(root, pictures)
        for angle, name in ((10.0, "data_path"), (0.0, "data_path_upright")):
            sets = [SaliencySet(root / "images", root / "masks", cache=cache,
                                augmentation=Augmentation(256, rotate=angle))
                    for cache in ("decoded", "none")]  # fmt: skip
            pairs = sets[0].pairs

            def ours(data):
                for k in range(pictures):
                    data[k, k]

            def baseline(angle=angle, pairs=pairs):
                for image_path, mask_path in pairs:
                    image = np.asarray(Image.open(image_path).convert("RGB")) / 255.0
                    mask = np.asarray(Image.open(mask_path).convert("L")) / 255.0
                    if angle:
                        turn = rng.uniform(-angle, angle)
                        image, mask = rotate(image, turn), rotate(mask, turn)
                    h, w = mask.shape
                    y, x = rng.integers(0, h // 10 + 1), rng.integers(0, w // 10 + 1)
                    box = np.s_[y : y + h * 9 // 10, x : x + w * 9 // 10]
                    crop = Image.fromarray((image[box] * 255).astype(np.uint8))
                    pixels = np.asarray(crop.resize((256, 256), Image.BICUBIC)) / 255.0
                    small = Image.fromarray((mask[box] * 255).astype(np.uint8))
                    truth = np.asarray(small.resize((256, 256), Image.BICUBIC)) > 0
                    torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1)).float()
                    torch.from_numpy(truth)

            spent = in_turns(*(partial(ours, data) for data in sets), baseline, times=times,
                             clock=time.process_time)  # fmt: skip
            fast, direct, slow = (seconds / pictures for seconds in spent)
            turned = "turned and cropped" if angle else "cropped"
            what = f"500 x 375 px JPEG and mask, {turned}, per image"
            rows += [row(name, what, fast, slow),
                     row(name.replace("data_path", "decoded"), f"{what}; the decoded file",
                         fast, direct, kind="change")]  # fmt: skip
    moved = 2 * 4 * 256**2  # bytes of a crop and its mask, read and written
    rows.append(row("data_path_bytes", "reading and writing an upright crop, against a "
                    "copy in memory", moved / fast, bandwidth, "B/s",
                    kind="limit"))  # fmt: skip
    return rows


def _photographs(root: Path, count: int):
    """Textured pictures of 500 x 375 px and masks, as D_s lays them out."""
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for k in range(count):
        pixels = _texture(rng, 375, 500)
        Image.fromarray(pixels).save(root / f"images/{k}.jpg", quality=92)
        mask = np.zeros((375, 500), np.uint8)
        mask[80:300, 100:350] = 255
        Image.fromarray(mask).save(root / f"masks/{k}.png")


def _texture(rng, height: int, width: int) -> np.ndarray:
    """Soft patches of colour with some noise, uint8."""
    rough = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
    pixels = np.asarray(rough.resize((width, height), Image.BICUBIC)).astype(float)
    return (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)


# --- pseudo labels, measures, inference ------------------------------------------------


def _a_photograph(height: int, width: int):
    """A textured picture, and maps H in which background and two categories lead."""
    rng = np.random.default_rng(2)
    image = _texture(rng, height, width)
    logits = rng.normal(0, 1, (21, 32, 32)).astype(np.float32)
    logits[[0, 5, 12]] += 3
    probs = np.exp(logits) / np.exp(logits).sum(0)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1
    return image, probs, labels


def _a_drawing() -> np.ndarray:
    """A picture of the embedded data, (96, 96, 3) uint8."""
    with tempfile.TemporaryDirectory() as folder:
        data = make_mini(Path(folder) / "mini", n_class=1, n_saliency=1, n_val=1, n_test=1,
                         workers=1, progress=False)  # fmt: skip
        (file,) = (data / PROFILES["mini"].saliency_images).iterdir()
        return np.asarray(Image.open(file).convert("RGB"))


def _enlarged(probs: np.ndarray, image: np.ndarray) -> np.ndarray:
    size = image.shape[1::-1]
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.BILINEAR))
                     for p in probs])  # fmt: skip


@thread_count(1)
def pseudo_labels(*, times: int, width: int = 500, height: int = 375,
                  pool: int = 8) -> list[Row]:  # fmt: skip
    """Core time of the pseudo label of an image with two categories; `pool` of them by
    several processes, 0 leaves that out."""
    image, probs, labels = _a_photograph(height, width)

    def baseline():
        for _ in range(COPIES):
            crf_probs(image, _enlarged(probs, image), preset="readme").argmax(0)

    large = _enlarged(probs, image)
    present = large[[0, 5, 12]]
    turns = partial(in_turns, clock=time.process_time)
    ours, slow, alone = turns(partial(pseudo_label, image, probs, labels), baseline,
                              partial(crf_probs, image, present, preset="readme"),
                              times=times)  # fmt: skip
    some, every = turns(partial(crf_probs, image, present),
                        partial(crf_probs, image, large), times=times)  # fmt: skip
    what = f"{width} x {height} px"
    rows = [
        row("pseudo_labels", f"{what}: one copy and 3 labels, against {COPIES} and 21",
            ours, slow),
        row("crf_present_labels", f"{what}: a CRF of 3 labels, against 21", some, every,
            kind="change"),
        row("crf_alone", f"{what}: a whole pseudo label, against its CRF alone", ours,
            alone, kind="limit"),
    ]  # fmt: skip
    for name, shown, scale, words in (
        ("crf_compiled", image, 1.0, what),
        ("crf_compiled_mini", _a_drawing(), PROFILES["mini"].crf_scale, "a drawing, 96 px"),
    ):
        soft = _enlarged(probs[[0, 5, 12]], shown)
        spent = turns(partial(crf_probs, shown, soft, scale=scale),
                      partial(refine, shown, _unary(soft, None), CRF_PRESETS["readme"],
                              scale=scale), times=times)  # fmt: skip
        rows.append(row(name, f"{words}: a CRF of 3 labels by pydensecrf, against the one "
                        "in PyTorch", *spent, kind="change"))  # fmt: skip
    if (cores := available_cores()) > 1 and pool:
        with tempfile.TemporaryDirectory() as folder:
            jobs = [(Path(folder) / f"{k}.png", image, probs, labels) for k in range(pool)]
            one, many = in_turns(lambda: list(in_parallel(_write, jobs, workers=0)),
                                 lambda: list(in_parallel(_write, jobs, workers=cores)),
                                 times=1, clock=time.perf_counter)  # fmt: skip
        rows.append(row("process_pool", f"{pool} pseudo labels by {cores} processes, which "
                        "start first; on a clock", many, one, kind="change"))  # fmt: skip
    return rows


def measures(*, times: int) -> list[Row]:
    """Max F of one 400 x 300 px map; mean IoU of one 500 x 375 px segmentation."""
    rng = np.random.default_rng(3)
    mask = rng.random((300, 400)) < 0.3
    sal_map = (100 * mask + rng.integers(0, 156, mask.shape)).astype(np.uint8)
    truth = rng.integers(0, 21, (375, 500)).astype(np.uint8)
    pred = np.where(rng.random(truth.shape) < 0.8, truth, 0).astype(np.uint8)

    def max_f():
        measure = SaliencyMeasure("toolbox")
        measure.update(sal_map, mask)

    def loop_over_thresholds():
        scaled = sal_map / sal_map.max()
        for threshold in np.arange(256) / 255:
            found = scaled >= threshold
            right = (found & mask).sum()
            f_measure(right / max(found.sum(), 1), right / mask.sum())

    def miou():
        ConfusionMatrix().update(truth, pred)

    def loop_over_pairs():
        valid = truth != 255
        matrix = np.zeros((21, 21))
        for i in range(21):
            for j in range(21):
                matrix[i, j] = ((truth == i) & (pred == j) & valid).sum()

    turns = partial(in_turns, times=times, clock=time.process_time)
    rows = [
        row("max_f", "256 thresholds, 400 x 300 px", *turns(max_f, loop_over_thresholds)),
        row("miou", "21 classes, 500 x 375 px", *turns(miou, loop_over_pairs)),
    ]
    bandwidth = copy_rate()
    for one, size in zip(list(rows), (sal_map.size, truth.size), strict=True):
        rows.append(row(f"{one['name']}_bytes", "reading map and mask once, against a copy "
                        "in memory", 2 * size / one["ours"], bandwidth, "B/s",
                        kind="limit"))  # fmt: skip
    return rows


def inference(*, backbone: str, size: int, images: int, times: int,
              threads: int) -> list[Row]:  # fmt: skip
    """Segment whole 500 x 375 px pictures: in a batch, against one after the other."""
    device = pick_device()
    rng = np.random.default_rng(4)
    pictures = [Image.fromarray(rng.integers(0, 256, (375, 500, 3)).astype(np.uint8))
                for _ in range(images)]  # fmt: skip
    net = build_ssnet(1, backbone=backbone, size=size, recipe=STEADY, weights=None)
    ours = net.to(device, memory_format=torch.channels_last).eval()
    plain = build_ssnet(1, backbone=backbone, size=size, recipe=STEADY, weights=None)
    plain = plain.to(device).eval()

    def one_by_one():
        for picture in pictures:
            pixels = np.asarray(picture.resize((size, size), Image.BICUBIC))
            batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(device)
            with torch.no_grad():
                probs = plain(batch).probs[0].cpu().numpy()
            maps = [np.asarray(Image.fromarray(p).resize((500, 375), Image.BICUBIC))
                    for p in probs]  # fmt: skip
            np.stack(maps).argmax(0)

    with thread_count(threads):
        spent = in_turns(lambda: list(predict(ours, pictures, batch=images)), one_by_one,
                         times=times)  # fmt: skip
    what = f"{backbone}, {size} px, per picture"
    return [row("inference", what, *(s / images for s in spent))]


PARTS_OF_ALL = ("data", "measures", "pseudo_labels", "mini_course", "inference", "training",
                "large_step", "profile", "compile")  # fmt: skip


def bench(*, backbone: str = "densenet169", size: int = 256, batch: int | None = None,
          large: int | None = None, times: int = 3, threads: int | None = None,
          only: Sequence[str] = PARTS_OF_ALL, out: Path | None = None) -> Path:  # fmt: skip
    """Measure every row and write `results/bench_<device>.json`, after each part.

    Args:
        backbone, size: of the rows that run a network.
        batch: of them, too; default 2, and 8 on a GPU.
        large: batch of one more step for time and memory; default 8, and 16 on a GPU.
        times: of each function, after one call that warms up.
        threads: of the rows that run a network; default one per core. On a busy machine
            threads that wait for each other cost core seconds: then ask for 1.
        only: some of `PARTS_OF_ALL`; what the file has of the others stays.
        out: another file.

    Raises:
        JswsError: there is no such part; or scikit-image, which the baseline of the data
            path uses, is missing.
    """
    if unknown := [name for name in only if name not in PARTS_OF_ALL]:
        raise JswsError(f"bench has no part '{unknown[0]}'; choose from "
                        f"{', '.join(PARTS_OF_ALL)}")  # fmt: skip
    device = pick_device()
    on_gpu = device.type == "cuda"
    batch, large = batch or (8 if on_gpu else 2), large or (16 if on_gpu else 8)
    net = {"backbone": backbone, "size": size, "threads": threads or available_cores()}
    measure = {
        "data": lambda: data_path(times=4 * times),
        "measures": lambda: measures(times=8 * times),
        "pseudo_labels": lambda: pseudo_labels(times=times),
        "mini_course": lambda: mini_loader(times=times),
        "inference": lambda: inference(**net, images=4, times=times),
        "training": lambda: training(**net, batch=batch, times=times),
        "large_step": lambda: large_step(**net, batch=large),
        "compile": lambda: compilation(times=2 * times),
    }
    out = out or RESULTS / f"bench_{device.type}.json"
    known = json.loads(out.read_text()) if out.is_file() else {}
    rows, shares = known.get("rows", []), known.get("step_shares", {})
    name = torch.cuda.get_device_name() if on_gpu else _processor()
    bar = tqdm([part for part in PARTS_OF_ALL if part in only], desc="bench")
    for part in bar:
        bar.set_postfix_str(part)
        if part == "profile":
            shares = where_time_goes(**net, batch=batch)
        else:
            own = [{**one, "part": part} for one in measure[part]()]
            rows = [one for one in rows if one["part"] != part] + own
        rows.sort(key=lambda one: PARTS_OF_ALL.index(one["part"]))
        result = {"device": device.type, "name": name, "threads": net["threads"],
                  "clock": "wall" if on_gpu else "core",
                  "torch": torch.__version__, "recipe": STEADY.name, "times": times,
                  "rows": rows, "step_shares": shares}  # fmt: skip
        write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return out


def _processor() -> str:
    """The processor's name, and what it knows of bfloat16."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines if ":" in line)
        known = {key.strip(): value.strip() for key, value in known.items()}
        flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16")
                 if flag in known["flags"].split()]  # fmt: skip
        return ", ".join([known["model name"], *flags])
    return platform.machine()
