"""The paper's Tables 1 to 4: transcribed whole, with the faults that the notes name."""

import json

import numpy as np
import pytest

from data_utils.voc import VOC_CLASSES
from jsws_lib.experiments.ablation import RESULTS
from jsws_lib.experiments.claims import CLAIMS, claims_table
from jsws_lib.experiments.paper_tables import beside_table, paper_table
from jsws_lib.experiments.results import MINI, PUBLISHED


def values(number):
    rows = paper_table(number)["rows"]
    return {name: np.array(row["values"]) for name, row in rows.items() if "values" in row}


@pytest.mark.parametrize(("number", "rows"), [(1, 12), (2, 12), (3, 14), (4, 13)])
def test_every_row_is_whole(number, rows):
    table = paper_table(number)
    assert len(table["rows"]) == rows and table["notes"]
    assert table["source"].endswith(f"Table {number}")
    assert len(table["columns"]) == (4 if number < 3 else len(VOC_CLASSES))
    for name, row in values(number).items():
        assert len(row) == len(table["columns"]), name
        if number > 2:
            assert abs(row.mean() - table["rows"][name]["mean"]) < 0.07, name


def test_what_stands_in_two_tables_agrees():
    assert values(1)["Ours"][0] == PUBLISHED["MM"]["mae_crf"]
    assert values(2)["Ours"][0] == PUBLISHED["MM"]["max_f_crf"]
    assert paper_table(3)["rows"]["Ours"]["mean"] == PUBLISHED["MM"]["miou"]


def rows(table):
    """The cells of a Markdown table below its head."""
    lines = [line.strip("| ").split("|") for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line] for line in lines]


def claims(**settings):
    return rows(claims_table({"settings": settings}))


def test_our_rows_are_the_measured_ones():
    drawings = json.loads(MINI.read_text())
    photographs = json.loads((RESULTS / "photographs.json").read_text())
    found = rows(beside_table(drawings, photographs))
    mean = np.mean(drawings["settings"]["MM"]["mae_crf"])
    assert found[0][:3] == ["1", "MAE, ECSSD", "0.045"]
    assert found[0][3].startswith(f"{mean:.3f} ± ")
    assert found[3][3:6] == ["–"] * 3  # nothing of ours belongs beside Table 4
    for row in found[:3]:
        for word in ("pictures", "network", "image size", "pre-training", "schedule"):
            assert word in row[-1]


def test_a_claim_counts_the_seeds_that_agree():
    row = {key: [1.0, 2.0, 3.0] for key in ("miou", "mae", "max_f")}
    worse = {key: [0.5, 2.5, 1.0] for key in row}
    found = claims(**dict.fromkeys(PUBLISHED, worse) | {"M": row})
    first = ["saliency helps segmentation", "the text", "miou: M − S", "+24.0"]
    assert found[0][:4] == first and found[0][5] == "2 of 3"
    assert found[1][5] == "0 of 3"  # no difference agrees with nobody
    assert [row[1] for row in found] == ["the text"] * 4 + ["Table 5 only"] * 2
    found = claims(S={"miou": [0.2]})
    assert [row[4:] for row in found] == [["–"] * 4] * len(CLAIMS)  # not run


def test_claims_about_labels_alone_are_made_of_their_cams_too():
    figures = {"S": [0.2, 0.2], "SS": [0.1, 0.1], "S_cam": [0.4, 0.4], "SS_cam": [0.5]}
    found = claims(**{setting: {"miou": x} for setting, x in figures.items()})
    (row,) = (row for row in found if row[0] == "stage 2 above S")
    assert row[4:] == ["-10.0 ± 0.0", "0 of 2", "+10.0", "1 of 1"]
    assert all(row[6:] == ["–", "–"] for row in found if "S" not in row[2].split(" − "))


def test_no_harm_needs_max_f_and_mae_at_once():
    """Section 4.4: a larger max F and an MAE of .001 more are no harm; more is."""
    joint = {"max_f": [0.91, 0.91, 0.90, 0.90], "mae": [0.040, 0.042, 0.041, 0.039]}
    alone = {"max_f": [0.90, 0.90, 0.90, 0.91], "mae": [0.040] * 4}
    found = claims(**{"MM": joint, "2S": alone})
    (row,) = (row for row in found if "does not harm" in row[0])
    assert row[2:4] == ["max_f, mae: MM − 2S", "+0.013, +0.001"]
    assert row[4].startswith("+0.003 ± ")
    assert row[5] == "2 of 4"  # the second costs MAE, the fourth max F
