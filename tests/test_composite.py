"""Several metrics as one loss, from cells to the six members of the 2026 challenge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcjax
from vcjax.de import de_table, sort_control, tabulate_control
from vcjax.losses import composite_loss
from vcjax.metrics import CATALOGUE, V2


SIX = (
    "pds_cosine",
    "expr_mse_unbiased_capped_norm",
    "de_wilcoxon_direction_fidelity_yield_raw",
    "de_wilcoxon_direction_reach_raw",
    "de_wilcoxon_sig_jaccard",
    "de_wilcoxon_lfc_nmae",
)
PERTS, CELLS, GENES = 4, 24, 30


def test_it_is_one_at_the_baseline_and_zero_at_the_anchor():
    rng = np.random.default_rng(0)
    truth = jnp.asarray(rng.normal(size=(6, 20)))
    guess, replicate = (truth + jnp.asarray(rng.normal(0, scale, truth.shape)) for scale in (2.0, 0.3))
    metrics = {name: CATALOGUE[name] for name in ("pds_l1", "expr_mse", "delta_pearson")}
    baseline, anchor = (
        {name: float(row(side, truth).mean()) for name, row in metrics.items()} for side in (guess, replicate)
    )
    loss = composite_loss(metrics, baseline=baseline, anchor=anchor, aux=True)
    for side, expected in ((guess, 1.0), (replicate, 0.0)):
        value, values = loss(side, truth, relax=vcjax.HARD)
        assert float(value) == pytest.approx(expected, abs=1e-12)
        assert {name: float(found) for name, found in values.items()} == pytest.approx(
            {name: float(row(side, truth).mean()) for name, row in metrics.items()}
        )
    # Errors count downwards: with one metric better by half of the span the loss falls by its share.
    half = {**baseline, "expr_mse": 0.5 * (baseline["expr_mse"] + anchor["expr_mse"])}
    moved = composite_loss(metrics, baseline=half, anchor=anchor)(guess, truth, relax=vcjax.HARD)
    assert float(moved) == pytest.approx(1 + 1 / 3)


def test_a_metric_that_is_undefined_everywhere_counts_as_its_baseline():
    truth = jnp.asarray(np.random.default_rng(1).normal(size=(5, 20)))
    metrics = {name: CATALOGUE[name] for name in ("expr_mse", "delta_pearson")}
    baseline, anchor = {"expr_mse": 2.0, "delta_pearson": 0.0}, {"expr_mse": 0.0, "delta_pearson": 1.0}
    loss = composite_loss(metrics, baseline=baseline, anchor=anchor, aux=True)
    constant = jnp.ones_like(truth)
    (value, values), gradient = jax.value_and_grad(loss, has_aux=True)(constant, truth)
    assert np.isnan(values["delta_pearson"])
    assert float(value) == pytest.approx(1 - 0.5 * (2.0 - float(jnp.mean((constant - truth) ** 2))) / 2.0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("baseline", "anchor", "message"),
    [
        ({}, {"pds_l1": 1.0}, "no baseline"),
        ({"pds_l1": 0.5}, {}, "no anchor"),
        ({"pds_l1": 0.9}, {"pds_l1": 0.6}, "must lie above"),
        ({"pds_l1": 0.5}, {"pds_l1": 0.5}, "cannot tell them apart"),
        ({"pds_l1": 0.5}, {"pds_l1": float("nan")}, "must lie above"),
    ],
)
def test_a_scale_without_a_span_is_refused(baseline, anchor, message):
    with pytest.raises(ValueError, match=message):
        composite_loss({"pds_l1": CATALOGUE["pds_l1"]}, baseline=baseline, anchor=anchor)


def test_it_needs_a_metric():
    with pytest.raises(ValueError, match="at least one"):
        composite_loss({}, baseline={}, anchor={})


@pytest.mark.slow
def test_the_six_of_2026_are_one_differentiable_function_of_cells():
    rng = np.random.default_rng(2)
    control = np.log1p(rng.poisson(1.5, (60, GENES)) * 50.0)
    effect = rng.normal(0, 1.0, (PERTS, 1, GENES)) * (rng.random((PERTS, 1, GENES)) < 0.4)
    draw = lambda strength: np.log1p(rng.poisson(1.5 * np.exp(strength * effect), (PERTS, CELLS, GENES)) * 50.0)
    exact, smooth = sort_control(jnp.asarray(control)), tabulate_control(jnp.asarray(control), temperature=0.3)

    def profiles(cells, prepared, relax):
        counts = jnp.expm1(cells).reshape(-1, GENES)
        groups = jnp.repeat(jnp.arange(PERTS), CELLS)
        own = jnp.asarray(np.expm1(control))
        return vcjax.Profiles(
            vcjax.bulk_lognorm(vcjax.bulk_sums(counts, groups, PERTS)),
            vcjax.bulk_lognorm(own.sum(axis=0)[None])[0],
            noise=vcjax.jackknife_noise(counts, groups, PERTS),
            control_noise=vcjax.jackknife_noise(own, jnp.zeros(len(own), int), 1)[0],
            targets=jnp.arange(PERTS),
            de=de_table(cells, prepared, relax=relax),
        )

    real, replicate = (profiles(jnp.asarray(draw(1.0)), exact, vcjax.HARD) for _ in range(2))
    start, nothing = (jnp.asarray(draw(strength)) for strength in (0.5, 0.0))
    metrics = {name: V2[name] for name in SIX}
    baseline, anchor = (
        {name: float(jnp.nanmean(row(side, real))) for name, row in metrics.items()}
        for side in (profiles(nothing, exact, vcjax.HARD), replicate)
    )
    loss = composite_loss(metrics, baseline=baseline, anchor=anchor)
    assert float(loss(replicate, real, relax=vcjax.HARD)) == pytest.approx(0.0, abs=1e-12)
    relax = vcjax.Relaxation(0.3)
    of_cells = jax.jit(lambda cells: loss(profiles(cells, smooth, relax), real, relax=relax))
    gradient = jax.grad(of_cells)(start)
    assert np.isfinite(gradient).all()
    step = start - 0.3 * gradient / jnp.abs(gradient).max()
    assert float(of_cells(step)) < float(of_cells(start))

    # Each member alone: its own gradient is checked against finite differences by the law tests.
    def scaled_mean(cells):
        pred = profiles(cells, smooth, relax)
        means = {name: jnp.nanmean(row(pred, real, relax=relax)) for name, row in metrics.items()}
        return sum(mean / (anchor[name] - baseline[name]) for name, mean in means.items()) / len(SIX)

    np.testing.assert_allclose(gradient, -jax.jit(jax.grad(scaled_mean))(start), rtol=1e-9, atol=1e-12)
