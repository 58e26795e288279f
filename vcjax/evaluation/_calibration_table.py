"""A calibration as a table for the terminal, with a verdict for each metric."""

import math
from typing import TYPE_CHECKING

from ._table import _ARROWS, number


if TYPE_CHECKING:
    from rich.table import Table

    from ._screen_calibration import ScreenCalibration

_MARKS = {True: "yes", False: "no", None: "?"}


def calibration_table(found: "ScreenCalibration", context: str) -> "Table":
    """One row a metric: its mean for the control of each role and the prediction, and how far apart they are."""
    from rich.markup import escape
    from rich.table import Table

    rows = found.of(context)
    scored = any("prediction" in row.values for row in rows.values())
    title = f"What metrics are worth on this screen{f': {escape(context)}' if context else ''}"
    table = Table(title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("")
    roles = ("control", "mean", "replicate", *(["prediction"] if scored else []))
    for name in (*roles, "perfect", "DRF", "BDS", *(["score", "interval"] if scored else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("separates")
    for metric, row in rows.items():
        pair = row.decisive
        perfect = math.nan if row.perfect is None else row.perfect
        chosen = (row.negative, row.null, row.positive, *(["prediction"] if scored else []))
        table.add_row(
            *(metric, _ARROWS[row.metric.higher_is_better]),
            *("–" if name is None or name not in row.values else number(row.mean(name)) for name in chosen),
            number(perfect),
            *(("–", "–") if pair is None else (_short(pair.fraction.median), _short(pair.discrimination))),
            *([_short(row.score), _range(row.score_interval)] if scored else []),
            _MARKS[row.separates],
        )
    return table


def verdict_lines(found: "ScreenCalibration", context: str) -> tuple[str, ...]:
    """A sentence a metric, and what the columns mean."""
    rows = found.of(context)
    lines = [f"{name}: {row.verdict}" for name, row in rows.items()]
    level = next((row.level for row in rows.values()), 0.95)
    splits = next((row.splits for row in rows.values()), 0)
    lines.append(
        f"Means over perturbations and {splits} divisions of the cells into halves. DRF: how far a replicate is from "
        "the mean on the way to perfect; BDS: share of perturbations in which it is better."
    )
    if any("prediction" in row.values for row in rows.values()):
        lines.append(
            f"score: 0 at the negative control, 1 at a replicate, not clipped; {level:.0%} jackknife interval."
        )
    return tuple(lines)


def _short(x: float) -> str:
    return "–" if math.isnan(x) else f"{x:.2f}"


def _range(bounds: tuple[float, float]) -> str:
    return "–" if math.isnan(bounds[0]) else f"{bounds[0]:.2f} to {bounds[1]:.2f}"
