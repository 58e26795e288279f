"""`evaluate` from files to a report: sources, presets, policies, caches, compilation."""

import dataclasses
import functools
import importlib.util
from typing import Any

import anndata as ad
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import vcjax
from vcjax.evaluation import _run, evaluate as evaluate_any, prepare, PRESETS, Reading, select
from vcjax.evaluation._profiles import keeps_cells
from vcjax.evaluation._tables import run_tests
from vcjax.io import differential_expression, load_summary, read_screen, Refusal, simulate_screen, summarise
from vcjax.io._de_cells import gather
from vcjax.io._pseudobulk import lognorm_moments
from vcjax.metrics import Metric


SIZES: dict[str, Any] = {
    "perts": 6,
    "doubles": 1,
    "genes": 60,
    "cells_per_pert": 12,
    "control_cells": 30,
    "programs": 2,
}
PANEL_FREE = ("pds_l1", "pds_cosine", "expr_mse", "delta_pearson")


evaluate_all = functools.partial(evaluate_any, preset="v2")


def evaluate(*sides, profile="anndata", **options):
    """Without differential expression, unless it is asked for."""
    return evaluate_all(*sides, profile=profile, **options)


def labels(adata):
    return adata.obs["target_gene"].astype(str).to_numpy()


def cells(adata, keep: Any = slice(None), genes: Any = slice(None), **columns):
    """Some cells and genes as an AnnData of its own, with these columns of `obs` instead."""
    obs, var = adata.obs.iloc[keep].copy(), adata.var.iloc[genes].copy()
    for name, values in columns.items():
        obs[name] = np.asarray(values, object)
    return ad.AnnData(sp.csr_matrix(adata.X)[keep][:, genes], obs=obs, var=var)


def without(adata, label):
    return cells(adata, np.flatnonzero(labels(adata) != label))


@pytest.fixture(scope="module")
def real():
    return simulate_screen(**SIZES, seed=1).adata


@pytest.fixture(scope="module")
def pred():
    # Another draw of the same screen: the seed of the cells differs, labels and genes do not.
    screen = simulate_screen(**SIZES, seed=1)
    adata = cells(screen.adata)
    rates = sp.csr_matrix(adata.X).toarray() * 0.8 + 0.1
    adata.X = sp.csr_matrix(np.random.default_rng(5).poisson(rates).astype(np.float32))
    return adata


