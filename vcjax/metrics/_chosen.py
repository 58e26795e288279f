"""Genes chosen by the measured side: those that respond significantly, and those that respond most."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .._checks import as_float_matrix
from .._topk import hard_topk_mask
from .._types import GeneMask, PertsGenes
from ..de import DETable


def significant_mask(table: DETable, *, alpha: float = 0.05, least: int = 1) -> Bool[Array, "perts genes"]:
    """The genes of each perturbation with an adjusted p-value strictly below `alpha`: a `where` for any metric.

    **Arguments:**

    - `table`: differential expression of the measured side.
    - `least`: a perturbation of fewer such genes has none, and its metrics are NaN. A correlation of two genes is 1 or
        -1 whatever they are.

    **Raises:** `ValueError` for an `alpha` outside (0, 1).

    Source: Mejia et al., Miller et al. (`*_degs`).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` lies between 0 and 1, got {alpha}.")
    chosen = table.tested & (lax.stop_gradient(table.log_padj) < math.log(alpha))
    count = jnp.sum(chosen, axis=1, keepdims=True, dtype=jnp.int32)
    return chosen & (count >= least)


def top_genes(scores: PertsGenes, k: int, *, where: GeneMask = None) -> Float[Array, "perts genes"]:
    r"""Weights of the k genes of largest score of each perturbation: 1 for these, 0 for others.

    Genes that are tied for the last places share them, as if ties were broken at random many times. Scores that are not
    finite are not chosen; with fewer genes than k, all are. A constant of the differentiation.

    **Arguments:**

    - `scores`: of the measured side, such as the size of its effects, or `vcjax.weights.gene_scores`.
    - `where`: genes to choose among.

    **Raises:** `ValueError` for a k below 1.

    Source: Systema (20 genes), scPertEval (`top_k`).
    """
    if k < 1:
        raise ValueError(f"`k` is at least 1, got {k}.")
    scores = lax.stop_gradient(as_float_matrix(scores, "scores"))
    counted = jnp.isfinite(scores)
    if where is not None:
        mask = jnp.asarray(where)
        counted = counted & (mask if mask.ndim == 2 else mask[None, :])
    amount = counted.astype(scores.dtype)
    choose = lambda row, amount: hard_topk_mask(row, jnp.asarray(k, row.dtype), amount)
    return jax.vmap(choose)(jnp.where(counted, scores, 0), amount)
