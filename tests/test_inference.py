"""Prediction at original size, pseudo labels, and what both write."""

import subprocess
import sys
import weakref
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data_utils.datasets import read_image
from data_utils.errors import JswsError
from data_utils.voc import image_labels, palette, read_ids
from jsws_lib import inference
from jsws_lib.config import STEADY
from jsws_lib.crf import crf_segmentation
from jsws_lib.folders import evaluate_saliency_folder, evaluate_segmentation_folder
from jsws_lib.inference import (
    evaluate,
    predict,
    resize_nearest,
    save_plain,
    save_prediction,
    to_grey,
)
from jsws_lib.pictures import overlay
from jsws_lib.pseudo_labels import make_pseudo_labels, pseudo_label
from jsws_lib.ssnet import build_ssnet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_ssnet(1, backbone="densenet_mini", size=64, recipe=STEADY).eval()


@pytest.fixture(scope="module")
def photos(mini_data):
    """Pictures of odd sizes."""
    files = sorted((mini_data / "ECSSD/images").glob("*.jpg"))[:5]
    sizes = ((64, 64), (101, 37), (30, 77), (128, 96), (9, 9))
    return [read_image(f).resize(s) for f, s in zip(files, sizes, strict=True)]


# --- predict -------------------------------------------------------------------------


def test_results_have_the_pictures_size(net, photos):
    for photo in photos:
        p = predict(net, photo)
        size = photo.size[::-1]
        assert p.segmentation.shape == p.sal_map.shape == size
        assert (p.segmentation.dtype, p.sal_map.dtype) == (np.uint8, np.float32)
        assert p.segmentation.max() <= 20
        assert p.sal_map.min() >= 0 and p.sal_map.max() <= 1
        assert (p.probs.shape, p.class_saliency.shape) == ((21, 64, 64), (20,))
        np.testing.assert_allclose(p.probs.sum(0), 1, atol=1e-5)


def test_results_return_to_size_by_nearest(net, photos):
    p = predict(net, photos[1])
    best = Image.fromarray(p.probs.argmax(0).astype(np.uint8))
    again = best.resize(photos[1].size, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(p.segmentation, again)
    s = (p.class_saliency[:, None, None] * p.probs[1:]).sum(0)
    expected = resize_nearest(s.astype(np.float32), photos[1].size)
    np.testing.assert_allclose(p.sal_map, expected, atol=1e-5)


def test_a_stream_keeps_order_and_batches_change_nothing(net, photos):
    alone = [predict(net, photo) for photo in photos]
    for batch in (2, 5, 16):
        together = list(predict(net, iter(photos), batch=batch))
        assert len(together) == len(photos)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a.probs, b.probs, atol=1e-4)
            np.testing.assert_allclose(a.sal_map, b.sal_map, atol=1e-4)
    assert list(predict(net, [])) == []


def test_a_stream_is_lazy(net, photos):
    taken = []

    def source():
        for k in range(100):
            taken.append(k)
            yield photos[0]

    next(predict(net, source(), batch=3))
    assert len(taken) <= 4


def test_only_squares_wait_for_their_batch(net, photos):
    alive = []

    def source():
        for _ in range(4):
            picture = photos[3].copy()
            alive.append(weakref.ref(picture))
            yield picture

    stream = predict(net, source(), batch=4)
    next(stream)
    assert len(alive) == 4 and sum(one() is not None for one in alive) <= 1


LARGE = """
import resource, sys
from jsws_lib.cli import main
sys.argv = ["jsws", "predict", *sys.argv[1:]]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


def test_twenty_megapixels_fit_in_two_gigabytes(root, tmp_path):
    """The whole command with its CRF: 1.2 to 1.5 GB measured, PyTorch's libraries in it."""
    Image.new("RGB", (5472, 3648), (90, 120, 60)).save(tmp_path / "large.jpg")
    weights = root / "checkpoints/mini_MM.safetensors"
    words = [tmp_path / "large.jpg", "--checkpoint", weights, "--out", tmp_path / "out",
             "--crf", "readme"]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", LARGE, *map(str, words)], text=True,
                          capture_output=True, cwd=root)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < 2e9
    assert "saliency refined" in done.stdout
    for name in ("large.png", "large_saliency.png", "large_overlay.png"):
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size == (5472, 3648)


