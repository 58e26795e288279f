"""A recipe of gene weights: which statistic, against what, and what becomes of it."""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import as_float_matrix
from ..de import Moments
from ._effective import exponent_for
from ._statistics import gene_scores, Statistic, Variance, Versus
from ._transforms import Fallback, Flat, mask_target, max_norm, min_max, normalise, power, rank01, Total
from ._weights import Cells, Weights


Scale = Literal["min_max", "max", "rank01"]


class WeightRecipe(eqx.Module):
    r"""Weights $w_g = \mathrm{scale}(|t_g|)^e$, normalised; the steps in the order of the fields.

    **Fields:**

    - `name`: the name in a report.
    - `statistic`, `versus`, `variance`: see `gene_scores`.
    - `least_cells`: a perturbation of fewer cells has no scores.
    - `target_masked`: the gene that the perturbation targets does not count.
    - `offset`, `ceiling`: $\min(|t| + \mathrm{offset}, \mathrm{ceiling})$.
    - `scale`: how scores are brought to [0, 1] (`min_max`, `max_norm`, `rank01`); `flat`: see `min_max`.
    - `exponent`, or `target_neff`, the effective number of genes that decides it (`exponent_for`; `shared`: one for all
        perturbations).
    - `to`, `fallback`: see `normalise`.
    - `cells`: the cells that the recipe is meant to be given; see `Weights`.

    `dataclasses.replace(MEJIA, target_masked=True)` is a recipe, too.
    """

    name: str = eqx.field(static=True)
    statistic: Statistic = eqx.field(static=True, default="t_overestim")
    versus: Versus = eqx.field(static=True, default="rest")
    variance: Variance = eqx.field(static=True, default="own")
    least_cells: int = eqx.field(static=True, default=1)
    target_masked: bool = eqx.field(static=True, default=False)
    offset: float = eqx.field(static=True, default=0.0)
    ceiling: float | None = eqx.field(static=True, default=None)
    scale: Scale = eqx.field(static=True, default="min_max")
    flat: Flat = eqx.field(static=True, default="zero")
    exponent: float | None = eqx.field(static=True, default=2.0)
    target_neff: float | None = eqx.field(static=True, default=None)
    shared: bool = eqx.field(static=True, default=False)
    to: Total = eqx.field(static=True, default="sum1")
    fallback: Fallback = eqx.field(static=True, default="uniform")
    cells: Cells = eqx.field(static=True, default="all")

    def __check_init__(self):
        if (self.exponent is None) == (self.target_neff is None):
            raise ValueError(f"Recipe {self.name!r} needs an `exponent` or a `target_neff`, not both.")
        if self.scale not in ("min_max", "max", "rank01"):
            raise ValueError(f'`scale` is "min_max", "max" or "rank01", got {self.scale!r}.')

    def __call__(
        self,
        groups: Moments,
        *,
        control: Moments | None = None,
        pool: Moments | None = None,
        targets: Int[ArrayLike, " perts"] | None = None,
        perts: Sequence[str] = (),
        cells: Cells | None = None,
    ) -> Weights:
        """Weights made of the moments of cells.

        **Arguments:**

        - `groups`, `control`, `pool`: see `gene_scores`.
        - `targets`: index of the gene each perturbation targets, -1 for none; what a recipe that masks it needs.
        - `perts`: names of the perturbations, for the provenance; without them no leak can be ruled out.
        - `cells`: which cells `groups` are made of; what the recipe is meant for by default.

        **Raises:** `ValueError` for shapes that differ and for what the recipe needs and is not given.
        """
        scores = gene_scores(
            groups,
            statistic=self.statistic,
            versus=self.versus,
            control=control,
            pool=pool,
            variance=self.variance,
        )
        enough = lax.stop_gradient(groups.cells) >= self.least_cells
        scores = jnp.where(enough[:, None], scores, jnp.nan)
        return self.from_scores(scores, targets=targets, perts=perts, cells=cells)

    def from_scores(
        self,
        scores: Real[ArrayLike, "perts genes"],
        *,
        targets: Int[ArrayLike, " perts"] | None = None,
        perts: Sequence[str] = (),
        cells: Cells | None = None,
    ) -> Weights:
        r"""Weights made of the sizes $|t|$ of statistics at hand, of the kind the recipe says.

        A gene whose score is not finite gets the weight 0. Arguments and errors as of a call.
        """
        scores = jnp.abs(lax.stop_gradient(as_float_matrix(scores, "scores")))
        if self.target_masked:
            if targets is None:
                raise ValueError(f"Recipe {self.name!r} leaves the target gene out and needs `targets`.")
            scores = mask_target(scores, targets)
        scaled = self._scaled(scores)
        exponent = self.exponent
        if exponent is None:
            assert self.target_neff is not None
            exponent = exponent_for(scaled, self.target_neff, shared=self.shared)
        values = normalise(power(scaled, exponent), self.to, fallback=self.fallback)
        return Weights(
            lax.stop_gradient(values),
            recipe=self.name,
            statistic=self.statistic,
            versus=self.versus,
            cells=self.cells if cells is None else cells,
            exponent=self.exponent,
            target_neff=self.target_neff,
            target_masked=self.target_masked,
            perts=tuple(perts),
        )

    def _scaled(self, scores: Float[Array, "perts genes"]) -> Float[Array, "perts genes"]:
        scores = jnp.where(jnp.isfinite(scores), scores, jnp.nan) + self.offset
        scores = scores if self.ceiling is None else jnp.minimum(scores, self.ceiling)
        if self.scale == "min_max":
            return min_max(scores, flat=self.flat)
        return max_norm(scores) if self.scale == "max" else rank01(scores)
