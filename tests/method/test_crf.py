"""The dense CRF wrapper against brute force, and the suppression rule."""

import multiprocessing
import sys
import warnings

import numpy as np
import pytest
from helpers import refuses
from PIL import Image

from data_utils.embedded.mini import render
from jsws_lib import crf
from jsws_lib.crf import CRF_PRESETS, CRFPreset, crf_probs, crf_saliency
from jsws_lib.pseudo_labels import crf_segmentation, suppress


def softmax(logits):
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0)


def noisy_disc(size, seed, *, channels=3, noise=1.0):
    """A textured disc, its mask, and soft scores that know the disc only roughly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    disc = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 3) ** 2
    image = np.where(disc[..., None], [180, 90, 60], [70, 110, 150])
    image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    logits = rng.normal(0, noise, (channels, size, size))
    logits[0] += ~disc
    logits[1] += 1.5 * disc
    return image, disc, softmax(logits).astype(np.float32)


def mean_field(image, probs, preset, *, scale=1.0):
    """Brute force: all N x N pairs, in float64, symmetric kernel normalisation.

    Like the reference algorithm, it lets a pixel send a message to itself.
    """
    count, height, width = probs.shape
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2)
    colour = image.reshape(-1, 3) / preset.bilateral_srgb

    def kernel(features):
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        weights = np.exp(-distance / 2)
        norm = 1 / np.sqrt(weights.sum(1))
        return norm[:, None] * weights * norm

    smooth = kernel(place / preset.gauss_sxy)
    near = kernel(np.hstack([place / (preset.bilateral_sxy * scale), colour]))
    log_unary = np.log(np.clip(probs, 1e-5, 1)).reshape(count, -1).astype(float)
    q = softmax(log_unary)
    for _ in range(preset.iterations):
        message = preset.gauss_compat * q @ smooth + preset.bilateral_compat * q @ near
        q = softmax(log_unary + message)
    return q.reshape(probs.shape)


# Mild weights: strong ones drive every probability to 0 or 1 and hide a wrong kernel.
PROBE = CRFPreset(1.5, 1, 4, 40, 1, 3)


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.setitem(CRF_PRESETS, "probe", PROBE)
    return "probe"


@pytest.fixture
def hidden(monkeypatch):
    """No pydensecrf, as on a machine where it did not compile; the warning not shown."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    crf.pydensecrf.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crf.pydensecrf()
    yield
    crf.pydensecrf.cache_clear()


@pytest.fixture(params=["pydensecrf", "PyTorch"])
def either(request):
    """Run a test with the library, and without."""
    if request.param == "PyTorch":
        request.getfixturevalue("hidden")
    else:
        pytest.importorskip("pydensecrf")


# Both filter on a permutohedral lattice, an approximation: over these cases it
# is at most .020 off at one pixel and .0020 on average. A wrong setting of the kernels
# moves the average by more: `make mutants` swaps some.
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_crf_equals_brute_force_mean_field(either, probe, seed, scale):
    image, _, probs = noisy_disc(16, seed)
    fast = crf_probs(image, probs, preset=probe, scale=scale)
    slow = mean_field(image, probs, PROBE, scale=scale)
    assert fast.dtype == np.float32 and fast.shape == probs.shape
    assert np.abs(fast - slow).max() < 0.03
    assert np.abs(fast - slow).mean() < 0.0025
    assert (fast.argmax(0) == slow.argmax(0)).mean() > 0.98
    assert np.allclose(fast.sum(0), 1, atol=1e-5)


def test_presets_are_the_published_ones():
    table = {
        "readme": (3, 3, 80, 13, 10, 5, None),
        "seam": (3, 3, 80, 13, 10, 10, None),
        "irn": (3, 3, 50, 5, 10, 10, 0.7),
        "deeplab": (1, 3, 67, 3, 4, 10, None),
        "oaa": (3, 1, 67, 4, 3, 10, None),
    }
    assert {name: tuple(vars(p).values()) for name, p in CRF_PRESETS.items()} == table


def test_irn_preset_trusts_the_argmax_at_70_percent():
    image, _, probs = noisy_disc(16, 0)
    hard = np.where(probs.argmax(0) == np.arange(3)[:, None, None], 0.7, 0.15)
    fast = crf_probs(image, probs, preset="irn")
    assert np.array_equal(fast, crf_probs(image, hard, preset="irn"))
    slow = mean_field(image, hard, CRF_PRESETS["irn"])
    assert (fast.argmax(0) == slow.argmax(0)).mean() >= 0.98


