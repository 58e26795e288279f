"""Two runs of one measured screen side by side, from reports and from files."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from jaxtyping import TypeCheckError
from screens import refused

import vcjax
from vcjax.evaluation import PRESETS, Report
from vcjax.evaluation._compare import ALL, compare, NO_DIFFERENCE
from vcjax.io import simulate_screen


pytestmark = pytest.mark.slow  # minutes of compiling, or of drawing

NAN = float("nan")
PERTS = 40


def wilcoxon(gap) -> float:
    result: Any = scipy.stats.wilcoxon(gap)
    return float(result.pvalue)


FAST: Any = {"samples": 400, "permutations": 999}
RNG = np.random.default_rng(0)
HARD = RNG.gamma(2.0, 1.0, PERTS)
BETTER = HARD + 0.1 * RNG.normal(size=PERTS)
WORSE = HARD + 0.2 + 0.1 * RNG.normal(size=PERTS)
EQUAL = HARD + 0.1 * RNG.normal(size=PERTS)


def report_of(
    values, *, preset="v2", contexts=("",), screen="s" * 32, settings=None, cells=0, errors=None, labels=None
):
    """A report of `values[metric]`, one a perturbation, or `values[metric][context]`."""
    rules = PRESETS[preset]
    rows = []
    for context in contexts:
        for metric, column in values.items():
            column = column[context] if isinstance(column, dict) else column
            panel = rules.metrics[metric].level == "panel"
            for i, value in enumerate(np.atleast_1d(column)):
                label = "" if panel else labels[i] if labels else f"p{i}"
                word = "ok" if np.isfinite(value) else "constant_prediction"
                rows.append((label, context, metric, value, word, 10 + i, 20 + i + cells, rules.source))
    kinds = (object, object, object, float, object, int, int, object)
    return Report(
        *(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)),
        metrics={name: rules.metrics[name] for name in values},
        preset=rules,
        stamp={
            "inputs": {"pred": "pred.h5ad", "real": "real.h5ad"},
            "fingerprints": {"screens": {"real": screen, "pred": "x"}, "profiles": {}},
            "settings": settings or {},
            "errors": errors or {},
            "notes": [],
            "preset": preset,
        },
    )


def test_the_better_of_two_models_wins_and_equal_ones_do_not():
    a = report_of({"expr_mse": BETTER, "pds_l1": 1 - WORSE / 20, "expr_mae": EQUAL})
    b = report_of({"expr_mse": WORSE, "pds_l1": 1 - BETTER / 20, "expr_mae": BETTER})
    found = compare(a, b, **FAST, names=("mine", "mean"))
    row = found.row("expr_mse")
    assert row.verdict == "mine"  # an error: lower is better
    assert found.row("pds_l1").verdict == "mean"
    assert found.row("expr_mae").verdict == NO_DIFFERENCE
    gap = BETTER - WORSE
    assert row.a == pytest.approx(BETTER.mean())
    assert row.difference == pytest.approx(gap.mean())
    low, high = scipy.stats.t.interval(0.95, PERTS - 1, gap.mean(), scipy.stats.sem(gap))
    np.testing.assert_allclose([row.low, row.high], [low, high], atol=0.1 * (high - low))
    assert row.won == np.mean(gap < 0)
    assert row.wilcoxon == pytest.approx(wilcoxon(gap))
    assert (row.used, row.total, row.agg) == (PERTS, PERTS, "mean")
    place = int(np.argmax(np.abs(gap - gap.mean())))
    assert row.carrier == f"p{place}"
    assert row.without_carrier == pytest.approx(np.delete(gap, place).mean())


def test_p_values_are_adjusted_over_metrics():
    a = report_of({"expr_mse": BETTER, "expr_mae": BETTER, "delta_mse": EQUAL})
    b = report_of({"expr_mse": WORSE, "expr_mae": EQUAL, "delta_mse": BETTER})
    found = compare(a, b, **FAST)
    pvalues = np.array([row.pvalue for row in found.rows])
    assert found.row("expr_mse").pvalue == pytest.approx(2 / 1000)
    np.testing.assert_allclose([row.adjusted for row in found.rows], vcjax.comparison.holm(pvalues))
    assert found.row("expr_mse").adjusted == pytest.approx(3 * 2 / 1000)
    plain = compare(a, b, **FAST, correction="none")
    np.testing.assert_allclose([row.adjusted for row in plain.rows], pvalues)


def test_the_same_run_twice_shows_no_difference():
    a = report_of({"expr_mse": BETTER})
    row = compare(a, a, **FAST).row("expr_mse")
    assert (row.difference, row.low, row.high, row.pvalue, row.wilcoxon, row.won) == (0, 0, 0, 1, 1, 0.5)
    assert row.verdict == NO_DIFFERENCE


def test_seeds_decide_and_are_kept():
    a, b = report_of({"expr_mse": BETTER}), report_of({"expr_mse": EQUAL})
    first, again, other = (compare(a, b, **FAST, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.seed == 3
    assert first.row("expr_mse").low != other.row("expr_mse").low


@pytest.mark.parametrize("preset", ["v2", "cell_eval"])
def test_files_give_what_reports_give(tmp_path, preset):
    names = {"v2": ("expr_mse", "delta_pearson"), "cell_eval": ("mse", "pearson_delta")}[preset]
    gap = np.where(np.arange(PERTS) == 3, NAN, BETTER / 20)
    a = report_of({names[0]: BETTER, names[1]: gap}, preset=preset)
    b = report_of({names[0]: WORSE, names[1]: WORSE / 20}, preset=preset)
    a.write(tmp_path / "a")
    b.write(tmp_path / "b")
    from_files = compare(tmp_path / "a", tmp_path / "b", **FAST)
    from_reports = compare(a, b, **FAST)
    assert from_files.rows == from_reports.rows
    assert from_files.sources == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert compare(tmp_path / "a", b, **FAST).rows == from_reports.rows


def test_a_value_that_only_one_model_lacks_is_no_gain():
    values = np.where(np.arange(PERTS) < 10, NAN, 0.4)
    a, b = report_of({"delta_pearson": values}), report_of({"delta_pearson": np.full(PERTS, 0.35)})
    charged = compare(a, b, **FAST).row("delta_pearson")
    assert charged.a == pytest.approx(0.3)
    assert (charged.used, charged.filled_a, charged.filled_b) == (PERTS, 10, 0)
    dropped = compare(a, b, **FAST, undefined="drop").row("delta_pearson")
    assert (dropped.a, dropped.b) == (pytest.approx(0.4), pytest.approx(0.35))
    assert (dropped.used, dropped.filled_a) == (PERTS - 10, 0)
    nobody = compare(a, a, **FAST).row("delta_pearson")
    assert (nobody.used, nobody.filled_a) == (PERTS - 10, 0)


def test_a_ratio_of_sums_is_drawn_from_its_parts(tmp_path):
    size = RNG.gamma(3, 1, PERTS)

    def run(error):
        parts = {"expr_mse_unbiased_capped": error, "expr_distance_unbiased": size}
        return report_of({**parts, "expr_mse_unbiased_capped_norm": [error.sum() / size.sum()]})

    a, b = run(BETTER), run(WORSE)
    row = compare(a, b, **FAST).row("expr_mse_unbiased_capped_norm")
    assert row.a == pytest.approx(BETTER.sum() / size.sum())
    assert row.difference == pytest.approx((BETTER - WORSE).sum() / size.sum())
    assert row.agg == "ratio_of_sums"
    assert row.low < row.difference < row.high < 0
    assert row.won == np.mean(BETTER < WORSE)
    assert row.verdict == "A"
    # What does not depend on the prediction is not compared.
    assert [x.metric for x in compare(a, b, **FAST).rows] == [
        "expr_mse_unbiased_capped",
        "expr_mse_unbiased_capped_norm",
    ]
    a.write(tmp_path / "a")
    assert compare(tmp_path / "a", b, **FAST).row("expr_mse_unbiased_capped_norm") == row


def test_a_number_of_the_panel_has_no_interval():
    values = {"de_wilcoxon_nsig_spearman": [0.5], "expr_mse": BETTER}
    a, b = report_of(values), report_of({**values, "de_wilcoxon_nsig_spearman": [0.25]})
    row = compare(a, b, **FAST).row("de_wilcoxon_nsig_spearman")
    assert (row.a, row.b, row.difference, row.agg, row.verdict) == (0.5, 0.25, 0.25, "number", "")
    assert math.isnan(row.low)
    assert math.isnan(row.pvalue)


def test_contexts_have_rows_of_their_own_and_one_together():
    first = {"K562": BETTER, "HepG2": EQUAL}
    other = {"K562": WORSE, "HepG2": BETTER}
    a, b = (report_of({"expr_mse": x}, contexts=("K562", "HepG2")) for x in (first, other))
    found = compare(a, b, **FAST)
    assert [row.context for row in found.rows] == ["K562", "HepG2", ALL]
    assert found.row("expr_mse", "K562").verdict == "A"
    together = found.row("expr_mse", ALL)
    expected = 0.5 * ((BETTER - WORSE).mean() + (EQUAL - BETTER).mean())
    assert together.difference == pytest.approx(expected)
    assert together.low < expected < together.high
    # A perturbation is drawn with both of its contexts, so that the interval is that of its mean over them.
    each = 0.5 * (BETTER - WORSE + EQUAL - BETTER)
    width = scipy.stats.t.ppf(0.975, PERTS - 1) * scipy.stats.sem(each)
    assert together.high - together.low == pytest.approx(2 * width, rel=0.15)
    with pytest.raises(KeyError, match="pds_l1"):
        found.row("pds_l1")


def test_tables_and_text():
    a, b = report_of({"expr_mse": BETTER, "expr_mae": EQUAL}), report_of({"expr_mse": WORSE, "pds_l1": EQUAL})
    found = compare(a, b, **FAST, names=("mine", "[mean]"))
    table = found.to_pandas()
    assert list(table["metric"]) == ["expr_mse"]
    assert table["verdict"][0] == "mine"
    text = found.summary(200)
    words = ("mine against [mean]", "expr_mse", "95 % interval", "Holm", "seed 0", "not compared: expr_mae, pds_l1")
    for word in words:
        assert word in text, text
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["rows"][0]["difference"] == pytest.approx((BETTER - WORSE).mean())
    assert plain["names"] == ["mine", "[mean]"]
    assert dataclasses.asdict(found.rows[0]) == table.iloc[0].to_dict()


def test_a_metric_that_failed_is_left_out():
    a = report_of({"expr_mse": BETTER, "expr_mae": np.full(PERTS, NAN)}, errors={"expr_mae": "out of memory"})
    found = compare(a, report_of({"expr_mse": WORSE, "expr_mae": EQUAL}), **FAST)
    assert [row.metric for row in found.rows] == ["expr_mse"]
    assert any("expr_mae" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"screen": "t" * 32}, ("different measured screens", "same measured file")),
        ({"screen": "", "cells": 1}, ("different measured screens", "40 of 40")),
        ({"labels": [f"p{i + 1}" for i in range(PERTS)]}, ("different perturbations", "p0", "p40")),
        ({"contexts": ("K562",)}, ("different contexts", "K562")),
        ({"settings": {"exclude_targets": "own"}}, ("different settings", "exclude_targets", "panel")),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change, words):
    usual: Any = {"settings": {"exclude_targets": "panel"}}
    with refused(*words):
        compare(report_of({"expr_mse": BETTER}, **usual), report_of({"expr_mse": WORSE}, **{**usual, **change}))


def test_other_presets_metrics_and_names_are_refused():
    a = report_of({"expr_mse": BETTER})
    with refused("different presets", "cell_eval"):
        compare(a, report_of({"mse": WORSE}, preset="cell_eval"))
    with refused("no metric in common", "expr_mae"):
        compare(a, report_of({"expr_mae": WORSE}))
    with refused("Both models are called"):
        compare(a, a, names=("A", "A"))
    with pytest.raises((ValueError, TypeCheckError)):
        compare(a, a, undefined="zero")  # pyright: ignore[reportArgumentType]


def test_stamps_that_do_not_name_the_screen_are_told():
    a, b = (report_of({"expr_mse": x}, screen="") for x in (BETTER, WORSE))
    assert any("equal numbers of cells" in note for note in compare(a, b, **FAST).notes)
    # A seed that drew nothing decides nothing.
    a, b = (report_of({"expr_mse": BETTER}, settings={"seed": seed, "match_cells": False}) for seed in (0, 1))
    assert compare(a, b, **FAST).rows


def test_folders_without_a_finished_run_are_refused(tmp_path):
    a = report_of({"expr_mse": BETTER})
    with refused("no finished run", "run_meta.json"):
        compare(a, tmp_path / "absent")
    folder = tmp_path / "run"
    a.write(folder)
    good = (folder / "results.csv").read_text()
    for text, word in (
        (good.replace("n_real", "n"), "n_real"),
        (good.replace("20,cell", "20,x,cell"), "fields"),
        (good.replace(repr(float(BETTER[0])), "much"), "much"),
    ):
        (folder / "results.csv").write_text(text)
        with refused("no finished run", word):
            compare(a, folder)
    (folder / "results.csv").unlink()
    with refused("no finished run", "results.csv"):
        compare(a, folder)
    (folder / "run_meta.json").write_text("{}")
    with refused("no finished run", "preset"):
        compare(a, folder)


def test_evaluations_of_one_screen_and_of_two(tmp_path):
    sizes: Any = {"perts": 8, "genes": 50, "cells_per_pert": 15, "control_cells": 40, "programs": 2, "doubles": 0}
    real = simulate_screen(**sizes, seed=1).adata

    def predicted(noise, seed):
        adata = real.copy()
        rates = sp.csr_matrix(real.X).toarray() * (1 - noise) + noise * 2.0
        adata.X = sp.csr_matrix(np.random.default_rng(seed).poisson(rates).astype(np.float32))
        return adata

    near, far = (
        vcjax.evaluate(predicted(noise, seed), real, preset="v2", profile="anndata")
        for noise, seed in ((0.05, 3), (0.9, 4))
    )
    found = compare(near, far, **FAST, names=("near", "far"))
    assert not found.notes  # the stamps name the screen
    for name in ("expr_mse", "expr_mse_unbiased_capped_norm"):
        row = found.row(name)
        assert (row.a, row.b) == (pytest.approx(near.score(name)), pytest.approx(far.score(name)))
        assert row.pvalue == 2 / 2**8  # all 256 swaps, and the observed one is the most extreme
    assert found.row("expr_mse").low < found.row("expr_mse").high < 0
    near.write(tmp_path / "near")
    again = compare(tmp_path / "near", far, **FAST, names=("near", "far"))
    assert again.to_dict()["rows"] == found.to_dict()["rows"]
    with refused("different measured screens"):
        compare(near, vcjax.evaluate(predicted(0.5, 5), predicted(0.0, 6), preset="v2", profile="anndata"))
