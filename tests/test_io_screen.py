"""Reading a screen: every way in which values, labels and genes can be stored gives the same screen."""

import copy
import pickle
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import shared_path
from screens import counts, dense, GENES, lognorm, screen_of

from vcjax.io import read_screen, Refusal, report_targets, resolve_target_sets, resolve_targets


FORMATS = {
    "csr": scipy.sparse.csr_matrix,
    "csc": scipy.sparse.csc_matrix,
    "coo": scipy.sparse.coo_matrix,
    "csr_array": scipy.sparse.csr_array,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("max_entries", [4_000_000, 17])
def test_formats_in_memory_are_one_screen(kind, max_entries):
    matrix = counts()
    values = FORMATS[kind](matrix)
    screen = read_screen(_StandIn(values, screen_of()) if kind == "coo" else screen_of(values), max_entries=max_entries)
    np.testing.assert_array_equal(dense(screen.matrix), matrix)
    np.testing.assert_array_equal(screen.totals, matrix.sum(axis=1))
    assert screen.fingerprint == read_screen(screen_of(matrix)).fingerprint


class _StandIn:
    """Looks like an AnnData but holds values that AnnData itself would convert."""

    is_view = False

    def __init__(self, matrix, adata):
        self.X, self.obs, self.var, self.layers = matrix, adata.obs, adata.var, {}
        self.n_obs, self.n_vars = matrix.shape


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # anndata 0.12
def test_files_give_the_screen_in_memory(tmp_path, kind, suffix):
    matrix = counts()
    adata, path = screen_of(FORMATS[kind](matrix)), tmp_path / f"screen.{suffix}"
    adata.write_h5ad(path) if suffix == "h5ad" else adata.write_zarr(path)
    screen = read_screen(path, max_entries=25)
    np.testing.assert_array_equal(dense(screen.matrix), matrix)
    assert (screen.name, screen.genes, screen.scale) == (str(path), GENES, "counts")
    assert screen.fingerprint == read_screen(adata).fingerprint


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # anndata 0.12
def test_a_zipped_zarr_store(tmp_path):
    screen_of(scipy.sparse.csr_matrix(counts())).write_zarr(tmp_path / "screen.zarr")
    path = shutil.make_archive(str(tmp_path / "screen.zarr"), "zip", tmp_path / "screen.zarr")
    np.testing.assert_array_equal(dense(read_screen(path).matrix), counts())


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("view", [False, True])
@pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option")  # anndata, taking a view of a backed one
def test_backed(tmp_path, kind, view):
    matrix, path = counts(), tmp_path / "screen.h5ad"
    screen_of(FORMATS[kind](matrix)).write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r")
    rows = np.arange(3, 37)
    screen = read_screen(backed[rows] if view else backed, max_entries=30)
    np.testing.assert_array_equal(dense(screen.matrix), matrix[rows] if view else matrix)
    backed.file.close()


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_view_in_memory(kind):
    matrix = counts(101)
    view = screen_of(FORMATS[kind](matrix))[5::3, ["CHD8", "ADNP"]]
    assert view.is_view
    screen = read_screen(view, max_entries=12)
    np.testing.assert_array_equal(dense(screen.matrix), matrix[5::3][:, [2, 0]])
    assert screen.genes == ("CHD8", "ADNP")
    assert view.is_view


def test_layer(tmp_path):
    adata, path = screen_of(lognorm(counts())), tmp_path / "screen.h5ad"
    adata.layers["counts"] = counts()
    adata.write_h5ad(path)
    for source in (adata, path):
        assert read_screen(source).scale == "lognorm"
        assert read_screen(source, layer="counts").scale == "counts"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "int64", "float16", "float64", ">f4"])
@pytest.mark.parametrize("sparse", [False, True])
def test_dtypes_are_widened_without_overflow(dtype, sparse):
    matrix = np.full((8, 6), 100 if dtype != "bool" else 1).astype(dtype)
    matrix[:, 1:4] = np.arange(24).reshape(8, 3) % 2
    if sparse and dtype in ("float16", ">f4"):
        adata = _StandIn(_csr_of_any_dtype(matrix), screen_of(matrix.astype(np.float32)))
    else:
        adata = screen_of(scipy.sparse.csr_matrix(matrix) if sparse else matrix)
    screen = read_screen(adata)
    assert {block.dtype for _, block in screen.matrix.chunks()} <= {np.dtype("f4"), np.dtype("f8")}
    np.testing.assert_array_equal(screen.totals, matrix.astype(np.float64).sum(axis=1))
    assert (dtype == "float16") == any("float16" in note for note in screen.notes)


