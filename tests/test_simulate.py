"""Simulated screens do what their knobs say, and the demo's predictors have the quality they claim."""

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from vcjax.io import DEMO_PREDICTORS, simulate_screen
from vcjax.io._simulate import CONTROL, draw_counts, shares


SMALL = {"perts": 12, "genes": 300, "cells_per_pert": 60, "control_cells": 200, "doubles": 4}
PREDICTORS = {predictor.name: predictor for predictor in DEMO_PREDICTORS}


def simulate(**knobs: Any):
    return simulate_screen(**{**SMALL, **knobs})


@pytest.fixture(scope="module")
def screen():
    return simulate()


def labels_of(adata):
    return np.asarray(adata.obs["target_gene"].astype(object))


def counts_of(adata, label=None):
    counts = sp.csr_matrix(adata.X)
    return counts if label is None else counts[labels_of(adata) == label]


def pseudobulk(adata, perts):
    """Mean of log1p-normalised cells, in plain numpy; the last row is the control."""
    counts = counts_of(adata).toarray().astype(np.float64)
    cells = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    labels = labels_of(adata)
    return np.stack([cells[labels == pert].mean(axis=0) for pert in (*perts, CONTROL)])


def discrimination(pred, real):
    """Share of the other perturbations that lie farther, in L2, from the prediction than the right one; ties half."""
    distance = np.sqrt(((pred[:, None] - real[None]) ** 2).sum(axis=-1))
    own = np.diagonal(distance)[:, None]
    closer = (distance < own).sum(axis=1) + ((distance == own).sum(axis=1) - 1) / 2
    return float(np.mean(1 - closer / (len(real) - 1)))


def same_cells(a, b):
    return (
        a.obs.equals(b.obs)
        and a.X.shape == b.X.shape
        and all(getattr(a.X, part).tobytes() == getattr(b.X, part).tobytes() for part in ("data", "indices", "indptr"))
    )


def test_same_seed_same_bytes_and_another_seed_other_cells(screen):
    assert same_cells(screen.adata, simulate().adata)
    assert not same_cells(screen.adata, simulate(seed=1).adata)


def test_layout(screen):
    adata = screen.adata
    assert isinstance(adata.X, sp.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert adata.shape == (200 + 16 * 60, 300)
    labels, numbers = np.unique(labels_of(adata), return_counts=True)
    assert set(labels) == {*screen.perts, CONTROL}
    assert dict(zip(labels, numbers, strict=True)) == {CONTROL: 200, **dict.fromkeys(screen.perts, 60)}
    assert tuple(adata.var_names) == screen.genes
    assert list(screen.perts) == sorted(screen.perts)
    assert adata.obs_names.is_unique
    assert screen.log_fold_change.shape == screen.profiles.shape == (16, 300)
    np.testing.assert_allclose(screen.profiles.sum(axis=1), 1)
    np.testing.assert_allclose(screen.control_profile.sum(), 1)
    # Cells come in random order, as in a real file.
    assert (labels_of(adata)[:200] == CONTROL).mean() < 0.5


def test_written_and_read_back(screen, tmp_path):
    screen.adata.write_h5ad(tmp_path / "screen.h5ad")
    read = ad.read_h5ad(tmp_path / "screen.h5ad")
    assert (read.X != screen.adata.X).nnz == 0
    assert list(labels_of(read)) == list(labels_of(screen.adata))


def test_counts_are_finite_whole_numbers_with_a_realistic_share_of_zeros():
    counts = counts_of(simulate_screen(seed=5, perts=8, doubles=2).adata)
    assert np.isfinite(counts.data).all()
    assert (counts.data == np.rint(counts.data)).all()
    assert (counts.data > 0).all()
    assert 0.6 < (counts.toarray() == 0).mean() < 0.8


def test_doubles_join_two_single_targets_and_add_their_effects(screen):
    doubles = [pert for pert in screen.perts if "+" in pert]
    singles = set(screen.perts) - set(doubles)
    assert len(doubles) == len(set(doubles)) == 4
    for pert in doubles:
        first, second = pert.split("+")
        assert first != second
        assert {first, second} <= singles
    rows = {pert: i for i, pert in enumerate(screen.perts)}
    additive = simulate(interaction_scale=0.0)
    for truth, is_sum in ((additive, True), (screen, False)):
        for pert in doubles:
            parts = sum(truth.log_fold_change[rows[part]] for part in pert.split("+"))
            assert np.allclose(truth.log_fold_change[rows[pert]], parts) == is_sum


def test_target_genes_are_knocked_down_in_truth_and_in_the_cells(screen):
    control = counts_of(screen.adata, CONTROL).toarray().mean(axis=0)
    genes = {gene: i for i, gene in enumerate(screen.genes)}
    remaining = []
    for row, pert in enumerate(screen.perts):
        mean = counts_of(screen.adata, pert).toarray().mean(axis=0)
        for target in pert.split("+"):
            remaining.append(mean[genes[target]] / control[genes[target]])
        if "+" not in pert:
            assert -3 <= screen.log_fold_change[row, genes[pert]] <= -1.5
    # Below exp(-1.5) but for what the counts scatter, and what the other half of a double does to the gene.
    assert np.mean(remaining) < 0.25
    assert np.max(remaining) < 0.8


def test_control_bias_moves_the_control_away_from_the_perturbed_mean(screen):
    distances = []
    for bias in (-1.0, 0.0, 1.0, 2.0):
        biased = simulate(control_bias=bias)
        mean = pseudobulk(biased.adata, biased.perts)
        distances.append(np.linalg.norm(mean[:-1].mean(axis=0) - mean[-1]))
        # The perturbed cells do not move.
        np.testing.assert_array_equal(mean[:-1], pseudobulk(screen.adata, screen.perts)[:-1])
    assert distances == sorted(distances)
    assert distances[3] > 2 * distances[1]
    singles = np.array(["+" not in pert for pert in screen.perts])
    shift = np.log(biased.control_profile) - np.log(biased.baseline)
    expected = -2 * screen.log_fold_change[singles].mean(axis=0)
    np.testing.assert_allclose(shift - shift.mean(), expected - expected.mean(), atol=1e-12)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.3, 1.0])
