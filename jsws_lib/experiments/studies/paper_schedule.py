"""The paper's own schedule to its end, on the embedded data, by the reading of the losses.

    python -m jsws_lib.experiments.studies.paper_schedule

Setting M, 10,000 steps, Adam at 1e-4, halved every 1,000 (Section 4.1); the network is
measured every 500. The rows of a reading go to `results/paper_schedule.json` when it
ends, and it is not followed again.
"""

from dataclasses import replace
from functools import partial
from itertools import product

from jsws_lib.config import JSWS2020, ROOT, STEADY, Profile, Schedule, get_profile
from jsws_lib.experiments.studies.followed import Following, chart, complete
from jsws_lib.experiments.studies.sam_trials import sam_measures
from jsws_lib.experiments.studies.stays import recipe_of
from jsws_lib.stage1 import train_stage1

FILE = ROOT / "results" / "paper_schedule.json"
STEPS, EVERY = 10_000, 500
WORDS = (
    "M under the schedule of Section 4.1, Adam at 1e-4 halved every 1,000 steps, on the "
    "embedded data, all of VOC val and of the saliency test set "
    "(python -m jsws_lib.experiments.studies.paper_schedule)."
)
READINGS = {
    "literal": recipe_of("literal"),
    "steady": STEADY,
    "jsws2020": replace(JSWS2020, schedules=None),  # the paper's, as the others
}
MEASURES = {
    "miou": "mIoU",
    "iou_background": "background IoU",
    "max_f": "max *F*",
    "v_gap": "gap of *v*",
}


def follow(
    reading: str, seed: int, profile: Profile, *, steps: int = STEPS, every: int = EVERY
) -> list[dict]:
    """Train M under a reading and measure every so many steps.

    Args:
        reading: key of `READINGS`.
        seed: of weights, order and crops.
        profile: of the embedded data; neither its schedule nor its steps are used.
        steps, every: how long, and how often it is measured.

    Returns:
        the rows of `Following`, with `sam_measures`.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    schedules = (Schedule(), Schedule())
    profile = replace(profile, schedules=schedules, steps=(steps, steps))
    loop = Following(every, lambda net: sam_measures(net, profile))
    given = {"profile": profile, "recipe": READINGS[reading], "seed": seed}
    train_stage1("M", **given, loop=loop)
    return loop.rows


if __name__ == "__main__":
    runs, run = product(READINGS, [0]), partial(follow, profile=get_profile("mini"))
    fig = chart(complete(FILE, "reading", runs, run, words=WORDS), "reading", MEASURES)
    fig.savefig(ROOT / "docs" / "paper_schedule.png", dpi=110)
