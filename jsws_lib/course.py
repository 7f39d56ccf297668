"""The course, executed: eight notebooks, their HTML, one table of what they measured.

A notebook states what it measured with `report(...)`. `python -m jsws_lib.course`
runs the notebooks, each in a fresh kernel of this interpreter and on the CPU, and
holds every reported figure against its expected range.
"""

import argparse
import base64
import copy
import html
import importlib.util
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from data_utils.files import for_json, write_bytes
from data_utils.parallel import available_cores
from jsws_lib.notebook import FIGURE_MIME, Figure
from jsws_lib.stamp import without_badge

ROOT = Path(__file__).resolve().parents[1]
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 3600  # s; training fills most of it on a slow machine


@dataclass
class Result:
    """What came out of one notebook."""

    notebook: str
    seconds: float
    figures: list[Figure] = field(default_factory=list)
    error: str = ""
    title: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran through and everything it measured is as expected."""
        return not self.error and all(figure.ok for figure in self.figures)


def run_notebook(path: Path, build: Path, *, update: bool = False) -> Result:
    """Execute one notebook and write `build/<name>.ipynb` and `.html`.

    Args:
        path: the notebook; it runs in the folder that holds it.
        build: folder for the executed notebook and its HTML.
        update: also store the outputs in the notebook itself, if it ran through.

    Returns:
        its seconds, figures and, if a cell failed, that cell's source and error.
    """
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    notebook = nbformat.read(path, as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    # No kernel folders: what remains is ipykernel in this very interpreter.
    specs = KernelSpecManager(kernel_dirs=[])
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
        timeout=CELL_TIMEOUT,
        coalesce_streams=True,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # a warning per kernel about TCP
        resources={"metadata": {"path": str(path.parent)}},
    )
    env = {**os.environ, "JSWS_DEVICE": "cpu", "PYTHONPATH": _python_path()}
    env["JSWS_STATIC"] = "1"  # nobody moves a control
    env.pop("MPLBACKEND", None)  # the kernel's own backend puts figures in the page
    env.pop("JSWS_STRICT", None)  # the table holds all verdicts; none should stop a run

    result = Result(path.stem, 0.0, title=_title(notebook))
    start = time.perf_counter()
    with tqdm(total=len(cells), desc=f"{path.stem:<24}", unit="cell") as bar:
        client.on_cell_executed = lambda **_: bar.update()
        try:
            client.execute(env=env, cleanup_kc=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            result.error = _failure(notebook, error)
    result.seconds = time.perf_counter() - start

    _tidy(notebook)
    result.figures = _figures(notebook)
    if not result.error and not any(c.execution_count for c in cells):
        result.error = "executed no cell"
    elif not result.error and not result.figures and path.parent.name != "solutions":
        result.error = "reported nothing"
    text = nbformat.writes(notebook) + "\n"
    build.mkdir(parents=True, exist_ok=True)
    write_bytes(build / path.name, text.encode())
    write_bytes(build / f"{path.stem}.html", _page(notebook, path, build).encode())
    if update and not result.error:
        write_bytes(path, text.encode())
    return result


def run_course(
    notebooks: Sequence[Path], build: Path, *, update: bool = False
) -> list[Result]:
    """Run notebooks one after the other; write pages, index and `results.json`.

    What earlier runs of other notebooks left in `build` stays in index and file.

    Args:
        notebooks: the files, in the order of the course.
        build: folder to write to; made if missing.
        update: store the outputs in the notebooks themselves.

    Returns:
        one result each; a failing notebook does not stop the others.
    """
    build.mkdir(parents=True, exist_ok=True)
    earlier, results = _earlier(notebooks, build), []
    for path in notebooks:
        results.append(run_notebook(path, build, update=update))
        known = sorted(earlier + results, key=lambda r: r.notebook)
        summary = [
            {**asdict(r), "seconds": round(r.seconds, 1), "ok": r.ok} for r in known
        ]
        text = json.dumps(for_json(summary), indent=2) + "\n"
        write_bytes(build / "results.json", text.encode())
        write_bytes(build / "index.html", _index(known).encode())
    return results


def _earlier(notebooks: Sequence[Path], build: Path) -> list[Result]:
    """What `build` holds of notebooks that are not among `notebooks`."""
    file, again = build / "results.json", {path.stem for path in notebooks}
    found = []
    for record in json.loads(file.read_text("utf-8")) if file.is_file() else ():
        page, source = (f"{record['notebook']}{end}" for end in (".html", ".ipynb"))
        there = (build / page).is_file() and (notebooks[0].parent / source).is_file()
        if record["notebook"] in again or not there:
            continue
        ends = {"low": -math.inf, "high": math.inf, "value": math.nan}  # null in JSON
        figures = [
            Figure(**{k: ends[k] if v is None else v for k, v in figure.items()})
            for figure in record.pop("figures")
        ]
        del record["ok"]
        found.append(Result(**record, figures=figures))
    return found


def _page(notebook, path: Path, build: Path) -> str:
    """The notebook as a page that stands in `build` and needs no network."""
    from nbconvert import HTMLExporter

    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = without_badge(cell.source)
    page, _ = HTMLExporter(require_js_url="none").from_notebook_node(
        shown, {"metadata": {"name": f"{_title(notebook)} - SSNet, step by step"}}
    )
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


def _title(notebook) -> str:
    """The first heading."""
    first = (re.search(r"^# (.+)", cell.source, re.M) for cell in notebook.cells)
    return next((found[1].strip() for found in first if found), "a notebook")


def table(results: Sequence[Result]) -> str:
    """Lay out one line per figure: notebook, seconds, figure, range, verdict."""
    rows = [("notebook", "seconds", "figure", "measured", "expected", "")]
    for result in results:
        head = (result.notebook, f"{result.seconds:.1f}")
        for f in result.figures:
            verdict = "OK" if f.ok else "NOT OK"
            rows.append((*head, f.name, f.measured, f.expected, verdict))
            head = ("", "")
        if result.error:
            first_line = result.error.splitlines()[0]
            rows.append((*head, first_line, "", "", "NOT OK"))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = [
        "  ".join(
            cell.rjust(w) if i in (1, 3) else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    bad = [r.notebook for r in results if not r.ok]
    total = sum(r.seconds for r in results)
    verdict = f"NOT OK: {', '.join(bad)}" if bad else "all OK"
    plural = "" if len(results) == 1 else "s"
    lines += ["", f"{len(results)} notebook{plural} in {total:.0f} s, {verdict}"]
    return "\n".join(lines)


def _figures(notebook) -> list[Figure]:
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {}).get(FIGURE_MIME)
            if data:
                low, value, high = (float(data[k]) for k in ("low", "value", "high"))
                found.append(Figure(data["name"], value, low, high, data["unit"]))
    return found


def _failure(notebook, error: Exception) -> str:
    """Name the error, then show the source of the cell that raised it."""
    for cell in notebook.cells:
        if "raises-exception" in cell.metadata.get("tags", []):
            continue  # it fails to make a point
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}\n\n{cell.source}"
    return f"{type(error).__name__}: {error}"


def _tidy(notebook) -> None:
    """Keep what a reader reads; drop what differs from machine to machine."""
    from nbformat import from_dict

    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            # Without the live kernel a widget, a progress bar say, is an empty box.
            cell.outputs = [
                from_dict(_relative(output))
                for output in cell.outputs
                if WIDGET_MIME not in output.get("data", {})
            ]


def _relative(output):
    """Cut this machine's folders out of the texts of an output."""
    if isinstance(output, dict):  # the metadata's "image/png" holds words
        return {
            key: _small_png(value)
            if key == "image/png" and isinstance(value, str)
            else _relative(value)
            for key, value in output.items()
        }
    if isinstance(output, list):
        return [_relative(value) for value in output]
    if isinstance(output, str):
        for folder, name in ((ROOT, ""), (Path.home(), "~/")):
            if folder != Path(folder.anchor):
                output = output.replace(f"{folder}/", name)
        # In tracebacks: the library is imported through "..", packages from anywhere.
        output = output.replace("notebooks/../", "").replace("solutions/../../", "")
        return re.sub(r"(\x1b\[[\d;]*m)?[\w.~/-]*/site-packages/", r"\1", output)
    return output


