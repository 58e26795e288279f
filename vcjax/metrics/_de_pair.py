"""Two tables of differential expression side by side: what every metric of this family starts from."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._relax import Relaxation
from .._types import GeneMask
from ..de import DETable, significant


Targets = Int[ArrayLike, " perts"] | None


class Pair(eqx.Module):
    """Both tables with clean entries, and who is significant.

    **Fields:**

    - `pred`, `real`: the tables; what is not tested has fold change 0 and p-value 1. The measured one is a constant of
        the differentiation.
    - `called`: membership in the predicted significant set, in [0, 1].
    - `truth`: membership in the measured one, 0 or 1.
    - `kept`: the genes that count, 0 for the own target where a metric leaves it out.
    """

    pred: DETable
    real: DETable
    called: Float[Array, "perts genes"]
    truth: Float[Array, "perts genes"]
    kept: Bool[Array, "perts genes"]

    @property
    def universe(self) -> Float[Array, " perts"]:
        """How many genes either table holds."""
        return jnp.sum(self.kept & (self.pred.tested | self.real.tested), axis=1).astype(self.called.dtype)


def pair_tables(
    pred: DETable,
    real: DETable,
    *,
    relax: Relaxation,
    alpha: float = 0.05,
    where: GeneMask = None,
    without: Targets = None,
) -> Pair:
    """The two tables, their significant sets, and those sets without the genes `without` (one a perturbation).

    The own target is dropped after the adjustment of p-values, in which it took part.

    **Raises:** `ValueError` for tables of unequal shape, masks that do not broadcast and an `alpha` outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` lies between 0 and 1, got {alpha}.")
    shape = real.log_padj.shape
    if pred.log_padj.shape != shape:
        raise ValueError(f"Both tables must have one shape (perts, genes), got {pred.log_padj.shape} and {shape}.")
    dtype = np.promote_types(pred.log_padj.dtype, real.log_padj.dtype)
    pred, real = _clean(pred, where, dtype), lax.stop_gradient(_clean(real, where, dtype))
    called = _exactly(pred, alpha) if is_exact(relax) else significant(pred, alpha=alpha, relax=relax)
    truth = _exactly(real, alpha)
    kept = jnp.ones(shape, bool)
    if without is not None:
        kept = jnp.arange(shape[1], dtype=jnp.int32)[None, :] != jnp.asarray(without).astype(jnp.int32)[:, None]
    return Pair(pred, real, jnp.where(kept, called, 0), jnp.where(kept, truth, 0), kept)


def _clean(table: DETable, where: GeneMask, dtype: np.dtype) -> DETable:
    tested = table.tested
    if where is not None:
        mask = jnp.asarray(where)
        if mask.shape not in (tested.shape, tested.shape[1:]):
            raise ValueError(f"`where` must have shape {tested.shape[1:]} or {tested.shape}, got {mask.shape}.")
        tested = tested & (mask if mask.ndim == 2 else mask[None, :])
    entries = {
        name: None if value is None else jnp.where(tested, value.astype(dtype), 0)
        for name in ("log2_fold_change", "log_pvalue", "log_padj", "z")
        for value in [getattr(table, name)]
    }
    return dataclasses.replace(table, tested=tested, **entries)


def _exactly(table: DETable, alpha: float) -> Float[Array, "perts genes"]:
    return (table.tested & (table.log_padj < math.log(alpha))).astype(table.log_padj.dtype)


def is_exact(relax: Relaxation) -> bool:
    """Whether the softness is known to be 0 while tracing, so that the smooth form need not be traced at all."""
    return isinstance(relax.softness, np.generic | np.ndarray | float | int) and float(relax.softness) == 0


def exact_or_smooth(
    relax: Relaxation, exact: Callable[[], Float[Array, "*shape"]], smooth: Callable[[], Float[Array, "*shape"]]
) -> Float[Array, "*shape"]:
    """One of two forms of a quantity; only the one that is asked for is computed.

    For the quantities whose published value is not the limit of their smooth form, at ties for instance, or whose
    smooth form is costly.
    """
    if is_exact(relax):
        return exact()
    return lax.cond(jnp.asarray(relax.softness) > 0, smooth, exact)


def share(part: Float[Array, "*shape"], whole: Float[Array, "*shape"], otherwise: float = jnp.nan):
    """part / whole, and `otherwise` (with zero gradients) where the whole is no more than rounding.

    A soft set that holds nothing sums to a tiny number, not to 0; its quotients would have gradients without bound.
    """
    something = whole > float(np.finfo(whole.dtype).eps)
    return jnp.where(something, part / jnp.where(something, whole, 1), otherwise)


def nothing(member: Float[Array, "perts genes"]) -> Float[Array, " perts"]:
    r"""$\prod_i (1 - m_i)$: 1 for an empty set, 0 as soon as one item is wholly a member, smooth between."""
    partial = member < 1
    logs = jnp.where(partial, jnp.log1p(-jnp.where(partial, member, 0)), -jnp.inf)
    return jnp.exp(jnp.sum(logs, axis=1))


def rounded(table: DETable) -> DETable:
    """A table as float32 holds it, p-values as p-values: a p-value below 7e-46 becomes 0, near ones become ties."""
    change, log_padj = table.log2_fold_change, table.log_padj
    single = jnp.log(jnp.exp(lax.stop_gradient(log_padj)).astype(jnp.float32).astype(log_padj.dtype))
    # The value of the rounded one and the gradient of the other, in a form that keeps log 0 apart from a difference.
    exact = jnp.where(jnp.isfinite(single), log_padj - lax.stop_gradient(log_padj), 0) + single
    return dataclasses.replace(table, log2_fold_change=change.astype(jnp.float32).astype(change.dtype), log_padj=exact)
