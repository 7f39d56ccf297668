"""The notebooks: their fixed frame, stored outputs and code shared with the library."""

import ast
import base64
import copy
import json
import os
import re
import statistics
import subprocess
import symtable
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest

from jsws_lib.drawing import PARTS
from jsws_lib.notebook import FIGURE_MIME
from jsws_lib.stamp import read_stamp

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {
    "01_data": "data",
    "02_backbone": "backbone",
    "03_saliency_aggregation": "sam",
    "04_losses": "losses",
    "05_stage1": "stage1",
    "06_pseudo_labels": "pseudo_labels",
    "07_stage2": "stage2",
    "08_evaluation": "evaluation",
}
BEFORE = ["What you will learn", "Before you start", "Where we are",
          "What you will see if it works"]  # fmt: skip
AFTER = ["Paper, released code, and what we do", "Exercises", "Try it", "Summary",
         "Next"]  # fmt: skip
CHECKED = "nbval-check-output"

every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@cache
def read(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(name):
    return [c for c in read(name).cells if c.cell_type == "code"]


def prose(name):
    return [c.source for c in read(name).cells if c.cell_type == "markdown"]


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def data(cell):
    return [output.get("data", {}) for output in cell.outputs]


def test_there_are_eight():
    found = {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == set(NOTEBOOKS)
    assert set(NOTEBOOKS.values()) == set(PARTS)


# --- names -----------------------------------------------------------------------------


def bound(tree):
    """Names that a cell binds at its top level, functions and loop variables included."""
    names, todo = set(), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name):
            names |= {node.id} if isinstance(node.ctx, ast.Store) else set()
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp
                            | ast.GeneratorExp):  # fmt: skip
            todo += ast.iter_child_nodes(node)
    return names


def needed(source):
    """For each function or lambda of a cell, the globals that it reads when called."""

    def inside(table):
        if table.get_type() == "function" and table.get_name() not in COMPREHENSIONS:
            yield table.get_name(), {s.get_name() for s in table.get_symbols()
                                     if s.is_global() and s.is_referenced()}  # fmt: skip
        for child in table.get_children():
            yield from inside(child)

    return list(inside(symtable.symtable(source, "cell", "exec")))


COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}


def clashes(cells):
    """(name, function) where a cell binds what a function of an earlier cell reads."""
    found, readers = [], {}
    for source in cells:
        source = re.sub(r"^[%!].*$", "", source, flags=re.M)
        for name in bound(ast.parse(source)) & readers.keys():
            found += [(name, function) for function in readers[name]]
        for function, names in needed(source):
            for name in names:
                readers.setdefault(name, set()).add(function)
    return found


def test_clashes_are_seen():
    draw = "def draw(fig):\n    return belief(3) + n"
    assert clashes([draw, "for k, n in enumerate(x):\n    pass"]) == [("n", "draw")]
    assert clashes([draw, "belief = 3"]) == [("belief", "draw")]
    assert clashes(["f = lambda: n", "with a as n:\n    pass"]) == [("n", "lambda")]
    assert clashes(["n = 1", draw, "print([n for n in x])\ndef g(n):\n    n = 2"]) == []


@every_notebook
def test_no_cell_changes_what_an_earlier_function_reads(name):
    """Else a slider or an exercise fails after the whole notebook has run."""
    assert clashes([cell.source for cell in code_cells(name)]) == []


# --- frame ---------------------------------------------------------------------------


@every_notebook
def test_headings(name):
    lines = "\n".join(re.sub(r"```.*?```", "", p, flags=re.S) for p in prose(name))
    (title,) = re.findall(r"^# (.+)$", lines, re.M)
    assert title.startswith(f"{int(name[:2])}. ")
    assert prose(name)[0].startswith("# ")
    headings = [h.strip() for h in re.findall(r"^## (.+)$", lines, re.M)]
    assert headings[:4] == BEFORE
    assert headings[-5:] == AFTER
    assert len(headings) > 8  # a body


@every_notebook
def test_bootstrap_and_place_in_the_method(name):
    first, *others = code_cells(name)
    assert first.source == read_stamp().cell
    assert "nbval-ignore-output" in tags(first)
    (place,) = [c for c in others if "show_method" in c.source and "import" not in c.source]
    assert place.source.strip() == f'show_method("{NOTEBOOKS[name]}")'
    order = [c.id for c in read(name).cells]
    (where,) = [c.id for c in read(name).cells if c.source.startswith("## Where we are")]
    assert order.index(place.id) > order.index(where) > order.index(first.id)


@every_notebook
def test_next_and_time_are_said(name):
    text = "\n".join(prose(name))
    assert "Time and hardware" in text
    after = text.split("\n## Next")[1]
    k = list(NOTEBOOKS).index(name)
    following = [*NOTEBOOKS, "01_data"][k + 1]
    assert f"({following}.ipynb" in after


@every_notebook
def test_relative_links_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(name))):
        if re.match(r"https?:|mailto:|#|attachment:", target):
            continue
        path = ROOT / "notebooks" / target.split("#")[0]
        assert path.exists(), f"{name} links to {target}"


@every_notebook
def test_cells_are_short(name):
    lengths = []
    for cell in code_cells(name):
        lines = cell.source.splitlines()
        lengths.append(len(lines))
        assert len(lines) <= 25, f"{name} {cell.id} has {len(lines)} lines"
        assert max(map(len, lines)) <= 88, f"{name} {cell.id} has a long line"
    assert statistics.median(lengths) <= 10


