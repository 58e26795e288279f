"""The gene that a perturbation acts on, apart from the genes that respond to it.

The target of a knock-down changes more than any other gene and is known beforehand: a model that only lowers the
target can look good in scores over all genes. So what is said of targets is scored by itself, and the rest without.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float, as_float_matrix, check_pair
from .._relax import HARD, Relaxation
from .._stats import absolute, effect, safe_divide
from .._types import GeneMask, PertsGenes, Reference


Targets = Int[ArrayLike, " perts"]


def only_targets(targets: Targets, genes: int) -> Bool[Array, "perts genes"]:
    """The mask that keeps each perturbation's own target only: `mse(pred, real, where=only_targets(targets, genes))`.

    A perturbation without a measured target (-1) keeps no gene, and its value is then NaN.
    """
    return jnp.arange(genes, dtype=jnp.int32)[None, :] == jnp.asarray(targets).astype(jnp.int32)[:, None]


def without_targets(targets: Targets, genes: int) -> Bool[Array, "perts genes"]:
    """The mask that leaves out each perturbation's own target: the `where` of a target-excluded score.

    A perturbation without a measured target (-1) keeps every gene. Scores that compare perturbations need one set of
    genes for all; they leave out the targets of the panel (`exclude="panel"`).
    """
    return ~only_targets(targets, genes)


def knockdown_efficiency(
    profile: PertsGenes,
    targets: Targets,
    *,
    reference: Reference,
    min_expression: Real[ArrayLike, ""] = 0.0,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""How much of the target's expression a perturbation takes away, $\eta_p = 1 - (e^{x_{pt}} - 1)/(e^{r_t} - 1)$.

    1 is none left, 0 no change, negative more than before (an activation).

    **Arguments:**

    - `profile`: log1p profiles, (perts, genes); `reference`: the control's, (genes,) or (perts, genes).
    - `targets`: index of the gene that each perturbation targets, -1 for none that is measured.
    - `min_expression`: the control's expression, before the logarithm, that a target must exceed for a ratio to mean
        anything; 5 counts per million are `5e-6` of the library size.
    - `where`: genes that count.

    **Returns:** one value a perturbation; NaN without a measured target, and for one that the control does not express.

    **Raises:** `ValueError` for shapes that do not fit, and without a reference.
    """
    profile = as_float_matrix(profile, "profile")
    if reference is None:
        raise ValueError("`reference` is what the target's expression is compared with: give the control profile.")
    reference = as_float(reference, "reference").astype(profile.dtype)
    after, counted = _at_targets(profile, targets, where)
    before, _ = _at_targets(jnp.broadcast_to(jnp.atleast_2d(reference), profile.shape), targets, None)
    amount = jnp.expm1(before)
    expressed = counted & (amount > jnp.asarray(min_expression).astype(profile.dtype))
    return 1 - safe_divide(jnp.expm1(after), jnp.where(expressed, amount, 0))


def knockdown_error(
    pred: PertsGenes,
    real: PertsGenes,
    targets: Targets,
    *,
    reference: Reference,
    pred_reference: Reference = None,
    min_expression: Real[ArrayLike, ""] = 0.0,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Absolute error of the knock-down efficiency, $|\hat\eta_p - \eta_p|$: 0.1 is ten points of expression left.

    On the natural scale, unlike `target_error`: a gene that is nearly silenced has a large and noisy change on the log
    scale and hardly any here.

    Arguments and NaN as for `knockdown_efficiency`; `pred_reference` defaults to `reference`. The gradient is 0 where
    the error is.

    **Raises:** `ValueError` for shapes that differ, and without a reference.
    """
    pred, real = check_pair(pred, real)
    pred_reference = reference if pred_reference is None else pred_reference
    guess = knockdown_efficiency(pred, targets, reference=pred_reference, min_expression=min_expression, where=where)
    truth = knockdown_efficiency(real, targets, reference=reference, min_expression=min_expression, where=where)
    defined = jnp.isfinite(truth)
    return jnp.where(defined, absolute(guess - jnp.where(defined, truth, 0)), jnp.nan)


def target_error(
    pred: PertsGenes,
    real: PertsGenes,
    targets: Targets,
    *,
    reference: Reference = None,
    pred_reference: Reference = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Absolute error at the target alone, $|\hat\delta_{pt} - \delta_{pt}|$ (the target-only score).

    The reference cancels unless the two sides have different ones.

    **Arguments:**

    - `pred`, `real`: profiles (or effects), (perts, genes).
    - `targets`: index of the gene that each perturbation targets, -1 for none that is measured.
    - `reference`, `pred_reference`, `where`: as of `vcjax.metrics.mse`.

    **Returns:** one value a perturbation, in the unit of the profiles; NaN without a measured target. The gradient is 0
    where the error is.

    **Raises:** `ValueError` for shapes that differ.
    """
    guess, truth, counted = _changes(pred, real, targets, reference, pred_reference, where)
    return jnp.where(counted, absolute(jnp.where(counted, guess - truth, 0)), jnp.nan)


def target_sign(
    pred: PertsGenes,
    real: PertsGenes,
    targets: Targets,
    *,
    reference: Reference = None,
    pred_reference: Reference = None,
    where: GeneMask = None,
    valid: Bool[ArrayLike, " perts"] | None = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Whether the target is predicted to change the way it does, $H(\hat\delta_{pt}\,\mathrm{sign}\,\delta_{pt})$.

    1 for the same direction, 0 for the other, one half for no predicted change. In a screen of knock-downs a model that
    lowers every target is always right: read it as a check, not as a rank.

    **Arguments:** as of `target_error`, and:

    - `valid`: perturbations that count towards the temperature.
    - `relax`: smooths the step; its temperature is a quantile of the predicted changes over the panel.

    **Returns:** one value in [0, 1] a perturbation; NaN without a measured target, and where it does not change.

    **Raises:** `ValueError` for shapes that differ.
    """
    guess, truth, counted = _changes(pred, real, targets, reference, pred_reference, where)
    counted = counted & (truth != 0) & jnp.isfinite(truth)
    along = jnp.where(counted, guess * lax.stop_gradient(jnp.sign(truth)), 0)
    used = counted if valid is None else counted & jnp.asarray(valid)
    return jnp.where(counted, relax.step(along, relax.temperature(along, used)), jnp.nan)


def _changes(pred, real, targets, reference, pred_reference, where):
    pred, real = check_pair(pred, real)
    pred_reference = reference if pred_reference is None else pred_reference
    guess, counted = _at_targets(effect(pred, pred_reference), targets, where)
    truth, _ = _at_targets(effect(real, reference), targets, where)
    return guess, truth, counted


def _at_targets(x, targets, where):
    """Each row's entry at its target (0 where it has none), and whether it has one that counts."""
    targets = jnp.asarray(targets)
    if targets.shape != x.shape[:1]:
        raise ValueError(f"`targets` must hold one gene a perturbation, got shape {targets.shape} for {x.shape}.")
    counted = targets >= 0
    place = jnp.where(counted, targets, 0)[:, None]
    if where is not None:
        mask = jnp.broadcast_to(jnp.atleast_2d(jnp.asarray(where)), x.shape)
        counted = counted & jnp.take_along_axis(mask, place, axis=1)[:, 0]
    entry = jnp.take_along_axis(x, place, axis=1)[:, 0]
    return jnp.where(counted, entry, 0), counted
