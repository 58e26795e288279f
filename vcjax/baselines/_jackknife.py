"""Bands around kernel ridge predictions, from exact refits without each training perturbation."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._krr import held_out_smoother, Intercept, precision_of, smooth, smoother


def leave_one_out_at(
    inverse: Float[Array, "perts perts"],
    row: Float[Array, " perts"],
    effects: Float[Array, "perts genes"],
    intercept: Intercept = "mean",
) -> Float[Array, "perts genes"]:
    r"""$f_{-i}(u)$ for all i: one new perturbation, predicted by the refit without each training perturbation.

    $f(u) - [k'Q]_i (QY)_i / Q_{ii}$, with the means of the others in the place of the mean of all; exact for every
    intercept.

    **Arguments:** `inverse`, Q of the training perturbations; `row`, the new one's similarity to each of them.
    """
    return _without_each(inverse, row, effects, smooth(precision_of(inverse, intercept), effects), intercept)


def jackknife_bands(
    inverse: Float[Array, "perts perts"],
    cross: Float[Array, "new perts"],
    effects: Float[Array, "perts genes"],
    *,
    coverage: float = 0.9,
    intercept: Intercept = "mean",
) -> tuple[Float[Array, "new genes"], Float[Array, "new genes"]]:
    r"""Bands of each gene by the jackknife+: quantiles over i of $f_{-i}(u) \mp |y_i - f_{-i}(i)|$.

    For exchangeable perturbations they cover a new measured effect with probability at least $2c - 1$, and mostly about
    $c$. The refits are in closed form: O(perts x genes) for each new perturbation, and a sort.

    **Arguments:** `inverse`, Q of the training perturbations; `cross`, similarities of the new ones to them.

    **Returns:** lower and upper bounds; infinite where there are too few perturbations for the coverage.

    **Raises:** `ValueError` for a coverage outside (0, 1).

    Source: Barber, Candès, Ramdas, Tibshirani (2021), the jackknife+.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"`coverage` lies between 0 and 1, got {coverage}.")
    size = len(inverse)
    # The ceil(c (n + 1))-th from either end; rounding keeps .9 x 10 from being above 9.
    place = math.ceil(round(coverage * (size + 1), 9))
    if place > size:
        infinite = jnp.full((len(cross), effects.shape[1]), jnp.inf, effects.dtype)
        return -infinite, infinite
    residuals = jnp.abs(effects - smooth(held_out_smoother(inverse, intercept), effects))
    products = smooth(precision_of(inverse, intercept), effects)

    def one(row):
        without = _without_each(inverse, row, effects, products, intercept)
        low, high = (jnp.sort(without + sign * residuals, axis=0) for sign in (-1, 1))
        return low[size - place], high[place - 1]

    return lax.map(one, cross)


def _without_each(inverse, row, effects, products, intercept):
    # An unpenalised intercept is part of the weights; a refitted mean is added at the end.
    weights = smoother(inverse, row[None, :], "none" if intercept == "mean" else intercept)
    q = precision_of(inverse, intercept)
    influence = weights[0] / jnp.diagonal(q)
    values = smooth(weights, effects) - influence.astype(effects.dtype)[:, None] * products
    if intercept != "mean":
        return values
    rest = 1 - jnp.sum(weights) + influence * jnp.sum(q, axis=1)
    means = (jnp.sum(effects, axis=0, keepdims=True) - effects) / (len(effects) - 1)
    return values + rest.astype(effects.dtype)[:, None] * means
