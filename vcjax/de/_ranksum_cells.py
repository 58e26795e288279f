"""What every engine of the rank-sum test reads: cells ordered by group, and blocks of genes that bound its memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse


CellMatrix: TypeAlias = scipy.sparse.csr_matrix | scipy.sparse.csr_array | np.ndarray
Sums = Literal["log", "linear"]

MOST_CELLS = 2_097_151  # of one comparison: the cube of a greater number overflows an int64
_CHUNK = 2**20  # values looked at together, few enough to stay near


class Side(NamedTuple):
    """A matrix of cells by genes, and which of its rows take part.

    `labels` are the group of every row: 0 is the reference, then come the perturbations, and -1 takes no part. `rows`
    are those that do, in the order of their groups, and `groups` these groups.

    `divisors` of the rows, if they are given, say that counts are stored and log1p(count / divisor) is ranked; `sums`,
    what is added up for every group besides: these logarithms or their inverse, log1p or not.
    """

    matrix: Any  # a `CellMatrix`, which scipy does not type, or what has `data`, `indices`, `indptr` and `[:, a:b]`
    labels: np.ndarray
    rows: np.ndarray
    groups: np.ndarray
    divisors: np.ndarray | None = None
    sums: Sums | None = None

    def columns(self, first: int, last: int, sums: np.ndarray) -> scipy.sparse.csc_matrix:
        """What is ranked of some genes of all cells, gene by gene; what is stored may be zero. Adds to `sums`, (groups,
        genes).
        """
        part = _cut(self.matrix, first, last)
        lengths, items = np.diff(part.indptr), part.data
        if self.divisors is not None:
            items = items / np.repeat(self.divisors.astype(items.dtype), lengths)

        def add(summed: np.ndarray) -> None:
            places = np.repeat(self.labels.astype(np.intp) * sums.shape[1], lengths)
            places += part.indices
            if self.labels.min(initial=0) < 0:
                some = places >= 0
                places, summed = places[some], summed[some]
            sums[...] += np.bincount(places, summed, sums.size).reshape(sums.shape)

        csr = self.ranked(items, add), part.indices, part.indptr
        return scipy.sparse.csc_matrix(scipy.sparse.csr_matrix(csr, shape=part.shape, copy=False))

    def ranked(self, items: np.ndarray, add: Callable[[np.ndarray], None]) -> np.ndarray:
        """What is ranked, from stored values over their divisors and in their place; `add` is given what is summed."""
        if self.divisors is None:
            if self.sums is not None:
                add(items if self.sums == "log" else np.expm1(items))
            return items
        if self.sums == "linear":
            add(items)
        np.log1p(items, out=items)
        if self.sums == "log":
            add(items)
        return items


def _cut(matrix, first, last) -> Any:
    """Some columns of a matrix as CSR; the columns of a sparse row ascend.

    scipy walks along all entries for it, which takes longer than to search every row for its two ends.
    """
    if not scipy.sparse.issparse(matrix):
        return scipy.sparse.csr_matrix(matrix[:, first:last])
    starts, stops = (_places(matrix, column) for column in (first, last))
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(stops - starts)])
    entries = np.arange(indptr[-1])
    entries += np.repeat(starts - indptr[:-1], stops - starts)
    # All places exist; "clip" only spares `take` to look whether they do.
    data, indices = (np.take(array, entries, mode="clip") for array in (matrix.data, matrix.indices))
    csr = data, indices - indices.dtype.type(first), indptr
    return scipy.sparse.csr_matrix(csr, shape=(matrix.shape[0], last - first), copy=False)


def _places(matrix, column):
    """Where the columns from this one on start in each row: `find_column` without numba, all rows a step at a time."""
    low, high = matrix.indptr[:-1].astype(np.int64), matrix.indptr[1:].astype(np.int64)
    while len(rows := np.flatnonzero(low < high)):
        middle = (low[rows] + high[rows]) >> 1
        below = matrix.indices[middle] < column
        low[rows[below]], high[rows[~below]] = middle[below] + 1, middle[~below]
    return low


def sides_of(
    values: Any,
    codes: np.ndarray,
    groups: int,
    reference: Any,
) -> tuple[list[Side], np.ndarray]:
    """The reference cells and the others, of one dtype, and the number of cells of each group, the reference first.

    **Raises:** `ValueError` for codes that do not fit, NaN, matrices of different genes, and too many cells.
    """
    codes = np.asarray(codes)
    if codes.shape != values.shape[:1] or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"`codes` must be {values.shape[0]} integers, got {codes.dtype} of shape {codes.shape}.")
    codes = codes.astype(np.int64)
    lowest = -1 if reference is None else 0
    strange = (codes != -2) & ((codes < lowest) | (codes >= groups))
    if strange.any():
        fix = "" if reference is None else ", not -1 (the control) beside `reference`"
        raise ValueError(f"`codes` must lie between {lowest} and {groups - 1} or be -2{fix}; got {codes[strange][0]}.")
    named = {"values": values} if reference is None else {"reference": reference, "values": values}
    matrices: list[Any] = [_canonical(matrix, name) for name, matrix in named.items()]
    if matrices[0].shape[1] != matrices[-1].shape[1]:
        raise ValueError(f"`values` has {values.shape[1]} genes, `reference` {matrices[0].shape[1]}.")
    dtype = np.result_type(*(matrix.dtype for matrix in matrices))
    labels = [codes + 1] if reference is None else [np.zeros(matrices[0].shape[0], np.int64), codes + 1]
    sides = [make_side(matrix.astype(dtype, copy=False), label) for matrix, label in zip(matrices, labels, strict=True)]
    return sides, cells_of(sides, groups)


def make_side(matrix: Any, labels: np.ndarray, divisors: np.ndarray | None = None, sums: Sums | None = None) -> Side:
    """The side of a matrix whose rows are in these groups; below 0, in none."""
    rows = np.argsort(labels, kind="stable")
    rows = rows[labels[rows] >= 0]
    groups = labels[rows]
    narrow = np.uint16 if groups.max(initial=0) < 2**16 else np.uint32
    return Side(matrix, np.maximum(labels, -1).astype(np.int32), rows, groups.astype(narrow), divisors, sums)


def cells_of(sides: list[Side], groups: int) -> np.ndarray:
    """The number of cells of each group, the reference first.

    **Raises:** `ValueError` for too many.
    """
    cells = np.sum([np.bincount(side.groups, minlength=groups + 1) for side in sides], axis=0)
    if cells[0] + cells[1:].max(initial=0) > MOST_CELLS:
        raise ValueError(f"A comparison of more than {MOST_CELLS:,} cells is not supported, got {cells.sum():,}.")
    return cells


def _canonical(matrix, name):
    """Float32 or float64, without NaN; the columns of a sparse row ascending, each once."""
    if not (scipy.sparse.issparse(matrix) or isinstance(matrix, np.ndarray)) or matrix.ndim != 2:
        raise ValueError(f"`{name}` must be a sparse matrix or an array of cells by genes, got {type(matrix)}.")
    kept = matrix.dtype in (np.float32, np.float64)
    dtype = matrix.dtype if kept else np.float32 if matrix.dtype == np.float16 else np.float64
    if isinstance(matrix, np.ndarray):
        matrix = data = np.ascontiguousarray(matrix, dtype)
    else:
        matrix = scipy.sparse.csr_matrix(matrix, dtype=dtype)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        data = matrix.data
    step = max(1, _CHUNK // max(1, math.prod(data.shape[1:])))
    # The minimum of what holds a NaN is NaN, and takes no memory.
    if data.size and any(np.isnan(np.min(data[start : start + step])) for start in range(0, len(data), step)):
        raise ValueError(f"`{name}` holds NaN, which has no rank.")
    return matrix


def items_per_gene(sides: list[Side]) -> np.ndarray:
    """How many stored entries each gene has, in cells that take part or not: no fewer than take part."""
    total = np.zeros(sides[0].matrix.shape[1], np.int64)
    for side in sides:
        if isinstance(side.matrix, np.ndarray):
            total += side.matrix.shape[0]
            continue
        indices = side.matrix.indices
        for start in range(0, len(indices), _CHUNK):
            total += np.bincount(indices[start : start + _CHUNK], minlength=len(total))
    return total


def blocks(items: np.ndarray, most_items: int, most_genes: int) -> Iterator[tuple[int, int]]:
    """Ranges of genes that hold at most that many items and genes, and at least one gene."""
    ends = np.cumsum(items)
    first = 0
    while first < len(items):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + most_items, side="right"))
        last = max(first + 1, min(last, first + most_genes, len(items)))
        yield first, last
        first = last
