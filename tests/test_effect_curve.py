"""Calibration curves of effect sizes, and the indicators of difficulty of a measured screen."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

from vcjax import DETable, Profiles
from vcjax.calibration import effect_curve
from vcjax.evaluation import difficulty
from vcjax.evaluation._difficulty import INDICATORS


NAN = math.nan
PERTS, GENES = 12, 40
RNG = np.random.default_rng(0)
PRED = RNG.normal(size=(PERTS, GENES))
REAL = 0.7 * PRED + 0.1 + RNG.normal(0, 0.5, (PERTS, GENES))
refused = pytest.raises((ValueError, TypeCheckError))


def test_bins_hold_equal_numbers_of_entries_in_order():
    found = effect_curve(PRED, REAL, bins=8)
    order = np.argsort(PRED.ravel())
    parts = np.split(order, 8)
    np.testing.assert_array_equal(found.count, 60)
    np.testing.assert_allclose(found.predicted, [PRED.ravel()[part].mean() for part in parts], rtol=1e-12)
    np.testing.assert_allclose(found.measured, [REAL.ravel()[part].mean() for part in parts], rtol=1e-12)
    np.testing.assert_array_equal(found.perts, [len(set(part // GENES)) for part in parts])


def test_equal_predictions_stay_together():
    pred = np.where(RNG.random(PRED.shape) < 0.7, 0.0, PRED)
    found = effect_curve(pred, REAL, bins=10)
    zero = int(np.flatnonzero(found.predicted == 0)[0])
    assert found.count[zero] == np.sum(pred == 0)
    assert found.measured[zero] == pytest.approx(REAL[pred == 0].mean())
    assert np.all(np.diff(found.predicted) > 0)
    # The other values share the remaining bins, and none holds values of both signs.
    rest = np.delete(found.count, zero)
    assert found.count.sum() == pred.size
    assert len(rest) in (9, 10)
    assert 2 <= zero <= 7
    coarse = np.round(2 * PRED)
    stepped = effect_curve(coarse, REAL, bins=30)
    values, numbers = np.unique(coarse, return_counts=True)
    for value, number in zip(stepped.predicted, stepped.count, strict=True):
        if value in values:
            assert number == numbers[values == value]
    assert stepped.count.sum() == pred.size
    assert effect_curve(np.zeros_like(PRED), REAL).count.tolist() == [PRED.size]


def test_errors_have_perturbations_as_the_unit():
    whole = effect_curve(PRED, REAL, bins=1)
    assert whole.error[0] == pytest.approx(scipy.stats.sem(REAL.mean(1)))
    halves = effect_curve(PRED, REAL, bins=2)
    low = np.median(PRED) > PRED
    totals, numbers = (REAL * low).sum(1), low.sum(1)
    mean = totals.sum() / numbers.sum()
    by_hand = math.sqrt(PERTS / (PERTS - 1) * np.sum((totals - mean * numbers) ** 2)) / numbers.sum()
    assert halves.error[0] == pytest.approx(by_hand)
    # What all genes of a perturbation share widens the interval as if there were as many values as perturbations.
    rng = np.random.default_rng(1)
    covered, naive, rounds = 0, 0, 300
    for _ in range(rounds):
        real = rng.normal(size=(30, 1)) + rng.normal(size=(30, 50))
        one = effect_curve(rng.normal(size=real.shape), real, bins=1)
        covered += abs(one.measured[0]) <= scipy.stats.t.ppf(0.975, 29) * one.error[0]
        naive += abs(one.measured[0]) <= 1.96 * scipy.stats.sem(real.ravel())
    assert 0.91 <= covered / rounds <= 0.98
    assert naive / rounds < 0.6


def test_lines_are_those_of_least_squares():
    found = effect_curve(PRED, REAL)
    assert [found.slope, found.intercept] == pytest.approx(np.polyfit(PRED.ravel(), REAL.ravel(), 1))
    single = np.array([np.polyfit(x, y, 1) for x, y in zip(PRED, REAL, strict=True)])
    np.testing.assert_allclose(np.stack([found.slopes, found.intercepts], 1), single, rtol=1e-8)
    weights = RNG.gamma(1.0, 1.0, GENES)
    ours = effect_curve(PRED, REAL, weights=weights)
    spread = np.broadcast_to(weights, PRED.shape).ravel()
    expected = np.polyfit(PRED.ravel(), REAL.ravel(), 1, w=np.sqrt(spread))
    np.testing.assert_allclose([ours.slope, ours.intercept], expected, rtol=1e-9)
    one = effect_curve(PRED, REAL, weights=weights, bins=1)
    assert one.measured[0] == pytest.approx(np.average(REAL.ravel(), weights=spread))
    assert one.predicted[0] == pytest.approx(np.average(PRED.ravel(), weights=spread))


def test_the_interval_of_the_slope_leaves_whole_perturbations_out():
    found = effect_curve(PRED, REAL)
    without = [np.delete(np.arange(PERTS), p) for p in range(PERTS)]
    slopes = np.array([np.polyfit(PRED[p].ravel(), REAL[p].ravel(), 1)[0] for p in without])
    half = scipy.stats.norm.ppf(0.975) * math.sqrt((PERTS - 1) / PERTS * np.sum((slopes - slopes.mean()) ** 2))
    np.testing.assert_allclose(found.slope_interval, [found.slope - half, found.slope + half], rtol=1e-8)
    narrow = effect_curve(PRED, REAL, level=0.5)
    assert np.diff(narrow.slope_interval) < np.diff(found.slope_interval)
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        slope = rng.normal(0.7, 0.3, (40, 1))
        pred = rng.normal(size=(40, 30))
        low, high = effect_curve(pred, slope * pred + rng.normal(size=pred.shape)).slope_interval
        covered += low <= 0.7 <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_noise_of_the_measurement_does_not_flatten_the_line():
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 0.2, (60, 300))
    real = truth + rng.normal(0, 0.4, truth.shape)
    assert effect_curve(truth, real).slope == pytest.approx(1, abs=0.03)
    assert effect_curve(real, truth).slope == pytest.approx(0.2, abs=0.03)  # the other way round it would
    assert effect_curve(10 * truth, real).slope == pytest.approx(0.1, abs=0.01)
    assert effect_curve(-truth, real).slope == pytest.approx(-1, abs=0.03)


def test_masked_and_undefined_entries_take_no_part():
    where = RNG.random(GENES) < 0.5
    masked, kept = effect_curve(PRED, REAL, where=where, bins=5), effect_curve(PRED[:, where], REAL[:, where], bins=5)
    holes = np.where(where[None, :], REAL, NAN)
    for ours in (masked, effect_curve(jnp.asarray(PRED), jnp.asarray(holes), bins=5)):
        np.testing.assert_allclose(ours.measured, kept.measured, rtol=1e-12)
        np.testing.assert_array_equal(ours.count, kept.count)
        assert ours.slope_interval == pytest.approx(kept.slope_interval)
    # A perturbation without a prediction is no perturbation of the jackknife.
    gone = np.where(np.arange(PERTS)[:, None] == 3, NAN, PRED)
    ours, without = effect_curve(gone, REAL), effect_curve(np.delete(PRED, 3, 0), np.delete(REAL, 3, 0))
    assert ours.slope_interval == pytest.approx(without.slope_interval)
    assert np.isnan(ours.slopes[3])


def test_degenerate_curves():
    flat = effect_curve(np.zeros_like(PRED), REAL)
    assert np.isnan([flat.slope, flat.intercept, *flat.slope_interval, *flat.slopes]).all()
    assert flat.measured[0] == pytest.approx(REAL.mean())
    # What float32 leaves of the same effect for all genes is no slope.
    rounding = np.full_like(PRED, 0.3) * (1 + 1e-7 * RNG.normal(size=PRED.shape))
    assert math.isnan(effect_curve(rounding, REAL).slope)
    one = effect_curve(PRED[:1], REAL[:1], bins=3)
    assert np.isnan(one.error).all()
    assert np.isnan(one.slope_interval).all()
    assert one.slope == pytest.approx(one.slopes[0])
    empty = effect_curve(np.full_like(PRED, NAN), REAL)
    assert empty.predicted.shape == (0,)
    assert math.isnan(empty.slope)
    assert np.isnan(empty.slopes).all()


def test_curves_are_refused_what_they_cannot_be_of():
    for broken in (
        lambda: effect_curve(PRED, REAL[:, :3]),
        lambda: effect_curve(PRED, REAL, bins=0),
        lambda: effect_curve(PRED, REAL, weights=np.ones(3)),
        lambda: effect_curve(PRED, REAL, weights=-np.ones(GENES)),
        lambda: effect_curve(PRED, REAL, level=1.0),
    ):
        with refused:
            broken()


def profiles(**fields):
    """Measured profiles whose effects are REAL, over a control of ones."""
    return Profiles(jnp.asarray(REAL + 1), jnp.ones(GENES), **fields)


def test_indicators_are_what_their_definitions_say():
    log_padj = np.log(RNG.random(PRED.shape))
    tested = np.broadcast_to(np.arange(GENES) > 4, REAL.shape)
    table = DETable(*(jnp.asarray(x) for x in (REAL, log_padj, log_padj, tested)))
    targets = jnp.asarray(np.r_[np.arange(PERTS - 1), -1])
    noise = np.linspace(0.1, 1, PERTS)
    control = jnp.arange(GENES, dtype=float)
    real = Profiles(
        jnp.asarray(REAL) + control[None, :],
        control,
        cells=jnp.asarray(np.r_[1.0, np.arange(2.0, PERTS + 1)]),
        noise=jnp.asarray(noise),
        control_noise=jnp.asarray(0.2),
        targets=targets,
        de=table,
    )
    found = difficulty(real, train=REAL[:4], same=np.arange(PERTS)[:, None] == np.arange(4)[None, :])
    assert set(found) == set(INDICATORS) - {"effect_size_uncorrected"}
    expected = (REAL**2).mean(1) - (noise + 0.2) / GENES
    expected[0] = NAN  # a single cell has no noise that anybody knows
    np.testing.assert_allclose(found["effect_size"], expected, rtol=1e-10)
    np.testing.assert_array_equal(found["significant_genes"], (log_padj[:, 5:] < math.log(0.05)).sum(1))
    np.testing.assert_array_equal(found["cells"], real.cells)
    np.testing.assert_array_equal(found["target_expression"], [*range(PERTS - 1), NAN])
    unit = REAL / np.linalg.norm(REAL, axis=1, keepdims=True)
    mean = (REAL.sum(0) - REAL) / (PERTS - 1)
    share = (unit * mean).sum(1) ** 2 / (mean**2).sum(1)
    np.testing.assert_allclose(found["systematic_share"], share, rtol=1e-8)
    alike = unit @ unit[:4].T
    alike[np.arange(4), np.arange(4)] = -2
    np.testing.assert_allclose(found["nearest_training"], alike.max(1), rtol=1e-8)


def test_no_indicator_is_made_up():
    found = difficulty(profiles())
    assert set(found) == {"effect_size_uncorrected", "systematic_share"}
    np.testing.assert_allclose(found["effect_size_uncorrected"], (REAL**2).mean(1), rtol=1e-10)
    assert "cells" in difficulty(profiles(), cells=np.arange(PERTS))
    assert set(difficulty(profiles(targets=jnp.full(PERTS, -1)))) == set(found)  # no target is measured
    bare = difficulty(profiles(targets=jnp.arange(PERTS), space="delta"))
    assert "target_expression" not in bare  # the control of bare effects is no expression
    lone = Profiles(jnp.asarray(REAL[:1]), jnp.zeros(GENES))
    assert set(difficulty(lone)) == {"effect_size_uncorrected"}
    with refused:
        difficulty(profiles(), cells=np.arange(3))
