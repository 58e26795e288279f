"""The cells of a screen, gathered for a test that needs all cells of a gene at once."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from ._context import cell_groups
from ._de_settings import DESettings
from ._held import GrowingRows, NarrowRows, Rows
from ._matrix import BLOCK_ENTRIES, Matrix, n_rows
from ._pseudobulk import cell_totals, Done, worth_compiling
from ._screen import Screen


if TYPE_CHECKING:
    from ..de._ranksum_cells import Side

CONTROL, LEFT_OUT = -1, -2


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredCells:
    """Cells in the order in which they were read, as they are stored: logarithms are taken when they are looked at.

    **Fields:** `stored`, cells by genes; `codes`, the perturbation of each cell, `CONTROL` or `LEFT_OUT`; `sizes`, the
    number of cells of each group, the control last; `settings`, the conventions; `divisors`, what the counts of each
    cell are divided by, `None` for cells that are normalised already; `target_sum`, the library size that this scales
    to.
    """

    stored: Rows
    codes: np.ndarray
    sizes: np.ndarray
    settings: DESettings
    divisors: np.ndarray | None = None
    target_sum: float | None = None

    def __getitem__(self, rows: np.ndarray) -> scipy.sparse.csr_matrix:
        """The logarithms of some cells."""
        block = self.stored[rows]
        if self.divisors is not None:
            block.data /= np.repeat(self.divisors[rows].astype(block.dtype), np.diff(block.indptr))
            np.log1p(block.data, out=block.data)
        return block

    def side(self, *, perturbed: bool = True, control: bool = True) -> "Side":
        """The perturbed cells, the control cells or both, for the rank test; the control is its reference."""
        from ..de._ranksum_cells import make_side

        wanted = np.where(self.codes == CONTROL, control, perturbed & (self.codes != LEFT_OUT))
        sums = "log" if self.settings.mean == "geometric" else "linear"
        return make_side(self.stored, np.where(wanted, self.codes + 1, -1), self.divisors, sums)

    def control(self) -> "GatheredCells":
        """A copy of the control cells alone."""
        mine = np.flatnonzero(self.codes == CONTROL)
        stored = self.stored.only(mine) if isinstance(self.stored, NarrowRows) else self.stored[mine]
        divisors = None if self.divisors is None else self.divisors[mine]
        return GatheredCells(stored, self.codes[mine], self.sizes[-1:], self.settings, divisors, self.target_sum)


class TooManyValues(Exception):
    """The cells do not fit into the memory allowed; `share` is the part of the cells that did."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


def gather(
    screen: Screen,
    settings: DESettings,
    *,
    context: str | None = None,
    perturbed: bool = True,
    control: bool = True,
    genes: slice = slice(None),
    max_entries: int = BLOCK_ENTRIES,
    max_values: float = np.inf,
    done: Done | None = None,
) -> GatheredCells:
    """Reads and keeps the perturbed cells, the control cells or both, of these genes, unless the matrix has kept them.

    **Raises:** `TooManyValues` if more than `max_values` values would be kept.
    """
    groups = cell_groups(screen, context)
    divisors, target_sum = _divisors(screen, settings, groups, max_entries)
    last = len(screen.perts)
    if not perturbed:
        groups = np.where(groups == last, groups, -1)
    if not control:
        groups = np.where(groups == last, -1, groups)
    double = divisors is not None and settings.values == "double"
    columns, kept = range(screen.matrix.shape[1])[genes], screen.matrix.kept
    if kept is not None and len(columns) == kept.shape[1]:
        stored: Rows = kept.read_as(np.dtype(np.float64) if double else kept.dtype)
        if done is not None:
            done(len(groups))
    else:
        stored = _read(screen.matrix, groups >= 0, columns, double, max_entries, max_values, done)
        divisors = None if divisors is None else divisors[groups >= 0]
        groups = groups[groups >= 0]
    codes = np.where(groups == last, CONTROL, np.where(groups < 0, LEFT_OUT, groups))
    sizes = np.bincount(groups[groups >= 0], minlength=last + 1)
    return GatheredCells(stored, codes, sizes, settings, divisors, target_sum)


def _read(
    matrix: Matrix,
    wanted: np.ndarray,
    columns: range,
    double: bool,
    max_entries: int,
    max_values: float,
    done: Done | None,
) -> Rows:
    """The rows that are wanted, in one walk."""
    narrow, dtype = worth_compiling(matrix.shape), np.dtype(np.float32)
    rows = GrowingRows(len(columns), narrow=narrow)
    for start, block in matrix.chunks(max_entries):
        stop, dtype = start + n_rows(block), block.data.dtype
        if not wanted[start:stop].all():
            block = block[np.flatnonzero(wanted[start:stop])]
        if len(columns) < matrix.shape[1]:
            block = block[:, columns.start : columns.stop]
        rows.append(block)
        if done is not None:
            done(stop)
        if rows.entries > max_values:
            raise TooManyValues(stop / len(wanted))
    dtype = np.dtype(np.float64) if double else dtype
    return rows.narrow(dtype) if narrow else rows.matrix(dtype)


def _divisors(
    screen: Screen, settings: DESettings, groups: np.ndarray, max_entries: int
) -> tuple[np.ndarray | None, float | None]:
    """What each cell's counts are divided by (`None` for cells that are normalised already), and the library size."""
    if screen.scale != "counts":
        return None, settings.target_sum
    totals = screen.totals
    totals = cell_totals(screen.matrix, max_entries) if totals is None else np.asarray(totals, np.float64)
    if settings.target_sum is not None:
        return totals / settings.target_sum, settings.target_sum
    positive = totals[(groups >= 0) & (totals > 0)]
    median = float(np.median(positive)) if len(positive) else 1.0
    return totals / median, median
