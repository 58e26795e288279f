"""Where a score comes from: its value in strata of easy and hard perturbations."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..comparison import StratumTable
from ..evaluation import number
from ..evaluation._difficulty import INDICATORS
from ._style import drawn, FAINT, GREY, headline, named_ticks, new_figure, SERIES, SERIES_MARKERS, view


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tables: TypeAlias = StratumTable | Sequence[StratumTable] | Mapping[str, StratumTable | Sequence[StratumTable]]
_Series: TypeAlias = list[tuple[str, StratumTable]]


@drawn
def strata_plot(
    tables: Tables,
    *,
    value: str = "value",
    perfect: float | None = None,
    no_skill: float | None = None,
    title: str | None = None,
    width: float = 9.0,
) -> "Figure":
    """A number in every stratum, from the lowest, with its interval; one panel for each measure of difficulty.

    **Arguments:**

    - `tables`: of `vcjax.comparison.stratum_table`: one, several (a panel for each measure), or by the name of what
        they are of (two models, side by side).
    - `value`: what the number is, for axis and title. `perfect`, `no_skill`: dashed lines.
    - `title`: in the place of the sentence that says what one sees; `width`: in inches.

    **Raises:** `ValueError` without a table; `vcjax.io.Refusal` without matplotlib.
    """
    panels = _panels(tables)
    if not panels:
        raise ValueError("At least one table of strata is needed, got none.")
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure = new_figure(width if across > 1 else min(width, 6.0), 1.1 + 2.7 * down)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, (name, series) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, name, series)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    anchors = [(x, told) for x, told in ((perfect, "perfect"), (no_skill, "no skill")) if x is not None]
    _limits(grid[0, 0], panels, [x for x, _ in anchors])
    low, high = grid[0, 0].get_ylim()
    anchors = [(x, told) for x, told in anchors if low <= x <= high]
    for place, axes in enumerate(grid.flat[: len(panels)]):
        for x, told in anchors:
            axes.axhline(x, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
            if place == 0:
                axes.annotate(
                    *(told, (0.0, x)), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=GREY
                )
        axes.tick_params(axis="y", labelleft=True)
        if place % across == 0:
            axes.set_ylabel(value)
    headline(figure, title or _sentence(panels, value))
    return figure


def _panels(tables: Tables) -> dict[str, _Series]:
    """Every measure with its series."""
    named = tables if isinstance(tables, Mapping) else {"": tables}
    panels: dict[str, _Series] = {}
    for label, found in named.items():
        for table in (found,) if isinstance(found, StratumTable) else found:
            panels.setdefault(table.strata.name, []).append((label, table))
    return panels


def _panel(axes: "Axes", name: str, series: _Series) -> None:
    for i, (label, table) in enumerate(series):
        estimate, low, high = (np.asarray(x, np.float64) for x in (table.estimate, table.low, table.high))
        places = np.arange(len(estimate)) + 0.14 * (i - 0.5 * (len(series) - 1))
        known = np.isfinite(estimate)
        ends = np.where(np.isnan(np.stack([low, high])), estimate, np.stack([low, high]))
        error = np.maximum(np.abs(ends - estimate), 0)
        colour, marker = SERIES[i % len(SERIES)], SERIES_MARKERS[i % len(SERIES_MARKERS)]
        axes.errorbar(
            *(places[known], estimate[known], error[:, known]),
            fmt=marker,
            color=colour,
            markersize=5,
            capsize=2.5,
            elinewidth=1.2,
        )
        if label and known.any():
            last = int(np.flatnonzero(known)[-1])
            axes.annotate(
                *(label, (places[last], estimate[last])),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )
    table = series[0][1]
    used = np.asarray(table.used)
    names = [label.replace(" to ", "\nto ") for label in table.strata.labels()]
    ticks = [f"{label}\nn = {n}" for label, n in zip(names, used, strict=True)]
    named_ticks(axes, "x", range(len(ticks)), ticks, fontsize=8)
    axes.set_xlim(-0.5, len(ticks) - 0.5 + (0.35 if any(label for label, _ in series) else 0))
    axes.set_xlabel(textwrap.fill(INDICATORS.get(name, name) or "stratum", 32), fontsize=8.5)


def _limits(axes: "Axes", panels: Mapping[str, _Series], anchors: list[float]) -> None:
    tables = [table for series in panels.values() for _, table in series]
    ends = np.concatenate([np.r_[np.asarray(t.estimate), np.asarray(t.low), np.asarray(t.high)] for t in tables])
    ends = ends[np.isfinite(ends)]
    if len(ends):
        low, high = float(ends.min()), float(ends.max())
        near = [x for x in anchors if low - (high - low) <= x <= high + (high - low)]
        axes.set_ylim(*view(min([low, *near]), max([high, *near]), margin=0.08))


def _sentence(panels: Mapping[str, _Series], value: str) -> str:
    """The measure between whose ends the first series differs most, and whether the intervals are apart."""
    best, most = None, -1.0
    for name, series in panels.items():
        table = series[0][1]
        rows = [row for row in table.rows() if math.isfinite(float(row["estimate"]))]
        if len(rows) > 1 and abs(float(rows[-1]["estimate"]) - float(rows[0]["estimate"])) > most:
            most = abs(float(rows[-1]["estimate"]) - float(rows[0]["estimate"]))
            best = (name, series[0][0], rows[0], rows[-1])
    if best is None:
        return f"{value}: no two strata have a value"
    name, label, lowest, highest = best
    low, high = float(lowest["estimate"]), float(highest["estimate"])
    who = f"{value} of {label}" if label else value
    told = f"{who} is {number(low)} in the lowest stratum by {_measure(name)} and {number(high)} in the highest"
    apart = float(lowest["high"]) < float(highest["low"]) or float(highest["high"]) < float(lowest["low"])
    return f"{told}{'; the intervals do not overlap' if apart else '; the intervals overlap'}"


def _measure(name: str) -> str:
    return INDICATORS[name].partition(" (")[0] if name in INDICATORS else name or "the measure"
