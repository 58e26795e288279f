"""Kernel ridge regression in closed form, against refits one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge

from vcjax.baselines._jackknife import jackknife_bands, leave_one_out_at
from vcjax.baselines._krr import held_out_smoother, krr, predictive_variance, ridge_inverse, smooth, smoother


INTERCEPTS = ("mean", "free", "none")
RNG = np.random.default_rng(3)
N, NEW, G = 14, 3, 9
FEATURES = RNG.normal(size=(N + NEW, 6)) / np.sqrt(6)
FULL = FEATURES @ FEATURES.T + 0.1 * np.eye(N + NEW)
K, CROSS, PRIOR = FULL[:N, :N], FULL[N:, :N], np.diag(FULL)[N:]
Y = RNG.normal(size=(N, G)) + RNG.normal(size=G)
NOISE = RNG.uniform(0.3, 3, N)
RIDGE = 0.37
GROUPS = np.array([0, 1, 1, 2, 0, 3, 3, 3, 4, 2, 0, 5, 4, 1])
INVERSE = ridge_inverse(K, RIDGE, NOISE)


def refit(kernel, cross, y, noise, intercept):
    """Predictions and unit variances of a fit, from the linear system itself."""
    n = len(y)
    system = kernel + RIDGE * np.diag(noise)
    if intercept != "free":
        mean = y.mean(axis=0) if intercept == "mean" else np.zeros(y.shape[1])
        return mean + cross @ np.linalg.solve(system, y - mean)
    augmented = np.block([[system, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    solved = np.linalg.solve(augmented, np.vstack([y, np.zeros((1, y.shape[1]))]))
    return cross @ solved[:n] + solved[n]


def refit_without(left_out, cross, intercept):
    kept = np.setdiff1d(np.arange(N), left_out)
    return refit(K[np.ix_(kept, kept)], cross[:, kept], Y[kept], NOISE[kept], intercept)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_predictions_solve_the_linear_system(intercept):
    made = krr(K, CROSS, Y, np.log(RIDGE), noise=NOISE, prior=PRIOR, intercept=intercept)
    np.testing.assert_allclose(made.effect, refit(K, CROSS, Y, NOISE, intercept), rtol=0, atol=1e-12)


def test_predictions_are_those_of_scikit_learn_on_centred_effects():
    ridge: Any = RIDGE
    theirs = SklearnKernelRidge(alpha=ridge, kernel="precomputed").fit(K, Y - Y.mean(axis=0))
    ours = krr(K, CROSS, Y, np.log(RIDGE)).effect
    np.testing.assert_allclose(ours, theirs.predict(CROSS) + Y.mean(axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_leave_one_out_equals_refits(intercept):
    refits = np.vstack([refit_without([i], K[[i]], intercept) for i in range(N)])
    np.testing.assert_allclose(
        krr(K, CROSS, Y, np.log(RIDGE), noise=NOISE, intercept=intercept).leave_one_out, refits, rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_leave_group_out_equals_refits(intercept):
    refits = np.empty_like(Y)
    for group in np.unique(GROUPS):
        rows = np.flatnonzero(GROUPS == group)
        refits[rows] = refit_without(rows, K[rows], intercept)
    ours = smooth(held_out_smoother(INVERSE, intercept, GROUPS), jnp.asarray(Y))
    np.testing.assert_allclose(ours, refits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_groups_of_one_are_leave_one_out(intercept):
    labels = [f"pert {i}" for i in range(N)]
    np.testing.assert_allclose(
        held_out_smoother(INVERSE, intercept, labels), held_out_smoother(INVERSE, intercept), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_a_new_perturbation_from_each_refit(intercept):
    for row in range(NEW):
        refits = np.vstack([refit_without([i], CROSS[[row]], intercept) for i in range(N)])
        ours = leave_one_out_at(INVERSE, jnp.asarray(CROSS[row]), jnp.asarray(Y), intercept)
        np.testing.assert_allclose(ours, refits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_jackknife_bands_are_order_statistics_of_refits(intercept, coverage):
    residuals = np.abs(Y - np.vstack([refit_without([i], K[[i]], intercept) for i in range(N)]))
    low, high = jackknife_bands(INVERSE, jnp.asarray(CROSS), jnp.asarray(Y), coverage=coverage, intercept=intercept)
    # Barber et al.: the floor(a (n + 1))-th smallest below, the ceil((1 - a) (n + 1))-th above.
    below, above = int(np.floor((1 - coverage) * (N + 1) + 1e-9)), int(np.ceil(coverage * (N + 1) - 1e-9))
    for row in range(NEW):
        refits = np.vstack([refit_without([i], CROSS[[row]], intercept) for i in range(N)])
        np.testing.assert_allclose(low[row], np.sort(refits - residuals, axis=0)[below - 1], rtol=0, atol=1e-11)
        np.testing.assert_allclose(high[row], np.sort(refits + residuals, axis=0)[above - 1], rtol=0, atol=1e-11)


def test_jackknife_bands_cover_about_as_promised():
    # Effects drawn from the process itself: 3 new perturbations x 2,000 genes, which are independent draws.
    root = np.linalg.cholesky(FULL + RIDGE * np.eye(N + NEW))
    drawn = root @ np.random.default_rng(0).normal(size=(N + NEW, 2000))
    low, high = jackknife_bands(ridge_inverse(K, RIDGE), jnp.asarray(CROSS), jnp.asarray(drawn[:N]), coverage=0.8)
    covered = np.mean((np.asarray(low) <= drawn[N:]) & (drawn[N:] <= np.asarray(high)))
    assert 0.75 < covered < 0.92


def test_bands_are_infinite_where_perturbations_are_too_few():
    low, high = jackknife_bands(INVERSE, jnp.asarray(CROSS), jnp.asarray(Y), coverage=0.99)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_variance_is_that_of_a_gaussian_process(intercept):
    system = K + RIDGE * np.diag(NOISE)
    for row, ours in enumerate(predictive_variance(INVERSE, jnp.asarray(CROSS), PRIOR, intercept)):
        k = CROSS[row]
        if intercept == "free":
            # Kriging variance: the best weights that sum to one, by a Lagrange multiplier.
            augmented = np.block([[system, np.ones((N, 1))], [np.ones((1, N)), np.zeros((1, 1))]])
            w = np.linalg.solve(augmented, np.append(k, 1))[:N]
            expected = PRIOR[row] - 2 * w @ k + w @ system @ w
        else:
            expected = PRIOR[row] - k @ np.linalg.solve(system, k)
        assert float(ours) == pytest.approx(expected, abs=1e-12)


def test_the_whole_ridge_is_the_mean_and_so_is_no_relative():
    whole = krr(K, CROSS, Y, 30.0)
    np.testing.assert_allclose(whole.effect, np.broadcast_to(Y.mean(axis=0), (NEW, G)), rtol=0, atol=1e-9)
    others = (Y.sum(axis=0) - Y) / (N - 1)
    np.testing.assert_allclose(whole.leave_one_out, others, rtol=0, atol=1e-9)
    alone = krr(K, np.zeros((1, N)), Y, np.log(RIDGE))
    np.testing.assert_allclose(alone.effect[0], Y.mean(axis=0), rtol=0, atol=1e-12)
    assert float(alone.variance[0]) == 1


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_the_order_of_perturbations_does_not_matter(intercept):
    order = np.random.default_rng(1).permutation(N)
    plain = krr(K, CROSS, Y, np.log(RIDGE), noise=NOISE, intercept=intercept)
    turned = krr(
        K[np.ix_(order, order)], CROSS[:, order], Y[order], np.log(RIDGE), noise=NOISE[order], intercept=intercept
    )
    np.testing.assert_allclose(turned.effect, plain.effect, rtol=0, atol=1e-12)
    np.testing.assert_allclose(turned.leave_one_out, np.asarray(plain.leave_one_out)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_gradients_are_finite_differences(intercept):
    target = jnp.asarray(RNG.normal(size=(N, G)))
    error = lambda made: jnp.sum((made.leave_one_out - target) ** 2) + jnp.sum(made.effect**3)
    of_ridge = lambda x: error(krr(K, CROSS, Y, x, noise=NOISE, intercept=intercept))
    assert directional(of_ridge, -0.4, 1.0) == pytest.approx(finite_difference(of_ridge, -0.4, 1.0), rel=1e-6)
    direction = RNG.normal(size=(N, N))
    direction += direction.T
    of_kernel = lambda x: error(krr(x, CROSS, Y, -0.4, noise=NOISE, intercept=intercept))
    expected = finite_difference(of_kernel, K, direction)
    assert directional(of_kernel, K, direction) == pytest.approx(expected, rel=1e-6)
    of_noise = lambda x: error(krr(K, CROSS, Y, -0.4, noise=x, intercept=intercept))
    expected = finite_difference(of_noise, NOISE, direction[0])
    assert directional(of_noise, NOISE, direction[0]) == pytest.approx(expected, rel=1e-6)


def test_effects_keep_their_precision():
    made = jax.jit(krr)(jnp.asarray(K, jnp.float32), jnp.asarray(CROSS, jnp.float32), jnp.asarray(Y, jnp.float32), -1.0)
    assert made.effect.dtype == made.leave_one_out.dtype == jnp.float32
    np.testing.assert_allclose(made.effect, krr(K, CROSS, Y, -1.0).effect, atol=1e-5)


def test_weights_of_an_intercept_sum_to_one():
    for intercept in ("mean", "free"):
        np.testing.assert_allclose(smoother(INVERSE, jnp.asarray(CROSS), intercept).sum(axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(held_out_smoother(INVERSE, intercept).sum(axis=1), 1, atol=1e-12)


def test_refusals():
    with pytest.raises((ValueError, TypeCheckError), match="intercept"):
        smoother(INVERSE, jnp.asarray(CROSS), "median")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError)):
        krr(K[:, :5], CROSS, Y, 0.0)
    with pytest.raises((ValueError, TypeCheckError)):
        krr(K, CROSS[:, :5], Y, 0.0)
    with pytest.raises((ValueError, TypeCheckError)):
        krr(K, CROSS, Y[:5], 0.0)
    with pytest.raises((ValueError, TypeCheckError)):
        ridge_inverse(K, 1.0, NOISE[:4])
    with pytest.raises(ValueError, match="Two groups"):
        held_out_smoother(INVERSE, "mean", ["all"] * N)
    with pytest.raises(ValueError, match="group labels"):
        held_out_smoother(INVERSE, "mean", ["a", "b"])
    with pytest.raises(ValueError, match="coverage"):
        jackknife_bands(INVERSE, jnp.asarray(CROSS), jnp.asarray(Y), coverage=1.0)
