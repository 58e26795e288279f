"""The mean response with what is known beforehand: what a CRISPR perturbation does to its own target."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ..metrics import knockdown_efficiency
from ._fitted import FittedToData, need
from ._interface import Baseline, Fairness, mean_response, PertData, Prediction
from ._members import target_mask


Mode = Literal["knock_out", "interference", "activation"]


class FittedCrisprMean(FittedToData):
    """The mean response, and the share of its target's expression that a perturbation takes away."""

    efficiency: Float[Array, ""]
    others: Float[Array, " perts"]
    fold: Float[Array, ""]
    mode: Mode = eqx.field(static=True)
    space: Literal["log", "counts"] = eqx.field(static=True)
    target_map: tuple[tuple[str, str | None], ...] = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        mean = jnp.broadcast_to(mean_response(self.data)[None, :], (len(perts), *self.data.control.shape))
        return self._overwritten(perts, mean, self.efficiency[None], left_out=False)

    def leave_one_out(self) -> Prediction:
        return self._overwritten(self.data.perts, self.mean_of_others(), self.others, left_out=True)

    def _overwritten(
        self,
        perts: Sequence[str],
        mean: Float[Array, "perts genes"],
        efficiency: Float[Array, "#perts"],
        *,
        left_out: bool,
    ) -> Prediction:
        mask = target_mask(perts, self.data, dict(self.target_map))
        amount = self.data.control if self.space == "log" else jnp.expm1(self.data.control)
        share = {"knock_out": jnp.zeros_like(efficiency), "activation": self.fold[None]}.get(self.mode, 1 - efficiency)
        left = share[:, None] * amount[None, :]
        profile = left if self.space == "log" else jnp.log1p(jnp.maximum(left, 0))
        # A knock-down that no training perturbation shows is not known, and says nothing.
        mask = mask & jnp.isfinite(share)[:, None]
        effect = jnp.where(mask, jnp.where(mask, profile, 0) - self.data.control[None, :], mean)
        found = self.prediction(perts, effect, left_out=left_out, mode=self.mode)
        return dataclasses.replace(found, covered=jnp.any(mask, axis=1))


class CrisprMean(Baseline):
    r"""The mean response, with the target gene as the experiment leaves it: nothing of it after a knock-out,
    $(1 - \eta)\,c_g$ after interference, $f c_g$ after activation.

    A perturbation that targets no measured gene is not covered and gets the mean response; nor is any where no training
    perturbation shows a knock-down to take the mean of.

    **Fields:**

    - `mode`: `"knock_out"`, `"interference"` or `"activation"`.
    - `efficiency`: the $\eta$ of interference; by default the mean knock-down of the training perturbations, of those
        targets that the control expresses.
    - `fold`: the $f$ of activation.
    - `space`: whether these act on the profile as it is (`"log"`) or on its `expm1` (`"counts"`).
    - `target_map`: `(label, gene)` for labels that are not names of genes.
    """

    name: ClassVar[str] = "crispr_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean response with the target gene knocked down (or out, or up)."
    source: ClassVar[str] = "Wong et al. 2025 (CRISPR-informed mean)"
    needs: ClassVar[tuple[str, ...]] = ("targets",)

    mode: Mode = eqx.field(static=True, default="interference")
    efficiency: Float[ArrayLike, ""] | None = eqx.field(
        converter=lambda x: None if x is None else jnp.asarray(x), default=None
    )
    fold: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=2.0)
    space: Literal["log", "counts"] = eqx.field(static=True, default="log")
    target_map: tuple[tuple[str, str | None], ...] = eqx.field(static=True, default=())

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedCrisprMean:
        if self.mode not in ("knock_out", "interference", "activation"):
            raise ValueError(f'`mode` is "knock_out", "interference" or "activation", got {self.mode!r}.')
        dtype = data.effects.dtype
        if self.mode == "interference" and self.efficiency is None:
            efficiency, others = self._measured(data)
        else:
            given = 0.0 if self.efficiency is None else self.efficiency
            efficiency = jnp.asarray(given).astype(dtype)
            others = jnp.broadcast_to(efficiency, data.effects.shape[:1])
        fold = jnp.asarray(self.fold).astype(dtype)
        return FittedCrisprMean(
            *(data, self.name, self.fairness, efficiency, others, fold), self.mode, self.space, self.target_map
        )

    def _measured(self, data: PertData) -> tuple[Float[Array, ""], Float[Array, " perts"]]:
        """The mean knock-down of the training perturbations, and that of the others of each."""
        need(data.targets, "targets", "the gene that each training perturbation targets", self.name)
        assert data.targets is not None
        profile, targets = data.control[None, :] + data.effects, data.targets
        if self.space == "counts":
            found = knockdown_efficiency(profile, targets, reference=data.control)
        else:
            place = jnp.maximum(targets, 0)[:, None]
            after = jnp.take_along_axis(profile, place, axis=1)[:, 0]
            before = data.control[place[:, 0]]
            found = 1 - safe_divide(after, jnp.where((targets >= 0) & (before > 0), before, 0))
        known = jnp.isfinite(found)
        values = jnp.where(known, found, 0)
        number, total = jnp.sum(known).astype(values.dtype), jnp.sum(values)
        return safe_divide(total, number), safe_divide(total - values, number - known.astype(values.dtype))
