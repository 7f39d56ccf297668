"""What `jsws bench` measured, as tables and bars: docs/speed.md."""

import json

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jsws_lib.course.figures.common import INK
from jsws_lib.experiments.bench import RESULTS
from jsws_lib.experiments.results import markdown

# How many times less ours is to need.
AIMS = {"train_step": 1.5, "data_path": 15, "pseudo_labels": 15}


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(result: dict) -> str:
    """The rows as Markdown.

    Args:
        result: a file that `jsws bench` wrote, read.
    """
    rows = []
    for one in result["rows"]:
        amounts = [_amount(one[key], one["unit"]) for key in ("ours", "baseline")]
        rows.append([f"`{one['name']}`", *amounts, _ratio(one["ratio"]), one["what"]])
    head = ("what", "ours", "baseline", "times less", "of what")
    clock = {"core": "core seconds", "wall": "seconds on a clock"}[result["clock"]]
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    note = (
        f"*{result['name']}, networks on {threads}; PyTorch {result['torch']}; {clock}, "
        "each after a turn that warms up.*"
    )
    return f"{markdown(head, rows, 'lrrrl')}\n\n{note}"


def chart(result: dict) -> Figure:
    """Every ratio as a bar on a logarithmic axis; a diamond where there is an aim."""
    names = [one["name"] for one in result["rows"]]
    ratios = np.array([one["ratio"] for one in result["rows"]])
    aims = np.array([AIMS.get(name, np.nan) for name in names])
    fig, ax = plt.subplots(figsize=(8.4, 0.26 * len(names) + 1.1), layout="constrained")
    ax.barh(names, ratios - 1, left=1, color=INK["a"])
    ax.plot(aims, names, "D", color="black", ms=5, mec="white", label="aim")
    for k, ratio in enumerate(ratios):
        right = (max(1, ratio, np.nan_to_num(aims[k])), k)
        style = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        ax.annotate(_ratio(ratio), right, xytext=(6, 0), **style)
    ticks = (0.5, 1, 2, 5, 10, 20, 50, 100)
    ax.set(xscale="log", xlim=(0.7, 110), ylim=(len(names) - 0.4, -0.6))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xlabel("times less time or memory (left of 1: more)")
    ax.minorticks_off()
    ax.tick_params("y", labelsize=8)
    ax.axvline(1, color="black", lw=1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.set_title(result["name"], fontsize=9)
    return fig


def page_block() -> str:
    """What stands between the markers of docs/speed.md: a part for each device."""
    alt = "Bars: how many times less time or memory each row of the table needs"
    return "\n\n".join(
        f"![{alt}]({file.stem}.png)\n\n{table(json.loads(file.read_text()))}"
        for file in sorted(RESULTS.glob("bench_*.json"))
    )
