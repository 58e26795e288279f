"""How large measured effects are where a prediction says how large they will be."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from .._types import GeneMask, GeneWeights, PertsGenes
from ._intervals import jackknife_interval


_ROUNDING = 1e-12  # of the squared size: what rounding leaves of a prediction that is the same for all genes


@dataclasses.dataclass(frozen=True, eq=False)
class EffectCurve:
    """Measured against predicted effects: in bins of the predicted ones, and as lines.

    **Fields:** one value a bin, from the lowest predicted effect to the highest:

    - `predicted`, `measured`: mean effects.
    - `error`: standard error of `measured` with perturbations as the unit; NaN where one alone is in the bin.
    - `count`: entries (one gene in one perturbation); `perts`: perturbations that they are of.

    The least-squares line of measured on predicted effects:

    - `slope`, `intercept`: over all entries, 1 and 0 if the sizes are right; `slope_interval`, `intercept_interval` by
        the jackknife over perturbations at `level`.
    - `slopes`, `intercepts`: of every perturbation by itself; NaN where its predicted effects are all the same.
    """

    predicted: np.ndarray
    measured: np.ndarray
    error: np.ndarray
    count: np.ndarray
    perts: np.ndarray
    slope: float
    intercept: float
    slope_interval: tuple[float, float]
    intercept_interval: tuple[float, float]
    slopes: np.ndarray
    intercepts: np.ndarray
    level: float


def effect_curve(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    bins: int = 20,
    weights: GeneWeights = None,
    where: GeneMask = None,
    level: float = 0.95,
) -> EffectCurve:
    r"""The calibration curve of effect sizes, on the host: $\mathbb{E}[\delta \mid \hat\delta]$ against $\hat\delta$.

    It is a regression of measured on predicted effects, and not the other way round, for two reasons. Calibration is a
    statement about what happens where the model said so: a predicted 0.5 is met by 0.5 on average. And the noise of the
    measurement then sits in the response, where it averages out; as the regressor it would flatten the line, and a
    perfect model would look timid. Noise of the *prediction* does flatten this one: a model that samples few cells has
    a slope below 1.

    A slope below 1 means effects that are predicted too large, above 1 too small, about 0 predictions that have nothing
    to do with the measurement, below 0 the wrong direction.

    Genes of one perturbation depend on each other, so that perturbations are the unit of every error: the mean of a bin
    is a ratio of sums over perturbations, $\bar y = \sum_p A_p / \sum_p W_p$, with standard error
    $\sqrt{\frac{n}{n-1} \sum_p (A_p - \bar y W_p)^2} / \sum_p W_p$ over its $n$ perturbations. What all perturbations
    share, as the noise of one control, is not in it.

    **Arguments:**

    - `pred`, `real`: effects (profiles less a reference), (perts, genes). An entry that is not finite on both sides
        takes no part.
    - `bins`: of about equal numbers of entries. Equal predictions stay together, and a value that more than a bin's
        share of entries have (the zeros of a sparse prediction) has a bin of its own, so that there can be fewer bins,
        or a few more where such a value stands between others.
    - `weights`, `where`: gene weights and genes that count, (genes,) or (perts, genes). Entries of weight 0 take no
        part; bins are of equal numbers of entries, not of equal weight.
    - `level`: of the intervals.

    **Returns:** an `EffectCurve`; without bins and with NaN where no entry is left, without a slope for a prediction
    that is the same everywhere.

    **Raises:** `ValueError` for shapes that differ or do not fit, negative weights, fewer than one bin and a level
    outside (0, 1).
    """
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1, got {bins}.")
    x, y, w, row, perts = _entries(pred, real, weights, where)
    upper = _upper_bounds(x, bins)
    size = len(upper)
    cell = row * size + np.searchsorted(upper, x, side="left")
    total = lambda values: np.bincount(cell, values, perts * size).reshape(perts, size).astype(np.float64, copy=False)
    weight, measured = total(w), total(w * y)
    mean = measured.sum(axis=0) / weight.sum(axis=0)
    slopes, intercepts, line, intervals = _lines(x, y, w, row, perts, level)
    return EffectCurve(
        predicted=total(w * x).sum(axis=0) / weight.sum(axis=0),
        measured=mean,
        error=_clustered_error(measured, weight, mean),
        count=np.bincount(cell, minlength=perts * size).reshape(perts, size).sum(axis=0),
        perts=np.sum(weight > 0, axis=0),
        slope=line[0],
        intercept=line[1],
        slope_interval=intervals[0],
        intercept_interval=intervals[1],
        slopes=slopes,
        intercepts=intercepts,
        level=level,
    )


def _entries(
    pred, real, weights, where
) -> tuple[
    Float[np.ndarray, " entries"],
    Float[np.ndarray, " entries"],
    Float[np.ndarray, " entries"],
    Int[np.ndarray, " entries"],
    int,
]:
    """Predicted and measured effects that count, their weights and perturbations, and how many of those there are."""
    pred, real = np.asarray(pred, np.float64), np.asarray(real, np.float64)
    if pred.ndim != 2 or pred.shape != real.shape:
        raise ValueError(
            f"`pred` and `real` must have the same shape (perts, genes), got {pred.shape} and {real.shape}."
        )
    used = np.isfinite(pred) & np.isfinite(real)
    weight = np.ones_like(pred)
    for name, factor in {"weights": weights, "where": where}.items():
        if factor is None:
            continue
        factor = np.asarray(factor, np.float64)
        if factor.shape not in (pred.shape, pred.shape[1:]):
            raise ValueError(f"`{name}` must have shape {pred.shape[1:]} or {pred.shape}, got {factor.shape}.")
        if np.any(factor < 0):
            raise ValueError(f"`{name}` must not be negative, got {factor.min()}.")
        weight = weight * factor
    used &= weight > 0
    row, _ = np.nonzero(used)
    return pred[used], real[used], weight[used], row, len(pred)


def _upper_bounds(x: Float[np.ndarray, " entries"], bins: int) -> Float[np.ndarray, " bins"]:
    """The largest value of each bin."""
    if len(x) == 0:
        return x
    ordered = np.sort(x)
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of every run of equal values
    length = np.diff(np.r_[first, len(ordered)])
    alone = length > len(ordered) / bins
    others = np.where(alone, 0, length)
    # The rest is divided by the middle of each run, as if the values with a bin of their own were not there.
    share = np.floor((np.cumsum(others) - 0.5 * others) * (bins - np.sum(alone)) / max(np.sum(others), 1))
    starts = np.r_[True, alone[1:] | alone[:-1] | (share[1:] != share[:-1])]
    last = np.r_[np.flatnonzero(starts)[1:], len(first)] - 1
    return ordered[first[last]]


def _clustered_error(
    total: Float[np.ndarray, "perts bins"], weight: Float[np.ndarray, "perts bins"], mean: Float[np.ndarray, " bins"]
) -> Float[np.ndarray, " bins"]:
    number = np.sum(weight > 0, axis=0)
    square = np.sum((total - mean[None, :] * weight) ** 2, axis=0)
    several = number > 1
    error = np.sqrt(square * number / np.where(several, number - 1, 1)) / weight.sum(axis=0)
    return np.where(several, error, np.nan)


def _lines(x, y, w, row, perts: int, level: float):
    """Slope and intercept of each perturbation, and of all with their intervals, from sums over its entries."""
    nothing = np.full(perts, np.nan), np.full(perts, np.nan), (np.nan, np.nan), ((np.nan, np.nan),) * 2
    if len(x) == 0:
        return nothing
    centre = float(np.average(x, weights=w)), float(np.average(y, weights=w))
    dx, dy = x - centre[0], y - centre[1]
    sums = np.stack([np.bincount(row, w * part, perts) for part in (np.ones_like(x), dx, dy, dx * dx, dx * dy)])
    slopes, intercepts = _line(sums, centre)
    whole = sums.sum(axis=1)
    slope, intercept = _line(whole, centre)
    left_out = _line((whole[:, None] - sums)[:, sums[0] > 0], centre)
    intervals = tuple(
        jackknife_interval(float(value), others, level=level)
        for value, others in zip((slope, intercept), left_out, strict=True)
    )
    return slopes, intercepts, (float(slope), float(intercept)), intervals


def _line(sums, centre: tuple[float, float]):
    """Slope and intercept from sums of 1, x, y, x² and xy about the centre; NaN where x does not vary."""
    some = sums[0] > 0
    number = np.where(some, sums[0], 1)
    _, sx, sy, sxx, sxy = sums
    spread = sxx - sx * sx / number
    varied = some & (spread > _ROUNDING * (sxx + number * centre[0] ** 2))
    slope = np.where(varied, (sxy - sx * sy / number) / np.where(varied, spread, 1), np.nan)
    return slope, centre[1] + sy / number - slope * (centre[0] + sx / number)
