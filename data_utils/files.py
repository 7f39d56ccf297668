"""Files that appear whole or not at all."""

import io
import os
from pathlib import Path

from PIL import Image


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file so that it appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_png(path: Path | str, image: Image.Image) -> Path:
    """Write a picture as PNG, whole or not at all."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return write_bytes(path, file.getvalue())
