"""Cells held in memory: a CSR matrix that grows row by row, and one whose entries take as few bytes as they can."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import scipy.sparse


_NARROW = np.iinfo(np.uint16)


def row_ranges(indptr: np.ndarray, max_entries: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold at most that many entries, and at least one row."""
    start, rows = 0, len(indptr) - 1
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + max_entries, side="right")) - 1
        stop = min(max(stop, start + 1), rows)
        yield start, stop
        start = stop


class NarrowRows:
    """A CSR matrix for reading, cut in compiled loops, which do not hold the interpreter's lock.

    `data` and `indices` are of any type; `dtype` is that of what is cut out. It knows two of scipy's ways of indexing,
    `rows[numbers]` and `rows[:, first:last]`, and gives matrices of scipy.
    """

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, columns: int, dtype: np.dtype
    ) -> None:
        self.data, self.indices, self.indptr, self.dtype = data, indices, indptr, dtype
        self.shape = (len(indptr) - 1, columns)

    def __getitem__(self, key: np.ndarray | tuple[slice, slice]) -> scipy.sparse.csr_matrix:
        if isinstance(key, tuple):
            wanted = range(self.shape[1])[key[1]]
            first, stops = self._places(wanted.start), self._places(wanted.stop)
            lengths = stops - first
        else:
            wanted, first, lengths = range(self.shape[1]), self.indptr[key], np.diff(self.indptr)[key]
        csr = self._copied(first, lengths, wanted.start, self.dtype, np.dtype(np.int32))
        return scipy.sparse.csr_matrix(csr, shape=(len(lengths), len(wanted)), copy=False)

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        """All rows, as `Matrix.chunks` gives them."""
        for start, stop in row_ranges(self.indptr, max_entries):
            part = slice(self.indptr[start], self.indptr[stop])
            indptr = (self.indptr[start : stop + 1] - part.start).astype(np.int32)
            csr = self.data[part].astype(self.dtype), self.indices[part].astype(np.int32), indptr
            block = scipy.sparse.csr_matrix(csr, shape=(stop - start, self.shape[1]), copy=False)
            block.has_canonical_format = True
            yield start, block

    def only(self, rows: np.ndarray) -> "NarrowRows":
        """A copy of some rows, held as this is."""
        first, lengths = self.indptr[rows], np.diff(self.indptr)[rows]
        csr = self._copied(first, lengths, 0, self.data.dtype, self.indices.dtype)
        return NarrowRows(*csr, self.shape[1], self.dtype)

    def read_as(self, dtype: np.dtype) -> "NarrowRows":
        """The same rows, of which numbers of another type are cut out."""
        return NarrowRows(self.data, self.indices, self.indptr, self.shape[1], dtype)

    def _places(self, column):
        """Where the columns from this one on start in each row."""
        from ..de._ranksum_numba import find_column

        places = np.empty(self.shape[0], np.int64)
        find_column(self.indptr, self.indices, np.arange(self.shape[0]), column, places)
        return places

    def _copied(self, first, lengths, offset, dtype, columns_dtype):
        from ._loops import copy_entries

        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], columns_dtype)
        copy_entries(first, lengths, self.data, self.indices, offset, data, indices)
        return data, indices, indptr


Rows: TypeAlias = scipy.sparse.csr_matrix | NarrowRows


class GrowingRows:
    """A CSR matrix that grows in place: a list of blocks would take twice its memory when it is joined.

    **Arguments:**

    - `columns`: how many there are; `entries`: how many will be stored, if that is known: growing takes time.
    - `narrow`: column numbers below 2^16, and values that are whole numbers below it, take two bytes each.
    """

    def __init__(self, columns: int, entries: int = 0, *, narrow: bool) -> None:
        self._width, self.entries = columns, 0
        self._columns = np.empty(entries, _NARROW.dtype if narrow and columns <= _NARROW.max + 1 else np.int32)
        self._values = np.empty(entries, _NARROW.dtype if narrow else np.float32)
        self._lengths: list[np.ndarray] = []

    def append(self, block: scipy.sparse.csr_matrix) -> None:
        """Adds the rows of a canonical block."""
        values = _narrowed(block.data) if self._values.dtype == _NARROW.dtype else block.data
        if self._values.dtype != values.dtype:
            wider = np.empty(len(self._values), values.dtype)
            wider[: self.entries] = self._values[: self.entries]
            self._values = wider
        stop = self.entries + block.nnz
        if stop > len(self._values):
            for array in (self._values, self._columns):
                array.resize(max(stop, len(array) * 5 // 4), refcheck=False)
        self._values[self.entries : stop] = values
        self._columns[self.entries : stop] = block.indices
        self.entries = stop
        self._lengths.append(np.diff(block.indptr))

    def narrow(self, dtype: np.dtype) -> NarrowRows:
        """All rows, of which numbers of this dtype are cut; the arrays are cut to size and handed over."""
        return NarrowRows(*self._csr(np.dtype(np.int64)), self._width, dtype)

    def matrix(self, dtype: np.dtype) -> scipy.sparse.csr_matrix:
        """The same as a matrix of scipy."""
        values, columns, starts = self._csr(np.dtype(np.int32 if self.entries < 2**31 else np.int64))
        csr = values.astype(dtype, copy=False), columns, starts
        return scipy.sparse.csr_matrix(csr, shape=(len(starts) - 1, self._width), copy=False)

    def _csr(self, starts_dtype):
        for array in (self._values, self._columns):
            array.resize(self.entries, refcheck=False)
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        return self._values, self._columns, np.cumsum(lengths, dtype=starts_dtype)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """The same numbers in two bytes each, if they fit."""
    if len(values) and not 0 <= values.min() <= values.max() <= _NARROW.max:
        return values
    narrow = values.astype(_NARROW.dtype)
    return narrow if np.array_equal(narrow, values) else values
