"""The rank-sum test of predicted cells against control cells, with gradients that reach the predicted cells."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import as_float, as_float_matrix
from .._ecdf import sorted_ecdf
from .._kernels import AbstractSortedKernel, Laplace
from ._normal import log_two_sided
from ._sorted_control import rank_sum_of, sorted_rank_sum, SortedControl
from ._tabulated_control import tabulated_rank_sum, TabulatedControl


_ALL_TIED = 1e-9  # variance over that without ties, below which only rounding is left of it


class SoftRankSums(eqx.Module):
    r"""Rank sums of each perturbation and gene against the control cells, exact or smooth.

    **Fields:**

    - `excess`: $U - n_1 n_2/2$, where U counts the pairs in which the perturbed cell is above the control cell.
    - `variance`: its permutation variance, corrected for ties; without a gradient.
    - `cells`, `control_cells`: $n_1$ and $n_2$.
    """

    excess: Float[Array, "perts genes"]
    variance: Float[Array, "perts genes"]
    cells: Float[Array, " perts"]
    control_cells: int = eqx.field(static=True)

    def u(self) -> Float[Array, "perts genes"]:
        """The statistic of Mann and Whitney."""
        return self.excess + 0.5 * self.control_cells * self.cells[:, None]

    def z(self, *, continuity: bool = True) -> Float[Array, "perts genes"]:
        """The signed statistic in standard errors; 0, with zero gradients, where all values are tied.

        `continuity` draws U half a pair towards its mean first, as scipy does.
        """
        size = jnp.abs(self.excess) - (0.5 if continuity else 0)
        centred = jnp.sign(self.excess) * jnp.maximum(size, 0)
        pairs = self.cells[:, None] * self.control_cells
        varies = self.variance > _ALL_TIED * pairs * (self.cells[:, None] + self.control_cells + 1) / 12
        return jnp.where(varies, centred * lax.rsqrt(jnp.where(varies, self.variance, 1)), 0)

    def log_pvalue(self, *, continuity: bool = True) -> Float[Array, "perts genes"]:
        """Natural logarithm of the two-sided p-value, finite with a finite gradient for any z."""
        return log_two_sided(self.z(continuity=continuity))


def soft_rank_sums(
    cells: Float[ArrayLike, "perts cells genes"],
    control: SortedControl | TabulatedControl | Float[ArrayLike, "control_cells genes"],
    where: Bool[ArrayLike, "perts cells"] | None = None,
    *,
    temperature: Float[ArrayLike, ""] | None = None,
    kernel: AbstractSortedKernel = Laplace(),
    chunk: int = 64,
) -> SoftRankSums:
    r"""Compare predicted cells with control cells, gene by gene: $U = \sum_{ij} F((x_i - y_j)/T)$.

    At temperature 0 it is the statistic of `scipy.stats.mannwhitneyu`. Cost and accuracy depend on `control`:

    - `TabulatedControl`: a look-up for each value; any number of control cells; its own temperature and kernel.
    - `SortedControl`: exact at any temperature, by merging; no gradient to the control cells.
    - an array of control cells: exact, by sorting both together; gradients reach the control cells too.

    **Arguments:**

    - `cells`: log1p-normalised, padded to one number of cells (`group_cells`).
    - `where`: which cells are real; all by default.
    - `temperature`: in the unit of the values; 0 (the exact test) by default.
    - `chunk`: genes at a time, which bounds the memory.

    **Raises:** `ValueError` for shapes that do not fit, and for a temperature beside a table, which has its own.
    """
    cells = as_float(cells, "cells")
    if cells.ndim != 3:
        raise ValueError(f"`cells` must have the axes (perts, cells, genes), got shape {cells.shape}.")
    compare, columns, count = _engine(control, cells.dtype, temperature, kernel)
    genes = jax.tree.leaves(columns)[0].shape[0]
    if genes != cells.shape[2]:
        raise ValueError(f"Cells and control must have the same genes, got {cells.shape[2]} and {genes}.")
    where = jnp.ones(cells.shape[:2], bool) if where is None else jnp.asarray(where)
    if where.shape != cells.shape[:2]:
        raise ValueError(f"`where` must have shape {cells.shape[:2]}, got {where.shape}.")

    def perturbation(one):
        values, counted = one
        weight = counted.astype(values.dtype)
        # What padding holds must not reach the sums, be it NaN.
        own = jnp.where(counted[:, None], values, 0).T
        return lax.map(lambda gene: compare(gene[0], weight, gene[1]), (own, columns), batch_size=chunk)

    excess, variance = lax.map(perturbation, (cells, where))
    return SoftRankSums(excess, variance, jnp.sum(where, axis=1, dtype=jnp.int32).astype(cells.dtype), count)


def _engine(control, dtype, temperature, kernel):
    """How to compare a gene's values with its control, that control gene by gene, and its number of cells."""
    if isinstance(control, TabulatedControl):
        if temperature is not None:
            raise ValueError("A tabulated control has its own temperature: leave `temperature` out.")
        control = jax.tree.map(lambda x: x.astype(dtype), control)
        columns = (control.below, control.density, control.mass, control.step, control.zero)
        compare = lambda x, weight, column: tabulated_rank_sum(control.kernel, x, weight, column, control.temperature)
        return compare, columns, control.cells
    scale = jnp.asarray(0 if temperature is None else temperature).astype(dtype)
    if isinstance(control, SortedControl):
        compare = lambda x, weight, column: sorted_rank_sum(kernel, x, weight, column, scale)
        return compare, control.values.astype(dtype), control.cells
    control = as_float_matrix(control, "control").astype(dtype)
    return lambda x, weight, column: _pooled_rank_sum(kernel, x, weight, column, scale), control.T, control.shape[0]


def _pooled_rank_sum(kernel, x, weight, control, temperature):
    """As `sorted_rank_sum`, by sorting both together; the gradient reaches both."""
    nothing = jnp.zeros_like(control)
    own, amount = jnp.concatenate([weight, nothing]), jnp.concatenate([weight, nothing + 1])
    rank = 0.5 + sorted_ecdf(kernel, jnp.concatenate([x, control]), amount, temperature[None])
    excess, variance = rank_sum_of(rank, own, amount)
    return excess, lax.stop_gradient(variance)
