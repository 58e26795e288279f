"""Statistics over perturbations, with the two rules the field uses for undefined values."""

import dataclasses

import numpy as np

from ._presets import Statistics


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """Statistics of one metric over the perturbations of one context.

    `count` is the number of values that are not missing (NaN included), `null_count` the number of missing ones,
    `n_used` the number of finite values behind `value`, and `n_total` the number of perturbations. `value` is the
    number to quote: the mean over perturbations, or the panel's own number. Two rules for the rest:

    - `finite` (cell-eval2): every statistic is that of the values that are not NaN; the quartiles interpolate.
    - `describe` (cell-eval, polars' `describe`): NaN spreads into `mean` and `std`, is skipped by `min` and `max`, and
        sorts last for the quartiles, which are the nearest value and not an interpolation.
    """

    metric: str
    context: str
    agg: str
    value: float
    count: int
    null_count: int
    n_used: int
    n_total: int
    mean: float
    std: float
    min: float
    q25: float
    median: float
    q75: float
    max: float


def aggregate(
    values: np.ndarray, missing: np.ndarray, *, metric: str, context: str, statistics: Statistics, agg: str = "mean"
) -> Aggregate:
    """Statistics of `values`, one a perturbation; entries under `missing` count as null."""
    kept = values[~missing]
    used = kept[np.isfinite(kept)]
    numbers = _describe(kept) if statistics == "describe" else _finite(kept[~np.isnan(kept)])
    mean, std, low, q25, median, q75, high = numbers
    return Aggregate(
        *(metric, context, agg, mean, len(kept), len(values) - len(kept), len(used), len(values)),
        *(mean, std, low, q25, median, q75, high),
    )


def panel_aggregate(value: float, n_total: int, *, metric: str, context: str, ratio: bool) -> Aggregate:
    """The row of a metric that is one number for all perturbations.

    The peers repeat such a number for every perturbation, and it has the statistics of that; a ratio of sums has none.
    """
    agg, spread, other = ("ratio_of_sums", float("nan"), float("nan")) if ratio else ("mean", value * 0.0, value)
    n_used = n_total if np.isfinite(value) else 0
    return Aggregate(
        *(metric, context, agg, value, n_total, 0, n_used, n_total),
        *(value, spread, other, other, other, other, other),
    )


def _finite(values: np.ndarray) -> tuple[float, ...]:
    if len(values) == 0:
        return (float("nan"),) * 7
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    q25, median, q75 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return float(np.mean(values)), std, float(values.min()), q25, median, q75, float(values.max())


def _describe(values: np.ndarray) -> tuple[float, ...]:
    if len(values) == 0:
        return (float("nan"),) * 7
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    ordered = np.sort(values)  # NaN last
    # Halves round up: the nearest-rank rule of polars.
    q25, median, q75 = (float(ordered[int(np.floor(q * (len(values) - 1) + 0.5))]) for q in (0.25, 0.5, 0.75))
    some = values[~np.isnan(values)]
    low, high = (float(some.min()), float(some.max())) if len(some) else (float("nan"),) * 2
    return float(np.mean(values)), std, low, q25, median, q75, high
