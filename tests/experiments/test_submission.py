"""The archive for the VOC server: complete, checked file by file, the same each time."""

import tarfile

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_utils.errors import JswsError
from data_utils.voc import palette, write_palette_png
from jsws_lib.cli.main import app
from jsws_lib.experiments.submission import COUNT, LAYOUT, pack

IDS = [f"2008_{k:06}" for k in range(4)]


@pytest.fixture
def voc(tmp_path):
    """A `VOC2012` with four test images of two sizes, and a right answer to each."""
    voc = tmp_path / "VOC2012"
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    (voc / "JPEGImages").mkdir()
    (voc / "ImageSets/Segmentation/test.txt").write_text("\n".join(IDS))
    for k, i in enumerate(IDS):
        Image.new("RGB", (20 + k % 2, 12)).save(voc / f"JPEGImages/{i}.jpg")
        labels = np.full((12, 20 + k % 2), 5 * k, np.uint8)
        write_palette_png(tmp_path / f"pred/{i}.png", labels)
    return voc


def test_the_archive_is_what_the_server_wants(voc, tmp_path):
    pred, out = tmp_path / "pred", tmp_path / "new" / "answer.tgz"
    assert pack(pred, voc, out, count=4) == 4
    with tarfile.open(out) as archive:
        assert archive.getnames() == [f"{LAYOUT}/{i}.png" for i in IDS]
        archive.extractall(tmp_path / "server", filter="data")
    for k, i in enumerate(IDS):
        with Image.open(tmp_path / "server" / LAYOUT / f"{i}.png") as file:
            assert file.mode == "P" and (np.asarray(file) == 5 * k).all()
            assert file.getpalette()[:63] == palette()[:21].ravel().tolist()
    again = tmp_path / "again.tar.gz"
    pack(pred, voc, again, count=4)
    assert again.read_bytes() == out.read_bytes()
    assert not list(out.parent.glob(".*"))


def damage(pred, how):
    """Spoil the second of the four files."""
    path = pred / f"{IDS[1]}.png"
    labels = np.full((12, 21), 5, np.uint8)
    if how == "missing":
        path.unlink()
    elif how == "stale":
        write_palette_png(pred / "old.png", labels)
    elif how == "colour":
        Image.new("RGB", (21, 12)).save(path)
    elif how == "grey":
        Image.fromarray(labels).save(path)
    elif how == "jpeg":
        Image.new("L", (21, 12)).save(path, format="JPEG")
    elif how == "numbers":
        write_palette_png(path, labels, names=["cat", "cow", "dog", "horse", "person"])
    elif how == "void":
        write_palette_png(path, np.full((12, 21), 255, np.uint8))
    elif how == "size":
        write_palette_png(path, labels[:, :20])
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif how == "palette":
        image = Image.fromarray(labels)
        image.putpalette(list(range(256)) * 3)
        image.save(path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "000001.png: missing"),
        ("stale", "old.png: no test image"),
        ("colour", "mode RGB, not an indexed"),
        ("grey", "mode L, not an indexed"),
        ("jpeg", "is JPEG"),
        ("numbers", "its numbers are not VOC's: predict it with --numbers voc"),
        ("void", "the value 255, the largest is 20"),
        ("size", "is 20 x 12 px, its image 21 x 12"),
        ("cut", "cannot be decoded"),
        ("palette", "palette is not VOC's"),
    ],
)
def test_a_fault_is_named_and_nothing_is_written(voc, tmp_path, how, words):
    damage(tmp_path / "pred", how)
    out = tmp_path / "answer.tgz"
    with pytest.raises(JswsError, match="1 faults") as error:
        pack(tmp_path / "pred", voc, out, count=4)
    assert words in str(error.value) and not out.exists()


def test_a_broken_image_and_a_place_that_takes_no_file(voc, tmp_path):
    (tmp_path / "folder.tgz").mkdir()
    (tmp_path / "file").touch()
    for out in (tmp_path / "folder.tgz", tmp_path / "file/a.tgz"):
        with pytest.raises(JswsError, match="cannot write .*name another place"):
            pack(tmp_path / "pred", voc, out, count=4)
    assert not list(tmp_path.glob(".*"))
    (voc / f"JPEGImages/{IDS[1]}.jpg").write_bytes(b"")
    with pytest.raises(JswsError, match=f"its image .*{IDS[1]}.jpg cannot be read"):
        pack(tmp_path / "pred", voc, tmp_path / "a.tgz", count=4)


def test_all_faults_are_counted_and_ten_are_named(voc, tmp_path):
    for k in range(30):
        write_palette_png(tmp_path / f"pred/old{k:02}.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(JswsError, match="30 faults") as error:
        pack(tmp_path / "pred", voc, tmp_path / "answer.tgz", count=4)
    assert str(error.value).count("\n") == 11 and "and 20 more" in str(error.value)


def test_the_command(voc, tmp_path):
    words = f"submit --pred {tmp_path / 'pred'} --data {tmp_path} --voc VOC2012".split()
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.zip")])
    assert "takes .tgz" in str(answer.exception)
    # A list of another length is not the server's.
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.tgz")])
    assert f"names 4 images, the server expects {COUNT:,}" in str(answer.exception)
    ids = [f"2012_{k:06}" for k in range(COUNT)]
    (voc / "ImageSets/Segmentation/test.txt").write_text("\n".join(ids))
    write_palette_png(tmp_path / "one.png", np.zeros((4, 4), np.uint8))
    Image.new("RGB", (4, 4)).save(tmp_path / "one.jpg")
    for i in ids:
        (voc / f"JPEGImages/{i}.jpg").hardlink_to(tmp_path / "one.jpg")
        (tmp_path / f"full/{i}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"full/{i}.png").hardlink_to(tmp_path / "one.png")
    words[2] = str(tmp_path / "full")
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.tgz")])
    assert answer.exit_code == 0 and "1,456 segmentations" in answer.output
    assert "comp6" in answer.output and "500 characters" in answer.output