def test_the_crf_sees_no_more_pixels_than_its_memory_allows(photos, monkeypatch):
    seen = []

    def crf(image, sal_map, *, preset, scale):
        seen.append((image.shape[:2], sal_map.shape, preset, scale))
        return sal_map

    monkeypatch.setattr(inference, "crf_saliency", crf)
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(96, 0)
    same = inference.refine_saliency(photos[3], ramp, preset="seam", scale=0.5)
    np.testing.assert_array_equal(same, ramp)
    monkeypatch.setattr(inference, "CRF_PIXELS", 128 * 96 // 4)
    refined = inference.refine_saliency(photos[3], ramp, preset="seam", scale=0.5)
    assert seen == [((96, 128), (96, 128), "seam", 0.5), ((48, 64), (48, 64), "seam", 0.25)]
    assert refined.shape == (96, 128) and refined.dtype == np.float32
    assert np.abs(refined - ramp).max() < 0.02


def test_grey_maps_are_rounded_not_cut():
    grey = np.asarray(to_grey(np.array([[0, 0.5, 0.998, 1]], np.float32)))
    assert grey.tolist() == [[0, 128, 254, 255]]


def test_saved_predictions(net, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "BAND", 16)  # of 37 rows
    p = predict(net, photos[1])
    save_prediction(p, photos[1], tmp_path, "a")
    save_plain(p, photos[1], tmp_path / "plain", "a")
    names = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.png")}
    assert names == {"a.png", "a_saliency.png", "a_overlay.png",
                     "plain/segmentation/a.png", "plain/saliency/a.png"}  # fmt: skip
    for name in ("a.png", "plain/segmentation/a.png"):
        with Image.open(tmp_path / name) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:63] == palette()[:21].flatten().tolist()
            np.testing.assert_array_equal(mask, p.segmentation)
    with Image.open(tmp_path / "a_saliency.png") as grey:
        np.testing.assert_array_equal(grey, (p.sal_map * 255).round())
    with Image.open(tmp_path / "a_overlay.png") as blend:
        np.testing.assert_array_equal(blend, overlay(np.asarray(photos[1]), p.segmentation))


# --- evaluate ------------------------------------------------------------------------


def test_evaluate_agrees_with_the_folders_it_would_write(net, tiny, mini_data, tmp_path):
    figures = evaluate(net, profile=tiny, recipe=STEADY, crf=True).figures()
    voc = mini_data / tiny.voc
    for k, folder in enumerate((voc / "JPEGImages", mini_data / tiny.test_images)):
        val = read_ids(voc / "ImageSets/Segmentation/val.txt")
        ids = val if k == 0 else [f.stem for f in folder.glob("*.jpg")]
        for name in ids:
            image = read_image(folder / f"{name}.jpg")
            save_plain(predict(net, image), image, tmp_path / str(k), name)
    seg = evaluate_segmentation_folder(
        tmp_path / "0/segmentation", voc / "SegmentationClass", ids=val, absent="target",
        progress=False,
    )  # fmt: skip
    sal = evaluate_saliency_folder(
        tmp_path / "1/saliency", mini_data / tiny.test_masks, progress=False
    )
    assert figures["miou"] == pytest.approx(seg.compute().miou, abs=1e-3)
    assert figures["mae"] == pytest.approx(sal.mae, abs=1e-3)
    assert figures["max_f"] == pytest.approx(sal.max_f, abs=1e-3)
    assert set(figures) == {"miou", "mae", "max_f", "mae_crf", "max_f_crf"}


def test_evaluate_refuses_bad_masks(net, tiny, own_data):
    profile = replace(tiny, data=own_data)
    masks = own_data / tiny.voc / "SegmentationClass"
    path = sorted(masks.glob("*.png"))[0]
    for bad, words in ((Image.new("L", (64, 64), 77), "value 77"),
                       (Image.new("L", (64, 60)), "64 x 60 px")):  # fmt: skip
        bad.save(path)
        with pytest.raises(JswsError, match=rf"{path.name}.*{words}"):
            evaluate(net, profile=profile, recipe=STEADY)


# --- pseudo labels -------------------------------------------------------------------


def toy(logits):
    """One pixel's logits everywhere, and a flat image."""
    probs = np.exp(logits) / np.exp(logits).sum()
    image = np.full((8, 8, 3), 90, np.uint8)
    return image, np.tile(probs[:, None, None], (1, 4, 4)).astype(np.float32)


def test_the_logit_rule_lets_an_absent_class_win():
    """Present ones score below average, so the zeros of absent ones are higher."""
    logits = np.full(21, 2.0)
    logits[:4] = -0.5, -3, -8, -6
    labels = np.zeros(20)
    labels[0] = 1
    image, probs = toy(logits)
    assert np.unique(pseudo_label(image, probs, labels, rule="probs")).tolist() == [0]
    winners = np.unique(pseudo_label(image, probs, labels, rule="logits"))
    assert not {0, 1} & set(winners.tolist())


