"""The notebooks in JupyterLab in a real browser: run, then moved by their controls."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.browser
# How a person moves each kind of control, by the class that JupyterLab gives it.
CHOICE, BOX = ".widget-dropdown select", ".widget-checkbox input"
SLIDER = ".widget-slider .noUi-handle"


@pytest.fixture(scope="module")
def page():
    """A page of a headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that serves a copy of the notebooks."""
    home = tmp_path_factory.mktemp("lab")
    for name in ("jsws_lib", "data_utils", "checkpoints", "results", "data"):
        (home / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # All cells in the page at once, not only those in view.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
           "JUPYTER_CONFIG_DIR": str(home / "config"), "JSWS_DEVICE": "cpu",
           "PYTHONPATH": str(home)}  # fmt: skip
    for name in ("JSWS_STATIC", "JSWS_STRICT", "JSWS_TRAIN", "MPLBACKEND"):
        env.pop(name, None)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
               f"--port={port}", "--IdentityProvider.token=", "--ServerApp.password=",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
               f"--ServerApp.root_dir={home}"]  # fmt: skip
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api/status", timeout=5)
                break
            assert server.poll() is None, (home / "log.txt").read_text()
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


RUN_ALL = """async () => {
    const app = window.jupyterapp;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    const cells = [...panel.content.model.cells].filter(c => c.type === 'code');
    await app.commands.execute('notebook:run-all-cells');
    // The command returns at a mistake on purpose, but the kernel goes on.
    const busy = () => panel.sessionContext.session.kernel.status !== 'idle';
    for (let calm = 0; calm < 4; calm = busy() ? 0 : calm + 1) {
        await new Promise(done => setTimeout(done, 500));
    }
    return cells.map(c => ({
        run: c.executionCount !== null,
        wanted: (c.metadata.tags || []).includes('raises-exception'),
        error: Array.from({length: c.outputs.length}, (_, k) => c.outputs.get(k))
            .filter(o => o.type === 'error').map(o => o.toJSON().evalue)[0] || null,
        source: c.sharedModel.getSource().slice(0, 60),
    }));
}"""


def move(page, explorer, kind):
    """Move the first control of a kind inside one explorer; say whether there is one.

    A choice or a box is put back afterwards: the next control starts where the page did.
    """
    control = explorer.locator(kind).first
    if not control.count():
        return False
    picture = explorer.locator("img.widget-image").first
    assert picture.get_attribute("title")  # what a screen reader says of it

    def changes(act):
        before = picture.get_attribute("src")
        act()
        page.wait_for_function("([image, before]) => image.src !== before",
                               arg=[picture.element_handle(), before],
                               timeout=30_000)  # fmt: skip

    def to_an_end():
        control.focus()
        at = control.get_attribute("aria-valuenow")
        control.press("End")
        if control.get_attribute("aria-valuenow") == at:  # it was there
            control.press("Home")

    control.scroll_into_view_if_needed()
    if kind == SLIDER:
        changes(to_an_end)
    elif kind == CHOICE:
        values = control.locator("option").evaluate_all("all => all.map(o => o.value)")
        now = control.input_value()
        values.remove(now)
        changes(lambda: control.select_option(values[-1]))
        changes(lambda: control.select_option(now))
    else:
        changes(control.click)
        changes(control.click)
    return True


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_controls_redraw(page, lab, name):
    page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context")
    cells = page.evaluate(RUN_ALL)
    assert cells and [cell for cell in cells if not cell["run"]] == []
    for cell in cells:
        assert bool(cell["error"]) == cell["wanted"], cell
    explorers = page.locator(".jp-OutputArea-output .widget-vbox:has(img.widget-image)")
    explorers.first.wait_for()
    moved = {kind: 0 for kind in (CHOICE, BOX, SLIDER)}
    for k in range(explorers.count()):
        for kind in moved:
            moved[kind] += move(page, explorers.nth(k), kind)
    assert sum(moved.values()) >= 1
    shots = os.environ.get("JSWS_SHOTS")  # a folder, to look at them
    if shots:
        explorers.first.screenshot(path=Path(shots) / f"{name}.png")
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
