"""Input that cannot be scored honestly is refused, with its place and its remedy; nothing is guessed."""

import fcntl
import gzip
import os
import shutil
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from screens import counts, GENES, lognorm, refused, screen_of

from vcjax.io import read_csv, read_screen, read_target_map, report_targets


def changed(matrix, row, column, value):
    matrix = matrix.copy()
    matrix[row, column] = value
    return matrix


def editing(path) -> Any:
    """An h5ad opened for changes behind the back of anndata."""
    return h5py.File(path, "r+")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("value", "kind", "fix"),
    [
        (np.nan, "NaN", "--nan zero"),
        (np.inf, "infinite", "float32"),
        (-np.inf, "infinite", "float32"),
        (-1, "negative", "delta"),
    ],
)
@pytest.mark.parametrize("values", [counts(), lognorm(counts())])
def test_values_that_no_cell_has(values, value, kind, fix, sparse):
    matrix = changed(changed(values, 21, 3, value), 33, 0, value)
    place = "row 21, gene 'DYRK1A', perturbation 'ADNP'"
    with refused(f"2 values are {kind}", place, fix):
        read_screen(screen_of(scipy.sparse.csr_matrix(matrix) if sparse else matrix), max_entries=50)


def test_nan_in_a_control_cell_is_seen():
    with refused("1 value is NaN", "'non-targeting'"):
        read_screen(screen_of(changed(counts(), 4, 1, np.nan)))


def test_nan_may_be_zero_but_infinity_may_not():
    with refused("infinite"):
        read_screen(screen_of(changed(counts(), 4, 1, np.inf)), nan="zero")


def test_declared_counts_that_are_fractional():
    with refused("Declared counts", "40 of 40", "row 0", 'input_type="lognorm"', "--input-type-pred"):
        read_screen(screen_of(lognorm(counts())), input_type="counts")
    with refused("Declared counts", "1 of 40", "row 7", "np.rint"):
        read_screen(screen_of(changed(counts(), 7, 1, 3.5)), input_type="counts")


def test_declared_lognorm_that_is_whole():
    with refused("Declared lognorm", 'input_type="counts"'):
        read_screen(screen_of(), input_type="lognorm")


@pytest.mark.parametrize("input_type", ["auto", "lognorm"])
def test_a_few_rows_of_counts_among_lognorm(input_type):
    values = lognorm(counts())
    values[[9, 30]] = counts()[[9, 30]]
    with refused("mixed", "2 of 40 cells hold whole numbers", "row 9 ('ADNP')", "5 / 50 / 95 %"):
        read_screen(screen_of(values), input_type=input_type)


def test_a_few_rows_off_scale_among_lognorm():
    values = lognorm(counts())
    values[9] = 3 * values[9]
    with refused("mixed", "1 of 40 cells have an expm1 sum above 1,000,000"):
        read_screen(screen_of(values))


def test_values_on_no_known_scale():
    normalised = (1e4 * counts() / counts().sum(axis=1, keepdims=True)).astype(np.float32)
    with refused("neither counts nor log-normalised", "every row sums to 10,000", "log1p"):
        read_screen(screen_of(normalised))
    with refused("neither counts nor log-normalised", "--max-total"):
        read_screen(screen_of(100 * counts() + 0.25))


def test_zeros_have_no_scale():
    zeros = np.zeros((40, 6), np.float32)
    with refused("All values are zero", "input_type="):
        read_screen(screen_of(zeros))
    assert read_screen(screen_of(zeros), input_type="counts").scale == "counts"


def test_totals_above_a_stated_limit():
    with refused("1 cells have more than 1,000,000 counts", "row 7", "--max-total"):
        read_screen(screen_of(changed(counts(), 7, 0, 2e6)), max_total=1e6)
    assert read_screen(screen_of(lognorm(counts(), 5e6)), max_total=1e7).scale == "lognorm"
    with refused("neither"):
        read_screen(screen_of(lognorm(counts(), 5e6)))


@pytest.mark.parametrize("label", [None, np.nan, "", "nan", "NaN", "<NA>", pd.NA])
def test_cells_without_a_label(label):
    labels = np.resize(np.array(["non-targeting", "ADNP", label, "BRD4"], object), 40)
    with refused("10 of 40 cells have no label", "rows 2, 6, 10 and 7 more", "--drop-unlabelled"):
        read_screen(screen_of(labels=labels))


def test_cells_without_a_context():
    lines = np.resize(np.array(["a", None], object), 40)
    with refused("20 of 40 cells have no label", "target_gene or line"):
        read_screen(screen_of(line=lines), context_col="line")


