"""A look at some validation images while a network trains.

A background that takes everything, or nothing, shows in its share of the pixels long before
a training ends. Nothing of the training changes: no random number is drawn, batch norms
keep their statistics, and the figures enter neither a run's history nor its resume points.
"""

from collections.abc import Sequence
from functools import partial

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
    found, pick = {}, partial(evenly, count=LIMIT)
    net.eval()
    try:
        matrix = measure_segmentation(net, profile, pick=pick)
        counts = matrix.matrix
        found["val_background"] = float(counts[:, 0].sum() / counts.sum())
        if set(losses) != {"L_s1"}:  # else its categories have no names
            found["val_miou"] = matrix.compute().miou
        if "L_s1" in losses:
            scores = measure_saliency(net, profile, pick=pick)[0].compute()
            found |= {"val_max_f": scores.max_f, "val_mae": scores.mae}
    except JswsError as error:
        if is_main():
            tqdm.write(f"not validated while training: {error}")
    net.train()
    return found