def _csr_of_any_dtype(matrix):
    csr = scipy.sparse.csr_matrix(matrix.astype(np.float32))
    csr.data = csr.data.astype(matrix.dtype)
    return csr


def test_float16_counts_beyond_2048_are_noted():
    matrix = counts().astype(np.float16)
    matrix[0, 0] = 4096
    assert any("2,048" in note for note in read_screen(screen_of(matrix)).notes)


def test_non_canonical_csr_is_repaired_in_a_copy():
    data = np.array([1, 2, 0, 3, 4, 5], np.uint8)
    matrix = scipy.sparse.csr_matrix((data, np.array([2, 0, 1, 1, 1, 0]), np.array([0, 3, 6])), shape=(2, 6))
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    screen = read_screen(_StandIn(matrix, screen_of(counts(2), ["non-targeting", "ADNP"])))
    np.testing.assert_array_equal(dense(screen.matrix), [[2, 0, 1, 0, 0, 0], [5, 7, 0, 0, 0, 0]])
    (block,) = [block for _, block in screen.matrix.chunks()]
    assert block.has_canonical_format
    assert block.nnz == 4
    assert "entries stored twice were summed" in screen.notes
    assert "explicitly stored zeros were dropped" in screen.notes
    for part, old in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_duplicates_of_small_integers_do_not_wrap():
    matrix = scipy.sparse.csr_matrix(
        (np.array([200, 200], np.uint8), np.array([0, 0]), np.array([0, 2, 2])), shape=(2, 6)
    )
    screen = read_screen(_StandIn(matrix, screen_of(counts(2), ["ADNP", "non-targeting"])))
    assert dense(screen.matrix)[0, 0] == 400


@pytest.mark.parametrize("values", [counts(), lognorm(counts())])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_the_callers_anndata_is_not_changed(values, kind):
    adata = screen_of(FORMATS[kind](values), line=pd.Categorical(np.resize(["a", "b"], 40), categories=["a", "b", "c"]))
    adata.uns["key"] = {"a": np.arange(3)}
    matrix, obs, var, uns = adata.X.copy(), adata.obs.copy(), adata.var.copy(), copy.deepcopy(adata.uns)
    dense(read_screen(adata, context_col="line", dedup="sum", nan="zero").matrix)
    assert (matrix != adata.X).sum() == 0
    assert type(matrix) is type(adata.X)
    pd.testing.assert_frame_equal(obs, adata.obs)
    pd.testing.assert_frame_equal(var, adata.var)
    np.testing.assert_array_equal(uns["key"]["a"], adata.uns["key"]["a"])


def test_perts_are_sorted_and_codes_follow():
    labels = ["b", "non-targeting", "B", "a+c", "a", "b"]
    screen = read_screen(screen_of(counts(6), labels))
    assert screen.perts == tuple(np.unique(["b", "B", "a+c", "a"]).tolist())
    assert [screen.perts[i] if i >= 0 else "non-targeting" for i in screen.codes] == labels
    assert screen.codes.dtype == np.int32
    np.testing.assert_array_equal(screen.cell_counts(), [1, 1, 1, 2])


def test_labels_of_other_types_are_compared_as_text():
    labels = pd.Categorical([0, 1, 2, 0, 1], categories=[9, 2, 1, 0])
    screen = read_screen(screen_of(counts(5), labels), control="0")
    assert screen.perts == ("1", "2")
    mixed = np.array([1, "1", "ctrl", 2.5, "ctrl"], object)
    assert read_screen(screen_of(counts(5), mixed), control="ctrl").perts == ("1", "2.5")
    drugs = ["[('DMSO_TF', 0.0, 'uM')]", "[('A', 1.0, 'uM')]"] * 2
    assert read_screen(screen_of(counts(4), drugs), control=drugs[0]).perts == (drugs[1],)


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_nullable_and_categorical_labels_from_a_file(tmp_path, dtype):
    adata, path = (
        screen_of(labels=pd.Series(np.resize(["non-targeting", "ADNP"], 40)).astype(dtype).array),
        tmp_path / "s.h5ad",
    )
    with anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(path)
    assert read_screen(path).perts == ("ADNP",)


def test_a_control_named_none_is_a_label():
    assert read_screen(screen_of(counts(4), ["None", "ADNP"] * 2), control="None").perts == ("ADNP",)


