"""The paper's Tables 1 to 4: transcribed whole, with the faults that the notes name."""

import json

import numpy as np
import pytest

from data_utils.voc import VOC_CLASSES
from jsws_lib.ablation import RESULTS
from jsws_lib.compare import CLAIMS, beside_table, claims_table, paper_table
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
    assert len(lines) == 2 + len(CLAIMS)
    assert lines[2].startswith("| saliency helps segmentation | miou: M − S | +24.0 | ")
    assert lines[2].endswith("| 2 of 3 |")
    assert lines[3].endswith("| 0 of 3 |")  # no difference agrees with nobody
