"""Weights from files that others wrote."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_utils.errors import JswsError

WRAPPINGS = ("state_dict", "model")  # keys under which others store a state dict


def read_state(source: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or what torch.save wrote; no code in it is run.

    Raises:
        JswsError: no such file, not weights, or a number that is not finite.
    """
    if not source.is_file():
        raise JswsError(
            f"no weights at {source}; give an existing file, or None for random weights"
        )
    try:
        if source.suffix == ".safetensors":
            state = load_file(source)
        else:
            state = torch.load(source, weights_only=True, map_location="cpu")
        for key in WRAPPINGS:
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        entries = state.items() if isinstance(state, dict) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in entries):
            raise JswsError(f"{source} holds no tensors by name; save a plain state_dict()")
        if bad := [name for name, tensor in entries if not tensor.isfinite().all()]:
            raise JswsError(f"{source}: {bad[0]} holds numbers that are not finite")
        return state
    except JswsError:
        raise
    except Exception as error:  # whatever the bytes provoke
        raise JswsError(
            f"{source} cannot be read as weights ({type(error).__name__}); save a plain "
            "state_dict(), as safetensors or with torch.save"
        ) from None


def load_weights(net: nn.Module, weights: str | Path | None, hub: Callable | None = None):
    """Fill a classifier's convolutional part with weights.

    Args:
        net: what is filled, in place.
        weights: `"default"` for those of `hub`, a local file, or None for not at all.
        hub: gives torchvision's entry for the pre-trained weights.

    Raises:
        JswsError: they cannot be downloaded or read, or do not fit.
    """
    if weights is None:
        return
    if weights == "default":
        source = "torchvision's file"
        try:
            state = hub().get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise JswsError(
                f"the ImageNet weights cannot be downloaded ({error}); go online, or name "
                "a file you have: --set weights=FILE"
            ) from None
    else:
        source = Path(weights)
        state = read_state(source)
    # Several processes and whole classifiers add prefixes; old DenseNet files `norm.1`.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])")
    parts = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        if not key.startswith("classifier."):
            parts[old.sub(r"\1\2", key.removeprefix("features."))] = value
    try:
        net.load_state_dict(parts)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip()[:200]
        if any(name.startswith("backbone.") for name in parts):
            first = "it is a whole SSNet, which stage 2 takes as --teacher"
        raise JswsError(f"{source} does not fit this backbone: {first}") from None
