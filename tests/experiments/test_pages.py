"""Pages of pictures side by side, and the figures of the measures."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from data_utils.errors import JswsError
from data_utils.pictures import read_class_mask, read_image
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.cli.main import app
from jsws_lib.engine.checkpoints import shipped
from jsws_lib.experiments import pages
from jsws_lib.experiments.folders import evaluate_segmentation_folder


@pytest.fixture
def world(mini_data, tiny):
    voc = mini_data / tiny.voc
    return voc, read_ids(voc / "ImageSets/Segmentation/val.txt")


def test_columns_are_truth_network_and_folder(world, tmp_path, monkeypatch):
    voc, ids = world
    drawn, gallery = [], pages.gallery

    def draw(rows, titles, names):
        drawn.append((rows, titles))
        return gallery(rows, titles=titles, names=names)

    monkeypatch.setattr(pages, "gallery", draw)
    masks = voc / "SegmentationClass"
    variants = {"M": shipped("mini_M"), "again": masks}
    files = pages.write_pages(
        voc / "JPEGImages", ids[:5], variants, tmp_path / "p.png", masks=masks, rows=3
    )
    assert [f.name for f in files] == ["p_01.png", "p_02.png"]
    assert [len(rows) for rows, _ in drawn] == [3, 2]
    rows, titles = drawn[0]
    assert titles == ["image", "ground truth", "M", "again"]
    for row in rows:
        np.testing.assert_array_equal(row[1], row[3])
        assert row[2].dtype == np.uint8 and row[2].shape == row[0].shape[:2]
        assert (row[2] != row[1]).any()  # predicted, not copied
    with Image.open(files[0]) as one:
        assert one.width > 300
    files = pages.write_pages(
        voc / "JPEGImages", ids[:1], {"M": variants["M"]}, tmp_path / "q.png", kind="both"
    )
    assert [f.name for f in files] == ["q.png"]
    rows, titles = drawn[-1]
    assert titles == ["image", "M", "M"]
    assert rows[0][1].dtype == np.uint8 and rows[0][2].dtype == np.float32


def test_the_command(world, tmp_path):
    voc, ids = world
    (tmp_path / "ids.txt").write_text("\n".join(ids[:2]))
    words = f"page {voc / 'JPEGImages'} --list {tmp_path / 'ids.txt'}".split()
    words += f"--out {tmp_path / 'page.pdf'} --variant".split()
    answer = CliRunner().invoke(app, [*words, f"truth={voc / 'SegmentationClass'}"])
    assert answer.exit_code == 0 and str(tmp_path / "page.pdf") in answer.output
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert "NAME=FILE" in str(CliRunner().invoke(app, [*words, "nothing"]).exception)
    answer = CliRunner().invoke(app, [*words, f"x={tmp_path}"])
    assert "no picture at" in str(answer.exception)


def test_figures_of_the_measures(world, tmp_path):
    voc, ids = world
    masks, pred = voc / "SegmentationClass", tmp_path / "pred"
    for i in ids:
        truth = np.asarray(read_class_mask(masks / f"{i}.png"))
        write_palette_png(pred / f"{i}.png", np.where(truth == 255, 0, truth))
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    words = f"evaluate segmentation --pred {pred} --gt {masks} --json".split()
    words += f"--list {tmp_path / 'ids.txt'} --figure {tmp_path / 'matrix.png'}".split()
    answer = CliRunner().invoke(app, words)
    assert json.loads(answer.stdout)["miou"] == 1
    assert (tmp_path / "matrix.png").stat().st_size > 10_000
    matrix = evaluate_segmentation_folder(pred, masks, ids=ids, progress=False)
    top, bottom, _ = pages.confusion_page(matrix).axes
    assert np.nanmax(np.asarray(top.images[0].get_array())) == 1
    assert len(bottom.patches) >= 5


@pytest.mark.parametrize("protocol", ["toolbox", "adaptive"])
def test_curves_and_structure_of_a_folder(tmp_path, protocol):
    rng = np.random.default_rng(0)
    for k in range(3):
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 8:30] = 255
        sal_map = (0.7 * mask + rng.uniform(0, 70, mask.shape)).astype(np.uint8)
        for name, picture in (("sal", sal_map), ("mask", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / f"{name}/{k}.png")
    words = f"evaluate saliency --pred {tmp_path / 'sal'} --gt {tmp_path / 'mask'}".split()
    words += f"--protocol {protocol} --structure --curves".split()
    words += ["--figure", str(tmp_path / "curves.png")]
    answer = CliRunner().invoke(app, [*words, "--json"])
    assert answer.exit_code == 0, answer.exception
    record = json.loads(answer.stdout)
    assert len(record["f_curve"]) == (256 if protocol == "toolbox" else 1)
    assert max(record["f_curve"]) == pytest.approx(record["max_f"])
    assert 0.5 < record["s_measure"] <= 1 and 0.5 < record["weighted_f"] <= 1
    assert record["mean_e"] <= record["max_e"]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    text = CliRunner().invoke(app, words).output
    assert "weighted F" in text and f"({protocol} protocol, 3 images)" in text


@pytest.fixture
def maps(tmp_path):
    """One all-zero map: the protocol toolbox leaves its measures undefined."""
    for name in ("sal", "mask"):
        (tmp_path / name).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / name / "0.png")
    return f"evaluate saliency --pred {tmp_path / 'sal'} --gt {tmp_path / 'mask'}".split()


def no_constant(name):
    raise AssertionError(f"JSON has no {name}")


def test_what_is_undefined_is_null(maps):
    answer = CliRunner().invoke(app, [*maps, "--curves", "--json"])
    record = json.loads(answer.stdout, parse_constant=no_constant)
    assert record["max_f"] is None and record["precision"] == [None] * 256


def test_a_place_for_a_figure_is_looked_at_first(maps, tmp_path, monkeypatch):
    from jsws_lib.experiments import folders

    (tmp_path / "taken.png").mkdir()
    answer = CliRunner().invoke(
        app, [*maps, "--json", "--figure", str(tmp_path / "taken.png")]
    )
    assert not answer.stdout and "taken.png" in str(answer.exception)  # at once
    monkeypatch.setattr(folders, "evaluate_saliency_folder", None)  # nothing is measured
    answer = CliRunner().invoke(app, [*maps, "--figure", str(tmp_path / "x.bmp")])
    assert "name a figure" in str(answer.exception)


def test_a_picture_of_a_camera_held_sideways(tmp_path):
    for name in ("img", "out"):
        (tmp_path / name).mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter
    picture = Image.new("RGB", (60, 40), "red")
    picture.paste("blue", (0, 0, 30, 40))
    picture.save(tmp_path / "img/0.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "img/0.jpg")
    assert upright.size == (40, 60) and upright.getpixel((5, 5))[2] > 200
    words = f"predict {tmp_path / 'img'} --checkpoint {shipped('mini_M')}".split()
    words += ["--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 0
    sizes = {Image.open(path).size for path in (tmp_path / "out").iterdir()}
    assert sizes == {(40, 60)}
    pages.write_pages(tmp_path / "img", ["0"], {"x": tmp_path / "out"}, tmp_path / "p.png")


def test_pages_are_forgotten_once_they_are_written(world, tmp_path):
    voc, ids = world
    before = plt.get_fignums()
    pages.write_pages(
        voc / "JPEGImages",
        ids[:3],
        {"x": voc / "SegmentationClass"},
        tmp_path / "p.png",
        rows=1,
    )
    assert plt.get_fignums() == before


def test_no_page_of_nothing(tmp_path):
    with pytest.raises(JswsError, match="the id list is empty"):
        pages.write_pages(tmp_path, [], {}, tmp_path / "p.png")
    with pytest.raises(JswsError, match="name a figure"):
        pages.write_pages(tmp_path, [], {}, tmp_path / "p.bmp")
    with pytest.raises(JswsError, match="name a figure"):
        pages.save_figure(None, tmp_path / "p.bmp")
