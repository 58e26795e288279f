"""Fold changes, in the conventions that differ by what they do where a mean is zero."""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float


Zeros = Literal["pseudocount", "infinite", "clip"]


def log2_fold_change(
    mean: Float[ArrayLike, "perts genes"],
    control_mean: Float[ArrayLike, " genes"] | Float[ArrayLike, "perts genes"],
    *,
    pseudocount: float = 1e-9,
    zeros: Zeros = "pseudocount",
    clip: float = 20.0,
) -> Float[Array, "perts genes"]:
    r"""$\log_2$ of the ratio of the mean to the mean of the control cells.

    NaN, with zero gradients, where a mean is negative or NaN.

    **Arguments:**

    - `mean`, `control_mean`: in normalised counts, not in logarithms: arithmetic means, or `geometric_mean`s.
    - `zeros`: what a mean of zero gives.
        `"pseudocount"`: $\log_2\frac{m + \epsilon}{c + \epsilon}$ everywhere (cell-eval2);
        `"infinite"`: 0 if both means are zero, else plus or minus infinity (cell-eval 0.8.2);
        `"clip"`: 0 if both are zero, else plus or minus $\log_2$ `clip`, while ratios of means that are not zero stay
        as they are (the 2025 challenge: pdex 0.1.27). The gradient of the last two is zero where a mean is zero.
    - `pseudocount`: $\epsilon$ of the first convention.
    - `clip`: the ratio that the third one takes.

    **Raises:** `ValueError` for an unknown convention, a pseudocount that is not positive, a clip that is not above 1,
    and shapes that do not fit.
    """
    mean, control = as_float(mean, "mean"), as_float(control_mean, "control_mean").astype(as_float(mean, "mean").dtype)
    if control.shape not in (mean.shape, mean.shape[1:]):
        raise ValueError(f"`control_mean` must have shape {mean.shape[1:]} or {mean.shape}, got {control.shape}.")
    control = jnp.broadcast_to(control if control.ndim == 2 else control[None, :], mean.shape)
    if zeros == "pseudocount":
        if pseudocount <= 0:
            raise ValueError(f'`pseudocount` must be positive, got {pseudocount}; `zeros="infinite"` takes none.')
        return _log2_ratio(mean + pseudocount, control + pseudocount, jnp.nan)
    if zeros not in ("infinite", "clip"):
        raise ValueError(f'`zeros` is "pseudocount", "infinite" or "clip", got {zeros!r}.')
    if zeros == "clip" and clip <= 1:
        raise ValueError(f"`clip` is a ratio above 1, got {clip}.")
    bound = jnp.inf if zeros == "infinite" else math.log2(clip)
    direction = jnp.where(mean > 0, bound, -bound)
    at_zero = jnp.where(mean == control, 0, direction)
    return _log2_ratio(mean, control, jnp.where((mean >= 0) & (control >= 0), at_zero, jnp.nan))


def _log2_ratio(mean, control, otherwise):
    """log2(mean / control), and `otherwise` where either is not positive."""
    positive = (mean > 0) & (control > 0)
    ratio = jnp.where(positive, mean, 1) / jnp.where(positive, control, 1)
    return jnp.where(positive, jnp.log2(ratio), otherwise)


def geometric_mean(mean_of_log1p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$e^{\bar x} - 1$, the mean of counts that cell-eval takes fold changes of: geometric, of counts plus one."""
    return jnp.expm1(mean_of_log1p)
