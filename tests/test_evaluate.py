"""`evaluate` from files to a report: sources, presets, policies, caches, compilation."""

import dataclasses

import anndata as ad
import jax
import numpy as np
import pytest
import scipy.sparse as sp

import vcjax
from vcjax.evaluate import evaluate, PRESETS
from vcjax.io import Refusal, read_screen, simulate_screen, summarise
from vcjax.metrics import Metric


SIZES = {"perts": 6, "doubles": 1, "genes": 60, "cells_per_pert": 12, "control_cells": 30, "programs": 2}
PANEL_FREE = ("pds_l1", "pds_cosine", "expr_mse", "delta_pearson")


def labels(adata):
    return adata.obs["target_gene"].astype(str).to_numpy()


def relabelled(adata, names):
    """The cells with other labels and the same values."""
    copy = adata.copy()
    copy.obs["target_gene"] = np.asarray(names, object)
    return copy


@pytest.fixture(scope="module")
def real():
    return simulate_screen(**SIZES, seed=1).adata


@pytest.fixture(scope="module")
def pred():
    # Another draw of the same screen: the seed of the cells differs, labels and genes do not.
    screen = simulate_screen(**SIZES, seed=1)
    rng = np.random.default_rng(5)
    cells = screen.adata.copy()
    cells.X = sp.csr_matrix(rng.poisson(np.asarray(sp.csr_matrix(cells.X).todense()) * 0.8 + 0.1).astype(np.float32))
    return cells


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
    for name, metric in PRESETS["v2"].metrics.items():
        if metric.perfect is not None and metric.higher_is_better is not None and "capped_norm" not in name:
            np.testing.assert_allclose(report.score(name), metric.perfect, atol=1e-9, err_msg=name)


def test_every_kind_of_source_gives_the_same_values(paths, report, pred, real):
    screens = tuple(read_screen(path) for path in paths)
    summaries = tuple(summarise(screen, space="bulk_lognorm") for screen in screens)
    for sources in (paths, (str(paths[0]), real), screens, summaries, (screens[0], summaries[1])):
        again = evaluate(*sources)
        np.testing.assert_array_equal(again.value, report.value)
        np.testing.assert_array_equal(again.perturbation, report.perturbation)


def test_module_and_function_share_a_name(pred, real, report):
    import vcjax.evaluate

    again = vcjax.evaluate(pred, real)
    np.testing.assert_array_equal(again.value, report.value)


def test_a_second_evaluation_compiles_nothing(pred, real):
    compiled = []
    listen = lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    evaluate(pred, real)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        evaluate(real, pred)
        second = list(compiled)
        evaluate(pred, real, metrics=["expr_mse"])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert second == []
    assert compiled  # the counter counts


def test_precision_is_chosen_without_touching_the_configuration(pred, real):
    with jax.enable_x64(False):
        wide = evaluate(pred, real, metrics=["expr_mse", "pds_l2"])
        narrow = evaluate(pred, real, metrics=["expr_mse", "pds_l2"], dtype="float32")
        assert not jax.config.jax_enable_x64
    assert not np.array_equal(wide.values("expr_mse"), narrow.values("expr_mse"))
    np.testing.assert_allclose(wide.values("expr_mse"), narrow.values("expr_mse"), rtol=1e-4)
    assert (wide.stamp["dtype"], narrow.stamp["dtype"]) == ("float64", "float32")


def test_a_permuted_prediction_scores_the_same(pred, real, report):
    rng = np.random.default_rng(0)
    shuffled = pred[rng.permutation(pred.n_obs)][:, rng.permutation(pred.n_vars)].copy()
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
    assert old.stamp["not_provided"] == ["pearson_edistance", "clustering_agreement"]
    assert any("clustering_agreement" in note for note in old.stamp["notes"])


def test_a_prediction_without_controls(pred, real, report):
    bare = pred[labels(pred) != "non-targeting"].copy()
    again = evaluate(bare, real)
    np.testing.assert_allclose(again.value, report.value, rtol=1e-12)
    with pytest.raises(Refusal, match="no control cells"):
        evaluate(bare, real, preset="cell_eval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "full"}, "de_wilcoxon_overlap"),
        ({"profile": "vcc2026"}, "de_wilcoxon_sig_jaccard"),
        ({"profile": "de", "preset": "cell_eval"}, "overlap_at_N"),
        ({"profile": "anndat"}, "'anndata'"),
        ({"preset": "v3"}, "no preset 'v3'"),
        ({"metrics": ["pds_cosin"]}, "'pds_cosine'"),
        ({"metrics": ["de_wilcoxon_overlap"]}, "does not compute"),
        ({"skip": ["expr_mze"]}, "'expr_mse'"),
        ({"metrics": ["pds_l1"], "skip": ["pds_l1"]}, "No metric is left"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"max_memory": 1000}, "need"),
    ],
)
def test_what_cannot_be_done_is_refused(pred, real, options, message):
    with pytest.raises(Refusal, match=message):
        evaluate(pred, real, **options)


def test_members_that_are_not_provided_can_be_skipped_by_name(pred, real):
    members = PRESETS["v2"].profiles["vcc2026"]
    missing = [name for name in members if name not in PRESETS["v2"].metrics]
    report = evaluate(pred, real, profile="vcc2026", skip=missing)
    assert set(report.metrics) == set(members) - set(missing)


def test_names_of_both_peers_are_understood(pred, real):
    report = evaluate(pred, real, metrics=["discrimination_score_l1", "mse"], skip=["mse"])
    assert list(report.metrics) == ["pds_l1"]


