"""Weights of genes that know what they were made of."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._stats import safe_divide


Cells = Literal["all", "first half", "other half", "crossfit", "train"]


class Weights(eqx.Module):
    """Weights of genes, one row a perturbation or one row for all, with their provenance.

    Metrics take `values`. They are made of the measured side and are constants of every differentiation.

    **Fields:**

    - `values`: not negative, (perts, genes) or (1, genes).
    - `recipe`: name of the recipe; `statistic` and `versus`: what was tested against what.
    - `cells`: which cells of a perturbation were used. `"all"`; `"first half"`, the half that serves as the truth;
        `"other half"`, the half that does not; `"crossfit"`, each half for the truth of the other; `"train"`, cells of
        perturbations that are not scored.
    - `exponent`: the power of the scores; `None` where `target_neff`, the effective number of genes, decided it.
    - `target_masked`: whether the target gene has the weight 0.
    - `perts`: the perturbations whose cells they were made of, in the order of the rows where each has its row.
    - `pool`: further perturbations in what they were compared with.
    """

    values: Float[Array, "rows genes"]
    recipe: str = eqx.field(static=True)
    statistic: str | None = eqx.field(static=True, default=None)
    versus: str | None = eqx.field(static=True, default=None)
    cells: Cells = eqx.field(static=True, default="all")
    exponent: float | None = eqx.field(static=True, default=None)
    target_neff: float | None = eqx.field(static=True, default=None)
    target_masked: bool = eqx.field(static=True, default=False)
    perts: tuple[str, ...] = eqx.field(static=True, default=())
    pool: tuple[str, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        rows = np.shape(self.values)[0]
        if self.perts and rows not in (1, len(self.perts)):
            raise ValueError(
                f"Weights have one row, or one for each of the {len(self.perts)} perturbations; got {rows}."
            )

    def provenance(self) -> dict[str, Any]:
        """All fields but the values, for a report."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "values"}

    def take(self, perts: Sequence[str]) -> "Weights":
        """The rows of these perturbations, in this order; the one row of all stays as it is.

        What they were compared with is kept: the others remain in `pool`.

        **Raises:** `ValueError` for a perturbation that has no row.
        """
        if np.shape(self.values)[0] == 1 and len(self.perts) != 1:
            return self
        row = {name: i for i, name in enumerate(self.perts)}
        absent = [name for name in perts if name not in row]
        if absent:
            raise ValueError(f"There are no weights for {len(absent)} perturbations: {', '.join(absent[:3])}.")
        compared = self.versus in ("rest", "loo")
        pool = tuple(dict.fromkeys((*self.pool, *self.perts))) if compared else self.pool
        values = self.values[np.array([row[name] for name in perts], int)]
        return dataclasses.replace(self, values=values, perts=tuple(perts), pool=pool)


def shared_weights(weights: Weights, *, cells: Cells | None = None) -> Weights:
    r"""One row for all perturbations: the mean of the rows, each scaled to sum to 1.

    Made of training perturbations (`cells="train"`) it holds nothing of those that are scored, so that a training loop
    may see it. Rows of zeros count as nothing; if all are, so is the result.
    """
    values = lax.stop_gradient(weights.values)
    total = jnp.sum(values, axis=1, keepdims=True)
    share = safe_divide(values, jnp.broadcast_to(total, values.shape), otherwise=0.0)
    some = jnp.sum(total > 0, dtype=jnp.int32).astype(values.dtype)
    mean = jnp.sum(share, axis=0, keepdims=True) / jnp.maximum(some, 1)
    return dataclasses.replace(weights, values=mean, cells=weights.cells if cells is None else cells)
