"""Submissions: what is refused, all at once, and what the archive holds."""

import dataclasses
import io
import json
import tarfile
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse
import zstandard
from helpers import shared_path
from screens import counts, GENES, LABELS, lognorm, refused, screen_of

from vcjax.cli import main
from vcjax.io import (
    CELL_EVAL_PREP,
    check_submission,
    prepare_submission,
    read_gene_list,
    read_pert_counts,
    Rules,
    VCC2026,
)


CELLS = 12
TINY = dataclasses.replace(VCC2026, genes=len(GENES), perts=3, cells_per_pert=4, max_entries=CELLS * len(GENES))
LIST = dataclasses.replace(CELL_EVAL_PREP, genes=None)


def emitted(matrix=None, labels=None, **changes):
    """A prediction that the small challenge accepts: 3 perturbations × 4 cells, sparse counts, no control."""
    matrix = scipy.sparse.csr_matrix(counts(CELLS)) if matrix is None else matrix
    return screen_of(matrix, np.repeat(LABELS[1:], 4).astype(object) if labels is None else labels, **changes)


def read_h5ad(path) -> Any:
    return anndata.read_h5ad(path)


def unpacked(path, folder):
    """The h5ad of an archive, and the bytes of its watermark."""
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["pred.h5ad.zst", "watermark.txt"]
        members = [tar.extractfile(name) for name in tar.getnames()]
        packed, mark = (member.read() for member in members if member is not None)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)) as stream:
        (folder / "unpacked.h5ad").write_bytes(stream.read())
    return folder / "unpacked.h5ad", mark


def test_a_prediction_that_breaks_no_rule_passes():
    perts: dict[str, int | None] = {label: 4 for label in LABELS[1:]}
    found = check_submission(emitted(), TINY, genes=GENES, perts=perts)
    assert found.genes == GENES
    assert found.values.scale == "counts"
    assert found.entries == np.count_nonzero(counts(CELLS))
    assert check_submission(emitted(), TINY).labels.perts == LABELS[1:]


def broken(**changes):
    matrix = counts(CELLS)
    labels = np.repeat(LABELS[1:], 4).astype(object)
    values = {"fraction": (0, 1, 0.5), "negative": (1, 2, -3), "NaN": (2, 3, np.nan), "deep": (5, 0, 2e6)}
    for name, (row, column, value) in values.items():
        if name in changes:
            matrix[row, column] = value
    if "control" in changes:
        labels[0] = LABELS[0]
    if "unlabelled" in changes:
        labels[3] = np.nan
    return emitted(matrix if "dense" in changes else scipy.sparse.csr_matrix(matrix), labels)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("fraction", "not whole numbers"),
        ("negative", "negative"),
        ("NaN", "NaN"),
        ("deep", "more than 1,000,000 counts"),
        ("control", "control cells"),
        ("unlabelled", "no label"),
        ("dense", "dense array"),
    ],
)
def test_each_fault_is_refused_and_placed(fault, text):
    with refused(text, "not the official checker", "AnnData") as caught:
        check_submission(broken(**{fault: True}), TINY)
    if fault in ("fraction", "NaN", "deep", "negative"):
        assert "row" in caught.value.where


def test_all_faults_are_told_at_once():
    adata = broken(fraction=True, negative=True, control=True, dense=True, deep=True)
    perts = {"ADNP": 4, "BRD4": 5, "CHD9": 4}
    with refused(
        *("10 rules of vcc2026 are broken", "not whole", "negative", "control", "dense", "1,000,000"),
        *("1 genes of the list are missing", "1 genes are not in the list", "FOXP2", "FOXP1"),
        *("1 perturbations of the list are missing", "Did you mean 'CHD8'"),
        *("1 perturbations are not in the list", "BRD4 has 4, not 5", "ADNP has 3, not 4"),
    ) as caught:
        check_submission(adata, dataclasses.replace(TINY, max_entries=None), genes=(*GENES[:-1], "FOXP2"), perts=perts)
    assert caught.value.fix.count("\n") == 10


def test_the_size_of_a_submission_is_limited():
    with refused("values are stored; 10 are allowed"):
        check_submission(emitted(), dataclasses.replace(TINY, max_entries=10))
    with refused("12 cells; 11 are allowed"):
        check_submission(emitted(), dataclasses.replace(TINY, max_cells=11))
    with refused("6 genes; 18,533 are expected", "3 perturbations; 300 are expected", "has 4, not 400"):
        check_submission(emitted(), VCC2026)


def test_stored_zeros_count_as_stored():
    matrix = scipy.sparse.csr_matrix(counts(CELLS))
    matrix.data[:3] = 0
    with refused("values are stored"):
        check_submission(emitted(matrix), dataclasses.replace(TINY, max_entries=matrix.nnz - 1))


