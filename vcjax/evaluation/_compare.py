"""Two predictions of one measured screen: is one better, by how much, and how sure is that?"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import comparison
from ..comparison import Correction, Method
from ..io import Refusal
from ..metrics import Metric
from ._comparable import check_comparable
from ._comparison import ComparedMetric, Comparison
from ._results import Results, results_of, Run


ALL = "all contexts"
NO_DIFFERENCE = "no difference shown"

# A ratio of sums can be drawn anew where the run has its parts.
_PARTS = {"expr_mse_unbiased_capped_norm": ("expr_mse_unbiased_capped", "expr_distance_unbiased")}


@dataclasses.dataclass(frozen=True)
class _Options:
    samples: int
    permutations: int
    level: float
    method: Method


def compare(
    report_a: Run,
    report_b: Run,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: Method = "bca",
    permutations: int = 9_999,
    correction: Correction = "holm",
    undefined: Literal["no_skill", "drop"] = "no_skill",
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Whether one of two predictions is better, metric by metric, on the perturbations of one measured screen.

    ```python
    print(vcjax.evaluation.compare("runs/mine", "runs/baseline", names=("mine", "mean")).summary())
    ```

    A metric has a winner where its adjusted p-value is at most `1 - level` *and* its interval leaves out 0. With
    several contexts there is a row for each and one for all of them, in which contexts weigh the same and a
    perturbation is drawn with all its contexts.

    **Arguments:**

    - `report_a`, `report_b`: reports of `vcjax.evaluate`, or folders that `vcjax run` wrote.
    - `samples`, `level`, `method`: of the bootstrap over perturbations (`vcjax.comparison.confidence_interval`).
    - `permutations`: of the test that swaps the models (`vcjax.comparison.swap_test`).
    - `correction`: of the p-values over the metrics of a context: `"holm"`, `"bh"` or `"none"`.
    - `undefined`: what a value counts that only one model lacks: `"no_skill"`, the metric's value without skill, so
        that nobody gains by having none; or `"drop"`, the perturbation for both. A value that both lack, or of a metric
        that has no such value, is dropped for both. Either way both means are over the same perturbations.
    - `names`: what to call the two.

    **Returns:** a `Comparison`. Metrics that do not depend on the prediction, or ended in an error, are left out.

    **Raises:** `vcjax.io.Refusal` for runs of different screens, perturbations, presets or settings, without a common
    metric, for a folder without a finished run, and for two equal names; `ValueError` for an unknown option.
    """
    if undefined not in ("no_skill", "drop"):
        raise ValueError(f"`undefined` is 'no_skill' or 'drop', got {undefined!r}.")
    if names[0] == names[1]:
        raise Refusal(
            what=f"Both models are called {names[0]!r}.",
            where="names= / --names",
            why="Nobody could tell which of them won.",
            fix="Give them two names: names=('mine', 'baseline').",
        )
    a, b = results_of(report_a), results_of(report_b)
    notes = check_comparable(a, b)
    failed = [name for name in a.metrics if name in {*_failed(a), *_failed(b)} and name in b.metrics]
    compared = [
        name
        for name, metric in a.metrics.items()
        if name in b.metrics and metric.differentiable != "constant" and name not in failed
    ]
    if failed:
        notes = (*notes, f"ended in an error, not compared: {', '.join(failed)}")
    contexts = [*a.perturbations] + ([ALL] if len(a.perturbations) > 1 else [])
    options = _Options(samples, permutations, level, method)
    rows = []
    with jax.enable_x64(True):
        for context in contexts:
            part = [_compared(a, b, name, context, undefined, jax.random.key(seed), options) for name in compared]
            rows += _judged(part, correction, level, names)
    return Comparison(
        *(tuple(rows), names, (a.source, b.source), a.preset.name, level, method, samples, permutations),
        *(correction, undefined, seed, notes),
    )


def _failed(run: Results) -> set[str]:
    return set(run.stamp.get("errors") or {})


def _compared(
    a: Results, b: Results, name: str, context: str, undefined: str, key: jax.Array, options: _Options
) -> ComparedMetric:
    metric = a.metrics[name]
    labels = _labels(a, context)
    blank = ComparedMetric(name, context, "number", metric.higher_is_better, total=len(labels))
    parts = _PARTS.get(name, ()) if metric.level == "panel" else (name,)
    if not parts or any(part not in run.metrics for part in parts for run in (a, b)):
        return _number_only(blank, a, b)
    (left, right), statistic = _columns(a, b, parts, context, labels)
    fill = metric.no_skill if undefined == "no_skill" and len(parts) == 1 else None
    filled = _filled(left, right, fill)
    both = comparison.complete_pairs(left, right, fill=fill)
    numbers = {x: np.asarray(y) for x, y in _numbers(*both, key, statistic, options).items()}
    ahead = np.asarray(both[0] - both[1])
    # The denominators of a ratio are the measured side's and the same for both.
    ahead = ahead[..., 0] if len(parts) > 1 else ahead
    flat = _mean_over_contexts(ahead)
    carrier = _carrier(numbers["influence"])
    return dataclasses.replace(
        blank,
        agg="mean" if len(parts) == 1 else "ratio_of_sums",
        **{x: float(numbers[x]) for x in ("a", "b", "difference", "low", "high", "pvalue")},
        wilcoxon=comparison.wilcoxon_pvalue(flat, np.zeros_like(flat)),
        won=_won(ahead, metric),
        used=int(numbers["used"]),
        filled_a=filled[0],
        filled_b=filled[1],
        carrier="" if carrier is None else labels[carrier],
        without_carrier=math.nan if carrier is None else float(numbers["difference"] - numbers["influence"][carrier]),
    )


