"""Trials of the SAM: what they change is what they say."""

import json

import pytest
import torch
from helpers import network

from jsws_lib.experiments.studies import sam_trials
from jsws_lib.experiments.studies.sam_trials import StandardisedSAM, top_probs
from jsws_lib.losses import mean_probs


def test_a_trial_switches_on_the_way_and_its_row_holds_what_v_adds(tiny, monkeypatch):
    shares = []

    def counted(out, share):
        shares.append(share)
        return top_probs(out, share)

    monkeypatch.setattr(sam_trials, "top_probs", counted)
    monkeypatch.setitem(sam_trials.CHANGES, "late_from", 1)
    (row,) = sam_trials.run_trial(sam_trials.STUDENT, 0, tiny)
    assert row["steps"] == 4 and shares == 3 * [0.05]
    names = {"miou", "iou_background", "max_f", "max_f_no_sam", "max_f_best_v"}
    for found in (row, row["student"]):
        gap = found["v_salient"] - found["v_beside"]
        assert found["v_gap"] == pytest.approx(gap, abs=2e-5)
        assert names <= found.keys() and all(0 <= found[name] <= 1 for name in names)
    assert row["student"]["max_f"] != row["max_f"]


def test_a_standardised_sam_is_a_plain_one_with_another_kernel():
    """In evaluation mode the norm is folded into kernel and bias."""
    net = network().eval()
    sam = StandardisedSAM(net.sam).eval()
    sam.norm.running_mean.uniform_(0, 1)
    sam.norm.running_var.uniform_(0.5, 2)
    scale = (sam.norm.running_var + sam.norm.eps).rsqrt()
    with torch.no_grad():
        net.sam.conv.weight.copy_(sam.conv.weight * scale[:, None, None])
        shift = (net.sam.conv.weight * sam.norm.running_mean[:, None, None]).sum((1, 2, 3))
        net.sam.conv.bias.copy_(sam.conv.bias - shift)
        feats = torch.rand(2, net.sam.conv.in_channels, 8, 8)
        torch.testing.assert_close(net.sam(feats), sam(feats), atol=1e-4, rtol=1e-4)


def test_the_best_positions_alone_are_the_paper_s_mean_at_share_one():
    """At the features' size; and an object of the share's size costs nothing."""
    out = network()(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    small = out._replace(log_probs=out.seg_logits_low.log_softmax(1))
    for mine, theirs in zip(top_probs(out, 1.0), mean_probs(small), strict=True):
        torch.testing.assert_close(mine, theirs)
    logits = torch.full((1, 21, 4, 4), -20.0)
    logits[:, 0], logits[:, 3, 0, 0] = 0, 20
    found = top_probs(out._replace(seg_logits_low=logits), 1 / 16)
    assert found.yes[0, 2] > -1e-6 and found.no[0, [0, 1, 3]].min() > -1e-6
    assert found.yes[0, 0] < -19 and found.no[0, 2] < -19


def test_each_trial_of_this_file_is_stored_as_it_stands_there():
    """Rows are not run again, so a trial that is changed needs another name."""
    rows = json.loads(sam_trials.FILE.read_text())["rows"]
    stored = {(r["trial"], r["seed"]): (r["steps"], r["changes"]) for r in rows}
    for trial in sam_trials.TRIALS:
        assert stored[trial] == (1200, sam_trials.CHANGES)
