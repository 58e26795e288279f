"""Intervals of a report's scores: the bootstrap over perturbations, and which perturbation carries a score."""

import dataclasses
import math

import jax
import numpy as np

from .. import comparison
from ..comparison import Method
from ._compare import _carrier, _PARTS
from ._report import Report
from ._results import results_of


@dataclasses.dataclass(frozen=True)
class ScoreInterval:
    """The number to quote for one metric in one context, and how sure it is.

    **Fields:**

    - `value`, `low`, `high`: the mean over the `used` perturbations of `total` (of a ratio of sums, that ratio) and its
        interval; NaN bounds where a number of the panel has no parts to draw from.
    - `carrier`: the perturbation with the largest influence; `without_carrier`: the value without it.
    """

    metric: str
    context: str
    value: float
    low: float
    high: float
    used: int
    total: int
    carrier: str
    without_carrier: float


def with_intervals(
    report: Report, samples: int = 1000, *, level: float = 0.95, method: Method = "bca", seed: int = 0
) -> Report:
    """The report with an interval of every score: its `intervals`, and what made them in its stamp.

    Perturbations are what is drawn: the interval is about other perturbations of this kind, measured as these were. It
    says nothing of other cells, or of another screen. Arguments as of `vcjax.comparison.confidence_interval`; every
    metric is drawn with the same `seed`, so that their resamples agree.

    **Raises:** `ValueError` for an unknown method, a level outside (0, 1) and fewer than one sample.
    """
    run = results_of(report)
    rows = []
    with jax.enable_x64(True):
        for context, perts in run.perturbations.items():
            for name in run.metrics:
                parts = [name] if (context, name) in run.values else [*_PARTS.get(name, ())]
                columns = [run.values[context, part] for part in parts if (context, part) in run.values]
                number = run.panel.get((context, name), math.nan)
                if not columns or len(columns) < len(parts):
                    used = len(perts) if math.isfinite(number) else 0
                    rows.append(ScoreInterval(name, context, number, *_NOTHING, used, len(perts), "", math.nan))
                    continue
                values = columns[0] if len(parts) == 1 else np.stack(columns, axis=-1)
                options = {"samples": samples, "level": level, "method": method, "key": jax.random.key(seed)}
                rows.append(_interval(name, context, perts, values, options))
    made = {"samples": samples, "level": level, "method": method, "seed": seed, "over": "perturbations"}
    return dataclasses.replace(report, intervals=tuple(rows), stamp={**report.stamp, "intervals": made})


_NOTHING = (math.nan, math.nan)


def _interval(name: str, context: str, perts: tuple[str, ...], values: np.ndarray, options: dict) -> ScoreInterval:
    statistic = comparison.mean if values.ndim == 1 else comparison.ratio_of_sums
    used = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not used.any():
        return ScoreInterval(name, context, math.nan, *_NOTHING, 0, len(perts), "", math.nan)
    values = np.where(used.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
    found = comparison.confidence_interval(values, statistic=statistic, **options)
    moved = np.asarray(comparison.influence(values, statistic=statistic))
    carrier, value = _carrier(moved), float(found.estimate)
    return ScoreInterval(
        *(name, context, value, float(found.low), float(found.high), int(used.sum()), len(perts)),
        *(("", math.nan) if carrier is None else (perts[carrier], float(value - moved[carrier]))),
    )
