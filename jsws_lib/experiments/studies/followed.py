"""Measures over the steps of a training: rows of a results file, bands and a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from data_utils.files import write_bytes
from jsws_lib.engine.devices import versions
from jsws_lib.experiments.results import markdown


def known(file: Path) -> list[dict]:
    """The rows of a results file; none if there is no such file."""
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def append(file: Path, *rows: dict, words: str):
    """Add rows to a results file, under `words` and the versions in use."""
    result = {"words": words, "versions": versions(), "rows": [*known(file), *rows]}
    write_bytes(file, (json.dumps(result, indent=1) + "\n").encode())


def chart(
    rows: Sequence[dict], by: str, measures: Mapping[str, str], *, xlabel: str = "step"
) -> Figure:
    """The measures over the steps: a line for each value of `by`, a band over all seeds.

    Args:
        rows: of `by`, `seed`, `step` and the measures.
        by: key whose values the lines compare.
        measures: the panels, key to title.
        xlabel: what a step is.
    """
    count = len(measures)
    size = {"figsize": (3 * count, 3), "layout": "constrained"}
    fig, (axes,) = plt.subplots(1, count, squeeze=False, **size)
    for name in dict.fromkeys(row[by] for row in rows):
        mine = [row for row in rows if row[by] == name]
        steps = sorted({row["step"] for row in mine})
        for ax, (key, title) in zip(axes, measures.items(), strict=True):
            values = [[r[key] for r in mine if r["step"] == step] for step in steps]
            (line,) = ax.plot(steps, [np.mean(v) for v in values], label=name)
            low, high = [min(v) for v in values], [max(v) for v in values]
            ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.2)
            ax.set(title=title.replace("*", ""), xlabel=xlabel)
            ax.spines[["top", "right"]].set_visible(False)
    below = {"loc": "outside lower center", "ncols": 6, "frameon": False}
    fig.legend(*axes[0].get_legend_handles_labels(), **below)
    return fig


def table(rows: Sequence[dict], by: str, measures: Mapping[str, str]) -> str:
    """Each measure at the first and the last step, mean over the seeds, as Markdown.

    Args:
        rows, by, measures: as `chart` takes them.
    """
    lines = []
    for name in dict.fromkeys(row[by] for row in rows):
        mine = [row for row in rows if row[by] == name]
        steps = {row["step"] for row in mine}
        ends = [[r for r in mine if r["step"] == f(steps)] for f in (min, max)]
        pairs = ([np.mean([r[key] for r in end]) for end in ends] for key in measures)
        cells = (f"{before:.3f} → {after:.3f}" for before, after in pairs)
        lines.append([name, str(len(ends[0])), f"{max(steps):,}", *cells])
    head = (by, "seeds", "steps", *measures.values())
    return markdown(head, lines, "lrr" + "r" * len(measures))
