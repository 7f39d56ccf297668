"""The two training sets of Section 3.4 and the two test sets, read from official layouts.

`ClassificationSet` is D_c: VOC images with image labels only. `SaliencySet` is D_s: images
with a class-agnostic mask. Training samples are random 9/10 crops (Section 4.1); crop k of
a run depends on (seed, k) alone, whatever the number of loader processes.
"""

import os
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from data_utils.categories import all_labels, categories
from data_utils.decoded import Decoded, read_pictures
from data_utils.errors import JswsError
from data_utils.pictures import (
    list_pictures,
    read_class_mask,
    read_image,
    read_saliency_mask,
)
from data_utils.voc import FETCH, VOID, read_ids

MEAN_COLOUR = (124, 116, 104)  # fills the corners of a rotated picture


@dataclass(frozen=True)
class Augmentation:
    """Random crop and resize (Section 4.1), mirroring and rotation (unstated)."""

    size: int  # px, side of the square result
    crop: float = 0.9  # of each side
    flip: bool = True
    rotate: float = 0.0  # degrees either way

    def __call__(self, rng: np.random.Generator, image: Image.Image, *masks: Image.Image):
        """Apply one random draw to an image and its masks (filled with 255)."""
        w, h = image.size
        at, angle, mirror = self._draw(rng)
        left, top = at * (1 - self.crop) * (w, h)
        box = (left, top, left + self.crop * w, top + self.crop * h)

        def one(picture: Image.Image, resample: int, fill) -> torch.Tensor:
            if angle:
                picture = picture.rotate(angle, resample, fillcolor=fill)
            # One call crops and resizes. Nearest for masks: categories do not mix.
            picture = picture.resize((self.size, self.size), resample, box=box)
            array = np.asarray(picture)
            array = array[:, ::-1] if mirror else array
            return torch.from_numpy(array.copy())  # a picture's own array is read-only

        nearest = Image.Resampling.NEAREST
        bilinear = Image.Resampling.BILINEAR
        return (
            one(image, bilinear, MEAN_COLOUR).permute(2, 0, 1),
            *(one(mask, nearest, VOID) for mask in masks),
        )

    def _draw(self, rng: np.random.Generator):
        """Where the crop lies, each side 0 to 1; degrees of rotation; mirrored or not."""
        at = rng.random(2)
        return at, rng.uniform(-self.rotate, self.rotate), self.flip and rng.random() < 0.5

    @property
    def side(self) -> int:
        """Of the squares of which a crop is `size`, px."""
        return round(self.size / self.crop)

    def cut(self, rng: np.random.Generator, squares: list[np.ndarray]):
        """The same draw from squares of `Decoded`: a slice, so nothing may be rotated.

        Args:
            rng: of the draw.
            squares: (side, side, 3) uint8 of an image and (side, side, 1) of its masks.
        """
        at, _, mirror = self._draw(rng)
        x, y = np.round(at * (self.side - self.size)).astype(int)
        places = slice(y, y + self.size), slice(x, x + self.size)
        cut = [one[places][:, :: -1 if mirror else 1] for one in squares]
        planes = [np.ascontiguousarray(one.transpose(2, 0, 1)) for one in cut]
        image, *masks = map(torch.from_numpy, planes)
        return (image, *(mask[0] for mask in masks))


