"""The peers' own numbers, on stored pairs of screens, through `evaluate` and through the files of the command line."""

import csv
import json
import math

import numpy as np
import pytest
from helpers import shared_path

from vcjax.cli import main
from vcjax.evaluation import evaluate, PRESETS


PAIRS = ("pair_24x400", "papalexi_halves")
V2 = PRESETS["v2"].profiles["full"]
V1 = tuple(name for name in PRESETS["cell_eval"].profiles["full"] if name != "clustering_agreement")
V1_PROFILES = ("pearson_delta", "mse", "mae", "mse_delta", "mae_delta")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text) if text else math.nan


def long_values(path):
    """Values by metric and perturbation; a perturbation that the file leaves out is NaN."""
    table = rows(path)
    perts = list(dict.fromkeys(row["perturbation"] for row in table))
    values = {name: dict.fromkeys(perts, math.nan) for name in dict.fromkeys(row["metric"] for row in table)}
    for row in table:
        values[row["metric"]][row["perturbation"]] = number(row["value"])
    return values


def wide_values(path):
    table = rows(path)
    return {name: {row["perturbation"]: number(row[name]) for row in table} for name in list(table[0])[1:]}


def by_label(report, metric):
    values = report.values(metric)
    perts = report.perturbations()
    return dict(zip(perts, np.broadcast_to(values, len(perts)).tolist(), strict=True))


def assert_same(ours, theirs, rtol, what, atol=1e-15):
    """Equal, undefined in the same places included."""
    assert set(ours) == set(theirs)
    np.testing.assert_allclose([ours[name] for name in theirs], list(theirs.values()), rtol, atol, err_msg=what)


def rtol_v1(metric):
    # Profiles that cell-eval averages, and distances that it takes, in float32.
    return 1e-6 if metric in (*V1_PROFILES, "pearson_edistance") else 1e-13


@pytest.fixture(scope="module", params=PAIRS)
def folder(request):
    return shared_path(f"reference/{request.param}")


@pytest.fixture(scope="module")
def v2_report(folder):
    return evaluate(folder / "pred.h5ad", folder / "real.h5ad", preset="v2")


@pytest.fixture(scope="module")
def v1_report(folder):
    return evaluate(folder / "pred_lognorm.h5ad", folder / "real_lognorm.h5ad", preset="cell_eval")


def test_v2_values_of_every_perturbation(folder, v2_report):
    theirs = long_values(folder / "v2_full.csv")
    assert set(theirs) == {name for name in V2 if name not in PRESETS["v2"].ratios}
    for metric, values in theirs.items():
        assert_same(by_label(v2_report, metric), values, 0 if metric.startswith("pds") else 1e-10, metric, atol=1e-14)


def test_v2_aggregates(folder, v2_report):
    theirs = {row["metric"]: row for row in rows(folder / "v2_full_agg.csv")}
    assert set(theirs) == set(v2_report.metrics) == set(V2)
    for row in v2_report.aggregates:
        assert row.agg == theirs[row.metric]["agg"]
        np.testing.assert_allclose(row.value, float(theirs[row.metric]["mean"]), rtol=1e-10, err_msg=row.metric)


def test_the_challenge_of_2026(folder, tmp_path):
    pair = ("-ap", f"{folder}/pred.h5ad", "-ar", f"{folder}/real.h5ad")
    assert main(["run", *pair, "--preset", "vcc2026", "-o", str(tmp_path), "--quiet"]) == 0
    ours, theirs = long_values(tmp_path / "results.csv"), long_values(folder / "v2_vcc2026.csv")
    assert set(ours) == set(theirs)
    for metric, values in theirs.items():
        assert_same(ours[metric], values, 1e-10, metric, atol=1e-14)
    means = next(row for row in rows(tmp_path / "agg_results.csv") if row["statistic"] == "mean")
    for row in rows(folder / "v2_vcc2026_agg.csv"):
        np.testing.assert_allclose(float(means[row["metric"]]), float(row["mean"]), rtol=1e-10, err_msg=row["metric"])


def test_the_challenge_of_2025(folder):
    pair = (folder / "pred_lognorm.h5ad", folder / "real_lognorm.h5ad")
    report = evaluate(*pair, preset="vcc2025", metrics=list(CHALLENGE_OF_2025))
    means = {row.metric: row.value for row in report.aggregates}
    for label, *theirs in np.reshape(CELL_EVAL_066[folder.name].split(), (-1, 1 + len(CHALLENGE_OF_2025))):
        for metric, value in zip(CHALLENGE_OF_2025, theirs, strict=True):
            ours = means[metric] if label == "mean" else by_label(report, metric)[label]
            np.testing.assert_allclose(ours, float(value), rtol=rtol_v1(metric), err_msg=f"{metric} {label}")


