"""Genes chosen by the truth, and errors and correlations without its noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax import metrics
from vcjax.metrics import CATALOGUE, Status


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing


def close(value, expected, atol=1e-12):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def table(log_padj, tested=None):
    log_padj = jnp.asarray(log_padj, float)
    tested = jnp.ones(log_padj.shape, bool) if tested is None else jnp.asarray(tested, bool)
    return vcjax.DETable(jnp.zeros_like(log_padj), log_padj, log_padj, tested)


def panel(seed=0, perts=4, genes=15):
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(perts, genes))
    return real, 0.5 * real + rng.normal(0, 0.7, real.shape), rng.gamma(1, 1, (perts, genes))


def test_significant_genes():
    p = np.array([[0.01, 0.05, 0.049, 0.2], [0.6, 0.5, 0.01, 0.9]])
    chosen = metrics.significant_mask(table(np.log(p), [[1, 1, 1, 1], [1, 1, 0, 1]]))
    np.testing.assert_array_equal(chosen, [[True, False, True, False], [False] * 4])
    np.testing.assert_array_equal(metrics.significant_mask(table(np.log(p)), alpha=0.3).sum(1), [4, 1])
    np.testing.assert_array_equal(metrics.significant_mask(table(np.log(p)), alpha=0.3, least=3).sum(1), [4, 0])
    with pytest.raises(ValueError, match="`alpha`"):
        metrics.significant_mask(table(np.log(p)), alpha=1.0)


def test_top_genes_share_the_last_places():
    scores = np.array([[5.0, 1, 3, 3, 3, np.nan], [1, 2, 3, 4, 5, 6]])
    close(metrics.top_genes(scores, 2), [[1, 0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0, 1, 1]])
    inside = np.array([False, True, True, True, True, True])
    close(metrics.top_genes(scores, 9, where=inside), [[0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]])
    close(metrics.top_genes(-scores, 1), [[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="at least 1"):
        metrics.top_genes(scores, 0)


@pytest.mark.parametrize("kind", ["top5", "degs"])
def test_rows_over_chosen_genes_equal_numpy(kind):
    real, pred, noise = panel()
    control = np.random.default_rng(1).normal(size=15)
    log_padj = np.log(np.random.default_rng(2).uniform(0, 0.08, real.shape))
    side = vcjax.Profiles(jnp.asarray(real), jnp.asarray(control), de=table(log_padj))
    rows = {row.name: row for row in metrics.top_metrics(5)} | CATALOGUE
    effect = np.abs(real - control)
    for p in range(4):
        chosen = np.argsort(-effect[p])[:5] if kind == "top5" else np.flatnonzero(log_padj[p] < np.log(0.05))
        a, b = (pred[p] - control)[chosen], (real[p] - control)[chosen]
        expected = {
            f"expr_mse_{kind}": ((a - b) ** 2).mean(),
            f"delta_pearson_{kind}": scipy.stats.pearsonr(a, b)[0],
            f"delta_r2_{kind}": 1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum(),
        }
        for name, value in expected.items():
            assert float(rows[name](pred, side)[p]) == pytest.approx(value, rel=1e-12), name


def test_too_few_significant_genes_are_undefined_with_a_reason():
    real, pred, _ = panel()
    log_padj = np.full(real.shape, -1.0)
    log_padj[1, :2] = log_padj[2, :3] = -9
    side = vcjax.Profiles(jnp.asarray(real), jnp.zeros(15), de=table(log_padj))
    guess = side.with_mean(pred)
    few = {"expr_mse_degs": [Status.NO_SIGNIFICANT_GENES, Status.OK], "delta_pearson_degs": [
        Status.NO_SIGNIFICANT_GENES, Status.TOO_FEW_GENES]}  # fmt: skip
    for name, codes in few.items():
        row = CATALOGUE[name]
        assert row.status is not None
        status = np.asarray(row.status(guess, side))
        np.testing.assert_array_equal(status, [codes[0], codes[1], Status.OK, codes[0]])
        np.testing.assert_array_equal(np.isnan(row(guess, side)), status != Status.OK)
        gradient = jax.grad(lambda x, row=row: jnp.nansum(row(side.with_mean(x), side)))(jnp.asarray(pred))
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[0], 0)
    with pytest.raises(ValueError, match="no table"):
        CATALOGUE["expr_mse_degs"](guess, dataclasses.replace(side, de=None))


def test_noise_corrected_error_of_a_worked_example():
    value = metrics.noise_corrected_mse(
        np.array([[1.0, 2, 9]]), np.array([[0.0, 0, 0]]), np.array([[0.5, 1, 7]]), weights=np.array([3.0, 1, 0])
    )
    close(value, (3 * (1 - 0.5) + (4 - 1)) / 4)


def test_noise_corrected_error_is_unbiased_for_any_weights():
    rng = np.random.default_rng(3)
    truth, pred, w = rng.normal(size=(3, 300, 40))
    w, cells = w**2, 10
    draws = truth[:, None] + rng.normal(0, 1.5, (300, cells, 40))
    real, noise = draws.mean(1), draws.var(1, ddof=1) / cells
    exact = metrics.mse(pred, truth, weights=w)
    corrected = metrics.noise_corrected_mse(pred, real, noise, weights=w) - exact
    naive = metrics.mse(pred, real, weights=w) - exact
    assert float(corrected.mean()) == pytest.approx(0, abs=4 * float(corrected.std()) / 300**0.5)
    assert float(naive.mean()) == pytest.approx(2.25 / cells, rel=0.15)
    perfect = metrics.noise_corrected_mse(truth, real, noise, weights=w)
    assert float(perfect.mean()) == pytest.approx(0, abs=4 * float(perfect.std()) / 300**0.5)


def test_noise_correction_does_not_change_the_gradient():
    real, pred, w = panel()
    noise = np.full(real.shape, 0.3)
    f = lambda x: jnp.sum(metrics.noise_corrected_mse(x, real, noise, weights=w))
    gradient = jax.grad(f)(jnp.asarray(pred))
    np.testing.assert_allclose(
        gradient, jax.grad(lambda x: jnp.sum(metrics.mse(x, real, weights=w)))(jnp.asarray(pred))
    )
    v = np.random.default_rng(4).normal(size=pred.shape)
    assert directional(f, pred, v) == pytest.approx(finite_difference(f, pred, v), rel=1e-7)
    into_noise = jax.grad(lambda n: jnp.sum(metrics.noise_corrected_mse(pred, real, n)))(jnp.asarray(noise))
    np.testing.assert_array_equal(into_noise, 0)


def test_genes_that_do_not_count_may_hold_any_noise():
    real, pred, w = panel()
    noise = np.full(real.shape, 0.3)
    where = np.arange(15) < 11
    loud = np.where(where, noise, np.inf)
    plain = metrics.noise_corrected_mse(pred[:, :11], real[:, :11], noise[:, :11], weights=w[:, :11])
    close(metrics.noise_corrected_mse(pred, real, loud, weights=w, where=where), plain)
    reliability = metrics.effect_reliability(real[:, :11], noise[:, :11], weights=w[:, :11])
    close(metrics.effect_reliability(real, loud, weights=w, where=where), reliability)


def test_zero_weights_give_nan_and_no_gradient():
    real, pred, _ = panel()
    w = np.ones(real.shape)
    w[2] = 0
    noise = np.full(real.shape, 0.1)
    for f in (
        lambda x: metrics.noise_corrected_mse(x, real, noise, weights=w),
        lambda x: metrics.disattenuated_pearson(x, real, metrics.effect_reliability(real, noise, weights=w), weights=w),
    ):
        np.testing.assert_array_equal(np.isnan(f(jnp.asarray(pred))), [False, False, True, False])
        gradient = jax.grad(lambda x, f=f: jnp.nansum(f(x)))(jnp.asarray(pred))
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[2], 0)


def test_weighted_r2_is_one_minus_weighted_error_over_weighted_variance_for_recipe_weights():
    real, pred, scores = panel(perts=6)
    w = vcjax.weights.MEJIA.from_scores(scores).values
    reference = np.random.default_rng(5).normal(size=15)
    share = np.asarray(w / w.sum(1, keepdims=True))
    delta = real - reference
    variance = (share * (delta - (share * delta).sum(1, keepdims=True)) ** 2).sum(1)
    expected = 1 - np.asarray(metrics.weighted_mse(pred, real, w)) / variance
    close(metrics.weighted_r2(pred, real, w, reference=reference), expected)


@pytest.mark.parametrize("name", ["mejia", "sbb", "vcpi"])
def test_weighted_error_of_added_noise_is_its_variance(name):
    rng = np.random.default_rng(6)
    truth, scores = rng.normal(size=(2, 400, 300))
    recipe = dataclasses.replace(vcjax.weights.RECIPES[name], exponent=2.0, target_neff=None)
    w = recipe.from_scores(scores).values
    for s in (0.1, 1.0):
        values = metrics.weighted_mse(truth + rng.normal(0, s, truth.shape), truth, w)
        assert float(values.mean()) == pytest.approx(s**2, abs=4 * float(values.std()) / 20)


def test_reliability_of_a_worked_example():
    real, noise = np.array([[3.0, 1, -1, 1]]), np.array([[0.4, 0.2, 0.1, 0.3]])
    close(metrics.effect_reliability(real, noise), 1 - 0.25 * 0.75 * 1.0 / 2.0)
    close(metrics.effect_reliability(real, noise, centred=False), 1 - 0.25 / 3.0)
    assert np.isnan(metrics.effect_reliability(np.ones((1, 4)), noise)[0])
    close(metrics.effect_reliability(real, 8 * noise, centred=False), 1 - 2 / 3)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_perfect_model_correlates_by_the_root_of_the_reliability(weighted):
    rng = np.random.default_rng(7)
    truth, w = rng.normal(size=(40, 3000)), rng.gamma(2, 1, (40, 3000)) if weighted else np.ones((40, 3000))
    scale = rng.gamma(2, 0.4, 3000)
    noise = np.broadcast_to(scale**2, truth.shape)
    real = truth + rng.normal(0, scale, truth.shape)
    raw = metrics.pearson(truth, real, weights=w)
    reliability = metrics.effect_reliability(real, noise, weights=w)
    corrected = metrics.disattenuated_pearson(truth, real, reliability, weights=w)
    assert float(raw.mean()) < 0.8
    assert float(corrected.mean()) == pytest.approx(1, abs=0.02)
    uncentred = metrics.effect_reliability(real, noise, weights=w, centred=False)
    assert float(metrics.disattenuated_cosine(truth, real, uncentred, weights=w).mean()) == pytest.approx(1, abs=0.02)


def test_no_reliability_no_value():
    r = jnp.asarray([0.5, 0.5, 0.5])
    value = metrics.disattenuate(r, np.array([0.25, 0.0, -0.2]))
    np.testing.assert_array_equal(np.isnan(value), [False, True, True])
    assert float(value[0]) == 1
    gradient = jax.grad(lambda r: jnp.nansum(metrics.disattenuate(r, jnp.asarray([0.25, 0.0, -0.2]))))(r)
    np.testing.assert_array_equal(gradient, [2, 0, 0])


def test_rows_take_the_noise_of_the_profile_and_of_the_control():
    real, pred, w = panel()
    noise, control_noise = 0.05 + 0.05 * w, np.linspace(0.01, 0.05, 15)
    control = np.random.default_rng(8).normal(size=15)
    side = vcjax.Profiles(
        jnp.asarray(real), jnp.asarray(control), noise=jnp.asarray(noise), control_noise=jnp.asarray(control_noise)
    )
    row = CATALOGUE["weighted_pearson_disattenuated"]
    reliability = metrics.effect_reliability(real, noise + control_noise, weights=w, reference=control)
    close(
        row(pred, side, weights=w), metrics.disattenuated_pearson(pred, real, reliability, weights=w, reference=control)
    )
    # Summed over genes the noise serves where all genes count alike, and nowhere else.
    sums = dataclasses.replace(side, noise=jnp.asarray(noise.sum(1)), control_noise=jnp.asarray(control_noise.sum()))
    even = CATALOGUE["delta_pearson_disattenuated"]
    close(even(pred, sums), even(pred, side))
    with pytest.raises(ValueError, match="gene by gene"):
        even(pred, sums, where=np.arange(15) < 9)
    with pytest.raises(ValueError, match="gene by gene"):
        CATALOGUE["weighted_mse_unbiased"](pred, sums, weights=w)
    with pytest.raises(ValueError, match="no sampling noise"):
        even(pred, real)


def test_effects_below_their_noise_have_the_reason_in_their_status():
    real, pred, _ = panel()
    noise = np.full(real.shape, 0.1)
    noise[1] = 50
    side = vcjax.Profiles(jnp.asarray(real), jnp.zeros(15), noise=jnp.asarray(noise))
    guess = side.with_mean(pred)
    for name in ("delta_pearson_disattenuated", "delta_cosine_disattenuated"):
        row = CATALOGUE[name]
        assert row.status is not None
        np.testing.assert_array_equal(row.status(guess, side), [0, Status.NO_SIGNAL, 0, 0])
        np.testing.assert_array_equal(np.isnan(row(guess, side)), [False, True, False, False])


def test_shapes_are_checked():
    real, pred, _ = panel()
    with pytest.raises((ValueError, TypeCheckError)):
        metrics.noise_corrected_mse(pred, real, np.ones((4, 3)))
    with pytest.raises((ValueError, TypeCheckError)):
        metrics.effect_reliability(real, np.ones((3, 15)))
