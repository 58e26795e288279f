"""How large a predicted effect is: the companions of every scale-free score."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import check_pair, gene_weights
from .._stats import norm, safe_divide
from .._types import GeneMask, GeneWeights, PertsGenes, Reference
from ._correlation import _effects


def amplitude_ratio(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""$\lVert\hat\delta\rVert_w / \lVert\delta\rVert_w$: 1 is the measured size, 0 no effect, 10 a tenfold inflation.

    A noisy measurement has a larger norm than the effect behind it, so a perfect model stays a little below 1.

    Arguments and errors as for `pearson`; NaN where the measured effect is zero.
    """
    pred, real, w = _effects(pred, real, weights, where, reference, pred_reference)
    root = 1 if w is None else jnp.sqrt(w)
    return safe_divide(norm(root * pred), norm(root * real))


def amplitude_slope(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""$\langle\hat\delta, \delta\rangle_w / \langle\delta,\delta\rangle_w$: the slope of the predicted on the
    measured effect.

    1 if the part of the prediction along the truth has the right size, 0 if there is none, negative if it is reversed.
    Errors at right angles to the truth do not change it.

    Arguments and errors as for `pearson`; NaN where the measured effect is zero.
    """
    pred, real, w = _effects(pred, real, weights, where, reference, pred_reference)
    w = jnp.ones_like(real) if w is None else w
    return safe_divide(jnp.sum(w * pred * real, axis=1), jnp.sum(w * real * real, axis=1))


def calibration_slope(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""$\langle\delta, \hat\delta\rangle_w / \langle\hat\delta,\hat\delta\rangle_w$: the slope of the measured on
    the predicted effect.

    What the prediction would have to be multiplied with to have the least squared error: 1 is calibrated, below 1 is
    inflated (or noise), above 1 is shrunk further than need be. Unlike `amplitude_ratio` it does not ask an uncertain
    prediction to be as large as the truth: the best guess of a noisy effect is smaller, and has slope 1.

    Arguments and errors as for `pearson`; NaN where either effect is zero.
    """
    pred, real, w = _effects(pred, real, weights, where, reference, pred_reference)
    w = jnp.ones_like(real) if w is None else w
    slope = safe_divide(jnp.sum(w * pred * real, axis=1), jnp.sum(w * pred * pred, axis=1))
    return jnp.where(jnp.any(w * real * real > 0, axis=1), slope, jnp.nan)


def spread_ratio(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, ""]:
    r"""How much predictions differ from each other, over how much the measured profiles do: 0 is mode collapse.

    $\sqrt{\sum_p \lVert\hat x_p - \bar{\hat x}\rVert_w^2 / \sum_p \lVert x_p - \bar x\rVert_w^2}$, the means over the
    panel. One number of the panel. The measured side is the more spread for its sampling noise.

    Arguments and errors as for `pearson`, and `valid`: the perturbations that count. NaN where the measured profiles
    are all the same.
    """
    pred, real = check_pair(pred, real)
    w = gene_weights(pred.shape, pred.dtype, weights, where)
    counted = jnp.ones(len(real), real.dtype) if valid is None else jnp.asarray(valid).astype(real.dtype)
    root = counted[:, None] * (1 if w is None else jnp.sqrt(w))
    centred = lambda x: x - jnp.sum(counted[:, None] * x, axis=0, keepdims=True) / jnp.maximum(jnp.sum(counted), 1)
    return safe_divide(norm((root * centred(pred)).ravel()), norm((root * centred(real)).ravel()))
