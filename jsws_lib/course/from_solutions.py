"""The learner's exercises, made from the solutions.

`notebooks/solutions/<name>.ipynb` is the source. Of its cells, by tag:

- `exercise`: the task and its folded hint (markdown), copied;
- `solution`: code; the learner gets it without its answer;
- `check`: calls `check_...`, copied;
- `wrong`: a tempting wrong answer, and the same check; stays in the solutions.

The answer is a line that ends in `# solution`, of which only `name = ...` remains, or the
lines between `# solution:` and `# end of solution`, which become one `...`.
`python -m jsws_lib.course.from_solutions 03` rewrites the exercises of notebook 3, and
without a number those of all. What was there before is kept in `answers/`.
`--handout FOLDER` writes a class's notebooks: no outputs, and no word of the solutions.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import ROOT

HEADING = "## Exercises"
COPIED = {"exercise", "solution", "check"}
BLOCK = re.compile(r"^( *)# solution:.*?^ *# end of solution\n?", re.M | re.S)
LINE = re.compile(r"^( *\w+ = ).*  # solution$", re.M)
# A sentence that points to the solutions, by a link or by the folder's name.
_PIECE = r"(?:\[[^\]]*\](?:\([^)\s]*\))?|`[^`]*`|[^.!?\n\[`]|\n(?!\n))*"
_POINTS = r"(?:\[[^\]]*\]\([^)\s]*solutions/[^)\s]*\)|`[^`\n]*solutions/[^`\n]*`)"
KEY = re.compile(rf"(?!\n){_PIECE}{_POINTS}{_PIECE}[.!?]?")


def write_notebook(path: Path, notebook: NotebookNode) -> Path:
    """Write a notebook as every tool here does, so that only what changes differs."""
    return write_bytes(path, (nbformat.writes(notebook) + "\n").encode())


def unsolved(source: str) -> str:
    """Take the answer out of a solution cell.

    Raises:
        JswsError: the cell marks no answer.
    """
    learner = BLOCK.sub(lambda m: f"{m[1]}...  # your code\n", source)
    learner = LINE.sub(lambda m: f"{m[1]}...  # your answer", learner).rstrip("\n")
    if learner == source.rstrip("\n"):
        raise JswsError(f"a solution cell marks no answer:\n{source}")
    return learner


def learner_cells(solutions: NotebookNode, name: str) -> list[NotebookNode]:
    """Make the cells of the section Exercises of NAME.ipynb.

    Raises:
        JswsError: a solution cell marks no answer.
    """
    intro = (
        f"{HEADING}\n\nRun all cells above first (in JupyterLab: *Run*, *Run All Above "
        "Selected Cell*); the exercises use what they define. Replace each `...`, run the "
        "cell, then run the check below it. A hint unfolds under each task. Solutions, and "
        "answers that tempt and are wrong: "
        f"[solutions/{name}.ipynb](solutions/{name}.ipynb)."
    )
    cells = [nbformat.v4.new_markdown_cell(intro, id="exercises")]
    for cell in solutions.cells:
        if not COPIED.intersection(tags := cell.metadata.get("tags", [])):
            continue
        known = {"id": cell.id, "metadata": {"tags": ["exercise"]}}
        if cell.cell_type == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(cell.source, **known))
        else:
            source = unsolved(cell.source) if "solution" in tags else cell.source
            cells.append(nbformat.v4.new_code_cell(source, **known))
    return cells


def section(notebook: NotebookNode) -> slice:
    """The cells of a notebook's section Exercises.

    Raises:
        JswsError: it has no such section, or two.
    """
    heads = {
        k: cell.source.splitlines()[0]
        for k, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown" and cell.source.startswith("## ")
    }
    starts = [k for k, head in heads.items() if head == HEADING]
    if len(starts) != 1:
        there = ", ".join(heads.values()) or "none"
        raise JswsError(f"a notebook needs one section '{HEADING}'; it has {there}")
    end = next((k for k in heads if k > starts[0]), len(notebook.cells))
    return slice(starts[0], end)


def renew(path: Path) -> Path | None:
    """Write a notebook's exercises anew from its solutions.

    Outputs of cells that stay the same are kept, and `answers/` beside the folder of
    notebooks gets a copy of the notebook first.

    Returns:
        the copy; None if nothing changes.

    Raises:
        JswsError: see `section` and `unsolved`.
    """
    notebook = nbformat.read(path, as_version=4)
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    where = section(notebook)
    old = {(c.id, c.source): c for c in notebook.cells[where]}
    new = [old.get((c.id, c.source), c) for c in learner_cells(solutions, path.stem)]
    if new == notebook.cells[where]:
        return None
    name = f"{path.stem}-{datetime.now():%Y-%m-%d-%H%M%S-%f}.ipynb"
    copy = write_bytes(path.parents[1] / "answers" / name, path.read_bytes())
    notebook.cells[where] = new
    write_notebook(path, notebook)
    return copy


def page_without_key(text: str) -> str:
    """Take each sentence that points to the solutions out of Markdown or a notebook."""
    if not text.startswith("{"):
        return KEY.sub("", text)
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = KEY.sub("", cell.source)
    return nbformat.writes(notebook) + "\n"


def hand_out(path: Path, folder: Path) -> Path:
    """Write a notebook for a class: no outputs, and no word of the solutions."""
    notebook = nbformat.reads(page_without_key(path.read_text("utf-8")), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return write_notebook(folder / path.name, notebook)


def main(argv: Sequence[str] | None = None) -> int:
    """Renew all notebooks or some, or write what a class gets."""
    name, about = "python -m jsws_lib.course.from_solutions", __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(name, description=about)
    parser.add_argument("names", nargs="*", help="start of a name, as in 03; all if none")
    alone = "leave the notebooks alone; write copies for a class"
    parser.add_argument("--handout", type=Path, metavar="FOLDER", help=alone)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    args = parser.parse_args(argv)
    files = sorted(args.notebooks.resolve().glob("*.ipynb"))
    paths = [path for path in files if path.name.startswith(tuple(args.names or [""]))]
    try:
        if not paths:
            raise JswsError(f"{args.notebooks}: no notebook {', '.join(args.names)}")
        for path in paths:
            if args.handout:
                print(hand_out(path, args.handout))
            elif (path.parent / "solutions" / path.name).is_file():  # not the start
                before = renew(path)
                done = f"renewed; as it was: {before}" if before else "up to date"
                print(f"{path.stem}: {done}")
    except JswsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
