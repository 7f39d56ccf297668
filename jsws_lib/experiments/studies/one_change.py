"""What makes stage 1 learn: the default recipe with one thing changed at a time.

`jsws study` trains setting M (S where a change concerns labels alone) once for each row
of `TRIALS` on the embedded data and writes `results/study_mini.json`.
"""

from dataclasses import replace
from pathlib import Path

from jsws_lib.config import PROFILES, RECIPES, STEADY, Recipe, Schedule
from jsws_lib.engine.devices import versions
from jsws_lib.engine.runs import Run
from jsws_lib.experiments.ablation import RESULTS, Row, default_jobs, run_all, store

STEPS = 450  # fewer than the course's stage 1
MINI = replace(PROFILES["mini"], steps=(STEPS, PROFILES["mini"].steps[1]))
# Section 4.1 on fewer steps: the rate halves nine times on the way.
STAIRCASE = (Schedule(every=STEPS // 10), PROFILES["mini"].schedules[1])

LITERALLY = "t-hat averages probabilities and *L_c* is weighted 1, as in the paper"
ANCHORED = "*L_s1* asks for H_bg, SAM at the common rate: recipe `anchored`"
ALL, FEW = (replace(STEADY, evidence_share=share) for share in (1.0, 0.2))
ODDS = replace(STEADY, class_evidence="odds")
LITERAL_T = replace(STEADY, class_evidence="mean_probs", class_weight=1.0)

# Words, setting and recipe.
TRIALS: list[tuple[str, str, Recipe]] = [
    ("nothing: recipe `steady`", "M", STEADY),
    ("t-hat averages all logits, not the higher half", "M", ALL),
    ("t-hat averages the highest fifth", "M", FEW),
    ("t-hat is the mean odds H_i / H_bg", "M", ODDS),
    (LITERALLY, "M", LITERAL_T),
    ("SAM at the common rate", "M", replace(STEADY, sam_rate=None)),
    (ANCHORED, "M", RECIPES["anchored"]),
    ("recipe `paper`", "M", RECIPES["paper"]),
    ("Adam at 1e-4, halved nine times", "M", replace(STEADY, schedules=STAIRCASE)),
    ("labels alone: nothing", "S", STEADY),
    ("labels alone: t-hat averages all logits", "S", ALL),
    ("labels alone: the highest fifth", "S", FEW),
    ("labels alone: mean odds", "S", ODDS),
    ("labels alone: probabilities, weighted 1", "S", LITERAL_T),
]
SHOWN = ("miou", "mae", "max_f", "v_salient", "v_not_salient", "v_gap")


def trial_rows() -> list[Row]:
    """The runs of `TRIALS`, in order."""
    return [Row(words, Run(s, MINI, recipe)) for words, s, recipe in TRIALS]


def study(*, jobs: int | None = None, out: Path | None = None) -> Path:
    """Train and measure `TRIALS`, `jobs` runs at a time, and write one JSON file.

    `jobs` is one per core by default, `out` is `results/study_mini.json`.
    """
    rows = []
    for trial, record in run_all(trial_rows(), jobs or default_jobs()).items():
        row = {"changed": trial.name, "setting": trial.run.setting}
        row |= {name: record[name] for name in SHOWN if name in record}
        row["background_iou"] = record["iou"][0]
        rows.append(row)
    file = out or RESULTS / "study_mini.json"
    words = (
        f"Profile mini with {STEPS} steps of stage 1, seed 0, one run each: the "
        "default recipe with one thing changed (`jsws study`)."
    )
    store({"seed": 0, "words": words, "versions": versions(), "rows": rows}, file)
    return file
