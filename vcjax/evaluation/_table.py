"""The statistics of a report as a table for the terminal."""

import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from rich.table import Table

    from ._intervals import ScoreInterval
    from ._report import Report

_ARROWS = {True: "↑", False: "↓", None: ""}


def number(x: float) -> str:
    """Four significant digits; `–` for what is undefined."""
    if math.isnan(x):
        return "–"
    return f"{x:.4f}" if 1e-3 <= abs(x) < 1e4 or x == 0 else f"{x:.3e}"


def summary_table(report: "Report") -> "Table":
    """One row a metric (and context): the value to quote, spread, range, what perfect and no skill are."""
    from rich.table import Table

    contexts = report.contexts != ("",)
    table = Table(title=f"preset {report.preset.name} ({report.preset.source})", title_justify="left")
    for name in (*(["context"] if contexts else []), "metric", ""):
        table.add_column(name, no_wrap=name == "metric")
    intervals = {(row.context, row.metric): row for row in report.intervals}
    sure = [f"{report.stamp['intervals']['level']:.0%} interval"] if intervals else []
    for name in ("value", *sure, "std", "min", "median", "max", "used", "perfect", "no skill"):
        table.add_column(name, justify="right", no_wrap=name in ("value", *sure))
    for row in report.aggregates:
        metric = report.metrics[row.metric]
        anchors = [number(math.nan if x is None else x) for x in (metric.perfect, metric.no_skill)]
        table.add_row(
            *([row.context] if contexts else []),
            *(row.metric, _ARROWS[metric.higher_is_better]),
            number(row.value),
            *([_range(intervals[row.context, row.metric])] if intervals else []),
            *(number(x) for x in (row.std, row.min, row.median, row.max)),
            *(f"{row.n_used}/{row.n_total}", *anchors),
        )
    return table


def _range(row: "ScoreInterval") -> str:
    return "–" if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}"
