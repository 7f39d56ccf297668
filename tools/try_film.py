"""README's animation of try.html: `python -m tools.try_film` draws it in Chromium."""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from data_utils.files import write_bytes
from jsws_lib.config import ROOT
from tools import try_page

VIEW = {"width": 640, "height": 560}
DONE = "document.getElementById('status').textContent.startsWith('Done')"


def scenes(tab):
    """Use the page; after each step yield for how many ms its picture is shown."""
    examples = tab.locator("#examples button")
    yield 1500
    for k, kind in ((1, "drawing"), (examples.count() - 2, "photograph")):
        examples.nth(k).click()
        tab.wait_for_function(f"{DONE} && picture.kind === '{kind}'")
        tab.locator("#answer").scroll_into_view_if_needed()
        tab.evaluate("document.getElementById('answer').scrollIntoView()")
        yield 2500
        tab.evaluate("document.querySelector('.inside').scrollIntoView()")
        yield 1500
        slider = tab.locator("#maps input").first
        for value in (0.8, 0.6, 0.4, 0.2, 0):
            slider.fill(str(value))
            yield 2000 if not value else 250
        tab.evaluate("scrollTo(0, 0)")


def main():
    """Write docs/try.gif."""
    frames, times, chromium = [], [], shutil.which("chromium") or shutil.which("chrome")
    with (
        tempfile.TemporaryDirectory() as room,
        try_page.served(try_page.build(Path(room)).parent) as address,
        sync_playwright() as playwright,
    ):
        options = {"executable_path": chromium, "args": ["--no-sandbox"]}
        tab = playwright.chromium.launch(**options).new_page(viewport=VIEW)
        tab.set_default_timeout(120_000)
        tab.goto(f"{address}try.html")
        tab.locator("#main").wait_for()
        for time in scenes(tab):
            frame = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
            frames.append(frame.quantize(96, dither=Image.Dither.NONE))
            times.append(time)
    file, options = io.BytesIO(), {"save_all": True, "loop": 0, "optimize": True}
    frames[0].save(file, "GIF", append_images=frames[1:], duration=times, **options)
    write_bytes(ROOT / "docs" / "try.gif", file.getvalue())


if __name__ == "__main__":
    main()
