"""What Section 4.4 and Table 5 claim, and in how many of our seeds it is so."""

import numpy as np

from jsws_lib.experiments.results import PUBLISHED, markdown, spread

# Who says it, and what: the first setting is better than the second. Of the last two only
# the numbers of Table 5 speak.
CLAIMS = {
    "saliency helps segmentation": ("the text", "M", "S", ("miou",)),
    "a better teacher, a better student": ("the text", "MS", "SS", ("miou",)),
    "saliency helps in stage 2, too": ("the text", "MM", "MS", ("miou",)),
    "joint learning does not harm saliency": ("the text", "MM", "2S", ("max_f", "mae")),
    "stage 2 above S": ("Table 5 only", "SS", "S", ("miou",)),
    "stage 2 above M": ("Table 5 only", "MS", "M", ("miou",)),
}
# The rows in which what labels alone have learned is read as class activation maps.
AS_CAM = {"S": "S_cam", "SS": "SS_cam"}


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
    for claim, (where, one, other, keys) in CLAIMS.items():
        theirs = {key: PUBLISHED[one][key] - PUBLISHED[other][key] for key in keys}
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