def test_the_wrong_control_label():
    with refused("No cell is labelled 'nontargeting'", "Did you mean 'non-targeting'?", "ADNP (10)", "--control-pert"):
        read_screen(screen_of(), control="nontargeting")
    labels = [f"p{i:02d}" for i in range(20) for _ in range(1 + (i == 13))]
    with refused("'non-targeting'") as caught:
        read_screen(screen_of(counts(21), labels))
    assert "p13 (2), p00 (1)" in caught.value.where
    assert caught.value.where.count("(1)") == 9  # the ten most frequent


def test_the_label_column():
    with refused("Several columns", "target_gene, gene", "--pert-col"):
        read_screen(screen_of(gene=np.resize(["a"], 40)))
    with refused("No column", "batch", "--pert-col"):
        read_screen(screen_of(column="batch"))
    with refused("no obs column 'target_gen'", "Did you mean 'target_gene'?"):
        read_screen(screen_of(), pert_col="target_gen")
    with refused("no obs column 'cell'", "--context-col"):
        read_screen(screen_of(), context_col="cell")


def test_nothing_but_controls_or_nothing_at_all():
    with refused("no perturbed cell"):
        read_screen(screen_of(labels=["non-targeting"] * 40))
    with refused("no cells"):
        read_screen(screen_of(counts(0)))


def test_gene_names():
    with refused("1 gene names occur more than once", "ADNP", "--dedup sum"):
        read_screen(screen_of(genes=("ADNP", "ADNP", *GENES[2:])))
    adata = screen_of()
    adata.var["symbol"] = ["a", None, "c", "d", "e", "f"]
    with refused("1 genes have no name", "symbol", "rows 1"):
        read_screen(adata, gene_col="symbol")
    with refused("Did you mean 'symbol'?"):
        read_screen(adata, gene_col="symbols")


class _StandIn:
    is_view = False

    def __init__(self, matrix, adata):
        self.X, self.obs, self.var, self.layers = matrix, adata.obs, adata.var, {}
        self.n_obs, self.n_vars = matrix.shape


@pytest.mark.parametrize("part", ["high index", "negative index", "falling pointers", "short data"])
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_corrupt_sparse_matrices(part, kind):
    matrix = scipy.sparse.csr_matrix(counts()) if kind == "csr" else scipy.sparse.csc_matrix(counts())
    if part == "high index":
        matrix.indices[5] = 1000
    elif part == "negative index":
        matrix.indices[5] = -1
    elif part == "falling pointers":
        matrix.indptr[3] = 0
    else:
        matrix.data = matrix.data[:-3]
    with refused("corrupt", "wrong cells or genes"):
        read_screen(_StandIn(matrix, screen_of()))


