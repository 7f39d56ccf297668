"""Pseudo labels for stage 2 (Section 3.4): SSNet-1's maps, suppressed, refined, argmaxed.

One pass over D_c without augmentation. The network hands each image to a pool of CRF
processes as soon as it is predicted, and its PNG is written at once: nothing is kept.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.parallel import in_parallel, is_main, process_share
from data_utils.voc import write_palette_png
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import crf_probs, crf_segmentation, pydensecrf, suppress


def pseudo_label(image: np.ndarray, probs: np.ndarray, labels: np.ndarray, *,
                 rule: str = "probs", preset: str = "readme",
                 scale: float = 1.0) -> np.ndarray:  # fmt: skip
    """Make one pseudo label.

    Args:
        image: (H, W, 3) uint8.
        probs: H from SSNet-1, (C+1, h, w) float32 in [0, 1].
        labels: t, (C,) multi-hot.
        rule: `"probs"` multiplies H by t, Section 3.4. `"logits"` multiplies log H by t
            as the released code does its logits (log H less its mean over channels, the
            logits up to a constant): a suppressed category scores zero, above any
            unlikely present one, and may win.
        preset, scale: of the CRF.

    Returns:
        (H, W) uint8, 0 background, 1 to C categories.
    """
    height, width = image.shape[:2]
    channels = np.arange(len(probs), dtype=np.uint8)
    if rule == "probs":  # suppressed categories need no map
        channels = channels[np.concatenate([[1], labels]) > 0]
    probs = np.stack(
        [np.asarray(Image.fromarray(probs[k]).resize((width, height), Image.BILINEAR))
         for k in channels]
    )  # fmt: skip
    if rule == "probs":
        present = labels[labels > 0]
        found = crf_segmentation(image, probs, present, preset=preset, scale=scale)
        return channels[found]
    logits = np.log(probs.clip(1e-12))
    logits = suppress(logits - logits.mean(0), labels)
    exp = np.exp(logits - logits.max(0))
    refined = crf_probs(image, exp / exp.sum(0), preset=preset, scale=scale)
    return refined.argmax(0).astype(np.uint8)


def _write(job: tuple[Path, np.ndarray, np.ndarray, np.ndarray], **options):
    """Make one pseudo label and write it; runs in a worker process."""
    out, image, probs, labels = job
    write_palette_png(out, pseudo_label(image, probs, labels, **options))


def _claim(out: Path, net, *, profile: Profile, recipe: Recipe):
    """Note whose labels a folder holds; refuse one that holds another network's."""
    note = out.with_name(f"{out.name}.source")
    rule = (net.size, recipe.suppress, recipe.crf, profile.crf_scale)
    source = f"{_digest(net)}\n{rule}\n"
    known = note.read_text() if note.is_file() else None
    if known != source and any(out.glob("*.png")):
        raise JswsError(
            f"{out} holds pseudo labels of another network, CRF preset or scale; choose "
            "another folder, or delete this one"
        )
    write_bytes(note, source.encode())


def _digest(net) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_teacher(labels: Path, net):
    """Refuse pseudo labels that `make_pseudo_labels` noted to be of another network.

    Raises:
        JswsError: they are; labels from elsewhere have no note and pass.
    """
    note = labels.with_name(f"{labels.name}.source")
    if note.is_file() and note.read_text().splitlines()[0] != _digest(net):
        raise JswsError(f"{labels} holds pseudo labels of another network than --teacher; "
                        "name the one that made them, or leave --pseudo-labels out")


def make_pseudo_labels(net, *, profile: Profile, recipe: Recipe, out: Path,
                       workers: int | None = None) -> Path:  # fmt: skip
    """Write `<out>/<id>.png` for every image of D_c, skipping those already there.

    Args:
        net: SSNet-1 in evaluation mode.
        profile, recipe: data, CRF preset, suppression rule.
        out: folder; every file in it is whole.
        workers: CRF processes; default one per core, 0 for none.

    Several processes share the images.

    Returns:
        `out`.

    Raises:
        JswsError: data are missing or broken, or `out` holds labels of another network
            or CRF.
    """
    # Imported here because each worker imports this file, and PyTorch takes it seconds.
    from data_utils.datasets import Augmentation, ClassificationSet, read_image
    from jsws_lib.devices import wait_for_everyone
    from jsws_lib.inference import predict

    out.mkdir(parents=True, exist_ok=True)
    data = ClassificationSet(
        profile.data / profile.voc, profile.train_list,
        augmentation=Augmentation(profile.size),
    )  # fmt: skip
    if is_main():
        _claim(out, net, profile=profile, recipe=recipe)
    rank, ranks = process_share()
    done = {path.stem for path in out.glob("*.png")}
    todo = [k for k, name in enumerate(data.ids) if name not in done][rank::ranks]
    wait_for_everyone()  # or one would count what another has just done
    work = partial(_write, rule=recipe.suppress, preset=recipe.crf, scale=profile.crf_scale)
    paths = [data.voc / "JPEGImages" / f"{data.ids[k]}.jpg" for k in todo]
    predictions = predict(net, map(read_image, paths))
    jobs = (
        (out / f"{data.ids[k]}.png", np.asarray(read_image(path)), prediction.probs,
         data.labels[k])
        for k, path, prediction in zip(todo, paths, predictions, strict=True)
    )  # fmt: skip
    pydensecrf()  # warns where it is missing: here once, rather than in each worker
    results = in_parallel(work, jobs, workers=workers)
    for _ in tqdm(results, total=len(todo), desc="pseudo labels", leave=False,
                  mininterval=1, disable=not is_main()):  # fmt: skip
        pass
    wait_for_everyone()
    return out