@pytest.fixture(scope="module")
def paths(pred, real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    for name, adata in (("pred", pred), ("real", real)):
        adata.write_h5ad(folder / f"{name}.h5ad")
    return folder / "pred.h5ad", folder / "real.h5ad"


@pytest.fixture(scope="module")
def report(pred, real):
    return evaluate(pred, real)


def test_a_perfect_prediction_gets_the_perfect_values(real):
    report = evaluate(real, real)
    for name, metric in report.metrics.items():
        if metric.perfect is not None and metric.higher_is_better is not None and "capped_norm" not in name:
            np.testing.assert_allclose(report.score(name), metric.perfect, atol=1e-9, err_msg=name)


def test_every_kind_of_source_gives_the_same_values(paths, report, pred, real):
    screens = tuple(read_screen(path) for path in paths)
    summaries = tuple(summarise(screen, space="bulk_lognorm") for screen in screens)
    for sources in (paths, (str(paths[0]), real), screens, summaries, (screens[0], summaries[1])):
        again = evaluate(*sources)
        np.testing.assert_array_equal(again.value, report.value)
        np.testing.assert_array_equal(again.perturbation, report.perturbation)


def test_the_package_offers_evaluate(pred, real, report):
    again = vcjax.evaluate(pred, real, preset="v2", profile="anndata")
    np.testing.assert_array_equal(again.value, report.value)


def test_a_second_evaluation_compiles_nothing(pred, real):
    compiled = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        evaluate(pred, real)
        first = len(compiled)
        evaluate(real, pred)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert first > 0  # the counter counts
    assert len(compiled) == first


def test_precision_is_chosen_without_touching_the_configuration(pred, real):
    with jax.enable_x64(False):
        wide = evaluate(pred, real, metrics=["expr_mse", "pds_l2"])
        narrow = evaluate(pred, real, metrics=["expr_mse", "pds_l2"], dtype="float32")
        assert jnp.zeros(()).dtype == jnp.float32
    assert not np.array_equal(wide.values("expr_mse"), narrow.values("expr_mse"))
    np.testing.assert_allclose(wide.values("expr_mse"), narrow.values("expr_mse"), rtol=1e-4)
    assert (wide.stamp["dtype"], narrow.stamp["dtype"]) == ("float64", "float32")


def test_a_permuted_prediction_scores_the_same(pred, real, report):
    rng = np.random.default_rng(0)
    shuffled = cells(pred, rng.permutation(pred.n_obs), rng.permutation(pred.n_vars))
    again = evaluate(shuffled, real)
    np.testing.assert_allclose(again.value, report.value, rtol=1e-9, atol=1e-12)
    assert any("order" in note for note in again.stamp["notes"])


def test_the_stamp_traces_the_numbers(paths, report):
    stamp = evaluate(*paths, skip=["pds_l2"]).stamp
    assert stamp["inputs"] == {"pred": str(paths[0]), "real": str(paths[1])}
    assert stamp["versions"]["jax"] == jax.__version__
    assert stamp["settings"]["space"] == "bulk_lognorm"
    assert stamp["settings"]["target_sum"] == 5e4
    assert stamp["digest"] != report.stamp["digest"]  # another set of metrics
    assert stamp["fingerprints"]["screens"]["real"] == report.stamp["fingerprints"]["screens"]["real"]


def test_presets_change_the_numbers(pred, real, report):
    old = evaluate(pred, real, preset="cell_eval")
    assert old.stamp["settings"]["space"] == "lognorm"
    assert not np.allclose(old.values("mse"), report.values("expr_mse"))
    assert old.stamp["not_provided"] == ["clustering_agreement"]
    assert any("clustering_agreement" in note and "Leiden" in note for note in old.stamp["notes"])


def test_log_normalised_cells_are_compared_as_they_are(pred, real):
    sides = []
    for side in (pred, real):
        counts = sp.csr_matrix(side.X).toarray()
        side = cells(side)
        side.X = sp.csr_matrix(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
        sides.append(side)
    report = evaluate(*sides)
    assert report.stamp["settings"]["space"] == "lognorm"
    label = report.perturbations()[0]
    means = [sp.csr_matrix(side.X)[labels(side) == label].toarray().mean(axis=0, dtype=float) for side in sides]
    np.testing.assert_allclose(report.values("expr_mse")[0], np.mean((means[0] - means[1]) ** 2), rtol=1e-10)
    # cell-eval2 takes such cells to have been scaled to a million.
    np.testing.assert_allclose(report.values("expr_real_mass_ratio")[0], np.expm1(means[1]).sum() / 1e6, rtol=1e-10)


def test_a_prediction_without_controls(pred, real, report):
    bare = without(pred, "non-targeting")
    again = evaluate(bare, real)
    np.testing.assert_allclose(again.value, report.value, rtol=1e-12)
    with pytest.raises(Refusal, match="no control cells"):
        evaluate(bare, real, preset="cell_eval")


def test_twisted_control_cells_of_a_prediction_pay_only_where_it_is_measured_from_them(pred, real):
    copied, rng = cells(pred), np.random.default_rng(0)
    controls = labels(pred) == "non-targeting"
    rows = np.where(controls, np.arange(len(controls)), rng.choice(np.flatnonzero(controls), len(controls)))
    copied.X = sp.csr_matrix(pred.X)[rows]  # control cells for every perturbation: no effect at all
    measured, twisted, counts = sp.csr_matrix(real.X).toarray(), cells(copied), sp.csr_matrix(copied.X).toarray()
    # Away from the response that perturbations share, so that nothing looks like that response.
    ratio = (measured[controls].mean(axis=0) + 0.1) / (measured[~controls].mean(axis=0) + 0.1)
    counts[controls] = rng.poisson(counts[controls] * ratio)
    twisted.X = sp.csr_matrix(counts)
    honest, gained = (evaluate(side, real, preset="cell_eval").values("pearson_delta") for side in (copied, twisted))
    assert gained.mean() > honest.mean() + 0.2
    assert [PRESETS[name].control_source for name in ("v2", "vcc2026", "calibrated")] == ["real"] * 3
    plain, same = (evaluate(side, real).value for side in (copied, twisted))
    np.testing.assert_array_equal(plain, same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "anndat"}, "'anndata'"),
        ({"preset": "v3"}, "no preset 'v3'"),
        ({"metrics": ["pds_cosin"]}, "'pds_cosine'"),
        ({"metrics": ["clustering_agreement"]}, "Leiden"),
        ({"profile": "vcc2026", "preset": "cell_eval"}, "Preset 'v2' has it"),
        ({"profile": "full", "preset": "vcc2025"}, "no profile 'full'"),
        ({"skip": ["expr_mze"]}, "'expr_mse'"),
        ({"metrics": ["pds_l1"], "skip": ["pds_l1"]}, "No metric is left"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"max_memory": 1000}, "need"),
    ],
)
def test_what_cannot_be_done_is_refused(pred, real, options, message):
    with pytest.raises(Refusal, match=message):
        evaluate(pred, real, **options)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize(("preset", "controls"), [("v2", [False, True]), ("cell_eval", [True, True])])
