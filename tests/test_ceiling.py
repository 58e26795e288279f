"""Halves of a screen, and what is made of them: ceilings and replicate anchors."""

import csv
import dataclasses
import json
import math
from typing import Any

import anndata
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import shared_path
from screens import refused

from vcjax import Profiles
from vcjax.cli import main
from vcjax.evaluation import data_ceiling, PRESETS, read_aggregates, Reading, replicate_anchor, score
from vcjax.evaluation._anchor import split_seeds
from vcjax.evaluation._ceiling import RELIABILITIES_V1, RELIABILITIES_V2, spearman_brown
from vcjax.evaluation._replicates import own_control
from vcjax.io import read_screen, simulate_screen, split_halves
from vcjax.io._halves import label_order
from vcjax.metrics import CATALOGUE, CELL_EVAL, V2


CONTROL = "non-targeting"
SIZES: dict[str, Any] = {
    "perts": 5,
    "doubles": 0,
    "genes": 60,
    "cells_per_pert": 21,
    "control_cells": 41,
    "programs": 2,
}


@pytest.fixture(scope="module")
def measured():
    return simulate_screen(**SIZES, seed=1).adata


def small(labels, **obs):
    """A screen of one gene that numbers its cells."""
    cells = np.arange(1, len(labels) + 1, dtype=np.float32)[:, None]
    table = pd.DataFrame({"target_gene": labels, **obs}, index=pd.Index([f"c{i}" for i in range(len(labels))]))
    matrix = scipy.sparse.csr_matrix(np.hstack([cells, cells]))
    return anndata.AnnData(matrix, obs=table, var=pd.DataFrame(index=pd.Index(["A", "G"])))


def read(adata, **options):
    return read_screen(adata, control=CONTROL, input_type="counts", **options)


def drawn(obs, seed):
    """The cells of both halves as cell-eval 0.8.2 and cell-eval2 0.20.0 document it, with pandas' groups."""
    rng, halves = np.random.default_rng(seed), ([], [])
    for cells in obs.groupby("target_gene", observed=True).indices.values():
        order = rng.permutation(cells)
        half = len(order) // 2
        halves[0].extend(order[:half])
        halves[1].extend(order[half : 2 * half])
    return [sorted(int(cell) for cell in half) for half in halves]


@pytest.mark.parametrize("labels", [["B", "A", CONTROL], [CONTROL, "zeta", "Alpha", "a10", "a9"]])
@pytest.mark.parametrize("reverse", [False, True])
def test_halves_are_those_of_the_peers(labels, reverse):
    column = np.random.default_rng(3).permutation(np.resize(np.array(labels, object), 47))
    adata = small(column)
    if reverse:
        adata.obs["target_gene"] = pd.Categorical(column, categories=sorted(labels, reverse=True))
    first, second, notes = split_halves(read(adata), 7, order=label_order(adata))
    assert [np.flatnonzero(half.codes > -2).tolist() for half in (first, second)] == drawn(adata.obs, 7)
    assert notes == ()
    whole = read(adata)
    for half in (first, second):
        kept = half.codes > -2
        np.testing.assert_array_equal(half.codes[kept], whole.codes[kept])
    assert not np.any((first.codes > -2) & (second.codes > -2))
    assert len({first.fingerprint, second.fingerprint, whole.fingerprint}) == 3


def test_without_categories_labels_draw_in_sorted_order():
    adata = small(np.resize(np.array(["B", "A", CONTROL], object), 20))
    assert label_order(adata) == ("A", "B", CONTROL)
    ordered, sorted_ = (split_halves(read(adata), 2, order=order)[0] for order in (label_order(adata), None))
    np.testing.assert_array_equal(ordered.codes, sorted_.codes)


def test_each_context_draws_from_its_own_beginning():
    labels = np.repeat(["A", "B", CONTROL], [6, 8, 5]).astype(object)
    adata = small(np.tile(labels, 2), line=np.repeat(["X", "Y"], len(labels)))
    first, second, _ = split_halves(read(adata, context_col="line"), 5)
    for half, cells in zip((first, second), drawn(small(labels).obs, 5), strict=True):
        one, other = np.split(half.codes, 2)
        np.testing.assert_array_equal(one, other)
        assert np.flatnonzero(one > -2).tolist() == cells


