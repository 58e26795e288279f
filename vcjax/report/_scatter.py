"""Perturbation by perturbation: one number against another, with the names of those that stand out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ..evaluation import number, Report
from ..evaluation._difficulty import INDICATORS
from ..evaluation._results import _in_order
from ._place import label_points
from ._style import COLOURS, drawn, FAINT, GREY, headline, new_figure, view
from ._words import count, direction


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Values = Float[np.ndarray, " perts"]


@drawn
def perturbation_scatter(
    report: Report,
    x: str,
    y: str,
    *,
    difficulty: Mapping[str, np.ndarray] | None = None,
    context: str | None = None,
    labelled: int = 8,
    title: str | None = None,
    width: float = 7.5,
) -> "Figure":
    """One metric against another, or against an indicator of difficulty; a dot a perturbation.

    Named are the perturbations that move the mean of `y` most and those far from the others in `x`. Dashed lines are
    the perfect value and that without skill.

    **Arguments:**

    - `x`, `y`: names of metrics of the report, or of `difficulty`, which has one number a perturbation in the order of
        `report.perturbations(context)`.
    - `context`: needed where the report has several.
    - `labelled`: how many to name at most. `title`: in the place of the sentence that says what one sees; `width`: in
        inches.

    **Raises:** `KeyError` for a name that is neither; `ValueError` for a metric of the panel, for numbers of another
    length, and for several contexts without `context`; `vcjax.io.Refusal` without matplotlib.
    """
    if context is None and len(report.contexts) > 1:
        raise ValueError(f"The report has the contexts {', '.join(report.contexts)}: name one with `context`.")
    context = next(iter(report.contexts)) if context is None else context
    labels = report.perturbations(context)
    first, second = (column(report, name, context, difficulty or {}) for name in (x, y))
    known = np.flatnonzero(np.isfinite(first) & np.isfinite(second))
    figure = new_figure(width, 4.6)
    axes = figure.add_subplot()
    _axes(axes, first[known], second[known], (report, x, y))
    style = {"marker": "o", "linestyle": "none", "color": COLOURS["positive"], "markeredgewidth": 0}
    axes.plot(first[known], second[known], markersize=5.0 if len(known) <= 100 else 3.6, alpha=0.75, **style)
    headline(figure, title or _sentence(x, y, first[known], second[known]), _detail(y, second, known, labels))
    chosen = _standing_out(_scaled(axes, first[known]), second[known], labelled)
    label_points(figure, axes, first[known], second[known], chosen, [labels[i] for i in known])
    return figure


def column(report: Report, name: str, context: str, difficulty: Mapping[str, np.ndarray]) -> _Values:
    """A metric or an indicator, one number a perturbation of the context.

    **Raises:** as of `perturbation_scatter`.
    """
    labels = report.perturbations(context)
    if name in difficulty:
        values = np.asarray(difficulty[name], np.float64)
        if values.shape != (len(labels),):
            raise ValueError(f"`{name}` must have one number for each of {len(labels)} perturbations.")
        return values
    values = report.values(name, context)
    if report.metrics[name].level == "panel":
        raise ValueError(f"`{name}` is one number for all perturbations.")
    rows = (report.metric == name) & (report.context == context)
    return _in_order(labels, report.perturbation[rows], values)


def _axes(axes: "Axes", x: _Values, y: _Values, names: tuple[Report, str, str]) -> None:
    report, x_name, y_name = names
    for axis, values, name in (("x", x, x_name), ("y", y, y_name)):
        metric = report.metrics.get(name)
        label = INDICATORS.get(name, name) if metric is None else f"{name} ({direction(metric)})"
        axes.set(**{f"{axis}label": label})
        if len(values) == 0:
            continue
        low, high = float(values.min()), float(values.max())
        if metric is None and low > 0 and high > 30 * low:
            _log_axis(axes, axis, low / 1.3, high * 1.3)
            continue
        anchors = [] if metric is None else [(metric.perfect, "perfect"), (metric.no_skill, "no skill")]
        anchors = [(value, told) for value, told in anchors if value is not None]
        near = [value for value, _ in anchors if low - (high - low) <= value <= high + (high - low)]
        axes.set(**{f"{axis}lim": view(min([low, *near]), max([high, *near]), margin=0.08)})
        for value, told in anchors if axis == "y" else []:
            if value in near:
                axes.axhline(value, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
                axes.annotate(
                    *(told, (1.01, value)), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=GREY
                )


def _log_axis(axes: "Axes", axis: str, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{axis}scale": "log", f"{axis}lim": (low, high)})
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
    chosen.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    chosen.set_minor_locator(NullLocator())


def _scaled(axes: "Axes", x: _Values) -> _Values:
    return np.log(x) if axes.get_xscale() == "log" else x


def _standing_out(x: _Values, y: _Values, most: int) -> Int[np.ndarray, " k"]:
    """Those that move the mean of y, or lie far from the rest in x, by more than one and a half usual distances."""
    if len(x) < 2:
        return np.arange(len(x))
    away = np.maximum(_distance(x, float(np.median(x))), _distance(y, float(np.mean(y))))
    most = min(most, max(3, len(x) // 4))
    order = np.argsort(-away, kind="stable")[:most]
    return order[away[order] > 1.5]


def _distance(values: _Values, centre: float) -> _Values:
    away = np.abs(values - centre)
    usual = float(np.sqrt(np.mean(away * away)))
    return away / usual if usual > 0 else np.zeros_like(away)


def _sentence(x: str, y: str, first: _Values, second: _Values) -> str:
    from scipy.stats import spearmanr

    told = count(len(first), "perturbation")
    if len(first) < 5 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return f"{_name(y)} and {_name(x)} of {told}"
    rho, pvalue = np.asarray(spearmanr(first, second), np.float64)
    if pvalue > 0.05:
        return f"{_name(y)} does not visibly depend on {_name(x)} (Spearman {rho:.2f}, {told})"
    return f"{_name(y)} {'rises' if rho > 0 else 'falls'} with {_name(x)} (Spearman {rho:.2f}, {told})"


def _name(name: str) -> str:
    return INDICATORS[name].partition(" (")[0] if name in INDICATORS else name


def _detail(name: str, values: _Values, known: np.ndarray, labels: tuple[str, ...]) -> str:
    """Who moves the mean most, and who is not shown."""
    lines = []
    if len(known) > 2:
        y = values[known]
        most = int(np.argmax(np.abs(y - y.mean())))
        without = float((y.sum() - y[most]) / (len(y) - 1))
        lines.append(
            f"{labels[known[most]]} moves the mean of {_name(name)} most: {number(float(y.mean()))} with it, "
            f"{number(without)} without"
        )
    gone = len(values) - len(known)
    lines += [f"{gone} without both values are not shown"] if gone else []
    return "; ".join(lines)
