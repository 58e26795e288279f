"""P-values of several tests (metrics, models, strata), adjusted for their number; on the host."""

from typing import get_args, Literal

import numpy as np
from jaxtyping import Float


Correction = Literal["holm", "bh", "none"]


def adjust(pvalues: Float[np.ndarray, " tests"], method: Correction = "holm") -> Float[np.ndarray, " tests"]:
    """P-values adjusted by Holm, by Benjamini and Hochberg (`"bh"`), or not.

    Holm bounds the chance of any false claim whatever the tests share, and metrics share much; Benjamini and Hochberg
    bound the share of false ones among the claims.

    **Raises:** `ValueError` for an unknown method.
    """
    if method not in get_args(Correction):
        raise ValueError(f"`method` is one of {get_args(Correction)}, got {method!r}.")
    if method == "none":
        return np.array(pvalues, np.float64)
    return {"holm": holm, "bh": benjamini_hochberg}[method](pvalues)


def holm(pvalues: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    r"""Holm's adjusted p-values, $\max_{j \le i} \min(1, (m - j + 1) p_{(j)})$ for the i-th smallest of m.

    NaN is no test: it stays and is not counted in m.
    """
    pvalues = np.asarray(pvalues, np.float64)
    adjusted = np.full_like(pvalues, np.nan)
    tests = np.flatnonzero(~np.isnan(pvalues))
    order = tests[np.argsort(pvalues[tests], kind="stable")]
    scaled = pvalues[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def benjamini_hochberg(pvalues: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values after Benjamini and Hochberg; NaN stays and is not counted.

    Source: `scipy.stats.false_discovery_control`.
    """
    import scipy.stats

    pvalues = np.asarray(pvalues, np.float64)
    adjusted = np.full_like(pvalues, np.nan)
    tests = ~np.isnan(pvalues)
    if tests.any():
        adjusted[tests] = scipy.stats.false_discovery_control(pvalues[tests])
    return adjusted
