"""The command line: exit codes, what is written and what is not, and what is said about mistakes."""

import json
import os
import subprocess
import sys
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import ROOT, shared_path

from vcjax.cli import main
from vcjax.cli._values import byte_count
from vcjax.io import simulate_screen
from vcjax.io._de_test import load_engine


pytestmark = pytest.mark.usefixtures("own_compilation_cache")

SIZES: dict[str, Any] = {
    "perts": 6,
    "doubles": 1,
    "genes": 60,
    "cells_per_pert": 12,
    "control_cells": 30,
    "programs": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    for name, seed in (("real", 1), ("other", 2)):
        simulate_screen(**SIZES, seed=seed).adata.write_h5ad(folder / f"{name}.h5ad")
    real = simulate_screen(**SIZES, seed=1).adata
    dense, obs, var = sp.csr_matrix(real.X).toarray(), pd.DataFrame(real.obs), pd.DataFrame(real.var)
    ad.AnnData(dense[::-1], obs=obs.iloc[::-1], var=var).write_h5ad(folder / "pred.h5ad")
    ad.AnnData(dense[:, ::-1].copy(), obs=obs, var=var).write_h5ad(folder / "other_pair.h5ad")
    dense[3, 5] = np.nan
    ad.AnnData(dense, obs=obs, var=var).write_h5ad(folder / "nan.h5ad")
    return folder


def run(folder, out, *flags, pred="pred.h5ad", real="real.h5ad"):
    """As cell-eval2 does, and without differential expression, unless something else is asked for."""
    flags = flags if "--preset" in flags else (*flags, "--preset", "v2")
    flags = flags if {"--profile", "--metrics"} & set(flags) else (*flags, "--profile", "anndata")
    return main(["run", "-ap", str(folder / pred), "-ar", str(folder / real), "-o", str(out), *flags])


def test_run_writes_the_files_and_prints_a_table(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "pds_cosine" in printed.out
    assert "run_meta.json" in printed.out
    assert "\x1b" not in printed.out + printed.err  # no colours and no progress bars off a terminal
    expected = ["agg_results.csv", "metric_aggregation.csv", "results.csv", "run_meta.json"]
    assert sorted(os.listdir(tmp_path / "out")) == expected


def test_run_takes_both_spellings(folder, tmp_path):
    long = ["run", "--adata-pred", str(folder / "pred.h5ad"), "--adata-real", str(folder / "real.h5ad")]
    long += ["--preset", "v2", "--quiet"]
    first = [*long, "--outdir", str(tmp_path / "a"), "--control-pert", "non-targeting", "--profile", "pds"]
    second = [*long, "-o", str(tmp_path / "b"), "--control", "non-targeting", "--metrics", "pds_l1"]
    assert main(first) == main(second) == 0
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()


def test_the_preset_chooses_the_layout_and_a_flag_overrides_it(folder, tmp_path):
    assert run(folder, tmp_path / "a", "--preset", "cell_eval", "--quiet") == 0
    assert (tmp_path / "a" / "results.csv").read_text().startswith("perturbation,pearson_delta,mse,mae")
    assert run(folder, tmp_path / "b", "--layout", "wide", "--metrics", "pds_l1,expr_mse", "--quiet") == 0
    assert (tmp_path / "b" / "results.csv").read_text().startswith("perturbation,pds_l1,expr_mse\n")
    assert run(folder, tmp_path / "c", "--metrics", "pds_l1,expr_mse,delta_r2", "--quiet") == 0
    rows = (tmp_path / "c" / "results.csv").read_text().splitlines()[1:]
    assert list(dict.fromkeys(row.split(",")[1] for row in rows)) == ["pds_l1", "expr_mse", "delta_r2"]


@pytest.mark.parametrize(
    ("flags", "pred", "message"),
    [
        ((), "nan.h5ad", "NaN"),
        ((), "other.h5ad", "lack"),
        ((), "nothing.h5ad", "nothing.h5ad"),
        (("--pert-col", "guide"), "pred.h5ad", "guide"),
        (("--control", "nontargeting"), "pred.h5ad", "nontargeting"),
        (("--metrics", "clustering_agreement"), "pred.h5ad", "Leiden"),
        (("-dp", "absent_de.csv", "--profile", "de"), "pred.h5ad", "absent_de.csv"),
        (("-dr", "pred_de.csv", "--profile", "pds"), "pred.h5ad", "no metric reads it"),
        (("--profile", "anndat"), "pred.h5ad", "'anndata'"),
        (("--preset", "cell_evil"), "pred.h5ad", "'cell_eval'"),
        (("--metrics", "pds_l11"), "pred.h5ad", "'pds_l1'"),
        (("--skip-metrics", "mmse"), "pred.h5ad", "'mse'"),
        (("--input-type", "lognorm"), "pred.h5ad", "lognorm"),
        (("--target-map", "absent.csv"), "pred.h5ad", "absent.csv"),
        (("--device", "abacus"), "pred.h5ad", "abacus"),
    ],
)
def test_refused_input_exits_with_2_and_writes_nothing(folder, tmp_path, capsys, flags, pred, message):
    before = sorted(os.listdir(folder))
    assert run(folder, tmp_path / "out", *flags, pred=pred) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "fix:" in printed.err
    assert not (tmp_path / "out").exists()
    assert sorted(os.listdir(folder)) == before


def test_another_run_in_the_folder_is_refused_before_anything_is_read(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--profile", "pds", "--quiet") == 0
    assert run(folder, tmp_path, pred="nothing.h5ad") == 2
    assert "another run" in capsys.readouterr().err
    assert run(folder, tmp_path, "--profile", "pds", "--quiet", "--force") == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rum"], "did you mean run?"),
        (["run", "-ap", "a", "-ar", "b", "--profil", "pds"], "did you mean --profile?"),
        (["run", "-ap", "a", "-ar", "b", "--layout", "lng"], "did you mean long?"),
        (["run", "-ap", "a"], "-ar/--adata-real"),
        (["run", "-ap", "a", "-ar", "b", "--epsilon", "1"], "the preset decides the pseudocount"),
        (["run", "-ap", "a", "-ar", "b", "--cpm-filter", "5"], "the preset decides"),
        (["score", "-i", "a"], "-I/--base-input"),
        (["run", "-ap", "a", "-ar", "b", "--embed-key", "X_pca"], "embedding"),
        (["run", "-ap", "a", "-ar", "b", "--max-memory", "lots"], "8GB"),
        (["explain", "pds_cosin"], "'pds_cosine'"),
        (["list", "metric"], "did you mean metrics?"),
        (["validate"], "-ap PRED -ar REAL"),
    ],
)
def test_mistakes_get_a_hint_and_exit_code_2(capsys, argv, message):
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_what_tests_cells_is_loaded_while_they_are_read_and_nowhere_else(folder, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr("vcjax.io._de_test.load_engine", lambda settings: loaded.append(load_engine(settings)))
    monkeypatch.setattr("vcjax.cli._meanwhile.Meanwhile.done", False)
    assert run(folder, tmp_path / "profiles") == 0
    assert run(folder, tmp_path / "named", "--metrics", "de_nsig_spearman") == 0
    assert not loaded
    assert run(folder, tmp_path / "tested", "--profile", "minimal") == 0
    assert len(loaded) == 1


def test_dry_run_says_what_would_be_computed_and_writes_nothing(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out", "--dry-run") == 0
    assert "memory" in capsys.readouterr().out
    assert run(folder, tmp_path / "out", "--dry-run", "--json", "--profile", "pds") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["metrics"] == ["pds_l1"]
    assert (plan["perturbations"], plan["genes"], plan["space"]) == (7, 60, "bulk_lognorm")
    assert plan["memory_bytes"] > 8 * 7 * 60
    assert not (tmp_path / "out").exists()


def test_json_is_one_document_with_everything(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stamp"]["preset"] == "v2"
    means = {row["metric"]: row["value"] for row in document["aggregates"]}
    assert means["expr_mse"] == 0
    assert len([row for row in document["rows"] if row["metric"] == "pds_l1"]) == 7


def test_a_metric_that_fails_is_saved_and_exits_with_1(folder, tmp_path, capsys, monkeypatch):
    from vcjax.evaluation import PRESETS

    def broken(*_, **__):
        raise RuntimeError("no such luck")

    rows = PRESETS["v2"].metrics
    metric = rows["expr_mae"]
    fields = {name: getattr(metric, name) for name in metric.__dataclass_fields__}
    monkeypatch.setitem(rows, "expr_mae", type(metric)(**{**fields, "function": broken}))  # pyright: ignore
    assert run(folder, tmp_path / "out", "--metrics", "expr_mae,expr_mse") == 1
    assert "expr_mae failed: RuntimeError: no such luck" in capsys.readouterr().err
    table = (tmp_path / "out" / "results.csv").read_text()
    assert "expr_mae,NaN,error" in table
    assert "expr_mse,0.0,ok" in table


def test_cache_real_serves_the_second_run(folder, tmp_path):
    cache = tmp_path / "real.npz"
    assert run(folder, tmp_path / "a", "--cache-real", str(cache), "--quiet") == 0
    stamp = cache.stat().st_mtime_ns
    assert run(folder, tmp_path / "b", "--cache-real", str(cache), "--quiet") == 0
    assert cache.stat().st_mtime_ns == stamp
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()
    assert run(folder, tmp_path / "c", "--cache-real", str(cache), "--preset", "cell_eval") == 2


SETS = ("--metrics", "de_wilcoxon_overlap,de_wilcoxon_nsig_counts_pred")


def test_tables_are_written_and_taken_back(folder, tmp_path):
    assert (
        run(folder, tmp_path / "a", *SETS, "--write-de", "--num-threads", "1", "--quiet", real="other_pair.h5ad") == 0
    )
    tables = [tmp_path / "a" / name for name in ("pred_de.csv", "real_de.csv")]
    assert tables[0].read_text().startswith("target,feature,target_mean,ref_mean,")
    given = ("-dp", str(tables[0]), "-dr", str(tables[1]))
    assert run(folder, tmp_path / "b", *SETS, *given, "--quiet", real="other_pair.h5ad") == 0
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()
    assert not (tmp_path / "b" / "pred_de.csv").exists()
    # A run that replaces another removes its tables, unless it has read them.
    assert run(folder, tmp_path / "a", *SETS, *given, "--force", "--quiet", real="other_pair.h5ad") == 0
    assert all(path.is_file() for path in tables)
    assert run(folder, tmp_path / "a", *SETS, "--force", "--quiet", real="other_pair.h5ad") == 0
    assert run(folder, tmp_path / "a", *SETS, "--write-degenes", "--force", "--quiet", real="other_pair.h5ad") == 0
    assert run(folder, tmp_path / "a", *SETS, "--force", "--quiet", real="other_pair.h5ad") == 0
    assert not any(path.exists() for path in tables)


def test_a_table_with_a_fault_is_refused_before_anything_is_written(folder, tmp_path, capsys):
    table = tmp_path / "de.csv"
    table.write_text("target,feature,log2_fold_change,p_value,fdr\nnobody,nothing,1,0.5,0.5\n")
    assert run(folder, tmp_path / "out", *SETS, "-dp", str(table)) == 2
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_says_where_tables_come_from(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out", *SETS, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differential_expression"] == "pred computed; real computed"
    assert run(folder, tmp_path / "out", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differential_expression"] == "not needed"


def test_baseline_writes_what_it_scores_and_its_cells(folder, tmp_path, capsys):
    real, out, cells = str(folder / "real.h5ad"), tmp_path / "out", tmp_path / "cells.h5ad"
    command = ["baseline", "-ar", real, "--metrics", "pds_l1,expr_mse"]
    assert main([*command, "-o", str(out), "--save-pred", str(cells)]) == 0
    assert "pds_l1" in capsys.readouterr().out
    means = next(row for row in (out / "agg_results.csv").read_text().splitlines() if row.startswith("mean"))
    assert abs(float(means.split(",")[2]) - 0.5) < 0.2  # one answer for all perturbations tells none apart
    assert ad.read_h5ad(cells).shape == ad.read_h5ad(real).shape
    assert main([*command, "-o", str(tmp_path / "more.h5ad"), "--quiet"]) == 0
    assert (tmp_path / "more.h5ad").is_file()
    for refused, words in ((real, "over the input"), (str(cells), "--force")):
        assert main([*command, "-o", refused]) == 2
        assert words in capsys.readouterr().err
    assert main([*command, "-o", str(out)]) == 2
    assert "another run" in capsys.readouterr().err


def test_a_baseline_of_several_contexts(folder, tmp_path):
    real, cells = ad.read_h5ad(folder / "real.h5ad"), tmp_path / "cells.h5ad"
    real.obs["line"] = np.where(np.arange(real.n_obs) % 2, "B", "A")
    real.write_h5ad(tmp_path / "real.h5ad")
    command = ["baseline", "-ar", str(tmp_path / "real.h5ad"), "--celltype-col", "line", "--metrics", "expr_mse"]
    assert main([*command, "-o", str(tmp_path / "out"), "--save-pred", str(cells), "--quiet"]) == 0
    assert (tmp_path / "out" / "A_results.csv").is_file()
    assert (tmp_path / "out" / "B_results.csv").is_file()
    np.testing.assert_array_equal(ad.read_h5ad(cells).obs["line"], real.obs["line"])


@pytest.mark.slow
def test_compare_says_which_of_two_runs_is_better(folder, tmp_path, capsys):
    for name, pred in (("same", "real.h5ad"), ("reversed", "other_pair.h5ad")):
        assert run(folder, tmp_path / name, "--metrics", "expr_mse,pds_l1", "--quiet", pred=pred) == 0
    table = tmp_path / "table.csv"
    flags = ["--samples", "200", "--permutations", "199"]
    assert main(["compare", str(tmp_path / "same"), str(tmp_path / "reversed"), *flags, "-o", str(table)]) == 0
    told = capsys.readouterr().out
    assert "same against reversed" in told
    assert str(table) in told
    found = pd.read_csv(table).set_index("metric")
    assert found.loc["expr_mse", "a"] == 0
    assert found.loc["expr_mse", "verdict"] == "same"
    assert main(["compare", str(tmp_path / "same"), str(tmp_path / "reversed"), *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == ["same", "reversed"]
    assert main(["compare", str(tmp_path / "same"), str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_validate(folder, capsys):
    assert main(["validate", str(folder / "real.h5ad")]) == 0
    assert "counts" in capsys.readouterr().out
    assert main(["validate", "-ap", str(folder / "pred.h5ad"), "-ar", str(folder / "real.h5ad"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["perturbations"] == 7
    assert main(["validate", str(folder / "nan.h5ad")]) == 2
    assert "NaN" in capsys.readouterr().err


def test_list_and_explain(capsys):
    assert main(["list"]) == 0
    assert "pds_l1" in capsys.readouterr().out
    assert main(["list", "profiles", "--json"]) == 0
    profiles = {(row["preset"], row["profile"]): row for row in json.loads(capsys.readouterr().out)}
    assert profiles["v2", "anndata"]["computed here"] == "yes"
    assert profiles["v2", "full"]["computed here"] == "yes"
    assert profiles["cell_eval", "full"]["not provided"] == "clustering_agreement"
    assert main(["list", "presets"]) == 0
    assert "cell-eval2 0.20.0" in capsys.readouterr().out
    for name in ("pds_cosine", "discrimination_score_cosine"):
        assert main(["explain", name]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("pds_cosine: ")
        assert "perfect     1" in printed


def test_doctor_reports_and_writes_nothing(capsys, tmp_path):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "jax" in facts["versions"]
    assert facts["compilation cache"] == f"{tmp_path / 'xla'} (not made yet)"
    assert not (tmp_path / "xla").exists()
    assert main(["doctor"]) == 0
    assert "devices" in capsys.readouterr().out


def test_help_and_version_need_no_command_module(capsys):
    assert main(["--help"]) == 0
    assert "explain" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vcjax")
    # What the parser itself imports, apart from what `import vcjax` does.
    code = "import vcjax, sys; before = set(sys.modules); import vcjax.cli; print(*(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.partition(".")[0] for name in output.split()} & {
        "jax",
        "anndata",
        "pandas",
        "rich",
        "scipy",
        "h5py",
    } == set()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "made"
    assert main(["demo", "-o", str(folder), "--small", "--quiet"]) == 0
    return folder


class TestDemo:
    def test_it_scores_predictors_of_known_order(self, made):
        scores = json.loads((made / "demo.json").read_text())["scores"]
        assert list(scores)[:2] == ["perfect", "replicate"]
        assert scores["perfect"]["expr_mse"] == 0
        assert scores["perfect"]["pds_l1"] == 1
        # One metric is not enough: an absurd size passes the ranks, no knowledge at all passes the error.
        assert scores["inflated"]["pds_cosine"] > 0.9
        assert scores["inflated"]["expr_mse"] > 10 * scores["replicate"]["expr_mse"]
        assert scores["inflated"]["amplitude_ratio"] > 2
        assert abs(scores["mean"]["pds_l1"] - 0.5) < 0.15
        assert scores["mean"]["expr_mse"] < scores["inflated"]["expr_mse"]

    def test_it_ends_with_a_command_that_works(self, made, capsys, tmp_path):
        command = json.loads((made / "demo.json").read_text())["next"].split()
        assert command[:2] == ["vcjax", "run"]
        assert main([*command[1:], "--metrics", "pds_l1"]) == 0

    def test_it_prints_a_table_and_the_sentences(self, made, capsys):
        assert main(["demo", "-o", str(made), "--small"]) == 0  # its own folder may be written again
        printed = capsys.readouterr().out
        for word in ("half_noise", "amplitude_ratio", "perfect value", "vcjax run"):
            assert word in printed

    def test_it_refuses_a_folder_of_others(self, tmp_path, capsys):
        (tmp_path / "notes.txt").write_text("mine")
        assert main(["demo", "-o", str(tmp_path), "--small"]) == 2
        assert os.listdir(tmp_path) == ["notes.txt"]
        assert "--force" in capsys.readouterr().err


def test_a_measured_screen_with_contexts(tmp_path):
    path = shared_path("data/perturbench-devel/devel.h5ad")
    flags = ("--pert-col", "perturbation", "--control", "control", "--context-col", "cell_type", "--no-target-genes")
    command = ["run", "-ap", str(path), "-ar", str(path), *flags, "-o", str(tmp_path), "--quiet"]
    assert main([*command, "--metrics", "expr_mse,pds_l1"]) == 0
    meta = json.loads((tmp_path / "run_meta.json").read_text())
    assert set(meta["contexts"]) == {"k562", "T98G", "U87MG", "A172"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can only be limited on Linux")
def test_threads_are_limited_in_the_process_of_the_command():
    code = (
        "from vcjax.cli._machine import limit_threads; import os; limit_threads(1); print(len(os.sched_getaffinity(0)))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "1"


@pytest.mark.parametrize(("text", "count"), [("8GB", 8 * 10**9), ("1.5 MiB", 3 * 2**19), ("512", 512), ("2k", 2000)])
def test_sizes_are_read(text, count):
    assert byte_count(text) == count
