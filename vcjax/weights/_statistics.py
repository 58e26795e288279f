"""How strongly each gene responds: the size of a t statistic of each perturbation against its comparison."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..de import Moments, rest_of, welch_test
from ._moderated import moderated_t


Statistic = Literal["t_overestim", "welch", "moderated"]
Versus = Literal["control", "rest", "loo"]
Variance = Literal["own", "floored", "total"]


def gene_scores(
    groups: Moments,
    *,
    statistic: Statistic = "t_overestim",
    versus: Versus = "rest",
    control: Moments | None = None,
    pool: Moments | None = None,
    variance: Variance = "own",
) -> Float[Array, "perts genes"]:
    r"""$|t|$ of every gene and perturbation, a constant of the differentiation.

    **Arguments:**

    - `groups`: moments of the cells of each perturbation, without the control.
    - `statistic`: `"t_overestim"`, Welch's t that counts as many cells in the comparison as in the group; `"welch"`;
        `"moderated"`, limma's t with squeezed variances.
    - `versus`: `"control"`; `"rest"`, the cells of all other perturbations, each cell counting alike; `"loo"`, the
        same with each other perturbation counting alike.
    - `control`: one group, for `versus="control"`.
    - `pool`: where the others' cells are not those of `groups` (a half tested against the others' whole), the moments
        of the same perturbations, in the same order, that the rest is made of.
    - `variance`: `"own"`; `"floored"`, that of the group and of its comparison not below the variance of all cells
        together, gene by gene; or `"total"`, that variance in the place of both.

    **Returns:** 0 where nothing varies.

    **Raises:** `ValueError` for other words, for `versus="control"` without a control and for shapes that differ.
    """
    if statistic not in ("t_overestim", "welch", "moderated"):
        raise ValueError(f'`statistic` is "t_overestim", "welch" or "moderated", got {statistic!r}.')
    if variance not in ("own", "floored", "total"):
        raise ValueError(f'`variance` is "own", "floored" or "total", got {variance!r}.')
    groups, control, pool = lax.stop_gradient((groups, control, pool))
    pool = groups if pool is None else pool
    if pool.mean.shape != groups.mean.shape:
        raise ValueError(f"`pool` must have the groups and genes of `groups`, {groups.mean.shape}: {pool.mean.shape}.")
    other = _comparison(pool, versus, control)
    if variance != "own":
        every = _total_variance(pool)
        groups, other = (_with_variance(side, every, variance) for side in (groups, other))
    if statistic == "moderated":
        return jnp.abs(moderated_t(groups, other))
    return jnp.abs(welch_test(groups, other, overestimate=statistic == "t_overestim").t)


def _comparison(pool: Moments, versus: Versus, control: Moments | None) -> Moments:
    if versus == "control":
        if control is None:
            raise ValueError('`versus="control"` needs `control`: the moments of the control cells, as one group.')
        return control
    if versus not in ("rest", "loo"):
        raise ValueError(f'`versus` is "control", "rest" or "loo", got {versus!r}.')
    return rest_of(pool) if versus == "rest" else leave_one_out(pool)


def leave_one_out(groups: Moments) -> Moments:
    r"""For each group, the moments of all the others with each of them counting alike.

    Mean $\bar m = \mathrm{mean}_q\,m_q$ and variance $\mathrm{mean}_q(v_q + (m_q - \bar m)^2)$ over $q \neq p$, as of
    a cell of a group drawn at random; the number of cells is the sum.

    **Raises:** `ValueError` if no other group is left.
    """
    count = groups.mean.shape[0]
    if count < 2:
        raise ValueError("The rest of a group needs at least one other group.")
    # About the mean of all groups, for the sake of the variance of a high mean.
    centre = jnp.mean(groups.mean, axis=0, keepdims=True)
    offset = groups.mean - centre
    shift = -offset / (count - 1)
    square = groups.variance + offset * offset
    others = (jnp.sum(square, axis=0, keepdims=True) - square) / (count - 1)
    variance = jnp.maximum(others - shift * shift, 0)
    return Moments(centre + shift, variance, jnp.sum(groups.cells) - groups.cells)


def _total_variance(groups: Moments) -> Float[Array, "1 genes"]:
    """The variance (ddof 1) of the cells of all groups together."""
    cells = groups.cells[:, None]
    total = jnp.sum(cells)
    centre = jnp.sum(cells * groups.mean, axis=0, keepdims=True) / total
    squares = (cells - 1) * groups.variance + cells * (groups.mean - centre) ** 2
    return jnp.sum(squares, axis=0, keepdims=True) / jnp.maximum(total - 1, 1)


def _with_variance(side: Moments, every: Float[Array, "1 genes"], variance: Variance) -> Moments:
    chosen = jnp.broadcast_to(every, side.variance.shape)
    chosen = jnp.maximum(side.variance, chosen) if variance == "floored" else chosen
    return dataclasses.replace(side, variance=chosen)
