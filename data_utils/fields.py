"""Fields of frozen dataclasses that say what they mean and refuse what they do not take."""

import dataclasses
from collections.abc import Container
from dataclasses import Field, fields
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

from data_utils.errors import JswsError

CACHES = ("none", "memory", "decoded")  # of decoded pictures: a profile's, a data set's


def field(default, meaning: str, limits: str | Container = ""):
    """Declare a field that says what it means and which values it takes.

    Args:
        default: its value where nobody says otherwise.
        meaning: one line, for `jsws settings` and docs/settings.md.
        limits: what `check` holds: an interval such as "(0, 1]", or the only values.
    """
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "limits": limits}
    )


def kind_of(one: Field) -> tuple[type, bool, bool]:
    """The type of a field's value, whether it is a pair of such, whether None will do."""
    first, *others = get_args(one.type) if isinstance(one.type, UnionType) else [one.type]
    pair = get_origin(first) is tuple
    return get_args(first)[0] if pair else first, pair, bool(others)


WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


def allowed(one: Field) -> str:
    """What a field takes, in words: "a number in [0, 180]"."""
    (kind, pair, optional), limits = kind_of(one), one.metadata.get("limits")
    words = WORDS.get(kind, f"a {kind.__name__}")
    if isinstance(limits, range):
        words = f"{limits[0]}, {limits[1]}, ..., {limits[-1]}"
    elif limits and isinstance(limits, str):
        words += f" in {limits}"
    elif limits:
        words = f"one of {', '.join(map(str, limits))}"
    if pair:
        words = f"two, each {words}"
    return f"{words}, or none" if optional else words


def _fits(value, kind: type, limits: str | Container | None) -> bool:
    """Whether a value is of its type and within its limits; NaN is within none."""
    wanted = {int: Integral, float: Real}.get(kind, kind)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        return False
    if not limits or not isinstance(limits, str):
        return not limits or value in limits
    low, high = map(float, limits[1:-1].split(","))
    ends = [end for end, sign in ((low, limits[0]), (high, limits[-1])) if sign in "[]"]
    return low < value < high or value in ends


def check(config):
    """Refuse what a field does not take: `__post_init__` of every dataclass below.

    Raises:
        JswsError: names the field, its value and what it takes.
    """
    for one in fields(config):
        (kind, pair, optional), value = kind_of(one), getattr(config, one.name)
        if value is None and optional:
            continue
        parts = value if pair and isinstance(value, tuple) else (value,)
        limits = one.metadata.get("limits")
        if len(parts) != 1 + pair or not all(_fits(part, kind, limits) for part in parts):
            raise JswsError(f"{one.name} is {value!r}; give {allowed(one)}")
