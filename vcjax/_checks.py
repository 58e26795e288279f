"""Shape and dtype checks at the door of every public function of arrays."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real


def as_float(x: Real[ArrayLike, "*shape"], name: str) -> Float[Array, "*shape"]:
    """`x` as a floating array: integers and half precision become float32, float32 and float64 stay.

    **Raises:** `TypeError` for complex, boolean or non-numeric input.
    """
    array = jnp.asarray(x)
    if jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits >= 32:
        return array
    if jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.float32)
    raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}.")


def as_float_matrix(x: Real[ArrayLike, "rows genes"], name: str) -> Float[Array, "rows genes"]:
    """`as_float`, for an array that must have the two axes (perts, genes)."""
    array = as_float(x, name)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have the axes (perts, genes), got shape {array.shape}.")
    return array


def check_pair(
    pred: Real[ArrayLike, "perts genes"], real: Real[ArrayLike, "perts genes"]
) -> tuple[Float[Array, "perts genes"], Float[Array, "perts genes"]]:
    """Both sides as floating matrices of one shape and one dtype (the wider of the two).

    **Raises:** `ValueError` for unequal shapes, which `-` would otherwise broadcast without a word.
    """
    pred, real = as_float_matrix(pred, "pred"), as_float_matrix(real, "real")
    if pred.shape != real.shape:
        raise ValueError(
            f"`pred` and `real` must have the same shape (perts, genes), got {pred.shape} and {real.shape}."
        )
    dtype = np.promote_types(pred.dtype, real.dtype)
    return pred.astype(dtype), real.astype(dtype)


def gene_weights(
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    weights: Real[ArrayLike, "*#perts genes"] | None,
    where: Bool[ArrayLike, "*#perts genes"] | None,
) -> Float[Array, "perts genes"] | None:
    """Weights and mask as one (perts, genes) array of non-negative weights; `None` where neither was given.

    **Raises:** `ValueError` if either does not broadcast to (perts, genes).
    """
    if weights is None and where is None:
        return None
    total = jnp.ones(shape, dtype)
    for name, factor in {"weights": weights, "where": where}.items():
        if factor is None:
            continue
        factor = jnp.asarray(factor).astype(dtype)
        if factor.ndim not in (1, 2) or factor.shape[-1] != shape[1] or factor.shape[:-1] not in ((), (1,), shape[:1]):
            raise ValueError(f"`{name}` must have shape {shape[1:]} or {shape}, got {factor.shape}.")
        total = total * (factor if factor.ndim == 2 else factor[None, :])
    return total
