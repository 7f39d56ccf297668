"""From the trained M: the literal loss leaves the right solution, `steady` stays."""

import json
from dataclasses import replace

import pytest

from data_utils.embedded.mini import make_mini
from jsws_lib.config import PROFILES
from jsws_lib.experiments.studies import stays


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The mini profile on 64 + 64 training images and 32 + 4 others of its own size."""
    counts = dict(n_class=64, n_saliency=64, n_val=32, n_test=4)
    folder = tmp_path_factory.mktemp("embedded") / "data"
    data = make_mini(folder, **counts)
    return replace(PROFILES["mini"], data=data, batch_class=8, batch_saliency=8)


@pytest.mark.slow
def test_the_literal_loss_leaves_what_is_right(scenes):
    lost = {}
    for reading in ("literal", "steady"):
        first, last = stays.follow(reading, 0, scenes, steps=30, every=30)
        assert (first["step"], last["step"]) == (0, 30)
        lost[reading] = first["iou_background"] - last["iou_background"]
    assert lost["literal"] > lost["steady"] + 0.01, lost


def test_the_stored_rows_say_so(root):
    rows = json.loads((root / "results/stays.json").read_text())["rows"]
    miou = {(row["reading"], row["seed"], row["step"]): row["miou"] for row in rows}
    assert {key[:2] for key in miou} == {(r, k) for r in stays.READINGS for k in range(3)}
    for name, low, high in (("literal", 0.0, 0.6), ("steady", 0.97, 1.03)):
        for seed in range(3):
            assert low < miou[name, seed, 300] / miou[name, seed, 0] < high