def test_effect_probability_is_the_share_of_responding_genes(probability):
    knobs = {"shared_scale": 0.0, "program_scale": 0.0, "doubles": 0}
    truth = simulate(**knobs, effect_probability=probability)
    responding = np.mean(truth.log_fold_change != 0)
    # One more gene, the target, responds without being drawn.
    assert abs(responding - (probability + (1 - probability) / 300)) < 0.02
    if probability == 0.3:
        assert 0.45 < np.mean(truth.log_fold_change[truth.log_fold_change != 0] > 0) < 0.55


def test_a_higher_effect_probability_keeps_the_effects_that_were_there():
    knobs = {"shared_scale": 0.0, "program_scale": 0.0, "doubles": 0}
    few = simulate(**knobs, effect_probability=0.02).log_fold_change
    many = simulate(**knobs, effect_probability=0.2).log_fold_change
    np.testing.assert_array_equal(few[few != 0], many[few != 0])


def test_effect_scale_multiplies_the_effects():
    knobs = {"shared_scale": 0.0, "program_scale": 0.0, "doubles": 0, "knockdown": (0.0, 0.0)}
    one = simulate(**knobs, effect_scale=0.3).log_fold_change
    two = simulate(**knobs, effect_scale=0.6).log_fold_change
    np.testing.assert_allclose(two, 2 * one)


def test_shared_scale_makes_perturbations_alike():
    def similarity(**knobs):
        effect = simulate(**knobs, programs=0).log_fold_change
        return np.corrcoef(effect)[np.triu_indices(len(effect), 1)].mean()

    none, default, strong = similarity(shared_scale=0.0), similarity(), similarity(shared_scale=1.0)
    assert none < default < strong
    assert none < 0.15
    assert strong > 0.5


def test_program_effects_are_linear_in_the_embedding():
    knobs = {"effect_scale": 0.0, "shared_scale": 0.0, "interaction_scale": 0.0}
    truth = simulate(**knobs, effect_probability=0.3)
    genes = {gene: i for i, gene in enumerate(truth.genes)}
    others = np.setdiff1d(np.arange(300), [genes[pert] for pert in truth.perts if "+" not in pert])
    effect = truth.log_fold_change[:, others]
    loadings = np.linalg.lstsq(truth.embedding, effect, rcond=None)[0]
    assert np.abs(effect).max() > 0.1
    np.testing.assert_allclose(truth.embedding @ loadings, effect, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1714, 0.6])
def test_library_sizes_are_log_normal_with_the_given_mean_and_sigma(sigma):
    profile = shares(np.random.default_rng(0).standard_normal(500))
    poisson = {"depth": 5000.0, "dispersion": np.zeros(500)}
    counts = draw_counts(profile, 4000, np.random.default_rng(1), library_sigma=sigma, **poisson)
    total = np.asarray(counts.sum(axis=1), np.float64).ravel()
    # Poisson counting adds 1 / 5000 to the variance of the log.
    assert abs(np.log(total).std() - np.sqrt(sigma**2 + 1 / 5000)) < 0.03 * sigma
    assert abs(total.mean() / 5000 - 1) < 0.05


def test_variance_of_counts_is_that_of_the_negative_binomial():
    profile, phi = np.full(50, 0.02), np.linspace(0, 1, 50)
    counts = draw_counts(profile, 20_000, np.random.default_rng(2), depth=500.0, library_sigma=0.0, dispersion=phi)
    counts = counts.toarray().astype(np.float64)
    np.testing.assert_allclose(counts.mean(axis=0), 10, rtol=0.05)
    np.testing.assert_allclose(counts.var(axis=0), 10 + phi * 100, rtol=0.15)


