"""`report` for a number that a notebook measured, and what whoever runs it reads back."""

import math
import os
from dataclasses import dataclass

from IPython.display import display

MIME = "application/vnd.jsws.measured+json"


@dataclass
class Measured:
    """One measured number and the range it is expected in, both ends included."""

    name: str
    value: float
    low: float
    high: float
    unit: str = ""

    def __post_init__(self):
        self.value, self.low, self.high = map(float, (self.value, self.low, self.high))

    @property
    def json(self) -> dict[str, str]:
        """The fields, numbers as text, because JSON has no NaN and no infinity."""
        return {name: str(value) for name, value in vars(self).items()}

    @property
    def ok(self) -> bool:
        """Whether the value is a number in its range (NaN never is)."""
        return self.low <= self.value <= self.high

    @property
    def found(self) -> str:
        """The value with its unit."""
        return f"{_number(self.value)} {self.unit}".strip()

    @property
    def expected(self) -> str:
        """The range in words."""
        if self.low == self.high:
            return _number(self.low)
        if math.isinf(self.high):
            return f"at least {_number(self.low)}"
        if math.isinf(self.low):
            return f"at most {_number(self.high)}"
        return f"{_number(self.low)} to {_number(self.high)}"

    @property
    def verdict(self) -> str:
        """OK or NOT OK."""
        return "OK" if self.ok else "NOT OK"

    def __str__(self) -> str:
        """Return the line a reader of the notebook sees."""
        return f"{self.name} = {self.found} (expected {self.expected}): {self.verdict}"


def asked(word: str) -> bool:
    """Whether `$JSWS_COURSE` holds a word: strict, static or frames (docs/settings.md)."""
    return word in os.environ.get("JSWS_COURSE", "").split()


def report(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Show one key number of a notebook and hand it to whoever runs the notebook.

    A bad value does not stop a learner who changed something: the line reads NOT OK.
    Only under JSWS_COURSE=strict, as in the tests, is it an AssertionError. The line holds
    a measured value, so its cell must not be compared by nbval.

    Args:
        name: what was measured, as in "mIoU of M".
        value: a number, or anything `float` accepts, such as a tensor of one element.
        low: smallest expected value, or -inf.
        high: largest expected value, or inf.
        unit: shown behind the value.
    """
    measured = Measured(name, value, low, high, unit)
    display({"text/plain": str(measured), MIME: measured.json}, raw=True)
    if asked("strict") and not measured.ok:
        raise AssertionError(str(measured))


def _number(x: float) -> str:
    """Three decimals for a ratio, none for a count, an exponent for the tiny."""
    if not math.isfinite(x):
        return str(x)
    if abs(x) >= 100:
        return f"{x:,.0f}" if x == round(x) else f"{x:,.1f}"
    if x == round(x):
        return f"{x:.0f}"
    return f"{x:.2e}" if abs(x) < 0.001 else f"{x:.3f}"
