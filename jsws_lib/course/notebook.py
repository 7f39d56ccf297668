"""What every notebook calls: `start`, `show` for a figure, `report` for a number.

Until `start` has looked what is missing, this imports only what a bare kernel has.
"""

import io
import os
import platform
import sys
from importlib.metadata import version

from IPython import get_ipython
from IPython.display import display

from jsws_lib.config import ROOT, Profile, Recipe, get_profile, get_recipe
from jsws_lib.course.bootstrap import prepare
from jsws_lib.course.measured import report

__all__ = ["report", "show", "start"]


def start(*, seed: int = 0) -> tuple[Profile, Recipe]:
    """Open a notebook: prepare, seed, draw missing data, say what runs where.

    Returns:
        the profile that `$JSWS_PROFILE` names (default `mini`) and the default recipe.

    Raises:
        JswsError: see `prepare`; or there is no such profile, or another than `mini` has
            no data.
    """
    sys.path[:] = [str(ROOT), *(p for p in sys.path if p not in ("..", "../.."))]
    prepare()
    import torch

    from data_utils.embedded.mini import make_mini
    from data_utils.voc import read_ids
    from jsws_lib.engine.devices import pick_device
    from jsws_lib.training import seed_everything

    if shell := get_ipython():
        shell.run_line_magic("matplotlib", "inline")
    profile, recipe = get_profile(), get_recipe()
    seed_everything(seed)
    if profile.name == "mini":
        make_mini(profile.data)
    else:
        lists = profile.data / profile.voc / "ImageSets" / "Segmentation"
        read_ids(lists / f"{profile.train_list}.txt")
    device = pick_device()
    card = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"Python {platform.python_version()}, torch {version('torch')} on {card}")
    print(f"ready: profile {profile.name}, recipe {recipe.name}, seed {seed}")
    if os.environ.get("JSWS_TRAIN") == "1":
        print("JSWS_TRAIN=1: what is not in runs/ yet is trained here")
    return profile, recipe


def show(alt: str, stored: dict | None = None) -> None:
    """Show the current Matplotlib figure, described for who cannot see it.

    Args:
        alt: what the figure shows, in a sentence.
        stored: by MIME type, what else to store with it and not to show.
    """
    import matplotlib.pyplot as plt

    fig, file = plt.gcf(), io.BytesIO()
    fig.savefig(file, format="png", bbox_inches="tight", dpi=fig.dpi)
    plt.close(fig)
    picture = {"image/png": file.getvalue(), "text/plain": alt}
    picture |= stored or {}
    display(picture, raw=True, metadata={"image/png": {"alt": alt}})
