"""Predictions that are the same for all perturbations: no change, and the means that published code calls the mean."""

import zlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._pseudobulk import bulk_lognorm
from .._stats import safe_divide
from ..calibration import sparse_mean
from ..metrics import without_targets
from ..references._means import mean_of, means_of_others
from ._fitted import FittedToData, need
from ._interface import Baseline, Fairness, PertData, Prediction
from ._members import orders


class FittedMean(FittedToData):
    """One response for every perturbation, and the one that each training perturbation leaves behind."""

    response: Float[Array, " genes"]
    others: Float[Array, "perts genes"]

    def predict(self, perts: Sequence[str]) -> Prediction:
        return self.prediction(perts, jnp.broadcast_to(self.response[None, :], (len(perts), *self.response.shape)))

    def leave_one_out(self) -> Prediction:
        return self.prediction(self.data.perts, self.others, left_out=True)


class NoChange(Baseline):
    """Every perturbation leaves the cells as the control cells are: an effect of zero."""

    name: ClassVar[str] = "control"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "No change: the control profile."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (no change)"
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        nothing = jnp.zeros_like(data.effects)
        return FittedMean(data, self.name, self.fairness, jnp.zeros_like(data.control), nothing)


class MeanResponse(Baseline):
    r"""The mean effect of the training perturbations, each counting alike: $s \cdot \frac1n \sum_p y_p$.

    **Fields:** `scale`, the $s$: 1 is the mean itself.
    """

    name: ClassVar[str] = "mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean effect of the training perturbations, each counting alike."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (mean); Miller et al. 2025 (dataset mean)"
    needs: ClassVar[tuple[str, ...]] = ()

    scale: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        return _scaled(self, data, jnp.ones_like(data.effects[:, 0]))


class CellMean(Baseline):
    r"""The mean perturbed cell: $s\,\big(\sum_p n_p x_p / \sum_p n_p - c\big)$.

    Strong perturbations of which few cells survive count less than in `MeanResponse`.

    **Fields:** `scale`, the $s$.
    """

    name: ClassVar[str] = "cell_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean of all perturbed training cells."
    source: ClassVar[str] = "Systema (nonctl-mean); PerturBench (Average of a single perturbation)"
    needs: ClassVar[tuple[str, ...]] = ()

    scale: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        return _scaled(self, data, cell_counts(data, self.name))


class MeanWithControl(Baseline):
    r"""The mean of profiles with the control's among them: an effect of $\frac{1}{n+1} \sum_p y_p$.

    The factor $n/(n+1)$ against `MeanResponse` is small, and it is what the challenge of 2025 scored against.
    """

    name: ClassVar[str] = "mean_with_control"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean of the training profiles, the control counting as one of them."
    source: ClassVar[str] = "cell-eval 0.8.2 (build_base_mean_adata)"
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        n = data.effects.shape[0]
        total = jnp.sum(data.effects, axis=0)
        others = (total[None, :] - data.effects) / n
        return FittedMean(data, self.name, self.fairness, total / (n + 1), others)


class GenericResponse(Baseline):
    r"""The mean response without the knock-downs themselves: for gene $g$, the mean of $y_{pg}$ over perturbations that
    do not target $g$.

    In plain means a perturbation's own target is lowered in what is predicted for all, which tells perturbations apart
    that the prediction knows nothing of. A gene that all training perturbations target is NaN.

    **Fields:** `space`: `"log"` averages profiles as they are, `"counts"` their `expm1`.
    """

    name: ClassVar[str] = "generic_response"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean effect on each gene of the perturbations that do not target it."
    source: ClassVar[str] = "cell-eval2 0.20.0 (generic response, there made of the scored perturbations)"
    needs: ClassVar[tuple[str, ...]] = ("targets",)

    space: Literal["log", "counts"] = eqx.field(static=True, default="log")

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        need(data.targets, "targets", "the gene that each training perturbation targets", self.name)
        assert data.targets is not None
        counts = without_targets(data.targets, data.effects.shape[1]).astype(data.effects.dtype)
        control = data.control[None, :]
        values = data.effects if self.space == "log" else jnp.expm1(control + data.effects)
        total, number = jnp.sum(counts * values, axis=0, keepdims=True), jnp.sum(counts, axis=0, keepdims=True)
        mean, others = safe_divide(total, number), safe_divide(total - counts * values, number - counts)
        if self.space == "counts":
            mean, others = jnp.log1p(mean) - control, jnp.log1p(jnp.maximum(others, 0)) - control
        return FittedMean(data, self.name, self.fairness, mean[0], others)


class FittedOrderMean(FittedToData):
    """The cell-weighted mean of the training perturbations of each order."""

    def predict(self, perts: Sequence[str]) -> Prediction:
        return self._mean_of(perts, _same_order(perts, self.data))

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        return self._mean_of(perts, _same_order(perts, self.data) & ~np.eye(len(perts), dtype=bool), left_out=True)

    def _mean_of(self, perts: Sequence[str], used: np.ndarray, *, left_out: bool = False) -> Prediction:
        amount = jnp.asarray(used).astype(self.data.effects.dtype) * cell_counts(self.data, self.baseline)[None, :]
        effect = jax.vmap(lambda row: mean_of(self.data.effects, row))(amount)
        covered = used.any(axis=1)
        effect = jnp.where(jnp.asarray(covered)[:, None], effect, 0)
        return self.prediction(perts, effect, covered, left_out=left_out)


class OrderMean(Baseline):
    """The mean perturbed training cell of the same order: singles from singles, doubles from doubles.

    A label of an order that no training perturbation has is not covered.
    """

    name: ClassVar[str] = "order_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean perturbed cell of the same order: singles from singles, doubles from doubles."
    source: ClassVar[str] = "TxPert (global mean delta of an unseen perturbation)"
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedOrderMean:
        cell_counts(data, self.name)
        return FittedOrderMean(data, self.name, self.fairness)


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


def named_keys(key: Array, names: Sequence[str]) -> Array:
    """A random key for each name, the same whatever the others are."""
    # A digest of the name, since Python's own hash differs between processes.
    words = jnp.asarray(np.array([zlib.crc32(name.encode()) for name in names], np.uint32))
    return jax.vmap(lambda word: jax.random.fold_in(key, word))(words)


def cell_counts(data: PertData, baseline: str) -> Float[Array, " perts"]:
    """The number of cells of each training perturbation.

    **Raises:** `ValueError` where it is not known.
    """
    need(data.cells, "cells", "the number of cells of each training perturbation", baseline)
    return jnp.asarray(data.cells).astype(data.effects.dtype)


def _scaled(baseline: MeanResponse | CellMean, data: PertData, amount: Float[Array, " perts"]) -> FittedMean:
    scale = jnp.asarray(baseline.scale).astype(data.effects.dtype)
    response, others = scale * mean_of(data.effects, amount), scale * means_of_others(data.effects, amount)
    return FittedMean(data, baseline.name, baseline.fairness, response, others)


def _same_order(perts: Sequence[str], data: PertData) -> np.ndarray:
    return orders(perts, data.perts)[:, None] == orders(data.perts, data.perts)[None, :]
