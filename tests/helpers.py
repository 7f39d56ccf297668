"""What tests of several files use."""

from contextlib import contextmanager

import pytest
import torch

from data_utils.errors import JswsError
from jsws_lib.config import STEADY
from jsws_lib.engine.checkpoints import describe, recipe_fields, save_weights
from jsws_lib.engine.loop import RunLoop
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import seed_everything, train


def network(stage=1, recipe=STEADY, seed=0, **more):
    seed_everything(seed)
    return build_ssnet(stage, backbone="densenet_mini", size=64, recipe=recipe, **more)


def stored(path, net, **more):
    """A network as a checkpoint, with the story that `jsws train` writes."""
    story = {"setting": "M" if net.stage == 1 else "MM", "backbone": "densenet_mini"}
    story |= {"recipe": recipe_fields(STEADY), "profile": "mini", "run": "none"}
    story |= {"seed": 0, "history": [], **more}
    return save_weights(path, net, describe(net, **story))


def learn(net, profile, losses=("L_c", "L_s1"), **more):
    """Train a network in a `RunLoop`, by default one without a folder."""
    return train(net, losses, profile=profile, recipe=STEADY, **{"loop": RunLoop()} | more)


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def points(run):
    return sorted((run / "resume").glob("*.pt"))


@contextmanager
def opened(chromium, own, **options):
    """A tab of a browser; afterwards nothing must have failed or come from elsewhere."""
    tab, requests, errors = chromium.new_page(**options), [], []
    tab.set_default_timeout(120_000)  # of a busy machine
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    tab.close()
    own = (own, "data:", "blob:")
    assert not errors and not [url for url in requests if not url.startswith(own)]


def refuses(words, call, *given, **options) -> str:
    """Call what has to be refused in one line that matches `words`; the line."""
    with pytest.raises(JswsError, match=words) as caught:
        call(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsws(*words):
    """A command in this process: `exit_code`, `stdout`, `exception`."""
    from typer.testing import CliRunner

    from jsws_lib.cli.main import app

    return CliRunner().invoke(app, [*map(str, words)])
