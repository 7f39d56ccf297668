"""What every test shares: one thread, no display, paths of the repository."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import matplotlib
import pytest

matplotlib.use("Agg")  # not by MPLBACKEND: notebook kernels would inherit that


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory) -> Path:
    """Return 24 + 24 training and 8 + 8 test images of 64 px: shared, never to change."""
    from data_utils.mini import make_mini

    counts = dict(n_class=24, n_saliency=24, n_val=8, n_test=8)
    folder = tmp_path_factory.mktemp("embedded") / "data"
    return make_mini(folder, size=64, workers=1, progress=False, **counts)


@pytest.fixture
def own_data(mini_data, tmp_path) -> Path:
    """Return a copy of `mini_data` that a test may damage."""
    return Path(shutil.copytree(mini_data, tmp_path / "own data"))


@pytest.fixture
def tiny(mini_data):
    """Return the mini profile at 64 px, four steps of four images a set."""
    from jsws_lib.config import PROFILES

    return replace(PROFILES["mini"], name="tiny", data=mini_data, size=64, steps=(4, 4),
                   batch_class=4, batch_saliency=4)  # fmt: skip
