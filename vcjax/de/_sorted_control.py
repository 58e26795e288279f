"""Rank sums against control cells that were sorted once: exact, at any temperature."""

import functools as ft
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import as_float_matrix
from .._kernels import AbstractSortedKernel


class SortedControl(eqx.Module):
    """Control cells, sorted gene by gene: what exact rank sums of predicted cells are taken against.

    Holds as much as the control cells themselves. Serves any temperature, 0 too, where the rank sums are those of the
    exact test. For training, `TabulatedControl` is smaller and many times faster.

    **Fields:**

    - `values`: (genes, cells), ascending along cells.
    - `log_mean`, `mean`: per gene, the mean of the values and of their `expm1`.
    """

    values: Float[Array, "genes cells"]
    log_mean: Float[Array, " genes"]
    mean: Float[Array, " genes"]

    @property
    def cells(self) -> int:
        """How many control cells there are."""
        return self.values.shape[1]


def sort_control(control: Float[ArrayLike, "cells genes"]) -> SortedControl:
    """Prepare control cells (log1p-normalised) for `soft_rank_sums` and `de_table`."""
    control = as_float_matrix(control, "control")
    return SortedControl(sorted_columns(control), *control_means(control))


def sorted_columns(control: Float[Array, "cells genes"]) -> Float[Array, "genes cells"]:
    """Each gene's values, ascending. NumPy sorts floats many times faster than XLA does on a CPU."""
    if isinstance(control, Tracer):
        return jnp.sort(control.T, axis=1)
    return jnp.asarray(np.sort(np.asarray(control).T, axis=1))


def control_means(control: Float[Array, "cells genes"]) -> tuple[Float[Array, " genes"], Float[Array, " genes"]]:
    """The mean of each gene's values, and of their `expm1`."""
    return jnp.mean(control, axis=0), jnp.mean(jnp.expm1(control), axis=0)


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def sorted_rank_sum(
    kernel: AbstractSortedKernel,
    x: Float[Array, " n"],
    weight: Float[Array, " n"],
    control: Float[Array, " m"],
    temperature: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The rank sum of the values `x` of one gene less its expectation, and its permutation variance.

    `control` is sorted; `weight` is 1 for the values that count and 0 for padding. Only `x` has a gradient, and only
    the rank sum: it moves by the density of the control values around each x. The variance is a constant.
    """
    return _rank_sum(kernel, merge(x, weight, control), temperature)


@sorted_rank_sum.defjvp
def _sorted_rank_sum_jvp(kernel, primals, tangents):
    x, weight, control, temperature = (lax.stop_gradient(p) for p in primals)
    pooled = merge(x, weight, control)
    excess, variance = _rank_sum(kernel, pooled, temperature)
    density = kernel.sorted_pdf_sums(pooled.value, pooled.is_control, temperature[None])[pooled.place]
    return (excess, variance), (jnp.sum(weight * density * tangents[0]), jnp.zeros_like(variance))


def _rank_sum(kernel, pooled, temperature):
    amount = pooled.own + pooled.is_control
    rank = 0.5 + kernel.sorted_cdf_sums(pooled.value, amount, temperature[None])
    return rank_sum_of(rank, pooled.own, amount)


class Merged(NamedTuple):
    """The values of two groups in ascending order: how much each counts for one and for the other, and the place of
    every value of the first.
    """

    value: Float[Array, " size"]
    own: Float[Array, " size"]
    is_control: Float[Array, " size"]
    place: Int[Array, " n"]


def merge(x: Float[Array, " n"], weight: Float[Array, " n"], control: Float[Array, " m"]) -> Merged:
    """Merge `x`, in any order, into sorted `control`: its place is that among the controls plus that among its own."""
    size = x.size + control.size
    order = jnp.argsort(x)
    ascending = x[order]
    among_own = jnp.arange(x.size, dtype=jnp.int32)
    place = jnp.searchsorted(control, ascending, side="right").astype(jnp.int32) + among_own
    is_own = jnp.zeros(size, jnp.int32).at[place].set(1, unique_indices=True, indices_are_sorted=True)
    seen = jnp.cumsum(is_own)
    from_own = jnp.maximum(seen - 1, 0)
    from_control = jnp.clip(jnp.arange(size, dtype=jnp.int32) - seen, 0, control.size - 1)
    value = jnp.where(is_own == 1, ascending[from_own], control[from_control])
    own = jnp.where(is_own == 1, weight[order][from_own], 0)
    return Merged(value, own, (1 - is_own).astype(x.dtype), place[jnp.argsort(order)])


def rank_sum_of(
    rank: Float[Array, "*batch n"], own: Float[Array, "*batch n"], amount: Float[Array, "*batch n"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    r"""From the ranks of a pooled sample: the rank sum of one group less its expectation, which is $U - n_1 n_2/2$, and
    the variance of that over all ways to choose the group,

    $$\sigma^2 = \frac{n_1 n_2}{N(N - 1)} \sum_i \left(r_i - \frac{N + 1}{2}\right)^2 .$$

    Of mid-ranks it is the variance corrected for ties; of soft ranks it is what keeps the statistic calibrated.
    `amount` is how many values an item stands for, `own` how many of these belong to the group.
    """
    own_count, count = jnp.sum(own, axis=-1), jnp.sum(amount, axis=-1)
    centred = rank - 0.5 * (count + 1)[..., None]
    squares = jnp.sum(amount * centred * centred, axis=-1)
    pairs = own_count * (count - own_count)
    return jnp.sum(own * centred, axis=-1), pairs * squares / jnp.maximum(count * (count - 1), 1)