def test_what_cannot_be_split_is_left_out_or_refused():
    labels = np.repeat(["A", "B", "C", CONTROL], [1, 4, 7, 4]).astype(object)
    first, second, notes = split_halves(read(small(labels)))
    assert "1 perturbations with fewer than 2 cells" in notes[0]
    assert notes[0].endswith(": A")
    assert np.bincount(first.codes[first.codes >= 0], minlength=3).tolist() == [0, 2, 3]
    assert np.bincount(second.codes[second.codes >= 0], minlength=3).tolist() == [0, 2, 3]
    first, _, notes = split_halves(read(small(labels)), min_cells=5)
    assert np.unique(first.codes[first.codes >= 0]).tolist() == [2]
    assert "A, B" in notes[0]
    with refused("cannot be split", "1 cells labelled 'non-targeting'", "--control"):
        split_halves(read(small(np.repeat(["A", CONTROL], [4, 1]).astype(object))))
    with refused("No perturbation can be split", "--min-cells"):
        split_halves(read(small(np.repeat(["A", "B", CONTROL], [1, 1, 9]).astype(object))))


def test_the_reliability_at_twice_the_depth():
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(1.0) == 1
    for r in (0.0, -0.5, -1.0, math.nan):
        assert math.isnan(spearman_brown(r))


def test_the_metrics_with_a_ceiling_are_those_of_the_peers():
    assert len(RELIABILITIES_V1) == 20
    assert len(RELIABILITIES_V2) == 18
    for name in RELIABILITIES_V1:
        assert CELL_EVAL[name].higher_is_better
    for name in RELIABILITIES_V2:
        assert V2[name].higher_is_better


def test_effects_are_measured_from_the_own_control(getkey):
    import jax

    arrays = [jax.random.normal(getkey(), shape) for shape in ((4, 7), (7,), (4, 7), (7,))]
    pred, real = (Profiles(arrays[i], arrays[i + 1], targets=jnp.full(4, -1)) for i in (0, 2))
    for own, name in (("pearson_delta", "delta_pearson"), ("mse_delta", "delta_mse"), ("mae_delta", "delta_mae")):
        expected = CELL_EVAL[own](pred, real)
        np.testing.assert_allclose(own_control(V2[name])(pred, real), expected, rtol=1e-12)
        assert not np.allclose(V2[name](pred, real), expected)
    assert own_control(CATALOGUE["expr_mse"]) is CATALOGUE["expr_mse"]
    assert own_control(V2["pds_l1"]) is own_control(V2["pds_l1"])


# `compute_ceiling` of cell-eval 0.8.2 and cell-eval2 0.20.0, profile full, on pair_24x400: all values that are not NaN.
V1_CEILING = {
    0: {
        "pearson_delta": 0.8796753671847383,
        "discrimination_score_l1": 0.999131190269331,
        "discrimination_score_l2": 1.0,
        "discrimination_score_cosine": 0.993006993006993,
        "overlap_at_N": 0.8352614396802176,
        "overlap_at_50": 0.8386617690523337,
        "overlap_at_100": 0.8180909599054377,
        "overlap_at_200": 0.8257530653813174,
        "overlap_at_500": 0.8352614396802176,
        "precision_at_N": 0.8394039603657588,
        "precision_at_50": 0.8343849379092293,
        "precision_at_100": 0.8231730139325343,
        "precision_at_200": 0.8307695807291419,
        "precision_at_500": 0.8394039603657588,
        "de_spearman_sig": 0.9758258448297688,
        "de_direction_match": 0.9916123296021484,
        "de_spearman_lfc_sig": 0.922357369269691,
        "de_sig_genes_recall": 0.8696680428481218,
    },
    7: {
        "pearson_delta": 0.8794718764936842,
        "discrimination_score_l1": 0.999131190269331,
        "discrimination_score_l2": 1.0,
        "discrimination_score_cosine": 0.9912434325744308,
        "overlap_at_N": 0.8579903700672186,
        "overlap_at_50": 0.8575128666607779,
        "overlap_at_100": 0.842958395456652,
        "overlap_at_200": 0.8494757504480145,
        "overlap_at_500": 0.8579903700672186,
        "precision_at_N": 0.8650839577093711,
        "precision_at_50": 0.87213795537295,
        "precision_at_100": 0.8522245351840148,
        "precision_at_200": 0.856606018104461,
        "precision_at_500": 0.8650839577093711,
        "de_spearman_sig": 0.9892189218921893,
        "de_direction_match": 0.9892813925646434,
        "de_spearman_lfc_sig": 0.9444198800807534,
        "de_sig_genes_recall": 0.8692783233588759,
        "pr_auc": 0.9113311915731739,
        "roc_auc": 0.9588569200119367,
    },
}
V2_CEILING = {
    "pds_l1": 0.99909338168631,
    "pds_l2": 1.0,
    "pds_cosine": 1.0,
    "delta_pearson": 0.8704568053970365,
    "de_wilcoxon_overlap": 0.8360613655464123,
    "de_wilcoxon_overlap_top50": 0.8459619038755333,
    "de_wilcoxon_overlap_top100": 0.8193377135079355,
    "de_wilcoxon_overlap_top200": 0.8268528943024909,
    "de_wilcoxon_overlap_top500": 0.8360613655464123,
    "de_wilcoxon_precision": 0.845889410409721,
    "de_wilcoxon_precision_top50": 0.8467009786947066,
    "de_wilcoxon_precision_top100": 0.8297650265568368,
    "de_wilcoxon_precision_top200": 0.8372769987843178,
    "de_wilcoxon_precision_top500": 0.845889410409721,
    "de_wilcoxon_nsig_spearman": 0.9758258448297683,
    "de_wilcoxon_sig_recall": 0.8731796814450604,
    "de_wilcoxon_direction_match": 0.9914426665034245,
    "de_wilcoxon_lfc_spearman": 0.9381285829929128,
}


