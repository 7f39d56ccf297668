"""Pictures with controls: a strip that everybody sees, then sliders for a live kernel.

The strip is an ordinary figure, stored with the notebook, so the page says the same on
GitHub, on paper and without a kernel. Both are drawn by one function, and so are the
states that `frames` stores, among which the controls of the static site choose.
"""

import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from traitlets import Unicode

from jsws_lib.course.frames import MIME, choices, frames
from jsws_lib.course.measured import asked
from jsws_lib.course.notebook import show

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "theta": "θ", "kappa": "κ", "mu": "μ"}


class Picture(ipywidgets.Image):
    """An image whose tooltip reaches the page.

    The front end sets a tooltip, which is the only description that it gives a picture,
    where an empty `description` says that nothing else names it.
    """

    description = Unicode("").tag(sync=True)


class Explorer:
    """Controls above a picture that follows them.

    Args:
        draw: called as `draw(fig, **state)` with an empty Matplotlib figure.
        controls: ipywidgets by the name of the argument they set.
        size: width and height of the picture, inches.
    """

    def __init__(
        self,
        draw: Callable,
        controls: Mapping[str, ipywidgets.Widget],
        *,
        size: tuple[float, float],
    ):
        self.draw, self.controls, self.size = draw, dict(controls), size
        self.width = round(max(90 * size[0], 420))  # px in the page; never tiny
        layout = {"width": f"{self.width}px", "max_width": "100%"}
        layout["align_self"] = "flex-start"  # not stretched
        self.picture = Picture(format="png", layout=layout)
        for control in self.controls.values():
            if hasattr(control.style, "description_width"):
                control.style.description_width = "initial"  # no label is cut off
            control.observe(self.redraw, names="value")
        bar = ipywidgets.Box(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([bar, self.picture])
        if not asked("static"):  # else nobody sees it
            self.redraw()

    @property
    def state(self) -> dict:
        """The value of each control."""
        return {name: control.value for name, control in self.controls.items()}

    def show(self):
        """Display controls and picture, except on pages where nobody can move them."""
        if not asked("static"):
            display(self.box)

    def redraw(self, _change=None):
        """Draw the present state; every change of a control calls this.

        An error shows in place of the picture, as nobody reads a kernel's log. With
        JSWS_COURSE=strict, as in the tests, it is raised.
        """
        try:
            picture, words = self.picture_of(self.state)
        except Exception as error:
            if asked("strict"):
                raise
            fig = Figure(figsize=self.size)
            said = f"This picture could not be drawn.\n\n{type(error).__name__}: {error}"
            look = {"fontsize": 9, "va": "top", "family": "monospace", "wrap": True}
            fig.text(0.02, 0.96, said, parse_math=False, **look)
            picture, words = self._png(fig), self._in_words(fig, self.state)
        self.picture.value, self.picture.tooltip = picture, words

    def picture_of(self, state: dict, *, scale: int = 2) -> tuple[bytes, str]:
        """Draw a state: a PNG of `scale` times the width in a page, and what it shows."""
        fig = Figure(figsize=self.size, layout="constrained")
        self.draw(fig, **state)
        return self._png(fig, scale), self._in_words(fig, state)

    def _png(self, fig: Figure, scale: int = 2) -> bytes:  # 2: for projectors
        file = io.BytesIO()
        fig.savefig(file, format="png", dpi=scale * self.width / self.size[0])
        return file.getvalue()

    def _in_words(self, fig: Figure, state: dict) -> str:
        """What a screen reader says of the picture: the controls, then its titles."""
        said = [
            f"{control.description or name} {_spoken(state[name])}".strip()
            for name, control in self.controls.items()
        ]
        found = [
            fig.get_suptitle(),
            *(part.get_suptitle() for part in fig.subfigs),
            *(ax.get_title(loc=where) for ax in fig.axes for where in ("left", "center")),
            *(text.get_text() for text in fig.texts),
        ]
        titles = "; ".join(filter(None, map(_plain, dict.fromkeys(found))))
        return f"{', '.join(said)}. {titles}".strip()

    def check(self):
        """Move every control to its other end and back.

        Raises:
            AssertionError: a control changes nothing in the picture.
        """
        self.redraw()
        for name, control in self.controls.items():
            value, picture = control.value, self.picture.value
            (_, first), *_, (_, last) = choices(control)
            control.value = last if value != last else first
            if self.picture.value == picture:
                raise AssertionError(f"moving {name} to {control.value} changes nothing")
            control.value = value


def explore(
    draw: Callable,
    *,
    strip: Sequence[dict],
    alt: str,
    columns: int | None = None,
    size: tuple[float, float] = (4, 3),
    **controls,
) -> Explorer:
    """Show the states of `strip` as one figure, then the controls.

    JSWS_COURSE holds words. With `static` the controls are made but not shown; with
    `frames` some of their states are stored with the strip, for pages without a kernel;
    with `strict`, as in the tests, each control is moved and has to change the picture.

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
    made = {name: _control(name, what, strip[0][name]) for name, what in controls.items()}
    explorer = Explorer(draw, made, size=size)
    show(alt, {MIME: frames(explorer, strip)} if asked("frames") else {})
    if asked("strict"):
        explorer.check()
    explorer.show()
    return explorer


def _control(name: str, what, value) -> ipywidgets.Widget:
    if isinstance(what, ipywidgets.Widget):
        return what
    control = ipywidgets.interactive.widget_from_abbrev(what, value)
    control.description = " ".join(GREEK.get(word, word) for word in name.split("_"))
    control.value = value
    if hasattr(control, "continuous_update"):
        control.continuous_update = False  # one picture a move, or they queue up
    return control


def _spoken(value) -> str:
    """A control's value in a few words: no bytes of an upload."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str) else ""


def _plain(text: str) -> str:
    """A title of a figure without the marks of its formulas."""
    text = text.replace("\\times", "×").replace("\n", " ")
    return " ".join(text.translate({ord(c): None for c in "${}\\"}).split())
