"""The pictures of README and docs/ are those that the code draws."""

import io

import numpy as np
import pytest
from PIL import Image

from tools import pictures


def grey(file) -> np.ndarray:
    return np.asarray(Image.open(file).convert("L"), np.int16)


@pytest.mark.slow
def test_pictures_are_as_the_code_draws_them(root):
    """But for the edges of letters, which another release may draw otherwise."""
    for name, figure in pictures.figures().items():
        file = io.BytesIO()
        figure.savefig(file, dpi=pictures.DPI)
        stored, drawn = grey(root / f"docs/{name}.png"), grey(file)
        assert stored.shape == drawn.shape, name
        other = (abs(stored - drawn) > 8).mean()
        assert other < 0.02, f"{name}: {other:.0%} differ; run python -m tools.pictures"
