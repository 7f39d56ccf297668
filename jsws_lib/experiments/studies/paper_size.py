"""The first steps at the paper's size: where v and H_bg go, by the SAM's learning rate.

    python -m jsws_lib.experiments.studies.paper_size DATA

256 px, so that the SAM sums over k x k = 32 x 32 positions; photographs, ImageNet's
features (EfficientNet-Lite0), recipe `steady`, Adam at 1e-4 as in Section 4.1, batches of
2 + 2. DATA is what `jsws_lib.experiments.studies.photographs` takes. A rate's rows go to
`results/paper_size.json` when it ends.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch.utils.data import default_collate

from jsws_lib.config import ROOT, SETTINGS, STEADY, Profile, Schedule
from jsws_lib.experiments.studies.followed import Following, chart, complete
from jsws_lib.experiments.studies.photographs import open_data, scale
from jsws_lib.ssnet import SSNet
from jsws_lib.stage1 import train_stage1
from jsws_lib.training import training_sets

FILE = ROOT / "results" / "paper_size.json"
STEPS, EVERY, WATCHED = 60, 5, 8  # WATCHED: images of D_s that are looked at
# By name: `Recipe.sam_rate`, in 1/k of the others' rate, and the steps of a linear rise.
RATES: dict[str, tuple[float, int]] = {
    "1": (32.0, 0),
    "1, rising over 60 steps": (32.0, STEPS),
    "1/k": (1.0, 0),
    "1/k²": (1 / 32, 0),
}
MEASURES = {
    "median_abs_a": "median size of a",
    "mean_v": "mean v",
    "bg_outside": "H_bg where not salient",
    "bg_inside": "H_bg where salient",
}
WORDS = (
    f"The first {STEPS} steps of M at 256 px, k = 32, EfficientNet-Lite0, batches of 2 + 2 "
    "photographs, Adam at 1e-4, recipe steady but for the SAM's rate, measured on "
    f"{WATCHED} images of D_s as the network would be used "
    "(python -m jsws_lib.experiments.studies.paper_size DATA)."
)


class RisingLoop(Following):
    """`Following`, in which the SAM's rate rises to its full value over some steps."""

    def __init__(self, rise: int, every: int, measure: Callable[[SSNet], dict]):
        super().__init__(every, measure)
        self.rise = rise

    def prepare(self, objective, optimizer):
        """See `Loop`."""
        self.sam = optimizer.param_groups[1]
        self.full = self.sam["scale"]
        self._set()
        return objective, optimizer

    def _set(self):
        share = min(1, (self.done + 1) / self.rise) if self.rise else 1
        self.sam["scale"] = self.full * share

    def after_step(self, net, record):
        """See `Loop`."""
        super().after_step(net, record)
        self._set()


@torch.no_grad()
def look(net: SSNet, watched: dict[str, torch.Tensor]) -> dict[str, float]:
    """`MEASURES` on images of D_s with their masks, the network as it would be used."""
    out = net(watched["image"])
    background, salient = out.probs[:, 0], watched["sal_mask"] == 1
    found = {
        "median_abs_a": out.sal_logits.abs().median(),
        "mean_v": out.class_saliency.mean(),
        "bg_outside": background[~salient].mean(),
        "bg_inside": background[salient].mean(),
    }
    return {name: round(value.item(), 5) for name, value in found.items()}


def follow(rate: str, seed: int, profile: Profile) -> list[dict]:
    """Train M under a rate of the SAM, and look every `EVERY` steps.

    Args:
        rate: key of `RATES`.
        seed: of weights, order and crops.
        profile: names data, size, backbone and steps.

    Returns:
        the rows of `Following`, with `MEASURES`.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    sam_rate, rise = RATES[rate]
    recipe = replace(STEADY, sam_rate=sam_rate)
    _, saliency = training_sets(SETTINGS["M"].losses, profile, recipe, seed=seed)
    watched = default_collate([saliency[k, 0] for k in range(WATCHED)])
    loop = RisingLoop(rise, EVERY, lambda net: look(net, watched))
    train_stage1("M", profile=profile, recipe=recipe, seed=seed, loop=loop)
    return loop.rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    small = {"size": 256, "cache": "none", "batch_class": 2, "batch_saliency": 2}
    small |= {"schedules": (Schedule(), Schedule()), "steps": (STEPS, STEPS)}
    profile = replace(scale(open_data(parser.parse_args().data)), **small)
    runs, run = product(RATES, [0]), partial(follow, profile=profile)
    fig = chart(complete(FILE, "rate", runs, run, words=WORDS), "rate", MEASURES)
    fig.savefig(ROOT / "docs" / "paper_size.png", dpi=110)
