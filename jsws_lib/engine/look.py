"""A look at some validation images while a network trains.

A background that takes everything, or nothing, shows in its share of the pixels long before
a training ends. Nothing of the training changes: no random number is drawn, batch norms
keep their statistics, and the figures enter neither a run's history nor its resume points.
"""

from collections.abc import Sequence

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
    """Measures a network between two steps.

    Args:
        profile: names the data.
        losses: that train the network: what it learns nothing about is not measured.
    """

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
            return self._segmentation(net) | self._saliency(net)
        finally:
            for part, mode in modes.items():
                part.training = mode

    def _segmentation(self, net: SSNet) -> dict[str, float]:
        matrix = self._measured(measure_segmentation, net)
        if matrix is None:
            return {}
        found = {"val_background": float(matrix.matrix[:, 0].sum() / matrix.matrix.sum())}
        if self.losses != {"L_s1"}:  # else its categories have no names
            found["val_miou"] = matrix.compute().miou
        return found

    def _saliency(self, net: SSNet) -> dict[str, float]:
        measured = "L_s1" in self.losses and self._measured(measure_saliency, net)
        if not measured:
            return {}
        scores = measured[0].compute()
        return {"val_max_f": scores.max_f, "val_mae": scores.mae}

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
