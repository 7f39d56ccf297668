"""The runner of the course, on notebooks of two cells."""

import json
import math
import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from jsws_lib import course
from jsws_lib.course import main
from jsws_lib.notebook import FIGURE_MIME, Figure, report

WORDS = """# A title

[![Open in Colab](https://colab.example.org/a.svg)](https://colab.example.org/b)
On to [the next](02_low.ipynb#here), [the key](solutions/01_fine.ipynb), 
[a page](../docs/a.md);
$v_i < 1$ and [elsewhere](https://example.org)"""
IMPORT = "from jsws_lib.notebook import report"


def write(folder, name, *cells):
    cells = [new_code_cell(cell) for cell in (IMPORT, *cells)]
    cells.append(new_markdown_cell(WORDS))
    cells[0].metadata["execution"] = {"iopub.status.busy": "now"}
    kernel = {"name": "of-mine", "display_name": "mine"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run four notebooks once: fine, out of range, raising, silent."""
    folder = tmp_path_factory.mktemp("a course")
    bar = "from ipywidgets import IntProgress; IntProgress()"
    write(folder, "01_fine", bar, "report('mIoU of M', 0.5234, 0.45, 1, '%')")
    write(folder, "02_low", "report('mIoU', 0.2, 0.45, 1); report('x', 'nan', 0, 1)")
    write(folder, "03_raises", "report('x', 1, 0, 2)", "1 / 0  # the culprit")
    write(folder, "04_silent", "print('nothing')")
    build = folder / "build"
    status = main(["--notebooks", str(folder), "--build", str(build), "--update"])
    return folder, build, status


def test_verdicts(ran):
    _, build, status = ran
    results = json.loads((build / "results.json").read_text())
    assert [r["ok"] for r in results] == [True, False, False, False]
    assert status == 1
    fine, low, raises, silent = results
    assert fine["figures"][0]["value"] == 0.5234
    assert fine["seconds"] > 0
    assert low["figures"][1]["value"] is None  # NaN, which JSON does not have
    assert raises["error"].startswith("ZeroDivisionError: division by zero")
    assert "# the culprit" in raises["error"]
    assert raises["figures"][0]["name"] == "x"
    assert silent["error"] == "reported nothing"


def test_pages(ran):
    _, build, _ = ran
    page = (build / "01_fine.html").read_text()
    assert "mIoU of M = 0.523 % (expected 0.450 to 1): OK" in page
    index = (build / "index.html").read_text()
    for name in ("01_fine", "02_low", "03_raises", "04_silent"):
        assert f'href="{name}.html"' in index
        assert (build / f"{name}.ipynb").is_file()
    assert "NOT OK: 02_low, 03_raises, 04_silent" in index


def test_pages_stand_alone(ran):
    """Links lead to pages beside or files of the repository; nothing comes from a host."""
    _, build, _ = ran
    page = (build / "01_fine.html").read_text()
    links = set(re.findall(r'href="([^"#]*)', page)) - {""}
    assert links == {"02_low.html", "../solutions/01_fine.ipynb", "../../docs/a.md",
                     "https://example.org", "index.html"}  # fmt: skip
    assert not re.findall(r'src="(?!data:)(?!tex-svg.js")[^"]*"', page)
    assert (build / "tex-svg.js").stat().st_size > 1e6
    assert "<title>A title - SSNet, step by step</title>" in page
    assert ">A title</a>" in (build / "index.html").read_text()


def test_a_part_run_again_leaves_the_rest_in_the_index(ran, tmp_path):
    folder, build, _ = ran
    copy = shutil.copytree(build, tmp_path / "build")
    args = ["--notebooks", str(folder), "--build", str(copy)]
    assert main(["01", *args]) == 0
    before, after = (json.loads((b / "results.json").read_text()) for b in (build, copy))
    assert [{**r, "seconds": 0} for r in before] == [{**r, "seconds": 0} for r in after]
    assert 'href="04_silent.html"' in (copy / "index.html").read_text()


def test_update_stores_tidy_outputs_of_what_ran(ran):
    folder, _, _ = ran
    fine = nbformat.read(folder / "01_fine.ipynb", 4)
    nbformat.validate(fine)
    assert fine.metadata.kernelspec.name == "python3"
    assert "execution" not in fine.cells[0].metadata
    assert fine.cells[1].outputs == []  # a widget without its kernel is no output
    (output,) = fine.cells[2].outputs
    assert output.data["text/plain"].endswith(": OK")
    assert output.data[FIGURE_MIME]["name"] == "mIoU of M"
    raises = nbformat.read(folder / "03_raises.ipynb", 4)
    assert raises.cells[1].execution_count is None  # left as it was


def test_a_course_that_is_ok_exits_0_and_only_selects(ran, tmp_path, capsys):
    folder, _, _ = ran
    args = ["01", "--notebooks", str(folder), "--build", str(tmp_path / "b")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "1 notebook in" in out and "all OK" in out


def test_no_notebook_is_an_error(tmp_path, capsys):
    assert main(["--notebooks", str(tmp_path)]) == 2
    assert "no notebook *.ipynb" in capsys.readouterr().err


def test_outputs_lose_the_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "ROOT", tmp_path / "here")
    output = {"text": [f"{tmp_path}/here/data/a.png"], "n": 1}
    assert course._relative(output) == {"text": ["data/a.png"], "n": 1}
    packages = f"{course.ROOT}/.venv/lib/python3/site-packages"
    trace = [f"File {course.ROOT}/notebooks/../jsws_lib/a.py:1", f"File {packages}/b.py:1"]
    assert course._relative(trace) == ["File jsws_lib/a.py:1", "File b.py:1"]
    words = {"image/png": {"alt": "A cat."}}
    assert course._relative(words) == words


@pytest.mark.parametrize(
    ("figure", "line"),
    [
        (Figure("n", 34078740, 34078740, 34078740), "34,078,740 (expected 34,078,740)"),
        (Figure("n", 0.5, -math.inf, 1), "0.500 (expected at most 1)"),
        (Figure("n", 25.25, 25, math.inf, "points"), "25.250 points (expected at le"),
        (Figure("n", 1e-7, 0, 1e-6), "1.00e-07 (expected 0 to 1.00e-06)"),
    ],
)
def test_figures_read_well(figure, line):
    assert line in str(figure)
    assert str(figure).endswith(": OK")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.44, 1.01])
def test_figures_outside_are_not_ok(value):
    assert not Figure("mIoU", value, 0.45, 1).ok


def test_report_accepts_what_float_accepts(capsys):
    np = pytest.importorskip("numpy")
    report("mIoU", np.float32(0.5), 0, 1)
    assert "mIoU = 0.500" in capsys.readouterr().out


def test_a_figure_out_of_range_is_an_error_only_when_strict(monkeypatch):
    monkeypatch.delenv("JSWS_STRICT", raising=False)
    report("mIoU", 0.2, 0.45, 1)
    monkeypatch.setenv("JSWS_STRICT", "1")
    report("mIoU", 0.5, 0.45, 1)
    with pytest.raises(AssertionError, match="NOT OK"):
        report("mIoU", 0.2, 0.45, 1)
    with pytest.raises(AssertionError, match="NOT OK"):
        report("mIoU", float("nan"), 0.45, 1)
