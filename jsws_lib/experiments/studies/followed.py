"""Measures over the steps of a training: rows of a results file, bands and a table."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jsws_lib.engine.devices import versions
from jsws_lib.experiments.ablation import store
from jsws_lib.experiments.results import markdown
from jsws_lib.ssnet import SSNet
from jsws_lib.training import Loop


class Following(Loop):
    """A plain loop of L_c + L_s1 that measures the network, at first and every few steps.

    Args:
        every: so many steps lie between two measures.
        measure: gets the network in evaluation mode and returns figures by name.

    Its `rows` hold `step`, the figures, and the means of `L_c` and `L_s1` since the row
    before.
    """

    def __init__(self, every: int, measure: Callable[[SSNet], dict[str, float]]):
        super().__init__()
        self.every, self.measure, self.rows = every, measure, []

    def place(self, net, profile, losses):
        """See `Loop`."""
        self._note(net)
        super().place(net, profile, losses)

    def after_step(self, net, record):
        """See `Loop`."""
        super().after_step(net, record)
        if self.done % self.every == 0:
            self._note(net)

    def _note(self, net: SSNet):
        net.eval()
        row = {"step": self.done, **self.measure(net)}
        for name in ("L_c", "L_s1") if self.done else ():
            values = [record[name] for record in self.history[-self.every :]]
            row[name] = round(float(np.mean(values)), 5)
        self.rows.append(row)
        net.train()


def known(file: Path) -> list[dict]:
    """The rows of a results file; none if there is no such file."""
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def complete(
    file: Path,
    by: str,
    runs: Iterable[tuple[str, int]],
    follow: Callable[[str, int], list[dict]],
    *,
    words: str,
) -> list[dict]:
    """Follow each run of which a results file has no row yet; it is written at once.

    Args:
        file: under `results/`.
        by: key of a run's name in the rows.
        runs: name and seed of each.
        follow: makes the rows of a name and a seed, without the two.
        words: what the file says of itself, beside the versions in use.

    Returns:
        all rows of the file.
    """
    rows = known(file)
    done = {(row[by], row["seed"]) for row in rows}
    todo = [run for run in runs if run not in done]
    if not todo:
        print(f"{file} has all rows; delete it, and they are measured again")
    for name, seed in todo:
        rows += [{by: name, "seed": seed, **row} for row in follow(name, seed)]
        store({"words": words, "versions": versions(), "rows": rows}, file)
    return rows


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
