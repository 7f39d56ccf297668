"""The paper's tables beside what was measured here, with what can be compared.

The numbers are in `results/paper_tables.toml`, transcribed once, and in `results.PAPER`;
ours are files that `jsws ablate` wrote, read.
"""

import tomllib

import numpy as np

from jsws_lib.experiments.ablation import RESULTS
from jsws_lib.experiments.results import PAPER, markdown, spread

# What the text of Section 4.4 claims: the first setting is better than the second.
CLAIMS = {
    "saliency helps segmentation": ("M", "S", ("miou",)),
    "a better teacher, a better student": ("MS", "SS", ("miou",)),
    "saliency helps in stage 2, too": ("MM", "MS", ("miou",)),
    "joint learning does not harm saliency": ("MM", "2S", ("max_f", "mae")),
}
# What only the numbers of Table 5 show.
DIFFERENCES = {
    "stage 2 above S": ("SS", "S", ("miou",)),
    "stage 2 above M": ("MS", "M", ("miou",)),
}
# The rows in which what labels alone have learned is read as class activation maps.
AS_CAM = {"S": "S_cam", "SS": "SS_cam"}
OTHER = "pictures, network, image size, pre-training, loss recipe, schedule"
REFINED = (
    f"{OTHER}, CRF's parameters; photographs: trained on ECSSD itself, 100 test images"
)
# Table: the paper's row and column, our figure, what is the same and what is not.
BESIDE = {
    1: ("MAE, ECSSD", "mae_crf", "definition; after CRF", REFINED),
    2: ("max F, ECSSD", "max_f_crf", "protocol `toolbox`; after CRF", REFINED),
    3: (
        "mIoU %, VOC val",
        "miou",
        "definition; image labels and saliency masks, of other sets; no CRF",
        f"{OTHER}; photographs: 6 categories, 130 test images",
    ),
    4: ("mIoU %, VOC test", None, "–", "only the VOC server has the masks"),
}


def paper_table(number: int) -> dict:
    """One of Tables 1 to 4: title, source, measure, columns, notes and rows by method."""
    text = (RESULTS / "paper_tables.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tables"][str(number)]


def beside_table(drawings: dict, photographs: dict) -> str:
    """The paper's own row of Tables 1 to 4 beside M-M here, as Markdown."""
    head = ("Table", "figure", "paper", "drawings", "photographs", "the same", "different")
    rows = []
    for number, (what, key, same, different) in BESIDE.items():
        ours = paper_table(number)["rows"]["Ours"]
        cells = [f"{ours['mean']:.1f}" if "mean" in ours else f"{ours['values'][0]:.3f}"]
        for result in (drawings, photographs):
            values = result["settings"].get("MM", {}).get(key)
            cells.append(spread(values, key) if values else None)
        rows.append([str(number), what, *cells, same, different])
    return markdown(head, rows, "llrrrll")


def claims_table(result: dict) -> str:
    """Section 4.4: the paper's differences, ours over the seeds, who agrees.

    Above what the text claims, below what only Table 5 shows. A seed agrees if the sign
    is the paper's. Harm to saliency: the paper has max F larger, MAE .001 worse, and calls
    it comparable; so max F must not be lower, and the MAE not more than that higher. The
    last columns have S, and the pseudo labels that S-S learns from, read as class
    activation maps.
    """
    head = ["claim", "said in", "difference", "paper", "here", "seeds that agree"]
    head += ["S read as CAM", "seeds that agree"]
    rows = []
    for where, claims in (("the text", CLAIMS), ("Table 5 only", DIFFERENCES)):
        for claim, (one, other, keys) in claims.items():
            theirs = {key: PAPER[one][key] - PAPER[other][key] for key in keys}
            paper = ", ".join(spread(theirs[key], key, sign="+") for key in keys)
            pair, fair = (one, other), (AS_CAM.get(one, one), AS_CAM.get(other, other))
            row = [claim, where, f"{', '.join(keys)}: {one} − {other}", paper]
            row += _differences(result, pair, theirs)
            row += _differences(result, fair, theirs) if fair != pair else [None, None]
            rows.append(row)
    return markdown(head, rows, "lllrrrrr")


def _differences(result: dict, pair: tuple[str, str], theirs: dict) -> list[str | None]:
    """Ours over the seeds that both rows have, and how many of them agree."""
    if not {*pair} <= result["settings"].keys():
        return [None, None]
    one, other = (result["settings"][name] for name in pair)
    ours = {}
    for key in theirs:
        count = min(len(one[key]), len(other[key]))
        ours[key] = np.subtract(one[key][:count], other[key][:count])
    if "miou" in theirs:
        agree = np.sign(ours["miou"]) == np.sign(theirs["miou"])
    else:
        agree = (ours["max_f"] >= 0) & (ours["mae"] <= theirs["mae"] + 1e-9)
    text = ", ".join(spread(ours[key], key, sign="+") for key in theirs)
    return [text, f"{int(agree.sum())} of {len(agree)}"]
