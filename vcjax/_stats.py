"""Guarded statistics over the last axis: where a norm or a variance is zero they give NaN or zero, with zero
gradients.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._types import Reference


@jax.custom_jvp
def absolute(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """|x|, with derivative 0 at 0: an exactly right gene is not pushed."""
    return jnp.abs(x)


@absolute.defjvp
def _absolute_jvp(primals, tangents):
    return jnp.abs(primals[0]), jnp.sign(primals[0]) * tangents[0]


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root of max(x, 0), with derivative 0 where x is not positive."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_divide(
    x: Float[Array, "*shape"], y: Float[Array, "*shape"], otherwise: float = jnp.nan
) -> Float[Array, "*shape"]:
    """x / y, and `otherwise` (with zero gradients) where y is 0."""
    nonzero = y != 0
    return jnp.where(nonzero, x / jnp.where(nonzero, y, 1), otherwise)


def norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """The Euclidean norm, with derivative 0 at 0."""
    return safe_sqrt(jnp.sum(x * x, axis=-1))


def weighted_mean(x: Float[Array, "*batch n"], w: Float[Array, "*batch n"] | None = None) -> Float[Array, "*batch"]:
    """The mean weighted by `w` >= 0; NaN, with zero gradients, where all weights are zero."""
    if w is None:
        return jnp.mean(x, axis=-1)
    # An infinite or undefined entry with weight zero takes no part, rather than turning the sum into NaN.
    return safe_divide(jnp.sum(w * jnp.where(w > 0, x, 0), axis=-1), jnp.sum(w, axis=-1))


def pearson(
    a: Float[Array, "*batch n"], b: Float[Array, "*batch n"], w: Float[Array, "*batch n"] | None = None
) -> Float[Array, "*batch"]:
    """The (weighted) Pearson correlation; NaN, with zero gradients, where either side is constant.

    Constant means a variance below what rounding leaves of a constant of that size.
    """
    a_mean, b_mean = (weighted_mean(x, w)[..., None] for x in (a, b))
    a_gap, b_gap = jnp.where(jnp.isnan(a_mean), 0, a - a_mean), jnp.where(jnp.isnan(b_mean), 0, b - b_mean)
    return _correlation(a_gap, b_gap, w, floor=(_rounding(a, w), _rounding(b, w)))


def is_constant(x: Float[Array, "*batch n"], w: Float[Array, "*batch n"] | None = None) -> Bool[Array, "*batch"]:
    """Whether `pearson` is undefined for this side, whatever the other."""
    return jnp.isnan(pearson(x, x, w))


def cosine(
    a: Float[Array, "*batch n"], b: Float[Array, "*batch n"], w: Float[Array, "*batch n"] | None = None
) -> Float[Array, "*batch"]:
    """The (weighted) cosine similarity; NaN, with zero gradients, where either side is zero."""
    return _correlation(a, b, w, floor=(0, 0))


def _correlation(a, b, w, floor):
    total = lambda x: jnp.sum(x, axis=-1) if w is None else jnp.sum(w * x, axis=-1)
    a_square, b_square = total(a * a), total(b * b)
    defined = (a_square > floor[0]) & (b_square > floor[1])
    # Two roots, not the root of a product: squares of small effects would underflow in float32.
    scale = jnp.where(defined, safe_sqrt(a_square) * safe_sqrt(b_square), 1)
    return jnp.where(defined, total(a * b) / scale, jnp.nan)


def _rounding(x, w):
    square = x * x if w is None else w * x * x
    return jnp.sum(jax.lax.stop_gradient(square), axis=-1) * (4 * jnp.finfo(x.dtype).eps) ** 2


def effect(profile: Float[Array, "perts genes"], reference: Reference) -> Float[Array, "perts genes"]:
    """`profile - reference`, where a row that differs from its reference by rounding alone is exactly zero.

    A prediction that pastes the control is no effect; without this, what rounding leaves of it would have a direction
    and be correlated and ranked by it. The gradient is that of the plain difference.
    """
    if reference is None:
        return profile
    reference = jnp.asarray(reference).astype(profile.dtype)
    reference = reference[None, :] if reference.ndim == 1 else reference
    delta = profile - reference
    nothing = is_rounding(profile, reference)[:, None]
    return delta - jax.lax.stop_gradient(jnp.where(nothing, delta, 0))


def is_rounding(profile: Float[Array, "perts genes"], reference: Float[Array, "#perts genes"]) -> Bool[Array, " perts"]:
    """Whether a row differs from its reference by no more than rounding, in every gene."""
    rounding = 16 * jnp.finfo(profile.dtype).eps * jnp.maximum(jnp.abs(profile), jnp.abs(reference))
    return jnp.all(jnp.abs(profile - reference) <= rounding, axis=-1)
