"""Tables and charts, rendered from what was measured; nothing typed by hand.

`python -m tools.blocks` puts the tables into README and docs/, `python -m tools.pictures`
the charts. A `result` is a file that `jsws ablate`, `study` or `bench` wrote, read.
"""

import json
from collections.abc import Container, Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from jsws_lib.config import RECIPES
from jsws_lib.course.figures.common import INK, open_frame
from jsws_lib.engine.checkpoints import recipe_fields
from jsws_lib.experiments.ablation import RESULTS, mean_sd

# Tables 5 and 6 of the paper: mIoU on VOC 2012 val, MAE and max F on ECSSD.
PUBLISHED = {
    "S": {"miou": 33.1},
    "M": {"miou": 57.1},
    "SS": {"miou": 47.1},
    "MS": {"miou": 62.7},
    "MM": dict(miou=63.3, mae=0.047, max_f=0.912, mae_crf=0.045, max_f_crf=0.919),
    "2S": {"mae": 0.046, "max_f": 0.899},
}
ROWS = {
    "S": "S: SSNet-1, *L_c*",
    "M": "M: SSNet-1, *L_c* + *L_s1*",
    "SS": "S-S: SSNet-2, *L_s2* with S's labels",
    "MS": "M-S: SSNet-2, *L_s2* with M's labels",
    "MM": "M-M: SSNet-2, *L_s1* + *L_s2* with M's labels",
    "2S": "2S: SSNet-2, *L_s1*",
    "S_cam": "S read as CAM, labels given",
    "M_no_sam": "M with every *v* set to 1",
    "MM_no_sam": "M-M with every *v* set to 1",
    "SS_cam": "S-S with S's labels read as CAM",
    "full": "M-S with true masks: full supervision",
    "2S_from_M": "2S from M's backbone",
}
ROLES = {"salient": INK["a"], "present, not salient": INK["b"]}
MINI = RESULTS / "ablation_mini.json"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A Markdown table; `align` is l or r for each column."""
    sides = [{"l": "left", "r": "right"}[side] for side in align]
    return tabulate(
        rows, head, tablefmt="pipe", colalign=sides, disable_numparse=True, missingval="–"
    )


def ablation_table(result: dict, names: Container[str] = ROWS) -> str:
    """Tables 5 and 6 as one Markdown table, and a line with what it was measured by.

    Rows that are not among `names`, keys of `ROWS`, are left out.
    """
    columns = {
        "mIoU, %": ("miou",),
        "MAE / max *F*": ("mae", "max_f"),
        "the two after CRF": ("mae_crf", "max_f_crf"),
    }
    head, rows = ["setting"], []
    for title in columns:
        head += [title, "paper"]
    for setting, row in result["settings"].items():
        if setting not in names:
            continue
        cells = [ROWS[setting]]
        for measures in columns.values():
            for figures in (row, PUBLISHED.get(setting, {})):
                known = [spread(figures[m], m) for m in measures if m in figures]
                cells.append(" / ".join(known) or None)
        rows.append(cells)
    judged = [
        f"{name} {spread(one['miou'], 'miou')}"
        for name, one in result.get("pseudo_labels", {}).items()
    ]
    more = f" Pseudo labels on training images, mIoU, %: {', '.join(judged)}." * any(judged)
    return f"{markdown(head, rows, 'lrrrrrr')}\n\n*{conditions(result)}{more}*"


def spread(values, measure: str, *, sign: str = "") -> str:
    """Mean ± sample standard deviation over seeds, or one value, as text.

    Args:
        values: fractions of 1, one a seed; or one figure as the paper prints it.
        measure: its name; the mean IoU is written in percent, with one digit.
        sign: "+" writes it in front of positive values, too.
    """
    digits = 1 if measure == "miou" else 3
    if np.ndim(values) == 0:
        return f"{values:{sign}.{digits}f}"
    mean, sd = mean_sd((100 if measure == "miou" else 1) * np.asarray(values, float))
    if mean != mean:  # of a seed the protocol has no answer: every map was constant
        return "–"
    return f"{mean:{sign}.{digits}f}" + ("" if sd != sd else f" ± {sd:.{digits}f}")


def conditions(result: dict) -> str:
    """Profile, recipe, seeds and the convention of each measure, in two sentences."""
    fields, recipe = result["configuration"].values()
    name, seeds = result["recipe"], result["seeds"]
    known = recipe_fields(RECIPES[name]) if name in RECIPES else recipe
    if other := [f"{k} {value}" for k, value in recipe.items() if known.get(k) != value]:
        name += f" with {', '.join(other)}"
    words = f"seed {seeds[0]}"
    if len(seeds) > 1:
        words = f"seeds {', '.join(map(str, seeds))}, mean ± sample standard deviation"
    return (
        f"Profile {result['profile']}, recipe {name}; {words}. mIoU over the classes that "
        "the masks hold; MAE and max F by the protocol toolbox; CRF preset "
        f"{recipe['crf']}, scale {fields['crf_scale']:g}."
    )


def ablation_chart(result: dict) -> Figure:
    """Tables 5 and 6 as bars: ours with the spread over seeds, the paper's beside them."""
    panels = {"miou": "mIoU, %", "max_f": "max F", "mae": "MAE"}
    rows = {s: row for s, row in result["settings"].items() if s in PUBLISHED}
    names = {key: [s for s in rows if key in rows[s]] for key in panels}
    widths = [max(1, len(n)) for n in names.values()]
    fig, axes = plt.subplots(
        1, 3, figsize=(10.5, 3.2), layout="constrained", width_ratios=widths
    )
    for ax, (key, title) in zip(axes, panels.items(), strict=True):
        for k, setting in enumerate(names[key]):
            values = (100 if key == "miou" else 1) * np.array(rows[setting][key], float)
            mean, sd = mean_sd(values)
            error = None if sd != sd else sd
            labels = ("here", "paper, real data") if k == 0 else (None, None)
            looks = {"color": "#2a6fbb", "label": labels[0], "capsize": 4}
            ax.bar(k - 0.2, mean, 0.38, yerr=error, **looks)
            ax.plot([k - 0.2] * len(values), values, ".", color="black", ms=4)
            if key in PUBLISHED[setting]:
                theirs = PUBLISHED[setting][key]
                ax.bar(k + 0.2, theirs, 0.38, color="#c9c9c9", label=labels[1])
        ax.set_xticks(range(len(names[key])), [ROWS[s].split(":")[0] for s in names[key]])
        ax.set_title(title)
        open_frame(ax)
    axes[0].set_ylim(top=1.2 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(frameon=False, loc="upper left", ncols=2)
    many = "mean, standard deviation and each seed"
    what = f"profile {result['profile']}, recipe {result['recipe']}: "
    fig.suptitle(what + (many if len(result["seeds"]) > 1 else "one seed"), fontsize=10)
    return fig


def study_table(result: dict) -> str:
    """What was tried, as a Markdown table."""
    columns = {
        "miou": ("mIoU, %", 100, 1),
        "background_iou": ("background IoU, %", 100, 1),
        "mae": ("MAE", 1, 3),
        "max_f": ("max *F*", 1, 3),
        "v_salient": ("*v* salient", 1, 2),
        "v_not_salient": ("*v* not salient", 1, 2),
    }
    rows = []
    for row in result["rows"]:
        cells = [
            f"{factor * row[key]:.{digits}f}" if key in row else None
            for key, (_, factor, digits) in columns.items()
        ]
        rows.append([row["changed"], row["setting"], *cells])
    head = ["changed", "setting", *(title for title, *_ in columns.values())]
    return markdown(head, rows, "ll" + "r" * len(columns))


def suppression_chart(result: dict) -> Figure:
    """What v the SAM gives to what is salient, and to what only stands beside it.

    Left per image, right per category; above setting M, below M where L_c asks every
    category to beat the background, and M with the released code's saliency term.
    """
    contrasts = result["contrasts"]
    named = {
        f"M, recipe {result['recipe']}": result["settings"]["M"],
        "M, L_c on odds against the background": contrasts["M_odds"],
        "M, the released code's saliency term": contrasts["M_nll_probs"],
    }
    fig, axes = plt.subplots(
        len(named), 2, figsize=(10.5, 9.6), layout="constrained", width_ratios=(1, 2.3)
    )
    for (name, row), (left, right) in zip(named.items(), axes, strict=True):
        salient, other = np.array(row["v_by_image"][0], float)
        left.plot(other, salient, "o", alpha=0.35, color="#2a6fbb")
        left.plot([0, 1], [0, 1], ":", color="grey")
        left.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        left.set(xlabel="mean v, not salient", ylabel="mean v, salient")
        left.set_title(f"each image (seed {result['seeds'][0]})", fontsize=9)
        _categories(right, row, result["categories"][1:])
        open_frame(right, f"{name}: gap {spread(row['v_gap'], 'v_gap')}")
    axes[0, 1].legend(frameon=False, ncols=2, fontsize=8, loc="upper right")
    return fig


def _categories(ax, row: dict, names: Sequence[str]):
    """Two bars a category, a dot for each seed."""
    kinds = np.array(row["v_by_category"], float)  # (seeds, 2, 20)
    for k, (label, shade) in enumerate(ROLES.items()):
        at, values = np.arange(len(names)) + 0.4 * k - 0.2, kinds[:, k]
        looks = {"color": shade, "hatch": "///" if k else "", "edgecolor": "white"}
        ax.bar(at, values.mean(0), 0.38, label=label, **looks)
        ax.plot(np.tile(at, len(values)), values.ravel(), "k.", ms=3)
    ax.set_xticks(np.arange(len(names)), names, rotation=60, ha="right", fontsize=8)
    ax.set(ylim=(0, 1.25))


# --- speed ---------------------------------------------------------------------------


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def speed_table(result: dict) -> str:
    """Ours and the baseline's time or memory, row by row, as Markdown."""
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


def speed_page() -> str:
    """What docs/speed.md shows: the table of each device that was measured."""
    files = sorted(RESULTS.glob("bench_*.json"))
    return "\n\n".join(speed_table(json.loads(file.read_text())) for file in files)