def _columns(
    a: Results, b: Results, parts: tuple[str, ...], context: str, labels: tuple[str, ...]
) -> tuple[list[np.ndarray], Callable]:
    """The values of both runs, with the statistic over them; the parts of a ratio stand on the last axis."""
    columns = [np.stack([_column(run, part, context, labels) for part in parts], axis=-1) for run in (a, b)]
    if len(parts) == 1:
        return [column[..., 0] for column in columns], comparison.mean
    # A perturbation counts where both models have both parts.
    whole = np.all(np.isfinite(np.stack(columns)), axis=(0, -1))[..., None]
    return [np.where(whole, column, np.nan) for column in columns], comparison.ratio_of_sums


@eqx.filter_jit
def _numbers(a, b, key, statistic, options: _Options) -> Mapping[str, jax.Array]:
    found = comparison.paired_difference(a, b, key=key, statistic=statistic, **dataclasses.asdict(options))
    moved = comparison.influence(jnp.stack([a, b], axis=-1), statistic=comparison.difference_of(statistic))
    gap = found.difference
    return {
        **{"a": found.value_a, "b": found.value_b, "difference": gap.estimate, "low": gap.low, "high": gap.high},
        **{"pvalue": found.pvalue, "used": gap.used, "influence": moved},
    }


def _labels(run: Results, context: str) -> tuple[str, ...]:
    if context in run.perturbations:
        return run.perturbations[context]
    return tuple(dict.fromkeys(label for labels in run.perturbations.values() for label in labels))


def _column(run: Results, name: str, context: str, labels: tuple[str, ...]) -> np.ndarray:
    """Values in the order of `labels`; for all contexts a column each, NaN where a perturbation is not in it."""
    if context not in run.perturbations:
        return np.stack([_column(run, name, each, labels) for each in run.perturbations], axis=-1)
    found = dict(zip(run.perturbations[context], run.values[context, name], strict=True))
    return np.array([found.get(label, math.nan) for label in labels], np.float64)


def _number_only(blank: ComparedMetric, a: Results, b: Results) -> ComparedMetric:
    contexts = [blank.context] if blank.context in a.perturbations else list(a.perturbations)
    left, right = (float(np.mean([run.panel[each, blank.metric] for each in contexts])) for run in (a, b))
    return dataclasses.replace(blank, a=left, b=right, difference=left - right, used=blank.total)


def _filled(a: np.ndarray, b: np.ndarray, fill: float | None) -> tuple[int, int]:
    if fill is None:
        return 0, 0
    known_a, known_b = np.isfinite(a), np.isfinite(b)
    return int(np.sum(~known_a & known_b)), int(np.sum(known_a & ~known_b))


def _mean_over_contexts(x: np.ndarray) -> np.ndarray:
    if x.ndim == 1:
        return x
    known = np.isfinite(x)
    number = known.sum(axis=1)
    return np.where(number > 0, np.where(known, x, 0).sum(axis=1) / np.maximum(number, 1), np.nan)


def _won(ahead: np.ndarray, metric: Metric) -> float:
    if metric.higher_is_better is None:
        return math.nan
    return float(comparison.share_won(ahead, np.zeros_like(ahead), higher_is_better=metric.higher_is_better))


def _carrier(influence: np.ndarray) -> int | None:
    return int(np.nanargmax(np.abs(influence))) if np.isfinite(influence).any() else None


def _judged(
    rows: list[ComparedMetric], correction: Correction, level: float, names: tuple[str, str]
) -> list[ComparedMetric]:
    """Adjusted p-values over the metrics that have a better and a worse, and the verdicts."""
    directed = np.array([row.higher_is_better is not None for row in rows], bool)
    pvalues = np.array([row.pvalue for row in rows], np.float64)
    adjusted = comparison.adjust(np.where(directed, pvalues, np.nan), correction)
    verdict = functools.partial(_verdict, level=level, names=names)
    return [
        dataclasses.replace(row, adjusted=float(p), verdict=verdict(row, float(p)))
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _verdict(row: ComparedMetric, adjusted: float, *, level: float, names: tuple[str, str]) -> str:
    if math.isnan(adjusted):
        return ""
    shown = adjusted <= 1 - level and (row.low > 0 or row.high < 0)
    if not shown:
        return NO_DIFFERENCE
    return names[0] if (row.difference > 0) == row.higher_is_better else names[1]
