"""Small values as exact zeros: what keeps the rank test of predicted cells from seeing expression everywhere."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float


class Floored(NamedTuple):
    """Cells after `zero_floor`, and the share of all their values that it changed."""

    cells: Float[Array, "*cells genes"]
    changed: Float[Array, ""]


def zero_floor(cells: Float[ArrayLike, "*cells genes"], floor: Float[ArrayLike, ""]) -> Floored:
    """Values below `floor` become exactly 0; the gradient passes as if they had stayed.

    Measured cells are zero in most genes. A decoder that emits 0.02 for 0 outranks all of those zeros, which makes
    nearly every gene significant, and training on the smooth statistic walks straight there. The same floor belongs in
    the exact and in the smooth form.

    **Arguments:**

    - `floor`: in the unit of the cells; `default_zero_floor` of the control cells, say. 0 changes negative values only.
    """
    cells = as_float(cells, "cells")
    small = cells < jnp.asarray(floor).astype(cells.dtype)
    change = lax.stop_gradient(jnp.where(small, -cells, 0))
    return Floored(cells + change, jnp.mean((change != 0).astype(cells.dtype)))


def default_zero_floor(control: Float[ArrayLike, "*cells genes"]) -> Float[Array, ""]:
    """Half the smallest value above 0 among the control cells; 0 if there is none."""
    control = as_float(control, "control")
    smallest = jnp.min(jnp.where(control > 0, control, jnp.inf), initial=jnp.inf)
    return jnp.where(jnp.isfinite(smallest), 0.5 * smallest, 0)
