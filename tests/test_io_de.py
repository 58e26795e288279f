"""Differential expression of a screen on the host: conventions, blocks, files."""

import dataclasses
import importlib.util
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from screens import refused, screen_of

from vcjax import DETable
from vcjax.io import (
    CELL_EVAL2_DE,
    CELL_EVAL_DE,
    DESettings,
    differential_expression,
    HostTable,
    load_summary,
    match_screens,
    read_de_table,
    read_screen,
    Refusal,
    summarise,
    Summary,
    VCC2025_DE,
    write_de_table,
)
from vcjax.io._de_test import load_engine, log_bh, rank_tests


CONTROL = "non-targeting"
LABELS = np.array([CONTROL] * 60 + ["A"] * 25 + ["B"] * 12 + ["C"] * 2 + ["D"], object)
GENES = tuple("ABCD") + tuple(f"G{i}" for i in range(26))
PERTS = ("A", "B", "C", "D")


def counts(seed):
    """Counts with an empty cell, genes that no cell, only a perturbation or only the control expresses."""
    rng = np.random.default_rng(seed)
    rates = rng.lognormal(-0.5, 1.5, len(GENES))
    cells = rng.poisson(rates * rng.lognormal(0, 0.6, (len(LABELS), 1)) * rng.gamma(2, 0.5, (len(LABELS), len(GENES))))
    cells[7] = 0
    cells[:, 10] = 0
    cells[LABELS != "A", 11] = 0
    cells[LABELS != CONTROL, 12] = 0
    # Fewer than five counts per million, and more, of a gene that would otherwise dominate nothing.
    cells[:, 13] = np.arange(len(LABELS)) == 3
    cells[:, 14] = 40_000
    return cells.astype(np.float32)


def screen(seed, **options):
    order = np.random.default_rng(9).permutation(len(LABELS))
    matrix = scipy.sparse.csr_matrix(counts(seed)[order])
    return read_screen(screen_of(matrix, LABELS[order], GENES), input_type="counts", **options)


@pytest.fixture(scope="module")
def real():
    return screen(0)


@pytest.fixture(scope="module")
def pred():
    return screen(1)


def table_of(*sources, **options) -> HostTable:
    table = differential_expression(*sources, **options).table
    assert table is not None
    return table


def rank_test(cells, control):
    """scipy's test, with 1 where it says nothing because all values are equal."""
    # In float64, where the order of float32 values and their ties are the same.
    sides = cells.astype(np.float64), control.astype(np.float64)
    result: Any = scipy.stats.mannwhitneyu(*sides, axis=0, method="asymptotic")
    pvalue = result.pvalue
    return np.where(np.isnan(pvalue), 1.0, pvalue)


def assert_close(actual: Any, desired: Any, rtol: float = 1e-9, atol: float = 0.0) -> None:
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def test_the_table_of_cell_eval2_is_its_definition(real, pred):
    measured, guess = (x.astype(np.float64) for x in (counts(0), counts(1)))
    tables = {
        "real": (measured, table_of(real, CELL_EVAL2_DE)),
        "pred": (guess, table_of(pred, CELL_EVAL2_DE, control_of=real)),
    }
    scale = lambda x: x / np.maximum(x.sum(axis=1, keepdims=True) / 1e6, 1e-300)
    control = scale(measured)[LABELS == CONTROL]
    tested = control.mean(axis=0) > 5
    assert 0 < tested.sum() < len(GENES)
    for cells, table in tables.values():
        assert (table.tested == tested).all()
        for p, pert in enumerate(PERTS):
            mine = scale(cells)[LABELS == pert]
            assert_close(table.log2_fold_change[p], np.log2((mine.mean(axis=0) + 1e-9) / (control.mean(axis=0) + 1e-9)))
            pvalue = rank_test(np.log1p(mine), np.log1p(control))
            assert_close(np.exp(table.log_pvalue[p]), pvalue)
            adjusted = scipy.stats.false_discovery_control(pvalue[tested])
            assert_close(np.exp(table.log_padj[p, tested]), adjusted)


