"""From scores of held-out perturbations to the rows of the table of baselines: means, gains and intervals."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..baselines import Baseline, BASELINES, Role, role
from ..calibration import jackknife_interval
from ..comparison import confidence_interval
from ..metrics import Metric
from ._baseline_results import BaselineRow
from ._baseline_scores import Score, Scorer


REFERENCE = "mean"
"""The baseline that all others are compared with."""

ROUNDING = 1e-12
"""Smaller differences are those of sums in another order."""


def alike(one: float, other: float) -> bool:
    """Whether two scores differ by no more than that."""
    return abs(one - other) <= ROUNDING * max(1.0, abs(other))


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """Makes rows: `kinds` are the baselines by name, `scorer` has what they predict."""

    metrics: Mapping[str, Metric]
    kinds: Mapping[str, str | Baseline]
    scorer: Scorer
    samples: int
    level: float
    seed: int

    def rows(self, name: str) -> list[BaselineRow]:
        """One row a baseline, the best competitor marked."""
        scores = self.scorer.scores(self.metrics[name])
        rows = [self._row(name, one, scores[one], scores.get(REFERENCE)) for one in scores]
        better = self.metrics[name].higher_is_better
        ranked = [row for row in rows if row.role == "competitor" and np.isfinite(row.value)]
        if better is None or not ranked:
            return rows
        top = (max if better else min)(row.value for row in ranked)
        as_good = [row for row in ranked if alike(row.value, top)]
        # Of several that are as good the simplest is named.
        best = next((row for row in as_good if row.baseline == REFERENCE), as_good[0])
        return [dataclasses.replace(row, best=row is best) for row in rows]

    def plain(self, name: str, baseline: str, kind: Role, fairness: str, score: Score) -> BaselineRow:
        """A row with the value on all perturbations and its interval."""
        value, low, high = self._interval(score.values, score.left_out)
        better = self.metrics[name].higher_is_better
        return BaselineRow(baseline, kind, fairness, name, better, value, low, high, score.used, status=score.status)

    def _row(self, name: str, baseline: str, score: Score, reference: Score | None) -> BaselineRow:
        one = self.scorer.found[baseline]
        row = self.plain(name, baseline, self._role(baseline), one.fairness, score)
        row = dataclasses.replace(row, covered=int(one.covered.sum()))
        if reference is None:
            return row
        sign = {True: 1.0, False: -1.0, None: np.nan}[self.metrics[name].higher_is_better]
        gap = lambda ours, theirs: None if ours is None or theirs is None else sign * (ours - theirs)
        gain = self._interval(sign * (score.values - reference.values), gap(score.left_out, reference.left_out))
        value, mean = self._on_covered(name, baseline, (score, reference), one.covered)
        return dataclasses.replace(
            *(row,), covered_value=value, mean_on_covered=mean, gain=gain[0], gain_low=gain[1], gain_high=gain[2]
        )

    def _on_covered(
        self, name: str, baseline: str, scores: tuple[Score, Score], covered: np.ndarray
    ) -> tuple[float, float]:
        """What a baseline and the reference score on the perturbations that the first covers."""
        metric = self.metrics[name]
        if metric.level == "perturbation":
            mean = lambda x: float(np.nanmean(x)) if np.isfinite(x).any() else float("nan")
            return mean(scores[0].values[covered]), mean(scores[1].values[covered])
        if covered.all():
            return float(scores[0].values[0]), float(scores[1].values[0])
        first, second = (self.scorer.on_covered(metric, one, covered) for one in (baseline, REFERENCE))
        return first, second

    def _role(self, baseline: str) -> Role:
        one = self.kinds[baseline]
        return role(one if isinstance(one, Baseline) else BASELINES[baseline.partition(":")[0]])

    def _interval(self, values: np.ndarray, left_out: np.ndarray | None) -> tuple[float, float, float]:
        """`(mean, low, high)` of values of perturbations; of a panel's one value by its jackknife."""
        if not np.isfinite(values).any():
            return np.nan, np.nan, np.nan
        if left_out is not None:
            value = float(values[0])
            return value, *jackknife_interval(value, left_out, level=self.level)
        estimate, low, high = _bootstrap(jnp.asarray(values), jax.random.key(self.seed), self.samples, self.level)
        return float(estimate), float(low), float(high)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _bootstrap(values: Any, key: Any, samples: int, level: float) -> tuple[Any, Any, Any]:
    found = confidence_interval(values, key=key, samples=samples, level=level)
    return found.estimate, found.low, found.high
