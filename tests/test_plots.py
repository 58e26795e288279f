"""Figures: what they show is what was found, and nothing covers anything else."""

import dataclasses
import itertools
import math
import sys
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from vcjax.calibration import Calibration, effect_curve
from vcjax.comparison import stratify, stratum_table
from vcjax.evaluation import number, PRESETS, Report
from vcjax.io import Refusal
from vcjax.metrics import CATALOGUE
from vcjax.report import (
    calibration_curve,
    controls_heatmap,
    controls_strip,
    perturbation_scatter,
    require_matplotlib,
    strata_plot,
)


pytestmark = pytest.mark.slow  # dozens of figures

NAN = math.nan
PERTS = 20
LABELS = tuple(f"GENE{i}" for i in range(PERTS))
ROLES = {"control": "negative", "loo_mean": "null", "duplicate": "positive"}
SEPARATES = "separates a replicate from the mean on this data (gain 0.3, 95% interval 0.2 to 0.4; better in 90% of 20)"
CANNOT = "cannot separate a replicate from the mean on this data (gain 0.01, 95% interval -0.1 to 0.1)"


def calibration_of(name, values, *, separates: bool | None = True, status=None, verdict=None, **fields):
    """A calibration of these values by control; the score is what `calibrate` makes of them."""
    metric = CATALOGUE[name]
    values = {key: np.asarray(column, np.float64) for key, column in values.items()}
    status = {key: (status or {}).get(key, "ok") for key in values}
    first = lambda role: next((k for k in values if ROLES.get(k) == role and status[k] == "ok"), None)
    known = dict(zip(("negative", "null", "positive"), map(first, ("negative", "null", "positive")), strict=True))
    ends = [values[k] for k in (known["negative"], known["positive"], "prediction") if k in values]
    score = NAN
    if len(ends) == 3:
        low, high, model = np.stack(ends)[:, ~np.isnan(np.stack(ends)).any(0)].mean(1)
        score = float((model - low) / (high - low))
    verdict = verdict or {True: SEPARATES, False: CANNOT, None: "cannot be judged on this data: too few"}[separates]
    return Calibration(
        metric=metric,
        perfect=metric.perfect,
        values=values,
        status=status,
        roles={key: role for key, role in ROLES.items() if key in values},  # pyright: ignore[reportArgumentType]
        bounds=(),
        score=score,
        score_interval=(score - 0.1, score + 0.1),
        score_over_null=NAN,
        separates=separates,
        verdict=verdict,
        splits=2,
        level=0.95,
        **(known | fields),
    )


def spread(centre, scale=0.05, seed=0):
    return centre + scale * np.random.default_rng(seed).normal(size=PERTS)


def bars(axes) -> Any:
    """Points, caps and lines of the first error bars."""
    return axes.containers[0].lines


def calibrations():
    """One metric that can tell, one that cannot, and one that has no value for the control and is not judged."""
    nothing = np.full(PERTS, NAN)
    ranks = {"control": spread(0.5), "loo_mean": spread(0.4, seed=1), "duplicate": spread(0.9, seed=2)}
    errors = {"control": spread(2.0), "loo_mean": spread(1.0, seed=1), "duplicate": spread(1.01, seed=2)}
    cosines = {"control": nothing, "loo_mean": spread(0.5, seed=1), "duplicate": spread(0.7, seed=2)}
    return {
        "expr_mse": calibration_of("expr_mse", errors | {"prediction": spread(3.0, seed=3)}, separates=False),
        "pds_cosine": calibration_of("pds_cosine", ranks | {"prediction": spread(0.75, seed=3)}),
        "delta_cosine": calibration_of(
            "delta_cosine",
            cosines | {"prediction": spread(0.65, seed=3)},
            separates=None,
            status={"control": "zero_prediction"},
        ),
    }


def report_of(values, *, contexts=("",), labels=LABELS, preset="v2", **stamp):
    """A report of `values[metric]`, one a perturbation in every context; NaN is a constant prediction."""
    rules = PRESETS[preset]
    rows = []
    for context in contexts:
        for name, column in values.items():
            panel = CATALOGUE[name].level == "panel"
            for i, value in enumerate(np.atleast_1d(column)):
                word = "ok" if np.isfinite(value) else "constant_prediction"
                label = "" if panel else labels[i]
                rows.append((label, context, name, value, word, 10 * (i + 1), 20 * (i + 1), rules.source))
    kinds = (object, object, object, float, object, int, int, object)
    return Report(
        *(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)),
        metrics={name: CATALOGUE[name] for name in values},
        preset=rules,
        stamp={"inputs": {}, "fingerprints": {}, "settings": {}, "errors": {}, "notes": [], **stamp},
    )


