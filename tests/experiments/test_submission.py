"""The archive for the VOC server: complete, checked file by file, the same each time."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_utils.errors import JswsError
from data_utils.voc import palette, write_palette_png
from jsws_lib.cli.main import app
from jsws_lib.experiments import submission
from jsws_lib.experiments.submission import LAYOUT, pack

IDS = [f"2008_{k:06}" for k in range(4)]


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """A `VOC2012` with four test images of two sizes, and a right answer to each."""
    monkeypatch.setattr(submission, "COUNT", 4)
    voc = tmp_path / "VOCdevkit/VOC2012"
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
    assert pack(pred, voc, out) == 4
    with tarfile.open(out) as archive:
        assert archive.getnames() == [f"{LAYOUT}/{i}.png" for i in IDS]
        archive.extractall(tmp_path / "server", filter="data")
    for k, i in enumerate(IDS):
        with Image.open(tmp_path / "server" / LAYOUT / f"{i}.png") as file:
            assert file.mode == "P" and (np.asarray(file) == 5 * k).all()
            assert file.getpalette()[:63] == palette()[:21].ravel().tolist()
    again = tmp_path / "again.tar.gz"
    pack(pred, voc, again)
    assert again.read_bytes() == out.read_bytes()
    assert not list(out.parent.glob(".*"))


LABELS = np.full((12, 21), 5, np.uint8)
GREY, FOREIGN = Image.fromarray(LABELS), Image.fromarray(LABELS)
FOREIGN.putpalette(list(range(256)) * 3)
OTHERS = ["cat", "cow", "dog", "horse", "person"]
# What becomes of the second of the four files, and what is said of it.
DAMAGE = {
    "missing": (Path.unlink, "000001.png: missing"),
    "stale": (
        lambda path: write_palette_png(path.with_name("old.png"), LABELS),
        "old.png: no test image",
    ),
    "colour": (GREY.convert("RGB").save, "mode RGB, not an indexed"),
    "grey": (GREY.save, "mode L, not an indexed"),
    "jpeg": (lambda path: GREY.save(path, format="JPEG"), "is JPEG"),
    "numbers": (
        lambda path: write_palette_png(path, LABELS, names=OTHERS),
        "its numbers are not VOC's: predict it with --numbers voc",
    ),
    "void": (
        lambda path: write_palette_png(path, LABELS * 0 + 255),
        "the value 255, the largest is 20",
    ),
    "size": (
        lambda path: write_palette_png(path, LABELS[:, :20]),
        "is 20 x 12 px, its image 21 x 12",
    ),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:60]), "cannot be decoded"),
    "palette": (FOREIGN.save, "palette is not VOC's"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_fault_is_named_and_nothing_is_written(voc, tmp_path, how):
    spoil, words = DAMAGE[how]
    spoil(tmp_path / f"pred/{IDS[1]}.png")
    out = tmp_path / "answer.tgz"
    with pytest.raises(JswsError, match="1 faults") as error:
        pack(tmp_path / "pred", voc, out)
    assert words in str(error.value) and not out.exists()


def test_a_broken_image_and_a_place_that_takes_no_file(voc, tmp_path):
    (tmp_path / "folder.tgz").mkdir()
    (tmp_path / "file").touch()
    for out in (tmp_path / "folder.tgz", tmp_path / "file/a.tgz"):
        with pytest.raises(JswsError, match="cannot write .*another place"):
            pack(tmp_path / "pred", voc, out)
    assert not list(tmp_path.glob(".*"))
    (voc / f"JPEGImages/{IDS[1]}.jpg").write_bytes(b"")
    with pytest.raises(JswsError, match=f"its image .*{IDS[1]}.jpg cannot be read"):
        pack(tmp_path / "pred", voc, tmp_path / "a.tgz")


def test_all_faults_are_counted_and_ten_are_named(voc, tmp_path):
    for k in range(30):
        write_palette_png(tmp_path / f"pred/old{k:02}.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(JswsError, match="30 faults") as error:
        pack(tmp_path / "pred", voc, tmp_path / "answer.tgz")
    assert str(error.value).count("\n") == 11 and "and 20 more" in str(error.value)


def test_the_command(voc, tmp_path, monkeypatch):
    words = f"submit --pred {tmp_path / 'pred'} --data {tmp_path}".split()
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.zip")])
    assert "takes .tgz" in str(answer.exception)
    words += ["--out", str(tmp_path / "a.tgz")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0 and "4 segmentations" in answer.output
    assert "comp6" in answer.output and "500 characters" in answer.output
    monkeypatch.setattr(submission, "COUNT", 1_456)  # the list is not the server's
    error = str(CliRunner().invoke(app, words).exception)
    assert "names 4 images, the server expects 1,456" in error
