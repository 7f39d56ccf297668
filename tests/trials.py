"""Bad input into commands: each must end in one sentence that names it.

No traceback and no fault of ours, no hang, no answer, nothing half-written.
"""

import copy
import json
import os
import re
import shutil
import signal
import unicodedata
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="no alarm there"),
    pytest.mark.filterwarnings("ignore"),
]
PATIENCE = 30  # s that a command may take to refuse something


class Hang(BaseException):
    """A command took longer than `PATIENCE`."""


@contextmanager
def patience():
    """Raise Hang where a command does not end by itself."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def remove(path: Path):
    """Whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def swapped(path: Path, content):
    """Another content of a file, bytes or what a function puts there, for a while."""
    before = (path.read_bytes(), path.stat()) if path.is_file() else None
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        yield
    finally:
        remove(path)
        if before:
            path.write_bytes(before[0])
            os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))


@contextmanager
def full_disk():
    """No file may grow beyond 100 bytes."""
    import resource  # Windows has none

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ODD_FILES = {  # where a file is expected
    "folder": Path.mkdir,
    "pipe": lambda path: os.mkfifo(path),  # Windows has none
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "a circle": lambda path: path.symlink_to(path.name),
}
NO_JSON = {
    "empty": b"",
    "cut": b'{"a": [1, ',
    "no UTF-8": b'{"a": "\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "a list": b"[1, 2]",
    "a number": b"3",
    "a text": b'"a"',
    "null": b"null",
    "nothing in it": b"{}",
}


def spoilt(good: dict, **places) -> dict[str, bytes]:
    """JSON files that are wrong in one place, besides `NO_JSON`.

    Args:
        good: what is right.
        places: keys with `__` between them; the values that are wrong there.
    """
    found = dict(NO_JSON)
    for place, values in places.items():
        *way, last = place.split("__")
        for value in (*values, KeyError):
            made = copy.deepcopy(good)
            part = reduce(getitem, way, made)
            if value is not KeyError:
                part[last] = value
            elif part.pop(last, KeyError) is KeyError:
                continue
            name = "missing" if value is KeyError else json.dumps(value)
            found[f"{place} {name}"] = json.dumps(made).encode()
    return found


class Trials:
    """Run commands with bad input, and keep what they do wrong."""

    def __init__(self, jsws, world: dict):
        self.jsws, self.world, self.count, self.faults = jsws, world, 0, []
        self.answers = []

    def path(self, text: str) -> Path:
        """A place in the world, such as `{data}/mini.json`."""
        return Path(text.format(**self.world))

    def files(self, kind: dict, readers: dict, **how):
        """Each bad file of a kind, into each command that reads it.

        Args:
            kind: contents by name.
            readers: the file's place by command.
            how: see `__call__`.
        """
        for words, place in readers.items():
            path = self.path(place)
            for name, content in kind.items():
                with swapped(path, content):
                    self(f"{path.name}, {name}", words, **{"names": [path.stem], **how})

    def __call__(self, what: str, words: str, *, names=(), verdict=False, more=()):
        """Run a command.

        Args:
            what: the bad input, in words.
            words: the command, with `{data}`, `{net}`, `{out}`, ... in it.
            names: must be in the message.
            verdict: a verdict on standard output will do as well.
            more: arguments that hold spaces or braces.
        """
        self.count += 1
        out = self.world["root"] / f"out{self.count}"
        verdict |= "data check" in words or "--dry-run" in words
        words = [word.format(**self.world, out=out) for word in words.split()]
        try:
            with patience():
                status, said, err = self.jsws([*words, *more])
        except Hang:
            status, said, err = -1, "", ["no end"]
        self.answers.append("\n".join([*err, said]))
        fault = _fault(status, said, err, names, verdict)
        if fault:
            self.faults.append(f"{what}: {' '.join(words)} {[*more]}\n    {fault}")


def _fault(status: int, said: str, err: list[str], names, verdict: bool) -> str:
    """What is wrong with an answer to bad input; "" if nothing is."""
    text = "\n".join(err)
    whole = f"{text}\n{said}"
    odd = {c for c in whole if unicodedata.category(c) == "Cc"} - {"\n", "\r", "\t"}
    if odd:
        return f"control characters {odd} are printed: {whole[-300:]!r}"
    if verdict and status in (0, 1) and re.search("FAIL|warn|WARN", said):
        text = whole
    elif status != 2:
        return f"status {status}: {whole[-700:]}"
    else:
        lines = [x for x in err if "passed over" not in x and x[:2] != "  "]
        usage = lines and lines[0].lstrip().startswith("Usage:")
        if not usage and (len(lines) != 1 or not lines[0].startswith("jsws: ")):
            return f"no one sentence: {text[-700:]}"
    lacks = [name for name in names if name not in text]
    return f"{lacks} not named in {text[-700:]}" if lacks else ""
