"""Two models on the same perturbations."""

import warnings
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._stats import safe_divide
from ._bootstrap import confidence_interval
from ._interval import Interval, Method
from ._permutation import swap_test
from ._statistics import complete_pairs, difference_of, mean, Statistic, takes_part


class PairedDifference(eqx.Module):
    """What two models score on the same perturbations, and by how much they differ.

    **Fields:**

    - `value_a`, `value_b`: the statistic of each model, over the same perturbations.
    - `difference`: a − b, with its interval.
    - `pvalue`: of the test that swaps the models, see `swap_test`.
    - `won`: the share of perturbations where a is better, ties one half.
    """

    value_a: Float[Array, ""]
    value_b: Float[Array, ""]
    difference: Interval
    pvalue: Float[Array, ""]
    won: Float[Array, ""]


def paired_difference(
    a: Real[ArrayLike, " perts *columns"],
    b: Real[ArrayLike, " perts *columns"],
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    higher_is_better: bool = True,
    fill: float | None = None,
    samples: int = 1000,
    permutations: int = 9_999,
    level: float = 0.95,
    method: Method = "bca",
) -> PairedDifference:
    """The difference of two models over the same perturbations, with interval and p-value.

    Differences are taken within perturbations and each resample serves both models, so what makes a perturbation hard
    for both cancels.

    **Arguments:**

    - `a`, `b`: values of one metric, one row a perturbation (further axes as of `bootstrap`).
    - `higher_is_better`: the direction of the metric, for `won`.
    - `fill`: see `complete_pairs`.
    - `samples`, `level`, `method`: of the interval; `permutations`: of the test.

    **Returns:** a `PairedDifference`, all NaN where no perturbation has two values.

    **Raises:** `ValueError` for unequal shapes and what `confidence_interval` refuses.
    """
    a, b = complete_pairs(a, b, fill=fill)
    counts = takes_part(a).astype(a.dtype)
    draw, swap = jax.random.split(key)
    difference = confidence_interval(
        jnp.stack([a, b], axis=-1),
        key=draw,
        statistic=difference_of(statistic),
        samples=samples,
        level=level,
        method=method,
    )
    return PairedDifference(
        value_a=statistic(a, counts),
        value_b=statistic(b, counts),
        difference=difference,
        pvalue=swap_test(a, b, key=swap, statistic=statistic, permutations=permutations),
        won=share_won(a, b, higher_is_better=higher_is_better),
    )


def share_won(
    a: Real[ArrayLike, " perts *columns"], b: Real[ArrayLike, " perts *columns"], *, higher_is_better: bool = True
) -> Float[Array, ""]:
    """The share of perturbations where `a` is better than `b`, ties one half; NaN where no pair is complete.

    **Raises:** `ValueError` for unequal shapes.
    """
    a, b = complete_pairs(a, b)
    both = jnp.isfinite(a)
    gap = jnp.where(both, a - b, 0) * (1 if higher_is_better else -1)
    ahead = 0.5 * (1 + jnp.sign(gap))
    return safe_divide(jnp.sum(jnp.where(both, ahead, 0)), jnp.sum(both, dtype=a.dtype))


def wilcoxon_pvalue(a: Real[ArrayLike, " perts"], b: Real[ArrayLike, " perts"]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, on the host.

    It asks whether the differences are symmetric about 0 and weighs each by its rank, so that a single perturbation
    cannot carry it; it can therefore disagree with a test of the mean. Pairs that are not complete, and ties of the two
    models, are dropped. 1 where all are ties, NaN where there is no pair. Source: `scipy.stats.wilcoxon`.
    """
    import scipy.stats

    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    gap = gap[np.isfinite(gap)]
    if not len(gap):
        return float("nan")
    if not gap.any():
        return 1.0
    with warnings.catch_warnings():
        # With few pairs scipy may say that its approximation is rough.
        warnings.simplefilter("ignore")
        return float(cast(Any, scipy.stats.wilcoxon(gap)).pvalue)
