"""One loss of the six members of the 2026 challenge, from cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcjax
from vcjax.de import de_table, sort_control, tabulate_control
from vcjax.losses import compose, Term
from vcjax.metrics import V2


SIX = (
    "pds_cosine",
    "expr_mse_unbiased_capped_norm",
    "de_wilcoxon_direction_fidelity_yield_raw",
    "de_wilcoxon_direction_reach_raw",
    "de_wilcoxon_sig_jaccard",
    "de_wilcoxon_lfc_nmae",
)
PERTS, CELLS, GENES = 4, 24, 30


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
    loss = compose([Term(row, 1 / 6, null=baseline[name], best=anchor[name]) for name, row in metrics.items()])
    assert float(loss(replicate, real, relax=vcjax.HARD)[0]) == pytest.approx(0.0, abs=1e-12)
    relax = vcjax.Relaxation(0.3)
    of_cells = jax.jit(lambda cells: loss(profiles(cells, smooth, relax), real, relax=relax)[0])
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
