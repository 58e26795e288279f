"""What makes each perturbation of a measured screen hard, as far as its summary tells."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import comparison
from .._profiles import Profiles
from .._stats import effect


INDICATORS = {
    "effect_size": "effect size (mean squared effect less its noise)",
    "effect_size_uncorrected": "effect size with its noise (mean squared effect)",
    "significant_genes": "significant genes (number)",
    "cells": "cells (number)",
    "target_expression": "expression of the target gene in control cells",
    "systematic_share": "share of the effect along the mean effect of the others",
    "nearest_training": "cosine with the nearest training effect",
}
"""What the indicators of `difficulty` are, for axes and tables."""


def difficulty(
    real: Profiles,
    *,
    cells: Real[ArrayLike, " perts"] | None = None,
    alpha: float = 0.05,
    train: Real[ArrayLike, "train genes"] | None = None,
    same: Bool[ArrayLike, "perts train"] | None = None,
) -> dict[str, np.ndarray]:
    """Indicators of difficulty by name, one number a perturbation: those that the measured side allows, and no others.

    - `effect_size`: mean squared effect less the sampling noise of profile and control; NaN below two cells, whose
        noise nobody knows. Without noise it is `effect_size_uncorrected`, which few cells make larger.
    - `significant_genes`: with a table of differential expression.
    - `cells`; `target_expression`: in the control cells, where targets are known and the profiles are no bare effects.
    - `systematic_share`: of the effect along the mean of the others, with two perturbations at least.
    - `nearest_training`: with `train`.

    An indicator that is NaN for every perturbation is left out. `vcjax.comparison.stratify` sorts by any of them.

    **Arguments:**

    - `real`: measured profiles. `cells`: behind each, where the profiles do not say.
    - `alpha`: below which an adjusted p-value is significant.
    - `train`, `same`: effects of training perturbations, and pairs to leave out; as of
        `vcjax.comparison.nearest_training`.

    **Raises:** `ValueError` for numbers of cells or training effects that do not fit the profiles.
    """
    perts = real.mean.shape[0]
    number = real.cells if cells is None else jnp.asarray(cells)
    if number is not None and number.shape != (perts,):
        raise ValueError(f"`cells` must have shape {(perts,)}, got {number.shape}.")
    effects = effect(real.mean, real.control)
    found = _size(real, number)
    if real.de is not None:
        found["significant_genes"] = comparison.significant_genes(real.de, alpha=alpha)
    if number is not None:
        found["cells"] = number
    if real.targets is not None and real.space != "delta":
        found["target_expression"] = comparison.target_expression(real.control, real.targets)
    if perts > 1:
        found["systematic_share"] = comparison.systematic_share(effects)
    if train is not None:
        found["nearest_training"] = comparison.nearest_training(effects, train, same=same)
    columns = {name: np.asarray(column, np.float64) for name, column in found.items()}
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def _size(real: Profiles, cells: Real[Array, " perts"] | None) -> dict[str, Array]:
    size: Float[Array, " perts"] = comparison.effect_size(real.mean, reference=real.control)
    if real.noise is None or real.control_noise is None:
        return {"effect_size_uncorrected": size}
    size = size - (real.total_noise() + real.total_control_noise()) / real.mean.shape[1]
    known = True if cells is None else cells >= 2
    return {"effect_size": jnp.where(known, size, jnp.nan)}