# The profiles "vcc" and "minimal" of the first challenge, by cell-eval 0.6.6 with pdex 0.1.27 on the log-normalised
# pairs: its means over all perturbations, and some of these.
CHALLENGE_OF_2025 = (
    *("mae", "discrimination_score_l1", "overlap_at_N", "precision_at_N", "de_nsig_counts_real", "de_nsig_counts_pred"),
    *("pearson_delta", "mse"),
)
CELL_EVAL_066 = {
    "pair_24x400": """
        mean 0.2661682969580094 0.9270833333333334 0.3942937965639956 0.2723294618033227
            88.41666666666667 186.375 0.42596886431177455 0.1292286322762569
        GENE0000 0.23722843825817108 0.9583333333333334 0.2 0.10218978102189781
            35 137 0.3068748712539673 0.09587692469358444
        GENE0005 0.25095149874687195 1 0.6641509433962264 0.6637554585152838
            265 229 0.5155772566795349 0.11723139137029648
        GENE0012 0.3376438021659851 0.375 0.5959302325581395 0.6053811659192825
            344 223 0.5679646730422974 0.1939580887556076
        GENE0018 0.30929237604141235 0.9583333333333334 0.32786885245901637 0.23626373626373626
            61 182 0.42578157782554626 0.17017127573490143
        GENE0023 0.22156129777431488 1 0.1111111111111111 0.02857142857142857
            9 140 0.03721645474433899 0.08468078821897507
    """,
    "papalexi_halves": """
        mean 0.1442148780822754 0.76 0.19358095238095235 0.16520781098284604
            5.28 5.36 0.2360815168917179 0.046529144868254664
        BRD4 0.11329951882362366 1 0 0 1 2 0.4296417832374573 0.024735523387789726
        IFNGR2 0.13430017232894897 0.92 0.68 0.6521739130434783
            25 23 0.8000022768974304 0.035001665353775024
        MARCH8 0.16286838054656982 0.4 0 0 1 0 -0.2399587780237198 0.05632931366562843
        SPI1 0.34126055240631104 0.12 0 0 4 0 0.10008104145526886 0.24314643442630768
        STAT2 0.12585069239139557 0.96 0.5 0 2 1 0.24512659013271332 0.03157694637775421
    """,
}


def test_v1_values_of_every_perturbation(folder, v1_report):
    theirs = wide_values(folder / "v1_full.csv")
    assert set(theirs) == set(v1_report.metrics) == set(V1)
    for metric, values in theirs.items():
        assert_same(by_label(v1_report, metric), values, rtol_v1(metric), metric)


def test_v2_files_of_the_command_line(folder, tmp_path, capsys):
    out = tmp_path / "out"
    pair = ("-ap", f"{folder}/pred.h5ad", "-ar", f"{folder}/real.h5ad")
    assert main(["run", *pair, "--preset", "v2", "--profile", "full", "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    ours, theirs = long_values(out / "results.csv"), long_values(folder / "v2_full.csv")
    assert set(ours) == set(theirs)
    for metric, values in theirs.items():
        assert_same(ours[metric], values, 1e-10, metric, atol=1e-14)
    means = next(row for row in rows(out / "agg_results.csv") if row["statistic"] == "mean")
    for row in rows(folder / "v2_full_agg.csv"):
        np.testing.assert_allclose(float(means[row["metric"]]), float(row["mean"]), rtol=1e-10, err_msg=row["metric"])
    cohorts = {row["metric"]: row for row in rows(out / "metric_aggregation.csv")}
    assert cohorts["expr_mse_unbiased_capped_norm"]["agg"] == "ratio_of_sums"
    assert int(cohorts["pds_l1"]["n_used"]) == len(rows(folder / "v1_full.csv"))


def test_v1_files_of_the_command_line_are_those_of_cell_eval(folder, tmp_path):
    out = tmp_path / "out"
    pair = ("-ap", f"{folder}/pred_lognorm.h5ad", "-ar", f"{folder}/real_lognorm.h5ad")
    assert main(["run", *pair, "--preset", "cell_eval", "-o", str(out), "--quiet"]) == 0
    for ours, theirs in (("results.csv", "v1_full.csv"), ("agg_results.csv", "v1_full_agg.csv")):
        ours, theirs = rows(out / ours), rows(folder / theirs)
        assert list(ours[0]) == list(theirs[0])
        for our_row, their_row in zip(ours, theirs, strict=True):
            label = next(iter(their_row))
            assert our_row[label] == their_row[label]
            for name in V1:
                # An empty field, where there is nothing to say, is not the same as NaN.
                assert bool(our_row[name]) == bool(their_row[name]), (name, our_row[label])
                pair = number(our_row[name]), number(their_row[name])
                # The quartiles of numbers that differ in the last digits, and the spread of numbers that do not.
                np.testing.assert_allclose(
                    *pair, rtol=max(rtol_v1(name), 1e-12), atol=2e-15, err_msg=f"{name} {our_row[label]}"
                )
    meta = json.loads((out / "run_meta.json").read_text())
    assert meta["not_provided"] == ["clustering_agreement"]


def test_the_baseline_of_cell_eval_scores_what_it_says(folder, tmp_path):
    command = ["baseline", "-ar", f"{folder}/real_lognorm.h5ad", "--preset", "cell_eval", "--quiet"]
    assert main([*command, "-o", str(tmp_path)]) == 0
    ours, theirs = rows(tmp_path / "agg_results.csv"), rows(folder / "v1_baseline_agg.csv")
    means = [next(row for row in table if row["statistic"] == "mean") for table in (ours, theirs)]
    assert list(means[0]) == list(means[1])
    for name in V1:
        pair = [number(row[name]) for row in means]
        if name == "pearson_edistance":
            # One cell for all perturbations is equally far from everything: cell-eval correlates rounding errors.
            assert math.isnan(pair[0])
            continue
        # Fold changes of means in float32 or float64: two genes may change places in a rank correlation.
        rtol = 1e-4 if name == "de_spearman_lfc_sig" else 1e-6
        np.testing.assert_allclose(*pair, rtol=rtol, atol=1e-9, err_msg=name)
