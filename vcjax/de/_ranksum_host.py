"""The rank-sum test on the host: compiled loops where numba is installed, numpy's sort otherwise."""

import functools as ft
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ._ranksum_cells import blocks, items_per_gene, Side


Put = Callable[[int, np.ndarray, np.ndarray], None]  # takes the first gene, the integers from there on, the sums

_ITEMS, _MOST_ITEMS = 2**22, 2**24  # of a block: 25 to 100 MB a thread
_PER_CELL = 64  # items of a block in a cell, where there are fewer a walk along the cells waits for memory
_RANGES = 3  # of genes for each thread: a walk along all cells is made for each
_RANGE = 2**18  # items of a range, at least
_GENES = 256
_PARTS = 8  # of the cells, counted side by side
_TALLIES = 2**19  # genes times groups of a block: 16 MB a thread
_UINT = {4: np.uint32, 8: np.uint64}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(job: Callable[[int, int], None], ranges: Iterable[tuple[int, int]], threads: int | None) -> None:
    """The job of every range; the first exception is raised."""
    with ThreadPoolExecutor(cores() if threads is None else threads) as pool:
        for future in [pool.submit(job, *range_) for range_ in ranges]:
            future.result()


def numba_tallies(sides: list[Side], groups: int, put: Put, threads: int | None) -> None:
    """The integers of all genes by a radix sort and one pass over what it sorted.

    A block of genes is copied gene by gene, its cells in the order of their groups; as the sort is stable, equal values
    come by group without the group being part of a key.
    """
    try:
        from . import _ranksum_numba as loops
    except ImportError as error:
        raise ImportError('`engine="numba"` needs numba: `pip install "vcjax[de]"`.') from error
    dtype = np.dtype(sides[0].matrix.dtype)
    uint = _UINT[dtype.itemsize]
    sign = uint(1 << (8 * uint().itemsize - 1))
    items_of = _items_that_take_part(sides, loops, threads)
    labels_dtype = np.result_type(*(side.groups for side in sides))
    most_items = min(max(_ITEMS, _PER_CELL * sum(len(side.rows) for side in sides)), _MOST_ITEMS)
    longest = min(max(most_items, int(items_of.max(initial=0))), int(items_of.sum()))
    spare: list[tuple[np.ndarray, np.ndarray]] = []

    def job(first, last):
        walks = [_walk(side, first, dtype, labels_dtype, loops) for side in sides]
        try:
            buffers = spare.pop()
        except IndexError:
            # For all blocks, and so large that numpy asks for huge pages: without them, writing to many genes waits for
            # addresses.
            buffers = np.empty(longest, dtype), np.empty(longest, labels_dtype)
        for a, b in blocks(items_of[first:last], most_items, _most_genes(groups)):
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(items_of[first + a : first + b])])
            starts, ends = offsets[:-1], offsets[:-1].copy()
            items, labels = (buffer[: offsets[-1]] for buffer in buffers)
            for walk in walks:
                walk(first + a, first + b, ends, items, labels)
            sums = np.zeros((groups + 1, b - a))
            items = sides[0].ranked(items, ft.partial(loops.add_items, starts, ends, labels, sums))
            out = np.zeros((b - a, groups + 1, 4), np.int64)
            loops.tally(starts, ends, items.view(uint), labels, sign, out)
            put(first + a, out, sums)
        spare.append(buffers)

    # A range of genes is walked in order, so that every row is searched for its start once.
    ranges = _RANGES * (cores() if threads is None else threads)
    in_threads(job, blocks(items_of, max(_RANGE, -(-int(items_of.sum()) // ranges)), len(items_of)), threads)


def _walk(side, first, dtype, labels_dtype, loops):
    """A function that gathers the items of one range of genes after the other."""
    matrix, groups = side.matrix, side.groups.astype(labels_dtype, copy=False)
    divisors = np.ones(len(side.rows), dtype) if side.divisors is None else side.divisors[side.rows].astype(dtype)
    if isinstance(matrix, np.ndarray):
        return ft.partial(loops.gather_dense, matrix, side.rows, divisors, groups)
    cursors = np.empty(len(side.rows), np.int64)
    loops.find_column(matrix.indptr, matrix.indices, side.rows, first, cursors)
    stops = matrix.indptr[side.rows + 1].astype(np.int64)
    return ft.partial(loops.gather_sparse, cursors, stops, matrix.indices, matrix.data, divisors, groups)


def _items_that_take_part(sides, loops, threads):
    """How many stored entries of each gene are in cells that take part."""
    if any(isinstance(side.matrix, np.ndarray) for side in sides):
        return items_per_gene(sides)
    parts: list[np.ndarray] = []
    in_order = [np.sort(side.rows) for side in sides]

    def job(first, last):
        for side, rows in zip(sides, in_order, strict=True):
            some = rows[len(rows) * first // _PARTS : len(rows) * last // _PARTS]
            counts = np.zeros(side.matrix.shape[1], np.int64)
            loops.count_stored(side.matrix.indptr, side.matrix.indices, some, counts)
            parts.append(counts)

    in_threads(job, [(i, i + 1) for i in range(_PARTS)], threads)
    return np.sum(parts, axis=0)


def _most_genes(groups):
    return max(1, min(_GENES, _TALLIES // (groups + 1)))


def numpy_tallies(sides: list[Side], groups: int, put: Put, threads: int | None) -> None:
    """The same integers from numpy alone: one sort of packed (value, group) integers a gene."""
    bits = int(groups).bit_length()

    def job(first, last):
        sums = np.zeros((groups + 1, last - first))
        parts = [(side.columns(first, last, sums), side.labels) for side in sides]
        out = np.zeros((last - first, groups + 1, 4), np.int64)
        for c, tallies in enumerate(out):
            spans = [(matrix, labels, slice(matrix.indptr[c], matrix.indptr[c + 1])) for matrix, labels in parts]
            values = np.concatenate([matrix.data[span] for matrix, _, span in spans])
            labels = np.concatenate([labels[matrix.indices[span]] for matrix, labels, span in spans])
            some = (values != 0) & (labels >= 0)
            if some.any():
                _tally_gene(values[some], labels[some].astype(np.int64), bits, tallies)
        put(first, out, sums)

    # A block costs a walk over the whole matrix, so that blocks are larger than those of the compiled loops.
    in_threads(job, blocks(items_per_gene(sides), 4 * _ITEMS, 8 * _most_genes(groups)), threads)


def _tally_gene(values, labels, bits, out):
    key = (_order(values) << bits) | labels
    key.sort()
    group, value = key & ((1 << bits) - 1), key >> bits
    reference = group == 0
    until = np.cumsum(reference)
    below = _first_of_run(until - reference, value)
    run = np.arange(1, len(key) + 1) - _first_of_run(np.arange(len(key)), key)
    block = np.where(reference, 0, until - below) + run
    size = len(out)
    count = lambda weights: np.bincount(group, weights, size).astype(np.int64)
    out[:, 0] = count(np.where(reference, 0, below + until))
    ties = 3 * block * (block - 1)
    # `bincount` adds float64, which is exact for each half of these integers.
    out[:, 1] = (count(ties >> 24) << 24) + count(ties & (2**24 - 1))
    out[:, 2] = np.bincount(group, minlength=size)
    out[:, 3] = np.bincount(labels[values < 0], minlength=size)


def _order(values):
    """Integers below 2^32 in the order of the values."""
    if values.dtype == np.float64:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def _first_of_run(x, key):
    """The entry of `x` where each run of equal keys starts, at every place of the run."""
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return np.repeat(x[starts], np.diff(starts, append=len(key)))
