"""Our figures beside the paper's: in the right cell, in four forms, never silently."""

import html
import json
import math
import re
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from data_utils.errors import JswsError
from jsws_lib.cli.main import app
from jsws_lib.experiments.ablation import mean_sd
from jsws_lib.experiments.paper_tables import APART, beside, chart, paper_table, read
from jsws_lib.experiments.results import MINI, PUBLISHED


def write(path, **record):
    path.write_text(json.dumps(record))
    return read(path)


@pytest.fixture
def measured(tmp_path):
    """What the four commands print or write, by kind."""
    maps = {"protocol": "toolbox", "mae": 0.05, "max_f": 0.9, "images": 4447}
    network = {"setting": "MM", "miou": 0.6, "mae": 0.07, "max_f": 0.88}
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
    for name in table.ours:
        assert [cell is None for cell in table.rows[name]] == [True] * 4 + [False]
    key = paper_table(number)["measure"]
    found = json.loads(MINI.read_text())["settings"]["MM"][f"{key}_crf"]
    assert table.rows["ablation_mini"][-1] == mean_sd(found)
    assert table.rows["network"][-1][0] == {"mae": 0.06, "max_f": 0.89}[key]
    assert any("saliency: without CRF" in note for note in table.notes)
    at_home = beside(number, results[1:], on="HKU-IS")
    assert APART not in at_home.columns
    assert at_home.rows["saliency"][2][0] == {"mae": 0.05, "max_f": 0.9}[key]
    shown = {label.split(" '")[0]: row for label, row in table.rows.items()}
    for name, row in paper_table(number)["rows"].items():
        assert [cell[0] for cell in shown[name][:4]] == row["values"]


@pytest.mark.parametrize("number", [3, 4])
def test_segmentation_rows_have_each_category(measured, number):
    table = beside(number, [measured["segmentation"], measured["ablation"]])
    row = table.rows["segmentation"]
    assert row[0][0] == 90 and row[1] is None and row[-1][0] == pytest.approx(52)
    iou = np.array(json.loads(MINI.read_text())["settings"]["MM"]["iou"], float)
    assert table.rows["ablation_mini"][5][0] == pytest.approx(100 * iou[:, 5].mean())
    assert "60.8" not in table.markdown() or number == 4
    assert any("‡ scribbles" in note for note in table.notes)


def test_ablation_columns_stand_beside_tables_5_and_6(measured):
    table = beside(5, [measured["ablation"], measured["network"]])
    assert [*table.rows] == ["S", "M", "S-S", "M-S", "M-M"]
    assert [row[0][0] for row in table.rows.values()] == [33.1, 57.1, 47.1, 62.7, 63.3]
    assert table.rows["M-M"][2][0] == pytest.approx(60) and table.rows["S"][2] is None
    six = beside(6, [measured["ablation"]])
    assert six.rows["M-M + CRF"][0][0] == PUBLISHED["MM"]["mae_crf"]
    assert six.rows["2S + CRF"][0] is None and six.rows["2S + CRF"][2] is not None


def cells(text):
    """The rows of a table in Markdown, LaTeX or HTML, without what marks our own."""
    if "<table>" in text:
        rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
        found = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in rows]
    elif "tabular" in text:
        lines = re.findall(r"^.* & .*(?= \\\\$)", text, re.M)
        found = [re.split(r"(?<!\\)&", line) for line in lines]
    else:
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (lines[0], *lines[2:])]
    return [[re.sub(r"</?b>|\\?\*|\\", "", cell).strip() for cell in row] for row in found]


@pytest.mark.parametrize("number", range(1, 7))
def test_three_forms_say_the_same(measured, number):
    table = beside(number, [measured["ablation"]])
    shown = cells(table.markdown())
    assert shown[0][1:] == list(table.columns) and len(shown) == 1 + len(table.rows)
    page = [[html.unescape(cell) for cell in row] for row in cells(table.html())]
    assert page == shown == cells(table.latex())
    terminal = table.terminal().splitlines()
    assert all(row[-1] in line for row, line in zip(shown[1:], terminal[4:], strict=False))
    mine = table.latex().split(r"\midrule")[2:]
    rows = [("ablation" in part, part.count(r" \\")) for part in mine]
    assert rows == [(True, 1)] * (number <= 4)


@pytest.mark.parametrize("number", range(1, 7))
def test_the_chart_shows_every_figure(measured, number):
    table = beside(number, [measured["ablation"]])
    axes = chart(table).axes
    row = table.rows["M-M" if number > 4 else "ablation_mini"]
    mean = next(cell[0] for cell in reversed(row) if cell)
    drawn = [y for ax in axes for line in ax.lines for y in line.get_ydata()]
    assert np.isclose(drawn, mean).any()


