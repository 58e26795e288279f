"""Exact and soft membership in the significant set, and the normal tails that it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax import de


def table_of(z, tested=None):
    z = jnp.asarray(z)
    log_p = de.log_two_sided(z)
    tested = jnp.ones(z.shape, bool) if tested is None else tested
    return de.DETable(jnp.zeros_like(z), log_p, de.benjamini_hochberg(log_p, tested), tested, z)


@pytest.fixture
def statistics():
    """Three perturbations of 400 genes: many effects, few, none."""
    rng = np.random.default_rng(0)
    z = np.abs(rng.normal(size=(3, 400)))
    z[0, :80] += 3
    z[1, :6] += 4
    return z


def test_exact_membership_is_strict_and_leaves_out_what_is_not_tested():
    log_padj = jnp.log(jnp.asarray([[0.01, 0.05, 0.04, jnp.nan, 0.06]]))
    tested = jnp.asarray([[True, True, False, True, True]])
    table = de.DETable(jnp.zeros_like(log_padj), log_padj, log_padj, tested)
    np.testing.assert_array_equal(de.significant(table), [[1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(de.significant(table, alpha=0.2), [[1, 1, 0, 0, 1]])


@pytest.mark.parametrize("kernel", [vcjax.Logistic(), vcjax.Gauss(), vcjax.Laplace(), vcjax.Matern32()])
def test_soft_membership_tends_to_the_exact_one(statistics, kernel):
    table = table_of(statistics)
    exact = de.significant(table)
    assert exact.sum(axis=1).tolist()[0] > 50
    assert exact[2].sum() == 0
    member = jax.jit(lambda relax: de.significant(table, relax=relax))
    gap = [float(jnp.abs(member(vcjax.Relaxation(softness, kernel)) - exact).sum()) for softness in (1e-4, 0.02, 0.2)]
    assert gap[0] < 5e-3
    assert gap[0] < gap[1] < gap[2]
    np.testing.assert_array_equal(member(vcjax.Relaxation(0.0, kernel)), exact)


def test_soft_cut_is_the_smallest_root_of_the_procedure(statistics):
    table, softness, alpha = table_of(statistics), 0.1, 0.05
    member = np.asarray(de.significant(table, relax=vcjax.Relaxation(softness)))
    cuts = np.linspace(0, 8, 8001)[1:]
    log_p = np.log(2) + scipy.special.log_ndtr(-cuts)
    for row, z in enumerate(statistics):
        share = scipy.special.expit(np.log(3) * (z[None] - cuts[:, None]) / (2 * softness))
        admissible = log_p <= np.log(alpha / z.size) + np.log(np.maximum(share.sum(axis=1), 1))
        np.testing.assert_allclose(member[row], share[admissible.argmax()], atol=3e-3)


@pytest.mark.parametrize("softness", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("scope", ["perturbation", "pooled"])
def test_gradient_includes_the_cut_that_moves(statistics, softness, scope):
    rng = np.random.default_rng(1)
    tested = jnp.asarray(rng.random(statistics.shape) < 0.9)
    v, w = rng.normal(size=statistics.shape), jnp.asarray(rng.normal(size=statistics.shape))
    relax = vcjax.Relaxation(softness)
    f = jax.jit(lambda z: jnp.sum(w * de.significant(table_of(z, tested), relax=relax, scope=scope)))
    assert directional(f, statistics, v) == pytest.approx(finite_difference(f, statistics, v), rel=1e-5)


def test_statistics_may_be_signed_or_absent(statistics):
    table, relax = table_of(statistics), vcjax.Relaxation(0.1)
    expected = de.significant(table, relax=relax)
    signed = de.DETable(
        table.log2_fold_change, table.log_pvalue, table.log_padj, table.tested, -jnp.asarray(statistics)
    )
    np.testing.assert_array_equal(de.significant(signed, relax=relax), expected)
    absent = de.DETable(table.log2_fold_change, table.log_pvalue, table.log_padj, table.tested)
    np.testing.assert_allclose(de.significant(absent, relax=relax), expected, atol=1e-10)


def test_an_empty_set_is_pulled_at_by_its_largest_statistics():
    z = np.full((1, 300), 0.5)
    z[0, 0] = 3.0
    f = jax.jit(lambda z: jnp.sum(de.significant(table_of(z), relax=vcjax.Relaxation(0.25))))
    assert 0 < f(z) < 0.5
    gradient = jax.grad(f)(jnp.asarray(z))
    assert gradient[0, 0] > 1e-2
    assert gradient[0, 0] > 50 * jnp.max(gradient[0, 1:])
    # Following it makes the set non-empty.
    z[0, 0] = 6.0
    assert f(z) > 0.8


@pytest.mark.parametrize("softness", [0.0, 1e-3, 0.5])
def test_degenerate_tables_have_finite_memberships_and_gradients(softness):
    z = jnp.asarray([[jnp.inf, 40.0, jnp.nan, 0.0], [0.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0], [5.0, 5.0, 5.0, 5.0]])
    tested = jnp.asarray([[True] * 4, [True] * 4, [False] * 4, [True] * 4])
    f = jax.jit(lambda z: de.significant(table_of(z, tested), relax=vcjax.Relaxation(softness)))
    member = f(z)
    assert jnp.all((member >= 0) & (member <= 1))
    assert member[0, 2] == 0
    np.testing.assert_array_equal(member[2], 0)
    gradient = jax.grad(lambda z: jnp.sum(f(jnp.where(jnp.isfinite(z), z, 50.0))))(z)
    assert jnp.all(jnp.isfinite(gradient))


def test_softness_is_traced(statistics):
    table, traces = table_of(statistics), []

    @jax.jit
    def f(relax):
        traces.append(None)
        return de.significant(table, relax=relax)

    np.testing.assert_array_equal(f(vcjax.Relaxation(0.0)), de.significant(table))
    np.testing.assert_allclose(f(vcjax.Relaxation(0.1)), de.significant(table, relax=vcjax.Relaxation(0.1)), rtol=1e-9)
    assert len(traces) == 1


def test_options_that_mean_nothing_are_refused(statistics):
    with pytest.raises(ValueError, match="alpha"):
        de.significant(table_of(statistics), alpha=1.0)
    with pytest.raises((ValueError, TypeCheckError), match="scope"):
        de.significant(table_of(statistics), scope="all")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_tails_and_their_inverse_reach_any_statistic(dtype):
    z = np.asarray([0, 1e-6, 0.1, 1, 3, 8, 11.9, 12.1, 37, 200, 1e4], dtype)
    log_p = np.asarray(de.log_two_sided(jnp.asarray(z)))
    expected = np.log(2) + scipy.special.log_ndtr(-z.astype(np.float64))
    np.testing.assert_allclose(log_p, expected, rtol=50 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    np.testing.assert_allclose(de.normal_score(jnp.asarray(log_p)), z, rtol=2e-6 if dtype == np.float32 else 1e-12,
                               atol=2 * np.finfo(dtype).eps)  # fmt: skip
    assert np.isposinf(de.normal_score(jnp.asarray(-np.inf, dtype)))
    assert np.isnan(de.normal_score(jnp.asarray(np.nan, dtype)))


def test_slopes_of_the_normal_tails():
    z = np.asarray([0.3, 1.0, 5.0, 11.0, 13.0, 200.0, -3.0])
    slope = jax.vmap(jax.grad(de.log_two_sided))(jnp.asarray(z))
    a = np.abs(z)
    mills = np.sqrt(np.pi / 2) * scipy.special.erfcx(a / np.sqrt(2))
    np.testing.assert_allclose(slope, -np.sign(z) / mills, rtol=1e-10)
    back = jax.vmap(jax.grad(de.normal_score))(de.log_two_sided(jnp.asarray(a)))
    np.testing.assert_allclose(back, -mills, rtol=1e-9)
