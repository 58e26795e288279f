"""Means of profiles over perturbations, all of them or all but one."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._stats import safe_divide


def mean_of(profiles: Float[Array, "perts genes"], amount: Float[Array, " perts"]) -> Float[Array, " genes"]:
    """The mean of the rows whose amount is positive, weighted by it; what the other rows hold has no part in it.

    NaN where no amount is positive.
    """
    used = jnp.where(amount[:, None] > 0, profiles, 0)
    total = jnp.broadcast_to(jnp.sum(amount), used.shape[1:])
    return safe_divide(jnp.sum(amount[:, None] * used, axis=0), total)


def means_of_others(
    profiles: Float[Array, "perts genes"], amount: Float[Array, " perts"]
) -> Float[Array, "perts genes"]:
    r"""For each row, the mean of the other rows, weighted by `amount`; see `mean_of`.

    $\mu_{-p} = \mu - \frac{a_p}{A - a_p} (x_p - \mu)$ with the mean $\mu$ of all rows and $A = \sum_q a_q$. NaN where
    no other row is left.
    """
    mean = mean_of(profiles, amount)[None, :]
    inside = amount > 0
    others = jnp.sum(inside, dtype=jnp.int32) - inside.astype(jnp.int32)
    # What rounding leaves of a sum must not pass for another row.
    rest = jnp.where(others > 0, jnp.sum(amount) - amount, 0)
    gap = jnp.where(inside[:, None], profiles - mean, 0)
    return mean - safe_divide(amount, rest)[:, None] * gap
