"""Rank sums against control cells that were tabulated once: an interpolated distribution function of each gene."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float_matrix
from .._kernels import AbstractSortedKernel, Laplace
from ._sorted_control import control_means, merge, rank_sum_of, sorted_columns


_MARGIN = 10.0  # temperatures that the nodes reach beyond the data: the kernel is within 1e-3 of 0 or 1 there


class TabulatedControl(eqx.Module):
    """The smoothed distribution function of the control cells, gene by gene, on a grid: what training ranks against.

    A look-up takes no search and no sort, and the table is small (3 MB per thousand genes in float32 at the default
    number of nodes), whatever the number of control cells. It holds for one temperature.

    **Fields:**

    - `below`: (genes, nodes), number of control cells below a node, less half their number; `density`: its derivative.
    - `mass`: (genes, nodes), number of control cells nearest to a node.
    - `step`: distance between the nodes of each gene; `zero`: the place of the node at 0. No value lies at the edge.
    - `log_mean`, `mean`: per gene, the mean of the control values and of their `expm1`.
    - `temperature`, `kernel`: what the distribution function is smoothed with.
    - `cells`: how many control cells there are.
    """

    below: Float[Array, "genes nodes"]
    density: Float[Array, "genes nodes"]
    mass: Float[Array, "genes nodes"]
    step: Float[Array, " genes"]
    zero: Float[Array, " genes"]
    log_mean: Float[Array, " genes"]
    mean: Float[Array, " genes"]
    temperature: Float[Array, ""]
    kernel: AbstractSortedKernel
    cells: int = eqx.field(static=True)


def tabulate_control(
    control: Float[ArrayLike, "cells genes"],
    *,
    temperature: float = 0.1,
    kernel: AbstractSortedKernel = Laplace(),
    nodes: int = 256,
    chunk: int = 64,
) -> TabulatedControl:
    """Prepare control cells (log1p-normalised) for `soft_rank_sums` and `de_table` in training.

    **Arguments:**

    - `temperature`: in the unit of the values; with fewer than two nodes to a temperature the table loses accuracy.
    - `chunk`: genes at a time.

    **Raises:** `ValueError` for a temperature that is not positive, and for fewer than 8 nodes.
    """
    control = as_float_matrix(control, "control")
    if temperature <= 0:
        raise ValueError(f"A table has a temperature above 0, got {temperature}; `sort_control` serves the exact test.")
    if nodes < 8:
        raise ValueError(f"A table needs 8 nodes or more, got {nodes}.")
    scale = jnp.asarray(temperature, control.dtype)
    below, density, mass, step, zero = _tabulate_genes(kernel, sorted_columns(control), scale, nodes, chunk)
    log_mean, mean = control_means(control)
    return TabulatedControl(below, density, mass, step, zero, log_mean, mean, scale, kernel, cells=control.shape[0])


@ft.partial(jax.jit, static_argnums=(0, 3, 4))
def _tabulate_genes(kernel, columns, temperature, nodes, chunk):
    return lax.map(lambda y: _tabulate(kernel, y, temperature, nodes), columns, batch_size=chunk)


def _tabulate(kernel, y, temperature, nodes):
    """The table of one gene. A node lies on 0, where most of the cells are, and 0 lies inside the grid."""
    margin = _MARGIN * temperature
    reach_down, reach_up = jnp.maximum(-y[0], 0) + margin, jnp.maximum(y[-1], 0) + margin
    step = (reach_down + reach_up) / (nodes - 2)
    zero = jnp.ceil(reach_down / step)
    node = (jnp.arange(nodes, dtype=jnp.int32).astype(y.dtype) - zero) * step
    pooled = merge(node, jnp.zeros_like(node), y)
    below = kernel.sorted_cdf_sums(pooled.value, pooled.is_control, temperature[None])[pooled.place]
    density = kernel.sorted_pdf_sums(pooled.value, pooled.is_control, temperature[None])[pooled.place]
    return below - 0.5 * y.size, density, _counts(y, jnp.ones_like(y), step, zero, nodes), step, zero


def _counts(x, weight, step, zero, nodes):
    """How many values are nearest to each node."""
    nearest = jnp.clip(jnp.round(x / step + zero), 0, nodes - 1).astype(jnp.int32)
    return jnp.zeros(nodes, x.dtype).at[nearest].add(weight)


def tabulated_rank_sum(
    kernel: AbstractSortedKernel,
    x: Float[Array, " n"],
    weight: Float[Array, " n"],
    table: tuple[Array, ...],
    temperature: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As `sorted_rank_sum`, from the table of one gene: `below`, `density`, `mass`, `step`, `zero`.

    The variance is that of the soft ranks of both groups, with every value moved to its nearest node.
    """
    below, density, mass, step, zero = table
    excess = _sum_below(x, weight, below, density, step, zero)
    own = _counts(lax.stop_gradient(x), weight, step, zero, mass.size)
    node = jnp.arange(mass.size, dtype=jnp.int32).astype(x.dtype) * step
    rank = 0.5 + kernel.sorted_cdf_sums(node, own + mass, temperature[None])
    return excess, rank_sum_of(rank, own, own + mass)[1]


@jax.custom_jvp
def _sum_below(x, weight, below, density, step, zero):
    """The sum over x of the number of control cells below it, by cubic Hermite interpolation."""
    return jnp.sum(weight * _interpolate(x, below, density, step, zero)[0])


@_sum_below.defjvp
def _sum_below_jvp(primals, tangents):
    x, weight, *table = primals
    value, slope = _interpolate(x, *table)
    return jnp.sum(weight * value), jnp.sum(weight * slope * tangents[0])


def _interpolate(x, below, density, step, zero):
    place = x / step + zero
    inside = (place >= 0) & (place < below.size - 1)
    place = jnp.clip(place, 0, below.size - 1)
    left = jnp.minimum(place.astype(jnp.int32), below.size - 2)
    t = place - left.astype(x.dtype)
    low, rise = below[left], below[left + 1] - below[left]
    first, last = density[left] * step, density[left + 1] * step
    square, cube = 3 * rise - 2 * first - last, first + last - 2 * rise
    value = low + t * (first + t * (square + t * cube))
    slope = (first + t * (2 * square + 3 * t * cube)) / step
    return value, jnp.where(inside, slope, 0)
