"""A matrix of cells by genes that is read in blocks of rows, wherever it lies."""

import abc
from collections.abc import Iterator

import numpy as np
import scipy.sparse

from ._held import GrowingRows, NarrowRows


BLOCK_ENTRIES = 300_000  # of a block in flight: enough to keep numpy busy, few enough to stay near the caches


class Matrix(abc.ABC):
    """Cells by genes; the only way to its values is to walk over it in blocks, unless it has kept them (`kept`)."""

    shape: tuple[int, int]
    kept: NarrowRows | None = None

    def let_go(self) -> None:
        """Frees what was kept; later walks read the source again."""
        self.kept = None

    @abc.abstractmethod
    def chunks(self, max_entries: int = BLOCK_ENTRIES) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        """Blocks of consecutive rows as `(first row, canonical CSR)`.

        Canonical: sorted column indices, no duplicates, no explicit zeros, float32 or float64. A block stores at most
        `max_entries` values (but at least one row). It must not be written to: it may share the caller's memory.
        """

    @abc.abstractmethod
    def select(self, columns: np.ndarray, n_columns: int) -> "Matrix":
        """This matrix with column `j` moved to `columns[j]`, or dropped where that is -1.

        Columns that move to the same place are summed.
        """


class Source(abc.ABC):
    """Where rows come from: a scipy matrix, an array, a group in a file. Blocks may be in any CSR form and dtype.

    `entries` is how many values are stored, if that is known without reading them.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    entries: int = 0

    @abc.abstractmethod
    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        """Blocks of consecutive rows of at most `max_entries` stored values each, but of one row at least."""


class BlockMatrix(Matrix):
    """A `Source` whose blocks are put into canonical form, with columns moved and NaN replaced on the way.

    `repairs` collects what had to be repaired in the blocks seen so far. With `keep`, the first whole walk leaves the
    rows in `kept`, in as few bytes as they take, and those that follow read them from there, until `let_go`.
    """

    def __init__(
        self, source: Source, columns: np.ndarray | None = None, n_columns: int = 0, nan_to_zero: bool = False
    ):
        self.source, self.columns, self.nan_to_zero = source, columns, nan_to_zero
        self.shape = (source.shape[0], source.shape[1] if columns is None else n_columns)
        self.repairs: set[str] = set()
        self.keep = False
        self._clean = False  # a whole walk has found nothing to repair

    def let_go(self) -> None:
        super().let_go()
        self.keep = False

    def chunks(self, max_entries: int = BLOCK_ENTRIES) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        if self.kept is not None:
            yield from self.kept.blocks(max_entries)
        elif self._clean:
            yield from self.source.blocks(max_entries)
        elif self.keep:
            growing, dtype = GrowingRows(self.shape[1], self.source.entries, narrow=True), np.dtype(np.float32)
            for start, block in self._repaired(max_entries):
                growing.append(block)
                dtype = block.data.dtype
                yield start, block
            self.kept = growing.narrow(dtype)
        else:
            yield from self._repaired(max_entries)

    def _repaired(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        for start, block in self.source.blocks(max_entries):
            if self.nan_to_zero and np.isnan(block.data).any():
                self.repairs.add("NaN values were set to zero")
                block = scipy.sparse.csr_matrix(
                    (np.nan_to_num(block.data, nan=0.0, posinf=np.inf, neginf=-np.inf), block.indices, block.indptr),
                    shape=block.shape,
                )
            yield start, self._canonical(block)
        self._clean = not self.repairs and self.columns is None

    def select(self, columns: np.ndarray, n_columns: int) -> "BlockMatrix":
        if self.columns is not None:
            columns = np.where(self.columns < 0, -1, columns[self.columns])
        return BlockMatrix(self.source, columns.astype(np.int32), n_columns, self.nan_to_zero)

    def _canonical(self, block: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        in_order = block.has_canonical_format
        if self.columns is not None:
            block = move_columns(block, self.columns, self.shape[1])
        entries = block.nnz
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        if not in_order:
            twice = block.nnz < entries and self.columns is None
            self.repairs.add("entries stored twice were summed" if twice else "unsorted column indices were sorted")
        if (block.data == 0).any():
            self.repairs.add("explicitly stored zeros were dropped")
            block = block.copy()
            block.eliminate_zeros()
        return block


def n_rows(block: scipy.sparse.csr_matrix) -> int:
    """Number of rows (the type of scipy's `shape` allows for less than two axes)."""
    return len(block.indptr) - 1


def move_columns(block: scipy.sparse.csr_matrix, columns: np.ndarray, n_columns: int) -> scipy.sparse.csr_matrix:
    """Columns moved as by `Matrix.select`, neither sorted nor merged."""
    data, indices, indptr = block.data, columns[block.indices], block.indptr
    if np.any(columns < 0):
        kept = indices >= 0
        data, indices = data[kept], indices[kept]
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
    return scipy.sparse.csr_matrix((data, indices, indptr), shape=(n_rows(block), n_columns))


def widen(values: np.ndarray) -> np.ndarray:
    """Floating values in which sums neither wrap around nor round away counts.

    Half precision, booleans and integers of up to 16 bits become float32 (exactly), wider ones float64.

    **Raises:** `TypeError` for anything that is not a real number.
    """
    if values.dtype in (np.float32, np.float64):
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind not in "buif":
        raise TypeError(f"real numbers are expected, got dtype {values.dtype}")
    return values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)


def dense_block(values: np.ndarray) -> scipy.sparse.csr_matrix:
    """A dense block of rows as CSR; NaN counts as a value."""
    values = widen(values)
    rows, columns = np.nonzero(values)
    indptr = np.searchsorted(rows, np.arange(len(values) + 1))
    return scipy.sparse.csr_matrix((values[rows, columns], columns.astype(np.int32), indptr), shape=values.shape)
