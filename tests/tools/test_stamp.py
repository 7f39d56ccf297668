"""The stamp, where the course is hosted: it stands everywhere and changes everywhere."""

import json
import re
import shutil
import subprocess

import nbformat
import pytest

from tools.stamp import PLACEHOLDER, Stamp, main, read_stamp, without_badge


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(root, tmp_path):
    """A copy of everything that carries the stamp."""
    shutil.copytree(root / "notebooks", tmp_path / "notebooks")
    (tmp_path / "docs").mkdir()
    pages = [root / name for name in ("pyproject.toml", "README.md", "CITATION.cff")]
    for page in (*pages, *root.glob("docs/*.md")):
        shutil.copy(page, tmp_path / page.relative_to(root))
    return tmp_path


def test_everything_carries_the_stamp(root, copy, capsys):
    stamp, before = read_stamp(root), contents(copy)
    assert main(["--root", str(copy)]) == 0
    assert contents(copy) == before, "run make stamp"
    said = capsys.readouterr().out
    assert f"{stamp.tag} of https://github.com/{stamp.repository}" in said
    assert ("placeholder" in said) == (stamp.repository == PLACEHOLDER)
    links = re.compile(r"colab\.research\.google\.com/github/([^\s)\"]+)")
    for path in (path for end in ("md", "ipynb") for path in copy.rglob(f"*.{end}")):
        for found in links.findall(path.read_text(encoding="utf-8")):
            place = f"{stamp.repository}/blob/{stamp.tag}/"
            assert found.startswith(place), f"{path}: run make stamp"
            assert (root / found.removeprefix(place)).exists(), f"{path}: {found}"


def test_a_new_stamp_reaches_everything_and_comes_off_again(copy, capsys):
    old = read_stamp(copy)
    links = "see https://github.com/{0}/tree/{1}/docs or\nhttps://github.com/{0}."
    (copy / "README.md").write_text(links.format(old.repository, old.tag))
    before = contents(copy)
    assert main(["--root", str(copy), "--repo", "some-one/course.2", "--tag", "v9.9"]) == 0
    assert read_stamp(copy) == Stamp("some-one/course.2", "v9.9")
    assert "placeholder" not in capsys.readouterr().out
    assert (copy / "README.md").read_text() == links.format("some-one/course.2", "v9.9")
    notebooks = sorted(copy.rglob("*.ipynb"))
    assert len(notebooks) >= 17
    for path in notebooks:
        now = nbformat.read(path, as_version=4)
        then = nbformat.reads(before[path], as_version=4)
        assert old.repository not in json.dumps(now)
        target = "some-one/course.2/blob/v9.9/" + path.relative_to(copy).as_posix()
        assert now.cells[0].source.count(target) == 1
        title = without_badge(now.cells[0].source)
        assert title == without_badge(then.cells[0].source) and "Colab" not in title
        for one, other in zip(now.cells, then.cells, strict=True):
            assert {**one, "source": ""} == {**other, "source": ""}
    subprocess.run(["git", "init", "--quiet", copy], check=True)
    remote = ["git", "-C", copy, "remote", "add", "origin"]
    subprocess.run([*remote, f"git@github.com:{old.repository}.git"], check=True)
    assert main(["--root", str(copy), "--tag", old.tag]) == 0  # asks the remote
    assert f"{old.repository}: the git remote" in capsys.readouterr().out
    shutil.rmtree(copy / ".git")
    assert contents(copy) == before


@pytest.mark.parametrize(
    "wrong", ["--repo=https://github.com/a/b", "--repo=course", "--tag=a tag", "--tag=-f"]
)
def test_what_cannot_be_a_stamp_changes_nothing(copy, capsys, wrong):
    before = contents(copy)
    assert main(["--root", str(copy), wrong]) == 1
    assert wrong.partition("=")[2] in capsys.readouterr().err
    assert contents(copy) == before