def test_every_context_needs_every_cell():
    labels = np.tile(np.repeat(LABELS[1:], 2), 2).astype(object)
    rules = dataclasses.replace(TINY, cells_per_pert=2)
    adata = emitted(labels=labels, line=np.repeat(["A", "B"], 6))
    assert check_submission(adata, rules, context_col="line").labels.contexts == ("A", "B")
    adata.obs["line"] = np.repeat(["A", "B"], [5, 7])
    with refused("CHD8 in A has 1, not 2", "CHD8 in B has 3, not 2"):
        check_submission(adata, rules, context_col="line")


def test_a_missing_column_does_not_hide_other_faults():
    adata = broken(NaN=True)
    adata.obs.columns = ["guide"]
    with refused("2 rules", "No column", "NaN"):
        check_submission(adata, TINY)


def test_repeated_gene_names_are_a_fault():
    with refused("occur more than once"):
        check_submission(emitted(genes=(*GENES[:-1], GENES[0])), TINY)


def write(path, adata):
    adata.write_h5ad(path)
    return path


@pytest.fixture
def prediction(tmp_path):
    return write(tmp_path / "pred.h5ad", screen_of(scipy.sparse.csr_matrix(counts()), obs_extra=np.arange(40)))


@pytest.mark.parametrize("bits", [32, 64])
def test_the_archive_holds_the_cells_in_the_order_of_the_list(tmp_path, prediction, bits):
    genes = GENES[::-1]
    made = prepare_submission(
        prediction, tmp_path / "out.vcc", genes, rules=LIST, encoding=bits, keep_counts=True, output_pert_col="target"
    )
    assert (made.cells, made.genes, made.perturbations, made.scale) == (40, 6, 3, "counts")
    path, mark = unpacked(made.path, tmp_path)
    assert mark == b"vcc-prep"
    adata = read_h5ad(path)
    assert list(adata.obs.columns) == ["target"]
    assert list(adata.var_names) == list(genes)
    assert list(adata.obs_names[:2]) == ["0", "1"]
    assert adata.obs["target"].tolist() == np.resize(np.array(LABELS), 40).tolist()
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.dtype(f"float{bits}")
    np.testing.assert_array_equal(adata.X.toarray(), counts()[:, ::-1])
    assert [name for name in tmp_path.iterdir() if name.name.startswith(".vcjax")] == []


def test_counts_are_log_normalised_to_their_median_total(tmp_path, prediction):
    made = prepare_submission(prediction, tmp_path / "out.vcc", GENES, rules=LIST, encoding=64)
    assert made.scale == "lognorm"
    cells = counts().astype(np.float64)
    totals = cells.sum(axis=1, keepdims=True)
    expected = np.log1p(cells * (np.median(totals) / totals))
    adata = read_h5ad(unpacked(made.path, tmp_path)[0])
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-14)


def test_logarithms_stay_as_they_are(tmp_path):
    path = write(tmp_path / "log.h5ad", screen_of(lognorm(counts())))
    made = prepare_submission(path, tmp_path / "out.vcc", GENES, rules=LIST)
    np.testing.assert_array_equal(read_h5ad(unpacked(made.path, tmp_path)[0]).X.toarray(), lognorm(counts()))


def test_the_same_cells_give_the_same_bytes(tmp_path, prediction):
    for name in ("one", "two"):
        prepare_submission(prediction, tmp_path / f"{name}.vcc", GENES, rules=LIST, threads=1)
    assert (tmp_path / "one.vcc").read_bytes() == (tmp_path / "two.vcc").read_bytes()


def test_strings_are_stored_so_that_older_readers_know_them(tmp_path, prediction):
    made = prepare_submission(prediction, tmp_path / "out.vcc", GENES, rules=LIST, context_col=None)
    with h5py.File(unpacked(made.path, tmp_path)[0]) as file:
        for name in ("obs/_index", "var/_index", "obs/target_gene/categories"):
            assert file[name].attrs["encoding-type"] == "string-array"


def test_nothing_is_overwritten_unasked(tmp_path, prediction):
    with refused("over the input"):
        prepare_submission(prediction, prediction, GENES, rules=LIST, force=True)
    taken = tmp_path / "taken.vcc"
    taken.write_text("mine")
    with refused("The file exists", "--force"):
        prepare_submission(prediction, taken, GENES, rules=LIST)
    assert taken.read_text() == "mine"
    prepare_submission(prediction, taken, GENES, rules=LIST, force=True)
    assert unpacked(taken, tmp_path)[1] == b"vcc-prep"


