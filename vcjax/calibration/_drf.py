"""The dynamic range fraction: how much of a metric's range a replicate covers on the data at hand."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float
from .._stats import safe_divide
from ._intervals import median_interval


LEAST = 10  # perturbations that a median is quoted of
_EPSILON = 1e-6


def dynamic_range_fraction(
    positive: Real[ArrayLike, " perts"],
    negative: Real[ArrayLike, " perts"],
    perfect: Real[ArrayLike, ""],
    *,
    higher_is_better: bool,
    clip: bool = True,
) -> Float[Array, " perts"]:
    r"""The dynamic range fraction (DRF) of a metric, $(m_+ - m_-) / (m^* - m_- + 10^{-6})$ for each perturbation.

    $m_+$ is the value of a positive control, $m_-$ that of an uninformative one and $m^*$ that of a perfect prediction;
    for an error the signs of all three differences are turned round. It is a property of the metric on a data set, not
    of a model: at 0 or below the metric does not tell a replicate from the uninformative prediction, and below 1 it is
    the noise of the data that keeps a replicate from perfection.

    Which controls stand where gives its variants: the technical duplicate against the mean of perturbations
    (`drf_mean`) or against the control (`drf_ctrl`, the one that is left where the metric measures effects from that
    same mean), or the interpolated duplicate against the mean (`drf_interpolated`).

    **Arguments:**

    - `positive`, `negative`: values of the metric, one a perturbation; `perfect`: its best value.
    - `clip`: cut to [-1, 1], as the published one is.

    **Returns:** NaN where either value is NaN, and where the uninformative prediction is perfect, which leaves no
    range. A constant of the differentiation.

    **Raises:** `ValueError` for shapes that differ. An error (`RuntimeError` outside `jit`) if an uninformative
    prediction is better than a perfect one: then `perfect` or the direction is wrong.

    Source: Miller et al. 2025.
    """
    positive, negative = (lax.stop_gradient(as_float(x, name)) for x, name in ((positive, "pos"), (negative, "neg")))
    if positive.shape != negative.shape:
        raise ValueError(f"Both controls need one value a perturbation, got {positive.shape} and {negative.shape}.")
    dtype = np.promote_types(positive.dtype, negative.dtype)
    best = lax.stop_gradient(jnp.asarray(perfect).astype(dtype))
    sign = 1 if higher_is_better else -1
    gain = sign * (positive.astype(dtype) - negative.astype(dtype))
    span = sign * (best - negative.astype(dtype))
    rounding = 16 * float(np.finfo(dtype).eps) * jnp.maximum(jnp.abs(best), 1)
    span = eqx.error_if(
        span,
        jnp.any(span < -rounding),
        "The negative control is better than a perfect prediction: `perfect` or `higher_is_better` is wrong.",
    )
    some = span > rounding
    fraction = safe_divide(gain, jnp.where(some, span + _EPSILON, 0))
    return jnp.clip(fraction, -1, 1) if clip else fraction


class FractionSummary(NamedTuple):
    """Statistics of fractions over perturbations; `low` and `high` are the interval of the median."""

    median: float
    low: float
    high: float
    mean: float
    std: float
    q25: float
    q75: float
    used: int


def summarise_fractions(
    fractions: Real[ArrayLike, " perts"], *, least: int = LEAST, level: float = 0.95
) -> FractionSummary:
    """Median (with its interval, see `median_interval`), mean, standard deviation (ddof 1) and quartiles.

    NaN takes no part; `used` says how many values were left. With fewer than `least` all statistics are NaN: a metric
    that is defined for that few perturbations is not calibrated by them.

    Source: Miller et al. 2025 (the median, of ten perturbations at least).
    """
    values = np.asarray(fractions, np.float64)
    values = values[~np.isnan(values)]
    if len(values) < max(least, 1):
        nan = float("nan")
        return FractionSummary(nan, nan, nan, nan, nan, nan, nan, len(values))
    q25, median, q75 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    low, high = median_interval(values, level=level)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return FractionSummary(median, low, high, float(np.mean(values)), std, q25, q75, len(values))
