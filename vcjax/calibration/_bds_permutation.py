"""Whether a replicate beats control cells by more than a random division of the same cells does."""

import functools as ft
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float_matrix
from .._profiles import Profiles
from .._stats import safe_divide
from .._types import GeneMask, GeneWeights
from ..de import benjamini_hochberg
from ..metrics import Metric
from ._bds import BoundTest


_PARTS = 3  # of a pool: two halves of the perturbed cells, and as many control cells as in one half
_LEAST_CELLS = 4


class _Pools(NamedTuple):
    """Cells pool by pool, the pool and the part of each, and what does not change with the division."""

    cells: Float[Array, "pooled genes"]
    pool: Int[Array, " pooled"]
    part: Int[Array, " pooled"]
    control: Float[Array, " genes"]
    targets: Int[Array, " perts"] | None
    valid: Bool[Array, " perts"]


def bound_discrimination_test(
    metric: Metric,
    cells: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    control: Real[ArrayLike, "controls genes"],
    *,
    key: Array,
    permutations: int = 999,
    weights: GeneWeights = None,
    where: GeneMask = None,
    targets: Int[ArrayLike, " perts"] | None = None,
) -> BoundTest:
    r"""For each perturbation, whether the metric tells a replicate from control cells, by permutation.

    With halves $B_1, B_2$ of its cells and a sample C of control cells as large, the gap is

    $$\Delta = \tfrac12 [m(C, B_1) + m(C, B_2)] - \tfrac12 [m(B_2, B_1) + m(B_1, B_2)]$$

    (prediction first; turned round for a score). Then the cells of $B_1, B_2, C$ are pooled and divided anew, in all
    perturbations at once, and $p = (\#\{\Delta^* \ge \Delta\} + 1)/(N + 1)$. Effects are measured from control cells
    that are in no pool. A metric that compares perturbations (discrimination) tests that no perturbation differs from
    the control; p is exact then, and for the others perturbation by perturbation.

    **Arguments:**

    - `cells`: normalised cells of the perturbations; `groups`: the perturbation of each, from 0 on, -1 to leave a cell
        out; `control`: control cells. Their numbers decide shapes, so this is not for `jit`.
    - `permutations`: N. `key`: of `jax.random`.
    - `weights`, `where`, `targets`: as for the metric and in `Profiles`.

    **Returns:** one test a perturbation; NaN for fewer than four cells, and where the metric is undefined.

    **Raises:** `ValueError` for a metric without a good direction, of the panel as a whole, or that needs more than
    profiles; for fewer than two control cells; for shapes that do not fit.

    Source: SBB (bound discrimination score), with both halves as truth in turn.
    """
    _check_metric(metric)
    first, last = jax.random.split(key)
    pools = _pool(as_float_matrix(cells, "cells"), groups, as_float_matrix(control, "control"), targets, first)
    weights, where = (None if x is None else jnp.asarray(x) for x in (weights, where))
    gap, above = _count_above(metric, pools, weights, where, jax.random.split(last, permutations))
    pvalue = jnp.where(jnp.isnan(gap), jnp.nan, (above + 1) / (permutations + 1))
    padj = jnp.exp(benjamini_hochberg(jnp.log(pvalue)[None, :])[0])
    return BoundTest(gap, pvalue, padj)


@eqx.filter_jit
def _count_above(metric, pools, weights, where, keys):
    gap_of = ft.partial(_gap, metric, weights=weights, where=where)
    gap = gap_of(pools)

    def above(key):
        # An undefined gap is none that the observed one exceeds.
        return (~(gap_of(_divided_anew(pools, key)) < gap)).astype(gap.dtype)

    return gap, lax.fori_loop(0, keys.shape[0], lambda i, total: total + above(keys[i]), jnp.zeros_like(gap))


def _gap(metric, pools, *, weights, where):
    slots = pools.pool * _PARTS + pools.part
    size = jax.ops.segment_sum(jnp.ones_like(pools.cells[:, 0]), slots, pools.valid.size * _PARTS)
    sums = jax.ops.segment_sum(pools.cells, slots, pools.valid.size * _PARTS)
    # A pool without cells takes no part; its place holds the control, which is finite.
    means = safe_divide(sums, jnp.broadcast_to(size[:, None], sums.shape))
    means = jnp.where(size[:, None] > 0, means, pools.control[None, :]).reshape(-1, _PARTS, sums.shape[1])
    one, two, control = (Profiles(means[:, i], pools.control, targets=pools.targets) for i in range(_PARTS))
    value = ft.partial(metric, weights=weights, where=where, valid=pools.valid)
    gap = 0.5 * (value(control, one) + value(control, two) - value(two, one) - value(one, two))
    return -gap if metric.higher_is_better else gap


def _divided_anew(pools, key):
    order = jnp.lexsort((jax.random.uniform(key, pools.pool.shape), pools.pool))
    return pools._replace(part=jnp.zeros_like(pools.part).at[order].set(pools.part))


def _pool(cells, groups, control, targets, key) -> _Pools:
    groups = np.asarray(groups)
    if groups.shape != cells.shape[:1] or control.shape[1] != cells.shape[1]:
        raise ValueError(
            f"`groups` needs one entry a cell and `control` the genes of `cells`, {cells.shape}, got {groups.shape} "
            f"and {control.shape}."
        )
    if len(control) < 2 or not np.any(groups >= 0):
        raise ValueError(f"Two control cells and one perturbation are needed, got {len(control)} control cells.")
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
    controls = rng.permutation(len(control))
    bank, reference = np.split(controls, [len(control) // 2])
    perts = int(groups.max()) + 1
    rows, pool, part = [], [], []
    for pert in range(perts):
        mine = rng.permutation(np.flatnonzero(groups == pert))
        half = len(mine) // 2
        if 2 * half < _LEAST_CELLS:
            continue
        drawn = rng.permutation(bank)[:half]
        rows += [mine[: 2 * half], len(cells) + drawn]
        part += [np.repeat([0, 1, 2], [half, half, len(drawn)])]
        pool += [np.full(2 * half + len(drawn), pert)]
    if not rows:
        raise ValueError(f"No perturbation has {_LEAST_CELLS} cells that could be divided.")
    both = jnp.concatenate([cells, control.astype(cells.dtype)])
    places = np.concatenate(pool)
    return _Pools(
        both[np.concatenate(rows)],
        jnp.asarray(places, jnp.int32),
        jnp.asarray(np.concatenate(part), jnp.int32),
        jnp.mean(control[reference].astype(cells.dtype), axis=0),
        None if targets is None else jnp.asarray(targets),
        jnp.asarray(np.bincount(places, minlength=perts) > 0),
    )


def _check_metric(metric: Metric) -> None:
    if metric.higher_is_better is None:
        raise ValueError(f"`{metric.name}` is a diagnostic without a good direction.")
    if metric.level == "panel":
        raise ValueError(f"`{metric.name}` is one number for all perturbations, which are tested one by one here.")
    if metric.needs_de or metric.needs_real_de or metric.needs_energy or metric.needs_noise:
        raise ValueError(f"`{metric.name}` needs more of the cells than their mean, which is all that is divided here.")
