"""The one object that decides whether a metric is exact or smooth."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from ._ecdf import pairwise_ecdf, sorted_ecdf
from ._kernels import AbstractKernel, AbstractSortedKernel, Laplace, Logistic, soft_step
from ._order import quantile_from_zero
from ._topk import hard_topk_mask, soft_topk_mask


_ORDER_STATISTICS = 128  # their 8,128 gaps give the quantile of an axis's gaps to a few per cent


def _as_leaf(softness):
    # A numpy scalar: it is traced like any array, and making one at import touches no device.
    return softness if hasattr(softness, "dtype") else np.float32(softness)


class Relaxation(eqx.Module):
    r"""How comparisons are smoothed: every step $H(a - b)$ of a metric becomes $F((a - b)/T)$, with $F(0) = 1/2$.

    `softness` 0 *is* the exact metric, through the same code; above 0 it is the share of comparisons left less than
    three quarters decided. The temperature $T$ is that quantile of the non-zero gaps $|a - b|$ which the metric
    compares (a constant of the differentiation), so one softness suits data of any unit and spread, no row of
    comparisons saturates, and ties count one half whether hard or soft.

    **Fields:**

    - `softness`: in [0, 1). A leaf of the pytree: changing it under `jit` compiles nothing. 0.1 is a good default, 0.3
        to 0.5 for the first steps of training.
    - `kernel`: the distribution function $F$ of short rows of comparisons and of thresholds.
    - `rank_kernel`: the one for whole axes (genes, cells), which needs an exact O(n log n) algorithm.
    """

    softness: Float[ArrayLike, ""] = eqx.field(converter=_as_leaf, default=0.0)
    kernel: AbstractKernel = Logistic()
    rank_kernel: AbstractSortedKernel = Laplace()

    def __check_init__(self):
        if np.shape(self.softness) != ():
            raise ValueError(f"`softness` is one number, got shape {np.shape(self.softness)}.")
        if isinstance(self.softness, np.generic | np.ndarray) and not 0 <= float(self.softness) < 1:
            raise ValueError(f"`softness` is a share in [0, 1), got {float(self.softness)}.")

    def temperature(
        self, gaps: Float[Array, "*batch n"], where: Bool[Array, "*#batch n"] | None = None
    ) -> Float[Array, "*batch 1"]:
        """The softness-quantile of the non-zero absolute gaps along the last axis, without a gradient.

        Interpolated from 0 at softness 0, so that the soft metric tends to the exact one. 0 if the softness is 0; 1 if
        every gap is 0, when all comparisons are ties whatever the temperature.
        """
        gaps = jnp.abs(lax.stop_gradient(gaps))
        softness = jnp.asarray(self.softness).astype(gaps.dtype)
        used = (gaps > 0) & jnp.isfinite(gaps)
        if where is not None:
            used = used & where

        def quantile():
            count = jnp.sum(used, axis=-1, keepdims=True, dtype=jnp.int32)
            value = quantile_from_zero(jnp.where(used, gaps, jnp.inf), softness * count.astype(gaps.dtype), count)
            return jnp.where(count > 0, value, 1)

        return lax.cond(softness > 0, quantile, lambda: jnp.zeros_like(gaps[..., :1]))

    def step(self, delta: Float[Array, "*shape"], temperature: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
        r"""$F(\delta/T)$: the unit step, with $H(0) = 1/2$, or its smoothed form."""
        return soft_step(self.kernel, delta, temperature)

    def above(self, x: Float[Array, "*batch n"], cut: Float[Array, "*#batch 1"]) -> Float[Array, "*batch n"]:
        """Whether `x` exceeds `cut`: 0, 1/2 or 1, or between."""
        return self.step(x - cut, self.temperature(x - cut))

    def ecdf(
        self,
        x: Float[Array, " n"],
        y: Float[Array, " m"],
        weights: Float[Array, " m"] | None = None,
        *,
        temperature: Float[Array, ""] | None = None,
    ) -> Float[Array, " n"]:
        r"""$\sum_j w_j H(x_i - y_j)$: how many of `y` lie below each `x`, ties one half."""
        weights = jnp.ones_like(y) if weights is None else weights
        pooled = jnp.concatenate([x, y])
        temperature = self._axis_temperature(pooled, None) if temperature is None else temperature[None]
        amounts = jnp.concatenate([jnp.zeros_like(x), weights])
        return sorted_ecdf(self.rank_kernel, pooled, amounts, temperature)[: x.size]

    def pairwise_ecdf(
        self,
        x: Float[Array, " n"],
        y: Float[Array, " m"],
        weights: Float[Array, " m"] | None = None,
        *,
        temperature: Float[Array, ""] | None = None,
        chunk: int = 256,
    ) -> Float[Array, " n"]:
        """`ecdf` with `kernel`, from all pairs in chunks: for short axes, or kernels without a sorted algorithm."""
        weights = jnp.ones_like(y) if weights is None else weights
        scale = self._axis_temperature(jnp.concatenate([x, y]), None)[0] if temperature is None else temperature
        return pairwise_ecdf(self.kernel, x, y, weights, scale, chunk=chunk)

    def rank(
        self, x: Float[Array, "*batch n"], where: Bool[Array, "*#batch n"] | None = None
    ) -> Float[Array, "*batch n"]:
        """Ascending mid-ranks, from 1, along the last axis.

        At softness 0 equal to `scipy.stats.rankdata` bit for bit; at any softness the ranks of n items sum to
        n(n+1)/2. Items outside `where` are not counted; their own entries mean nothing. NaN makes its whole row NaN.
        """
        counted = jnp.ones_like(x) if where is None else jnp.broadcast_to(where, x.shape).astype(x.dtype)
        return 0.5 + sorted_ecdf(self.rank_kernel, x, counted, self._axis_temperature(x, where))

    def topk_mask(
        self, x: Float[Array, " n"], k: Real[ArrayLike, ""], amount: Float[Array, " n"] | None = None
    ) -> Float[Array, " n"]:
        """Membership in the k largest of `x`; the mask sums to `min(k, sum(amount))` at any softness.

        `amount` is how much of each item there is (soft significance, say), 1 by default. Items tied at the boundary
        share it. The temperature is the gap between the boundary and the item `softness * k` places from it.
        """
        amount = jnp.ones_like(x) if amount is None else amount
        total = jnp.sum(amount)
        k = jnp.minimum(jnp.asarray(k).astype(x.dtype), total)
        softness = jnp.asarray(self.softness).astype(x.dtype)
        temperature = self._topk_temperature(lax.stop_gradient(x), lax.stop_gradient(k), softness)
        # The soft branch needs 0 < k < total; outside, the mask is nothing or everything.
        inside = (k > 0) & (k < total)
        soft = soft_topk_mask(self.kernel, x, jnp.where(inside, k, 0.5 * total), amount, temperature)
        hard = hard_topk_mask(lax.stop_gradient(x), k, lax.stop_gradient(amount))
        soft = jnp.where(inside, soft, jnp.where(k > 0, amount, 0 * amount))
        return jnp.where(softness > 0, soft, hard)

    def _topk_temperature(self, x, k, softness):
        descending = -jnp.sort(-x)
        place = jnp.clip(k.astype(jnp.int32), 1, x.size - 1)
        boundary = 0.5 * (descending[place - 1] + descending[place])
        gaps = jnp.abs(x - boundary)
        gap = quantile_from_zero(gaps, (softness * k)[None], jnp.asarray([x.size], jnp.int32))[0]
        smallest = jnp.min(jnp.where(gaps > 0, gaps, jnp.inf))
        gap = jnp.where(gap > 0, gap, jnp.where(jnp.isfinite(smallest), softness * smallest, 1))
        return jnp.where(gap > 0, gap, 1)  # at softness 0 the soft mask is not used, but must not divide by zero

    def _axis_temperature(self, x, where):
        """The temperature of all pairwise gaps of an axis, from the gaps of its evenly spaced order statistics."""
        x = lax.stop_gradient(x)
        softness = jnp.asarray(self.softness).astype(x.dtype)
        size = min(_ORDER_STATISTICS, x.shape[-1])
        first, second = np.triu_indices(size, 1)

        def gaps_of_order_statistics():
            finite = jnp.isfinite(x) if where is None else jnp.isfinite(x) & where
            ascending = jnp.sort(jnp.where(finite, x, jnp.inf), axis=-1)
            count = jnp.sum(finite, axis=-1, keepdims=True, dtype=jnp.int32)
            number = np.arange(size, dtype=np.int32).reshape((1,) * (x.ndim - 1) + (-1,))
            spaced = jnp.round(number.astype(x.dtype) / max(size - 1, 1) * (count - 1).astype(x.dtype))
            places = jnp.where(count > size, spaced.astype(jnp.int32), number)
            chosen = jnp.take_along_axis(ascending, jnp.minimum(places, x.shape[-1] - 1), axis=-1)
            used = places < count
            return self.temperature(chosen[..., second] - chosen[..., first], used[..., second] & used[..., first])

        if x.shape[-1] < 2:
            return jnp.where(softness > 0, jnp.ones_like(x[..., :1]), 0)
        return lax.cond(softness > 0, gaps_of_order_statistics, lambda: jnp.zeros_like(x[..., :1]))


HARD = Relaxation(0.0)
