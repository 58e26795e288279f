"""How large a predicted effect is: the companions of every scale-free score."""

import jax.numpy as jnp
from jaxtyping import Array, Float

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
