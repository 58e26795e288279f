"""Metrics as losses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vcjax
from vcjax.metrics import CATALOGUE


RNG = np.random.default_rng(0)
TRUTH = jnp.asarray(RNG.normal(size=(12, 20)))
GUESS = jnp.asarray(0.3 * TRUTH + RNG.normal(0, 1, TRUTH.shape))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pds_l1", "pds_cosine", "delta_spearman"])
def test_straight_through_has_the_exact_value_and_the_soft_gradient(name):
    row, relax = CATALOGUE[name], vcjax.Relaxation(0.2)
    exact, soft = (vcjax.as_loss(row, relax=relax, straight_through=s) for s in (True, False))
    assert float(exact(GUESS, TRUTH)) == -float(row(GUESS, TRUTH).mean())
    assert float(soft(GUESS, TRUTH)) == -float(row(GUESS, TRUTH, relax=relax).mean())
    assert float(exact(GUESS, TRUTH)) != float(soft(GUESS, TRUTH))
    value, gradient = jax.value_and_grad(exact)(GUESS, TRUTH)
    assert float(value) == float(exact(GUESS, TRUTH))
    np.testing.assert_allclose(gradient, jax.grad(soft)(GUESS, TRUTH), rtol=1e-12, atol=1e-16)
    assert float(jnp.abs(gradient).max()) > 0


def test_errors_are_minimised_and_scores_maximised():
    assert float(vcjax.as_loss(CATALOGUE["expr_mse"])(GUESS, TRUTH)) > 0
    assert float(vcjax.as_loss(CATALOGUE["delta_pearson"])(GUESS, TRUTH)) < 0


def test_auxiliary_output_shows_both_values():
    loss = vcjax.as_loss(CATALOGUE["pds_l2"], relax=vcjax.Relaxation(0.3), aux=True)
    (value, aux), _ = jax.jit(jax.value_and_grad(loss, has_aux=True))(GUESS, TRUTH)
    assert float(value) == -float(aux["hard"])
    assert float(aux["gap"]) == pytest.approx(float(aux["soft"] - aux["hard"]))
    assert abs(float(aux["gap"])) > 1e-3


def test_softness_can_be_annealed_without_compiling():
    loss = vcjax.as_loss(CATALOGUE["pds_l1"], straight_through=False)
    step: Any = jax.jit(jax.value_and_grad(lambda p, relax: loss(p, TRUTH, relax=relax)))
    values = [float(step(GUESS, vcjax.Relaxation(np.float32(s)))[0]) for s in (0.5, 0.2, 0.0)]
    assert step._cache_size() == 1
    assert len(set(values)) == 3


def test_no_gradient_flows_into_the_truth_or_the_weights():
    loss = vcjax.as_loss(CATALOGUE["weighted_mse"])
    truth, weights = jax.grad(lambda t, w: loss(GUESS, t, weights=w), argnums=(0, 1))(TRUTH, jnp.ones(TRUTH.shape))
    assert not jnp.any(truth)
    assert not jnp.any(weights)


def test_undefined_perturbations_count_as_no_skill_and_do_not_pull():
    truth = TRUTH.at[3].set(0.0)
    row = CATALOGUE["delta_pearson"]
    values = row(GUESS, truth)
    assert np.isnan(values[3])
    value, gradient = jax.value_and_grad(vcjax.as_loss(row))(GUESS, truth)
    assert float(value) == pytest.approx(-float(jnp.nansum(values)) / 12)
    assert not jnp.any(gradient[3])
    start = jax.grad(vcjax.as_loss(row))(jnp.zeros_like(TRUTH), truth)
    assert np.isfinite(start).all()


def test_padding_does_not_count():
    pad = lambda x: jnp.concatenate([x, jnp.full((4, 20), 7.0)])
    loss = vcjax.as_loss(CATALOGUE["pds_l1"], relax=vcjax.Relaxation(0.2), straight_through=False)
    padded = loss(pad(GUESS), pad(TRUTH), valid=jnp.arange(16) < 12)
    assert float(padded) == pytest.approx(float(loss(GUESS, TRUTH)), rel=1e-12)


def test_metrics_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="diagnostic"):
        vcjax.as_loss(CATALOGUE["amplitude_ratio"])
    constant = dataclasses.replace(CATALOGUE["expr_distance_unbiased"], higher_is_better=False)
    with pytest.raises(ValueError, match="does not depend on the prediction"):
        vcjax.as_loss(constant)


@pytest.mark.slow
@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("name", ["pds_l1", "pds_l2", "pds_cosine"])
def test_adam_on_soft_discrimination_raises_the_exact_score(name, straight_through):
    rng = np.random.default_rng(1)
    truth = jnp.asarray(rng.normal(size=(24, 40)), jnp.float32)
    mean = jnp.broadcast_to(truth.mean(0), truth.shape)
    # A tiny asymmetry, since all rows of an exact mean prediction see the same distances.
    pred = mean + jnp.asarray(rng.normal(0, 1e-3, truth.shape), jnp.float32)
    loss = vcjax.as_loss(CATALOGUE[name], relax=vcjax.Relaxation(0.3), straight_through=straight_through)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        optimiser = optax.adam(0.02)
        state = optimiser.init(pred)

        @jax.jit
        def step(pred, state):
            updates, state = optimiser.update(jax.grad(loss)(pred, truth), state)
            return optax.apply_updates(pred, updates), state

        before = float(CATALOGUE[name](mean, truth).mean())
        for _ in range(100):
            pred, state = step(pred, state)
    assert before == pytest.approx(0.5, abs=0.05)
    assert float(CATALOGUE[name](pred, truth).mean()) > 0.95
