"""What an explorer shows without a kernel: some of its states, drawn and stored.

Their pictures stand below each other in one WebP, which a page shows a part of.
"""

import base64
import io
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import ipywidgets
import numpy as np
from PIL import Image

MIME = "application/vnd.jsws.explorer+json"
MOST = 32  # pictures, unless one control at a time takes more
HIGHEST = 16383  # px, of a WebP
STOPS = 5  # of a slider, besides the values in the strip


def frames(explorer, strip: Sequence[dict]) -> dict:
    """Draw an explorer's states for a page.

    Args:
        explorer: a `widgets.Explorer`.
        strip: the states that its page shows anyway; the first is the start.

    Returns:
        `controls` with their kind, label and words of each value; `states`, each the
        number of a value by control, as in "2 0 1", the start first; `words` that
        describe each state; whether it is `all` of them; `size`, px, of one picture;
        `webp`, all pictures as base64; and the `seconds` that this took.
    """
    begin = time.perf_counter()
    known = {
        name: choices(control, [state[name] for state in strip])
        for name, control in explorer.controls.items()
    }
    values = {name: [value for _, value in pairs] for name, pairs in known.items()}
    chosen = states(values, strip)
    drawn = [explorer.picture_of(state, scale=1) for state in chosen]
    pictures = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in drawn]
    for picture in pictures:
        picture.thumbnail((picture.width, HIGHEST // len(pictures)))
    controls = [
        {
            "kind": _kind(control),
            "label": control.description or name,
            "options": [words for words, _ in known[name]],
        }
        for name, control in explorer.controls.items()
    ]
    return {
        "controls": controls,
        "states": [
            " ".join(str(values[name].index(state[name])) for name in values)
            for state in chosen
        ],
        "words": [words for _, words in drawn],
        "all": len(chosen) == math.prod(map(len, values.values())),
        "size": pictures[0].size,
        "webp": base64.b64encode(_webp(pictures)).decode(),
        "seconds": time.perf_counter() - begin,
    }


def choices(control: ipywidgets.Widget, shown: Sequence = ()) -> list[tuple[str, object]]:
    """The values of a control that get pictures, each after its words.

    Args:
        control: a menu, a box to tick, or a slider, of which some values are taken.
        shown: values to take in any case.
    """
    kind = _kind(control)
    if kind == "checkbox":
        return [("no", False), ("yes", True)]
    if hasattr(control, "options"):
        options = control.options
        pairs = [one if isinstance(one, tuple) else (str(one), one) for one in options]
    else:
        count = round((control.max - control.min) / control.step)
        steps = (round(control.min + k * control.step, 9) for k in range(count + 1))
        pairs = [(f"{value:g}", value) for value in sorted({*steps, *shown})]
    if kind == "select":
        return pairs
    places = {round(k) for k in np.linspace(0, len(pairs) - 1, STOPS)}
    return [p for k, p in enumerate(pairs) if k in places or p[1] in shown]


def states(values: Mapping[str, Sequence], strip: Sequence[dict]) -> list[dict]:
    """All combinations if they are few; else the strip and its neighbours.

    A neighbour differs in one control. Those of the start, which comes first, are all
    there; of the other states in the strip, while there is room.
    """
    found = _unique({name: state[name] for name in values} for state in strip)
    if math.prod(map(len, values.values())) <= MOST:
        every = (dict(zip(values, s, strict=True)) for s in product(*values.values()))
        return _unique([*found, *every])
    for start in list(found):
        beside = [{**start, name: v} for name, each in values.items() for v in each]
        more = _unique(found + beside)
        if start == found[0] or len(more) <= MOST:
            found = more
    return found


def _kind(control: ipywidgets.Widget) -> str:
    """Which element of a page takes the control's place."""
    if isinstance(control, ipywidgets.Checkbox):
        return "checkbox"
    slider = isinstance(control, ipywidgets.SelectionSlider)
    return "select" if hasattr(control, "options") and not slider else "range"


def _unique(found: Iterable[dict]) -> list[dict]:
    return [dict(pairs) for pairs in dict.fromkeys(tuple(s.items()) for s in found)]


def _webp(pictures: Sequence[Image.Image]) -> bytes:
    """One picture below the other: few colours without loss, or all with; the smaller."""
    column = Image.fromarray(np.concatenate([np.asarray(p) for p in pictures]))
    files = io.BytesIO(), io.BytesIO()
    few = column.quantize(128, dither=Image.Dither.NONE).convert("RGB")
    few.save(files[0], "webp", lossless=True)
    column.save(files[1], "webp", quality=45)
    return min((file.getvalue() for file in files), key=len)
