"""train.py, the method on one page, gives what the command line gives."""

import importlib.util

import pytest
import torch

from jsws_lib.config import get_recipe
from jsws_lib.engine import runs
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.engine.runs import Run, train_or_load


@pytest.fixture
def page(root):
    """train.py as a module."""
    spec = importlib.util.spec_from_file_location("train_page", root / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_trains_what_the_command_line_trains(page, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "shipped", None)  # nothing that is shipped is taken
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "runs"))  # nor what lies in the copy
    seen = {}

    def evaluated(net, **how):
        seen[net.stage] = net
        return page_evaluate(net, **how)

    page_evaluate = page.evaluate
    monkeypatch.setattr(page, "evaluate", evaluated)
    found = page.main(tiny, get_recipe(), tmp_path / "out")
    assert [*found] == ["M", "MM"]
    assert all(0 <= one[key] <= 1 for one in found.values() for key in ("miou", "max_f"))
    assert len([*(tmp_path / "out/pseudo_labels").glob("*.png")]) == 24
    for setting in ("M", "MM"):
        run = train_or_load(Run(setting, tiny, get_recipe()), use_shipped=False)
        kept = load_ssnet(tmp_path / f"out/{setting}.safetensors")[0].state_dict()
        own = seen[run.net.stage].state_dict()
        for name, weight in run.net.state_dict().items():
            torch.testing.assert_close(own[name], weight, rtol=0, atol=0)
            torch.testing.assert_close(kept[name], weight, rtol=0, atol=0)