def found(values):
    return {name: value for name, value in values.items() if not math.isnan(value)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 7])
def test_the_ceiling_of_cell_eval(seed):
    real = shared_path("reference/pair_24x400/real_lognorm.h5ad")
    ceiling = data_ceiling(real, preset="cell_eval", seed=seed)
    assert list(ceiling.values[""]) == list(ceiling.report.metrics)
    ours = found(ceiling.values[""])
    # At seed 0 one perturbation has no area under a curve, and cell-eval lets that spread into the mean.
    assert set(ours) == set(V1_CEILING[seed])
    # cell-eval averages profiles in float32.
    tolerance = {"pearson_delta": 1e-7}
    for name, value in V1_CEILING[seed].items():
        np.testing.assert_allclose(ours[name], value, rtol=tolerance.get(name, 1e-12), err_msg=name)


def test_the_ceiling_of_cell_eval2():
    real = shared_path("reference/pair_24x400/real.h5ad")
    ceiling = data_ceiling(real, preset="v2")
    assert list(ceiling.values[""]) == list(PRESETS["v2"].profiles["full"])
    assert set(ceiling.report.metrics) == RELIABILITIES_V2
    ours = found(ceiling.values[""])
    assert set(ours) == set(V2_CEILING)
    for name, value in V2_CEILING.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, err_msg=name)


# `compute_replicate_anchor` of cell-eval2 0.20.0, profile vcc2026, on pair_24x400: mean and spread over five splits.
ANCHOR = {
    "de_wilcoxon_direction_fidelity_yield_raw": (0.9134066685398761, 0.022179168297730662),
    "de_wilcoxon_direction_reach_raw": (0.9875, 0.01666666666666666),
    "de_wilcoxon_lfc_nmae": (0.3854433281121322, 0.02315545908635913),
    "de_wilcoxon_sig_jaccard": (0.6195490980808204, 0.020348872991765382),
    "expr_distance_unbiased": (0.15050523724347972, 0.0030486517478393277),
    "expr_mse_unbiased": (-0.002085188811572102, 0.0010934615187247095),
    "expr_mse_unbiased_capped": (-0.0014270899710293167, 0.0011923835764541886),
    "expr_mse_unbiased_capped_norm": (-0.009602178057215695, 0.00817372725651774),
    "expr_real_mass_ratio": (1.0, 0.0),
    "pds_cosine": (0.9992753623188406, 0.0014492753623187651),
}
SEEDS = (2968811710, 3677149159, 745650761, 2884920346, 2642120001)


def test_the_seeds_of_the_splits():
    assert split_seeds(0, 5) == SEEDS
    with pytest.raises(ValueError, match="At least one"):
        split_seeds(0, 0)


