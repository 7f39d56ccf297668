"""What makes stage 1 learn: the default recipe with one thing changed at a time.

`jsws study` trains setting M (S where a change concerns labels alone) once for each row
of `TRIALS` on the embedded data and writes `results/study_mini.json`.
"""

import json
from dataclasses import replace
from pathlib import Path

from data_utils.files import write_bytes
from jsws_lib.config import PROFILES, RECIPES, STEADY, Recipe, Schedule
from jsws_lib.engine.runs import Run
from jsws_lib.experiments.ablation import RESULTS, Row, default_jobs, run_all

STEPS = 450  # fewer than the course's stage 1
MINI = replace(PROFILES["mini"], steps=(STEPS, PROFILES["mini"].steps[1]))
LITERAL_T = {"class_evidence": "mean_probs", "class_weight": 1.0}
# Section 4.1 on fewer steps: the rate halves nine times on the way.
STAIRCASE = (Schedule(every=STEPS // 10), PROFILES["mini"].schedules[1])

LITERALLY = "t-hat averages probabilities and *L_c* is weighted 1, as in the paper"
ANCHORED = "*L_s1* asks for H_bg, SAM at the common rate: recipe `anchored`"
ALL, FEW = {"evidence_share": 1.0}, {"evidence_share": 0.2}
ODDS = {"class_evidence": "odds"}

# Words, setting, and what the recipe has instead: some fields, or another recipe.
TRIALS: list[tuple[str, str, dict | Recipe]] = [
    ("nothing: recipe `steady`", "M", {}),
    ("t-hat averages all logits, not the higher half", "M", ALL),
    ("t-hat averages the highest fifth", "M", FEW),
    ("t-hat is the mean odds H_i / H_bg", "M", ODDS),
    (LITERALLY, "M", LITERAL_T),
    ("SAM at the common rate", "M", {"sam_rate": None}),
    (ANCHORED, "M", RECIPES["anchored"]),
    ("recipe `paper`", "M", RECIPES["paper"]),
    ("Adam at 1e-4, halved nine times", "M", {"schedules": STAIRCASE}),
    ("labels alone: nothing", "S", {}),
    ("labels alone: t-hat averages all logits", "S", ALL),
    ("labels alone: the highest fifth", "S", FEW),
    ("labels alone: mean odds", "S", ODDS),
    ("labels alone: probabilities, weighted 1", "S", LITERAL_T),
]
SHOWN = ("miou", "mae", "max_f", "v_salient", "v_not_salient", "v_gap")


def trial_rows(seed: int = 0) -> list[Row]:
    """The runs of `TRIALS`, in order."""
    rows = []
    for words, setting, change in TRIALS:
        recipe = change if isinstance(change, Recipe) else replace(STEADY, **change)
        rows.append(Row(words, Run(setting, MINI, recipe, seed)))
    return rows


def study(*, seed: int = 0, jobs: int | None = None, out: Path | None = None) -> Path:
    """Train and measure `TRIALS` and write one JSON file.

    Args:
        seed: of all runs.
        jobs: runs at a time; default one per core.
        out: the file; default `results/study_mini.json`.
    """
    rows = []
    for trial, record in run_all(trial_rows(seed), jobs or default_jobs()).items():
        row = {"changed": trial.name, "setting": trial.run.setting}
        row |= {name: record[name] for name in SHOWN if name in record}
        row["background_iou"] = record["iou"][0]
        rows.append(row)
    file = out or RESULTS / "study_mini.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    words = (
        f"Profile mini with {STEPS} steps of stage 1, seed {seed}, one run each: the "
        "default recipe with one thing changed (`jsws study`)."
    )
    text = json.dumps({"seed": seed, "words": words, "rows": rows}, indent=1)
    write_bytes(file, (text + "\n").encode())
    return file
