"""Fetching the real data sets: mirrors, resume, verification, careful unpacking.

`sources.toml` says where they are. An archive is fetched under a temporary name, taken up
again where it stopped, verified, unpacked beside its place, and only then moved there.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.voc import read_ids

SOURCES = Path(__file__).with_name("sources.toml")
INBOX = ".downloads"  # under the data root
CHUNK = 1 << 20
TRIES, TIMEOUT, WAIT = 4, 60, 1.0  # per mirror; s without a byte; s, doubled each time
BROKEN_OFF = (OSError, EOFError, http.client.HTTPException)  # a connection, or its talk
ABANDONED = 86_400  # s: the process that unpacked into such a folder is gone
GB = 1e9


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack."""

    name: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    into: str = "."  # under the data root
    click: str = ""  # why a person has to fetch it, and how


@dataclass(frozen=True)
class Source:
    """One data set of `sources.toml`."""

    name: str
    title: str
    page: str
    licence: str
    cite: str
    holds: dict[str, int]
    gigabytes: float
    archives: tuple[Archive, ...]


def sources() -> dict[str, Source]:
    """Read the manifest: data sets by name."""
    entries = tomllib.loads(SOURCES.read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        archives = tuple(
            Archive(**{**archive, "urls": tuple(archive.get("urls", ()))})
            for archive in entry.pop("archives")
        )
        found[name] = Source(name=name, archives=archives, **entry)
    return found


def missing(source: Source, root: Path | str) -> list[str]:
    """What a data root lacks of a data set, in words; empty if it is whole."""
    words = []
    for folder, count in source.holds.items():
        path = Path(root) / folder
        have = sum(1 for _ in path.iterdir()) if path.is_dir() else 0
        if have < count:
            words.append(f"{folder}: {have} of {count} files")
    return words


def download(source: Source, root: Path | str, *, given: Path | str | None = None,
             keep: bool = False) -> bool:  # fmt: skip
    """Bring one data set under the data root.

    Args:
        source: of `sources()`.
        root: the data root.
        given: an archive that was fetched already, or the folder that holds it.
        keep: leave the archives in `<root>/.downloads`.

    Returns:
        False if nothing was to do.

    Raises:
        JswsError: the disk is too full, every mirror fails, an archive is not the
            published one, is damaged or wants out of its folder, or is still incomplete.
    """
    root = Path(root)
    if not missing(source, root):
        _finish(source, root)
        return False
    inbox = root / INBOX
    try:
        inbox.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JswsError(f"cannot write to {root} ({error.strerror}); choose another --data"
                        ) from None  # fmt: skip
    _check_space(source, root)
    mine = {archive: _find(archive, given) for archive in source.archives}
    if given is not None and not any(mine.values()):
        names = " or ".join(archive.name for archive in source.archives)
        raise JswsError(f"--from {given}: expected {names}, or a folder that holds it")
    fetched = []
    for archive, path in mine.items():
        if path:
            verify(archive, path)
        fetched.append((archive, path or fetch(archive, inbox, page=source.page)))
    for archive, path in fetched:
        unpack(path, root / archive.into)
    lacking = missing(source, root)
    if lacking:
        raise JswsError(
            f"{source.name} was unpacked under {root} but is not whole: "
            f"{'; '.join(lacking)}. Another version of the archive? See {source.page}"
        )
    _finish(source, root)
    for _, path in fetched:
        if not keep and path.parent == inbox:
            path.unlink()
    if not any(inbox.iterdir()):
        inbox.rmdir()
    return True


def fetch(archive: Archive, folder: Path, *, page: str = "") -> Path:
    """Fetch an archive from the first mirror that gives it, taking up a partial file.

    Raises:
        JswsError: a person has to fetch it, or every mirror fails.

    Returns:
        the archive, verified.
    """
    target = folder / archive.name
    if target.is_file():
        verify(archive, target)
        return target
    hand = f"Fetch {archive.name} in a browser ({page}) and pass --from PATH."
    if not archive.urls:
        raise JswsError(f"{archive.name} cannot be fetched by a program: {archive.click}. "
                        f"Then pass --from PATH. See {page}")  # fmt: skip
    failures = []
    part = target.with_name(f"{archive.name}.part")
    for url in archive.urls:
        try:
            _fetch_from(url, archive, part)
            verify(archive, part)
        except JswsError as error:  # a whole file, but not the published one
            part.unlink()
            failures.append(f"{url}: {error}")
        except (*BROKEN_OFF, ValueError) as error:
            failures.append(f"{url}: {error}")
        else:
            os.replace(part, target)
            return target
    raise JswsError(f"no mirror gave {archive.name}:\n  " + "\n  ".join(failures)
                    + f"\nA partial file is taken up next time. {hand}")  # fmt: skip


def _fetch_from(url: str, archive: Archive, part: Path):
    """Append to `part` until it is whole; a dropped connection is taken up again."""
    for attempt in range(1, TRIES + 1):
        try:
            _continue(url, archive, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing beyond what is there: another file's remains
                part.unlink(missing_ok=True)
            elif error.code < 500 or attempt == TRIES:
                raise
        except BROKEN_OFF:
            if attempt == TRIES:
                raise
        time.sleep(WAIT * 2**attempt)
    raise OSError("the server never gave a whole file")


def _continue(url: str, archive: Archive, part: Path):
    have = part.stat().st_size if part.is_file() else 0
    if archive.bytes and have == archive.bytes:
        return
    if archive.bytes and have > archive.bytes:
        part.unlink()
        have = 0
    headers = {"User-Agent": "jsws", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server starts over, so we do
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else archive.bytes
        if archive.bytes and total != archive.bytes:
            raise ValueError(f"offers {total:,} bytes instead of {archive.bytes:,}")
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, desc=archive.name, unit="B",
                 unit_scale=True) as bar,  # fmt: skip
        ):
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
    if total is not None and have < total:
        raise EOFError(f"the connection broke after {have:,} of {total:,} bytes")


def verify(archive: Archive, path: Path):
    """Compare a file with what was published about it.

    Raises:
        JswsError: size or checksum differ.
    """
    size = path.stat().st_size
    if archive.bytes and size != archive.bytes:
        raise JswsError(f"{path} has {size:,} bytes, not {archive.bytes:,}; delete it")
    for kind in ("sha256", "md5"):
        wanted = getattr(archive, kind)
        if wanted:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
            if found != wanted:
                raise JswsError(f"{path} has {kind} {found}, not the published {wanted}; "
                                "delete it and fetch it again")  # fmt: skip
            return


def unpack(path: Path, folder: Path):
    """Unpack a tar or zip archive into a folder, whole or not at all.

    Raises:
        JswsError: neither tar nor zip, damaged, encrypted, a member that would land
            elsewhere, or the disk is full or read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(path, folder)
    except OSError as error:
        raise JswsError(f"{path} cannot be unpacked into {folder} ({error}); make room, or "
                        "choose another --data") from None  # fmt: skip


def _unpack(path: Path, folder: Path):
    with _room(folder) as room:
        try:
            if zipfile.is_zipfile(path):
                _unzip(path, room)
            elif tarfile.is_tarfile(path):
                with tarfile.open(path) as archive:
                    members = tqdm(archive, desc=f"unpack {path.name}", unit="file")
                    archive.extractall(room, members=members, filter="data")
                    while archive.fileobj.read(CHUNK):
                        pass  # up to gzip's checksum, which stands at the very end
            else:
                raise JswsError(f"{path} is neither a tar nor a zip archive; delete it")
        except tarfile.FilterError as error:
            raise JswsError(f"{path} is not to be trusted: {error}; delete it") from None
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError,
                zlib.error) as error:  # fmt: skip
            raise JswsError(f"{path} is damaged ({error}); delete it") from None
        except RuntimeError as error:  # encrypted, or a compression that Python lacks
            raise JswsError(f"{path} cannot be unpacked ({error}); unpack it with another "
                            "program, zip it again and pass --from PATH") from None
        for file in sorted(room.rglob("*")):
            if file.is_file():
                place = folder / file.relative_to(room)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)


def _unzip(path: Path, room: Path):
    with zipfile.ZipFile(path) as archive:
        for member in tqdm(archive.infolist(), desc=f"unpack {path.name}", unit="file"):
            name = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            drive = ":" in name.parts[0] if name.parts else False
            if name.is_absolute() or ".." in name.parts or link or drive:
                raise JswsError(f"{path} is not to be trusted: it holds {member.filename}; "
                                "delete it")  # fmt: skip
            if "__MACOSX" not in name.parts:
                archive.extract(member, room)


@contextmanager
def _room(folder: Path) -> Iterator[Path]:
    """A place to unpack to, on the same disk; nothing of it remains."""
    for left in folder.glob(".unpack-*"):  # of a process that was killed
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    room = folder / f".unpack-{os.getpid()}"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _find(archive: Archive, given: Path | str | None) -> Path | None:
    if given is None:
        return None
    path = Path(given)
    path = path / archive.name if path.is_dir() else path
    return path if path.is_file() and path.name == archive.name else None


def _check_space(source: Source, root: Path):
    free, need = shutil.disk_usage(root).free / GB, 2.2 * source.gigabytes
    if free < need:
        raise JswsError(
            f"{source.name} needs about {need:.1f} GB under {root} while it is unpacked, "
            f"but {free:.1f} GB are free; free some, or choose another --data"
        )


def _finish(source: Source, root: Path):
    """Write VOC's list train_aug, once VOC and SBD are both there.

    It is VOC's train together with all of SBD, without VOC's val: 10,582 images.
    """
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    sbd = root / "benchmark_RELEASE" / "dataset"
    if source.name not in ("VOC2012", "SBD") or not (
        (lists / "val.txt").is_file() and (sbd / "train.txt").is_file()
    ):
        return
    ids = {*read_ids(lists / "train.txt"), *read_ids(sbd / "train.txt"),
           *read_ids(sbd / "val.txt")} - set(read_ids(lists / "val.txt"))  # fmt: skip
    write_bytes(lists / "train_aug.txt", ("\n".join(sorted(ids)) + "\n").encode())
