"""What every notebook calls: `start`, `show` for a figure, `report` for a measure."""

import math
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch
from IPython.display import display

from data_utils.mini import make_mini
from data_utils.voc import read_ids
from jsws_lib.config import Profile, Recipe, get_profile, get_recipe
from jsws_lib.devices import pick_device
from jsws_lib.drawing import show
from jsws_lib.training import seed_everything

__all__ = ["report", "show", "start"]
FIGURE_MIME = "application/vnd.jsws.figure+json"


def start(*, seed: int = 0) -> tuple[Profile, Recipe]:
    """Open a notebook: seed, draw the embedded data if missing, say what runs where.

    Returns:
        the profile that `$JSWS_PROFILE` names (default `mini`) and the default recipe.

    Raises:
        JswsError: there is no such profile, or another than `mini` has no data.
    """
    profile, recipe = get_profile(), get_recipe()
    seed_everything(seed)
    if profile.name == "mini":
        make_mini(profile.data)
    else:
        read_ids(profile.data / profile.voc / "ImageSets" / "Segmentation"
                 / f"{profile.train_list}.txt")  # fmt: skip
    device = pick_device()
    card = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"Python {platform.python_version()}, torch {version('torch')} on {card}")
    print(f"ready: profile {profile.name}, recipe {recipe.name}, seed {seed}")
    if os.environ.get("JSWS_TRAIN") == "1":
        print("JSWS_TRAIN=1: what is not in runs/ yet is trained here")
    return profile, recipe


@dataclass(frozen=True)
class Figure:
    """One measured number and the range it is expected in, both ends included."""

    name: str
    value: float
    low: float
    high: float
    unit: str = ""

    @property
    def ok(self) -> bool:
        """Whether the value is a number in its range (NaN never is)."""
        return self.low <= self.value <= self.high

    @property
    def measured(self) -> str:
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

    def __str__(self) -> str:
        """Return the line a reader of the notebook sees."""
        verdict = "OK" if self.ok else "NOT OK"
        return f"{self.name} = {self.measured} (expected {self.expected}): {verdict}"


def report(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Show one key figure of a notebook and hand it to whoever runs the notebook.

    A bad value does not stop a learner who changed something: the line reads NOT OK.
    Only under JSWS_STRICT=1, as in the tests, is it an AssertionError. The line holds a
    measured value, so its cell must not be compared by nbval.

    Args:
        name: what was measured, as in "mIoU of M".
        value: a number, or anything `float` accepts, such as a tensor of one element.
        low: smallest expected value, or -inf.
        high: largest expected value, or inf.
        unit: shown behind the value.
    """
    figure = Figure(name, float(value), float(low), float(high), unit)
    # JSON has no NaN and no infinity: they travel as text.
    data = {k: v if isinstance(v, str) else repr(v) for k, v in asdict(figure).items()}
    display({"text/plain": str(figure), FIGURE_MIME: data}, raw=True)
    if os.environ.get("JSWS_STRICT") == "1" and not figure.ok:
        raise AssertionError(str(figure))


def _number(x: float) -> str:
    """Three decimals for a ratio, none for a count, an exponent for the tiny."""
    if not math.isfinite(x):
        return str(x)
    if abs(x) >= 100:
        return f"{x:,.0f}" if x == round(x) else f"{x:,.1f}"
    if x == round(x):
        return f"{x:.0f}"
    return f"{x:.2e}" if abs(x) < 0.001 else f"{x:.3f}"
