"""The first steps at the paper's size: where v and H_bg go, by the SAM's learning rate.

    python -m jsws_lib.experiments.paper_size DATA

256 px, so that the SAM sums over k x k = 32 x 32 positions; photographs, ImageNet's
features (EfficientNet-Lite0), recipe `steady`, Adam at 1e-4 as in Section 4.1, batches of
2 + 2. DATA is what `jsws_lib.experiments.photographs` takes. Writes
`results/paper_size.json` and `docs/paper_size.png`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from data_utils.categories import categories
from data_utils.files import write_bytes
from jsws_lib.config import ROOT, STEADY, Profile, Schedule
from jsws_lib.experiments.photographs import laptop, open_data
from jsws_lib.experiments.results import markdown
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Loop, seed_everything, train, training_sets

FILE = ROOT / "results" / "paper_size.json"
STEPS, EVERY, WATCHED = 60, 4, 8  # WATCHED: images of D_s that are looked at
# By name: `Recipe.sam_rate`, in 1/k of the others' rate, and the steps of a linear rise.
RATES: dict[str, tuple[float, int]] = {
    "1": (32.0, 0),
    "1, rising over 60 steps": (32.0, STEPS),
    "1/k": (1.0, 0),
    "1/k²": (1 / 32, 0),
}
MEASURES = {
    "median_abs_a": "median |a|",
    "mean_v": "mean v",
    "bg_outside": "H_bg where not salient",
    "bg_inside": "H_bg where salient",
}


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
    """`MEASURES` on some images of D_s, the network as it would be used."""
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


def follow(rate: str, seed: int, profile: Profile, steps: int = STEPS) -> list[dict]:
    """Train M for some steps under a SAM rate, and look every `EVERY` steps.

    Returns:
        rows of `reading`, `rate`, `seed`, `step` and `MEASURES`.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    sam_rate, rise = RATES[rate]
    recipe, losses = replace(STEADY, sam_rate=sam_rate), ("L_c", "L_s1")
    seed_everything(seed)
    names = categories(profile.data / profile.voc)
    net = build_ssnet(
        1,
        backbone=profile.backbone,
        size=profile.size,
        recipe=recipe,
        categories=len(names),
    )
    _, saliency = training_sets(losses, profile, recipe, seed=seed)
    watched = default_collate([saliency[k, 0] for k in range(WATCHED)])
    rows = []

    def note(step: int):
        row = {"reading": STEADY.name, "rate": rate, "seed": seed, "step": step}
        rows.append(row | look(net, watched))

    def on_step(step: int, *_):
        if (step + 1) % EVERY == 0:
            note(step + 1)

    note(0)
    options = {"profile": profile, "recipe": recipe, "seed": seed, "steps": steps}
    train(net, losses, **options, loop=RisingLoop(rise, on_step=on_step), title=rate)
    return rows


def chart(rows: Sequence[dict]) -> Figure:
    """The measures over the steps, a line a rate: mean over the seeds, a band of all."""
    fig, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for rate in dict.fromkeys(row["rate"] for row in rows):
        mine = [row for row in rows if row["rate"] == rate]
        steps = sorted({row["step"] for row in mine})
        for ax, (key, title) in zip(axes, MEASURES.items(), strict=True):
            values = [[r[key] for r in mine if r["step"] == step] for step in steps]
            (line,) = ax.plot(steps, [np.mean(v) for v in values], label=rate)
            low, high = [min(v) for v in values], [max(v) for v in values]
            ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.2)
            ax.set(title=title, xlabel="step")
            ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8, title="the SAM's rate")
    return fig


def size_table(result: dict) -> str:
    """The measures at the start and at the end, mean over the seeds, as Markdown.

    Args:
        result: a file that `main` wrote, read.
    """
    table = []
    for rate in dict.fromkeys(row["rate"] for row in result["rows"]):
        mine = [row for row in result["rows"] if row["rate"] == rate]
        steps = [row["step"] for row in mine]
        ends = [[r for r in mine if r["step"] == f(steps)] for f in (min, max)]
        pairs = ([np.mean([r[key] for r in end]) for end in ends] for key in MEASURES)
        table.append([rate, str(len(ends[0])), *(f"{a:.3f} → {b:.3f}" for a, b in pairs)])
    return markdown(("SAM's rate", "seeds", *MEASURES.values()), table, "lr" + "r" * 4)


def main(given: Path, seeds: Sequence[int] = (0, 1), file: Path = FILE):
    """Follow every rate and seed that `file` does not hold yet."""
    profile = replace(
        laptop(open_data(given)),
        size=256,
        cache="none",
        batch_class=2,
        batch_saliency=2,
        schedules=(Schedule(), Schedule()),
    )
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    for seed in seeds:
        for rate in RATES:
            if (rate, seed) not in {(row["rate"], row["seed"]) for row in rows}:
                rows += follow(rate, seed, profile)
                words = (
                    f"The first {STEPS} steps of M at 256 px, k = 32, EfficientNet-Lite0, "
                    "batches of 2 + 2 photographs, Adam at 1e-4, recipe steady but for "
                    f"the SAM's rate, on {WATCHED} images of D_s as the network would be "
                    "used (python -m jsws_lib.experiments.paper_size DATA)."
                )
                text = json.dumps({"words": words, "rows": rows}, indent=1)
                write_bytes(file, (text + "\n").encode())
    chart(rows).savefig(ROOT / "docs" / "paper_size.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
