"""Predictions of known worth: what the control, the mean of perturbations or a replicate would have predicted."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import as_float_matrix
from .._profiles import Profiles
from .._stats import safe_divide
from ..de import Moments
from ._shapes import beside, row_or_rows


Role = Literal["negative", "null", "positive"]
_ROLES = ("negative", "null", "positive")


class Control(eqx.Module):
    """A prediction of known worth.

    **Fields:** `profiles`, the prediction; `role`: `"negative"` knows nothing (the unperturbed control), `"null"` knows
    what perturbations have in common (their mean), `"positive"` knows what a replicate knows.
    """

    profiles: Profiles
    role: Role = eqx.field(static=True)

    def __check_init__(self):
        if self.role not in _ROLES:
            raise ValueError(f"`role` must be one of {', '.join(map(repr, _ROLES))}, got {self.role!r}.")


class ControlSet(eqx.Module):
    """Controls, and the truth that they are predictions of.

    **Fields:**

    - `truth`: measured profiles, made of cells that no positive control has seen.
    - `controls`: by name.
    - `weights`: gene weights made of this truth, for the metrics that need them.
    - `moments`, `control_moments`: means and variances of the cells of the truth and of its control cells, which
        weights can be made of.
    - `perts`: names of the rows. `notes`: what was left out, a line each.
    """

    truth: Profiles
    controls: dict[str, Control]
    weights: Float[Array, " genes"] | Float[Array, "perts genes"] | None = None
    moments: Moments | None = None
    control_moments: Moments | None = None
    perts: tuple[str, ...] = eqx.field(static=True, default=())
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        for name, control in self.controls.items():
            if control.profiles.mean.shape != self.truth.mean.shape:
                raise ValueError(
                    f"Control {name!r} must have the shape of the truth, {self.truth.mean.shape}, got "
                    f"{control.profiles.mean.shape}."
                )
        if self.perts and len(self.perts) != self.truth.mean.shape[0]:
            raise ValueError(f"{self.truth.mean.shape[0]} perturbations have {len(self.perts)} names.")


def control_mean(truth: Profiles) -> Profiles:
    """The negative control: every perturbation leaves the cells as the control cells of `truth` are.

    Its effect is exactly zero, so that what has no value for a zero effect (a correlation) is undefined for it.
    """
    mean = jnp.broadcast_to(truth.control[None, :], truth.mean.shape)
    noise = truth.control_noise
    if noise is not None:
        noise = jnp.broadcast_to(noise, (*truth.mean.shape[:1], *noise.shape))
    return Profiles(
        mean,
        truth.control,
        noise=noise,
        control_noise=truth.control_noise,
        targets=truth.targets,
        target_sum=truth.target_sum,
        space=truth.space,
    )


def train_mean(
    train: Real[ArrayLike, "train genes"], cells: Real[ArrayLike, " train"] | None = None
) -> Float[Array, " genes"]:
    r"""The mean of the training perturbations' profiles, $\sum_q n_q x_q / \sum_q n_q$; a null control.

    **Arguments:**

    - `train`: profiles of perturbations that are not evaluated.
    - `cells`: the $n_q$, to weight cells alike; without it perturbations weigh alike, $n_q = 1$.

    **Returns:** one profile for all perturbations; NaN if there are no cells.

    **Raises:** `ValueError` for shapes that differ.

    Source: Miller et al. 2025 (perturbations alike), Systema's `nonctl-mean` (cells alike).
    """
    train, weights = _weighted(train, cells)
    return safe_divide(jnp.sum(weights * train, axis=0), jnp.broadcast_to(jnp.sum(weights), train.shape[1:]))


def leave_one_out_mean(
    mean: Real[ArrayLike, "perts genes"], cells: Real[ArrayLike, " perts"] | None = None
) -> Float[Array, "perts genes"]:
    r"""The mean of all other perturbations, $\sum_{q \ne p} n_q x_q / \sum_{q \ne p} n_q$: a null control.

    For data without training perturbations; no row sees itself. Arguments and errors as of `train_mean`; NaN where
    there is no other perturbation (with cells).

    Source: scPertEval 0.2.0.
    """
    mean, weights = _weighted(mean, cells)
    # About the mean of all, so that rounding of a large common profile does not reach the differences.
    centre = jnp.mean(mean, axis=0, keepdims=True)
    offset = weights * (mean - centre)
    rest = jnp.sum(weights) - weights
    others = safe_divide(jnp.sum(offset, axis=0, keepdims=True) - offset, jnp.broadcast_to(rest, offset.shape))
    return centre + others


def _weighted(mean, cells):
    mean = as_float_matrix(mean, "mean")
    if cells is None:
        return mean, jnp.ones_like(mean[:, :1])
    cells = jnp.asarray(cells)
    if cells.shape != mean.shape[:1]:
        raise ValueError(f"`cells` must have shape {mean.shape[:1]}, got {cells.shape}.")
    return mean, cells.astype(mean.dtype)[:, None]


def interpolated_duplicate(
    duplicate: Real[ArrayLike, "perts genes"],
    mean: Real[ArrayLike, " genes"] | Real[ArrayLike, "perts genes"],
    log_padj: Real[ArrayLike, "perts genes"],
) -> Float[Array, "perts genes"]:
    r"""A replicate where it found something and the mean elsewhere, $a_g d_g + (1 - a_g) \mu_g$ with $a_g = 1 - q_g$.

    Under sparse effects a raw replicate is hardly better than the mean, since its noise is in every gene; this is a
    positive control that a good model can be expected to reach.

    **Arguments:**

    - `duplicate`: profiles of the replicate, d; `mean`: the null control, $\mu$, one for all or one row each.
    - `log_padj`: natural logarithms of the adjusted p-values q of the replicate's own cells, against the rest or the
        control. A NaN counts as 1: nothing was found.

    **Raises:** `ValueError` for shapes that differ.

    Source: Miller et al. 2025 (interpolated duplicate; q from the t-test with overestimated variance against the rest).
    """
    duplicate, mean = _pair(duplicate, mean)
    log_padj = beside(log_padj, "log_padj", duplicate)
    found = -jnp.expm1(jnp.minimum(jnp.where(jnp.isnan(log_padj), 0, log_padj), 0))
    return mean + found * (duplicate - mean)


def empirical_bayes_duplicate(
    duplicate: Real[ArrayLike, "perts genes"],
    mean: Real[ArrayLike, " genes"] | Real[ArrayLike, "perts genes"],
    noise: Real[ArrayLike, "perts genes"],
) -> Float[Array, "perts genes"]:
    r"""A replicate shrunk towards the mean as far as its noise asks for, $\mu_g + B_g (d_g - \mu_g)$.

    $B_g = \tau^2 / (\tau^2 + s_g^2)$ with $\tau^2 = \max(0, \mathrm{mean}_g[(d_g - \mu_g)^2 - s_g^2])$ of each
    perturbation: the best linear prediction if its effects on genes have variance $\tau^2$ around the mean.

    **Arguments:** as of `interpolated_duplicate`, and `noise`, the sampling variance $s_g^2$ of the replicate's profile
    (variance of the cells over their number). A gene without noise keeps its value; with $\tau^2 = 0$ all that has
    noise is the mean.

    **Raises:** `ValueError` for shapes that differ.
    """
    duplicate, mean = _pair(duplicate, mean)
    noise = beside(noise, "noise", duplicate)
    gap = duplicate - mean
    variance = jnp.maximum(jnp.mean(gap * gap - noise, axis=1, keepdims=True), 0)
    return mean + safe_divide(jnp.broadcast_to(variance, gap.shape), variance + noise, 1.0) * gap


def _pair(duplicate, mean):
    duplicate = as_float_matrix(duplicate, "duplicate")
    return duplicate, row_or_rows(mean, "mean", duplicate)


def sparse_mean(
    cells: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    num_groups: int,
    key: Array,
) -> Float[Array, "groups genes"]:
    r"""The mean of $\lfloor n_p/2 \rfloor$ random cells of other perturbations: a null with a replicate's noise.

    What it loses against a replicate is content; what it loses against `leave_one_out_mean` is noise.

    **Arguments:**

    - `cells`: normalised cells. `groups`: the perturbation of each cell; -1 for a cell that takes no part (a control
        cell), of a perturbation that is not evaluated or of a half that must stay unseen.
    - `key`: of `jax.random`.

    **Returns:** drawn without replacement; NaN for a perturbation of fewer than two cells, or without other cells.

    **Raises:** `ValueError` unless `groups` has one entry a cell.

    Source: Miller et al. 2025 (sparse mean).
    """
    cells, groups = as_float_matrix(cells, "cells"), _groups(cells, groups)
    inside = (groups >= 0) & (groups < num_groups)
    sizes = jnp.bincount(jnp.where(inside, groups, num_groups), length=num_groups + 1)[:num_groups] // 2
    numbers = jnp.arange(num_groups).astype(groups.dtype)

    def one(args):
        group, size, draw = args
        other = inside & (groups != group)
        turn = jnp.argsort(jnp.argsort(jnp.where(other, jax.random.uniform(draw, groups.shape), 2.0)))
        chosen = (other & (turn < size.astype(turn.dtype))).astype(cells.dtype)
        return safe_divide(chosen @ cells, jnp.broadcast_to(jnp.sum(chosen), cells.shape[1:]))

    return lax.map(one, (numbers, sizes, jax.random.split(key, num_groups)))


def _groups(cells, groups):
    groups = jnp.asarray(groups)
    if groups.shape != jnp.shape(cells)[:1]:
        raise ValueError(f"`groups` must have one entry a cell, {jnp.shape(cells)[:1]}, got {groups.shape}.")
    return groups
