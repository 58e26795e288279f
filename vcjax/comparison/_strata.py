"""Strata of difficulty: the same number for perturbations of a kind."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from ._bootstrap import confidence_interval
from ._interval import Method
from ._statistics import as_values, mean, Statistic


class Strata(eqx.Module):
    """Which stratum each perturbation is in.

    **Fields:** `codes`, from 0 for the lowest, -1 where the measure is undefined; `edges`, between the strata, each the
    lowest value of the stratum above it; `name`, of the measure.
    """

    codes: Int[Array, " perts"]
    edges: Float[Array, " edges"]
    name: str = eqx.field(static=True, default="")

    @property
    def size(self) -> int:
        """The number of strata."""
        return self.edges.shape[0] + 1

    def labels(self) -> tuple[str, ...]:
        """`< 0.1`, `0.1 to 0.5`, `>= 0.5`; on the host."""
        edges = [f"{x:.3g}" for x in np.asarray(self.edges)]
        if not edges:
            return ("all",)
        between = [f"{low} to {high}" for low, high in zip(edges, edges[1:], strict=False)]
        return (f"< {edges[0]}", *between, f">= {edges[-1]}")


class StratumTable(eqx.Module):
    """A statistic with its interval in every stratum, from the lowest; NaN where a stratum is empty.

    **Fields:** `estimate`, `low`, `high`, `used` (perturbations with a value), and the strata.
    """

    estimate: Float[Array, " strata"]
    low: Float[Array, " strata"]
    high: Float[Array, " strata"]
    used: Int[Array, " strata"]
    strata: Strata

    def rows(self) -> list[dict[str, str | float | int]]:
        """One dictionary a stratum, for a table; on the host."""
        columns = {name: np.asarray(getattr(self, name)) for name in ("estimate", "low", "high", "used")}
        numbers = [{name: column[i].item() for name, column in columns.items()} for i in range(self.strata.size)]
        return [
            {"measure": self.strata.name, "stratum": label, **row}
            for label, row in zip(self.strata.labels(), numbers, strict=True)
        ]


def stratify(
    measure: Real[ArrayLike, " perts"],
    *,
    strata: int = 3,
    edges: Real[ArrayLike, " edges"] | None = None,
    name: str = "",
) -> Strata:
    """Sorts perturbations into strata by a measure of difficulty (see `effect_size` and its neighbours).

    **Arguments:**

    - `strata`: how many, with about equal numbers of perturbations: the edges are quantiles of the defined values.
        Equal values stay together, so that a measure with many ties (counts of genes) can leave a stratum empty.
    - `edges`: the values between the strata instead, ascending; a value on an edge belongs above it.

    **Raises:** `ValueError` for fewer than one stratum and for edges on the host that do not ascend.
    """
    measure = as_values(measure, "measure")
    if edges is None:
        if strata < 1:
            raise ValueError(f"`strata` must be at least 1, got {strata}.")
        known = jnp.where(jnp.isfinite(measure), measure, jnp.nan)
        cuts = [jnp.nanquantile(known, i / strata) for i in range(1, strata)]
        cuts = jnp.stack(cuts) if cuts else jnp.zeros(0, measure.dtype)
    else:
        cuts = jnp.asarray(edges).astype(measure.dtype)
        if not isinstance(edges, jax.Array) and np.any(np.diff(np.asarray(edges)) <= 0):
            raise ValueError(f"`edges` must ascend, got {np.asarray(edges).tolist()}.")
    codes = jnp.searchsorted(cuts, measure, side="right").astype(jnp.int32)
    return Strata(jnp.where(jnp.isfinite(measure), codes, -1), cuts, name)


def stratum_table(
    values: Real[ArrayLike, " perts *columns"],
    strata: Strata,
    *,
    key: jax.Array,
    statistic: Statistic = mean,
    samples: int = 1000,
    level: float = 0.95,
    method: Method = "bca",
) -> StratumTable:
    """The statistic of each stratum with its bootstrap interval.

    A score that ranks perturbations keeps the candidates of the whole panel. Arguments as of `confidence_interval`;
    with `statistic=difference_of(mean)` and the values of two models on the last axis, where one model is ahead.

    **Raises:** `ValueError` for another number of perturbations than the strata have.
    """
    values = as_values(values)
    if values.shape[0] != strata.codes.shape[0]:
        raise ValueError(f"There are {values.shape[0]} values and {strata.codes.shape[0]} perturbations in strata.")

    def one(code, key):
        inside = strata.codes == code
        found = confidence_interval(
            values, key=key, statistic=statistic, where=inside, samples=samples, level=level, method=method
        )
        return found.estimate, found.low, found.high, found.used

    columns = jax.vmap(one)(jnp.arange(strata.size, dtype=jnp.int32), jax.random.split(key, strata.size))
    estimate, low, high, used = cast(tuple[Array, Array, Array, Array], columns)
    return StratumTable(estimate, low, high, used, strata)
