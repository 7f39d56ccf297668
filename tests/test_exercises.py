"""Exercises: made from the solutions; every check passes, fails and says why."""

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import matplotlib
import nbformat
import pytest

from data_utils.errors import JswsError
from jsws_lib.checks import Wrong, check, expect, expect_array, same
from jsws_lib.exercises import learner_cells, renew, section, unsolved

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("name", NAMES)


@cache
def read(path):
    return nbformat.read(ROOT / "notebooks" / path, as_version=4)


def tags(cell):
    return set(cell.metadata.get("tags", ()))


# --- the learner's notebook ----------------------------------------------------------


@every_notebook
def test_the_exercises_are_those_of_the_solutions(name):
    learner = read(f"{name}.ipynb")
    cells = learner.cells[section(learner)]
    made = learner_cells(read(f"solutions/{name}.ipynb"), name)
    assert [(c.id, c.cell_type, c.source) for c in cells] == [
        (c.id, c.cell_type, c.source) for c in made
    ], "run python -m jsws_lib.exercises"
    ids = [c.id for c in learner.cells]
    assert len(ids) == len(set(ids))


@every_notebook
def test_three_to_five_exercises_each_with_a_hint(name):
    cells = learner_cells(read(f"solutions/{name}.ipynb"), name)
    tasks = [c.source for c in cells if c.cell_type == "markdown"][1:]
    assert 3 <= len(tasks) <= 5
    for k, task in enumerate(tasks, start=1):
        assert re.match(rf"### Exercise {int(name[:2])}\.{k}: \S", task)
        assert "<details><summary>Hint</summary>" in task and "</details>" in task
    assert sum("check_" in c.source for c in cells if c.cell_type == "code") >= len(tasks)


# --- the checks ----------------------------------------------------------------------


def run(source, namespace):
    """Run one cell; return what it prints."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("\n".join(lines), namespace)
    return printed.getvalue()


@every_notebook
def test_checks_pass_the_solution_and_nothing_else(name, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks" / "solutions")
    monkeypatch.delenv("JSWS_TRAIN", raising=False)
    monkeypatch.setenv("JSWS_STATIC", "1")
    matplotlib.use("agg")
    namespace, counts = {"__name__": "solutions"}, {"solved": 0, "unsolved": 0, "wrong": 0}
    cells = [c for c in read(f"solutions/{name}.ipynb").cells if c.cell_type == "code"]
    pending = None
    for cell in cells:
        if "solution" in tags(cell):
            pending = cell.source
        elif "check" in tags(cell):
            with contextlib.suppress(Exception):  # an unsolved cell may not even run
                run(unsolved(pending), namespace)
            said = run(cell.source, namespace)
            assert "✗" in said and "✓" not in said, f"unsolved passes: {cell.source}"
            counts["unsolved"] += 1
            run(pending, namespace)
            said = run(cell.source, namespace)
            assert "✓" in said and "✗" not in said, said
            counts["solved"] += 1
        elif "wrong" in tags(cell):
            said = run(cell.source, namespace)
            assert "✗" in said and "✓" not in said, f"wrong passes: {cell.source}"
            assert "it stopped with" not in said and "is still there" not in said, said
            counts["wrong"] += 1
            run(pending, namespace)  # later cells build on the right answer
        else:
            run(cell.source, namespace)
    assert counts["solved"] == counts["unsolved"] >= 3
    assert counts["wrong"] >= counts["solved"]


def test_stored_solutions_say_so():
    for name in NAMES:
        for cell in read(f"solutions/{name}.ipynb").cells:
            if cell.cell_type == "code" and {"check", "wrong"} & tags(cell):
                text = "".join(o.get("text", "") for o in cell.outputs)
                assert ("✓" if "check" in tags(cell) else "✗") in text, (name, cell.id)


# --- how they are made ---------------------------------------------------------------


def test_unsolved_keeps_everything_but_the_answer():
    source = (
        "def f(x):\n"
        "    y = x + 1\n"
        "    # solution: one line\n"
        "    z = 2 * y\n"
        "    return z\n"
        "    # end of solution\n"
        "\n"
        "best = f(3)  # solution\n"
        "print(f(1))\n"
    )
    assert unsolved(source) == (
        "def f(x):\n    y = x + 1\n    ...  # your code\n\n"
        "best = ...  # your answer\nprint(f(1))"
    )
    with pytest.raises(JswsError, match="marks no answer"):
        unsolved("print(1)")


def test_renew_writes_the_section_and_keeps_the_rest(tmp_path):
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(f"## {h}") for h in ("Body", "Exercises", "Summary")]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "01_x.ipynb")
    solutions = [v4.new_markdown_cell("### Exercise 1.1: T"),
                 v4.new_code_cell("a = 1  # solution"),
                 v4.new_code_cell("check_a(a)"),
                 v4.new_code_cell("check_a(2)")]  # fmt: skip
    kinds = ("exercise", "solution", "check", "wrong")
    for cell, tag in zip(solutions, kinds, strict=True):
        cell.metadata["tags"] = [tag]
    (tmp_path / "solutions").mkdir()
    nbformat.write(v4.new_notebook(cells=solutions), tmp_path / "solutions" / "01_x.ipynb")
    assert renew(tmp_path / "01_x.ipynb") is True
    assert renew(tmp_path / "01_x.ipynb") is False
    found = [c.source for c in nbformat.read(tmp_path / "01_x.ipynb", as_version=4).cells]
    assert found[0] == "## Body" and found[-1] == "## Summary"
    assert found[2:-1] == ["### Exercise 1.1: T", "a = ...  # your answer", "check_a(a)"]
    nbformat.write(v4.new_notebook(cells=cells[:1]), tmp_path / "01_x.ipynb")
    with pytest.raises(JswsError, match="needs one section"):
        renew(tmp_path / "01_x.ipynb")


def test_a_check_says_what_is_wrong_in_words(capsys):
    @check
    def check_half(answer):
        """Half of four."""
        got = expect_array(answer(4), (1,))
        expect(same(got, [2]), "that is not half of four")
        return "Two."

    for answer, words in [
        (lambda x: [x / 2], "✓ Right. Two."),
        (lambda x: [x], "✗ Not yet: that is not half of four"),
        (lambda x: None, "✗ Not yet: the result is missing"),
        (lambda x: [1, 2], "has shape (2,), not (1,)"),
        (lambda x: [float("nan")], "holds NaN"),
        (lambda x: "two", "is a str, not an array of numbers"),
        (lambda x: x / 0, "it stopped with ZeroDivisionError"),
        (..., "the ... is still there"),
    ]:
        check_half(answer)
        assert words in capsys.readouterr().out
    with pytest.raises(Wrong):
        check_half.__wrapped__(lambda x: [x])


