"""Cells held in memory: a CSR matrix that grows row by row, and one whose entries take as few bytes as they can."""

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse


_NARROW = np.iinfo(np.uint16)


class NarrowRows:
    """A CSR matrix for reading, cut in compiled loops, which do not hold the interpreter's lock.

    `data` and `indices` are of any type; `dtype` is that of what is cut out. It knows two of scipy's ways of indexing,
    `rows[numbers]` and `rows[:, first:last]`, and gives matrices of scipy.
    """

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, columns: int, dtype: np.dtype, loops: Any
    ) -> None:
        self.data, self.indices, self.indptr, self.dtype, self._loops = data, indices, indptr, dtype, loops
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

    def only(self, rows: np.ndarray) -> "NarrowRows":
        """A copy of some rows, held as this is."""
        first, lengths = self.indptr[rows], np.diff(self.indptr)[rows]
        csr = self._copied(first, lengths, 0, self.data.dtype, self.indices.dtype)
        return NarrowRows(*csr, self.shape[1], self.dtype, self._loops)

    def _places(self, column):
        """Where the columns from this one on start in each row."""
        from ..de._ranksum_numba import find_column

        places = np.empty(self.shape[0], np.int64)
        find_column(self.indptr, self.indices, np.arange(self.shape[0]), column, places)
        return places

    def _copied(self, first, lengths, offset, dtype, columns_dtype):
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], columns_dtype)
        self._loops.copy_entries(first, lengths, self.data, self.indices, offset, data, indices)
        return data, indices, indptr


Rows: TypeAlias = scipy.sparse.csr_matrix | NarrowRows


class GrowingRows:
    """A CSR matrix that grows in place: a list of blocks would take twice its memory when it is joined.

    **Arguments:**

    - `columns`: how many there are.
    - `loops`: the compiled loops, if there are any. Column numbers below 2^16, and values that are whole numbers below
        it, then take two bytes each.
    """

    def __init__(self, columns: int, loops: Any = None) -> None:
        self._width, self._loops, self.entries = columns, loops, 0
        narrow = loops is not None and columns <= _NARROW.max + 1
        self._columns = np.empty(0, _NARROW.dtype if narrow else np.int32)
        self._values = np.empty(0, np.float32 if loops is None else _NARROW.dtype)
        self._lengths: list[np.ndarray] = []

    def append(self, block: scipy.sparse.csr_matrix) -> None:
        """Adds the rows of a canonical block."""
        values = _narrowed(block.data) if self._values.dtype == _NARROW.dtype else block.data
        if self._values.dtype != values.dtype:
            self._values = self._values.astype(values.dtype)
        stop = self.entries + block.nnz
        if stop > len(self._values):
            for array in (self._values, self._columns):
                array.resize(max(stop, len(array) * 5 // 4), refcheck=False)
        self._values[self.entries : stop] = values
        self._columns[self.entries : stop] = block.indices
        self.entries = stop
        self._lengths.append(np.diff(block.indptr))

    def matrix(self, dtype: np.dtype) -> Rows:
        """All rows, as numbers of this dtype once they are looked at; the arrays are cut to size and handed over."""
        for array in (self._values, self._columns):
            array.resize(self.entries, refcheck=False)
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        if self._loops is not None:
            return NarrowRows(self._values, self._columns, np.cumsum(lengths), self._width, dtype, self._loops)
        starts = np.cumsum(lengths, dtype=np.int32 if self.entries < 2**31 else np.int64)
        csr = self._values.astype(dtype, copy=False), self._columns, starts
        return scipy.sparse.csr_matrix(csr, shape=(len(lengths) - 1, self._width), copy=False)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """The same numbers in two bytes each, if they fit."""
    if len(values) and not 0 <= values.min() <= values.max() <= _NARROW.max:
        return values
    narrow = values.astype(_NARROW.dtype)
    return narrow if np.array_equal(narrow, values) else values
