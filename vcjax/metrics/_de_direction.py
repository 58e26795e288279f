"""Whether genes are predicted to go the right way."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._relax import HARD, Relaxation
from .._stats import safe_divide
from .._types import GeneMask
from ..de import DETable
from ._de_pair import exact_or_smooth, nothing, Pair, pair_tables, share, Targets


_LEAST_ROOM = 0.05  # what is left above the majority sign never counts as less than this


def direction_match(
    pred: DETable, real: DETable, *, alpha: float = 0.05, relax: Relaxation = HARD, where: GeneMask = None
) -> Float[Array, " perts"]:
    r"""The share of the genes significant in the measured table whose predicted fold change has the measured sign.

    Over the genes that both tables hold; two fold changes of 0, or two undefined ones, agree.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes).
    - `alpha`: a gene is significant where its adjusted p-value is strictly smaller.
    - `relax`: a sign agrees by $F(\mathrm{sign}(f)\,\hat f / T)$; a predicted fold change of 0, which is wrong when
        exact, then counts one half.
    - `where`: genes that count, (genes,) or (perts, genes).

    **Returns:** one value in [0, 1] a perturbation; NaN where no gene is significant in the measured table.

    **Raises:** `ValueError` for tables of unequal shape.

    Source: cell-eval 0.8.2 (`de_direction_match`), cell-eval2 0.20.0 (`direction_match`).
    """
    pair = pair_tables(pred, real, relax=HARD, alpha=alpha, where=where)
    genes = pair.truth * pair.pred.tested.astype(pair.truth.dtype)
    return safe_divide(jnp.sum(genes * _same_sign(pair, relax), axis=1), jnp.sum(genes, axis=1))


def model_direction_match(
    pred: DETable, real: DETable, *, alpha: float = 0.05, relax: Relaxation = HARD, where: GeneMask = None
) -> Float[Array, " perts"]:
    r"""`direction_match` over the genes that the prediction calls significant: NaN where it calls none.

    With a relaxation a gene counts by its membership in the predicted set.

    Source: cell-eval2 0.20.0 (`model_direction_match`, 0 without a call).
    """
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    genes = pair.called * pair.real.tested.astype(pair.truth.dtype)
    return share(jnp.sum(genes * _same_sign(pair, relax), axis=1), jnp.sum(genes, axis=1))


def direction_precision(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$k/n$: the share of the predicted calls with a measured direction that go that way.

    n counts the genes called by the prediction whose measured fold change is neither 0 nor undefined; k those among
    them with the same sign, where a predicted 0 is a miss. `targets`, if given, are each perturbation's own genes, and
    left out (-1 for none). Arguments and errors as for `direction_match`; NaN where n = 0.

    Source: cell-eval2 0.20.0 (`direction_precision`; without the own genes, `direction_fidelity_raw`).
    """
    c = direction_counts(pred, real, alpha=alpha, relax=relax, targets=targets, where=where)
    return share(c.right, c.judged)


