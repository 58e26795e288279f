"""The calibrated preset: gene weights and mean references in an evaluation of files, and what leaks are refused."""

import dataclasses
from typing import Any

import anndata as ad
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from vcjax.de import Moments
from vcjax.evaluation import evaluate, get_preset, prepare, Reading
from vcjax.io import read_screen, Refusal, simulate_screen, split_halves, summarise
from vcjax.weights import CALIBRATED, ECHOES, shared_weights


SIZES: dict[str, Any] = {
    "perts": 6,
    "doubles": 0,
    "genes": 60,
    "cells_per_pert": 12,
    "control_cells": 30,
    "programs": 2,
}
WEIGHTED = ["weighted_mse", "weighted_r2_mean"]
KEYS: dict[str, Any] = {"pert_col": "target_gene"}


@pytest.fixture(scope="module")
def real():
    return simulate_screen(**SIZES, seed=1).adata


@pytest.fixture(scope="module")
def pred(real):
    rates = sp.csr_matrix(real.X).toarray() * 0.8 + 0.1
    cells = np.random.default_rng(5).poisson(rates).astype(np.float32)
    return ad.AnnData(sp.csr_matrix(cells), obs=real.obs.copy(), var=real.var.copy())


def labels(adata):
    return adata.obs["target_gene"].astype(str).to_numpy()


def part(adata, keep):
    return ad.AnnData(sp.csr_matrix(adata.X)[keep], obs=adata.obs.iloc[keep].copy(), var=adata.var.copy())


def lognorm(adata):
    cells = sp.csr_matrix(adata.X).toarray().astype(np.float64)
    return np.log1p(cells / cells.sum(axis=1, keepdims=True) * 1e4)


def moments_of(cells, codes, perts):
    groups = [cells[codes == i] for i in range(perts)]
    stack = lambda f: jnp.asarray(np.stack([f(group) for group in groups]))
    return Moments(
        stack(lambda x: x.mean(axis=0)), stack(lambda x: x.var(axis=0, ddof=1)), stack(lambda x: float(len(x)))
    )


def by_hand(pred, real, codes_of_truth, codes_of_weights, recipe=CALIBRATED):
    """Weighted errors and explained variances from cells, with numpy."""
    names = sorted(set(labels(real)) - {"non-targeting"})
    target = [list(real.var_names).index(name) for name in names]
    cells, guess = lognorm(real), lognorm(pred)
    truth = np.stack([cells[codes_of_truth == i].mean(axis=0) for i in range(len(names))])
    model = np.stack([guess[labels(pred) == name].mean(axis=0) for name in names])
    weights = recipe(moments_of(cells, codes_of_weights, len(names)), targets=np.array(target, np.int32))
    w = np.broadcast_to(np.asarray(weights.values), truth.shape)
    others = (truth.sum(axis=0) - truth) / (len(names) - 1)
    return scores_by_hand(model, truth, w, others)


def scores_by_hand(model, truth, w, reference):
    error = np.sum(w * (model - truth) ** 2, axis=1)
    effect = truth - reference
    centred = effect - np.sum(w * effect, axis=1, keepdims=True) / np.sum(w, axis=1, keepdims=True)
    return error / np.sum(w, axis=1), 1 - error / np.sum(w * centred**2, axis=1)


@pytest.mark.slow
def test_each_half_is_scored_with_the_weights_of_the_other(pred, real):
    report = evaluate(pred, real, metrics=WEIGHTED, seed=3, **KEYS)
    screen = read_screen(real, **KEYS)
    first, second, _ = split_halves(screen, 3, min_cells=4)
    one, other = (by_hand(pred, real, *codes) for codes in ((first.codes, second.codes), (second.codes, first.codes)))
    for i, name in enumerate(WEIGHTED):
        np.testing.assert_allclose(report.values(name), (one[i] + other[i]) / 2, rtol=1e-6)
    assert report.stamp["settings"]["weights"]["from"] == "other-half"
    assert any("half of the cells that is not scored" in note for note in report.stamp["notes"])
    again = evaluate(pred, real, metrics=WEIGHTED, seed=4, **KEYS)
    assert (again.value != report.value).all()


def test_weights_of_the_scored_cells_are_a_leak_and_must_be_allowed(pred, real):
    options: dict[str, Any] = {"metrics": WEIGHTED, "weights_from": "measured", **KEYS}
    with pytest.raises(Refusal, match="made of the cells that are scored"):
        prepare(pred, real, Reading(pert_col="target_gene"), metrics=WEIGHTED, weights_from="measured")
    report = evaluate(pred, real, allow_leak=True, **options)
    codes = read_screen(real, **KEYS).codes
    for name, expected in zip(WEIGHTED, by_hand(pred, real, codes, codes), strict=True):
        np.testing.assert_allclose(report.values(name), expected, rtol=1e-6)
    assert any("a leak that was allowed" in note for note in report.stamp["notes"])


