"""From a screen to its summary."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ._context import cell_groups
from ._de import differential_expression, Tested
from ._de_settings import DESettings
from ._errors import Refusal
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
    de: DESettings | None = None,
    energy: bool = False,
    control_of: Screen | None = None,
    threads: int | None = None,
    tested: Tested | None = None,
    max_entries: int = BLOCK_ENTRIES,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Profiles of a screen, with their sampling noise: one to three walks over its values, in blocks.

    Differential expression, if it is asked for, takes one more and holds the normalised cells in memory.

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
    - `de`: test every gene of every perturbation against the control cells, under these conventions (another walk, for
        which the normalised cells are kept in memory), and with `energy` measure the energy distances as well.
        `control_of`: the screen whose control cells they are, for a
        prediction that is tested against the measured ones. `threads`: of the test.
    - `tested`: what `differential_expression` found for these cells, instead of `de`. If it was made of the logarithms
        that this summary averages, and no noise is asked for, no walk is needed at all.
    - `max_entries`: number of stored values in memory at a time.
    - `progress`: called as `progress(done_cells, total_cells)`, a cell counting once a walk.

    **Raises:** `Refusal` for an unknown or empty context and for `"bulk_lognorm"` of cells that are not counts;
    `ValueError` for an unknown space or a `target_sum` that is not positive.
    """
    _check(screen, space, target_sum)
    groups = cell_groups(screen, context)
    sizes = np.bincount(groups[groups >= 0], minlength=len(screen.perts) + 1)
    if de is not None and tested is None:
        options = {"context": context, "threads": threads, "max_entries": max_entries, "energy": energy}
        tested = differential_expression(screen, de, control_of=control_of, **options)
    if tested is not None and sums_serve(tested, sizes, space, target_sum, noise):
        mean, spread, target_sum = tested.sums / np.maximum(sizes, 1)[:, None], None, tested.target_sum
    else:
        make = _bulk if space == "bulk_lognorm" else _lognorm
        walks = _Progress(screen, progress)
        mean, spread, target_sum = make(screen, groups, sizes, target_sum, noise, max_entries, walks)
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
        de=None if tested is None else tested.table,
        energy=None if tested is None else tested.energy,
        space="delta" if effects else space,
        scale=screen.scale,
    )


def sums_serve(tested: Tested, sizes: np.ndarray, space: str, target_sum: float | None, noise: bool) -> bool:
    """Whether a test has summed the very cells that a summary would walk over."""
    same = space == "lognorm" and target_sum in (None, tested.target_sum) and np.array_equal(tested.sizes, sizes)
    return tested.sums is not None and same and not noise


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
