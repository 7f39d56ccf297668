"""Weights from files that others wrote."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

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
        return _named(state, source)
    except JswsError:
        raise
    except Exception as error:  # whatever the bytes provoke
        raise JswsError(
            f"{source} cannot be read as weights ({type(error).__name__}); save a plain "
            "state_dict(), as safetensors or with torch.save"
        ) from None


def _named(state, source: Path) -> dict[str, Tensor]:
    """The tensors by name in what a file holds, out of whatever wraps them."""
    for key in WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    entries = state.items() if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in entries):
        raise JswsError(f"{source} holds no tensors by name; save a plain state_dict()")
    if bad := [name for name, tensor in entries if not tensor.isfinite().all()]:
        raise JswsError(f"{source}: {bad[0]} holds numbers that are not finite")
    return state