def test_drop_unlabelled():
    labels = np.array(["non-targeting", "ADNP", None, np.nan, "", "nan", " ", "BRD4"], object)
    screen = read_screen(screen_of(counts(8), labels), drop_unlabelled=True)
    np.testing.assert_array_equal(screen.codes, [-1, 0, -2, -2, -2, -2, -2, 1])
    assert any("5 cells" in note for note in screen.notes)
    context = np.array(["a", None, "a", "a", "a", "a", "a", "b"], object)
    screen = read_screen(screen_of(counts(8), labels, line=context), drop_unlabelled=True, context_col="line")
    assert screen.perts == ("BRD4",)  # the only cell of ADNP has no context
    np.testing.assert_array_equal(screen.codes, [-1, -2, -2, -2, -2, -2, -2, 0])


def test_contexts():
    lines = np.resize(["T/98", "A172"], 40)
    screen = read_screen(screen_of(line=lines), context_col="line")
    assert screen.contexts == ("A172", "T/98")
    assert screen.context_codes is not None
    assert screen.context_means is not None
    assert [screen.contexts[i] for i in screen.context_codes] == lines.tolist()
    np.testing.assert_allclose(screen.context_means[1], counts()[::2].mean(axis=0, dtype=float), rtol=1e-12)
    with pytest.raises(ValueError, match="not in"):
        screen.cell_counts("B")
    assert screen.cell_counts("A172").sum() + screen.cell_counts("T/98").sum() == screen.cell_counts().sum()


@pytest.mark.parametrize("column", ["target_gene", "target", "perturbation", "gene", "condition"])
def test_the_label_column_is_found(column):
    screen = read_screen(screen_of(column=column))
    assert any(repr(column) in note for note in screen.notes)


def test_a_prediction_may_lack_controls():
    screen = read_screen(screen_of(labels=["ADNP", "BRD4"] * 20), require_control=False)
    assert not screen.has_control
    assert any("measured controls" in note for note in screen.notes)


def test_duplicated_genes():
    genes = ("ADNP", "BRD4", "ADNP", "CHD8", "BRD4", "FOXP1")
    matrix = counts()
    screen = read_screen(screen_of(matrix, genes=genes), dedup="sum")
    assert screen.genes == ("ADNP", "BRD4", "CHD8", "FOXP1")
    expected = np.stack([matrix[:, 0] + matrix[:, 2], matrix[:, 1] + matrix[:, 4], matrix[:, 3], matrix[:, 5]], axis=1)
    np.testing.assert_array_equal(dense(screen.matrix), expected)
    first = read_screen(screen_of(matrix, genes=genes), dedup="first")
    np.testing.assert_array_equal(dense(first.matrix), matrix[:, [0, 1, 3, 5]])
    np.testing.assert_array_equal(first.totals, matrix[:, [0, 1, 3, 5]].sum(axis=1))


def test_gene_names_from_a_column():
    adata = screen_of()
    adata.var["id"] = [f"ENSG0000000000{i}" for i in range(6)]
    assert read_screen(adata, gene_col="id").genes == tuple(adata.var["id"])


def test_duplicated_cell_names_are_harmless():
    adata = screen_of()
    adata.obs.index = pd.Index(["same"] * 40)
    screen = read_screen(adata)
    np.testing.assert_array_equal(dense(screen.matrix), counts())
    assert any("cell names" in note for note in screen.notes)


def test_scale_is_detected_or_verified():
    assert "detected" in read_screen(screen_of()).scale_verdict
    assert "declared" in read_screen(screen_of(), input_type="counts").scale_verdict
    screen = read_screen(screen_of(lognorm(counts())), input_type="lognorm")
    assert screen.scale == "lognorm"
    assert screen.depth == pytest.approx(1e4, rel=1e-6)
    # Totals of exactly the limit pass: rounding in float32 may put their sum a little above.
    assert read_screen(screen_of(lognorm(counts(), 1e6))).scale == "lognorm"
    delta = read_screen(screen_of(counts() - 2.5), input_type="delta")
    assert delta.scale == "delta"


def test_counts_are_whole_within_an_absolute_tolerance():
    matrix = counts().astype(np.float64)
    matrix[3, 2] += 5e-7
    assert read_screen(screen_of(matrix)).scale == "counts"
    matrix[3, 2] = 50_000.5
    with pytest.raises(Refusal, match="1e-6"):
        read_screen(screen_of(matrix), input_type="counts")


