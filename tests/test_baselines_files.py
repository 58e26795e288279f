"""Baselines from files to files: what is held out, what the cells are, and which baseline is the one to beat."""

import dataclasses
import json
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from screens import dense, refused

from vcjax.baselines import Additive, BASELINES, gene_set_features, MeanResponse, PertData
from vcjax.cli import main
from vcjax.evaluation import baseline_table, evaluate, fit_baseline, Reading
from vcjax.evaluation._baseline_data import take_rows
from vcjax.evaluation._baseline_folds import as_profiles, HeldOut
from vcjax.evaluation._baseline_results import BaselineRow, BaselineTable
from vcjax.evaluation._emitted import scattered
from vcjax.io import (
    DESettings,
    differential_expression,
    log_normalised,
    read_screen,
    resolve_targets,
    simulate_screen,
    summarise,
)
from vcjax.metrics import CATALOGUE


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_compilation_cache")]


@pytest.fixture(scope="module")
def whole():
    return simulate_screen(
        perts=10, doubles=4, genes=60, cells_per_pert=16, control_cells=50, programs=2, depth=1500.0, seed=3
    ).adata


@pytest.fixture(scope="module")
def folder(whole, tmp_path_factory):
    """A training screen of all singles and a double, a test screen of the other doubles and one single."""
    folder = tmp_path_factory.mktemp("baselines")
    labels = whole.obs["target_gene"].astype(str)
    names = sorted(set(labels) - {"non-targeting"})
    test = [name for name in names if "+" in name][1:] + [names[0]]
    control = labels == "non-targeting"
    first = np.arange(len(labels)) % 2 == 0
    for name, kept in (
        ("test", labels.isin(test) | (control & first)),
        ("train", ~labels.isin(test[:-1]) & ~(control & first)),
    ):
        rows = np.flatnonzero(kept.to_numpy())
        cells = scipy.sparse.csr_matrix(whole.X)[rows]
        ad.AnnData(cells, obs=pd.DataFrame(whole.obs).iloc[rows], var=pd.DataFrame(whole.var)).write_h5ad(
            folder / f"{name}.h5ad"
        )
    return folder


def effects(path, perts):
    summary = summarise(read_screen(path), space="bulk_lognorm", noise=False)
    rows = [summary.perts.index(pert) for pert in perts]
    return summary, summary.mean[rows] - summary.control


def test_what_is_predicted_is_left_out_of_the_fit(folder):
    found = fit_baseline(folder / "train.h5ad", like=folder / "test.h5ad")
    test = read_screen(folder / "test.h5ad")
    assert set(found.screen.perts) == set(test.perts)
    single = next(pert for pert in test.perts if "+" not in pert)
    train = read_screen(folder / "train.h5ad")
    rest = [pert for pert in train.perts if pert != single]
    expected = effects(folder / "train.h5ad", rest)[1].mean(axis=0)
    np.testing.assert_allclose(found.prediction.effect, np.tile(expected, (len(test.perts), 1)), atol=1e-10)
    assert any(single in note and "left out" in note for note in found.notes)
    assert found.prediction.fairness == "inductive"
    np.testing.assert_array_equal(found.screen.cell_counts(), test.cell_counts())


