"""Exercises: made from the solutions; what a learner wrote is kept."""

import re
import shutil
from functools import cache
from pathlib import Path

import nbformat
import pytest

from data_utils.errors import JswsError
from jsws_lib.course.from_solutions import (
    learner_cells,
    main,
    page_without_key,
    renew,
    section,
    unsolved,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(p.stem for p in (ROOT / "notebooks/solutions").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("name", NAMES)


@cache
def read(path):
    return nbformat.read(ROOT / "notebooks" / path, as_version=4)


@every_notebook
def test_exercises_with_hints_are_those_of_the_solutions(name):
    made = learner_cells(read(f"solutions/{name}.ipynb"), name)
    tasks = [c.source for c in made if c.cell_type == "markdown"][1:]
    for k, task in enumerate(tasks, start=1):
        assert re.match(rf"### Exercise {int(name[:2])}\.{k}: \S", task)
        assert "<details><summary>Hint</summary>" in task and "</details>" in task
    learner = read(f"{name}.ipynb")
    found, made = (
        [(c.id, c.cell_type, c.source) for c in cells]
        for cells in (learner.cells[section(learner)], made)
    )
    assert found == made, "run python -m jsws_lib.course.from_solutions"
    assert len({c.id for c in learner.cells}) == len(learner.cells)


def test_unsolved_keeps_everything_but_the_answer():
    source = (
        "def f(x):\n    y = x + 1\n    # solution: one line\n    z = 2 * y\n    return z\n"
        "    # end of solution\n\nbest = f(3)  # solution\nprint(f(1))\n"
    )
    assert unsolved(source) == (
        "def f(x):\n    y = x + 1\n    ...  # your code\n\n"
        "best = ...  # your answer\nprint(f(1))"
    )
    with pytest.raises(JswsError, match="marks no answer"):
        unsolved("print(1)")


def solved(path, **answers):
    """Write answers into the cells with these ids."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = answers.get(cell.id, cell.source)
    nbformat.write(notebook, path)


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


@pytest.fixture
def class_room(tmp_path):
    """A folder of one notebook with two exercises, not solved."""
    v4, folder, solutions = nbformat.v4, tmp_path / "notebooks", []
    for k in (1, 2):
        cells = {
            "exercise": v4.new_markdown_cell(f"### Exercise 3.{k}: T", id=f"task{k}"),
            "solution": v4.new_code_cell(f"a{k} = {k}  # solution", id=f"answer{k}"),
            "check": v4.new_code_cell(f"check_a(a{k})", id=f"check{k}"),
            "wrong": v4.new_code_cell("check_a(0)"),
        }
        for tag, cell in cells.items():
            cell.metadata["tags"] = [tag]
        solutions += cells.values()
    (folder / "solutions").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=solutions), folder / "solutions" / "03_x.ipynb")
    printed = v4.new_output("stream", text="a stored output")
    cells = [
        v4.new_code_cell("show(1)", outputs=[printed], execution_count=4),
        v4.new_markdown_cell("## Exercises"),
        v4.new_markdown_cell("## Summary"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "03_x.ipynb")
    renew(folder / "03_x.ipynb")
    shutil.rmtree(tmp_path / "answers")  # what it was before its exercises
    return folder


def test_renew_writes_the_section_and_keeps_the_rest(class_room):
    path = class_room / "03_x.ipynb"
    first, intro, *exercises, last = sources(path)
    assert (first, last) == ("show(1)", "## Summary")
    assert intro.startswith("## Exercises\n\nRun all cells above")
    made = [(f"### Exercise 3.{k}: T", f"a{k} = ...  # your answer") for k in (1, 2)]
    assert exercises == [*made[0], "check_a(a1)", *made[1], "check_a(a2)"]
    assert renew(path) is None
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(JswsError, match="needs one section"):
        renew(path)


def test_answers_are_kept_when_exercises_are_renewed(class_room, capsys):
    path = class_room / "03_x.ipynb"
    solved(path, answer1="a1 = 'mine'")
    before = path.read_bytes()
    assert main(["--notebooks", str(class_room)]) == 0
    (copy,) = (class_room.parent / "answers").iterdir()
    assert copy.read_bytes() == before
    assert str(copy) in capsys.readouterr().out
    assert "a1 = ...  # your answer" in sources(path)

    main(["--notebooks", str(class_room)])  # nothing to keep, nothing to do
    assert "up to date" in capsys.readouterr().out
    assert list(copy.parent.iterdir()) == [copy]
    assert main(["--notebooks", str(class_room), "09"]) == 1
    assert "no notebook 09" in capsys.readouterr().err


def test_a_class_gets_neither_outputs_nor_the_key(class_room, tmp_path):
    before = (class_room / "03_x.ipynb").read_bytes()
    given = tmp_path / "class"
    assert main(["--notebooks", str(class_room), "--handout", str(given)]) == 0
    (path,) = given.iterdir()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 5 and not any(cell.outputs or cell.execution_count for cell in code)
    text = "\n".join(sources(path))
    assert "solutions" not in text and "under each task." in text
    assert (class_room / "03_x.ipynb").read_bytes() == before


@every_notebook
def test_a_real_notebook_loses_one_sentence_only(name):
    cells = [c for c in read(f"{name}.ipynb").cells if c.cell_type == "markdown"]
    changed = [(c.source, page_without_key(c.source)) for c in cells]
    ((before, after),) = (pair for pair in changed if pair[0] != pair[1])
    assert before.startswith(after) and after.endswith("under each task.")
    assert "solutions/" not in after


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Read `a.b`. The key:\n[e.g. this](../solutions/01_a.ipynb). Stop `here`.",
            "Read `a.b`. Stop `here`.",
        ),
        ("See `notebooks/solutions/`, too! Go.", " Go."),
        ("# T\n\nA [key](solutions/a.ipynb)! Next.", "# T\n\n Next."),
        ("Two solutions. [A](b.md) link.", "Two solutions. [A](b.md) link."),
    ],
)
def test_sentences_that_point_to_the_key(text, left):
    assert page_without_key(text) == left
