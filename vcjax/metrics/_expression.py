r"""Squared errors of profiles with the sampling noise taken out (cell-eval2's `expr_*_unbiased` family).

A profile is a mean over cells, so $\lVert\hat x_p - x_p\rVert^2$ is larger than the distance of the two expectations
by the sampling noise of both sides, $\hat C_p + C_p$. Noise, its cap and the share granted are constants of the
differentiation: a model is not paid for the scatter of its cells.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float, as_float_matrix, check_pair
from .._stats import safe_divide
from .._types import GeneMask, PertsGenes


PertsNoise = Real[ArrayLike, " perts"]
Targets = Int[ArrayLike, " perts"] | None
Valid = Bool[ArrayLike, " perts"] | None


def _scored(shape, dtype, targets, where, valid=None):
    """1 for the genes that score a perturbation: those of `where` but its own target; none for padding."""
    scored = jnp.ones(shape, bool)
    if targets is not None:
        targets = jnp.asarray(targets)
        scored = scored & (jnp.arange(shape[1], dtype=targets.dtype)[None, :] != targets[:, None])
    if where is not None:
        scored = scored & jnp.atleast_2d(jnp.asarray(where))
    if valid is not None:
        scored = scored & jnp.asarray(valid)[:, None]
    return scored.astype(dtype)


def _noise(noise, dtype, name):
    return lax.stop_gradient(as_float(noise, name).astype(dtype))


def unbiased_mse(
    pred: PertsGenes,
    real: PertsGenes,
    pred_noise: PertsNoise,
    real_noise: PertsNoise,
    *,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Mean squared error without sampling noise, $(\lVert\hat x_p - x_p\rVert^2_{(p)} - \hat C_p - C_p) / G_p$.

    $\lVert\cdot\rVert^2_{(p)}$ and $G_p$ leave out the gene that p targets; the noise is subtracted whole. About 0 for
    a perfect prediction sampled anew; negative if the measured cells themselves are pasted.

    **Arguments:**

    - `pred`, `real`: profiles, (perts, genes); `pred_noise`, `real_noise`: their sampling noise summed over genes.
    - `targets`: index of the gene each perturbation targets, -1 for none; `where`: genes that count.

    **Raises:** `ValueError` for shapes that differ.

    Source: cell-eval2 0.20.0 (`expr_mse_unbiased`).
    """
    pred, real = check_pair(pred, real)
    scored = _scored(pred.shape, pred.dtype, targets, where)
    noise = _noise(pred_noise, pred.dtype, "pred_noise") + _noise(real_noise, pred.dtype, "real_noise")
    return safe_divide(jnp.sum(scored * (pred - real) ** 2, axis=1) - noise, jnp.sum(scored, axis=1))


def granted_noise(
    pred: PertsGenes,
    pred_noise: PertsNoise,
    real_noise: PertsNoise,
    *,
    targets: Targets = None,
    cap: float = 1.0,
    where: GeneMask = None,
    valid: Valid = None,
) -> Float[Array, " perts"]:
    r"""How much of its claimed sampling noise a prediction is granted, $\rho \min(\hat C_p, k\,C_p)$.

    $\rho = \min(1, B / \sum_q w_q \min(\hat C_q, k C_q))$ with $w_q = 1/G_q$, and $B$ the spread of the predicted
    profiles around their weighted mean over perturbations, summed over genes (each over the perturbations that score
    it, two at least). Noise is granted only as far as the predictions vary at all: identical predictions get none, nor
    does a single one. It depends on all perturbations of the call. The result has no gradient.

    Source: cell-eval2 0.20.0.
    """
    pred = lax.stop_gradient(as_float_matrix(pred, "pred"))
    claimed = jnp.minimum(
        _noise(pred_noise, pred.dtype, "pred_noise"), cap * _noise(real_noise, pred.dtype, "real_noise")
    )
    scored = _scored(pred.shape, pred.dtype, targets, where, valid)
    weight = safe_divide(jnp.ones_like(scored[:, 0]), jnp.sum(scored, axis=1), otherwise=0.0)
    share = scored * weight[:, None]
    centre = safe_divide(jnp.sum(share * pred, axis=0), jnp.sum(share, axis=0), otherwise=0.0)
    spread = jnp.sum(share * (pred - centre[None, :]) ** 2, axis=0)
    budget = jnp.sum(jnp.where(jnp.sum(scored, axis=0) >= 2, spread, 0))
    total = jnp.sum(claimed * weight)
    return claimed * jnp.minimum(1, safe_divide(budget, total, otherwise=1.0))


