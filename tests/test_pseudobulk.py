"""Dense cells to profiles and their noise, in JAX."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference

from vcjax._pseudobulk import (
    analytic_noise,
    bulk_lognorm,
    bulk_sums,
    jackknife_noise,
    log_normalise,
    pseudobulk,
)


GROUPS = np.array([0, 1, 1, 0, 3, 1, 0, -1, 1, 0, 1, 5])  # group 2 is empty, 3 has one cell, -1 and 5 are nobody's
NUM_GROUPS = 4


@pytest.fixture
def counts():
    rng = np.random.default_rng(3)
    counts = rng.poisson(rng.gamma(0.7, 3, size=(len(GROUPS), 6))).astype(np.float64)
    counts[1] = 0
    return counts


def jackknife_by_hand(counts, target_sum):
    """The definition, cell by cell and gene by gene, for the cells of one group."""
    n = len(counts)
    if n < 2 or counts.sum() == 0:
        return np.zeros(counts.shape[1])
    left_out = []
    for i in range(n):
        rest = np.delete(counts, i, axis=0).sum(axis=0)
        left_out.append(np.log1p(target_sum * rest / rest.sum()) if rest.sum() else np.zeros(counts.shape[1]))
    left_out = np.array(left_out)
    return (n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)


def test_log_normalise_scales_every_cell_to_one_library_size():
    cells = np.array([[1.0, 3.0], [10.0, 10.0]])
    np.testing.assert_allclose(log_normalise(cells, 8.0), np.log1p([[2.0, 6.0], [4.0, 4.0]]))


def test_the_default_library_size_is_the_median_of_the_positive_totals():
    cells = np.array([[0, 0], [1, 3], [10, 10], [0, 0], [5, 3]])
    np.testing.assert_allclose(log_normalise(cells.astype(float)), log_normalise(cells.astype(float), 8.0))
    even = cells[:3].astype(float)
    np.testing.assert_allclose(log_normalise(even), log_normalise(even, 12.0))


def test_integer_counts_are_taken_as_float32():
    assert log_normalise(np.array([[1, 3]])).dtype == jnp.float32


def test_cells_without_counts_stay_zero_with_a_finite_gradient(counts):
    counts[1] = 0
    assert not np.any(log_normalise(counts)[1])
    gradient = jax.grad(lambda x: jnp.sum(log_normalise(x) ** 2))(jnp.asarray(counts))
    assert np.all(np.isfinite(gradient))
    assert not np.any(gradient[1])
    empty = jax.grad(lambda x: jnp.sum(log_normalise(x)))(jnp.zeros((3, 2)))
    assert np.all(np.isfinite(empty))


def test_pseudobulk_is_the_mean_of_each_group(counts):
    expected = [counts[GROUPS == group].mean(axis=0) if group != 2 else np.zeros(6) for group in range(NUM_GROUPS)]
    np.testing.assert_allclose(pseudobulk(counts, GROUPS, NUM_GROUPS), np.array(expected))
    sums = [counts[GROUPS == group].sum(axis=0) for group in range(NUM_GROUPS)]
    np.testing.assert_allclose(bulk_sums(counts, GROUPS, NUM_GROUPS), sums)


@pytest.mark.parametrize("summary", [bulk_sums, pseudobulk, analytic_noise, jackknife_noise])
def test_masked_cells_count_as_absent_whatever_they_hold(counts, summary):
    where = np.arange(len(GROUPS)) % 3 != 0
    padded = (
        np.where(where[:, None], counts, np.nan) if summary is not bulk_sums and summary is not pseudobulk else counts
    )
    masked = summary(padded, GROUPS, NUM_GROUPS, where=where)
    np.testing.assert_allclose(masked, summary(counts[where], GROUPS[where], NUM_GROUPS), rtol=1e-12)
    gradient = jax.grad(lambda x: jnp.sum(summary(x, GROUPS, NUM_GROUPS, where=where)))(jnp.asarray(padded))
    assert np.all(np.isfinite(gradient))
    assert not np.any(gradient[~where])


def test_bulk_lognorm_normalises_the_sum_of_each_group():
    sums = np.array([[1.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(bulk_lognorm(sums, 8.0), np.log1p([[2.0, 6.0], [0.0, 0.0]]))


def test_analytic_noise_is_the_trace_of_the_covariance_over_cells(counts):
    noise = analytic_noise(counts, GROUPS, NUM_GROUPS)
    for group in (0, 1):
        cells = counts[GROUPS == group]
        np.testing.assert_allclose(noise[group], np.trace(np.cov(cells.T)) / len(cells))
    assert noise[2] == 0
    assert noise[3] == 0
    by_gene = analytic_noise(counts, GROUPS, NUM_GROUPS, per_gene=True)
    np.testing.assert_allclose(by_gene.sum(axis=1), noise)


def test_analytic_noise_of_large_equal_values_is_zero():
    cells = np.full((50, 3), 12345.678, np.float32)
    # Rounding of the mean alone; a difference of sums of squares would give about 1.
    assert float(analytic_noise(cells, np.zeros(50, int), 1)[0]) < 1e-5


@pytest.mark.parametrize("batch_size", [1, 5, 6, 12, 256])
def test_jackknife_noise_is_its_definition_at_every_batch_size(counts, batch_size):
    noise = jackknife_noise(counts, GROUPS, NUM_GROUPS, 100.0, per_gene=True, batch_size=batch_size)
    expected = [jackknife_by_hand(counts[GROUPS == group], 100.0) for group in range(NUM_GROUPS)]
    np.testing.assert_allclose(noise, expected, rtol=1e-11, atol=1e-14)
    total = jackknife_noise(counts, GROUPS, NUM_GROUPS, 100.0, batch_size=batch_size)
    np.testing.assert_allclose(total, np.sum(expected, axis=1), rtol=1e-11)


def test_jackknife_noise_in_float32_keeps_most_digits():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 4, size=30), size=(400, 30)).astype(np.float32)
    groups = np.zeros(400, int)
    noise = jackknife_noise(counts, groups, 1, per_gene=True)
    assert noise.dtype == jnp.float32
    np.testing.assert_allclose(noise[0], jackknife_by_hand(counts.astype(float), 5e4), rtol=1e-4, atol=1e-9)


def test_a_cell_that_carries_the_whole_group_leaves_a_zero_profile():
    counts = np.array([[5.0, 3.0], [0.0, 0.0], [0.0, 0.0]])
    noise = lambda x: jnp.sum(jackknife_noise(x, np.zeros(3, int), 1, 50.0))
    np.testing.assert_allclose(noise(counts), jackknife_by_hand(counts, 50.0).sum(), rtol=1e-12)
    assert np.all(np.isfinite(jax.grad(noise)(jnp.asarray(counts))))


def test_noise_of_groups_without_counts_is_zero_with_a_finite_gradient():
    zeros = jnp.zeros((4, 3))
    groups = np.array([0, 0, 1, 1])
    for noise in (analytic_noise, jackknife_noise):
        value, gradient = jax.value_and_grad(lambda x, noise=noise: jnp.sum(noise(x, groups, 3)))(zeros)
        assert value == 0
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: log_normalise(x),
        lambda x: log_normalise(x, 50.0),
        lambda x: pseudobulk(log_normalise(x), GROUPS, NUM_GROUPS),
        lambda x: bulk_lognorm(bulk_sums(x, GROUPS, NUM_GROUPS)),
        lambda x: analytic_noise(x, GROUPS, NUM_GROUPS, per_gene=True),
        lambda x: jackknife_noise(x, GROUPS, NUM_GROUPS, 100.0, per_gene=True, batch_size=5),
    ],
    ids=["log_normalise_median", "log_normalise", "pseudobulk", "bulk_lognorm", "analytic", "jackknife"],
)
def test_gradients_are_those_of_finite_differences(counts, function):
    rng = np.random.default_rng(1)
    x = counts + rng.uniform(0.5, 1.5, counts.shape)  # off zero, where a count could not go down
    weights = jnp.asarray(rng.normal(size=jax.eval_shape(function, x).shape))
    scalar = lambda x: jnp.sum(weights * function(x))
    direction = rng.normal(size=x.shape)
    np.testing.assert_allclose(directional(scalar, x, direction), finite_difference(scalar, x, direction), rtol=2e-7)


@pytest.mark.parametrize("batch_size", [4, 256])
def test_the_jackknife_is_the_same_compiled(counts, batch_size):
    noise = lambda x: jackknife_noise(x, GROUPS, NUM_GROUPS, batch_size=batch_size)
    np.testing.assert_allclose(jax.jit(noise)(counts), noise(counts), rtol=1e-12)


def test_a_gradient_of_the_jackknife_holds_one_batch_of_cells_at_a_time():
    cells, genes, batch = 2048, 64, 64
    counts, groups = jnp.ones((cells, genes)), jnp.arange(cells) % 4
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jackknife_noise(x, groups, 4, batch_size=batch))))
    memory = gradient.lower(counts).compile().memory_analysis()
    assert memory is not None
    # One array of this shape is the gradient on its way; storing every batch's intermediates would take seven more.
    assert memory.temp_size_in_bytes < 2 * counts.nbytes


@pytest.mark.parametrize("function", [pseudobulk, bulk_sums, analytic_noise, jackknife_noise])
def test_groups_and_masks_of_another_length_are_refused(function):
    function = inspect.unwrap(function)  # without the type checker of the test run, which users do not have
    cells = np.ones((4, 2))
    with pytest.raises(ValueError, match="`groups` must have one entry a cell"):
        function(cells, np.zeros(3, int), 1)
    with pytest.raises(ValueError, match="`where` must have one entry a cell"):
        function(cells, np.zeros(4, int), 1, where=np.ones(3, bool))
