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
from jsws_lib.config import ROOT
from jsws_lib.engine import doctor

KEPT = ("torch", "torchvision", "numpy")  # as the machine has them; never installed here
OPTIONAL = "pydensecrf2"  # without it the CRF runs in PyTorch
NOT_NEEDED = "jupyterlab"  # the notebook is open already
COMPILING = ROOT / "build" / f"{OPTIONAL}.log"  # of the one try that a machine gets
AFRESH = "choose Runtime, Disconnect and delete runtime, and begin anew"
COMMAND = """#!{python}
import sys
sys.path.insert(0, {root!r})
from jsws_lib.cli.main import main
main()
"""


def missing() -> list[str]:
    """The dependencies in pyproject.toml of which no version is installed.

    A version other than the one asked for counts as installed: on a machine that is not
    ours a change does more harm than an old package.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = map(Requirement, project["project"]["dependencies"])
    here = [one.name for one in asked if not one.marker or one.marker.evaluate()]
    return [name for name in here if name != NOT_NEEDED and not _version(name)]


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
    lacking = missing()
    if "google.colab" in sys.modules:
        present = ", ".join(f"{name} {known}" for name, known in _kept().items())
        wanted = [name for name in lacking if name not in (*KEPT, OPTIONAL)]
        print(f"Colab has {present}; it gets {', '.join(wanted) or 'nothing else'}")
        for name in wanted:
            print(f"installing {name} ...", flush=True)
            if problem := _pip(name):
                raise JswsError(
                    f"{name} cannot be installed ({problem}): run this cell "
                    "again, or in a new session"
                )
        if OPTIONAL in lacking and not COMPILING.exists():
            command = _pip_command(OPTIONAL)
            with open(COMPILING, "w") as log:  # nobody waits for it
                subprocess.Popen(command, stdout=log, stderr=log)
            print(
                f"{OPTIONAL} compiles in the background; a session that begins its CRF "
                "before it is there computes it in PyTorch, slower"
            )
        importlib.invalidate_caches()
        lacking = missing()
        _command()
    lacking = [name for name in lacking if name != OPTIONAL]
    if lacking:
        raise JswsError(
            f"this Python lacks {', '.join(lacking)}: choose the kernel that "
            f"`make install` made in {ROOT}, or run `pip install -e .` there"
        )
    try:
        doctor.CHECKS["torch"]()
    except doctor.Problem as problem:
        fix = AFRESH if "google.colab" in sys.modules else problem.fix
        raise JswsError(f"{problem.found}: {fix}") from None


def _command():
    """Put `jsws` on the path: Colab runs the course without installing it."""
    file = Path(sysconfig.get_path("scripts"), "jsws")
    file.write_text(COMMAND.format(python=sys.executable, root=str(ROOT)))
    file.chmod(0o755)


def _kept() -> dict[str, str]:
    return {name: known for name in KEPT if (known := _version(name))}


def _pip_command(name: str) -> list:
    """What installs a package and leaves `KEPT` alone."""
    constraints = COMPILING.with_name("kept.txt")
    constraints.parent.mkdir(exist_ok=True)
    constraints.write_text("".join(f"{name}=={v}\n" for name, v in _kept().items()))
    return [sys.executable, "-m", "pip", "install", "--quiet", "-c", constraints, name]


def _pip(name: str) -> str:
    """Install a package; returns why it failed, or nothing."""
    done = subprocess.run(_pip_command(name), capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    return (lines or ["pip does not say why"])[0] if done.returncode else ""
