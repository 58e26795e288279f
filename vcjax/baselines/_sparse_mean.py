"""The mean response with the noise of a technical duplicate: of a few random perturbed cells."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._pseudobulk import bulk_lognorm
from .._stats import safe_divide
from ..calibration import sparse_mean
from ._fitted import cell_counts, FittedToData, named_keys, need
from ._interface import Baseline, Fairness, PertData, Prediction


class FittedSparseMean(FittedToData):
    """Random cells of training perturbations, drawn anew for every label."""

    cells: Float[Array, "cells genes"]
    groups: Int[Array, " cells"]
    size: int = eqx.field(static=True)
    key: Array

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows = self.data.rows(perts)

        def one(args):
            row, draw = args
            inside = (self.groups >= 0) & (self.groups != row)
            return self._mean(inside, jnp.asarray(self.size, jnp.int32), draw)

        # No cell is of the group -2, the place of a label that is not a training perturbation.
        profiles = lax.map(one, (jnp.asarray(np.where(rows < 0, -2, rows)), named_keys(self.key, perts)))
        return self.prediction(perts, profiles - self.data.control[None, :], cells=self.size)

    def leave_one_out(self) -> Prediction | None:
        if self.data.space != "lognorm":
            return None
        perts = self.data.perts
        profiles = sparse_mean(self.cells, self.groups, len(perts), self.key)
        return self.prediction(perts, profiles - self.data.control[None, :], left_out=True, cells="half of each")

    def _mean(self, inside: Bool[Array, " cells"], size: Int[Array, ""], key: Array) -> Float[Array, " genes"]:
        turn = jnp.argsort(jnp.argsort(jnp.where(inside, jax.random.uniform(key, inside.shape), 2.0)))
        chosen = (inside & (turn < size.astype(turn.dtype))).astype(self.cells.dtype)
        total = chosen @ self.cells
        if self.data.space == "bulk_lognorm":
            return bulk_lognorm(total[None, :])[0]
        return safe_divide(total, jnp.broadcast_to(jnp.sum(chosen), total.shape))


class SparseMean(Baseline):
    r"""The mean of a few random perturbed cells: the mean response with the noise of a technical duplicate.

    What it loses against `MeanResponse` is owed to sampling noise alone.

    **Fields:**

    - `cells`: training cells, log-normalised; counts where the profiles are sums of counts (`bulk_lognorm`).
    - `groups`: the training perturbation (row of the data) of each; its own cells are never drawn for it. -1 for a
        cell that takes no part.
    - `size`: how many are drawn; by default half the median number of cells of the training perturbations.
    """

    name: ClassVar[str] = "sparse_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean of as many random perturbed cells as half a perturbation has."
    source: ClassVar[str] = "Miller et al. 2025 (sparse mean)"
    needs: ClassVar[tuple[str, ...]] = ("cells",)

    cells: Float[ArrayLike, "cells genes"] = eqx.field(converter=jnp.asarray)
    groups: Int[ArrayLike, " cells"] = eqx.field(converter=jnp.asarray)
    size: int | None = eqx.field(static=True, default=None)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedSparseMean:
        need(key, "key", "cells are drawn at random", self.name)
        assert key is not None
        cells = jnp.asarray(self.cells).astype(data.effects.dtype)
        groups = jnp.asarray(self.groups).astype(jnp.int32)
        if cells.shape[1:] != data.control.shape or cells.shape[:1] != groups.shape:
            raise ValueError(f"`cells` of {data.control.shape[0]} genes and one group a cell are expected.")
        size = self.size
        if size is None:
            size = max(1, int(np.median(np.asarray(cell_counts(data, self.name)))) // 2)
        return FittedSparseMean(data, self.name, self.fairness, cells, groups, size, key)
