"""How predicted fold changes agree with the measured ones, over the genes that are significant in the measurement."""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .._relax import HARD, Relaxation
from .._stats import absolute, pearson, safe_divide
from .._types import GeneMask
from ..de import DETable
from ._de_order import exact_ranks
from ._de_pair import exact_or_smooth, Pair, pair_tables, Targets


Sign = Literal["any", "up", "down"]
Unknown = Literal["undefined", "largest"]


def fold_change_spearman(
    pred: DETable,
    real: DETable,
    *,
    sign: Sign = "any",
    unknown: Unknown = "undefined",
    alpha: float = 0.05,
    relax: Relaxation = HARD,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Spearman correlation of the log fold changes, over the genes that are significant in the measured table.

    **Arguments:**

    - `pred`, `real`: tables of one shape (perts, genes). A gene that the predicted table lacks has fold change 0.
    - `sign`: all those genes, or those that go up, or down, in the measured table.
    - `unknown`: a predicted fold change of NaN makes the value `"undefined"`, or ranks as the `"largest"` (as in the
        sources).
    - `alpha`: a gene is significant where its adjusted p-value is strictly smaller.
    - `relax`: gives the predicted fold changes soft ranks.
    - `where`: genes that count, (genes,) or (perts, genes).

    **Returns:** one value in [-1, 1] a perturbation; NaN where there is no such gene, only one, or all are tied on
    either side, and where a fold change is NaN (see `unknown`).

    **Raises:** `ValueError` for tables of unequal shape and an unknown `sign`.

    Source: cell-eval 0.8.2 (`de_spearman_lfc_sig`), cell-eval2 0.20.0 (`lfc_spearman`, `_pos`, `_neg`).
    """
    pair = pair_tables(pred, real, relax=HARD, alpha=alpha, where=where)
    genes = changed_genes(pair, sign)
    significant, guess = pair.truth > 0, pair.pred.log2_fold_change
    # Order and ties are all that ranks need, and a smooth one needs them finite.
    guess_in_order = in_order(guess, significant)
    pred_ranks = exact_or_smooth(
        relax,
        lambda: exact_ranks(guess_in_order, genes, significant),
        lambda: relax.rank(guess_in_order, genes),
    )
    if unknown == "undefined":
        pred_ranks = jnp.where(jnp.any(jnp.isnan(guess) & genes, axis=1, keepdims=True), jnp.nan, pred_ranks)
    real_ranks = exact_ranks(pair.real.log2_fold_change, genes, significant)
    return pearson(pred_ranks, real_ranks, genes.astype(pred_ranks.dtype))


def in_order(x: Float[Array, "perts genes"], genes: Bool[Array, "perts genes"]) -> Float[Array, "perts genes"]:
    """Finite numbers in the order of `x` over `genes`: an infinite one is beyond the others, a NaN on top."""
    known = jnp.isfinite(x) & genes
    beyond = 1 + lax.stop_gradient(jnp.max(jnp.where(known, jnp.abs(x), 0), axis=1, keepdims=True))
    infinite = jnp.where(x == jnp.inf, beyond, jnp.where(x == -jnp.inf, -beyond, 0))
    return jnp.where(known, x, jnp.where(genes, jnp.where(jnp.isnan(x), beyond + 1, infinite), 0))


def changed_genes(pair: Pair, sign: Sign) -> Bool[Array, "perts genes"]:
    """The genes that are significant in the measured table, and go that way there."""
    if sign not in ("any", "up", "down"):
        raise ValueError(f'`sign` is "any", "up" or "down", got {sign!r}.')
    change = pair.real.log2_fold_change
    return (pair.truth > 0) & {"any": True, "up": change > 0, "down": change < 0}[sign]


def fold_change_error(
    pred: DETable,
    real: DETable,
    *,
    min_genes: int = 10,
    alpha: float = 0.05,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""$\sum_{g \in S'} |\hat f_g - f_g| / \sum_{g \in S'} |f_g|$: absolute error of log fold changes, normalised.

    S' are the genes that are significant in the measured table with a finite fold change, less the own target. A
    predicted fold change that is absent or not finite counts as 0, so 1 is what no effect gets.

    Arguments and errors as for `fold_change_spearman`; `targets` is the index of each perturbation's own gene, -1 where
    it has none. Not negative; NaN where S' has fewer than `min_genes` genes or no change at all.

    Source: cell-eval2 0.20.0 (`lfc_nmae`).
    """
    pair = pair_tables(pred, real, relax=HARD, alpha=alpha, where=where, without=targets)
    genes = measurable_genes(pair)
    finite = jnp.isfinite(pair.pred.log2_fold_change)
    guess = jnp.where(finite, pair.pred.log2_fold_change, 0)
    truth = jnp.where(genes, pair.real.log2_fold_change, 0)
    error = jnp.sum(jnp.where(genes, absolute(guess - truth), 0), axis=1)
    value = safe_divide(error, jnp.sum(jnp.abs(truth), axis=1))
    return jnp.where(jnp.sum(genes, axis=1) >= min_genes, value, jnp.nan)


def measurable_genes(pair: Pair) -> Bool[Array, "perts genes"]:
    """The genes that are significant in the measured table with a finite fold change."""
    return (pair.truth > 0) & jnp.isfinite(pair.real.log2_fold_change)