def test_a_profile_is_written_as_one_cell_that_scores_like_the_effects(folder, tmp_path):
    found = fit_baseline(folder / "train.h5ad", baseline="additive", like=folder / "test.h5ad", emit="profile")
    found.write(tmp_path / "pred.h5ad")
    perts = found.screen.perts
    summary, _ = effects(tmp_path / "pred.h5ad", perts)
    order = [found.prediction.perts.index(pert) for pert in perts]
    # Effects on logs do not keep the total: what is read is normalised again.
    shares = np.expm1(np.maximum(np.asarray(found.prediction.profile)[order], 0))
    expected = np.log1p(5e4 * shares / shares.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(summary.mean[[summary.perts.index(pert) for pert in perts]], expected, atol=1e-3)
    report = evaluate(tmp_path / "pred.h5ad", folder / "test.h5ad", preset="v2", metrics=["expr_mse"])
    truth, _ = effects(folder / "test.h5ad", perts)
    values = [row.value for row in report.aggregates if row.metric == "expr_mse"]
    real = truth.mean[[truth.perts.index(pert) for pert in perts]]
    np.testing.assert_allclose(values, np.mean((expected - real) ** 2), rtol=1e-2)


def test_tiled_cells_sum_to_the_profile_within_a_count(folder):
    found = fit_baseline(folder / "train.h5ad", predict=("new",), emit="tile", cells=37)
    cells = dense(found.screen.matrix)
    mine = found.screen.codes == 0
    assert mine.sum() == 37
    np.testing.assert_array_equal(cells, np.rint(cells))
    counts = np.expm1(np.asarray(found.prediction.profile[0]))
    depth = np.median(cells[~mine].sum(axis=1))
    expected = 37 * depth * counts / counts.sum()
    assert np.abs(cells[mine].sum(axis=0) - expected).max() <= 1
    assert np.ptp(cells[mine], axis=0).max() <= 1


def test_dispersed_cells_are_control_cells_times_the_ratio(folder):
    found = fit_baseline(folder / "train.h5ad", predict=("new",), cells=4000, seed=2)
    screen = found.screen
    cells, controls = dense(screen.matrix)[screen.codes == 0], dense(screen.matrix)[screen.codes == -1]
    np.testing.assert_array_equal(cells, np.rint(cells))
    profile, control = np.expm1(np.asarray(found.prediction.profile[0])), np.expm1(np.asarray(found.prediction.control))
    expected = controls.mean(axis=0) * np.where(control > 0, profile / np.where(control > 0, control, 1), 0)
    error = np.abs(cells.mean(axis=0) - expected) / (cells.std(axis=0) / np.sqrt(len(cells)) + 1e-9)
    assert np.quantile(error, 0.9) < 3
    assert np.all((cells.std(axis=0) > 0) | (controls.std(axis=0) == 0) | (expected < 0.01))
    small = np.vstack([block.toarray() for _, block in screen.matrix.chunks(701)])
    np.testing.assert_array_equal(small, dense(screen.matrix))
    again = fit_baseline(folder / "train.h5ad", predict=("new",), cells=4000, seed=2).screen
    np.testing.assert_array_equal(dense(again.matrix), dense(screen.matrix))


def test_identical_cells_make_everything_significant(folder):
    train, calls = folder / "train.h5ad", {}
    for emit in ("tile", "dispersed"):
        screen = fit_baseline(train, predict=("new",), emit=emit, cells=400).screen
        table = differential_expression(screen, DESettings()).table
        assert table is not None
        calls[emit] = int(np.sum(np.asarray(table.log_padj)[0] < np.log(0.05)))
    assert calls["tile"] > 1.2 * calls["dispersed"]


def test_log_normalised_cells_stay_log_normalised(folder):
    source = log_normalised(read_screen(folder / "train.h5ad"))
    for emit in ("dispersed", "tile", "profile"):
        found = fit_baseline(source, predict=("new",), emit=emit, cells=500)
        cells = dense(found.screen.matrix)[found.screen.codes == 0]
        assert found.screen.scale == "lognorm"
        if emit != "dispersed":
            np.testing.assert_allclose(cells, np.tile(found.prediction.profile[0], (len(cells), 1)), rtol=1e-6)
        else:
            control = np.asarray(found.prediction.control)
            moved = cells.mean(axis=0) - dense(found.screen.matrix)[found.screen.codes == -1].mean(axis=0)
            effect = np.asarray(found.prediction.effect[0])
            assert np.corrcoef(moved[control > 0.2], effect[control > 0.2])[0, 1] > 0.5


def test_uniform_numbers_do_not_depend_on_blocks():
    u = scattered(np.arange(100_000, dtype=np.uint64), 3)
    assert u.min() >= 0
    assert u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / 1e5, 0.1, atol=0.005)
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.02
    np.testing.assert_array_equal(scattered(np.array([7, 99], np.uint64), 3), u[[7, 99]])
    assert not np.array_equal(scattered(np.arange(10, dtype=np.uint64), 4), u[:10])


