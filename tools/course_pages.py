"""HTML of the executed course: a page a notebook and an index, without the network."""

import copy
import html
import importlib.util
import os
import re
from pathlib import Path

from data_utils.files import write_bytes
from tools.stamp import without_badge

FORMULAS = re.compile(
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL
)
OFFLINE = """<script>
window.MathJax = {{tex: {{inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]]}}}};
</script><script src="{}"></script>"""
INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SSNet, step by step</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto;
       padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .8rem;
          border-bottom: 1px solid #ddd; }}
.ok {{ color: #18794e; }} .bad {{ color: #c0262d; }}
pre {{ white-space: pre-wrap; margin: 0; }}
</style>
<h1>SSNet, step by step</h1>
<p>{verdict}. Each notebook states what it measured, and in which range that is
expected.</p>
<table><tr><th>Notebook<th>Seconds<th>What it measured<th>Verdict</tr>
{rows}
</table></html>
"""
OK, NOT_OK = '<b class="ok">OK</b>', '<b class="bad">NOT OK</b>'


def title_of(notebook) -> str:
    """The first heading."""
    first = (re.search(r"^# (.+)", cell.source, re.M) for cell in notebook.cells)
    return next((found[1].strip() for found in first if found), "a notebook")


def notebook_page(notebook, path: Path, build: Path) -> str:
    """The notebook of `path` as a page that stands in `build` and needs no network."""
    from nbconvert import HTMLExporter

    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = without_badge(cell.source)
    name = {"metadata": {"name": f"{title_of(notebook)} - SSNet, step by step"}}
    page, _ = HTMLExporter(require_js_url="none").from_notebook_node(shown, name)
    page = page.replace('<script src="none"></script>', "")
    if formulas := _mathjax():
        write_bytes(build / formulas.name, formulas.read_bytes())
        page = FORMULAS.sub(lambda _: OFFLINE.format(formulas.name), page)
    page = page.replace("</main>", '<p><a href="index.html">All notebooks</a></p></main>')

    def moved(link: re.Match) -> str:
        target, hash_, anchor = link[1].partition("#")
        file = (path.parent / target).resolve()
        if file.parent == path.parent.resolve() and file.suffix == ".ipynb":
            return f'href="{file.stem}.html{hash_}{anchor}"'
        if not target or ":" in target or target.endswith(".html"):
            return link[0]
        there = os.path.relpath(file, build.resolve()).replace(os.sep, "/")
        return f'href="{there}{hash_}{anchor}"'

    return re.sub(r'href="([^"]*)"', moved, page)


def _mathjax() -> Path | None:
    """The one file that sets formulas, of the package that `make book` uses."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    file = found and Path(found.origin).with_name("static") / "mathjax" / "tex-svg.js"
    return file if file and file.is_file() else None


def index(results, verdict: str) -> str:
    """One row for each `tools.course.Result`, under a verdict on all."""
    rows = []
    for r in results:
        lines = [
            html.escape(f"{m.name}: {m.found}, expected {m.expected}")
            + ("" if m.ok else f" {NOT_OK}")
            for m in r.measured
        ]
        error = f'<pre class="bad">{html.escape(r.error)}</pre>' if r.error else ""
        rows.append(
            f'<tr><td><a href="{html.escape(r.notebook)}.html">{html.escape(r.title)}</a>'
            f"<td>{r.seconds:.1f}<td>{'<br>'.join(lines)}{error}"
            f"<td>{OK if r.ok else NOT_OK}</tr>"
        )
    return INDEX.format(verdict=html.escape(verdict), rows="\n".join(rows))
