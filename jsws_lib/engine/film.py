"""A film of a training: what a network says about the same images, again and again.

The frames lie close together at the start, where most happens. The first images of the
validation set play; nothing of their masks is used.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.pictures import read_image
from data_utils.voc import read_ids
from jsws_lib.config import Profile
from jsws_lib.inference import predict
from jsws_lib.ssnet import SSNet

ACTORS, FRAMES = 8, 16


class Film(NamedTuple):
    """F frames of N images (H, W)."""

    steps: np.ndarray  # (F,) int, steps done at each frame
    images: np.ndarray  # (N, H, W, 3) uint8
    segmentation: np.ndarray  # (F, N, H, W) uint8, categories
    saliency: np.ndarray  # (F, N, H, W) uint8, 255 S

    def at(self, step: int) -> int:
        """The last frame that was taken by `step`; the first if none was."""
        return max(0, int(np.searchsorted(self.steps, step, side="right")) - 1)


def recorder(profile: Profile, steps: int, out: Path) -> Callable:
    """Give an `on_step` for `train` that takes the frames and writes `out` at the end.

    A training that was taken up again has no frames from before the break.

    Raises:
        JswsError: the validation list or an image is missing.
    """
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets" / "Segmentation" / f"{profile.val_list}.txt")
    images = [read_image(voc / "JPEGImages" / f"{name}.jpg") for name in ids[:ACTORS]]
    wanted, frames = frame_steps(steps), []

    def on_step(step: int, net: SSNet, record: dict):
        if step + 1 not in wanted:
            return
        net.eval()
        seen = list(predict(net, images))
        net.train()
        # 32 grey levels look the same and take a third of the room.
        saliency = [(p.sal_map * 31).round().astype(np.uint8) * np.uint8(8) for p in seen]
        frames.append(
            (step + 1, np.stack([p.segmentation for p in seen]), np.stack(saliency))
        )
        if step + 1 == steps:
            at, segmentation, saliency = map(np.array, zip(*frames, strict=True))
            film = Film(at, np.stack(images), segmentation, saliency)
            file = io.BytesIO()
            np.savez_compressed(file, **film._asdict())
            write_bytes(out, file.getvalue())

    return on_step


def frame_steps(steps: int) -> list[int]:
    """When frames are taken: counted steps, growing quadratically from 1 to `steps`."""
    return sorted({1 + round((steps - 1) * (k / (FRAMES - 1)) ** 2) for k in range(FRAMES)})


def load(path: Path) -> Film:
    """Read a film.

    Raises:
        JswsError: there is none, or the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Film(**{name: arrays[name] for name in Film._fields})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise JswsError(
            f"{path} is not a film of a training ({error}); train again, or restore it "
            "with `git checkout -- checkpoints`"
        ) from None
