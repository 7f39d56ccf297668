"""A data set decoded once, in memory-mapped files.

Section 4.1 takes 9/10 of each side of a picture and makes it a square for the network. So
pictures are stored as squares of which 9/10 is that square, 284 px for 256: a crop is then
a slice, with nothing to decode and nothing to resize. Cost: the two resizes of a picture,
here and in the slice's whole pixels, are not quite the one they replace; tests hold how far
a crop may be from the direct one.

Images are a file, (N, side * side * 3 + 8) uint8 in the .npy format: a square, and the
picture's own width and height as two int32. Masks are files of their own, (N, side * side),
so that students with pseudo labels of their own share the images. A file's name says which
list, which side and, as two digests, which source files, and of which size and date they
are: when one of them changes, another name is looked for and the file is made anew.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import remove_left, whole
from data_utils.parallel import in_parallel
from data_utils.pictures import same_size

VERSION = 3  # of the layout, and of what readers make of a file
SIZE = 8  # bytes of a picture's width and height
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


class Decoded:
    """Squares of a data set; index it for one sample. Made where they are not there yet.

    Args:
        samples: the files of each sample.
        name: of the data set or list; starts the file's name.
        side: px of the squares.
        folder: where the files are kept.

    `decoded[i]` are squares, (side, side, 3) uint8 of the image and (side, side, 1) of each
    mask, views into the files.

    Raises:
        JswsError: a source is missing or broken, or the disk is full or read-only.
    """

    def __init__(self, samples: Sequence[Files], *, name: str, side: int, folder: Path):
        images, *masks = zip(*samples, strict=True)
        how = {"name": name, "side": side, "folder": folder}
        self.images, self.side = _Layer(images, **how), side
        self.masks = [_Layer(one, self.images, **how) for one in masks]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index: int) -> list[np.ndarray]:
        rows = [self.images[index][:-SIZE], *(one[index] for one in self.masks)]
        return [row.reshape(self.side, self.side, -1) for row in rows]


class _Layer:
    """The images, or the masks of one kind of those images, of all samples: one file."""

    def __init__(self, files: Files, images=None, *, name: str, side: int, folder: Path):
        self.files, prefix = files, f"{name}_{side}_{_files_digest(files, folder)}_"
        sources = files + (images.files if images else ())
        self.path = folder / f"{prefix}{_state_digest(sources, side)}.npy"
        try:
            len(self)  # maps it
        except (OSError, ValueError, EOFError):  # not there, or what a power cut left
            sizes = images.sizes() if images else [None] * len(files)
            _build(list(zip(files, sizes, strict=True)), self.path, side)
            for other in folder.glob(f"{prefix}*.npy"):  # of these files before a change
                if other != self.path:
                    other.unlink(missing_ok=True)
            len(self)

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(self._rows[index])  # of a memory map each slice would be one, too

    def sizes(self) -> list[tuple[int, int]]:
        """The own (width, height) of each image."""
        return [tuple(self[k][-SIZE:].view(np.int32).tolist()) for k in range(len(self))]

    def __getstate__(self) -> dict:
        """What a data-loading process gets: the file's name, to map it for itself."""
        return {"path": self.path}


def decode(job: tuple, *, side: int) -> np.ndarray:
    """An image, or a mask of an image of some size, as a row of its file."""
    (path, reader), size = job
    picture = reader(path)
    if size is None:
        square = picture.resize((side, side), Image.Resampling.BILINEAR)
        size = np.array(picture.size, np.int32).view(np.uint8)
        return np.concatenate([np.asarray(square).ravel(), size])
    same_size(Image.new("1", size), picture, path)
    square = picture.resize((side, side), Image.Resampling.NEAREST)  # categories do not mix
    return np.asarray(square).ravel()


def _build(jobs: Sequence[tuple], path: Path, side: int):
    """Write the rows of a file, which appears when it is whole."""
    row = side * side * 3 + SIZE if jobs[0][1] is None else side * side
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(jobs), row)}
    more = " in $JSWS_CACHE, or train with --set cache=none"
    with whole(path, more=more) as temporary, open(temporary, "wb") as file:
        remove_left(path.parent, ".*.npy.*.tmp")  # ours: others may use the folder, too
        np.lib.format.write_array_header_1_0(file, header)
        rows = in_parallel(partial(decode, side=side), jobs)
        for one in tqdm(rows, total=len(jobs), desc="decoding once", unit="picture"):
            file.write(one.tobytes())


def _files_digest(files: Files, folder: Path) -> str:
    """Of every source's place and of how they are read; a moved data root is the same."""
    root, reader = folder.resolve().parent, files[0][1]
    parents = {path.parent: path.parent.resolve() for path, _ in files}
    places = {
        parent: str(place.relative_to(root) if place.is_relative_to(root) else place)
        for parent, place in parents.items()
    }
    how = [getattr(reader, "func", reader).__name__, getattr(reader, "keywords", {})]
    return _digest([how, [[places[path.parent], path.name] for path, _ in files]])[:8]


def _state_digest(files: Files, side: int) -> str:
    """Of every source's size and date."""
    known = []
    for path, _ in files:
        try:
            found = path.stat()
        except OSError:
            raise JswsError(f"no picture at {path}") from None
        known.append((found.st_size, found.st_mtime_ns))
    return _digest([VERSION, side, known])


def _digest(known: list) -> str:
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
