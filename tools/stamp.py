"""Where the course is hosted, written wherever a reader or Colab needs it: `make stamp`.

pyproject.toml holds the repository and the tag, under [tool.jsws]. From them this writes
the first cell of every notebook, which fetches that tag on Colab, the badge under its
title, and the links of README.md, CITATION.cff and docs/; `tools.blocks` then the badges
of README. Until a repository was given there are no badges: they would lead nowhere.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import ROOT

PLACEHOLDER = "NAME/PROJECT"  # until somebody says where
COLAB = "https://colab.research.google.com"
BADGE = re.compile(r"(?:\n\n)?\[!\[Open in Colab\]\([^)\s]*\)\]\([^)\s]*\)")
CELL = """\
import sys

if "google.colab" in sys.modules and "start" not in globals():  # fetch the course first
    !test -d {tag} || git clone -qb {tag} --depth 1 -c advice.detachedHead=0 \
https://github.com/{repository} {tag}
    %cd -q {tag}/notebooks
sys.path[:0] = ["..", "../.."]  # the library beside this notebook
from jsws_lib.course.notebook import report, show, start
profile, recipe = start()"""


@dataclass(frozen=True)
class Stamp:
    """A repository on GitHub, NAME/PROJECT, and the tag that readers get."""

    repository: str
    tag: str

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise JswsError(f"repository '{self.repository}': write it as {PLACEHOLDER}")
        if not re.fullmatch(r"\w[\w.-]*", self.tag):
            raise JswsError(f"tag '{self.tag}': letters, digits, dots and dashes, as v1.0")

    @property
    def given(self) -> bool:
        """Whether somebody said where the course is hosted."""
        return self.repository != PLACEHOLDER

    @property
    def cell(self) -> str:
        """The first code cell of every notebook."""
        return CELL.format(**vars(self))

    def badge(self, path: str) -> str:
        """The badge of a notebook, by its path in the repository."""
        target = f"{COLAB}/github/{self.repository}/blob/{self.tag}/{path}"
        return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def origin(root: Path) -> str | None:
    """NAME/PROJECT of the git remote `origin`, if that is on GitHub."""
    words = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        address = subprocess.run(words, capture_output=True, text=True).stdout
    except OSError:  # no git
        return None
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?\s*$", address)
    return found[1] if found else None


def read_stamp(root: Path = ROOT) -> Stamp:
    """Read it from pyproject.toml.

    Raises:
        JswsError: the repository or the tag cannot be one.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return Stamp(**project["tool"]["jsws"])


def without_badge(text: str) -> str:
    """Take the badges out of Markdown."""
    return BADGE.sub("", text)


def stamped(root: Path, old: Stamp, new: Stamp) -> dict[Path, str]:
    """The text that each stamped file of a repository should have in place of `old`."""
    ending = r"(?![\w-]|\.\w)"
    link = re.compile(
        rf"(github\.com/|/github/|/gh/){re.escape(old.repository)}{ending}"
        rf"(?:(/|/blob/|/tree/|/raw/){re.escape(old.tag)}{ending})?"
    )

    def renew(text):
        return link.sub(
            lambda m: m[1] + new.repository + (m[2] + new.tag if m[2] else ""), text
        )

    pages = [root / "README.md", root / "CITATION.cff", *sorted(root.glob("docs/*.md"))]
    texts = {path: renew(path.read_text(encoding="utf-8")) for path in pages}
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = renew(cell.source)
        title, _, rest = without_badge(notebook.cells[0].source).partition("\n\n")
        badge = [new.badge(path.relative_to(root).as_posix())] if new.given else []
        notebook.cells[0].source = "\n\n".join([title, *badge, rest])
        next(c for c in notebook.cells if c.cell_type == "code").source = new.cell
        texts[path] = nbformat.writes(notebook) + "\n"
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    for key, value in vars(new).items():
        text = re.sub(rf'^({key} = )"[^"\n]*"', rf'\1"{value}"', text, flags=re.M)
    return texts | {root / "pyproject.toml": text}


def main(argv: Sequence[str] | None = None) -> int:
    """Write a new repository or tag everywhere, or write everything anew."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser("python -m tools.stamp", description=about)
    parser.add_argument("--repo", metavar=PLACEHOLDER, help="on GitHub")
    parser.add_argument("--tag", help="of the version that Colab fetches, as in v1.0")
    parser.add_argument("--root", type=Path, default=ROOT)
    args = parser.parse_args(argv)
    try:
        old = read_stamp(args.root)
        found = None if args.repo else origin(args.root)
        if found:
            print(f"{found}: the git remote `origin`; --repo names another")
        new = Stamp(args.repo or found or old.repository, args.tag or old.tag)
        for path, text in stamped(args.root, old, new).items():
            if text != path.read_text(encoding="utf-8"):
                write_bytes(path, text.encode())
                print(path.relative_to(args.root))
    except JswsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Colab fetches {new.tag} of https://github.com/{new.repository}")
    if new.given:
        print(f"once there: commit, git tag {new.tag}, git push origin HEAD {new.tag}")
    else:
        print("which is a placeholder, `origin` not being on GitHub: REPO=owner/name")
    return 0


if __name__ == "__main__":
    sys.exit(main())
