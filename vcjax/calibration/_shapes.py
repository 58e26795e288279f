"""Arrays that go with a matrix of profiles."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_float


def beside(values: Any, name: str, profiles: Float[Array, "perts genes"]) -> Float[Array, "perts genes"]:
    """`values` of the shape and dtype of the profiles.

    **Raises:** `ValueError` for another shape.
    """
    values = as_float(values, name)
    if values.shape != profiles.shape:
        raise ValueError(f"`{name}` must have shape {profiles.shape}, got {values.shape}.")
    return values.astype(profiles.dtype)


def row_or_rows(values: Any, name: str, profiles: Float[Array, "perts genes"]) -> Float[Array, "rows genes"]:
    """`values`, one row for all perturbations or one for each, as a matrix that broadcasts against the profiles.

    **Raises:** `ValueError` for `None` and for another shape.
    """
    shape = None if values is None else jnp.shape(values)
    if values is None or shape not in (profiles.shape, profiles.shape[1:]):
        raise ValueError(f"`{name}` must have shape {profiles.shape[1:]} or {profiles.shape}, got {shape}.")
    values = as_float(values, name).astype(profiles.dtype)
    return values if values.ndim == 2 else values[None, :]
