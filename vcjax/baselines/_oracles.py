"""Oracles: predictions that have seen cells of what they predict. They place a metric's scale and never compete."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ..calibration import empirical_bayes_duplicate, interpolated_duplicate
from ._fitted import FittedToData, gathered, need
from ._interface import Baseline, Fairness, Fitted, mean_response, PertData, Prediction, rows_of
from ._means import MeanResponse


class FittedDuplicate(FittedToData):
    """What replicates predict, each label by its own."""

    effects: Float[Array, "rows genes"]
    names: tuple[str, ...] = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows = rows_of(perts, self.names)
        return self.prediction(perts, gathered(self.effects, rows), rows >= 0)


class TechnicalDuplicate(Baseline):
    """The effect of each perturbation in a replicate: other cells of the same perturbation, against their own control.

    Against a truth of the same size its expected squared error is twice the sampling noise of either.

    **Fields:** `replicate`, on the same genes; a perturbation that it lacks is not covered.
    """

    name: ClassVar[str] = "technical_duplicate"
    fairness: ClassVar[Fairness] = "oracle"
    summary: ClassVar[str] = "Oracle: the same perturbation in other cells."
    source: ClassVar[str] = "Mejia et al. 2025; Miller et al. 2025 (technical duplicate)"
    needs: ClassVar[tuple[str, ...]] = ("replicate",)

    replicate: PertData

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedDuplicate:
        effects = _beside(self.replicate, data, self.name)
        return FittedDuplicate(data, self.name, self.fairness, effects, self.replicate.perts)


class InterpolatedDuplicate(Baseline):
    """A replicate where its own cells differ significantly, the mean response elsewhere.

    **Fields:** `replicate`; `log_padj`, of its genes, as of `vcjax.calibration.interpolated_duplicate`, which this is.
    """

    name: ClassVar[str] = "interpolated_duplicate"
    fairness: ClassVar[Fairness] = "oracle"
    summary: ClassVar[str] = "Oracle: a replicate where it is significant, the mean response elsewhere."
    source: ClassVar[str] = "Miller et al. 2025 (interpolated duplicate)"
    needs: ClassVar[tuple[str, ...]] = ("replicate",)

    replicate: PertData
    log_padj: Float[ArrayLike, "rows genes"] = eqx.field(converter=jnp.asarray)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedDuplicate:
        effects = _beside(self.replicate, data, self.name)
        found = interpolated_duplicate(effects, mean_response(data), jnp.asarray(self.log_padj).astype(effects.dtype))
        return FittedDuplicate(data, self.name, self.fairness, found, self.replicate.perts)


class EmpiricalBayesDuplicate(Baseline):
    """A replicate shrunk towards the mean response as far as its sampling noise asks for.

    **Fields:** `replicate`, with its noise gene by gene, as `vcjax.calibration.empirical_bayes_duplicate` needs it.
    """

    name: ClassVar[str] = "empirical_bayes_duplicate"
    fairness: ClassVar[Fairness] = "oracle"
    summary: ClassVar[str] = "Oracle: a replicate shrunk towards the mean response by its sampling noise."
    source: ClassVar[str] = "here; normal means with one variance a perturbation"
    needs: ClassVar[tuple[str, ...]] = ("replicate",)

    replicate: PertData

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedDuplicate:
        effects, noise = _beside(self.replicate, data, self.name), self.replicate.noise
        if noise is None or noise.ndim != 2:
            raise ValueError(f"The baseline {self.name!r} needs the `noise` of its replicate gene by gene.")
        found = empirical_bayes_duplicate(effects, mean_response(data), noise.astype(effects.dtype))
        return FittedDuplicate(data, self.name, self.fairness, found, self.replicate.perts)


class FittedOracleScale(FittedToData):
    """Predictions whose size, but not direction, is told by the truth."""

    inner: Fitted
    truth: Float[Array, "rows genes"]
    names: tuple[str, ...] = eqx.field(static=True)
    scale: Literal["own", "others"] = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        found = self.inner.predict(perts)
        rows = rows_of(perts, self.names)
        known = jnp.asarray(rows >= 0)
        product = jnp.where(known, jnp.sum(found.effect * gathered(self.truth, rows), axis=1), 0)
        square = jnp.where(known, jnp.sum(found.effect * found.effect, axis=1), 0)
        if self.scale == "others":
            product, square = jnp.sum(product) - product, jnp.sum(square) - square
        scale = safe_divide(product, square, 1.0)[:, None]
        return self.prediction(perts, scale * found.effect, rows >= 0, of=found.baseline, scale=self.scale)


class OracleScaled(Baseline):
    r"""The prediction of another baseline, scaled as fits the truth: what is lost by direction alone.

    $a_p = \langle \hat y_p, y_p \rangle / \lVert \hat y_p \rVert^2$ with `scale="own"`, the best that any scale can do;
    with `"others"` the one number $\sum_{q \neq p} \langle \hat y_q, y_q \rangle / \sum_{q \neq p} \lVert \hat y_q
    \rVert^2$ of the other predicted perturbations. What the baseline itself scores less than this is owed to its size.

    **Fields:** `truth`, the measured effects, on the same genes; `inner`, the baseline, `MeanResponse` by default;
    `scale`.
    """

    name: ClassVar[str] = "oracle_scaled"
    fairness: ClassVar[Fairness] = "oracle"
    summary: ClassVar[str] = "Oracle: another baseline (the mean response), scaled as fits the truth."
    source: ClassVar[str] = "here; least squares"
    needs: ClassVar[tuple[str, ...]] = ("truth",)

    truth: PertData
    inner: Baseline | None = None
    scale: Literal["own", "others"] = eqx.field(static=True, default="own")

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedOracleScale:
        if self.scale not in ("own", "others"):
            raise ValueError(f'`scale` is "own" or "others", got {self.scale!r}.')
        inner = (self.inner or MeanResponse()).fit(data, external=external, key=key)
        effects = _beside(self.truth, data, self.name)
        return FittedOracleScale(data, self.name, self.fairness, inner, effects, self.truth.perts, self.scale)


class FittedSpan(FittedToData):
    """The span of the training effects, and the truth to be projected on it."""

    truth: Float[Array, "rows genes"]
    names: tuple[str, ...] = eqx.field(static=True)
    ridge: Float[Array, ""]

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows = rows_of(perts, self.names)
        basis = self.data.effects
        multiply = lambda a, b: jnp.matmul(a, b, precision="highest")
        gram = multiply(basis, basis.T)
        size = jnp.trace(gram) / gram.shape[0]
        gram = gram + jnp.diag(jnp.broadcast_to(self.ridge * jnp.where(size > 0, size, 1), gram.shape[:1]))
        truth = gathered(self.truth, rows)
        weights = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), multiply(basis, truth.T))
        return self.prediction(perts, multiply(weights.T, basis), rows >= 0)


class BestLinearSpan(Baseline):
    r"""The truth, projected on what the training effects span: the upper bound of every linear smoother.

    $\hat y_p = \arg\min \lVert y_p - \sum_o a_o y_o \rVert^2$. Kernel ridge, neighbours, means and sums all predict
    within this span, so that their squared error cannot be smaller.

    **Fields:** `truth`, the measured effects, on the same genes; `ridge`, relative to the mean square of the training
    effects, keeps linearly dependent ones from making the equations singular; by default 1000 times the precision.
    """

    name: ClassVar[str] = "best_linear_span"
    fairness: ClassVar[Fairness] = "oracle"
    summary: ClassVar[str] = "Oracle: the truth, projected on the span of the training effects."
    source: ClassVar[str] = "here; least squares"
    needs: ClassVar[tuple[str, ...]] = ("truth",)

    truth: PertData
    ridge: Float[ArrayLike, ""] | None = eqx.field(
        converter=lambda x: None if x is None else jnp.asarray(x), default=None
    )

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedSpan:
        effects = _beside(self.truth, data, self.name)
        ridge = 1e3 * float(jnp.finfo(effects.dtype).eps) if self.ridge is None else self.ridge
        ridge = jnp.asarray(ridge).astype(effects.dtype)
        return FittedSpan(data, self.name, self.fairness, effects, self.truth.perts, ridge)


def _beside(other: PertData, data: PertData, baseline: str) -> Float[Array, "rows genes"]:
    """The effects of what an oracle has seen, which must be on the genes of the data.

    **Raises:** `ValueError` where they are not.
    """
    need(other, "replicate", "cells of the perturbations that are predicted", baseline)
    named = bool(data.genes) and bool(other.genes)
    if other.effects.shape[1] != data.effects.shape[1] or (named and other.genes != data.genes):
        raise ValueError(
            f"The baseline {baseline!r} needs the same {data.effects.shape[1]} genes in the same order, got "
            f"{other.effects.shape[1]}{' others' if named else ''}."
        )
    return other.effects.astype(data.effects.dtype)
