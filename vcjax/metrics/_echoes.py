r"""The composite score of *Echoes of Silenced Genes*: a weighted error against a baseline's, times a gated cosine.

$$S = \Big(\sum_p \min\big(c, \log_2 (b_p / a_p)\big)\Big) \cdot \max(0, \rho)$$

with the weighted absolute error $a_p$ of the prediction, $b_p$ of the baseline (the mean of the training profiles), and
the cosine $\rho$ of all predicted with all measured effects, in which a gene counts the more the larger either is.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float, check_pair, gene_weights
from .._stats import absolute, safe_sqrt
from .._types import GeneMask, GeneWeights, PertsGenes
from ._error import mae


_TINY = 1e-12
_CAP = 5.0
Base = Real[ArrayLike, " perts"]
Valid = Bool[ArrayLike, " perts"] | None


def echoes_terms(
    pred: PertsGenes,
    real: PertsGenes,
    weights: GeneWeights,
    base: Base,
    *,
    where: GeneMask = None,
    cap: float = _CAP,
) -> Float[Array, " perts"]:
    r"""What each perturbation adds, $\min(c, \log_2 (b_p / a_p))$: how many times the error is half the baseline's.

    0 for the baseline, 1 for half its error, `cap` at most, without bound below.

    **Arguments:**

    - `pred`, `real`: effects or profiles, (perts, genes); `weights`: those of the recipe `ECHOES`, whose rows sum to
        the number of genes; any other sum gives the same.
    - `base`: weighted absolute error of the baseline, e.g. `mae(baseline, real, weights=weights)`; a constant.

    **Returns:** NaN where all weights are zero.

    **Raises:** `ValueError` for shapes that differ or do not broadcast.

    Source: Echoes of Silenced Genes (Myllia, Kaggle 2026).
    """
    error = mae(pred, real, weights=weights, where=where)
    base = _base(base, error)
    return jnp.minimum(jnp.log2(jnp.maximum(base, _TINY)) - jnp.log2(jnp.maximum(error, _TINY)), cap)


def echoes_cosine(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    left: float = 0.0,
    right: float = 0.2,
    where: GeneMask = None,
    valid: Valid = None,
    detach_gate: bool = False,
) -> Float[Array, ""]:
    r"""Cosine of all effects of the panel in one, $\sum W \hat\delta \delta / \sqrt{\sum W \hat\delta^2 \sum W
    \delta^2}$.

    $W = (t^2 (3 - 2t))^2$ with $t = \mathrm{clip}\big((\max(|\delta|, |\hat\delta|) - l)/(r - l), 0, 1\big)$: an effect
    below `left` on both sides does not count, one above `right` on either side counts in full. 0 where the denominator
    is below $10^{-12}$.

    **Arguments:**

    - `pred`, `real`: effects, (perts, genes).
    - `where`, `valid`: genes and perturbations that count.
    - `detach_gate`: hold W constant in the derivative; a model otherwise gains by raising effects it has right.

    **Raises:** `ValueError` for shapes that differ, and unless `left` is below `right`.

    Source: as for `echoes_terms` (its code has `right` 0.2, its page 0.3).
    """
    if not left < right:
        raise ValueError(f"`left` must be below `right`, got {left} and {right}.")
    pred, real = check_pair(pred, real)
    larger = jnp.maximum(absolute(pred), absolute(real))
    t = jnp.clip((larger - left) / (right - left), 0, 1)
    gate = (t * t * (3 - 2 * t)) ** 2
    gate = lax.stop_gradient(gate) if detach_gate else gate
    counted = gene_weights(pred.shape, pred.dtype, None, where)
    gate = gate if counted is None else gate * counted
    gate = gate if valid is None else gate * jnp.asarray(valid)[:, None].astype(gate.dtype)
    pred, real = (jnp.where(gate > 0, side, 0) for side in (pred, real))
    size = safe_sqrt(jnp.sum(gate * pred * pred)) * safe_sqrt(jnp.sum(gate * real * real))
    defined = size >= _TINY
    return jnp.where(defined, jnp.sum(gate * pred * real) / jnp.where(defined, size, 1), 0)


def echoes(
    pred: PertsGenes,
    real: PertsGenes,
    weights: GeneWeights,
    base: Base,
    *,
    left: float = 0.0,
    right: float = 0.2,
    cap: float = _CAP,
    average: bool = False,
    where: GeneMask = None,
    valid: Valid = None,
) -> Float[Array, ""]:
    r"""The composite score, $\sum_p \mathrm{term}_p \cdot \max(0, \rho)$: one number for the panel.

    The challenge rounds it to five digits. A panel with a negative sum does best with a cosine of 0 or less: look at
    the terms before taking a score of 0 for a good one.

    **Arguments:**

    - `average`: the mean of the terms instead of their sum, which grows with the number of perturbations.
    - the others as for `echoes_terms` and `echoes_cosine`.

    **Returns:** NaN where a perturbation that counts has no weights.

    **Raises:** `ValueError` for shapes that differ, and unless `left` is below `right`.

    Source: as for `echoes_terms`.
    """
    terms = echoes_terms(pred, real, weights, base, where=where, cap=cap)
    total = _total(terms, valid, average)
    cosine = echoes_cosine(pred, real, left=left, right=right, where=where, valid=valid)
    # An undefined factor would make the other's derivative undefined, too.
    defined = ~jnp.isnan(total)
    return jnp.where(defined, jnp.where(defined, total, 0) * jnp.maximum(cosine, 0), jnp.nan)


def echoes_loss(
    pred: PertsGenes,
    real: PertsGenes,
    weights: GeneWeights,
    base: Base,
    *,
    left: float = 0.0,
    right: float = 0.2,
    cap: float = _CAP,
    sharpness: float = 10.0,
    where: GeneMask = None,
    valid: Valid = None,
) -> Float[Array, ""]:
    r"""A loss whose descent raises `echoes`: $-\mathrm{mean}_p \log_2 \frac{b_p}{a_p + 2^{-c} b_p} \cdot \beta^{-1}
    \log(1 + e^{\beta\rho})$.

    Where the score has corners the loss is smooth: the cap is an asymptote, a negative cosine still has a slope, and
    the gate is constant. While the mean of the terms is negative, as at the start of training, the score pays for a
    cosine of 0; the derivative leaves out that part, so that the cosine never is pushed down.

    **Arguments:**

    - `sharpness`: $\beta$; a high one follows the score more closely.
    - the others as for `echoes`. No gradient flows into `real`, the weights and the base.

    A perturbation without weights counts with a term of 0 and has no gradient in it.

    **Raises:** `ValueError` for shapes that differ, unless `left` is below `right`, and unless `sharpness` is positive.
    """
    if not sharpness > 0:
        raise ValueError(f"`sharpness` is positive, got {sharpness}.")
    real, weights, base = lax.stop_gradient((real, weights, base))
    error = mae(pred, real, weights=weights, where=where)
    base = _base(base, error)
    defined = jnp.isfinite(error) & (base > 0)
    error, base = jnp.where(defined, error, 0), jnp.where(defined, base, 1)
    terms = jnp.where(defined, jnp.log2(base) - jnp.log2(error + 2.0**-cap * base), 0)
    total = _total(terms, valid, True)
    cosine = echoes_cosine(pred, real, left=left, right=right, where=where, valid=valid, detach_gate=True)
    factor = jax.nn.softplus(sharpness * cosine) / sharpness
    fixed_factor, fixed_total = lax.stop_gradient((factor, total))
    # The second part is 0 and carries the derivative by the cosine.
    return -(total * fixed_factor + jnp.maximum(fixed_total, 0) * (factor - fixed_factor))


def _base(base, error):
    base = lax.stop_gradient(as_float(base, "base")).astype(error.dtype)
    if base.shape != error.shape:
        raise ValueError(f"`base` must have one value a perturbation, {error.shape}, got {base.shape}.")
    return base


def _total(terms, valid, average):
    if valid is None:
        return jnp.mean(terms) if average else jnp.sum(terms)
    counted = jnp.asarray(valid)
    total = jnp.sum(jnp.where(counted, terms, 0))
    count = jnp.sum(counted, dtype=jnp.int32).astype(terms.dtype)
    return total / jnp.maximum(count, 1) if average else total
