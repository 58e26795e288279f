"""Statistics over perturbations, as functions of the values and of how often each perturbation counts.

One form serves everything that varies the set of perturbations: a bootstrap counts some of them twice and others not at
all, a jackknife leaves one out, a stratum counts its own only. Shapes stay fixed, so all of it runs inside `jit`.
"""

import functools as ft
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float
from .._stats import safe_divide


Statistic = Callable[..., Float[Array, ""]]
"""`(values, counts) -> number`, with `values` of shape (perts, ...) and `counts` of shape (perts,), not negative."""


def mean(values: Float[Array, " perts *columns"], counts: Float[Array, " perts"]) -> Float[Array, ""]:
    r"""The mean over perturbations, $\sum_p c_p x_p / \sum_p c_p$; of several columns, the mean of their means.

    Columns are contexts, which weigh the same however many perturbations they have. A value that is not finite is not
    there: it enters neither sum. NaN where nothing is left.
    """
    entries = _entries(values, counts)
    number = jnp.sum(entries, axis=0)
    means = safe_divide(jnp.sum(entries * jnp.where(entries > 0, values, 0), axis=0), number)
    if means.ndim == 0:
        return means
    seen = number > 0
    return safe_divide(jnp.sum(jnp.where(seen, means, 0)), jnp.sum(seen, dtype=means.dtype))


def median(values: Float[Array, " perts"], counts: Float[Array, " perts"]) -> Float[Array, ""]:
    """The median of the values with each repeated `counts` times (whole numbers); midway between the two middle ones.

    NaN where nothing is left.
    """
    entries = _entries(values, counts)
    known = jnp.where(entries > 0, values, jnp.inf)
    order = jnp.argsort(known)
    ascending = jnp.where(entries > 0, values, 0)[order]
    up_to = jnp.cumsum(entries[order])
    number = up_to[-1]
    last = values.shape[0] - 1
    at = lambda place: ascending[jnp.minimum(jnp.searchsorted(up_to, place, side="right"), last)]
    middle = 0.5 * (at(jnp.floor(0.5 * (number - 1))) + at(jnp.floor(0.5 * number)))
    return jnp.where(number > 0, middle, jnp.nan)


def ratio_of_sums(values: Float[Array, "perts *columns 2"], counts: Float[Array, " perts"]) -> Float[Array, ""]:
    r"""$\sum_p c_p u_p / \sum_p c_p v_p$ with numerator and denominator of each perturbation on the last axis.

    A perturbation counts where both are finite. NaN where the sum of the denominators is not positive, as for the
    noise-corrected effect sizes of a panel without effects. Of several columns (contexts), the mean of their ratios.
    """
    both = jnp.all(jnp.isfinite(values), axis=-1, keepdims=True)
    entries = jnp.where(both, _aligned(counts, values), 0)
    sums = jnp.sum(entries * jnp.where(entries > 0, values, 0), axis=0)
    numerator, denominator = sums[..., 0], sums[..., 1]
    return jnp.mean(safe_divide(numerator, jnp.where(denominator > 0, denominator, 0)))


@ft.cache
def difference_of(statistic: Statistic) -> Statistic:
    """The statistic of model a less that of model b, for values with (a, b) on the last axis.

    The same counts go to both: a perturbation that is drawn twice is drawn twice for either model.
    """

    def difference(values, counts):
        return statistic(values[..., 0], counts) - statistic(values[..., 1], counts)

    return difference


def complete_pairs(
    a: Real[ArrayLike, " perts *columns"], b: Real[ArrayLike, " perts *columns"], *, fill: float | None = None
) -> tuple[Float[Array, " perts *columns"], Float[Array, " perts *columns"]]:
    """Both models' values, NaN wherever one of them is not finite: every statistic then has one denominator for both.

    A value that is undefined for one model only is a fact about that model (a constant prediction has no correlation).
    Dropping the pair lets a model choose on what it is judged; with `fill`, the value without skill, it gets that.
    Where both are undefined the truth is at fault, and the pair is dropped in any case.

    **Raises:** `ValueError` for unequal shapes.
    """
    a, b = as_values(a, "a"), as_values(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"`a` and `b` must be values of the same perturbations, got shapes {a.shape} and {b.shape}.")
    dtype = jnp.promote_types(a.dtype, b.dtype)
    a, b = a.astype(dtype), b.astype(dtype)
    known_a, known_b = jnp.isfinite(a), jnp.isfinite(b)
    if fill is None:
        both = known_a & known_b
        return jnp.where(both, a, jnp.nan), jnp.where(both, b, jnp.nan)
    instead = jnp.where(known_a | known_b, jnp.full_like(a, fill), jnp.nan)
    return jnp.where(known_a, a, instead), jnp.where(known_b, b, instead)


def takes_part(
    values: Float[Array, " perts *columns"], where: Bool[ArrayLike, " perts"] | None = None
) -> Bool[Array, " perts"]:
    """Perturbations of `where` with a finite value in any column."""
    finite = jnp.any(jnp.isfinite(values.reshape(values.shape[0], -1)), axis=1)
    return finite if where is None else finite & jnp.asarray(where)


def as_values(values: Real[ArrayLike, "*shape"], name: str = "values") -> Float[Array, "*shape"]:
    """Values over at least one perturbation as a floating array.

    **Raises:** `ValueError` for a scalar or an empty axis.
    """
    array = as_float(values, name)
    if array.ndim == 0 or array.shape[0] == 0:
        raise ValueError(f"`{name}` must have one row a perturbation, and one at least, got shape {array.shape}.")
    return array


def _aligned(counts, values):
    return counts.reshape(counts.shape + (1,) * (values.ndim - 1)).astype(values.dtype)


def _entries(values, counts):
    return jnp.where(jnp.isfinite(values), _aligned(counts, values), 0)
