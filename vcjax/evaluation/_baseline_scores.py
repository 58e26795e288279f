"""What baselines score on held-out perturbations, fold by fold."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..calibration import Control, ControlSet
from ..calibration._scoring import Found, OK, score_controls
from ..io import Refusal
from ..metrics import Metric
from ._baseline_data import take_rows
from ._baseline_folds import as_profiles, FoldSetup, HeldOut


POOLED = frozenset(("expr_mse_unbiased_capped_norm",))
"""Metrics of the panel that compare no perturbation with another: ratios of sums over perturbations.

They are taken over all folds at once, for in a small fold what they are divided by, an effect size less its noise, may
vanish.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """What one prediction scores by one metric.

    **Fields:** `values`, of perturbations, or one of the panel; `left_out`, that one without each perturbation in turn;
    `status`, `ok` or what is wrong; `used`, of how many perturbations there is a value, or one behind the panel's.
    """

    values: np.ndarray
    left_out: np.ndarray | None
    status: str
    used: int

    @classmethod
    def of(cls, found: Found) -> "Score":
        """A score on one panel."""
        known = np.isfinite(found.values)
        used = int(known.sum()) if found.left_out is None else len(found.left_out) * int(known[0])
        return cls(found.values, found.left_out, found.status, used)


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Scores of held-out effects against the measured profiles `truth`, a row for each of `setup.scored`.

    A metric that looks at several perturbations at once, to rank them or for one number of the panel, sees those of one
    fold. Others were in training: a prediction is drawn to them and away from what was held out, so that even a mean,
    which tells none apart, would score below one half, and would seem to vary.
    """

    setup: FoldSetup
    truth: Profiles
    found: Mapping[str, HeldOut]

    def scores(self, metric: Metric) -> dict[str, Score]:
        """What each baseline scores: a value for each perturbation, or one of the panel.

        That of the panel is the mean over folds, each counting as its perturbations, of those where it is defined; but
        for `POOLED`.
        """
        panels = self._panels(metric)
        parts = [self._panel(metric, rows) for rows in panels]
        if len(parts) == 1:
            return {name: Score.of(one) for name, one in parts[0].items()}
        merge = _of_panels if metric.level == "panel" else _of_perturbations
        return {name: merge(panels, [part[name] for part in parts]) for name in self.found}

    def on_covered(self, metric: Metric, baseline: str, covered: np.ndarray) -> float:
        """The panel's value of a baseline over these perturbations; NaN without any."""
        values, weights = [], []
        for rows in self._panels(metric):
            inside = covered[rows]
            if inside.any():
                real = take_rows(self.truth, rows)
                pred = as_profiles(self.found[baseline].effect[rows], real)
                values.append(float(_among(metric, pred, real, jnp.asarray(inside))))
                weights.append(int(inside.sum()))
        return _weighted(values, weights)

    def _panels(self, metric: Metric) -> list[np.ndarray]:
        if self.setup.folds == "loo" or metric.name in POOLED:
            return [np.arange(len(self.setup.scored))]
        place = {pert: row for row, pert in enumerate(self.setup.scored)}
        return [np.array([place[pert] for pert in part]) for part in self.setup.parts()]

    def _panel(self, metric: Metric, rows: np.ndarray) -> dict[str, Found]:
        real = take_rows(self.truth, rows)
        predicted = {name: as_profiles(one.effect[rows], real) for name, one in self.found.items()}
        controls = {name: Control(profiles, "null") for name, profiles in predicted.items()}
        return score_controls(metric, ControlSet(real, controls), None, None)


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Refuses metrics that need more than profiles.

    **Raises:** `Refusal`.
    """
    more = lambda metric: metric.needs_de or metric.needs_real_de or metric.needs_energy or metric.needs_weights
    wrong = [name for name, metric in metrics.items() if more(metric)]
    if wrong:
        raise Refusal(
            what=f"{', '.join(wrong)} cannot be computed here.",
            where="metrics= / --metrics",
            why="Held-out predictions are profiles: they have no cells to test, and no weights.",
            fix="name metrics of profiles (expr_mse, delta_pearson, pds_cosine), or write the prediction with "
            "`vcjax baseline fit` and score it with `vcjax run`.",
        )


def _of_perturbations(panels: Sequence[np.ndarray], parts: Sequence[Found]) -> Score:
    values = np.full(sum(map(len, panels)), np.nan)
    for rows, part in zip(panels, parts, strict=True):
        values[rows] = part.values
    return Score(values, None, _status(values, parts), int(np.isfinite(values).sum()))


def _of_panels(panels: Sequence[np.ndarray], parts: Sequence[Found]) -> Score:
    r"""$\bar\theta = \sum_f n_f \theta_f / \sum_f n_f$, and the same without each perturbation in turn."""
    values, sizes = [float(part.values[0]) for part in parts], [len(rows) for rows in panels]
    whole = np.array([_weighted(values, sizes)])
    # A perturbation of a fold without a value takes no part: without it nothing changes.
    left_out, used = np.full(sum(sizes), whole[0]), 0
    for at, (rows, part) in enumerate(zip(panels, parts, strict=True)):
        if np.isfinite(values[at]) and part.left_out is not None:
            used += len(rows)
            for row, value in zip(rows, part.left_out, strict=True):
                others = [*values[:at], float(value), *values[at + 1 :]]
                left_out[row] = _weighted(others, [*sizes[:at], sizes[at] - 1, *sizes[at + 1 :]])
    return Score(whole, left_out, _status(whole, parts), used)


def _status(values: np.ndarray, parts: Sequence[Found]) -> str:
    if np.isfinite(values).any():
        return OK
    return next(part.status for part in parts if part.status != OK)


def _weighted(values: Sequence[float], weights: Sequence[int]) -> float:
    """The mean of the values that are defined."""
    known = np.isfinite(values) & (np.asarray(weights) > 0)
    return float(np.average(np.asarray(values)[known], weights=np.asarray(weights)[known])) if known.any() else np.nan


@eqx.filter_jit
def _among(metric: Metric, pred: Profiles, real: Profiles, valid: Any) -> Any:
    return metric(pred, real, valid=valid)
