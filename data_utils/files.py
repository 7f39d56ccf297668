"""Files that appear whole or not at all."""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from data_utils.errors import JswsError


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Give a temporary path in the same folder; at the end it is renamed to `path`.

    Raises:
        JswsError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise JswsError(f"cannot write {path} ({error.strerror}): free some room, or name "
                        "another place") from None  # fmt: skip


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file so that it appears whole or not at all. Raises as `whole` does."""
    with whole(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_png(path: Path | str, image: Image.Image) -> Path:
    """Write a picture as PNG, whole or not at all."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return write_bytes(path, file.getvalue())


def for_json(value):
    """The same value; numbers that are not finite, which JSON lacks, are None."""
    if isinstance(value, dict):
        return {name: for_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
