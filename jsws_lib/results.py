"""Tables and charts, rendered from what was measured; nothing typed by hand.

`python -m jsws_lib.results` rewrites README's table and the pictures in docs/ from
`results/ablation_mini.json` and `checkpoints/`.
"""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from data_utils.files import write_bytes
from jsws_lib.ablation import RESULTS, mean_sd
from jsws_lib.checkpoints import recipe_fields
from jsws_lib.config import RECIPES, ROOT

# Tables 5 and 6 of the paper: mIoU on VOC 2012 val, MAE and max F on ECSSD.
PAPER = {
    "S": {"miou": 33.1},
    "M": {"miou": 57.1},
    "SS": {"miou": 47.1},
    "MS": {"miou": 62.7},
    "MM": {"miou": 63.3, "mae": 0.047, "max_f": 0.912,
           "mae_crf": 0.045, "max_f_crf": 0.919},
    "2S": {"mae": 0.046, "max_f": 0.899},
}  # fmt: skip
ROWS = {
    "S": "S: SSNet-1, *L_c*",
    "M": "M: SSNet-1, *L_c* + *L_s1*",
    "SS": "S-S: SSNet-2, *L_s2* with S's labels",
    "MS": "M-S: SSNet-2, *L_s2* with M's labels",
    "MM": "M-M: SSNet-2, *L_s1* + *L_s2* with M's labels",
    "2S": "2S: SSNet-2, *L_s1*",
}
ROLES = {"salient": "#e07b39", "present, not salient": "#2a6fbb"}
MINI = RESULTS / "ablation_mini.json"


