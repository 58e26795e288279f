"""Dynamic range, discrimination of bounds, scaled scores, noise floors, and what follows of them for a metric."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import DETable, Profiles, Relaxation
from vcjax.calibration import (
    bound_discrimination,
    bound_discrimination_test,
    calibrate,
    calibrated_score,
    Control,
    control_mean,
    ControlSet,
    correlation_ceilings,
    dynamic_range_fraction,
    explained_fraction,
    extrapolated_ceiling,
    jackknife_interval,
    leave_one_out_mean,
    median_interval,
    noise_floor,
    reliability,
    share_interval,
    signal_to_noise,
    spearman_brown,
    squared_error_ceilings,
    summarise_fractions,
    unbiased_effect_size,
)
from vcjax.metrics import CATALOGUE, mse, noise_corrected_mse, weighted_mse


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

NAN = math.nan
refused = (ValueError, TypeCheckError)


def test_dynamic_range_fractions_of_worked_examples():
    lower = dynamic_range_fraction(np.asarray([0.4]), np.asarray([1.0]), 0.0, higher_is_better=False)
    assert float(lower[0]) == pytest.approx(0.5999994, abs=1e-8)
    higher = dynamic_range_fraction(np.asarray([0.6]), np.asarray([0.1]), 1.0, higher_is_better=True)
    assert float(higher[0]) == pytest.approx(0.555555, abs=1e-6)


def test_dynamic_range_fractions_are_cut_and_undefined_without_a_range():
    positive, negative = np.asarray([-9.0, 0.5, NAN, 0.5, 1.0]), np.asarray([0.5, 0.5, 0.1, NAN, 1.0])
    ours = dynamic_range_fraction(positive, negative, 1.0, higher_is_better=True)
    np.testing.assert_allclose(ours, [-1, 0, NAN, NAN, NAN], atol=1e-12)
    plain = dynamic_range_fraction(positive, negative, 1.0, higher_is_better=True, clip=False)
    assert float(plain[0]) == pytest.approx(-19, rel=1e-5)
    with pytest.raises(Exception, match="better than a perfect prediction"):
        dynamic_range_fraction(np.asarray([1.0]), np.asarray([2.0]), 1.0, higher_is_better=True)
    with pytest.raises(refused):
        dynamic_range_fraction(np.ones(2), np.ones(3), 1.0, higher_is_better=False)


def test_fractions_are_summarised_without_undefined_ones_and_not_of_a_few():
    values = np.r_[np.random.default_rng(0).normal(0.4, 0.2, 25), NAN, NAN]
    ours, kept = summarise_fractions(values), values[:25]
    expected = [np.median(kept), kept.mean(), kept.std(ddof=1), *np.quantile(kept, [0.25, 0.75])]
    np.testing.assert_allclose([ours.median, ours.mean, ours.std, ours.q25, ours.q75], expected, rtol=1e-12)
    assert ours.used == 25
    assert (ours.low, ours.high) == median_interval(kept)
    few = summarise_fractions(values[:9])
    assert few.used == 9
    assert math.isnan(few.median)
    assert not math.isnan(summarise_fractions(values[:9], least=9).median)


@pytest.mark.parametrize("n", [6, 7, 20, 33, 400])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_median_is_that_of_the_sign_test(n, level):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    low, high = median_interval(values, level=level)
    expected = scipy.stats.quantile_test(values, p=0.5).confidence_interval(level)
    # scipy's interval may be a step longer on one side, since it is not made symmetric.
    assert expected.low <= low or math.isclose(expected.low, low)
    assert expected.high >= high or math.isclose(expected.high, high)
    for shift in np.linspace(-1.5, 2, 30):
        wins = int(np.sum(values - shift > 0))
        rejected = scipy.stats.binomtest(wins, n).pvalue <= 1 - level
        assert rejected == (low > shift or high < shift)


def test_intervals_of_shares_and_of_the_jackknife():
    for wins, n in ((0, 5), (3, 7), (33, 33), (412, 1000)):
        expected = scipy.stats.binomtest(wins, n).proportion_ci(0.9, method="wilson")
        np.testing.assert_allclose(share_interval(wins / n, n, level=0.9), [expected.low, expected.high], atol=1e-12)
    values = np.random.default_rng(1).normal(size=30)
    without = (values.sum() - values) / 29
    half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(values)
    expected = (values.mean() - half, values.mean() + half)
    np.testing.assert_allclose(jackknife_interval(values.mean(), without), expected, rtol=1e-10)
    assert median_interval(values[:5]) == (-math.inf, math.inf)
    assert np.isnan(share_interval(NAN, 0)).all()
    assert np.isnan(jackknife_interval(1.0, np.ones(1))).all()
    for interval in (lambda: median_interval(values, level=1.0), lambda: share_interval(0.5, 3, level=0.0)):
        with pytest.raises(ValueError, match="level"):
            interval()


def test_discrimination_of_bounds_gives_half_credit_for_ties():
    positive, negative = np.asarray([0.9, 0.5, 0.1, NAN]), np.asarray([0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(bound_discrimination(positive, negative, higher_is_better=True), [1, 0.5, 0, NAN])
    np.testing.assert_array_equal(bound_discrimination(positive, negative, higher_is_better=False), [0, 0.5, 1, NAN])
    soft = bound_discrimination(positive, negative, higher_is_better=True, relax=Relaxation(0.3))
    assert float(soft[1]) == 0.5
    assert 0.5 < float(soft[0]) < 1
    gradient = jax.grad(
        lambda x: jnp.nansum(bound_discrimination(x, negative, higher_is_better=True, relax=Relaxation(0.3)))
    )(jnp.asarray(positive))
    assert np.isfinite(gradient).all()
    assert float(gradient[0]) > 0
    with pytest.raises(refused):
        bound_discrimination(positive, negative[:2], higher_is_better=True)


def test_a_scaled_score_is_affine_with_one_orientation():
    values = np.linspace(-2, 6, 11)
    for better, low, high in ((True, 0.2, 0.7), (False, 5.0, 1.5)):
        ours = np.asarray(calibrated_score(values, low, high, higher_is_better=better))
        np.testing.assert_allclose(ours, (values - low) / (high - low), rtol=1e-12)
        ends = calibrated_score(np.asarray([low, high]), low, high, higher_is_better=better)
        np.testing.assert_allclose(ends, [0, 1], atol=1e-14)
        assert np.all(np.diff(ours) > 0) == better  # a better value is a higher score
        turned = calibrated_score(values, low, high, higher_is_better=better, orientation="sbb")
        np.testing.assert_allclose(turned, 1 - ours, rtol=1e-12)
        assert ours.min() < 0
        assert ours.max() > 1
    f = lambda x: jnp.sum(calibrated_score(x, 5.0, 1.5, higher_is_better=False))
    assert directional(f, values, np.ones(11)) == pytest.approx(finite_difference(f, values, np.ones(11)), rel=1e-6)
    slope = jax.grad(lambda low: calibrated_score(2.0, low, 1.5, higher_is_better=False))(5.0)
    assert float(slope) == 0  # the controls are constants


def test_without_a_scale_there_is_no_score():
    value, low, high = np.asarray([0.3, 0.3, 0.3, NAN]), np.asarray([0.5, 0.6, NAN, 0.1]), np.full(4, 0.5)
    assert np.isnan(calibrated_score(value, low, high, higher_is_better=True)).all()
    gradient = jax.grad(lambda x: jnp.nansum(calibrated_score(x, low, high, higher_is_better=True)))(jnp.asarray(value))
    np.testing.assert_array_equal(gradient[:3], 0)
    with pytest.raises(refused, match="orientation"):
        calibrated_score(value, low, high, higher_is_better=True, orientation="up")  # pyright: ignore[reportArgumentType]


def noisy(rng, effect, cells, sigma=1.0):
    """A profile of so many cells, and its estimated sampling variance gene by gene."""
    draws = effect[:, None, :] + sigma * rng.normal(size=(effect.shape[0], cells, effect.shape[1]))
    return draws.mean(1), draws.var(1, ddof=1) / cells


def test_the_noise_floor_is_the_error_of_a_perfect_prediction():
    rng = np.random.default_rng(2)
    effect, weights = rng.normal(0, 0.5, (30, 300)), rng.gamma(1, 1, 300)
    real, noise = noisy(rng, effect, 25)
    floor, error = noise_floor(noise, weights=weights), weighted_mse(effect, real, weights)
    assert float(jnp.mean(error)) == pytest.approx(float(jnp.mean(floor)), rel=0.05)
    np.testing.assert_allclose(floor, (noise * weights).sum(1) / weights.sum(), rtol=1e-12)
    # A wrong prediction scores its own error, whatever the number of cells.
    pred = effect + 0.3
    corrected = noise_corrected_mse(pred, real, noise, weights=weights)
    assert float(jnp.mean(corrected)) == pytest.approx(0.09, rel=0.05)
    np.testing.assert_allclose(noise_corrected_mse(real, real, noise), -noise_floor(noise), rtol=1e-12)
    assert np.isnan(noise_floor(noise, weights=np.zeros(300))).all()


def test_the_effect_size_is_unbiased_and_explained_fractions_are_shares_of_it():
    rng = np.random.default_rng(3)
    effect = rng.normal(0, 0.2, (40, 300))
    real, noise = noisy(rng, effect, 20)
    control, control_noise = noisy(rng, np.zeros((1, 300)), 50)
    size = unbiased_effect_size(real, control[0], noise, control_noise[0])
    assert float(jnp.mean(size)) == pytest.approx(np.mean(effect**2), rel=0.1)
    nothing = unbiased_effect_size(*noisy(rng, np.zeros((40, 300)), 20)[:1], np.zeros(300), noise)
    assert abs(float(jnp.mean(nothing))) < 0.002
    assert np.any(np.asarray(nothing) < 0)
    half = explained_fraction(0.5 * effect, real, np.zeros(300), noise)
    assert float(jnp.mean(half)) == pytest.approx(0.75, abs=0.02)
    null = explained_fraction(np.zeros((40, 300)), real, np.zeros(300), noise)
    np.testing.assert_allclose(null, 0, atol=1e-12)
    buried = explained_fraction(effect, real, real, noise)
    assert np.isnan(buried).all()
    gradient = jax.grad(lambda x: jnp.nansum(explained_fraction(x, real, real, noise)))(jnp.asarray(effect))
    np.testing.assert_array_equal(gradient, 0)
    for broken in (
        lambda: unbiased_effect_size(real, control[0, :5], noise),
        lambda: unbiased_effect_size(real, None, noise),
        lambda: unbiased_effect_size(real, control[0], noise[:3]),
    ):
        with pytest.raises(refused):
            broken()


def test_a_duplicate_beats_the_reference_exactly_if_the_signal_exceeds_its_noise():
    """Over effects from far below to far above the noise, by averages over many genes."""
    rng = np.random.default_rng(4)
    scale = np.asarray([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0])
    effect = scale[:, None] * rng.normal(size=(8, 20_000))
    (real, noise), (duplicate, _) = noisy(rng, effect, 20), noisy(rng, effect, 20)
    truth_snr = (effect**2).mean(1) / (1 / 20)
    snr = signal_to_noise(real, np.zeros(20_000), noise, duplicate_noise=noise)
    np.testing.assert_allclose(snr, truth_snr, rtol=0.05, atol=0.06)
    gain = np.asarray(mse(np.zeros_like(real), real) - mse(duplicate, real))
    np.testing.assert_array_equal(gain > 0, truth_snr > 1)
    clear = np.abs(truth_snr - 1) > 0.1
    drf = dynamic_range_fraction(mse(duplicate, real), mse(np.zeros_like(real), real), 0.0, higher_is_better=False)
    np.testing.assert_array_equal(np.sign(drf)[clear], np.sign(np.asarray(snr) - 1)[clear])
    # By default the duplicate is half of the cells, whose noise is twice that of all.
    by_default = signal_to_noise(real, np.zeros(20_000), noise)
    np.testing.assert_allclose(by_default, 0.5 * np.asarray(snr), rtol=1e-12)


def test_half_against_half_is_four_times_a_perfect_prediction_of_all():
    rng = np.random.default_rng(5)
    effect = rng.normal(0, 0.4, (20, 2000))
    first, _ = noisy(rng, effect, 30)
    second, _ = noisy(rng, effect, 30)
    whole, again = (first + second) / 2, (noisy(rng, effect, 30)[0] + noisy(rng, effect, 30)[0]) / 2
    half = mse(second, first)
    ceilings = squared_error_ceilings(half)
    np.testing.assert_allclose(np.mean(ceilings.noise_free), np.mean(mse(effect, whole)), rtol=0.05)
    np.testing.assert_allclose(np.mean(ceilings.replicate), np.mean(mse(again, whole)), rtol=0.05)
    np.testing.assert_allclose(np.mean(half), 4 * np.mean(mse(effect, whole)), rtol=0.05)
    # Correlations: half with half, replicate with all, truth with all.
    agreement = reliability(first, second)
    row = lambda a, b: np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
    assert float(np.mean(agreement.half)) == pytest.approx(row(first, second), rel=1e-10)
    assert float(np.mean(agreement.replicate)) == pytest.approx(row(again, whole), abs=0.01)
    assert float(np.mean(agreement.noise_free)) == pytest.approx(row(effect, whole), abs=0.01)


def test_reliabilities_that_are_not_positive_tell_nothing():
    ours = correlation_ceilings(np.asarray([0.5, 0.0, -0.3, NAN]))
    np.testing.assert_allclose(ours.replicate, [2 / 3, NAN, NAN, NAN])
    np.testing.assert_allclose(ours.noise_free, [math.sqrt(2 / 3), NAN, NAN, NAN])
    assert float(spearman_brown(0.5, 3.0)) == pytest.approx(1.5 / 2)
    gradient = jax.grad(lambda r: jnp.nansum(correlation_ceilings(r).noise_free))(jnp.asarray([0.5, 0.0, -1.0]))
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="factor"):
        spearman_brown(0.5, 0.0)


def test_ceilings_are_continued_along_their_curve():
    cells = np.asarray([10, 20, 40])
    curve = 0.8 - 3.0 * cells**-0.5
    both = np.stack([curve, 1 - curve])
    np.testing.assert_allclose(extrapolated_ceiling(cells, both, exponent=0.5), [0.8, 0.2], rtol=1e-12)
    at = extrapolated_ceiling(cells, curve, to=80.0, exponent=0.5)
    assert float(at) == pytest.approx(0.8 - 3.0 * 80**-0.5)
    values = np.random.default_rng(0).normal(size=5)
    n = np.asarray([5, 10, 15, 20, 40])
    expected = np.polynomial.Polynomial.fit(1 / n, values, 1)(0.0)
    assert float(extrapolated_ceiling(n, values)) == pytest.approx(expected)
    assert np.isnan(extrapolated_ceiling(cells, np.asarray([0.1, NAN, 0.3])))
    for broken in (
        lambda: extrapolated_ceiling(cells[[1, 1]], curve[:2]),
        lambda: extrapolated_ceiling(cells, curve, exponent=0.0),
    ):
        with pytest.raises(refused):
            broken()


def test_permutation_p_values_are_uniform_without_effects_and_small_with_them():
    rng = np.random.default_rng(6)
    perts, cells, genes = 120, 8, 6
    groups = np.repeat(np.arange(perts), cells)
    control = rng.normal(size=(400, genes))
    options = {"key": jax.random.key(0), "permutations": 99}
    null = bound_discrimination_test(
        CATALOGUE["expr_mse"], rng.normal(size=(perts * cells, genes)), groups, control, **options
    )
    assert scipy.stats.kstest(np.asarray(null.pvalue), "uniform").pvalue > 0.01
    assert np.all(np.asarray(null.pvalue) >= 0.01)
    assert np.mean(np.asarray(null.padj) < 0.05) < 0.02
    shift = np.where(groups < 40, 3.0, 0.0)[:, None]
    some = bound_discrimination_test(
        CATALOGUE["expr_mse"], shift + rng.normal(size=(perts * cells, genes)), groups, control, **options
    )
    assert np.all(np.asarray(some.gap)[:40] > 0)
    assert np.mean(np.asarray(some.pvalue)[:40] < 0.05) > 0.9
    expected = scipy.stats.false_discovery_control(np.asarray(some.pvalue))
    np.testing.assert_allclose(some.padj, expected, rtol=1e-10)


def test_tests_of_bounds_serve_correlations_and_rankings_and_leave_small_groups_out():
    rng = np.random.default_rng(7)
    groups = np.r_[np.repeat(np.arange(6), 12), np.full(3, 6), np.full(4, -1)]
    effect = np.r_[rng.normal(0, 2, (6, 15)), np.zeros((2, 15))]
    cells = effect[groups] + rng.normal(size=(len(groups), 15))
    control = rng.normal(size=(30, 15))
    options = {"key": jax.random.key(1), "permutations": 39}
    # The control is nearest to the weakest effects, so a ranking need not prefer a replicate of those.
    for name, share in (("delta_pearson", 1.0), ("pds_l2", 0.5)):
        ours = bound_discrimination_test(CATALOGUE[name], cells, groups, control, targets=jnp.full(7, -1), **options)
        assert np.mean(np.isclose(np.asarray(ours.pvalue)[:6], 1 / 40)) >= share
        assert np.isnan(ours.pvalue[6])
        assert np.isnan(ours.padj[6])
    for name, message in (
        ("amplitude_ratio", "direction"),
        ("de_overlap", "mean"),
        ("expr_mse_unbiased_capped_norm", "one number"),
    ):
        with pytest.raises(ValueError, match=message):
            bound_discrimination_test(CATALOGUE[name], cells, groups, control, **options)
    with pytest.raises(refused):
        bound_discrimination_test(CATALOGUE["expr_mse"], cells, groups[:3], control, **options)
    with pytest.raises(ValueError, match="control cells"):
        bound_discrimination_test(CATALOGUE["expr_mse"], cells, groups, control[:1], **options)
    with pytest.raises(ValueError, match="4 cells"):
        bound_discrimination_test(
            CATALOGUE["expr_mse"], cells, np.full(len(cells), -1) + np.eye(len(cells), dtype=int)[0], control, **options
        )


PERTS, GENES = 16, 200


def screen_sets(scale=1.0, seeds=(0,), de=False, perts=PERTS):
    """Truth, control, mean and duplicate of a simulated screen with a shared response."""
    sets = []
    rng = np.random.default_rng(8)
    shared, own = rng.normal(0, 1, GENES), scale * rng.normal(0, 1, (perts, GENES))
    for seed in seeds:
        rng = np.random.default_rng([9, seed])
        halves = [shared + own + rng.normal(0, 0.5, own.shape) for _ in range(2)]
        targets = jnp.arange(perts)
        truth = Profiles(jnp.asarray(halves[0]), jnp.zeros(GENES), targets=targets)
        duplicate = truth.with_mean(halves[1])
        if de:
            table = lambda x: DETable(*(jnp.asarray(y) for y in (x, -np.abs(x), -np.abs(x), np.ones(x.shape, bool))))
            truth = dataclasses.replace(truth, de=table(halves[0]))
            duplicate = dataclasses.replace(duplicate, de=table(halves[1]))
        controls = {
            "control": Control(control_mean(truth), "negative"),
            "loo_mean": Control(truth.with_mean(leave_one_out_mean(halves[1])), "null"),
            "duplicate": Control(duplicate, "positive"),
        }
        sets.append(ControlSet(truth, controls))
    return sets


def test_calibration_of_an_error_is_what_its_parts_are():
    (one,) = screen_sets()
    pred = np.asarray(one.truth.mean) + np.random.default_rng(10).normal(0, 0.9, (PERTS, GENES))
    ours = calibrate(CATALOGUE["expr_mse"], one, pred)
    error = {name: np.asarray(mse(c.profiles.mean, one.truth.mean)) for name, c in one.controls.items()}
    for name, values in error.items():
        np.testing.assert_allclose(ours.values[name], values, rtol=1e-12)
        assert ours.mean(name) == pytest.approx(values.mean())
    assert (ours.negative, ours.null, ours.positive) == ("control", "loo_mean", "duplicate")
    fraction = (error["loo_mean"] - error["duplicate"]) / (error["loo_mean"] + 1e-6)
    assert ours.drf_mean == pytest.approx(np.median(fraction))
    assert ours.drf_control > ours.drf_mean
    assert math.isnan(ours.drf_interpolated)
    predicted = mse(pred, one.truth.mean)
    span = error["duplicate"].mean() - error["control"].mean()
    expected = (float(np.mean(predicted)) - error["control"].mean()) / span
    assert ours.score == pytest.approx(expected)
    low, high = ours.score_interval
    assert low < expected < high
    assert ours.score_over_null < ours.score
    bounds = ours.between("duplicate", "loo_mean")
    assert bounds is not None
    assert bounds.discrimination == 1
    assert ours.separates is True
    assert ours.verdict.startswith("separates a replicate from the mean on this data (gain")


def test_a_metric_that_noise_has_drowned_cannot_separate():
    ours = calibrate(CATALOGUE["expr_mse"], screen_sets(scale=0.02))
    assert ours.separates is False
    assert ours.verdict.startswith("prefers the mean to a replicate")
    blunt = calibrate(CATALOGUE["delta_pearson"], screen_sets(scale=0.444, perts=40))
    assert blunt.separates is False
    assert blunt.verdict.startswith("cannot separate a replicate from the mean on this data")
    bounds = blunt.between("duplicate", "loo_mean")
    assert bounds is not None
    assert bounds.gap_interval[0] <= 0 <= bounds.gap_interval[1]
    assert math.isnan(blunt.score)


def test_a_control_that_cannot_serve_has_a_status_and_the_next_takes_its_place():
    sets = screen_sets(de=True)
    ours = calibrate(CATALOGUE["delta_pearson"], sets)
    assert ours.status["control"] == "constant_prediction"
    assert ours.negative is None
    assert ours.null == "loo_mean"
    assert ours.separates is not None
    de = calibrate(CATALOGUE["de_sig_jaccard"], sets)
    assert de.status["loo_mean"] == de.status["control"] == "no_differential_expression"
    assert de.separates is None
    assert "no uninformative control has a value (control: no_differential_expression" in de.verdict
    one = sets[0]
    random = Control(
        dataclasses.replace(one.controls["duplicate"].profiles, de=jax.tree.map(lambda x: x[::-1], one.truth.de)),
        "null",
    )
    served = calibrate(CATALOGUE["de_sig_jaccard"], ControlSet(one.truth, {**one.controls, "sparse_mean": random}))
    assert (served.null, served.separates) == ("sparse_mean", True)
    assert calibrate(CATALOGUE["pearson_energy"], sets).status["duplicate"] == "no_energy_distances"
    assert calibrate(CATALOGUE["weighted_mse"], sets).status["duplicate"] == "no_weights"
    assert calibrate(CATALOGUE["expr_mse_unbiased"], sets).status["duplicate"] == "no_sampling_noise"
    loud = ControlSet(dataclasses.replace(one.truth, noise=jnp.ones(PERTS)), one.controls)
    assert calibrate(CATALOGUE["expr_mse_unbiased"], loud).status["duplicate"] == "no_sampling_noise"
    assert calibrate(CATALOGUE["expr_mse_degs"], screen_sets()).status["duplicate"] == "no_differential_expression"
    degs = calibrate(CATALOGUE["expr_mse_degs"], sets)  # the table of the truth alone is read
    assert degs.status["loo_mean"] == "ok"


def test_weights_come_with_the_set():
    (one,) = screen_sets()
    weights = jnp.asarray(np.random.default_rng(11).gamma(1, 1, (PERTS, GENES)))
    ours = calibrate(CATALOGUE["weighted_mse"], dataclasses.replace(one, weights=weights))
    expected = weighted_mse(one.controls["duplicate"].profiles.mean, one.truth.mean, weights)
    np.testing.assert_allclose(ours.values["duplicate"], expected, rtol=1e-12)


def test_several_divisions_are_averaged_value_by_value():
    sets = screen_sets(seeds=(0, 1, 2))
    ours = calibrate(CATALOGUE["pds_cosine"], sets)
    each = [calibrate(CATALOGUE["pds_cosine"], one).values["duplicate"] for one in sets]
    np.testing.assert_allclose(ours.values["duplicate"], np.mean(each, axis=0), rtol=1e-12)
    assert ours.splits == 3
    broken = sets[1].truth.mean.at[3].set(jnp.nan)
    partly = [sets[0], dataclasses.replace(sets[1], truth=dataclasses.replace(sets[1].truth, mean=broken))]
    values = calibrate(CATALOGUE["expr_mse"], partly).values["duplicate"]
    assert np.flatnonzero(np.isnan(values)).tolist() == [3]
    bounds = calibrate(CATALOGUE["expr_mse"], partly).between("duplicate", "loo_mean")
    assert bounds is not None
    assert bounds.count == PERTS - 1


def test_a_metric_of_the_panel_is_judged_by_the_jackknife():
    rng = np.random.default_rng(12)
    (one,) = screen_sets()
    moved = jnp.asarray(rng.gamma(2, 1, PERTS))
    energy = lambda side, x: dataclasses.replace(side, energy=x)
    controls = {
        "sparse_mean": Control(energy(one.controls["loo_mean"].profiles, jnp.asarray(rng.gamma(2, 1, PERTS))), "null"),
        "duplicate": Control(
            energy(one.controls["duplicate"].profiles, moved + 0.1 * jnp.asarray(rng.normal(size=PERTS))), "positive"
        ),
    }
    truth = energy(one.truth, moved)
    ours = calibrate(CATALOGUE["pearson_energy"], ControlSet(truth, controls), energy(one.truth, moved))
    bounds = ours.between("duplicate", "sparse_mean")
    assert bounds is not None
    corr = lambda name, keep: np.corrcoef(np.asarray(controls[name].profiles.energy)[keep], np.asarray(moved)[keep])[
        0, 1
    ]
    everyone = np.ones(PERTS, bool)
    gap = corr("duplicate", everyone) - corr("sparse_mean", everyone)
    without = np.asarray([corr("duplicate", ~e) - corr("sparse_mean", ~e) for e in np.eye(PERTS, dtype=bool)])
    assert bounds.gap == pytest.approx(gap)
    np.testing.assert_allclose(bounds.gap_interval, jackknife_interval(gap, without), rtol=1e-9)
    assert math.isnan(bounds.discrimination)
    assert ours.separates is True
    assert ours.score_over_null > 1  # the truth itself, beyond the replicate


def test_too_few_perturbations_are_not_judged():
    ours = calibrate(CATALOGUE["expr_mse"], screen_sets(perts=9))
    assert ours.separates is None
    assert "defined for 9 perturbations, 10 are needed" in ours.verdict
    assert calibrate(CATALOGUE["expr_mse"], screen_sets(perts=9), least=9).separates is True


def test_a_metric_without_a_perfect_value_has_a_verdict_but_no_fraction():
    sets = [
        dataclasses.replace(
            one,
            truth=noise_of(one.truth),
            controls={name: Control(noise_of(c.profiles), c.role) for name, c in one.controls.items()},
        )
        for one in screen_sets()
    ]
    ours = calibrate(CATALOGUE["expr_mse_unbiased"], sets)
    assert ours.perfect is None
    assert math.isnan(ours.drf_mean)
    assert ours.separates is True
    given = calibrate(CATALOGUE["expr_mse_unbiased"], sets, perfect=-0.5)
    assert not math.isnan(given.drf_mean)


def noise_of(side):
    return dataclasses.replace(side, noise=jnp.full(side.mean.shape[0], 0.25 * GENES), control_noise=jnp.asarray(0.0))


def test_what_cannot_be_calibrated_is_refused():
    sets = screen_sets()
    with pytest.raises(ValueError, match="good direction"):
        calibrate(CATALOGUE["amplitude_ratio"], sets)
    with pytest.raises(ValueError, match="got none"):
        calibrate(CATALOGUE["expr_mse"], [])
    with pytest.raises(ValueError, match="same perturbations"):
        calibrate(CATALOGUE["expr_mse"], [*sets, *screen_sets(perts=8)])
    with pytest.raises(Exception, match="better than a perfect prediction"):
        calibrate(CATALOGUE["expr_mse"], sets, perfect=100.0)
    with pytest.raises(KeyError):
        calibrate(CATALOGUE["expr_mse"], sets).mean("prediction")
