"""The two training sets of Section 3.4 and the two test sets, read from official layouts.

`ClassificationSet` is D_c: VOC images with image labels only. `SaliencySet` is D_s: images
with a class-agnostic mask. Training samples are random 9/10 crops (Section 4.1); crop k of
a run depends on (seed, k) alone, whatever the number of loader processes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from data_utils.decoded import CACHES, Decoded, Files, read_pictures
from data_utils.errors import JswsError
from data_utils.voc import NUM_CLASSES, VOID, image_labels, read_ids

MEAN_COLOUR = (124, 116, 104)  # fills the corners of a rotated picture


def open_picture(path: Path | str) -> Image.Image:
    """Open and decode a picture.

    Raises:
        JswsError: no such file, or not a whole picture.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise JswsError(f"no picture at {path}") from None
    except (OSError, SyntaxError) as error:
        raise JswsError(
            f"{path} cannot be decoded ({error}); download or copy it again"
        ) from None


def read_image(path: Path | str) -> Image.Image:
    """Read an RGB picture. Raises JswsError as `open_picture` does."""
    return open_picture(path).convert("RGB")


def read_saliency_mask(path: Path | str) -> Image.Image:
    """Read Y as a picture of mode L with values 0 and 1.

    Masks in the wild are 1-bit, 0/1, 0/255 or graded; half of full scale decides.
    """
    # convert("L") of a 1-bit picture gives 0 and 255.
    values = np.asarray(open_picture(path).convert("L"))
    half = 127 if values.max() > 1 else 0
    return Image.fromarray((values > half).astype(np.uint8))


def read_class_mask(path: Path | str) -> Image.Image:
    """Read a VOC label picture as mode L: 0 to 20, or 255 (void).

    Raises:
        JswsError: RGB instead of indexed, or a value no category has.
    """
    picture = open_picture(path)
    if picture.mode not in ("P", "L"):
        raise JswsError(
            f"{path} is a {picture.mode} picture, expected an indexed (P) or grey (L) "
            "one that stores category numbers"
        )
    values = np.asarray(picture)
    wrong = set(np.unique(values).tolist()) - {*range(NUM_CLASSES + 1), VOID}
    if wrong:
        raise JswsError(
            f"{path} holds the value {min(wrong)}; a VOC mask holds 0 to {NUM_CLASSES} "
            f"and {VOID}"
        )
    return Image.fromarray(values)


@dataclass(frozen=True)
class Augmentation:
    """Random crop and resize (Section 4.1), mirroring and rotation (unstated)."""

    size: int  # px, side of the square result
    crop: float = 0.9  # of each side
    flip: bool = True
    rotate: float = 0.0  # degrees either way

    def __call__(
        self, rng: np.random.Generator, image: Image.Image, *masks: Image.Image
    ):
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

    def cut(self, rng: np.random.Generator, square: np.ndarray, size: tuple[int, int]):
        """The same draw from a square of `Decoded`: a slice, if nothing is rotated.

        Args:
            rng: of the draw.
            square: (side, side, 3 + masks) uint8.
            size: (width, height) of the picture that the square was made of.
        """
        at, angle, mirror = self._draw(rng)
        left, top = at * (self.side - self.size)
        if angle:
            square = _turn(square, self.size, (left, top), size, angle)
        else:
            x, y = round(left), round(top)
            square = square[y : y + self.size, x : x + self.size]
        layers = torch.from_numpy(np.array(square[:, ::-1] if mirror else square))
        image, *masks = layers.split([3, *[1] * (layers.shape[2] - 3)], dim=2)
        return (image.permute(2, 0, 1).contiguous(), *(mask[..., 0] for mask in masks))