def test_the_table_of_cell_eval_is_its_definition(pred):
    table = table_of(pred, CELL_EVAL_DE)
    raw = counts(1)
    totals = raw.sum(axis=1)
    median = np.median(totals[totals > 0])
    logs = np.log1p(raw / np.maximum((totals / median), 1e-30).astype(np.float32)[:, None])
    assert logs.dtype == np.float32
    control = logs[LABELS == CONTROL]
    assert table.tested.all()
    for p, pert in enumerate(PERTS):
        mine = logs[LABELS == pert]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = (np.expm1(x.mean(axis=0, dtype=np.float64)) for x in (mine, control))
            change = np.log2(np.divide(*means))
        assert_close(table.log2_fold_change[p], np.where(np.isnan(change), 0, change), rtol=2e-7, atol=1e-7)
        pvalue = rank_test(mine, control)
        assert_close(np.exp(table.log_pvalue[p]), pvalue)
        rounded = scipy.stats.false_discovery_control(pvalue).astype(np.float32)
        np.testing.assert_array_equal(np.exp(table.log_padj[p]).astype(np.float32), rounded)
    a, b = PERTS.index("A"), PERTS.index("B")
    # Expressed on one side only, and on neither.
    assert table.log2_fold_change[a, 11] == np.inf
    assert table.log2_fold_change[a, 12] == -np.inf
    assert table.log2_fold_change[b, 10] == table.log2_fold_change[b, 11] == 0


def test_the_table_of_the_challenge_of_2025_pools_and_clips(pred):
    table, own = (table_of(pred, settings) for settings in (VCC2025_DE, CELL_EVAL_DE))
    a, b = PERTS.index("A"), PERTS.index("B")
    assert_close(table.log2_fold_change[a, 11], np.log2(20), rtol=1e-7)
    assert_close(table.log2_fold_change[a, 12], -np.log2(20), rtol=1e-7)
    assert table.log2_fold_change[b, 10] == 0
    np.testing.assert_array_equal(table.log_pvalue, own.log_pvalue)
    pooled = scipy.stats.false_discovery_control(np.exp(table.log_pvalue).ravel()).reshape(table.log_pvalue.shape)
    assert_close(np.exp(table.log_padj), pooled, rtol=1e-6)
    assert not np.allclose(table.log_padj, own.log_padj)


def arrays(table):
    return {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}


