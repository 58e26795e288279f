"""The table of baselines as text: a block a metric, which baseline is the one to beat, and how to read it."""

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._baseline_results import BaselineTable
from ._baseline_rows import alike, REFERENCE, ROUNDING
from ._table import _ARROWS, number


if TYPE_CHECKING:
    from rich.table import Table

_ORDER = ("competitor", "null", "oracle")


def table_text(table: BaselineTable, width: int) -> str:
    """Blocks and lines, wide enough for the longest row."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for metric in table.metrics:
        console.print(_block(table, metric))
    console.width = 10_000  # a sentence is not cut
    for line in (*_to_beat(table), *_reading(table)):
        console.print(line, highlight=False, markup=False)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def _block(table: BaselineTable, metric: str) -> "Table":
    from rich.table import Table

    rows = [row for row in table.rows if row.metric == metric]
    better = rows[0].higher_is_better
    block = Table(title=f"{metric} {_ARROWS[better]}".strip(), title_justify="left")
    block.add_column("baseline", no_wrap=True)
    block.add_column("role")
    level = f"{100 * table.level:g} % interval"
    for name in ("value", level, "better than mean by", level, "covered", "on covered", "mean there"):
        block.add_column(name, justify="right", no_wrap=True)
    sign = -1.0 if better else 1.0
    place = lambda row: math.inf if math.isnan(row.value) else sign * row.value
    key = lambda row: (_ORDER.index(row.role), row.against, place(row))
    for row in sorted(rows, key=key):
        half = " (half)" if row.against == "half" else ""
        block.add_row(
            *(f"{row.baseline}{half}{' *' if row.best else ''}", row.role),
            _tidy(row.value) if row.status == "ok" else row.status,
            _bounds(row.low, row.high),
            *(_tidy(row.gain), _bounds(row.gain_low, row.gain_high)),
            *(f"{row.covered}/{len(table.perts)}", _tidy(row.covered_value), _tidy(row.mean_on_covered)),
        )
    return block


def _to_beat(table: BaselineTable) -> Iterator[str]:
    """For each metric: the best competitor, whether it is set apart from the mean, and what else scores as well."""
    for best in (row for row in table.rows if row.best):
        others = [row for row in table.rows if row.metric == best.metric and row.against == "all" and row != best]
        same = [row.baseline for row in others if row.role == "competitor" and alike(row.value, best.value)]
        told = f"{best.metric}: to beat is {best.baseline}, {number(best.value)}"
        told += f" (as good: {', '.join(same)})" if same else ""
        if best.baseline != REFERENCE and not math.isnan(best.gain):
            told += f"; better than the mean by {_tidy(best.gain)} [{_bounds(best.gain_low, best.gain_high)}]"
            told += "" if best.gain_low > ROUNDING else ", which may be chance"
        sign = 1 if best.higher_is_better else -1
        above = [row for row in others if row.role == "null" and sign * (row.value - best.value) > ROUNDING]
        if above:
            nulls = ", ".join(f"{row.baseline} {number(row.value)}" for row in above)
            told += f". Nulls that know nothing score better: {nulls}"
        yield f"{told}."


def _reading(table: BaselineTable) -> Iterator[str]:
    folds = "each from all others" if table.folds == "loo" else f"{table.folds} folds"
    yield f"{len(table.perts)} held-out perturbations of {table.source}: {folds}, seed {table.seed}; {table.space}."
    yield (
        f"Intervals: bootstrap over perturbations, {table.samples} samples (jackknife, for one value of the panel). "
        "Many baselines are compared: the best of them is also the luckiest."
    )
    yield "Nulls and oracles are not ranked; an oracle has seen cells of what it predicts."
    if any(row.against == "half" for row in table.rows):
        yield (
            "(half): scored against half of the cells of each perturbation; by the other half, or the mean of others."
        )
    if table.folds == "loo":
        yield "Ranks are among perturbations that the prediction was fitted to: a mean scores below one half."
    for metric in table.metrics:
        used = max((row.used for row in table.rows if row.metric == metric and row.against == "all"), default=0)
        if 0 < used < len(table.perts):
            yield f"{metric} has a value for {used} of the {len(table.perts)} perturbations."
    reasons: dict[str, list[str]] = {}
    for name, why in table.skipped.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield f"Not fitted ({why}): {', '.join(names)}."
    for note in table.notes:
        yield f"Note: {note}"


def _tidy(x: float) -> str:
    """A number; what rounding leaves of none is none."""
    return number(0.0 if abs(x) < ROUNDING else x)


def _bounds(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{_tidy(low)} to {_tidy(high)}"
