"""What every test shares: one thread, no display, paths of the repository."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import matplotlib
import pytest

matplotlib.use("Agg")  # not by MPLBACKEND: notebook kernels would inherit that


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]
