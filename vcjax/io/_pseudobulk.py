"""Sums over groups of cells, read in blocks of rows: exact to float64 rounding and never dense over cells."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse

from .._compiled import numba_installed
from ._matrix import Matrix, n_rows


Done = Callable[[int], None]

# Cells times genes from which compiled loops are worth the import of numba, which takes some tenths of a second and
# 90 MB: where the cells will be tested, and where they are only summed.
_MANY, _MORE = 2**24, 2**28
_ENTRIES = 65_536  # worked on at a time, so that what is made of them stays in the processor's cache


@dataclasses.dataclass(frozen=True)
class Entries:
    """The stored entries of some cells that belong to groups.

    **Fields:** `cells`, by their rows in the matrix; `groups` of them; `lengths`, entries of each; `values`, cell after
    cell; `places`, where the group and gene of each entry are in a flattened (groups, genes).
    """

    cells: np.ndarray
    groups: np.ndarray
    lengths: np.ndarray
    values: np.ndarray
    places: np.ndarray


def entries(matrix: Matrix, groups: np.ndarray, max_entries: int, done: Done | None = None) -> Iterator[Entries]:
    """All entries, a few cells at a time. `groups` is the group of each cell, -1 for a cell to leave out.

    `done(cells)` is called after each block with the number of cells read so far.
    """
    for start, block in matrix.chunks(max_entries):
        stop = start + n_rows(block)
        yield from entries_of(block, block.data, groups[start:stop], matrix.shape[1], start)
        if done is not None:
            done(stop)


def entries_of(
    block: scipy.sparse.csr_matrix, values: np.ndarray, groups: np.ndarray, genes: int, start: int = 0
) -> Iterator[Entries]:
    """The entries of one block, which have these `values` instead of its own; its first row is the cell `start`."""
    indptr, first = block.indptr, 0
    while first < len(groups):
        last = int(np.searchsorted(indptr, indptr[first] + _ENTRIES, side="right")) - 1
        last = min(max(last, first + 1), len(groups))
        mine, lengths = groups[first:last], np.diff(indptr[first : last + 1])
        part = slice(indptr[first], indptr[last])
        places, kept = np.repeat(mine.astype(np.intp) * genes, lengths), values[part]
        places += block.indices[part]
        cells = np.arange(start + first, start + last)
        if mine.min() < 0:
            inside, named = np.repeat(mine >= 0, lengths), mine >= 0
            places, kept = places[inside], kept[inside]
            cells, mine, lengths = cells[named], mine[named], lengths[named]
        yield Entries(cells, mine, lengths, kept, places)
        first = last


def group_sums(
    matrix: Matrix, groups: np.ndarray, num_groups: int, max_entries: int, done: Done | None = None
) -> np.ndarray:
    """Sum of the cells of each group as float64, shape (groups, genes)."""
    sums, loops = np.zeros((num_groups, matrix.shape[1])), compiled_loops(matrix)
    for start, block in matrix.chunks(max_entries):
        stop = start + n_rows(block)
        add_rows(block, block.data, groups[start:stop], sums, loops)
        if done is not None:
            done(stop)
    return sums


def worth_compiling(shape: tuple[int, int]) -> bool:
    """Whether numba is installed, and testing a matrix of this shape is worth its import."""
    return math.prod(shape) >= _MANY and numba_installed()


def compiled_loops(matrix: Matrix) -> Any:
    """The module of compiled loops for a walk, or `None` where they are not to be had or not worth it."""
    if not worth_compiling(matrix.shape) or (matrix.kept is None and math.prod(matrix.shape) < _MORE):
        return None
    from . import _loops

    return _loops


def add_rows(
    block: scipy.sparse.csr_matrix, values: np.ndarray, groups: np.ndarray, sums: np.ndarray, loops: Any = None
) -> None:
    """Adds each row of a block, with these `values` for its own, to the row of `sums` that is its group (-1: none).

    The order of the additions, and so every bit, is the same with compiled `loops` and without.
    """
    if loops is not None:
        loops.add_rows(block.indptr, block.indices, values, groups, sums)
        return
    for some in entries_of(block, values, groups, sums.shape[1]):
        np.add.at(sums.reshape(-1), some.places, some.values.astype(np.float64))


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
    sums, squares = np.zeros((num_groups, matrix.shape[1])), np.zeros(num_groups)
    for some in entries(matrix, groups, max_entries, done):
        values = some.values
        if divisors is not None:
            values = np.log1p(values / np.repeat(divisors[some.cells].astype(values.dtype), some.lengths))
        values = values.astype(np.float64)
        np.add.at(sums.reshape(-1), some.places, values)
        np.add.at(squares, some.groups, sums_of_cells(values * values, some.lengths))
    return sums, squares


def sums_of_cells(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums over the entries of each cell, which follow one another."""
    sums, some = np.zeros(len(lengths)), lengths > 0
    if len(values):
        sums[some] = np.add.reduceat(values, (np.cumsum(lengths) - lengths)[some])
    return sums


def bulk_lognorm(sums: np.ndarray, target_sum: float) -> np.ndarray:
    """`log1p` of the sums of each group, scaled to `target_sum`; zero for a group without counts."""
    totals = sums.sum(axis=1, keepdims=True)
    return np.log1p(target_sum * np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0))
