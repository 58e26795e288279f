"""Soft top-k: a mask whose mass is exactly k."""

import functools as ft

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._kernels import AbstractKernel, soft_step


def hard_topk_mask(x: Float[Array, " n"], k: Float[Array, ""], amount: Float[Array, " n"]) -> Float[Array, " n"]:
    """The share of each item that is among the k largest, where items tied at the boundary share what is left.

    That is the expected mask under random tie-breaking. `amount` is how much of each item there is (1, or a soft
    membership); the mask sums to `min(k, sum(amount))`.
    """
    order = jnp.argsort(x)
    ascending = x[order]
    below = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(amount[order])])
    up_to = below[jnp.searchsorted(ascending, x, side="right")]
    tied = up_to - below[jnp.searchsorted(ascending, x, side="left")]
    room = k - (below[-1] - up_to)
    return amount * jnp.clip(room / jnp.where(tied > 0, tied, 1), 0, 1)


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def soft_topk_mask(
    kernel: AbstractKernel,
    x: Float[Array, " n"],
    k: Float[Array, ""],
    amount: Float[Array, " n"],
    temperature: Float[Array, ""],
) -> Float[Array, " n"]:
    r"""$m_i = a_i F((x_i - \theta)/T)$, with the threshold $\theta$ that makes $\sum_i m_i = k$.

    The constraint holds in the derivative too, by implicit differentiation
    ($\mathrm d\theta = \sum_i (a_i f_i\,\mathrm dx_i / T + F_i\,\mathrm da_i) - \mathrm dk$ over $\sum_i a_i f_i /
    T$), so raising all items alike changes nothing. `temperature` must be positive, and k less than the total amount.
    """
    return amount * kernel.cdf((x - _threshold(kernel, x, k, amount, temperature)) / temperature)


@soft_topk_mask.defjvp
def _soft_topk_mask_jvp(kernel, primals, tangents):
    x, k, amount, temperature = primals
    dx, dk, damount, _ = tangents
    t = (x - _threshold(kernel, x, k, amount, temperature)) / temperature
    share, slope = kernel.cdf(t), amount * kernel.pdf(t) / temperature
    total = jnp.sum(slope)
    dtheta = (jnp.sum(slope * dx + share * damount) - dk) / jnp.where(total > 0, total, 1)
    return amount * share, share * damount + slope * (dx - dtheta)


def _threshold(kernel, x, k, amount, temperature):
    """Bisection; 60 temperatures beyond the data every kernel is 0 or 1 to rounding."""
    low, high = jnp.min(x) - 60 * temperature, jnp.max(x) + 60 * temperature

    def halve(_, interval):
        low, high = interval
        middle = 0.5 * (low + high)
        too_many = jnp.sum(amount * soft_step(kernel, x - middle, temperature)) > k
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    low, high = lax.fori_loop(0, jnp.finfo(x.dtype).nmant + 8, halve, (low, high))
    return 0.5 * (low + high)
