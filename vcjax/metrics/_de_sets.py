"""How two sets of significant genes agree: recall, Jaccard and the forms that correct for chance."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._relax import HARD, Relaxation
from .._stats import pearson, safe_divide, safe_sqrt
from .._types import GeneMask
from ..de import DETable
from ._de_order import exact_ranks
from ._de_pair import exact_or_smooth, nothing, Pair, pair_tables, share, Targets


def significant_count(
    table: DETable, *, alpha: float = 0.05, relax: Relaxation = HARD, where: GeneMask = None
) -> Float[Array, " perts"]:
    """How many genes are significant; with a relaxation, the sum of their memberships."""
    return jnp.sum(pair_tables(table, table, relax=relax, alpha=alpha, where=where).called, axis=1)


def significant_recall(
    pred: DETable, real: DETable, *, alpha: float = 0.05, relax: Relaxation = HARD, where: GeneMask = None
) -> Float[Array, " perts"]:
    r"""$|S \cap \hat S| / |S|$, of the significant sets.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes).
    - `alpha`: a gene is significant where its adjusted p-value is strictly smaller.
    - `relax`: makes the predicted set, and with it every metric of this file, smooth; the measured set is exact.
    - `where`: genes that count, (genes,) or (perts, genes).

    **Returns:** one value in [0, 1] a perturbation; NaN where the measured set is empty.

    **Raises:** `ValueError` for tables of unequal shape.

    Source: cell-eval 0.8.2 (`de_sig_genes_recall`), cell-eval2 0.20.0 (`sig_recall`).
    """
    both, real_size, _, _ = _counts(pair_tables(pred, real, relax=relax, alpha=alpha, where=where))
    return safe_divide(both, real_size)


def significant_jaccard(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$|S \cap \hat S| / |S \cup \hat S|$ of the significant sets, the own target taken out of both.

    With memberships $\hat m$ and a measured set of zeros and ones, the ratio of sums $\sum m \hat m / (\sum m + \sum
    \hat m - \sum m \hat m)$ is also $\sum\min/\sum\max$. Two empty sets agree: where the measured set is empty the
    value is $\prod_i (1 - \hat m_i)$, that is 1 for a silent prediction and 0 for one that calls anything.

    Arguments and errors as for `significant_recall`; `targets` is the index of each perturbation's own gene, -1
    where it has none. In [0, 1], always defined.

    Source: cell-eval2 0.20.0 (`sig_jaccard`).
    """
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where, without=targets)
    both, real_size, pred_size, _ = _counts(pair)
    return jnp.where(real_size > 0, safe_divide(both, real_size + pred_size - both), nothing(pair.called))


def significant_informedness(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
    undefined: float = jnp.nan,
) -> Float[Array, " perts"]:
    r"""$|S \cap \hat S|/|S| - |\hat S \setminus S|/(U - |S|)$: recall less the share of false calls.

    U is the number of genes in either table. Arguments and errors as for `significant_recall`. In [-1, 1], 0 by chance;
    `undefined` (NaN) where none or all of the genes are significant in the measured table.

    Source: cell-eval2 0.20.0 (`sig_recall_adjusted`, which has -1 for `undefined`).
    """
    both, real_size, pred_size, universe = _counts(pair_tables(pred, real, relax=relax, alpha=alpha, where=where))
    defined = (real_size > 0) & (real_size < universe)
    value = safe_divide(both, real_size) - safe_divide(pred_size - both, universe - real_size)
    return jnp.where(defined, value, undefined)


def significant_markedness(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
    undefined: float = jnp.nan,
) -> Float[Array, " perts"]:
    r"""$|S \cap \hat S|/|\hat S| - |S \setminus \hat S|/(U - |\hat S|)$: precision less the share of missed genes.

    Arguments and errors as for `significant_recall`. In [-1, 1], 0 by chance; `undefined` (NaN) where the
    prediction calls none or all of the U genes in either table.

    Source: cell-eval2 0.20.0 (`precision_adjusted`, which has -1 for `undefined`).
    """
    both, real_size, pred_size, universe = _counts(pair_tables(pred, real, relax=relax, alpha=alpha, where=where))
    value = share(both, pred_size) - share(real_size - both, universe - pred_size)
    return jnp.where(jnp.isnan(value), undefined, value)


def significant_matthews(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
    undefined: float = jnp.nan,
) -> Float[Array, " perts"]:
    r"""Matthews' correlation of the significant sets, $(tU - ab)/\sqrt{ab(U-a)(U-b)}$ with $t = |S \cap \hat S|$.

    $a = |S|$, $b = |\hat S|$, U the number of genes in either table. Arguments and errors as for
    `significant_recall`. In [-1, 1], 0 by chance; `undefined` (NaN) where either set holds none or all of the genes.

    Source: cell-eval2 0.20.0 (`sig_mcc`, which has -1 for `undefined`).
    """
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    return matthews_of(*_counts(pair), undefined=undefined)


def significant_count_spearman(
    pred: DETable,
    real: DETable,
    *,
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
    valid=None,
    nobody: float = jnp.nan,
) -> Float[Array, ""]:
    """Spearman correlation, over perturbations, of the numbers of significant genes: one number for the panel.

    Perturbations without a measured significant gene, and those outside `valid`, take no part. Arguments and errors as
    for `significant_recall`. `nobody` (NaN) if that leaves none; NaN if it leaves one, or equal counts on either side.

    Source: cell-eval 0.8.2 (`de_spearman_sig`), cell-eval2 0.20.0 (`nsig_spearman`); both have 1 for `nobody`.
    """
    _, real_size, pred_size, _ = _counts(pair_tables(pred, real, relax=relax, alpha=alpha, where=where))
    part = real_size > 0 if valid is None else (real_size > 0) & jnp.asarray(valid)
    exactly = lambda size: exact_ranks(size[None, :], part[None, :], part[None, :])[0]
    smooth = lambda: relax.rank(jnp.where(part, pred_size, 0), part)
    pred_ranks = exact_or_smooth(relax, lambda: exactly(pred_size), smooth)
    value = pearson(pred_ranks, exactly(real_size), part.astype(pred_ranks.dtype))
    return jnp.where(jnp.any(part), value, nobody)


def matthews_of(both, real_size, pred_size, universe, *, undefined: float) -> Float[Array, " perts"]:
    """Matthews' correlation from the sizes of both sets, of their intersection and of the universe."""
    neither = universe - real_size - pred_size + both
    margins = (real_size, pred_size, universe - real_size, universe - pred_size)
    eps = float(np.finfo(both.dtype).eps)
    defined = jnp.all(jnp.stack(margins) > eps, axis=0)
    # Each product shares the four roots, as the product of four sizes of 18,000 genes overflows in float32.
    root = [safe_sqrt(jnp.where(defined, margin, 1)) for margin in margins]
    product = lambda x, y: (x / root[0] / root[1]) * (y / root[2] / root[3])
    value = product(both, neither) - product(real_size - both, pred_size - both)
    return jnp.where(defined, value, undefined)


def _counts(pair: Pair):
    """Sizes of the intersection, of the measured set, of the predicted set and of the universe."""
    total = lambda x: jnp.sum(x, axis=1)
    return total(pair.truth * pair.called), total(pair.truth), total(pair.called), pair.universe
