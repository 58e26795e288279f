"""Correlation and explained variance of effects, over genes."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._checks import check_pair, gene_weights
from .._relax import HARD, Relaxation
from .._stats import cosine as _cosine, effect, is_constant, pearson as _pearson, safe_divide, weighted_mean
from .._types import GeneMask, GeneWeights, PertsGenes, Reference


def _effects(pred, real, weights, where, reference, pred_reference):
    pred, real = check_pair(pred, real)
    pred_reference = reference if pred_reference is None else pred_reference
    w = gene_weights(pred.shape, pred.dtype, weights, where)
    return effect(pred, pred_reference), effect(real, reference), w


def pearson(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Pearson correlation over genes of the predicted and the measured effect ("Pearson delta").

    $\mathrm{cov}_w(\hat\delta, \delta) / \sqrt{\mathrm{var}_w \hat\delta\,\mathrm{var}_w \delta}$ with $\hat\delta =
    \hat x - \hat r$,
    $\delta = x - r$.

    **Arguments:**

    - `pred`, `real`: profiles, or effects if no reference is given; (perts, genes).
    - `weights`, `where`: non-negative gene weights and genes that count, (genes,) or (perts, genes).
    - `reference`, `pred_reference`: what the measured and the predicted effect are measured from (control mean,
        perturbed mean, one row for each perturbation …); the latter defaults to the former.

    **Returns:** one value in [-1, 1] a perturbation; NaN where either effect is constant over the genes that count,
    the pasted control included. The gradient there is zero.

    **Raises:** `ValueError` for shapes that differ or do not broadcast.

    Source: cell-eval 0.8.2 (`pearson_delta`), cell-eval2 0.20.0 (`delta_pearson`).
    """
    return _pearson(*_effects(pred, real, weights, where, reference, pred_reference))


def cosine(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Cosine similarity of the effects, $\langle\hat\delta,\delta\rangle_w / (\lVert\hat\delta\rVert_w
    \lVert\delta\rVert_w)$.

    Arguments and errors as for `pearson`; NaN where either effect is zero. Source: PerturBench.
    """
    return _cosine(*_effects(pred, real, weights, where, reference, pred_reference))


def spearman(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Spearman correlation over genes of the effects: the Pearson correlation of their mid-ranks.

    With a relaxation the predicted effect has soft ranks; the measured one keeps its own. Weights enter the correlation
    of the ranks; the ranks are those among the genes of `where`.

    Arguments and errors as for `pearson`; NaN where either effect is constant. Equals `scipy.stats.spearmanr` when
    hard.
    """
    pred, real, w = _effects(pred, real, weights, where, reference, pred_reference)
    counted = None if where is None else jnp.broadcast_to(jnp.atleast_2d(jnp.asarray(where)), pred.shape)
    pred_ranks = relax.rank(pred, counted)
    real_ranks = HARD.rank(lax.stop_gradient(real), counted)
    # What rounding leaves of a constant effect would be ranked like any other.
    constant = is_constant(pred, w) | is_constant(real, w)
    return jnp.where(constant, jnp.nan, _pearson(pred_ranks, real_ranks, w))


def r2(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Coefficient of determination of the effect, $1 - \sum_g w_g (\hat\delta_g - \delta_g)^2 / \sum_g w_g (\delta_g
    - \bar\delta_w)^2$.

    For one perturbation it is `1 - mse / variance`, so it carries what `mse` carries on another scale; the two differ
    when averaged over perturbations.

    Arguments and errors as for `pearson`; in (-inf, 1]; NaN where the measured effect is constant. (scikit-learn gives
    1 or 0 there.)
    """
    pred, real, w = _effects(pred, real, weights, where, reference, pred_reference)
    centred = real - weighted_mean(real, w)[:, None]
    spread = weighted_mean(centred * centred, w)
    size = weighted_mean(real * real, w)
    defined = spread > size * (4 * jnp.finfo(real.dtype).eps) ** 2
    return 1 - safe_divide(weighted_mean((pred - real) ** 2, w), jnp.where(defined, spread, 0))


def weighted_r2(
    pred: PertsGenes,
    real: PertsGenes,
    weights: GeneWeights,
    *,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Weighted $R^2(\Delta)$: `r2` with the weights in the place where nobody forgets them.

    Equal to $1 - \mathrm{WMSE}_p / \mathrm{Var}_w(\delta_p)$. Source: Mejia et al., *Diversity by Design* (weighted
    R²).
    """
    return r2(pred, real, weights=weights, where=where, reference=reference, pred_reference=pred_reference)
