"""The learner's exercises, made from the solutions.

`notebooks/solutions/<name>.ipynb` is the source. Of its cells, by tag:

- `exercise`: the task and its folded hint (markdown), copied;
- `solution`: code; the learner gets it without its answer;
- `check`: calls `check_...`, copied;
- `wrong`: a tempting wrong answer, and the same check; stays in the solutions.

The answer is a line that ends in `# solution`, of which only `name = ...` remains, or the
lines between `# solution:` and `# end of solution`, which become one `...`.
`python -m jsws_lib.exercises` rewrites the notebooks' exercises.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import ROOT

HEADING = "## Exercises"
COPIED = ("exercise", "solution", "check")
BLOCK = re.compile(r"^( *)# solution:.*?^ *# end of solution\n?", re.M | re.S)
LINE = re.compile(r"^( *\w+ = ).*  # solution$", re.M)


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
    """Make the cells of the section Exercises.

    Args:
        solutions: the solution notebook.
        name: the notebook's file name without suffix.

    Raises:
        JswsError: a solution cell marks no answer.
    """
    intro = (
        f"{HEADING}\n\nReplace each `...`, run the cell, then run the check below it. A "
        "hint unfolds under each task. Solutions, and answers that tempt and are wrong: "
        f"[solutions/{name}.ipynb](solutions/{name}.ipynb)."
    )
    cells = [nbformat.v4.new_markdown_cell(intro, id="exercises")]
    for cell in solutions.cells:
        tags = cell.metadata.get("tags", [])
        if not set(COPIED) & set(tags):
            continue
        if cell.cell_type == "markdown":
            made = nbformat.v4.new_markdown_cell(cell.source)
        else:
            source = unsolved(cell.source) if "solution" in tags else cell.source
            made = nbformat.v4.new_code_cell(source)
        made.id = cell.id
        made.metadata["tags"] = ["exercise"]
        cells.append(made)
    return cells


def section(notebook: NotebookNode) -> slice:
    """The cells of a notebook's section Exercises.

    Raises:
        JswsError: it has no such section, or two.
    """
    def heading(cell):
        return cell.cell_type == "markdown" and cell.source.startswith("## ")

    starts = [k for k, c in enumerate(notebook.cells)
              if heading(c) and c.source.split("\n")[0] == HEADING]  # fmt: skip
    if len(starts) != 1:
        raise JswsError(f"a notebook needs one section '{HEADING}', not {len(starts)}")
    (start,) = starts
    following = (k for k in range(start + 1, len(notebook.cells))
                 if heading(notebook.cells[k]))  # fmt: skip
    return slice(start, next(following, len(notebook.cells)))


def renew(path: Path) -> bool:
    """Write a notebook's exercises anew from its solutions; True if that changed it.

    Outputs of cells that stay the same are kept.

    Raises:
        JswsError: see `section` and `unsolved`.
    """
    notebook = nbformat.read(path, as_version=4)
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    where = section(notebook)
    old = {(c.id, c.source): c for c in notebook.cells[where]}
    new = learner_cells(solutions, path.stem)
    new = [old.get((c.id, c.source), c) for c in new]
    if new == notebook.cells[where]:
        return False
    notebook.cells[where] = new
    write_bytes(path, (nbformat.writes(notebook) + "\n").encode())
    return True


def main(names: Sequence[str]) -> int:
    """Renew all notebooks, or those whose names start as given."""
    for solution in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        if not names or solution.name.startswith(tuple(names)):
            changed = renew(solution.parents[1] / solution.name)
            print(f"{solution.stem}: {'exercises renewed' if changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
