"""Pseudo labels of a whole training set, written by several processes (Section 3.4).

One pass over D_c without augmentation. The network hands each image to a pool of CRF
processes as soon as it is predicted, and its PNG is written at once: nothing is kept.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from data_utils.categories import all_labels, categories
from data_utils.errors import JswsError
from data_utils.files import read_text, write_bytes
from data_utils.identity import class_digest
from data_utils.parallel import in_parallel, is_main, process_share, wait_for_everyone
from data_utils.pictures import read_class_mask, read_image
from data_utils.voc import VOID, read_ids, write_palette_png
from jsws_lib.config import Profile, Recipe
from jsws_lib.crf import pydensecrf
from jsws_lib.pseudo_labels import pseudo_label


def _labelled(profile: Profile) -> tuple[Path, list[str], np.ndarray]:
    """The VOC folder, ids and image labels of D_c."""
    voc = profile.data / profile.voc
    list_file = voc / "ImageSets" / "Segmentation" / f"{profile.train_list}.txt"
    ids = read_ids(list_file, image_dir=voc / "JPEGImages")
    return voc, ids, all_labels(voc, ids)


def _note(labels: Path) -> tuple[Path, list[str] | None]:
    """The file beside a folder of pseudo labels that says whose they are, and its lines."""
    note = labels.with_name(f"{labels.name}.source")
    advice = "delete it, and the pseudo labels that it speaks of"
    there = os.path.lexists(note)
    return note, read_text(note, advice=advice).splitlines() if there else None


def _digest(net) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _maker(net, profile: Profile, recipe: Recipe) -> list[str]:
    """What makes pseudo labels: a network and a rule."""
    rule = (net.size, recipe.suppress, recipe.crf, profile.crf_scale)
    rule += ("mirror",) * recipe.mirror
    return [_digest(net), str(rule)]


def _claim(out: Path, net, *, profile: Profile, recipe: Recipe):
    """Note whose labels a folder holds; refuse one that holds another network's."""
    data = class_digest(profile.data, profile.voc, profile.train_list)
    source = [*_maker(net, profile, recipe), data]
    note, known = _note(out)
    if known != source and any(out.glob("*.png")):
        raise JswsError(
            f"{out} holds pseudo labels of another network, CRF preset or scale, or of "
            "pictures or labels as they were before; choose another folder, or delete "
            "this one"
        )
    write_bytes(note, "".join(f"{line}\n" for line in source).encode())


def check_source(labels: Path, net, *, profile: Profile, recipe: Recipe):
    """Refuse pseudo labels that are noted to be of another network, or another rule.

    Raises:
        JswsError: they are; labels from elsewhere have no note and pass.
    """
    _, known = _note(labels)
    if known is None:
        return
    network, rule = _maker(net, profile, recipe)
    if known[:1] != [network]:
        raise JswsError(
            f"{labels} holds pseudo labels of another network than the teacher: name the "
            "one that made them by --teacher, or leave --pseudo-labels out"
        )
    if known[1:2] != [rule]:
        raise JswsError(
            f"{labels} holds pseudo labels made by (size, suppress, crf, crf_scale) = "
            f"{', '.join(known[1:2])}, not {rule}: ask for the same by --set, or leave "
            "--pseudo-labels out"
        )


def _shown(path: Path, *, names: tuple[str, ...]) -> set[int]:
    """The categories in a mask; runs in a worker process."""
    values = enumerate(read_class_mask(path, names=names).histogram())
    return {value for value, count in values if count} - {0, VOID}


def check_labels(folder: Path, *, profile: Profile, recipe: Recipe):
    """Refuse pseudo labels from elsewhere with a category that their image's labels lack.

    Raises:
        JswsError: there is one, and it is none that `suppress=logits` lets through.
    """
    voc, ids, labels = _labelled(profile)
    paths = [folder / f"{name}.png" for name in ids]
    if missing := [path for path in paths if not path.is_file()]:
        raise JswsError(
            f"{len(missing):,} of {len(paths):,} pseudo labels are missing, {missing[0]} "
            "among them; `jsws pseudo-label` makes them"
        )
    shown = in_parallel(partial(_shown, names=categories(voc)), paths)
    bar = tqdm(zip(paths, labels, shown, strict=True), total=len(paths), leave=False)
    foreign = [path for path, t, there in bar if not all(t[k - 1] for k in there)]
    if foreign and recipe.suppress != "logits":
        raise JswsError(
            f"{foreign[0]} shows a category that its image's labels lack, as do "
            f"{len(foreign):,} of {len(paths):,} pseudo labels; make them anew, or ask for "
            "--set suppress=logits, which may leave such in"
        )


def _predicted(net, files: list[Path], labels: np.ndarray, rule: str) -> Iterator[tuple]:
    """Path, picture, scores and image labels of each, for `_write`."""
    # Imported here because each worker imports this file, and PyTorch takes it seconds.
    from jsws_lib.engine.cam import cam_scores, class_activation_maps
    from jsws_lib.inference import predict

    found = predict(net, map(read_image, files))
    for file, t, one in zip(files, labels, found, strict=True):
        scores = cam_scores(class_activation_maps(one, t)) if rule == "cam" else one.probs
        yield file, np.asarray(read_image(file)), scores, t


def _write(job: tuple, *, out: Path, names: tuple[str, ...], **options):
    """Make one pseudo label and write it; runs in a worker process."""
    file, *maps = job
    made = pseudo_label(*maps, **options)
    write_palette_png(out / f"{file.stem}.png", made, names=names)


def make_pseudo_labels(
    net, *, profile: Profile, recipe: Recipe, out: Path, workers: int | None = None
) -> Path:
    """Write `<out>/<id>.png` for every image of D_c, skipping those already there.

    Several processes share the images.

    Args:
        net: SSNet-1 in evaluation mode.
        profile, recipe: data; CRF preset, suppression rule, `mirror`, which it keeps.
        out: folder; every file in it is whole.
        workers: CRF processes; default one per core, 0 for none.

    Returns:
        `out`.

    Raises:
        JswsError: data are missing or broken, or `out` holds labels of another network
            or CRF.
    """
    out.mkdir(parents=True, exist_ok=True)
    net.mirror = recipe.mirror  # as is asked for here, whatever it was trained under
    voc, ids, labels = _labelled(profile)
    if is_main():
        _claim(out, net, profile=profile, recipe=recipe)
    rank, ranks = process_share()
    done = {path.stem for path in out.glob("*.png")}
    todo = [k for k, name in enumerate(ids) if name not in done][rank::ranks]
    wait_for_everyone()  # or one would count what another has just done
    files = [voc / "JPEGImages" / f"{ids[k]}.jpg" for k in todo]
    rule = {"rule": recipe.suppress, "preset": recipe.crf, "scale": profile.crf_scale}
    work = partial(_write, out=out, names=categories(voc), **rule)
    pydensecrf()  # warns where it is missing: here once, rather than in each worker
    jobs = _predicted(net, files, labels[todo], recipe.suppress)
    results = in_parallel(work, jobs, workers=workers)
    how = {"total": len(todo), "desc": "pseudo labels", "leave": False, "mininterval": 1}
    for _ in tqdm(results, **how, disable=not is_main()):
        pass
    wait_for_everyone()
    return out
