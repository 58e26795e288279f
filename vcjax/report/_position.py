"""Where controls and the model lie between the control of worth nothing and the replicate."""

import math
from collections.abc import Mapping

import numpy as np

from ..calibration import calibrated_score, Calibration
from ..calibration._calibration import PREDICTION


def zero_of(calibration: Calibration) -> str | None:
    """The control that is 0: the negative one, or the null one for metrics that the negative has no value of."""
    return calibration.negative or calibration.null


def position(calibration: Calibration, name: str) -> float:
    """0 at `zero_of`, 1 at the positive control, by the means over perturbations that all three are defined for.

    NaN where the replicate is not better than the zero: there is no scale.
    """
    low, high = zero_of(calibration), calibration.positive
    if low is None or high is None or name not in calibration.values:
        return math.nan
    rows = np.stack([calibration.values[each] for each in (name, low, high)])
    rows = rows[:, ~np.isnan(rows).any(axis=0)]
    if not rows.shape[1]:
        return math.nan
    value, zero, one = rows.mean(axis=1)
    better = calibration.metric.higher_is_better is True
    return float(calibrated_score(value, zero, one, higher_is_better=better))


def has_model(calibrations: Mapping[str, Calibration]) -> bool:
    """Whether any of them scored a prediction."""
    return any(PREDICTION in calibration.values for calibration in calibrations.values())


def ordered(calibrations: Mapping[str, Calibration]) -> list[tuple[str, Calibration]]:
    """Metrics that can tell first, then those that cannot, then those that were not judged; each in the given order."""
    rank = {True: 0, False: 1, None: 2}
    return sorted(calibrations.items(), key=lambda row: rank[row[1].separates])
