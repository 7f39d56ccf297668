"""Work on several cores: jobs in, results out in order, never many in flight.

Also which of several launched processes this is; what they do: `engine/devices.py`.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from data_utils.errors import JswsError

FEW = 256  # jobs; for less of them starting processes takes longer than the work


def available_cores() -> int:
    """Return how many cores this process may use, 8 at most."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)


def process_share() -> tuple[int, int]:
    """This process's rank, and how many were launched together: (0, 1) for one alone."""
    given = os.environ.get("RANK") or "0", os.environ.get("WORLD_SIZE") or "1"
    if all(map(str.isdecimal, given)) and int(given[0]) < int(given[1]):
        return int(given[0]), int(given[1])
    raise JswsError(
        f"RANK is {given[0]!r} and WORLD_SIZE {given[1]!r} in the environment: whole "
        "numbers, the first below the second, are set by accelerate or torchrun; unset both"
    )


def is_main() -> bool:
    """Whether this process writes and speaks."""
    return process_share()[0] == 0


def wait_for_everyone():
    """Hold until every launched process is here."""
    if process_share()[1] > 1:
        from accelerate.state import PartialState  # PyTorch takes seconds to import

        PartialState().wait_for_everyone()


def gather(things: list) -> list:
    """The lists of all launched processes as one, in order of rank."""
    if process_share()[1] == 1:
        return things
    from accelerate.utils import gather_object

    return gather_object(things)


def leave_with_parent():
    """End this worker when its parent is killed: it would go on, or wait for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def in_parallel(work: Callable, jobs: Iterable, *, workers: int | None = None) -> Iterator:
    """Yield `work(job)` for each job, in order.

    Jobs are drawn from their iterable only as they are needed, so a producer that is
    faster than the workers fills no memory.

    Args:
        work: a picklable function of one argument.
        jobs: picklable arguments.
        workers: processes, 0 or 1 for none; default one per core, none for few jobs.

    Raises:
        JswsError: a worker was stopped: the memory was full, or the calling script starts
            itself anew in each, its work not being behind `if __name__ == "__main__":`.
    """
    if workers is None:
        few = isinstance(jobs, Sequence) and len(jobs) < FEW
        workers = 0 if few else available_cores()
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: a fork of a process that runs threads (torch, Jupyter) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=leave_with_parent)
    try:
        pending: deque = deque()
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) >= 4 * workers:
                yield _first(pending)
        while pending:
            yield _first(pending)
    except BrokenProcessPool:
        raise JswsError(
            "a worker process was stopped: use fewer cores if the memory was full, "
            'and put a script of yours behind if __name__ == "__main__":'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _first(pending: deque):
    """The result of the oldest job, unless another fails before."""
    while not pending[0].done():
        wait([pending[0]], timeout=1)
        for job in pending:
            if job.done():
                job.result()  # raises what it raised
    return pending.popleft().result()