def _small_png(text: str) -> str:
    """Re-encode a base64 PNG with 256 colours, a third of the size for photographs."""
    picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    file = io.BytesIO()
    page.convert("RGB").quantize(256).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _python_path() -> str:
    """Let a kernel import this checkout, installed or not."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


FORMULAS = re.compile(
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL
)
OFFLINE = """<script>
window.MathJax = {{tex: {{inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]]}}}};
</script><script src="{}"></script>"""
PAGE = """<!doctype html>
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


def _index(results: Sequence[Result]) -> str:
    rows = []
    for r in results:
        mark = '<b class="ok">OK</b>' if r.ok else '<b class="bad">NOT OK</b>'
        measured = "<br>".join(
            html.escape(f"{f.name}: {f.measured}, expected {f.expected}")
            + ("" if f.ok else ' <b class="bad">NOT OK</b>') for f in r.figures
        )  # fmt: skip
        if r.error:
            measured += f'<pre class="bad">{html.escape(r.error)}</pre>'
        name, title = html.escape(r.notebook), html.escape(r.title or r.notebook)
        rows.append(
            f'<tr><td><a href="{name}.html">{title}</a><td>{r.seconds:.1f}'
            f"<td>{measured}<td>{mark}</tr>"
        )
    verdict = html.escape(table(results).splitlines()[-1])
    return PAGE.format(verdict=verdict, rows="\n".join(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the course; return 0 if every notebook is OK, 1 if not, 2 if none is there.

    Args:
        argv: command line arguments; those of the process if None.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jsws_lib.course", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "only", nargs="*", help="start of a notebook's name, as in 03; all if none"
    )
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "course")
    parser.add_argument(
        "--update", action="store_true", help="store the outputs in the notebooks"
    )
    args = parser.parse_args(argv)
    paths = [
        p
        for p in sorted(args.notebooks.resolve().glob("*.ipynb"))
        if not args.only or p.name.startswith(tuple(args.only))
    ]
    if not paths:
        wanted = ", ".join(args.only) or "*.ipynb"
        print(f"{args.notebooks}: no notebook {wanted}", file=sys.stderr)
        return 2
    results = run_course(paths, args.build, update=args.update)
    ok = all(result.ok for result in results)
    if args.update and ok and not args.only and args.notebooks == ROOT / "notebooks":
        seconds = {result.notebook: round(result.seconds, 1) for result in results}
        facts = {"cores": available_cores(), "seconds": seconds}
        text = json.dumps(facts, indent=1) + "\n"
        write_bytes(ROOT / "results" / "course.json", text.encode())
    for result in results:
        if "\n" in result.error:
            print(f"\n{result.notebook} failed: {result.error}")
    print(f"\n{table(results)}\nread it: {args.build / 'index.html'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