def test_labels_that_are_no_genes_need_a_map(pred, real):
    guides = {label: f"guide{i}" for i, label in enumerate(np.unique(labels(real))) if label != "non-targeting"}
    renamed = [relabelled(side, [guides.get(label, label) for label in labels(side)]) for side in (pred, real)]
    with pytest.raises(Refusal, match="--no-target-genes"):
        evaluate(*renamed)
    plain = evaluate(*renamed, target_map={"*": None})
    mapped = evaluate(*renamed, target_map={guide: label for label, guide in guides.items()})
    assert not np.array_equal(plain.value, mapped.value, equal_nan=True)
    assert evaluate(*renamed, metrics=["expr_mse"]).failed == ()


class TestMissing:
    @pytest.fixture(scope="class")
    def gone(self, pred):
        return sorted(set(labels(pred)) - {"non-targeting"})[2]

    @pytest.fixture(scope="class")
    def partial(self, pred, gone):
        return pred[labels(pred) != gone].copy()

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
        controls = sp.csr_matrix(real[labels(real) == "non-targeting"].X).sum(axis=0)
        cells = sp.csr_matrix(real[labels(real) == gone].X).sum(axis=0)
        profile = [np.log1p(5e4 * np.asarray(x).ravel() / x.sum()) for x in (controls, cells)]
        np.testing.assert_allclose(charged.values("expr_mse")[row], np.mean((profile[0] - profile[1]) ** 2), rtol=1e-10)
        assert charged.status[(charged.perturbation == gone) & (charged.metric == "expr_mse")] == ["missing"]

    def test_skip_leaves_it_out_of_both_sides(self, partial, real, gone):
        skipped = evaluate(partial, real, missing="skip")
        both = evaluate(partial, real[labels(real) != gone].copy())
        np.testing.assert_array_equal(skipped.value, both.value)

    def test_extra(self, pred, real, partial, gone):
        with pytest.raises(Refusal, match="extra"):
            evaluate(pred, real[labels(real) != gone].copy())
        ignored = evaluate(pred, real[labels(real) != gone].copy(), extra="ignore")
        np.testing.assert_array_equal(ignored.value, evaluate(partial, real[labels(real) != gone].copy()).value)


def test_contexts_are_evaluated_one_by_one(pred, real):
    sides = []
    for side in (pred, real):
        side = side.copy()
        # Alternate within every label, so that each context has cells of all.
        position = side.obs.groupby("target_gene", observed=True).cumcount().to_numpy()
        side.obs["line"] = np.where(position % 2 == 0, "A/1", "B")
        sides.append(side)
    both = evaluate(*sides, context_col="line")
    assert both.contexts == ("A/1", "B")
    for context in both.contexts:
        alone = evaluate(*(side[(side.obs["line"] == context).to_numpy()].copy() for side in sides))
        np.testing.assert_array_equal(both.value[both.context == context], alone.value)
        assert both.score("pds_l1", context) == alone.score("pds_l1")


class TestCache:
    def test_it_is_made_once_and_used_again(self, pred, real, report, tmp_path, monkeypatch):
        path = tmp_path / "kept" / "real.npz"
        first = evaluate(pred, real, cache_real=path)
        assert path.is_file()
        walked = []
        original = vcjax.evaluate._run.summarise
        monkeypatch.setattr(vcjax.evaluate._run, "summarise", lambda s, **k: walked.append(1) or original(s, **k))
        second = evaluate(pred, real, cache_real=path)
        assert len(walked) == 1  # the predicted side only
        for again in (first, second):
            np.testing.assert_array_equal(again.value, report.value)

    def test_another_screen_or_setting_is_refused(self, pred, real, tmp_path):
        path = tmp_path / "real.npz"
        evaluate(pred, real, cache_real=path)
        with pytest.raises(Refusal, match="space"):
            evaluate(pred, real, cache_real=path, preset="cell_eval")
        changed = real.copy()
        changed.X = sp.csr_matrix(changed.X) * 2
        with pytest.raises(Refusal, match="screen"):
            evaluate(pred, changed, cache_real=path)
        path.with_name("real.npz.json").unlink()
        with pytest.raises(Refusal, match="description"):
            evaluate(pred, real, cache_real=path)

    def test_it_does_not_fall_on_an_input(self, paths):
        with pytest.raises(Refusal, match="over an input"):
            evaluate(*paths, cache_real=paths[1])


def test_a_metric_that_fails_does_not_take_the_others_with_it(pred, real):
    def broken(pred, real, *, relax):
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
    kept = real[np.isin(labels(real), [one, "non-targeting"])].copy()
    report = evaluate(kept, kept)
    assert np.isnan(report.values("pds_l1")).all()
    assert report.status[report.metric == "pds_l1"][0] != "ok"
    assert report.values("expr_mse")[0] == 0


def test_nothing_of_the_callers_is_changed(pred, real):
    before = [(ad.AnnData.copy(side)) for side in (pred, real)]
    evaluate(pred, real, preset="cell_eval")
    for side, old in zip((pred, real), before, strict=True):
        assert (sp.csr_matrix(side.X) != sp.csr_matrix(old.X)).nnz == 0
        assert list(side.obs.columns) == list(old.obs.columns)
        assert labels(side).tolist() == labels(old).tolist()


def test_summaries_of_different_spaces_are_refused(pred, real):
    bulk, log = (summarise(read_screen(side), space=space) for side, space in ((pred, "bulk_lognorm"), (real, "lognorm")))
    with pytest.raises(Refusal, match="lognorm"):
        evaluate(bulk, log)
    quiet = summarise(read_screen(pred), space="bulk_lognorm", noise=False)
    with pytest.raises(Refusal, match="sampling noise"):
        evaluate(quiet, bulk)
    assert evaluate(quiet, bulk, metrics=["expr_mse"]).failed == ()
