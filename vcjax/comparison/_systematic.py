"""How much of the measured effects is one common response."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import as_float_matrix, gene_weights
from .._stats import cosine, safe_divide
from .._types import GeneMask, GeneWeights, PertsGenes


def systematic_variation(
    effects: PertsGenes,
    *,
    leave_one_out: bool = True,
    weights: GeneWeights = None,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    r"""Cosine of each effect with the mean effect of the others, $\cos(\delta_p, \frac{1}{P-1}\sum_{q \ne p}\delta_q)$.

    The mean over perturbations says how far one response explains a screen: the higher it is, the better the mean of
    the perturbations scores in any correlation with effects from the control.

    **Arguments:**

    - `effects`: profiles less the control, (perts, genes). Of a prediction, the same number shows its collapse.
    - `leave_one_out`: without, the mean is that of all, as published; every effect then agrees with its own share of
        it, and unrelated effects score about $1/\sqrt P$ instead of 0.
    - `weights`, `where`: gene weights and genes that count; `valid`: perturbations that do. One with an undefined entry
        is left out of the mean.

    **Returns:** one value in [-1, 1] a perturbation; NaN for a zero effect, for one that is undefined, and without
    another perturbation.

    **Raises:** `ValueError` for weights that do not broadcast.

    Source: Viñas Torné et al. 2025, *Systema* (systematic variation; `leave_one_out=False`).
    """
    effects = as_float_matrix(effects, "effects")
    counted = jnp.all(jnp.isfinite(effects), axis=1)
    counted = counted if valid is None else counted & jnp.asarray(valid)
    w = gene_weights(effects.shape, effects.dtype, weights, where)
    own = jnp.where(counted[:, None], effects, 0)
    total, number = jnp.sum(own, axis=0)[None, :], jnp.sum(counted, dtype=effects.dtype)
    if leave_one_out:
        total, number = total - own, number - 1
    # A mean of nothing is the zero vector, which has no direction.
    centre = safe_divide(total, jnp.broadcast_to(number, total.shape), otherwise=0.0)
    return jnp.where(counted, cosine(jnp.broadcast_to(centre, own.shape), own, w), jnp.nan)


def systematic_share(
    effects: PertsGenes,
    *,
    leave_one_out: bool = True,
    weights: GeneWeights = None,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    """The share of each effect's squared length that lies along the mean effect of the others: the cosine squared.

    Arguments, result and errors as for `systematic_variation`; in [0, 1].
    """
    alike = systematic_variation(effects, leave_one_out=leave_one_out, weights=weights, where=where, valid=valid)
    return alike * alike
