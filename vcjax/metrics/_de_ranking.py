"""How well predicted p-values rank the genes: average precision and area under the ROC curve."""

import math
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._ecdf import sorted_ecdf
from .._relax import HARD, Relaxation
from .._types import GeneMask
from ..de import DETable
from ._de_order import around_ties
from ._de_pair import exact_or_smooth, pair_tables


Floor = Literal["none", "min_nonzero", "clip", "replace_zero", "preserve"]

_UNDERFLOW = math.log(5e-324)  # what float64 cannot tell from a p-value of 0
_SMALLEST = 1e-10


def average_precision(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    floor: Floor = "none",
    relax: Relaxation = HARD,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    r"""$\frac{1}{n_+}\sum_{i \in +} \#\{j \in +: \hat q_j \le \hat q_i\} / \#\{j: \hat q_j \le \hat q_i\}$: the area
    under the precision-recall curve, as a step sum.

    The positives are the genes that are significant in the measured table, among all of its genes; the ranking is that
    of the predicted adjusted p-values. Tied genes enter together. With a relaxation the counts are sums of smoothed
    comparisons (SmoothAP); there a tie counts one half, so that the smooth form need not tend to the exact one where
    p-values are equal.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes). A gene that the predicted table lacks has p-value 1.
    - `floor`: what a predicted p-value of 0 (below 5e-324) becomes: `"none"` keeps its logarithm; `"min_nonzero"` is
        the smallest one above 0 of all perturbations; `"preserve"` 5e-324; `"replace_zero"` 1e-10, and what underflows
        in float32 counts as 0; `"clip"` raises every smaller one to 1e-10.
    - `alpha`: a gene is a positive where its adjusted p-value is strictly smaller.
    - `where`: genes that count, (genes,) or (perts, genes); `valid`: perturbations that count for `"min_nonzero"`.

    **Returns:** one value in [0, 1] a perturbation; NaN where all genes, or none, are positive.

    **Raises:** `ValueError` for tables of unequal shape and an unknown `floor`.

    Source: cell-eval 0.8.2 and cell-eval2 0.20.0 (`pr_auc`); the smooth form: Brown et al., *Smooth-AP* (ECCV 2020,
    arXiv:2007.12163).
    """
    log_q, positive, counted = _ranking(pred, real, alpha, floor, where, valid)

    def smooth():
        temperature = relax._axis_temperature(log_q, counted > 0)
        ahead = lambda weights: 0.5 * weights + sorted_ecdf(relax.rank_kernel, log_q, weights, temperature)
        precision = ahead(positive) / jnp.where(counted > 0, ahead(counted), 1)
        return jnp.sum(positive * precision, axis=1) / jnp.maximum(jnp.sum(positive, axis=1), 1)

    value = exact_or_smooth(relax, lambda: _step_sum(lax.stop_gradient(log_q), positive, counted), smooth)
    return jnp.where(_two_classes(positive, counted), value, jnp.nan)


def roc_auc(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    floor: Floor = "none",
    relax: Relaxation = HARD,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    r"""$\frac{1}{n_+ n_-}\sum_{i \in +}\sum_{j \in -} H(\hat q_j - \hat q_i)$: how often a significant gene has the
    smaller predicted p-value, a tie one half.

    Arguments, positives, undefined values and errors as for `average_precision`.

    Source: cell-eval 0.8.2 and cell-eval2 0.20.0 (`roc_auc`).
    """
    log_q, positive, counted = _ranking(pred, real, alpha, floor, where, valid)
    negative = counted - positive

    def smooth():
        temperature = relax._axis_temperature(log_q, counted > 0)
        before = sorted_ecdf(relax.rank_kernel, log_q, negative, temperature)
        return jnp.sum(positive * before, axis=1)

    before = exact_or_smooth(relax, lambda: _pairs_before(lax.stop_gradient(log_q), positive, counted), smooth)
    pairs = jnp.sum(positive, axis=1) * jnp.sum(negative, axis=1)
    return jnp.where(_two_classes(positive, counted), 1 - before / jnp.maximum(pairs, 1), jnp.nan)


def _ranking(pred, real, alpha, floor, where, valid):
    """Log of the floored predicted p-value, which genes are positives, and which count."""
    pair = pair_tables(pred, real, relax=HARD, alpha=alpha, where=where)
    tested = pair.pred.tested & ~jnp.isnan(pair.pred.log_padj)
    log_q = jnp.where(tested, pair.pred.log_padj, 0)
    used = tested if valid is None else tested & jnp.asarray(valid)[:, None]
    counted = pair.real.tested.astype(log_q.dtype)
    return _floored(log_q, used, floor), pair.truth, counted


def _floored(log_q: Float[Array, "perts genes"], used: Bool[Array, "perts genes"], floor: Floor):
    if floor == "none":
        return log_q
    if floor == "preserve":
        return jnp.maximum(log_q, _UNDERFLOW)
    if floor == "clip":
        return jnp.clip(log_q, math.log(_SMALLEST), 0)
    if floor == "replace_zero":
        # The smallest number that float32 does not round to 0 is half of its smallest subnormal.
        return jnp.where(log_q <= -150 * math.log(2), math.log(_SMALLEST), log_q)
    if floor == "min_nonzero":
        zero = log_q < _UNDERFLOW
        smallest = jnp.min(jnp.where(used & ~zero, log_q, jnp.inf))
        return jnp.where(zero, jnp.where(jnp.isfinite(smallest), smallest, math.log(_SMALLEST)), log_q)
    raise ValueError(f"Unknown `floor` {floor!r}: one of none, min_nonzero, clip, replace_zero, preserve.")


def _two_classes(positive, counted):
    found = jnp.sum(positive, axis=1)
    return (found > 0) & (found < jnp.sum(counted, axis=1))


def _step_sum(log_q, positive, counted):
    """Average precision where tied genes enter together: precision is read at the end of every block of ties."""
    key, positive, counted = _sorted(log_q, positive, counted)
    _, found = around_ties(key, positive)
    _, seen = around_ties(key, counted)
    return jnp.sum(positive * found / jnp.maximum(seen, 1), axis=1) / jnp.maximum(jnp.sum(positive, axis=1), 1)


def _pairs_before(log_q, positive, counted):
    """In how many pairs of a positive and another gene the other comes first, a tie one half."""
    key, positive, counted = _sorted(log_q, positive, counted)
    before, up_to = around_ties(key, counted - positive)
    return jnp.sum(positive * 0.5 * (before + up_to), axis=1)


def _sorted(log_q, positive, counted):
    return lax.sort((jnp.where(counted > 0, log_q, jnp.inf), positive, counted), dimension=1, num_keys=1)
