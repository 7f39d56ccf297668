"""`python -m tools.make run` and `test`: what `make` does, where there is no make.

Only the standard library is imported here, because this also installs the rest. Where the
running Python has the packages already, in conda's environment for instance, it is used;
otherwise `.venv` is made, the one that `make` makes.
"""

import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".installed"
NEEDED = ("torch", "nbclient", "nbval", "ruff")  # one of each: library, course, tests

# What the shell exported must not change what a test or the course measures.
NOT_INHERITED = "MPLBACKEND JSWS_DEVICE JSWS_TRAIN JSWS_PROFILE JSWS_DATA JSWS_RUNS".split()
# Two processes of one thread each; the tests of a file share one, and what it prepares.
IN_TWO = "-n 2 --dist loadscope".split()
NBVAL = "--nbval-lax --nbval-current-env --nbval-cell-timeout=300".split()
TESTS = {
    "test": [*IN_TWO, "-m", "not slow", "tests"],
    "test-all": [*IN_TWO, "--durations=15", *NBVAL, "tests", "notebooks"],
}

COMPILED = "pydensecrf2"  # C++ source; data_utils/crf_torch.py does without
NOT_COMPILED = """\
pydensecrf2 did not compile (.venv/pydensecrf2.log says why): the dense CRF will run in
PyTorch, with the same labels but slower. For the fast one install a C++ compiler and
Python's headers (g++, python3-dev), delete .venv/.installed, and run this again."""

USAGE = """\
python -m tools.make install       make .venv with the pinned packages, if need be
python -m tools.make venv          the same, whatever this Python has
python -m tools.make run [03 ...]  that, draw the data, execute the course or a part
python -m tools.make test [...]    that, then the fast tests, or what pytest is given
python -m tools.make test-all      that, then every test and every notebook

UV_TORCH_BACKEND=cpu (cu132, auto, ...) installs another build of PyTorch than the pins."""


def install():
    """Return a Python that has the packages; make it if there is none."""
    return Path(sys.executable) if all(map(find_spec, NEEDED)) else install_venv()


def install_venv():
    """Return the Python of `.venv`; make it, or renew it if the pins are newer."""
    if sys.version_info < (3, 11):  # noqa: UP036  nobody has installed anything yet
        sys.exit("Python 3.11 or newer is needed; run this with another python")
    pins = [ROOT / "requirements.txt", ROOT / "pyproject.toml"]
    newest = max(file.stat().st_mtime for file in pins)
    if PYTHON.exists() and STAMP.is_file() and STAMP.stat().st_mtime >= newest:
        return PYTHON
    if not PYTHON.exists():
        venv.create(VENV, clear=True, with_pip=True)
    call(PYTHON, "-m", "pip", "install", "--quiet", "uv")
    print(f"Installing the pinned packages into {VENV} ...", flush=True)
    pip = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON]
    pinned = [*pip, "-c", "requirements.txt"]
    later = VENV / "later.txt"
    later.write_text(f"{COMPILED}\n")
    if os.environ.get("UV_TORCH_BACKEND"):
        # PyTorch's other builds have the pinned version, and hashes of their own.
        project = ["--all-extras", "-r", "pyproject.toml"]
        call(*pinned, "--no-verify-hashes", "--excludes", later, *project)
    else:
        call(*pip, "--excludes", later, "--require-hashes", "-r", "requirements.txt")
    # The build tools go in first: pydensecrf2 is C++ source and compiles with them.
    call(*pinned, "cython", "setuptools", "wheel")
    if os.name != "nt":
        with open(VENV / f"{COMPILED}.log", "w", encoding="utf-8") as log:
            status = _run([*pinned, "--no-build-isolation", COMPILED], stderr=log)
        if status:
            print(NOT_COMPILED, flush=True)
    call(*pip, "--no-deps", "--no-build-isolation", "-e", ".")
    STAMP.touch()
    return PYTHON


def call(*words, **more):
    """Run a command in the repository, `more` in its environment; stop if it fails."""
    if status := _run(words, more):
        sys.exit(status)


def _run(words, more=(), **options):
    env = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    if not env.get("UV_TORCH_BACKEND"):  # uv takes an empty one for a wrong one
        env.pop("UV_TORCH_BACKEND", None)
    env |= {"PYTHONUTF8": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
    env |= dict(more)
    return subprocess.run([*map(str, words)], cwd=ROOT, env=env, **options).returncode


def main(words):
    """Do what the first word says with the rest; without one, say what there is."""
    if not words or words[0] not in ("install", "venv", "run", *TESTS):
        print(USAGE)
        sys.exit(0 if words in (["-h"], ["--help"]) else 2)
    python = install_venv() if words[0] == "venv" else install()
    if words[0] in ("install", "venv"):
        return
    call(python, "-m", "jsws_lib.cli", "data", "make-mini")
    if words[0] == "run":
        call(python, "-m", "tools.course", *words[1:])
    else:
        call(python, "-m", "ruff", "check", ".")
        call(python, "-m", "ruff", "format", "--check", "--quiet", ".")
        tests = words[1:] or TESTS[words[0]]
        call(python, "-m", "pytest", *tests, JSWS_COURSE="strict", OMP_NUM_THREADS="1")


if __name__ == "__main__":
    main(sys.argv[1:])
