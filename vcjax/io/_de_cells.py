"""The normalised cells of a screen, gathered for a test that needs all cells of a gene at once."""

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from ._context import cell_groups
from ._de_settings import DESettings
from ._matrix import BLOCK_ENTRIES, n_rows
from ._pseudobulk import add_rows, cell_totals, compiled_loops, Done
from ._screen import Screen


CONTROL, LEFT_OUT = -1, -2


@dataclasses.dataclass(frozen=True, eq=False)
class GatheredCells:
    """Cells in the order in which they were read.

    **Fields:** `values`, what is ranked (logarithms), cells by genes; `codes`, the perturbation of each cell or
    `CONTROL`; `sums`, over the cells of each group (the control last), of what the fold change takes means of; `sizes`,
    the number of cells of each group; `target_sum`, the library size that counts were scaled to.
    """

    values: scipy.sparse.csr_matrix
    codes: np.ndarray
    sums: np.ndarray
    sizes: np.ndarray
    target_sum: float | None = None

    def into_control(self) -> "GatheredCells":
        """The control cells alone, in the memory of all of them: `self` is not to be used again."""
        mine = np.flatnonzero(self.codes == CONTROL)
        csr: Any = self.values
        starts, lengths = csr.indptr[mine], np.diff(csr.indptr)[mine]
        indptr = np.concatenate([np.zeros(1, csr.indptr.dtype), np.cumsum(lengths, dtype=csr.indptr.dtype)])
        for array in (csr.data, csr.indices):
            # Every row moves to the front, so that none is written over before it has moved.
            for to, start, length in zip(indptr.tolist(), starts.tolist(), lengths.tolist(), strict=False):
                array[to : to + length] = array[start : start + length]
            array.resize(indptr[-1], refcheck=False)
        values = scipy.sparse.csr_matrix((csr.data, csr.indices, indptr), shape=(len(mine), csr.shape[1]), copy=False)
        return GatheredCells(values, self.codes[mine], self.sums[-1:], self.sizes[-1:])


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
    """Reads, normalises and keeps the perturbed cells, the control cells or both, of these genes.

    **Raises:** `TooManyValues` if more than `max_values` values would be kept.
    """
    groups = cell_groups(screen, context)
    divisors, target_sum = _divisors(screen, settings, groups, max_entries)
    last = len(screen.perts)
    if not perturbed:
        groups = np.where(groups == last, groups, -1)
    if not control:
        groups = np.where(groups == last, -1, groups)
    columns = range(screen.matrix.shape[1])[genes]
    sums, kept, loops = np.zeros((last + 1, len(columns))), _Kept(len(columns)), compiled_loops(screen.matrix)
    for start, block in screen.matrix.chunks(max_entries):
        stop = start + n_rows(block)
        codes, divisor = groups[start:stop], None if divisors is None else divisors[start:stop]
        if not (codes >= 0).all():
            rows = np.flatnonzero(codes >= 0)
            block, codes, divisor = block[rows], codes[rows], None if divisor is None else divisor[rows]
        if len(columns) < screen.matrix.shape[1]:
            block = block[:, columns.start : columns.stop]
        ranked, summed = _transform(block, screen, settings, divisor)
        add_rows(block, summed, codes, sums, loops)
        kept.append(block, ranked, codes)
        if done is not None:
            done(stop)
        if kept.entries > max_values:
            raise TooManyValues(stop / len(groups))
    codes = kept.codes()
    sizes = np.bincount(codes, minlength=last + 1)
    return GatheredCells(kept.matrix(), np.where(codes == last, CONTROL, codes), sums, sizes, target_sum)


class _Kept:
    """A CSR matrix that grows in place: a list of parts would take twice its memory when it is joined."""

    def __init__(self, genes: int) -> None:
        self._genes, self.entries = genes, 0
        self._values, self._indices = np.empty(0, np.float32), np.empty(0, np.int32)
        self._lengths: list[np.ndarray] = []
        self._groups: list[np.ndarray] = []

    def append(self, block: scipy.sparse.csr_matrix, values: np.ndarray, groups: np.ndarray) -> None:
        stop = self.entries + len(values)
        if not self.entries:
            self._values = self._values.astype(values.dtype)
        if stop > len(self._values):
            for array in (self._values, self._indices):
                array.resize(max(stop, len(array) * 5 // 4), refcheck=False)
        self._values[self.entries : stop] = values
        self._indices[self.entries : stop] = block.indices
        self.entries = stop
        self._lengths.append(np.diff(block.indptr))
        self._groups.append(groups)

    def codes(self) -> np.ndarray:
        """The group of each cell."""
        return np.concatenate([np.zeros(0, np.int64), *self._groups])

    def matrix(self) -> scipy.sparse.csr_matrix:
        """What was kept; the arrays are cut to size and handed over."""
        for array in (self._values, self._indices):
            array.resize(self.entries, refcheck=False)
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        indptr = np.cumsum(lengths, dtype=np.int32 if self.entries < 2**31 else np.int64)
        csr = (self._values, self._indices, indptr)
        matrix = scipy.sparse.csr_matrix(csr, shape=(len(lengths) - 1, self._genes), copy=False)
        matrix.data, matrix.indices = csr[:2]  # scipy makes views, and only what owns its memory can give some back
        return matrix


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


def _transform(
    block: scipy.sparse.csr_matrix, screen: Screen, settings: DESettings, divisors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What is ranked and what is summed; each in the order of operations that decides the peers' ties."""
    values: np.ndarray = block.data
    if divisors is None:
        return values, values if settings.mean == "geometric" else np.expm1(values)
    if settings.values == "double":
        values = values.astype(np.float64)
    linear = np.divide(values, np.repeat(divisors.astype(values.dtype), np.diff(block.indptr)))
    logs = np.log1p(linear)
    return logs, logs if settings.mean == "geometric" else linear