def direction_fidelity(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$(k/n - q)/d$: `direction_precision` above the share q of the measured majority sign; $d = \max(1-q, 0.05)$.

    A prediction that gives every gene the majority sign gets 0. Without a measured significant gene, 1 for a silent
    prediction and 0 for one that calls. Arguments and errors as for `direction_precision`; NaN where n = 0, or where no
    significant gene has a direction.

    Source: cell-eval2 0.20.0 (`direction_fidelity`).
    """
    c = direction_counts(pred, real, alpha=alpha, relax=relax, targets=targets, where=where)
    above = (share(c.right, c.judged) - c.majority) / c.room
    return jnp.where(c.found > 0, jnp.where(c.directed, above, jnp.nan), c.silent)


def direction_coverage(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$n/N$: predicted calls with a measured direction over the number N of measured significant genes.

    Above 1 for a prediction that calls more than there is. Arguments and errors as for `direction_precision`; NaN where
    N = 0.

    Source: cell-eval2 0.20.0 (`direction_coverage`).
    """
    c = direction_counts(pred, real, alpha=alpha, relax=relax, targets=targets, where=where)
    return safe_divide(c.judged, c.found)


def direction_yield(
    pred: DETable,
    real: DETable,
    *,
    above_majority: bool = True,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$(k - qn)/(Nd)$, or plainly $k/N$: calls that go the right way over the number N of measured significant genes.

    Without `above_majority` the majority sign is not subtracted. Arguments and errors as for `direction_precision`; NaN
    where N = 0, and where a majority is asked for and no significant gene has a direction.

    Source: cell-eval2 0.20.0 (`direction_yield`, `direction_yield_raw`).
    """
    c = direction_counts(pred, real, alpha=alpha, relax=relax, targets=targets, where=where)
    if not above_majority:
        return safe_divide(c.right, c.found)
    above = safe_divide((c.right - c.majority * c.judged) / c.room, c.found)
    return jnp.where(c.directed, above, jnp.nan)


def direction_fidelity_yield(
    pred: DETable,
    real: DETable,
    *,
    above_majority: bool = True,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$\min(1, n/N)\,(k/n - q)/d$, or plainly $k/\max(n, N)$: fidelity that calling too little, too, brings down.

    Arguments and errors as for `direction_precision`. Above the majority, without a measured significant gene: 1 for a
    silent prediction, 0 for one that calls; NaN where no significant gene has a direction. Plainly: NaN only where
    neither side has a gene.

    Source: cell-eval2 0.20.0 (`direction_fidelity_yield`, `direction_fidelity_yield_raw`).
    """
    c = direction_counts(pred, real, alpha=alpha, relax=relax, targets=targets, where=where)
    most = jnp.maximum(c.judged, c.found)
    if not above_majority:
        return share(c.right, most)
    # min(1, n/N)(k/n - q) = (k - qn)/max(n, N), which is 0 without a call.
    above = share((c.right - c.majority * c.judged) / c.room, most)
    return jnp.where(c.found > 0, jnp.where(c.directed, above, jnp.nan), c.silent)


class DirectionCounts(NamedTuple):
    """The numbers that the direction metrics are ratios of, one a perturbation.

    - `found`: N, measured significant genes; `judged`: n, predicted calls with a measured direction; `right`: k, those
        with the same sign.
    - `directed`: whether a measured significant gene has a direction; `majority`: q, the larger share of one sign among
        those that have (0 without one); `room`: max(1 - q, 0.05).
    - `silent`: 1 if nothing is judged, 0 if a gene wholly is.
    """

    found: Float[Array, " perts"]
    judged: Float[Array, " perts"]
    right: Float[Array, " perts"]
    directed: Bool[Array, " perts"]
    majority: Float[Array, " perts"]
    room: Float[Array, " perts"]
    silent: Float[Array, " perts"]


def direction_counts(pred, real, *, alpha, relax, targets, where) -> DirectionCounts:
    """`DirectionCounts` of two tables, without the own genes `targets`."""
    return counts_of(pair_tables(pred, real, relax=relax, alpha=alpha, where=where, without=targets), relax)


def counts_of(pair: Pair, relax: Relaxation) -> DirectionCounts:
    """`DirectionCounts` of a pair of tables."""
    judged = jnp.where(has_direction(pair), pair.called, 0)
    pointed = jnp.where(has_direction(pair), pair.truth, 0)
    up = jnp.sum(jnp.where(pair.real.log2_fold_change > 0, pointed, 0), axis=1)
    total = jnp.sum(pointed, axis=1)
    majority = safe_divide(jnp.maximum(up, total - up), total, 0.0)
    return DirectionCounts(
        found=jnp.sum(pair.truth, axis=1),
        judged=jnp.sum(judged, axis=1),
        right=jnp.sum(judged * right_sign(pair, relax), axis=1),
        directed=total > 0,
        majority=majority,
        room=jnp.maximum(1 - majority, _LEAST_ROOM),
        silent=nothing(judged),
    )


def has_direction(pair: Pair) -> Bool[Array, "perts genes"]:
    """Whether the measured fold change says which way a gene goes; an infinite one does."""
    change = pair.real.log2_fold_change
    return pair.kept & pair.real.tested & ~jnp.isnan(change) & (change != 0)


def right_sign(pair: Pair, relax: Relaxation) -> Float[Array, "perts genes"]:
    """Whether a gene with a measured direction is predicted to go that way; a predicted 0 is a miss when exact."""
    guess, truth = pair.pred.log2_fold_change, jnp.sign(pair.real.log2_fold_change)
    judged = has_direction(pair) & pair.pred.tested & ~jnp.isnan(guess)
    exact = lambda: (judged & (jnp.sign(guess) == truth)).astype(guess.dtype)

    def smooth():
        along = jnp.where(judged, truth, 0) * jnp.where(judged, guess, 0)
        return jnp.where(judged, relax.step(along, relax.temperature(along, judged)), 0)

    return exact_or_smooth(relax, exact, smooth)


def _same_sign(pair: Pair, relax: Relaxation) -> Float[Array, "perts genes"]:
    """`right_sign`, and where the measured fold change is 0 or undefined whether the predicted one is, too."""
    guess, truth = pair.pred.log2_fold_change, pair.real.log2_fold_change
    alike = ((guess == 0) & (truth == 0)) | (jnp.isnan(guess) & jnp.isnan(truth))
    return jnp.where(has_direction(pair), right_sign(pair, relax), alike.astype(guess.dtype))
