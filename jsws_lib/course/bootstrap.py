"""What `start()` calls first; `tools/stamp.py` writes the cell that calls that.

On Colab it installs what is missing there. Everywhere it checks that nothing is, and that
torch and torchvision are a pair. It imports only what a bare Python with `packaging` has.
"""

import importlib
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import ROOT
from jsws_lib.engine import doctor

KEPT = ("torch", "torchvision", "numpy")  # as the machine has them; never installed here
# Without pydensecrf2 the CRF runs in PyTorch; and the notebook is open already.
OPTIONAL = ("pydensecrf2", "jupyterlab")
COMMAND = """#!{python}
import sys
sys.path.insert(0, {root!r})
from jsws_lib.cli.main import main
main()
"""


def missing() -> list[str]:
    """The dependencies in pyproject.toml that are needed and of which no version is there.

    A version other than the one asked for counts as installed: on a machine that is not
    ours a change does more harm than an old package.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = map(Requirement, project["project"]["dependencies"])
    needed = [one.name for one in asked if not one.marker or one.marker.evaluate()]
    return [name for name in needed if name not in OPTIONAL and not _version(name)]


def _version(name: str) -> str:
    """The installed version of a package; "" if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def prepare() -> None:
    """Make a notebook ready to import the library; silent except on Colab.

    Raises:
        JswsError: packages are missing or cannot be installed, or torch and torchvision
            do not fit each other.
    """
    colab = "google.colab" in sys.modules
    if colab:
        _install([name for name in missing() if name not in KEPT])
        _command()
    if lacking := missing():
        raise JswsError(
            f"this Python lacks {', '.join(lacking)}: choose the kernel that "
            f"`make install` made in {ROOT}, or run `pip install -e .` there"
        )
    try:
        doctor.CHECKS["torch"]()
    except doctor.Problem as problem:
        afresh = "choose Runtime, Disconnect and delete runtime, and begin anew"
        raise JswsError(f"{problem.found}: {afresh if colab else problem.fix}") from None


def _install(names: list[str]):
    """Install packages on Colab, and leave `KEPT` as they are there."""
    kept = {name: known for name in KEPT if (known := _version(name))}
    present = ", ".join(f"{name} {known}" for name, known in kept.items())
    print(f"Colab has {present}; it gets {', '.join(names) or 'nothing else'}", flush=True)
    if not names:
        return
    pins = "".join(f"{name}=={known}\n" for name, known in kept.items())
    constraints = write_bytes(ROOT / "build" / "kept.txt", pins.encode())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", constraints, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        why = (lines or ["pip does not say why"])[0]
        raise JswsError(
            f"{', '.join(names)} cannot be installed ({why}): run this cell again, or in "
            "a new session"
        )
    importlib.invalidate_caches()


def _command():
    """Put `jsws` on the path: Colab runs the course without installing it."""
    file = Path(sysconfig.get_path("scripts"), "jsws")
    file.write_text(COMMAND.format(python=sys.executable, root=str(ROOT)))
    file.chmod(0o755)
