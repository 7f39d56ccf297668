"""Unpacking what came from elsewhere: plain files and folders, each below the root.

Nothing of an archive is obeyed but names, contents and dates: a link, a device, a name
that leads out, or far more bytes than an archive of its size can hold, and nothing of it
stays. Dates are kept, so that the same archive unpacked twice is the same data.
"""

import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm.auto import tqdm

from data_utils.errors import JswsError, remedy
from data_utils.files import remove_left

CHUNK = 1 << 20
LATEST = 2**32  # s since 1970: later dates are noise
SWELL, SLACK = 20, 100 << 20  # most bytes out: so many times the archive, and these
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError)
DAMAGED += (EOFError, zlib.error)


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    kind: str  # "file", "folder", or what nobody should send
    date: float  # s since 1970
    open: Callable[[], IO[bytes]]


def unpack(path: Path, folder: Path):
    """Unpack a tar or zip archive into a folder, whole or not at all.

    Raises:
        JswsError: neither tar nor zip, damaged, encrypted, a member that is no plain file
            or would land elsewhere, too many bytes, or a disk that is full or read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_left(folder, ".unpack-*", age=86_400)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as name:
            room = Path(name)
            _fill(room, path)
            for file in sorted(room.rglob("*")):
                if file.is_file():
                    place = folder / file.relative_to(room)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, place)
    except OSError as error:
        raise JswsError(
            f"{path} cannot be unpacked into {folder} ({error}); {remedy(error)}: --data"
        ) from None


def _fill(room: Path, path: Path):
    left, names = SWELL * path.stat().st_size + SLACK, {}
    try:
        for member in tqdm(_members(path), desc=f"unpack {path.name}", unit="file"):
            name = PurePosixPath(member.name)
            drive = ":" in name.parts[0] if name.parts else False
            outside = name.is_absolute() or ".." in name.parts or "\0" in member.name
            if outside or drive or member.kind not in ("file", "folder"):
                raise JswsError(
                    f"{path} is not to be trusted: it holds {member.name!r}, "
                    f"{member.kind}; delete it"
                )
            place = room / name
            if "__MACOSX" in place.parts:
                continue
            if member.kind == "folder":
                place.mkdir(parents=True, exist_ok=True)
                continue
            if (other := names.setdefault(str(place).casefold(), place)) != place:
                raise JswsError(
                    f"{path} holds both {other.name!r} and {place.name!r}, which are one "
                    "file on some disks; rename one and zip it again"
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(place, "wb") as file:
                while chunk := source.read(CHUNK):
                    if (left := left - len(chunk)) < 0:
                        raise JswsError(
                            f"{path} is not to be trusted: it unpacks to more than "
                            f"{SWELL} times its size; delete it"
                        )
                    file.write(chunk)
            date = min(max(0, member.date), LATEST)
            os.utime(place, (date, date))
    except JswsError:
        raise
    except (*DAMAGED, ValueError, OverflowError) as error:
        raise JswsError(f"{path} is damaged ({error}); delete it") from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted, a rare compression
        raise JswsError(
            f"{path} cannot be unpacked ({error}); unpack it with another "
            "program, zip it again and pass --from PATH"
        ) from None


def _members(path: Path) -> Iterator[Member]:
    """Everything an archive holds, in its order.

    Raises:
        JswsError: it is neither a tar nor a zip archive.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                mode = one.external_attr >> 16
                plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
                kind = ("folder" if one.is_dir() else "file") if plain else "a link"
                date = time.mktime((*one.date_time, 0, 0, -1))
                name = one.filename.replace("\\", "/")
                yield Member(name, kind, date, lambda one=one: archive.open(one))
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for one in archive:
                kind = "folder" if one.isdir() else "file" if one.isreg() else "a link"
                yield Member(
                    one.name, kind, one.mtime, lambda one=one: archive.extractfile(one)
                )
            while archive.fileobj.read(CHUNK):
                pass  # up to gzip's checksum, which stands at the very end
    else:
        raise JswsError(f"{path} is neither a tar nor a zip archive; delete it")
