"""Exact counts along a sorted axis, in few sorts: what the exact forms of rank-based metrics are made of."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def around_ties(
    key: Float[Array, "perts genes"], amount: Float[Array, "perts genes"]
) -> tuple[Float[Array, "perts genes"], Float[Array, "perts genes"]]:
    """Of an ascending `key`: how much lies before each item's block of ties, and how much up to its end."""
    running = jnp.cumsum(amount, axis=1)
    last = jnp.concatenate([key[:, 1:] != key[:, :-1], jnp.ones_like(key[:, :1], bool)], axis=1)
    ended = lax.cummax(jnp.where(last, running, 0), axis=1)
    before = jnp.concatenate([jnp.zeros_like(running[:, :1]), ended[:, :-1]], axis=1)
    up_to = lax.cummin(jnp.where(last, running, jnp.inf), axis=1, reverse=True)
    return before, up_to


def exact_ranks(
    x: Float[Array, "perts genes"], where: Bool[Array, "perts genes"], among: Bool[Array, "perts genes"]
) -> Float[Array, "perts genes"]:
    """Mid-ranks among the items of `where`, which are some of `among`; NaN in a row with a NaN among them.

    The ranks of several subsets of the same items share their sort, which is what takes time.
    """
    x = lax.stop_gradient(x)
    key = jnp.where(among, x, jnp.inf)
    order = jnp.argsort(key, axis=1)
    take = lambda v: jnp.take_along_axis(v, order, axis=1)
    before, up_to = around_ties(take(key), take(where.astype(x.dtype)))
    ranks = jnp.take_along_axis(0.5 * (before + up_to + 1), jnp.argsort(order, axis=1), axis=1)
    undefined = jnp.any(jnp.isnan(x) & where, axis=1, keepdims=True)
    return jnp.where(undefined, jnp.nan, jnp.where(where, ranks, 0))
