"""Scores between a baseline and perfection, or a replicate."""

import csv
import math

import numpy as np
import pytest
from helpers import shared_path
from screens import refused

from vcjax.cli import main
from vcjax.evaluation import read_aggregates, score


NAN = float("nan")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("pair", ["pair_24x400", "papalexi_halves"])
def test_the_scores_of_cell_eval(pair, tmp_path):
    folder = shared_path(f"reference/{pair}")
    files = ("-i", str(folder / "v1_full_agg.csv"), "-I", str(folder / "v1_baseline_agg.csv"))
    assert main(["score", *files, "--preset", "cell_eval", "-o", str(tmp_path / "score.csv"), "--quiet"]) == 0
    ours, theirs = rows(tmp_path / "score.csv"), rows(folder / "v1_score.csv")
    assert [row["metric"] for row in ours] == [row["metric"] for row in theirs]
    for our_row, their_row in zip(ours, theirs, strict=True):
        values = (float(row["from_baseline"]) for row in (our_row, their_row))
        np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-15, err_msg=our_row["metric"])


@pytest.mark.parametrize(
    ("metric", "value", "base", "expected"),
    [
        # An error of 0, 1/2, 1, 3/2, 2, 3 and 10 times the baseline's.
        *(("expr_mse", x * 0.2, 0.2, s) for x, s in ((0, 1), (0.5, 0.5), (1, 0), (1.5, -0.625), (2, -1.5), (3, -4))),
        ("expr_mse", 2.0, 0.2, -6.0),
        ("expr_mse", NAN, 0.2, -6.0),
        ("de_wilcoxon_lfc_nmae", 3.0, 1.0, -2.0),
        ("de_wilcoxon_lfc_nmae", 9.0, 1.0, -6.0),
        ("expr_mse_unbiased_capped_norm", -0.5, 1.0, 1.0),
        ("expr_mse_unbiased_capped_norm", 1.5, 1.0, 0.0),
        ("pds_cosine", 0.75, 0.5, 0.5),
        ("pds_cosine", 0.25, 0.5, -0.5),
        ("pds_cosine", NAN, 0.5, -1.0),
        ("pds_l1", 0.25, 0.5, 0.0),
        ("de_wilcoxon_sig_recall", NAN, 0.5, 0.0),
        ("de_wilcoxon_direction_coverage", 3.0, 1.5, 1.0),
        ("de_wilcoxon_direction_coverage", 30.0, 1.5, 2.0),
        ("de_wilcoxon_direction_yield", -1.0, -0.5, -1.0),
    ],
)
def test_the_rules_of_cell_eval2(metric, value, base, expected):
    assert score({metric: value}, {metric: base}).values[metric] == pytest.approx(expected)


def test_a_replicate_scores_one_and_beyond():
    base, anchor = {"pds_cosine": 0.5, "expr_mse_unbiased_capped_norm": 0.99}, {"pds_cosine": 0.9}
    anchor["expr_mse_unbiased_capped_norm"] = 0.04
    assert dict(score(anchor, base, replicate=anchor).values) == pytest.approx(dict.fromkeys(anchor, 1.0))
    perfect = score({"pds_cosine": 1.0, "expr_mse_unbiased_capped_norm": 0.0}, base, replicate=anchor)
    assert perfect.values["pds_cosine"] == pytest.approx(1.25)
    assert perfect.values["expr_mse_unbiased_capped_norm"] == 1.0  # cut at 1
    assert perfect.average == pytest.approx(1.125)
    with refused("replicate"):
        score({"mse": 1.0}, {"mse": 2.0}, replicate={"mse": 0.5}, preset="cell_eval")


def test_without_a_floor_a_bad_prediction_shows():
    user, base = {"mse": 3.0, "pearson_delta": NAN}, {"mse": 1.0, "pearson_delta": 0.5}
    assert score(user, base, preset="cell_eval").values == {"mse": 0.0, "pearson_delta": 0.0}
    assert score(user, base, preset="cell_eval", clipped=False).values["mse"] == -2.0


def test_a_baseline_without_room():
    user, base = {"expr_mse": 0.5, "expr_mae": 0.5}, {"expr_mse": 0.0, "expr_mae": 1.0}
    found = score(user, base)
    assert found.dropped == ("expr_mse",)
    assert (found.values, found.average) == ({"expr_mae": 0.5}, 0.5)
    with refused("no room", "expr_mae", "--base-input"):
        score(user, {"expr_mse": 1.0, "expr_mae": 0.0})
    # cell-eval does not refuse: a score that cannot be divided is none.
    assert score({"mse": 1.0, "mae": 1.0}, {"mse": 0.0, "mae": 2.0}, preset="cell_eval").values["mse"] == 0


def test_aggregates_are_read_in_either_layout(tmp_path):
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    wide.write_text("statistic,pds_l1,expr_mse\ncount,3,3\nmean,0.5,\n")
    long.write_text("metric,mean,agg\npds_l1,0.5,mean\nexpr_mse,NaN,mean\n")
    for path in (wide, long):
        found = read_aggregates(path)
        assert found["pds_l1"] == 0.5
        assert math.isnan(found["expr_mse"])


def test_what_cannot_be_scored_is_refused(tmp_path, capsys):
    path = tmp_path / "results.csv"
    path.write_text("perturbation,mse\nA,1\n")
    with refused("no aggregates", "agg_results.csv"):
        read_aggregates(path)
    with refused("no aggregates"):
        read_aggregates(tmp_path / "absent.csv")
    with refused("different metrics", "mae"):
        score({"mse": 1.0, "mae": 1.0}, {"mse": 1.0}, preset="cell_eval")
    with refused("No metric can be scored", "--preset"):
        score({"mse": 1.0}, {"mse": 1.0}, preset="v2")
    assert main(["score", "-i", str(path), "-I", str(path), "-o", str(tmp_path / "out.csv")]) == 2
    assert "no aggregates" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
