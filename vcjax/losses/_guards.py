"""Guards: terms that are 0 while a prediction is sound, and grow where training on a score leads it astray.

A rank does not see the size of an effect, and is raised by inflating it; an error is lowered by predicting the same for
everybody. Each guard holds one of these, and costs nothing within its band.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._stats import absolute, safe_divide, safe_sqrt
from ..metrics import spread_ratio
from ..metrics._mean_reference import mean_reference
from ..metrics._metric import Metric


_AIMLESS = 0.05  # a cosine below which the slope of a prediction says nothing of its size
_ROUNDINGS = 8


def amplitude_guard(low: float = 0.8, high: float = 1.25) -> Metric:
    r"""Holds the size of what tells predictions apart: squared log distance of its slope from the band [low, high].

    $s = \sum_p \langle\delta_p, \hat\delta_p\rangle / \sum_p \lVert\hat\delta_p\rVert^2$ of effects beyond the mean of
    the perturbations is the factor that would give the prediction the least squared error, as `calibration_slope_mean`
    for the panel: below `low` it is inflated, above `high` shrunk. A prediction at right angles to the truth counts as
    one with a cosine of 0.05, so that it shrinks. 0 for the mean itself, which has no size to hold.

    **Raises:** `ValueError` unless 0 < low < high.
    """
    if not 0 < low < high:
        raise ValueError(f"A band needs 0 < low < high, got {low} and {high}.")

    def guard(pred, real, *, relax, weights, where, valid) -> Float[Array, ""]:
        reference, kept = mean_reference(real, valid), _kept(real, where, valid)
        guess, truth = (kept * (side.mean - reference) for side in (pred, real))
        square, extent = _total(guess * guess), _total(truth * truth)
        # What rounding leaves of a prediction of the mean itself has no size that could be held.
        rounding = _ROUNDINGS * jnp.finfo(guess.dtype).eps
        sized = (square > rounding**2 * _total(reference * reference)) & (extent > 0)
        aimless = _AIMLESS * safe_sqrt(square) * safe_sqrt(extent)
        along = jnp.where(sized, jnp.maximum(_total(guess * truth), aimless), 1)
        log_slope = jnp.log(along / jnp.where(sized, square, 1))
        outside = jax.nn.relu(math.log(low) - log_slope) + jax.nn.relu(log_slope - math.log(high))
        return jnp.where(sized, outside * outside, 0)

    about = f"Whether the slope of measured on predicted effects is in {low}-{high}."
    return _guard("amplitude_guard", guard, about)


def error_guard(tolerance: float = 0.0) -> Metric:
    r"""Holds the absolute error to that of the mean: $\max(0, \mathrm{MAE}/\mathrm{MAE}_\mu - 1 - \text{tolerance})$.

    The mean is that of training perturbations (`Profiles.train_mean`), or of the panel's others. The winner of the
    Virtual Cell Challenge 2025 had an error 37 times that of the mean baseline.

    **Raises:** `ValueError` for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"A tolerance of 0 or more is needed, got {tolerance}.")

    def guard(pred, real, *, relax, weights, where, valid) -> Float[Array, ""]:
        kept = _kept(real, where, valid)
        ours, theirs = (
            _total(kept * absolute(guess - real.mean)) for guess in (pred.mean, mean_reference(real, valid))
        )
        return jax.nn.relu(safe_divide(ours, theirs, 0.0) - 1 - tolerance)

    return _guard("error_guard", guard, "By how much the absolute error exceeds that of the mean of perturbations.")


def collapse_guard(floor: float = 0.3) -> Metric:
    r"""Holds predictions apart from each other: $\max(0, 1 - r/\text{floor})^2$ with r the `spread_ratio` of the panel.

    1 where all predictions are the same, when it has no gradient: start a model anywhere else.

    **Raises:** `ValueError` unless the floor is positive.
    """
    if not floor > 0:
        raise ValueError(f"A positive floor is needed, got {floor}.")

    def guard(pred, real, *, relax, weights, where, valid) -> Float[Array, ""]:
        ratio = spread_ratio(pred.mean, real.mean, where=where, valid=valid)
        return jax.nn.relu(1 - ratio / floor) ** 2

    return _guard("collapse_guard", guard, f"Whether predictions differ by {floor} of what is measured.")


def _guard(name: str, function, summary: str) -> Metric:
    return Metric(
        name=name,
        function=function,
        summary=summary,
        formula="see vcjax.losses",
        perfect=0.0,
        no_skill=1.0,  # its own unit: a term of it adds the coefficient times its value
        higher_is_better=False,
        differentiable="almost everywhere",
        level="panel",
        source="a guard, for training",
    )


def _kept(real, where, valid) -> Float[Array, "perts genes"]:
    """1 for what counts."""
    shape, dtype = real.mean.shape, real.mean.dtype
    perts = jnp.ones(shape[0], dtype) if valid is None else jnp.asarray(valid).astype(dtype)
    genes = jnp.ones(shape, dtype) if where is None else jnp.broadcast_to(jnp.asarray(where), shape).astype(dtype)
    return perts[:, None] * genes


def _total(x: Float[Array, "perts genes"]) -> Float[Array, ""]:
    """The sum, by rows first, which rounds less."""
    return jnp.sum(jnp.sum(x, axis=1))
