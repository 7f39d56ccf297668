"""Exercises: made from the solutions; every check passes, fails and says why."""

import contextlib
import io
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_utils.errors import JswsError
from jsws_lib.checks import Wrong, check, expect, expect_array, same
from jsws_lib.checks.evaluation import check_mae, check_mean_iou
from jsws_lib.checks.pseudo_labels import check_repaired
from jsws_lib.checks.stage2 import check_by_shifts
from jsws_lib.exercises import (
    learner_cells,
    main,
    page_without_key,
    renew,
    section,
    unsolved,
    without_key,
)

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
    v4, folder = nbformat.v4, tmp_path / "notebooks"
    solutions = []
    for k in (1, 2):
        cells = [v4.new_markdown_cell(f"### Exercise 3.{k}: T", id=f"task{k}"),
                 v4.new_code_cell(f"a{k} = {k}  # solution", id=f"answer{k}"),
                 v4.new_code_cell(f"check_a(a{k})", id=f"check{k}")]  # fmt: skip
        for cell, tag in zip(cells, ("exercise", "solution", "check"), strict=True):
            cell.metadata["tags"] = [tag]
        solutions += cells
    (folder / "solutions").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=solutions), folder / "solutions" / "03_x.ipynb")
    printed = v4.new_output("stream", text="a stored output")
    cells = [v4.new_code_cell("show(1)", outputs=[printed], execution_count=4),
             v4.new_markdown_cell("## Exercises"),
             v4.new_markdown_cell("## Summary")]  # fmt: skip
    nbformat.write(v4.new_notebook(cells=cells), folder / "03_x.ipynb")
    assert renew(folder / "03_x.ipynb") is True
    return folder


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


def test_a_cell_of_ones_own_is_kept_too(class_room):
    path = class_room / "03_x.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(-2, nbformat.v4.new_markdown_cell("What I think"))
    nbformat.write(notebook, path)
    assert "What I think" in sources(renew(path))
    assert "What I think" not in sources(path)


def test_a_task_in_other_words_leaves_no_copy(class_room):
    solved(class_room / "solutions" / "03_x.ipynb", task1="### Exercise 3.1: Better")
    assert renew(class_room / "03_x.ipynb") is True
    assert not (class_room.parent / "answers").exists()


def test_one_exercise_alone_is_reset(class_room, capsys):
    path = class_room / "03_x.ipynb"
    solved(path, answer1="a1 = 'mine'", answer2="a2 = 'mine'")
    assert main(["--notebooks", str(class_room), "--only", "3.2"]) == 0
    found = sources(path)
    assert "a1 = 'mine'" in found and "a2 = ...  # your answer" in found
    assert found[-1] == "## Summary" and found.count("check_a(a2)") == 1
    assert len(list((class_room.parent / "answers").iterdir())) == 1
    refusals = {"3.7": "no exercise 3.7; it has 3.1, 3.2", "9.1": "no notebook"}
    for wrong, words in refusals.items():
        capsys.readouterr()
        assert main(["--notebooks", str(class_room), "--only", wrong]) == 1
        assert words in capsys.readouterr().err


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
    changed = [(c.source, without_key(c.source)) for c in cells]
    ((before, after),) = (pair for pair in changed if pair[0] != pair[1])
    assert before.startswith(after) and after.endswith("under each task.")
    assert "solutions/" not in after


def test_sentences_that_point_to_the_key():
    text = "Read `a.b`. The key:\n[e.g. this](../solutions/01_a.ipynb). Stop `here`."
    assert without_key(text) == "Read `a.b`. Stop `here`."
    assert without_key("See `notebooks/solutions/`, too! Go.") == " Go."
    assert without_key("Two solutions. [A](b.md) link.") == "Two solutions. [A](b.md) link."
    text = "# T\n\nA [key](solutions/a.ipynb)! Next."
    assert page_without_key(text) == "# T\n\n Next."


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exercises ONLY=3.1", "-m jsws_lib.exercises --only 3.1"),
        ("handout", "-m jsws_lib.exercises --handout build/handout"),
    ],
)
def test_make_hands_on_what_it_is_told(command, words):
    run = subprocess.run(["make", "--dry-run", *command.split()], cwd=ROOT,
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0 and words in run.stdout, run.stdout + run.stderr


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


# --- slips that are easily taken for another -----------------------------------------


def kept(labels):
    return np.concatenate([[1], labels])[:, None, None]


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def without_absent(matrix):
    keep = matrix.sum(1) > 0
    m = matrix[np.ix_(keep, keep)]
    return (m.diagonal() / (m.sum(0) + m.sum(1) - m.diagonal())).mean()


def by_shifts(feats, weights, biases, rates, times=1):
    (height, width), total = feats.shape[2:], 0
    for weight, bias, rate in zip(weights, biases, rates, strict=True):
        wide = F.pad(feats, (rate,) * 4)
        for i in range(3):
            for j in range(3):
                part = wide[..., i * rate :, j * rate :][..., :height, :width]
                total = total + torch.einsum("kc,bchw->bkhw", weight[:, :, i, j], part)
        total = total + times * bias[:, None, None]
    return total


@pytest.mark.parametrize(
    ("check_it", "answer", "words"),
    [
        (check_repaired, lambda x, t: (softmax(x) * kept(t)).argmax(0), "✓ Right"),
        (check_repaired, lambda x, t: (x + 100 * (kept(t) - 1)).argmax(0),
         "which number loses against every other?"),
        (check_repaired, lambda x, t: np.where(kept(t) == 1, x, -900).argmax(0),
         "-1000 on all logits"),
        (check_repaired, lambda x, t: (np.exp(x) * kept(t)).argmax(0),
         "only infinities or zeros"),
        (check_mae, lambda s, y: np.abs(s.astype(float) / 255 - y / 255).mean(),
         "divided by 255 as well"),
        (check_mae, lambda s, y: np.abs(s.astype(float) - y).mean(),
         "the map reaches 255 and the mask only 1"),
        (check_mae, lambda s, y: np.abs(s - y).mean() / 255, "have no sign: print"),
        (check_mean_iou, without_absent, "drop no column"),
        (check_by_shifts, by_shifts, "✓ Right"),
        (check_by_shifts, lambda *given: by_shifts(*given, times=9), "added nine times"),
    ],
)  # fmt: skip
def test_a_slip_is_called_by_its_own_name(check_it, answer, words, capsys):
    check_it(answer)
    assert words in capsys.readouterr().out
