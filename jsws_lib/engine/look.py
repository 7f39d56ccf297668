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
from jsws_lib.engine.evaluation import measure_saliency, measure_segmentation
from jsws_lib.ssnet import SSNet

LIMIT = 100  # images of each set, spread evenly over it
COLUMNS = {  # of log.csv, and as a progress bar shows them
    "val_background": "background",
    "val_miou": "mIoU",
    "val_max_f": "max F",
    "val_mae": "MAE",
}


class Look:
    """Measures a network between two steps, but not what its losses teach nothing about."""

    def __init__(self, profile: Profile, losses: Sequence[str]):
        self.profile, self.losses = profile, set(losses)
        self.blind = set()  # sets that could not be measured

    def __call__(self, net: SSNet) -> dict[str, float]:
        """Some of `COLUMNS`; the network is in the mode it was in.

        The background's share is of the pixels that are not void. A set that is missing
        or broken is named once and left out.
        """
        modes = {part: part.training for part in net.modules()}
        net.eval()
        try:
            found = {}
            if matrix := self._measured(measure_segmentation, net):
                counts = matrix.matrix
                found["val_background"] = float(counts[:, 0].sum() / counts.sum())
                if self.losses != {"L_s1"}:  # else its categories have no names
                    found["val_miou"] = matrix.compute().miou
            if "L_s1" in self.losses and (maps := self._measured(measure_saliency, net)):
                scores = maps[0].compute()
                found |= {"val_max_f": scores.max_f, "val_mae": scores.mae}
            return found
        finally:
            for part, mode in modes.items():
                part.training = mode

    def _measured(self, measure, net: SSNet):
        if measure in self.blind:
            return None
        try:
            return measure(net, self.profile, limit=LIMIT, spread=True)
        except JswsError as error:
            self.blind.add(measure)
            if is_main():
                tqdm.write(f"not validated while training: {error}")
            return None


def words(found: dict[str, float]) -> str:
    """Figures for a progress bar, as "background .62, mIoU .31"."""
    return ", ".join(f"{COLUMNS[name]} {value:.3f}" for name, value in found.items())


def in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class LiveFigure:
    """A small figure below a notebook's cell that grows; elsewhere nothing."""

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