def test_crf_improves_a_noisy_disc(either):
    image, disc, probs = noisy_disc(96, 0)
    labels = np.eye(2)[0]  # channel 1 is in the picture, channel 2 is not

    def iou(found):
        return (found & disc).sum() / (found | disc).sum()

    before = iou(suppress(probs, labels).argmax(0) == 1)
    after = iou(crf_segmentation(image, probs, labels, scale=96 / 500) == 1)
    assert before < 0.8 and after > 0.95
    soft = probs[1] / (probs[0] + probs[1])
    refined = crf_saliency(image, soft, scale=96 / 500)
    assert refined.dtype == np.float32 and 0 <= refined.min() <= refined.max() <= 1
    assert np.abs(refined - disc).mean() < 0.25 * np.abs(soft - disc).mean()
    as_bytes = (soft * 255).round().astype(np.uint8)
    assert np.abs(crf_saliency(image, as_bytes, scale=96 / 500) - refined).mean() < 0.01


def test_restricting_labels_hardly_changes_the_result():
    for seed in range(3):
        image, _, probs = noisy_disc(64, seed, channels=21)
        probs = probs[np.roll(np.arange(21), 7)]  # object on channel 8
        probs[[0, 7]] = probs[[7, 0]]  # background back on channel 0
        labels = np.zeros(20)
        labels[[7, 11]] = 1
        restricted = crf_segmentation(image, probs, labels)
        everything = crf_probs(image, suppress(probs, labels)).argmax(0)
        assert restricted.dtype == np.uint8
        assert set(np.unique(restricted)) <= {0, 8, 12} and (restricted == 8).any()
        assert (restricted == everything).mean() >= 0.995


def test_crf_leaves_its_inputs_alone_and_repeats_exactly(either):
    image, _, probs = noisy_disc(16, 0)
    copies = image.copy(), probs.copy()
    flipped = crf_probs(image[:, ::-1], probs[:, :, ::-1])  # not contiguous
    again = crf_probs(image[:, ::-1].copy(), probs[:, :, ::-1].copy())
    assert np.array_equal(flipped, again)
    assert np.array_equal(image, copies[0]) and np.array_equal(probs, copies[1])


def test_bad_input_is_one_clear_error():
    image, _, probs = noisy_disc(16, 0)
    refuses("'best': choose from readme", crf_probs, image, probs, preset="best")
    refuses("uint8", crf_probs, image / 255, probs)
    refuses(r"\(3, 16, 16\) do not fit", crf_probs, image[:8], probs)
    refuses("finite", crf_probs, image, probs * np.nan)
    for scale in (0, 1e-9, -1, np.nan, np.inf):
        refuses("CRF scale", crf_probs, image, probs, scale=scale)
    refuses("3 score channels need 2 labels", crf_segmentation, image, probs, np.ones(3))
    refuses(r"\[0, 1\]", crf_saliency, image, probs[1] * 255)


# --- without pydensecrf --------------------------------------------------------------


def drawing(seed, count, *, size=(96, 96)):
    """An embedded drawing, and soft maps with patches as large as a network's."""
    rng = np.random.default_rng(seed)
    scene = render(0, "train_aug", seed)
    picture = Image.fromarray(np.asarray(scene.image)).resize(size, Image.BICUBIC)
    logits = rng.normal(0, 1.0, (count, size[1], size[0]))
    for channel in logits:
        patches = Image.fromarray(rng.normal(0, 3, (6, 6)).astype(np.float32))
        channel += np.asarray(patches.resize(size, Image.BICUBIC))
    return np.asarray(picture), softmax(logits).astype(np.float32)


@pytest.mark.parametrize("name", CRF_PRESETS)
@pytest.mark.parametrize("count", [2, 4, 21])
def test_without_pydensecrf_the_labels_are_the_same(name, count, request):
    pytest.importorskip("pydensecrf")
    pictures = [drawing(seed, count) for seed in range(2)]
    options = dict(preset=name, scale=96 / 500)  # of the profile mini
    expected = [crf_probs(*picture, **options) for picture in pictures]
    request.getfixturevalue("hidden")
    for picture, there in zip(pictures, expected, strict=True):
        here = crf_probs(*picture, **options)
        assert here.dtype == np.float32 and here.shape == there.shape
        assert (here.argmax(0) == there.argmax(0)).mean() >= 0.999
        assert np.abs(here - there).mean() < 1e-4
        # The CRF did something, so the agreement is not that of two copies.
        assert (here.argmax(0) != picture[1].argmax(0)).mean() > 0.05


def test_without_pydensecrf_a_photograph_is_no_problem(request):
    pytest.importorskip("pydensecrf")
    image, probs = drawing(0, 3, size=(500, 375))
    expected = crf_probs(image, probs).argmax(0)
    request.getfixturevalue("hidden")
    assert (crf_probs(image, probs).argmax(0) == expected).mean() >= 0.999


def test_without_pydensecrf_there_is_one_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    crf.pydensecrf.cache_clear()
    image, _, probs = noisy_disc(16, 0)
    with pytest.warns(UserWarning, match="runs in PyTorch.*slower") as found:
        for _ in range(3):
            crf_probs(image, probs)
    assert len(found) == 1
    crf.pydensecrf.cache_clear()
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a worker's parent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crf_probs(image, probs)
    crf.pydensecrf.cache_clear()
