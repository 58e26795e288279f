"""From a screen to its summary."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ._errors import listing, Refusal, suggestion
from ._matrix import BLOCK_ENTRIES
from ._noise import analytic_noise, jackknife_noise
from ._pseudobulk import bulk_lognorm, cell_totals, Done, group_sums, lognorm_moments
from ._screen import Screen
from ._summary import Summary
from ._targets import resolve_targets


BULK_TARGET_SUM = 5e4


def summarise(
    screen: Screen,
    *,
    space: Literal["lognorm", "bulk_lognorm"],
    target_sum: float | None = None,
    noise: bool = True,
    context: str | None = None,
    targets: np.ndarray | None = None,
    max_entries: int = BLOCK_ENTRIES,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Profiles of a screen, with their sampling noise: one to three walks over its values, in blocks.

    Group sums are exact to float64 rounding. In the space `"lognorm"`, counts are normalised in the dtype of the matrix
    (normally float32) in the order of scanpy, and means are taken in float64. Rounded to float32, these means are bit
    for bit the pseudobulks of cell-eval 0.8.2, which averages float32 cells with compensation; its metrics then differ
    from those of unrounded means by 1e-7, relative (`pearson_delta` by up to 1e-5 where it is near 0).

    **Arguments:**

    - `space`: `"lognorm"`, the mean of log-normalised cells, or `"bulk_lognorm"`, the log-normalised sum of counts.
    - `target_sum`: the library size to scale to. `None` means the median of the positive totals of the cells that are
        summarised (`"lognorm"`) or 5e4 (`"bulk_lognorm"`). Cells that are log-normalised already are taken as they are;
        for them it is only recorded.
    - `noise`: whether to estimate the sampling noise, which costs `"bulk_lognorm"` another walk.
    - `context`: keep only the cells of this context. Every perturbation keeps its row: NaN, with `cells` 0, where it
        has no cells.
    - `targets`: index of the gene that each perturbation targets; `None` means that its name says so
        (see `resolve_targets`).
    - `max_entries`: number of stored values in memory at a time.
    - `progress`: called as `progress(done_cells, total_cells)`, a cell counting once a walk.

    **Raises:** `Refusal` for an unknown or empty context and for `"bulk_lognorm"` of cells that are not counts;
    `ValueError` for an unknown space or a `target_sum` that is not positive.
    """
    _check(screen, space, target_sum)
    groups = _groups(screen, context)
    sizes = np.bincount(groups[groups >= 0], minlength=len(screen.perts) + 1)
    make = _bulk if space == "bulk_lognorm" else _lognorm
    mean, spread, target_sum = make(screen, groups, sizes, target_sum, noise, max_entries, _Progress(screen, progress))
    mean[sizes == 0] = np.nan
    effects = screen.scale == "delta"
    return Summary(
        perts=screen.perts,
        genes=screen.genes,
        targets=resolve_targets(screen.perts, screen.genes) if targets is None else np.asarray(targets, np.int32),
        mean=mean[:-1],
        # The effect of the control is zero by definition.
        control=mean[-1] if sizes[-1] else np.zeros(len(screen.genes)) if effects else None,
        cells=sizes[:-1].astype(np.int64),
        control_cells=int(sizes[-1]),
        noise=None if spread is None else spread[:-1],
        control_noise=None if spread is None or not sizes[-1] else float(spread[-1]),
        target_sum=target_sum,
        space="delta" if effects else space,
        scale=screen.scale,
    )


class _Progress:
    """Progress over several walks through the cells, as one."""

    def __init__(self, screen: Screen, report: Callable[[int, int], None] | None) -> None:
        self._cells, self._report, self._walks, self._started = len(screen.codes), report, 1, 0

    def expect(self, walks: int) -> None:
        self._walks = walks

    def walk(self) -> Done | None:
        """The callback of the next walk."""
        if self._report is None:
            return None
        report, before, total = self._report, self._started * self._cells, self._walks * self._cells
        self._started += 1
        return lambda cells: report(before + cells, total)


def _bulk(screen, groups, sizes, target_sum, noise, max_entries, progress):
    target_sum = BULK_TARGET_SUM if target_sum is None else float(target_sum)
    progress.expect(1 + noise * (1 + (screen.totals is None)))
    sums = group_sums(screen.matrix, groups, len(sizes), max_entries, progress.walk())
    spread = None
    if noise:
        totals = _totals(screen, max_entries, progress)
        spread = jackknife_noise(screen.matrix, groups, sums, totals, target_sum, max_entries, progress.walk())
    return bulk_lognorm(sums, target_sum), spread, target_sum


def _lognorm(screen, groups, sizes, target_sum, noise, max_entries, progress):
    divisors = None
    if screen.scale == "counts":
        progress.expect(1 + (screen.totals is None))
        totals = _totals(screen, max_entries, progress)
        if target_sum is None:
            positive = totals[(groups >= 0) & (totals > 0)]
            target_sum = float(np.median(positive)) if len(positive) else 1.0
        divisors = totals / target_sum
    sums, squares = lognorm_moments(
        screen.matrix, groups, len(sizes), max_entries, divisors=divisors, done=progress.walk()
    )
    spread = analytic_noise(sums, squares, sizes) if noise else None
    return sums / np.maximum(sizes, 1)[:, None], spread, target_sum


def _totals(screen: Screen, max_entries: int, progress: _Progress) -> np.ndarray:
    if screen.totals is not None:
        return np.asarray(screen.totals, np.float64)
    return cell_totals(screen.matrix, max_entries, progress.walk())


def _groups(screen: Screen, context: str | None) -> np.ndarray:
    """The row of each cell in the profiles, the control last; -1 for a cell to leave out."""
    codes = np.asarray(screen.codes, np.int64)
    groups = np.where(codes == -1, len(screen.perts), np.maximum(codes, -1))
    if context is None:
        return groups
    if context not in screen.contexts or screen.context_codes is None:
        raise Refusal(
            what=f"There is no context {context!r}.{suggestion(context, screen.contexts)}",
            where=f"{screen.name}, with the contexts {listing(screen.contexts, 8) or '(none: no context column)'}",
            why="There would be no cells to score.",
            fix="name one of them: `context=`, of the column `context_col=` (`--context-col`).",
        )
    groups[screen.context_codes != screen.contexts.index(context)] = -1
    return groups


def _check(screen: Screen, space: str, target_sum: float | None) -> None:
    if space not in ("lognorm", "bulk_lognorm"):
        raise ValueError(f"`space` must be 'lognorm' or 'bulk_lognorm', got {space!r}.")
    if target_sum is not None and not 0 < target_sum < np.inf:
        raise ValueError(f"`target_sum` must be positive, got {target_sum}.")
    if space == "bulk_lognorm" and screen.scale != "counts":
        raise Refusal(
            what="Sums of counts are asked of cells that are not counts.",
            where=f"{screen.name}: {screen.scale_verdict or screen.scale}",
            why="The logarithm of a sum of logarithms is on no scale that anyone compares.",
            fix="`space='lognorm'` (a preset without sums of counts), or give counts (`input_type=`, `--input-type`).",
        )
