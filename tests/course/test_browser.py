"""A notebook in JupyterLab in a real browser: opened, run and moved by its controls.

The cells are few and quick; that every notebook runs and that each control changes its
picture, nbval sees under JSWS_COURSE=strict without a browser.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

CELL = """
from jsws_lib.course.widgets import explore

def draw(fig, height, kind, grid):
    ax = fig.subplots()
    (ax.bar if kind == "bar" else ax.scatter)([0], [height])
    ax.set(ylim=(0, 3), title=f"{kind} {height}")
    ax.grid(grid)

explorer = explore(
    draw, strip=[{"height": 1.0, "kind": "bar", "grid": False}], alt="A bar.",
    height=(0.5, 3.0, 0.5), kind=["bar", "dot"], grid=False)
"""

# The address of an image is renewed with its words; only its pixels say what it shows.
PIXELS = """image => image.decode().then(() => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
})"""


@pytest.fixture
def lab(root, tmp_path):
    """The address of a notebook in JupyterLab, which is starting."""
    cells = [new_code_cell(source) for source in ("%matplotlib inline", CELL)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "bars.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "PYTHONPATH": str(root)}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JSWS_", "MPLBACKEND"))}
    options = (
        f"--no-browser --allow-root --port={port} --IdentityProvider.token= "
        "--ServerApp.password= --LabApp.expose_app_in_browser=True --LabApp.news_url=None"
    )
    command = [sys.executable, "-m", "jupyterlab", *options.split()]
    with subprocess.Popen(command, cwd=tmp_path, env=env | own) as server:
        try:
            yield f"http://127.0.0.1:{port}/lab/tree/bars.ipynb?reset"
        finally:
            server.terminate()


def test_every_kind_of_control_redraws_the_picture(chromium, lab):
    page = chromium.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(120_000)
    for _ in range(240):
        with contextlib.suppress(Exception):  # nobody answers yet
            page.goto(lab)
            break
        time.sleep(0.5)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
    )
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    explorer = page.locator(".jp-OutputArea-output .widget-vbox:has(img.widget-image)")
    explorer.wait_for()
    picture = explorer.locator("img.widget-image")
    before = picture.evaluate(PIXELS)

    def redrawn(words):
        """Wait until the screen reader's words are these; the picture must differ."""
        nonlocal before
        page.wait_for_function(
            "([image, words]) => image.title === words && image.complete",
            arg=[picture.element_handle(), words],
        )
        now = picture.evaluate(PIXELS)
        assert now != before
        before = now

    explorer.locator(".widget-slider .noUi-handle").press("End")
    redrawn("height 3, kind bar, grid no. bar 3.0")
    explorer.locator(".widget-dropdown select").select_option("dot")
    redrawn("height 3, kind dot, grid no. dot 3.0")
    explorer.locator(".widget-checkbox input").click()
    redrawn("height 3, kind dot, grid yes. dot 3.0")
