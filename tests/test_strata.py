"""Measures of difficulty, strata by them, and systematic variation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

from vcjax import comparison
from vcjax.comparison import stratify, stratum_table, systematic_share, systematic_variation
from vcjax.de import DETable


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

NAN = float("nan")
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
EFFECTS = RNG.normal(size=(7, 30))
wrong = pytest.raises((ValueError, TypeCheckError))


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_strata_of_equal_size():
    found = stratify(np.array([5.0, 1.0, 3.0, NAN, 2.0, 4.0, 6.0]), strata=3, name="cells")
    np.testing.assert_array_equal(found.codes, [2, 0, 1, -1, 0, 1, 2])
    assert (found.size, found.name) == (3, "cells")
    assert stratify(np.arange(4.0), strata=1).labels() == ("all",)
    assert stratify(np.zeros(6), strata=2).codes.tolist() == [1] * 6  # ties stay together


def test_strata_between_edges():
    found = stratify(np.array([0.0, 10.0, 9.9, 100.0, np.inf]), edges=np.array([10.0, 50.0]))
    np.testing.assert_array_equal(found.codes, [0, 1, 0, 2, -1])
    assert found.labels() == ("< 10", "10 to 50", ">= 50")
    with wrong:
        stratify(np.zeros(3), edges=np.array([2.0, 1.0]))
    with wrong:
        stratify(np.zeros(3), strata=0)


def test_a_table_has_the_mean_and_interval_of_each_stratum():
    rng = np.random.default_rng(1)
    measure = np.repeat([0.0, 1.0, 2.0, 3.0], 50)
    values = measure + rng.normal(size=200)
    values[3] = NAN
    strata = stratify(measure, edges=np.array([0.5, 1.5, 2.5, 9.0]), name="effect size")
    found = stratum_table(values, strata, key=KEY, samples=2000)
    np.testing.assert_array_equal(found.used, [49, 50, 50, 50, 0])
    for code in range(4):
        inside = values[(measure == code) & np.isfinite(values)]
        assert float(found.estimate[code]) == pytest.approx(inside.mean())
        expected = scipy.stats.t.interval(0.95, len(inside) - 1, inside.mean(), scipy.stats.sem(inside))
        width = expected[1] - expected[0]
        np.testing.assert_allclose([found.low[code], found.high[code]], expected, atol=0.08 * width)
    assert np.isnan([found.estimate[4], found.low[4], found.high[4]]).all()
    rows = found.rows()
    assert [row["stratum"] for row in rows] == ["< 0.5", "0.5 to 1.5", "1.5 to 2.5", "2.5 to 9", ">= 9"]
    assert rows[0]["used"] == 49
    assert rows[0]["measure"] == "effect size"
    with wrong:
        stratum_table(values[:5], strata, key=KEY)


def test_a_table_of_two_models():
    values = np.stack([np.arange(8.0), np.zeros(8)], axis=-1)
    strata = stratify(np.arange(8.0), strata=2)
    found = stratum_table(values, strata, key=KEY, statistic=comparison.difference_of(comparison.mean), samples=100)
    np.testing.assert_allclose(found.estimate, [1.5, 5.5])


def test_systematic_variation_of_the_others():
    found = systematic_variation(EFFECTS)
    expected = [cosine(EFFECTS[i], np.delete(EFFECTS, i, axis=0).mean(axis=0)) for i in range(7)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(systematic_share(EFFECTS), np.square(expected), rtol=1e-12)
    published = [cosine(row, EFFECTS.mean(axis=0)) for row in EFFECTS]
    np.testing.assert_allclose(systematic_variation(EFFECTS, leave_one_out=False), published, rtol=1e-12)


def test_one_response_is_all_systematic_and_unrelated_effects_are_not():
    rng = np.random.default_rng(2)
    shared = rng.gamma(2, 1, (12, 1)) * rng.normal(size=(1, 40))
    np.testing.assert_allclose(systematic_variation(shared), 1, rtol=1e-12)
    unrelated = rng.normal(size=(25, 4000))
    assert abs(float(systematic_variation(unrelated).mean())) < 0.02
    # With its own share in the mean every effect seems to follow it.
    assert float(systematic_variation(unrelated, leave_one_out=False).mean()) == pytest.approx(1 / 5, abs=0.02)


def test_systematic_variation_passes_over_what_does_not_count():
    padded = np.concatenate([EFFECTS, np.full((1, 30), NAN), RNG.normal(0, 9, (2, 30))])
    valid = np.arange(10) < 8
    found = systematic_variation(padded, valid=valid)
    np.testing.assert_allclose(found[:7], systematic_variation(EFFECTS), rtol=1e-12)
    assert np.isnan(found[7:]).all()
    mask = np.arange(30) < 20
    np.testing.assert_allclose(
        systematic_variation(EFFECTS, where=mask), systematic_variation(EFFECTS[:, :20]), rtol=1e-12
    )
    assert np.isnan(systematic_variation(EFFECTS[:1])).all()
    assert np.isnan(systematic_variation(np.zeros((3, 4)))).all()
    with wrong:
        systematic_variation(EFFECTS, weights=np.ones(3))


def test_gradients_of_systematic_variation_are_finite():
    total = lambda x: jnp.nansum(systematic_variation(x))
    for effects in (EFFECTS, EFFECTS[:1], np.concatenate([EFFECTS, np.zeros((1, 30))])):
        gradient = np.asarray(jax.grad(total)(jnp.asarray(effects)))
        assert np.isfinite(gradient).all()
    direction = RNG.normal(size=EFFECTS.shape)
    step = 1e-6
    numeric = (total(EFFECTS + step * direction) - total(EFFECTS - step * direction)) / (2 * step)
    assert float(np.sum(jax.grad(total)(jnp.asarray(EFFECTS)) * direction)) == pytest.approx(float(numeric), rel=1e-6)


def test_measures_of_difficulty():
    control, targets = np.array([0.5, 2.0, 3.0]), np.array([1, -1, 0])
    np.testing.assert_allclose(comparison.target_expression(control, targets), [2.0, NAN, 0.5])
    profiles = control + np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(comparison.effect_size(profiles, reference=control), [5 / 3, 0])
    with_noise = comparison.effect_size(profiles, reference=control, noise=np.array([0.1, 0.2]))
    np.testing.assert_allclose(with_noise, [5 / 3 - 0.1, -0.2])
    kept = comparison.effect_size(profiles, reference=control, where=np.array([True, True, False]))
    np.testing.assert_allclose(kept, [0.5, 0])
    table = DETable(
        log2_fold_change=jnp.zeros((2, 3)),
        log_pvalue=jnp.zeros((2, 3)),
        log_padj=jnp.log(jnp.asarray([[0.01, 0.06, 0.04], [0.9, 0.001, 0.2]])),
        tested=jnp.asarray([[True, True, True], [True, False, True]]),
    )
    np.testing.assert_array_equal(comparison.significant_genes(table), [2, 0])
    np.testing.assert_array_equal(comparison.significant_genes(table, alpha=0.5), [3, 1])


def test_the_nearest_training_effect():
    train = np.concatenate([RNG.normal(size=(4, 30)), EFFECTS[:2], np.zeros((1, 30))])
    alike = np.array([[cosine(x, y) if y.any() else -np.inf for y in train] for x in EFFECTS])
    found = comparison.nearest_training(EFFECTS, train)
    np.testing.assert_allclose(found, alike.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found[:2], 1, rtol=1e-12)
    same = np.zeros((7, 7), bool)
    same[0, 4] = same[1, 5] = True
    expected = np.where(same, -np.inf, alike).max(axis=1)
    np.testing.assert_allclose(comparison.nearest_training(EFFECTS, train, same=same), expected, rtol=1e-12)
    mask = np.arange(30) < 12
    np.testing.assert_allclose(
        comparison.nearest_training(EFFECTS, train, where=mask),
        comparison.nearest_training(EFFECTS[:, :12], train[:, :12]),
        rtol=1e-12,
    )
    assert np.isnan(comparison.nearest_training(np.zeros((1, 30)), train)).all()
    assert np.isnan(comparison.nearest_training(EFFECTS, np.zeros((2, 30)))).all()
    with wrong:
        comparison.nearest_training(EFFECTS, train[:, :5])
