"""Folders of predictions: every file accounted for, any number of processes, by name."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_metrics import measured, pair

from data_utils.errors import JswsError
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.experiments import folders as module
from jsws_lib.experiments.folders import (
    evaluate_saliency_folder,
    evaluate_segmentation_folder,
    evaluate_structure_folder,
)
from jsws_lib.metrics import PROTOCOLS, ConfusionMatrix, f_measure

DIM = [pair(k) for k in (10, 20, 30)]  # maps and masks


def random_segmentation(seed):
    rng = np.random.default_rng(seed)
    target, other = rng.integers(0, 21, (2, 20, 30))
    pred = np.where(rng.random(target.shape) < 0.6, target, other)
    target[rng.random(target.shape) < 0.1] = 255
    return target.astype(np.uint8), pred.astype(np.uint8)


PLACES = [p / "shared/data/metrics_golden" for p in Path(__file__).parents[2:4]]
GOLDEN = next(filter(Path.is_dir, PLACES), PLACES[0]) / "pysodmetrics/examples"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden values are not on this machine")
def test_pysodmetrics_published_values():
    published = json.loads((GOLDEN / "version_performance.json").read_text())["v1_4_1"]
    folders = GOLDEN / "test_data/preds", GOLDEN / "test_data/masks"
    scores = evaluate_saliency_folder(*folders, protocol="pysod", progress=False)
    adaptive = evaluate_saliency_folder(*folders, protocol="adaptive", progress=False)
    assert scores.count == 3
    structure = evaluate_structure_folder(*folders, progress=False)
    found = {
        "MAE": scores.mae,
        "maxFm": scores.max_f,
        "meanFm": scores.f_curve.mean(),
        "adpFm": adaptive.max_f,
        "Smeasure": structure.s_measure,
        "wFmeasure": structure.weighted_f,
        "maxEm": structure.max_e,
        "meanEm": structure.mean_e,
        "adpEm": structure.adaptive_e,
    }
    assert found == pytest.approx({name: published[name] for name in found}, abs=1e-6)
    guide = {"MAE": 0.0370556, "maxFm": 0.5886785, "meanFm": 0.5770511, "adpFm": 0.5816751}
    assert {name: found[name] for name in guide} == pytest.approx(guide, abs=1e-7)
    mean_first = f_measure(scores.precision, scores.recall).max()
    assert mean_first == pytest.approx(0.590096, abs=1e-6)


@pytest.fixture
def folders(tmp_path):
    """pred/ and gt/ of three segmentations, sal/ and mask/ of three saliency maps."""
    for name in "pred", "gt", "sal", "mask":
        (tmp_path / name).mkdir()
    for i in range(3):
        target, pred = random_segmentation(i)
        Image.fromarray(target).save(tmp_path / f"gt/{i}.png")
        write_palette_png(tmp_path / f"pred/{i}.png", pred)
        sal_map, mask = DIM[i]
        Image.fromarray(sal_map).save(tmp_path / f"sal/{i}.png")
        Image.fromarray(mask).convert("1").save(tmp_path / f"mask/{i}.png")
    return tmp_path


def segmentations(folders, **how):
    return evaluate_segmentation_folder(folders / "pred", folders / "gt", **how)


def maps(folders, measure=evaluate_saliency_folder, **how):
    return measure(folders / "sal", folders / "mask", progress=False, **how)


def test_segmentation_folder(folders):
    matrix = ConfusionMatrix()
    for i in range(3):
        matrix.update(*random_segmentation(i))
    np.testing.assert_array_equal(segmentations(folders).matrix, matrix.matrix)
    assert segmentations(folders, ids=["1"]).matrix.sum() < matrix.matrix.sum()
    assert segmentations(folders, absent="zero").compute().absent == "zero"


def test_many_files_are_shared_by_the_cores(folders, monkeypatch):
    asked = []

    def in_parallel(work, jobs, *, workers):
        asked.append(workers)
        return map(work, jobs)

    monkeypatch.setattr(module, "in_parallel", in_parallel)
    monkeypatch.setattr(module, "available_cores", lambda: 7)
    maps(folders)
    monkeypatch.setattr(module, "FEW", 2)
    maps(folders)
    assert asked == [0, 7]


def test_saliency_folder(folders):
    for name in PROTOCOLS:
        found, expected = maps(folders, protocol=name), measured(name, DIM)
        assert found.max_f == pytest.approx(expected.max_f, abs=1e-12)
        assert found.mae == pytest.approx(expected.mae, abs=1e-12)
    (folders / "sal/2.png").unlink()
    Image.fromarray(DIM[2][0]).save(folders / "sal/2.jpg")
    assert maps(folders).count == 3


def test_missing_and_stale_files_are_named(folders):
    pred, gt = folders / "pred", folders / "gt"
    (pred / "1.png").rename(pred / "old.png")
    with pytest.raises(JswsError, match="pred lacks predictions of 1$"):
        segmentations(folders)
    empty = Image.new("L", (30, 20))
    empty.save(pred / "1.png")
    with pytest.raises(JswsError, match="pred holds stale files.* old$"):
        segmentations(folders)
    segmentations(folders, ids=["0", "1"])  # a list says what counts
    with pytest.raises(JswsError, match="gt lacks masks of 9"):
        segmentations(folders, ids=["0", "9"])
    for i in range(100, 113):
        empty.save(gt / f"{i}.png")
    with pytest.raises(JswsError, match="predictions of 100, .*, 109 and 3 more$"):
        segmentations(folders)
    with pytest.raises(JswsError, match="nowhere: no such folder"):
        evaluate_saliency_folder(folders / "nowhere", gt)
    with pytest.raises(JswsError, match="the id list is empty"):
        evaluate_saliency_folder(pred, gt, ids=[])
    with pytest.raises(JswsError, match="the id list names more than once 1$"):
        evaluate_saliency_folder(pred, gt, ids=["0", "1", "1"])
    empty.save(folders / "sal/0.jpg")
    with pytest.raises(JswsError, match="keep only one"):
        maps(folders)


@pytest.mark.parametrize(
    ("file", "image", "words"),
    [
        ("gt/1.png", Image.new("L", (31, 20)), r"1\.png.*30 x 20 px.*31 x 20 px"),
        ("gt/1.png", Image.new("L", (30, 20), 77), r"gt.1\.png holds the value 77"),
        ("pred/1.png", Image.new("L", (30, 20), 21), r"pred.1\.png holds the value 21"),
        ("pred/1.png", Image.new("RGB", (30, 20)), r"pred.1\.png is a RGB picture"),
    ],
)
def test_bad_segmentation_files_are_named(folders, file, image, words):
    image.save(folders / file)
    with pytest.raises(JswsError, match=words):
        segmentations(folders)


def test_bad_saliency_files_are_named(folders):
    Image.new("L", (9, 9)).save(folders / "sal/1.png")
    maps(folders)  # toolbox resizes
    with pytest.raises(JswsError, match=r"sal.1\.png.*mask.1\.png.*map is 9 x 9 px"):
        maps(folders, protocol="pysod")
    whole = (folders / "sal/2.png").read_bytes()
    (folders / "sal/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JswsError, match=r"sal.2\.png cannot be decoded"):
        maps(folders)


def test_lists_of_other_editors(tmp_path):
    (tmp_path / "ids").write_bytes("\ufeff0\r\n1\r\n".encode())
    assert read_ids(tmp_path / "ids") == ["0", "1"]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bits(folders, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    one, two = (maps(folders, workers=k) for k in (0, 2))
    assert (one.mae, one.max_f, one.count) == (two.mae, two.max_f, two.count)
    np.testing.assert_array_equal(one.f_curve, two.f_curve)
    serial, shared = (segmentations(folders, workers=k).matrix for k in (0, 2))
    np.testing.assert_array_equal(serial, shared)
    one, two = (maps(folders, evaluate_structure_folder, workers=k) for k in (0, 2))
    assert one == two and one.count == 3
    Image.new("L", (9, 9)).save(folders / "sal/1.png")
    with pytest.raises(JswsError, match=r"sal.1\.png.*map is 9 x 9 px"):
        maps(folders, protocol="pysod", workers=2)


def test_memory_is_flat_in_the_number_of_images(tmp_path):
    for name in ("sal", "mask"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    peaks = []
    for count in (4, 64):
        for i in range(count):
            sal_map = Image.fromarray(rng.integers(0, 256, (200, 200)).astype(np.uint8))
            for name in ("sal", "mask"):
                sal_map.save(tmp_path / f"{name}/{i}.png", compress_level=0)
        tracemalloc.start()
        evaluate_saliency_folder(tmp_path / "sal", tmp_path / "mask", workers=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200 * 200 * 4  # 60 more maps of 40,000 bytes each
