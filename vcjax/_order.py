"""Order statistics of non-negative numbers without a sort: by bisection over their bits."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


def order_statistic(x: Float[Array, "*batch n"], k: Int[Array, "*#batch 1"]) -> Float[Array, "*batch 1"]:
    """The k-th smallest (from 1) of non-negative numbers along the last axis; 0 for k = 0.

    Non-negative floats are ordered as their bits are, read as integers: each bit of the result, from the highest, is
    set if fewer than k numbers lie below. That takes as many counts as a float has bits, each a pass over the data,
    where a compiled sort compares one by one. k may not exceed n, and no number may be NaN.
    """
    word = np.dtype(f"uint{8 * x.dtype.itemsize}")
    patterns = lax.bitcast_convert_type(jnp.abs(x), word)  # no minus zero
    highest = 8 * x.dtype.itemsize - 2  # below the sign

    def set_bit(i, found):
        trial = found | lax.shift_left(jnp.ones_like(found), jnp.asarray(highest - i).astype(word))
        below = jnp.sum(patterns < trial, axis=-1, keepdims=True, dtype=jnp.int32)
        return jnp.where(below < k, trial, found)

    start = jnp.zeros((*x.shape[:-1], 1), word)
    return lax.bitcast_convert_type(lax.fori_loop(0, highest + 1, set_bit, start), x.dtype)


def quantile_from_zero(
    x: Float[Array, "*batch n"], place: Float[Array, "*#batch 1"], count: Int[Array, "*#batch 1"]
) -> Float[Array, "*batch 1"]:
    """What stands at a fractional `place` of 0 and the ascending numbers of `x`, the first `count` of which are real.

    Places between two numbers are interpolated; those beyond the last real one give it. The numbers are not negative,
    and what is not real is infinite.
    """
    low = jnp.floor(place).astype(jnp.int32)
    first, second = jnp.minimum(low, count), jnp.minimum(low + 1, count)
    below = order_statistic(x, first)
    up_to = jnp.sum(x <= below, axis=-1, keepdims=True, dtype=jnp.int32)
    next_above = jnp.min(jnp.where(x > below, x, jnp.inf), axis=-1, keepdims=True)
    above = jnp.where(up_to >= second, below, next_above)
    return below + (place - low.astype(place.dtype)) * (above - below)
