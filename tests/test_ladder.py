"""Predictors of known worth in their order, and the known ways to score without knowing: where metrics are wrong these
fail first.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from vcjax import Profiles
from vcjax.baselines import feature_kernel, Features, KernelRidge, PertData
from vcjax.evaluation import make_controls
from vcjax.evaluation._baseline_folds import as_profiles
from vcjax.io import read_screen, resolve_targets, simulate_screen
from vcjax.metrics import CATALOGUE, Cosine, L1, L2, perturbation_discrimination


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ladder():
    """Predictions made of one half of the cells, the other half as the truth, and gene weights that no noise made."""
    made = simulate_screen(
        perts=40, doubles=0, genes=300, cells_per_pert=120, control_cells=600, programs=4, program_scale=0.5,
        effect_scale=0.3, effect_probability=0.1, shared_scale=0.5, seed=7,
    )  # fmt: skip
    screen = read_screen(made.adata)
    targets = resolve_targets(screen.perts, screen.genes)
    kinds = ("control", "mean", "duplicate", "interpolated")
    (found,) = make_controls(screen, seeds=(0,), space="bulk_lognorm", kinds=kinds, targets=targets)
    mean = {name: control.profiles.mean for name, control in found.controls.items()}
    ideal = jnp.asarray(np.log1p(5e4 * made.profiles[[made.perts.index(pert) for pert in found.perts]]))
    data = PertData.of(found.truth.with_mean(mean["duplicate"]), found.perts, screen.genes)
    kernel = feature_kernel(Features(jnp.asarray(made.embedding), made.perts))
    left_out = KernelRidge().fit(data, external=[kernel]).leave_one_out()
    predictions = {
        "control": mean["control"],
        "mean": mean["loo_mean"],
        "kernel ridge": left_out.profile,
        "interpolated duplicate": mean["interpolated"],
        "oracle": ideal,
    }
    weights = (ideal - np.log1p(5e4 * made.control_profile)[None, :]) ** 2
    return found.truth, predictions, weights, mean["duplicate"]


def value(metric, pred, ladder):
    truth, _, weights, _ = ladder
    row = CATALOGUE[metric]
    made = as_profiles(np.asarray(pred - truth.control[None, :]), truth)
    return float(jnp.mean(row(made, truth, weights=weights if row.needs_weights else None)))


@pytest.mark.parametrize("metric", ["weighted_mse_unbiased", "expr_mse_unbiased"])
def test_better_knowledge_has_the_smaller_error(ladder, metric):
    values = [value(metric, pred, ladder) for pred in ladder[1].values()]
    assert all(worse > 1.03 * better for worse, better in zip(values[:-1], values[1:], strict=True)), values
    # Without its noise the measurement leaves nothing to be explained.
    assert abs(values[-1]) < 0.01 * values[0]


def test_better_knowledge_has_the_larger_rank(ladder):
    values = [value("pds_cosine", pred, ladder) for pred in ladder[1].values()]
    assert values[0] == pytest.approx(0.5, abs=1e-12)
    assert values[1] < 0.5  # the mean of the others is drawn to them
    assert values[1] < values[2] < values[3] < values[4] + 1e-12


def test_interpolation_spares_the_genes_that_do_not_respond(ladder):
    interpolated, duplicate = ladder[1]["interpolated duplicate"], ladder[3]
    assert value("expr_mse_unbiased", interpolated, ladder) < 0.8 * value("expr_mse_unbiased", duplicate, ladder)


def test_inflation_pays_by_distance_and_shows_in_the_slope():
    rng = np.random.default_rng(0)
    strength = np.exp(rng.normal(size=(60, 1)))
    specific = strength * rng.normal(size=(60, 200)) * (rng.random((60, 200)) < 0.1)
    shared = rng.normal(size=200)
    measured = jnp.asarray(shared + specific + 0.1 * rng.normal(size=specific.shape))
    real = Profiles(measured, jnp.zeros(200), targets=jnp.full(60, -1))
    guess = 0.35 * specific + 0.1 * rng.normal(size=specific.shape)
    score = lambda a, metric: float(jnp.mean(CATALOGUE[metric](jnp.asarray(shared + a * guess), real)))
    for metric in ("pds_l1", "pds_l2"):
        assert score(10, metric) > score(1, metric) + 0.05
    assert score(10, "delta_mse") > 10 * score(1, "delta_mse")
    assert score(10, "calibration_slope_mean") < 0.2 * score(1, "calibration_slope_mean")
    whole = lambda a: float(jnp.mean(CATALOGUE["pds_cosine"](jnp.asarray(a * (shared + guess)), real)))
    assert whole(1) == pytest.approx(whole(10), abs=1e-12)


@pytest.mark.parametrize("distance", [L1(), L2(), Cosine()], ids=lambda d: type(d).__name__)
def test_spiked_target_genes_tell_perturbations_apart_only_where_each_leaves_out_its_own(distance):
    rng = np.random.default_rng(1)
    targets = np.arange(20)
    truth = 0.3 * rng.normal(size=(20, 60))
    truth[targets, targets] -= 2
    spiked = np.zeros(60)
    spiked[targets] = 3  # one answer for all perturbations
    pred = jnp.asarray(np.tile(spiked, (20, 1)))
    score = lambda exclude: float(
        jnp.mean(perturbation_discrimination(pred, truth, distance=distance, targets=targets, exclude=exclude))
    )
    assert score("own") > 0.75
    assert score("panel") == pytest.approx(0.5, abs=1e-12)
    assert score("none") == pytest.approx(0.5, abs=1e-12)