def assert_same(ours, theirs):
    for name, array in arrays(ours).items():
        np.testing.assert_array_equal(array, getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize("settings", [CELL_EVAL2_DE, CELL_EVAL_DE], ids=["v2", "cell_eval"])
def test_neither_blocks_nor_ranges_of_genes_change_anything(real, pred, settings, monkeypatch):
    whole = differential_expression(pred, settings, control_of=real, details=True)
    again = table_of(pred, settings, control_of=real, details=True, max_entries=50)
    sums = ("mean", "control_mean", "log2_fold_change")  # to rounding, and the rest to the last bit
    for name in sums:
        assert_close(getattr(again, name), getattr(whole.table, name), rtol=1e-6, atol=1e-6)
    assert_same(dataclasses.replace(again, **{name: getattr(whole.table, name) for name in sums}), whole.table)
    monkeypatch.setattr("vcjax.io._de._LEAST_VALUES", 300.0)
    widths = []

    def watched(cells, *args, **options):
        widths.append(cells.stored.shape[1])
        return rank_tests(cells, *args, **options)

    monkeypatch.setattr("vcjax.io._de.rank_tests", watched)
    ranges = differential_expression(pred, settings, control_of=real, details=True, max_memory=1)
    assert len(widths) > 2
    assert max(widths[-3:]) < len(GENES) / 2
    assert_same(ranges.table, whole.table)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize("kind", ["counts", "large", "lognorm"])
@pytest.mark.parametrize("settings", [CELL_EVAL2_DE, CELL_EVAL_DE], ids=["v2", "cell_eval"])
def test_cells_in_two_bytes_an_entry_have_the_bits_of_whole_ones(settings, kind, monkeypatch):
    def read(seed):
        cells = counts(seed)
        cells[3, 2] = 70_000 if kind == "large" else 5
        cells = np.log1p(cells / 100) if kind == "lognorm" else cells
        adata = screen_of(scipy.sparse.csr_matrix(cells), LABELS, GENES)
        return read_screen(adata, input_type="lognorm" if kind == "lognorm" else "counts")

    def tested():
        mine, other = read(0), read(1)
        own = differential_expression(mine, settings, details=True, keep_control=True, energy=True)
        options = {"control_of": mine, "control": own.control, "details": True, "energy": True}
        return own, differential_expression(other, settings, **options)

    plain = tested()
    monkeypatch.setattr("vcjax.io._pseudobulk._MANY", 0)
    for ours, theirs in zip(tested(), plain, strict=True):
        assert_same(ours.table, theirs.table)
        np.testing.assert_array_equal(ours.energy, theirs.energy)
        np.testing.assert_array_equal(ours.sums, theirs.sums)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize("settings", [CELL_EVAL2_DE, CELL_EVAL_DE], ids=["v2", "cell_eval"])
def test_cells_that_reading_has_kept_are_tested_as_those_that_are_read_again(settings, monkeypatch):
    monkeypatch.setattr("vcjax.io._pseudobulk._MANY", 0)
    line = np.where(np.arange(len(LABELS)) % 2 == 0, "x", "y")
    read = lambda seed, keep: read_screen(
        screen_of(scipy.sparse.csr_matrix(counts(seed)), LABELS, GENES, line=line), context_col="line", keep=keep
    )

    def tested(keep):
        mine, other = read(0, keep), read(1, keep)
        assert (mine.matrix.kept is not None) == keep
        options: dict[str, Any] = {"details": True, "energy": True, "context": "x"}
        own = differential_expression(mine, settings, keep_control=True, **options)
        for control in (own.control, None):
            yield differential_expression(other, settings, control_of=mine, control=control, **options)
        yield own

    for ours, theirs in zip(tested(True), tested(False), strict=True):
        assert_same(ours.table, theirs.table)
        np.testing.assert_array_equal(ours.energy, theirs.energy)
        np.testing.assert_array_equal(ours.sums, theirs.sums)
        np.testing.assert_array_equal(ours.sizes, theirs.sizes)


@pytest.mark.parametrize("settings", [CELL_EVAL2_DE, CELL_EVAL_DE], ids=["v2", "cell_eval"])
def test_loading_the_engine_needs_no_numba(settings, monkeypatch):
    load_engine(settings)
    monkeypatch.setattr("vcjax.de._ranksum.numba_installed", lambda: False)
    load_engine(settings)


def test_a_prediction_cannot_bring_genes_through_the_filter_of_expression(real):
    spiked = counts(1)
    spiked[LABELS != CONTROL, 13] += 40  # below the filter in control cells
    pred = read_screen(screen_of(spiked, LABELS, GENES), input_type="counts")
    table = table_of(pred, CELL_EVAL2_DE, control_of=real)
    assert not table.tested[:, 13].any()
    np.testing.assert_array_equal(table.tested, table_of(screen(1), CELL_EVAL2_DE, control_of=real).tested)


def test_the_control_cells_of_the_first_side_serve_the_second(real, pred):
    first = differential_expression(real, CELL_EVAL2_DE, keep_control=True)
    assert first.control is not None
    assert len(first.control.codes) == np.sum(LABELS == CONTROL)
    second = differential_expression(pred, CELL_EVAL2_DE, control_of=real, control=first.control)
    assert_same(second.table, table_of(pred, CELL_EVAL2_DE, control_of=real))


def test_a_context_is_a_screen_of_its_own():
    line = np.where(np.arange(len(LABELS)) % 2 == 0, "x", "y")
    both = read_screen(screen_of(counts(0), LABELS, GENES, line=line), input_type="counts", context_col="line")
    for context in ("x", "y"):
        table = table_of(both, CELL_EVAL_DE, context=context)
        mine = line == context
        alone = read_screen(screen_of(counts(0)[mine], LABELS[mine], GENES), input_type="counts")
        theirs = table_of(alone, CELL_EVAL_DE)
        rows = [both.perts.index(pert) for pert in alone.perts]
        assert_same(table.take(np.array(rows)), theirs)
        # A perturbation without cells here is tested nowhere.
        absent = [row for row in range(len(both.perts)) if row not in rows]
        assert not table.tested[absent].any()


def test_log_normalised_cells_are_taken_as_they_are(real):
    logs = np.log1p(counts(0) * 0.37)
    side = read_screen(screen_of(logs, LABELS, GENES), input_type="lognorm")
    table = table_of(side, CELL_EVAL2_DE)
    assert table.tested.all()  # counts per million are not known
    control, mine = (np.expm1(logs[LABELS == label].astype(np.float64)).mean(axis=0) for label in (CONTROL, "A"))
    assert_close(table.log2_fold_change[0], np.log2((mine + 1e-9) / (control + 1e-9)), rtol=1e-5, atol=1e-5)
    assert_close(np.exp(table.log_pvalue[0]), rank_test(logs[LABELS == "A"], logs[LABELS == CONTROL]))


def test_the_adjustment_holds_nan_out_and_is_that_of_the_array_module():
    from vcjax.de import benjamini_hochberg

    rng = np.random.default_rng(0)
    logs = np.log(rng.random((3, 50)) ** 3)
    logs[0, 4] = np.nan
    ours = np.stack([log_bh(row) for row in logs])
    with jax.enable_x64(True):
        np.testing.assert_allclose(ours, benjamini_hochberg(jnp.asarray(logs)), rtol=1e-12, atol=1e-14)
    known = ~np.isnan(logs[0])
    assert_close(np.exp(ours[0, known]), scipy.stats.false_discovery_control(np.exp(logs[0, known])))
    assert np.isnan(ours[0, 4])
    assert len(log_bh(np.empty(0))) == 0


@pytest.mark.parametrize(
    "options",
    [{"target_sum": 0.0}, {"pseudocount": -1.0}, {"clip": 0.5, "pseudocount": 0.0}, {"mean": "geometric"}],
)
def test_conventions_that_contradict_themselves(options):
    with pytest.raises(ValueError, match="`"):
        DESettings(**options)


def test_what_cannot_be_tested_is_refused(real):
    effects = read_screen(screen_of(counts(0) - 1, LABELS, GENES), input_type="delta")
    with refused("rank test", "--profile anndata"):
        differential_expression(effects, CELL_EVAL2_DE)
    bare = read_screen(screen_of(counts(0)[LABELS != CONTROL], LABELS[LABELS != CONTROL], GENES), require_control=False)
    with refused("no control cells", "--control-pert"):
        differential_expression(bare, CELL_EVAL_DE)
    assert table_of(bare, CELL_EVAL_DE, control_of=real).tested.all()


class TestSummary:
    def test_it_carries_the_table_to_the_device(self, pred, real):
        summary = summarise(pred, space="lognorm", de=CELL_EVAL2_DE, control_of=real)
        assert summary.de is not None
        assert_same(summary.de, table_of(pred, CELL_EVAL2_DE, control_of=real))
        table = summary.to_profiles().de
        assert isinstance(table, DETable)
        np.testing.assert_array_equal(table.log_padj, summary.de.log_padj)
        assert table.name_order is not None
        assert [GENES[i] for i in np.argsort(table.name_order)] == sorted(GENES)
        assert summarise(pred, space="lognorm").to_profiles().de is None

    def test_it_is_saved_whole_and_counts_in_the_fingerprint(self, pred, tmp_path):
        plain = summarise(pred, space="lognorm")
        summary = dataclasses.replace(summarise(pred, space="lognorm", de=CELL_EVAL_DE), energy=np.arange(4.0))
        assert summary.fingerprint != plain.fingerprint
        summary.save(tmp_path / "s.npz")
        again = load_summary(tmp_path / "s.npz")
        assert again.fingerprint == summary.fingerprint
        assert again.de is not None
        assert summary.de is not None
        assert_same(again.de, summary.de)
        np.testing.assert_array_equal(again.to_profiles().energy, np.arange(4.0))

    def test_a_file_of_the_first_version_still_loads(self, pred, tmp_path):
        plain = summarise(pred, space="lognorm")
        plain.save(tmp_path / "new.npz")
        with np.load(tmp_path / "new.npz") as file:
            content = dict(file)
        content["header"] = np.array(json.dumps({**json.loads(str(content["header"])), "version": 1}))
        np.savez(tmp_path / "old.npz", **content)
        old = load_summary(tmp_path / "old.npz")
        assert (old.fingerprint, old.de, old.energy) == (plain.fingerprint, None, None)

    def test_rows_without_a_prediction_are_without_a_difference(self, pred):
        table = table_of(pred, CELL_EVAL2_DE)
        gaps = np.array([False, True, False, False])
        silent = table.silent(gaps)
        assert (silent.log2_fold_change[1] == 0).all()
        assert (silent.log_padj[1] == 0).all()
        np.testing.assert_array_equal(silent.tested[1], table.tested[0])
        assert_same(silent.take(~gaps), dataclasses.replace(table.take(~gaps)))


@pytest.fixture(scope="module")
def summary(pred, real) -> Summary:
    pred, real, _ = match_screens(pred, real)
    table = table_of(pred, CELL_EVAL2_DE, control_of=real, details=True)
    return dataclasses.replace(summarise(pred, space="lognorm"), de=table)


class TestFiles:
    def test_what_is_written_is_read_back(self, summary, tmp_path):
        write_de_table(summary, tmp_path / "de.csv", pseudocount=1e-9)
        header, first, *_ = (tmp_path / "de.csv").read_text().splitlines()
        assert header == (
            "target,feature,target_mean,ref_mean,target_membership,ref_membership,log2_fold_change,percent_change,"
            "p_value,statistic,fdr"
        )
        fields = dict(zip(header.split(","), first.split(","), strict=True))
        assert (fields["target"], fields["target_membership"], fields["ref_membership"]) == ("A", "25", "60")
        change = np.log2((float(fields["target_mean"]) + 1e-9) / (float(fields["ref_mean"]) + 1e-9))
        assert_close(float(fields["log2_fold_change"]), change)
        assert_close(float(fields["percent_change"]), 2**change - 1, atol=1e-6)
        again = read_de_table(tmp_path / "de.csv", PERTS, GENES, CELL_EVAL2_DE)
        table = summary.de
        np.testing.assert_array_equal(again.tested, table.tested)
        for name in ("log2_fold_change", "log_pvalue", "log_padj"):
            ours, theirs = (getattr(side, name)[table.tested] for side in (again, table))
            assert_close(ours, theirs, rtol=1e-12, atol=1e-13)

    def test_a_table_without_details_has_fewer_columns(self, summary, tmp_path):
        bare = HostTable(
            *(getattr(summary.de, name) for name in ("log2_fold_change", "log_pvalue", "log_padj", "tested"))
        )
        write_de_table(dataclasses.replace(summary, de=bare), tmp_path / "de.csv")
        assert (tmp_path / "de.csv").read_text().startswith("target,feature,log2_fold_change,p_value,fdr\n")
        with pytest.raises(ValueError, match="no table"):
            write_de_table(dataclasses.replace(summary, de=None), tmp_path / "none.csv")

    def test_a_table_that_cannot_be_written_leaves_the_old_one(self, summary, tmp_path):
        path = tmp_path / "de.csv"
        path.write_text("before\n")
        short = dataclasses.replace(summary, genes=summary.genes[:3])
        with pytest.raises(IndexError):
            write_de_table(short, path)
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("de.csv", "before\n")]

    def read(self, tmp_path, *rows, header="target,feature,log2_fold_change,p_value,fdr", **options):
        path = tmp_path / "given.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return read_de_table(path, ("A", "B"), ("G1", "NA"), DESettings(), control="ctrl", **options)

    GOOD = ("A,G1,1.5,0.25,0.5", "B,NA,-inf,0,0", "B,G1,NaN,0.01,0.02")

    def test_numbers_are_taken_as_they_are(self, tmp_path):
        table = self.read(tmp_path, *self.GOOD)
        np.testing.assert_array_equal(table.tested, [[True, False], [True, True]])
        assert table.log2_fold_change[1, 1] == -np.inf
        assert table.log_padj[1, 1] == -np.inf
        assert table.log_padj[1, 0] == 0  # no fold change, not significant
        assert_close(table.log_padj[0, 0], np.log(0.5))
        other = self.read(tmp_path, *self.GOOD, header="target,feature,log2_fold_change,p_value,p_adj")
        assert_same(other, table)

    @pytest.mark.parametrize(
        ("rows", "texts"),
        [
            ((*GOOD, "A,G1,1,0.5,0.5"), ("given twice", "A G1", "-dp")),
            (GOOD[:1], ("no row of 1 of 2", "B")),
            ((*GOOD, "C,G1,1,0.5,0.5"), ("not scored", "--extra ignore")),
            ((*GOOD, "A,G9,1,0.5,0.5"), ("not measured", "--genes intersect")),
            ((*GOOD, "ctrl,G1,1,0.5,0.5"), ("control is a target",)),
            ((*GOOD, ",G1,1,0.5,0.5"), ("no target", "row 5")),
            ((*GOOD, "A,NA,1,1.5,0.5"), ("p-values", "'1.5'")),
            ((*GOOD, "A,NA,much,0.5,0.5"), ("numbers", "'much'")),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tmp_path, rows, texts):
        with refused(*texts):
            self.read(tmp_path, *rows)

    def test_rows_of_others_are_left_out_on_request(self, tmp_path):
        rows = (*self.GOOD, "C,G1,1,0.5,0.5", "A,G9,1,0.5,0.5")
        table = self.read(tmp_path, *rows, ignore_perts=True, ignore_genes=True)
        assert_same(table, self.read(tmp_path, *self.GOOD))
        assert not self.read(tmp_path, self.GOOD[0], optional=("B",)).tested[1].any()

    def test_a_file_that_is_no_table_is_refused(self, tmp_path):
        with refused("no column 'fdr'", "pdex"):
            self.read(tmp_path, header="target,feature,log2_fold_change,p_value,padj")
        with pytest.raises(Refusal, match="no file"):
            read_de_table(tmp_path / "givn.csv", PERTS, GENES, DESettings())
