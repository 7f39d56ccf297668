"""Notebooks and extras: their frame, stored outputs and code shared with the library."""

import ast
import base64
import dis
import inspect
import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from jsws_lib.course.measured import MIME, Measured
from tools.blocks import LESSONS
from tools.explorers import outputs

ROOT = Path(__file__).resolve().parents[2]
START, *NOTEBOOKS = LESSONS  # the start has no exercises, and so not their frame
CHECKED = "nbval-check-output"

EXTRAS = [f"extras/{p.stem}" for p in sorted((ROOT / "notebooks/extras").glob("*.ipynb"))]
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)
every_file = pytest.mark.parametrize("name", [START, *NOTEBOOKS, *EXTRAS])


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


def kinds(cell):
    return {output.output_type for output in cell.outputs}


# --- frame ---------------------------------------------------------------------------


@every_notebook
def test_it_begins_with_its_number_and_ends_with_the_way_to_the_next(name):
    first, last = prose(name)[0], prose(name)[-1]
    assert first.startswith(f"# {int(name[:2])}. ")
    following = [*NOTEBOOKS, START][NOTEBOOKS.index(name) + 1]
    assert f"({following}.ipynb" in last.split("## Next")[1]


@every_file
def test_relative_links_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(name))):
        if not re.match(r"https?:|mailto:|#|attachment:", target):
            path = (ROOT / "notebooks" / name).parent / target.split("#")[0]
            assert path.exists(), f"{name} links to {target}"


@every_file
def test_cells_are_short(name):
    for cell in code_cells(name)[1:]:
        lines = cell.source.splitlines()
        assert len(lines) <= 25, f"{name} {cell.id} has {len(lines)} lines"
        assert max(map(len, lines)) <= 88, f"{name} {cell.id} has a long line"


# --- stored outputs ------------------------------------------------------------------


@every_file
def test_everything_was_executed_and_only_mistakes_fail(name):
    for cell in code_cells(name):
        assert cell.execution_count is not None, f"{name} {cell.id} was not run"
        assert ("error" in kinds(cell)) == ("raises-exception" in tags(cell)), cell.id


@every_notebook
def test_outputs_to_compare_and_to_look_at(name):
    for cell in (c for c in code_cells(name) if CHECKED in tags(c)):
        assert cell.outputs, f"{name} {cell.id} is compared but shows nothing"
        assert "report(" not in cell.source
    controls = {c.id for c in code_cells(name) if "explore(" in c.source}
    drawn = {cell.id for cell, _ in outputs(read(name), "image/png")}
    assert controls and controls <= drawn  # the strip is stored
    for _, output in outputs(read(name), "image/png"):
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
        assert len(output.metadata.get("image/png", {}).get("alt", "")) >= 20
    found = (output.data[MIME] for _, output in outputs(read(name), MIME))
    reported = [Measured(**data) for data in found]
    assert reported and not [str(one) for one in reported if not one.ok]


@every_file
def test_the_file_is_small_and_names_no_machine(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    metadata = read(name).metadata
    assert "widgets" not in metadata and metadata.kernelspec.name == "python3"
    text = json.dumps([[c.source, c.get("outputs")] for c in read(name).cells])
    assert "/tmp/" not in re.sub(r'"image/png": "[^"]*"', "", text)


# --- code ----------------------------------------------------------------------------


def names(code, operation):
    return {i.argval for i in dis.get_instructions(code) if i.opname == operation}


def functions(code):
    """Functions and lambdas in a piece of code, and in them; comprehensions left out."""
    for inner in filter(inspect.iscode, code.co_consts):
        if inner.co_name not in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"):
            yield inner
        yield from functions(inner)


def clashes(cells):
    """(name, function) where a cell binds what a function of an earlier cell reads."""
    found, readers = [], {}
    for source in cells:
        cell = compile(re.sub(r"^[%!].*$", "", source, flags=re.M), "cell", "exec")
        for name in names(cell, "STORE_NAME") & readers.keys():
            found += [(name, function) for function in readers[name]]
        for function in functions(cell):
            for name in names(function, "LOAD_GLOBAL"):
                readers.setdefault(name, set()).add(function.co_name)
    return found


def test_clashes_are_seen():
    draw = "def draw(fig):\n    return belief(3) + n"
    assert clashes([draw, "for k, n in enumerate(x):\n    pass"]) == [("n", "draw")]
    assert clashes([draw, "belief = 3"]) == [("belief", "draw")]
    assert clashes(["f = lambda: n", "with a as n:\n    pass"]) == [("n", "<lambda>")]
    assert clashes(["n = 1", draw, "print([n for n in x])\ndef g(n):\n    n = 2"]) == []


@every_file
def test_no_cell_changes_what_an_earlier_function_reads(name):
    """Else a slider or an exercise fails after the whole notebook has run."""
    assert clashes([cell.source for cell in code_cells(name)[1:]]) == []


def definitions(source):
    """Top-level functions and classes by name, as text without docstrings."""
    found, defining = {}, ast.FunctionDef | ast.ClassDef
    for node in ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M)).body:
        if isinstance(node, defining):
            for inner in ast.walk(node):
                if isinstance(inner, defining) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:] or [ast.Pass()]
            found[node.name] = ast.unparse(node)
    return found


@cache
def library():
    found = {}
    for folder in ("jsws_lib", "data_utils"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for name, text in definitions(path.read_text()).items():
                found.setdefault(name, {})[text] = path.name
    return found


@every_file
def test_what_a_notebook_defines_is_what_the_library_runs(name):
    for cell in code_cells(name)[1:]:
        for defined, text in definitions(cell.source).items():
            same = library().get(defined, {text: ""})
            assert text in same, f"{defined} in {cell.id} is not that of {same.values()}"


def test_the_comparison_of_code_notices_a_changed_constant():
    one = definitions('def f(x):\n    """Doc."""\n    return x + 1\n')
    assert one == definitions("def f(x):\n    # a comment\n    return x + 1\n")
    assert one != definitions("def f(x):\n    return x + 2\n")
    assert "class_loss" in library() and "SSNet" in library()
