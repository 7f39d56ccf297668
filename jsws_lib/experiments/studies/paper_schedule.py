"""The paper's own schedule to its end, on the embedded data, by the reading of the losses.

    python -m jsws_lib.experiments.studies.paper_schedule [READING ...]

Setting M, 10,000 steps, Adam at 1e-4, halved every 1,000 (Section 4.1); the network is
measured every 500. A row goes to `results/paper_schedule.json` at once, and a training
that was interrupted goes on from its last resume point.
"""

import sys
from dataclasses import replace
from pathlib import Path

from data_utils.categories import categories
from jsws_lib.config import JSWS2020, ROOT, SETTINGS, STEADY, Profile, Schedule, get_profile
from jsws_lib.engine.loop import RunLoop
from jsws_lib.engine.runs import runs_root
from jsws_lib.experiments.studies.followed import append, chart, known
from jsws_lib.experiments.studies.sam_trials import sam_measures
from jsws_lib.experiments.studies.stays import recipe_of
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import seed_everything, train

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
    "odds": replace(STEADY, class_evidence="odds"),
    "jsws2020": replace(JSWS2020, schedules=None),  # the paper's, as the others
}
MEASURES = {
    "miou": "mIoU",
    "iou_background": "background IoU",
    "max_f": "max *F*",
    "v_gap": "gap of *v*",
}


def follow(
    reading: str,
    profile: Profile,
    *,
    seed: int = 0,
    steps: int = STEPS,
    every: int = EVERY,
    limit: int | None = None,
    file: Path = FILE,
):
    """Train M under a reading, and append what `file` does not hold yet.

    Args:
        reading: key of `READINGS`.
        profile: of the embedded data; its schedule is not used.
        seed: of weights, order and crops.
        steps, every: how long, and how often it is measured.
        limit: measure at most so many images of each set.
        file: gets rows of `reading`, `seed`, `step`, `lr`, `sam_measures`, and of `L_c`
            and `L_s1`, their means since the row before.

    Raises:
        JswsError: data are missing or broken, or a loss is not finite.
    """
    profile = replace(profile, schedules=(Schedule(), Schedule()), validate_every=0)
    recipe, tag = READINGS[reading], f"paper-schedule-{reading}-{seed}"
    done = {r["step"] for r in known(file) if (r["reading"], r["seed"]) == (reading, seed)}

    def measure(step: int, net, lr: float):
        if step in done:
            return
        net.eval()
        row = {"reading": reading, "seed": seed, "step": step, "lr": lr}
        row |= sam_measures(net, profile, limit)
        for name in ("L_c", "L_s1") if step else ():
            values = [record[name] for record in loop.history[step - every : step]]
            row[name] = round(sum(values) / len(values), 5)
        append(file, row, words=WORDS)
        net.train()

    def on_step(step: int, net, record: dict):
        if (step + 1) % every == 0:
            measure(step + 1, net, record["lr"])

    loop = RunLoop(folder=runs_root() / tag, tag=tag, on_step=on_step)
    seed_everything(seed)
    count = len(categories(profile.data / profile.voc))
    shape = {"backbone": profile.backbone, "size": profile.size, "categories": count}
    net = build_ssnet(1, recipe=recipe, **shape)
    measure(0, net, Schedule().lr)
    options = {"profile": profile, "recipe": recipe, "seed": seed, "steps": steps}
    train(net, SETTINGS["M"].losses, **options, loop=loop, title=reading)


if __name__ == "__main__":
    for name in sys.argv[1:] or READINGS:
        follow(name, get_profile("mini"))
    fig = chart(known(FILE), "reading", MEASURES)
    fig.savefig(ROOT / "docs" / "paper_schedule.png", dpi=110)
