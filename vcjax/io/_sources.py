"""Where the rows of a screen come from: sparse or dense, in memory or in a file, whole or a view."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse

from ._errors import Refusal
from ._group import first_line
from ._held import row_ranges
from ._matrix import dense_block, n_rows, Source, widen


class CsrSource(Source):
    """Compressed rows. `parts()` opens `(data, indices, indptr)`, which need no more than slicing."""

    def __init__(self, name: str, shape: tuple[int, int], dtype: np.dtype, parts: Callable[[], Any]):
        self.name, self.shape, self.dtype, self._parts = name, shape, dtype, parts
        with parts() as (data, _, _):
            self.entries = int(data.shape[0])

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        with self._parts() as (data, indices, indptr):
            indptr = checked_indptr(self.name, read(self.name, indptr), self.shape[0], data.shape[0], indices.shape[0])
            for start, stop in row_ranges(indptr, max_entries):
                low, high = int(indptr[start]), int(indptr[stop])
                columns = checked_indices(self.name, read(self.name, indices, low, high), self.shape[1])
                values = _widened(self.name, read(self.name, data, low, high))
                rows = (indptr[start : stop + 1] - low).astype(np.int32 if high - low < 2**31 else np.int64)
                yield start, scipy.sparse.csr_matrix((values, columns, rows), shape=(stop - start, self.shape[1]))


class ColumnSource(Source):
    """Compressed columns, which have to be turned into rows as a whole, once."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        dtype: np.dtype,
        parts: Callable[[], Any],
        max_memory: int | None = None,
    ):
        self.name, self.shape, self.dtype, self._parts, self._max_memory = name, shape, dtype, parts, max_memory
        self._rows: CsrSource | None = None

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        if self._rows is None:
            rows = self._load()
            self._rows = CsrSource(
                self.name,
                self.shape,
                rows.dtype,
                lambda: contextlib.nullcontext((rows.data, rows.indices, rows.indptr)),
            )
        yield from self._rows.blocks(max_entries)

    def _load(self) -> scipy.sparse.csr_matrix:
        with self._parts() as (data, indices, indptr):
            needed = 2 * data.shape[0] * (np.dtype(data.dtype).itemsize + np.dtype(indices.dtype).itemsize)
            if self._max_memory is not None and needed > self._max_memory:
                raise Refusal(
                    what=f"Column-compressed values (CSC) need {needed / 1e9:.1f} GB to be turned into rows.",
                    where=f"{self.name}, {data.shape[0]:,} stored values; the limit is {self._max_memory / 1e9:.1f} GB",
                    why="Cells are read row by row, and a CSC matrix cannot be cut into rows on disk.",
                    fix="store it by rows (`adata.X = adata.X.tocsr()`), or raise `max_memory` (`--max-memory`).",
                )
            indptr = checked_indptr(self.name, read(self.name, indptr), self.shape[1], data.shape[0], indices.shape[0])
            rows = checked_indices(self.name, read(self.name, indices), self.shape[0])
            values = _widened(self.name, read(self.name, data))
        return scipy.sparse.csr_matrix(scipy.sparse.csc_matrix((values, rows, indptr), shape=self.shape).tocsr())


class DenseSource(Source):
    """A dense array, or what slices like one."""

    def __init__(self, name: str, shape: tuple[int, int], dtype: np.dtype, array: Callable[[], Any]):
        self.name, self.shape, self.dtype, self._array = name, shape, dtype, array

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        step = max(1, max_entries // max(1, self.shape[1]))
        with self._array() as array:
            for start in range(0, self.shape[0], step):
                values = read(self.name, array, start, min(start + step, self.shape[0]))
                yield start, dense_block(_widened(self.name, values))


class ViewSource(Source):
    """A view of an AnnData, copied block by block: `rows(start, stop)` gives a few rows of it, sparse or dense."""

    def __init__(self, name: str, shape: tuple[int, int], dtype: np.dtype, rows: Callable[[int, int], Any]):
        self.name, self.shape, self.dtype, self._rows = name, shape, dtype, rows

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        start, step = 0, max(1, max_entries // max(1, self.shape[1]))
        while start < self.shape[0]:
            rows = self._rows(start, min(start + step, self.shape[0]))
            if scipy.sparse.issparse(rows):
                rows = scipy.sparse.csr_matrix(rows)
                block = scipy.sparse.csr_matrix(
                    (
                        _widened(self.name, rows.data),
                        checked_indices(self.name, rows.indices, self.shape[1]),
                        rows.indptr,
                    ),
                    shape=rows.shape,
                )
            else:
                block = dense_block(_widened(self.name, np.asarray(rows)))
            yield start, block
            start += n_rows(block)
            # The first block is as short as a dense one must be; sparse ones may then be longer, within the limit.
            step = max(step, min(4 * step, int(0.5 * max_entries * n_rows(block) / max(1, block.nnz))))


def read(name: str, array: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
    """`array[start:stop]`, a failure of the file underneath told as a refusal."""
    try:
        return np.asarray(array[start:stop])
    except Exception as error:  # h5py, zarr and every codec have exceptions of their own
        raise Refusal(
            what="Stored values cannot be read: the file is damaged or was cut short.",
            where=f"{name}, entries {start}:{stop} ({first_line(error)})",
            why="The cells behind them would be missing from every score.",
            fix="copy or write the file again and compare its size or checksum with the original.",
        ) from error


def checked_indptr(name: str, indptr: np.ndarray, n_rows: int, n_data: int, n_indices: int) -> np.ndarray:
    """Row pointers that can be trusted, as int64.

    **Raises:** `Refusal` unless they start at 0, never decrease and end at the number of stored values.
    """
    indptr = indptr.astype(np.int64)
    if len(indptr) != n_rows + 1:
        problem = f"{len(indptr)} pointers for {n_rows} rows"
    elif indptr[0] != 0 or np.any(np.diff(indptr) < 0):
        problem = f"pointers do not increase from 0 (position {int(np.argmax(np.diff(indptr, prepend=0) < 0))})"
    elif not indptr[-1] == n_data == n_indices:
        problem = f"pointers end at {indptr[-1]}, but there are {n_data} values and {n_indices} indices"
    else:
        return indptr
    raise _corrupt(name, problem)


def checked_indices(name: str, indices: np.ndarray, limit: int) -> np.ndarray:
    """Column (or row) indices that can be trusted, as int32.

    **Raises:** `Refusal` for an index outside `0 <= index < limit`.
    """
    if len(indices) and (indices.min() < 0 or indices.max() >= limit):
        bad = np.flatnonzero((indices < 0) | (indices >= limit))
        raise _corrupt(name, f"{len(bad)} indices outside 0..{limit - 1}, the first is {indices[bad[0]]}")
    return indices.astype(np.int32, copy=False) if limit < 2**31 else indices


def _corrupt(name: str, problem: str) -> Refusal:
    return Refusal(
        what="The sparse matrix is corrupt.",
        where=f"{name}: {problem}",
        why="Values would be read from the wrong cells or genes.",
        fix="write the matrix again from its source (`scipy.sparse.csr_matrix(adata.X).check_format()` tells more).",
    )


def _widened(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return widen(values)
    except TypeError as error:
        raise Refusal(
            what=f"The values are not real numbers: dtype {values.dtype}.",
            where=name,
            why="Only expression values can be scored.",
            fix='convert them first: `adata.X = adata.X.astype("float32")`.',
        ) from error
