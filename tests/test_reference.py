"""The peers' own numbers, on stored pairs of screens, through `evaluate` and through the files of the command line."""

import csv
import json

import numpy as np
import pytest
from helpers import shared_path

from vcjax.cli import main
from vcjax.evaluation import evaluate


PAIRS = ("pair_24x400", "papalexi_halves")
V2 = (
    *("expr_mae", "expr_mse", "delta_mae", "delta_mse", "delta_pearson", "pds_l1", "pds_l2", "pds_cosine"),
    *("expr_mse_unbiased", "expr_mse_unbiased_capped", "expr_distance_unbiased", "expr_real_mass_ratio"),
)
V1 = ("pearson_delta", "mse", "mae", "mse_delta", "mae_delta")
V1_RANKS = ("discrimination_score_l1", "discrimination_score_l2", "discrimination_score_cosine")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def long_values(path, metric):
    return {row["perturbation"]: float(row["value"]) for row in rows(path) if row["metric"] == metric}


def assert_same(ours, theirs, rtol, atol=0.0):
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=rtol, atol=atol, equal_nan=True)


@pytest.fixture(scope="module", params=PAIRS)
def folder(request):
    return shared_path(f"reference/{request.param}")


@pytest.fixture(scope="module")
def v2_report(folder):
    return evaluate(folder / "pred.h5ad", folder / "real.h5ad", preset="v2")


@pytest.fixture(scope="module")
def v1_report(folder):
    return evaluate(folder / "pred_lognorm.h5ad", folder / "real_lognorm.h5ad", preset="cell_eval")


def by_label(report, metric):
    return dict(zip(report.perturbations(), report.values(metric).tolist(), strict=True))


@pytest.mark.parametrize("metric", V2)
def test_v2_values_of_every_perturbation(folder, v2_report, metric):
    ours, theirs = by_label(v2_report, metric), long_values(folder / "v2_full.csv", metric)
    assert len(theirs) == len(v2_report.perturbations())
    assert_same(ours, theirs, rtol=0 if metric.startswith("pds") else 1e-10, atol=1e-14)


def test_v2_aggregates(folder, v2_report):
    theirs = {row["metric"]: row for row in rows(folder / "v2_full_agg.csv") if "wilcoxon" not in row["metric"]}
    assert set(theirs) == set(v2_report.metrics)
    for row in v2_report.aggregates:
        assert row.agg == theirs[row.metric]["agg"]
        np.testing.assert_allclose(row.value, float(theirs[row.metric]["mean"]), rtol=1e-10, err_msg=row.metric)


@pytest.mark.parametrize("metric", V1)
def test_v1_values_of_every_perturbation(folder, v1_report, metric):
    theirs = {row["perturbation"]: float(row[metric]) for row in rows(folder / "v1_full.csv")}
    assert_same(by_label(v1_report, metric), theirs, rtol=1e-6)


@pytest.mark.parametrize("metric", V1_RANKS)
def test_v1_ranks_are_exact(folder, v1_report, metric):
    theirs = {row["perturbation"]: float(row[metric]) for row in rows(folder / "v1_full.csv")}
    # The score is 1 - rank / n: equal ranks, the last bit of that division aside.
    assert_same(by_label(v1_report, metric), theirs, rtol=0, atol=1e-15)


def test_v2_files_of_the_command_line(folder, tmp_path, capsys):
    out = tmp_path / "out"
    pair = ("-ap", f"{folder}/pred.h5ad", "-ar", f"{folder}/real.h5ad")
    assert main(["run", *pair, "--preset", "v2", "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    for metric in V2:
        assert_same(long_values(out / "results.csv", metric), long_values(folder / "v2_full.csv", metric), 1e-10, 1e-14)
    means = next(row for row in rows(out / "agg_results.csv") if row["statistic"] == "mean")
    for row in rows(folder / "v2_full_agg.csv"):
        if "wilcoxon" not in row["metric"]:
            np.testing.assert_allclose(
                float(means[row["metric"]]), float(row["mean"]), rtol=1e-10, err_msg=row["metric"]
            )
    cohorts = {row["metric"]: row for row in rows(out / "metric_aggregation.csv")}
    assert cohorts["expr_mse_unbiased_capped_norm"]["agg"] == "ratio_of_sums"
    assert int(cohorts["pds_l1"]["n_used"]) == len(rows(folder / "v1_full.csv"))


def test_v1_files_of_the_command_line_have_the_layout_of_cell_eval(folder, tmp_path):
    out = tmp_path / "out"
    pair = ("-ap", f"{folder}/pred_lognorm.h5ad", "-ar", f"{folder}/real_lognorm.h5ad")
    assert main(["run", *pair, "--preset", "cell_eval", "-o", str(out), "--quiet"]) == 0
    for ours, theirs in (("results.csv", "v1_full.csv"), ("agg_results.csv", "v1_full_agg.csv")):
        ours, theirs = rows(out / ours), rows(folder / theirs)
        assert list(ours[0]) == [name for name in theirs[0] if name in ours[0]]
        assert [next(iter(row.values())) for row in ours] == [next(iter(row.values())) for row in theirs]
        for our_row, their_row in zip(ours, theirs, strict=True):
            for name in (*V1, *V1_RANKS):
                np.testing.assert_allclose(
                    *(float(our_row[name]), float(their_row[name])),
                    rtol=1e-6,
                    atol=1e-15,
                    err_msg=f"{name} {next(iter(our_row.values()))}",
                )
    meta = json.loads((out / "run_meta.json").read_text())
    assert meta["not_provided"] == ["pearson_edistance", "clustering_agreement"]
