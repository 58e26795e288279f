"""The parts of the page with figures: controls, size of effects, difficulty, and two models side by side."""

import functools
import math
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from ..calibration import Calibration
from ..calibration._calibration import PREDICTION
from ..comparison import stratify, stratum_table, StratumTable
from ..evaluation import number, Report
from ..evaluation._compare_table import reading
from ..evaluation._difficulty import INDICATORS
from ._content import Content
from ._curve import calibration_curve, size_sentence
from ._heatmap import controls_heatmap
from ._markup import bullets, element, Markup, section, table
from ._picture import picture
from ._position import ordered, position
from ._scatter import column, perturbation_scatter
from ._scores import interval, metric_link, numbers
from ._strata import strata_plot
from ._strip import controls_strip
from ._words import control_words, count, reason


_STRIPS = 3


def controls(content: Content) -> Markup:
    """What the metrics are worth on this data."""
    if not content.calibrations:
        return Markup()
    told = (
        "A score means something between two predictions of known worth: the control, which says that nothing "
        "happens, and a replicate, the other half of the measured cells. A metric that puts a replicate no higher than "
        "the mean of the perturbations cannot tell, on this data, a model that knows single perturbations from one "
        "that knows none."
    )
    parts = [part for context, rows in content.calibrations.items() for part in _one_context(context, rows)]
    if content.left_out:
        head = ["not calibrated", "because"]
        parts.append(table(head, list(map(list, content.left_out.items())), text=(0, 1), wide=(1,)))
    return section("controls", "What the metrics can tell on this data", element("p", told), *parts)


def _one_context(context: str, rows: Mapping[str, Calibration]) -> Iterator[Markup]:
    if context:
        yield element("h3", f"Context {context}")
    able = sum(row.separates is True for row in rows.values())
    yield picture(
        functools.partial(controls_heatmap, rows),
        "How to read it: a row is a metric. Bold numbers are positions between the control (0) and a replicate (1); "
        "grey ones are the metric's own values. The bluer the model's cell, the nearer it is to a replicate; orange is "
        "worse than the control. Compare the model with the mean: what it adds to that is what it knows of single "
        "perturbations. Hatched rows cannot tell, so that their positions mean little. A dash is a value that does not "
        "exist, with the reason.",
        f"Table of {count(len(rows), 'metric')} with positions of mean and model between control and replicate; "
        f"{able} can tell a replicate from the mean. The numbers are in the table below.",
    )
    yield _calibration_table(rows)
    for name, row in _chosen(rows):
        yield picture(
            functools.partial(controls_strip, row),
            f"How to read it: {name} of every perturbation, for controls and model. Where the dots of the replicate "
            "lie on the same side of those of the mean, the metric can tell; where they mix, it cannot.",
            f"{name} of every perturbation for {count(len(row.values), 'prediction')}. {row.verdict}",
        )


def _chosen(rows: Mapping[str, Calibration]) -> list[tuple[str, Calibration]]:
    """Two metrics that can tell, and one that cannot."""
    able = [row for row in ordered(rows) if row[1].separates and row[1].metric.level == "perturbation"]
    unable = [row for row in ordered(rows) if row[1].separates is False and row[1].metric.level == "perturbation"]
    return [*able[: _STRIPS - 1], *unable[:1]]


def _calibration_table(rows: Mapping[str, Calibration]) -> Markup:
    head = ["metric", "control", "mean", "model", "replicate", "model's position", "interval", "verdict"]
    body = []
    for name, row in ordered(rows):
        values = [_mean(row, each) for each in (row.negative, row.null, PREDICTION, row.positive)]
        bounds = row.score_interval if row.negative else (math.nan, math.nan)
        verdict = row.verdict.replace(" on this data", "")
        body.append([metric_link(name), *values, number(position(row, PREDICTION)), interval(*bounds), verdict])
    used = {each for _, row in ordered(rows) for each in (row.negative, row.null, row.positive) if each}
    names = "; ".join(f"{name}: {control_words(name)}" for name in sorted(used))
    level = f"{next(iter(rows.values())).level:.0%}"
    caption = f"Mean values over perturbations; {level} intervals by the jackknife over perturbations. {names}."
    return table(head, body, caption=caption, text=(0, 7), wide=(7,), most=200)


def _mean(row: Calibration, name: str | None) -> str:
    if name is None or name not in row.values:
        return "–"
    value = row.mean(name)
    return f"– ({reason(row.status[name])})" if math.isnan(value) else number(value)


