"""What the exercises' `check_...` functions share, and how to add one.

One module per notebook, one check per exercise. A check is inputs, the reference (the
library, or a slow, plain computation), and the known mistakes: for each, the sentence a
learner reads and what the mistake would give on these inputs.

    @check
    def check_mean(mean):
        '''Exercise 9.1: the mean of each column.'''
        for rows in (2, 5):
            x = torch.randn(rows, 3)
            mistakes = {
                "this is the sum; divide by the number of rows": x.sum(0),
                "divide by n, not by n - 1": x.sum(0) / (rows - 1),
                "no mean is negative": lambda got: (got < 0).any(),
            }
            judge(ask(mean, x), x.mean(0), mistakes, where=f"for {rows} rows, ")
        return "What is said about a right answer."

The first mistake that fits is told, so the special stand before the general. A sentence
says what is wrong and why, and does not give the answer away. In the notebook's solutions,
a cell tagged `check` calls the check, and one tagged `wrong` gives it a tempting wrong
answer. The tests run both, and demand of each mistake in a table that it differs from the
right answer and from the mistakes before it.
"""

import copy
from collections.abc import Callable, Mapping
from functools import wraps

import numpy as np
import torch
from torch import Tensor


class Wrong(Exception):
    """An answer is wrong; the message says how, without giving the answer away."""


def check(examine: Callable) -> Callable:
    """Make `examine(answer)` print its verdict, so that no wrong answer stops a notebook.

    It runs with gradients on, from torch's seed 0, and leaves the learner's random numbers
    alone. The plain function is `__wrapped__`.
    """

    @wraps(examine)
    def verdict(*answer):
        try:
            expect(
                all(given is not ... for given in answer),
                "the ... is still there: put your answer in its place",
            )
            with (
                torch.random.fork_rng(devices=[]),
                torch.inference_mode(False),
                torch.enable_grad(),
                np.errstate(all="ignore"),
            ):
                torch.manual_seed(0)
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


def ask(answer: Callable, *given):
    """Call the learner's function.

    Raises:
        Wrong: it changes its arguments.
    """
    before = copy.deepcopy(given)
    got = answer(*given)
    expect(_equal(before, given), "the function changes its arguments; work on a copy")
    return got


def _equal(a, b) -> bool:
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return np.array_equal(a, b)


def array_of(got, shape: tuple[int, ...], what: str = "the result") -> np.ndarray:
    """Give the learner's array or tensor as NumPy, or say what it is instead.

    Args:
        got: what came back.
        shape: the shape it must have.
        what: its name in the sentence.

    Raises:
        Wrong: nothing was returned, it is no array, or its shape differs.
    """
    expect(got is not None, f"{what} is missing: the function returns nothing")
    try:
        array = np.asarray(_plain(got), dtype=float)
    except (TypeError, ValueError):
        raise Wrong(f"{what} is a {type(got).__name__}, not an array of numbers") from None
    expect(array.shape == shape, f"{what} has shape {array.shape}, not {shape}")
    return array


def number(got, what: str = "the result") -> float:
    """Give the learner's number as a float; see `array_of`."""
    return float(array_of(got, (), what))


def judge(
    got,
    want,
    mistakes: Mapping[str, object],
    *,
    what: str = "the result",
    where: str = "",
    tolerance: float = 1e-5,
):
    """Compare an answer with the right one, then with what known mistakes give.

    Args:
        got: the answer, which has to have the shape of the right one.
        want: the right answer, finite.
        mistakes: for each sentence the value its mistake gives, a tuple of several, or
            whether the mistake was made: a bool, or a function of the answer. If none
            fits, the sentence says how far off the answer is.
        what: the name of the answer in a sentence.
        where: said before each sentence: on which input it shows.
        tolerance: see `same`.

    Raises:
        Wrong: the answer is not right, or see `array_of`.
    """
    got = array_of(got, np.shape(want), what)
    if same(got, want, tolerance=tolerance):
        return
    for words, mistake in mistakes.items():
        values = mistake if isinstance(mistake, tuple) else (mistake,)
        expect(not any(_fits(got, v, tolerance) for v in values), where + words)
    expect(np.isfinite(got).all(), f"{where}{what} holds NaN or infinity")
    apart = np.abs(got - _plain(want)).max()
    raise Wrong(f"{where}{what} differs from the right answer by up to {apart:.2g}")


def _fits(got, mistake, tolerance: float) -> bool:
    mistake = mistake(got) if callable(mistake) else mistake
    if isinstance(mistake, bool | np.bool_):
        return bool(mistake)
    return same(got, mistake, tolerance=tolerance)


def judge_verdict(
    verdict: Callable, draw: Callable, own: tuple, *, clear: str, chance: str, chosen: str
) -> str:
    """Try a learner's `verdict(a, b, sign)`: on known samples, then on the learner's own.

    Args:
        verdict: says "supported", "refuted" or "open" of a relation of this sign.
        draw: two samples from 1 or -1, the sign of their relation, or 0 for chance alone.
        own: a, b and sign of the learner's own experiment.
        clear: said if a relation is missed, with {} for what it should be and what it is.
        chance: said if chance is called a finding, with {} for how often of twenty.
        chosen: what the learner chose.

    Returns:
        the verdict on the learner's experiment.
    """
    known = ("supported", "refuted", "open")
    for sign, way in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        got, want = ask(verdict, *draw(way), sign), known[sign != way]
        expect(got in known, f"a verdict is one of {', '.join(known)}, not {got!r}")
        expect(got == want, clear.format(want, got))
    claimed = sum(ask(verdict, *draw(0), 1) != "open" for _ in range(20))
    expect(claimed <= 3, chance.format(claimed))
    found = ask(verdict, *own)
    expect(
        found != "open",
        "your verdict is sound, and it leaves your own experiment open: there is nothing "
        f"to claim. Choose a {chosen} that should matter more",
    )
    return found


def same(got, want, *, tolerance: float = 1e-5) -> bool:
    """Whether two arrays of one shape agree to a tolerance, absolute and relative."""
    got, want = _plain(got), _plain(want)
    alike = got.shape == want.shape
    return alike and np.allclose(got, want, rtol=tolerance, atol=tolerance)


def _plain(x) -> np.ndarray:
    if isinstance(x, list | tuple):
        x = [_plain(part) for part in x]
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
