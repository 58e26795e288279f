"""How far cells are moved as a whole: the panel's energy distances."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float
from .._stats import pearson


def energy_pearson(
    pred: Real[ArrayLike, " perts"], real: Real[ArrayLike, " perts"], *, valid: Bool[ArrayLike, " perts"] | None = None
) -> Float[Array, ""]:
    r"""Pearson correlation, over perturbations, of the energy distances of their cells from the control cells.

    **Arguments:**

    - `pred`, `real`: one energy distance a perturbation.
    - `valid`: perturbations that count.

    **Returns:** one number for the panel, in [-1, 1]; NaN with fewer than two perturbations or equal distances.

    **Raises:** `ValueError` for shapes that differ.

    Source: cell-eval 0.8.2 (`pearson_edistance`).
    """
    pred, real = as_float(pred, "pred"), as_float(real, "real")
    if pred.shape != real.shape or pred.ndim != 1:
        raise ValueError(f"Both sides need one number a perturbation, got shapes {pred.shape} and {real.shape}.")
    dtype = jnp.promote_types(pred.dtype, real.dtype)
    weights = None if valid is None else jnp.asarray(valid).astype(dtype)
    return pearson(pred.astype(dtype), real.astype(dtype), weights)
