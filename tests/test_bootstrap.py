"""Resampling, intervals, permutation tests, adjustment and influence, against scipy and by hand."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

from vcjax import comparison
from vcjax.comparison import confidence_interval, interval_of, leave_one_out, mean, median, ratio_of_sums, swap_test
from vcjax.comparison._interval import student_bound
from vcjax.metrics import mse


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

EVERY: Any = np.inf  # scipy's word for all resamples

NAN = float("nan")
KEY = jax.random.key(0)
SKEWED = np.random.default_rng(0).gamma(1.5, 1.0, 30)
wrong = pytest.raises((ValueError, TypeCheckError))


def close(value, expected, rtol=1e-12):
    np.testing.assert_allclose(value, expected, rtol=rtol)


def test_a_resample_has_as_many_draws_as_perturbations_that_count():
    used = np.array([True, False, True, True, False])
    counts = np.asarray(comparison.resample(KEY, used, 3000))
    assert counts.shape == (3000, 5)
    assert (counts.sum(axis=1) == 3).all()
    assert not counts[:, ~used].any()
    np.testing.assert_allclose(counts.mean(axis=0), used, atol=0.06)  # standard error 0.015
    # Drawn with replacement: n draws of n leave one out with probability (1 - 1/n)^n.
    assert np.mean(counts[:, 0] == 0) == pytest.approx((2 / 3) ** 3, abs=0.035)


def test_statistics_are_those_of_the_repeated_values():
    rng = np.random.default_rng(1)
    values = rng.normal(size=9)
    for _ in range(20):
        counts = rng.integers(0, 4, 9)
        repeated = np.repeat(values, counts)
        close(mean(jnp.asarray(values), jnp.asarray(counts, float)), repeated.mean())
        close(median(jnp.asarray(values), jnp.asarray(counts, float)), np.median(repeated))
        pair = np.stack([values, rng.gamma(2, 1, 9)], axis=1)
        expected = pair[:, 0] @ counts / (pair[:, 1] @ counts)
        close(ratio_of_sums(jnp.asarray(pair), jnp.asarray(counts, float)), expected)


def test_statistics_pass_over_what_is_undefined():
    values, counts = jnp.asarray([1.0, NAN, 4.0, jnp.inf]), jnp.ones(4)
    assert float(mean(values, counts)) == 2.5
    assert float(median(values, counts)) == 2.5
    assert float(ratio_of_sums(jnp.asarray([[1.0, 2.0], [NAN, 5.0], [5.0, 4.0]]), jnp.ones(3))) == 1.0
    assert np.isnan(mean(values, jnp.zeros(4)))
    assert np.isnan(median(jnp.full(3, NAN), jnp.ones(3)))
    assert np.isnan(ratio_of_sums(jnp.asarray([[1.0, -2.0]]), jnp.ones(1)))


def test_contexts_weigh_the_same():
    values = jnp.asarray([[1.0, 10.0], [3.0, NAN], [5.0, NAN]])
    assert float(mean(values, jnp.ones(3))) == 6.5
    assert float(mean(values, jnp.asarray([0.0, 1.0, 1.0]))) == 4.0  # nothing is left of the second context


def test_draws_are_the_statistic_of_the_resamples():
    counts = np.asarray(comparison.resample(KEY, np.ones(30, bool), 50), int)
    expected = [np.median(np.repeat(SKEWED, row)) for row in counts]
    close(comparison.bootstrap(SKEWED, key=KEY, statistic=median, samples=50), expected)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize(("ours", "theirs"), [(mean, np.mean), (median, np.median)])
def test_intervals_equal_those_of_scipy_from_the_same_draws(method, ours, theirs):
    name = {"percentile": "percentile", "bca": "BCa"}[method]
    found = scipy.stats.bootstrap((SKEWED,), theirs, n_resamples=999, method=name, confidence_level=0.9, rng=1)
    low, high = interval_of(
        *(found.bootstrap_distribution, theirs(SKEWED)),
        level=0.9,
        method=method,
        jackknife=leave_one_out(SKEWED, statistic=ours),
    )
    close([low, high], [found.confidence_interval.low, found.confidence_interval.high], 1e-10)


def test_intervals_agree_with_those_of_scipy_from_other_draws():
    ours = confidence_interval(SKEWED, key=KEY, samples=20_000, small_sample=False)
    theirs = scipy.stats.bootstrap((SKEWED,), np.mean, n_resamples=20_000, method="BCa", rng=2).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=0.03 * width)
    assert float(ours.estimate) == pytest.approx(SKEWED.mean())
    assert (int(ours.used), ours.level, ours.method) == (30, 0.95, "bca")


@pytest.mark.parametrize("freedom", [1.0, 2.0, 9.0, 299.0])
def test_the_bound_of_students_t(freedom):
    for level in (0.5, 0.9, 0.99):
        close(student_bound(level, jnp.asarray(freedom)), scipy.stats.t.ppf(0.5 * (1 + level), freedom), 1e-9)


def test_a_value_that_outweighs_all_others_gives_a_bound():
    outlier = np.concatenate([np.linspace(0, 1e-3, 199), [1e6]])
    found = confidence_interval(outlier, key=KEY, samples=500, level=0.999)
    assert np.isfinite([found.low, found.high]).all()
    assert float(found.low) <= outlier.mean() <= float(found.high)


def test_what_has_no_interval_says_so():
    one = confidence_interval(np.array([1.0, NAN]), key=KEY, samples=20)
    assert float(one.estimate) == 1.0
    assert np.isnan([one.low, one.high]).all()
    none = confidence_interval(np.array([NAN, NAN]), key=KEY, samples=20)
    assert np.isnan([none.estimate, none.low, none.high]).all()
    alike = confidence_interval(np.full(5, 2.0), key=KEY, samples=20)
    assert (float(alike.low), float(alike.high)) == (2.0, 2.0)
    # A resample whose effects do not add up to more than their noise has no ratio, and the ratio no bound.
    loose = np.array([[1.0, 3.0], [1.0, -2.0], [1.0, 1.0]])
    assert np.isnan(confidence_interval(loose, key=KEY, statistic=ratio_of_sums, samples=200).high)


@functools.partial(jax.jit, static_argnames=("method", "small_sample"))
def intervals(data, keys, method, small_sample):
    def one(row):
        values, key = row
        options = {"key": key, "samples": 800, "method": method, "small_sample": small_sample}
        found = [confidence_interval(values, level=level, **options) for level in (0.90, 0.95)]
        return jnp.stack([jnp.stack([x.low, x.high]) for x in found])

    return jax.lax.map(one, (data, keys), batch_size=50)


def coverage(data, truth, method="bca", small_sample=True):
    bounds = np.asarray(intervals(data, jax.random.split(KEY, len(data)), method, small_sample))
    return ((bounds[..., 0] <= truth) & (truth <= bounds[..., 1])).mean(axis=0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_a_known_difference_cover_it_as_often_as_they_say(method):
    rng = np.random.default_rng(3)
    simulations, perts, truth = 400, 40, 0.2
    difficulty = rng.gamma(1.0, 2.0, (simulations, perts))  # what both models share, and what a pair takes out
    a = difficulty + truth + 0.4 * rng.normal(size=difficulty.shape)
    b = difficulty + 0.4 * rng.gamma(4.0, 0.5, difficulty.shape) - 0.8
    for level, found in zip((0.90, 0.95), coverage(a - b, truth, method), strict=True):
        assert abs(found - level) <= 2.5 * np.sqrt(level * (1 - level) / simulations), (level, found)


def test_few_perturbations_need_the_wider_interval():
    data = np.random.default_rng(4).normal(size=(400, 8))
    error = 2.5 * np.sqrt(0.9 * 0.1 / 400)
    wide, plain = (coverage(data, 0.0, "percentile", x)[0] for x in (True, False))
    assert abs(wide - 0.9) <= error
    assert plain < 0.9 - error


def test_what_only_one_model_lacks_counts_for_both():
    a, b = np.array([1.0, NAN, 3.0, NAN]), np.array([0.0, 5.0, NAN, NAN])
    close(comparison.complete_pairs(a, b), ([1, NAN, NAN, NAN], [0, NAN, NAN, NAN]))
    close(comparison.complete_pairs(a, b, fill=0.5), ([1, 0.5, 3, NAN], [0, 5, 0.5, NAN]))
    found = comparison.paired_difference(a, b, key=KEY, fill=0.5, samples=50)
    assert int(found.difference.used) == 3
    close([found.value_a, found.value_b], [1.5, 5.5 / 3])
    close(found.difference.estimate, found.value_a - found.value_b)
    close(found.won, 2 / 3)
    with wrong:
        comparison.paired_difference(a, b[:3], key=KEY)


def test_a_pair_is_sharper_than_two_intervals_and_the_same_under_jit():
    rng = np.random.default_rng(5)
    hard = rng.gamma(2, 3, 50)
    a, b = hard + rng.normal(0.3, 0.3, 50), hard + rng.normal(0, 0.3, 50)
    compute = lambda a, b, key: comparison.paired_difference(a, b, key=key, samples=200, permutations=199)
    eager, compiled = compute(jnp.asarray(a), jnp.asarray(b), KEY), jax.jit(compute)(a, b, KEY)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9), eager, compiled)
    alone = confidence_interval(a, key=KEY)
    gap = eager.difference
    assert float(gap.high - gap.low) < 0.2 * float(alone.high - alone.low)
    assert float(gap.low) > 0
    assert float(eager.pvalue) == pytest.approx(1 / 200 * 2)
    swapped = comparison.paired_difference(b, a, key=KEY, samples=200, higher_is_better=False)
    close(swapped.difference.estimate, -gap.estimate)
    close(swapped.won, eager.won)


def test_ties_are_half_won():
    assert float(comparison.share_won(np.array([1.0, 2.0, 3.0, NAN]), np.array([1.0, 1.0, 5.0, 0.0]))) == 0.5
    assert float(comparison.share_won(np.array([1.0, 2.0]), np.array([2.0, 2.0]), higher_is_better=False)) == 0.75
    assert np.isnan(comparison.share_won(np.array([NAN]), np.array([1.0])))


def test_the_signed_rank_test():
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.5, 1, 20), rng.normal(size=20)
    expected: Any = scipy.stats.wilcoxon(a - b)
    close(comparison.wilcoxon_pvalue(np.append(a, NAN), np.append(b, 0.0)), expected.pvalue)
    assert comparison.wilcoxon_pvalue(a, a) == 1.0
    assert np.isnan(comparison.wilcoxon_pvalue(np.array([NAN]), np.array([1.0])))


def scipy_swap(a, b, statistic=np.mean, alternative="two-sided"):
    contrast = lambda x, y: statistic(x) - statistic(y)
    return scipy.stats.permutation_test(
        *((a, b), contrast), permutation_type="samples", n_resamples=EVERY, alternative=alternative, vectorized=False
    ).pvalue


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_all_swaps_of_few_perturbations_give_the_exact_p_value(alternative):
    rng = np.random.default_rng(7)
    for a, b in ((rng.normal(0.7, 1, 7), rng.normal(size=7)), (rng.integers(0, 4, 6) / 4, rng.integers(0, 4, 6) / 4)):
        expected = scipy_swap(a, b, alternative=alternative)
        close(swap_test(a, b, key=KEY, alternative=alternative), expected)
        with_gap = swap_test(np.append(a, NAN), np.append(b, 1.0), key=KEY, alternative=alternative)
        close(with_gap, expected)
    close(swap_test(a, b, key=KEY, statistic=median), scipy_swap(a, b, np.median))


def test_drawn_swaps_come_near_the_exact_p_value():
    rng = np.random.default_rng(8)
    a, b = rng.normal(0.35, 1, 14), rng.normal(size=14)
    signs = np.array(list(itertools.product([1, -1], repeat=14)))
    sums = np.abs(signs @ (a - b))
    exact = np.mean(sums >= sums[0] * (1 - 1e-12))
    found = float(swap_test(a, b, key=KEY))
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 9_999)
    assert float(swap_test(a, a, key=KEY)) == 1.0
    assert np.isnan(swap_test(np.full(14, NAN), a, key=KEY))


def test_no_difference_is_found_as_often_as_the_level_says():
    rng = np.random.default_rng(9)
    gaps = jnp.asarray(rng.gamma(1, 1, (300, 20)) * rng.choice([-1, 1], (300, 20)))
    test = lambda row: swap_test(row[0], jnp.zeros(20), key=row[1], permutations=199)
    tests = jax.jit(lambda x, keys: jax.lax.map(test, (x, keys), batch_size=50))
    pvalues = np.asarray(tests(gaps, jax.random.split(KEY, 300)))
    assert abs(np.mean(pvalues <= 0.1) - 0.1) < 2.5 * np.sqrt(0.09 / 300)


def test_groups_shuffled():
    rng = np.random.default_rng(10)
    x, y = rng.normal(1.0, 1, 6), rng.normal(size=5)
    contrast = lambda a, b: a.mean() - b.mean()
    values = np.concatenate([x, [NAN], y])
    group = np.arange(12) < 7
    for alternative in ("two-sided", "greater"):
        exact = scipy.stats.permutation_test(
            (x, y), contrast, n_resamples=EVERY, alternative=alternative, vectorized=False
        ).pvalue
        found = float(comparison.group_test(values, group, key=KEY, permutations=4999, alternative=alternative))
        assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 4999) + 1 / 5000
    assert np.isnan(comparison.group_test(values, np.zeros(12, bool), key=KEY, permutations=9))


def test_predictions_dealt_out_at_random():
    rng = np.random.default_rng(11)
    x = rng.normal(size=5)
    y = 0.5 * x + rng.normal(size=5)
    score = lambda own: jnp.asarray(x)[own] * jnp.asarray(y)
    exact = scipy.stats.permutation_test(
        (x,),
        lambda x: np.mean(x * y),
        permutation_type="pairings",
        n_resamples=EVERY,
        alternative="greater",
        vectorized=False,
    ).pvalue
    close(comparison.assignment_test(score, 5, key=KEY), exact)
    alone = lambda own: (own == jnp.arange(30)).astype(float)  # right for its own only
    assert float(comparison.assignment_test(alone, 30, key=KEY)) == 1 / 1000
    assert float(comparison.assignment_test(lambda own: 0.5 * jnp.ones(30), 30, key=KEY)) == 1.0


def test_an_observed_value_is_one_of_its_permutations():
    draws = np.array([0.0, 1.0, 2.0, 3.0])
    assert float(comparison.permutation_pvalue(2.0, draws, alternative="greater")) == 3 / 5
    assert float(comparison.permutation_pvalue(2.0, draws, alternative="greater", exact=True)) == 2 / 4
    assert float(comparison.permutation_pvalue(2.0 + 1e-15, draws, alternative="greater", exact=True)) == 2 / 4
    assert float(comparison.permutation_pvalue(9.0, draws)) == 2 / 5
    assert float(comparison.permutation_pvalue(1.5, draws)) == 1.0


def test_adjustment_by_hand():
    pvalues = np.array([0.01, 0.04, NAN, 0.03, 0.005])
    close(comparison.holm(pvalues), [0.03, 0.06, NAN, 0.06, 0.02])
    close(comparison.benjamini_hochberg(pvalues), [0.02, 0.04, NAN, 0.04, 0.02])
    close(comparison.adjust(pvalues, "none"), pvalues)
    close(comparison.holm(np.array([0.4, 0.9])), [0.8, 0.9])
    close(comparison.holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert np.isnan(comparison.benjamini_hochberg(np.array([NAN]))).all()
    close(comparison.adjust(pvalues, "bh"), comparison.benjamini_hochberg(pvalues))


def test_influence_on_the_mean():
    values = np.array([1.0, 2.0, NAN, 9.0])
    close(comparison.influence(values), [-1.5, -1.0, NAN, 2.5])
    close(leave_one_out(values), [5.5, 5.0, NAN, 1.5])
    np.testing.assert_array_equal(comparison.top_carriers(values, 2), [3, 0])
    close(comparison.top_share(values, 1), 9 / 12)
    close(comparison.top_share(values, 2), 11 / 12)
    close(comparison.top_share(values, 1, base=1.0), 8 / 9)
    close(comparison.top_share(np.array([3.0, -2.0, -0.5]), 1), 3 / 0.5)  # the rest pulls the other way
    close(comparison.effective_perturbations(values), 144 / 86)
    close(comparison.effective_perturbations(np.array([0.7, 0.7, 0.7, 0.7]), base=0.5), 4)
    assert np.isnan(comparison.top_share(np.zeros(3), 1))
    assert np.isnan(comparison.effective_perturbations(np.zeros(3)))
    with wrong:
        comparison.top_share(values, 5)
    with wrong:
        comparison.top_carriers(values, 0)


def test_influence_of_more_perturbations_than_are_left_out_at_once():
    values = np.random.default_rng(12).normal(size=300)
    close(comparison.influence(values), (values - values.mean()) / 299, 1e-9)


def test_cells_drawn_anew_shift_an_error_and_the_centred_interval_does_not():
    rng = np.random.default_rng(13)
    perts, genes, samples, noise = 12, 80, 300, 0.3
    real = rng.normal(size=(perts, genes))
    pred = real + 0.5 * rng.normal(size=real.shape)
    replicates = real[None] + noise * rng.normal(size=(samples, perts, genes))
    values = comparison.score_replicates(lambda row: mse(pred, row), jnp.asarray(replicates))
    close(values[7], mse(pred, replicates[7]))
    draws = comparison.bootstrap_replicates(values)
    close(draws, np.asarray(values).mean(axis=1))
    estimate = mse(pred, real).mean()
    shift = float(draws.mean() - estimate)
    assert shift == pytest.approx(noise**2, rel=0.1)
    low, high = interval_of(draws, estimate, method="centred")
    assert float(low) < float(estimate) < float(high)
    naive, _ = interval_of(draws, estimate, method="percentile")
    assert float(naive) > float(estimate)
    both = comparison.bootstrap_replicates(values, key=KEY)
    assert float(jnp.std(both)) > 1.3 * float(jnp.std(draws))  # perturbations differ, too
    # Another draw of cells moves two models alike.
    other = comparison.score_replicates(lambda row: mse(pred + 0.1, row), jnp.asarray(replicates))
    gap = comparison.bootstrap_replicates(
        jnp.stack([values, other], axis=-1), statistic=comparison.difference_of(comparison.mean)
    )
    assert abs(float(gap.mean()) - float(estimate - mse(pred + 0.1, real).mean())) < 0.1 * shift


@pytest.mark.parametrize(
    "call",
    [
        lambda: comparison.bootstrap(np.zeros(0), key=KEY),
        lambda: comparison.bootstrap(np.zeros(3), key=KEY, samples=0),
        lambda: confidence_interval(np.zeros(3), key=KEY, level=1.0),
        lambda: confidence_interval(np.zeros(3), key=KEY, method="exact"),  # pyright: ignore[reportArgumentType]
        lambda: interval_of(np.zeros(3), 0.0, method="bca"),
        lambda: comparison.bootstrap_replicates(np.zeros((3, 0))),
        lambda: swap_test(np.zeros(3), np.zeros(2), key=KEY),
        lambda: comparison.group_test(np.zeros(3), np.zeros(2, bool), key=KEY),
        lambda: comparison.permutation_pvalue(0.0, np.zeros(2), alternative="up"),  # pyright: ignore[reportArgumentType]
        lambda: comparison.adjust(np.zeros(2), "bonferroni"),  # pyright: ignore[reportArgumentType]
        lambda: comparison.share_won(np.zeros(3), np.zeros(2)),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with wrong:
        call()
