"""Prediction at original size, maps, and pseudo labels of a picture."""

import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from helpers import network
from PIL import Image

from data_utils.errors import JswsError
from data_utils.pictures import read_image
from data_utils.voc import overlay
from jsws_lib.crf import crf_probs
from jsws_lib.experiments import predictions
from jsws_lib.experiments.predictions import save_prediction
from jsws_lib.inference import predict, resize_nearest
from jsws_lib.pseudo_labels import pseudo_label, suppress


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


@pytest.mark.parametrize("batch", [2, 16])
def test_each_picture_becomes_a_square_and_its_answer_as_large_as_it(net, photos, batch):
    for p, photo in zip(predict(net, iter(photos), batch=batch), photos, strict=True):
        square = photo.resize((64, 64), Image.Resampling.BILINEAR)
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
        np.testing.assert_allclose(predict(net, photo).probs, p.probs, atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", None])
def test_only_rgb_pictures_and_networks_in_use(net, photos, mode):
    odd = np.asarray(photos[0]) if mode is None else photos[0].convert(mode)
    with pytest.raises(JswsError, match=r"convert\('RGB'\)"):
        next(predict(net, [odd]))
    net.train()
    with pytest.raises(JswsError, match=r"call net.eval\(\)"):
        predict(net, photos[0])
    net.eval()


def test_a_stream_is_lazy_and_only_squares_wait_for_their_batch(net, photos):
    taken = []

    def source():
        for _ in range(100):
            picture = photos[3].copy()
            taken.append(weakref.ref(picture))
            yield picture

    next(predict(net, source(), batch=4))
    assert len(taken) == 4 and sum(one() is not None for one in taken) <= 1


@pytest.mark.slow
def test_twenty_megapixels_fit_in_two_gigabytes(root, tmp_path):
    """The whole command with its CRF: 1.2 to 1.5 GB measured, PyTorch's libraries in it."""
    Image.new("RGB", (5472, 3648), (90, 120, 60)).save(tmp_path / "large.jpg")
    words = [sys.executable, "-c", "from jsws_lib.cli.main import main; main()", "predict"]
    words += [tmp_path / "large.jpg", "--out", tmp_path / "out", "--crf", "readme"]
    words += ["--checkpoint", root / "checkpoints/mini_MM.safetensors"]
    running = subprocess.Popen(words, cwd=root)
    _, status, used = os.wait4(running.pid, 0)
    assert status == 0 and used.ru_maxrss * 1024 < 2e9
    for name in ("large.png", "large_saliency.png", "large_overlay.png"):
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size == (5472, 3648)


def test_saved_predictions(net, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "BAND", 16)  # of 37 rows
    photo, p = photos[1], predict(net, photos[1])
    save_prediction(p, photo, tmp_path, "a")
    save_prediction(p, photo, tmp_path, "a", plain=True)
    for name, values in {
        "a.png": p.segmentation,
        "segmentation/a.png": p.segmentation,
        "a_saliency.png": (p.sal_map * 255).round(),
        "saliency/a.png": (p.sal_map * 255).round(),
        "a_overlay.png": overlay(np.asarray(photo), p.segmentation),
    }.items():
        with Image.open(tmp_path / name) as written:
            np.testing.assert_array_equal(written, values)


# --- pseudo labels -------------------------------------------------------------------


def test_the_logit_rule_lets_an_absent_class_win():
    """Present ones score below average, so the zeros of absent ones are higher."""

    def winners(logits, rule):
        probs = np.exp(logits) / np.exp(logits).sum()
        maps = np.tile(probs[:, None, None], (1, 4, 4)).astype(np.float32)
        image = np.full((8, 8, 3), 90, np.uint8)
        return set(np.unique(pseudo_label(image, maps, np.eye(20)[0], rule=rule)))

    below = np.full(21, 2.0)
    below[:4] = -0.5, -3, -8, -6
    assert winners(below, "probs") == {0}
    assert not {0, 1} & winners(below, "logits")
    assert winners(6.0 * np.eye(21)[1], "logits") == {1}  # above the mean, it stays
    with pytest.raises(JswsError, match="rule 'logit': choose probs, cam or logits"):
        winners(below, "logit")


def test_labels_of_the_crf_without_absent_categories_are_those_of_all():
    """Nor do maps that are not enlarged change them."""
    rng = np.random.default_rng(1)
    labels = np.zeros(20, np.float32)
    labels[[4, 11]] = 1
    image = rng.integers(0, 256, (24, 31, 3), np.uint8)
    logits = 3 * rng.standard_normal((21, 8, 8))
    probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    large = np.stack(
        [np.asarray(Image.fromarray(p).resize((31, 24), Image.BILINEAR)) for p in probs]
    )
    found = pseudo_label(image, probs, labels, scale=0.1)
    whole = crf_probs(image, suppress(large, labels), scale=0.1).argmax(0)
    assert set(np.unique(found)) == {0, 5, 12} and (found == whole).mean() > 0.995
    nothing = pseudo_label(image, probs, 0 * labels)
    assert not nothing.any() and nothing.dtype == found.dtype == np.uint8