def test_sides_that_are_read_at_once_score_as_one_after_the_other(pred, real, preset, controls, monkeypatch):
    run = functools.partial(evaluate_any, pred, real, preset=preset, profile="de")
    plain, with_control = run(), []

    def watched(screen, *args, control, **options):
        with_control.append(control)
        return gather(screen, *args, control=control, **options)

    monkeypatch.setattr("vcjax.io._pseudobulk._MANY", 0)
    monkeypatch.setattr("vcjax.evaluation._tables.gather", watched)
    np.testing.assert_array_equal(run().value, plain.value)
    assert sorted(with_control) == controls
    np.testing.assert_array_equal(run(max_memory=10**8).value, plain.value)
    assert len(with_control) == 2  # one after the other, where memory is bounded


@pytest.mark.parametrize("preset", PRESETS)
def test_cells_are_kept_where_they_are_tested_and_nothing_else_holds_them(preset):
    for profile in PRESETS[preset].profiles:
        metrics = select(preset, profile).metrics.values()
        tested = any(metric.needs_de for metric in metrics)
        energy = any(metric.needs_energy for metric in metrics)
        assert keeps_cells(preset, profile) == (tested and not energy), profile
    assert keeps_cells(preset, None) == keeps_cells(preset, PRESETS[preset].default)
    assert not keeps_cells(preset, "no such profile")
    assert not keeps_cells("no such preset", None)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize(
    ("options", "keep"), [({}, True), ({"max_memory": 10**8}, False), ({"match_cells": True}, False)]
)
def test_cells_stay_in_memory_until_they_are_tested(pred, real, options, keep, monkeypatch):
    monkeypatch.setattr("vcjax.io._pseudobulk._MANY", 0)
    options = {"preset": "v2", "profile": "de", **options}
    kept = []

    def watched(plan, *args, **more):
        kept.append([side.matrix.kept is not None for side in (plan.sides.pred, plan.sides.real)])
        return run_tests(plan, *args, **more)

    monkeypatch.setattr("vcjax.evaluation._run.run_tests", watched)
    report = evaluate_any(pred, real, **options)
    assert kept == [[keep, keep]]
    monkeypatch.setattr("vcjax.io._screen.worth_compiling", lambda shape: False)
    np.testing.assert_array_equal(evaluate_any(pred, real, **options).value, report.value)


