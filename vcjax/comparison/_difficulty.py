"""What makes a perturbation hard to predict, known without looking at any prediction."""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float, as_float_matrix, gene_weights
from .._stats import effect, norm, safe_divide, weighted_mean
from .._types import GeneMask, GeneWeights, PertsGenes, Reference
from ..de import DETable


def effect_size(
    real: PertsGenes,
    *,
    reference: Reference = None,
    noise: Real[ArrayLike, " perts"] | None = None,
    weights: GeneWeights = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Mean squared effect of each perturbation, $\sum_g w_g \delta_g^2 / \sum_g w_g$, less its noise if known.

    **Arguments:**

    - `real`: measured profiles with `reference`, or effects; (perts, genes).
    - `noise`: the part of it that sampling explains: noise of profile and reference, averaged over genes like the
        effect. The result can be negative, for an effect that cannot be told from none.

    **Raises:** `ValueError` for weights that do not broadcast.
    """
    delta = effect(as_float_matrix(real, "real"), reference)
    square = weighted_mean(delta * delta, gene_weights(delta.shape, delta.dtype, weights, where))
    return square if noise is None else square - as_float(noise, "noise").astype(square.dtype)


def significant_genes(table: DETable, *, alpha: float = 0.05) -> Int[Array, " perts"]:
    """How many tested genes have an adjusted p-value below `alpha`."""
    return jnp.sum(table.tested & (table.log_padj < math.log(alpha)), axis=1, dtype=jnp.int32)


def nearest_training(
    effects: PertsGenes,
    train: Real[ArrayLike, "train genes"],
    *,
    weights: Real[ArrayLike, " genes"] | None = None,
    where: Bool[ArrayLike, " genes"] | None = None,
    same: Bool[ArrayLike, "perts train"] | None = None,
) -> Float[Array, " perts"]:
    """Cosine of each effect with the training effect nearest to it: how far copying a neighbour would get.

    It needs the measured effect of the perturbation itself, so it sorts perturbations and predicts none.

    **Arguments:**

    - `effects`, `train`: measured effects of the scored and of the training perturbations, over the same genes.
    - `weights`, `where`: gene weights and genes that count, (genes,).
    - `same`: pairs to leave out, where a perturbation is in both.

    **Returns:** one value in [-1, 1] a perturbation; NaN for a zero or undefined effect, and where no training effect
    is left.

    **Raises:** `ValueError` for gene axes that differ.
    """
    effects, train = as_float_matrix(effects, "effects"), as_float_matrix(train, "train")
    if effects.shape[1] != train.shape[1]:
        raise ValueError(f"`effects` and `train` need the same genes, got shapes {effects.shape} and {train.shape}.")
    root = _root(weights, where, effects.shape[1], effects.dtype)
    ours, theirs = _directions(effects * root[None, :]), _directions(train.astype(effects.dtype) * root[None, :])
    alike = jnp.matmul(ours, theirs.T, precision="highest")
    alike = jnp.where(jnp.isnan(alike), -jnp.inf, alike)
    if same is not None:
        alike = jnp.where(jnp.asarray(same), -jnp.inf, alike)
    nearest = jnp.max(alike, axis=1, initial=-jnp.inf)
    return jnp.where(jnp.isfinite(nearest), jnp.clip(nearest, -1, 1), jnp.nan)


def target_expression(control: Real[ArrayLike, " genes"], targets: Int[ArrayLike, " perts"]) -> Float[Array, " perts"]:
    """The control's expression of the gene that each perturbation targets; NaN where it targets no measured gene."""
    control, targets = as_float(control, "control"), jnp.asarray(targets)
    known = targets >= 0
    return jnp.where(known, control[jnp.where(known, targets, 0)], jnp.nan)


def _root(weights, where, genes, dtype):
    w = gene_weights((1, genes), dtype, weights, where)
    return jnp.ones(genes, dtype) if w is None else jnp.sqrt(w[0])


def _directions(x):
    """Rows of length 1; NaN for a row of length 0."""
    return safe_divide(x, jnp.broadcast_to(norm(x)[:, None], x.shape))
