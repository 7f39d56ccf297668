"""Nothing lost: what a training writes while it runs, so that it can be taken up again.

    runs/<run>/log.csv                                a line per step
    runs/<run>/resume/<step>_<digest>.pt              network, optimizer, random states, ...

A resume point appears whole or not at all, and its name holds the start of its SHA-256: a
damaged one is passed over for the one before it.
"""

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import write_bytes

KEEP = 2  # resume points


class Log:
    """`log.csv`: one line per step, each written at once.

    Args:
        file: it is cut back to `history` first.
        names: of the columns, which not every step has to fill.
        history: records of the steps already done; what the file has besides stays.
    """

    def __init__(self, file: Path, names: Sequence[str], history: list[dict]):
        text, seen = io.StringIO(), {}
        if file.is_file():
            with suppress(JswsError, KeyError):  # it is written anew
                seen = {record["step"]: record for record in read_log(file)}
        before = csv.DictWriter(text, names, extrasaction="ignore")
        before.writeheader()
        before.writerows(seen.get(record["step"], {}) | record for record in history)
        write_bytes(file, text.getvalue().encode())
        self.file = file.open("a", newline="")
        self.writer = csv.DictWriter(self.file, names)

    def add(self, record: dict):
        """Write a step's record."""
        self.writer.writerow(record)
        self.file.flush()

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
    """Write a resume point; keep it and the one before it.

    Args:
        folder: the run's `resume` folder; `tag` names the run.
        history: records of all steps so far.
        parts: anything with `state_dict()`, under a name each.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    chance = {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    state |= {"tag": tag, "history": history, "random": chance}
    file = io.BytesIO()
    torch.save(state, file)
    data = file.getvalue()
    write_bytes(folder / f"{len(history):08}_{_digest(data)}.pt", data)
    for old in _points(folder)[:-KEEP]:
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
        if _digest(data) != point.stem.split("_")[-1]:
            tqdm.write(f"{point} is damaged; going on from the one before it")
            point.unlink()
            continue
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if state["tag"] != tag:
                raise ValueError(f"it belongs to {state['tag']}, not to {tag}")
            for name, part in parts.items():
                part.load_state_dict(state[name])
            torch.set_rng_state(state["random"]["torch"])
            if len(state["random"]["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random"]["cuda"])
        except Exception as error:  # whatever the states provoke
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            raise JswsError(
                f"{point} does not fit this run ({words}); delete {folder} to start anew"
            ) from None
        return state["history"]
    return []


def _points(folder: Path) -> list[Path]:
    own = re.compile(r"\d{8,}_(.*_)?[0-9a-f]{8}\.pt")
    return sorted(path for path in folder.glob("*.pt") if own.fullmatch(path.name))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
