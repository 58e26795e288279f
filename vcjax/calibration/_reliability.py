"""From the agreement of two halves to that of more cells: the arithmetic of ceilings."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float, check_pair, gene_weights
from .._stats import pearson, safe_divide, safe_sqrt
from .._types import GeneMask, GeneWeights, PertsGenes


class Ceilings(NamedTuple):
    """What a metric can be expected to reach, at most.

    **Fields:** `half`, one half of the cells as a prediction of the other, as observed; `replicate`, an experiment of
    the same size as a prediction of all cells; `noise_free`, a prediction without error of all cells.
    """

    half: Float[Array, "*shape"]
    replicate: Float[Array, "*shape"]
    noise_free: Float[Array, "*shape"]


def spearman_brown(reliability: Real[ArrayLike, "*shape"], factor: float = 2.0) -> Float[Array, "*shape"]:
    r"""The correlation of replicates at `factor` times the depth, $k r / (1 + (k - 1) r)$.

    NaN (with zero gradients) where r is not positive: replicates that do not agree tell nothing of larger ones.

    **Raises:** `ValueError` for a factor that is not positive.

    Reference: Spearman (1910), Brown (1910).
    """
    if not factor > 0:
        raise ValueError(f"`factor` must be positive, got {factor}.")
    r = as_float(reliability, "reliability")
    return safe_divide(factor * r, jnp.where(r > 0, 1 + (factor - 1) * r, 0))


def correlation_ceilings(half: Real[ArrayLike, "*shape"]) -> Ceilings:
    r"""Ceilings of a correlation of effects from that of two halves, r.

    A replicate of the same size: $R = 2r/(1 + r)$; a prediction without error: $\sqrt{R}$, which is above R, since only
    one side has noise left. Both are NaN where r is not positive. The halves must not share control cells, or r counts
    the noise of the control as agreement.
    """
    half = as_float(half, "half")
    replicate = spearman_brown(half)
    return Ceilings(half, replicate, jnp.where(jnp.isnan(replicate), jnp.nan, safe_sqrt(replicate)))


def squared_error_ceilings(half: Real[ArrayLike, "*shape"]) -> Ceilings:
    r"""Ceilings of a (weighted) mean squared error from that of two halves, $e = 4 s^2/n$.

    With $s^2/n$ the noise of the profile of all n cells, each half has $2 s^2/n$. A replicate of the same size against
    all cells has $2 s^2/n = e/2$, a prediction without error $s^2/n = e/4$: half against half is four times too
    pessimistic. (Half against all cells, itself included, is $e/4$ by accident: the two share cells.) Distances, the
    roots of these, have the roots of these factors.
    """
    half = as_float(half, "half")
    return Ceilings(half, half / 2, half / 4)


def extrapolated_ceiling(
    cells: Real[ArrayLike, " sizes"],
    values: Real[ArrayLike, "*shape sizes"],
    *,
    to: float = math.inf,
    exponent: float = 1.0,
) -> Float[Array, "*shape"]:
    r"""A metric of replicates of ever more cells, continued to `to` cells: $m(n) = m_\infty - b n^{-c}$.

    For metrics that no formula carries from half of the cells to all of them (overlaps of significant genes, ranks).
    Fitted by least squares in $n^{-c}$ to the values at a few sizes, say an eighth, a quarter and half of the cells,
    each with control cells of its own. It is an extrapolation and must be called one.

    **Arguments:**

    - `cells`: the sizes n; `values`: the metric at each, last axis.
    - `to`: the size to continue to; `exponent`: c.

    **Returns:** NaN where a value is.

    **Raises:** `ValueError` for fewer than two different sizes, for sizes that are not positive and an exponent that is
    not.
    """
    n = np.asarray(cells, np.float64)
    if len(np.unique(n)) < 2 or not np.all(n > 0) or not exponent > 0:
        raise ValueError(f"Two different positive sizes and a positive exponent are needed, got {n} and {exponent}.")
    x = n**-exponent
    # The line through the values, read off at `to`, is a weighted sum of them.
    gap = x - x.mean()
    share = 1 / len(x) + (float(to) ** -exponent - x.mean()) * gap / np.sum(gap * gap)
    values = as_float(values, "values")
    return jnp.sum(values * jnp.asarray(share, values.dtype).reshape((1,) * (values.ndim - 1) + (-1,)), axis=-1)


def reliability(
    first: PertsGenes, second: PertsGenes, *, weights: GeneWeights = None, where: GeneMask = None
) -> Ceilings:
    r"""How well the effects of each perturbation are known: `correlation_ceilings` of two halves' effects.

    **Arguments:** effects of two disjoint halves of the cells, each from control cells of its own, (perts, genes);
    `weights`, `where` as of `vcjax.metrics.pearson`.

    **Returns:** a triple of one value a perturbation; the correlation of a model's effect with that of all cells,
    divided by `noise_free`, is corrected for attenuation. A constant of the differentiation. NaN where a half's effect
    is constant, and but for `half` where the halves do not agree.

    **Raises:** `ValueError` for shapes that differ.
    """
    first, second = (lax.stop_gradient(x) for x in check_pair(first, second))
    return correlation_ceilings(pearson(first, second, gene_weights(first.shape, first.dtype, weights, where)))
