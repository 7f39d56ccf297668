"""README to the letter: each of its commands runs here, or is named with who runs it.

The data sets come from a server on this machine that holds small archives packed like the
real ones; the profiles `laptop` and `paper` are shrunk to a few steps of small images.
"""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from data_utils import parallel
from data_utils.real import download
from data_utils.voc import read_ids
from jsws_lib.cli import main as cli
from jsws_lib.config import PROFILES
from jsws_lib.engine import checkpoints
from jsws_lib.experiments import ablation
from tools.try_page import served

pytestmark = pytest.mark.slow

# What this test cannot run, and where it is run or looked at.
ELSEWHERE = {
    ". .venv/bin/activate": "any shell",
    "make run": "test_make: what it does; test_course: the course itself",
    "make test": "this very run",
    "make stamp TAG=v0.1.0": "test_stamp",
    "python -m tools.make run": "test_make",
    "python -m tools.make test": "test_make",
    "conda env create -f environment.yml": "test_environment reads the file",
    "conda activate ssnet-tutorial": "test_environment: the environment's name",
    "pip install --no-deps -e .": "the last step of every installation",
    "jsws data make-mini": "test_mini_data draws fewer; every run of the tests all",
    "jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks": "eyes",
}


def lines(root: Path) -> list[str]:
    """The commands of the shell blocks, one after the other, of README and two pages."""
    pages = ("README.md", "docs/install.md", "docs/from_download_to_table.md")
    text = [(root / page).read_text(encoding="utf-8") for page in pages]
    text[2] = text[2].split("\n## ")[1]  # In short; the rest needs the real data
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", "".join(text), re.S | re.M))
    found = (
        re.sub(r"  +# .*", "", line) for line in blocks.replace("\\\n", " ").splitlines()
    )
    return [" ".join(part.split()) for line in found for part in line.split(" && ") if part]


def own(line: str) -> list[str]:
    """The words behind `jsws`, also where a launcher starts it; [] for other commands."""
    _, launched, rest = line.partition(" -m jsws_lib.cli ")
    if launched and line.startswith("accelerate launch "):
        return shlex.split(rest)
    return shlex.split(line)[1:] if line.startswith("jsws ") else []


def pack(data: Path, folder: Path):
    """Archives as the real sets have them, of the embedded data."""
    folder.mkdir()
    tree = folder.with_name("unpacked")
    shutil.copytree(data / "VOCdevkit", tree / "VOCdevkit")
    voc = tree / "VOCdevkit/VOC2012"
    # VOC has a list `train`, and masks of it; with SBD the download makes `train_aug`.
    lists = voc / "ImageSets/Segmentation"
    ids = read_ids((lists / "train_aug.txt").rename(lists / "train.txt"))
    for name in ids:
        Image.new("P", (64, 64), 1).save(voc / f"SegmentationClass/{name}.png")
    sbd = tree / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    (sbd / "train.txt").write_text("\n".join(ids[:9]))
    (sbd / "val.txt").write_text("\n".join(ids[9:]))
    (sbd / "cls/1.mat").touch()
    for archive, kind, top, inside in (
        ("VOCtrainval_11-May-2012", "tar", tree, "VOCdevkit"),
        ("benchmark", "gztar", tree, "benchmark_RELEASE"),
        ("DUTS-TR", "zip", data, "DUTS-TR"),
        ("images", "zip", data / "ECSSD", "images"),
        ("ground_truth_mask", "zip", data / "ECSSD", "ground_truth_mask"),
    ):
        shutil.make_archive(str(folder / archive), kind, top, inside)
    (folder / "benchmark.tar.gz").rename(folder / "benchmark.tgz")


def manifest(url: str) -> str:
    """The real manifest, but for addresses, sums and numbers of files."""
    text = download.SOURCES.read_text(encoding="utf-8")
    text = re.sub(r"^(bytes|md5|sha256) = .*\n", "", text, flags=re.M)
    text = re.sub(r"^gigabytes = .*", "gigabytes = 0.001", text, flags=re.M)
    text = re.sub(r'(" = )\d+', r"\g<1>1", text)
    return re.sub(r'"https?://[^"]*/([^"/]*)"', rf'"{url}/\1"', text)


@pytest.fixture(scope="module")
def typed(root, mini_data, tmp_path_factory):
    """Every `jsws` command of README has run in one folder, in order."""
    folder = tmp_path_factory.mktemp("readme")
    pack(mini_data, folder / "archives")
    Image.new("RGB", (90, 70), "teal").save(folder / "PICTURE.jpg")
    said = []
    with served(folder / "archives") as url, pytest.MonkeyPatch.context() as patch:
        (folder / "sources.toml").write_text(manifest(url.rstrip("/")))
        patch.chdir(folder)
        patch.setenv("JSWS_RUNS", str(folder / "runs"))
        patch.setenv("TQDM_DISABLE", "1")
        proxies = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
        for name in ("JSWS_PROFILE", "JSWS_DATA", "JSWS_TRAIN", *proxies):
            patch.delenv(name, raising=False)
        patch.setattr(download, "SOURCES", folder / "sources.toml")
        patch.setattr(ablation, "RESULTS", folder / "results")
        patch.setattr(ablation, "default_jobs", lambda: 1)
        patch.setattr(parallel, "available_cores", lambda: 1)  # starting some takes longer
        patch.setattr(checkpoints, "SHIPPED", Path("none"))
        few = dict(size=64, steps=(3, 3), batch_class=4, batch_saliency=4, workers=0)
        for name in ("laptop", "paper", "mini"):
            small = replace(PROFILES[name], backbone="densenet_mini", **few)
            patch.setitem(PROFILES, name, small)
        patch.setitem(PROFILES, "mini", replace(PROFILES["mini"], data=mini_data))
        for line in filter(own, lines(root)):
            if line not in ELSEWHERE:
                done = CliRunner().invoke(cli.app, own(line))
                assert done.exit_code == 0, (line, done.output, done.exception)
                said.append((line, done.output))
    return folder, said


def test_every_command_is_run_or_somebody_else_runs_it(root, typed):
    _, said = typed
    ran = {line for line, _ in said}
    assert set(lines(root)) == ran | ELSEWHERE.keys()


def test_what_was_downloaded_is_checked(typed):
    folder, said = typed
    ids = read_ids(folder / "DATA/VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt")
    assert len(ids) == 24  # made of VOC and SBD
    (first, again) = (text for line, text in said if "data download" in line)
    assert "is there already" in again and "is there already" not in first
    checked = next(text for line, text in said if "data check" in line)
    assert "FAIL" not in checked and "24 of 10,582" in checked


def test_ablations_leave_tables(typed):
    folder, said = typed
    laptop = json.loads((folder / "results/ablation_laptop.json").read_text())
    assert laptop["seeds"] == [0, 1] and {"S", "M"} <= laptop["settings"].keys()
    paper = json.loads((folder / "results/ablation_paper.json").read_text())
    assert paper["settings"].keys() == {*ablation.TABLE} - {*ablation.BOUNDS}
    dry = next(text for line, text in said if "--dry-run" in line)
    assert "hours" in dry or " h" in dry
