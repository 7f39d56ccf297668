"""Fetching data sets: against a server that drops, truncates, lies and redirects."""

import contextlib
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

import numpy as np
import pytest
from helpers import jsws, refuses
from scipy.io import savemat

from data_utils.errors import JswsError
from data_utils.pictures import read_class_mask
from data_utils.real import download as module
from data_utils.real.archives import unpack
from data_utils.real.download import Archive, Source, download, fetch, missing, sources
from data_utils.voc import write_palette_png

NOISE = np.random.default_rng(0).bytes(300_000)


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(files, *, links=(), kind=tarfile.SYMTYPE):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return data.getvalue()


PICTURES = zipped({"set/images/1.jpg": NOISE, "set/images/2.jpg": b"2"})


class Handler(BaseHTTPRequestHandler):
    """`/<behaviour>/<name>`; the server counts the requests and remembers ranges."""

    def log_message(self, *_):
        pass

    def begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        server, behaviour = self.server, urlparse(self.path).path.split("/")[1]
        wanted = self.headers.get("Range")
        server.asked.append((behaviour, wanted))
        if behaviour == "redirect":
            return self.begin(302, {"Location": "/good/x.zip"})
        if behaviour == "no-http":
            return self.wfile.write(b"220 ready for FTP\r\n")
        if behaviour == "chunks":  # of which the second never comes
            self.begin(200, {"Transfer-Encoding": "chunked"})
            return self.wfile.write(b"5\r\nhello\r\nffff\r\n")
        if behaviour.isdigit():
            return self.send_error(int(behaviour))
        if behaviour == "busy-once" and len(server.asked) == 1:
            return self.send_error(503)
        data = server.data[::-1] if behaviour == "corrupt" else server.data
        start = 0
        if wanted and behaviour != "no-ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return self.send_error(416)
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.begin(206 if start else 200, headers)
        drop = behaviour in ("drop", "no-ranges") and len(server.asked) == 1
        drop |= behaviour == "always-drop"
        end = start + (len(data) - start) // 2 if drop else len(data)
        self.wfile.write(data[start:end])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.data, found.asked = PICTURES, []
    found.url = f"http://127.0.0.1:{found.server_port}"
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def archive(server, *behaviours, **more):
    urls = tuple(f"{server.url}/{behaviour}/x.zip" for behaviour in behaviours)
    return Archive("x.zip", urls, **more)


def source(*archives, holds=None):
    holds = holds or {"set/images": 2}
    return Source("SET", "A set", "the page", "free", "us", holds, 1e-6, archives)


KNOWN = {"bytes": len(PICTURES), "md5": hashlib.md5(PICTURES).hexdigest()}


# --- fetching ------------------------------------------------------------------------


BAD_DAYS = ["good", "redirect", "drop", "no-ranges", "busy-once"]


@pytest.mark.parametrize("behaviour", BAD_DAYS)
@pytest.mark.parametrize("known", [KNOWN, {}], ids=["published", "unpublished"])
def test_a_server_with_a_bad_day(server, tmp_path, behaviour, known):
    path = fetch(archive(server, behaviour, **known), tmp_path)
    assert path.read_bytes() == PICTURES
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
    if behaviour == "drop":  # taken up where it stopped
        assert server.asked[1][1] == f"bytes={len(PICTURES) // 2}-"