@pytest.fixture(scope="module")
def divided(pred, real):
    """`(pred, real, train)`: two perturbations are for training."""
    train = np.isin(labels(real), sorted(set(labels(real)) - {"non-targeting"})[:2])
    kept = np.flatnonzero(~train)
    return part(pred, kept), part(real, kept), part(real, np.flatnonzero(train | (labels(real) == "non-targeting")))


@pytest.mark.slow
def test_training_perturbations_give_the_reference_and_the_weights(divided):
    pred, real, train = divided
    report = evaluate(pred, real, train=train, weights_from="train", metrics=WEIGHTED, **KEYS)
    names = sorted(set(labels(real)) - {"non-targeting"})
    cells, guess, seen = lognorm(real), lognorm(pred), lognorm(train)
    truth = np.stack([cells[labels(real) == name].mean(axis=0) for name in names])
    model = np.stack([guess[labels(pred) == name].mean(axis=0) for name in names])
    old = sorted(set(labels(train)) - {"non-targeting"})
    codes = np.array([old.index(x) if x in old else -1 for x in labels(train)])
    target = np.array([list(real.var_names).index(name) for name in old], np.int32)
    weights = shared_weights(CALIBRATED(moments_of(seen, codes, 2), targets=target))
    mean = np.mean([seen[codes == i].mean(axis=0) for i in range(2)], axis=0)
    expected = scores_by_hand(model, truth, np.broadcast_to(np.asarray(weights.values), truth.shape), mean)
    for name, values in zip(WEIGHTED, expected, strict=True):
        np.testing.assert_allclose(report.values(name), values, rtol=1e-6)


def test_an_evaluated_perturbation_among_the_training_ones_is_refused(pred, real, divided):
    _, _, train = divided
    with pytest.raises(Refusal, match="among the training perturbations") as refusal:
        evaluate(pred, real, train=train, **KEYS)
    assert "2 of 6" in str(refusal.value)
    report = evaluate(pred, real, train=train, allow_leak=True, metrics=["delta_pearson_mean"], **KEYS)
    assert any("a leak that was allowed" in note for note in report.stamp["notes"])


def test_training_data_that_do_not_fit_are_refused(divided):
    pred, real, train = divided
    genes = slice(train.n_vars - 3)
    fewer = ad.AnnData(sp.csr_matrix(train.X)[:, genes], obs=train.obs.copy(), var=train.var.iloc[genes].copy())
    with pytest.raises(Refusal, match="lacks genes"):
        evaluate(pred, real, train=fewer, **KEYS)
    with pytest.raises(Refusal, match="there are none"):
        evaluate(pred, real, weights_from="train", metrics=WEIGHTED, **KEYS)
    with pytest.raises(Refusal, match="training screen is a summary"):
        evaluate(pred, real, train=summarise(read_screen(train, **KEYS), space="lognorm"), **KEYS)


def test_a_summary_has_no_cells_to_make_weights_of(pred, real):
    summary = summarise(read_screen(real, **KEYS), space="lognorm", target_sum=1e4)
    with pytest.raises(Refusal, match="no measured cells to make them of"):
        evaluate(pred, summary, metrics=WEIGHTED, **KEYS)
    assert np.isfinite(evaluate(pred, summary, metrics=["delta_pearson_mean"], **KEYS).value).all()


def test_unknown_recipes_are_refused_with_a_hint(pred, real):
    with pytest.raises(Refusal, match="Did you mean 'mejia'"):
        evaluate(pred, real, weights="mejja", metrics=WEIGHTED, **KEYS)


def test_a_perturbation_that_cannot_be_split_says_so_and_leaves_the_others_alone(pred, real):
    names = sorted(set(labels(real)) - {"non-targeting"})
    few = np.flatnonzero(labels(real) == names[0])[3:]  # three cells stay
    kept = np.setdiff1d(np.arange(real.n_obs), few)
    report = evaluate(pred, part(real, kept), metrics=WEIGHTED, **KEYS)
    whole = evaluate(pred, real, metrics=["weighted_mse"], **KEYS)
    assert report.status[report.metric == "weighted_mse"].tolist() == ["too_few_cells"] + ["ok"] * 5
    assert np.isnan(report.values("weighted_mse")[0])
    assert np.isfinite(report.values("weighted_mse")[1:]).all()
    assert np.isfinite(whole.values("weighted_mse")).all()


