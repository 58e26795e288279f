"""Which genes a test counts, and the Benjamini-Hochberg adjustment of their p-values, in log space."""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import as_float_matrix


Scope = Literal["perturbation", "pooled"]


def benjamini_hochberg(
    log_pvalue: Float[ArrayLike, "perts genes"],
    tested: Bool[ArrayLike, "perts genes"] | None = None,
    *,
    scope: Scope = "perturbation",
) -> Float[Array, "perts genes"]:
    r"""Natural logarithms of adjusted p-values, $q_{(i)} = \min_{j \ge i} p_{(j)} m / j$, at most 1.

    m counts the tested genes whose p-value is not NaN; these are adjusted, a NaN stays NaN, and what is not tested gets
    0, the logarithm of 1. Differentiable in `log_pvalue`: the order of the genes is a constant, so each adjusted value
    moves with the one p-value it is made of.

    **Arguments:**

    - `log_pvalue`: natural logarithms; -inf is a p-value of 0.
    - `tested`: genes that take part, all by default.
    - `scope`: `"perturbation"` adjusts each row by itself, `"pooled"` all rows together.

    **Raises:** `ValueError` for an unknown scope and for shapes that differ.

    Reference: Benjamini and Hochberg (1995); `scipy.stats.false_discovery_control`.
    """
    log_pvalue = as_float_matrix(log_pvalue, "log_pvalue")
    tested = jnp.ones(log_pvalue.shape, bool) if tested is None else jnp.asarray(tested)
    if tested.shape != log_pvalue.shape:
        raise ValueError(f"`tested` must have the shape of `log_pvalue`, {log_pvalue.shape}, got {tested.shape}.")
    if scope not in ("perturbation", "pooled"):
        raise ValueError(f'`scope` is "perturbation" or "pooled", got {scope!r}.')
    rows = log_pvalue.shape if scope == "perturbation" else (1, log_pvalue.size)
    adjusted = _adjusted_rows(log_pvalue.reshape(rows), tested.reshape(rows)).reshape(log_pvalue.shape)
    return jnp.where(tested, adjusted, 0)


def _adjusted_rows(log_pvalue, tested):
    undefined = jnp.isnan(log_pvalue)
    # What takes no part sorts behind all that does, and its infinity never is a minimum.
    logs = jnp.where(tested & ~undefined, log_pvalue, jnp.inf)
    order = jnp.argsort(lax.stop_gradient(logs), axis=-1)
    ascending = jnp.take_along_axis(logs, order, axis=-1)
    count = jnp.sum(tested & ~undefined, axis=-1, keepdims=True, dtype=jnp.int32).astype(logs.dtype)
    place = jnp.arange(1, logs.shape[-1] + 1, dtype=jnp.int32).astype(logs.dtype)[None, :]
    scaled = ascending + (jnp.log(jnp.maximum(count, 1)) - jnp.log(place))
    chosen = jnp.take_along_axis(scaled, _place_of_minimum_from_here_on(lax.stop_gradient(scaled)), axis=-1)
    adjusted = jnp.take_along_axis(jnp.minimum(chosen, 0), jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(undefined, jnp.nan, adjusted)


def _place_of_minimum_from_here_on(x):
    """For each place of a row, the first place from it on that holds the minimum of the rest of the row."""
    last = x.ndim - 1
    smallest = lax.cummin(x, axis=last, reverse=True)
    place = lax.broadcasted_iota(jnp.int32, x.shape, last)
    return lax.cummin(jnp.where(x == smallest, place, x.shape[last] - 1), axis=last, reverse=True)


def withheld(
    log_padj: Float[Array, "perts genes"],
    log2_fold_change: Float[Array, "perts genes"],
    *,
    undefined: bool = True,
    floor: float = 0.0,
) -> Float[Array, "perts genes"]:
    """Adjusted p-values, set to 1 where the fold change is too small or undefined for a call.

    The adjustment of the other genes stays as it was.

    **Arguments:**

    - `undefined`: withhold genes whose fold change is NaN (the `nan_lfc_policy` "mask" of cell-eval2).
    - `floor`: withhold genes whose absolute log2 fold change is below it.
    """
    small = jnp.abs(log2_fold_change) < floor
    out = small | jnp.isnan(log2_fold_change) if undefined else small
    return jnp.where(out, 0, log_padj)


def expressed(
    control_mean: Float[Array, " genes"], *, threshold: float = 5.0, target_sum: float = 1e6
) -> Bool[Array, " genes"]:
    """Genes whose mean in the control cells exceeds `threshold` counts per million; all of them if it is negative.

    The control cells alone decide, so that every perturbation and both sides keep the same genes and the filter tells
    nothing about the direction of an effect.

    **Arguments:**

    - `control_mean`: arithmetic mean of the normalised counts of the control cells.
    - `target_sum`: the library size that they are normalised to.
    """
    return jnp.ones(control_mean.shape, bool) if threshold < 0 else control_mean * (1e6 / target_sum) > threshold