def test_corrupt_pointers_in_a_file(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen_of(scipy.sparse.csr_matrix(counts())).write_h5ad(path)
    with editing(path) as file:
        file["X/indptr"][-1] = 10**9
    with refused("corrupt", str(path)):
        read_screen(path)


def test_values_that_are_not_numbers():
    with refused("not real numbers", "complex64"):
        read_screen(screen_of(counts().astype(np.complex64)))


def test_absent_values_and_layers():
    adata = screen_of()
    adata.layers["counts"] = adata.X
    with refused("no layer 'count'", "Did you mean 'counts'?"):
        read_screen(adata, layer="count")
    adata.X = None
    for empty in (adata, adata[:10]):
        with refused("no `X`", "counts", "--layer"):
            read_screen(empty)


def test_what_is_not_a_screen():
    with refused("A path or an AnnData is expected, got ndarray"):
        read_screen(counts())


def test_a_missing_file(tmp_path):
    screen_of().write_h5ad(tmp_path / "prediction.h5ad")
    with refused("There is no file", "Did you mean 'prediction.h5ad'?"):
        read_screen(tmp_path / "predictions.h5ad")
    with refused("absent or empty"):
        read_screen(tmp_path / "nowhere" / "pred.h5ad")


def _truncated(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _other(content):
    return lambda path: path.write_bytes(content)


def _gzipped(path):
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (_truncated, "cut short"),
        (_other(b""), "is empty"),
        (_gzipped, "gunzip"),
        (_other(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (_other(b"gene,value\nA,1\n"), "not an HDF5 file"),
        (_other(b"PK\x03\x04"), "zip archive"),
    ],
)
def test_files_of_another_kind(tmp_path, damage, cause):
    path = tmp_path / "screen.h5ad"
    screen_of().write_h5ad(path)
    damage(path)
    with refused(cause, str(path)) as caught:
        read_screen(path)
    assert len(str(caught.value).splitlines()) == 4


def test_a_file_that_someone_writes_to(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen_of().write_h5ad(path)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # what HDF5 does while it writes
        with refused("open for writing elsewhere"):
            read_screen(path)
    assert read_screen(path).scale == "counts"


def test_folders_that_are_no_store(tmp_path):
    with refused("not a zarr store", "write_zarr"):
        read_screen(tmp_path)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # anndata 0.12
def test_a_zarr_store_with_missing_chunks(tmp_path):
    path = tmp_path / "screen.zarr"
    screen_of(scipy.sparse.csr_matrix(counts())).write_zarr(path)
    for name in os.listdir(path / "X" / "data"):
        if name not in ("zarr.json", ".zarray", ".zattrs"):
            target = path / "X" / "data" / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    with refused("chunks of the stored values are missing"):
        read_screen(path)


def test_hdf5_that_is_not_anndata(tmp_path):
    path = tmp_path / "tenx.h5"
    with h5py.File(path, "w") as file:
        file["matrix/data"] = np.arange(3)
    with refused("not an AnnData file", "10x", "write_h5ad"):
        read_screen(path)


def test_legacy_and_unknown_encodings(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen_of().write_h5ad(path)
    with editing(path) as file:
        del file["obs"]
        file["obs"] = np.array([(b"cell0", b"ADNP")], dtype=[("index", "S8"), ("target_gene", "S8")])
    with refused("encoding", "before 0.7", "read_h5ad"):
        read_screen(path)
    screen_of().write_h5ad(path)
    with editing(path) as file:
        file["obs/target_gene"].attrs["encoding-type"] = "something-new"
    with refused("encoding", "something-new"):
        read_screen(path)
    screen_of(scipy.sparse.csr_matrix(counts())).write_h5ad(path)
    with editing(path) as file:
        file["X"].attrs["encoding-type"] = "bsr_matrix"
    with refused("bsr_matrix"):
        read_screen(path)


def test_values_that_do_not_fit_the_tables(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen_of().write_h5ad(path)
    with editing(path) as file:
        values = file["X"][:30]
        del file["X"]
        file["X"] = values
    with refused("(30, 6)", "(40, 6)"):
        read_screen(path)


def test_damage_inside_a_file_is_found_during_the_walk(tmp_path):
    path = tmp_path / "screen.h5ad"
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.csr_matrix(rng.integers(1, 10_000, (40, 6)).astype(np.float32))
    screen_of(matrix).write_h5ad(path, compression="gzip")
    with editing(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    with refused("cannot be read", str(path), "checksum"):
        read_screen(path)


def test_columns_too_large_to_be_turned_into_rows(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen_of(scipy.sparse.csc_matrix(counts())).write_h5ad(path)
    with refused("CSC", "--max-memory", "tocsr"):
        read_screen(path, max_memory=100)


def test_target_maps(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("\ufefflabel , gene\nguide-1,ADNP\n\nguide-2,\n*,\n", encoding="utf-8")
    assert read_target_map(path) == {"guide-1": "ADNP", "guide-2": None, "*": None}
    assert read_target_map({"a": "", "b": "B"}) == {"a": None, "b": "B"}
    assert read_target_map(None) == {}
    path.write_text("label,gene\na,ADNP\na,BRD4\n")
    with refused("'a' is listed with two genes", "row 2"):
        read_target_map(path)
    path.write_text("label,gene\n,ADNP\n")
    with refused("A label is empty"):
        read_target_map(path)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"guide-1,ADNP\n", "row 1: guide-1, ADNP"),
        (b"", "row 1: empty"),
        (b"label,gene\na\n", "row 2: 1 fields"),
        (b"label,gene\na,b\n\xff\xfe,c\n", "codec can't decode"),
        (b"label,gene\na,b\nc," + b"x" * 200_000 + b"\n", "row 3: field larger than field limit (131072)"),
        (b"label,genes\na,b\n", "Did you mean 'genes'?"),
    ],
)
def test_unreadable_tables(tmp_path, content, where):
    path = tmp_path / "map.csv"
    path.write_bytes(content)
    with refused(where, str(path)):
        read_csv(path, ("label", "gene"))


def test_a_missing_table(tmp_path):
    (tmp_path / "map.csv").write_text("label,gene\n")
    with refused("Did you mean 'map.csv'?"):
        read_csv(tmp_path / "maps.csv", ("label", "gene"))


def test_tab_separated_tables(tmp_path):
    (tmp_path / "map.tsv").write_text("gene\tlabel\nADNP\ta\n")
    assert read_csv(tmp_path / "map.tsv", ("label", "gene")) == [("a", "ADNP")]


def test_targets_of_which_none_is_measured():
    with refused("No perturbation label", "guide-1, guide-2", "pds_l1", "--target-map"):
        report_targets(("guide-1", "guide-2"), GENES).require("pds_l1")
    report_targets(("guide-1", "ADNP"), GENES).require()
    report_targets(("guide-1", "guide-2"), GENES, {"*": None}).require()
    with refused("No perturbation label"):
        report_targets(("guide-1",), GENES, {"guide-1": "XIST"}).require()
