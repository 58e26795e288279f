"""Tests of means: Welch, the variant of scanpy, models that predict means, and Student's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import de


def cells_of(rng, groups=3, genes=6):
    return [rng.gamma(2, 1 + 0.3 * g, size=(5 + 7 * g, genes)) for g in range(groups)]


def moments_of(cells):
    rows = [(x.mean(0), x.var(0, ddof=1), len(x)) for x in cells]
    return de.Moments(*(jnp.asarray(np.stack(column), float) for column in zip(*rows, strict=True)))


@pytest.fixture
def cells():
    return cells_of(np.random.default_rng(0))


def test_welch_equals_scipy(cells):
    control = np.random.default_rng(1).gamma(2, 1, size=(40, 6))
    result = de.welch_test(moments_of(cells), moments_of([control]))
    for row, group in enumerate(cells):
        expected = scipy.stats.ttest_ind(group, control, axis=0, equal_var=False)
        statistic, pvalue = np.asarray(expected[0]), np.asarray(expected[1])
        np.testing.assert_allclose(result.t[row], statistic, rtol=1e-12)
        np.testing.assert_allclose(np.exp(result.log_pvalue[row]), pvalue, rtol=1e-10)


def test_overestimated_variance_against_the_rest_equals_the_published_formula(cells):
    groups = moments_of(cells)
    result = de.welch_test(groups, de.rest_of(groups), overestimate=True)
    for row, group in enumerate(cells):
        rest = np.concatenate(cells[:row] + cells[row + 1 :])
        expected = scipy.stats.ttest_ind_from_stats(
            group.mean(0), group.std(0, ddof=1), len(group), rest.mean(0), rest.std(0, ddof=1), len(group), False
        )
        np.testing.assert_allclose(result.t[row], expected.statistic, rtol=1e-11)
        np.testing.assert_allclose(np.exp(result.log_pvalue[row]), expected.pvalue, rtol=1e-9)


def test_overestimated_variance_of_a_worked_example():
    groups = moments_of([np.asarray([[1.0], [2.0], [4.0]]), np.asarray([[0.0], [1.0], [1.0], [2.0], [3.0]])])
    rest = de.rest_of(groups)
    assert de.welch_test(groups, rest, overestimate=True).t[0, 0] == pytest.approx(0.848096, abs=1e-6)
    assert np.exp(de.welch_test(groups, rest, overestimate=True).log_pvalue[0, 0]) == pytest.approx(0.447745, abs=1e-6)
    assert de.welch_test(groups, rest).t[0, 0] == pytest.approx(0.916188, abs=1e-6)


def test_rest_is_made_of_the_cells_of_all_others(cells):
    control = np.random.default_rng(2).gamma(2, 1, size=(30, 6)) + 50
    for also, more in ((None, []), (moments_of([control]), [control])):
        rest = de.rest_of(moments_of(cells), also)
        for row in range(len(cells)):
            others = np.concatenate(cells[:row] + cells[row + 1 :] + more)
            np.testing.assert_allclose(rest.mean[row], others.mean(0), rtol=1e-12)
            np.testing.assert_allclose(rest.variance[row], others.var(0, ddof=1), rtol=1e-11)
            assert rest.cells[row] == len(others)


def test_rest_in_single_precision_keeps_the_variance_of_high_means():
    rng = np.random.default_rng(3)
    cells = [1000 + 0.1 * rng.normal(size=(50, 4)) for _ in range(5)]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), moments_of(cells))
    np.testing.assert_allclose(de.rest_of(single).variance, de.rest_of(moments_of(cells)).variance, rtol=1e-2)


def test_predicted_means_are_tested_with_measured_errors(cells):
    measured, control = moments_of(cells), moments_of([np.random.default_rng(1).gamma(2, 1, size=(40, 6))])
    np.testing.assert_array_equal(
        de.pseudo_test(measured.mean, measured, control).t, de.welch_test(measured, control).t
    )
    error = np.sqrt(measured.variance / measured.cells[:, None] + control.variance / 40)
    shifted = de.pseudo_test(control.mean + 2 * jnp.asarray(error), measured, control)
    np.testing.assert_allclose(shifted.t, 2, rtol=1e-10)
    rng = np.random.default_rng(4)
    mean, v = np.asarray(measured.mean), rng.normal(size=measured.mean.shape)
    w = jnp.asarray(rng.normal(size=mean.shape))
    f = lambda mean: jnp.sum(w * de.pseudo_test(mean, measured, control).log_pvalue)
    assert directional(f, mean, v) == pytest.approx(finite_difference(f, mean, v), rel=1e-6)


def test_groups_without_any_variance_have_no_test():
    constant = de.Moments(jnp.asarray([[1.0, 2.0]]), jnp.zeros((1, 2)), jnp.ones(1))
    reference = de.Moments(jnp.asarray([[1.0, 1.0]]), jnp.zeros((1, 2)), jnp.full(1, 5.0))
    result = de.welch_test(constant, reference)
    np.testing.assert_array_equal(result.t, 0)
    np.testing.assert_array_equal(result.log_pvalue, 0)
    gradient = jax.grad(lambda m: jnp.sum(de.pseudo_test(m, constant, reference).log_pvalue))(constant.mean)
    np.testing.assert_array_equal(gradient, 0)
    # One cell against many: all of the error is that of the many.
    many = de.Moments(jnp.asarray([[0.0, 0.0]]), jnp.ones((1, 2)), jnp.full(1, 16.0))
    np.testing.assert_allclose(de.welch_test(constant, many).t, [[4, 8]])
    np.testing.assert_allclose(de.welch_test(constant, many).freedom, 15)


@pytest.mark.parametrize("freedom", [1.0, 1.5, 3.0, 10.0, 33.0, 1e3, 1e6, 1e15])
def test_student_equals_scipy_and_has_the_slope_of_its_density(freedom):
    t = np.asarray([0, 1e-6, 0.3, 1, 1.9, 2.1, 3, 5, 9, 25.0])
    if freedom == 1:  # scipy's own loses digits here
        expected = np.log(2 / np.pi * np.arctan2(1, t))
    else:
        expected = np.log(2) + scipy.stats.t.logsf(t, freedom)
    f = jax.jit(lambda t: de.log_student(t, jnp.full(t.shape, freedom, t.dtype)))
    np.testing.assert_allclose(f(jnp.asarray(t)), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(f(-jnp.asarray(t)), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(f(jnp.asarray(t, jnp.float32)), expected, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda t: jnp.sum(f(t)))(jnp.asarray(t[2:]))
    log_density = scipy.stats.t.logpdf(t[2:], freedom)
    np.testing.assert_allclose(slope, -2 * np.exp(log_density - expected[2:]), rtol=1e-8)


def test_student_stays_finite_where_the_p_value_underflows():
    t, freedom = jnp.asarray([1e2, 1e3, 1e4], jnp.float32), jnp.full(3, 1e4, jnp.float32)
    assert jnp.all(jnp.isfinite(de.log_student(t, freedom)))
    gradient = jax.grad(lambda t: jnp.sum(de.log_student(t, freedom)))(t)
    assert jnp.all(jnp.isfinite(gradient) & (gradient < 0))
    assert jnp.isneginf(de.log_student(jnp.asarray([jnp.inf]), jnp.asarray([5.0])))[0]
    assert jnp.isnan(de.log_student(jnp.asarray([jnp.nan]), jnp.asarray([5.0])))[0]


def test_shapes_that_do_not_fit_are_refused(cells):
    groups = moments_of(cells)
    with pytest.raises((ValueError, TypeCheckError)):
        de.Moments(groups.mean, groups.variance, groups.cells[:2])
    with pytest.raises(ValueError, match="reference"):
        de.welch_test(groups, moments_of(cells[:2]))
    with pytest.raises((ValueError, TypeCheckError), match="mean"):
        de.pseudo_test(groups.mean[:2], groups, groups)
    with pytest.raises(ValueError, match="other group"):
        de.rest_of(moments_of(cells[:1]))
