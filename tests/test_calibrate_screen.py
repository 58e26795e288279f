"""Calibration of a whole screen, as a function and on the command line."""

import csv
import json
from typing import Any

import anndata as ad
import jax
import numpy as np
import pytest
import scipy.sparse as sp

from vcjax.calibration import calibrate
from vcjax.cli import main
from vcjax.evaluation import calibrate_screen, make_controls, Reading
from vcjax.io import read_screen, Refusal, resolve_targets, simulate_screen, summarise
from vcjax.metrics import CATALOGUE
from vcjax.weights import CALIBRATED


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_compilation_cache")]

SIZES: dict[str, Any] = {
    "perts": 12,
    "doubles": 0,
    "genes": 80,
    "cells_per_pert": 30,
    "control_cells": 80,
    "programs": 3,
}
READING = Reading(pert_col="target_gene")
METRICS = ["pds_cosine", "expr_mse", "weighted_r2_mean", "delta_pearson", "amplitude_ratio"]


@pytest.fixture(scope="module")
def real():
    return simulate_screen(**SIZES, seed=1).adata


@pytest.fixture(scope="module")
def pred(real):
    rates = sp.csr_matrix(real.X).toarray() * 0.7 + 0.3 * sp.csr_matrix(real.X).toarray().mean(axis=0)
    cells = np.random.default_rng(5).poisson(rates).astype(np.float32)
    return ad.AnnData(sp.csr_matrix(cells), obs=real.obs.copy(), var=real.var.copy())


@pytest.fixture(scope="module")
def found(pred, real):
    return calibrate_screen(real, pred, READING, metrics=METRICS, seeds=(0, 1))


def test_it_is_calibrate_on_the_controls_of_the_screen(found, pred, real):
    screen = read_screen(real, pert_col="target_gene")
    targets = resolve_targets(screen.perts, screen.genes)
    with jax.enable_x64(True):
        sets = make_controls(screen, seeds=(0, 1), target_sum=1e4, targets=targets)
        guess = summarise(read_screen(pred, pert_col="target_gene"), space="lognorm", target_sum=1e4)
        for name in ("pds_cosine", "expr_mse"):
            parts = [calibrate(CATALOGUE[name], one, guess.to_profiles().mean) for one in sets]
            mine = found.of()[name]
            for control, values in mine.values.items():
                expected = np.mean([part.values[control] for part in parts], axis=0)
                np.testing.assert_allclose(values, expected, rtol=1e-9, err_msg=f"{name} {control}")


def test_weights_are_made_of_the_truths_own_half(found, real):
    screen = read_screen(real, pert_col="target_gene")
    targets = resolve_targets(screen.perts, screen.genes)
    with jax.enable_x64(True):
        (one,) = make_controls(screen, seeds=(0,), target_sum=1e4, targets=targets)
        assert one.moments is not None
        weights = CALIBRATED(one.moments, targets=one.truth.targets).values
        duplicate = one.controls["duplicate"].profiles
        expected = CATALOGUE["weighted_r2_mean"](duplicate, one.truth, weights=weights)
    single = calibrate_screen(real, None, READING, metrics=["weighted_r2_mean"], seeds=(0,)).of()["weighted_r2_mean"]
    np.testing.assert_allclose(single.values["duplicate"], np.asarray(expected), rtol=1e-6)
    assert "prediction" not in single.values
    assert np.isnan(single.score)


def test_a_diagnostic_is_left_out_with_the_reason(found):
    assert set(found.left_out) == {"amplitude_ratio"}
    assert "good direction" in found.left_out["amplitude_ratio"]
    assert set(found.of()) == set(METRICS) - {"amplitude_ratio"}
    with pytest.raises(KeyError, match="no context"):
        found.of("elsewhere")


def test_a_replicate_beats_the_mean_by_ranks(found):
    row = found.of()["pds_cosine"]
    assert row.separates
    assert "separates a replicate from the mean" in row.verdict
    assert 0 < row.score
    assert row.score_interval[0] < row.score < row.score_interval[1]


def test_tables_files_and_text(found, tmp_path):
    table = found.to_pandas()
    assert list(table["metric"]) == [name for name in METRICS if name != "amplitude_ratio"]
    assert {"control", "loo_mean", "duplicate", "prediction", "drf", "bds", "score", "verdict"} <= set(table.columns)
    long = found.controls_to_pandas()
    assert len(long) == sum(len(values) for row in found.of().values() for values in row.values.values())
    names = found.write(tmp_path)
    assert names == ("calibration_results.csv", "control_results.csv")
    rows = list(csv.DictReader((tmp_path / names[0]).read_text().splitlines()))
    assert float(rows[0]["duplicate"]) == found.of()["pds_cosine"].mean("duplicate")
    assert len(list(csv.DictReader((tmp_path / names[1]).read_text().splitlines()))) == len(long)
    with pytest.raises(Refusal):
        found.write(tmp_path)
    text = found.summary()
    assert "separates a replicate from the mean" in text
    assert "not calibrated: amplitude_ratio" in text
    json.dumps(found.to_dict())


