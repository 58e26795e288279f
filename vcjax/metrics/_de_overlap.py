"""How two lists of significant genes, ranked by the size of the fold change, agree at their tops."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._relax import HARD, Relaxation
from .._topk import hard_topk_mask
from .._types import GeneMask
from ..de import DETable
from ._de_pair import exact_or_smooth, Pair, pair_tables, share
from ._de_sets import matthews_of


Ties = Literal["share", "position"]


def top_overlap(
    pred: DETable,
    real: DETable,
    *,
    k: int | None = None,
    ties: Ties = "share",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$|R_{k'} \cap \hat R_{k'}| / k'$ with $k' = \min(k, |S|)$: the tops of the lists of significant genes.

    Each list holds the side's own significant genes, by decreasing |log fold change|; an infinite one comes first, an
    undefined one last.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes).
    - `k`: length of the tops; `None` for as many as the measured side has.
    - `ties`: genes tied at the boundary `"share"` what is left of the top, or are taken in their order (`"position"`,
        as the source has it). A relaxation shares.
    - `alpha`: a gene is significant where its adjusted p-value is strictly smaller.
    - `relax`: with it the predicted top is made of soft memberships and sums to k' exactly.
    - `where`: genes that count, (genes,) or (perts, genes).

    **Returns:** one value in [0, 1] a perturbation; 0 where the measured set is empty.

    **Raises:** `ValueError` for tables of unequal shape, a k below 1 and unknown `ties`.

    Source: cell-eval 0.8.2 (`overlap_at_*`), cell-eval2 0.20.0 (`overlap*`).
    """
    _check(k, ties)
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    return _agreement(pair, _limited(jnp.sum(pair.truth, axis=1), k), ties, relax)


def top_precision(
    pred: DETable,
    real: DETable,
    *,
    k: int | None = None,
    ties: Ties = "share",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$|R_{k'} \cap \hat R_{k'}| / k'$ with $k' = \min(k, |\hat S|)$: `top_overlap`, as long as the predicted list.

    Not the precision of the set: the measured list is cut at k', too. Arguments, values and errors as for
    `top_overlap`; 0 where the prediction calls nothing.

    Source: cell-eval 0.8.2 (`precision_at_*`), cell-eval2 0.20.0 (`precision*`).
    """
    _check(k, ties)
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    return _agreement(pair, _limited(jnp.sum(pair.called, axis=1), k), ties, relax)


def top_matthews(
    pred: DETable,
    real: DETable,
    *,
    ties: Ties = "share",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
    undefined: float = jnp.nan,
) -> Float[Array, " perts"]:
    r"""`top_overlap` corrected for chance: Matthews' correlation of $S$ with the $|S|$ first predicted genes.

    Arguments and errors as for `top_overlap`. In [-1, 1]; `undefined` (NaN) where a set holds none or all of the genes.

    Source: cell-eval2 0.20.0 (`overlap_adjusted`, which has -1 for `undefined`).
    """
    _check(None, ties)
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    size = jnp.sum(pair.truth, axis=1)
    top = _top(pair.pred, pair.called, size, ties, relax)
    both = jnp.sum(top * pair.truth, axis=1)
    return matthews_of(both, size, jnp.sum(top, axis=1), pair.universe, undefined=undefined)


def _check(k: int | None, ties: Ties) -> None:
    if k is not None and k < 1:
        raise ValueError(f"`k` is at least 1, got {k}.")
    if ties not in ("share", "position"):
        raise ValueError(f'`ties` is "share" or "position", got {ties!r}.')


def _limited(size: Float[Array, " perts"], k: int | None) -> Float[Array, " perts"]:
    return size if k is None else jnp.minimum(size, k)


def _agreement(pair: Pair, size: Float[Array, " perts"], ties: Ties, relax: Relaxation) -> Float[Array, " perts"]:
    real_top = _top(pair.real, pair.truth, size, ties, HARD)
    return share(jnp.sum(real_top * _top(pair.pred, pair.called, size, ties, relax), axis=1), size, 0.0)


def _top(
    table: DETable, member: Float[Array, "perts genes"], k: Float[Array, " perts"], ties: Ties, relax: Relaxation
) -> Float[Array, "perts genes"]:
    """The k largest members by fold change, with mass min(k, number of members)."""
    size = fold_change_size(table)

    def exact():
        if ties == "position":
            return member * _first(jnp.where(member > 0, -size, jnp.inf), k)
        return jax.vmap(hard_topk_mask)(lax.stop_gradient(size), jnp.minimum(k, jnp.sum(member, axis=1)), member)

    return exact_or_smooth(relax, exact, lambda: jax.vmap(relax.topk_mask)(size, k, member))


def fold_change_size(table: DETable) -> Float[Array, "perts genes"]:
    """|log fold change| as finite numbers in the same order: an infinite one is above, an undefined one below all."""
    change = table.log2_fold_change
    finite = jnp.isfinite(change)
    size = jnp.abs(jnp.where(finite, change, 0))
    beyond = 1 + lax.stop_gradient(jnp.max(size, axis=1, keepdims=True))
    return jnp.where(finite, size, jnp.where(jnp.isnan(change), -1, beyond))


def _first(key: Float[Array, "perts genes"], k: Float[Array, " perts"]) -> Float[Array, "perts genes"]:
    """The k items with the smallest keys, ties in the order of the genes; of the last one what is left of k."""
    key = lax.stop_gradient(key)
    order = jnp.argsort(key, axis=1, stable=True)
    places = jnp.clip(jnp.floor(lax.stop_gradient(k)).astype(order.dtype), 0, key.shape[1] - 1)
    next_gene = jnp.take_along_axis(order, places[:, None], axis=1)
    next_key = jnp.take_along_axis(key, next_gene, axis=1)
    gene = jnp.arange(key.shape[1], dtype=order.dtype)[None, :]
    before = (key < next_key) | ((key == next_key) & (gene < next_gene))
    left = jnp.clip(k - places.astype(k.dtype), 0, 1)
    return jnp.where(before, 1, jnp.where(gene == next_gene, left[:, None], 0))
