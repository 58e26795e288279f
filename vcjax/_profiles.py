"""Summaries of a screen as arrays: one pseudobulk profile a perturbation, with its sampling noise."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Real

from ._checks import as_float_matrix
from .de import DETable


class Profiles(eqx.Module):
    r"""The pseudobulk of every perturbation of one side (measured or predicted), as a pytree of arrays.

    **Fields:**

    - `mean`: profile of each perturbation, in `space`.
    - `control`: profile of the control cells, in the same space.
    - `cells`: number of cells behind each profile.
    - `noise`: estimated sampling noise $\mathbb{E}\lVert\bar x_p - \mathbb{E}\bar x_p\rVert^2$ of each profile, either
        summed over genes or gene by gene.
    - `control_noise`: the same for the control profile.
    - `targets`: index of the gene that each perturbation targets; -1 where it targets none of the measured genes.
    - `target_sum`: the library size that the normalisation scaled to.
    - `de`: differential expression of each perturbation against the control cells.
    - `energy`: energy distance of each perturbation's cells from the control cells.
    - `train_mean`: the mean profile of training perturbations, of the measured side: what metrics measure from that
        take the shared response out. Without it they take the mean of the panel's other perturbations.
    - `space`: `"lognorm"` (mean of log1p-normalised cells), `"bulk_lognorm"` (log1p of the normalised group sum) or
        `"delta"` (effects that were given as such).

    Fields that a producer of profiles does not know may be `None`; a metric that needs one says so.
    """

    mean: Float[Array, "perts genes"]
    control: Float[Array, " genes"]
    cells: Float[Array, " perts"] | None = None
    noise: Float[Array, " perts"] | Float[Array, "perts genes"] | None = None
    control_noise: Float[Array, ""] | Float[Array, " genes"] | None = None
    targets: Int[Array, " perts"] | None = None
    target_sum: Float[Array, ""] | None = None
    de: DETable | None = None
    energy: Float[Array, " perts"] | None = None
    train_mean: Float[Array, " genes"] | Float[Array, "perts genes"] | None = None
    space: str = eqx.field(static=True, default="lognorm")

    def total_noise(self) -> Float[Array, " perts"]:
        """The sampling noise of each profile, summed over genes."""
        if self.noise is None:
            raise ValueError("These profiles carry no sampling noise: summarise the cells with `noise=True`.")
        return self.noise if self.noise.ndim == 1 else self.noise.sum(axis=1)

    def total_control_noise(self) -> Float[Array, ""]:
        """The sampling noise of the control profile, summed over genes."""
        if self.control_noise is None:
            raise ValueError("These profiles carry no sampling noise of the control: summarise with `noise=True`.")
        return self.control_noise.sum()

    def with_mean(self, mean: Real[ArrayLike, "perts genes"]) -> "Profiles":
        """Profiles with this control, these targets and this space, but another mean and no noise.

        What a model that emits pseudobulk uses to stand beside the measured side: `real.with_mean(model(...))`.
        """
        mean = as_float_matrix(mean, "mean")
        if mean.shape != self.mean.shape:
            raise ValueError(f"A mean of shape {self.mean.shape} is expected, got {mean.shape}.")
        return Profiles(
            mean, self.control.astype(mean.dtype), targets=self.targets, target_sum=self.target_sum, space=self.space
        )

    def take(self, rows: Int[ArrayLike, " taken"]) -> "Profiles":
        """The profiles of these perturbations, in this order; works under `jit`, as a minibatch does."""
        rows = jnp.asarray(rows)
        of_perts = ("mean", "cells", "noise", "targets", "energy")
        taken = {name: getattr(self, name)[rows] for name in of_perts if getattr(self, name) is not None}
        if self.de is not None:
            taken["de"] = self.de.take(rows)
        if self.train_mean is not None and self.train_mean.ndim == 2:
            taken["train_mean"] = self.train_mean[rows]
        return dataclasses.replace(self, **taken)


def effects_as_profiles(
    effects: Real[ArrayLike, "perts genes"], *, targets: Int[ArrayLike, " perts"] | None = None
) -> Profiles:
    """Effects that were given as such, as profiles over a control of zero."""
    mean = as_float_matrix(effects, "effects")
    targets = jnp.full(mean.shape[0], -1) if targets is None else jnp.asarray(targets)
    return Profiles(mean, jnp.zeros_like(mean[0]), targets=targets, space="delta")