def test_metrics_of_differential_expression_have_controls_too(pred, real):
    names = ["de_sig_jaccard", "expr_mse_degs"]
    found = calibrate_screen(real, pred, READING, metrics=names, seeds=(0,)).of()
    jaccard = found["de_sig_jaccard"]
    assert np.isfinite(jaccard.mean("duplicate"))
    assert np.isfinite(jaccard.mean("prediction"))
    assert jaccard.status["loo_mean"] == "no_differential_expression"
    assert found["expr_mse_degs"].mean("duplicate") < found["expr_mse_degs"].mean("control")


def test_contexts_are_calibrated_apart(pred, real):
    lines = np.tile(["x", "y"], real.n_obs)[: real.n_obs]
    sides = real.copy(), pred.copy()
    for side in sides:
        side.obs["line"] = lines
    reading = Reading(pert_col="target_gene", context_col="line")
    found = calibrate_screen(sides[0], sides[1], reading, metrics=["expr_mse"], seeds=(0,))
    assert found.contexts == ("x", "y")
    assert found.of("x")["expr_mse"].mean("duplicate") != found.of("y")["expr_mse"].mean("duplicate")


def test_a_summary_cannot_be_calibrated(real):
    summary = summarise(read_screen(real, pert_col="target_gene"), space="lognorm", target_sum=1e4)
    with pytest.raises(Refusal, match="Controls are made of measured cells"):
        calibrate_screen(summary, None, READING, metrics=["expr_mse"])


@pytest.fixture(scope="module")
def folder(pred, real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    pred.write_h5ad(folder / "pred.h5ad")
    real.write_h5ad(folder / "real.h5ad")
    return folder


COMMON = ["--pert-col", "target_gene", "--metrics", "pds_cosine,expr_mse"]


def test_controls_and_calibrate_on_the_command_line(folder, tmp_path, capsys):
    real, pred = (str(folder / f"{name}.h5ad") for name in ("real", "pred"))
    assert main(["controls", "-ar", real, *COMMON, "--splits", "2"]) == 0
    alone = capsys.readouterr().out
    assert "replicate" in alone
    assert "prediction" not in alone
    out = tmp_path / "out"
    assert main(["calibrate", "-ap", pred, "-ar", real, *COMMON, "--splits", "2", "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in document["rows"]] == ["pds_cosine", "expr_mse"]
    assert document["rows"][0]["score"] is not None
    assert (out / "calibration_results.csv").exists()
    assert main(["controls", "-ar", real, "--splits", "0"]) == 2


def test_a_page_is_written_and_never_over_another_file(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    sides = ["-ap", str(folder / "pred.h5ad"), "-ar", str(folder / "real.h5ad")]
    page = tmp_path / "page.html"
    command = ["run", *sides, *COMMON, "--controls", "1", "-o", str(tmp_path / "out"), "--html", str(page), "--quiet"]
    assert main(command) == 0
    text = page.read_text()
    for word in ("Where the model lies", "Size of the effects", f"{SIZES['genes']} genes", "separates a replicate"):
        assert word in text
    before = page.stat().st_mtime_ns
    assert main(["calibrate", *sides, *COMMON, "--splits", "1", "--html", str(page)]) == 2
    assert "exists" in capsys.readouterr().err
    assert page.stat().st_mtime_ns == before


def test_run_takes_controls_and_intervals(folder, tmp_path, capsys):
    paths = ["-ap", str(folder / "pred.h5ad"), "-ar", str(folder / "real.h5ad"), "-o", str(tmp_path / "out")]
    assert main(["run", *paths, *COMMON, "--controls", "1", "--ci", "50"]) == 0
    printed = capsys.readouterr().out
    assert "95% interval" in printed
    assert "What metrics are worth" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"calibration_results.csv", "control_results.csv", "interval_results.csv", "results.csv"} <= names
    meta = json.loads((tmp_path / "out" / "run_meta.json").read_text())
    assert set(meta["files"]) == names
    assert main(["run", *paths, *COMMON, "--force", "--quiet"]) == 0
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert "calibration_results.csv" not in left  # of another run
    for wrong in (["--ci", "0"], ["--controls", "0"], ["--ci-level", "2"]):
        assert main(["run", *paths, *COMMON, *wrong]) == 2