def test_a_refused_prediction_leaves_no_file(tmp_path, prediction):
    with refused("genes of the list are missing"):
        prepare_submission(prediction, tmp_path / "out.vcc", (*GENES, "MORE"), rules=LIST)
    with refused("No cell is labelled 'ctrl'"):
        prepare_submission(prediction, tmp_path / "out.vcc", GENES, rules=LIST, control="ctrl")
    with pytest.raises(ValueError, match="32 or 64"):
        prepare_submission(prediction, tmp_path / "out.vcc", GENES, rules=LIST, encoding=16)
    assert [path.name for path in tmp_path.iterdir()] == ["pred.h5ad"]


def test_the_lists_of_a_challenge_are_read_with_care(tmp_path):
    path = tmp_path / "genes.csv"
    path.write_text("\ufeffgene_name\nA\nB\n\n")
    assert read_gene_list(path) == ("A", "B")
    path.write_text("A,x\nB,y\n")
    assert read_gene_list(path) == ("A", "B")
    path.write_text("A\nB\nA\n")
    with refused("named twice: A"):
        read_gene_list(path)
    with refused("no file", "--genes"):
        read_gene_list(tmp_path / "absent.csv")
    path.write_text("target_gene,n_cells,median_umi_per_cell\nA,400.0,1\nB,3,2\n")
    assert read_pert_counts(path) == {"A": 400, "B": 3}
    path.write_text("target_gene\nA\n")
    assert read_pert_counts(path) == {"A": None}
    for text, cause in (("A,1\nA,2", "'A' occurs twice"), ("A,1.5", "not a whole"), ("A,many", "no number")):
        path.write_text(f"target_gene,n_cells\n{text}\n")
        with refused(cause):
            read_pert_counts(path)
    with refused("no file", "--perts"):
        read_pert_counts(tmp_path / "absent.csv")


def test_the_rules_of_the_challenge_are_written_down_once():
    assert (VCC2026.genes, VCC2026.perts, VCC2026.cells_per_pert) == (18_533, 300, 400)
    assert (VCC2026.max_total, VCC2026.max_entries) == (1e6, 4_750_000_000)
    assert "2026-08-19" in VCC2026.disclaimer
    assert "not the official checker" in Rules("x", "today", "y").disclaimer


def test_the_archive_of_a_stored_prediction_has_its_values(tmp_path):
    source = shared_path("reference/pair_24x400/pred.h5ad")
    given = read_h5ad(source)
    made = prepare_submission(source, tmp_path / "out.vcc", list(given.var_names[::-1]), rules=LIST)
    adata = read_h5ad(unpacked(made.path, tmp_path)[0])
    # What `cell-eval prep` (0.8.2) packs from this file and this list.
    values = adata.X.data.astype(np.float64)
    assert adata.X.nnz == 688_116
    np.testing.assert_allclose(values[:3], [2.81095695, 1.64227009, 2.87172914], rtol=1e-8)
    np.testing.assert_allclose(values.sum(), 1227417.5214037, rtol=1e-10)
    np.testing.assert_allclose(values @ (np.arange(len(values)) % 97), 58913800.00692512, rtol=1e-10)


def command(*flags):
    return main([str(flag) for flag in flags])


def test_prep_packs_from_the_command_line(tmp_path, prediction, capsys):
    genes = tmp_path / "genes.csv"
    genes.write_text("\n".join(GENES))
    assert command("prep", "-i", prediction, "-g", genes, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(tmp_path / "pred.prep.vcc")
    assert unpacked(found["path"], tmp_path)[1] == b"vcc-prep"
    assert command("prep", "-i", prediction, "-g", genes) == 2
    assert "--force" in capsys.readouterr().err
    assert command("prep", "-i", prediction, "-g", genes, "--force", "--expected-gene-dim", 18080) == 2
    assert "18,080 are expected" in capsys.readouterr().err
    assert command("prep", "-i", prediction, "-g", genes, "--force", "--max-cell-dim", 10) == 2
    assert "10 are allowed" in capsys.readouterr().err
    assert command("prep", "-i", prediction, "-g", genes, "--force", "--max-cell-dim", -1) == 0
    assert "not the official checker" in capsys.readouterr().out


def test_validate_holds_a_screen_against_the_challenge(tmp_path, prediction, capsys):
    genes, perts = tmp_path / "genes.csv", tmp_path / "perts.csv"
    genes.write_text("\n".join([*GENES, "MORE"]))
    perts.write_text("target_gene,n_cells\nADNP,400\n")
    assert command("validate", prediction, "--preset", "vcc2026", "--genes", genes, "--perts", perts) == 2
    told = capsys.readouterr().err
    for text in ("MORE", "10 control cells", "BRD4", "ADNP has 10, not 400", "The list has 7 genes", "vcc2026"):
        assert text in told
    assert "not the official checker" in told
    assert command("validate", prediction) == 0