def test_provenance_is_written_and_nothing_is_overwritten(folder, tmp_path):
    path = tmp_path / "pred.h5ad"
    found = fit_baseline(
        folder / "train.h5ad", baseline="additive", options={"space": "counts"}, like=folder / "test.h5ad"
    )
    found.write(path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "xla"] == ["pred.h5ad"]
    adata = ad.read_h5ad(path)
    about = adata.uns["vcjax_baseline"]
    assert (about["baseline"], about["fairness"], about["emit"]) == ("additive", "inductive", "dispersed")
    assert json.loads(about["settings"]) == {"space": "counts", "pseudocount": 0.0}
    assert json.loads(about["versions"])["vcjax"]
    covered = dict(zip(about["perts"], about["covered"], strict=True))
    assert covered == dict(found.covered)
    assert not covered[next(pert for pert in covered if "+" not in pert)]
    cells = pd.DataFrame(adata.obs)
    assert all(
        covered.get(label, True) == value for label, value in zip(cells["target_gene"], cells["covered"], strict=True)
    )
    with refused("exists", "force"):
        found.write(path)
    found.write(path, force=True)


def test_held_out_labels_must_be_there_and_something_must_be_left(folder):
    train = read_screen(folder / "train.h5ad")
    found = fit_baseline(train, held_out=train.perts[:2], baseline=MeanResponse())
    assert found.screen.perts == train.perts[:2]
    with refused("nobody", "--perts"):
        fit_baseline(train, held_out=("nobody",))
    with refused("nothing to predict"):
        fit_baseline(train)
    with refused("left to fit"):
        fit_baseline(train, held_out=train.perts[:-1])
    with refused("'additive'", "--list"):
        fit_baseline(train, predict=("x",), baseline="additve")
    with refused("scale", "--list"):
        fit_baseline(train, predict=("x",), options={"slope": 1})
    with refused("external"):
        fit_baseline(train, predict=("x",), baseline="cross_context_mean")


@pytest.mark.parametrize("baseline", ["sparse_mean", "metadata_neighbour", "crispr_mean", "gene_permuted:additive"])
def test_what_some_baselines_need_comes_with_the_screen(folder, baseline):
    found = fit_baseline(folder / "train.h5ad", baseline=baseline, like=folder / "test.h5ad", emit="profile")
    assert np.isfinite(np.asarray(found.prediction.effect)).all()
    if baseline == "metadata_neighbour":
        assert all(found.covered.values())
        assert found.prediction.fairness == "transductive"


def test_contexts_of_a_screen_and_of_others(whole, tmp_path):
    adata = whole.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "one", "two")
    reading, path = Reading(context_col="line"), tmp_path / "lines.h5ad"
    adata.write_h5ad(path)
    perts = read_screen(path).perts[:3]
    with refused("context"):
        fit_baseline(path, held_out=perts, reading=reading)
    options = {"baseline": "cross_context_mean", "external": [path], "reading": reading, "context": "one"}
    found = fit_baseline(path, held_out=perts, **options)
    screen = read_screen(path, context_col="line")
    total = summarise(screen, space="bulk_lognorm", context="two", noise=False)
    expected = total.mean[[total.perts.index(pert) for pert in perts]] - total.control
    np.testing.assert_allclose(found.prediction.effect, expected, atol=1e-10)
    found.write(tmp_path / "pred.h5ad")
    assert set(ad.read_h5ad(tmp_path / "pred.h5ad").obs["line"]) == {"one"}


FEW = ("control", "generic_response", "additive", "wrong_target", "metadata_neighbour", "oracle_scaled")


def gene_sets(screen):
    """Each perturbation in a set with the next, as a file of gene sets and as vectors."""
    names = [pert for pert in screen.perts if "+" not in pert]
    sets = {f"set {i}": (name, names[(i + 1) % len(names)], "another") for i, name in enumerate(names)}
    lines = ["\t".join((name, "", *genes)) for name, genes in sets.items()]
    return "\n".join(lines), gene_set_features(sets, names)


