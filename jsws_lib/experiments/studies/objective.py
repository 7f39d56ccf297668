"""What L_c + L_s1 wants: its value at solutions made by hand, without any training.

    python -m jsws_lib.experiments.studies.objective

| solution   | H                                               | v             |
|------------|-------------------------------------------------|---------------|
| truth      | each object its category, the rest background   | 1             |
| fill       | the labels share the image, no background       | area, for all |
| swap       | the labels share the background, a decoy, which | 0; 1 for the  |
|            | is no label, takes the objects                  | decoy         |
| empty      | background everywhere                           | 1             |
| everything | as `fill`                                       | 1             |

A training that lowers the loss can only be expected to find the truth where the truth is
the cheapest of these.
"""

import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from data_utils.pictures import read_class_mask
from data_utils.voc import NUM_CLASSES, VOID, read_ids
from jsws_lib.config import ROOT, Profile, get_profile
from jsws_lib.engine.devices import versions
from jsws_lib.experiments.ablation import store
from jsws_lib.experiments.results import markdown
from jsws_lib.losses import SALIENCY, class_loss, saliency_loss
from jsws_lib.ssnet import SSNetOutput

MARGIN = 10.0  # logit of what wins a pixel; what is present and loses it has 0
SOFT = 5.0  # the same of solutions that are less sure
SOLUTIONS = ("truth", "fill", "swap", "empty", "everything")
# Readings of Eq. 2 by name: key of `EVIDENCE` and share of the positions.
CLASS_READINGS = {
    "mean_probs": ("mean_probs", 1.0),
    "logits, all positions": ("logits", 1.0),
    "logits, higher half": ("logits", 0.5),
    "odds": ("odds", 1.0),
}
COLUMNS = ("class_reading", "saliency_reading", "solution")
COLUMNS += ("class_loss", "saliency_loss", "total")
AREAS = (0.02, *(round(0.05 * k, 2) for k in range(1, 20)))
# The literal reading with one label whose object takes the area a, as MARGIN grows.
CLOSED_FORMS = {
    "truth": ("-log a", lambda a: -math.log(a)),
    "fill": (
        "-a log a - (1 - a) log(1 - a)",
        lambda a: -a * math.log(a) - (1 - a) * math.log(1 - a),
    ),
    "swap": ("-2 log(1 - a)", lambda a: -2 * math.log(1 - a)),
}


def made_by_hand(solution: str, mask: Tensor, margin: float = MARGIN) -> SSNetOutput:
    """SSNet's output for one image, under one of `SOLUTIONS`.

    Args:
        solution: its name.
        mask: (H, W) uint8, 0 background, 1 to C categories; all that it shows is salient.
        margin: how sure it is. What takes part has logits 0 and `margin`, at the image's
            size already, every other category -`margin`.
    """
    mask, objects = mask.long(), mask > 0
    labels = mask[objects].unique()
    logits = torch.full((NUM_CLASSES + 1, *mask.shape), -margin)
    logits[0], logits[labels] = 0, 0
    sal_logits = torch.full((NUM_CLASSES,), margin)
    if solution == "truth":
        logits.scatter_(0, mask[None], margin)
    elif solution == "empty":
        logits[0] = margin
    elif solution == "swap":
        decoy = next(k for k in range(1, NUM_CLASSES + 1) if k not in labels)
        logits[labels] = torch.where(objects, 0.0, margin)
        logits[decoy] = torch.where(objects, margin, 0.0)
        sal_logits[labels - 1] = -margin
    else:
        logits[labels] = margin
    if solution == "fill":
        sal_logits[:] = objects.float().mean().clamp(1e-6, 1 - 1e-6).logit()
    return SSNetOutput(logits.log_softmax(0)[None], logits[None], sal_logits[None])


def costs(masks: Iterable[Tensor], margin: float = MARGIN) -> list[dict]:
    """L_c and L_s1, unweighted, of each reading and solution, mean over the masks.

    Args:
        masks: (H, W) uint8 each, 0 background, 1 to C categories, at least one of them.
        margin: of the solutions.

    Returns:
        rows of `class_reading`, `saliency_reading`, `solution`, `class_loss`,
        `saliency_loss` and `total`.
    """
    losses = {}  # by reading and solution, a number for each mask
    for mask in masks:
        labels = torch.zeros(1, NUM_CLASSES)
        labels[0, mask[mask > 0].long() - 1] = 1
        salient = mask.clamp(max=1)[None]
        for solution in SOLUTIONS:
            out = made_by_hand(solution, mask, margin)
            for name, (reading, share) in CLASS_READINGS.items():
                loss = class_loss(out, labels, reading=reading, share=share)
                losses.setdefault((name, solution), []).append(loss.item())
            for name in SALIENCY:
                loss = saliency_loss(out, salient, reading=name)
                losses.setdefault((name, solution), []).append(loss.item())
    mean, rows = {key: float(np.mean(values)) for key, values in losses.items()}, []
    for keys in product(CLASS_READINGS, SALIENCY, SOLUTIONS):
        two = [mean[reading, keys[2]] for reading in keys[:2]]
        figures = (round(value, 4) for value in (*two, sum(two)))
        rows.append(dict(zip(COLUMNS, (*keys, *figures), strict=True)))
    return rows


