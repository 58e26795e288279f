r"""Energy distances $2\,E\lVert X - Y\rVert - E\lVert X - X'\rVert - E\lVert Y - Y'\rVert$ between groups of cells."""

import functools as ft
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._stats import safe_sqrt
from ._ranksum_cells import CellMatrix, sides_of


_ROWS, _STEP = 512, 128  # cells of a block, and what their number is padded to a multiple of: few shapes, few programs
_KEPT_BYTES = 2**26  # of reference cells that stay dense from block to block
_NEAR = 0.01  # squared distance over squared norms, below which single precision has lost too many digits
_ROUNDING = 64 * np.finfo(np.float64).eps  # of the same, when both cells are equal


def energy_distance(
    x: Float[Array, "cells genes"],
    y: Float[Array, "control_cells genes"],
    *,
    y_spread: Float[Array, ""] | None = None,
    chunk: int = 1024,
) -> Float[Array, ""]:
    r"""$\frac{2}{nm}\sum_{ij}\lVert x_i - y_j\rVert - \frac{1}{n^2}\sum_{ii'}\lVert x_i - x_{i'}\rVert -
    \frac{1}{m^2}\sum_{jj'}\lVert y_j - y_{j'}\rVert$.

    All pairs count, those of a cell with itself with a distance of 0, so that the mean over samples is above 0 even
    where both come from one distribution. The gradient is 0 between cells that are equal.

    **Arguments:**

    - `y_spread`: the last mean, `mean_distance(y)`, if it is at hand: fixed control cells need it once.
    - `chunk`: rows whose distances are held at a time, in the backward pass too.

    **Raises:** `ValueError` unless both have the same genes.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"`x` and `y` must be cells by the same genes, got {x.shape} and {y.shape}.")
    spread = mean_distance(y, chunk=chunk) if y_spread is None else y_spread
    return 2 * mean_distance(x, y, chunk=chunk) - mean_distance(x, chunk=chunk) - spread


def mean_distance(
    x: Float[Array, "cells genes"], y: Float[Array, "others genes"] | None = None, *, chunk: int = 1024
) -> Float[Array, ""]:
    """The mean Euclidean distance of all pairs of rows, of `x` and `y` or of `x` with itself; NaN without rows."""
    other = x if y is None else y
    # Distances do not change when both sides are centred; the rounding of what follows does.
    centre = lax.stop_gradient(jnp.mean(other, axis=0))[None, :]
    other = other - centre
    other_square = jnp.sum(other * other, axis=1)
    column = jnp.arange(other.shape[0], dtype=jnp.int32)

    @jax.checkpoint
    def total(row, place):
        square = jnp.sum(row * row) + other_square - 2 * jnp.matmul(other, row, precision="highest")
        kept = safe_sqrt(square) if y is not None else jnp.where(column == place, 0, safe_sqrt(square))
        return jnp.sum(kept)

    places = jnp.arange(x.shape[0], dtype=jnp.int32)
    totals = lax.map(lambda item: total(*item), (x - centre, places), batch_size=min(chunk, max(x.shape[0], 1)))
    return jnp.sum(totals) / (x.shape[0] * other.shape[0])


def energy_distances(
    values: CellMatrix, codes: np.ndarray, groups: int, *, reference: CellMatrix | None = None
) -> np.ndarray:
    """The `energy_distance` of each group of cells from the reference cells, (perts,), in float64.

    Blocks of cells are made dense, and go through a matrix product on the default device of JAX: in single precision,
    less the mean of the reference cells and added up in double, to about 1e-8 of the result. Where two cells nearly
    coincide, as in a prediction made of control cells, all of it is done again in double precision.

    **Arguments:** those of `rank_sums`. NaN for a group of no cells and a reference of none.

    **Raises:** `ValueError` as `rank_sums` does.
    """
    sides, sizes = sides_of(values, codes, groups, reference)
    control = SomeCells(sides[0].matrix, sides[0].rows[sides[0].groups == 0])
    perturbed = SomeCells(sides[-1].matrix, sides[-1].rows[sides[-1].groups > 0])
    return energies_between(perturbed, control, sizes[1:])


class SomeCells(NamedTuple):
    """Some rows of a `matrix`, which is anything that gives cells by genes, sparse or dense, for `matrix[rows]`."""

    matrix: Any
    rows: np.ndarray


def energies_between(perturbed: SomeCells, control: SomeCells, sizes: np.ndarray) -> np.ndarray:
    """`energy_distances` of groups of these `sizes`, whose cells follow one another; each cell is read a few times."""
    if not len(control.rows):
        return np.full(len(sizes), np.nan)
    # Distances do not change with the centre.
    sums = [np.asarray(control.matrix[control.rows[part]].sum(axis=0)).ravel() for part in _parts(len(control.rows))]
    centre = np.sum(sums, axis=0) / len(control.rows)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    with jax.enable_x64(True):
        try:
            return _energies(_Distances(centre, np.float32), control, perturbed, starts)
        except _Near:
            # All again, not only these cells: rounding that all three means share cancels.
            return _energies(_Distances(centre, np.float64), control, perturbed, starts)


def _energies(distances, control, perturbed, starts):
    across = distances.row_sums(perturbed, control) / len(control.rows)
    spread = distances.within(control)
    out = np.full(len(starts) - 1, np.nan)
    for group, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        if stop > start:
            within = distances.within(perturbed._replace(rows=perturbed.rows[start:stop]))
            out[group] = 2 * across[start:stop].mean() - within - spread
    return out


class _Near(Exception):
    """Two cells are too near for single precision."""


class _Block(NamedTuple):
    """Some cells made dense, less the centre, padded with rows of zeros; and their squared norms."""

    cells: Float[Array, "rows genes"]
    norms: Float[Array, " rows"]
    size: int


class _Distances:
    """Distances between cells, summed block by block; a few blocks stay dense while others pass by.

    **Raises:** `_Near`, from both methods.
    """

    def __init__(self, centre: np.ndarray, dtype: type[np.floating]) -> None:
        self._centre = centre.astype(dtype)
        self._kept = _ROWS * max(1, _KEPT_BYTES // (self._centre.nbytes * _ROWS))

    def row_sums(self, cells: SomeCells, others: SomeCells) -> np.ndarray:
        """The sum of the distances of each cell to all others."""
        sums = np.zeros(len(cells.rows))
        for kept, _ in self._stretches(others):
            for part in _parts(len(cells.rows)):
                x = self._dense(cells, part)
                sums[part] += sum(self._sums(x, block) for block in kept)
        return sums

    def within(self, cells: SomeCells) -> float:
        """The mean of all distances among cells, each pair counted twice."""
        total = 0.0
        for kept, rest in self._stretches(cells):
            for i, x in enumerate(kept):
                total += self._sums(x, x, same=True).sum()
                total += 2 * sum(self._sums(x, other).sum() for other in kept[i + 1 :])
            for part in rest:
                x = self._dense(cells, part)
                total += 2 * sum(self._sums(x, other).sum() for other in kept)
        return total / len(cells.rows) ** 2

    def _stretches(self, cells: SomeCells) -> Iterator[tuple[list[_Block], list[slice]]]:
        """Blocks that stay dense, all cells in turn, and which cells follow them."""
        for first in range(0, len(cells.rows), self._kept):
            stop = first + self._kept
            kept = [self._dense(cells, part) for part in _parts(min(stop, len(cells.rows)), first)]
            yield kept, _parts(len(cells.rows), stop)

    def _sums(self, x: _Block, y: _Block, *, same: bool = False) -> np.ndarray:
        sums, near = _block_sums(x.cells, y.cells, x.norms, y.norms, np.int32(x.size), np.int32(y.size), same=same)
        if self._centre.dtype == np.float32 and bool(near):
            raise _Near
        return np.asarray(sums)[: x.size]

    def _dense(self, cells: SomeCells, some: slice) -> _Block:
        rows = cells.rows[some]
        out = np.zeros((-(-len(rows) // _STEP) * _STEP, len(self._centre)), self._centre.dtype)
        part, mine = cells.matrix[rows], out[: len(rows)]
        if scipy.sparse.issparse(part) and part.dtype == out.dtype:
            part = part.toarray(out=mine)
        elif scipy.sparse.issparse(part):
            part = part.toarray()
        np.subtract(part, self._centre, out=mine, casting="same_kind")
        dense = jnp.asarray(out)
        return _Block(dense, _squared_norms(dense), len(rows))


def _parts(stop, start=0):
    return [slice(first, min(first + _ROWS, stop)) for first in range(start, stop, _ROWS)]


@jax.jit
def _squared_norms(cells: Float[Array, "rows genes"]) -> Float[Array, " rows"]:
    return jnp.sum(jnp.square(cells.astype(jnp.float64)), axis=1)


@ft.partial(jax.jit, static_argnames="same")
def _block_sums(
    x: Float[Array, "rows genes"],
    y: Float[Array, "columns genes"],
    x_norms: Float[Array, " rows"],
    y_norms: Float[Array, " columns"],
    x_count: Int[Array, ""],
    y_count: Int[Array, ""],
    *,
    same: bool,
) -> tuple[Float[Array, " rows"], Bool[Array, ""]]:
    """Sums over the rows of `y`, and whether two cells are too near for single precision."""
    products = lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
    norms = x_norms[:, None] + y_norms[None, :]
    squared = norms - 2 * products.astype(jnp.float64)
    row, column = (lax.broadcasted_iota(jnp.int32, products.shape, axis) for axis in (0, 1))
    pair = (row < x_count) & (column < y_count)
    pair = pair & (row != column) if same else pair
    near = jnp.any(pair & (squared < _NEAR * norms))
    distance = jnp.sqrt(jnp.where(pair & (squared > _ROUNDING * norms), squared, 0))
    return jnp.sum(distance, axis=1), near
