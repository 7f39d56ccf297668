"""What surrounds the steps of a real training: devices, precision, resume points, logs.

`training.train` is the method; the `RunLoop` that it is given does the rest, so that
nothing of it stands between the lines of Section 4.1.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.parallel import is_main
from jsws_lib.config import Profile
from jsws_lib.engine.devices import make_accelerator, recompute_stages, share_batch_norm
from jsws_lib.engine.look import COLUMNS, LiveFigure, look
from jsws_lib.engine.resume import Log, load_point, save_point
from jsws_lib.ssnet import SSNet
from jsws_lib.training import Loop, Objective, to_device

SAVE_EVERY, SAVE_AFTER = 250, 300  # steps and seconds from one resume point to the next


class RunLoop(Loop):
    """A training in one process or in each of several, that can be taken up again.

    Args:
        folder: of the run, see `resume.py`: gets `log.csv`, and a resume point every
            `SAVE_EVERY` steps and `SAVE_AFTER` seconds, from which training goes on.
        tag: names the run; a resume point of another is refused.
        tracker: a logger that Accelerate knows, such as "tensorboard"; writes to `folder`.
        on_step: called after each step with step, network and the step's record.

    Besides what `train` raises, JswsError: the memory or the disk is full, or a resume
    point does not fit. The images of a loss that is not finite are listed in `folder`.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        tag: str = "",
        tracker: str | None = None,
        on_step: Callable[[int, SSNet, dict], None] | None = None,
    ):
        super().__init__(on_step=on_step)
        self.folder, self.tag, self.tracker = folder, tag, tracker
        self.log = None

    def place(self, net: SSNet, profile: Profile, losses: tuple[str, ...]):
        """Bring the network to its device, its batch norms to all processes."""
        self.profile, self.losses = profile, losses
        self.parts, self.every = profile.accumulate, profile.validate_every
        self.looks, self.figure = [], LiveFigure()
        self.accelerator = make_accelerator(
            profile.precision,
            tracker=self.tracker,
            folder=self.folder,
            unused="L_s1" not in losses,
        )
        recompute_stages(net, profile.checkpointing)
        net.to(self.accelerator.device, memory_format=torch.channels_last).train()
        if self.accelerator.num_processes > 1:
            share_batch_norm(net)

    def prepare(self, objective: Objective, optimizer: torch.optim.Optimizer):
        """Wrap both for the processes; take up the last resume point if there is one."""
        net = objective.net
        objective, optimizer = self.accelerator.prepare(objective, optimizer)
        self.work = torch.compile(objective) if self.profile.compile else objective
        self.state = {"net": net, "optimizer": optimizer}
        if self.accelerator.scaler:
            self.state["scaler"] = self.accelerator.scaler
        if self.folder:
            self.history = load_point(self.folder / "resume", self.tag, **self.state)
        return objective, optimizer

    @contextmanager
    def running(self, steps: int, title: str) -> Iterator[tqdm]:
        """The numbers of the steps to do; logs and trackers are open meanwhile."""
        if self.done and is_main():
            tqdm.write(f"going on from step {self.done} of {steps}")
        if self.folder and is_main():
            names = ["step", "lr", *self.losses, *(COLUMNS if self.every else ())]
            self.log = Log(self.folder / "log.csv", names, self.history)
        if self.tracker:
            self.accelerator.init_trackers("tracker")
        self.last_step, self.saved, self.title = steps - 1, time.monotonic(), title
        try:
            with super().running(steps, title) as numbers:
                yield numbers
        finally:
            if self.log:
                self.log.close()
            if self.tracker:
                self.accelerator.end_training()

    def backward(self, objective, batch: dict, *, last: bool = True) -> dict[str, float]:
        """The losses on a batch, the mean over its pieces and the processes.

        The pieces of a batch go through the network one by one; the processes exchange
        gradients with the last piece of a step.
        """
        values: dict[str, torch.Tensor] = {}
        pieces = split(batch, self.parts)
        for k, piece in enumerate(pieces):
            together = last and k + 1 == len(pieces)
            with nullcontext() if together else self.accelerator.no_sync(objective):
                found = self._one_backward(piece)
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / self.parts
        mean = self.accelerator.reduce(torch.stack(list(values.values())), "mean")
        return dict(zip(values, mean.tolist(), strict=True))

    def _one_backward(self, piece: dict) -> dict[str, torch.Tensor]:
        try:
            found = self.work(to_device(piece, self.accelerator.device))
            self.accelerator.backward(sum(found.values()) / self.parts)
            return found
        except Exception as error:  # a compiler may raise any kind
            if isinstance(error, MemoryError) or should_reduce_batch_size(error):
                raise JswsError(
                    f"out of memory on {self.accelerator.device} with "
                    f"{len(piece['image'])} images at a time: ask for --set accumulate="
                    f"{2 * self.parts}, the same batch in smaller parts, or for --set "
                    "checkpointing=true"
                ) from None
            if not self.profile.compile or self.done or isinstance(error, JswsError):
                raise
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            raise JswsError(
                f"torch.compile does not work here ({words}): leave --set compile=true out"
            ) from error

    def stop(self, step: int, values: dict, sets: list[Dataset], batch: list[dict]):
        """Raise JswsError, the images of the step listed in `not_finite.json`."""
        try:
            super().stop(step, values, sets, batch)
        except JswsError as error:
            if not self.folder:
                raise
            images = {
                type(data).__name__: [data.ids[k] for k in one["index"].tolist()]
                for data, one in zip(sets, batch, strict=True)
            }
            losses = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
            note = {"step": step, "losses": losses, "images": images}
            text = json.dumps(note, indent=1) + "\n"
            file = write_bytes(self.folder / "not_finite.json", text.encode())
            raise JswsError(f"{error}, or look at the images listed in {file}") from None

    def after_step(self, net: SSNet, record: dict[str, float]):
        """Log a step; validate, and write a resume point, where it is due."""
        step, found = record["step"], {}
        if self.every and (step + 1) % self.every == 0:
            found = look(net, self.profile, self.losses)
            words = ", ".join(f"{COLUMNS[key]} {value:.3f}" for key, value in found.items())
            self.bar.set_description(f"{self.title}; step {step + 1}: {words}")
        if self.log:
            self.log.add(record | found)
        shown = {name: value for name, value in record.items() if name != "step"}
        self.accelerator.log(shown | found, step=step)
        super().after_step(net, record)
        if found and is_main():
            self.looks.append({"step": step, **found})
            self.figure.update(self.history, self.looks)
        late = time.monotonic() - self.saved > SAVE_AFTER
        due = (step + 1) % SAVE_EVERY == 0 or late
        if self.log and due and step < self.last_step:
            save_point(self.folder / "resume", self.tag, self.history, **self.state)
            self.saved = time.monotonic()


def split(batch: dict, parts: int) -> list[dict]:
    """A batch as `parts` smaller ones.

    Raises:
        JswsError: it cannot be split into equal parts.
    """
    count = len(batch["image"])
    if count % parts:
        raise JswsError(
            f"{count} images of a process's batch cannot be split into {parts} equal "
            "parts; choose another accumulate"
        )
    cut = {key: value.split(count // parts) for key, value in batch.items()}
    pieces = zip(*cut.values(), strict=True)
    return [dict(zip(cut, piece, strict=True)) for piece in pieces]
