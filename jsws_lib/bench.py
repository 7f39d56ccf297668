"""How fast is it, beside what the released code is known to do? `jsws bench`.

Each row times ours and a baseline in turns, in one process on one thread, so that
whatever else the machine does slows both; what counts is the ratio of the medians. The
baselines are written here from what is known of the released code: float32 and one memory
format throughout, both graphs held at once, each picture decoded and turned in float64,
ten augmented copies of an image through a CRF over all 21 labels, and loops over
thresholds and classes.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from data_utils.datasets import Augmentation, SaliencySet
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.ablation import RESULTS
from jsws_lib.config import STEADY, get_recipe
from jsws_lib.crf import crf_probs
from jsws_lib.inference import predict
from jsws_lib.losses import class_loss, saliency_loss
from jsws_lib.metrics import ConfusionMatrix, SaliencyMeasure, f_measure
from jsws_lib.pseudo_labels import pseudo_label
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import (
    losses_on_class_set,
    losses_on_saliency_set,
    make_optimiser,
    pick_device,
)

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
COPIES = 10  # augmented copies of an image for one pseudo label, in the released code
Row = dict[str, str | float]


def in_turns(ours: Callable, baseline: Callable, *, times: int) -> tuple[float, float]:
    """Median seconds of two functions, called in turns after one call each."""
    spent = ([], [])
    for k in range(times + 1):
        for function, own in zip((ours, baseline), spent, strict=True):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if k:  # the first call warms up
                own.append(time.perf_counter() - start)
    return median(spent[0]), median(spent[1])


def row(name: str, what: str, ours: float, baseline: float, unit: str) -> Row:
    """One line of the table; `ratio` says how many times less ours needs."""
    return {"name": name, "what": what, "ours": ours, "baseline": baseline,
            "ratio": baseline / ours, "unit": unit}  # fmt: skip


# --- training ------------------------------------------------------------------------


def train_step(*, backbone: str, size: int, batch: int, times: int) -> list[Row]:
    """Time of a step of stage 1, and the bytes that its graphs keep alive.

    Args:
        backbone: of SSNet-1, random weights.
        size: px.
        batch: images from each data set.
        times: steps of each.
    """
    device = pick_device()
    image = torch.randint(0, 256, (2, batch, 3, size, size), dtype=torch.uint8).to(device)
    labels = torch.zeros(batch, 20, device=device)
    labels[:, 3] = 1
    mask = torch.zeros(batch, size, size, dtype=torch.uint8, device=device)
    mask[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    schedule = get_schedule()
    nets = [build_ssnet(1, backbone=backbone, size=size, recipe=STEADY, weights=None)
            for _ in range(2)]  # fmt: skip
    ours = nets[0].to(device, memory_format=torch.channels_last).train()
    plain = nets[1].to(device).train()
    optimisers = (make_optimiser(ours, schedule, sam_rate=STEADY.sam_rate),
                  torch.optim.Adam(plain.parameters(), lr=1e-4, foreach=False, fused=False))

    def step(keep=None):
        optimisers[0].zero_grad()
        sets = [x.contiguous(memory_format=torch.channels_last) for x in image]
        first = losses_on_class_set(ours, {"image": sets[0], "labels": labels}, ("L_c",),
                                    STEADY)  # fmt: skip
        sum(first.values()).backward()
        second = losses_on_saliency_set(ours, {"image": sets[1], "sal_mask": mask}, STEADY)
        sum(second.values()).backward()
        optimisers[0].step()

    def plain_step():
        optimisers[1].zero_grad()
        out = plain(image[0])
        first = class_loss(out, labels, reading=STEADY.class_evidence,
                           share=STEADY.evidence_share)  # fmt: skip
        second = saliency_loss(plain(image[1]), mask, reading=STEADY.saliency_reading)
        (STEADY.class_weight * first + second).backward()
        optimisers[1].step()

    times_of = in_turns(step, plain_step, times=times)
    kept = (_peak_bytes(step), _peak_bytes(plain_step))
    what = f"{backbone}, {size} px, {batch} + {batch} images"
    return [row("train_step", what, *times_of, "s"),
            row("peak_memory", f"{what}: tensors kept for backward", *kept, "bytes")]


def get_schedule():
    """The paper's optimiser, for both."""
    from jsws_lib.config import Schedule

    return Schedule()


