"""What a page is made of, in one form for one context and for several."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ..calibration import Calibration, EffectCurve
from ..evaluation import Comparison, find_metric, get_preset, Report, ScreenCalibration
from ..metrics import Metric


Calibrations: TypeAlias = ScreenCalibration | Mapping[str, Calibration] | Mapping[str, Mapping[str, Calibration]]
Curves: TypeAlias = EffectCurve | Mapping[str, EffectCurve]
Difficulty: TypeAlias = Mapping[str, np.ndarray] | Mapping[str, Mapping[str, np.ndarray]]

# What a page shows of single perturbations, if the report has it: ranks and correlations before errors.
_HEADLINES = ("pds_cosine", "pds_l1", "discrimination_score_l1", "weighted_r2", "delta_pearson", "pearson_delta")
_HEADLINES += ("weighted_mse", "expr_mse", "mse", "expr_mae", "mae")


@dataclasses.dataclass(frozen=True)
class Content:
    """**Fields:** `calibrations` and `difficulty` by context, "" where there is none; `curves` by label; `left_out`,
    metrics that cannot be calibrated with the reason; `stamp`, of the report or else of the calibration.
    """

    report: Report | None
    calibrations: Mapping[str, Mapping[str, Calibration]]
    comparison: Comparison | None
    curves: Mapping[str, EffectCurve]
    difficulty: Mapping[str, Mapping[str, np.ndarray]]
    left_out: Mapping[str, str]
    stamp: Mapping[str, Any]

    @functools.cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric that the page names, with its row of the catalogue."""
        found = {} if self.report is None else dict(self.report.metrics)
        for rows in self.calibrations.values():
            found |= {name: row.metric for name, row in rows.items() if name not in found}
        if self.comparison is not None:
            preset = get_preset(self.comparison.preset)
            names = dict.fromkeys(row.metric for row in self.comparison.rows)
            found |= {name: find_metric(name, preset)[1] for name in names if name not in found}
        return found

    def headlines(self, context: str, most: int = 4) -> list[str]:
        """Metrics of single perturbations to show: known ones first, and those first that can tell."""
        if self.report is None:
            return []
        fit = [
            name
            for name, metric in self.report.metrics.items()
            if metric.level == "perturbation"
            and metric.higher_is_better is not None
            and np.isfinite(self.report.values(name, context)).any()
        ]
        judged = self.calibrations.get(context, {})
        able = {name for name in fit if name in judged and judged[name].separates}
        known = [name for name in _HEADLINES if name in fit]
        order = [*known, *(name for name in fit if name not in known)]
        return sorted(order, key=lambda name: name not in able)[:most]


def make_content(
    report: Report | None,
    calibrations: Calibrations | None,
    comparison: Comparison | None,
    curves: Curves | None,
    difficulty: Difficulty | None,
) -> Content:
    """**Raises:** `ValueError` where there is nothing to show, or difficulty does not fit the report."""
    left_out, stamp = {}, {}
    if isinstance(calibrations, ScreenCalibration):
        left_out, stamp = calibrations.left_out, calibrations.stamp
        calibrations = {context: calibrations.of(context) for context in calibrations.contexts}
    if report is not None:
        stamp = report.stamp
        curves = report.curves if curves is None else curves
        difficulty = report.difficulty if difficulty is None else difficulty
    content = Content(
        report,
        {context: rows for context, rows in _by_context(calibrations).items() if rows},
        comparison,
        {"": curves} if isinstance(curves, EffectCurve) else dict(curves or {}),
        {context: _arrays(columns) for context, columns in _by_context(difficulty).items() if columns},
        left_out,
        stamp,
    )
    if report is None and comparison is None and not (content.calibrations or content.curves or content.difficulty):
        raise ValueError("There is nothing to report: give a report, calibrations, a comparison, curves or difficulty.")
    if report is not None:
        for context, columns in content.difficulty.items():
            number = len(report.perturbations(context))
            wrong = [name for name, column in columns.items() if column.shape != (number,)]
            if wrong:
                raise ValueError(f"`difficulty` {wrong[0]!r} must have one number for each of {number} perturbations.")
    return content


def _by_context(given: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    if not given:
        return {}
    return dict(given) if isinstance(next(iter(given.values())), Mapping) else {"": given}


def _arrays(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(column, np.float64) for name, column in columns.items()}