def texts(figure):
    """Everything that is written on a figure, line breaks as spaces."""
    found = [figure._suptitle.get_text()] if figure._suptitle else []
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left"), axes.get_title()]
        found += [tick.get_text() for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return [text.replace("\n", " ") for text in found if text]


def drawn(figure):
    """The figure after it was drawn, which warns of nothing (warnings are errors here)."""
    FigureCanvasAgg(figure).draw()
    assert figure.canvas.manager is None  # no window, and nothing that pyplot would keep
    return figure


def test_the_heat_map_has_positions_and_values_and_says_why_there_are_none():
    rows = calibrations()
    figure = drawn(controls_heatmap(rows))
    axes, written = figure.axes[0], texts(figure)
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["pds_cosine ↑", "expr_mse ↓", "delta_cosine ↑ †"]  # those that can tell come first
    score = rows["pds_cosine"].score
    assert f"{score:.2f}" in written
    assert number(float(rows["pds_cosine"].values["prediction"].mean())) in written
    assert "– zero prediction" in written
    assert any("0 is the mean" in text for text in written)
    assert {"yes", "no", "not judged"} <= set(written)
    assert written[0].startswith(
        "1 of 3 metrics can tell a replicate from the mean on this data; by that one the model"
    )
    # The position of the mean, by hand.
    values = [rows["pds_cosine"].values[name].mean() for name in ("loo_mean", "control", "duplicate")]
    assert f"{(values[0] - values[1]) / (values[2] - values[1]):.2f}" in written
    # Of the metric without a value for the control, the model's place between mean and replicate.
    values = [rows["delta_cosine"].values[name].mean() for name in ("prediction", "loo_mean", "duplicate")]
    assert f"{(values[0] - values[1]) / (values[2] - values[1]):.2f}" in written


def test_only_metrics_that_can_tell_have_colours():
    figure = controls_heatmap(calibrations())
    patches = figure.axes[0].patches
    assert len(patches) == 12
    faces = np.array([to_hex(patch.get_facecolor()) for patch in patches]).reshape(3, 4)
    hatched = np.array([patch.get_hatch() is not None for patch in patches]).reshape(3, 4)
    assert len(set(faces[0])) == 4
    assert set(faces[1:].ravel()) == {"#ffffff"}
    assert hatched.tolist() == [[False] * 4, [True] * 4, [False] * 4]
    # Worse than the control is orange, at the replicate blue.
    red, blue = (int(faces[0][1][i : i + 2], 16) for i in (1, 5))
    assert red > blue
    red, blue = (int(faces[0][3][i : i + 2], 16) for i in (1, 5))
    assert blue > red


def test_the_heat_map_needs_no_model_but_a_metric():
    bare = {
        name: dataclasses.replace(row, values={k: v for k, v in row.values.items() if k != "prediction"})
        for name, row in calibrations().items()
    }
    figure = drawn(controls_heatmap(bare, title="Mine"))
    written = texts(figure)
    assert "model" not in written
    assert written[0] == "Mine"
    assert len(figure.axes[0].patches) == 9
    with pytest.raises(ValueError, match="none"):
        controls_heatmap({})


def test_a_strip_has_a_dot_for_every_value():
    row = calibrations()["pds_cosine"]
    figure = drawn(controls_strip(row))
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    shown = np.sort(np.concatenate([line.get_xdata() for line in lines]))
    np.testing.assert_allclose(shown, np.sort(np.concatenate(list(row.values.values()))))
    written = texts(figure)
    assert written[0] == "pds_cosine separates a replicate from the mean on this data"
    for values in row.values.values():
        assert f"mean {number(float(values.mean()))}" in written
    assert {"perfect", "no skill", "the model", "replicate"} <= set(written)
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["control cells", "mean of the other perturbations", "the model", "replicate"]


def test_a_strip_says_what_is_missing_and_what_lies_far_outside():
    row = calibrations()["delta_cosine"]
    written = texts(drawn(controls_strip(row)))
    assert "– there is no predicted effect" in written
    values = dict(row.values)
    far = values["prediction"].copy()
    far[3], far[4] = -40.0, NAN
    figure = drawn(controls_strip(dataclasses.replace(row, values=values | {"prediction": far})))
    written = texts(figure)
    assert any("1 at the edge: -40.0000 to" in text and "1 without a value" in text for text in written)
    assert figure.axes[0].get_xlim()[0] > -5
    assert written[0].startswith("delta_cosine: cannot be judged")
    nothing = dict.fromkeys(values, np.full(PERTS, NAN))
    drawn(controls_strip(dataclasses.replace(row, values=nothing, status=dict.fromkeys(values, "missing"))))


def curve_of(slope, noise=0.1, perts=PERTS):
    rng = np.random.default_rng(4)
    pred = rng.normal(size=(perts, 50))
    return effect_curve(pred, slope * pred + noise * rng.normal(size=pred.shape), bins=10)


@pytest.mark.parametrize(
    ("slope", "told"),
    [
        (1.0, "have the right size"),
        (0.2, "are too large: where the model predicts an effect of 1, 0.20 is measured"),
        (3.0, "are too small"),
        (-0.5, "go the wrong way"),
    ],
)
def test_the_curve_says_what_its_slope_means(slope, told):
    curve = curve_of(slope)
    figure = drawn(calibration_curve(curve, labels=LABELS))
    assert told in texts(figure)[0]
    points = bars(figure.axes[0])[0]
    np.testing.assert_allclose(points.get_xdata(), curve.predicted)
    np.testing.assert_allclose(points.get_ydata(), curve.measured)
    slopes = np.concatenate([line.get_xdata() for line in figure.axes[1].lines if line.get_marker() == "D"])
    assert len(slopes) == PERTS
    assert LABELS[int(np.argmax(curve.slopes))] in texts(figure)


def test_curves_of_little():
    assert "say nothing about the measured ones" in texts(drawn(calibration_curve(curve_of(0.0, noise=3.0))))[0]
    flat = effect_curve(np.zeros((4, 5)), np.ones((4, 5)))
    assert "the same everywhere" in texts(drawn(calibration_curve(flat)))[0]
    empty = effect_curve(np.full((4, 5), NAN), np.ones((4, 5)))
    assert "no effect to compare" in texts(drawn(calibration_curve(empty)))
    assert "Of one perturbation" in texts(drawn(calibration_curve(curve_of(1.0, perts=1))))[0]
    with pytest.raises(ValueError, match="3 labels"):
        calibration_curve(flat, labels=("a", "b", "c"))


def test_a_scatter_names_what_stands_out():
    size = np.linspace(0.01, 0.2, PERTS)
    ranks = 0.5 + size + 0.01 * np.random.default_rng(5).normal(size=PERTS)
    ranks[2] = 0.05
    report = report_of({"pds_cosine": ranks, "expr_mse": size})
    figure = drawn(perturbation_scatter(report, "effect_size", "pds_cosine", difficulty={"effect_size": size}))
    written = texts(figure)
    assert "GENE2" in written
    assert written[0].startswith("pds_cosine rises with effect size (Spearman 0.")
    without = np.delete(ranks, 2).mean()
    assert any(f"{number(ranks.mean())} with it, {number(without)} without" in text for text in written)
    assert any("less its noise" in text for text in written)
    gone = ranks.copy()
    gone[5] = NAN
    figure = drawn(perturbation_scatter(report_of({"pds_cosine": gone, "expr_mse": -size}), "expr_mse", "pds_cosine"))
    assert any("1 without both values are not shown" in text for text in texts(figure))
    assert "falls with expr_mse" in texts(figure)[0]
    shown = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert np.size(shown[0].get_xdata()) == PERTS - 1


def test_scatters_of_several_contexts_and_of_what_is_no_value_of_a_perturbation():
    report = report_of({"pds_cosine": spread(0.8), "expr_mse_unbiased_capped_norm": 0.5}, contexts=("a", "b"))
    drawn(perturbation_scatter(report, "pds_cosine", "pds_cosine", context="b"))
    for broken, error in (
        (lambda: perturbation_scatter(report, "pds_cosine", "pds_cosine"), ValueError),
        (lambda: perturbation_scatter(report, "nothing", "pds_cosine", context="a"), KeyError),
        (
            lambda: perturbation_scatter(report, "expr_mse_unbiased_capped_norm", "pds_cosine", context="a"),
            ValueError,
        ),
        (
            lambda: perturbation_scatter(report, "x", "pds_cosine", difficulty={"x": np.ones(3)}, context="a"),
            ValueError,
        ),
    ):
        with pytest.raises(error):
            broken()


def overlaps(figure, names):
    """Pairs of names whose boxes overlap, as they are drawn."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    FigureCanvasAgg(figure).draw()
    # Of the text alone: an annotation's own extent has its line in it.
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts if text.get_text() in names]
    inner = figure.axes[0].get_window_extent(renderer)
    inside = all(box.x0 >= inner.x0 - 2 and box.x1 <= inner.x1 + 2 for box in boxes)
    return sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2)), len(boxes), inside


def test_names_do_not_cover_each_other():
    rng = np.random.default_rng(6)
    for perts in (12, 300):
        labels = tuple(f"LONGNAME{i}" for i in range(perts))
        close = np.r_[rng.normal(0.5, 0.02, perts - 8), rng.normal(0.9, 0.01, 8)]  # those that stand out stand together
        report = report_of({"pds_cosine": close, "expr_mse": rng.permutation(close)}, labels=labels)
        crossed, named, inside = overlaps(perturbation_scatter(report, "expr_mse", "pds_cosine"), labels)
        assert named >= 3
        assert crossed == 0
        assert inside


def test_strata_have_their_intervals():
    measure = np.linspace(0, 1, PERTS)
    values = measure + 0.01 * np.random.default_rng(7).normal(size=PERTS)
    table = stratum_table(values, stratify(measure, name="effect_size"), key=jax.random.key(0), samples=200)
    other = stratum_table(0.5 * values, stratify(-measure, name="cells"), key=jax.random.key(0), samples=200)
    figure = drawn(strata_plot([table, other], value="pds_cosine", perfect=1.0, no_skill=0.5))
    assert len(figure.axes) == 2
    for axes, found in zip(figure.axes, (table, other), strict=True):
        points, _, lines = bars(axes)
        np.testing.assert_allclose(points.get_ydata(), found.estimate)
        ends = np.array([segment[:, 1] for segment in lines[0].get_segments()])
        np.testing.assert_allclose(ends, np.stack([found.low, found.high], 1))
    written = texts(figure)
    assert f"pds_cosine is {number(float(table.estimate[0]))} in the lowest stratum by effect size" in written[0]
    assert "do not overlap" in written[0]
    assert any("n = 7" in text for text in written)
    pair = drawn(strata_plot({"mine": table, "other": table}))
    assert {"mine", "other"} <= set(texts(pair))
    assert len(pair.axes) == 1
    drawn(strata_plot(table))
    with pytest.raises(ValueError, match="none"):
        strata_plot({})


def test_labels_are_text_and_no_formulas():
    odd = ["$x^2$ and $", "a_b", "<b>&amp;", "é ü", "\\frac{", *LABELS[5:]]
    ranks = spread(0.5, 0.01)
    ranks[:5] = [0.99, 0.1, 0.9, 0.05, 0.95]
    report = report_of({"pds_cosine": ranks, "expr_mse": spread(1.0)}, labels=odd)
    assert "$x^2$ and $" in texts(drawn(perturbation_scatter(report, "expr_mse", "pds_cosine", labelled=20)))
    strata = stratify(np.arange(PERTS), name="$a$ and $b_{")
    table = stratum_table(ranks, strata, key=jax.random.key(0), samples=50)
    drawn(strata_plot({"$m_{": table}, value="$v$"))
    row = calibrations()["pds_cosine"]
    values = {"$dup^{": row.values["duplicate"], **row.values}
    named = dataclasses.replace(
        row, values=values, roles={**row.roles, "$dup^{": "positive"}, status={**row.status, "$dup^{": "ok"}
    )
    drawn(controls_strip(named))
    drawn(controls_heatmap({"$a_{$": named}))


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (require_matplotlib, lambda: controls_heatmap(calibrations())):
        with pytest.raises(Refusal) as caught:
            draw()
        assert caught.value.fix == "pip install 'vcjax[plot]'"
