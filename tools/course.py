"""The course, executed: notebooks and extras, their HTML, one table of what they measured.

A notebook states what it measured with `report(...)`. `python -m tools.course`
runs the notebooks, each in a fresh kernel of this interpreter and on the CPU, two side by
side, and holds every reported number against its expected range.
"""

import argparse
import base64
import io
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import nbformat
from PIL import Image
from tabulate import tabulate
from tqdm.auto import tqdm

from data_utils.files import write_bytes
from data_utils.parallel import available_cores
from jsws_lib.config import ROOT
from jsws_lib.course.from_solutions import write_notebook
from jsws_lib.course.measured import MIME, Measured
from tools.course_pages import index, notebook_page, title_of
from tools.explorers import outputs, put_frames_beside, take_seconds

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 3600  # s; training fills most of it on a slow machine


@dataclass
class Result:
    """What came out of one notebook."""

    notebook: str
    title: str
    seconds: float = 0.0
    measured: list[Measured] = field(default_factory=list)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran through and everything it measured is as expected."""
        return not self.error and all(m.ok for m in self.measured)


def run_notebook(path: Path, build: Path, *, threads: int, update: bool = False) -> Result:
    """Execute one notebook where it lies and write `build/<name>.ipynb` and `.html`.

    Args:
        path: the notebook.
        build: a folder.
        threads: how many the kernel computes with.
        update: also store the outputs in the notebook itself, if it ran through.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # what is stored behind an error was not measured now
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    result, begin = Result(path.stem, title_of(notebook)), time.perf_counter()
    try:
        execute(notebook, path.parent, _environment(threads, frames=update))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        result.error = _failure(notebook, error)
    result.seconds = time.perf_counter() - begin - take_seconds(notebook)
    _tidy(notebook)
    found = (output["data"][MIME] for _, output in outputs(notebook, MIME))
    result.measured = [Measured(**data) for data in found]
    if not any(cell.get("execution_count") for cell in notebook.cells):
        result.error = result.error or "executed no cell"
    elif not result.measured and path.parent.name not in ("solutions", "extras"):
        result.error = result.error or "reported nothing"
    write_notebook(build / path.name, notebook)
    write_bytes(build / f"{path.stem}.html", notebook_page(notebook, path, build).encode())
    if update and not result.error:
        put_frames_beside(notebook, path)
        write_notebook(path, notebook)
    return result


def execute(notebook, folder: Path, env: dict[str, str], *, kernels: Sequence[str] = ()):
    """Run all cells in place.

    Args:
        notebook: gets the outputs.
        folder: where it runs.
        env: of the kernel.
        kernels: folders of kernels that take the place of this very interpreter's.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    # No kernel folders: what remains is ipykernel in this very interpreter.
    own = {"kernel_dirs": [*kernels], "ensure_native_kernel": not kernels}
    specs = KernelSpecManager(**own)
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
        timeout=CELL_TIMEOUT,
        coalesce_streams=True,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # a warning per kernel about TCP
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=env, cleanup_kc=True)


def _environment(threads: int, *, frames: bool) -> dict[str, str]:
    here = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "JSWS_DEVICE": "cpu", "PYTHONPATH": here}
    # Nobody moves a control, and drawing its states takes minutes. Not "strict": the table
    # holds all verdicts, and none should stop a run.
    env["JSWS_COURSE"] = "static frames" if frames else "static"
    env["OMP_NUM_THREADS"] = str(threads)
    env.pop("MPLBACKEND", None)  # the kernel's own backend puts figures in the page
    return env


def run_course(
    notebooks: Sequence[Path], build: Path, *, update: bool = False
) -> list[Result]:
    """Run notebooks, two side by side, and write their pages and an index of them.

    A failing one does not stop the others. With JSWS_TRAIN=1 they run one after the other,
    as one takes what another trained. `build` and `update` are those of `run_notebook`.
    """
    cores = available_cores()
    at_once = 1 if os.environ.get("JSWS_TRAIN") == "1" else min(2, cores, len(notebooks))
    fresh = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, fresh)
    options = {"threads": cores // at_once, "update": update}
    try:
        runs = [pool.submit(run_notebook, path, build, **options) for path in notebooks]
        results = [run.result() for run in tqdm(runs, "the course", unit="notebook")]
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C starts no further notebook
    write_bytes(build / "index.html", index(results, verdict(results)).encode())
    return results


def table(results: Sequence[Result]) -> str:
    """Lay out one line per number: notebook, seconds, number, range, verdict."""
    rows = [("notebook", "seconds", "what", "measured", "expected", "")]
    for result in results:
        lines = [(m.name, m.found, m.expected, m.verdict) for m in result.measured]
        if result.error:
            lines.append((shorten(result.error.splitlines()[0], 60), "", "", "NOT OK"))
        rows += [(result.notebook, f"{result.seconds:.1f}", *line) for line in lines[:1]]
        rows += [("", "", *line) for line in lines[1:]]
    sides = ("left", "right", "left", "right", "left", "left")
    lined = tabulate(rows, "firstrow", colalign=sides, disable_numparse=True)
    return f"{lined}\n\n{verdict(results)}"


def verdict(results: Sequence[Result]) -> str:
    """How many notebooks there are, how long they took, and which are not as expected."""
    bad = [r.notebook for r in results if not r.ok]
    total, plural = sum(r.seconds for r in results), "" if len(results) == 1 else "s"
    said = f"NOT OK: {', '.join(bad)}" if bad else "all OK"
    return f"{len(results)} notebook{plural} in {total:.0f} s, {said}"


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
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            # Without the live kernel a widget, a progress bar say, is an empty box.
            cell.outputs = [
                nbformat.from_dict(_relative(output))
                for output in cell.outputs
                if WIDGET_MIME not in output.get("data", {})
            ]


def _relative(output):
    """Cut this machine's folders out of the texts of an output."""
    if isinstance(output, dict):
        made = {key: _relative(value) for key, value in output.items()}
        if isinstance(png := output.get("image/png"), str):  # words, in the metadata
            made["image/png"] = _small_png(png)
        return made
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the course; return 0 if every notebook is OK, 1 if not, 2 if none is there."""
    about, which = __doc__.splitlines()[0], "start of a notebook's name, as in 03"
    parser = argparse.ArgumentParser("python -m tools.course", description=about)
    parser.add_argument("only", nargs="*", help=f"{which}; all if none")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "course")
    store = "store the outputs in the notebooks"
    parser.add_argument("--update", action="store_true", help=store)
    args = parser.parse_args(argv)
    folder = args.notebooks.resolve()
    files = [*sorted(folder.glob("*.ipynb")), *sorted(folder.glob("extras/*.ipynb"))]
    paths = [p for p in files if p.name.startswith(tuple(args.only or [""]))]
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
