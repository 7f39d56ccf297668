"""What L_c + L_s1 wants: the table at solutions made by hand, against closed forms."""

import json
import math
import re

import matplotlib.pyplot as plt
import pytest
import torch

from jsws_lib.experiments.studies import objective


def totals(masks):
    """Total by readings of Eq. 2 and 3 and solution."""
    return {
        (row["class_reading"], row["saliency_reading"], row["solution"]): row["total"]
        for row in objective.costs(masks)
    }


@pytest.mark.parametrize("area", [0.1, 0.25, 0.6])
def test_the_literal_loss_follows_its_closed_forms(area):
    found = totals([objective.one_object(area, side=20)])
    for name, (_, form) in objective.CLOSED_FORMS.items():
        assert found["mean_probs", "bce", name] == pytest.approx(form(area), abs=5e-3)


def test_the_right_answer_is_no_minimum_of_the_literal_loss_on_a_small_object():
    small, large = (totals([objective.one_object(area, side=20)]) for area in (0.2, 0.6))
    for found, cheapest in ((small, "swap"), (large, "truth")):
        literal = {name: found["mean_probs", "bce", name] for name in objective.SOLUTIONS}
        assert min(literal, key=literal.get) == cheapest
    for reading in ("logits, higher half", "odds"):
        for eq3 in ("bce", "background", "nll_probs"):
            cost = {name: small[reading, eq3, name] for name in objective.SOLUTIONS}
            assert min(cost, key=cost.get) == "truth"


def test_a_two_label_image_exactly():
    """Two objects of a quarter each: -log t-hat is log 4 for each label, 1 - t-hat 3/4."""
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:2], mask[2:4] = 3, 7
    truth = totals([mask])["mean_probs", "bce", "truth"]
    assert truth == pytest.approx(2 * math.log(4), abs=5e-3)
    swap = totals([mask])["mean_probs", "bce", "swap"]  # a quarter each, half the decoy
    assert swap == pytest.approx(2 * math.log(4) + math.log(2), abs=5e-3)


def test_the_command_writes_table_curves_and_figure(tiny, tmp_path, root):
    objective.main(tiny, tmp_path)
    plt.close("all")
    small = json.loads((tmp_path / "results/objective.json").read_text())
    stored = json.loads((root / "results/objective.json").read_text())
    assert (small["n"], stored["n"]) == (8, 400)
    for key in ("curves", "areas", "margin", "soft_margin"):
        assert small[key] == stored[key]
    table = objective.objective_table(stored)
    assert "| mean_probs | 3.02 | **0.93** |" in re.sub(" +", " ", table)
    soft = objective.objective_table(stored, rows="soft_rows")
    assert "| logits, all positions | 0.73 | **0.56** |" in re.sub(" +", " ", soft)
    assert (tmp_path / "docs/objective.png").is_file()