def test_a_partial_file_of_yesterday_is_taken_up(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(PICTURES[:1000])
    assert fetch(archive(server, "good", **KNOWN), tmp_path).read_bytes() == PICTURES
    assert server.asked == [("good", "bytes=1000-")]
    fetch(archive(server, "good", **KNOWN), tmp_path)  # there already: nothing is asked
    assert len(server.asked) == 1


def test_what_remains_of_another_file_is_thrown_away(server, tmp_path):
    longer = 2 * len(PICTURES)
    for known, size in ((KNOWN, longer), ({}, longer), (KNOWN, 1000)):
        (tmp_path / "x.zip.part").write_bytes(bytes(size))
        path = fetch(archive(server, "good", **known), tmp_path)
        assert path.read_bytes() == PICTURES
        path.unlink()


@pytest.mark.parametrize(
    "first", ["404", "503", "corrupt", "always-drop", "no-http", "chunks"]
)
def test_the_next_mirror_is_tried(server, tmp_path, first):
    path = fetch(archive(server, first, "good", **KNOWN), tmp_path)
    assert path.read_bytes() == PICTURES
    assert server.asked[0][0] == first and server.asked[-1][0] == "good"


def test_all_mirrors_fail_with_reasons_and_a_way_out(server, tmp_path):
    with pytest.raises(JswsError) as error:
        fetch(archive(server, "404", "corrupt", "503", **KNOWN), tmp_path, page="the page")
    words = str(error.value)
    for part in ("404", "md5", "503", "--from PATH", "the page"):
        assert part in words
    assert not any(tmp_path.iterdir())
    with pytest.raises(JswsError, match="bytes, not 7"):
        fetch(archive(server, "good", bytes=7), tmp_path)
    by_hand = Archive("y.zip", click="press the button")
    refuses("press the button.*--from PATH", fetch, by_hand, tmp_path)


# --- unpacking -----------------------------------------------------------------------


# Names that lead out are kept below the folder, or the archive is refused.
HOSTILE = [
    zipped({"../evil": b"1"}),
    zipped({"/evil": b"1"}),
    zipped({"a\\..\\..\\evil": b"1"}),
    tarred({"../evil": b"1"}),
    tarred({}, links=[("out", "/etc")]),
    tarred({"in/evil": b"1"}, links=[("in", "../..")]),
    tarred({}, links=[("evil", "../../../secret")], kind=tarfile.LNKTYPE),
    tarred({}, links=[("evil", "")], kind=tarfile.FIFOTYPE),
]


# Not by their bytes, which hold the time: every process has to name them alike.
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_archive_stays_in_its_folder(tmp_path, data):
    (tmp_path / "secret").write_text("mine")
    path = tmp_path / "a" / "b" / "x"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with contextlib.suppress(JswsError):
        unpack(path, path.parent / "out")
    assert (tmp_path / "secret").read_text() == "mine"
    made = [*(path.parent / "out").rglob("*")]
    assert all(one.is_dir() or one.is_file() and not one.is_symlink() for one in made)
    assert {*tmp_path.rglob("evil")} <= {*made} and len(made) < 3


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_damaged_archive_leaves_nothing(tmp_path, make):
    data = bytearray(make({"set/1": NOISE, "set/2": NOISE}))
    data[5000:5400] = bytes(400)
    (tmp_path / "x").write_bytes(data)
    refuses("x cannot be unpacked", unpack, tmp_path / "x", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "x").write_bytes(b"<html>404</html>")
    refuses("neither a tar nor a zip", unpack, tmp_path / "x", tmp_path / "out")


# A zip says twice what a member is, 2 bytes further in the second place: that it is
# encrypted, or compressed as Windows does it for large files, by Deflate64.
@pytest.mark.parametrize(("at", "value"), [(6, 1), (8, 9)], ids=["encrypted", "Deflate64"])
def test_an_archive_that_another_program_has_to_unpack(tmp_path, at, value):
    data = bytearray(zipped({"a": b"1"}))
    data[at] = data[data.index(b"PK\1\2") + at + 2] = value
    (tmp_path / "x.zip").write_bytes(data)
    words = "x.zip cannot be unpacked .*give the same command again"
    refuses(words, unpack, tmp_path / "x.zip", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_places_that_take_no_files(tmp_path):
    (tmp_path / "x.zip").write_bytes(PICTURES)
    (tmp_path / "set").touch()  # where the archive has a folder
    for folder in (tmp_path, tmp_path / "set"):
        words = "cannot be unpacked into .*another place: --data"
        refuses(words, unpack, tmp_path / "x.zip", folder)
    assert not list(tmp_path.glob(".unpack*"))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_unpacking_joins_what_is_there(tmp_path, make):
    """With the dates of the archive: those of unpacking would make them other data."""
    out = tmp_path / "out"
    for name in (".unpack-1", ".unpack-2"):
        (out / name / "set").mkdir(parents=True)
    os.utime(out / ".unpack-1", (1, 1))  # what a killed unpacking left
    for name in "ab":
        (tmp_path / name).write_bytes(make({f"set/{name}.jpg": b"1"}))
        unpack(tmp_path / name, out)
    assert {p.name for p in (out / "set").iterdir()} == {"a.jpg", "b.jpg"}
    assert {p.name for p in out.iterdir()} == {"set", ".unpack-2"}  # it may be at work
    unpack(tmp_path / "a", tmp_path / "again")
    dates = {
        (where / "set/a.jpg").stat().st_mtime_ns for where in (out, tmp_path / "again")
    }
    assert len(dates) == 1


# --- a data set ----------------------------------------------------------------------


def test_a_set_is_brought_once(server, tmp_path):
    wanted = source(archive(server, "good", **KNOWN))
    assert missing(wanted, tmp_path) == ["set/images: 0 of 2 files"]
    assert download(wanted, tmp_path) is True
    assert (tmp_path / "set" / "images" / "1.jpg").read_bytes() == NOISE
    assert [p.name for p in tmp_path.iterdir()] == ["set"]  # no archive, no rubbish
    assert download(wanted, tmp_path) is False and len(server.asked) == 1


def test_https_that_leads_to_http_is_not_followed(server, tmp_path, monkeypatch):
    real = module.urllib.request.urlopen

    def open_(request, **how):
        monkeypatch.setattr(request, "full_url", f"{server.url}/redirect/x.zip")
        return real(request, **how)

    monkeypatch.setattr(module.urllib.request, "urlopen", open_)
    secure = Archive("x.zip", ("https://example.org/x.zip",))
    with pytest.raises(JswsError, match=f"leads to {server.url}/good/x.zip"):
        fetch(secure, tmp_path)
    assert not (tmp_path / "x.zip").exists()


def test_an_archive_that_was_fetched_by_hand(tmp_path):
    by_hand = tmp_path / "downloads" / "x.zip"
    by_hand.parent.mkdir()
    by_hand.write_bytes(PICTURES)
    wanted = source(Archive("x.zip", click="press"))
    for k, given in enumerate((by_hand, by_hand.parent)):
        root = tmp_path / f"root {k}"
        assert download(wanted, root, given=given) is True
        assert not missing(wanted, root) and by_hand.is_file()  # it is not ours to delete
    root = tmp_path / "other"
    renamed = by_hand.with_name("x (1).zip")  # beside one of the right name
    renamed.write_bytes(PICTURES)
    for given in (tmp_path / "nothing", tmp_path, renamed):
        refuses("expected x.zip, or a folder", download, wanted, root, given=given)
    other = source(Archive("x.zip", md5="0"))
    refuses("not the published", download, other, root, given=by_hand)
    assert by_hand.is_file()


def test_a_set_that_is_not_whole_says_so(server, tmp_path):
    wanted = source(archive(server, "good"), holds={"set/images": 3})
    refuses("not whole: set/images: 2 of 3 files", download, wanted, tmp_path)


def test_voc_and_sbd_make_train_aug(tmp_path):
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    for folder, names in (
        (lists, {"train": "a b", "val": "c d"}),
        (sbd, {"train": "b e c", "val": "d f"}),
    ):
        folder.mkdir(parents=True)
        for name, ids in names.items():
            (folder / f"{name}.txt").write_text("\n".join(ids.split()))
    (sbd / "cls").mkdir()
    masks, values = lists.parents[1] / "SegmentationClass", {}
    for k, name in enumerate("bef"):
        values[name] = np.full((4, 3 + k), 20 - k, np.uint8)
        cell = {"Segmentation": values[name], "Boundaries": np.zeros(1)}
        savemat(sbd / f"cls/{name}.mat", {"GTcls": cell})
    write_palette_png(masks / "b.png", values["b"] * 0)  # VOC's own is kept
    found_set = replace(sources()["SBD"], holds={"benchmark_RELEASE/dataset/cls": 1})
    assert download(found_set, tmp_path) is False
    assert (lists / "train_aug.txt").read_text().split() == ["a", "b", "e", "f"]
    assert {path.stem for path in masks.iterdir()} == {"b", "e", "f"}
    assert not np.asarray(read_class_mask(masks / "b.png")).any()
    for name in "ef":
        found = read_class_mask(masks / f"{name}.png")
        np.testing.assert_array_equal(found, values[name])
    for damage in (b"", b"no MATLAB", None):
        (masks / "f.png").unlink(missing_ok=True)
        if damage is None:
            savemat(sbd / "cls/f.mat", {"GTcls": {"Segmentation": values["f"] + 9}})
        else:
            (sbd / "cls/f.mat").write_bytes(damage)
        words = r"f\.mat is no annotation of SBD .* again"
        refuses(words, download, found_set, tmp_path)
        assert not (masks / "f.png").exists()


# --- the manifest and the command ----------------------------------------------------


def test_the_manifest_is_complete():
    found = sources()
    for one in found.values():
        assert one.title and one.page.startswith("http") and one.licence and one.cite
        for part in one.archives:
            assert bool(part.urls) != bool(part.click)
            assert part.md5 is None or len(part.md5) == 32
    published = "VOC2012 17125 SBD 11355 DUTS-TR 10553 DUTS-TE 5019 ECSSD 1000 PASCAL-S 850"
    published += " DUT-OMRON 5168 HKU-IS 4447 SOD 300"
    counts = (f"{name} {max(one.holds.values())}" for name, one in found.items())
    assert " ".join(counts) == published


def test_profiles_look_where_downloads_go():
    from jsws_lib.config import PROFILES

    paper, held = PROFILES["paper"], {}
    for one in sources().values():
        held |= one.holds
    assert {
        f"{paper.voc}/JPEGImages",
        paper.saliency_images,
        paper.saliency_masks,
        paper.test_images,
        paper.test_masks,
    } <= held.keys()


def test_the_command(server, tmp_path, monkeypatch):
    manifest = tmp_path / "sources.toml"
    manifest.write_text(
        '[SET]\ntitle = "A set"\npage = "http://page"\nlicence = "free"\ncite = "us"\n'
        'gigabytes = 1e-6\nholds = { "set/images" = 2, "set" = 1 }\n[[SET.archives]]\n'
        f'name = "x.zip"\nurls = ["{server.url}/good/x.zip"]\n'
    )
    monkeypatch.setattr(module, "SOURCES", manifest)
    root = tmp_path / "a root"

    assert jsws("data", "download", "SET", "--data", root).exit_code == 0
    done = jsws("data", "download", "SET", "--data", root)
    assert done.exit_code == 0 and "is there already" in done.stdout and "us" in done.stdout
    assert "A set: here" in jsws("data", "list", "--data", root).stdout

    def refused(words, *names):
        done = jsws("data", "download", *names)
        assert isinstance(done.exception, JswsError) and words in str(done.exception)
        return done.stdout

    refused("unknown data set 'XYZ'; choose from SET", "XYZ", "--data", root)
    assert os.listdir(root) == ["set"]
    # One that cannot be had stops no other.
    text = manifest.read_text()
    gone = text.replace("[SET", "[GONE")
    manifest.write_text(gone.replace("/good/", "/404/").replace("set/", "gone/") + text)
    both = ["GONE", "SET", "--data"]
    said = refused("not fetched: GONE, for the reasons above", *both, tmp_path / "new")
    assert (tmp_path / "new/set/images/1.jpg").is_file()
    assert "FAIL: " in said
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn/mini.json").touch()
    refused("drawn holds the embedded drawings; name another", *both, tmp_path / "drawn")
