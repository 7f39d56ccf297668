"""The paper's tables beside what was measured here, with what can be compared.

The numbers are in `results/paper_tables.toml`, transcribed once, and in `results.PAPER`.
"""

import tomllib

import numpy as np

from jsws_lib.ablation import RESULTS, mean_sd
from jsws_lib.results import PAPER

# What the paper claims: this figure is better than that one.
CLAIMS = {
    "saliency helps segmentation": ("M", "S", "miou"),
    "stage 2 improves on S": ("SS", "S", "miou"),
    "stage 2 improves on M": ("MS", "M", "miou"),
    "a better teacher, a better student": ("MS", "SS", "miou"),
    "saliency helps in stage 2, too": ("MM", "MS", "miou"),
    "labels help max F": ("MM", "2S", "max_f"),
    "labels cost a little MAE": ("MM", "2S", "mae"),
}
# Table: the paper's row and column, our figure, what is the same and what is not.
BESIDE = {
    1: ("MAE, ECSSD", "mae_crf", "definition; after CRF", "pictures, CRF's parameters"),
    2: ("max F, ECSSD", "max_f_crf", "protocol `toolbox`; after CRF",
        "pictures, CRF's parameters"),
    3: ("mIoU %, VOC val", "miou", "definition; kind of labels; no CRF",
        "pictures; photographs: 6 categories"),
    4: ("mIoU %, VOC test", None, "–", "only the VOC server has the masks"),
}  # fmt: skip


def paper_table(number: int) -> dict:
    """One of Tables 1 to 4: title, source, measure, columns, notes and rows by method."""
    text = (RESULTS / "paper_tables.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tables"][str(number)]


def beside_table(drawings: dict, photographs: dict) -> str:
    """The paper's own row of Tables 1 to 4 beside M-M here, as Markdown.

    Args:
        drawings, photographs: files that `jsws ablate` wrote, read.
    """
    lines = ["| Table | figure | paper | drawings | photographs | the same | different |",
             "| --- | --- | ---: | ---: | ---: | --- | --- |"]  # fmt: skip
    for number, (what, key, same, different) in BESIDE.items():
        ours = paper_table(number)["rows"]["Ours"]
        cells = [f"{ours['mean']:.1f}" if "mean" in ours else f"{ours['values'][0]:.3f}"]
        for result in (drawings, photographs):
            values = result["settings"].get("MM", {}).get(key)
            cells.append(_spread(values, key) if values else "–")
        lines.append(f"| {' | '.join((str(number), what, *cells, same, different))} |")
    return "\n".join(lines)


def claims_table(result: dict) -> str:
    """Each claim of Section 4.4: the paper's difference, ours over the seeds, who agrees.

    Args:
        result: a file that `jsws ablate` wrote, read.
    """
    lines = ["| the paper's claim | difference | paper | here | seeds that agree |",
             "| --- | --- | ---: | ---: | ---: |"]  # fmt: skip
    for claim, (one, other, key) in CLAIMS.items():
        ours = np.subtract(*(result["settings"][name][key] for name in (one, other)))
        theirs = PAPER[one][key] - PAPER[other][key]
        agree = int((np.sign(ours) == np.sign(theirs)).sum())
        lines.append(f"| {claim} | {key}: {one} − {other} "
                     f"| {theirs:+.{1 if key == 'miou' else 3}f} "
                     f"| {_spread(ours, key, '+')} | {agree} of {len(ours)} |")  # fmt: skip
    return "\n".join(lines)


def _spread(values, key: str, sign: str = "") -> str:
    """Mean ± standard deviation, the mean IoU in percent."""
    digits, factor = (1, 100) if key == "miou" else (3, 1)
    mean, sd = mean_sd(factor * np.asarray(values))
    return f"{mean:{sign}.{digits}f}" + ("" if sd != sd else f" ± {sd:.{digits}f}")
