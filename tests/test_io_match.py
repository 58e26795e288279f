"""Two screens side by side: genes by name, perturbations and contexts by label, scales alike."""

import numpy as np
import pytest
import scipy.sparse
from helpers import shared_path
from screens import counts, dense, GENES, lognorm, refused, screen_of

from vcjax.io import match_screens, read_screen


def read(matrix=None, labels=None, genes=GENES, **obs):
    column = "line" if obs else None
    return read_screen(screen_of(matrix, labels, genes, **obs), require_control=False, context_col=column)


def test_equal_sides_stay_as_they_are():
    real, pred = read(), read(counts(seed=1))
    left, right, notes = match_screens(pred, real)
    assert (left.fingerprint, right.fingerprint) == (pred.fingerprint, real.fingerprint)
    assert left.perts == right.perts == ("ADNP", "BRD4", "CHD8")
    assert len(notes) == 1
    assert "median total counts: predicted" in notes[0]


def test_genes_are_reordered_by_name():
    order = [3, 1, 5, 0, 2, 4]
    pred = read(scipy.sparse.csr_matrix(counts()[:, order]), genes=[GENES[i] for i in order])
    left, right, notes = match_screens(pred, read(counts(seed=1)))
    assert left.genes == right.genes == GENES
    np.testing.assert_array_equal(dense(left.matrix), counts())
    np.testing.assert_array_equal(left.totals, counts().sum(axis=1))
    assert all(block.has_canonical_format for _, block in left.matrix.chunks(17))
    assert any("order" in note for note in notes)
    assert left.fingerprint != pred.fingerprint
    with refused("another order", "column 0 is 'DYRK1A'", "--strict-genes"):
        match_screens(pred, read(), genes="strict")


def test_missing_and_extra_genes():
    pred, real = read(genes=(*GENES[:4], "XIST", "YY1")), read(counts(seed=1))
    with refused("2 measured genes are missing", "2 are in it alone", "EHMT1, FOXP1", "XIST, YY1", "--genes intersect"):
        match_screens(pred, real)
    left, right, notes = match_screens(pred, real, genes="intersect")
    assert left.genes == right.genes == GENES[:4]
    np.testing.assert_array_equal(dense(right.matrix), counts(seed=1)[:, :4])
    assert left.totals is None
    assert right.totals is None
    assert notes[0].startswith("Warning: 4 shared genes are scored")
    with refused("0 are shared"):
        match_screens(read(genes=[f"x{i}" for i in range(6)]), real, genes="intersect")


def test_many_missing_genes_are_listed_shortly():
    genes = [f"g{i}" for i in range(12)]
    with refused("g2, g3, g4, g5, g6, g7, g8, g9 and 2 more"):
        match_screens(read(counts(n_genes=2), genes=genes[:2]), read(counts(n_genes=12), genes=genes))


@pytest.mark.parametrize(
    ("pred", "real", "hint", "fix"),
    [
        (
            [f"ENSG0000000000{i}.{i + 3}" for i in range(6)],
            [f"ENSG0000000000{i}" for i in range(6)],
            "version",
            "str.replace",
        ),
        ([f"ENSG0000000000{i}" for i in range(6)], GENES, "Ensembl ids, the other gene symbols", "--gene-col"),
        ([gene.title() for gene in GENES], GENES, "case only", "str.upper"),
    ],
)
def test_genes_under_another_naming(pred, real, hint, fix):
    with refused(hint, fix):
        match_screens(read(genes=pred), read(genes=real))


def test_missing_perturbations():
    pred = read(counts(seed=1), np.resize(["non-targeting", "ADNP"], 40))
    real = read()
    with refused("lacks 2 of 3 measured perturbations", "BRD4, CHD8", "--missing worst"):
        match_screens(pred, real)
    for policy in ("nan", "worst"):
        left, right, notes = match_screens(pred, real, missing=policy)
        assert left.perts == right.perts == ("ADNP", "BRD4", "CHD8")
        assert left.missing == (("BRD4", ""), ("CHD8", ""))
        np.testing.assert_array_equal(left.cell_counts(), [20, 0, 0])
        np.testing.assert_array_equal(right.cell_counts(), [10, 10, 10])
        assert any("missing from the prediction" in note for note in notes)
    left, right, _ = match_screens(pred, real, missing="skip")
    assert left.perts == right.perts == ("ADNP",)
    assert left.missing == ()
    np.testing.assert_array_equal(right.codes, np.resize([-1, 0, -2, -2], 40))