def one_object(area: float, side: int = 100) -> Tensor:
    """A mask whose first category takes `area` of the image, (side, side) uint8."""
    mask = torch.zeros(side * side, dtype=torch.uint8)
    mask[: round(area * side * side)] = 1
    return mask.view(side, side)


def validation_masks(profile: Profile) -> list[Tensor]:
    """The pixels of each mask of VOC val that are not void, (1, n) uint8.

    No loss looks at how pixels lie, so a row of them will do.

    Raises:
        JswsError: data are missing or broken.
    """
    voc = profile.data / profile.voc
    ids = read_ids(voc / f"ImageSets/Segmentation/{profile.val_list}.txt")
    paths = (voc / f"SegmentationClass/{name}.png" for name in ids)
    masks = (np.array(read_class_mask(path)) for path in paths)
    return [torch.from_numpy(mask[mask != VOID])[None] for mask in masks]


def measure_objective(profile: Profile) -> dict:
    """The table over the validation masks, and the curves over one object's area."""
    masks = validation_masks(profile)
    by_area = zip(*(costs([one_object(area)]) for area in AREAS), strict=True)
    return {
        "words": "L_c and L_s1, unweighted, at solutions made by hand; all that a mask "
        f"shows is salient. Mean over {len(masks)} validation masks of profile "
        f"{profile.name} (python -m jsws_lib.experiments.studies.objective).",
        "versions": versions(),
        "margin": MARGIN,
        "n": len(masks),
        "rows": costs(masks),
        "soft_margin": SOFT,
        "soft_rows": costs(masks, SOFT),
        "areas": list(AREAS),
        "curves": [
            {name: rows[0][name] for name in COLUMNS[:3]}
            | {"total": [row["total"] for row in rows]}
            for rows in by_area
        ],
    }


def objective_table(
    result: dict, saliency_reading: str = "bce", *, rows: str = "rows"
) -> str:
    """L_c + L_s1 by reading of Eq. 2 and solution, as Markdown; the cheapest is bold.

    Args:
        result: what `measure_objective` returned.
        saliency_reading: reading of Eq. 3, key of `SALIENCY`.
        rows: key of the rows; `"soft_rows"` are of solutions that are less sure.
    """
    total = {
        (row["class_reading"], row["solution"]): row["total"]
        for row in result[rows]
        if row["saliency_reading"] == saliency_reading
    }
    table = []
    for name in CLASS_READINGS:
        values = [total[name, solution] for solution in SOLUTIONS]
        cells = (f"**{x:.2f}**" if x == min(values) else f"{x:.2f}" for x in values)
        table.append([name, *cells])
    return markdown(("Eq. 2 read as", *SOLUTIONS), table, "l" + "r" * len(SOLUTIONS))


def objective_chart(result: dict) -> Figure:
    """L_c + L_s1 over the area of one object; by reading of Eq. 2, Eq. 3 literal."""
    fig, axes = plt.subplots(
        1, len(CLASS_READINGS), figsize=(11, 3.2), layout="constrained", sharey=True
    )
    panels = dict(zip(CLASS_READINGS, axes, strict=True))
    colours = {"truth": "#2a6fbb", "fill": "#e07b39", "swap": "#b03a6f"}
    for curve in result["curves"]:
        name, ax = curve["solution"], panels[curve["class_reading"]]
        if curve["saliency_reading"] == "bce" and name in colours:
            ax.plot(result["areas"], curve["total"], color=colours[name])
    for name, colour in colours.items():
        words, form = CLOSED_FORMS[name]
        label, values = f"{name}: {words}", [form(a) for a in result["areas"]]
        axes[0].plot(result["areas"], values, ".", color=colour, label=label)
        axes[-1].plot([], color=colour, label=name)
    for name, ax in panels.items():
        ax.set(title=f"Eq. 2: {name}", xlabel="area a of the object", ylim=(-0.1, 8.4))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("$L_c + L_{s1}$, Eq. 3 literal")
    for ax in (axes[0], axes[-1]):
        ax.legend(frameon=False, loc="upper right", fontsize=8)
    return fig


def main(profile: Profile | None = None, out: Path = ROOT) -> dict:
    """Write `results/objective.json` and `docs/objective.png` under `out`."""
    result = measure_objective(profile or get_profile("mini"))
    store(result, out / "results" / "objective.json")
    (out / "docs").mkdir(exist_ok=True)
    objective_chart(result).savefig(out / "docs" / "objective.png", dpi=110)
    return result


if __name__ == "__main__":
    print(objective_table(main()))
