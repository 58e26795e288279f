"""Two-sided p-values of the normal distribution as logarithms, and back, accurate where the p-value underflows."""

import functools as ft
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


_FAR = 12.0  # from here on ten terms of the asymptotic series are exact to 1e-12, and before it nothing underflows
_TERMS = 10
_NEWTON_STEPS = 5


@jax.custom_jvp
def log_two_sided(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\log 2\Phi(-|z|)$: finite, with a finite gradient, as far as $z^2$ is."""
    return _log_pvalue_and_slope(jnp.abs(z))[0]


@log_two_sided.defjvp
def _log_two_sided_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    value, slope = _log_pvalue_and_slope(jnp.abs(z))
    return value, jnp.sign(z) * slope * dz


def hazard(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\phi(z)/\Phi(-z)$ for z >= 0, which tends to z."""
    return -_log_pvalue_and_slope(z)[1]


def _log_pvalue_and_slope(z):
    """For z >= 0. The slope is minus the hazard."""
    near, far = jnp.minimum(z, _FAR), jnp.maximum(z, _FAR)
    pvalue = lax.erfc(math.sqrt(0.5) * near)
    square = 1 / (far * far)
    # 1 - 1/z^2 + 3/z^4 - 15/z^6 + ..., from the inside out: z times the ratio of the tail to the density.
    series = ft.reduce(lambda inner, odd: 1 - odd * square * inner, range(2 * _TERMS - 1, 0, -2), jnp.ones_like(far))
    far_log = -0.5 * far * far - jnp.log(math.sqrt(0.5 * math.pi) * far / series)
    near_slope = math.sqrt(2 / math.pi) * jnp.exp(-0.5 * near * near) / pvalue
    is_far = z > _FAR
    return jnp.where(is_far, far_log, jnp.log(pvalue)), -jnp.where(is_far, far / series, near_slope)


@jax.custom_jvp
def normal_score(log_pvalue: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""The $z \ge 0$ whose two-sided p-value has this logarithm: 0 for p = 1, infinite for p = 0, NaN for NaN."""
    target = jnp.clip(log_pvalue, -0.01 * jnp.finfo(log_pvalue.dtype).max, 0)

    def step(_, z):
        value, slope = _log_pvalue_and_slope(z)
        return jnp.maximum(z + (target - value) / slope, 0)

    # p <= exp(-z^2/2) makes the start an upper bound, from which Newton's method on a concave function descends.
    z = lax.fori_loop(0, _NEWTON_STEPS, step, jnp.sqrt(-2 * target))
    return jnp.where(jnp.isneginf(log_pvalue), jnp.inf, z)


@normal_score.defjvp
def _normal_score_jvp(primals, tangents):
    (log_pvalue,), (change,) = primals, tangents
    z = normal_score(log_pvalue)
    return z, -change / hazard(z)
