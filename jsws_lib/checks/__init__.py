"""What the exercises' `check_...` functions share: say what is wrong in words.

One module per notebook. A check takes the learner's answer, compares it with the library
or with a slow, plain computation, and raises `Wrong` with a sentence. `check` turns that
into a printed line, so a wrong answer never stops a notebook.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
import torch


class Wrong(Exception):
    """An answer is wrong; the message says how, without giving the answer away."""


def check(examine: Callable) -> Callable:
    """Make `examine(answer)` print its verdict. The plain function is `__wrapped__`."""

    @wraps(examine)
    def verdict(*answer):
        try:
            if any(given is ... for given in answer):
                raise Wrong("the ... is still there: put your answer in its place")
            praise = examine(*answer)
        except Wrong as wrong:
            print(f"✗ Not yet: {wrong}")
        except Exception as error:  # the learner's own code broke
            print(f"✗ Not yet: it stopped with {type(error).__name__}: {error}")
        else:
            print(f"✓ Right. {praise or ''}".rstrip())

    return verdict


def expect(condition, otherwise: str) -> None:
    """Raise `Wrong(otherwise)` unless the condition holds."""
    if not bool(condition):
        raise Wrong(otherwise)


def expect_array(got, shape: tuple[int, ...], what: str = "the result") -> np.ndarray:
    """Give the learner's array or tensor as NumPy, or say what it is instead.

    Raises:
        Wrong: nothing was returned, it is no array, its shape differs, or it holds NaN.
    """
    expect(got is not None and got is not ...,
           f"{what} is missing: the function returns nothing")  # fmt: skip
    if isinstance(got, torch.Tensor):
        got = got.detach().cpu().numpy()
    try:
        array = np.asarray(got, dtype=float)
    except (TypeError, ValueError):
        raise Wrong(f"{what} is a {type(got).__name__}, not an array of numbers") from None
    expect(array.shape == shape, f"{what} has shape {array.shape}, not {shape}")
    expect(np.isfinite(array).all(), f"{what} holds NaN or infinity")
    return array


def same(got, want, *, tolerance: float = 1e-5) -> bool:
    """Whether two arrays agree to a tolerance, absolute and relative."""
    return np.allclose(np.asarray(got), np.asarray(want), rtol=tolerance, atol=tolerance)
