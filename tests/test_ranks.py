"""Kernels, soft distribution functions, soft ranks and soft top-k."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference

import vcjax
from vcjax._ecdf import pairwise_ecdf, sorted_ecdf
from vcjax._kernels import soft_step
from vcjax._order import order_statistic, quantile_from_zero
from vcjax._topk import hard_topk_mask, soft_topk_mask


KERNELS = [vcjax.Logistic(), vcjax.Gauss(), vcjax.Laplace(), vcjax.Matern32()]
SORTED = [vcjax.Laplace(), vcjax.Matern32()]
name = lambda kernel: type(kernel).__name__


def tied_vector(rng, n=60, share=0.4):
    x = rng.normal(size=n)
    x[rng.random(n) < share] = 0.0
    return x


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_kernel_is_a_symmetric_distribution_function(kernel):
    t = jnp.linspace(-8, 8, 161)
    np.testing.assert_allclose(kernel.cdf(t) + kernel.cdf(-t), 1, atol=1e-15)
    np.testing.assert_allclose(kernel.cdf(jnp.asarray([0.0, 1.0])), [0.5, 0.75], atol=1e-15)
    assert jnp.all(jnp.diff(kernel.cdf(t)) > 0)
    slope = (kernel.cdf(t + 1e-6) - kernel.cdf(t - 1e-6)) / 2e-6
    np.testing.assert_allclose(kernel.pdf(t), slope, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_step_is_the_unit_step_at_temperature_zero(kernel):
    delta = jnp.asarray([-2.0, 0.0, 1e-300, jnp.inf])
    np.testing.assert_array_equal(soft_step(kernel, delta, jnp.asarray(0.0)), [0, 0.5, 1, 1])
    grad = jax.grad(lambda d: soft_step(kernel, d, jnp.asarray(0.0)).sum())(delta[:3])
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.05, 1e-3, 0.0])
@pytest.mark.parametrize("kernel", SORTED, ids=name)
def test_sorted_engine_equals_all_pairs(kernel, temperature):
    rng = np.random.default_rng(0)
    z, w, v = jnp.asarray(tied_vector(rng)), jnp.asarray(rng.random(60)), jnp.asarray(rng.normal(size=60))
    t = jnp.asarray([temperature])
    # The pair of an item with itself never moves, which all-pairs autodiff gets right and must here too.
    pairs = lambda z, w: jnp.sum(w[None, :] * soft_step(kernel, z[:, None] - z[None, :], t[None]), axis=1)
    engine = lambda z, w: sorted_ecdf(kernel, z, w, t)
    np.testing.assert_allclose(engine(z, w), pairs(z, w), atol=1e-12)
    gradient = lambda f: jax.grad(lambda z, w: jnp.sum(v * f(z, w)), argnums=(0, 1))(z, w)
    ours, theirs = gradient(engine), gradient(pairs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10 * max(1, float(jnp.abs(b).max())))
    forward = jax.jvp(engine, (z, w), (v, w))[1]
    np.testing.assert_allclose(forward, jax.jvp(pairs, (z, w), (v, w))[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_chunked_pairwise_engine_equals_all_pairs_and_its_derivative(kernel):
    rng = np.random.default_rng(1)
    x, y, w = jnp.asarray(rng.normal(size=33)), jnp.asarray(tied_vector(rng)), jnp.asarray(rng.random(60))
    t = jnp.asarray(0.3)
    expected = jnp.sum(w[None, :] * kernel.cdf((x[:, None] - y[None, :]) / t), axis=1)
    chunked = lambda x: pairwise_ecdf(kernel, x, y, w, t, chunk=8)
    np.testing.assert_allclose(chunked(x), expected, atol=1e-13)
    v = jnp.asarray(rng.normal(size=33))
    f = lambda x: jnp.sum(v * chunked(x))
    assert directional(f, x, v) == pytest.approx(finite_difference(f, x, v), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", SORTED, ids=name)
def test_hard_ranks_equal_scipy_bit_for_bit(kernel, dtype):
    rng = np.random.default_rng(2)
    x = np.stack([tied_vector(rng, 500, share) for share in (0, 0.4, 0.95, 1.0)]).astype(dtype)
    x[0, :4] = [np.inf, -np.inf, np.inf, 0]
    relax = vcjax.Relaxation(0.0, rank_kernel=kernel)
    expected = scipy.stats.rankdata(x, axis=1).astype(dtype)
    np.testing.assert_array_equal(relax.rank(jnp.asarray(x)), expected)
    traced = jax.jit(lambda x, softness: vcjax.Relaxation(softness, rank_kernel=kernel).rank(x))
    np.testing.assert_array_equal(traced(jnp.asarray(x), jnp.asarray(0.0, dtype)), expected)


@pytest.mark.parametrize("softness", [0.0, 0.05, 0.3, 0.9])
def test_ranks_sum_and_scale(softness):
    rng = np.random.default_rng(3)
    x = jnp.asarray(tied_vector(rng))
    ranks = vcjax.Relaxation(softness).rank(x)
    assert float(ranks.sum()) == pytest.approx(60 * 61 / 2, abs=1e-9)
    np.testing.assert_allclose(vcjax.Relaxation(softness).rank(1e4 * x), ranks, atol=1e-9)
    np.testing.assert_allclose(vcjax.Relaxation(softness).rank(x[::-1])[::-1], ranks, atol=1e-9)


def test_soft_ranks_approach_mid_ranks():
    x = jnp.asarray(tied_vector(np.random.default_rng(4)))
    exact = vcjax.HARD.rank(x)
    errors = [float(jnp.abs(vcjax.Relaxation(s).rank(x) - exact).max()) for s in (0.9, 0.3, 0.1, 1e-4, 1e-6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("softness", [0.0, 0.2])
def test_masked_items_are_not_counted(softness):
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.normal(size=20))
    padded = jnp.concatenate([x, jnp.asarray([1e9, -1e9, 0.0])])
    where = jnp.arange(23) < 20
    relax = vcjax.Relaxation(softness)
    np.testing.assert_allclose(relax.rank(padded, where)[:20], relax.rank(x), atol=1e-9)


def test_gap_quantile_temperature():
    gaps = jnp.asarray([[0.0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, jnp.inf]])
    t = vcjax.Relaxation(0.5).temperature(gaps)
    np.testing.assert_allclose(t[:, 0], [2.5, 1, 3.5])  # in the second row all are ties: any temperature will do
    np.testing.assert_array_equal(vcjax.HARD.temperature(gaps), 0)
    where = jnp.asarray([[True, True, True, False, False, False]])
    np.testing.assert_allclose(vcjax.Relaxation(0.5).temperature(gaps[:1], where)[0], 1)
    assert jnp.all(jax.grad(lambda g: vcjax.Relaxation(0.5).temperature(g).sum())(gaps[:1]) == 0)


@pytest.mark.parametrize("softness", [0.0, 0.1])
def test_two_sample_ecdf_counts_what_lies_below(softness):
    rng = np.random.default_rng(6)
    x, y = jnp.asarray(rng.normal(size=15)), jnp.asarray(tied_vector(rng, 40))
    relax = vcjax.Relaxation(softness)
    if softness == 0:
        expected = np.sum(np.heaviside(np.asarray(x)[:, None] - np.asarray(y)[None], 0.5), axis=1)
        np.testing.assert_array_equal(relax.ecdf(x, y), expected)
        np.testing.assert_array_equal(relax.pairwise_ecdf(x, y), expected)
    else:
        t = jnp.asarray(0.3)
        laplace = vcjax.Relaxation(softness, kernel=vcjax.Laplace())
        np.testing.assert_allclose(
            relax.ecdf(x, y, temperature=t), laplace.pairwise_ecdf(x, y, temperature=t, chunk=4), atol=1e-12
        )


def test_membership_above_a_cut():
    relax = vcjax.Relaxation(0.0)
    np.testing.assert_array_equal(relax.above(jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([1.0])), [0, 0.5, 1])


@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_hard_topk_is_the_expected_mask_under_random_ties(k):
    x = jnp.asarray([3.0, 1, 3, 2, 2, 2, 0, -1, 2, 5, 5, 0, 0, 0, 0, 0, 0, 1, 1, 7])
    mask = vcjax.HARD.topk_mask(x, k)
    assert float(mask.sum()) == pytest.approx(k)
    rng = np.random.default_rng(0)
    drawn = np.zeros(20)
    for _ in range(4000):
        order = np.lexsort((rng.random(20), -np.asarray(x)))
        drawn[order[:k]] += 1 / 4000
    np.testing.assert_allclose(mask, drawn, atol=0.04)


@pytest.mark.parametrize("softness", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_soft_topk_has_mass_k_and_no_gradient_along_a_common_shift(softness, k):
    rng = np.random.default_rng(7)
    x, v = jnp.asarray(rng.standard_t(2, size=80)), jnp.asarray(rng.normal(size=80))
    relax = vcjax.Relaxation(softness)
    assert float(relax.topk_mask(x, k).sum()) == pytest.approx(k, abs=1e-9)
    overlap = lambda x: jnp.sum(v * relax.topk_mask(x, k))
    grad = jax.grad(overlap)(x)
    assert float(jnp.abs(grad.sum())) < 1e-9 * float(jnp.abs(grad).sum())


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_soft_topk_derivatives_match_finite_differences(kernel):
    rng = np.random.default_rng(8)
    x, amount, v, u = (jnp.asarray(a) for a in (rng.normal(size=40), rng.random(40), *rng.normal(size=(2, 40))))
    k = jnp.asarray(6.0)
    mask = jax.jit(lambda x, k, amount: jnp.sum(v * soft_topk_mask(kernel, x, k, amount, jnp.asarray(0.3))))
    checks = (
        (lambda x: mask(x, k, amount), x, u),
        (lambda a: mask(x, k, a), amount, u),
        (lambda k: mask(x, k, amount), k, jnp.asarray(1.0)),
    )
    for f, at, along in checks:
        assert directional(f, at, along) == pytest.approx(finite_difference(f, at, along, 1e-5), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("softness", [0.0, 0.2])
def test_topk_of_nothing_and_of_everything(softness):
    x = jnp.asarray([3.0, 1.0, 2.0])
    relax = vcjax.Relaxation(softness)
    np.testing.assert_allclose(relax.topk_mask(x, 0), 0)
    np.testing.assert_allclose(relax.topk_mask(x, 3), 1)
    np.testing.assert_allclose(relax.topk_mask(x, 9), 1)
    np.testing.assert_allclose(relax.topk_mask(x, 9, jnp.asarray([0.5, 0.2, 0.1])), [0.5, 0.2, 0.1])


def test_soft_topk_approaches_the_hard_mask():
    x = jnp.asarray(np.random.default_rng(9).permutation(50).astype(float))
    hard = hard_topk_mask(x, jnp.asarray(10.0), jnp.ones(50))
    errors = [float(jnp.abs(vcjax.Relaxation(s).topk_mask(x, 10) - hard).max()) for s in (0.9, 0.5, 0.1, 1e-3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_nan_makes_its_row_nan_and_no_other():
    x = jnp.asarray([[1.0, jnp.nan, 2.0], [1.0, 3.0, 2.0]])
    ranks = vcjax.Relaxation(0.1).rank(x)
    assert jnp.isnan(ranks[0]).all()
    assert jnp.isfinite(ranks[1]).all()


def test_softness_is_checked_and_traced():
    with pytest.raises(ValueError, match="share in"):
        vcjax.Relaxation(1.5)
    traces = 0

    @jax.jit
    def ranks(x, relax):
        nonlocal traces
        traces += 1
        return relax.rank(x)

    for softness in (0.0, 0.1, 0.5):
        ranks(jnp.arange(5.0), vcjax.Relaxation(softness))
    assert traces == 1


@pytest.mark.parametrize("softness", [0.0, 0.3])
@pytest.mark.parametrize("x", [[2.0], [1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
def test_short_and_tied_rows_have_finite_gradients(softness, x):
    grad = jax.grad(lambda x: jnp.sum(jnp.arange(1.0 * x.size) * vcjax.Relaxation(softness).rank(x)))(jnp.asarray(x))
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("softness", [0.0, 0.3])
@pytest.mark.parametrize("x", [[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 5.0]])
def test_topk_masks_have_finite_gradients(softness, x):
    total = lambda x: jnp.sum(jnp.arange(4.0) * vcjax.Relaxation(softness).topk_mask(x, 2))
    grad = jax.grad(total)(jnp.asarray(x))
    assert jnp.isfinite(grad).all()
    if softness == 0:
        assert not jnp.any(grad)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_order_statistics_are_those_of_a_sort(dtype):
    rng = np.random.default_rng(0)
    x = np.round(np.abs(rng.normal(size=(6, 23))), 1)  # ties
    x[0, :5], x[1] = np.inf, 0.0
    x = jnp.asarray(x, dtype)
    ascending = np.sort(np.asarray(x, np.float64), axis=1)
    for k in range(24):
        found = np.asarray(order_statistic(x, jnp.full((6, 1), k)), np.float64)[:, 0]
        np.testing.assert_array_equal(found, ascending[:, k - 1] if k else 0.0)


def test_a_quantile_from_zero_is_interpolated_between_numbers():
    x = jnp.asarray([3.0, jnp.inf, 1.0, 1.0, jnp.inf])
    value = lambda place: float(quantile_from_zero(x, jnp.asarray([place]), jnp.asarray([3], jnp.int32))[0])
    np.testing.assert_allclose([value(p) for p in (0.0, 0.25, 1.0, 1.5, 2.5, 3.0)], [0.0, 0.25, 1.0, 1.0, 2.0, 3.0])
