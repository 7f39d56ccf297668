"""The runner of the course, on notebooks of two cells."""

import io
import math
import re
from contextlib import redirect_stdout

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from jsws_lib.course.frames import MIME as FRAMES
from jsws_lib.course.measured import MIME, Measured, report
from tools import course
from tools.course import main

WORDS = """# A title

[![Open in Colab](https://colab.example.org/a.svg)](https://colab.example.org/b)
On to [the next](02_low.ipynb#here), [the key](solutions/01_fine.ipynb),
[a page](../docs/a.md);
$v_i < 1$ and [elsewhere](https://example.org)"""
IMPORT = "from jsws_lib.course.notebook import report"


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
    stale = "report('stale', 1, 0, 2)"
    write(folder, "03_raises", "report('x', 1, 0, 2)", "1 / 0  # the culprit", stale)
    old = nbformat.read(folder / "03_raises.ipynb", 4)
    data = {MIME: Measured("stale", 1, 0, 2).json, FRAMES: {"file": "an explorer's"}}
    old.cells[3].outputs = [new_output("display_data", data)]
    nbformat.write(old, folder / "03_raises.ipynb")
    write(folder, "04_silent", "print('nothing')")
    build, said = folder / "build", io.StringIO()
    with redirect_stdout(said):
        status = main(["--notebooks", str(folder), "--build", str(build), "--update"])
    return folder, build, status, said.getvalue()


@pytest.mark.slow
def test_verdicts(ran):
    _, build, status, said = ran
    assert status == 1
    for line in (
        "01_fine .* mIoU of M +0.523 % +0.450 to 1 +OK",
        "02_low .* mIoU +0.200 +0.450 to 1 +NOT OK",
        "x +nan +0 to 1 +NOT OK",
        "03_raises .* x +1 +0 to 2 +OK",
        "04_silent .* reported nothing +NOT OK",
        "4 notebooks in .*NOT OK: 02_low, 03_raises, 04_silent",
    ):
        assert re.search(line, said), line
    assert "03_raises failed: ZeroDivisionError: division by zero" in said
    assert "stale" not in said  # stored by an earlier run, and not reached by this one
    assert "# the culprit" in said and len([*build.glob("*.ipynb")]) == 4


@pytest.mark.slow
def test_pages_stand_alone(ran):
    """Links lead to pages beside or files of the repository; nothing comes from a host."""
    _, build, *_ = ran
    page, index = ((build / f"{name}.html").read_text() for name in ("01_fine", "index"))
    assert "mIoU of M = 0.523 % (expected 0.450 to 1): OK" in page
    assert ">A title</a>" in index and "NOT OK: 02_low, 03_raises, 04_silent" in index
    for name in ("01_fine", "02_low", "03_raises", "04_silent"):
        assert f'href="{name}.html"' in index and (build / f"{name}.html").is_file()
    assert set(re.findall(r'href="([^"#]*)', page)) - {""} == {
        "02_low.html",
        "../solutions/01_fine.ipynb",
        "../../docs/a.md",
        "https://example.org",
        "index.html",
    }
    assert not re.findall(r'src="(?!data:)(?!tex-svg.js")[^"]*"', page)
    assert (build / "tex-svg.js").stat().st_size > 1e6


@pytest.mark.slow
def test_update_stores_tidy_outputs_of_what_ran(ran):
    folder, *_ = ran
    fine = nbformat.read(folder / "01_fine.ipynb", 4)
    nbformat.validate(fine)
    assert fine.metadata.kernelspec.name == "python3"
    assert "execution" not in fine.cells[0].metadata
    assert fine.cells[1].outputs == []  # a widget without its kernel is no output
    (output,) = fine.cells[2].outputs
    assert output.data["text/plain"].endswith(": OK")
    assert output.data[MIME]["name"] == "mIoU of M"
    raises = nbformat.read(folder / "03_raises.ipynb", 4)
    assert raises.cells[1].execution_count is None  # left as it was


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


def test_numbers_read_well():
    for measured, line in (
        (Measured("n", 34078740, 34078740, 34078740), "34,078,740 (expected 34,078,740)"),
        (Measured("n", 0.5, -math.inf, 1), "0.500 (expected at most 1)"),
        (Measured("n", 25.25, 25, math.inf, "points"), "25.250 points (expected at le"),
        (Measured("n", 1e-7, 0, 1e-6), "1.00e-07 (expected 0 to 1.00e-06)"),
    ):
        assert line in str(measured) and str(measured).endswith(": OK")


def test_a_number_out_of_range_is_an_error_only_when_strict(monkeypatch, capsys):
    monkeypatch.delenv("JSWS_COURSE", raising=False)
    report("mIoU", 0.2, 0.45, 1)
    monkeypatch.setenv("JSWS_COURSE", "strict")
    report("mIoU", np.float32(0.5), 0.45, 1)
    assert "mIoU = 0.500" in capsys.readouterr().out
    for value in (math.nan, math.inf, 0.44, 1.01):
        with pytest.raises(AssertionError, match="NOT OK"):
            report("mIoU", value, 0.45, 1)
