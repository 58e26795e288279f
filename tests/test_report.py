"""Statistics and files of a report, from tables made by hand."""

import csv
import json
import math
import os

import numpy as np
import pytest

from vcjax.evaluation import PRESETS, Report
from vcjax.evaluation._aggregate import aggregate
from vcjax.io import Refusal


NAN = float("nan")


def make_report(values, *, status=None, context: str | tuple[str, ...] = "", preset="v2", inputs=None):
    """A report of `values[metric] = one value a perturbation`, for one context or, with a tuple, several."""
    preset = PRESETS[preset]
    rows = []
    for label in (context,) if isinstance(context, str) else context:
        for metric, column in values.items():
            panel = preset.metrics[metric].level == "panel"
            for i, value in enumerate(column):
                word = (status or {}).get((metric, i), "ok")
                rows.append(("" if panel else f"p{i}", label, metric, value, word, 10 + i, 20 + i, preset.source))
    columns = list(zip(*rows, strict=True))
    kinds = (object, object, object, float, object, int, int, object)
    return Report(
        *(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)),
        metrics={name: preset.metrics[name] for name in values},
        preset=preset,
        stamp={"inputs": inputs or {}, "notes": ["a note"], "errors": {}, "preset": preset.name},
    )


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_statistics_of_finite_values_leave_out_nan():
    row = aggregate(
        np.array([1.0, NAN, 3.0, 8.0, 0.0]),
        np.array([0, 0, 0, 0, 1], bool),
        metric="m",
        context="",
        statistics="finite",
    )
    assert (row.count, row.null_count, row.n_used, row.n_total) == (4, 1, 3, 5)
    assert (row.value, row.mean, row.min, row.median, row.max) == (4.0, 4.0, 1.0, 3.0, 8.0)
    np.testing.assert_allclose(row.std, np.std([1, 3, 8], ddof=1))


def test_statistics_of_describe_let_nan_spread_and_sort_last():
    row = aggregate(np.array([4.0, NAN, 1.0, 3.0]), np.zeros(4, bool), metric="m", context="", statistics="describe")
    assert (row.count, row.null_count, row.n_used) == (4, 0, 3)
    assert math.isnan(row.mean)
    assert math.isnan(row.std)
    # Sorted 1, 3, 4, NaN: the places 0.75, 1.5 and 2.25 are rounded to 1, 2 and 2.
    assert (row.min, row.q25, row.median, row.q75, row.max) == (1.0, 3.0, 4.0, 4.0, 4.0)


@pytest.mark.parametrize("statistics", ["finite", "describe"])
def test_statistics_of_nothing_are_undefined(statistics):
    row = aggregate(np.array([NAN]), np.array([True]), metric="m", context="", statistics=statistics)
    assert (row.count, row.null_count, row.n_used) == (0, 1, 0)
    assert math.isnan(row.mean)
    assert math.isnan(row.max)


def test_values_scores_and_tables():
    report = make_report({"pds_l1": [1.0, 0.5, NAN], "expr_mse_unbiased_capped_norm": [0.75]})
    np.testing.assert_array_equal(report.values("pds_l1"), [1.0, 0.5, NAN])
    assert report.perturbations() == ("p0", "p1", "p2")
    assert report.score("pds_l1") == 0.75
    assert report.score("expr_mse_unbiased_capped_norm") == 0.75
    with pytest.raises(KeyError, match="expr_mae"):
        report.values("expr_mae")
    table, statistics = report.to_pandas(), report.aggregate()
    assert table.shape == (4, 8)
    assert list(statistics["agg"]) == ["mean", "ratio_of_sums"]
    assert list(statistics["n_used"]) == [2, 3]
    text = report.summary()
    assert "pds_l1" in text
    assert "2/3" in text
    assert "a note" in text


def test_long_files(tmp_path):
    values = {"pds_l1": [1.0, NAN], "expr_mae": [0.5, 0.25], "expr_mse_unbiased_capped_norm": [0.75]}
    report = make_report(values, status={("pds_l1", 1): "too_few_perts"})
    names = report.write(tmp_path / "out")
    assert set(names) == {"results.csv", "agg_results.csv", "metric_aggregation.csv", "run_meta.json"}
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    table = read(tmp_path / "out" / "results.csv")
    assert table[0] == ["perturbation", "metric", "value", "status", "n_pred", "n_real", "version"]
    assert table[2] == ["p1", "pds_l1", "NaN", "too_few_perts", "11", "21", "cell-eval2 0.20.0"]
    assert len(table) == 5  # a number about the panel has no row a perturbation
    statistics = read(tmp_path / "out" / "agg_results.csv")
    assert statistics[0] == ["statistic", "expr_mae", "expr_mse_unbiased_capped_norm", "pds_l1"]
    assert [row[0] for row in statistics[1:]] == ["count", "null_count", "mean", "std", "min", "max", "median"]
    assert statistics[1] == ["count", "2.0", "NaN", "2.0"]
    assert statistics[3] == ["mean", "0.375", "0.75", "1.0"]
    cohorts = read(tmp_path / "out" / "metric_aggregation.csv")
    assert cohorts[3] == ["pds_l1", "mean", "1.0", "1", "2"]
    meta = json.loads((tmp_path / "out" / "run_meta.json").read_text())
    assert meta["layout"] == "long"
    assert meta["files"] == list(names)


