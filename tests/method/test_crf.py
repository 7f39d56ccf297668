"""The dense CRF, compiled and in PyTorch, against brute force and each other."""

import multiprocessing
import sys
import warnings
from itertools import product

import numpy as np
import pytest
from helpers import refuses
from PIL import Image

from data_utils.embedded.mini import render
from jsws_lib import crf
from jsws_lib.course.checks.pseudo_labels import all_pairs, mean_field
from jsws_lib.crf import CRF_PRESETS, CRFPreset, crf_probs, crf_saliency
from jsws_lib.pseudo_labels import crf_segmentation

pytestmark = pytest.mark.filterwarnings("ignore:pydensecrf cannot be imported")


def softmax(logits):
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0)


def noisy_disc(size, seed):
    """A textured disc, its mask, and soft scores that know the disc only roughly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    disc = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 3) ** 2
    image = np.where(disc[..., None], [180, 90, 60], [70, 110, 150])
    image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    logits = rng.normal(0, 1, (3, size, size))
    logits[0] += ~disc
    logits[1] += 1.5 * disc
    return image, disc, softmax(logits).astype(np.float32)


@pytest.fixture
def hidden(monkeypatch):
    """No pydensecrf, as on a machine where it did not compile."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    crf.pydensecrf.cache_clear()
    yield
    crf.pydensecrf.cache_clear()


@pytest.fixture(params=["pydensecrf", "PyTorch"])
def either(request):
    """Run a test with the library, and without."""
    if request.param == "PyTorch":
        request.getfixturevalue("hidden")
    else:
        pytest.importorskip("pydensecrf")


# Both filter on a permutohedral lattice, an approximation of the sums over all pairs that
# notebook 06 makes: over these cases it is at most .048 off at one pixel and .0028 on
# average. A wrong setting of the kernels moves the average by more: `make mutants` swaps
# some.
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("scale", "label_prob"), [(1.0, None), (0.5, None), (1.0, 0.7)])
def test_crf_equals_brute_force(either, monkeypatch, seed, scale, label_prob):
    # Mild weights: strong ones drive every probability to 0 or 1 and hide a wrong kernel.
    probe = CRFPreset(1.5, 1, 4, 40, 2, 3, label_prob)
    monkeypatch.setitem(CRF_PRESETS, "probe", probe)
    image, _, probs = noisy_disc(16, seed)
    fast = crf_probs(image, probs, preset="probe", scale=scale)
    if label_prob:
        best = probs.argmax(0) == np.arange(3)[:, None, None]
        probs = np.where(best, label_prob, (1 - label_prob) / 2)
    unary = -np.log(probs.reshape(3, -1))
    slow = mean_field(unary, all_pairs(image, probe, scale), probe.iterations)
    assert fast.dtype == np.float32 and fast.shape == probs.shape
    off = np.abs(fast - slow.reshape(probs.shape))
    assert off.max() < 0.06 and off.mean() < 0.0035
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


def test_crf_snaps_saliency_to_a_noisy_disc(either):
    image, disc, probs = noisy_disc(96, 0)
    soft = probs[1] / (probs[0] + probs[1])
    refined = crf_saliency(image, soft, scale=96 / 500)
    assert refined.dtype == np.float32 and 0 <= refined.min() <= refined.max() <= 1
    assert np.abs(refined - disc).mean() < 0.25 * np.abs(soft - disc).mean()
    as_bytes = (soft * 255).round().astype(np.uint8)
    one, two = (crf_saliency(image, s) for s in (as_bytes, as_bytes / np.float32(255)))
    assert np.array_equal(one, two)


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


def drawing(seed, count, size):
    """An embedded drawing, and soft maps with patches as large as a network's."""
    rng = np.random.default_rng(seed)
    scene = render(0, "train_aug", seed)
    picture = Image.fromarray(np.asarray(scene.image)).resize(size, Image.BICUBIC)
    logits = rng.normal(0, 1.0, (count, size[1], size[0]))
    for channel in logits:
        patches = Image.fromarray(rng.normal(0, 3, (6, 6)).astype(np.float32))
        channel += np.asarray(patches.resize(size, Image.BICUBIC))
    return np.asarray(picture), softmax(logits).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [*product(CRF_PRESETS, [2, 4, 21], [(96, 96)]), ("readme", 3, (500, 375))],
)
def test_without_pydensecrf_the_labels_are_the_same(name, count, size, request):
    pytest.importorskip("pydensecrf")
    pictures = [drawing(seed, count, size) for seed in range(2)]
    options = {"preset": name, "scale": max(size) / 500}
    expected = [crf_probs(*picture, **options) for picture in pictures]
    request.getfixturevalue("hidden")
    for picture, there in zip(pictures, expected, strict=True):
        here = crf_probs(*picture, **options)
        assert (here.argmax(0) == there.argmax(0)).mean() >= 0.999
        assert np.abs(here - there).mean() < 1e-4
        # The CRF did something, so the agreement is not that of two copies.
        assert (here.argmax(0) != picture[1].argmax(0)).mean() > 0.05


def test_without_pydensecrf_there_is_one_warning(hidden, monkeypatch):
    with pytest.warns(UserWarning, match="runs in PyTorch.*slower") as found:
        for _ in range(3):
            crf.pydensecrf()
    assert len(found) == 1
    crf.pydensecrf.cache_clear()
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a worker's parent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crf.pydensecrf()