@pytest.mark.parametrize("spelling", ["adnp", "ADNP-1", "ADNP+ctrl", "ctrl+ADNP", "ADNP_sg2", " ADNP"])
def test_perturbations_under_another_spelling(spelling):
    pred = read(labels=np.resize(["non-targeting", spelling, "BRD4", "CHD8"], 40))
    with refused("lacks 1 of 3", f"perhaps {spelling!r} is 'ADNP'", f"{{{spelling!r}: 'ADNP'}}"):
        match_screens(pred, read())


def test_another_gene_of_the_family_is_no_spelling_of_the_missing_one():
    pred, real = (read(labels=np.resize(["non-targeting", gene], 40)) for gene in ("NKX2-2", "NKX2-1"))
    with refused("perhaps 'NKX2-2' is 'NKX2-1'", "--missing worst") as caught:
        match_screens(pred, real)
    assert "replace" not in caught.value.fix


def test_extra_perturbations():
    pred = read(counts(seed=1), np.resize(["non-targeting", "ADNP", "BRD4", "CHD8", "XIST"], 40))
    with refused("1 perturbations that were not measured", "XIST", "--extra ignore"):
        match_screens(pred, read())
    left, right, notes = match_screens(pred, read(), extra="ignore")
    assert left.perts == right.perts
    np.testing.assert_array_equal(left.codes, np.resize([-1, 0, 1, 2, -2], 40))
    assert any("XIST" in note for note in notes)


def test_scales_must_agree():
    with refused("holds lognorm, the measured side counts", "--input-type-pred", "--input-type-real"):
        match_screens(read(lognorm(counts())), read())


def test_library_sizes_are_compared():
    notes = match_screens(read(lognorm(counts(seed=1), 5e4)), read(lognorm(counts(), 1e4)))[2]
    assert any(note.startswith("Warning: library sizes differ") and "50,000, measured 10,000" in note for note in notes)


def test_the_same_data_on_both_sides_is_noted():
    assert any("same data" in note for note in match_screens(read(), read())[2])
    assert not any("same data" in note for note in match_screens(read(counts(seed=1)), read())[2])


def test_a_prediction_without_controls_matches():
    left, right, _ = match_screens(read(labels=np.resize(["ADNP", "BRD4", "CHD8"], 40)), read())
    assert not left.has_control
    assert right.has_control


def test_the_measured_side_needs_controls():
    with refused("measured side has no control cells", "--control-pert"):
        match_screens(read(), read(labels=np.resize(["ADNP", "BRD4", "CHD8"], 40)))
    lines = np.array(["a"] * 20 + ["b"] * 20)
    labels = np.array(["non-targeting", "ADNP"] * 10 + ["BRD4", "ADNP"] * 10)
    with refused("no control cells", "in b"):
        match_screens(read(labels=labels, line=lines), read(labels=labels, line=lines))


LINES = np.array(["a"] * 20 + ["b"] * 20)


def test_contexts_must_agree():
    with refused("Only one side has contexts", "--context-col"):
        match_screens(read(), read(line=LINES))
    with refused("contexts differ", "only there: c"):
        match_screens(read(line=np.where(LINES == "b", "c", "a")), read(line=LINES))
    third = np.concatenate([LINES[:30], ["c"] * 10])
    with refused("contexts differ", "only there: c", "--extra ignore"):
        match_screens(read(counts(seed=1), line=third), read(line=LINES))
    left, right, notes = match_screens(read(counts(seed=1), line=third), read(line=LINES), extra="ignore")
    assert left.contexts == right.contexts == ("a", "b")
    np.testing.assert_array_equal(left.codes[30:], -2)
    assert left.context_codes is not None
    np.testing.assert_array_equal(left.context_codes[:30], [0] * 20 + [1] * 10)
    assert any("context c" in note for note in notes)