def _peak_bytes(step: Callable) -> float:
    """The most bytes that autograd keeps at once; on a GPU, of all tensors."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        step()
        return float(torch.cuda.max_memory_allocated())
    alive, peak, counts = [0], [0], {}

    class Kept:
        def __init__(self, tensor):
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            counts[self.key] = counts.get(self.key, 0) + 1
            if counts[self.key] == 1:
                alive[0] += tensor.untyped_storage().nbytes()
                peak[0] = max(peak[0], alive[0])

        def __del__(self):
            counts[self.key] -= 1
            if not counts[self.key]:
                alive[0] -= self.tensor.untyped_storage().nbytes()

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step()
    return float(peak[0])


# --- data ----------------------------------------------------------------------------


def data_path(*, times: int, pictures: int = 8) -> list[Row]:
    """From a file to the network's tensor: a random crop of 256 px, with and without a
    rotation of up to 10 degrees. The decoded file is made before the clock starts."""
    try:
        from skimage.transform import rotate
    except ImportError:
        raise JswsError("the baseline of `data_path` needs scikit-image: pip install "
                        "scikit-image") from None  # fmt: skip
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _photographs(root, pictures)
        for angle, name in ((10.0, "data_path"), (0.0, "data_path_upright")):
            data = SaliencySet(root / "images", root / "masks", cache="decoded",
                               augmentation=Augmentation(256, rotate=angle))  # fmt: skip
            pairs = data.pairs

            def ours(data=data):
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

            spent = np.array(in_turns(ours, baseline, times=times)) / pictures
            turned = "turned and cropped" if angle else "cropped"
            rows.append(row(name, f"500 x 375 px JPEG and mask, {turned}, per image",
                            *spent.tolist(), "s"))  # fmt: skip
    return rows


def _photographs(root: Path, count: int):
    """Textured pictures of 500 x 375 px and masks, as D_s lays them out."""
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for k in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
        pixels = np.asarray(rough.resize((500, 375), Image.BICUBIC)).astype(float)
        pixels += rng.normal(0, 8, pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            root / f"images/{k}.jpg", quality=92)  # fmt: skip
        mask = np.zeros((375, 500), np.uint8)
        mask[80:300, 100:350] = 255
        Image.fromarray(mask).save(root / f"masks/{k}.png")


# --- pseudo labels, measures, inference ------------------------------------------------


def pseudo_labels(*, times: int) -> list[Row]:
    """Core time of one pseudo label of a 500 x 375 px image with two categories."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (375, 500, 3)).astype(np.uint8)
    logits = rng.normal(0, 1, (21, 32, 32)).astype(np.float32)
    logits[[0, 5, 12]] += 3
    probs = np.exp(logits) / np.exp(logits).sum(0)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1

    def baseline():
        for _ in range(COPIES):
            maps = [np.asarray(Image.fromarray(p).resize((500, 375), Image.BILINEAR))
                    for p in probs]  # fmt: skip
            crf_probs(image, np.stack(maps), preset="readme").argmax(0)

    spent = in_turns(lambda: pseudo_label(image, probs, labels), baseline, times=times)
    what = f"one copy and 3 labels, against {COPIES} and 21; per image"
    return [row("pseudo_labels", what, *spent, "s")]


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

    return [
        row("max_f", "256 thresholds, 400 x 300 px",
            *in_turns(max_f, loop_over_thresholds, times=times), "s"),
        row("miou", "21 classes, 500 x 375 px",
            *in_turns(miou, loop_over_pairs, times=times), "s"),
    ]  # fmt: skip


def inference(*, backbone: str, size: int, images: int, times: int) -> list[Row]:
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

    spent = in_turns(lambda: list(predict(ours, pictures, batch=images)), one_by_one,
                     times=times)  # fmt: skip
    what = f"{backbone}, {size} px, per picture"
    return [row("inference", what, *(s / images for s in spent), "s")]


def bench(*, backbone: str = "densenet169", size: int = 256, batch: int = 2,
          times: int = 5, out: Path | None = None) -> Path:  # fmt: skip
    """Measure every row and write `results/bench_<device>.json`.

    Args:
        backbone, size, batch: of the rows that run a network.
        times: of each function, after one call that warms up.
        out: another file.

    Raises:
        JswsError: scikit-image, which the baseline of the data path uses, is missing.
    """
    device = pick_device()
    parts = {
        "training": lambda: train_step(backbone=backbone, size=size, batch=batch,
                                       times=times),
        "data": lambda: data_path(times=times),
        "pseudo labels": lambda: pseudo_labels(times=times),
        "measures": lambda: measures(times=4 * times),
        "inference": lambda: inference(backbone=backbone, size=size, images=4, times=times),
    }  # fmt: skip
    threads, rows = torch.get_num_threads(), []
    try:
        torch.set_num_threads(1)
        bar = tqdm(parts.items(), desc="bench")
        for name, part in bar:
            bar.set_postfix_str(name)
            rows += part()
    finally:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    result = {"device": f"{device.type}, {name}, 1 thread", "torch": torch.__version__,
              "recipe": get_recipe().name, "times": times, "rows": rows}  # fmt: skip
    out = out or RESULTS / f"bench_{device.type}.json"
    return write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())


def table(result: dict) -> str:
    """The rows as Markdown."""
    lines = ["| what | ours | baseline | times less | of what |",
             "| --- | ---: | ---: | ---: | --- |"]  # fmt: skip
    for r in result["rows"]:
        cells = [f"`{r['name']}`"]
        for key in ("ours", "baseline"):
            value = r[key]
            cells.append(f"{value / 1e6:.0f} MB" if r["unit"] == "bytes" else
                         f"{1000 * value:.3g} ms")  # fmt: skip
        cells += [f"{r['ratio']:.1f}", r["what"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
