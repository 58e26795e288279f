"""Which perturbations carry a number."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._stats import safe_divide
from ._rows import over_rows
from ._statistics import as_values, mean, Statistic, takes_part


def leave_one_out(
    values: Real[ArrayLike, " perts *columns"],
    *,
    statistic: Statistic = mean,
    where: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    """The statistic without each perturbation; NaN for those that do not count.

    Values are taken as they are: a rank among the others is not computed anew without one of them.

    **Raises:** `ValueError` for values without a perturbation.
    """
    values = as_values(values)
    used = takes_part(values, where)
    whole = used.astype(values.dtype)
    without = lambda place: statistic(values, whole.at[place].set(0))
    left = over_rows(without, jnp.arange(values.shape[0]), values.size)
    return jnp.where(used, left, jnp.nan)


def influence(
    values: Real[ArrayLike, " perts *columns"],
    *,
    statistic: Statistic = mean,
    where: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " perts"]:
    r"""By how much each perturbation moves the statistic, $\theta - \theta_{-p}$; for the mean $(x_p - \bar x)/(n-1)$.

    NaN for perturbations that do not count, and for the only one that does.

    **Raises:** `ValueError` for values without a perturbation.
    """
    values = as_values(values)
    used = takes_part(values, where)
    whole = statistic(values, used.astype(values.dtype))
    return whole - leave_one_out(values, statistic=statistic, where=used)


def top_carriers(
    values: Real[ArrayLike, " perts *columns"], k: int, *, statistic: Statistic = mean
) -> Int[Array, " carriers"]:
    """The places of the `k` perturbations with the largest influence, of either sign, the largest first.

    **Raises:** `ValueError` if there are not `k` perturbations.
    """
    moved = jnp.abs(influence(values, statistic=statistic))
    if not 1 <= k <= moved.shape[0]:
        raise ValueError(f"`k` must be between 1 and the {moved.shape[0]} perturbations, got {k}.")
    return jnp.argsort(-jnp.where(jnp.isnan(moved), -1, moved), stable=True)[:k]


def top_share(values: Real[ArrayLike, " perts"], k: int, *, base: float = 0.0) -> Float[Array, ""]:
    r"""The share of the mean's distance from `base` that the `k` perturbations farthest from it carry.

    $\sum_{p \in \mathrm{top}} (x_p - b) / \sum_p (x_p - b)$, the top by $|x_p - b|$. `base` is the value without skill
    (0.5 for discrimination, 0 for an error or a difference of models). Above 1 where the rest pulls the other way; NaN
    where the mean is at `base`.

    **Raises:** `ValueError` if there are not `k` perturbations.
    """
    part = _parts(values, base)
    if not 1 <= k <= part.shape[0]:
        raise ValueError(f"`k` must be between 1 and the {part.shape[0]} perturbations, got {k}.")
    largest = part[jnp.argsort(-jnp.abs(part), stable=True)]
    return safe_divide(jnp.sum(largest[:k]), jnp.sum(part))


def effective_perturbations(values: Real[ArrayLike, " perts"], *, base: float = 0.0) -> Float[Array, ""]:
    r"""How many perturbations carry the mean's distance from `base`, $(\sum_p |x_p - b|)^2 / \sum_p (x_p - b)^2$.

    1 if one does it all, the number of perturbations if all are alike; NaN where every value is `base`.
    """
    part = jnp.abs(_parts(values, base))
    total = jnp.sum(part)
    return safe_divide(total * total, jnp.sum(part * part))


def _parts(values, base):
    values = as_values(values)
    known = jnp.isfinite(values)
    return jnp.where(known, jnp.where(known, values, 0) - base, 0)
