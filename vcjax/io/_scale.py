"""Counts or log-normalised: decided cell by cell, never by the largest value of a matrix."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from ._errors import Refusal


Scale = Literal["counts", "lognorm", "delta"]
CEILING = 1e6  # counts per cell that no protocol reaches
_FLAG = "(`--input-type`, or `--input-type-pred`/`--input-type-real` for one side)"


@dataclasses.dataclass(frozen=True, eq=False)
class RowFacts:
    """What one walk over the cells tells of each: sum, sum of expm1, number of values, number of fractional ones."""

    name: str
    totals: np.ndarray
    linear_totals: np.ndarray
    entries: np.ndarray
    fractional: np.ndarray
    first_fraction: str
    label: Callable[[int], str]
    slack: float

    @property
    def whole(self) -> np.ndarray:
        """Cells of whole numbers; one value alone may be whole by chance."""
        return (self.fractional == 0) & (self.entries > 1)


def decide_scale(
    facts: RowFacts, input_type: str, max_total: float | None
) -> tuple[Scale, str, float | None, list[str]]:
    """`(scale, verdict, median library size, notes)`.

    Counts: every value is a whole number. Lognorm: no cell is of whole numbers alone, and `expm1` of every cell sums to
    at most 10⁶ (or `max_total`), with a slack of 16 units in the last place.

    **Raises:** `Refusal` for a mixture of the two, for neither, and where this contradicts a declared `input_type`.
    """
    if input_type == "delta":
        return "delta", "delta (declared)", None, []
    fractional = facts.fractional > 0
    if input_type == "auto" and not facts.entries.any():
        raise Refusal(
            what="All values are zero: the scale cannot be told.",
            where=f"{facts.name}, {len(facts.entries)} cells",
            why="Counts are normalised before they are compared, log-normalised values are not.",
            fix=f'declare it: `input_type="counts"` or `input_type="lognorm"` {_FLAG}.',
        )
    if input_type == "counts" and fractional.any():
        raise _not_counts(facts)
    if input_type == "lognorm" and not fractional.any() and facts.whole.any():
        raise Refusal(
            what="Declared lognorm, but every value is a whole number.",
            where=f"{facts.name}, median total {_median(facts.totals):,.0f}",
            why="Counts taken for logarithms inflate every error and every effect.",
            fix=f'declare `input_type="counts"` {_FLAG}.',
        )
    if input_type != "lognorm" and not fractional.any():
        return _counts(facts, input_type, max_total)
    return _lognorm(facts, input_type, max_total)


def _counts(facts: RowFacts, input_type: str, max_total: float | None) -> tuple[Scale, str, float | None, list[str]]:
    above = np.flatnonzero(facts.totals > (CEILING if max_total is None else max_total))
    notes = []
    if len(above):
        cell = int(above[0])
        found = f"{len(above)} cells have more than {CEILING if max_total is None else max_total:,.0f} counts"
        if max_total is not None:
            raise Refusal(
                what=f"{found}.",
                where=f"{facts.name}, first: row {cell} ({facts.label(cell)!r}) with {facts.totals[cell]:,.0f}",
                why="Such a library size is implausible, and the rules in force forbid it.",
                fix="scale the predicted cells to a plausible depth, or raise `max_total` (`--max-total`).",
            )
        notes.append(f"Warning: {found}, the first in row {cell} ({facts.totals[cell]:,.0f}): implausible")
    depth = _median(facts.totals)
    how = "declared" if input_type == "counts" else "detected"
    verdict = (
        f"counts ({how}: every value of {len(facts.totals)} cells is within 1e-6 of a whole number; "
        f"median total {depth:,.0f})"
    )
    return "counts", verdict, depth, notes


def _lognorm(facts: RowFacts, input_type: str, max_total: float | None) -> tuple[Scale, str, float | None, list[str]]:
    ceiling = CEILING if max_total is None else max_total
    above = (facts.fractional > 0) & ~(facts.linear_totals <= ceiling * (1 + facts.slack))
    whole = facts.whole
    if above.any() and above[facts.fractional > 0].all():
        raise _neither(facts, ceiling)
    if whole.any() or above.any():
        raise _mixed(facts, whole, above, ceiling)
    depth = _median(facts.linear_totals)
    how = "declared" if input_type == "lognorm" else "detected"
    verdict = (
        f"lognorm ({how}: fractional values, and expm1 of every cell sums to at most {ceiling:,.0f}; "
        f"median sum {depth:,.0f})"
    )
    return "lognorm", verdict, depth, []


def _not_counts(facts: RowFacts) -> Refusal:
    log = np.all(facts.linear_totals <= CEILING * (1 + facts.slack)) and not facts.whole.any()
    return Refusal(
        what=f"Declared counts, but {int(np.sum(facts.fractional > 0))} of {len(facts.totals)} cells hold values that "
        "are not whole numbers (within 1e-6, absolutely).",
        where=f"{facts.name}, first: {facts.first_fraction}",
        why="Normalising what is already normalised, or soft counts, changes every profile.",
        fix=f'declare `input_type="lognorm"` {_FLAG}.' if log else "round them: `adata.X = np.rint(adata.X)`.",
    )


def _mixed(facts: RowFacts, whole: np.ndarray, above: np.ndarray, ceiling: float) -> Refusal:
    odd = whole if whole.any() else above
    kind = "hold whole numbers only (counts)" if whole.any() else f"have an expm1 sum above {ceiling:,.0f}"
    cell = int(np.flatnonzero(odd)[0])
    return Refusal(
        what=f"The scale is mixed: {int(odd.sum())} of {len(odd)} cells {kind}, others are fractional as lognorm is.",
        where=f"{facts.name}, first: row {cell} ({facts.label(cell)!r}); row totals {_quantiles(facts.totals)}, "
        f"expm1 totals of fractional rows {_quantiles(facts.linear_totals[facts.fractional > 0])}",
        why="Cells on another scale dominate the mean of their perturbation, whatever the prediction is worth.",
        fix=f"put all cells on one scale (log-normalise those too), then declare it: `input_type=` {_FLAG}.",
    )


def _neither(facts: RowFacts, ceiling: float) -> Refusal:
    positive = facts.totals[facts.totals > 0]
    normalised = positive.std() < 1e-3 * positive.mean()
    hint = f"; every row sums to {positive.mean():,.0f}: normalised, but without the logarithm" if normalised else ""
    return Refusal(
        what="The values are neither counts nor log-normalised: they are fractional, and expm1 of a cell sums to more "
        f"than {ceiling:,.0f}.",
        where=f"{facts.name}, first: {facts.first_fraction}; row totals {_quantiles(facts.totals)}, "
        f"expm1 totals {_quantiles(facts.linear_totals)}{hint}",
        why="On an unknown scale errors and effects mean nothing.",
        fix="take the logarithm (`scanpy.pp.log1p(adata)`)."
        if normalised
        else "give whole counts, or natural log1p of normalised counts; `max_total=` (`--max-total`) moves the limit.",
    )


def _median(totals: np.ndarray) -> float:
    positive = totals[totals > 0]
    return float(np.median(positive)) if len(positive) else 0.0


def _quantiles(totals: np.ndarray) -> str:
    low, middle, high = np.quantile(totals, [0.05, 0.5, 0.95], method="nearest")
    return f"{low:.4g} / {middle:.4g} / {high:.4g} (5 / 50 / 95 %)"