def ablation_table(result: dict) -> str:
    """Tables 5 and 6 as one Markdown table, and a line with what it was measured by.

    Args:
        result: a file that `jsws ablate` wrote, read.
    """
    lines = [
        "| setting | mIoU, % | paper | MAE / max *F* | paper | the two after CRF | paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for setting, row in result["settings"].items():
        theirs = PAPER[setting]
        cells = [ROWS[setting], _mean(row, "miou", 1, 100), _paper(theirs, "miou")]
        for pair in (("mae", "max_f"), ("mae_crf", "max_f_crf")):
            cells.append(" / ".join(_mean(row, name, 3) for name in pair))
            cells.append(" / ".join(_paper(theirs, name) for name in pair))
        lines.append(f"| {' | '.join(cells)} |".replace("– / –", "–"))
    return "\n".join(lines) + f"\n\n*{conditions(result)}*"


def conditions(result: dict) -> str:
    """Profile, recipe, seeds and the convention of each measure, in two sentences."""
    fields, recipe = result["configuration"].values()
    known = recipe_fields(RECIPES[result["recipe"]]) if result["recipe"] in RECIPES else {}
    other = [f"{key} {value}" for key, value in recipe.items()
             if known and known.get(key) != value]  # fmt: skip
    name = result["recipe"] + (f" with {', '.join(other)}" if other else "")
    seeds = ", ".join(map(str, result["seeds"]))
    spread = f"seeds {seeds}, mean ± sample standard deviation"
    return (f"Profile {result['profile']}, recipe {name}; "
            f"{spread if len(result['seeds']) > 1 else f'seed {seeds}'}. mIoU over the "
            "classes that the masks hold; MAE and max F by the protocol toolbox; CRF "
            f"preset {recipe['crf']}, scale {fields['crf_scale']:g}.")  # fmt: skip


def _mean(row: dict[str, list], name: str, digits: int, factor: float = 1) -> str:
    if name not in row:
        return "–"
    mean, sd = mean_sd([factor * value for value in row[name]])
    return f"{mean:.{digits}f}" + ("" if sd != sd else f" ± {sd:.{digits}f}")


def _paper(row: dict[str, float], name: str) -> str:
    if name not in row:
        return "–"
    return f"{row[name]:.{1 if name == 'miou' else 3}f}"


def ablation_chart(result: dict) -> Figure:
    """Tables 5 and 6 as bars: ours with the spread over seeds, the paper's beside them."""
    panels = (("miou", "mIoU, %", 100), ("max_f", "max F", 1), ("mae", "MAE", 1))
    rows = result["settings"]
    names = [[s for s in rows if key in rows[s]] for key, *_ in panels]
    widths = [max(1, len(n)) for n in names]
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained",
                             width_ratios=widths)  # fmt: skip
    for ax, settings, (key, title, factor) in zip(axes, names, panels, strict=True):
        for k, setting in enumerate(settings):
            values = [factor * value for value in rows[setting][key]]
            mean, sd = mean_sd(values)
            ax.bar(k - 0.2, mean, 0.38, yerr=None if sd != sd else sd, capsize=4,
                   color="#2a6fbb", label="here" if k == 0 else None)  # fmt: skip
            ax.plot([k - 0.2] * len(values), values, ".", color="black", ms=4)
            if key in PAPER[setting]:
                ax.bar(k + 0.2, PAPER[setting][key], 0.38, color="#c9c9c9",
                       label="paper, real data" if k == 0 else None)  # fmt: skip
        labels = [{"SS": "S-S", "MS": "M-S", "MM": "M-M"}.get(s, s) for s in settings]
        ax.set_xticks(range(len(settings)), labels)
        ax.set_title(title)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(top=1.2 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(frameon=False, loc="upper left", ncols=2)
    what = f"profile {result['profile']}, recipe {result['recipe']}"
    several = len(result["seeds"]) > 1
    many = "mean, standard deviation and each seed" if several else "one seed"
    fig.suptitle(f"{what}: {many}", fontsize=10)
    return fig


def study_table(result: dict) -> str:
    """What was tried, as a Markdown table.

    Args:
        result: a file that `jsws study` wrote, read.
    """
    columns = {"miou": ("mIoU, %", 100, 1), "background_iou": ("background IoU, %", 100, 1),
               "mae": ("MAE", 1, 3), "max_f": ("max *F*", 1, 3),
               "v_salient": ("*v* salient", 1, 2),
               "v_not_salient": ("*v* not salient", 1, 2)}  # fmt: skip
    titles = " | ".join(title for title, *_ in columns.values())
    lines = [f"| changed | setting | {titles} |",
             "| --- | --- |" + " ---: |" * len(columns)]  # fmt: skip
    for row in result["rows"]:
        cells = [f"{factor * row[key]:.{digits}f}" if key in row else "–"
                 for key, (_, factor, digits) in columns.items()]  # fmt: skip
        lines.append(f"| {row['changed']} | {row['setting']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def suppression_chart(result: dict) -> Figure:
    """What v the SAM gives to what is salient, and to what only stands beside it.

    Left per image, right per category; above setting M, below M where L_c asks every
    category to beat the background, and M with the released code's saliency term.
    """
    contrasts = result["contrasts"]
    named = {f"M, recipe {result['recipe']}": result["settings"]["M"],
             "M, L_c on odds against the background": contrasts["M_odds"],
             "M, the released code's saliency term": contrasts["M_nll_probs"]}  # fmt: skip
    fig, axes = plt.subplots(len(named), 2, figsize=(10.5, 9.6), layout="constrained",
                             width_ratios=(1, 2.3))  # fmt: skip
    for (name, row), (left, right) in zip(named.items(), axes, strict=True):
        salient, other = np.array(row["v_by_image"][0], float)
        left.plot(other, salient, "o", alpha=0.35, color="#2a6fbb")
        left.plot([0, 1], [0, 1], ":", color="grey")
        left.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal",
                 xlabel="mean v, not salient", ylabel="mean v, salient")  # fmt: skip
        left.set_title(f"each image (seed {result['seeds'][0]})", fontsize=9)
        kinds = np.array(row["v_by_category"], float)  # (seeds, 2, 20)
        place = np.arange(kinds.shape[2])
        for k, (label, shade) in enumerate(ROLES.items()):
            at, values = place + 0.4 * k - 0.2, kinds[:, k]
            right.bar(at, values.mean(0), 0.38, label=label, color=shade,
                      hatch="///" if k else "", edgecolor="white")  # fmt: skip
            right.plot(np.tile(at, len(values)), values.ravel(), "k.", ms=3)
        names = result["categories"][1:]
        right.set_xticks(place, names, rotation=60, ha="right", fontsize=8)
        right.set(ylim=(0, 1.25))
        gap, sd = mean_sd(row["v_gap"])
        right.set_title(f"{name}: gap {gap:.3f}" + ("" if sd != sd else f" ± {sd:.3f}"),
                        fontsize=9)  # fmt: skip
        right.spines[["top", "right"]].set_visible(False)
    axes[0, 1].legend(frameon=False, ncols=2, fontsize=8, loc="upper right")
    return fig


def photographs_table() -> str:
    """The two runs on real photographs, one table each."""
    parts = []
    for name in ("photographs_stage1", "photographs"):
        result = json.loads((RESULTS / f"{name}.json").read_text())
        count = len(result["seeds"])
        title = f"{count} seeds" if count > 1 else f"Seed {result['seeds'][0]}"
        parts.append(f"{title}:\n\n{ablation_table(result)}")
    return "\n\n".join(parts)


def trials_table() -> str:
    """Loss terms that were tried and not kept, then `study_table`."""
    tried = json.loads((RESULTS / "losses_tried.json").read_text())
    kept = json.loads((RESULTS / "study_mini.json").read_text())
    parts = [f"{tried['words']}\n\n{study_table(tried)}",
             f"{kept['words']}\n\n{study_table(kept)}"]  # fmt: skip
    return "\n\n".join(parts)


def insert(text: str, block: str, name: str = "results") -> str:
    """Replace what stands on a page between the two comments that name a block."""
    start, end = f"<!-- {name}:", f"<!-- end of {name} -->"
    head, rest = text.split(start)
    comment, rest = rest.split("\n", 1)
    return f"{head}{start}{comment}\n{block}\n{end}{rest.split(end)[1]}"


# Pages of docs/ with a block between the markers, and what stands in it.
PAGES = {"real_photographs.md": photographs_table, "recipe_study.md": trials_table}


def main():
    """Rewrite the tables of README and docs/, and the pictures in docs/."""
    from jsws_lib import readme

    result = json.loads(MINI.read_text())
    blocks = {ROOT / "README.md": ablation_table(result)}
    blocks |= {ROOT / "docs" / page: block() for page, block in PAGES.items()}
    for page, block in blocks.items():
        write_bytes(page, insert(page.read_text(encoding="utf-8"), block).encode())
    for name, figure in (("ablation", ablation_chart(result)),
                         ("suppression", suppression_chart(result))):  # fmt: skip
        figure.savefig(ROOT / "docs" / f"{name}.png", dpi=110)
    readme.write()


if __name__ == "__main__":
    matplotlib.use("agg")
    main()
