"""Membership in the set of significant genes, exact or smooth."""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._kernels import AbstractKernel, soft_step
from .._relax import HARD, Relaxation
from .._stats import absolute
from ._adjust import Scope
from ._normal import hazard, normal_score
from ._table import DETable


_STANDARD_ERRORS = 2.0  # temperature of a softness of 1: the default softness 0.1 blurs a threshold by 0.2
_FURTHEST = 1e4  # an infinite statistic counts as this: every kernel is 1 there
_MOST_STEPS = 200


def significant(
    table: DETable, *, alpha: float = 0.05, relax: Relaxation = HARD, scope: Scope = "perturbation"
) -> Float[Array, "perts genes"]:
    r"""Membership in the significant set: 1 where the adjusted p-value is strictly below `alpha`, else 0.

    Above softness 0 the membership is $F((|z| - c)/\tau)$ with $\tau = 2 \cdot$ `softness` standard errors, and the cut
    c is the smallest with

    $$m\,p(c) \le \alpha \max(N_\tau(c), 1), \qquad N_\tau(c) = \sum_i F((|z_i| - c)/\tau):$$

    the Benjamini-Hochberg procedure with a soft count of discoveries, whose limit at softness 0 is the exact set. The
    derivative includes that more discoveries lower the cut. Where less than one discovery is near, the cut rests at
    $p(c) = \alpha/m$: a set that is still empty has a membership and a gradient that pull its largest statistics up.
    What is not tested, or has a p-value of NaN, has membership 0 in either form.

    **Arguments:**

    - `table`: the soft form reads |z|, or, where the table has none, the normal quantile of its p-values.
    - `alpha`: the false discovery rate.
    - `scope`: how the soft form counts, as in `benjamini_hochberg`; the exact one reads what the table holds. What was
        set to `log_padj` 0 afterwards (`withheld`) takes part in the soft form.

    **Raises:** `ValueError` for an `alpha` outside (0, 1) and an unknown scope.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` lies between 0 and 1, got {alpha}.")
    if scope not in ("perturbation", "pooled"):
        raise ValueError(f'`scope` is "perturbation" or "pooled", got {scope!r}.')
    dtype, shape = table.log_padj.dtype, table.log_padj.shape
    temperature = _STANDARD_ERRORS * jnp.asarray(relax.softness).astype(dtype)

    def exact():
        return (table.tested & (table.log_padj < math.log(alpha))).astype(dtype)

    def smooth():
        z = normal_score(table.log_pvalue) if table.z is None else absolute(table.z)
        counted = table.tested & ~jnp.isnan(table.log_pvalue) & ~jnp.isnan(z)
        z = jnp.where(counted, jnp.minimum(z, _FURTHEST), 0).astype(dtype)
        rows = shape if scope == "perturbation" else (1, math.prod(shape))
        member = _soft_members(relax.kernel, z.reshape(rows), counted.reshape(rows), alpha, temperature)
        return member.reshape(shape)

    return lax.cond(temperature > 0, smooth, exact)


def _soft_members(kernel, z, counted, alpha, temperature):
    amount = counted.astype(z.dtype)
    # Inside `cond` the temperature is positive; under `vmap`, where both branches run, it may be 0.
    temperature = jnp.where(temperature > 0, temperature, 1)
    cut = soft_cut(kernel, z, amount, jnp.full(1, alpha, z.dtype), temperature[None])
    return amount * soft_step(kernel, z - cut[:, None], temperature[None, None])


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def soft_cut(
    kernel: AbstractKernel,
    z: Float[Array, "rows n"],
    amount: Float[Array, "rows n"],
    alpha: Float[Array, " 1"],
    temperature: Float[Array, " 1"],
) -> Float[Array, " rows"]:
    r"""The smallest c with $m\,p(c) \le \alpha \max(N_\tau(c), 1)$, for each row.

    `amount` is 1 for items that count. With $p(T(c)) = \alpha \max(N_\tau(c), 1)/m$ a cut is admissible where $c \ge
    T(c)$, and T increases: iterating it from 0 climbs to the smallest fixed point, whatever further ones there are.
    """
    size = jnp.maximum(jnp.sum(amount, axis=-1), 1)

    def next_cut(cut):
        discoveries = jnp.sum(amount * kernel.cdf((z - cut[:, None]) / temperature[None, :]), axis=-1)
        return normal_score(jnp.log(alpha) + jnp.log(jnp.maximum(discoveries, 1)) - jnp.log(size))

    def climbs(state):
        step, cut, following = state
        return (step < _MOST_STEPS) & jnp.any(following - cut > 4 * jnp.finfo(z.dtype).eps * following)

    def climb(state):
        step, _, following = state
        return step + 1, following, next_cut(following)

    start = jnp.zeros_like(size)
    return lax.while_loop(climbs, climb, (jnp.asarray(0, jnp.int32), start, next_cut(start)))[2]


@soft_cut.defjvp
def _soft_cut_jvp(kernel, primals, tangents):
    z, amount, _, temperature = primals
    cut = soft_cut(kernel, *primals)
    t = (z - cut[:, None]) / temperature[None, :]
    discoveries = jnp.sum(amount * kernel.cdf(t), axis=-1)
    density = amount * kernel.pdf(t) / temperature[None, :]
    several = discoveries > 1  # below, the cut rests where one discovery puts it
    count = jnp.where(several, discoveries, 1)
    # The slope of log p(c) - log N(c), negative at the smallest root. Where the curves touch it tends to zero and the
    # cut is about to jump; the bound keeps the derivative of such a moment finite.
    rate = hazard(cut)
    slope = jnp.minimum(jnp.sum(density, axis=-1) / count - rate, -0.01 * rate)
    change = jnp.sum(density * tangents[0], axis=-1) / (count * slope)
    return cut, jnp.where(several, change, 0)
