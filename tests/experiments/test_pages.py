"""Pages of pictures side by side, and the figures of the measures."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from data_utils.errors import JswsError
from data_utils.pictures import read_class_mask
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.cli.main import app
from jsws_lib.engine.checkpoints import shipped
from jsws_lib.experiments import pages
from jsws_lib.experiments.folders import evaluate_segmentation_folder


@pytest.fixture
def world(mini_data, tiny):
    voc = mini_data / tiny.voc
    ids = read_ids(voc / "ImageSets/Segmentation/val.txt")
    return voc / "JPEGImages", voc / "SegmentationClass", ids


def jsws(command, *words):
    return CliRunner().invoke(app, [*command.split(), *map(str, words)])


def test_columns_are_truth_network_and_folder(world, tmp_path, monkeypatch):
    images, masks, ids = world
    drawn, gallery = [], pages.gallery

    def draw(rows, titles, names):
        drawn.append((rows, titles))
        return gallery(rows, titles=titles, names=names)

    monkeypatch.setattr(pages, "gallery", draw)
    monkeypatch.setattr(pages, "ROWS", 3)
    variants = {"M": shipped("mini_M"), "again": masks}
    figures = plt.get_fignums()
    files = pages.write_pages(images, ids[:5], variants, tmp_path / "p.png", masks=masks)
    assert plt.get_fignums() == figures  # forgotten once they are written
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
    page, variants = tmp_path / "q.png", {"M": shipped("mini_M")}
    assert pages.write_pages(images, ids[:1], variants, page, kind="saliency") == [page]
    rows, titles = drawn[-1]
    assert titles == ["image", "M"] and rows[0][1].dtype == np.float32


def test_the_command(world, tmp_path):
    images, masks, ids = world
    (tmp_path / "ids.txt").write_text("\n".join(ids[:2]))
    words = ["page", images, "--list", tmp_path / "ids.txt", "--out", tmp_path / "page.pdf"]
    words.append("--variant")
    answer = jsws(*words, f"truth={masks}")
    assert answer.exit_code == 0 and str(tmp_path / "page.pdf") in answer.output
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert "NAME=FILE" in str(jsws(*words, "nothing").exception)
    assert "no picture at" in str(jsws(*words, f"x={tmp_path}").exception)


def test_figures_of_the_measures(world, tmp_path):
    _, masks, ids = world
    pred, figure = tmp_path / "pred", tmp_path / "matrix.png"
    for i in ids:
        truth = np.asarray(read_class_mask(masks / f"{i}.png"))
        write_palette_png(pred / f"{i}.png", np.where(truth == 255, 0, truth))
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    words = ["evaluate segmentation --json --pred", pred, "--gt", masks]
    answer = jsws(*words, "--list", tmp_path / "ids.txt", "--figure", figure)
    assert json.loads(answer.stdout)["miou"] == 1
    assert figure.stat().st_size > 10_000
    matrix = evaluate_segmentation_folder(pred, masks, ids=ids, progress=False)
    top, bottom, _ = pages.confusion_page(matrix).axes
    assert np.nanmax(np.asarray(top.images[0].get_array())) == 1
    assert len(bottom.patches) >= 5


@pytest.fixture
def maps(tmp_path):
    """The command that measures some maps; `maps(pairs)` writes them."""

    def maps(*pairs):
        for k, pair in enumerate(pairs):
            for name, values in zip(("sal", "mask"), pair, strict=True):
                (tmp_path / name).mkdir(exist_ok=True)
                Image.fromarray(values).save(tmp_path / name / f"{k}.png")
        return "evaluate saliency --pred", tmp_path / "sal", "--gt", tmp_path / "mask"

    return maps


@pytest.mark.parametrize("protocol", ["toolbox", "adaptive"])
def test_curves_and_structure_of_a_folder(maps, tmp_path, protocol):
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 8:30] = 255
    noisy = [(0.7 * mask + rng.uniform(0, 70, mask.shape)).astype(np.uint8) for _ in "abc"]
    words = [*maps(*((sal_map, mask) for sal_map in noisy)), "--structure"]
    words += ["--protocol", protocol, "--figure", tmp_path / "curves.png"]
    answer = jsws(*words, "--json")
    assert answer.exit_code == 0, answer.exception
    record = json.loads(answer.stdout)
    assert record["mean_f"] <= record["max_f"]
    assert 0.5 < record["s_measure"] <= 1 and 0.5 < record["weighted_f"] <= 1
    assert record["mean_e"] <= record["max_e"]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    text = jsws(*words).output
    assert "weighted F" in text and f"({protocol} protocol, 3 images)" in text


EMPTY = 2 * (np.zeros((9, 9), np.uint8),)


def test_what_is_undefined_is_null(maps):
    """An all-zero map: the protocol toolbox leaves its measures undefined."""
    record = json.loads(jsws(*maps(EMPTY), "--json").stdout)
    assert record["max_f"] is None and record["mean_f"] is None


def test_a_place_that_takes_no_figure(maps, tmp_path):
    """It is told after the measures, so that these are not lost."""
    (tmp_path / "taken.png").mkdir()
    for name in ("taken.png", "x.bmp"):
        answer = jsws(*maps(EMPTY), "--json", "--figure", tmp_path / name)
        assert name in str(answer.exception) and "mae" in answer.stdout


def test_no_page_of_nothing(tmp_path):
    with pytest.raises(JswsError, match="the id list is empty"):
        pages.write_pages(tmp_path, [], {}, tmp_path / "p.png")
    with pytest.raises(JswsError, match="name a figure"):
        pages.write_pages(tmp_path, [], {}, tmp_path / "p.bmp")
    with pytest.raises(JswsError, match="name a figure"):
        pages.save_figure(None, tmp_path / "p.bmp")
