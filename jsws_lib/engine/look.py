"""A look at some validation images while a network trains, and a notebook's figure of it.

A background that takes everything, or nothing, shows in its share of the pixels long before
a training ends. Nothing of the training changes: no random number is drawn, batch norms
keep their statistics, and the figures enter neither a run's history nor its resume points.
"""

import io
import sys
from collections.abc import Sequence

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.parallel import is_main
from jsws_lib.config import Profile
from jsws_lib.engine.evaluation import evenly, measure_saliency, measure_segmentation
from jsws_lib.ssnet import SSNet

LIMIT = 100  # images of each set, spread evenly over it
COLUMNS = {  # of log.csv, and as a progress bar shows them
    "val_background": "background",
    "val_miou": "mIoU",
    "val_max_f": "max F",
    "val_mae": "MAE",
}


def look(net: SSNet, profile: Profile, losses: Sequence[str]) -> dict[str, float]:
    """Some of `COLUMNS`: not what the losses teach nothing about.

    The background's share is of the pixels that are not void. Where a set is missing or
    broken, this is said, and the rest left out. Afterwards the network is in training mode.
    """
    found = {}
    net.eval()
    for measure in (_segmentation, _saliency) if "L_s1" in losses else (_segmentation,):
        try:
            found |= measure(net, profile)
        except JswsError as error:
            if is_main():
                tqdm.write(f"one set is not looked at while training: {error}")
    net.train()
    if set(losses) == {"L_s1"}:  # its categories have no names
        found.pop("val_miou", None)
    return found


def _some(things: Sequence) -> Sequence:
    return evenly(things, LIMIT)


def _segmentation(net: SSNet, profile: Profile) -> dict[str, float]:
    matrix = measure_segmentation(net, profile, pick=_some)
    counts = matrix.matrix
    background = float(counts[:, 0].sum() / counts.sum())
    return {"val_background": background, "val_miou": matrix.compute().miou}


def _saliency(net: SSNet, profile: Profile) -> dict[str, float]:
    scores = measure_saliency(net, profile, pick=_some)[0].compute()
    return {"val_max_f": scores.max_f, "val_mae": scores.mae}


def in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class LiveFigure:
    """A small figure below a notebook's cell that grows; elsewhere nothing."""

    def __init__(self):
        self.handle = None

    def update(self, history: list[dict[str, float]], looks: list[dict[str, float]]):
        """Draw records of all steps, and those of `look`, each with its `step`."""
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
    losses = {key: key for key in history[-1] if key not in ("step", "lr")}
    seen = {key: words for key, words in COLUMNS.items() if key in looks[-1]}
    for axes, records, names in ((left, history, losses), (right, looks, seen)):
        for key, label in names.items():
            known = [record for record in records if key in record]
            steps, values = ([one[name] for one in known] for name in ("step", key))
            axes.plot(steps, values, marker="." if axes is right else "", label=label)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    left.set_ylabel("loss")
    right.set(ylabel="on validation images", ylim=(-0.02, 1.02))
    return figure
