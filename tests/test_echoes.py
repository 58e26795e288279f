"""The composite score of Echoes of Silenced Genes, and its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax import metrics
from vcjax.metrics import CATALOGUE, Status


TRUTH = np.array([[1.0, 0], [0, 1]])
GUESS = np.array([[1, 1], [0.8, 0.8]])
ONES, BASE = np.ones((2, 2)), np.array([2.0, 2])


def close(value, expected, atol=1e-12):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def panel(seed=0, perts=5, genes=12):
    rng = np.random.default_rng(seed)
    real = rng.normal(0, 0.3, (perts, genes))
    return (
        jnp.asarray(0.6 * real + rng.normal(0, 0.15, real.shape)),
        jnp.asarray(real),
        jnp.asarray(rng.gamma(1, 1, real.shape)),
    )


def test_the_published_example():
    close(metrics.echoes_terms(GUESS, TRUTH, ONES, BASE), 2)
    close(metrics.echoes_cosine(GUESS, TRUTH), 0.7027819, 5e-8)
    assert round(float(metrics.echoes(GUESS, TRUTH, ONES, BASE)), 5) == 2.81113
    close(metrics.echoes(GUESS, TRUTH, ONES, BASE, average=True), float(metrics.echoes(GUESS, TRUTH, ONES, BASE)) / 2)


def test_equals_a_plain_loop():
    pred, real, w = (np.asarray(x) for x in panel())
    w = w / w.sum(1, keepdims=True) * 12
    base = np.abs(real).mean(1)
    total = 0.0
    for p in range(5):
        error = np.mean(w[p] * np.abs(real[p] - pred[p]))
        total += min(5, np.log2(max(base[p], 1e-12) / max(error, 1e-12)))
    t = np.clip(np.maximum(np.abs(real), np.abs(pred)) / 0.2, 0, 1)
    gate = (t**2 * (3 - 2 * t)) ** 2
    cosine = (gate * real * pred).sum() / np.sqrt((gate * real**2).sum() * (gate * pred**2).sum())
    close(metrics.echoes(pred, real, w, base), total * max(0, cosine))
    close(metrics.echoes_cosine(pred, real, left=0.1, right=0.3), gated(pred, real, 0.1, 0.3))


def gated(pred, real, left, right):
    t = np.clip((np.maximum(np.abs(real), np.abs(pred)) - left) / (right - left), 0, 1)
    gate = (t**2 * (3 - 2 * t)) ** 2
    return (gate * real * pred).sum() / np.sqrt((gate * real**2).sum() * (gate * pred**2).sum())


def test_bounds_and_degenerate_panels():
    perfect = metrics.echoes(TRUTH, TRUTH, ONES, BASE)
    close(perfect, 10)  # two terms at their cap
    close(metrics.echoes(0 * TRUTH, TRUTH, ONES, BASE), 0)
    close(metrics.echoes(-TRUTH, TRUTH, ONES, BASE), 0)
    assert float(metrics.echoes_terms(1e6 * TRUTH, TRUTH, ONES, BASE).max()) < -15
    nothing = metrics.echoes(GUESS, TRUTH, np.array([[1.0, 1], [0, 0]]), BASE)
    assert np.isnan(nothing)
    kept = metrics.echoes(GUESS, TRUTH, np.array([[1.0, 1], [0, 0]]), BASE, valid=np.array([True, False]))
    close(kept, 2 * float(metrics.echoes_cosine(GUESS[:1], TRUTH[:1])))


def test_a_row_scores_a_baseline_with_zero():
    pred, real, w = panel()
    mean = np.random.default_rng(1).normal(0, 0.1, 12)
    term, whole = metrics.echoes_metrics(mean, average=False)
    constant = jnp.broadcast_to(jnp.asarray(mean), real.shape)
    close(term(constant, real, weights=w), 0)
    base = metrics.mae(constant, real, weights=w)
    close(term(pred, real, weights=w), metrics.echoes_terms(pred, real, w, base))
    close(whole(pred, real, weights=w), metrics.echoes(pred, real, w, base))
    # Without training data the mean of the others is the baseline.
    others = (real.sum(0, keepdims=True) - real) / 4
    close(CATALOGUE["echoes_term"](others, real, weights=w), 0)
    close(CATALOGUE["echoes"](others, real, weights=w), 0)


def test_the_row_measures_effects_from_the_control():
    pred, real, w = panel()
    control = jnp.asarray(np.random.default_rng(2).gamma(2, 1, 12))
    side = vcjax.Profiles(real + control[None, :], control)
    shifted = CATALOGUE["echoes"](pred + control[None, :], side, weights=w)
    close(shifted, CATALOGUE["echoes"](pred, real, weights=w))


def test_one_perturbation_has_no_others_to_be_compared_with():
    pred, real, w = (x[:1] for x in panel())
    for name in ("echoes", "echoes_term"):
        row = CATALOGUE[name]
        side = vcjax.effects_as_profiles(real)
        assert np.isnan(row(pred, side, weights=w)).all()
        assert row.status is not None
        np.testing.assert_array_equal(row.status(side, side, weights=w), Status.TOO_FEW_PERTS)
    term, _ = metrics.echoes_metrics(np.zeros(12))
    assert np.isfinite(term(pred, real, weights=w)).all()


def test_the_score_is_differentiable_through_its_gate():
    pred, real, w = panel()
    base = metrics.mae(jnp.zeros_like(real), real, weights=w)
    v = np.random.default_rng(3).normal(size=real.shape)
    f = lambda x: metrics.echoes(x, real, w, base)
    assert directional(f, pred, v) == pytest.approx(finite_difference(f, pred, v), rel=1e-6)
    held = lambda x: metrics.echoes_cosine(x, real, detach_gate=True)
    assert directional(held, pred, v) != pytest.approx(finite_difference(held, pred, v), rel=1e-3)


def loss_by_hand(pred, real, w, base, gate, sharpness=10.0):
    """The loss with the gate given, as the derivative sees it."""
    error = jnp.sum(w * jnp.abs(pred - real), axis=1) / jnp.sum(w, axis=1)
    terms = jnp.log2(base / (error + base / 32))
    cosine = jnp.sum(gate * pred * real) / jnp.sqrt(jnp.sum(gate * pred**2) * jnp.sum(gate * real**2))
    return -jnp.mean(terms) * jnp.log1p(jnp.exp(sharpness * cosine)) / sharpness


def test_the_loss_has_the_value_and_the_slope_of_its_formula():
    pred, real, w = panel()
    base = 2 * metrics.mae(jnp.zeros_like(real), real, weights=w)  # an easy baseline: the terms are positive
    t = jnp.clip(jnp.maximum(jnp.abs(real), jnp.abs(pred)) / 0.2, 0, 1)
    gate = (t**2 * (3 - 2 * t)) ** 2
    value, gradient = jax.value_and_grad(metrics.echoes_loss)(pred, real, w, base)
    expected = lambda x: loss_by_hand(x, real, w, base, gate)
    assert float(value) == pytest.approx(float(expected(pred)), rel=1e-12)
    v = np.random.default_rng(4).normal(size=pred.shape)
    assert float(jnp.sum(gradient * v)) == pytest.approx(finite_difference(expected, pred, v), rel=1e-6)


def test_negative_terms_do_not_push_the_cosine_down():
    pred, real, w = panel()
    base = 0.1 * metrics.mae(jnp.zeros_like(real), real, weights=w)  # a baseline far better than the prediction
    assert float(metrics.echoes_terms(pred, real, w, base).max()) < 0
    gradient = jax.grad(metrics.echoes_loss)(pred, real, w, base)
    # What is left is the slope of the error alone: a step against it never lowers a weighted error's sign.
    toward = np.sign(np.asarray(pred - real))
    assert (np.sign(gradient) == toward)[np.asarray(w) > 0].all()


def test_descent_on_the_loss_raises_the_score():
    _, real, w = panel(seed=5, perts=8, genes=30)
    base = metrics.mae(jnp.broadcast_to(real.mean(0), real.shape), real, weights=w)
    pred = jnp.zeros_like(real) + 0.01 * real
    before = float(metrics.echoes(pred, real, w, base, average=True))
    step = jax.jit(jax.grad(metrics.echoes_loss))
    for i in range(200):
        pred = pred - 0.05 / (1 + i) ** 0.5 * jnp.sign(step(pred, real, w, base))
    after = float(metrics.echoes(pred, real, w, base, average=True))
    assert before < 0.2
    assert after > 2


def test_no_gradient_flows_into_the_truth_and_none_is_undefined():
    pred, real, w = panel()
    base = metrics.mae(jnp.zeros_like(real), real, weights=w)
    zero_row = w.at[1].set(0)
    for guess in (pred, real, jnp.zeros_like(real)):
        gradients = jax.grad(metrics.echoes_loss, argnums=(0, 1, 2, 3))(guess, real, zero_row, base)
        assert all(np.isfinite(g).all() for g in gradients)
        for gradient in gradients[1:]:
            np.testing.assert_array_equal(gradient, 0)


def test_options_and_shapes_are_checked():
    with pytest.raises(ValueError, match="below `right`"):
        metrics.echoes_cosine(GUESS, TRUTH, left=0.3, right=0.2)
    with pytest.raises(ValueError, match="`sharpness`"):
        metrics.echoes_loss(GUESS, TRUTH, ONES, BASE, sharpness=0.0)
    with pytest.raises((ValueError, TypeCheckError)):
        metrics.echoes(GUESS, TRUTH, ONES, np.ones(3))