def test_names_of_both_peers_are_understood(pred, real):
    report = evaluate(pred, real, metrics=["discrimination_score_l1", "mse"], skip=["mse"])
    assert list(report.metrics) == ["pds_l1"]


def test_labels_that_are_no_genes_need_a_map(pred, real):
    guides = {label: f"guide{i}" for i, label in enumerate(np.unique(labels(real))) if label != "non-targeting"}
    renamed = [cells(side, target_gene=[guides.get(label, label) for label in labels(side)]) for side in (pred, real)]
    with pytest.raises(Refusal, match="--no-target-genes"):
        evaluate(*renamed)
    plain = evaluate(*renamed, target_map={"*": None})
    mapped = evaluate(*renamed, target_map={guide: label for label, guide in guides.items()})
    assert not np.array_equal(plain.value, mapped.value, equal_nan=True)
    assert evaluate(*renamed, metrics=["expr_mse"]).failed == ()


@pytest.fixture(scope="module")
def gone(pred):
    return sorted(set(labels(pred)) - {"non-targeting"})[2]


@pytest.fixture(scope="module")
def partial(pred, gone):
    return without(pred, gone)


class TestMissing:
    def test_it_is_refused_by_default(self, partial, real):
        with pytest.raises(Refusal, match="missing"):
            evaluate(partial, real)

    @pytest.mark.parametrize("as_summary", [False, True])
    def test_nan_leaves_the_others_alone(self, partial, real, report, gone, as_summary):
        if as_summary:
            partial = summarise(read_screen(partial), space="bulk_lognorm")
        holey = evaluate(partial, real, missing="nan")
        row = report.perturbations().index(gone)
        assert holey.perturbations() == report.perturbations()
        for name in PANEL_FREE:
            values = holey.values(name)
            assert np.isnan(values[row])
            np.testing.assert_array_equal(np.delete(values, row), np.delete(report.values(name), row))
            aggregate = next(a for a in holey.aggregates if a.metric == name)
            assert (aggregate.null_count, aggregate.n_used) == (1, len(values) - 1)
        assert set(holey.status[holey.perturbation == gone]) == {"missing"}
        assert np.isfinite(holey.score("expr_mse_unbiased_capped_norm"))

    def test_worst_charges_the_bound_or_what_the_control_scores(self, partial, real, report, gone):
        charged = evaluate(partial, real, missing="worst")
        row = report.perturbations().index(gone)
        assert charged.values("pds_l1")[row] == PRESETS["v2"].metrics["pds_l1"].worst == 0
        sums = [sp.csr_matrix(real.X)[labels(real) == label].sum(axis=0) for label in ("non-targeting", gone)]
        profile = [np.log1p(5e4 * np.asarray(x, float).ravel() / x.sum()) for x in sums]
        np.testing.assert_allclose(charged.values("expr_mse")[row], np.mean((profile[0] - profile[1]) ** 2), rtol=1e-10)
        assert charged.status[(charged.perturbation == gone) & (charged.metric == "expr_mse")] == ["missing"]

    def test_skip_leaves_it_out_of_both_sides(self, partial, real, gone):
        skipped = evaluate(partial, real, missing="skip")
        both = evaluate(partial, without(real, gone))
        np.testing.assert_array_equal(skipped.value, both.value)

    def test_extra(self, pred, real, partial, gone):
        with pytest.raises(Refusal, match="extra"):
            evaluate(pred, without(real, gone))
        ignored = evaluate(pred, without(real, gone), extra="ignore")
        np.testing.assert_array_equal(ignored.value, evaluate(partial, without(real, gone)).value)


def test_contexts_are_evaluated_one_by_one(pred, real):
    sides = []
    for side in (pred, real):
        # Alternate within every label, so that each context has cells of all.
        position = side.obs.groupby("target_gene", observed=True).cumcount().to_numpy()
        sides.append(cells(side, line=np.where(position % 2 == 0, "A/1", "B")))
    both = evaluate(*sides, context_col="line")
    assert both.contexts == ("A/1", "B")
    for context in both.contexts:
        alone = evaluate(*(cells(side, np.flatnonzero(side.obs["line"] == context)) for side in sides))
        np.testing.assert_array_equal(both.value[both.context == context], alone.value)
        assert both.score("pds_l1", context) == alone.score("pds_l1")