@pytest.mark.parametrize(
    ("kind", "number", "on", "words"),
    [
        ("pysod", 2, None, "measured under pysod, Table 2 under toolbox"),
        ("segmentation", 1, None, "has no mae of M-M, which Table 1"),
        ("saliency", 3, None, "has no miou, which Table 3"),
        ("saliency", 5, None, "has no miou of a setting, which Table 5"),
        ("saliency", 1, "SOD", "the columns of Table 1 are ECSSD"),
        ("segmentation", 3, "test", "Table 3 is about VOC val"),
        ("ablation", 6, "ECSSD", "leave it out"),
    ],
)
def test_what_cannot_be_compared_is_refused(measured, kind, number, on, words):
    with pytest.raises(JswsError, match=words):
        beside(number, [measured[kind]], on=on)


def test_names_must_be_told_apart(measured):
    with pytest.raises(JswsError, match="two results are called saliency"):
        beside(1, 2 * [measured["saliency"]])


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
    ],
)
def test_what_is_no_fraction_is_refused(tmp_path, record):
    with pytest.raises(JswsError, match="x.json.*(fractions from 0 to 1|no object of)"):
        write(tmp_path / "x.json", **record)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_other_shells_redirect_is_read(tmp_path, encoding):
    (tmp_path / "x.json").write_text('{"mae": 0.1}', encoding=encoding)
    assert read(tmp_path / "x.json").best("mae") == [0.1]


def test_a_broken_file_is_one_clear_error(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(JswsError, match="deep.json cannot be used"):
        read(tmp_path / "deep.json")
    with pytest.raises(JswsError, match="x.json: setting is .*MM"):
        write(tmp_path / "x.json", setting=["MM"], mae=0.1)


def test_other_categories_have_no_place_in_table_3(tmp_path):
    names = ["background", *(f"pet {k}" for k in range(20))]
    for more in ({"iou": [0.9, 0.1, None]}, {"iou": [0.5] * 21, "categories": names}):
        result = write(tmp_path / "pets.json", miou=0.5, **more)
        with pytest.raises(JswsError, match="pets.json.*VOC's 20 categories.*Table 3"):
            beside(3, [result])
    five = write(tmp_path / "five.json", miou=0.5, setting="MM", iou=[0.9, 0.1, None])
    assert beside(5, [five]).rows["M-M"][1][0] == 50


@pytest.mark.parametrize(("number", "name"), [(1, "Ours"), (1, "RAS '18"), (5, "paper")])
def test_a_result_does_not_take_the_papers_place(tmp_path, number, name):
    result = write(tmp_path / f"{name}.json", setting="MM", mae=0.1, miou=0.5)
    with pytest.raises(JswsError, match=f"has a .* {name} of its own; rename"):
        beside(number, [result])


def test_a_result_called_like_a_test_set_marks_no_column(tmp_path):
    table = beside(1, [write(tmp_path / "ECSSD.json", mae=0.1)], on="ECSSD")
    assert table.markdown().count("**ECSSD**") == 1  # the row
    assert table.html().count("<b>ECSSD</b>") == 1


ODD = "a|b$^{~}<i>&%#*_`c` $x: y"


@pytest.mark.parametrize("number", [1, 5])
def test_names_with_signs_that_mean_something(tmp_path, number):
    result = write(tmp_path / f"{ODD}.json", setting="MM", mae=0.1, miou=0.5)
    underscore = write(tmp_path / "_mine.json", setting="MM", mae=0.1, miou=0.5)
    table = beside(number, [result, underscore])
    assert len({len(row) for row in cells(table.markdown())}) == 1
    assert r"\<i>" in table.markdown() and r"\*_\`c\`" in table.markdown()
    assert html.escape(ODD) in table.html() and ODD not in table.html()
    assert r"\&\%\#*\_`c` \$x: y" in table.latex()
    figure = chart(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a sign that the font lacks
        figure.canvas.draw()
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("mine" in text for text in legend)
    assert any(text.startswith(ODD.replace("$", r"\$")) for text in legend)
    assert number == 1 or figure.axes[0].get_title() == "mIoU"


def test_a_network_without_the_measure_is_refused_beside_one_that_has_it(tmp_path):
    has = write(tmp_path / "a: b.json", setting="MM", miou=0.5)
    lacks = write(tmp_path / "a.json", setting="MM", mae=0.1)
    with pytest.raises(JswsError, match="a.json has no miou of a setting"):
        beside(5, [has, lacks])


def test_the_command(measured, tmp_path):
    words = ["compare", str(measured["network"].file), "--table", "2", "--on", "ECSSD"]
    words += ["--format", "latex", "--figure", str(tmp_path / "chart.svg")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith(r"\begin{table}") and "0.890" in answer.output
    assert (tmp_path / "chart.svg").read_text().startswith("<?xml")
    words[-1] = str(tmp_path / "chart.txt")
    assert "name a figure" in str(CliRunner().invoke(app, words).exception)


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
