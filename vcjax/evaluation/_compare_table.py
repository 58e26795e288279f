"""A comparison as a table for the terminal, with how to read it."""

import math
from typing import TYPE_CHECKING

from ._table import _ARROWS, number


if TYPE_CHECKING:
    from rich.table import Table

    from ._comparison import Comparison


def compare_table(comparison: "Comparison") -> "Table":
    """One row a metric (and context)."""
    from rich.markup import escape
    from rich.table import Table

    several = len({row.context for row in comparison.rows}) > 1
    a, b = (escape(name) for name in comparison.names)
    table = Table(title=f"{a} against {b}, preset {comparison.preset}", title_justify="left")
    for name in (*(["context"] if several else []), "metric", ""):
        table.add_column(name)
    level = f"{100 * comparison.level:g} % interval"
    for name in (a, b, "difference", level, "p", "p adj.", f"won by {a}", "used"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in comparison.rows:
        bounds = "–" if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}"
        table.add_row(
            *([row.context] if several else []),
            *(row.metric, _ARROWS[row.higher_is_better], number(row.a), number(row.b), number(row.difference), bounds),
            *(_probability(row.pvalue), _probability(row.adjusted), _share(row.won), f"{row.used}/{row.total}"),
            escape(row.verdict),
        )
    return table


def reading(comparison: "Comparison") -> tuple[str, ...]:
    """What the columns mean, and the notes."""
    a, b = comparison.names
    known = zip(comparison.names, comparison.sources, strict=True)
    sources = [f"{name} is {source}" for name, source in known if source]
    kinds = {"holm": "after Holm", "bh": "after Benjamini and Hochberg", "none": "not adjusted"}
    filled = [row.metric for row in comparison.rows if row.filled_a or row.filled_b]
    lines = [
        f"difference: {a} less {b} over the same perturbations; interval: {comparison.method} bootstrap over "
        f"perturbations, {comparison.samples} samples, seed {comparison.seed}.",
        f"p: {a} and {b} swapped within perturbations, up to {comparison.permutations} times; p adj.: over the metrics "
        f"of a context, {kinds[comparison.correction]}.",
        f"A verdict needs p adj. of at most {1 - comparison.level:.3g} and an interval that leaves out 0.",
    ]
    if filled:
        lines.append(f"A value that only one of them lacks counts as no skill: {', '.join(dict.fromkeys(filled))}.")
    return (*sources, *lines, *(f"note: {note}" for note in comparison.notes))


def _probability(p: float) -> str:
    return "–" if math.isnan(p) else f"{p:.4f}" if p >= 1e-3 else f"{p:.1e}"


def _share(x: float) -> str:
    return "–" if math.isnan(x) else f"{100 * x:.0f} %"
