"""Controls of a measured screen, from its cells."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jaxtyping import TypeCheckError
from screens import dense, refused, screen_of

from vcjax import jackknife_noise
from vcjax.calibration import calibrate
from vcjax.evaluation._controls import KINDS, make_controls
from vcjax.io import CELL_EVAL2_DE, differential_expression, read_screen, simulate_screen, split_halves, summarise
from vcjax.io._gene_moments import bulk_gene_noise, gene_moments
from vcjax.io._picked import bootstrap_screen, control_as_prediction, others_as_prediction
from vcjax.metrics import CATALOGUE


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

SIZES: dict[str, Any] = {
    "perts": 12,
    "doubles": 0,
    "genes": 120,
    "cells_per_pert": 30,
    "control_cells": 61,
    "programs": 2,
    "effect_probability": 0.1,
    "effect_scale": 1.0,
}


@pytest.fixture(scope="module")
def simulated():
    return simulate_screen(**SIZES, seed=3)


@pytest.fixture(scope="module")
def screen(simulated):
    return read_screen(simulated.adata, input_type="counts")


@pytest.fixture(scope="module")
def sets(screen):
    return make_controls(screen, seeds=(0, 1), de=CELL_EVAL2_DE, energy=True, kinds=(*KINDS, "bootstrap"))


def cells_of(simulated, kept, labels):
    """Some of the cells, under these labels."""
    matrix = scipy.sparse.csr_matrix(simulated.adata.X)[np.arange(len(labels))[kept]]
    return read_screen(screen_of(matrix, labels[kept], simulated.genes), input_type="counts")


def summed(counts, half):
    """Counts of each gene in each perturbation of a half."""
    return np.stack([counts[half.codes == code].sum(0) for code in range(len(half.perts))])


def logged(screen):
    """Log-normalised cells as an array, scaled to the median total of the whole screen."""
    cells = dense(screen.matrix)
    totals = cells.sum(1, keepdims=True)
    return np.log1p(cells / (totals / np.median(totals[screen.codes >= -1])))


def test_the_profiles_are_those_of_disjoint_halves(screen, sets):
    cells = logged(screen)
    mean_of = lambda half, code: cells[half.codes == code].mean(0)
    for seed, one in enumerate(sets):
        first, second, _ = split_halves(screen, seed)
        codes = range(len(screen.perts))
        duplicate = np.stack([mean_of(second, code) for code in codes])
        np.testing.assert_allclose(one.truth.mean, [mean_of(first, code) for code in codes], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.truth.control, mean_of(first, -1), rtol=1e-5, atol=1e-6)
        profiles = {name: control.profiles for name, control in one.controls.items()}
        np.testing.assert_allclose(profiles["duplicate"].mean, duplicate, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(profiles["duplicate"].control, mean_of(second, -1), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(profiles["control"].mean, np.tile(one.truth.control, (12, 1)))
        others = (duplicate.sum(0) - duplicate) / 11
        np.testing.assert_allclose(profiles["loo_mean"].mean, others, rtol=1e-5, atol=1e-6)
        low, high = np.minimum(duplicate, others) - 1e-6, np.maximum(duplicate, others) + 1e-6
        for name in ("interpolated", "empirical_bayes"):
            assert np.all((profiles[name].mean >= low) & (profiles[name].mean <= high))
        assert np.abs(profiles["interpolated"].mean - others).max() > 0.3  # something was found
        assert one.perts == screen.perts
    assert not np.array_equal(sets[0].truth.mean, sets[1].truth.mean)
    roles = {name: control.role for name, control in sets[0].controls.items()}
    positive = dict.fromkeys(("duplicate", "interpolated", "empirical_bayes", "bootstrap"), "positive")
    assert roles == {"control": "negative", "loo_mean": "null", "sparse_mean": "null", **positive}


def test_moments_are_those_of_the_truth(screen, sets):
    cells, (first, _, _) = logged(screen), split_halves(screen, 0)
    own, control = cells[first.codes == 4], cells[first.codes == -1]
    moments, of_control = sets[0].moments, sets[0].control_moments
    np.testing.assert_allclose(moments.mean[4], own.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.variance[4], own.var(0, ddof=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_control.variance[0], control.var(0, ddof=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sets[0].truth.noise[4], own.var(0, ddof=1) / 15, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sets[0].truth.control_noise, control.var(0, ddof=1) / 30, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(moments.cells, 15)
    np.testing.assert_array_equal(of_control.cells, [30])


def test_tables_are_of_the_cells_against_the_control_of_the_truth(screen, sets):
    first, second, _ = split_halves(screen, 0)
    profiles = {name: control.profiles for name, control in sets[0].controls.items()}
    expected = differential_expression(second, CELL_EVAL2_DE, control_of=first, energy=True)
    assert expected.table is not None
    assert expected.energy is not None
    np.testing.assert_allclose(profiles["duplicate"].de.log_pvalue, expected.table.log_pvalue, rtol=1e-10)
    np.testing.assert_allclose(profiles["duplicate"].energy, expected.energy, rtol=1e-8)
    own = differential_expression(first, CELL_EVAL2_DE)
    assert own.table is not None
    np.testing.assert_allclose(sets[0].truth.de.log_pvalue, own.table.log_pvalue, rtol=1e-10)
    for name in ("loo_mean", "interpolated", "empirical_bayes"):
        assert profiles[name].de is None
        assert profiles[name].energy is None
        np.testing.assert_array_equal(profiles[name].noise, 0)
    significant = {name: (np.asarray(p.de.log_padj) < np.log(0.05)).sum() for name, p in profiles.items() if p.de}
    assert significant["control"] < 0.2 * significant["duplicate"]
    assert significant["bootstrap"] > 0
    assert significant["sparse_mean"] > significant["control"]  # the shared response


def test_metrics_tell_the_replicate_from_the_rest(sets):
    ours = {name: calibrate(CATALOGUE[name], sets) for name in ("pds_cosine", "de_sig_jaccard", "expr_mse")}
    assert ours["pds_cosine"].separates is True
    assert ours["pds_cosine"].null == "loo_mean"
    assert ours["de_sig_jaccard"].null == "sparse_mean"
    assert ours["de_sig_jaccard"].status["loo_mean"] == "no_differential_expression"
    assert ours["de_sig_jaccard"].separates is True
    error = ours["expr_mse"]
    assert error.drf_interpolated > error.drf_mean
    assert error.mean("bootstrap") < error.mean("duplicate")  # it shares cells with the truth
    assert error.mean("sparse_mean") > error.mean("loo_mean")  # noise that the mean has not
    assert error.splits == 2


def test_sparse_sources_and_control_cells_are_drawn_as_told(screen):
    _, second, _ = split_halves(screen, 0)
    cells = dense(screen.matrix)
    origin = {row.tobytes(): code for row, code in zip(cells, screen.codes, strict=True)}
    assert len(origin) == len(cells)  # every cell is known by its counts

    def sources(picked):
        return [[origin[row.tobytes()] for row in dense(picked.matrix)[picked.codes == code]] for code in range(12)]

    control = control_as_prediction(second, np.random.default_rng(0))
    assert all(set(codes) == {-1} and len(codes) == 15 for codes in sources(control))
    others = others_as_prediction(second, np.random.default_rng(0))
    for code, codes in enumerate(sources(others)):
        assert len(codes) == 15
        assert code not in codes
        assert -1 not in codes
        assert len(set(codes)) > 3
    rows = [row.tobytes() for row in dense(others.matrix)[others.codes == 3]]
    assert len(set(rows)) == 15  # without repetition
    train = others_as_prediction(second, np.random.default_rng(0), np.asarray([2, 5]))
    assert set(sum(sources(train), [])) == {2, 5}
    assert 2 not in sources(train)[2]
    again = bootstrap_screen(second, np.random.default_rng(0))
    assert [set(codes) for codes in sources(again)] == [{code} for code in range(12)]
    assert len({row.tobytes() for row in dense(again.matrix)[again.codes == 3]}) < 15
    for picked in (control, others, again):
        assert np.sum(picked.codes == -1) == 30
        totals = dense(picked.matrix).sum(1)
        np.testing.assert_array_equal(picked.totals, totals)


def test_picked_cells_come_in_blocks_of_the_size_asked_for(screen):
    again = bootstrap_screen(screen, np.random.default_rng(1))
    whole = dense(again.matrix)
    starts, blocks = zip(*again.matrix.chunks(500), strict=True)
    assert max(block.nnz for block in blocks if len(block.indptr) > 2) <= 500
    np.testing.assert_array_equal(np.asarray(scipy.sparse.vstack(blocks).todense()), whole)
    assert np.cumsum([0, *(len(block.indptr) - 1 for block in blocks)])[:-1].tolist() == list(starts)


def test_training_perturbations_make_the_mean_and_are_not_evaluated(screen):
    train = screen.perts[:4]
    for weighting in ("pert", "cell"):
        (one,) = make_controls(screen, seeds=(0,), train=train, weighting=weighting)
        assert one.perts == screen.perts[4:]
        first, second, _ = split_halves(screen, 0)
        cells = logged(screen)
        seen = [np.concatenate([cells[half.codes == code] for half in (first, second)]).mean(0) for code in range(4)]
        mean = one.controls["train_mean"].profiles.mean
        np.testing.assert_allclose(mean, np.tile(np.mean(seen, axis=0), (8, 1)), rtol=1e-5, atol=1e-6)
        assert "loo_mean" not in one.controls


def test_effects_from_the_own_control_move_with_it(screen):
    shared, own = (make_controls(screen, seeds=(0,), own_control=flag)[0] for flag in (False, True))
    for name in ("duplicate", "loo_mean", "interpolated"):
        before, after = shared.controls[name].profiles, own.controls[name].profiles
        moved = after.mean - own.truth.control[None, :]
        np.testing.assert_allclose(moved, before.mean - before.control[None, :], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(own.controls["duplicate"].profiles.control, own.truth.control)


def test_pseudobulks_of_counts_have_their_own_space_and_noise(screen):
    (one,) = make_controls(screen, seeds=(0,), space="bulk_lognorm", versus="control")
    first, second, _ = split_halves(screen, 0)
    expected = summarise(second, space="bulk_lognorm")
    np.testing.assert_allclose(one.controls["duplicate"].profiles.mean, expected.mean, rtol=1e-6)
    assert one.truth.space == one.controls["loo_mean"].profiles.space == "bulk_lognorm"
    shrunk = np.abs(one.controls["empirical_bayes"].profiles.mean - one.controls["loo_mean"].profiles.mean)
    raw = np.abs(one.controls["duplicate"].profiles.mean - one.controls["loo_mean"].profiles.mean)
    assert np.all(shrunk <= raw + 1e-6)
    assert shrunk.sum() < 0.9 * raw.sum()
    whole = summarise(first, space="bulk_lognorm").noise
    assert whole is not None
    np.testing.assert_allclose(one.truth.total_noise(), whole, rtol=1e-6)
    noise = bulk_gene_noise(second)
    counts, kept = dense(screen.matrix), second.codes >= 0
    exact = jackknife_noise(jnp.asarray(counts[kept]), second.codes[kept], 12, per_gene=True)
    # Linear in the weights of the cells, so it holds where one cell does not carry a gene.
    busy = summed(counts, second) >= 200
    assert busy.sum() > 20
    ratio = noise[:-1][busy] / np.asarray(exact)[busy]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert np.all((ratio > 0.7) & (ratio < 1.1))


def test_moments_of_log_normalised_cells(screen):
    cells = dense(screen.matrix)
    moments = gene_moments(screen, target_sum=1e4)
    values = np.log1p(cells / cells.sum(1, keepdims=True) * 1e4)
    for code in (0, 7, -1):
        mine = values[screen.codes == code]
        np.testing.assert_allclose(moments.mean[code], mine.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moments.variance[code], mine.var(0, ddof=1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moments.noise[code], mine.var(0, ddof=1) / len(mine), rtol=1e-4, atol=1e-6)


def test_small_perturbations_are_left_out_with_a_note(simulated):
    labels = np.array(simulated.adata.obs["target_gene"], object)
    rare = simulated.perts[0]
    labels[np.flatnonzero(labels == rare)[3:]] = "non-targeting"
    screen = cells_of(simulated, slice(None), labels)
    (one,) = make_controls(screen, seeds=(0,), kinds=("control", "mean", "duplicate"))
    assert rare not in one.perts
    assert rare in one.notes[0]
    assert list(one.controls) == ["control", "loo_mean", "duplicate"]
    assert np.isfinite(one.truth.mean).all()


def test_contexts_are_taken_one_at_a_time(simulated):
    labels = np.array(simulated.adata.obs["target_gene"], object)
    line = np.where(np.arange(len(labels)) % 2, "x", "y")
    adata = screen_of(simulated.adata.X, labels, simulated.genes, line=line)
    both = read_screen(adata, input_type="counts", context_col="line")
    with refused("one context", "x, y", "--context-col"):
        make_controls(both)
    with refused("no context 'z'", "--context-col"):
        make_controls(both, context="z")
    (one,) = make_controls(both, context="x", seeds=(0,))
    (expected,) = make_controls(cells_of(simulated, line == "x", labels), seeds=(0,))
    np.testing.assert_allclose(one.truth.mean, expected.truth.mean, rtol=1e-6)
    np.testing.assert_allclose(
        one.controls["interpolated"].profiles.mean, expected.controls["interpolated"].profiles.mean, rtol=1e-5
    )


def test_screens_without_other_perturbations_and_wrong_options_are_refused(screen, simulated):
    labels = np.array(simulated.adata.obs["target_gene"], object)
    with refused("no mean of other perturbations", "1 perturbations"):
        make_controls(cells_of(simulated, np.isin(labels, [screen.perts[0], "non-targeting"]), labels))
    with refused("unknown: nobody", "--train"):
        make_controls(screen, train=["nobody", screen.perts[0]])
    with refused("left to evaluate: 0"):
        make_controls(screen, train=screen.perts)
    with pytest.raises(ValueError, match="no seed"):
        make_controls(screen, seeds=())
    with pytest.raises((ValueError, TypeCheckError), match="tiled"):
        make_controls(screen, kinds=("tiled",))  # pyright: ignore[reportArgumentType]


def test_progress_counts_the_divisions(screen):
    seen = []
    make_controls(screen, seeds=(0, 1), kinds=("duplicate",), progress=lambda *args: seen.append(args))
    assert seen == [("controls", 1, 2), ("controls", 2, 2)]