def test_nan_as_zero():
    matrix = counts()
    matrix[4, 2] = np.nan
    for values in (matrix, scipy.sparse.csr_matrix(matrix)):
        screen = read_screen(screen_of(values), nan="zero")
        np.testing.assert_array_equal(dense(screen.matrix), np.nan_to_num(matrix))
        assert any("NaN" in note for note in screen.notes)


def test_suspicious_values_are_noted():
    matrix = counts()
    matrix[1::4] = matrix[1]  # all cells of ADNP alike
    matrix[5] = 0
    matrix[7, 0] = 2e6
    labels = ["non-targeting", "ADNP", "BRD4", "CHD8"] * 9 + ["non-targeting"] * 3 + ["FOXP1"]
    notes = "\n".join(read_screen(screen_of(matrix, labels)).notes)
    assert "identical cells" not in notes  # but for row 5, which is empty
    matrix[5] = matrix[1]
    matrix[2] = 0
    notes = "\n".join(read_screen(screen_of(matrix, labels)).notes)
    assert "identical cells" in notes
    assert "ADNP" in notes
    assert "1 of 40 cells hold zeros only" in notes
    assert "1 cells have more than 1,000,000 counts" in notes
    assert "1 perturbations have one cell (e.g. FOXP1)" in notes


def test_the_fingerprint_follows_values_labels_and_genes():
    base = read_screen(screen_of()).fingerprint
    matrix = counts()
    matrix[0, 0] += 1
    others = [
        screen_of(matrix),
        screen_of(labels=np.roll(screen_of().obs["target_gene"].to_numpy(), 1)),
        screen_of(genes=("ADNP2", *GENES[1:])),
        screen_of(counts()[:39]),
    ]
    prints = {read_screen(other).fingerprint for other in others}
    assert len(prints | {base}) == 5
    assert read_screen(screen_of()).fingerprint == base


def test_unchecked_reading_needs_a_declared_scale():
    screen = read_screen(screen_of(), check=False, input_type="counts")
    assert screen.totals is None
    assert screen.fingerprint == ""
    with pytest.raises(ValueError, match="input_type"):
        read_screen(screen_of(), check=False)


def test_a_refusal_crosses_a_process_boundary():
    refusal = pickle.loads(pickle.dumps(Refusal(what="a", where="b", why="c", fix="d")))
    assert str(refusal) == "a\n  where: b\n  why:   c\n  fix:   d"


def test_targets():
    perts = ("ADNP", "ADNP+BRD4", "BRD4_CHD8", "CHD8+ctrl", "guide-7", "XIST", "XIST+FOXP1", "drug")
    target_map = {"guide-7": "EHMT1", "drug": None}
    np.testing.assert_array_equal(resolve_targets(perts, GENES, target_map), [0, -1, -1, 2, 4, -1, 5, -1])
    assert resolve_target_sets(perts, GENES, target_map)[1:3] == ((0, 1), (1, 2))
    report = report_targets(perts, GENES, target_map)
    assert (report.unresolved, report.declared_none) == (("XIST",), ("drug",))
    assert "1 of 8 perturbations" in report.note
    assert resolve_target_sets(("x", "ADNP"), GENES, {"x": "ADNP+CHD8", "ADNP": ""}) == ((0, 2), ())
    # A label that is a gene is not split, whatever it contains.
    assert resolve_target_sets(("A_B",), ("A", "B", "A_B")) == ((2,),)
    np.testing.assert_array_equal(resolve_targets(("ADNP", "BRD4"), GENES, {"*": None, "BRD4": "BRD4"}), [-1, 1])


def test_real_screens():
    devel = read_screen(
        shared_path("data/perturbench-devel/devel.h5ad"),
        pert_col="perturbation",
        control="control",
        context_col="cell_type",
    )
    assert devel.scale == "lognorm"
    assert len(devel.perts) == 33
    assert devel.contexts == ("A172", "T98G", "U87MG", "k562")
    assert sum("+" in pert for pert in devel.perts) == 15
    papalexi = read_screen(
        shared_path("data/papalexi-sceptredata/papalexi_lowmoi.h5ad"), pert_col="perturbation", max_entries=300_000
    )
    assert (papalexi.scale, len(papalexi.perts), int((papalexi.codes == -1).sum())) == ("counts", 25, 2386)
    assert report_targets(papalexi.perts, papalexi.genes).note.startswith("Warning: 16 of 25")
