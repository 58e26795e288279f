"""Scores of the gene that a perturbation targets, and of the genes without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax.metrics import mse, pearson, Status
from vcjax.metrics._target import (
    knockdown_efficiency,
    knockdown_error,
    only_targets,
    target_error,
    target_sign,
    without_targets,
)
from vcjax.metrics._target_catalogue import target_metrics


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

NAN = float("nan")
CONTROL = np.log1p(np.array([8.0, 4.0, 0.0, 10.0]))  # expression 8, 4, 0, 10
TARGETS = np.array([0, 1, 2, -1, 3])
REAL = np.log1p(np.array([[2.0, 4, 1, 9], [8, 6, 0, 10], [7, 4, 0, 12], [8, 4, 1, 2], [8, 4, 0, 10]]))
PRED = np.log1p(np.array([[4.0, 4, 0, 10], [8, 3, 0, 10], [8, 4, 2, 10], [8, 4, 0, 10], [8, 4, 0, 5]]))
ROWS = {row.name: row for row in target_metrics()}
wrong = pytest.raises((ValueError, TypeCheckError))


def close(value, expected, rtol=1e-12):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-14)


def test_efficiency_is_the_share_of_expression_taken_away():
    # Of 8, 2 are left; of 4 there are 6; the third is not expressed in the control, the fourth has no target.
    close(knockdown_efficiency(REAL, TARGETS, reference=CONTROL), [0.75, -0.5, NAN, NAN, 0])
    close(knockdown_efficiency(PRED, TARGETS, reference=CONTROL), [0.5, 0.25, NAN, NAN, 0.5])
    close(knockdown_error(PRED, REAL, TARGETS, reference=CONTROL), [0.25, 0.75, NAN, NAN, 0.5])
    close(knockdown_error(PRED, REAL, TARGETS, reference=CONTROL, min_expression=5.0), [0.25, NAN, NAN, NAN, 0.5])
    # A control of the prediction's own, of half the size.
    own = np.log1p(np.expm1(CONTROL) / 2)
    close(knockdown_error(PRED, REAL, TARGETS, reference=CONTROL, pred_reference=own), [0.75, 0, NAN, NAN, 0])
    kept = np.array([True, False, True, True])
    close(knockdown_error(PRED, REAL, TARGETS, reference=CONTROL, where=kept), [0.25, NAN, NAN, NAN, 0.5])
    each = np.broadcast_to(CONTROL, REAL.shape)
    close(knockdown_efficiency(REAL, TARGETS, reference=each), knockdown_efficiency(REAL, TARGETS, reference=CONTROL))


def test_error_and_sign_at_the_target():
    gaps = [PRED[0, 0] - REAL[0, 0], PRED[1, 1] - REAL[1, 1], PRED[2, 2] - REAL[2, 2], NAN, PRED[4, 3] - REAL[4, 3]]
    close(target_error(PRED, REAL, TARGETS), np.abs(gaps))
    close(target_error(PRED, REAL, TARGETS, reference=CONTROL), np.abs(gaps))
    # Down and down; up but down; not changed; no target; not changed.
    close(target_sign(PRED, REAL, TARGETS, reference=CONTROL), [1, 0, NAN, NAN, NAN])
    pasted = np.broadcast_to(CONTROL, REAL.shape)
    close(target_sign(pasted, REAL, TARGETS, reference=CONTROL), [0.5, 0.5, NAN, NAN, NAN])
    close(target_sign(REAL, REAL, TARGETS, reference=CONTROL), [1, 1, NAN, NAN, NAN])


def test_the_smooth_sign_tends_to_the_exact_one():
    exact = np.asarray(target_sign(PRED, REAL, TARGETS, reference=CONTROL))
    far, near = (
        np.asarray(target_sign(PRED, REAL, TARGETS, reference=CONTROL, relax=vcjax.Relaxation(s))) for s in (0.6, 1e-3)
    )
    close(near, exact)
    assert 0.5 < far[0] < 1
    assert 0 < far[1] < 0.5


def test_masks_keep_or_leave_out_the_target():
    only, rest = only_targets(TARGETS, 4), without_targets(TARGETS, 4)
    np.testing.assert_array_equal(np.argwhere(only), [[0, 0], [1, 1], [2, 2], [4, 3]])
    np.testing.assert_array_equal(rest, ~np.asarray(only))
    close(mse(PRED, REAL, where=only), np.square(target_error(PRED, REAL, TARGETS)))
    expected = [np.delete((PRED - REAL)[i] ** 2, TARGETS[i] if TARGETS[i] >= 0 else []).mean() for i in range(5)]
    close(mse(PRED, REAL, where=rest), expected)


def sides(pred=PRED, real=REAL, **fields):
    real = vcjax.Profiles(jnp.asarray(real), jnp.asarray(CONTROL), targets=jnp.asarray(TARGETS), **fields)
    return real.with_mean(jnp.asarray(pred)), real


@pytest.mark.parametrize("name", ROWS)
def test_a_value_is_undefined_exactly_where_the_status_says_so(name):
    row = ROWS[name]
    assert row.status is not None
    pred, real = sides(target_sum=jnp.asarray(22.0))
    values, codes = np.asarray(row(pred, real)), np.asarray(row.status(pred, real))
    np.testing.assert_array_equal(np.isnan(values), codes != Status.OK)


def test_rows_read_profiles():
    pred, real = sides()
    close(ROWS["target_knockdown_error"](pred, real), [0.25, 0.75, NAN, NAN, 0.5])
    close(ROWS["target_error"](pred, real), target_error(PRED, REAL, TARGETS))
    close(ROWS["target_sign"](pred, real), [1, 0, NAN, NAN, NAN])
    np.testing.assert_array_equal(
        ROWS["target_sign"].status(pred, real),  # pyright: ignore[reportOptionalCall]
        [Status.OK, Status.OK, Status.ZERO_TRUTH, Status.NO_TARGET, Status.ZERO_TRUTH],
    )
    rest = np.asarray(without_targets(TARGETS, 4))
    close(ROWS["expr_mse_without_target"](pred, real), mse(PRED, REAL, where=rest))
    guess = np.random.default_rng(0).normal(size=REAL.shape)
    close(
        ROWS["delta_pearson_without_target"](*sides(guess)), pearson(guess, REAL, where=rest, reference=CONTROL), 1e-10
    )
    mask = np.array([True, True, False, True])
    close(ROWS["expr_mse_without_target"](pred, real, where=mask), mse(PRED, REAL, where=rest & mask))
    with pytest.raises(ValueError, match="no gene weights"):
        ROWS["target_error"](pred, real, weights=np.ones(4))
    with pytest.raises(ValueError, match="needs `targets`"):
        ROWS["target_error"](PRED, vcjax.Profiles(jnp.asarray(REAL), jnp.asarray(CONTROL)))


def test_a_target_must_be_expressed_at_five_counts_per_million():
    # 8 of a library of 1.7e6 are 4.7 counts per million, 10 are 5.9.
    pred, real = sides(target_sum=jnp.asarray(1.7e6))
    close(ROWS["target_knockdown_error"](pred, real), [NAN, NAN, NAN, NAN, 0.5])
    effects = vcjax.effects_as_profiles(REAL - CONTROL, targets=TARGETS)
    assert np.isnan(ROWS["target_knockdown_error"](PRED - CONTROL, effects)).all()


@pytest.mark.parametrize("name", ROWS)
def test_gradients_equal_finite_differences(name):
    rng = np.random.default_rng(1)
    guess = REAL + rng.normal(0, 0.3, REAL.shape)
    relax = vcjax.Relaxation(0.3)

    class Fixed(vcjax.Relaxation):
        def temperature(self, gaps, where=None):
            return jnp.full_like(gaps[..., :1], 0.4)

    def total(mean, relax: vcjax.Relaxation = Fixed(0.3)):
        values = ROWS[name](*sides(mean), relax=relax)
        return jnp.sum(jnp.asarray([1.0, -0.7, 0.4, 1.3, 0.6]) * jnp.where(jnp.isnan(values), 0, values))

    direction = rng.normal(size=REAL.shape)
    assert directional(total, guess, direction) == pytest.approx(finite_difference(total, guess, direction), rel=1e-6)
    for mean in (np.broadcast_to(CONTROL, REAL.shape), REAL):
        gradient = np.asarray(jax.grad(lambda mean: total(mean, relax))(jnp.asarray(mean)))
        assert np.isfinite(gradient).all()


def test_what_does_not_fit_is_refused():
    with wrong:
        target_error(PRED, REAL[:3], TARGETS)
    with wrong:
        target_error(PRED, REAL, TARGETS[:3])
    with wrong:
        knockdown_efficiency(REAL, TARGETS, reference=None)
    with wrong:
        knockdown_error(PRED, REAL, TARGETS, reference=None)