def test_the_anchor_of_cell_eval2(tmp_path):
    real = shared_path("reference/pair_24x400/real.h5ad")
    anchor = replicate_anchor(real, preset="vcc2026", metrics=list(ANCHOR))
    assert tuple(dict.fromkeys(split.seed for split in anchor.splits)) == SEEDS
    anchor.write(tmp_path)
    with open(tmp_path / "agg_anchor_results.csv", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(ANCHOR)
    for name, (mean, spread) in ANCHOR.items():
        np.testing.assert_allclose(float(rows[name]["mean"]), mean, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(float(rows[name]["sd"]), spread, rtol=1e-10, atol=1e-15, err_msg=name)
    assert rows["de_wilcoxon_lfc_nmae"]["estimator"] == "full_gate_raw"
    assert (rows["de_wilcoxon_lfc_nmae"]["n_used_min"], rows["de_wilcoxon_lfc_nmae"]["n_used_max"]) == ("23", "23")
    assert read_aggregates(tmp_path / "agg_anchor_results.csv") == anchor.values()


METRICS = ("expr_mse", "delta_pearson", "pds_l1")


def test_a_ceiling_says_nothing_of_errors(measured):
    ceiling = data_ceiling(measured, metrics=METRICS)
    assert math.isnan(ceiling.values[""]["expr_mse"])
    assert tuple(ceiling.report.metrics) == ("delta_pearson", "pds_l1")
    r = ceiling.report.score("delta_pearson")
    assert ceiling.values[""]["delta_pearson"] == pytest.approx(2 * r / (1 + r))
    with refused("None of the metrics has a ceiling", "--ceiling"):
        data_ceiling(measured, metrics=["expr_mse"])


def test_contexts_have_ceilings_and_anchors_of_their_own(measured, tmp_path):
    two = anndata.concat([measured, measured], keys=["X", "Y"], label="line", index_unique="-")
    reading = Reading(context_col="line")
    alone = data_ceiling(measured, metrics=METRICS)
    ceiling = data_ceiling(two, reading, metrics=METRICS)
    for context in ("X", "Y"):
        np.testing.assert_allclose(ceiling.values[context]["delta_pearson"], alone.values[""]["delta_pearson"], 1e-12)
    assert ceiling.write(tmp_path)[:2] == ("X_ceiling_results.csv", "X_agg_ceiling_results.csv")
    anchor = replicate_anchor(two, reading, metrics=METRICS, splits=2)
    assert anchor.values() == pytest.approx(anchor.values("X"))


def test_cells_are_scaled_to_the_median_of_their_context(measured):
    deeper = measured.copy()
    deeper.X = measured.X * 3
    both = anndata.concat([measured, deeper], keys=["X", "Y"], label="line", index_unique="-")
    options: dict[str, Any] = {"preset": "cell_eval", "metrics": ["mse", "pearson_delta"]}
    report = data_ceiling(both, Reading(context_col="line"), **options).report
    for context, adata in (("X", measured), ("Y", deeper)):
        alone = data_ceiling(adata, **options).report
        np.testing.assert_allclose(report.values("mse", context), alone.values("mse"), rtol=1e-6)


def test_min_cells_apply_before_the_split(measured):
    kept = data_ceiling(measured, Reading(min_cells=21), metrics=METRICS)
    assert len(kept.report.perturbations()) == 5
    with refused("No perturbation can be split"):
        data_ceiling(measured, Reading(min_cells=22), metrics=METRICS)


def test_only_cells_can_be_split(measured):
    from vcjax.io import summarise

    with refused("A summary cannot be split"):
        data_ceiling(summarise(read_screen(measured), space="lognorm"), metrics=METRICS)


def test_an_undefined_metric_has_no_anchor(measured):
    constant = measured.copy()
    constant.X = scipy.sparse.csr_matrix(np.ones(constant.shape, np.float32))
    with refused("have no value in a split", "delta_pearson", "--skip-metrics"):
        replicate_anchor(constant, metrics=["delta_pearson", "expr_mse"], splits=1)


def test_single_cells_have_no_fold_change_error_of_their_own(measured):
    labels = measured.obs["target_gene"].astype(str).to_numpy()
    first = labels == next(label for label in labels if label != CONTROL)
    kept = ~first | (np.cumsum(first) == 1)
    matrix = scipy.sparse.csr_matrix(measured.X)[kept]
    adata = anndata.AnnData(
        matrix, obs=pd.DataFrame(measured.obs).iloc[np.flatnonzero(kept)], var=pd.DataFrame(measured.var)
    )
    with refused("single cell", "--min-cells 2"):
        replicate_anchor(adata, metrics=["de_wilcoxon_lfc_nmae"], splits=1)


def test_an_anchor_is_the_upper_end_of_a_scale(measured):
    anchor = replicate_anchor(measured, metrics=METRICS, splits=2).values()
    base = {"expr_mse": 4 * anchor["expr_mse"], "delta_pearson": 0.0, "pds_l1": 0.5}
    scores = score(anchor, base, replicate=anchor)
    assert scores.values == pytest.approx(dict.fromkeys(METRICS, 1.0))


def test_results_stand_beside_those_of_a_run(measured, tmp_path):
    measured.write_h5ad(tmp_path / "real.h5ad")
    real, out = str(tmp_path / "real.h5ad"), tmp_path / "out"
    flags = ["--preset", "v2", "--metrics", ",".join(METRICS), "-o", str(out), "-ar", real, "--quiet"]
    assert main(["run", "-ap", real, *flags, "--ceiling", "--anchor", "--anchor-splits", "2"]) == 0
    meta = json.loads((out / "run_meta.json").read_text())
    mine = {"ceiling_results.csv", "agg_ceiling_results.csv", "anchor_results.csv", "agg_anchor_results.csv"}
    assert set(meta["files"]) == mine | {"results.csv", "agg_results.csv", "metric_aggregation.csv", "run_meta.json"}
    assert {path.name for path in out.iterdir()} == set(meta["files"])
    assert meta["ceiling"]["seeds"] == {"halves": 0}
    assert meta["anchor"]["seeds"]["halves"] == list(split_seeds(0, 2))
    assert meta["inputs"]["pred"] == real
    with open(out / "agg_ceiling_results.csv", newline="") as file:
        rows = {row["metric"]: float(row["ceiling"]) for row in csv.DictReader(file)}
    assert list(rows) == list(METRICS)
    assert math.isnan(rows["expr_mse"])
    ceiling = data_ceiling(real, metrics=METRICS)
    assert rows["pds_l1"] == ceiling.values[""]["pds_l1"]
    with refused("holds these results already", "--force"):
        ceiling.write(out)
    ceiling.write(out, force=True)
    assert {path.name for path in out.iterdir()} == set(meta["files"])
    assert main(["run", "-ap", real, *flags]) == 2
    assert main(["run", "-ap", real, *flags, "--force"]) == 0
    assert not mine & {path.name for path in out.iterdir()}


def test_the_measured_screen_may_stand_alone(measured, tmp_path, capsys):
    measured.write_h5ad(tmp_path / "real.h5ad")
    flags = ["-ar", str(tmp_path / "real.h5ad"), "-o", str(tmp_path / "out"), "--preset", "cell_eval"]
    flags += ["--metrics", "pearson_delta,mse"]
    assert main(["run", *flags]) == 2
    assert "-ap/--adata-pred is required" in capsys.readouterr().err
    assert main(["run", *flags, "--ceiling", "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    assert main(["run", *flags, "--ceiling", "--ceiling-seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["ceiling_results.csv", "agg_ceiling_results.csv"]
    assert told["ceiling"][""]["mse"] is None
    with open(tmp_path / "out" / "agg_ceiling_results.csv", newline="") as file:
        header, row = csv.reader(file)
    assert header == ["pearson_delta", "mse"]
    assert float(row[0]) == told["ceiling"][""]["pearson_delta"]
    with open(tmp_path / "out" / "ceiling_results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert math.isfinite(float(rows[0]["mse"]))
    assert json.loads((tmp_path / "out" / "run_meta.json").read_text())["seeds"] == {"halves": 3}


def test_a_folder_of_another_screen_is_left_alone(measured, tmp_path):
    measured.write_h5ad(tmp_path / "real.h5ad")
    data_ceiling(tmp_path / "real.h5ad", metrics=METRICS).write(tmp_path / "out")
    other = data_ceiling(measured, metrics=METRICS)
    with refused("holds another run"):
        other.write(tmp_path / "out")
    other = dataclasses.replace(other, report=dataclasses.replace(other.report, stamp={**other.report.stamp}))
    other.write(tmp_path / "out", force=True)
    assert json.loads((tmp_path / "out" / "run_meta.json").read_text())["inputs"]["real"] == "AnnData"
