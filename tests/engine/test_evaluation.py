"""Measuring a network, and labelling the training images with it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import network
from PIL import Image

from data_utils.errors import JswsError
from data_utils.pictures import read_image
from data_utils.real.check import check
from data_utils.voc import VOC_CLASSES, image_labels, read_ids
from jsws_lib.config import PROFILES, STEADY
from jsws_lib.engine import cam, evaluation
from jsws_lib.engine.evaluation import evaluate, measure_segmentation
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.experiments.folders import (
    evaluate_saliency_folder,
    evaluate_segmentation_folder,
)
from jsws_lib.experiments.predictions import save_prediction
from jsws_lib.inference import Prediction, predict, resize_nearest
from jsws_lib.metrics import ConfusionMatrix
from jsws_lib.pseudo_labels import pseudo_label


@pytest.fixture(scope="module")
def net():
    return network().eval()


def test_evaluate_agrees_with_the_folders_it_would_write(net, tiny, mini_data, tmp_path):
    figures = evaluate(net, profile=tiny, recipe=STEADY, crf=True).figures()
    voc = mini_data / tiny.voc
    val = read_ids(voc / "ImageSets/Segmentation/val.txt")
    files = [voc / f"JPEGImages/{name}.jpg" for name in val]
    for out, some in (("a", files), ("b", (mini_data / tiny.test_images).glob("*.jpg"))):
        for file in some:
            image = read_image(file)
            given = (predict(net, image), image, tmp_path / out, file.stem)
            save_prediction(*given, plain=True)
    folders = (tmp_path / "a/segmentation", voc / "SegmentationClass")
    seg = evaluate_segmentation_folder(*folders, ids=val, absent="target", progress=False)
    folders = (tmp_path / "b/saliency", mini_data / tiny.test_masks)
    sal = evaluate_saliency_folder(*folders, progress=False)
    assert figures["miou"] == pytest.approx(seg.compute().miou, abs=1e-3)
    assert figures["mae"] == pytest.approx(sal.mae, abs=1e-3)
    assert figures["max_f"] == pytest.approx(sal.max_f, abs=1e-3)
    assert set(figures) == {"miou", "mae", "max_f", "mae_crf", "max_f_crf"}
    bare = evaluate(net, profile=tiny, recipe=STEADY, sam=False).figures()
    assert bare["miou"] == figures["miou"] and bare["mae"] != figures["mae"]


SOME = ("sheep", "unicorn", "person", "horse", "dog", "cow", "cat", "aeroplane")


def test_a_network_of_other_categories_is_measured_by_their_names(
    tiny, mini_data, tmp_path
):
    """Seven of VOC's in another order, and one that the data do not know."""
    net = network(2, categories=len(SOME)).eval()
    every = [*VOC_CLASSES, "unicorn"]
    by_hand, voc = ConfusionMatrix(len(every)), mini_data / tiny.voc
    ids = read_ids(voc / "ImageSets/Segmentation/val.txt")
    for name in ids:
        image = read_image(voc / f"JPEGImages/{name}.jpg")
        prediction = predict(net, image)
        save_prediction(prediction, image, tmp_path, name, names=SOME, plain=True)
        made = np.zeros_like(prediction.segmentation)
        for k, category in enumerate(SOME, 1):
            made[prediction.segmentation == k] = every.index(category)
        by_hand.update(np.asarray(Image.open(voc / f"SegmentationClass/{name}.png")), made)
    assert len(np.flatnonzero(by_hand.matrix.sum(0))) > 3
    folders = tmp_path / "segmentation", voc / "SegmentationClass"
    for found in (
        measure_segmentation(net, tiny, known=SOME),
        evaluate_segmentation_folder(*folders, ids=ids, absent="target", progress=False),
    ):
        np.testing.assert_array_equal(found.matrix, by_hand.matrix)
        unknown = found.unknown()
        lost = [VOC_CLASSES.index(name) for name in unknown["unknown"]]
        assert lost and not set(SOME) & set(unknown["unknown"])
        share = by_hand.matrix[lost].sum() / by_hand.matrix.sum()
        assert unknown["unknown_pixels"] == pytest.approx(share)
        scores = found.compute()
        assert (scores.iou[lost] == 0).all() and np.isnan(scores.iou[-1])
        rest = np.nanmean(np.delete(scores.iou, lost))
        assert unknown["miou_known"] == pytest.approx(rest) and rest > scores.miou
    strange = [f"{name} of mine" for name in SOME]
    with pytest.raises(JswsError, match="not one name is in both"):
        measure_segmentation(net, tiny, known=strange)


def test_graded_masks_are_cut_by_the_protocol(net, tiny, own_data):
    """`toolbox` calls a tenth of full scale salient; half of it is not asked for."""
    profile = replace(tiny, data=own_data)
    crisp = evaluate(net, profile=profile, recipe=STEADY).figures()
    assert crisp["max_f"] > 0
    for grades in (np.arange(60, 250, 3), [42, 106]):
        for path in (own_data / "ECSSD/ground_truth_mask").glob("*.png"):
            mask = np.asarray(Image.open(path).convert("L"))
            ramp = np.resize(grades, mask.shape[1]).astype(np.uint8)
            Image.fromarray((mask > 0) * ramp).save(path)
        assert evaluate(net, profile=profile, recipe=STEADY).figures() == crisp
        verdict = next(v for v in check(own_data) if v.name == "ECSSD")
        assert "grey" in verdict.findings and "refused" not in verdict.findings


