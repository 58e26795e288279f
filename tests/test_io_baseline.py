"""Baselines: what they are made of, and the files they are written to."""

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse
from helpers import shared_path
from screens import dense, refused, screen_of

from vcjax.evaluation import baseline_of, evaluate, Reading
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


@pytest.fixture(scope="module")
def lines(counts, order):
    """The cells of three contexts at two depths: one lacks the perturbation C, and one has control cells alone."""
    of = np.where(LABELS == "C", "deep", np.resize(np.array(["deep", "low"], object), len(LABELS)))
    of[[0, 1]] = "unperturbed"
    values = np.where((of == "low")[:, None], np.floor(counts / 2), counts)
    return screen_of(scipy.sparse.csr_matrix(values[order]), LABELS[order], GENES, line=of[order])


@pytest.mark.parametrize("kind", ["mean", "dispersed", "tile"])
def test_each_context_has_the_baseline_that_it_has_alone(lines, kind):
    made = baseline_screen(read_screen(lines, input_type="counts", context_col="line"), kind, targets=TARGETS)
    cells, of = dense(made.matrix), lines.obs["line"].to_numpy()
    for line in ("deep", "low"):
        part = read_screen(lines[of == line].copy(), input_type="counts")
        alone = baseline_screen(part, kind, targets=TARGETS[: len(part.perts)])
        np.testing.assert_array_equal(cells[of == line], dense(alone.matrix))
    np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in made.matrix.chunks(7)]), cells)
    if kind != "mean":
        np.testing.assert_array_equal(cells[of == "unperturbed"], lines[of == "unperturbed"].X.toarray())


def test_a_file_of_several_contexts_scores_what_its_cells_do(lines, tmp_path):
    perturbed = lines[lines.obs["line"].to_numpy() != "unperturbed"].copy()
    made, measured = baseline_of(perturbed, Reading(context_col="line", input_type_real="counts"), "cell_eval")
    for name, side in (("pred", made), ("real", measured)):
        write_screen(side, tmp_path / f"{name}.h5ad", context_col="line")
    assert list(ad.read_h5ad(tmp_path / "pred.h5ad").obs.columns) == ["target_gene", "line"]
    options = {"preset": "cell_eval", "metrics": ["mse", "discrimination_score_l1"]}
    files = [str(tmp_path / f"{name}.h5ad") for name in ("pred", "real")]
    again = evaluate(*files, context_col="line", **options)
    assert again.contexts == ("deep", "low")
    np.testing.assert_array_equal(again.value, evaluate(made, measured, **options).value)
    with pytest.raises(ValueError, match="two columns"):
        write_screen(made, tmp_path / "more.h5ad", pert_col="line", context_col="line")


def test_a_context_that_has_no_baseline_is_refused(lines):
    of, labels = lines.obs["line"].to_numpy(), lines.obs["target_gene"].to_numpy()
    bare = lines[(of != "low") | (labels != CONTROL)].copy()
    for kind in ("mean", "dispersed"):
        with refused("no cell labelled 'non-targeting' in low", "--control-pert"):
            baseline_screen(read_screen(bare, input_type="counts", context_col="line"), kind)
    single = lines[(of != "low") | (labels != "A")].copy()
    with refused("in common", "low: 1 perturbations"):
        baseline_screen(read_screen(single, input_type="counts", context_col="line"), "dispersed")


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


def test_the_peers_baselines_of_each_context():
    """Values that the peers give for the cells of each line of the stored pair, taken by themselves.

    cell-eval2 0.20.0: the sums of all drawn cells, and of four. cell-eval 0.8.2: the sum of the mean profile, in
    float32, and its first genes.
    """
    screen: Any = ad.read_h5ad(shared_path("reference/pair_24x400") / "real.h5ad")
    labels = screen.obs["target_gene"].to_numpy().astype(str)
    shallow = (np.arange(len(labels)) % 2 == 1) & (labels != "GENE0003")  # which has no such perturbation
    counts = screen.X.toarray()
    counts[shallow] = np.floor(counts[shallow] / 2)
    of = np.where(shallow, "B", "A")
    lines = screen_of(scipy.sparse.csr_matrix(counts), labels, tuple(screen.var_names), line=of)
    made, mean = (baseline_of(lines, Reading(context_col="line"), preset)[0] for preset in ("v2", "cell_eval"))
    drawn, profiles = dense(made.matrix), dense(mean.matrix)
    for line, (total, four, mean_total, first) in _PEERS.items():
        cells = drawn[of == line]
        np.testing.assert_allclose(cells.sum(), total, rtol=1e-12)
        np.testing.assert_allclose(cells[:: len(cells) // 3].sum(axis=1), four, rtol=1e-9)
        for profile in profiles[(of == line) & (labels != CONTROL)]:
            np.testing.assert_allclose(profile.sum(), mean_total, rtol=1e-7)
            np.testing.assert_allclose(profile[:4], first, rtol=3e-7)


_PEERS = {
    "A": (
        5219246.922457725,
        [5619.22629613, 2492.17975521, 4236.60978705, 7179.86096609],
        522.2268995149061,
        [1.002457857131958, 2.7683117389678955, 2.591911554336548, 0.5239244699478149],
    ),
    "B": (
        2327701.8357094973,
        [4356.55964684, 1322.05321091, 1932.07300165, 915.14756769],
        339.3747947141237,
        [0.525010347366333, 2.11330509185791, 1.9550174474716187, 0.19154612720012665],
    ),
}
