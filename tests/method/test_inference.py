"""Prediction at original size, maps, and pseudo labels of a picture."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from helpers import network
from PIL import Image

from data_utils.pictures import read_image
from data_utils.voc import overlay, palette
from jsws_lib.experiments import predictions
from jsws_lib.experiments.predictions import save_prediction
from jsws_lib.inference import predict, resize_nearest, to_grey
from jsws_lib.pseudo_labels import crf_segmentation, pseudo_label


@pytest.fixture(scope="module")
def net():
    return network().eval()


@pytest.fixture(scope="module")
def photos(mini_data):
    """Pictures of odd sizes."""
    files = sorted((mini_data / "ECSSD/images").glob("*.jpg"))[:5]
    sizes = ((64, 64), (101, 37), (30, 77), (128, 96), (9, 9))
    return [read_image(f).resize(s) for f, s in zip(files, sizes, strict=True)]


# --- predict -------------------------------------------------------------------------


def test_a_picture_becomes_a_square_and_the_answer_its_size_again(net, photos):
    for photo in photos:
        p, square = predict(net, photo), photo.resize((64, 64), Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        with torch.no_grad():
            out = net(image)
        np.testing.assert_allclose(p.probs, out.probs[0], atol=1e-4)
        np.testing.assert_allclose(p.class_saliency, out.class_saliency[0], atol=1e-4)
        best = Image.fromarray(p.probs.argmax(0).astype(np.uint8))
        again = best.resize(photo.size, Image.Resampling.NEAREST)
        np.testing.assert_array_equal(p.segmentation, again)
        s = resize_nearest(out.sal_map[0].numpy(), photo.size)
        np.testing.assert_allclose(p.sal_map, s, atol=1e-4)
        assert (p.segmentation.dtype, p.sal_map.dtype) == (np.uint8, np.float32)
        assert p.sal_map.min() >= 0 and p.sal_map.max() <= 1


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
from jsws_lib.cli.main import main
sys.argv = ["jsws", "predict", *sys.argv[1:]]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


@pytest.mark.slow
def test_twenty_megapixels_fit_in_two_gigabytes(root, tmp_path):
    """The whole command with its CRF: 1.2 to 1.5 GB measured, PyTorch's libraries in it."""
    Image.new("RGB", (5472, 3648), (90, 120, 60)).save(tmp_path / "large.jpg")
    weights = root / "checkpoints/mini_MM.safetensors"
    words = [sys.executable, "-c", LARGE, tmp_path / "large.jpg", "--crf", "readme"]
    words += ["--checkpoint", weights, "--out", tmp_path / "out"]
    done = subprocess.run(words, text=True, capture_output=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < 2e9
    assert "saliency refined" in done.stdout
    for name in ("large.png", "large_saliency.png", "large_overlay.png"):
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size == (5472, 3648)


def test_grey_maps_are_rounded_not_cut():
    grey = np.asarray(to_grey(np.array([[0, 0.5, 0.998, 1]], np.float32)))
    assert grey.tolist() == [[0, 128, 254, 255]]


def test_saved_predictions(net, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "BAND", 16)  # of 37 rows
    p = predict(net, photos[1])
    save_prediction(p, photos[1], tmp_path, "a")
    save_prediction(p, photos[1], tmp_path / "plain", "a", plain=True)
    names = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.png")}
    assert names == {
        "a.png",
        "a_saliency.png",
        "a_overlay.png",
        "plain/segmentation/a.png",
        "plain/saliency/a.png",
    }
    for name in ("a.png", "plain/segmentation/a.png"):
        with Image.open(tmp_path / name) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:63] == palette()[:21].flatten().tolist()
            np.testing.assert_array_equal(mask, p.segmentation)
    with Image.open(tmp_path / "a_saliency.png") as grey:
        np.testing.assert_array_equal(grey, (p.sal_map * 255).round())
    with Image.open(tmp_path / "a_overlay.png") as blend:
        np.testing.assert_array_equal(blend, overlay(np.asarray(photos[1]), p.segmentation))


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
    image, probs = toy(6.0 * np.eye(21)[1])  # above the mean of the logits, it stays
    assert np.unique(pseudo_label(image, probs, labels, rule="logits")).tolist() == [1]


def test_maps_of_suppressed_categories_are_not_missed():
    """Enlarging only what the CRF sees gives the label that all 21 maps give."""
    rng = np.random.default_rng(1)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1
    logits = 3 * rng.standard_normal((21, 8, 8)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(0)
    image = rng.integers(0, 256, (24, 31, 3), np.uint8)
    large = np.stack(
        [np.asarray(Image.fromarray(p).resize((31, 24), Image.BILINEAR)) for p in probs]
    )
    found = pseudo_label(image, probs, labels, scale=0.1)
    np.testing.assert_array_equal(found, crf_segmentation(image, large, labels, scale=0.1))
    assert set(np.unique(found)) == {0, 5, 12}
    nothing = pseudo_label(image, probs, np.zeros(20, np.float32))
    assert not nothing.any() and nothing.dtype == np.uint8
