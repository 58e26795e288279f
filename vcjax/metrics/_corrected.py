"""Errors and correlations with the sampling noise of the measured side taken out, gene by gene."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float_matrix, check_pair, gene_weights
from .._stats import effect, safe_divide, safe_sqrt, weighted_mean
from .._types import GeneMask, GeneWeights, PertsGenes, Reference
from ._correlation import cosine, pearson


def noise_corrected_mse(
    pred: PertsGenes,
    real: PertsGenes,
    real_noise: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Weighted mean squared error less its noise floor, $\sum_g \tilde w_{pg} \big((\hat x_{pg} - x_{pg})^2 - n_{pg}
    \big)$ with $\tilde w = w / \sum_g w$.

    $n_{pg} = s_{pg}^2 / N_p$ is the variance of the measured mean. An unbiased estimate of the error against the
    expectation of the profile, where neither the prediction nor the weights (`crossfit`) were made of the measured
    cells: about 0 for a perfect model, negative for the measured cells pasted. Its gradient is that of `mse`.

    **Arguments:**

    - `pred`, `real`: profiles, (perts, genes).
    - `real_noise`: variance of the measured mean of every gene, (perts, genes); a constant.
    - `weights`, `where`: gene weights and genes that count.

    **Returns:** one value a perturbation; NaN where all weights are zero.

    **Raises:** `ValueError` for shapes that differ or do not broadcast.
    """
    pred, real = check_pair(pred, real)
    noise = _noise(real_noise, pred, "real_noise")
    w = gene_weights(pred.shape, pred.dtype, weights, where)
    return weighted_mean((pred - real) ** 2 - noise, w)


def effect_reliability(
    real: PertsGenes,
    noise: PertsGenes,
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    centred: bool = True,
) -> Float[Array, " perts"]:
    r"""Share of the measured effect's (weighted) variance over genes that is no sampling noise, $R_p$.

    $$R_p = 1 - \frac{\sum_g \tilde w_g (1 - \tilde w_g)\, n_g}{\sum_g \tilde w_g (\delta_g - \bar\delta_w)^2},$$

    and without `centred` $1 - \sum_g \tilde w_g n_g / \sum_g \tilde w_g \delta_g^2$, for the cosine. Its square root is
    what a perfect prediction correlates with the measurement. A constant of the differentiation.

    **Arguments:**

    - `noise`: variance of every gene of the effect: that of the profile, and of the control where it is noisy, too.

    **Returns:** at most 1; 0 or less where the effect is not larger than its noise; NaN where it is constant.

    **Raises:** `ValueError` for shapes that differ or do not broadcast.
    """
    real = lax.stop_gradient(as_float_matrix(real, "real"))
    noise = _noise(noise, real, "noise")
    delta = effect(real, reference)
    w = gene_weights(real.shape, real.dtype, weights, where)
    w = jnp.ones_like(real) if w is None else w
    share = safe_divide(w, jnp.broadcast_to(jnp.sum(w, axis=1, keepdims=True), w.shape), otherwise=0.0)
    noise = jnp.where(share > 0, noise, 0)
    delta = jnp.where(share > 0, delta, 0)
    if centred:
        square = jnp.sum(share * delta * delta, axis=1)
        delta = delta - jnp.sum(share * delta, axis=1, keepdims=True)
        spread = jnp.sum(share * delta * delta, axis=1)
        # What rounding leaves of a constant effect is not a variance.
        spread = jnp.where(spread > square * (4 * jnp.finfo(real.dtype).eps) ** 2, spread, 0)
        return 1 - safe_divide(jnp.sum(share * (1 - share) * noise, axis=1), spread)
    return 1 - safe_divide(jnp.sum(share * noise, axis=1), jnp.sum(share * delta * delta, axis=1))


def disattenuate(
    correlation: Real[ArrayLike, " perts"], reliability: Real[ArrayLike, " perts"]
) -> Float[Array, " perts"]:
    r"""$r / \sqrt R$: the correlation with a measurement free of noise; NaN, with zero gradient, where $R \le 0$.

    About 1 for a perfect model, and beyond 1 by chance; with few genes a little above 1 on average, as any ratio with a
    noisy denominator (1.03 for 150 genes and R = 1/2). R is a constant of the differentiation.

    Source: Spearman (1904).
    """
    correlation, reliability = jnp.asarray(correlation), lax.stop_gradient(jnp.asarray(reliability))
    reliability = reliability.astype(correlation.dtype)
    return safe_divide(correlation, safe_sqrt(jnp.where(reliability > 0, reliability, 0)))


def disattenuated_pearson(
    pred: PertsGenes,
    real: PertsGenes,
    reliability: Real[ArrayLike, " perts"],
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Pearson correlation of the effects, corrected for the noise of the measured one, $r_p / \sqrt{R_p}$.

    The correction takes the predicted effect to be independent of the measured cells; where both sides are measured
    from one control mean, its noise is in both and the result a little high.

    **Arguments:**

    - `reliability`: of the measured effect: from `effect_reliability`, or from halves (after Spearman and Brown).
    - the others as for `pearson`.

    **Returns:** NaN where `pearson` is, and where the reliability is not positive.

    **Raises:** `ValueError` for shapes that differ or do not broadcast.
    """
    value = pearson(pred, real, weights=weights, where=where, reference=reference, pred_reference=pred_reference)
    return disattenuate(value, reliability)


def disattenuated_cosine(
    pred: PertsGenes,
    real: PertsGenes,
    reliability: Real[ArrayLike, " perts"],
    *,
    weights: GeneWeights = None,
    where: GeneMask = None,
    reference: Reference = None,
    pred_reference: Reference = None,
) -> Float[Array, " perts"]:
    r"""Cosine similarity of the effects, corrected for the noise of the measured one.

    Arguments, result and errors as for `disattenuated_pearson`, with the reliability that is not `centred`.
    """
    value = cosine(pred, real, weights=weights, where=where, reference=reference, pred_reference=pred_reference)
    return disattenuate(value, reliability)


def _noise(noise, real, name):
    noise = lax.stop_gradient(as_float_matrix(noise, name)).astype(real.dtype)
    if noise.shape != real.shape:
        raise ValueError(f"`{name}` must have the shape of the profiles, {real.shape}, got {noise.shape}.")
    return noise
