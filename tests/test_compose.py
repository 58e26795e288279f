"""Several metrics as one loss: the scale of each term, bounds of ranks, guards, candidates of a bank."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax.losses import (
    amplitude_guard,
    collapse_guard,
    compose,
    error_guard,
    hinge_rank,
    info_nce,
    softplus_rank,
    Term,
)
from vcjax.metrics import Bank, CATALOGUE


RNG = np.random.default_rng(0)
PERTS, GENES = 8, 24
CONTROL = jnp.asarray(RNG.gamma(2, 1, GENES))
EFFECTS = jnp.asarray(RNG.normal(size=(PERTS, GENES)))
REAL = vcjax.Profiles(CONTROL[None] + EFFECTS, CONTROL, targets=jnp.arange(PERTS))
GUESS = REAL.mean + jnp.asarray(RNG.normal(0, 1.5, EFFECTS.shape))
WEIGHTS = jnp.asarray(RNG.gamma(1, 1, EFFECTS.shape))
BOUNDS = {"info_nce": info_nce, "softplus_rank": softplus_rank, "hinge_rank": hinge_rank}
every_bound = pytest.mark.parametrize("name", BOUNDS)


def mean_prediction(real: vcjax.Profiles = REAL) -> jax.Array:
    return jnp.broadcast_to(real.mean.mean(axis=0), real.mean.shape)


def test_each_term_is_its_coefficient_without_skill_and_zero_at_its_best():
    names = {"expr_mse": 1.0, "weighted_mse": 2.0, "pds_l2": 0.5}
    loss = compose(names, real=REAL, weights=WEIGHTS)
    value, parts = loss(mean_prediction(), REAL, weights=WEIGHTS, relax=vcjax.HARD)
    assert {name: float(x) for name, x in parts.loss.items()} == pytest.approx(names, abs=0.2)
    assert float(parts.loss["expr_mse"]) == pytest.approx(1.0, rel=1e-6)
    assert float(value) == pytest.approx(float(sum(parts.loss.values())))
    assert float(loss.exact(REAL.mean, REAL, weights=WEIGHTS)) == 0.0


def test_values_are_those_of_the_metrics():
    loss = compose({"expr_mse": 1.0, "pds_cosine": 1.0, "delta_pearson": 1.0}, real=REAL, softness=0.3)
    _, parts = loss(GUESS, REAL)
    for name in parts.exact:
        row = CATALOGUE[name]
        assert float(parts.exact[name]) == pytest.approx(float(row(GUESS, REAL).mean()))
        assert float(parts.soft[name]) == pytest.approx(float(row(GUESS, REAL, relax=vcjax.Relaxation(0.3)).mean()))
        assert float(parts.gap[name]) == float(parts.soft[name] - parts.exact[name])
    assert parts.gap["expr_mse"] == 0
    assert abs(float(parts.gap["pds_cosine"])) > 1e-3


def test_it_is_one_at_the_null_control_and_zero_at_the_replicate():
    replicate = REAL.mean + jnp.asarray(RNG.normal(0, 0.3, EFFECTS.shape))
    rows = {name: CATALOGUE[name] for name in ("pds_l1", "expr_mse", "delta_pearson")}
    null, best = ({name: float(row(side, REAL).mean()) for name, row in rows.items()} for side in (GUESS, replicate))
    loss = compose([Term(name, 1 / 3, null=null[name], best=best[name]) for name in rows])
    assert float(loss.exact(GUESS, REAL)) == pytest.approx(1.0, abs=1e-6)
    assert float(loss.exact(replicate, REAL)) == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_is_the_sum_of_the_terms_and_flows_into_the_prediction_only():
    loss = compose({"weighted_mse": 2.0, "delta_cosine": 0.5}, real=REAL, weights=WEIGHTS)
    gradient = jax.grad(lambda p: loss(p, REAL, weights=WEIGHTS)[0])(GUESS)
    null = float(CATALOGUE["weighted_mse"](mean_prediction(), REAL, weights=WEIGHTS).mean())
    by_hand = jax.grad(
        lambda p: (
            2.0 / null * CATALOGUE["weighted_mse"](p, REAL, weights=WEIGHTS).mean()
            - 0.5 * CATALOGUE["delta_cosine"](p, REAL).mean()
        )
    )(GUESS)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-6)
    others = jax.grad(lambda args: loss(GUESS, REAL.with_mean(args[0]), weights=args[1])[0])((REAL.mean, WEIGHTS))
    assert not any(jnp.any(x) for x in others)
    coefficient = jax.grad(lambda c: compose([Term("expr_mse", c, null=1.0)])(GUESS, REAL)[0])(jnp.asarray(1.0))
    assert float(coefficient) == 0.0


def test_a_schedule_of_softness_compiles_once():
    loss = compose({"pds_l1": 1.0}, softness=optax.exponential_decay(0.5, 10, 0.1))
    step: Any = jax.jit(lambda pred, step: loss(pred, REAL, step=step))
    values = [step(GUESS, jnp.asarray(i)) for i in (0, 10, 30)]
    assert step._cache_size() == 1
    softness = [float(np.asarray(loss.relaxation(i).softness)) for i in (0, 10, 30)]
    assert softness == pytest.approx([0.5, 0.05, 0.0005])
    gaps = [abs(float(parts.gap["pds_l1"])) for _, parts in values]
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_metric_that_is_undefined_everywhere_counts_as_no_skill_and_does_not_pull():
    constant = jnp.ones_like(GUESS)
    effects = vcjax.effects_as_profiles(EFFECTS)
    loss = compose({"expr_mse": 1.0, "delta_pearson": 0.5}, real=effects)
    (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(constant, effects)
    assert np.isnan(parts.exact["delta_pearson"])
    assert int(parts.undefined["delta_pearson"]) == PERTS
    assert float(value) == pytest.approx(float(parts.loss["expr_mse"]) + 0.5)
    np.testing.assert_allclose(
        gradient, jax.grad(lambda p: compose({"expr_mse": 1.0}, real=effects)(p, effects)[0])(constant)
    )


@pytest.mark.slow
def test_padding_neither_counts_nor_is_undefined():
    pad = lambda x: jnp.concatenate([x, jnp.full((3, GENES), 7.0)])
    padded = vcjax.Profiles(pad(REAL.mean), CONTROL, targets=jnp.concatenate([jnp.arange(PERTS), jnp.full(3, -1)]))
    loss = compose(
        [Term("expr_mse", null=2.0), Term("pds_l1"), Term(info_nce("l1", temperature=None)), Term(error_guard())]
    )
    ours, theirs = (
        loss(pad(GUESS), padded, valid=jnp.arange(PERTS + 3) < PERTS),
        loss(GUESS, REAL),
    )
    assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=1e-12)
    assert {name: int(n) for name, n in ours[1].undefined.items()} == dict.fromkeys(ours[1].undefined, 0)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "at least one term"),
        ({"nothing": 1.0}, "No metric is called 'nothing'"),
        ({"amplitude_ratio": 1.0}, "diagnostic"),
        ({"expr_mse": 1.0}, "no value without skill"),
        ({"de_overlap": 1.0}, "no value without skill"),
        ([Term("pds_l1"), Term("pds_l1", 2.0)], "Two terms are called 'pds_l1'"),
    ],
)
def test_a_loss_that_cannot_be_made_is_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        compose(terms)


def test_a_scale_without_a_span_is_refused():
    for null, best in ((0.9, 0.6), (0.5, 0.5), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="must lie above"):
            Term("pds_l1", null=null, best=best)
    with pytest.raises(ValueError, match="no perfect value"):
        Term("expr_mse_unbiased")
    same = REAL.with_mean(jnp.ones_like(REAL.mean))
    with pytest.raises(ValueError, match="must lie below"):
        compose({"expr_mse": 1.0}, real=same)
    with pytest.raises(ValueError, match="reads cells"):
        compose({"de_overlap": 1.0}, real=REAL)


# Candidates of a bank.


@pytest.mark.parametrize("name", ["pds_l1", "pds_cosine", "nir", "mrr", "recall_at_5"])
def test_a_bank_ranks_a_batch_among_all_candidates(name):
    rows = jnp.asarray([5, 2, 7])
    batch = vcjax.Profiles(REAL.mean[rows], CONTROL, targets=rows)
    bank = Bank(REAL, rows)
    for relax in (vcjax.HARD, vcjax.Relaxation(0.3)):
        ours = CATALOGUE[name](GUESS[rows], batch, relax=relax, bank=bank)
        np.testing.assert_allclose(ours, CATALOGUE[name](GUESS, REAL, relax=relax)[rows], rtol=1e-12)
    assert np.any(
        np.asarray(CATALOGUE["pds_l1"](GUESS[rows], batch)) != np.asarray(CATALOGUE["pds_l1"](GUESS, REAL)[rows])
    )


def test_metrics_that_do_not_rank_have_no_use_for_a_bank():
    bank = Bank(REAL, jnp.arange(PERTS))
    loss = compose({"expr_mse": 1.0, "pds_l1": 1.0}, real=REAL)
    assert float(loss(GUESS, REAL, bank=bank)[0]) == pytest.approx(float(loss(GUESS, REAL)[0]))
    plain = vcjax.as_loss(CATALOGUE["pds_l1"])
    assert float(plain(GUESS, REAL, bank=bank)) == pytest.approx(float(plain(GUESS, REAL)))


# Bounds of ranks.


@every_bound
@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_bounds_lie_above_what_they_bound(name, distance):
    bound = BOUNDS[name](distance, temperature=0.2)
    rng = np.random.default_rng(1)
    for scale in (0.1, 0.5, 2.0, 10.0):
        pred = REAL.mean + jnp.asarray(rng.normal(0, scale, EFFECTS.shape))
        value = bound(pred, REAL)
        if name == "info_nce":
            closer = (PERTS - 1) * (1 - CATALOGUE[f"pds_{distance}"](pred, REAL))
            assert np.all(PERTS ** -np.asarray(value) <= 1 / (1 + np.asarray(closer)) + 1e-9)
        else:
            assert np.all(np.asarray(value) >= 1 - np.asarray(CATALOGUE[f"pds_{distance}"](pred, REAL)) - 1e-9)


@every_bound
@pytest.mark.parametrize("temperature", [0.1, None])
def test_bounds_are_one_for_a_guess_and_small_when_right(name, temperature):
    bound = BOUNDS[name]("cosine", temperature=temperature)
    nothing = jnp.broadcast_to(CONTROL, GUESS.shape)  # a zero effect is equally far from everything
    np.testing.assert_allclose(bound(nothing, REAL), 1.0, rtol=1e-12)
    # A temperature of the median gap leaves half of the comparisons less than decided.
    assert np.all(np.asarray(bound(REAL.mean, REAL)) < (0.4 if temperature else 0.75))


def test_info_nce_is_the_cross_entropy():
    effects = np.asarray(GUESS) - np.asarray(CONTROL), np.asarray(EFFECTS)
    kept = np.arange(GENES) >= PERTS  # the targets of the panel are left out
    a, b = (x[:, kept] / np.linalg.norm(x[:, kept], axis=1, keepdims=True) for x in effects)
    logits = a @ b.T / 0.1
    expected = np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits)
    np.testing.assert_allclose(info_nce()(GUESS, REAL), expected / np.log(PERTS), rtol=1e-10)


@every_bound
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_gradients_of_bounds_are_finite_differences(name, distance):
    bound = BOUNDS[name](distance, temperature=0.3)
    value = lambda pred: jnp.sum(bound(pred, REAL))
    direction = jnp.asarray(np.random.default_rng(2).normal(size=GUESS.shape))
    ours = float(jnp.vdot(jax.grad(value)(GUESS), direction))
    assert ours == pytest.approx(float(finite_difference(value, GUESS, direction)), rel=1e-6)


@every_bound
def test_bounds_do_not_saturate_where_a_relaxed_rank_would(name):
    far = REAL.with_mean(jnp.roll(REAL.mean, 1, axis=0)).mean  # everyone has a neighbour's profile, exactly
    gradient = jax.grad(lambda p: jnp.sum(BOUNDS[name]("l2", temperature=None)(p, REAL)))(far + 1e-3 * GUESS)
    assert np.all(np.linalg.norm(gradient, axis=1) > 1e-4)


def test_a_single_perturbation_has_no_bound():
    one = vcjax.Profiles(REAL.mean[:1], CONTROL, targets=jnp.asarray([-1]))
    for make in BOUNDS.values():
        assert np.isnan(make()(GUESS[:1], one)).all()


def test_unknown_options_of_bounds_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="distance"):
        info_nce("euclid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        softplus_rank(temperature=0.0)


# Guards.


def beyond(scale: float) -> jax.Array:
    """The truth with what differs between perturbations made larger, over leave-one-out means."""
    others = (REAL.mean.sum(axis=0)[None] - REAL.mean) / (PERTS - 1)
    return others + scale * (REAL.mean - others)


def test_the_amplitude_guard_holds_the_slope_within_its_band():
    guard = amplitude_guard(0.8, 1.25)
    for scale, expected in ((1.0, 0.0), (1.2, 0.0), (0.85, 0.0), (3.0, np.log(3 * 0.8) ** 2), (0.4, np.log(0.5) ** 2)):
        assert float(guard(beyond(scale), REAL)) == pytest.approx(expected, abs=1e-9), scale
    shrink = jax.grad(lambda c: guard(beyond(c), REAL))(3.0)
    assert float(shrink) > 0
    grow = jax.grad(lambda c: guard(beyond(c), REAL))(0.4)
    assert float(grow) < 0
    nothing, gradient = jax.value_and_grad(guard)(beyond(0.0), REAL)
    assert float(nothing) == 0.0
    assert np.isfinite(gradient).all()
    # What has nothing to do with the truth should shrink.
    noise = beyond(0.0) + 3 * jnp.asarray(np.random.default_rng(3).normal(size=GUESS.shape))
    assert float(jax.grad(lambda c: guard(beyond(0.0) + c * (noise - beyond(0.0)), REAL))(1.0)) > 0


def test_the_error_guard_compares_with_the_mean():
    guard = error_guard()
    assert float(guard(REAL.mean, REAL)) == 0.0
    assert float(guard(beyond(0.0), REAL)) == pytest.approx(0.0, abs=1e-12)
    assert float(guard(beyond(4.0), REAL)) == pytest.approx(2.0)
    assert float(error_guard(0.5)(beyond(4.0), REAL)) == pytest.approx(1.5)
    known = dataclasses.replace(REAL, train_mean=REAL.mean.mean(axis=0))
    assert float(guard(mean_prediction(), known)) == pytest.approx(0.0, abs=1e-12)


def test_the_collapse_guard_holds_predictions_apart():
    guard, ratio = collapse_guard(0.5), CATALOGUE["spread_ratio"]
    collapsed = mean_prediction() + 0.1 * (REAL.mean - mean_prediction())
    assert float(ratio(collapsed, REAL)) == pytest.approx(0.1)
    assert float(guard(collapsed, REAL)) == pytest.approx(0.8**2)
    assert float(guard(REAL.mean, REAL)) == 0.0
    value, gradient = jax.value_and_grad(guard)(mean_prediction(), REAL)
    assert float(value) == pytest.approx(1.0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("guard", [amplitude_guard(), error_guard(), collapse_guard(0.9)], ids=lambda row: row.name)
def test_gradients_of_guards_are_finite_differences(guard):
    pred = beyond(0.5) + jnp.asarray(np.random.default_rng(4).normal(0, 0.1, GUESS.shape))
    pred = pred if guard.name != "error_guard" else beyond(4.0)
    value = lambda pred: guard(pred, REAL)
    assert float(value(pred)) > 0
    direction = jnp.asarray(np.random.default_rng(5).normal(size=GUESS.shape))
    ours = float(jnp.vdot(jax.grad(value)(pred), direction))
    assert ours == pytest.approx(float(finite_difference(value, pred, direction)), rel=1e-5)


def test_guards_that_hold_nothing_are_refused():
    for make, message in (
        (lambda: amplitude_guard(1.2, 0.8), "band"),
        (lambda: error_guard(-1.0), "tolerance"),
        (lambda: collapse_guard(0.0), "floor"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
