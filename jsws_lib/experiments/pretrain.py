"""Pre-training of the mini backbone: single drawings play ImageNet.

Section 4.1 starts from ImageNet features. On a laptop a small DenseNet first learns to
name single drawings, the 20 categories and all else that `embedded.openmoji` draws;
its features are shipped as `checkpoints/densenet_mini.safetensors`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from data_utils.embedded.mini import pretraining_images
from data_utils.embedded.openmoji import CATEGORIES
from data_utils.errors import JswsError
from data_utils.files import check_place
from jsws_lib.backbones import MINI_WEIGHTS, Backbone, mini_classifier
from jsws_lib.config import ROOT, Schedule
from jsws_lib.engine.checkpoints import enter, save_weights
from jsws_lib.engine.devices import pick_device
from jsws_lib.training import make_optimizer, seed_everything, set_rate

OUT = ROOT / "runs" / "pretrain" / MINI_WEIGHTS.name
SCHEDULE = Schedule("adamw", 6e-3, weight_decay=0.02, kind="onecycle")


def pretrain(
    *,
    images: int = 16_000,
    val_images: int = 1_000,
    size: int = 64,
    epochs: int = 5,
    batch: int = 64,
    seed: int = 0,
    out: Path = OUT,
) -> float:
    """Train the mini DenseNet to name drawings and store its features.

    Args:
        images, val_images, size: how many to draw, and their side in px.
        epochs, batch, seed: of the training.
        out: safetensors file; entered in the manifest beside it if it is the shipped one.

    Returns:
        top-1 accuracy on new pictures of the same drawings, in [0, 1].

    Raises:
        JswsError: fewer images than fill a batch, or `out` cannot be written.
    """
    if images < batch:
        raise JswsError(f"{images} images do not fill a batch; choose {batch} or more")
    check_place(out)
    pixels, targets = _drawings(images, seed=seed, size=size)
    seed_everything(seed)
    device = pick_device()
    net = mini_classifier(len(CATEGORIES))
    # The same normalisation as in SSNet, where the features will be used.
    prepare = Backbone(nn.Identity(), 3, stride=1, skip_stages=())
    model = nn.Sequential(prepare, net).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(net, SCHEDULE)
    per_epoch = images // batch
    steps = epochs * per_epoch
    bar = tqdm(range(steps), desc="pre-training", leave=False)
    for step in bar:
        if step % per_epoch == 0:
            chunks = torch.randperm(images).split(batch)
        at = chunks[step % per_epoch]
        set_rate(optimizer, SCHEDULE, step, steps)
        scores, wanted = model(_augment(pixels[at]).to(device)), targets[at].to(device)
        loss = nn.functional.cross_entropy(scores, wanted, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)

    pixels, targets = _drawings(val_images, seed=seed, size=size, split="pretrain_val")
    accuracy = _accuracy(model.eval(), pixels, targets, device)
    command = (
        f"jsws pretrain --images {images} --epochs {epochs} --size {size} --seed {seed}"
    )
    figures = {"accuracy": round(accuracy, 4), "categories": len(CATEGORIES)}
    save_weights(out, net.features, {"seed": seed, "command": command, **figures})
    if out.resolve() == MINI_WEIGHTS.resolve():
        enter(out, command=command, seed=seed, figures=figures)
    return accuracy


def _drawings(count: int, **options) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) uint8, and what each of them shows."""
    pixels, targets = map(torch.from_numpy, pretraining_images(count, **options))
    return pixels.permute(0, 3, 1, 2), targets


@torch.inference_mode()
def _accuracy(model: nn.Module, pixels: Tensor, targets: Tensor, device) -> float:
    scores = torch.cat([model(part.to(device)).cpu() for part in pixels.split(256)])
    return (scores.argmax(1) == targets).float().mean().item()


def _augment(image: Tensor) -> Tensor:
    """Mirror half of a batch and shift it by up to 4 px, (B, 3, H, W) uint8."""
    flip = torch.rand(len(image)) < 0.5
    image = torch.where(flip[:, None, None, None], image.flip(-1), image)
    dy, dx = torch.randint(-4, 5, (2,)).tolist()
    return image.roll((dy, dx), (-2, -1))
