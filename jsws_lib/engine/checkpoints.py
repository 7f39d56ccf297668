"""Checkpoints: one safetensors file holding weights and the story of the run.

The header carries the setting, recipe, backbone, size, seed, versions and training
curves as JSON, so a file alone rebuilds its network and draws its curves. Files are
written under a temporary name and renamed: a reader never meets half a checkpoint.
"""

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_utils.errors import JswsError
from data_utils.files import sha256, verified, write_bytes
from data_utils.voc import VOC_CLASSES
from jsws_lib.config import ROOT, SETTINGS, Recipe, Schedule
from jsws_lib.ssnet import SSNet, build_ssnet

SHIPPED = ROOT / "checkpoints"
SHORT = {"mini": "mini_MM", "photos": "photos_MM"}  # the network that most people want


def save_weights(
    path: Path | str, module: torch.nn.Module, story: dict, *, half: bool = False
) -> Path:
    """Save a state dict and `story` (JSON-serialisable) atomically.

    `half` stores matrices as float16. Vectors (biases, batch-norm statistics) stay
    float32: a variance may leave float16's range.
    """
    state = {name: t.cpu().contiguous() for name, t in module.state_dict().items()}
    if half:
        large = {k: t for k, t in state.items() if t.is_floating_point() and t.ndim > 1}
        state |= {name: t.half() for name, t in large.items()}
    machine = {"torch": version("torch"), "python": platform.python_version()}
    header = {"story": json.dumps({**machine, **story})}
    return write_bytes(path, save(state, header))


def read_weights(path: Path | str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return a checkpoint's float32 state dict and its story.

    Raises:
        JswsError: no such file, not safetensors, cut short, or without a story.
    """
    path = Path(path)
    if not path.is_file():
        raise JswsError(f"no checkpoint at {path}; train one with `jsws train`")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise JswsError(f"{path} is not a whole safetensors file: {error}") from None
    try:
        story = json.loads(header.get("story", ""))
    except (ValueError, RecursionError):
        story = None
    if not isinstance(story, dict):
        raise JswsError(f"{path} was not written by `jsws train`: its header is no story")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise JswsError(f"{path}: {name} holds numbers that are not finite")
        if tensor.dtype == torch.float16:
            state[name] = tensor.float()
    return state, story


def describe(net: SSNet, **more) -> dict:
    """The part of a story that `load_ssnet` needs, plus whatever is passed."""
    return {"stage": net.stage, "size": net.size, **more}


def load_ssnet(
    path: Path | str, *, expect: dict | None = None, device: torch.device | str = "cpu"
) -> tuple[SSNet, dict]:
    """Rebuild a network from its checkpoint, in evaluation mode.

    Args:
        path: the file, or the name of a shipped network, see `find`.
        expect: values the story must have, such as `{"backbone": "vgg16", "stage": 1}`, or
            `{"categories": names}`; a story without `categories` is of VOC's.
        device: where the network goes.

    Returns:
        the network and the story.

    Raises:
        JswsError: unreadable file, other values than expected, or unfitting weights.
    """
    path = find(path)
    state, story = read_weights(path)
    story.setdefault("categories", list(VOC_CLASSES[1:]))  # of files that do not say
    if not isinstance(story["categories"], list):  # how many it was pre-trained on
        raise JswsError(f"{path} holds a backbone, no SSNet; choose another checkpoint")
    for key, wanted in (expect or {}).items():
        if key == "categories" and story[key] != list(wanted):
            pairs = enumerate(zip_longest(story[key], wanted), 1)  # None: there is none
            k, mine, its = next((k, a, b) for k, (a, b) in pairs if a != b)
            raise JswsError(
                f"{path} was trained on other categories: number {k} is {mine!r} there, "
                f"but {its!r} in the data; choose another checkpoint or other data"
            )
        if key != "categories" and story.get(key) != wanted:
            raise JswsError(
                f"{path} was trained with {key} = {story.get(key)}, but {wanted} is "
                f"asked for; choose another checkpoint or {key} = {story.get(key)}"
            )
    try:
        stage = SETTINGS[story["setting"]].stage
        if story["stage"] != stage or type(story["stage"]) is not int:
            raise TypeError(f"setting {story['setting']} is of stage {stage}")
        known = {name: story[name] for name in ("backbone", "size")}
        known |= {"recipe": recipe_from(story["recipe"]), "weights": None}
        net = build_ssnet(stage, categories=len(story["categories"]), **known)
        net.load_state_dict(state)
    except Exception as error:  # whatever a header provokes
        words = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise JswsError(
            f"{path} does not hold the network its header describes: {words}"
        ) from None
    return net.to(device).eval(), story


def recipe_fields(recipe: Recipe) -> dict:
    """A recipe as JSON-ready fields."""
    return json.loads(json.dumps(asdict(recipe)))


def recipe_from(fields: dict) -> Recipe:
    """Undo `recipe_fields`."""
    schedules = fields.get("schedules")
    if schedules:
        schedules = tuple(Schedule(**{**s, "betas": tuple(s["betas"])}) for s in schedules)
    return Recipe(**{**fields, "schedules": schedules})


def shipped(name: str, *, suffix: str = ".safetensors") -> Path | None:
    """The checkpoint this repository ships under a name, its hash verified.

    With another suffix it is another file beside the checkpoints.

    Raises:
        JswsError: as `verified` does.
    """
    path = SHIPPED / f"{name}{suffix}"
    return verified(path) if path.is_file() else None


def find(name: Path | str) -> Path:
    """A checkpoint by its file, or a shipped one by its name: `photos`, or `mini_S`.

    Raises:
        JswsError: neither is there, or the shipped file is not the manifest's.
    """
    if Path(name).exists():
        return Path(name)
    path = shipped(SHORT.get(str(name), str(name)))
    if path is None:
        raise JswsError(
            f"no checkpoint at {name}; train one with `jsws train`, or name one that is "
            f"shipped: {', '.join(SHORT)}"
        )
    return path


def ship(path: Path | str, name: str, **known) -> Path:
    """Store a run's checkpoint in half precision; `enter` it, as `known`."""
    net, story = load_ssnet(path)
    target = save_weights(SHIPPED / f"{name}.safetensors", net, story, half=True)
    enter(target, seed=story["seed"], **known)
    return target


def enter(
    path: Path, *, command: str, seed: int, figures: dict, threads: int | None = None
):
    """Write one file's line in `checkpoints/manifest.json`.

    `threads` is what trained it; None stands for this process's.
    """
    manifest, threads = SHIPPED / "manifest.json", threads or torch.get_num_threads()
    files = json.loads(manifest.read_text())["files"] if manifest.is_file() else {}
    files[path.name] = {
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "command": command,
        "seed": seed,
        "hardware": f"{platform.machine()}, CPU threads: {threads}",
        "torch": version("torch"),
        "figures": figures,
    }
    text = json.dumps({"files": dict(sorted(files.items()))}, indent=2)
    write_bytes(manifest, (text + "\n").encode())
