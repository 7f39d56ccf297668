"""What every test shares: one thread, no display, paths of the repository."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")  # not by MPLBACKEND: notebook kernels would inherit that


def pytest_addoption(parser):
    """How often a run is interrupted on its way; `make soak` asks for more."""
    parser.addoption("--kills", type=int, default=1)


def pytest_collection_modifyitems(items):
    """Cells of notebooks, where nbval collects them, are slow, and so is a browser."""
    for item in items:
        in_browser = "chromium" in getattr(item, "fixturenames", ())
        if in_browser:
            item.add_marker("browser")
        if in_browser or item.path.suffix == ".ipynb":
            item.add_marker("slow")


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")  # playwright's event loop must not outlive the file
def chromium():
    """A headless browser, whose camera is a fake."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser found: {', '.join(names)}")
    fake = [f"--use-fake-{what}-for-media-stream" for what in ("device", "ui")]
    with api.sync_playwright() as player:
        options = {"executable_path": program, "args": ["--no-sandbox", *fake]}
        browser = player.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory) -> Path:
    """Return 24 + 24 training and 8 + 8 test images of 64 px: shared, never to change."""
    from data_utils.embedded.mini import make_mini

    counts = dict(n_class=24, n_saliency=24, n_val=8, n_test=8)
    folder = tmp_path_factory.mktemp("embedded") / "data"
    return make_mini(folder, size=64, **counts)


@pytest.fixture
def own_data(mini_data, tmp_path) -> Path:
    """Return a copy of `mini_data` that a test may damage."""
    return Path(shutil.copytree(mini_data, tmp_path / "own data"))


def shrunk(data: Path, steps: int):
    from jsws_lib.config import PROFILES

    few = dict(size=64, steps=(steps, steps), batch_class=4, batch_saliency=4)
    return replace(PROFILES["mini"], name="tiny", data=data, **few)


@pytest.fixture
def tiny(mini_data):
    """Return the mini profile at 64 px, four steps of four images a set."""
    return shrunk(mini_data, 4)


@pytest.fixture(scope="session")
def pseudo(mini_data, tmp_path_factory):
    """Pseudo labels without a network: the whole image shows the first label."""
    from data_utils.datasets import Augmentation, ClassificationSet
    from data_utils.voc import write_palette_png

    folder = tmp_path_factory.mktemp("pseudo")
    voc = mini_data / "VOCdevkit/VOC2012"
    data = ClassificationSet(voc, augmentation=Augmentation(64))
    for name, labels in zip(data.ids, data.labels, strict=True):
        mask = np.full((64, 64), 1 + labels.argmax(), np.uint8)
        mask[:16] = 0
        write_palette_png(folder / f"{name}.png", mask)
    return folder


@pytest.fixture(scope="session")
def trained(mini_data, tmp_path_factory):
    """Return M-M and the folder of its runs: a step a stage, teacher and labels beside it.

    Shared, never to change. A test that loads it sets $JSWS_RUNS to the folder.
    """
    from jsws_lib.config import STEADY
    from jsws_lib.engine import runs

    folder, make = tmp_path_factory.mktemp("runs"), runs.make_pseudo_labels
    run = runs.Run("MM", shrunk(mini_data, 1), STEADY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSWS_RUNS", str(folder))
        patch.setattr(runs, "make_pseudo_labels", partial(make, workers=0))
        assert runs.train_or_load(run, use_shipped=False).source == "trained"
    return run, folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Runs and shipped checkpoints go to a folder of the test."""
    from jsws_lib.engine import checkpoints, runs

    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "checkpoints")
    for name in ("JSWS_TRAIN", "JSWS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
