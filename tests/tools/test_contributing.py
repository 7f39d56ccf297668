"""CONTRIBUTING.md, followed to the letter in a copy of the library."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools.course import execute

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n")[0]: part for part in PAGE.split("\n## ")}


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.S | re.M)


def follow(copy, section):
    """Make the changes to files that a section shows; return the Python it runs then."""
    rest = []
    for language in ("python", "toml"):
        for block in blocks(section, language):
            if not block.startswith("# "):
                rest.append(block)
                continue
            first, code = block.split("\n", 1)
            path = copy / first.removeprefix("# ")
            text = path.read_text(encoding="utf-8") + "\n\n" + code
            path.write_text(text, encoding="utf-8")
    for block in blocks(section, "diff"):
        first, hunk = block.split("\n", 1)
        path = copy / first.removeprefix("--- ")
        text, lines = path.read_text(encoding="utf-8"), hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{path.name} has this {text.count(old)} times:\n{old}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return rest


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The library, its checkpoints and its notebooks, free to be changed."""
    folder = tmp_path_factory.mktemp("a copy") / "project"
    skip = shutil.ignore_patterns("__pycache__", "solutions", ".ipynb_checkpoints")
    for name in ("jsws_lib", "data_utils", "checkpoints", "notebooks", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def python(copy, *words, **environment):
    """Run Python in the copy, whose library it then imports; what it printed."""
    env = {**os.environ, "PYTHONPATH": str(copy), "TQDM_DISABLE": "1", **environment}
    env["JSWS_DEVICE"] = "cpu"
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_backbone_and_a_loss_train_two_steps(copy, mini_data):
    assert not follow(copy, "A backbone")
    (trial,) = follow(copy, "A loss")
    history = eval(python(copy, "-c", trial, JSWS_DATA=str(mini_data)))
    assert [record["step"] for record in history] == [0, 1]
    for record in history:
        assert record.keys() >= {"L_c", "L_a", "L_s1"}
        assert 0 < record["L_a"] < 1 and 0 < record["L_s1"]


@pytest.mark.slow
def test_a_data_set_is_listed_unpacked_and_trained_on(copy, own_data, tmp_path):
    assert not follow(copy, "A data set")
    packed = tmp_path / "packed"
    (own_data / "mini.json").unlink()  # drawings take no other set
    for own, name in (("Image", "images"), ("Mask", "masks")):
        shutil.move(own_data / f"DUTS-TR/DUTS-TR-{own}", packed / "MINE" / name)
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", packed)
    (shell,) = blocks("A data set", "sh")
    for word, path in (("mine.zip", archive), ("DATA", own_data), ("OUT", tmp_path / "o")):
        shell = re.sub(rf"(?<= ){word}\b", lambda _, p=path: f"'{p}'", shell)
    lines = map(shlex.split, shell.replace("\\\n", " ").splitlines())
    out = "".join(python(copy, "-m", "jsws_lib.cli", *words) for _, *words in lines)
    assert "Things that stand out: MINE/images: 0 of 24 files" in out
    assert "MINE" in out and "is now" in out
    assert len(list((own_data / "MINE/images").glob("*.jpg"))) == 24
    assert (tmp_path / "o" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_a_notebook_cell_is_there_and_runs(copy):
    (code,) = follow(copy, "A notebook cell")
    python(copy, "-c", code)
    path = copy / re.search(r'path = "(.*?)"', code)[1]
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    index = [c.id for c in notebook.cells].index("mine")
    assert notebook.cells[index].metadata.tags == ["nbval-check-output"]
    notebook.cells = notebook.cells[: index + 1]  # what follows runs in other tests
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    env |= {"JSWS_DEVICE": "cpu", "JSWS_COURSE": "static"}
    env["JSWS_DATA"] = str(ROOT / "data" / "mini")
    execute(notebook, path.parent, env)
    (output,) = notebook.cells[-1].outputs
    assert output.text == "S is 0: True\n"


def test_the_page_names_every_module():
    drawn = set(re.findall(r"\w+", blocks("The whole on one page", "")[0]))
    files = [*ROOT.glob("jsws_lib/*.py"), *ROOT.glob("data_utils/*.py")]
    lost = {path.stem for path in files} - drawn - {"__init__"}
    assert not lost, "the drawing of CONTRIBUTING.md lacks these modules"
