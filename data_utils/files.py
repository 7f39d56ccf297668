"""Files that appear whole or not at all."""

import io
import os
from pathlib import Path

from PIL import Image

from data_utils.errors import JswsError


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file so that it appears whole or not at all.

    Raises:
        JswsError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise JswsError(f"cannot write {path} ({error.strerror}): free some room, or name "
                        "a folder that can be written to") from None  # fmt: skip
    return path


def write_png(path: Path | str, image: Image.Image) -> Path:
    """Write a picture as PNG, whole or not at all."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return write_bytes(path, file.getvalue())
