"""Our figures beside the paper's: in the right cell, in both forms, never silently."""

import json
import math
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from data_utils.errors import JswsError
from jsws_lib.cli.main import app
from jsws_lib.experiments.paper_tables import APART, beside, paper_table, read
from jsws_lib.experiments.results import MINI, spread


def write(path, **record):
    path.write_text(json.dumps(record))
    return read(path)


@pytest.fixture
def measured(tmp_path):
    """What the four commands print or write, by kind."""
    maps = {"protocol": "toolbox", "mae": 0.05, "max_f": 0.9, "images": 4447}
    network = {"setting": "MM", "miou": 0.6, "mae": 0.07, "max_f": 0.88, "images": 4447}
    files = {
        "saliency": maps,
        "pysod": maps | {"protocol": "pysod"},
        "segmentation": {"miou": 0.52, "iou": [0.9, None, *[0.5] * 19], "absent": "union"},
        "network": network | {"mae_crf": 0.06, "max_f_crf": 0.89, "protocol": "toolbox"},
    }
    results = {name: write(tmp_path / f"{name}.json", **one) for name, one in files.items()}
    return results | {"ablation": read(MINI)}


@pytest.mark.parametrize("number", [1, 2])
def test_saliency_rows_stand_under_their_set_or_apart(measured, number):
    results = [measured[kind] for kind in ("ablation", "saliency", "network")]
    table = beside(number, results)
    assert table.columns[-1] == APART and len(table.rows) == 12 + 3
    key = paper_table(number)["measure"]
    found = json.loads(MINI.read_text())["settings"]["MM"][f"{key}_crf"]
    for name, cell in {
        "ablation_mini": spread(found, key),
        "saliency": {"mae": "0.050", "max_f": "0.900"}[key],
        "network": {"mae": "0.060", "max_f": "0.890"}[key],
    }.items():
        assert table.rows[f"{name}, here"] == [None] * 4 + [cell]
    assert any("saliency: without CRF" in note for note in table.notes)
    at_home = beside(number, results[1:], on="HKU-IS")
    assert APART not in at_home.columns and "on HKU-IS" in at_home.notes[0]
    assert at_home.rows["saliency, here"][2] == {"mae": "0.050", "max_f": "0.900"}[key]
    shown = {label.split(" '")[0]: row for label, row in table.rows.items()}
    for name, row in paper_table(number)["rows"].items():
        assert shown[name][:4] == [f"{value:.3f}" for value in row["values"]]


@pytest.mark.parametrize("number", [3, 4])
def test_segmentation_rows_have_each_category(measured, number):
    table = beside(number, [measured["segmentation"], measured["ablation"]])
    row = table.rows["segmentation, here"]
    assert row[:3] == ["90.0", "–", "50.0"] and row[-1] == "52.0" and len(row) == 22
    iou = np.array(json.loads(MINI.read_text())["settings"]["MM"]["iou"], float)
    assert table.rows["ablation_mini, here"][5].startswith(
        f"{100 * iou[:, 5].mean():.1f} ±"
    )
    assert table.rows["Ours"][-1] == f"{paper_table(number)['rows']['Ours']['mean']:.1f}"
    assert any("‡ scribbles" in note for note in table.notes)


def test_ablation_columns_stand_beside_tables_5_and_6(measured):
    table = beside(5, [measured["ablation"], measured["network"]])
    assert [*table.rows] == ["S", "M", "S-S", "M-S", "M-M"]
    paper = [float(row[0]) for row in table.rows.values()]
    assert paper == [33.1, 57.1, 47.1, 62.7, 63.3]
    assert table.rows["M-M"][2] == "60.0" and table.rows["S"][2] is None
    six = beside(6, [measured["ablation"]])
    assert six.columns[:2] == ("paper: MAE", "paper: max F")
    assert six.rows["M-M + CRF"][0] == "0.045"
    assert six.rows["2S + CRF"][0] is None and six.rows["2S + CRF"][2] is not None


def cells(text):
    """The rows of a table in Markdown or LaTeX, without escapes."""
    if "tabular" in text:
        lines = re.findall(r"^.* & .*(?= \\\\$)", text, re.M)
        found = [re.split(r"(?<!\\)&", line) for line in lines]
    else:
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (lines[0], *lines[2:])]
    return [[cell.replace("\\", "").strip() for cell in row] for row in found]


@pytest.mark.parametrize("number", range(1, 7))
def test_both_forms_say_the_same(measured, number):
    table = beside(number, [measured["ablation"]])
    shown = cells(table.markdown())
    assert shown[0][1:] == list(table.columns) and len(shown) == 1 + len(table.rows)
    assert shown == cells(table.latex())