def test_a_perturbation_missing_in_one_context():
    labels = np.resize(["non-targeting", "ADNP", "BRD4", "CHD8"], 40)
    lacking = np.where((LINES == "b") & (labels == "CHD8"), "ADNP", labels)
    pred, real = read(counts(seed=1), lacking, line=LINES), read(labels=labels, line=LINES)
    with refused("lacks 1 of 6", "CHD8 in b"):
        match_screens(pred, real)
    left, right, _ = match_screens(pred, real, missing="nan")
    assert left.missing == (("CHD8", "b"),)
    assert left.perts == right.perts == ("ADNP", "BRD4", "CHD8")
    left, right, _ = match_screens(pred, real, missing="skip")
    np.testing.assert_array_equal(right.cell_counts("b"), [5, 5, 0])
    np.testing.assert_array_equal(right.cell_counts("a"), [5, 5, 5])


def test_a_missing_context_counts_as_chosen():
    pred = read(counts(20, seed=1), line=np.array(["a"] * 20))
    with refused("contexts differ", "missing from AnnData: b", "--missing worst"):
        match_screens(pred, read(line=LINES))
    left, _, _ = match_screens(pred, read(line=LINES), missing="worst")
    assert left.missing == (("ADNP", "b"), ("BRD4", "b"), ("CHD8", "b"))
    assert left.contexts == ("a", "b")


def test_swapped_contexts_are_noticed():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(2.0, 4.0, (3, 200))
    lines = np.repeat(["a", "b", "c"], 40)
    genes = [f"g{i}" for i in range(200)]

    def side(order, seed):
        matrix = np.random.default_rng(seed).poisson(np.repeat(profiles[order], 40, axis=0)).astype(np.float32)
        return read(matrix, genes=genes, line=lines)

    real = side([0, 1, 2], 1)
    assert not any("swapped" in note for note in match_screens(side([0, 1, 2], 2), real)[2])
    notes = match_screens(side([1, 0, 2], 3), real)[2]
    assert any("a looks like b, b looks like a" in note for note in notes)


def test_unequal_cell_numbers_are_noted_and_can_be_matched():
    many = np.concatenate([np.resize(["non-targeting", "ADNP", "BRD4", "CHD8"], 40), ["CHD8"] * 60])
    pred, real = read(counts(100, seed=1), many), read()
    left, right, notes = match_screens(pred, real)
    assert any("CHD8 70 against 10" in note and "--match-cells" in note for note in notes)
    left, right, notes = match_screens(pred, real, match_cells=True, seed=3)
    np.testing.assert_array_equal(left.cell_counts(), [10, 10, 10])
    np.testing.assert_array_equal(right.codes, real.codes)
    assert (left.codes == -1).sum() == 10
    assert any("60 cells were left out, drawn with seed 3" in note for note in notes)
    again = match_screens(pred, real, match_cells=True, seed=3)[0]
    np.testing.assert_array_equal(left.codes, again.codes)
    assert np.any(left.codes != match_screens(pred, real, match_cells=True, seed=4)[0].codes)


def test_perturbations_with_few_cells():
    labels = np.array(["non-targeting", "ADNP"] * 19 + ["BRD4", "BRD4"])
    pred, real = read(counts(seed=1), labels), read(labels=labels)
    left, right, notes = match_screens(pred, real, min_cells=3)
    assert left.perts == right.perts == ("ADNP",)
    np.testing.assert_array_equal(left.codes[-2:], -2)
    assert any("fewer than 3" in note for note in notes)
    with refused("No perturbation is left"):
        match_screens(pred, real, min_cells=100)


def test_reference_pairs_match():
    for pair in ("pair_24x400", "papalexi_halves"):
        folder = shared_path(f"reference/{pair}")
        for suffix in ("", "_lognorm"):
            pred, real = (read_screen(folder / f"{side}{suffix}.h5ad") for side in ("pred", "real"))
            left, right, notes = match_screens(pred, real)
            assert left.perts == right.perts == real.perts
            assert left.genes == right.genes == real.genes
            assert not any("missing" in note or "shared" in note for note in notes)
