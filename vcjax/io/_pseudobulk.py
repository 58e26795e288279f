"""Sums over groups of cells, read in blocks of rows: exact to float64 rounding and never dense over cells."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from ._matrix import Matrix


# Working arrays of one run stay in the processor's cache.
RUN_ENTRIES = 65_536

Done = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """Some cells of one group: `values` of `genes`, cell after cell, `lengths` entries each."""

    group: int
    cells: np.ndarray
    lengths: np.ndarray
    genes: np.ndarray
    values: np.ndarray


def runs(matrix: Matrix, groups: np.ndarray, max_entries: int, done: Done | None = None) -> Iterator[Run]:
    """The cells of the matrix, a group at a time within each block of rows.

    `groups` is the group of each cell, -1 for a cell to leave out. With rows of one group side by side, sums over a
    group are sums over genes alone: several times faster than scattering into a table of groups and genes.
    `done(cells)` is called after each block with the number of cells read so far.
    """
    for start, block in matrix.chunks(max_entries):
        stop = start + len(block.indptr) - 1
        rows = np.flatnonzero(groups[start:stop] >= 0)
        rows = rows[np.argsort(groups[start + rows], kind="stable")]
        if len(rows) < stop - start or np.any(rows[1:] < rows[:-1]):
            block = block[rows]
        yield from _split(block, rows + start, groups[rows + start])
        if done is not None:
            done(stop)


def _split(block, cells, groups) -> Iterator[Run]:
    """Runs of at most `RUN_ENTRIES` entries (or one cell) of one group, of a block whose rows are sorted by group."""
    first, indptr = 0, block.indptr
    while first < len(cells):
        last_of_group = np.searchsorted(groups, groups[first], side="right")
        last = np.searchsorted(indptr, indptr[first] + RUN_ENTRIES, side="right") - 1
        last = min(max(last, first + 1), last_of_group)
        entries = slice(indptr[first], indptr[last])
        lengths = np.diff(indptr[first : last + 1])
        yield Run(int(groups[first]), cells[first:last], lengths, block.indices[entries], block.data[entries])
        first = last


def group_sums(
    matrix: Matrix, groups: np.ndarray, num_groups: int, max_entries: int, done: Done | None = None
) -> np.ndarray:
    """Sum of the cells of each group as float64, shape (groups, genes)."""
    genes = matrix.shape[1]
    sums = np.zeros((num_groups, genes))
    for run in runs(matrix, groups, max_entries, done):
        sums[run.group] += np.bincount(run.genes, run.values, genes)
    return sums


def cell_totals(matrix: Matrix, max_entries: int, done: Done | None = None) -> np.ndarray:
    """Sum of every row as float64."""
    totals, ones = np.zeros(matrix.shape[0]), np.ones(matrix.shape[1])
    for start, block in matrix.chunks(max_entries):
        stop = start + len(block.indptr) - 1
        totals[start:stop] = block @ ones
        if done is not None:
            done(stop)
    return totals


def lognorm_moments(
    matrix: Matrix,
    groups: np.ndarray,
    num_groups: int,
    max_entries: int,
    *,
    divisors: np.ndarray | None = None,
    done: Done | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Sums of log-normalised cells $x_c$ and of $\lVert x_c \rVert^2$ over each group, as float64.

    `divisors` is what each cell is divided by before `log1p`, its total over the library size that is scaled to; `None`
    for cells that are normalised already. The division and the logarithm are done in the matrix's own dtype and in the
    order of scanpy (`normalize_total`, `log1p`), so that each value has the bits that the peers' packages see.
    """
    genes = matrix.shape[1]
    sums, squares = np.zeros((num_groups, genes)), np.zeros(num_groups)
    for run in runs(matrix, groups, max_entries, done):
        values = run.values
        if divisors is not None:
            values = np.log1p(values / np.repeat(divisors[run.cells].astype(values.dtype), run.lengths))
        values = values.astype(np.float64)
        sums[run.group] += np.bincount(run.genes, values, genes)
        squares[run.group] += sum_of_squares(values)
    return sums, squares


def sum_of_squares(values: np.ndarray) -> float:
    """`values @ values`, the same on any number of threads: a BLAS may split it, and gains nothing at this length."""
    return float(np.einsum("i,i->", values, values))


def bulk_lognorm(sums: np.ndarray, target_sum: float) -> np.ndarray:
    """`log1p` of the sums of each group, scaled to `target_sum`; zero for a group without counts."""
    totals = sums.sum(axis=1, keepdims=True)
    return np.log1p(target_sum * np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0))
