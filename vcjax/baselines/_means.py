"""Predictions that are the same for all perturbations: no change, and the means that published code calls the mean."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ..metrics import without_targets
from ..references._means import mean_of, means_of_others
from ._fitted import cell_counts, FittedToData, need
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
    source: ClassVar[str] = "Systema (nonctl-mean)"
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


def _scaled(baseline: MeanResponse | CellMean, data: PertData, amount: Float[Array, " perts"]) -> FittedMean:
    scale = jnp.asarray(baseline.scale).astype(data.effects.dtype)
    response, others = scale * mean_of(data.effects, amount), scale * means_of_others(data.effects, amount)
    return FittedMean(data, baseline.name, baseline.fairness, response, others)


def _same_order(perts: Sequence[str], data: PertData) -> np.ndarray:
    return orders(perts, data.perts)[:, None] == orders(data.perts, data.perts)[None, :]