def capped_unbiased_mse(
    pred: PertsGenes,
    real: PertsGenes,
    pred_noise: PertsNoise,
    real_noise: PertsNoise,
    *,
    targets: Targets = None,
    cap: float = 1.0,
    where: GeneMask = None,
    valid: Valid = None,
) -> Float[Array, " perts"]:
    r"""`unbiased_mse` with the predicted side's noise replaced by what it is granted.

    $(\lVert\hat x_p - x_p\rVert^2_{(p)} - \rho\min(\hat C_p, k\,C_p) - C_p) / G_p$; see `granted_noise`. Claiming
    scatter that the measured cells do not have, or that the predictions do not show, buys nothing.

    Arguments and errors as for `unbiased_mse`. Source: cell-eval2 0.20.0 (`expr_mse_unbiased_capped`).
    """
    granted = granted_noise(pred, pred_noise, real_noise, targets=targets, cap=cap, where=where, valid=valid)
    return unbiased_mse(pred, real, granted, real_noise, targets=targets, where=where)


def unbiased_distance(
    real: PertsGenes,
    control: Real[ArrayLike, " genes"],
    real_noise: PertsNoise,
    control_noise: Real[ArrayLike, ""],
    *,
    targets: Targets = None,
    where: GeneMask = None,
) -> Float[Array, " perts"]:
    r"""Squared size of the measured effect without sampling noise, $(\lVert x_p - x_c\rVert^2_{(p)} - C_p - C_c) /
    G_p$.

    Reads the measured side only; often negative for perturbations that do nothing.

    Source: cell-eval2 0.20.0 (`expr_distance_unbiased`).
    """
    real = as_float_matrix(real, "real")
    control = jnp.broadcast_to(as_float(control, "control").astype(real.dtype), real.shape)
    noise = jnp.broadcast_to(as_float(control_noise, "control_noise"), real.shape[:1])
    return unbiased_mse(real, control, noise, real_noise, targets=targets, where=where)


def capped_norm(
    pred: PertsGenes,
    real: PertsGenes,
    control: Real[ArrayLike, " genes"],
    pred_noise: PertsNoise,
    real_noise: PertsNoise,
    control_noise: Real[ArrayLike, ""],
    *,
    targets: Targets = None,
    cap: float = 1.0,
    where: GeneMask = None,
    valid: Valid = None,
) -> Float[Array, ""]:
    r"""Error relative to the size of the effects, $\sum_p \mathrm{capped}_p / \sum_p \mathrm{distance}_p$: one number
    for the panel.

    About 0 for a perfect prediction, about 1 for the control pasted. NaN if the effects of the panel are not larger
    than their sampling noise (a denominator that is not positive).

    Source: cell-eval2 0.20.0 (`expr_mse_unbiased_capped_norm`).
    """
    errors = capped_unbiased_mse(pred, real, pred_noise, real_noise, targets=targets, cap=cap, where=where, valid=valid)
    sizes = unbiased_distance(real, control, real_noise, control_noise, targets=targets, where=where)
    sizes = sizes.astype(errors.dtype)
    both = jnp.isfinite(errors) & jnp.isfinite(sizes)
    if valid is not None:
        both = both & jnp.asarray(valid)
    total = lax.stop_gradient(jnp.sum(jnp.where(both, sizes, 0)))
    return safe_divide(jnp.sum(jnp.where(both, errors, 0)), jnp.where(total > 0, total, 0))


def mass_ratio(real: PertsGenes, target_sum: Real[ArrayLike, ""], *, where: GeneMask = None) -> Float[Array, " perts"]:
    r"""Total expression of a log1p profile over the library size it was normalised to, $\sum_g (e^{x_{pg}} - 1) / s$.

    1 for `bulk_lognorm`; below 1 for means of log1p cells, by how much averaging logarithms loses; 0 for an empty
    group.

    Source: cell-eval2 0.20.0 (`expr_real_mass_ratio`).
    """
    real = as_float_matrix(real, "real")
    mass = _scored(real.shape, real.dtype, None, where) * jnp.expm1(real)
    return jnp.sum(mass, axis=1) / as_float(target_sum, "target_sum").astype(real.dtype)
