"""Errors of profiles and of effects."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_pair, gene_weights
from .._stats import absolute, effect, safe_sqrt, weighted_mean
from .._types import GeneMask, GeneWeights, PertsGenes, Reference


def _errors(pred, real, weights, where, reference, pred_reference):
    pred, real = check_pair(pred, real)
    pred_reference = reference if pred_reference is None else pred_reference
    if reference is not None or pred_reference is not None:
        pred, real = effect(pred, pred_reference), effect(real, reference)
    return pred - real, gene_weights(pred.shape, pred.dtype, weights, where)


def mse(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Mean squared error of each perturbation, $\sum_g w_g e_g^2 / \sum_g w_g$ with $e = \hat x - x$.

    The reference cancels unless the two sides have different ones: then this is the error of effects (`delta_mse`),
    $e = (\hat x - \hat r) - (x - r)$.

    **Arguments:**

    - `pred`, `real`: profiles (or effects), (perts, genes). Integers and half precision are computed in float32.
    - `weights`: non-negative gene weights, (genes,) or (perts, genes); `where`: genes that count.
    - `reference`, `pred_reference`: what effects are measured from on the measured and on the predicted side; the
        latter defaults to the former.

    **Returns:** one value a perturbation; NaN where all weights are zero.

    **Raises:** `ValueError` for shapes that differ or do not broadcast; `TypeError` for values that are not real
    numbers.

    Source: cell-eval 0.8.2 (`mse`, `mse_delta`), cell-eval2 0.20.0 (`expr_mse`, `delta_mse`).
    """
    errors, w = _errors(pred, real, weights, where, reference, pred_reference)
    return weighted_mean(errors * errors, w)


def rmse(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Root mean squared error of each perturbation, the square root of `mse`; its gradient is 0 where it is 0.

    Arguments, result and errors as for `mse`. Source: PerturBench (its default), Systema.
    """
    errors, w = _errors(pred, real, weights, where, reference, pred_reference)
    square = weighted_mean(errors * errors, w)
    return jnp.where(jnp.isnan(square), square, safe_sqrt(square))


def mae(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Mean absolute error of each perturbation, $\sum_g w_g |e_g| / \sum_g w_g$; gradient 0 at genes that are exact.

    Arguments, result and errors as for `mse`.

    Source: cell-eval 0.8.2 (`mae`, `mae_delta`), cell-eval2 0.20.0 (`expr_mae`, `delta_mae`).
    """
    errors, w = _errors(pred, real, weights, where, reference, pred_reference)
    return weighted_mean(absolute(errors), w)


def l2(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Euclidean distance of each perturbation, $\sqrt{\sum_g w_g e_g^2}$: not divided by the number of genes.

    Arguments and errors as for `mse`; 0 where no gene counts. Source: Ahlmann-Eltze et al. 2025 (over their 1,000 genes
    of highest control expression: pass those as `where`).
    """
    errors, w = _errors(pred, real, weights, where, reference, pred_reference)
    square = errors * errors
    return safe_sqrt(jnp.sum(square if w is None else jnp.where(w > 0, w * square, 0), axis=1))


def weighted_mse(
    pred: PertsGenes,
    real: PertsGenes,
    weights: GeneWeights,
    *,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Weighted mean squared error (WMSE), $\sum_g \tilde w_{pg} (\hat x_{pg} - x_{pg})^2$ with $\tilde w = w / \sum_g
    w$.

    `mse` with the weights in the place where nobody forgets them. A prediction with independent errors of variance
    $s^2$ scores $s^2$ whatever the weights.

    Arguments, result and errors as for `mse`. Source: Mejia et al., *Diversity by Design* (their equation of the WMSE).
    """
    return mse(pred, real, weights=weights, where=where)
