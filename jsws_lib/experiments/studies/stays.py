"""Does it stay when it is right? From a trained M, on under each reading of L_c + L_s1.

    python -m jsws_lib.experiments.studies.stays

The start is the shipped M, a right solution; the rate is the paper's, Adam at 1e-4, the
SAM's as well. A reading under which the right solution is no minimum leaves it. Each run
is written to `results/stays.json` when it ends, and is not done again.
"""

from dataclasses import replace
from functools import partial
from itertools import product

from jsws_lib.config import ROOT, STEADY, Profile, Recipe, Schedule, get_profile
from jsws_lib.engine.checkpoints import load_ssnet, shipped
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.experiments.studies.followed import Following, chart, complete
from jsws_lib.ssnet import SSNet
from jsws_lib.training import seed_everything, train

FILE = ROOT / "results" / "stays.json"
STEPS, EVERY, LIMIT = 300, 50, 200  # LIMIT: images of each set that are measured
WORDS = (
    f"{STEPS} steps from the shipped M, Adam at 1e-4, on {LIMIT} images each of VOC "
    "val and the saliency test set of profile mini "
    "(python -m jsws_lib.experiments.studies.stays)."
)
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
        the rows of `Following`, with `MEASURES`.

    Raises:
        JswsError: data or weights are missing or broken, or a loss is not finite.
    """
    recipe = recipe_of(reading)

    def measure(net: SSNet) -> dict[str, float]:
        result = evaluate(net, profile=profile, recipe=recipe, limit=LIMIT)
        figures = result.figures()
        figures["iou_background"] = float(result.segmentation.compute().iou[0])
        return {name: round(value, 5) for name, value in figures.items()}

    net, loop = load_ssnet(shipped("mini_M"))[0], Following(every, measure)
    seed_everything(seed)
    profile = replace(profile, schedules=(Schedule(), Schedule()))
    options = {"profile": profile, "recipe": recipe, "seed": seed, "steps": steps}
    train(net, ("L_c", "L_s1"), **options, loop=loop, title=reading)
    return loop.rows


if __name__ == "__main__":
    runs, run = product(READINGS, range(3)), partial(follow, profile=get_profile("mini"))
    rows = complete(FILE, "reading", runs, run, words=WORDS)
    fig = chart(rows, "reading", MEASURES, xlabel="steps from the trained M")
    fig.savefig(ROOT / "docs" / "stays.png", dpi=110)