def test_more_cells_or_doubles_leave_the_other_draws_alone(screen):
    more = simulate(cells_per_pert=61, doubles=5)
    rows = [more.perts.index(pert) for pert in screen.perts]
    np.testing.assert_array_equal(more.log_fold_change[rows], screen.log_fold_change)
    # The cells are the same; their order in the file is not.
    controls = [sorted(counts_of(truth.adata, CONTROL).toarray().tolist()) for truth in (screen, more)]
    assert controls[0] == controls[1]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"perts": 0}, "At least one perturbation"),
        ({"perts": 10, "genes": 19}, "two genes a perturbation"),
        ({"cells_per_pert": 0}, "at least 1"),
        ({"control_cells": 0}, "at least 1"),
        ({"perts": 3, "doubles": 4}, "make 3 pairs"),
        ({"doubles": -1}, "pairs"),
        ({"programs": -1}, "programs"),
        ({"effect_probability": 1.5}, "effect_probability"),
        ({"knockdown": (3.0, 1.5)}, "knockdown"),
        ({"library_sigma": float("nan")}, "library_sigma"),
        ({"depth": 0.5}, "depth"),
        ({"shared_scale": -0.1}, "shared_scale"),
    ],
)
def test_refuses_knobs_out_of_range(knobs, message):
    with pytest.raises(ValueError, match=message):
        simulate(**knobs)


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictions_are_counts_of_the_same_layout_with_the_measured_controls(screen, name):
    pred = PREDICTORS[name](screen)
    real = screen.adata
    counts = counts_of(pred)
    assert counts.dtype == np.float32
    assert (counts.data == np.rint(counts.data)).all()
    assert (counts.data > 0).all()
    assert counts.has_canonical_format
    assert np.asarray(counts.sum(axis=1)).max() < 1e5
    assert list(pred.var_names) == list(real.var_names)
    labels, numbers = np.unique(labels_of(pred), return_counts=True)
    real_labels, real_numbers = np.unique(labels_of(real), return_counts=True)
    assert list(labels) == list(real_labels)
    assert list(numbers) == list(real_numbers)
    np.testing.assert_array_equal(counts_of(pred, CONTROL).toarray(), counts_of(real, CONTROL).toarray())
    assert same_cells(pred, PREDICTORS[name](screen))
    assert same_cells(pred, PREDICTORS[name](screen, seed=1)) == (name == "perfect")


def test_perfect_is_a_copy_of_the_measured_cells(screen):
    pred = PREDICTORS["perfect"](screen)
    assert same_cells(pred, screen.adata)
    assert not np.shares_memory(counts_of(pred).data, counts_of(screen.adata).data)


def test_replicate_has_other_cells_than_the_screen_of_the_same_seed(screen):
    pred = PREDICTORS["replicate"](screen, seed=0)
    real, pred = (counts_of(adata, screen.perts[0]).toarray() for adata in (screen.adata, pred))
    assert not {row.tobytes() for row in real} & {row.tobytes() for row in pred}


@pytest.mark.parametrize("seed", [0, 1])
def test_predictors_have_their_known_order(seed):
    screen = simulate_screen(perts=16, genes=600, cells_per_pert=80, control_cells=300, doubles=4, seed=seed)
    real = pseudobulk(screen.adata, screen.perts)[:-1]
    profiles = {name: pseudobulk(make(screen, seed=seed), screen.perts)[:-1] for name, make in PREDICTORS.items()}
    error = {name: np.mean((pred - real) ** 2) for name, pred in profiles.items()}
    by_error = ["perfect", "replicate", "half_noise", "mean", "control", "shuffled", "inflated"]
    assert error["perfect"] == 0
    assert sorted(error, key=lambda name: error[name]) == by_error

    score = {name: discrimination(pred, real) for name, pred in profiles.items()}
    assert score["perfect"] == 1
    assert score["replicate"] > 0.98
    assert 0.85 < score["half_noise"] <= score["replicate"]
    assert score["inflated"] > 0.85
    for name in ("mean", "control", "shuffled"):
        assert 0.3 < score[name] < 0.7

    def amplitude(name):
        control = pseudobulk(screen.adata, screen.perts)[-1]
        return np.linalg.norm(profiles[name] - control) / np.linalg.norm(real - control)

    assert amplitude("inflated") > 2
    assert 0.9 < amplitude("replicate") < 1.1
    assert 0.9 < amplitude("shuffled") < 1.1


def test_shuffled_leaves_no_perturbation_with_its_own_cells(screen):
    shuffled = pseudobulk(PREDICTORS["shuffled"](screen), screen.perts)[:-1]
    truth = pseudobulk(PREDICTORS["replicate"](screen), screen.perts)[:-1]
    nearest = ((shuffled[:, None] - truth[None]) ** 2).sum(axis=-1).argmin(axis=1)
    assert (nearest != np.arange(len(nearest))).all()
