"""Fetching the real data sets: mirrors, resume, verification.

`sources.toml` says where they are. An archive is fetched under a temporary name, taken up
again where it stopped, verified, unpacked beside its place, and only then moved there.
"""

import hashlib
import http.client
import os
import re
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import read_text, write_bytes
from data_utils.real.archives import unpack
from data_utils.voc import read_ids, write_palette_png

SOURCES = Path(__file__).with_name("sources.toml")
INBOX = ".downloads"  # under the data root
CHUNK = 1 << 20
TRIES, TIMEOUT, WAIT = 4, 60, 1.0  # per mirror; s without a byte; s, doubled each time
BROKEN_OFF = (OSError, EOFError, ValueError, http.client.HTTPException)


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack."""

    name: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    md5: str | None = None
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
    """Read the manifest: data sets by name.

    Raises:
        JswsError: an entry is not as the first lines of the file ask for.
    """
    advice = "restore it, or mend the entry as its first lines say"
    try:
        entries = tomllib.loads(read_text(SOURCES, advice=advice))
        if not entries:
            raise KeyError("no data set")
        return {name: _source(name, entry) for name, entry in entries.items()}
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise JswsError(f"{SOURCES} cannot be used ({error!r}); {advice}") from None


def _source(name: str, entry: dict) -> Source:
    """An entry; TypeError, KeyError or AttributeError if it is not as it should be."""
    archives = tuple(
        Archive(**{**archive, "urls": tuple(archive.get("urls", ()))})
        for archive in entry.pop("archives")
    )
    source = Source(name=name, archives=archives, **entry)
    folders = [*source.holds, *(archive.into for archive in archives)]
    outside = [one for one in folders if ".." in Path(one).parts or Path(one).is_absolute()]
    outside += [one.name for one in archives if Path(one.name).name != one.name]
    if outside:
        raise TypeError(f"{name}: {outside[0]!r} leads elsewhere")
    if bad := [u for one in archives for u in one.urls if not re.match("https?://", u)]:
        raise TypeError(f"{name}: {bad[0]!r} is no address")
    counts = [*source.holds.values(), source.gigabytes]
    if any(type(count) not in (int, float) for count in counts):
        raise TypeError(f"{name}: {counts} are no numbers")
    if name not in ("VOC2012", "SBD") and len(source.holds) != 2:
        raise TypeError(f"{name} holds {len(source.holds)} folders: images and masks are 2")
    return source


def missing(source: Source, root: Path | str) -> list[str]:
    """What a data root lacks of a data set, in words; empty if it is whole."""
    words = []
    for folder, count in source.holds.items():
        path = Path(root) / folder
        have = sum(1 for _ in path.iterdir()) if path.is_dir() else 0
        if have < count:
            words.append(f"{folder}: {have} of {count} files")
    return words


def download(source: Source, root: Path | str, *, given: Path | None = None) -> bool:
    """Bring one data set under the data root.

    Args:
        given: an archive that was fetched already, or the folder that holds it.

    Returns:
        False if nothing was to do.

    Raises:
        JswsError: every mirror fails, the disk is too full, an archive is not the
            published one or is damaged, or the set is still incomplete.
    """
    root = Path(root)
    if not missing(source, root):
        _finish(source, root)
        return False
    inbox = root / INBOX
    inbox.mkdir(parents=True, exist_ok=True)
    paths = {}
    if given is not None:
        for archive in source.archives:
            path = given / archive.name if given.is_dir() else given
            if path.name == archive.name and path.is_file():
                paths[archive] = path
        if not paths:
            names = " or ".join(archive.name for archive in source.archives)
            raise JswsError(f"--from {given}: expected {names}, or a folder that holds it")
    for archive in source.archives:
        if archive in paths:
            verify(archive, paths[archive])
        else:
            paths[archive] = fetch(archive, inbox, page=source.page)
    for archive, path in paths.items():
        unpack(path, root / archive.into)
    if lacking := missing(source, root):
        raise JswsError(
            f"{source.name} was unpacked under {root} but is not whole: "
            f"{'; '.join(lacking)}. Another version of the archive? See {source.page}"
        )
    _finish(source, root)
    for archive in paths:
        (inbox / archive.name).unlink(missing_ok=True)
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
    if not archive.urls:
        raise JswsError(
            f"{archive.name} cannot be fetched by a program: {archive.click}. "
            f"Then pass --from PATH. See {page}"
        )
    part = target.with_name(f"{archive.name}.part")
    failures = []
    for url in archive.urls:
        try:
            _fetch_from(url, archive, part)
        except (JswsError, *BROKEN_OFF) as error:
            failures.append(f"{url}: {error}")
        else:
            os.replace(part, target)
            return target
    raise JswsError(
        f"no mirror gave {archive.name}:\n  "
        + "\n  ".join(failures)
        + f"\nA partial file is taken up next time. Fetch {archive.name} in a browser "
        f"({page}) and pass --from PATH."
    )


def _fetch_from(url: str, archive: Archive, part: Path):
    """Append to `part` until it is the published file, trying again where it breaks off."""
    for attempt in range(1, TRIES + 1):
        resumed = part.is_file()
        try:
            _continue(url, archive, part)
            verify(archive, part)
            return
        except JswsError:
            part.unlink()
            if not resumed:  # else another file's remains may have been in it
                raise
        except BROKEN_OFF as error:
            status = getattr(error, "code", 500)
            if status == 416:  # nothing beyond what is there
                part.unlink(missing_ok=True)
            elif status < 500 or attempt == TRIES:
                raise
        time.sleep(WAIT * 2**attempt)
    raise OSError("the server never gave a whole file")


def _continue(url: str, archive: Archive, part: Path):
    """Ask for what `part` lacks, and append it; or write all, if the server starts over."""
    have = part.stat().st_size if part.is_file() else 0
    if have and have == archive.bytes:
        return
    headers = {"User-Agent": "jsws", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if url.startswith("https:") and not answer.geturl().startswith("https:"):
            raise ValueError(f"leads to {answer.geturl()}, where anybody may change a file")
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else archive.bytes
        how = {"initial": have, "desc": archive.name, "unit": "B", "unit_scale": True}
        with open(part, "ab" if have else "wb") as file, tqdm(total=total, **how) as bar:
            while chunk := answer.read1(CHUNK):
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
    if archive.md5:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != archive.md5:
            raise JswsError(
                f"{path} has md5 {found}, not the published {archive.md5}; "
                "delete it and fetch it again"
            )


def _finish(source: Source, root: Path):
    """Write VOC's list train_aug and its masks, once VOC and SBD are both there.

    It is VOC's train together with all of SBD, without VOC's val: 10,582 images.
    """
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    sbd = root / "benchmark_RELEASE" / "dataset"
    if source.name not in ("VOC2012", "SBD") or not (
        (lists / "val.txt").is_file() and (sbd / "train.txt").is_file()
    ):
        return
    parts = lists / "train.txt", sbd / "train.txt", sbd / "val.txt"
    ids = set().union(*map(read_ids, parts)) - {*read_ids(lists / "val.txt")}
    write_bytes(lists / "train_aug.txt", ("\n".join(sorted(ids)) + "\n").encode())
    masks = lists.parents[1] / "SegmentationClass"
    for name in tqdm(sorted(ids), desc="masks of SBD", leave=False):
        path = masks / f"{name}.png"
        if not path.is_file() and (sbd / "cls" / f"{name}.mat").is_file():
            write_palette_png(path, read_sbd(sbd / "cls" / f"{name}.mat"))


def read_sbd(path: Path) -> np.ndarray:
    """The categories of an SBD annotation, (H, W) uint8, numbered as VOC does.

    Raises:
        JswsError: it is no such MATLAB file.
    """
    from scipy.io import loadmat  # takes a while, and nothing else here needs it

    try:
        found = np.asarray(loadmat(path)["GTcls"]["Segmentation"].item())
        if found.ndim == 2 and found.size and 0 <= found.min() <= found.max() <= 20:
            return found.astype(np.uint8)
        problem = "its Segmentation does not hold the numbers 0 to 20"
    except Exception as error:  # whatever the bytes provoke
        problem = f"{type(error).__name__}: {error}"
    raise JswsError(
        f"{path} is no annotation of SBD ({problem}); delete its folder and run "
        "`jsws data download SBD` again"
    )