def test_effects_given_as_such(pred, real):
    rng = np.random.default_rng(3)
    effects = []
    for side in (pred, real):
        rows = [np.flatnonzero(labels(side) == label)[0] for label in sorted(set(labels(side)))]
        side = cells(side, rows)
        side.X = rng.normal(size=side.shape)
        effects.append(side)
    report = evaluate(*effects, input_type_pred="delta", input_type_real="delta", metrics=["delta_mse", "pds_cosine"])
    means = [np.asarray(side.X)[labels(side) != "non-targeting"] for side in effects]
    np.testing.assert_allclose(report.values("delta_mse"), np.mean((means[0] - means[1]) ** 2, axis=1), rtol=1e-12)


class TestCache:
    def test_it_is_made_once_and_used_again(self, pred, real, report, tmp_path, monkeypatch):
        path = tmp_path / "kept" / "real.npz"
        first = evaluate(pred, real, cache_real=path)
        assert path.is_file()
        walked = []
        monkeypatch.setattr(_run, "summarise", lambda screen, **k: walked.append(1) or summarise(screen, **k))
        second = evaluate(pred, real, cache_real=path)
        assert len(walked) == 1  # the predicted side only
        for again in (first, second):
            np.testing.assert_array_equal(again.value, report.value)

    def test_another_screen_or_setting_is_refused(self, pred, real, tmp_path):
        path = tmp_path / "real.npz"
        evaluate(pred, real, cache_real=path)
        with pytest.raises(Refusal, match="space"):
            evaluate(pred, real, cache_real=path, preset="cell_eval")
        changed = cells(real)
        changed.X = sp.csr_matrix(changed.X) * 2
        with pytest.raises(Refusal, match="screen"):
            evaluate(pred, changed, cache_real=path)
        path.with_name("real.npz.json").unlink()
        with pytest.raises(Refusal, match="description"):
            evaluate(pred, real, cache_real=path)

    def test_it_does_not_fall_on_an_input(self, paths):
        with pytest.raises(Refusal, match="over an input"):
            evaluate(*paths, cache_real=paths[1])


# Few of them, which every test below compiles once.
SETS = (
    *("de_wilcoxon_overlap", "de_wilcoxon_sig_jaccard", "de_wilcoxon_nsig_counts_pred"),
    *("de_wilcoxon_nsig_counts_real", "expr_mae"),
)


@pytest.fixture(scope="module")
def whole(pred, real):
    report = evaluate_all(pred, real, metrics=SETS, keep_de=True)
    assert report.failed == ()
    return report


