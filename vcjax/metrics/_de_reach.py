"""How far down a prediction's list of genes their directions can be trusted."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._ecdf import sorted_ecdf
from .._relax import HARD, Relaxation
from .._stats import safe_divide
from .._types import GeneMask
from ..de import DETable
from ._de_direction import counts_of, has_direction, right_sign
from ._de_pair import exact_or_smooth, Pair, pair_tables, Targets


Pool = Literal["significant", "shared"]

_EDGE = 1e-3
_DEPTHS = 0.1  # how many depths, of those there are, a softness of 1 averages over


def direction_sensitivity(
    pred: DETable,
    real: DETable,
    *,
    pool: Pool = "significant",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$k^*(1 - \alpha/2) / |S|$: how deep the predicted order of genes stays right in direction.

    Walking down the genes of the pool in the prediction's order and counting those with a measured direction, $k^*(P)$
    is the deepest depth at which at least the share P of them have been predicted to go the right way; 0 if there is
    none. The order: called genes first, then by adjusted p-value, p-value, decreasing |log fold change| and name.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes).
    - `pool`: the genes significant in the measured table, or all, as far as both tables hold them.
    - `alpha`: a gene is significant where its adjusted p-value is strictly smaller.
    - `relax`: the order becomes soft ranks of the p-values, the share of right signs a ratio of soft counts, and the
        deepest depth a soft maximum of the depths, each weighted by how far it reaches P.
    - `where`: genes that count, (genes,) or (perts, genes).

    **Returns:** one value a perturbation, in [0, 1] for the pool of significant genes and not negative for the other;
    NaN where no gene is significant in the measured table.

    **Raises:** `ValueError` for tables of unequal shape and an unknown pool.

    Source: cell-eval2 0.20.0 (`direction_sensitivity`, `direction_sensitivity_universe`).
    """
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where)
    size = jnp.sum(pair.truth, axis=1)
    purity = jnp.full_like(size, 1 - alpha / 2)
    return safe_divide(deepest(pair, purity, pool, relax), size)


def direction_reach(
    pred: DETable,
    real: DETable,
    *,
    purity: float | None = None,
    pool: Pool = "significant",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$k^*(P)/N$: as `direction_sensitivity`, without the own targets.

    A prediction that calls nothing still orders the genes, by its p-values, and is scored on that.

    **Arguments:**

    - `purity`: P, the share of right directions that is asked for; `None` asks for $q + (1-\alpha)(1-q)$, where q is
        the share of the majority sign among the measured significant genes.
    - `targets`: index of each perturbation's own gene, -1 where it has none; left out of everything.

    Other arguments and errors as for `direction_sensitivity`; NaN where no gene is significant in the measured table,
    and where `purity` is `None` and none of them has a direction.

    Source: cell-eval2 0.20.0 (`direction_reach_raw`, with 0.9; `direction_reach`; their `_unbounded` forms have the
    shared pool).
    """
    pair = pair_tables(pred, real, relax=relax, alpha=alpha, where=where, without=targets)
    c = counts_of(pair, relax)
    asked = c.majority + (1 - alpha) * (1 - c.majority) if purity is None else jnp.full_like(c.found, purity)
    reached = safe_divide(deepest(pair, asked, pool, relax), c.found)
    return reached if purity is not None else jnp.where(c.directed, reached, jnp.nan)


def deepest(pair: Pair, purity: Float[Array, " perts"], pool: Pool, relax: Relaxation) -> Float[Array, " perts"]:
    """The deepest depth at which the share of right directions is at least `purity`, 0 if there is none."""
    if pool not in ("significant", "shared"):
        raise ValueError(f'`pool` is "significant" or "shared", got {pool!r}.')
    counted = has_direction(pair) & pair.pred.tested
    if pool == "significant":
        counted = counted & (pair.truth > 0)
    right = jnp.where(counted, right_sign(pair, relax), 0)
    return exact_or_smooth(
        relax,
        lambda: _deepest_exact(pair, counted, right, purity),
        lambda: _deepest_smooth(pair, counted, right, purity, relax),
    )


def _deepest_exact(pair, counted, right, purity):
    order = _predicted_order(lax.stop_gradient(pair.pred))
    take = lambda x: jnp.take_along_axis(x.astype(purity.dtype), order, axis=1)
    depth, found = jnp.cumsum(take(counted), axis=1), jnp.cumsum(take(right), axis=1)
    pure = found / jnp.maximum(depth, 1) >= purity[:, None]
    return jnp.max(jnp.where(pure & (depth > 0), depth, 0), axis=1)


def _predicted_order(table: DETable) -> Int[Array, "perts genes"]:
    """By adjusted p-value, p-value, decreasing size and name; what is undefined comes last."""
    shape = table.log_padj.shape
    genes = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32)[None, :], shape)
    names = genes if table.name_order is None else jnp.broadcast_to(table.name_order[None, :], shape)
    # The called genes are those with the smallest adjusted p-values, so they come first by themselves.
    keys = (table.log_padj, table.log_pvalue, -jnp.abs(table.log2_fold_change), names.astype(jnp.int32))
    return lax.sort((*keys, genes), dimension=1, num_keys=4)[-1]


def _deepest_smooth(pair, counted: Bool[Array, "perts genes"], right, purity, relax: Relaxation):
    log_p = jnp.where(jnp.isnan(pair.pred.log_pvalue), 0, pair.pred.log_pvalue)
    amount = counted.astype(log_p.dtype)
    temperature = relax._axis_temperature(log_p, counted)
    up_to = lambda weights: sorted_ecdf(relax.rank_kernel, log_p, weights, temperature) + 0.5 * weights
    depth, found = up_to(amount), up_to(right)
    available = jnp.sum(amount, axis=1, keepdims=True)
    # Asking for a little less lets the same shares of whole numbers pass, and keeps those that meet the purity exactly
    # (all right, nine of ten) off the edge, where they would count one half.
    asked = jnp.minimum(purity[:, None], 1 - 0.5 / jnp.maximum(available, 1)) - _EDGE / jnp.maximum(available, 1)
    above = jnp.where(counted, found / jnp.where(counted, depth, 1) - asked, 0)
    reached = jnp.where(counted, depth * relax.step(above, relax.temperature(above, counted)), 0)
    width = _DEPTHS * jnp.asarray(relax.softness).astype(depth.dtype) * jnp.maximum(available, 1)
    # Only where `vmap` runs both forms is the width 0 here.
    logits = jnp.where(counted, reached / jnp.where(width > 0, width, 1), -float(np.finfo(depth.dtype).max))
    return jnp.sum(jax.nn.softmax(logits, axis=1) * reached, axis=1)
