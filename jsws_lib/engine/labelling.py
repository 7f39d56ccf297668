"""Pseudo labels of a whole training set, written by several processes (Section 3.4).

One pass over D_c without augmentation. The network hands each image to a pool of CRF
processes as soon as it is predicted, and its PNG is written at once: nothing is kept.
"""

import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import read_text, write_bytes
from data_utils.identity import class_digest
from data_utils.parallel import FEW, in_parallel, is_main, process_share, wait_for_everyone
from data_utils.voc import VOID, write_palette_png
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import pydensecrf
from jsws_lib.pseudo_labels import pseudo_label


def _write(
    job: tuple[Path, np.ndarray, np.ndarray, np.ndarray],
    *,
    names: tuple[str, ...],
    **options,
):
    """Make one pseudo label and write it; runs in a worker process."""
    out, image, probs, labels = job
    made = pseudo_label(image, probs, labels, **options)
    write_palette_png(out, made, names=names)


def _claim(out: Path, net, *, profile: Profile, recipe: Recipe):
    """Note whose labels a folder holds; refuse one that holds another network's."""
    note = out.with_name(f"{out.name}.source")
    rule = (net.size, recipe.suppress, recipe.crf, profile.crf_scale)
    data = class_digest(profile.data, profile.voc, profile.train_list, contents=True)
    source = f"{_digest(net)}\n{rule}\n{data}\n"
    known = _noted(note)
    if known != source.splitlines() and any(out.glob("*.png")):
        raise JswsError(
            f"{out} holds pseudo labels of another network, CRF preset or scale, or of "
            "pictures or labels as they were before; choose another folder, or delete "
            "this one"
        )
    write_bytes(note, source.encode())


def _digest(net) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _noted(note: Path) -> list[str] | None:
    """The lines of a note; None where there is none."""
    advice = "delete it, and the pseudo labels that it speaks of"
    if not os.path.lexists(note):
        return None
    return read_text(note, advice=advice).splitlines()


def check_teacher(labels: Path, net):
    """Refuse pseudo labels that `make_pseudo_labels` noted to be of another network.

    Raises:
        JswsError: they are; labels from elsewhere have no note and pass.
    """
    known = _noted(labels.with_name(f"{labels.name}.source"))
    if known is not None and known[:1] != [_digest(net)]:
        raise JswsError(
            f"{labels} holds pseudo labels of another network than --teacher; "
            "name the one that made them, or leave --pseudo-labels out"
        )


def _shown(path: Path, *, names: tuple[str, ...]) -> set[int]:
    """The categories in a mask; runs in a worker process."""
    from data_utils.pictures import read_class_mask

    values = enumerate(read_class_mask(path, names=names).histogram())
    return {value for value, count in values if count} - {0, VOID}


def check_labels(folder: Path, *, profile: Profile, recipe: Recipe):
    """Refuse pseudo labels from elsewhere with a category that their image's labels lack.

    Raises:
        JswsError: there is one, and it is none that `suppress=logits` lets through.
    """
    from data_utils.datasets import Augmentation, ClassificationSet

    crop = Augmentation(profile.size)
    data = ClassificationSet(
        profile.data / profile.voc, profile.train_list, augmentation=crop
    )
    paths = [folder / f"{name}.png" for name in data.ids]
    workers = 0 if len(paths) < FEW else None
    shown = in_parallel(partial(_shown, names=data.names), paths, workers=workers)
    bar = tqdm(zip(paths, data.labels, shown, strict=True), total=len(paths), leave=False)
    foreign = [path for path, t, there in bar if not all(t[k - 1] for k in there)]
    if foreign and recipe.suppress != "logits":
        raise JswsError(
            f"{foreign[0]} shows a category that its image's labels lack, as do "
            f"{len(foreign):,} of {len(paths):,} pseudo labels; make them anew, or ask for "
            "--set suppress=logits, which may leave such in"
        )


def make_pseudo_labels(
    net, *, profile: Profile, recipe: Recipe, out: Path, workers: int | None = None
) -> Path:
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
    from data_utils.datasets import Augmentation, ClassificationSet
    from data_utils.pictures import read_image
    from jsws_lib.engine.cam import cam_scores, class_activation_maps
    from jsws_lib.inference import predict

    out.mkdir(parents=True, exist_ok=True)
    data = ClassificationSet(
        profile.data / profile.voc,
        profile.train_list,
        augmentation=Augmentation(profile.size),
    )
    if is_main():
        _claim(out, net, profile=profile, recipe=recipe)
    rank, ranks = process_share()
    done = {path.stem for path in out.glob("*.png")}
    todo = [k for k, name in enumerate(data.ids) if name not in done][rank::ranks]
    wait_for_everyone()  # or one would count what another has just done
    rule = {"rule": recipe.suppress, "preset": recipe.crf, "scale": profile.crf_scale}
    work = partial(_write, names=data.names, **rule)
    paths = [data.voc / "JPEGImages" / f"{data.ids[k]}.jpg" for k in todo]

    def maps(one, labels):
        if recipe.suppress != "cam":
            return one.probs
        return cam_scores(class_activation_maps(one, labels))

    jobs = (
        (
            out / f"{path.stem}.png",
            np.asarray(read_image(path)),
            maps(one, data.labels[k]),
            data.labels[k],
        )
        for k, path, one in zip(
            todo, paths, predict(net, map(read_image, paths)), strict=True
        )
    )
    pydensecrf()  # warns where it is missing: here once, rather than in each worker
    results = in_parallel(work, jobs, workers=workers)
    how = {"total": len(todo), "desc": "pseudo labels", "leave": False, "mininterval": 1}
    for _ in tqdm(results, **how, disable=not is_main()):
        pass
    wait_for_everyone()
    return out