def test_features_come_from_files(folder, tmp_path):
    train = read_screen(folder / "train.h5ad")
    text, table = gene_sets(train)
    (tmp_path / "sets.gmt").write_text(text)
    rows = [",".join((name, *map(repr, row))) for name, row in zip(table.names, table.values.tolist(), strict=True)]
    (tmp_path / "vectors.csv").write_text("\n".join(rows))
    perts = table.names[:3]
    for name in ("embedding_ridge", "knn"):
        effects = [
            fit_baseline(train, baseline=name, held_out=perts, features=source, emit="profile").prediction.effect
            for source in (tmp_path / "sets.gmt", tmp_path / "vectors.csv", table)
        ]
        np.testing.assert_allclose(effects[0], effects[2], atol=1e-10)
        np.testing.assert_allclose(effects[1], effects[2], atol=1e-10)
        assert np.abs(np.diff(np.asarray(effects[0]), axis=0)).max() > 1e-6
    with refused("features"):
        fit_baseline(train, baseline="embedding_ridge", held_out=perts)
    (tmp_path / "others.gmt").write_text("set\t\tX\tY\n")
    with refused("None of", "named as the labels"):
        fit_baseline(train, baseline="embedding_ridge", held_out=perts, features=tmp_path / "others.gmt")
    found = baseline_table(
        train,
        baselines=["embedding_ridge", "reduced_rank", "permuted_features", "knn"],
        features=tmp_path / "sets.gmt",
        metrics=["expr_mse"],
        folds=3,
        duplicates=False,
        samples=50,
    )
    assert found.skipped == {}
    values = {row.baseline: row.value for row in found.rows}
    assert len(set(values.values())) == 5
    assert found.row("permuted_features", "expr_mse").role == "null"


@pytest.fixture(scope="module")
def table(whole):
    metrics = ("expr_mse", "pds_l1", "delta_pearson", "spread_ratio", "expr_mse_unbiased_capped_norm")
    few = [*FEW, "best_linear_span", "sparse_mean"]
    return baseline_table(whole, baselines=few, metrics=metrics, folds=4, samples=200, seed=1, progress=None)


@pytest.fixture(scope="module")
def measured_data(whole):
    screen = read_screen(whole)
    summary = summarise(screen, space="bulk_lognorm", noise=True, targets=resolve_targets(screen.perts, screen.genes))
    return PertData.of(summary.to_profiles(), summary.perts, summary.genes), summary.to_profiles()


def folds_of(data):
    order = np.random.default_rng(1).permutation(len(data.perts))
    return [[data.perts[i] for i in np.sort(part)] for part in np.array_split(order, 4)]


def additive_covers(data, part, pert):
    return all(name in data.perts and name not in part for name in pert.split("+"))