@pytest.mark.parametrize(
    ("kind", "number", "on", "words"),
    [
        ("pysod", 2, None, "measured under pysod, Table 2 under toolbox"),
        ("segmentation", 1, None, "has no mae of M-M, which Table 1"),
        ("saliency", 3, None, "has no miou, which Table 3"),
        ("saliency", 5, None, "has no miou of a setting, which Table 5"),
        ("ablation", 1, "ECSSD", "does not say on how many images"),
        ("saliency", 1, "SOD", "Table 1 takes ECSSD or .* or no --on"),
        ("segmentation", 3, "test", "Table 3 takes val or no --on"),
        ("ablation", 6, "ECSSD", "Table 6 takes no --on"),
    ],
)
def test_what_cannot_be_compared_is_refused(measured, kind, number, on, words):
    with pytest.raises(JswsError, match=words):
        beside(number, [measured[kind]], on=on)


def test_results_are_told_apart(measured, tmp_path):
    with pytest.raises(JswsError, match="two results are called saliency"):
        beside(1, 2 * [measured["saliency"]])
    ours = write(tmp_path / "Ours.json", mae=0.1)
    rows = beside(1, [ours]).rows
    assert rows["Ours"][0] == "0.045" and rows["Ours, here"][-1] == "0.100"


PERCENT = {"miou": 57.1, "mae": 5.0, "max_f": 91.2}


@pytest.mark.parametrize(
    "record",
    [
        PERCENT,
        *({"mae": v} for v in (-0.1, math.nan, math.inf, True, 10**400, "0.1", [0.1], {})),
        {"miou": 0.5, "iou": 0.3},
        {"miou": 0.5, "iou": [90.0] * 21},
        {"miou": 0.5, "iou": []},
        {"settings": {"MM": None}},
        {"settings": {"MM": [0.5]}},
        *({"settings": {"MM": {"mae": v}}} for v in (0.1, [], [math.nan], [[0.1]], "0.1")),
        {"settings": {"MM": {"iou": [0.1]}}},
        {"settings": {"MM": {"miou": [None]}}},
    ],
)
def test_what_is_no_fraction_is_refused(tmp_path, record):
    with pytest.raises(JswsError, match="x.json.*(fractions from 0 to 1|no object of)"):
        write(tmp_path / "x.json", **record)


def test_a_measure_without_an_answer_is_none(tmp_path):
    row = {"miou": [0.5, 0.6], "mae": [0.1, None]}
    assert write(tmp_path / "x.json", settings={"MM": row}).best("mae") is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_other_shells_redirect_is_read(tmp_path, encoding):
    (tmp_path / "x.json").write_text('{"mae": 0.1}', encoding=encoding)
    assert read(tmp_path / "x.json").best("mae") == [0.1]


def test_a_broken_file_is_one_clear_error(tmp_path):
    with pytest.raises(JswsError, match="x.json: setting is .*MM"):
        write(tmp_path / "x.json", setting=["MM"], mae=0.1)


def test_other_categories_have_no_place_in_table_3(tmp_path):
    names = ["background", *(f"pet {k}" for k in range(20))]
    for more in ({"iou": [0.9, 0.1, None]}, {"iou": [0.5] * 21, "categories": names}):
        result = write(tmp_path / "pets.json", miou=0.5, **more)
        with pytest.raises(JswsError, match="pets.json.*VOC's 20 categories.*Table 3"):
            beside(3, [result])
    five = write(tmp_path / "five.json", miou=0.5, setting="MM", iou=[0.9, 0.1, None])
    assert beside(5, [five]).rows["M-M"][1] == "50.0"


@pytest.mark.parametrize("number", [1, 5])
def test_names_with_signs_that_mean_something(tmp_path, number):
    result = write(tmp_path / "a|b<i>&%#*_`c`.json", setting="MM", mae=0.1, miou=0.5)
    table = beside(number, [result])
    assert len({len(row) for row in cells(table.markdown())}) == 1
    assert r"a\|b\<i>" in table.markdown() and r"\*_\`c\`" in table.markdown()
    assert r"\&\%\#*\_`c`" in table.latex()


def test_a_network_without_the_measure_is_refused_beside_one_that_has_it(tmp_path):
    has = write(tmp_path / "a: b.json", setting="MM", miou=0.5)
    lacks = write(tmp_path / "a.json", setting="MM", mae=0.1)
    with pytest.raises(JswsError, match="a.json has no miou of a setting"):
        beside(5, [has, lacks])


def test_the_command(measured):
    words = ["compare", str(measured["network"].file), "--table", "2", "--on", "HKU-IS"]
    answer = CliRunner().invoke(app, [*words, "--format", "latex"])
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith(r"\begin{table}") and "0.890" in answer.output
    assert CliRunner().invoke(app, words).output.startswith("**maximum F-measure")


@pytest.mark.parametrize(
    ("name", "count"),
    [("ECSSD", 1000), ("PASCAL-S", 850), ("HKU-IS", 4447), ("DUTS-test", 5019)],
)
def test_a_part_of_a_test_set_is_not_the_set(tmp_path, name, count):
    known = {"mae": 0.05, "max_f": 0.9, "protocol": "toolbox"}
    whole = write(tmp_path / "mine.json", images=count, **known)
    assert APART not in beside(2, [whole], on=name).columns
    part = write(tmp_path / "mine.json", images=100, **known)
    assert APART in beside(2, [part]).columns
    with pytest.raises(JswsError, match=f"on 100 images, but {name} has {count:,}: leave"):
        beside(2, [part], on=name)
