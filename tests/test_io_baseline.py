"""Baselines: what they are made of, and the files they are written to."""

import numpy as np
import pytest
import scipy.sparse
from helpers import shared_path
from screens import dense, refused, screen_of

from vcjax.evaluation import baseline_of, Reading
from vcjax.io import baseline_screen, generic_response, read_screen, write_screen


CONTROL = "non-targeting"
LABELS = np.array([CONTROL] * 12 + ["A"] * 7 + ["B"] * 5 + ["C"] * 3, object)
GENES = ("A", "B", "G0", "G1", "G2")


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    cells = rng.poisson(4.0, (len(LABELS), len(GENES))).astype(np.float32)
    cells[LABELS == CONTROL, 3] = 0
    return cells


@pytest.fixture(scope="module")
def order():
    return np.random.default_rng(1).permutation(len(LABELS))


@pytest.fixture(scope="module")
def screen(counts, order):
    return read_screen(screen_of(scipy.sparse.csr_matrix(counts[order]), LABELS[order], GENES), input_type="counts")


TARGETS = np.array([0, 1, -1], np.int32)


def means(counts):
    return {label: counts[LABELS == label].mean(axis=0, dtype=np.float64) for label in ("A", "B", "C", CONTROL)}


def test_the_generic_response_leaves_targets_out(screen, counts):
    mean = means(counts)
    expected = (mean["A"] + mean["B"] + mean["C"]) / 3
    np.testing.assert_allclose(generic_response(screen), expected, rtol=1e-14)
    expected[0], expected[1] = (mean["B"][0] + mean["C"][0]) / 2, (mean["A"][1] + mean["C"][1]) / 2
    np.testing.assert_allclose(generic_response(screen, TARGETS), expected, rtol=1e-14)


def test_a_tiled_baseline_is_one_answer_and_the_measured_control(screen, counts, order):
    cells = dense(baseline_screen(screen, "tile", targets=TARGETS).matrix)
    mine = LABELS[order] != CONTROL
    np.testing.assert_allclose(cells[mine], np.tile(generic_response(screen, TARGETS), (mine.sum(), 1)), rtol=1e-7)
    np.testing.assert_array_equal(cells[~mine], counts[order][~mine])


def test_a_dispersed_baseline_is_scaled_control_cells(screen, counts, order):
    made = baseline_screen(screen, "dispersed", targets=TARGETS)
    cells, control = dense(made.matrix), counts[LABELS == CONTROL]
    mean = control.mean(axis=0, dtype=np.float64)
    scale = np.where(mean > 0, generic_response(screen, TARGETS) / np.where(mean > 0, mean, 1), 0)
    possible = (control * scale).astype(np.float32)
    for cell in cells[LABELS[order] != CONTROL]:
        assert np.any(np.all(cell == possible, axis=1))
    np.testing.assert_array_equal(cells[LABELS[order] == CONTROL], counts[order][LABELS[order] == CONTROL])
    np.testing.assert_array_equal(dense(baseline_screen(screen, "dispersed", targets=TARGETS).matrix), cells)
    assert not np.array_equal(dense(baseline_screen(screen, "dispersed", targets=TARGETS, seed=1).matrix), cells)
    # Blocks of any size are the same cells.
    small = np.vstack([block.toarray() for _, block in made.matrix.chunks(7)])
    np.testing.assert_array_equal(small, cells)


def test_the_mean_baseline_of_cell_eval_counts_the_control_as_a_group(screen, counts, order):
    made, measured = baseline_of(screen, Reading(), "cell_eval")
    totals = counts.sum(axis=1)
    logs = np.log1p(counts / (totals / np.median(totals)).astype(np.float32)[:, None])
    expected = np.mean([logs[LABELS == label].mean(axis=0, dtype=np.float64) for label in means(counts)], axis=0)
    mine = LABELS[order] != CONTROL
    for side in (made, measured):
        assert side.scale == "lognorm"
    np.testing.assert_allclose(dense(made.matrix)[mine], np.tile(expected, (mine.sum(), 1)), rtol=1e-6)
    np.testing.assert_array_equal(dense(measured.matrix), logs[order])
    np.testing.assert_array_equal(dense(made.matrix)[~mine], logs[order][~mine])


@pytest.mark.parametrize("kind", ["mean", "dispersed"])
def test_what_is_written_is_the_same_screen(screen, kind, tmp_path):
    made = baseline_screen(screen, kind)
    write_screen(made, tmp_path / "made.h5ad", pert_col="guide")
    again = read_screen(tmp_path / "made.h5ad", pert_col="guide", input_type=made.scale, check=False)
    np.testing.assert_array_equal(dense(again.matrix), dense(made.matrix))
    np.testing.assert_array_equal(again.codes, made.codes)
    assert (again.genes, again.perts) == (made.genes, made.perts)
    assert [path.name for path in tmp_path.iterdir()] == ["made.h5ad"]


def test_what_has_no_baseline_is_refused(screen, counts):
    logs = read_screen(screen_of(np.log1p(counts * 0.3), LABELS, GENES), input_type="lognorm")
    with refused("counts", "--emit mean"):
        baseline_screen(logs, "dispersed")
    with refused("in common", "A"):
        generic_response(screen, np.zeros(3, np.int32))


def test_the_draws_of_cell_eval2():
    """The cells that cell-eval2 0.20.0 emits for the stored pair, by their sum and a few of their values."""
    made, _ = baseline_of(shared_path("reference/pair_24x400") / "real.h5ad")
    cells = dense(made.matrix)
    np.testing.assert_allclose(cells.sum(), np.float64(9991831.883408338), rtol=1e-12)
    rows = [
        1911.9647151827812,
        5674.230679154396,
        5048.201512098312,
        3888.309693723917,
        5592.349741697311,
        4207.70206451416,
    ]
    np.testing.assert_allclose(cells[:: len(cells) // 5].sum(axis=1), rows, rtol=1e-12)