class TestTable:
    def test_held_out_values_are_those_of_refits(self, measured_data, table):
        data, _ = measured_data
        errors = []
        for part in folds_of(data):
            rest = data.take([pert for pert in data.perts if pert not in part])
            pred = np.asarray(Additive().fit(rest).predict(part).effect)
            errors += list(np.mean((pred - np.asarray(data.take(part).effects)) ** 2, axis=1))
        row = table.row("additive", "expr_mse")
        np.testing.assert_allclose(row.value, np.mean(errors), rtol=1e-9)
        assert row.low < row.value < row.high
        assert 0 < row.covered < len(table.perts)

    @pytest.mark.parametrize("metric", ["spread_ratio", "expr_mse_unbiased_capped_norm"])
    def test_the_panel_is_a_fold_but_of_sums_it_is_all(self, measured_data, table, metric):
        data, profiles = measured_data
        function = lambda pred, real: float(CATALOGUE[metric](as_profiles(pred, real), real))

        def overall(name, left_out=None, only=None):
            values, sizes, effects, all_kept = [], [], [], []
            for part in folds_of(data):
                rest = data.take([pert for pert in data.perts if pert not in part])
                found = {"additive": Additive(), "mean": MeanResponse()}[name].fit(rest).predict(part)
                kept = [i for i, pert in enumerate(part) if pert != left_out and (only is None or pert in only)]
                effects += list(np.asarray(found.effect)[kept])
                all_kept += [part[i] for i in kept]
                if kept:
                    real = take_rows(profiles, data.rows([part[i] for i in kept]))
                    values.append(function(np.asarray(found.effect)[kept], real))
                    sizes.append(len(kept))
            if metric != "spread_ratio":
                return function(np.array(effects), take_rows(profiles, data.rows(all_kept)))
            known = np.isfinite(values)
            return np.average(np.array(values)[known], weights=np.array(sizes)[known])

        row, n = table.row("additive", metric), len(data.perts)
        np.testing.assert_allclose(row.value, overall("additive"), rtol=1e-9)
        others = np.array([overall("additive", left_out=pert) for pert in data.perts])
        error = np.sqrt((n - 1) / n * np.sum((others - others.mean()) ** 2))
        np.testing.assert_allclose([row.low, row.high], row.value + 1.959964 * error * np.array([-1, 1]), rtol=1e-6)
        assert row.used == n
        covered = [pert for part in folds_of(data) for pert in part if additive_covers(data, part, pert)]
        assert len(covered) == row.covered
        np.testing.assert_allclose(row.covered_value, overall("additive", only=covered), rtol=1e-8)
        np.testing.assert_allclose(row.mean_on_covered, overall("mean", only=covered), rtol=1e-8, atol=1e-12)
        if metric == "spread_ratio":  # one answer for a fold does not vary, whatever the other folds are answered
            assert abs(table.row("mean", metric).value) < 1e-12
            assert np.isnan(row.gain)
        else:
            np.testing.assert_allclose(row.gain, overall("mean") - row.value, rtol=1e-8)
            assert row.gain_low < row.gain < row.gain_high
        assert table.row("technical_duplicate", metric, "half").covered == n

    def test_covered_ones_are_scored_beside_the_mean(self, table):
        row, mean = table.row("additive", "expr_mse"), table.row("mean", "expr_mse")
        assert mean.covered_value == mean.mean_on_covered
        assert abs(mean.covered_value - mean.value) < 1e-12
        assert mean.gain == 0
        np.testing.assert_allclose(row.gain, mean.value - row.value, rtol=1e-9)
        # Where it is not covered it predicts the mean response: all of the difference is on covered ones.
        share = row.covered / len(table.perts)
        np.testing.assert_allclose(row.gain, share * (row.mean_on_covered - row.covered_value), rtol=1e-6)

    def test_only_competitors_are_ranked(self, table):
        best = table.best()
        assert set(best) == {"expr_mse", "pds_l1", "delta_pearson", "expr_mse_unbiased_capped_norm"}
        for metric, name in best.items():
            assert table.row(name, metric).role == "competitor"
        roles = {row.baseline: row.role for row in table.rows if row.against == "all"}
        assert roles["best_linear_span"] == roles["oracle_scaled"] == "oracle"
        assert roles["wrong_target"] == roles["metadata_neighbour"] == roles["sparse_mean"] == "null"
        assert table.row("mean", "expr_mse", "half").fairness == "inductive"

    def test_a_perfect_bound_and_controls_are_in_order(self, table):
        value = lambda name: table.row(name, "expr_mse").value
        assert value("best_linear_span") < min(value("mean"), value("additive"), value("generic_response"))
        assert value("mean") < value("control")
        # One answer for all of a fold tells none of its perturbations apart.
        for name in ("control", "mean", "generic_response"):
            assert abs(table.row(name, "pds_l1").value - 0.5) < 1e-12
        duplicate = table.row("technical_duplicate", "pds_l1", "half")
        assert duplicate.value > 0.6
        assert duplicate.role == "oracle"
        half = lambda name: table.row(name, "expr_mse", "half").value
        assert half("empirical_bayes_duplicate") < half("mean")
        # A zero effect is correlated with nothing.
        assert table.row("control", "delta_pearson").status == "constant_prediction"

    def test_all_that_the_data_allow_is_fitted_and_the_rest_says_why(self, whole, monkeypatch):
        asked = []

        def nothing(setup, one):
            asked.append(one)
            shape = (len(setup.scored), len(setup.data.genes))
            return HeldOut(np.zeros(shape), np.full(shape[0], one != "crispr_mean"), "inductive", one)

        monkeypatch.setattr("vcjax.evaluation._baseline_table.held_out", nothing)
        found = baseline_table(whole, metrics=["expr_mse"], external=[whole.copy()], duplicates=False, samples=50)
        told = {name: why for name, why in found.skipped.items() if name in ("permuted_labels", "embedding_ridge")}
        assert "baseline" in told["permuted_labels"]
        assert "features" in told["embedding_ridge"]
        assert "covers none" in found.skipped["crispr_mean"]
        assert {"knn", "kernel_ridge", "transfer_nnls", "latent_additive", "best_linear_span"} <= set(asked)
        assert {*asked} | {*found.skipped} == {*BASELINES}
        assert found.best() == {"expr_mse": "mean"}  # all are as good
        assert f"Not fitted ({told['embedding_ridge']}): embedding_ridge, reduced_rank" in found.summary()
        alone = baseline_table(whole, metrics=["expr_mse"], duplicates=False, samples=50)
        for name in ("cross_context_mean", "kernel_ridge"):
            assert "--external" in alone.skipped[name]
        assert "features" in alone.skipped["knn"]

    def test_it_is_told_as_text_and_as_plain_values(self, table):
        text = table.summary()
        best = table.row(table.best()["expr_mse"], "expr_mse")
        assert f"expr_mse: to beat is {best.baseline}, {best.value:.4f}" in text
        assert "technical_duplicate (half)" in text
        assert "e-17" not in text
        frame = table.to_pandas()
        assert set(frame["metric"]) == set(table.metrics)
        json.dumps(table.to_dict(), allow_nan=False)

    def test_luck_and_ties_are_told(self):
        plain: Any = {"fairness": "inductive", "metric": "pds_l1", "higher_is_better": True, "used": 3, "covered": 3}
        bounds: Any = {"low": 0.3, "high": 0.8, "gain_low": -0.1, "gain_high": 0.3}
        rows = (
            BaselineRow("mean", "competitor", value=0.5, gain=0.0, **plain, **bounds),
            BaselineRow("additive", "competitor", value=0.6, gain=0.1, best=True, **plain, **bounds),
            BaselineRow("matching_mean", "competitor", value=0.6, gain=0.1, **plain, **bounds),
            BaselineRow("wrong_target", "null", value=0.7, gain=0.2, **plain, **bounds),
        )
        made = BaselineTable(rows, {}, "here", ("a", "b", "c", "d"), 2, "lognorm", 0.95, 10, 0, ("look",))
        text = made.summary()
        assert "to beat is additive, 0.6000 (as good: matching_mean)" in text
        assert "by 0.1000 [-0.1000 to 0.3000], which may be chance. Nulls that know nothing score better" in text
        assert "pds_l1 has a value for 3 of the 4 perturbations" in text
        assert "Note: look" in text
        sure = dataclasses.replace(rows[1], gain_low=0.05)
        made = dataclasses.replace(made, rows=(rows[0], sure), folds="loo")
        assert "[0.0500 to 0.3000]." in made.summary()
        assert "below one half" in made.summary()

    def test_leave_one_out_and_doubles_only(self, whole):
        doubles = [label for label in read_screen(whole).perts if "+" in label]
        found = baseline_table(
            whole,
            baselines=["additive", "additive_ridge", "matching_mean", Additive(space="counts")],
            metrics=("expr_mse",),
            folds="loo",
            held_out=doubles,
            duplicates=False,
            samples=50,
        )
        assert found.perts == tuple(doubles)
        assert {row.covered for row in found.rows} == {4}
        named = {"mean", "additive", "additive_ridge", "matching_mean", "additive (2)"}
        assert {row.baseline for row in found.rows} == named
        assert found.row("additive", "expr_mse").value != found.row("additive (2)", "expr_mse").value
        folds = baseline_table(
            whole,
            baselines=["matching_mean"],
            metrics=("expr_mse",),
            folds=4,
            held_out=doubles,
            duplicates=False,
            samples=50,
        )
        one, other = (x.row("matching_mean", "expr_mse").value for x in (found, folds))
        np.testing.assert_allclose(one, other, rtol=1e-9)

    def test_what_cannot_be_scored_is_refused(self, whole):
        for metric in ("de_wilcoxon_overlap", "expr_mse_degs", "weighted_mse"):
            with refused("vcjax run"):
                baseline_table(whole, metrics=(metric,))
        with refused("'expr_mse'"):
            baseline_table(whole, metrics=("expr_msee",))
        with refused("'mean'"):
            baseline_table(whole, baselines=["meen"], metrics=("expr_mse",))
        with refused("nobody"):
            baseline_table(whole, held_out=["nobody"])


