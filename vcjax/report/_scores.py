"""The scores of a report: their values with intervals and positions, what each metric is, and single perturbations."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..calibration import Calibration
from ..calibration._calibration import PREDICTION
from ..comparison import confidence_interval
from ..evaluation import number, Report
from ..metrics import Metric
from ._content import Content
from ._markup import element, joined_markup, Markup, section, table
from ._position import position
from ._scatter import column
from ._summary import undefined_values
from ._words import direction, judgement, reason


LEVEL, SAMPLES, SEED = 0.95, 1000, 0
_ELSEWHERE = "every value is in the report's own table (Report.to_pandas(), results.csv of a written run)."
_SHOWN = 25


def scores(content: Content) -> Markup:
    """The table of scores, one a context."""
    report = content.report
    if report is None:
        return Markup()
    parts = [_score_table(report, context, content.calibrations.get(context, {})) for context in report.contexts]
    made = {"level": LEVEL, "samples": SAMPLES, "seed": SEED} | (report.stamp.get("intervals") or {})
    told = (
        "Value: the mean over perturbations (or the one number of a metric that is about all of them). Interval: "
        f"{made['level']:.0%}, bootstrap over perturbations ({made['samples']:,} samples, seed {made['seed']}). "
        "Perfect and no skill: what a perfect and an uninformative prediction score, where that is known."
    )
    if content.calibrations:
        told += (
            " Position: 0 is the control, 1 a replicate of the experiment; it can lie outside of the two. It is "
            "measured on halves of the measured cells, so that the values behind it differ a little from those of this "
            "table."
        )
    return section("scores", "Scores", element("p", told), *parts)


def _score_table(report: Report, context: str, calibrations: Mapping[str, Calibration]) -> Markup:
    head = ["metric", "better", "value", "interval", "perfect", "no skill", "used", "undefined because"]
    head[4:4] = ["position (interval)", "can it tell?"] if calibrations else []
    names = list(report.metrics)
    bounds = _intervals(report, names, context)
    why = collections.defaultdict(list)
    for name, where, status, many in undefined_values(report):
        if where == context:
            why[name].append(f"{reason(status)} ({many})")
    rows = []
    for aggregate in (row for row in report.aggregates if row.context == context):
        name = aggregate.metric
        metric = report.metrics[name]
        way = {True: "higher", False: "lower", None: "–"}[metric.higher_is_better]
        cells = [metric_link(name), way, number(aggregate.value), interval(*bounds.get(name, (math.nan, math.nan)))]
        cells += _position_cells(calibrations.get(name)) if calibrations else []
        cells += [anchor(metric.perfect), anchor(metric.no_skill), f"{aggregate.n_used} of {aggregate.n_total}"]
        rows.append([*cells, "; ".join(why[name])])
    last = len(head) - 1
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    caption = f"Context {context}" if context else ""
    return table(head, rows, caption=caption, text=(0, 1, *([5] if calibrations else [])), wide=(last,), most=200)


def _position_cells(calibration: Calibration | None) -> list[Any]:
    if calibration is None:
        return ["–", "not examined"]
    place = position(calibration, PREDICTION)
    bounds = calibration.score_interval if calibration.negative else (math.nan, math.nan)
    told = number(place) if math.isnan(bounds[0]) else f"{number(place)} ({interval(*bounds)})"
    return [told, judgement(calibration).partition(":")[0]]


def _intervals(report: Report, names: Sequence[str], context: str) -> dict[str, tuple[float, float]]:
    """The report's own intervals, or else those of the means over perturbations."""
    if report.intervals:
        return {row.metric: (row.low, row.high) for row in report.intervals if row.context == context}
    single = [name for name in names if report.metrics[name].level == "perturbation"]
    if not single:
        return {}
    values = np.stack([column(report, name, context, {}) for name in single])
    with jax.enable_x64(True):
        low, high = _bootstrap(jnp.asarray(values), jax.random.key(SEED))
    return {name: (float(a), float(b)) for name, a, b in zip(single, np.asarray(low), np.asarray(high), strict=True)}


@eqx.filter_jit
def _bootstrap(values: Float[Array, "metrics perts"], key: Array) -> tuple[Array, Array]:
    def one(row):
        found = confidence_interval(row, key=key, samples=SAMPLES, level=LEVEL)
        return found.low, found.high

    return jax.lax.map(one, values)


def perturbations(content: Content) -> Markup:
    """Single perturbations: those with the worst value of the first metric come first."""
    report = content.report
    if report is None:
        return Markup()
    parts = []
    for context in report.contexts:
        names = content.headlines(context)
        if names:
            parts.append(_perturbation_table(report, context, names, content.difficulty.get(context, {})))
    told = "The perturbations in which the prediction is worst by the first column come first."
    return section("perturbations", "Single perturbations", element("p", told), *parts) if parts else Markup()


def _perturbation_table(
    report: Report, context: str, names: Sequence[str], difficulty: Mapping[str, np.ndarray]
) -> Markup:
    labels = report.perturbations(context)
    columns = [column(report, name, context, difficulty) for name in (*names, *difficulty)]
    sign = 1 if report.metrics[names[0]].higher_is_better else -1
    order = np.argsort(np.where(np.isnan(columns[0]), np.inf, sign * columns[0]), kind="stable")
    shown = [numbers(values) for values in columns]
    rows = [[labels[i], *(cells[i] for cells in shown)] for i in order]
    head = ["perturbation", *names, *(name.replace("_", " ") for name in difficulty)]
    caption = f"Context {context}" if context else ""
    return table(head, rows, caption=caption, most=_SHOWN, elsewhere=_ELSEWHERE)


def numbers(values: np.ndarray) -> list[str]:
    """Numbers of one kind; counts without decimals."""
    whole = np.all((values == np.round(values)) | np.isnan(values)) and np.nanmax(np.abs(values), initial=0.0) > 1
    return [number(x) if math.isnan(x) or not whole else f"{x:,.0f}" for x in values.tolist()]


def definitions(content: Content) -> Markup:
    """What each metric of the page is."""
    if not content.metrics:
        return Markup()
    items = [part for name, metric in content.metrics.items() for part in _definition(name, metric)]
    return section("metrics", "What the metrics measure", element("dl", *items))


def _definition(name: str, metric: Metric) -> tuple[Markup, Markup]:
    facts = [direction(metric).capitalize()]
    facts += [
        f"{told} {number(x)}"
        for told, x in (("perfect", metric.perfect), ("no skill", metric.no_skill))
        if x is not None
    ]
    facts += [] if metric.level == "perturbation" else ["one number for all perturbations"]
    lines = [metric.summary, " ", element("code", metric.formula), " ", f"{'; '.join(facts)}."]
    lines += [f" {metric.notes}"] if metric.notes else []
    lines += [element("span", f" Source: {metric.source}.", class_="source")]
    return element("dt", name, id=_anchor(name)), element("dd", joined_markup(lines))


def metric_link(name: str) -> Markup:
    """A metric's name, which leads to what it is."""
    return element("a", name, href=f"#{_anchor(name)}")


def _anchor(name: str) -> str:
    return f"metric-{''.join(x if x.isalnum() else '-' for x in name)}"


def interval(low: float, high: float) -> str:
    """`0.1 to 0.2`, or a dash."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{number(low)} to {number(high)}"


def anchor(value: float | None) -> str:
    """A number of the catalogue, or a dash."""
    return "–" if value is None else number(value)