class TestDifferentialExpression:
    @pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if "cell-eval" in preset.source])
    def test_the_default_is_what_the_tool_computes(self, pred, real, preset):
        chosen = PRESETS[preset]
        plan = prepare(pred, real, Reading(), preset=preset)
        members = chosen.profiles[chosen.default]
        assert tuple(plan.selection.metrics) == tuple(name for name in members if name not in chosen.left_out)
        assert plan.tables is not None
        assert plan.tables.tested == ("pred", "real")
        assert plan.tables.settings == chosen.de

    def test_an_adjustment_over_all_perturbations_calls_other_genes(self, pred, real):
        counts = ["de_nsig_counts_real", "mae"]
        ours, other = (evaluate_all(pred, real, preset=name, metrics=counts) for name in ("vcc2025", "cell_eval"))
        np.testing.assert_array_equal(ours.values("mae"), other.values("mae"))
        assert not np.array_equal(ours.values(counts[0]), other.values(counts[0]))

    def test_profiles_without_it_test_nothing(self, pred, real, monkeypatch):
        monkeypatch.setattr("vcjax.evaluation._tables.differential_expression", lambda *_, **__: 1 / 0)
        assert evaluate(pred, real).failed == ()
        with pytest.raises(ZeroDivisionError):
            evaluate(pred, real, metrics=SETS)

    def test_tables_that_are_given_are_those_that_were_written(self, pred, real, whole, tmp_path):
        names = whole.write(tmp_path)
        assert {"real_de.csv", "pred_de.csv"} <= set(names)
        files = {"de_pred": tmp_path / "pred_de.csv", "de_real": tmp_path / "real_de.csv"}
        again = evaluate_all(pred, real, metrics=SETS, **files)
        np.testing.assert_allclose(again.value, whole.value, rtol=1e-9, atol=1e-12)
        assert again.stamp["settings"]["de_given"] == ["pred", "real"]
        assert again.stamp["digest"] != whole.stamp["digest"]
        half = evaluate_all(pred, real, metrics=SETS, de_pred=files["de_pred"])
        np.testing.assert_allclose(half.value, whole.value, rtol=1e-9, atol=1e-12)
        # Each side's own table as the other's: the tables are read, not made.
        crossed = evaluate_all(real, real, metrics=SETS, de_pred=files["de_pred"])
        np.testing.assert_allclose(crossed.values(SETS[1]), whole.values(SETS[1]), rtol=1e-12)
        with pytest.raises(Refusal, match="no metric reads it"):
            evaluate(pred, real, de_pred=files["de_pred"])

    def test_a_table_can_be_kept_for_its_own_sake(self, pred, real):
        report = evaluate(pred, real, profile="pds", keep_de=True)
        table = report.tables["", "pred"].de
        assert table is not None
        assert table.mean is not None
        assert report.tables["", "real"].control_cells == report.tables["", "pred"].control_cells
        assert evaluate(pred, real, profile="pds").tables == {}

    def test_summaries_bring_their_tables(self, pred, real, whole):
        sides = [read_screen(side) for side in (pred, real)]
        settings = PRESETS["v2"].de
        summaries = [summarise(side, space="bulk_lognorm", de=settings, control_of=sides[1]) for side in sides]
        np.testing.assert_array_equal(evaluate_all(*summaries, metrics=SETS).value, whole.value)
        plain = summarise(sides[1], space="bulk_lognorm")
        with pytest.raises(Refusal, match="does not hold"):
            evaluate_all(summaries[0], plain, metrics=SETS)
        with pytest.raises(Refusal, match="the measured side is a summary"):
            evaluate_all(pred, summaries[1], metrics=SETS)

    def test_the_cache_takes_the_table_when_it_is_first_needed(self, pred, real, whole, tmp_path, monkeypatch):
        path = tmp_path / "real.npz"
        evaluate(pred, real, profile="pds", cache_real=path)
        assert load_summary(path).de is None
        first = evaluate_all(pred, real, metrics=SETS, cache_real=path)
        tested = []
        monkeypatch.setattr(
            "vcjax.evaluation._tables.differential_expression",
            lambda screen, *a, **k: tested.append(screen.name) or differential_expression(screen, *a, **k),
        )
        second = evaluate_all(pred, real, metrics=SETS, cache_real=path)
        assert len(tested) == 1  # the predicted side only
        evaluate(pred, real, profile="pds", cache_real=path)
        assert load_summary(path).de is not None
        for again in (first, second):
            np.testing.assert_array_equal(again.value, whole.value)

    def test_a_perturbation_that_is_missing_is_without_a_difference(self, partial, real, whole, gone):
        row = whole.perturbations().index(gone)
        holey, charged = (evaluate_all(partial, real, metrics=SETS, missing=how) for how in ("nan", "worst"))
        for name in SETS[:3]:
            np.testing.assert_array_equal(np.delete(holey.values(name), row), np.delete(whole.values(name), row))
            assert np.isnan(holey.values(name)[row])
        assert charged.values("de_wilcoxon_nsig_counts_pred")[row] == 0
        assert charged.values("de_wilcoxon_overlap")[row] == 0

    def test_contexts_are_tested_one_by_one(self, pred, real):
        sides = []
        for side in (pred, real):
            position = side.obs.groupby("target_gene", observed=True).cumcount().to_numpy()
            sides.append(cells(side, line=np.where(position % 2 == 0, "A", "B")))
        both = evaluate_all(*sides, metrics=SETS, context_col="line")
        alone = [cells(side, np.flatnonzero(side.obs["line"] == "B")) for side in sides]
        np.testing.assert_array_equal(both.value[both.context == "B"], evaluate_all(*alone, metrics=SETS).value)
        with pytest.raises(Refusal, match="several contexts"):
            evaluate_all(*sides, metrics=SETS, context_col="line", de_pred="pred_de.csv")

    def test_log_normalised_cells_are_walked_over_once(self, pred, real, monkeypatch):
        walks = []
        monkeypatch.setattr(
            "vcjax.io._summarise.lognorm_moments", lambda *a, f=lognorm_moments, **k: walks.append(1) or f(*a, **k)
        )
        fused = evaluate_all(pred, real, preset="cell_eval", metrics=["mse", "de_nsig_counts_real"])
        assert walks == []
        plain = evaluate_all(pred, real, preset="cell_eval", metrics=["mse"])
        assert len(walks) == 2
        np.testing.assert_allclose(fused.values("mse"), plain.values("mse"), rtol=1e-12)

    def test_effects_cannot_be_tested(self, pred, real):
        sides = [cells(side) for side in (pred, real)]
        options = {"input_type_pred": "delta", "input_type_real": "delta"}
        with pytest.raises(Refusal, match="cell by cell"):
            evaluate_all(*sides, metrics=SETS, **options)


