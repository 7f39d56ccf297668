"""The losses against plain NumPy in float64, and at extreme logits."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from data_utils.voc import NUM_CLASSES, VOID
from jsws_lib.losses import (
    class_evidence,
    class_loss,
    log_saliency,
    pseudo_label_loss,
    saliency_loss,
)
from jsws_lib.ssnet import SSNetOutput

C = NUM_CLASSES
EVIDENCE = (
    *(("logits", share) for share in (1.0, 0.4, 0.01)),  # 0.01: of one position at least
    *(("mean_probs", 1.0), ("odds", 1.0)),
)
SALIENCY = ("bce", "background", "nll_probs")


def output(logits, a=None):
    """An SSNetOutput without upsampling: the logits are those of every pixel."""
    a = torch.zeros(len(logits), C) if a is None else a
    return SSNetOutput(logits.log_softmax(1), logits, a)


def sample(seed=0, *, scale=2.0, batch=2, side=3):
    """Random logits (B, C+1, side, side), a, t, Y with void and a pseudo label."""
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, C + 1, side, side, generator=rng)
    a = scale * torch.randn(batch, C, generator=rng)
    t = (torch.rand(batch, C, generator=rng) < 0.15).float()
    mask = torch.randint(0, 2, (batch, side, side), generator=rng, dtype=torch.uint8)
    mask[0, 0, 0] = VOID
    pseudo = torch.randint(0, C + 1, (batch, side, side), generator=rng)
    pseudo[0, 0, 0] = VOID
    return logits, a, t, mask, pseudo


def softmax(logits):
    """H in float64, (B, C+1, H, W)."""
    logits = np.asarray(logits, np.float64)
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


# --- L_c, Eq. 2 ----------------------------------------------------------------------


def slow_evidence(logits, reading, share):
    probs = softmax(logits)
    if reading == "mean_probs":
        return probs.mean((2, 3))[:, 1:]
    if reading == "odds":
        odds = (probs[:, 1:] / probs[:, :1]).mean((2, 3))
        return odds / (1 + odds)
    flat = np.asarray(logits, np.float64)[:, 1:].reshape(len(logits), C, -1)
    count = max(1, round(share * flat.shape[2]))
    return sigmoid(np.sort(flat)[..., -count:].mean(2))


def test_an_absent_class_that_fills_the_image_keeps_its_gradient():
    """log(1 - t-hat) is a sum over the others, never 1 - t-hat."""
    logits = torch.zeros(1, C + 1, 4, 4)
    logits[:, 5] = 120
    logits.requires_grad_()
    nll = -class_evidence(output(logits)).no[0, 4]
    assert nll.item() == pytest.approx(120 - math.log(20), abs=1e-4)
    nll.backward()
    np.testing.assert_allclose(logits.grad[0, 5], 0.0625, atol=1e-6)


# --- L_s1, Eq. 1 and 3 ---------------------------------------------------------------


def slow_saliency(logits, a):
    return (sigmoid(a)[..., None, None] * softmax(logits)[:, 1:]).sum(1)


def test_saliency_equals_plain_numpy():
    logits, a, *_ = sample(1)
    found = output(logits, a).sal_map
    np.testing.assert_allclose(found, slow_saliency(logits, a), rtol=1e-5)


def test_log_saliency_stays_exact_at_logits_times_40():
    logits, a, *_ = sample(2, scale=40, side=6)
    yes, no = log_saliency(logits.log_softmax(1), a)
    total = yes.double().exp() + no.double().exp()
    assert (total - 1).abs().max() < 2e-7  # float32's last digit is 1.2e-7
    log_h = logits.double().log_softmax(1)
    log_v = torch.nn.functional.logsigmoid(a.double())[..., None, None]
    expected = (log_h[:, 1:] + log_v).logsumexp(1)
    assert expected.min() < -50  # 1 - exp(-50) is 1 in float64 already
    assert (yes - expected).abs().max() < 1e-5


# --- all of them ---------------------------------------------------------------------


def all_losses(out, t, mask, pseudo):
    values = {f"L_c {r} {k}": class_loss(out, t, reading=r, share=k) for r, k in EVIDENCE}
    values |= {f"L_s1 {r}": saliency_loss(out, mask, reading=r) for r in SALIENCY}
    return values | {"L_s2": pseudo_label_loss(out, pseudo)}


NAMES = [*(f"L_c {r} {k}" for r, k in EVIDENCE), *(f"L_s1 {r}" for r in SALIENCY), "L_s2"]


def slow_losses(logits, a, t, mask, pseudo):
    h, s, values = softmax(logits), slow_saliency(logits, a), {}
    for reading, share in EVIDENCE:
        t_hat = slow_evidence(logits, reading, share)
        right = np.where(t == 1, t_hat, 1 - t_hat)
        values[f"L_c {reading} {share}"] = -np.log(right).sum(1).mean()
    for reading in SALIENCY:
        right = np.where(mask == 1, s, 1 - s if reading == "bce" else h[:, 0])[mask != VOID]
        right = right if reading == "nll_probs" else np.log(right)
        values[f"L_s1 {reading}"] = -right.mean()
    known = [(b, k, y, x) for (b, y, x), k in np.ndenumerate(pseudo) if k != VOID]
    values["L_s2"] = -np.mean([math.log(h[at]) for at in known])
    return values


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_equal_plain_numpy_and_stay_float32(name, autocast):
    logits, a, *data = sample()
    assert all((one == VOID).any() for one in data[1:])  # which do not count
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = all_losses(output(logits, a), *data)[name]
    assert found.dtype == torch.float32
    expected = slow_losses(*(one.numpy() for one in (logits, a, *data)))[name]
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_finite_at_extreme_logits(name):
    _, _, t, mask, pseudo = sample(7)
    t[0], t[1] = 0, 1  # no label at all, and every label
    generator = torch.Generator().manual_seed(1)
    signs = torch.randn(2, C + 1, 3, 3, generator=generator).sign()
    for logits, far in product((signs, -signs, torch.ones_like(signs)), (120.0, -120.0)):
        x, a = (120 * logits).requires_grad_(), torch.full((2, C), far, requires_grad=True)
        value = all_losses(output(x, a), t, mask, pseudo)[name]
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(x.grad).all()
        assert a.grad is None or torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", ["L_c mean_probs 1.0", "L_s1 bce", "L_s2"])
def test_a_pixel_that_is_all_wrong_still_learns(name):
    """No clamp: the further off, the larger the loss, with a gradient that is not 0."""
    t, mask = torch.zeros(1, C), torch.ones(1, 2, 2, dtype=torch.uint8)
    t[0, 2], pseudo = 1, torch.full((1, 2, 2), 3)
    losses = []
    for far in (60.0, 120.0):
        logits = torch.zeros(1, C + 1, 2, 2)
        logits[:, 0] = far
        logits.requires_grad_()
        value = all_losses(output(logits), t, mask, pseudo)[name]
        value.backward()
        assert logits.grad[:, 3].abs().sum() > 1e-2
        losses.append(value.item())
    assert losses[1] == pytest.approx(losses[0] + 60, rel=0.01)
