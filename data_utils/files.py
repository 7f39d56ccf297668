"""Files that appear whole or not at all, and the doors by which their contents come in."""

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_utils.errors import JswsError, remedy


@contextmanager
def _written(path: Path, more: str = ""):
    """Make room for a path; what the system refuses becomes one sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise JswsError(
            f"cannot write {path} ({error.strerror}): {remedy(error)}{more}"
        ) from None


@contextmanager
def whole(path: Path | str, *, more: str = "") -> Iterator[Path]:
    """Give a temporary path in the same folder; at the end it is renamed to `path`.

    Raises:
        JswsError: the disk is full, or the folder cannot be written to; `more` ends it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _written(path, more):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty folder beside `path`; at the end it is renamed to `path`.

    There must be none by that name, or an empty one. What killed processes left is swept.

    Raises:
        JswsError: as `whole` does.
    """
    path = Path(path)
    prefix = f".{path.name}-making-"
    with _written(path):
        remove_left(path.parent, f"{prefix}*")
        with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as room:
            made = Path(room, "new")
            made.mkdir()  # not `room` itself, which is shut to everyone else
            yield made
            if path.exists():
                path.rmdir()
            made.rename(path)


def remove_left(folder: Path, pattern: str, *, age: float = 3600):
    """Delete what processes left that are gone: unchanged for `age` seconds."""
    for left in folder.glob(pattern):
        if time.time() - left.stat().st_mtime > age:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def check_place(path: Path | str):
    """Refuse a file's place before hours of work, not after them.

    Raises:
        JswsError: something else than a file is there, or none can be written.
    """
    path = Path(path)
    if os.path.lexists(path) and not path.is_file():
        raise JswsError(f"cannot write {path}, which is no file; name another place")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _written(path):
        temporary.touch()
        temporary.unlink()


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file so that it appears whole or not at all. Raises as `whole` does."""
    with whole(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_png(path: Path | str, image, **options) -> Path:
    """Write a picture as PNG, whole or not at all; `options` are Pillow's."""
    file = io.BytesIO()
    image.save(file, format="PNG", **options)
    return write_bytes(path, file.getvalue())


def read_bytes(path: Path | str, *, advice: str) -> bytes:
    """Read a plain file; a pipe or a device, which may never end, is none.

    Raises:
        JswsError: there is none, or it cannot be read.
    """
    try:
        if not Path(path).is_file():
            raise JswsError(f"{path} is no file; {advice}")
        return Path(path).read_bytes()
    except OSError as error:
        raise JswsError(f"{path} cannot be read ({error.strerror}); {advice}") from None


def read_text(path: Path | str, *, advice: str) -> str:
    """Read a plain file of UTF-8, with or without a byte-order mark.

    Raises:
        JswsError: as `read_bytes` does, or it is no such text.
    """
    try:
        return read_bytes(path, advice=advice).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise JswsError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def read_json(path: Path | str, *keys: str, advice: str) -> dict:
    """Read a JSON file of ours, which must have these keys.

    `advice`, what to do about a damaged one, ends the error's sentence.

    Raises:
        JswsError: no such file, not JSON, not an object, or without one of the keys.
    """
    data = read_bytes(path, advice=advice)
    try:
        found = json.loads(data)  # some shells write UTF-16
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        if lacks := [key for key in keys if key not in found]:
            raise ValueError(f"it has no {lacks[0]!r}")
    except (ValueError, RecursionError) as error:
        raise JswsError(f"{path} cannot be used ({error}); {advice}") from None
    return found


def sha256(path: Path | str) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path) -> Path:
    """A file that the repository ships, if it is the one its folder's manifest describes.

    Raises:
        JswsError: it is another, or the manifest is missing or damaged.
    """
    manifest = path.with_name("manifest.json")
    advice = f"restore it with `git checkout -- {path.parent.name}`"
    try:
        known = read_json(manifest, "files", advice=advice)["files"][path.name]["sha256"]
    except (KeyError, IndexError, TypeError):  # a manifest that was changed by hand
        known = None
    if not path.is_file() or sha256(path) != known:
        raise JswsError(f"{path} is not the file described in {manifest.name}; {advice}")
    return path


def for_json(value):
    """The same value; numbers that are not finite, which JSON lacks, are None."""
    if isinstance(value, dict):
        return {name: for_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
