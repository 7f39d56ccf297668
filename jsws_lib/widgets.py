"""Pictures with controls: a strip that everybody sees, then sliders for a live kernel.

The strip is an ordinary figure, stored with the notebook, so the page says the same on
GitHub, on paper and without a kernel. Both are drawn by one function.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from jsws_lib.drawing import show


class Explorer:
    """Controls above a picture that follows them.

    Args:
        draw: called as `draw(fig, **state)` with an empty Matplotlib figure.
        controls: ipywidgets by the name of the argument they set.
        size: width and height of the picture, inches.
    """

    def __init__(self, draw: Callable, controls: Mapping[str, ipywidgets.Widget], *,
                 size: tuple[float, float]):  # fmt: skip
        self.draw, self.controls, self.size = draw, dict(controls), size
        layout = {"max_width": "100%", "align_self": "flex-start"}  # not stretched
        self.picture = ipywidgets.Image(format="png", layout=layout)
        for control in self.controls.values():
            control.observe(self.redraw, names="value")
        bar = ipywidgets.Box(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([bar, self.picture])
        self.redraw()

    @property
    def state(self) -> dict:
        """The value of each control."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self, _change=None):
        """Draw the present state; every change of a control calls this."""
        fig = Figure(figsize=self.size, layout="constrained")
        self.draw(fig, **self.state)
        file = io.BytesIO()
        fig.savefig(file, format="png", dpi=max(90, 420 / self.size[0]))  # never tiny
        self.picture.value = file.getvalue()

    def check(self):
        """Move every control to its other end and back.

        Raises:
            AssertionError: a control changes nothing in the picture.
        """
        for name, control in self.controls.items():
            value, picture = control.value, self.picture.value
            control.value = _elsewhere(control)
            if self.picture.value == picture:
                raise AssertionError(f"moving {name} to {control.value} changes nothing")
            control.value = value


def explore(draw: Callable, *, strip: Sequence[dict], alt: str, columns: int | None = None,
            size: tuple[float, float] = (4, 3), **controls) -> Explorer:  # fmt: skip
    """Show the states of `strip` as one figure, then the controls.

    With JSWS_STATIC=1 the controls are made but not shown. With JSWS_STRICT=1, as in the
    tests, each is moved and has to change the picture.

    Args:
        draw: `draw(fig, **state)` fills a Matplotlib figure or subfigure.
        strip: the states to store with the page; the first is where the controls start.
        alt: what the strip shows, for who cannot see it.
        columns: pictures in a row of the strip; default all.
        size: width and height of one picture, inches.
        controls: by argument, an ipywidget or an abbreviation of `interact`: a pair or
            triple of numbers, a list of choices, a boolean.
    """
    columns = columns or len(strip)
    rows = -(-len(strip) // columns)
    width, height = size
    fig = plt.figure(figsize=(width * columns, height * rows), layout="constrained")
    parts = fig.subfigures(rows, columns, squeeze=False).ravel()
    for part, state in zip(parts, strip, strict=False):
        draw(part, **state)
    show(alt)
    made = {name: _control(name, what, strip[0][name]) for name, what in controls.items()}
    explorer = Explorer(draw, made, size=size)
    if os.environ.get("JSWS_STRICT") == "1":
        explorer.check()
    if os.environ.get("JSWS_STATIC") != "1":
        display(explorer.box)
    return explorer


def _control(name: str, what, value) -> ipywidgets.Widget:
    if isinstance(what, ipywidgets.Widget):
        return what
    control = ipywidgets.interactive.widget_from_abbrev(what, value)
    control.description = name.replace("_", " ")
    control.value = value
    if hasattr(control, "continuous_update"):
        control.continuous_update = False  # one picture a move, or they queue up
    return control


def _elsewhere(control: ipywidgets.Widget):
    """A value of this control that is not the present one."""
    if isinstance(control, ipywidgets.Checkbox | ipywidgets.ToggleButton):
        return not control.value
    if hasattr(control, "options"):
        values = [o[1] if isinstance(o, tuple) else o for o in control.options]
        return next(v for v in reversed(values) if v != control.value)
    return control.max if control.value != control.max else control.min
