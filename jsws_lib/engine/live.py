"""A small figure below a notebook's cell that grows while a network trains."""

import io
import sys

from matplotlib.figure import Figure

from jsws_lib.engine.look import COLUMNS


def in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class LiveFigure:
    """Losses and figures of validation; elsewhere than in a notebook nothing."""

    def __init__(self):
        self.handle = None

    def update(self, history: list[dict[str, float]], looks: list[dict[str, float]]):
        """Draw records of all steps, and those of `Look`, each with its `step`."""
        if not in_notebook():
            return
        from IPython.display import Image, display

        file = io.BytesIO()
        draw(history, looks).savefig(file, format="png", dpi=90)
        shown = Image(file.getvalue(), format="png", alt="losses and validation by step")
        if self.handle:
            self.handle.update(shown)
        else:
            self.handle = display(shown, display_id=True)


def draw(history: list[dict[str, float]], looks: list[dict[str, float]]) -> Figure:
    """Losses by step on the left, the figures of validation on the right."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, records, names in (
        (left, history, {k: k for k in history[-1] if k not in ("step", "lr")}),
        (right, looks, {k: v for k, v in COLUMNS.items() if k in looks[-1]}),
    ):
        for key, label in names.items():
            known = [record for record in records if key in record]
            steps, values = ([one[name] for one in known] for name in ("step", key))
            axes.plot(steps, values, marker="." if axes is right else "", label=label)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        if names:
            axes.legend(frameon=False, fontsize=8)
    left.set_ylabel("loss")
    right.set(ylabel="on validation images", ylim=(-0.02, 1.02))
    return figure
