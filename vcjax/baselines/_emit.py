"""Predicted profiles as what cells are made of: expected counts, and factors on the counts of control cells."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float, as_float_matrix
from .._stats import safe_divide


def expected_shares(profile: Real[ArrayLike, "perts genes"]) -> Float[Array, "perts genes"]:
    r"""The share of each gene in the counts of a cell, $u_g / \sum_{g'} u_{g'}$ with $u = \max(0, e^x - 1)$.

    What is below zero expresses nothing. The inverse of the normalisation for profiles of summed counts
    (`bulk_lognorm`); the mean of log-normalised cells lies below the logarithm of their mean, so for these it is only
    an approximation. Zero for a profile without counts.
    """
    counts = jnp.expm1(jnp.maximum(as_float_matrix(profile, "profile"), 0))
    total = jnp.sum(counts, axis=1, keepdims=True)
    return safe_divide(counts, jnp.broadcast_to(total, counts.shape), 0.0)


def gene_ratios(
    profile: Real[ArrayLike, "perts genes"], control: Real[ArrayLike, " genes"]
) -> Float[Array, "perts genes"]:
    r"""What to multiply the counts of a control cell by, $(e^{x_{pg}} - 1)/(e^{c_g} - 1)$, not below 0.

    A gene that the control does not express has no counts to multiply: its factor is 0, whatever is predicted.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    profile, control = as_float_matrix(profile, "profile"), as_float(control, "control")
    if control.shape != profile.shape[1:]:
        raise ValueError(f"`control` must have shape {profile.shape[1:]}, got {control.shape}.")
    base = jnp.broadcast_to(jnp.expm1(jnp.maximum(control, 0))[None, :], profile.shape).astype(profile.dtype)
    return safe_divide(jnp.expm1(jnp.maximum(profile, 0)), base, 0.0)
