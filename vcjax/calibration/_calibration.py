"""What a metric is worth on one data set: the values of its controls, and the verdict that follows from them."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ..metrics import Metric
from ._controls import Role
from ._drf import FractionSummary


PREDICTION = "prediction"


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A positive control against an uninformative one.

    **Fields:**

    - `positive`, `negative`: their names.
    - `fraction`: the dynamic range fraction over perturbations, see `dynamic_range_fraction`; of a panel metric its
        one value with a jackknife interval. NaN without a perfect value, and for fewer perturbations than asked for.
    - `discrimination`: the bound discrimination score, the share of perturbations in which the positive control is
        better (a tie is one half), and its interval after Wilson; NaN for a panel metric.
    - `gap`: by how much the positive control is better, in the metric's own unit: the median over perturbations with
        its distribution-free interval, or the panel's one difference with that of the jackknife.
    - `count`: perturbations for which both are defined.
    """

    positive: str
    negative: str
    fraction: FractionSummary
    discrimination: float
    discrimination_interval: tuple[float, float]
    gap: float
    gap_interval: tuple[float, float]
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """One metric on one data set, between its controls.

    **Fields:**

    - `metric`: the row of the catalogue; `perfect`: the best value that was used, `None` where there is none.
    - `values`: of every control by name, and of the `prediction` if there is one: one value a perturbation (the mean
        over the divisions of the cells; NaN unless it is defined in all of them), or one number of a panel metric.
    - `status`: `ok`, or why there is no value at all: `no_differential_expression`, `constant_prediction`, …
    - `roles`: of the controls.
    - `negative`, `null`, `positive`: the controls that stand for the three; `None` where none has a value.
    - `bounds`: every positive control against every uninformative one that both have values.
    - `score`: of the prediction, 0 at the negative control and 1 at the positive one, of the means over the
        perturbations for which all three are defined; with its jackknife interval. NaN without a prediction or a scale.
        `score_over_null`: the same with 0 at the null control.
    - `separates`: whether the metric tells a replicate from the mean, `None` if that cannot be judged.
    - `verdict`: the same in a sentence, with its numbers.
    - `splits`: divisions of the cells that were averaged over; `level`: of the intervals.
    """

    metric: Metric
    perfect: float | None
    values: Mapping[str, np.ndarray]
    status: Mapping[str, str]
    roles: Mapping[str, Role]
    negative: str | None
    null: str | None
    positive: str | None
    bounds: tuple[Bounds, ...]
    score: float
    score_interval: tuple[float, float]
    score_over_null: float
    separates: bool | None
    verdict: str
    splits: int
    level: float

    def mean(self, name: str) -> float:
        """The mean over perturbations of a control's values, or of the `prediction`'s, where they are defined.

        **Raises:** `KeyError` for a name that there is none of.
        """
        values = self.values[name]
        values = values[~np.isnan(values)]
        return float(np.mean(values)) if len(values) else math.nan

    def between(self, positive: str, negative: str) -> Bounds | None:
        """The bounds of these two controls; `None` where one of them has no value."""
        return next((row for row in self.bounds if (row.positive, row.negative) == (positive, negative)), None)

    @property
    def decisive(self) -> Bounds | None:
        """The bounds that the verdict is about: the positive control against the null, or else the negative one."""
        lower = self.null or self.negative
        return None if self.positive is None or lower is None else self.between(self.positive, lower)

    @property
    def drf_mean(self) -> float:
        """Median DRF of the technical duplicate against the null control."""
        return self._fraction("duplicate", self.null)

    @property
    def drf_control(self) -> float:
        """Median DRF of the technical duplicate against the negative control."""
        return self._fraction("duplicate", self.negative)

    @property
    def drf_interpolated(self) -> float:
        """Median DRF of the interpolated duplicate against the null control."""
        return self._fraction("interpolated", self.null)

    def _fraction(self, positive: str, negative: str | None) -> float:
        found = None if negative is None else self.between(positive, negative)
        return math.nan if found is None else found.fraction.median


_KNOWN = {
    "duplicate": "a replicate",
    "interpolated": "an interpolated replicate",
    "empirical_bayes": "a shrunken replicate",
    "bootstrap": "a resample of the same cells",
    "control": "the control",
    "loo_mean": "the mean",
    "train_mean": "the mean",
    "sparse_mean": "a mean of random cells",
}


def judge(bounds: Bounds | None, reason: str, least: int, level: float) -> tuple[bool | None, str]:
    """`(separates, verdict)` by one rule: does the interval of `Bounds.gap` leave out 0?

    For a metric with one value a perturbation that is a sign test of "the replicate is better than the mean" over
    perturbations, and the interval of the median DRF leaves out 0 exactly if this one does.
    """
    if bounds is None:
        return None, f"cannot be judged on this data: {reason}"
    positive, negative = (_KNOWN.get(name, name) for name in (bounds.positive, bounds.negative))
    if bounds.count < least:
        return None, f"cannot be judged on this data: defined for {bounds.count} perturbations, {least} are needed"
    low, high = bounds.gap_interval
    if math.isnan(low):
        return None, "cannot be judged on this data: too few perturbations for an interval"
    if low > 0:
        return True, f"separates {positive} from {negative} on this data ({_numbers(bounds, level)})"
    if high < 0:
        return False, f"prefers {negative} to {positive} on this data ({_numbers(bounds, level)})"
    return False, f"cannot separate {positive} from {negative} on this data ({_numbers(bounds, level)})"


def _numbers(bounds: Bounds, level: float) -> str:
    low, high = bounds.gap_interval
    parts = [f"gain {bounds.gap:.3g}, {level:.0%} interval {low:.3g} to {high:.3g}"]
    if not math.isnan(bounds.discrimination):
        parts.append(f"better in {bounds.discrimination:.0%} of {bounds.count} perturbations")
    if not math.isnan(bounds.fraction.median):
        parts.append(f"{bounds.fraction.median:.2f} of the way to perfect")
    return "; ".join(parts)