def _turn(square: np.ndarray, size: int, start: tuple[float, float],
          picture: tuple[int, int], angle: float) -> np.ndarray:  # fmt: skip
    """Cut a crop out of a square as if its picture had been rotated before."""
    side = len(square)
    stretch = np.array(picture) / side  # of a square's pixel, in the picture's
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation * stretch / stretch[:, None]
    offset = side / 2 + matrix @ (np.array(start) - side / 2)
    affine = (*matrix[0], offset[0], *matrix[1], offset[1])

    def one(layer: np.ndarray, resample: int, fill) -> np.ndarray:
        image = Image.fromarray(layer)
        return np.asarray(image.transform((size, size), Image.Transform.AFFINE, affine,
                                          resample, fillcolor=fill))  # fmt: skip

    image = one(np.ascontiguousarray(square[..., :3]), Image.Resampling.BILINEAR,
                MEAN_COLOUR)  # fmt: skip
    masks = [one(np.ascontiguousarray(square[..., k]), Image.Resampling.NEAREST, VOID)
             for k in range(3, square.shape[2])]  # fmt: skip
    return np.dstack([image, *masks])


class _TrainingSet(Dataset):
    """Shared by D_c and D_s: index by `(image, draw)`, decode, augment.

    `cache` is "none"; "memory", every picture as it was decoded, for small sets; or
    "decoded", squares in a memory-mapped file (`decoded.py`), for large ones.
    """

    def __init__(self, augmentation: Augmentation, seed: int, cache: str, name: str,
                 cache_folder: Path | None):  # fmt: skip
        if cache not in CACHES:
            raise JswsError(f"cache '{cache}': choose from {', '.join(CACHES)}")
        self.augmentation, self.seed = augmentation, seed
        self._memory: dict | None = {} if cache == "memory" else None
        self._decoded = None
        if cache == "decoded":
            folder = os.environ.get("JSWS_CACHE") or cache_folder
            files = [self._files(k) for k in range(len(self))]
            self._decoded = Decoded(files, name=name, side=augmentation.side,
                                    folder=Path(folder))  # fmt: skip

    def _files(self, index: int) -> Files:
        raise NotImplementedError

    def _draw(self, index: int, draw: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng([self.seed, draw])
        if self._decoded is not None:
            return self.augmentation.cut(rng, self._decoded[index],
                                         self._decoded.sizes[index])  # fmt: skip
        if self._memory is None:
            pictures = read_pictures(self._files(index))
        elif index not in self._memory:
            pictures = self._memory[index] = read_pictures(self._files(index))
        else:
            pictures = self._memory[index]
        return self.augmentation(rng, *pictures)


class ClassificationSet(_TrainingSet):
    """D_c: VOC images and image labels from their XML; no pixel mask is opened.

    Args:
        voc: a `VOC2012` folder.
        list_name: an id list in `ImageSets/Segmentation`.
        augmentation: random crop and resize.
        seed: of the crops.
        pseudo_labels: folder of `<id>.png`, to train stage 2.
        leaky_labels: take the labels from the cropped ground-truth mask, as the released
            code does: it leaks pixel annotations, for comparison only.
        cache: "none", "memory" or "decoded", see `_TrainingSet`.

    A sample is a dict: `image` (3, size, size) uint8, `labels` t (20,) float32 and, with
    `pseudo_labels`, `pseudo_label` (size, size) int64 with 255 to ignore.

    Raises:
        JswsError: a list, image, XML or pseudo label is missing or broken.
    """

    def __init__(self, voc: Path | str, list_name: str = "train_aug", *,
                 augmentation: Augmentation, seed: int = 0,
                 pseudo_labels: Path | str | None = None, leaky_labels: bool = False,
                 cache: str = "none"):  # fmt: skip
        self.voc = Path(voc)
        self.ids = read_ids(
            self.voc / "ImageSets" / "Segmentation" / f"{list_name}.txt",
            image_dir=self.voc / "JPEGImages",
        )
        self.labels = np.stack(
            [image_labels(self.voc / "Annotations" / f"{i}.xml") for i in self.ids]
        )
        self.pseudo_labels = pseudo_labels and Path(pseudo_labels)
        self.leaky_labels = leaky_labels
        mask = self.voc / "SegmentationClass" / f"{self.ids[0]}.png"
        if leaky_labels and not mask.is_file():
            raise JswsError("leaky labels come from the masks of training images, but "
                            f"there is no {mask}; the embedded data have none on purpose")
        super().__init__(augmentation, seed, cache, list_name, self.voc / ".decoded")

    def __len__(self):
        return len(self.ids)

    def _mask_folders(self) -> list[Path]:
        leak = [self.voc / "SegmentationClass"] if self.leaky_labels else []
        return ([self.pseudo_labels] if self.pseudo_labels else []) + leak

    def _files(self, index):
        name = self.ids[index]
        image = (self.voc / "JPEGImages" / f"{name}.jpg", read_image)
        masks = [folder / f"{name}.png" for folder in self._mask_folders()]
        return (image, *((mask, read_class_mask) for mask in masks))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, draw = key
        image, *masks = self._draw(index, draw)
        sample = {"image": image, "labels": torch.from_numpy(self.labels[index])}
        if self.pseudo_labels:
            sample["pseudo_label"] = masks[0].long()
        if self.leaky_labels:
            seen = torch.bincount(masks[-1].flatten(), minlength=VOID + 1) > 0
            sample["labels"] = seen[1 : NUM_CLASSES + 1].float()
        return sample


class SaliencySet(_TrainingSet):
    """D_s: images and class-agnostic saliency masks, paired by file name.

    A sample is a dict: `image` (3, size, size) uint8 and `sal_mask` Y (size, size) uint8,
    1 salient, 0 not, 255 outside a rotated picture.

    Raises:
        JswsError: a folder is missing or empty, or an image has no mask.
    """

    def __init__(self, images: Path | str, masks: Path | str, *,
                 augmentation: Augmentation, seed: int = 0, ids: list[str] | None = None,
                 cache: str = "none"):  # fmt: skip
        self.pairs = saliency_pairs(images, masks, ids=ids)
        super().__init__(augmentation, seed, cache, Path(images).name,
                         Path(images).parent / ".decoded")  # fmt: skip

    def __len__(self):
        return len(self.pairs)

    def _files(self, index):
        image, mask = self.pairs[index]
        return (image, read_image), (mask, read_saliency_mask)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        image, mask = self._draw(*key)
        return {"image": image, "sal_mask": mask}


def saliency_pairs(images: Path | str, masks: Path | str, *,
                   ids: list[str] | None = None) -> list[tuple[Path, Path]]:  # fmt: skip
    """Pair `<images>/<id>.jpg` with `<masks>/<id>.png`, sorted by id.

    Raises:
        JswsError: a folder is missing or empty, or a listed image or a mask is missing.
    """
    images, masks = Path(images), Path(masks)
    found = {p.stem: p for p in images.glob("*.jpg")}
    if not found:
        raise JswsError(f"no *.jpg in {images}; check the data root")
    if missing := [i for i in ids or () if i not in found]:
        raise JswsError(f"{images / missing[0]}.jpg is listed but missing")
    pairs = [(found[i], masks / f"{i}.png") for i in ids or sorted(found)]
    have = {p.name for p in masks.glob("*.png")}
    if lost := [mask for _, mask in pairs if mask.name not in have]:
        raise JswsError(f"{len(lost)} masks are missing, the first is {lost[0]}")
    return pairs


class Draws(Sampler):
    """An endless shuffled walk through a set, as `(index, draw)`, cut to length.

    Draw k depends on (seed, k) alone, so that a run can be taken up at any step.
    """

    def __init__(self, n: int, *, start: int, stop: int, seed: int):
        self.n, self.start, self.stop, self.seed = n, start, stop, seed

    def __len__(self):
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, None
        for draw in range(self.start, self.stop):
            if draw // self.n != epoch:
                epoch = draw // self.n
                order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
            yield int(order[draw % self.n]), draw


def batches(data: Dataset, batch: int, *, steps: int, start: int = 0, seed: int = 0,
            workers: int = 0) -> DataLoader:  # fmt: skip
    """A loader of `steps - start` batches, those an uninterrupted run would see."""
    draws = Draws(len(data), start=start * batch, stop=steps * batch, seed=seed)
    return DataLoader(data, batch, sampler=draws, num_workers=workers,
                      pin_memory=torch.cuda.is_available(),
                      persistent_workers=workers > 0)  # fmt: skip