def test_wide_files_tell_missing_from_undefined(tmp_path):
    report = make_report(
        {"mae": [0.5, NAN, NAN], "pearson_delta": [1.0, 0.0, 0.5]}, status={("mae", 1): "missing"}, preset="cell_eval"
    )
    report.write(tmp_path)
    assert read(tmp_path / "results.csv") == [
        ["perturbation", "mae", "pearson_delta"],
        ["p0", "0.5", "1.0"],
        ["p1", "", "0.0"],
        ["p2", "NaN", "0.5"],
    ]
    statistics = read(tmp_path / "agg_results.csv")
    assert [row[0] for row in statistics[1:]] == [
        "count",
        "null_count",
        "mean",
        "std",
        "min",
        "25%",
        "50%",
        "75%",
        "max",
    ]
    assert [row[1] for row in statistics[1:4]] == ["2.0", "1.0", "NaN"]


def test_a_number_about_the_panel_is_repeated_unless_it_is_a_ratio(tmp_path):
    values = {"de_wilcoxon_nsig_spearman": [0.25], "pds_l1": [1.0, 0.5], "expr_mse_unbiased_capped_norm": [0.75]}
    report = make_report(values)
    report.write(tmp_path / "long")
    table = [row[:3] for row in read(tmp_path / "long" / "results.csv")[1:]]
    assert table[:2] == [["p0", "de_wilcoxon_nsig_spearman", "0.25"], ["p1", "de_wilcoxon_nsig_spearman", "0.25"]]
    assert not any(row[1] == "expr_mse_unbiased_capped_norm" for row in table)
    row, _, ratio = report.aggregates
    assert (row.agg, row.count, row.mean, row.std, row.min, row.median) == ("mean", 2, 0.25, 0.0, 0.25, 0.25)
    assert (ratio.agg, ratio.value) == ("ratio_of_sums", 0.75)
    assert math.isnan(ratio.std)
    wide = make_report({"de_spearman_sig": [0.25], "mae": [1.0, 2.0]}, preset="cell_eval")
    wide.write(tmp_path / "wide")
    assert read(tmp_path / "wide" / "results.csv")[1:] == [["p0", "0.25", "1.0"], ["p1", "0.25", "2.0"]]


def test_cell_eval_has_no_row_where_nothing_is_significant(tmp_path):
    status = {("de_sig_genes_recall", 0): "no_significant_genes", ("pr_auc", 0): "one_class"}
    values = {"de_sig_genes_recall": [NAN, 0.5], "pr_auc": [NAN, 0.5]}
    report = make_report(values, status=status, preset="cell_eval")
    report.write(tmp_path)
    assert read(tmp_path / "results.csv")[1] == ["p0", "", "NaN"]
    recall, area = report.aggregates
    assert (recall.count, recall.null_count, recall.mean) == (1, 1, 0.5)
    assert (area.count, area.null_count) == (2, 0)
    assert math.isnan(area.mean)


def test_files_of_contexts(tmp_path):
    report = make_report({"pds_l1": [1.0, 0.5]}, context=("HepG2/C3A", "HepG2-C3A", "K562"))
    report.write(tmp_path)
    meta = json.loads((tmp_path / "run_meta.json").read_text())
    assert meta["contexts"] == {
        "HepG2/C3A": "HepG2-C3A_results.csv",
        "HepG2-C3A": "HepG2-C3A-2_results.csv",
        "K562": "K562_results.csv",
    }
    assert all((tmp_path / name).is_file() for name in meta["contexts"].values())
    assert read(tmp_path / "K562_agg_results.csv")[3] == ["mean", "0.75"]


def test_another_run_is_not_mixed_with(tmp_path):
    first = make_report({"pds_l1": [1.0]}, context=("A", "B"))
    first.write(tmp_path)
    (tmp_path / "mine_results.csv").write_text("not of a run\n")
    second = make_report({"pds_l1": [0.5]})
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Refusal, match="another run"):
        second.write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    second.write(tmp_path, force=True)
    # The files of the run that was replaced are gone; a file that it did not list stays.
    expected = ["agg_results.csv", "metric_aggregation.csv", "mine_results.csv", "results.csv", "run_meta.json"]
    assert sorted(os.listdir(tmp_path)) == expected


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    report = make_report({"pds_l1": [1.0]})
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_outputs_do_not_fall_on_inputs(tmp_path):
    store = tmp_path / "real.zarr"
    store.mkdir()
    report = make_report({"pds_l1": [1.0]}, inputs={"pred": "AnnData", "real": str(store)})
    with pytest.raises(Refusal, match="inside an input"):
        report.write(store / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="is a file"):
        report.write(tmp_path / "file")
    with pytest.raises((ValueError, TypeError), match="layout"):
        report.write(tmp_path / "out", "tall")  # pyright: ignore[reportArgumentType]
    assert os.listdir(store) == []


def test_a_failed_metric_is_named():
    report = make_report(
        {"pds_l1": [NAN, NAN], "expr_mae": [1.0, 2.0]}, status={("pds_l1", i): "error" for i in range(2)}
    )
    assert report.failed == ("pds_l1",)
    assert report.to_dict()["rows"][0]["value"] is None
    json.dumps(report.to_dict(), allow_nan=False)
