"""Store trained networks in checkpoints/, with what was measured.

`python -m tools.ship S M MM` takes those that `make ablate` trained on drawings, with
`--photographs` those of `jsws_lib.experiments.studies.photographs`.
"""

import argparse

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.config import get_profile, get_recipe
from jsws_lib.engine import checkpoints
from jsws_lib.engine.film import load
from jsws_lib.engine.runs import Run
from jsws_lib.experiments.ablation import measured
from jsws_lib.experiments.studies import photographs

COMMANDS = {"mini": "jsws ablate --profile mini --seeds 3", "photos": photographs.COMMAND}
FIGURES = ("miou", "mae", "max_f", "mae_crf", "max_f_crf")


def ship(run: Run, kind: str):
    """Write a network, and its film if it has one, with what was measured.

    Args:
        run: its training.
        kind: a key of `COMMANDS`, the first word of the file's name.

    Raises:
        JswsError: the network was not trained and measured.
    """
    record = measured(run)
    if record is None:
        raise JswsError(f"{run.folder} was not trained and measured: {COMMANDS[kind]}")
    known = {"command": COMMANDS[kind], "threads": record["threads"]}
    figures = {name: record[name] for name in FIGURES if name in record}
    path = checkpoints.ship(run.weights, f"{kind}_{run.setting}", figures=figures, **known)
    if (run.folder / "film.npz").is_file():
        film = path.with_name(f"{path.stem}_film.npz")
        write_bytes(film, (run.folder / "film.npz").read_bytes())
        frames = {"frames": len(load(film).steps)}
        checkpoints.enter(film, seed=run.seed, figures=frames, **known)
    print(f"{path.name}: {figures}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="+", help="S, M, MM")
    parser.add_argument("--photographs", action="store_true")
    given = parser.parse_args()
    if given.photographs:
        profile = photographs.scale(photographs.DATA)
        for setting in given.settings:
            ship(Run(setting, profile, photographs.RECIPE), "photos")
    else:
        for setting in given.settings:
            ship(Run(setting, get_profile("mini"), get_recipe()), "mini")
