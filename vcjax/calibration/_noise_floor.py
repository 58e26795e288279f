r"""What sampling noise does to squared errors, known without resampling.

All functions take the noise gene by gene: $s_{pg}^2/n_p$, the variance of the cells over their number, which is the
sampling variance of a profile (`vcjax.analytic_noise(..., per_gene=True)`). With $\tilde w = w / \sum_g w$ throughout.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._checks import as_float_matrix, check_pair, gene_weights
from .._stats import safe_divide, weighted_mean
from .._types import GeneMask, GeneWeights, PertsGenes, Reference
from ..metrics import noise_corrected_mse
from ._shapes import beside, row_or_rows


def noise_floor(noise: PertsGenes, *, weights: GeneWeights = None, where: GeneMask = None) -> Float[Array, " perts"]:
    r"""The (weighted) mean squared error of a perfect prediction, $\sum_g \tilde w_{pg} s_{pg}^2/n_p$.

    No prediction that has not seen the evaluated cells has a smaller one on average;
    `vcjax.metrics.noise_corrected_mse` is the error above it.

    **Arguments:**

    - `noise`: sampling variance of the measured profiles, (perts, genes).
    - `weights`, `where`: as of `vcjax.metrics.mse`, and independent of the evaluated cells.

    **Returns:** one value a perturbation; NaN where all weights are zero. A constant of the differentiation.

    **Raises:** `ValueError` for shapes that do not broadcast.
    """
    noise = as_float_matrix(noise, "noise")
    return lax.stop_gradient(weighted_mean(noise, gene_weights(noise.shape, noise.dtype, weights, where)))


def unbiased_effect_size(
    real: PertsGenes,
    reference: Reference,
    noise: PertsGenes,
    reference_noise: Reference = None,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""The squared size of the measured effects less their noise.

    $\sum_g \tilde w_{pg} [(x_{pg} - r_g)^2 - s_{pg}^2/n_p - s_{r,g}^2/n_r]$ is unbiased, so it is
    negative now and then where there is no effect.

    **Arguments:**

    - `reference`: what effects are measured from, (genes,) or (perts, genes): the control mean, the mean of other
        perturbations. `reference_noise`: its sampling variance; `None` for a reference that is a given.
    - others as of `noise_floor`.

    **Returns:** one value a perturbation; NaN where all weights are zero. A constant of the differentiation.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    real = as_float_matrix(real, "real")
    own, spread = row_or_rows(reference, "reference", real), beside(noise, "noise", real)
    if reference_noise is not None:
        spread = spread + row_or_rows(reference_noise, "reference_noise", real)
    w = gene_weights(real.shape, real.dtype, weights, where)
    return lax.stop_gradient(weighted_mean((real - own) ** 2 - spread, w))


def signal_to_noise(
    real: PertsGenes,
    reference: Reference,
    noise: PertsGenes,
    reference_noise: Reference = None,
    *,
    duplicate_noise: PertsGenes | None = None,
    weights: GeneWeights = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""The size of the effects over the noise of a replicate, `unbiased_effect_size / noise_floor(duplicate_noise)`.

    A technical duplicate has a smaller expected (weighted) squared error than the `reference` as a prediction exactly
    if this is above 1: both carry the noise of the truth, the duplicate its own besides, the reference the effect. So
    the sign of $\mathrm{SNR} - 1$ is that of the DRF of `mse`, without any resampling.

    **Arguments:** as of `unbiased_effect_size`, and

    - `duplicate_noise`: sampling variance of the duplicate's profiles; by default twice `noise`, that of a half of the
        cells behind `real`.
    - `reference_noise`: where the reference is itself a noisy prediction (a mean of few perturbations), leaving it out
        charges it with its noise, and the rule above holds for it as it is.

    **Returns:** NaN where the duplicate has no noise.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    masks = {"weights": weights, "where": where}
    duplicate_noise = 2 * as_float_matrix(noise, "noise") if duplicate_noise is None else duplicate_noise
    size = unbiased_effect_size(real, reference, noise, reference_noise, **masks)
    duplicate_noise = beside(duplicate_noise, "duplicate_noise", as_float_matrix(real, "real"))
    return safe_divide(size, noise_floor(duplicate_noise, **masks))


def explained_fraction(
    pred: PertsGenes,
    real: PertsGenes,
    reference: Reference,
    noise: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$1 - (\mathrm{WMSE}_p - f_p) / (\mathrm{WMSE}_p(r) - f_p)$ with the noise floor f: what is explained of the
    effect.

    In $(-\infty, 1]$ but for noise: 0 is the `reference` as a prediction (the mean, the control), 1 a prediction that
    is perfect up to the noise of the truth.

    **Arguments:** as of `vcjax.metrics.noise_corrected_mse` and `unbiased_effect_size`.

    **Returns:** NaN (with zero gradients) where the effect is not larger than its noise.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    pred, real = check_pair(pred, real)
    masks = {"weights": weights, "where": where}
    own = jnp.broadcast_to(row_or_rows(reference, "reference", real), real.shape)
    null = lax.stop_gradient(noise_corrected_mse(own, real, noise, **masks))
    return 1 - safe_divide(noise_corrected_mse(pred, real, noise, **masks), jnp.where(null > 0, null, 0))