class TestCommands:
    def test_fit_writes_what_run_evaluates(self, folder, tmp_path, capsys):
        out = tmp_path / "pred.h5ad"
        train, test = str(folder / "train.h5ad"), str(folder / "test.h5ad")
        command = ["baseline", "fit", train, "--baseline", "additive", "--like", test, "-o", str(out)]
        assert main([*command, "--option", "space=counts"]) == 0
        told = capsys.readouterr().out
        assert "3 of 4 are covered" in told
        assert str(out) in told
        run = ["run", "-ap", str(out), "-ar", test, "-o", str(tmp_path / "run"), "--preset", "v2"]
        assert main([*run, "--metrics", "expr_mse,pds_l1", "--quiet"]) == 0
        assert main(command) == 2
        assert "--force" in capsys.readouterr().err
        assert main([*command[:-1], train, "--force"]) == 2
        assert "over an input" in capsys.readouterr().err
        assert main([*command, "--force", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["baseline"] == "additive"

    def test_features_are_a_file(self, folder, tmp_path, capsys):
        text, table = gene_sets(read_screen(folder / "train.h5ad"))
        (tmp_path / "sets.gmt").write_text(text)
        command = ["baseline", "fit", str(folder / "train.h5ad"), "--baseline", "embedding_ridge", "--emit", "profile"]
        command += ["--held-out", table.names[0], "-o", str(tmp_path / "pred.h5ad"), "--features"]
        assert main([*command, str(tmp_path / "sets.gmt")]) == 0
        assert "1 of 1 are covered" in capsys.readouterr().out
        assert main([*command, str(tmp_path / "no.gmt"), "--force"]) == 2

    def test_labels_are_names_or_lines(self, folder, tmp_path):
        names = tmp_path / "labels.txt"
        names.write_text("new one\nother\n\n")
        out = tmp_path / "pred.h5ad"
        command = ["baseline", "fit", str(folder / "train.h5ad"), "-o", str(out), "--emit", "profile", "--quiet"]
        assert main([*command, "--perts", str(names)]) == 0
        assert set(ad.read_h5ad(out).obs["target_gene"]) == {"new one", "other", "non-targeting"}
        assert main([*command, "--perts", "a,b", "--force"]) == 0
        assert set(ad.read_h5ad(out).obs["target_gene"]) == {"a", "b", "non-targeting"}

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ([], "nothing to predict"),
            (["--perts", "x", "--baseline", "meen"], "'mean'"),
            (["--perts", "x", "--option", "scale"], "key=value"),
            (["--held-out", "nobody"], "nobody"),
        ],
    )
    def test_mistakes_are_refused_and_nothing_is_written(self, folder, tmp_path, capsys, flags, words):
        out = tmp_path / "pred.h5ad"
        assert main(["baseline", "fit", str(folder / "train.h5ad"), "-o", str(out), *flags]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()

    def test_the_list(self, capsys):
        assert main(["baseline", "--list"]) == 0
        printed = capsys.readouterr().out
        for word in ("additive", "cell-eval2", "oracle", "combinations"):
            assert word in printed
        assert main(["baseline", "list", "--json"]) == 0
        assert any(row["name"] == "matching_mean" for row in json.loads(capsys.readouterr().out))

    def test_the_table(self, folder, tmp_path, capsys):
        out = tmp_path / "table.csv"
        command = ["baseline", "table", str(folder / "train.h5ad"), "--metrics", "expr_mse", "--folds", "3"]
        command += ["--baselines", "crispr_mean,control", "--samples", "50", "--no-duplicates"]
        assert main([*command, "-o", str(out)]) == 0
        assert "crispr_mean" in capsys.readouterr().out
        assert set(pd.read_csv(out)["baseline"]) == {"mean", "crispr_mean", "control"}
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["folds"] == 3
        assert main([*command, "-o", str(out)]) == 2
        assert main([*command, "--folds", "many"]) == 2
        assert "loo" in capsys.readouterr().err
