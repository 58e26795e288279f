"""Intervals of a report's scores."""

import csv
import dataclasses
import json
import math
from typing import Any

import jax
import numpy as np
import pytest

from vcjax import comparison
from vcjax.evaluation import evaluate, with_intervals
from vcjax.io import simulate_screen


METRICS = ["expr_mse", "pds_cosine", "expr_mse_unbiased_capped", "expr_distance_unbiased"]
RATIO = "expr_mse_unbiased_capped_norm"
SIZES: dict[str, Any] = {
    **{"perts": 9, "doubles": 0, "genes": 50, "cells_per_pert": 40, "control_cells": 80, "programs": 2},
    **{"effect_probability": 0.5, "effect_scale": 1.0},  # effects that are larger than their noise
}


@pytest.fixture(scope="module")
def report():
    screen, other = (simulate_screen(**SIZES, seed=seed).adata for seed in (1, 2))
    other.obs["target_gene"] = screen.obs["target_gene"].to_numpy()
    return evaluate(other, screen, preset="v2", metrics=[*METRICS, RATIO, "delta_pearson"], pert_col="target_gene")


def test_an_interval_is_the_bootstrap_of_the_mean(report):
    found = {row.metric: row for row in with_intervals(report, 200, seed=3, level=0.9).intervals}
    for name in ("expr_mse", "delta_pearson"):
        with jax.enable_x64(True):
            same = comparison.confidence_interval(report.values(name), key=jax.random.key(3), samples=200, level=0.9)
        assert (found[name].low, found[name].high) == (float(same.low), float(same.high))
        assert found[name].value == pytest.approx(report.score(name), rel=1e-12)
        assert found[name].low <= found[name].value <= found[name].high
        assert found[name].used == found[name].total == 9


def test_a_ratio_of_sums_is_drawn_from_its_parts(report):
    found = {row.metric: row for row in with_intervals(report, 200).intervals}[RATIO]
    parts = [report.values(name) for name in METRICS[2:]]
    assert found.value == pytest.approx(parts[0].sum() / parts[1].sum(), rel=1e-9)
    assert found.value == pytest.approx(report.score(RATIO), rel=1e-9)
    assert found.low < found.value < found.high


def test_the_carrier_is_the_perturbation_that_moves_the_score_most(report):
    found = {row.metric: row for row in with_intervals(report, 50).intervals}["expr_mse"]
    values, names = report.values("expr_mse"), report.perturbations()
    without = (values.sum() - values) / (len(values) - 1)
    most = int(np.argmax(np.abs(without - values.mean())))
    assert found.carrier == names[most]
    assert found.without_carrier == pytest.approx(without[most])


def test_undefined_values_take_no_part(report):
    value = report.value.copy()
    value[np.flatnonzero(report.metric == "expr_mse")[:2]] = np.nan
    holed = with_intervals(dataclasses.replace(report, value=value), 50).intervals
    row = {row.metric: row for row in holed}["expr_mse"]
    assert (row.used, row.total) == (7, 9)
    gone = dataclasses.replace(report, value=np.where(report.metric == "expr_mse", np.nan, report.value))
    row = {row.metric: row for row in with_intervals(gone, 50).intervals}["expr_mse"]
    assert math.isnan(row.value)
    assert math.isnan(row.low)


def test_files_text_and_json_show_the_intervals(report, tmp_path):
    made = with_intervals(report, 50)
    assert "95% interval" in made.summary()
    assert "95% interval" not in report.summary()
    names = made.write(tmp_path)
    assert "interval_results.csv" in names
    rows = list(csv.DictReader((tmp_path / "interval_results.csv").read_text().splitlines()))
    assert [row["metric"] for row in rows] == list(made.metrics)
    assert float(rows[0]["low"]) == made.intervals[0].low
    assert len(json.loads(json.dumps(made.to_dict()))["intervals"]) == len(made.metrics)
    assert json.loads((tmp_path / "run_meta.json").read_text())["intervals"]["samples"] == 50
    with pytest.raises(ValueError, match="samples"):
        with_intervals(report, 0)