class _TrainingSet(Dataset):
    """Shared by D_c and D_s: index by `(image, draw)`, decode, augment.

    `cache` is "none"; "memory", every picture as it was decoded, for small sets; or
    "decoded", squares in a memory-mapped file (`decoded.py`), for large ones; what is
    rotated is cut from the pictures themselves.
    `_files(index)` of a subclass gives the `Files` of a sample.
    """

    def __init__(
        self, augmentation: Augmentation, seed: int, cache: str, name: str, folder: Path
    ):
        self.augmentation, self.seed = augmentation, seed
        self._memory: dict | None = {} if cache == "memory" else None
        self._decoded = None
        if cache == "decoded" and not augmentation.rotate:
            folder = Path(os.environ.get("JSWS_CACHE") or folder)
            files = [self._files(k) for k in range(len(self))]
            self._decoded = Decoded(files, name=name, side=augmentation.side, folder=folder)

    def _draw(self, index: int, draw: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng([self.seed, draw])
        if self._decoded is not None:
            return self.augmentation.cut(rng, self._decoded[index])
        known = {} if self._memory is None else self._memory
        if index not in known:
            known[index] = read_pictures(self._files(index))
        return self.augmentation(rng, *known[index])


class ClassificationSet(_TrainingSet):
    """D_c: VOC images and image labels from their XML; no pixel mask is opened.

    Or your own pictures, labels and categories, see `jsws data adopt`.

    Args:
        voc: a `VOC2012` folder.
        list_name: an id list in `ImageSets/Segmentation`.
        augmentation: random crop and resize.
        seed: of the crops.
        pseudo_labels: folder of `<id>.png`, to train stage 2.
        leaky_labels: take the labels from the cropped ground-truth mask, as the released
            code does: it leaks pixel annotations, for comparison only.
        cache: "none", "memory" or "decoded", see `_TrainingSet`.

    A sample is a dict: `index` in `ids`, `image` (3, size, size) uint8, `labels` t (C,)
    float32 and, with `pseudo_labels`, `pseudo_label` (size, size) int64 with 255 to ignore.

    Raises:
        JswsError: a list, image, XML or pseudo label is missing or broken.
    """

    def __init__(
        self,
        voc: Path | str,
        list_name: str = "train_aug",
        *,
        augmentation: Augmentation,
        seed: int = 0,
        pseudo_labels: Path | str | None = None,
        leaky_labels: bool = False,
        cache: str = "none",
    ):
        self.voc = Path(voc)
        self.ids = read_ids(
            self.voc / "ImageSets" / "Segmentation" / f"{list_name}.txt",
            image_dir=self.voc / "JPEGImages",
        )
        self.labels = all_labels(self.voc, self.ids)
        self.names = categories(self.voc)
        self.pseudo_labels = pseudo_labels and Path(pseudo_labels)
        self.leaky_labels = leaky_labels
        masks = [self.voc / "SegmentationClass" / f"{i}.png" for i in self.ids]
        if leaky_labels and (lost := [mask for mask in masks if not mask.is_file()]):
            raise JswsError(
                "leaky labels come from the masks of training images, but "
                f"{len(lost):,} of {len(masks):,} are missing, the first is {lost[0]}; "
                "the embedded data have none on purpose"
            )
        super().__init__(augmentation, seed, cache, list_name, self.voc / ".decoded")

    def __len__(self):
        return len(self.ids)

    def _files(self, index):
        name = self.ids[index]
        image = (self.voc / "JPEGImages" / f"{name}.jpg", read_image)
        leaky = self.leaky_labels and self.voc / "SegmentationClass"
        folders = filter(None, (self.pseudo_labels, leaky))
        reader = partial(read_class_mask, names=self.names)
        return (image, *((folder / f"{name}.png", reader) for folder in folders))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, draw = key
        image, *masks = self._draw(index, draw)
        sample = {
            "index": index,
            "image": image,
            "labels": torch.from_numpy(self.labels[index]),
        }
        if self.pseudo_labels:
            sample["pseudo_label"] = masks[0].long()
        if self.leaky_labels:
            seen = torch.bincount(masks[-1].flatten(), minlength=VOID + 1) > 0
            sample["labels"] = seen[1 : self.labels.shape[1] + 1].float()
        return sample


class SaliencySet(_TrainingSet):
    """D_s: images and class-agnostic saliency masks, paired by file name.

    A sample is a dict: `index` in `ids`, `image` (3, size, size) uint8 and `sal_mask` Y
    (size, size) uint8, 1 salient, 0 not, 255 outside a rotated picture.

    Raises:
        JswsError: a folder is missing or empty, or an image has no mask.
    """

    def __init__(
        self,
        images: Path | str,
        masks: Path | str,
        *,
        augmentation: Augmentation,
        seed: int = 0,
        ids: list[str] | None = None,
        cache: str = "none",
    ):
        self.pairs = saliency_pairs(images, masks, ids=ids)
        self.ids = [image.stem for image, _ in self.pairs]
        super().__init__(
            augmentation, seed, cache, Path(images).name, Path(images).parent / ".decoded"
        )

    def __len__(self):
        return len(self.pairs)

    def _files(self, index):
        image, mask = self.pairs[index]
        return (image, read_image), (mask, read_saliency_mask)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        image, mask = self._draw(*key)
        return {"index": key[0], "image": image, "sal_mask": mask}


def saliency_pairs(
    images: Path | str, masks: Path | str, *, ids: list[str] | None = None
) -> list[tuple[Path, Path]]:
    """Pair the pictures of two folders by name, sorted by it.

    Raises:
        JswsError: a folder is missing or empty, holds two pictures of one name, or a
            listed image or a mask is missing.
    """
    found, have = (
        list_pictures(folder) if Path(folder).is_dir() else {} for folder in (images, masks)
    )
    if not found:
        raise JswsError(f"no picture in {images}; {FETCH}")
    if missing := [i for i in ids or () if i not in found]:
        raise JswsError(f"{Path(images) / missing[0]}.jpg is listed but missing")
    wanted = ids or sorted(found)
    if lost := [i for i in wanted if i not in have]:
        raise JswsError(
            f"{len(lost)} masks are missing, the first is {Path(masks) / lost[0]}.png"
        )
    return [(found[i], have[i]) for i in wanted]


@dataclass
class Draws(Sampler):
    """An endless shuffled walk through a set, as `(index, draw)`, cut to length.

    Draw k depends on (seed, k) alone, so that a run can be taken up at any step, and that
    several processes can share a batch: each takes its own draws, none takes another's.

    Args:
        n: images.
        start, stop: draws.
        seed: of the order.
        batch: draws a step, for `share`.
        share: (rank, ranks): of each batch the part that one of several processes takes.
    """

    n: int
    _: KW_ONLY
    start: int
    stop: int
    seed: int
    batch: int = 1
    share: tuple[int, int] = (0, 1)

    def __len__(self):
        return (self.stop - self.start) // self.share[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, ranks = self.share
        epoch, order = -1, None
        for draw in range(self.start, self.stop):
            if draw % self.batch * ranks // self.batch != rank:
                continue
            if draw // self.n != epoch:
                epoch = draw // self.n
                order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
            yield int(order[draw % self.n]), draw


def batches(
    data: Dataset,
    batch: int,
    *,
    steps: int,
    start: int = 0,
    seed: int = 0,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """A loader of `steps - start` batches, those an uninterrupted run would see.

    Args:
        batch: images a step, of all processes together.
        seed: of the order.
        share: (rank, ranks) of this process.

    Raises:
        JswsError: the batch cannot be shared evenly.
    """
    if batch % share[1]:
        raise JswsError(
            f"a batch of {batch} cannot be shared by {share[1]} processes; "
            f"choose a multiple: --batch {share[1] * (batch // share[1] + 1)}"
        )
    part = {"start": start * batch, "stop": steps * batch, "batch": batch, "share": share}
    draws = Draws(len(data), seed=seed, **part)
    return DataLoader(
        data,
        batch // share[1],
        sampler=draws,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