# --- stored outputs ------------------------------------------------------------------


@every_notebook
def test_everything_was_executed_without_error(name):
    for cell in code_cells(name):
        assert cell.execution_count is not None, f"{name} {cell.id} was not run"
        if "raises-exception" not in tags(cell):
            kinds = {output.output_type for output in cell.outputs}
            assert "error" not in kinds, f"{name} {cell.id} shows an error"


@every_notebook
def test_outputs_to_compare_and_to_look_at(name):
    checked = [c for c in code_cells(name) if CHECKED in tags(c)]
    assert len(checked) >= 5
    for cell in checked:
        assert cell.outputs, f"{name} {cell.id} is compared but shows nothing"
        assert "report(" not in cell.source
    pictures = [d["image/png"] for c in code_cells(name) for d in data(c)
                if "image/png" in d]  # fmt: skip
    assert len(pictures) >= 2
    for picture in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")


@every_notebook
def test_every_picture_has_words(name):
    for cell in code_cells(name):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) >= 20, f"{name} {cell.id} has a picture without words"


@every_notebook
def test_questions_mistakes_and_controls(name):
    text = "\n".join(prose(name))
    question = r"\*\*Predict\.\*\* .*?<details><summary>Answer</summary>"
    assert len(re.findall(question, text, re.S)) >= 2
    mistakes = [c for c in code_cells(name) if "raises-exception" in tags(c)]
    assert mistakes
    for cell in mistakes:
        kinds = {output.output_type for output in cell.outputs}
        assert "error" in kinds, f"{name} {cell.id} does not fail"
    controls = [c for c in code_cells(name) if "explore(" in c.source]
    assert controls
    for cell in controls:
        assert any("image/png" in d for d in data(cell)), f"{cell.id} stores no strip"


@every_notebook
def test_reported_figures_are_as_expected(name):
    figures = [d[FIGURE_MIME] for c in code_cells(name) for d in data(c)
               if FIGURE_MIME in d]  # fmt: skip
    assert figures
    for figure in figures:
        low, value, high = (float(figure[k]) for k in ("low", "value", "high"))
        assert low <= value <= high, f"{name}: {figure['name']} = {value}"


@every_notebook
def test_the_file_is_small_and_names_no_machine(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    metadata = read(name).metadata
    assert "widgets" not in metadata
    assert metadata.kernelspec.name == "python3"
    text = json.dumps(
        [[c.source, *([o for o in c.outputs] if c.cell_type == "code" else [])]
         for c in read(name).cells]
    )  # fmt: skip
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    for folder in ("/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/t" + "mp/"):
        assert folder not in text


# --- code ----------------------------------------------------------------------------


def definitions(source):
    """Top-level functions and classes by name, as text without docstrings."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for inner in ast.walk(node):
                if ast_docstring(inner):
                    inner.body = inner.body[1:] or [ast.Pass()]
            found[node.name] = ast.unparse(node)
    return found


def ast_docstring(node):
    kinds = ast.FunctionDef | ast.ClassDef
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


@cache
def library():
    found = {}
    for folder in ("jsws_lib", "data_utils"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for name, text in definitions(path.read_text()).items():
                found.setdefault(name, {})[text] = path.name
    return found


@every_notebook
def test_what_a_notebook_defines_is_what_the_library_runs(name):
    for cell in code_cells(name):
        lines = cell.source.splitlines()
        source = "\n".join(line for line in lines if not re.match(r"\s*[%!]", line))
        for defined, text in definitions(source).items():
            if defined in library():
                assert text in library()[defined], (
                    f"{defined} in {name} {cell.id} differs from "
                    f"{', '.join(library()[defined].values())}"
                )


def test_the_comparison_of_code_notices_a_changed_constant():
    one = definitions('def f(x):\n    """Doc."""\n    return x + 1\n')
    assert one == definitions("def f(x):\n    # a comment\n    return x + 1\n")
    assert one != definitions("def f(x):\n    return x + 2\n")
    assert "class_loss" in library() and "SSNet" in library()


# --- comparison of outputs -----------------------------------------------------------


def test_a_stored_value_that_differs_is_noticed(tmp_path):
    """The same cell twice, once with an altered digit: the comparison fails there."""
    found = []
    for name in NOTEBOOKS:  # the cell that needs the fewest cells before it
        cells = code_cells(name)
        for k, cell in enumerate(cells):
            stream = "".join(o.get("text", "") for o in cell.outputs)
            if CHECKED in tags(cell) and re.search(r"\d", stream):
                found.append((k, name, copy.deepcopy(cells[: k + 1])))
                break
    k, name, cells = min(found, key=lambda item: item[:2])
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=read(name).metadata)
    altered = copy.deepcopy(cells[-1])
    altered.id = "altered"
    for output in altered.outputs:
        if "text" in output:
            output.text = re.sub(
                r"\d", lambda m: str((int(m[0]) + 1) % 10), output.text, count=1
            )
    assert altered.outputs != cells[-1].outputs
    notebook.cells = [*cells, altered]
    for cell in cells[:-1]:  # what stands before is only run
        cell.metadata["tags"] = ["nbval-ignore-output"]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "altered.ipynb")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for variable in ("JSWS_TRAIN", "MPLBACKEND", "PYTEST_ADDOPTS"):
        env.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "altered.ipynb"],
        cwd=tmp_path / "notebooks", env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    # The original cell passes, its altered copy does not.
    assert f"1 failed, {len(cells)} passed" in done.stdout, done.stdout
    assert f"Cell {len(cells)}" in done.stdout