def test_maps_of_suppressed_categories_are_not_missed():
    """Enlarging only what the CRF sees gives the label that all 21 maps give."""
    rng = np.random.default_rng(1)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1
    logits = 3 * rng.standard_normal((21, 8, 8)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(0)
    image = rng.integers(0, 256, (24, 31, 3), np.uint8)
    large = np.stack([np.asarray(Image.fromarray(p).resize((31, 24), Image.BILINEAR))
                      for p in probs])  # fmt: skip
    found = pseudo_label(image, probs, labels, scale=0.1)
    np.testing.assert_array_equal(found, crf_segmentation(image, large, labels, scale=0.1))
    assert set(np.unique(found)) == {0, 5, 12}
    nothing = pseudo_label(image, probs, np.zeros(20, np.float32))
    assert not nothing.any() and nothing.dtype == np.uint8


def test_no_absent_class_under_the_probability_rule():
    rng = np.random.default_rng(0)
    for k in range(5):
        labels = np.zeros(20)
        labels[rng.choice(20, 1 + k % 3, replace=False)] = 1
        logits = 3 * rng.standard_normal((21, 8, 8))
        probs = np.exp(logits) / np.exp(logits).sum(0)
        image = rng.integers(0, 256, (24, 31, 3), np.uint8)
        found = pseudo_label(image, probs.astype(np.float32), labels, scale=0.1)
        assert found.shape == (24, 31)
        assert set(np.unique(found)) <= {0, *(np.flatnonzero(labels) + 1)}


@pytest.fixture(scope="module")
def written(net, mini_data, tmp_path_factory):
    """Pseudo labels of 64 px images, made without processes."""
    from jsws_lib.config import PROFILES

    profile = replace(PROFILES["mini"], data=mini_data, size=64)
    out = tmp_path_factory.mktemp("pseudo") / "out"
    make_pseudo_labels(net, profile=profile, recipe=STEADY, out=out, workers=0)
    return profile, out


def test_pseudo_labels_are_palette_pngs_of_present_classes(written):
    profile, out = written
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")
    assert {p.name for p in out.iterdir()} == {f"{i}.png" for i in ids}
    for name in ids:
        with Image.open(out / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (64, 64))
            present = np.flatnonzero(image_labels(voc / f"Annotations/{name}.xml")) + 1
            assert set(np.unique(mask)) <= {0, *present}


def test_pseudo_labels_do_not_depend_on_workers(net, written, tmp_path):
    profile, done = written
    out = make_pseudo_labels(net, profile=profile, recipe=STEADY, out=tmp_path, workers=2)
    assert {p.name for p in out.iterdir()} == {p.name for p in done.iterdir()}
    for path in done.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_pseudo_labels_resume(net, written, tmp_path):
    profile, done = written
    files, out = sorted(done.iterdir()), tmp_path / "labels"
    kwargs = dict(profile=profile, recipe=STEADY, out=out, workers=0)
    make_pseudo_labels(net, **kwargs)
    for path in files[:2]:
        (out / path.name).unlink()
    for path in files[2:]:
        (out / path.name).write_bytes(b"there already")
    make_pseudo_labels(net, **kwargs)
    assert {p.name for p in out.iterdir()} == {p.name for p in files}
    for path in files:
        data = (out / path.name).read_bytes()
        assert (data == b"there already") == (path in files[2:])


def test_labels_of_another_network_or_crf_are_not_taken_for_these(net, written, tmp_path):
    profile, _ = written
    kwargs = dict(profile=profile, out=tmp_path / "labels", workers=0)
    make_pseudo_labels(net, recipe=STEADY, **kwargs)
    with pytest.raises(JswsError, match="labels holds pseudo labels of another network"):
        make_pseudo_labels(net, recipe=replace(STEADY, crf="deeplab"), **kwargs)
    other = deepcopy(net)
    other.sn.head.bias.data += 1e-3
    with pytest.raises(JswsError, match="choose another folder, or delete this one"):
        make_pseudo_labels(other, recipe=STEADY, **kwargs)



def test_graded_masks_are_cut_by_the_protocol(net, tiny, own_data):
    """`toolbox` calls a tenth of full scale salient; half of it is not asked for."""
    profile = replace(tiny, data=own_data)
    crisp = evaluate(net, profile=profile, recipe=STEADY).figures()
    for path in (own_data / "ECSSD/ground_truth_mask").glob("*.png"):
        mask = np.asarray(Image.open(path).convert("L"))
        Image.fromarray((mask > 127).astype(np.uint8) * 60).save(path)
    graded = evaluate(net, profile=profile, recipe=STEADY).figures()
    assert crisp["max_f"] > 0
    assert graded == crisp
