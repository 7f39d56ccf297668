"""Does it stay when it is right? From a trained M, on under each reading of L_c + L_s1.

    python -m jsws_lib.experiments.studies.stays [SEED ...]

The start is the shipped M, a right solution; the rate is the paper's, Adam at 1e-4, the
SAM's as well. A reading under which the right solution is no minimum leaves it. Each run
is written to `results/stays.json` when it ends, and is not done again.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jsws_lib.config import ROOT, STEADY, Profile, Recipe, Schedule, get_profile
from jsws_lib.engine.checkpoints import load_ssnet, shipped
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.experiments.studies.followed import append, chart, known
from jsws_lib.training import Loop, seed_everything, train

FILE = ROOT / "results" / "stays.json"
STEPS, EVERY, LIMIT = 300, 50, 200  # LIMIT: images of each set that are measured
LITERAL = {"class_evidence": "mean_probs", "class_weight": 1.0}
# Readings of Eq. 2 and 3, as changes of the default recipe; nothing else differs.
READINGS: dict[str, dict] = {
    "literal": LITERAL,
    "literal Eq. 2, background": LITERAL | {"saliency_reading": "background"},
    "steady": {},
    "odds": {"class_evidence": "odds"},
    "logits, background": {"saliency_reading": "background"},
    "jsws2020": {
        "evidence_share": 1.0,
        "class_weight": 1.0,
        "saliency_reading": "nll_probs",
    },
}
MEASURES = {"miou": "mIoU", "iou_background": "background IoU", "mae": "MAE"}
MEASURES |= {"max_f": "max *F*"}


def recipe_of(reading: str) -> Recipe:
    """The default recipe with one of `READINGS`, the SAM as fast as the rest."""
    return replace(STEADY, name=reading, sam_rate=None, **READINGS[reading])


def follow(
    reading: str, seed: int, profile: Profile, *, steps: int = STEPS, every: int = EVERY
) -> list[dict]:
    """Train on from the shipped M and measure every so many steps.

    Returns:
        rows of `reading`, `seed`, `step`, `miou`, `iou_background`, `mae`, `max_f`, and
        `L_c` and `L_s1`, their means since the row before.

    Raises:
        JswsError: data or weights are missing or broken, or a loss is not finite.
    """
    recipe, rows, seen = recipe_of(reading), [], []
    net = load_ssnet(shipped("mini_M"))[0]

    def measure(step: int, *_):
        net.eval()
        result = evaluate(net, profile=profile, recipe=recipe, limit=LIMIT)
        figures = result.figures()
        figures["iou_background"] = float(result.segmentation.compute().iou[0])
        for name in ("L_c", "L_s1") if seen else ():
            figures[name] = float(np.mean([record[name] for record in seen]))
        seen.clear()
        figures = {name: round(value, 5) for name, value in figures.items()}
        rows.append({"reading": reading, "seed": seed, "step": step, **figures})
        net.train()

    def on_step(step: int, _, record: dict):
        seen.append(record)
        if (step + 1) % every == 0:
            measure(step + 1)

    measure(0)
    seed_everything(seed)
    profile = replace(profile, schedules=(Schedule(), Schedule()))
    options = {"profile": profile, "recipe": recipe, "seed": seed, "steps": steps}
    train(net, ("L_c", "L_s1"), **options, loop=Loop(on_step=on_step), title=reading)
    return rows


def stays(
    seeds: Sequence[int], profile: Profile, *, file: Path = FILE, steps: int = STEPS
) -> list[dict]:
    """Follow every reading and seed that `file` does not hold yet, and write it.

    Returns:
        all rows of the file.
    """
    words = (
        f"{steps} steps from the shipped M, Adam at 1e-4, on {LIMIT} images each of VOC "
        f"val and the saliency test set of profile {profile.name} "
        "(python -m jsws_lib.experiments.studies.stays 0 1 2)."
    )
    for seed in seeds:
        for reading in READINGS:
            if (reading, seed) not in {
                (row["reading"], row["seed"]) for row in known(file)
            }:
                append(file, *follow(reading, seed, profile, steps=steps), words=words)
    return known(file)


if __name__ == "__main__":
    rows = stays([int(seed) for seed in sys.argv[1:]] or [0], get_profile("mini"))
    fig = chart(rows, "reading", MEASURES, xlabel="steps from the trained M")
    fig.savefig(ROOT / "docs" / "stays.png", dpi=110)
