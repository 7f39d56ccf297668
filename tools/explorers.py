"""Explorers on a page without a kernel: pictures beside the notebook, controls in HTML.

`docs/_static/explorer.js` lets the controls choose among the pictures.
"""

import base64
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

from data_utils.files import write_bytes
from jsws_lib.course.frames import MIME

FOLDER = "explorers"  # beside the notebooks
WIDE = 700  # px; pictures from here on scroll on a phone, as they would shrink to nothing
FORM = """<form class="explorer" data-states="{states}" data-words="{words}" hidden>
<fieldset><legend>Move the controls</legend>
{controls}
</fieldset>
<div><img src="{src}" alt="What the controls say, drawn; described below."
 class="{wide}" loading="lazy" width="{width}" height="{height}"
 style="aspect-ratio: {width} / {height}"></div>
<p role="status">{start}</p>
{limits}</form>"""
LIMITS = """<p class="limits">Not every combination is drawn here: moving one control may
take another one back. A kernel draws them all.</p>
"""


def outputs(notebook: dict, mime: str = MIME) -> Iterator[tuple[dict, dict]]:
    """The (cell, output) of a notebook that store something of a MIME type."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if mime in output.get("data", {}):
                yield cell, output


def take_seconds(notebook: dict) -> float:
    """Take out of a notebook how long it drew for pages without a kernel; s."""
    data = (output["data"][MIME] for _, output in outputs(notebook))
    return sum(found.pop("seconds") for found in data)


def put_frames_beside(notebook: dict, path: Path):
    """Move the pictures of explorers out of a notebook, which names them, into FOLDER."""
    for old in (path.parent / FOLDER).glob(f"{path.stem}-*.webp"):
        old.unlink()
    for number, (_, output) in enumerate(outputs(notebook), 1):
        found = output["data"][MIME]
        found["file"] = f"{FOLDER}/{path.stem}-{number}.webp"
        write_bytes(path.parent / found["file"], base64.b64decode(found.pop("webp")))


def put_forms(notebook: dict) -> list[str]:
    """Let the controls of each explorer follow its strip in a notebook, as HTML.

    Returns the files that its page needs, relative to it.
    """
    files = []
    for cell, output in list(outputs(notebook)):
        found = output["data"].pop(MIME)
        files.append(found["file"])
        after = cell["outputs"].index(output) + 1
        new = {"output_type": "display_data", "metadata": {}}
        cell["outputs"].insert(after, new | {"data": {"text/html": form(found)}})
    return files


def form(found: dict) -> str:
    """The controls above the picture of an explorer, as `frames` described it."""
    width, height = found["size"]
    controls = map(_control, found["controls"], map(int, found["states"][0].split()))
    return FORM.format(
        states=escape(json.dumps(found["states"])),
        words=escape(json.dumps(found["words"], ensure_ascii=False)),
        controls="\n".join(controls),
        src=escape(found["file"]),
        wide="wide" if width >= WIDE else "",
        width=width,
        height=height,
        start=escape(found["words"][0]),
        limits="" if found["all"] else LIMITS,
    )


def _control(control: dict, start: int) -> str:
    """An element whose value is the number of an option."""
    label, options = escape(control["label"]), [escape(o) for o in control["options"]]
    if control["kind"] == "checkbox":
        checked = " checked" if start else ""
        return f'<label><input type="checkbox"{checked}> {label}</label>'
    if control["kind"] == "select":
        items = (
            f'<option value="{k}"{" selected" if k == start else ""}>{words}</option>'
            for k, words in enumerate(options)
        )
        return f"<label>{label} <select>{''.join(items)}</select></label>"
    words = escape(json.dumps(control["options"], ensure_ascii=False))
    return (
        f'<label>{label} <input type="range" max="{len(options) - 1}" value="{start}" '
        f'aria-valuetext="{options[start]}" data-options="{words}"> '
        f'<span aria-hidden="true">{options[start]}</span></label>'
    )
