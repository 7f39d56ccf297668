"""A data set decoded once, in one memory-mapped file.

Section 4.1 takes 9/10 of each side of a picture and makes it a square for the network. So
pictures are stored as squares of which 9/10 is that square, 284 px for 256: a crop is then
a slice, with nothing to decode and nothing to resize. Cost: the two resizes of a picture,
here and in the slice's whole pixels, are not quite the one they replace; tests hold how far
a crop may be from the direct one.

The file is (N, side, side, 3 + masks) uint8, in the .npy format. Its name says which list,
which side and, as a digest, which source files of which size and date: when one of them
changes, another name is looked for and the file is made anew.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.parallel import in_parallel

CACHES = ("none", "memory", "decoded")  # of decoded pictures, in a profile
VERSION = 1  # of the layout
ABANDONED = 3600  # s without a write: the process that made a .tmp file is gone
Files = tuple[tuple[Path, Callable], ...]  # of one sample: path and reader, image first


def read_pictures(files: Files) -> tuple[Image.Image, ...]:
    """Read one sample: an RGB picture, then its masks as mode L.

    Raises:
        JswsError: a file is missing or broken, or a mask has another size than its image.
    """
    image, *masks = (reader(path) for path, reader in files)
    for mask, (path, _) in zip(masks, files[1:], strict=True):
        same_size(image, mask, path)
    return (image, *masks)


def same_size(image: Image.Image, mask: Image.Image, mask_path: Path):
    """Raise JswsError unless mask and image have the same size."""
    if image.size != mask.size:
        (w, h), (mw, mh) = image.size, mask.size
        raise JswsError(
            f"{mask_path} is {mw} x {mh} px but its image is {w} x {h} px; a mask must "
            "have its image's size"
        )


class Decoded:
    """Squares of a data set; index it for one sample. Made when it is not there yet.

    Args:
        samples: the files of each sample.
        name: of the data set or list; starts the file's name.
        side: px of the squares.
        folder: where the file is kept.
        workers: processes that decode; default one per core.

    `decoded[i]` is (side, side, 3 + masks) uint8, a view into the file. `decoded.sizes[i]`
    is the picture's own (width, height).

    Raises:
        JswsError: a source is missing or broken, or the disk is full or read-only.
    """

    def __init__(self, samples: Sequence[Files], *, name: str, side: int, folder: Path,
                 workers: int | None = None):  # fmt: skip
        self.path = Path(folder) / f"{name}_{side}_{_digest(samples, side)}.npy"
        if not self.path.is_file():
            _build(samples, self.path, side, workers)
            _remove_others(self.path, f"{name}_{side}_")
        self._squares = None
        self.sizes = np.load(_sizes_of(self.path))

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._squares is None:  # each process maps the file for itself
            self._squares = np.load(self.path, mmap_mode="r")
        return self._squares[index]

    def __getstate__(self) -> dict:
        """What a data-loading process gets: the name of the file, not its contents."""
        return {**vars(self), "_squares": None}


def decode(files: Files, *, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One sample as a square, (side, side, 3 + masks) uint8, and its (width, height)."""
    image, *masks = read_pictures(files)
    square = image.resize((side, side), Image.Resampling.BILINEAR)
    layers = [np.asarray(square)]
    for mask in masks:  # nearest: categories do not mix
        small = mask.resize((side, side), Image.Resampling.NEAREST)
        layers.append(np.asarray(small)[..., None])
    return np.concatenate(layers, axis=2), image.size


def _build(samples: Sequence[Files], path: Path, side: int, workers: int | None):
    """Write the file under a temporary name; rename it when it is whole."""
    shape = (len(samples), side, side, 2 + len(samples[0]))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        need, free = np.prod(shape, dtype=float), shutil.disk_usage(path.parent).free
        if need > 0.98 * free:
            raise JswsError(
                f"decoded pictures need {need / 1e9:.1f} GB in {path.parent}, "
                f"{free / 1e9:.1f} GB are free; make room, name another folder in "
                "$JSWS_CACHE, or train with --cache none"
            )
        squares = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        sizes = np.zeros((len(samples), 2), np.int32)
        results = in_parallel(partial(decode, side=side), samples, workers=workers)
        bar = tqdm(results, total=len(samples), desc="decoding once", unit="picture")
        for k, (square, size) in enumerate(bar):
            squares[k], sizes[k] = square, size
        squares.flush()
        del squares
        np.save(_sizes_of(path), sizes)
        os.replace(temporary, path)  # last: a file with this name is whole
    except OSError as error:
        raise JswsError(
            f"decoded pictures cannot be written to {path.parent} ({error.strerror}); name "
            "another folder in $JSWS_CACHE, or train with --cache none"
        ) from None
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _sizes_of(path: Path) -> Path:
    return path.with_suffix(".sizes.npy")


def _remove_others(path: Path, prefix: str):
    """Files of the same set, made from sources that have changed since."""
    for other in path.parent.glob(f"{prefix}*.npy"):
        if other not in (path, _sizes_of(path)):
            other.unlink(missing_ok=True)


def _remove_abandoned(folder: Path):
    for left in folder.glob(".*.tmp"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            left.unlink(missing_ok=True)


def _digest(samples: Sequence[Files], side: int) -> str:
    """Of every source's name, size and date, and of how it is read."""
    known = []
    for files in samples:
        for path, reader in files:
            try:
                found = path.stat()
            except FileNotFoundError:
                raise JswsError(f"no picture at {path}") from None
            known.append((path.name, found.st_size, found.st_mtime_ns, reader.__name__))
    text = json.dumps([VERSION, side, known])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
