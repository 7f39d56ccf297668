"""Pre-training of the mini backbone: single drawings play ImageNet.

Section 4.1 starts from ImageNet features. On a laptop a small DenseNet first learns to
name single drawings, the 20 categories and everything else `data_utils.openmoji` draws;
its features are shipped as `checkpoints/densenet_mini.safetensors`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.mini import pretraining_images
from data_utils.openmoji import CATEGORIES
from jsws_lib.backbones import MINI_WEIGHTS, Backbone, mini_classifier
from jsws_lib.checkpoints import enter, save_weights
from jsws_lib.config import ROOT, Schedule
from jsws_lib.devices import pick_device
from jsws_lib.training import learning_rate, make_optimiser, seed_everything

OUT = ROOT / "runs" / "pretrain" / MINI_WEIGHTS.name


def pretrain(*, images: int = 16_000, val_images: int = 1_000, size: int = 64,
             epochs: int = 5, batch: int = 64, seed: int = 0,
             out: Path = OUT) -> float:  # fmt: skip
    """Train the mini DenseNet to name drawings and store its features.

    Args:
        images, val_images: how many to draw.
        size: px, side of the drawings.
        epochs, batch, seed: of the training.
        out: safetensors file; entered in the manifest beside it if it is the shipped one.

    Returns:
        top-1 accuracy on new pictures of the same drawings, in [0, 1].

    Raises:
        JswsError: fewer images than fill a batch.
    """
    if images < batch:
        raise JswsError(f"{images} images do not fill a batch; choose {batch} or more")
    pixels, targets = map(
        torch.from_numpy, pretraining_images(images, seed=seed, size=size)
    )
    seed_everything(seed)
    device = pick_device()
    net = mini_classifier(len(CATEGORIES))
    # The same normalisation as in SSNet, where the features will be used.
    prepare = Backbone(nn.Identity(), 3, stride=1, skip_stages=()).to(device)
    net.to(device, memory_format=torch.channels_last).train()
    schedule = Schedule("adamw", 6e-3, weight_decay=0.02, kind="onecycle")
    optimiser = make_optimiser(net, schedule)
    steps = epochs * (images // batch)
    bar = tqdm(range(steps), desc="pre-training", leave=False)
    for step in bar:
        if step % (images // batch) == 0:
            order = torch.randperm(images)
        at = order[step % (images // batch) * batch :][:batch]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step, steps)
        image = _augment(pixels[at].permute(0, 3, 1, 2)).to(device)
        loss = nn.functional.cross_entropy(
            net(prepare(image)), targets[at].to(device), label_smoothing=0.1
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)

    pixels, targets = map(
        torch.from_numpy,
        pretraining_images(val_images, seed=seed, size=size, split="pretrain_val"),
    )
    net.eval()
    with torch.inference_mode():
        scores = [
            net(prepare(p.permute(0, 3, 1, 2).to(device))) for p in pixels.split(256)
        ]
    accuracy = (torch.cat(scores).argmax(1).cpu() == targets).float().mean().item()
    command = (
        f"jsws pretrain --images {images} --epochs {epochs} --size {size} --seed {seed}"
    )
    figures = {"accuracy": round(accuracy, 4), "categories": len(CATEGORIES)}
    save_weights(out, net.features, {"seed": seed, "command": command, **figures})
    if out.resolve() == MINI_WEIGHTS.resolve():
        enter(out, command=command, seed=seed, figures=figures)
    return accuracy


def _augment(image: Tensor) -> Tensor:
    """Mirror half of a batch and shift it by up to 4 px, (B, 3, H, W) uint8."""
    flip = torch.rand(len(image)) < 0.5
    image = torch.where(flip[:, None, None, None], image.flip(-1), image)
    dy, dx = torch.randint(-4, 5, (2,)).tolist()
    return image.roll((dy, dx), (-2, -1))
