"""Nothing lost: what a training writes while it runs, so that it can be taken up again.

    runs/<run>/log.csv                                a line per step
    runs/<run>/resume/<step>_<loss>_<digest>.pt       network, optimizer, random states, ...

A resume point appears whole or not at all, and its name holds the start of its SHA-256: a
damaged one is passed over for the one before it.
"""

import csv
import hashlib
import io
import math
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import write_bytes

KEEP = 2  # resume points besides the best


class Log:
    """`log.csv`: one line per step, each written at once.

    Args:
        file: it is cut back to `history` first.
        history: records of the steps already done.
        more: columns that only some steps fill; what the file has of them stays.
    """

    def __init__(self, file: Path, history: list[dict], *, more: Sequence[str] = ()):
        self.more, text, seen = tuple(more), io.StringIO(), {}
        if more and history and file.is_file():
            with suppress(JswsError):  # it is written anew
                seen = {record["step"]: record for record in read_log(file)}
        for record in history:
            own = seen.get(record["step"], {})
            self._line(text, {k: own[k] for k in more if k in own} | record)
        write_bytes(file, text.getvalue().encode())
        self.file = file.open("a", newline="")

    def add(self, record: dict):
        """Write a step's record."""
        self._line(self.file, record)
        self.file.flush()

    def _line(self, file, record: dict):
        names = [name for name in record if name not in self.more]
        writer = csv.DictWriter(file, [*names, *self.more])
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(record)

    def close(self):
        """Close the file."""
        self.file.close()


def read_log(file: Path | str) -> list[dict[str, float]]:
    """The records of a `log.csv`, as `train` returns them; a line cut short is left out.

    A step that was validated has its figures as well, see `look.COLUMNS`.

    Raises:
        JswsError: no such file, or another kind of file.
    """
    file = Path(file)
    if not file.is_file():
        raise JswsError(f"no log at {file}; training writes one into its run folder")
    with file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if None not in row.values()]
    try:
        return [
            {k: int(v) if k == "step" else float(v) for k, v in row.items() if v != ""}
            for row in rows
        ]
    except (TypeError, ValueError):
        raise JswsError(f"{file} is not a log of a training") from None


def save_point(folder: Path, tag: str, history: list[dict], **parts):
    """Write a resume point; keep it, the one before it, and the best.

    The best is the one with the lowest loss over the steps since the point before it: no
    validation image is looked at.

    Args:
        folder: the run's `resume` folder; `tag` names the run.
        history: records of all steps so far.
        parts: anything with `state_dict()`, under a name each.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"tag": tag, "history": history, "random": _random_states()}
    file = io.BytesIO()
    torch.save(state, file)
    data, points = file.getvalue(), _points(folder)
    since = int(points[-1].stem.split("_")[0]) if points else 0
    losses = [
        sum(v for k, v in record.items() if k not in ("step", "lr"))
        for record in history[since:]
    ]
    name = f"{len(history):08}_{np.mean(losses):.4f}_{_digest(data)}.pt"
    write_bytes(folder / name, data)
    points = _points(folder)
    best = min(points, key=lambda point: float(point.stem.split("_")[1]))
    for old in points[:-KEEP]:
        if old != best:
            old.unlink()


def load_point(folder: Path, tag: str, **parts) -> list[dict]:
    """Take up the last whole resume point and return its history; [] if there is none.

    The states of the parts are loaded. Damaged points are deleted, and said to be.

    Raises:
        JswsError: the point is of another run, or does not fit the network.
    """
    for leftover in folder.glob(".*.tmp"):  # of a write that was killed
        leftover.unlink()
    for point in reversed(_points(folder)):
        data = point.read_bytes()
        if _digest(data) != point.stem.split("_")[2]:
            tqdm.write(f"{point} is damaged; going on from the one before it")
            point.unlink()
            continue
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            owner, history, states = state["tag"], state["history"], state["random"]
            for step, record in enumerate(history):
                if record["step"] != step or not all(map(math.isfinite, record.values())):
                    raise ValueError
        except Exception:  # whatever the bytes provoke
            raise JswsError(
                f"{point} is no resume point of ours; delete {folder} to start anew"
            ) from None
        if owner != tag:
            raise JswsError(
                f"{point} belongs to {owner}, not to {tag}; delete {folder} to start anew"
            )
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            _set_random_states(states)
        except Exception as error:  # whatever the states provoke
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            raise JswsError(
                f"{point} does not fit this network ({words}); delete {folder} to start "
                "anew"
            ) from None
        return history
    return []


def _points(folder: Path) -> list[Path]:
    own = re.compile(r"\d{8,}_(nan|-?\d+\.\d{4})_[0-9a-f]{8}\.pt")
    return sorted(path for path in folder.glob("*.pt") if own.fullmatch(path.name))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _random_states() -> dict:
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def _set_random_states(states: dict):
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
