"""The paper's Tables 1 to 4: transcribed whole, with the faults that the notes name."""

import json

import numpy as np
import pytest

from data_utils.voc import VOC_CLASSES
from jsws_lib.ablation import RESULTS
from jsws_lib.compare import (
    CLAIMS,
    DIFFERENCES,
    beside_table,
    claims_table,
    paper_table,
)
from jsws_lib.results import MINI, PAPER


def values(number):
    rows = paper_table(number)["rows"]
    return {name: np.array(row["values"]) for name, row in rows.items() if "values" in row}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_row_is_whole(number):
    table = paper_table(number)
    assert all(len(v) == len(table["columns"]) for v in values(number).values())
    assert table["notes"] and table["source"].endswith(f"Table {number}")
    assert len(table["rows"]) == {1: 12, 2: 12, 3: 14, 4: 13}[number]


@pytest.mark.parametrize("number", [3, 4])
def test_means_are_those_of_the_values(number):
    table = paper_table(number)
    assert len(table["columns"]) == len(VOC_CLASSES)
    for name, row in values(number).items():
        assert abs(row.mean() - table["rows"][name]["mean"]) < 0.07, name


def test_the_notes_are_true():
    assert round(values(3)["Ours"].mean(), 2) == 63.24
    np.testing.assert_array_equal(values(3)["MIL"], values(4)["MIL"])
    table = np.stack([*values(2).values()])
    ranks = (table > values(2)["Ours"]).sum(0) + 1
    assert dict(zip(paper_table(2)["columns"], ranks, strict=True)) == {
        "ECSSD": 3, "PASCAL-S": 2, "HKU-IS": 3, "DUTS-test": 2}  # fmt: skip
    assert values(1)["Ours"][0] == PAPER["MM"]["mae_crf"]
    assert values(2)["Ours"][0] == PAPER["MM"]["max_f_crf"]
    assert paper_table(3)["rows"]["Ours"]["mean"] == PAPER["MM"]["miou"]


def test_our_rows_are_the_measured_ones():
    drawings = json.loads(MINI.read_text())
    photographs = json.loads((RESULTS / "photographs.json").read_text())
    lines = beside_table(drawings, photographs).splitlines()
    assert len(lines) == 6
    mean = np.mean(drawings["settings"]["MM"]["mae_crf"])
    assert lines[2].startswith(f"| 1 | MAE, ECSSD | 0.045 | {mean:.3f} ± ")
    assert lines[5].count("–") == 3  # nothing of ours belongs beside Table 4


def test_a_claim_counts_the_seeds_that_agree():
    row = {key: [1.0, 2.0, 3.0] for key in ("miou", "mae", "max_f")}
    worse = {key: [0.5, 2.5, 1.0] for key in row}
    result = {"settings": {name: worse for name in PAPER} | {"M": row}}
    lines = claims_table(result).splitlines()
    assert len(lines) == 2 + len(CLAIMS) + len(DIFFERENCES)
    start = "| saliency helps segmentation | the text | miou: M − S | +24.0 | "
    assert lines[2].startswith(start)
    assert lines[2].endswith("| 2 of 3 |")
    assert lines[3].endswith("| 0 of 3 |")  # no difference agrees with nobody
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        *["the text"] * len(CLAIMS), *["Table 5 only"] * len(DIFFERENCES)]  # fmt: skip


def test_no_harm_needs_max_f_and_mae_at_once():
    """Section 4.4: a larger max F and an MAE of .001 more are no harm; more is."""
    joint = {"max_f": [0.91, 0.91, 0.90, 0.90], "mae": [0.040, 0.042, 0.041, 0.039]}
    alone = {"max_f": [0.90, 0.90, 0.90, 0.91], "mae": [0.040] * 4}
    text = claims_table({"settings": {"MM": joint, "2S": alone}})
    (line,) = (row for row in text.splitlines() if "does not harm" in row)
    assert " | max_f, mae: MM − 2S | +0.013, +0.001 | +0.003 ± " in line
    assert line.endswith("| 2 of 4 |")  # the second costs MAE, the fourth max F


def test_settings_that_were_not_run_are_dashes():
    lines = claims_table({"settings": {"S": {"miou": [0.2]}}}).splitlines()
    assert len(lines) == 2 + len(CLAIMS) + len(DIFFERENCES)
    assert all(line.endswith("| – | – |") for line in lines[2:])


def test_here_joint_learning_does_harm_saliency():
    text = claims_table(json.loads(MINI.read_text()))
    (line,) = (row for row in text.splitlines() if "does not harm" in row)
    assert line.endswith("| 0 of 3 |")


def test_what_is_different_is_complete():
    drawings = json.loads(MINI.read_text())
    photographs = json.loads((RESULTS / "photographs.json").read_text())
    table = beside_table(drawings, photographs)
    for line in table.splitlines()[2:5]:
        for word in ("pictures", "network", "image size", "pre-training", "loss recipe",
                     "schedule", "photographs: "):  # fmt: skip
            assert word in line.split(" | ")[-1]
