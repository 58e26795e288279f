"""Benjamini-Hochberg in log space, and which genes are in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import de


@pytest.fixture
def pvalues():
    rng = np.random.default_rng(0)
    p = rng.random((4, 200)) ** 3
    p[0, :20] = p[0, 20]  # ties
    p[1, :5] = 1.0
    p[2] **= 40  # down to 1e-300 and further
    return np.maximum(p, 1e-300)


def test_adjustment_equals_scipy_row_by_row_and_pooled(pvalues):
    rows = np.exp(de.benjamini_hochberg(np.log(pvalues)))
    np.testing.assert_allclose(rows, scipy.stats.false_discovery_control(pvalues, axis=1), rtol=1e-12)
    pooled = np.exp(de.benjamini_hochberg(np.log(pvalues), scope="pooled"))
    expected = scipy.stats.false_discovery_control(pvalues.ravel()).reshape(pvalues.shape)
    np.testing.assert_allclose(pooled, expected, rtol=1e-12)


def test_undefined_p_values_stay_undefined_and_neither_they_nor_untested_genes_count(pvalues):
    rng = np.random.default_rng(1)
    tested, undefined = rng.random(pvalues.shape) < 0.7, rng.random(pvalues.shape) < 0.1
    log_p = np.where(undefined, np.nan, np.log(pvalues))
    adjusted = np.asarray(de.benjamini_hochberg(log_p, tested))
    used = tested & ~undefined
    for row in range(len(pvalues)):
        expected = scipy.stats.false_discovery_control(pvalues[row][used[row]])
        np.testing.assert_allclose(np.exp(adjusted[row][used[row]]), expected, rtol=1e-12)
    assert np.isnan(adjusted[tested & undefined]).all()
    assert (adjusted[~tested] == 0).all()
    pooled = np.asarray(de.benjamini_hochberg(log_p, tested, scope="pooled"))
    np.testing.assert_allclose(np.exp(pooled[used]), scipy.stats.false_discovery_control(pvalues[used]), rtol=1e-12)


def test_values_derived_by_hand():
    adjusted = de.benjamini_hochberg(jnp.log(jnp.asarray([[0.01, 0.02, 0.5, 0.04]])))
    np.testing.assert_allclose(np.exp(adjusted), [[0.04, 0.04, 0.5, 0.04 * 4 / 3]], rtol=1e-14)


def test_p_values_that_underflow_keep_their_order():
    log_p = jnp.asarray([[-20000.0, -800.0, -jnp.inf, -1.0]], jnp.float32)
    adjusted = de.benjamini_hochberg(log_p)
    expected = [-20000 + np.log(2), -800 + np.log(4 / 3), -np.inf, -1]
    np.testing.assert_allclose(adjusted, [expected], rtol=1e-6)


def test_rows_without_any_tested_gene_are_all_one():
    log_p = jnp.asarray([[-3.0, jnp.nan], [-3.0, -4.0]])
    adjusted = de.benjamini_hochberg(log_p, jnp.asarray([[False, False], [True, True]]))
    np.testing.assert_array_equal(adjusted[0], 0)
    assert jnp.all(adjusted[1] < 0)


@pytest.mark.parametrize("scope", ["perturbation", "pooled"])
def test_gradient_equals_finite_differences(pvalues, scope):
    rng = np.random.default_rng(2)
    log_p = np.log(rng.random((3, 50)) ** 3)  # without ties, where the order is not smooth
    tested = jnp.asarray(rng.random(log_p.shape) < 0.8)
    v, w = rng.normal(size=log_p.shape), jnp.asarray(rng.normal(size=log_p.shape))
    f = lambda x: jnp.sum(w * de.benjamini_hochberg(x, tested, scope=scope))
    assert directional(f, log_p, v) == pytest.approx(finite_difference(f, log_p, v, 1e-7), rel=1e-6)


def test_gradient_of_a_table_with_undefined_and_infinite_entries_is_finite():
    log_p = jnp.asarray([[-jnp.inf, jnp.nan, -3.0, -3.0, 0.0]])
    tested = jnp.asarray([[True, True, True, True, False]])
    f = lambda x: jnp.sum(jnp.where(jnp.isfinite(x), de.benjamini_hochberg(x, tested), 0))
    gradient = jax.grad(f)(log_p)
    assert jnp.all(jnp.isfinite(gradient))
    assert gradient[0, 4] == 0


def test_unknown_scope_and_other_shapes_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="scope"):
        de.benjamini_hochberg(jnp.zeros((2, 3)), scope="genes")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError), match="tested"):
        de.benjamini_hochberg(jnp.zeros((2, 3)), jnp.ones((3, 2), bool))


def test_withheld_calls_do_not_change_the_others():
    padj, change = jnp.asarray([[-5.0, -6.0, -7.0, -8.0]]), jnp.asarray([[0.5, jnp.nan, -2.0, 1.0]])
    np.testing.assert_array_equal(de.withheld(padj, change, floor=1.0), [[0, 0, -7, -8]])
    np.testing.assert_array_equal(de.withheld(padj, change, undefined=False), padj)


def test_expressed_genes_exceed_the_threshold_in_counts_per_million():
    control = jnp.asarray([0.0, 0.05, 0.06, 3.0])
    np.testing.assert_array_equal(de.expressed(control, target_sum=1e4), [False, False, True, True])
    np.testing.assert_array_equal(de.expressed(control, threshold=-1.0), True)
