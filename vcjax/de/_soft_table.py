"""Differential expression of predicted cells as a differentiable table: what the losses of DE metrics read."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import as_float
from .._relax import HARD, Relaxation
from .._stats import absolute, safe_divide
from ._adjust import benjamini_hochberg, Scope
from ._fold_change import geometric_mean, log2_fold_change, Zeros
from ._soft_ranksum import soft_rank_sums
from ._sorted_control import SortedControl
from ._table import DETable
from ._tabulated_control import TabulatedControl


def de_table(
    cells: Float[ArrayLike, "perts cells genes"],
    control: SortedControl | TabulatedControl,
    where: Bool[ArrayLike, "perts cells"] | None = None,
    *,
    relax: Relaxation = HARD,
    tested: Bool[ArrayLike, " genes"] | None = None,
    means: Literal["arithmetic", "geometric"] = "arithmetic",
    pseudocount: float = 1e-9,
    zeros: Zeros = "pseudocount",
    scope: Scope = "perturbation",
    continuity: bool = True,
    chunk: int = 64,
) -> DETable:
    """The table of predicted cells against prepared control cells: fold changes, rank-sum test, adjusted p-values.

    At softness 0, against a `SortedControl`, it is the exact table. Above, the comparisons of the rank test have a
    temperature of `softness` in the unit of the values (0.1 is a tenth of a natural logarithm): an absolute one, since
    how far apart two expression values are does not depend on the model. A `TabulatedControl` has the temperature that
    it was made with, whatever the softness. The table is differentiable in `cells`; apply `zero_floor` to them first.

    **Arguments:**

    - `cells`: log1p of counts normalised like the control cells, padded to one number of cells (`group_cells`).
    - `where`: which cells are real; all by default.
    - `tested`: genes in the table (`expressed(control.mean)`, say); all by default.
    - `means`: fold changes of the mean of `expm1`, or of `expm1` of the mean; `pseudocount` and `zeros` as in
        `log2_fold_change`, `scope` as in `benjamini_hochberg`, `continuity` as in `SoftRankSums.z`.

    **Raises:** `ValueError` for softness 0 with a `TabulatedControl`, which is never exact, and for unknown options.
    """
    if means not in ("arithmetic", "geometric"):
        raise ValueError(f'`means` is "arithmetic" or "geometric", got {means!r}.')
    cells = as_float(cells, "cells")
    tabulated = isinstance(control, TabulatedControl)
    softness = relax.softness
    if tabulated and isinstance(softness, np.generic | np.ndarray) and float(softness) == 0:
        raise ValueError("A tabulated control is never exact: prepare the cells with `sort_control` for softness 0.")
    temperature = None if tabulated else softness
    kernel = control.kernel if tabulated else relax.rank_kernel
    sums = soft_rank_sums(cells, control, where, temperature=temperature, kernel=kernel, chunk=chunk)
    z = sums.z(continuity=continuity)
    log_pvalue = sums.log_pvalue(continuity=continuity)
    log_ratio = _fold_changes(cells, control, where, means, pseudocount, zeros)
    rows = jnp.ones(z.shape, bool) if tested is None else jnp.broadcast_to(jnp.asarray(tested)[None, :], z.shape)
    return DETable(log_ratio, log_pvalue, benjamini_hochberg(log_pvalue, rows, scope=scope), rows, absolute(z))


def _fold_changes(cells, control, where, means, pseudocount, zeros):
    where = jnp.ones(cells.shape[:2], bool) if where is None else jnp.asarray(where)
    values = jnp.where(where[:, :, None], cells, 0)
    values = values if means == "geometric" else jnp.expm1(values)
    count = jnp.sum(where, axis=1, dtype=jnp.int32).astype(cells.dtype)
    total = jnp.sum(values, axis=1)
    mean = safe_divide(total, jnp.broadcast_to(count[:, None], total.shape))
    if means == "arithmetic":
        return log2_fold_change(mean, control.mean, pseudocount=pseudocount, zeros=zeros)
    return log2_fold_change(
        geometric_mean(mean), geometric_mean(control.log_mean), pseudocount=pseudocount, zeros=zeros
    )


def group_cells(
    codes: Int[ArrayLike, " cells"], perts: int
) -> tuple[Int[Array, "perts most"], Bool[Array, "perts most"]]:
    """Where the cells of each perturbation are, padded: `cells[index]` is (perts, cells, genes), and a mask for it.

    On the host, before compiling: how many cells the largest perturbation has decides the shape.

    **Arguments:**

    - `codes`: 0, 1, … for the perturbation of a cell; a negative code leaves it out.

    **Raises:** `ValueError` for a code of `perts` or more.
    """
    codes = np.asarray(codes)
    if codes.size and codes.max() >= perts:
        raise ValueError(f"Codes lie below the number of perturbations, {perts}, got {codes.max()}.")
    members = [np.flatnonzero(codes == code) for code in range(perts)]
    index = np.zeros((perts, max((m.size for m in members), default=0)), np.int32)
    where = np.zeros(index.shape, bool)
    for row, member in enumerate(members):
        index[row, : member.size], where[row, : member.size] = member, True
    return jnp.asarray(index), jnp.asarray(where)
