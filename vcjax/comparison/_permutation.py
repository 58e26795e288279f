"""Permutation tests with the statistic that is reported: exact where all permutations can be listed, else drawn."""

import itertools
from collections.abc import Callable
from typing import get_args, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from ._rows import over_rows
from ._statistics import as_values, complete_pairs, mean, Statistic, takes_part


Alternative = Literal["two-sided", "greater", "less"]

_ALL_SWAPS = 12  # perturbations whose 2^n swaps are all listed
_ALL_ORDERS = 6  # and whose n! orders are


def permutation_pvalue(
    observed: Float[ArrayLike, ""],
    draws: Float[ArrayLike, " permutations"],
    *,
    alternative: Alternative = "two-sided",
    exact: bool = False,
) -> Float[Array, ""]:
    """The share of permutations at least as extreme as what was observed.

    `(1 + #) / (1 + permutations)`, since what was observed is one of them; `# / permutations` if `exact`, when the
    draws are all there are. Two-sided is twice the smaller one-sided value, at most 1. Draws that differ from the
    observed value by rounding are ties, and count.

    **Raises:** `ValueError` for an unknown alternative.
    """
    if alternative not in get_args(Alternative):
        raise ValueError(f"`alternative` is one of {get_args(Alternative)}, got {alternative!r}.")
    draws, observed = jnp.asarray(draws), jnp.asarray(observed)
    size = jnp.maximum(jnp.max(jnp.abs(draws)), jnp.abs(observed))
    rounding = 100 * jnp.finfo(draws.dtype).eps * size
    extra = 0 if exact else 1
    share = lambda extreme: (extra + jnp.sum(extreme, dtype=draws.dtype)) / (extra + draws.shape[0])
    above, below = share(draws >= observed - rounding), share(draws <= observed + rounding)
    p = {"greater": above, "less": below, "two-sided": jnp.minimum(1, 2 * jnp.minimum(above, below))}[alternative]
    return jnp.where(jnp.isnan(observed) | jnp.any(jnp.isnan(draws)), jnp.nan, p)


def swap_test(
    a: Real[ArrayLike, " perts *columns"],
    b: Real[ArrayLike, " perts *columns"],
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    permutations: int = 9_999,
    alternative: Alternative = "two-sided",
) -> Float[Array, ""]:
    """Whether two models differ: the p-value of `statistic(a) - statistic(b)` when the models swap at random.

    Within each perturbation the two models change places or do not, with equal probability; for the mean that flips the
    signs of the differences. All columns of a perturbation (contexts) swap together, since they are not independent. Up
    to 12 perturbations all swaps are listed and the p-value is exact.

    A perturbation counts where both models have a finite value. NaN where none does.

    **Raises:** `ValueError` for unequal shapes and an unknown alternative.

    Equal to `scipy.stats.permutation_test(..., permutation_type="samples")`.
    """
    a, b = complete_pairs(a, b)
    used = takes_part(a)
    counts, perts = used.astype(a.dtype), a.shape[0]

    def contrast(swapped):
        swapped = swapped.reshape((perts,) + (1,) * (a.ndim - 1))
        return statistic(jnp.where(swapped, b, a), counts) - statistic(jnp.where(swapped, a, b), counts)

    exact = perts <= _ALL_SWAPS
    if exact:
        swaps = jnp.asarray((np.arange(2**perts)[:, None] >> np.arange(perts)[None, :]) % 2 == 1)
    else:
        swaps = jax.random.bernoulli(key, 0.5, (permutations, perts))
    draws = over_rows(contrast, swaps, a.size)
    observed = contrast(jnp.zeros(perts, bool))
    return permutation_pvalue(observed, draws, alternative=alternative, exact=exact)


def group_test(
    values: Real[ArrayLike, " perts"],
    group: Bool[ArrayLike, " perts"],
    *,
    key: jax.Array,
    permutations: int = 9_999,
    alternative: Alternative = "two-sided",
) -> Float[Array, ""]:
    """Whether two groups of perturbations (a stratum and the rest) differ in their mean, by shuffling who is in which.

    NaN where either group has no finite value.

    **Raises:** `ValueError` for shapes that differ and an unknown alternative.
    """
    values, group = as_values(values), jnp.asarray(group)
    if values.shape != group.shape:
        raise ValueError(f"`group` says of each perturbation whether it is in, got {group.shape} for {values.shape}.")
    used = takes_part(values)
    # Members first among those that count, so that a shuffle is a shuffle of places.
    places = jnp.arange(values.shape[0], dtype=jnp.int32)
    size, members = jnp.sum(used, dtype=jnp.int32), jnp.sum(used & group, dtype=jnp.int32)
    ordered = values[jnp.argsort(jnp.where(used, jnp.where(group, 0, 1), 2), stable=True)]
    inside, outside = places < members, (places >= members) & (places < size)

    def contrast(order):
        mixed = ordered[order]
        return mean(mixed, inside.astype(mixed.dtype)) - mean(mixed, outside.astype(mixed.dtype))

    def shuffled(key):
        # Those that do not count stay behind all that do.
        return jnp.argsort(jnp.where(places < size, jax.random.uniform(key, places.shape), 2.0))

    keys = jax.random.split(key, permutations)
    draws = over_rows(lambda key: contrast(shuffled(key)), keys, values.size)
    return permutation_pvalue(contrast(places), draws, alternative=alternative)


def assignment_test(
    score: Callable[[Int[Array, " perts"]], Float[Array, " perts"]],
    perts: int,
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    permutations: int = 999,
    alternative: Alternative = "greater",
) -> Float[Array, ""]:
    """Whether predictions belong to their own perturbations: the p-value of a score when they are dealt out at random.

    `score(own)` gives the values when prediction p is taken to be of perturbation `own[p]`, for discrimination

    ```python
    distances = retrieval_distances(pred, real)
    assignment_test(lambda own: discrimination_from_distances(distances, own), len(pred), key=key)
    ```

    The null keeps all predictions and all measured effects, and so whatever they share; it says whether the model tells
    perturbations apart, not whether it is near. Up to 6 perturbations all orders are listed.

    **Raises:** `ValueError` for an unknown alternative.
    """
    exact = perts <= _ALL_ORDERS
    if exact:
        orders = jnp.asarray(np.array(list(itertools.permutations(range(perts)))))
    else:
        place = jnp.arange(perts)
        orders = jax.vmap(lambda k: jax.random.permutation(k, place))(jax.random.split(key, permutations))

    def whole(own):
        values = as_values(score(own))
        return statistic(values, takes_part(values).astype(values.dtype))

    draws = over_rows(whole, orders, perts)
    observed = whole(jnp.arange(perts))
    return permutation_pvalue(observed, draws, alternative=alternative, exact=exact)
