"""The Gaussian process behind kernel ridge regression."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from helpers import directional, finite_difference

from vcjax.baselines._gp import gaussian_crps, GaussianProcess, log_marginal_likelihood
from vcjax.baselines._interface import PertData
from vcjax.baselines._kernel_ridge import KernelRidge
from vcjax.baselines._relatedness import NamedKernel


pytestmark = pytest.mark.slow  # refits, and gradients through them


RNG = np.random.default_rng(5)
N, NEW, G = 30, 10, 400
PERTS = tuple(f"P{i}" for i in range(N + NEW))
LATENT = RNG.normal(size=(N + NEW, 5))
LATENT /= np.linalg.norm(LATENT, axis=1, keepdims=True)
KERNEL = LATENT @ LATENT.T
SCALE = RNG.uniform(0.5, 2, G)
RIDGE = 0.3
# Effects of the process itself: the mean of a gene, the kernel, and noise of RIDGE, all in units of the gene's scale.
TRUE = np.linalg.cholesky(KERNEL + 1e-9 * np.eye(N + NEW)) @ RNG.normal(size=(N + NEW, G)) * SCALE + RNG.normal(size=G)
MEASURED = TRUE + np.sqrt(RIDGE) * SCALE * RNG.normal(size=TRUE.shape)
DATA = PertData(jnp.asarray(MEASURED[:N]), jnp.zeros(G), perts=PERTS[:N])
KNOWN = NamedKernel(jnp.asarray(KERNEL), PERTS)


def fitted(log_ridge=np.log(RIDGE), intercept: Any = "free", **options):
    return GaussianProcess(KernelRidge(log_ridge, intercept=intercept), **options).fit(DATA, external=[KNOWN])


def deviation(made):
    assert made.variance is not None
    return np.sqrt(made.variance)


def test_crps_is_the_integral_it_is_defined_by():
    for mean, variance, value in [(0.0, 1.0, 0.3), (1.5, 0.2, -0.4), (-2.0, 4.0, 5.0)]:
        spread = scipy.stats.norm(mean, np.sqrt(variance))
        below, _ = scipy.integrate.quad(lambda x, spread=spread: spread.cdf(x) ** 2, -30, value)
        above, _ = scipy.integrate.quad(lambda x, spread=spread: spread.sf(x) ** 2, value, 30)
        assert float(gaussian_crps(mean, variance, value)) == pytest.approx(below + above, rel=1e-6)
    assert float(gaussian_crps(1.0, 0.0, 3.5)) == 2.5
    assert directional(lambda v: gaussian_crps(0.0, v, 0.4), 0.0, 1.0) == 0


def test_likelihood_is_that_of_a_normal_distribution():
    matrix = KERNEL[:N, :N] + RIDGE * np.eye(N)
    y, scale = MEASURED[:N, :6], SCALE[:6] ** 2
    pdf = lambda columns: sum(
        scipy.stats.multivariate_normal(np.zeros(N), s * matrix).logpdf(column)
        for s, column in zip(scale, columns.T, strict=True)
    )
    value = log_marginal_likelihood(jnp.asarray(matrix), y, intercept="none", scale=scale)
    assert float(value) == pytest.approx(pdf(y), rel=1e-10)
    value = log_marginal_likelihood(jnp.asarray(matrix), y, intercept="mean", scale=scale)
    assert float(value) == pytest.approx(pdf(y - y.mean(axis=0)), rel=1e-10)
    # A flat intercept: the density of n - 1 orthonormal contrasts, and the volume of the change of variables.
    contrasts = scipy.linalg.null_space(np.ones((1, N))).T
    restricted = sum(
        scipy.stats.multivariate_normal(np.zeros(N - 1), s * contrasts @ matrix @ contrasts.T).logpdf(
            contrasts @ column
        )
        - 0.5 * np.log(N)
        for s, column in zip(scale, y.T, strict=True)
    )
    value = log_marginal_likelihood(jnp.asarray(matrix), y, scale=scale)
    assert float(value) == pytest.approx(restricted, rel=1e-10)


@pytest.mark.parametrize("intercept", ["free", "mean", "none"])
def test_the_default_scale_is_the_most_likely_one(intercept):
    matrix, y = jnp.asarray(KERNEL[:N, :N] + RIDGE * np.eye(N)), MEASURED[:N, :3]
    best = float(log_marginal_likelihood(matrix, y, intercept=intercept))
    of_scale = lambda s: float(log_marginal_likelihood(matrix, y, intercept=intercept, scale=s))
    found = max(of_scale(np.array([a, b, c])) for a in (0.5, 1.0) for b in (0.5, 1.0) for c in (0.5, 1.0))
    assert best > found
    centred = y - y.mean(axis=0) if intercept == "mean" else y
    solved = np.linalg.solve(matrix, np.column_stack([np.ones(N), centred]))
    if intercept == "free":
        centred = centred - solved[:, 1:].sum(axis=0) / solved[:, 0].sum()
    square = np.sum(centred * np.linalg.solve(matrix, centred), axis=0)
    assert best == pytest.approx(of_scale(square / (N - 1 if intercept == "free" else N)), rel=1e-12)


def test_predictions_are_those_of_the_ridge_regression():
    ridge = KernelRidge(np.log(RIDGE), intercept="free").fit(DATA, external=[KNOWN])
    made = fitted().predict(PERTS[N:])
    np.testing.assert_array_equal(made.effect, ridge.predict(PERTS[N:]).effect)
    assert made.baseline == "gaussian_process"
    np.testing.assert_array_equal(fitted().leave_one_out().effect, ridge.leave_one_out().effect)


def test_variances_are_calibrated_on_the_process_itself():
    error = np.asarray(fitted().predict(PERTS[N:]).effect) - TRUE[N:]
    z = error / deviation(fitted().predict(PERTS[N:]))
    assert np.mean(z**2) == pytest.approx(1, abs=0.12)
    noisy = fitted(measured=True).predict(PERTS[N:])
    z = (np.asarray(noisy.effect) - MEASURED[N:]) / deviation(noisy)
    assert np.mean(z**2) == pytest.approx(1, abs=0.12)
    left = fitted().leave_one_out()
    z = (np.asarray(left.effect) - MEASURED[:N]) / deviation(left)
    assert np.mean(z**2) == pytest.approx(1, abs=1e-10)  # the scale is fitted to just that
    np.testing.assert_allclose(np.median(fitted().scale() / SCALE**2), 1, atol=0.12)


def test_a_perturbation_without_relatives_has_the_variance_of_the_prior():
    made = fitted(intercept="mean").predict(["unknown", PERTS[N]])
    np.testing.assert_array_equal(made.covered, [False, True])
    variance = deviation(made) ** 2
    np.testing.assert_allclose(variance[0], fitted(intercept="mean").scale(), rtol=1e-12)
    np.testing.assert_allclose(made.effect[0], MEASURED[:N].mean(axis=0), rtol=0, atol=1e-12)
    assert (variance[1] < variance[0]).all()


def test_the_true_ridge_is_the_best_by_either_criterion():
    ridges = np.log(RIDGE) + np.array([-3.0, -1.5, 0.0, 1.5, 3.0])
    assert np.argmin([float(fitted(x).crps()) for x in ridges]) == 2
    assert np.argmin([float(fitted(x).negative_log_likelihood()) for x in ridges]) == 2


def test_gradients_are_finite_differences():
    for of_ridge in (lambda x: fitted(x).crps(), lambda x: fitted(x).negative_log_likelihood()):
        assert directional(of_ridge, -0.5, 1.0) == pytest.approx(finite_difference(of_ridge, -0.5, 1.0), rel=1e-5)
