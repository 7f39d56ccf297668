"""The first steps at the paper's size: where v and H_bg go, by the SAM's learning rate.

    python -m jsws_lib.experiments.studies.paper_size DATA [SEED ...]

256 px, so that the SAM sums over k x k = 32 x 32 positions; photographs, ImageNet's
features (EfficientNet-Lite0), recipe `steady`, Adam at 1e-4 as in Section 4.1, batches of
2 + 2. DATA is what `jsws_lib.experiments.studies.photographs` takes. A rate's rows go to
`results/paper_size.json` when it ends.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from data_utils.categories import categories
from jsws_lib.config import ROOT, SETTINGS, STEADY, Profile, Schedule
from jsws_lib.experiments.studies.followed import append, chart, known
from jsws_lib.experiments.studies.photographs import open_data, scale
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Loop, seed_everything, train, training_sets

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


class RisingLoop(Loop):
    """A plain loop in which the SAM's rate rises to its full value over some steps."""

    def __init__(self, rise: int, **options):
        super().__init__(**options)
        self.rise = rise

    def prepare(self, objective, optimizer):
        """See `Loop`."""
        self.sam = optimizer.param_groups[1]
        self.full = self.sam["scale"]
        self._set(0)
        return objective, optimizer

    def _set(self, step: int):
        self.sam["scale"] = self.full * min(1, (step + 1) / self.rise if self.rise else 1)

    def after_step(self, net: SSNet, record: dict):
        """See `Loop`."""
        super().after_step(net, record)
        self._set(record["step"] + 1)


@torch.no_grad()
def look(net: SSNet, watched: dict[str, torch.Tensor]) -> dict[str, float]:
    """`MEASURES` on images of D_s with their masks, the network as it would be used."""
    net.eval()
    out = net(watched["image"])
    background, salient = out.probs[:, 0], watched["sal_mask"] == 1
    found = {
        "median_abs_a": out.sal_logits.abs().median(),
        "mean_v": out.class_saliency.mean(),
        "bg_outside": background[~salient].mean(),
        "bg_inside": background[salient].mean(),
    }
    net.train()
    return {name: round(value.item(), 5) for name, value in found.items()}


def follow(rate: str, seed: int, profile: Profile, *, steps: int = STEPS) -> list[dict]:
    """Train M for some steps under a rate of the SAM, and look every `EVERY` steps.

    Args:
        rate: key of `RATES`.
        seed: of weights, order and crops.
        profile: names data, size and backbone.
        steps: how many.

    Returns:
        rows of `reading`, `rate`, `seed`, `step` and `MEASURES`.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    sam_rate, rise = RATES[rate]
    recipe, losses = replace(STEADY, sam_rate=sam_rate), SETTINGS["M"].losses
    seed_everything(seed)
    count = len(categories(profile.data / profile.voc))
    shape = {"backbone": profile.backbone, "size": profile.size, "categories": count}
    net = build_ssnet(1, recipe=recipe, **shape)
    _, saliency = training_sets(losses, profile, recipe, seed=seed)
    watched = default_collate([saliency[k, 0] for k in range(WATCHED)])
    found = []

    def note(step: int):
        row = {"reading": STEADY.name, "rate": rate, "seed": seed, "step": step}
        found.append(row | look(net, watched))

    def on_step(step: int, *_):
        if (step + 1) % EVERY == 0:
            note(step + 1)

    note(0)
    options = {"profile": profile, "recipe": recipe, "seed": seed, "steps": steps}
    train(net, losses, **options, loop=RisingLoop(rise, on_step=on_step), title=rate)
    return found


def paper_size(given: Path, seeds: Sequence[int], file: Path = FILE) -> list[dict]:
    """Follow every rate and seed that `file` does not hold yet; all its rows."""
    small = {"size": 256, "cache": "none", "batch_class": 2, "batch_saliency": 2}
    profile = replace(scale(open_data(given)), **small, schedules=(Schedule(), Schedule()))
    for seed in seeds:
        for rate in RATES:
            if (rate, seed) not in {(r["rate"], r["seed"]) for r in known(file)}:
                append(file, *follow(rate, seed, profile), words=WORDS)
    return known(file)


if __name__ == "__main__":
    found = paper_size(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0])
    fig = chart(found, "rate", MEASURES)
    fig.savefig(ROOT / "docs" / "paper_size.png", dpi=110)
