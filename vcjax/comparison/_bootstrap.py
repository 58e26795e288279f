r"""The bootstrap: how much a number over perturbations would move with another draw of perturbations, or of cells.

What is resampled are *values* of perturbations, each computed once on the whole panel. A score that ranks a
perturbation among the others (PDS, rank, recall) keeps its candidates: a resample of candidates would hold some
perturbations twice, each copy an exact tie of the other, and others not at all, which is another game with other odds.
The interval is then one over perturbations given these candidates.

Perturbations are drawn as if they were independent; a screen of guides for the same complex has fewer than it seems.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from ._influence import leave_one_out
from ._interval import Interval, interval_of, Method
from ._rows import over_rows
from ._statistics import as_values, mean, Statistic, takes_part


def resample(key: jax.Array, used: Bool[ArrayLike, " perts"], samples: int = 1000) -> Float[Array, "samples perts"]:
    """How often each perturbation is drawn in each resample; every row sums to the number of perturbations in use.

    **Raises:** `ValueError` for fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"`samples` must be at least 1, got {samples}.")
    used = jnp.asarray(used)
    perts = used.shape[0]
    number = jnp.sum(used, dtype=jnp.int32)
    in_use_first = jnp.argsort(~used, stable=True)
    draws = jax.random.randint(key, (samples, perts), 0, jnp.maximum(number, 1), jnp.int32)
    one = (jnp.arange(perts, dtype=jnp.int32) < number).astype(jnp.result_type(float))
    return jax.vmap(lambda row: jnp.zeros_like(one).at[in_use_first[row]].add(one))(draws)


def bootstrap(
    values: Real[ArrayLike, " perts *columns"],
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    where: Bool[ArrayLike, " perts"] | None = None,
    samples: int = 1000,
) -> Float[Array, " samples"]:
    """The statistic in resamples of the perturbations, drawn with replacement.

    **Arguments:**

    - `values`: one row a perturbation; further axes are what the statistic reads (contexts; numerator and denominator;
        two models, which then share every resample).
    - `statistic`: `mean`, `median`, `ratio_of_sums`, `difference_of(...)`, or any function `(values, counts)`.
    - `where`: perturbations that count; those without a finite value never do, and each resample has as many draws as
        there are perturbations that count.

    **Raises:** `ValueError` for values without a perturbation and fewer than one sample.
    """
    values = as_values(values)
    used = takes_part(values, where)
    counts = resample(key, used, samples).astype(values.dtype)
    return over_rows(lambda row: statistic(values, row), counts, values.size)


def confidence_interval(
    values: Real[ArrayLike, " perts *columns"],
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    where: Bool[ArrayLike, " perts"] | None = None,
    samples: int = 1000,
    level: float = 0.95,
    method: Method = "bca",
    small_sample: bool = True,
) -> Interval:
    """A statistic over perturbations with its bootstrap interval.

    **Arguments:** as of `bootstrap`, and:

    - `level`, `method`: as of `interval_of`.
    - `small_sample`: widen the interval for the number of perturbations (see `interval_of`); without, it is that of
        `scipy.stats.bootstrap`.

    **Returns:** an `Interval`; NaN bounds for fewer than two perturbations.

    **Raises:** `ValueError` for an unknown method, a level outside (0, 1), no perturbation and no sample.
    """
    values = as_values(values)
    used = takes_part(values, where)
    number = jnp.sum(used, dtype=jnp.int32)
    estimate = statistic(values, used.astype(values.dtype))
    draws = bootstrap(values, key=key, statistic=statistic, where=used, samples=samples)
    low, high = interval_of(
        *(draws, estimate),
        level=level,
        method=method,
        jackknife=leave_one_out(values, statistic=statistic, where=used) if method == "bca" else None,
        number=number if small_sample else None,
    )
    enough = number >= 2
    bound = lambda x: jnp.where(enough, x, jnp.nan)
    return Interval(estimate, bound(low), bound(high), number, level, method)


def score_replicates(
    score: Callable[[Any], Float[Array, "..."]], replicates: Any, *, batch_size: int | None = None
) -> Float[Array, " samples *values"]:
    """The values of a score for every replicate of a side, e.g. `lambda real: metric(pred, real)`.

    **Arguments:**

    - `replicates`: what `score` takes (an array of profiles, a `Profiles`), with a leading axis of replicates: profiles
        of the same perturbations from cells drawn anew.
    - `batch_size`: how many are computed at once; one after the other by default, since each is a whole screen.
    """
    return lax.map(score, replicates, batch_size=batch_size)


def bootstrap_replicates(
    values: Real[ArrayLike, "samples perts *columns"],
    *,
    statistic: Statistic = mean,
    key: jax.Array | None = None,
    where: Bool[ArrayLike, " perts"] | None = None,
) -> Float[Array, " samples"]:
    """The statistic of every replicate: the bootstrap over cells; with a `key`, over cells and perturbations.

    **Arguments:**

    - `values`: one row of values a replicate, from `score_replicates`.
    - `key`: draw the perturbations anew for each replicate, too; without it they are taken as given.
    - `where`: perturbations that count; one with no finite value in a replicate does not count there.

    Read the scatter of these draws, not their place: `interval_of(draws, estimate, method="centred")`.

    **Raises:** `ValueError` for an empty axis.
    """
    values = as_values(values)
    if values.ndim < 2 or values.shape[1] == 0:
        raise ValueError(f"`values` must have the axes (samples, perts), got shape {values.shape}.")

    def draw(row, key):
        used = takes_part(row, where)
        counts = used if key is None else resample(key, used, 1)[0]
        return statistic(row, counts.astype(row.dtype))

    if key is None:
        return jax.vmap(lambda row: draw(row, None))(values)
    return jax.vmap(draw)(values, jax.random.split(key, values.shape[0]))
