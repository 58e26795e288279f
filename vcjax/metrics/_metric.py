"""What a metric is: a function of two sets of profiles, and the facts a report, a loss and a test need of it."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._profiles import effects_as_profiles, Profiles
from .._relax import HARD, Relaxation
from .._types import GeneMask, GeneWeights, PertsGenes
from ._bank import Bank


Differentiable = Literal["smooth", "almost everywhere", "relaxed", "constant"]
Level = Literal["perturbation", "panel"]


class Metric(eqx.Module):
    """One row of the catalogue.

    Calling it gives the exact score; calling it with a `Relaxation` gives the same lines, smoothed.

    **Fields:**

    - `name`: the column of a report, e.g. `pds_l1`.
    - `function`: `(pred: Profiles, real: Profiles, *, relax, weights, where, valid) -> values`, one value a
        perturbation, or one number for a `panel` metric.
    - `summary`: what it measures, in one sentence; `formula`: how, in one line.
    - `perfect`, `no_skill`, `worst`: the value of a perfect prediction, of an uninformative one, and the bound on the
        bad side; `None` where there is none. `perfect` of an error is 0, of a score 1.
    - `higher_is_better`: `None` for a diagnostic that has no good direction.
    - `differentiable`: in the prediction; `relaxed` means that it needs a `Relaxation` to have a gradient.
    - `level`: `panel` if it is a single number of all perturbations together.
    - `status`: `(pred, real, *, weights, where) -> codes`, why a value is undefined (see `Status`); `None` if it never
        is.
    - `needs_noise`, `needs_weights`, `needs_targets`, `needs_de`, `needs_energy`: what it cannot do without; a metric
        that needs tables of differential expression, or energy distances, reads those of both sides. `needs_real_de`:
        the table of the measured side only.
    - `takes_bank`: it compares with measured perturbations that a `Bank` can give, in the place of those of the batch.
    - `source`: where the definition comes from (paper and equation, or package and version).
    - `v1`, `v2`: its names in cell-eval and in cell-eval2, where they have it.
    - `notes`: conventions, degenerate cases and how it can be gamed.
    """

    name: str = eqx.field(static=True)
    function: Callable[..., Float[Array, "..."]] = eqx.field(static=True)
    summary: str = eqx.field(static=True)
    formula: str = eqx.field(static=True)
    perfect: float | None = eqx.field(static=True)
    higher_is_better: bool | None = eqx.field(static=True)
    differentiable: Differentiable = eqx.field(static=True)
    source: str = eqx.field(static=True)
    no_skill: float | None = eqx.field(static=True, default=None)
    worst: float | None = eqx.field(static=True, default=None)
    level: Level = eqx.field(static=True, default="perturbation")
    status: Callable[..., Int[Array, " perts"]] | None = eqx.field(static=True, default=None)
    needs_noise: bool = eqx.field(static=True, default=False)
    needs_weights: bool = eqx.field(static=True, default=False)
    needs_targets: bool = eqx.field(static=True, default=False)
    needs_de: bool = eqx.field(static=True, default=False)
    needs_energy: bool = eqx.field(static=True, default=False)
    needs_real_de: bool = eqx.field(static=True, default=False)
    takes_bank: bool = eqx.field(static=True, default=False)
    v1: str | None = eqx.field(static=True, default=None)
    v2: str | None = eqx.field(static=True, default=None)
    notes: str = eqx.field(static=True, default="")

    def __call__(
        self,
        pred: Profiles | PertsGenes,
        real: Profiles | PertsGenes,
        *,
        relax: Relaxation = HARD,
        weights: GeneWeights = None,
        where: GeneMask = None,
        valid: Bool[ArrayLike, " perts"] | None = None,
        bank: Bank | None = None,
    ) -> Float[Array, "..."]:
        """The value for each perturbation (or for the panel), NaN where it is undefined.

        Plain arrays (perts, genes) stand for effects on the measured side, and on the predicted side for the means of
        profiles in the space of `real`.

        **Arguments:**

        - `weights`, `where`: gene weights and genes that count, for the metrics that take them.
        - `valid`: perturbations that count; the others are padding: no candidate, and NaN.
        - `bank`: the candidates of metrics that rank, by default the perturbations of `real`; others take none.

        **Raises:** `ValueError` for shapes that differ, and for what the metric needs and the profiles lack.
        """
        if not isinstance(real, Profiles):
            real = effects_as_profiles(real)
        if not isinstance(pred, Profiles):
            pred = real.with_mean(pred)
        if pred.mean.shape != real.mean.shape:
            raise ValueError(f"Both sides need one shape (perts, genes), got {pred.mean.shape} and {real.mean.shape}.")
        if self.needs_weights and weights is None:
            raise ValueError(f"`{self.name}` needs `weights`: (genes,) or (perts, genes), not negative.")
        if self.needs_targets and real.targets is None:
            raise ValueError(f"`{self.name}` leaves target genes out and needs `targets` in the measured profiles.")
        self._check_tables(pred, real)
        among = {"bank": bank} if self.takes_bank and bank is not None else {}
        values = self.function(pred, real, relax=relax, weights=weights, where=where, valid=valid, **among)
        if valid is None or values.ndim == 0:
            return values
        return jnp.where(jnp.asarray(valid), values, jnp.nan)

    def _check_tables(self, pred: Profiles, real: Profiles) -> None:
        for side, profiles in {"predicted": pred, "measured": real}.items():
            wanted = self.needs_de or (self.needs_real_de and profiles is real)
            if wanted and profiles.de is None:
                raise ValueError(
                    f"`{self.name}` compares differential expression, and the {side} profiles have no table of it: "
                    "give them one with `de=DETable(...)`."
                )
            if self.needs_energy and profiles.energy is None:
                raise ValueError(
                    f"`{self.name}` compares energy distances, and the {side} profiles have none: give them with "
                    "`energy=`."
                )