@pytest.fixture(scope="module")
def written(net, mini_data, tmp_path_factory):
    """Pseudo labels of 64 px images, made without processes."""
    profile = replace(PROFILES["mini"], data=mini_data, size=64)
    out = tmp_path_factory.mktemp("pseudo") / "out"
    make_pseudo_labels(net, profile=profile, recipe=STEADY, out=out, workers=0)
    return profile, out


def test_pseudo_labels_are_palette_pngs_of_present_classes(net, written):
    profile, out = written
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")
    assert {p.name for p in out.iterdir()} == {f"{i}.png" for i in ids}
    for name in ids:
        image, labels = (voc / f"JPEGImages/{name}.jpg", voc / f"Annotations/{name}.xml")
        image, labels = read_image(image), image_labels(labels)
        how = {"preset": STEADY.crf, "scale": profile.crf_scale}
        right = pseudo_label(np.asarray(image), predict(net, image).probs, labels, **how)
        with Image.open(out / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (64, 64))
            assert set(np.unique(mask)) <= {0, *np.flatnonzero(labels) + 1}
            assert np.mean(np.asarray(mask) == right) > 0.99  # another size of batch


def test_pseudo_labels_do_not_depend_on_workers(net, written, tmp_path):
    profile, done = written
    out = make_pseudo_labels(net, profile=profile, recipe=STEADY, out=tmp_path, workers=2)
    assert {p.name for p in out.iterdir()} == {p.name for p in done.iterdir()}
    for path in done.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_pseudo_labels_resume(net, written, tmp_path):
    profile, done = written
    shutil.copy(done.with_name("out.source"), tmp_path / "labels.source")
    out = shutil.copytree(done, tmp_path / "labels")
    files = sorted(out.iterdir())
    for k, path in enumerate(files):
        path.unlink() if k < 2 else path.write_bytes(b"there already")
    make_pseudo_labels(net, profile=profile, recipe=STEADY, out=out, workers=0)
    assert sorted(out.iterdir()) == files
    kept = [path.read_bytes() == b"there already" for path in files]
    assert kept == [k >= 2 for k in range(len(files))]


# --- other read-outs -----------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(mini_data):
    return read_image(min((mini_data / "ECSSD/images").glob("*.jpg"))).resize((128, 96))


def test_the_crf_sees_no_more_pixels_than_its_memory_allows(photo, monkeypatch):
    seen = []

    def crf(image, sal_map, *, preset, scale):
        seen.append((image.shape[:2], sal_map.shape, preset, scale))
        return sal_map

    monkeypatch.setattr(evaluation, "crf_saliency", crf)
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(96, 0)
    same = evaluation.refine_saliency(photo, ramp, preset="seam", scale=0.5)
    np.testing.assert_array_equal(same, ramp)
    monkeypatch.setattr(evaluation, "CRF_PIXELS", 128 * 96 // 4)
    refined = evaluation.refine_saliency(photo, ramp, preset="seam", scale=0.5)
    assert seen == [((96, 128), (96, 128), "seam", 0.5), ((48, 64), (48, 64), "seam", 0.25)]
    assert refined.shape == (96, 128) and refined.dtype == np.float32
    assert np.abs(refined - ramp).max() < 0.02


def test_without_the_sam_everything_but_background_is_salient(net, photo):
    p = predict(net, photo)
    wanted = resize_nearest(1 - p.probs[0], photo.size)
    np.testing.assert_array_equal(evaluation.without_sam(p), wanted)
    assert (evaluation.without_sam(p) >= p.sal_map - 1e-6).all()  # no v is above 1


def by_hand(logits, size):
    """A prediction of which only the logits and the picture's size are looked at."""
    empty = np.zeros(size, np.uint8)
    return Prediction(empty, empty.astype(np.float32), None, None, logits)


def test_a_cam_compares_a_category_with_itself():
    """Category 1 is four times category 2; 3 is no label; channel 0, background, is out."""
    logits = np.zeros((4, 2, 4), np.float32)
    logits[0], logits[3] = 9, 5
    logits[1, :, 0], logits[1, :, 1], logits[1, :, 2] = 4, 1, -7
    logits[2, :, 3], logits[2, :, 2] = 1, 0.5
    labels = np.array([1, 1, 0], np.float32)
    p = by_hand(logits, (2, 4))
    cams = cam.class_activation_maps(p, labels)
    np.testing.assert_allclose(cams[0, 0], [1, 0.25, 0, 0])
    np.testing.assert_allclose(cams[1, 0], [0, 0, 0.5, 1])
    assert not cams[2].any()
    low, high = (cam.cam_segmentation(cams, threshold=t) for t in (0.2, 0.6))
    assert low.tolist() == [[1, 1, 2, 2]] * 2 and low.dtype == np.uint8
    assert high.tolist() == [[1, 0, 0, 2]] * 2
    unlabelled = cam.class_activation_maps(p, 0 * labels)
    assert not cam.cam_segmentation(unlabelled, threshold=0.2).any()
    scores = cam.cam_scores(cams)
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-6)
    at_threshold = cam.cam_segmentation(cams, threshold=cam.CAM_THRESHOLD)
    np.testing.assert_array_equal(scores.argmax(0), at_threshold)
    nothing = by_hand(np.minimum(logits, 0), (6, 5))  # no evidence at all
    cams = cam.class_activation_maps(nothing, labels)
    found = cam.cam_segmentation(cams, threshold=0.2)
    assert found.shape == (6, 5) and not found.any()
