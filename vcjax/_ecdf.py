r"""Soft empirical distribution functions $S_i = \sum_j w_j F((x_i - y_j)/T)$: what every soft rank is made of."""

import functools as ft

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ._kernels import AbstractKernel, AbstractSortedKernel, soft_step


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def sorted_ecdf(
    kernel: AbstractSortedKernel,
    z: Float[Array, "*batch n"],
    w: Float[Array, "*batch n"],
    temperature: Float[Array, "*batch 1"],
) -> Float[Array, "*batch n"]:
    r"""$S_i = \sum_j w_j F((z_i - z_j)/T)$ along the last axis, exact in O(n log n) time and O(n) memory.

    With unit weights $S_i + 1/2$ is the soft mid-rank; points with weight 0 are queries against the others. At $T = 0$
    it is the exact mid-rank, with gradient zero. The derivative has its own rule, a second sum of the same form:
    differentiating through the sort and the scan would be wrong at ties.

    Reference: the recurrence for the Laplace kernel is that of LapSum (Struski et al., ICML 2025, arXiv:2503.06242).
    """
    order, back = _sorting(z)
    return _take(_cdf_sums(kernel, _take(z, order), _take(w, order), temperature), back)


# Compiled as one program each: outside `jit` a scan would dispatch, and compile, every one of its slices alone.
@ft.partial(jax.jit, static_argnums=0)
def _cdf_sums(kernel, z, w, temperature):
    return kernel.sorted_cdf_sums(z, w, temperature)


@ft.partial(jax.jit, static_argnums=0)
def _pdf_sums(kernel, z, w, temperature):
    return kernel.sorted_pdf_sums(z, w, temperature)


@ft.partial(sorted_ecdf.defjvp, symbolic_zeros=True)
def _sorted_ecdf_jvp(kernel, primals, tangents):
    z, w, temperature = (lax.stop_gradient(x) for x in primals)
    dz, dw, _ = tangents
    order, back = _sorting(z)
    z, w = _take(z, order), _take(w, order)
    value = _take(_cdf_sums(kernel, z, w, temperature), back)
    change = jnp.zeros_like(value)
    if not isinstance(dz, SymbolicZero):
        dz = _take(dz, order)
        density = _pdf_sums(kernel, z, w, temperature)
        change = change + _take(dz * density - _pdf_sums(kernel, z, w * dz, temperature), back)
    if not isinstance(dw, SymbolicZero):
        change = change + _take(_cdf_sums(kernel, z, _take(dw, order), temperature), back)
    return value, change


def _sorting(z):
    order = jnp.argsort(z, axis=-1)
    return order, jnp.argsort(order, axis=-1)


def _take(v, order):
    return jnp.take_along_axis(v, order, axis=-1)


def pairwise_ecdf(
    kernel: AbstractKernel,
    x: Float[Array, " n"],
    y: Float[Array, " m"],
    w: Float[Array, " m"],
    temperature: Float[Array, ""],
    *,
    chunk: int = 256,
) -> Float[Array, " n"]:
    r"""$S_i = \sum_j w_j F((x_i - y_j)/T)$ for any kernel, from all pairs.

    O(n m) time; memory is bounded by `chunk` rows, in the backward pass too, which computes them again.
    """
    rows = jax.checkpoint(lambda row: jnp.sum(w * soft_step(kernel, row - y, temperature)))
    return lax.map(rows, x, batch_size=chunk)