def sizes(content: Content) -> Markup:
    """Calibration curves of effect sizes."""
    if not content.curves:
        return Markup()
    parts = []
    for label, curve in content.curves.items():
        parts += [element("h3", label)] if label else []
        fit = content.report is not None and label in content.report.contexts
        names = content.report.perturbations(label) if fit and content.report is not None else None
        names = names if names is not None and len(names) == len(curve.slopes) else None
        parts.append(
            picture(
                functools.partial(calibration_curve, curve, labels=names),
                "How to read it: every gene of every perturbation is put into a bin by its predicted effect. On the "
                "dashed line, the measured effects are as large as predicted. A flatter line means that effects are "
                "predicted too large, a steeper one too small. Bars are intervals with perturbations as the unit. "
                "Right: the slope of each perturbation by itself.",
                size_sentence(curve),
            )
        )
    return section("sizes", "Are predicted effects of the right size?", *parts)


def hardness(content: Content) -> Markup:
    """Where the scores come from: easy and hard perturbations."""
    if not content.difficulty:
        return Markup()
    parts = [part for context, found in content.difficulty.items() for part in _hardness(content, context, found)]
    told = (
        "What makes a perturbation hard is measured without looking at any prediction. A mean over easy ones says "
        "little about hard ones."
    )
    return section("difficulty", "Easy and hard perturbations", element("p", told), *parts)


def _hardness(content: Content, context: str, found: Mapping[str, np.ndarray]) -> Iterator[Markup]:
    if context:
        yield element("h3", f"Context {context}")
    rows = []
    for name, values in found.items():
        known = values[np.isfinite(values)]
        ends = np.quantile(known, (0, 0.5, 1)) if len(known) else np.full(3, np.nan)
        rows.append([INDICATORS.get(name, name), *numbers(ends), len(values) - len(known)])
    yield table(["indicator", "lowest", "median", "highest", "unknown"], rows)
    names = content.headlines(context, 1)
    if content.report is None or not names:
        return
    metric = content.report.metrics[names[0]]
    tables = _strata(content.report, names[0], context, found)
    if tables:
        yield picture(
            functools.partial(strata_plot, tables, value=names[0], perfect=metric.perfect, no_skill=metric.no_skill),
            "How to read it: perturbations are sorted into thirds by each indicator; the mark is the mean of "
            f"{names[0]}, the bar its 95% interval (bootstrap over perturbations). Bars that overlap are no proof that "
            "strata are alike.",
            f"Mean of {names[0]} in thirds of perturbations by {', '.join(name.replace('_', ' ') for name in found)}.",
        )
    x = next((name for name in ("effect_size", "effect_size_uncorrected") if name in found), next(iter(found)))
    yield picture(
        functools.partial(perturbation_scatter, content.report, x, names[0], difficulty=found, context=context),
        "How to read it: a dot is a perturbation. Named are those that move the mean most and those far from the rest.",
        f"{names[0]} of every perturbation against {INDICATORS.get(x, x)}.",
    )


def _strata(report: Report, name: str, context: str, found: Mapping[str, np.ndarray]) -> list[StratumTable]:
    values = column(report, name, context, {})
    tables = []
    with jax.enable_x64(True):
        for measure, indicator in found.items():
            if np.sum(np.isfinite(indicator)) >= 6 and np.nanmin(indicator) < np.nanmax(indicator):
                strata = stratify(indicator, name=measure)
                tables.append(jax.device_get(stratum_table(values, strata, key=jax.random.key(0))))
    return tables


def models(content: Content) -> Markup:
    """Two models side by side."""
    comparison = content.comparison
    if comparison is None:
        return Markup()
    a, b = comparison.names
    several = len({row.context for row in comparison.rows}) > 1
    head = ["metric", *(["context"] if several else []), "verdict", "better", a, b, "difference"]
    head += [f"{comparison.level:.0%} interval", "p adjusted", f"{a} wins", "used", "largest influence"]
    rows = []
    for row in comparison.rows:
        way = {True: "higher", False: "lower", None: "–"}[row.higher_is_better]
        without = f"{row.carrier}: {number(row.without_carrier)} without" if row.carrier else "–"
        share = "–" if math.isnan(row.won) else f"{row.won:.0%}"
        rows.append(
            [metric_link(row.metric), *([row.context] if several else []), row.verdict or "–", way]
            + [number(row.a), number(row.b), number(row.difference), interval(row.low, row.high)]
            + [number(row.adjusted), share, f"{row.used} of {row.total}", without]
        )
    shown = table(head, rows, text=range(4 if several else 3), wide=(len(head) - 1,), most=200)
    return section("models", f"{a} against {b}", shown, bullets(list(reading(comparison))))