def test_missing_predictions_keep_their_policy(pred, real):
    names = sorted(set(labels(real)) - {"non-targeting"})
    short = part(pred, np.flatnonzero(labels(pred) != names[2]))
    report = evaluate(short, real, metrics=WEIGHTED, missing="nan", **KEYS)
    status = report.status[report.metric == "weighted_mse"]
    assert status.tolist() == ["ok", "ok", "missing", "ok", "ok", "ok"]
    whole = evaluate(pred, real, metrics=WEIGHTED, **KEYS)
    others = np.arange(6) != 2
    np.testing.assert_allclose(report.values("weighted_mse")[others], whole.values("weighted_mse")[others], rtol=1e-9)


def test_contexts_have_weights_of_their_own(pred, real):
    lines = np.where(np.random.default_rng(0).random(real.n_obs) < 0.5, "x", "y")
    both = [part(side, np.arange(side.n_obs)) for side in (pred, real)]
    for side in both:
        side.obs["line"] = lines
    report = evaluate(*both, context_col="line", metrics=WEIGHTED, **KEYS)
    keep = np.flatnonzero(lines == "y")
    alone = evaluate(part(both[0], keep), part(both[1], keep), metrics=WEIGHTED, **KEYS)
    for name in WEIGHTED:
        np.testing.assert_allclose(report.values(name, "y"), alone.values(name), rtol=1e-9)


def test_the_default_puts_discrimination_beside_magnitude(pred, real):
    report = evaluate(pred, real, **KEYS)
    assert report.preset.name == "calibrated"
    assert {"pds_cosine", "weighted_r2_mean", "weighted_mse", "amplitude_ratio"} <= set(report.metrics)
    assert not report.failed
    perfect = evaluate(real, real, **KEYS)
    assert perfect.score("pds_cosine") == 1
    assert perfect.score("delta_pearson_mean") == pytest.approx(1)
    # The halves differ from the whole by their own noise, which is what a truth of half the cells costs.
    assert 0 < perfect.score("weighted_mse") < report.score("weighted_mse")


def test_noise_is_taken_off_weighted_errors(real):
    report = evaluate(real, real, metrics=["weighted_mse", "weighted_mse_unbiased"], **KEYS)
    # The whole is half of the truth: its error is a half of the truth's noise, so that too much is taken off.
    assert report.score("weighted_mse_unbiased") < 0 < report.score("weighted_mse")


@pytest.mark.slow
def test_echoes_is_a_preset(pred, real):
    report = evaluate(pred, real, preset="echoes", **KEYS)
    assert report.stamp["settings"]["weights"]["name"] == ECHOES.name
    assert np.isfinite(report.score("echoes"))
    assert get_preset("echoes").weights is ECHOES
    mean = report.values("echoes_term").mean()
    assert report.score("echoes") <= max(mean, 0) + 1e-9  # the cosine is at most 1


@pytest.mark.slow
def test_metrics_of_the_measured_table_test_the_measured_side_only(pred, real):
    plan = prepare(pred, real, Reading(pert_col="target_gene"), metrics=["expr_mse_degs"])
    assert plan.tables is not None
    assert plan.tables.tested == ("real",)
    report = evaluate(pred, real, metrics=["expr_mse_degs", "delta_r2_degs"], **KEYS)
    assert not report.failed
    assert set(report.status) <= {"ok", "no_significant_genes", "too_few_genes"}
    assert (report.status == "ok").any()


def test_settings_of_weights_must_agree_in_a_comparison(pred, real, tmp_path):
    from vcjax.evaluation import compare

    runs = [evaluate(pred, real, metrics=["weighted_mse"], weights=name, **KEYS) for name in ("calibrated", "sbb")]
    with pytest.raises(Refusal, match="different settings of 'weights'"):
        compare(*runs)


@pytest.mark.parametrize("recipe", ["mejia", "miller", "sbb", "vcpi"])
def test_every_recipe_can_be_asked_for(pred, real, recipe):
    report = evaluate(pred, real, metrics=["weighted_mse"], weights=recipe, **KEYS)
    assert np.isfinite(report.value).all()
    assert report.stamp["settings"]["weights"]["name"] == recipe


def test_cells_as_counts_and_log_normalised_give_the_same(pred, real):
    normal = [
        ad.AnnData(sp.csr_matrix(lognorm(side)), obs=side.obs.copy(), var=side.var.copy()) for side in (pred, real)
    ]
    counts, logs = (evaluate(*sides, metrics=WEIGHTED, **KEYS) for sides in ((pred, real), normal))
    np.testing.assert_allclose(counts.value, logs.value, atol=1e-6)


def test_presets_hold_what_they_name():
    for preset in (get_preset("calibrated"), get_preset("echoes")):
        assert preset.default in preset.profiles
        for members in preset.profiles.values():
            assert set(members) <= set(preset.metrics)
        assert dataclasses.replace(preset, weights=CALIBRATED).weights is CALIBRATED
