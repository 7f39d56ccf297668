"""Unpacking what came from elsewhere: files and folders, each below the root.

Python's own readers keep names below the folder they are given. Dates are kept, so that
the same archive unpacked twice is the same data.
"""

import os
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from data_utils.errors import JswsError, remedy
from data_utils.files import remove_left

CHUNK = 1 << 20


def unpack(path: Path, folder: Path):
    """Unpack a tar or zip archive into a folder, whole or not at all.

    Raises:
        JswsError: neither tar nor zip, damaged, encrypted, a link or device of a tar that
            leads out of the folder, or a disk that is full or read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_left(folder, ".unpack-*", age=86_400)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as room:
            _fill(room, path)
            for file in Path(room).rglob("*"):
                if not file.is_dir():
                    place = folder / file.relative_to(room)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, place)
    except JswsError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # of the disk
            raise JswsError(
                f"{path} cannot be unpacked into {folder} ({error}); {remedy(error)}: "
                "--data"
            ) from None
        raise JswsError(  # whatever the bytes provoke
            f"{path} cannot be unpacked ({error}); delete it if it is damaged, else unpack "
            f"it into {folder} with another program and give the same command again"
        ) from None


def _fill(room: str, path: Path):
    """Everything an archive holds. A tar's filter `data` refuses devices and ways out."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for one in tqdm(archive.infolist(), desc=f"unpack {path.name}", unit="file"):
                one.filename = one.filename.replace("\\", "/")
                place = archive.extract(one, room)
                date = time.mktime((*one.date_time, 0, 0, -1))
                os.utime(place, (date, date))
    elif not tarfile.is_tarfile(path):
        raise JswsError(f"{path} is neither a tar nor a zip archive; delete it")
    else:
        safe = tarfile.data_filter  # Python below 3.11.4 has none: an error, too
        with tarfile.open(path) as archive:
            for one in tqdm(archive, desc=f"unpack {path.name}", unit="file"):
                archive.extract(one, room, filter=safe)
            while archive.fileobj.read(CHUNK):
                pass  # up to gzip's checksum, which stands at the very end
