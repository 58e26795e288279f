"""Intervals over perturbations that need no random numbers."""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float


def median_interval(values: Float[np.ndarray, " n"], *, level: float = 0.95) -> tuple[float, float]:
    r"""The distribution-free interval of a median: from the k-th smallest of the values to the k-th largest.

    k is the largest number with $P(B < k) \le (1 - \text{level})/2$ for a binomial B of n tosses of a fair coin. The
    interval leaves out 0 exactly where a two-sided sign test at that level rejects a median of 0. Infinite on both
    sides where there are too few values (fewer than 6 at 0.95); values that are NaN must have been left out.

    **Raises:** `ValueError` for a level outside (0, 1).
    """
    _check_level(level)
    n = len(values)
    below = np.cumsum([math.exp(_log_choose(n, j) - n * math.log(2)) for j in range(n // 2 + 1)])
    k = int(np.sum(below <= (1 - level) / 2))
    if k == 0:
        return -math.inf, math.inf
    ascending = np.sort(values)
    return float(ascending[k - 1]), float(ascending[n - k])


def share_interval(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of n; NaN for n = 0.

    **Raises:** `ValueError` for a level outside (0, 1).

    Reference: Wilson (1927); `scipy.stats.binomtest(...).proportion_ci(method="wilson")`.
    """
    _check_level(level)
    if n == 0 or math.isnan(share):
        return math.nan, math.nan
    z = _quantile(level)
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / scale, (centre + half) / scale


def jackknife_interval(value: float, left_out: Float[np.ndarray, " n"], *, level: float = 0.95) -> tuple[float, float]:
    r"""`value` and its jackknife error, $\pm z \sqrt{\frac{n-1}{n} \sum_i (\theta_{(i)} - \bar\theta)^2}$.

    **Arguments:** `left_out`, the statistic without each of the n items in turn; NaN among them makes the interval NaN.

    **Raises:** `ValueError` for a level outside (0, 1).

    Reference: Efron and Tibshirani (1993), chapter 11.
    """
    _check_level(level)
    n = len(left_out)
    if n < 2:
        return math.nan, math.nan
    half = _quantile(level) * math.sqrt((n - 1) / n * float(np.sum((left_out - np.mean(left_out)) ** 2)))
    return value - half, value + half


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def _log_choose(n: int, j: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` lies between 0 and 1, got {level}.")
