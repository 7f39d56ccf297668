"""docs/speed.md: what `jsws bench` measured, as tables and bars.

`python -m jsws_lib.speed_page` rewrites them from results/bench_*.json.
"""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from data_utils.files import write_bytes
from jsws_lib import results
from jsws_lib.ablation import RESULTS
from jsws_lib.bench import Row
from jsws_lib.config import ROOT
from jsws_lib.pictures import INK

KINDS = {
    "beside": "Beside the baseline (how many times less ours needs)",
    "change": "One change (how many times less with it)",
    "limit": "Beside the machine's limit (which part of it is reached)",
}
# The aims: at least so much, or for `mini_loader` at most.
TARGETS = {"train_step": 1.5, "data_path": 15, "pseudo_labels": 15, "max_f": 30,
           "mini_loader": 1.15}  # fmt: skip


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    if unit in ("FLOP/s", "B/s"):
        return f"{value / 1e9:.3g} G{unit}"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _ratio(one: Row) -> str:
    if one["kind"] == "limit" and one["unit"] in ("FLOP/s", "B/s"):
        return f"{100 * one['ratio']:.1f} %"
    return f"{one['ratio']:.2f}" if one["ratio"] < 10 else f"{one['ratio']:.1f}"


def conditions(result: dict) -> str:
    """Device, clock and how often, in a sentence."""
    clock = {"core": "core seconds", "wall": "seconds on a clock"}[result["clock"]]
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    return (f"{result['name']}, networks on {threads}; PyTorch {result['torch']}; {clock}, "
            "each after a turn that warms up.")  # fmt: skip


def table(result: dict) -> str:
    """The rows as Markdown, one table for each kind.

    Args:
        result: a file that `jsws bench` wrote, read.
    """
    second = {"beside": "baseline", "change": "without", "limit": "limit"}
    parts = []
    for kind, title in KINDS.items():
        lines = [f"{title}:", "",
                 f"| what | ours | {second[kind]} | ratio | of what |",
                 "| --- | ---: | ---: | ---: | --- |"]  # fmt: skip
        for one in result["rows"]:
            if one["kind"] == kind:
                cells = [f"`{one['name']}`", _amount(one["ours"], one["unit"]),
                         _amount(one["baseline"], one["unit"]), _ratio(one),
                         one["what"]]  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + f"\n\n*{conditions(result)}*"


def shares_table(result: dict) -> str:
    """Where the time of a training step goes, as Markdown."""
    lines = ["| part of a training step | share |", "| --- | ---: |"]
    lines += [f"| {part} | {100 * share:.0f} % |"
              for part, share in result["step_shares"].items()]  # fmt: skip
    return "\n".join(lines)


def chart(result: dict) -> Figure:
    """Every ratio as a bar on a logarithmic axis; a diamond where there is an aim."""
    looks = {"beside": (INK["a"], ""), "change": (INK["b"], "//")}
    rows = [one for kind in looks for one in result["rows"] if one["kind"] == kind]
    fig, ax = plt.subplots(figsize=(8.4, 0.26 * len(rows) + 1.1), layout="constrained")
    drawn = False
    for k, one in enumerate(rows):
        colour, hatch = looks[one["kind"]]
        first = one["kind"] not in {other["kind"] for other in rows[:k]}
        label = KINDS[one["kind"]].split(" (")[0] if first else None
        ax.barh(k, np.log10(one["ratio"]), color=colour, hatch=hatch, edgecolor="white",
                linewidth=0, label=label)  # fmt: skip
        aim = TARGETS.get(one["name"])
        if aim:
            ax.plot(np.log10(aim), k, "D", color="black", ms=5, zorder=3, mec="white",
                    label=None if drawn else "aim")  # fmt: skip
            drawn = True
        right = np.log10(max(1, one["ratio"], aim or 1))
        ax.annotate(_ratio(one), (right, k), xytext=(6, 0), textcoords="offset points",
                    va="center", fontsize=8)  # fmt: skip
    ticks = (0.5, 1, 2, 5, 10, 20, 50)
    ax.set_xticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    ax.set_yticks(range(len(rows)), [one["name"] for one in rows], fontsize=8)
    low, high = ax.get_xlim()
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low, high + 0.15),
           xlabel="times less time or memory (logarithmic; left of 1: more)")  # fmt: skip
    ax.axvline(0, color="black", lw=1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.set_title(result["name"], fontsize=9)
    return fig


PAGE = ROOT / "docs" / "speed.md"


def page_block() -> str:
    """What stands between the markers of docs/speed.md: a part for each device."""
    parts = []
    for file in sorted(RESULTS.glob("bench_*.json")):
        result = json.loads(file.read_text())
        alt = "Bars: how many times less time or memory each row of the table needs"
        parts += [f"![{alt}]({file.stem}.png)", table(result), shares_table(result)]
    return "\n\n".join(parts)


def main():
    """Rewrite the tables and draw the figures of docs/speed.md."""
    text = results.insert(PAGE.read_text(encoding="utf-8"), page_block())
    write_bytes(PAGE, text.encode())
    for file in sorted(RESULTS.glob("bench_*.json")):
        figure = chart(json.loads(file.read_text()))
        figure.savefig(PAGE.with_name(f"{file.stem}.png"), dpi=110)


if __name__ == "__main__":
    matplotlib.use("agg")
    main()