def test_a_metric_that_fails_does_not_take_the_others_with_it(pred, real):
    def broken(pred, real, **options):
        raise RuntimeError("no such luck")

    row = PRESETS["v2"].metrics["expr_mse"]
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    metrics = {"broken": Metric(**{**fields, "name": "broken", "function": broken}), "expr_mse": row}
    preset = dataclasses.replace(PRESETS["v2"], metrics=metrics, profiles={"anndata": tuple(metrics)})
    report = evaluate(pred, real, preset=preset)
    assert report.failed == ("broken",)
    assert report.stamp["errors"] == {"broken": "RuntimeError: no such luck"}
    assert np.isnan(report.values("broken")).all()
    assert np.isfinite(report.values("expr_mse")).all()


def test_one_perturbation_has_no_rank(real):
    one = sorted(set(labels(real)) - {"non-targeting"})[0]
    kept = cells(real, np.flatnonzero(np.isin(labels(real), [one, "non-targeting"])))
    report = evaluate(kept, kept)
    assert np.isnan(report.values("pds_l1")).all()
    assert report.status[report.metric == "pds_l1"][0] != "ok"
    assert report.values("expr_mse")[0] == 0


def test_nothing_of_the_callers_is_changed(pred, real):
    before = [(ad.AnnData.copy(side)) for side in (pred, real)]
    evaluate(pred, real, preset="cell_eval")
    for side, old in zip((pred, real), before, strict=True):
        np.testing.assert_array_equal(sp.csr_matrix(side.X).toarray(), sp.csr_matrix(old.X).toarray())
        assert list(side.obs.columns) == list(old.obs.columns)
        assert labels(side).tolist() == labels(old).tolist()


def test_summaries_of_different_spaces_are_refused(pred, real):
    bulk = summarise(read_screen(pred), space="bulk_lognorm")
    log = summarise(read_screen(real), space="lognorm")
    with pytest.raises(Refusal, match="lognorm"):
        evaluate(bulk, log)
    quiet = summarise(read_screen(pred), space="bulk_lognorm", noise=False)
    with pytest.raises(Refusal, match="sampling noise"):
        evaluate(quiet, bulk)
    assert evaluate(quiet, bulk, metrics=["expr_mse"]).failed == ()


def test_a_library_size_can_be_capped(pred, real):
    with pytest.raises(Refusal, match="max-total"):
        evaluate(pred, real, max_total=10.0)
