"""Calibrating a metric: its values for controls of known worth, and for a prediction beside them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .._profiles import Profiles
from .._types import GeneMask, PertsGenes
from ..metrics import Metric
from ._bds import bound_discrimination
from ._calibration import Bounds, Calibration, judge, PREDICTION
from ._controls import ControlSet, Role
from ._drf import dynamic_range_fraction, FractionSummary, LEAST, summarise_fractions
from ._intervals import jackknife_interval, median_interval, share_interval
from ._scaled import calibrated_score
from ._scoring import averaged, Found, OK, score_controls


def calibrate(
    metric: Metric,
    controls: ControlSet | Sequence[ControlSet],
    pred: Profiles | PertsGenes | Sequence[Profiles] | None = None,
    *,
    perfect: float | None = None,
    where: GeneMask = None,
    positive: str = "duplicate",
    least: int = LEAST,
    level: float = 0.95,
) -> Calibration:
    r"""Where the controls of a data set lie on a metric, whether it can tell them apart, and where a prediction lies.

    Every control, and the prediction, is scored against the truth of its set, as the catalogue's row says: the same
    control profile, genes and ties for all. Several sets (divisions of the cells into halves) are averaged value by
    value. A control that cannot serve the metric (a mean has no table of differential expression; a zero effect has no
    correlation) has a status instead of a value, and the next control of its role takes its place.

    The verdict asks whether the positive control is better than the null one (the negative one, where no null has a
    value): the median over perturbations of the difference must have an interval above 0, which is a sign test; for a
    metric of the panel the one difference, by the jackknife over perturbations. It is not judged for fewer than `least`
    perturbations. A metric that does not pass cannot rank models on this data.

    **Arguments:**

    - `metric`: any row with a good direction. `controls`: of the same perturbations, if several.
    - `pred`: predicted profiles, rows in the order of the truth; a sequence has one for each set, where tables of
        differential expression are against the control cells of each.
    - `perfect`: the best value, where the row has none.
    - `where`: genes that count. Gene weights come with each set.
    - `positive`: the control that stands for 1, and for the replicate of the verdict; the next positive one where it
        has no value.

    **Raises:** `ValueError` for a diagnostic without a good direction, no set, sets of different controls or
    perturbations; `RuntimeError` if a control is better than `perfect` while knowing nothing.

    Source: Miller et al. 2025 (dynamic range fraction), SBB (bound discrimination and calibrated score).
    """
    if metric.higher_is_better is None:
        raise ValueError(f"`{metric.name}` is a diagnostic without a good direction: nothing is better by it.")
    sets = _as_sets(controls)
    perfect = metric.perfect if perfect is None else perfect
    preds = list(pred) if isinstance(pred, list | tuple) and isinstance(pred[0], Profiles) else [pred] * len(sets)
    if len(preds) != len(sets):
        raise ValueError(f"One prediction, or one for each of the {len(sets)} sets, is expected; got {len(preds)}.")
    scored = [score_controls(metric, one, guess, where) for one, guess in zip(sets, preds, strict=True)]
    found = {name: averaged([row[name] for row in scored]) for name in scored[0]}
    status = {name: row.status for name, row in found.items()}
    roles: dict[str, Role] = {name: control.role for name, control in sets[0].controls.items()}
    usable = {role: [n for n, r in roles.items() if r == role and status[n] == OK] for role in _ROLES}
    first = {role: names[0] if names else None for role, names in usable.items()}
    chosen = positive if positive in usable["positive"] else first["positive"]
    bounds = tuple(
        _bounds(metric, perfect, high, low, found, least, level)
        for high in usable["positive"]
        for low in (*usable["null"], *usable["negative"])
    )
    lower = first["null"] or first["negative"]
    pair = next((row for row in bounds if (row.positive, row.negative) == (chosen, lower)), None)
    separates, verdict = judge(pair, _reason(roles, status), 1 if metric.level == "panel" else least, level)
    score = [_placed(metric, found, name, chosen, level) for name in (first["negative"], first["null"])]
    return Calibration(
        metric=metric,
        perfect=perfect,
        values={name: row.values for name, row in found.items()},
        status=status,
        roles=roles,
        negative=first["negative"],
        null=first["null"],
        positive=chosen,
        bounds=bounds,
        score=score[0][0],
        score_interval=score[0][1],
        score_over_null=score[1][0],
        separates=separates,
        verdict=verdict,
        splits=len(sets),
        level=level,
    )


_ROLES: tuple[Role, ...] = ("negative", "null", "positive")


def _as_sets(controls: ControlSet | Sequence[ControlSet]) -> tuple[ControlSet, ...]:
    sets = (controls,) if isinstance(controls, ControlSet) else tuple(controls)
    if not sets:
        raise ValueError("At least one set of controls is needed, got none.")
    about = {(one.truth.mean.shape, one.perts, tuple((n, c.role) for n, c in one.controls.items())) for one in sets}
    if len(about) > 1:
        raise ValueError("All sets must have the same perturbations and the same controls.")
    return sets


def _bounds(
    metric: Metric,
    perfect: float | None,
    high: str,
    low: str,
    found: Mapping[str, Found],
    least: int,
    level: float,
) -> Bounds:
    best, worst = found[high], found[low]
    better = metric.higher_is_better is True
    if metric.level == "panel":
        return _panel_bounds(better, perfect, high, low, best, worst, level)
    gap = best.values - worst.values if better else worst.values - best.values
    gap = gap[~np.isnan(gap)]
    credit = np.asarray(bound_discrimination(best.values, worst.values, higher_is_better=better))
    share = float(np.mean(credit[~np.isnan(credit)])) if len(gap) else math.nan
    nothing = np.full(1, np.nan) if perfect is None else _fraction(best.values, worst.values, perfect, better)
    return Bounds(
        positive=high,
        negative=low,
        fraction=summarise_fractions(nothing, least=least, level=level),
        discrimination=share,
        discrimination_interval=share_interval(share, len(gap), level=level),
        gap=float(np.median(gap)) if len(gap) else math.nan,
        gap_interval=median_interval(gap, level=level),
        count=len(gap),
    )


def _panel_bounds(
    better: bool, perfect: float | None, high: str, low: str, best: Found, worst: Found, level: float
) -> Bounds:
    sign = 1 if better else -1
    assert best.left_out is not None
    assert worst.left_out is not None
    gap, without = sign * (best.values - worst.values), sign * (best.left_out - worst.left_out)
    nan = math.nan
    fraction = FractionSummary(nan, nan, nan, nan, nan, nan, nan, 0)
    if perfect is not None:
        value = float(_fraction(best.values, worst.values, perfect, better)[0])
        others = _fraction(best.left_out, worst.left_out, perfect, better)
        fraction = FractionSummary(value, *jackknife_interval(value, others, level=level), value, nan, nan, nan, 1)
    return Bounds(
        positive=high,
        negative=low,
        fraction=fraction,
        discrimination=nan,
        discrimination_interval=(nan, nan),
        gap=float(gap[0]),
        gap_interval=jackknife_interval(float(gap[0]), without, level=level),
        count=1,
    )


def _fraction(best: np.ndarray, worst: np.ndarray, perfect: float, better: bool) -> np.ndarray:
    return np.asarray(dynamic_range_fraction(best, worst, perfect, higher_is_better=better))


def _placed(
    metric: Metric, found: Mapping[str, Found], low: str | None, high: str | None, level: float
) -> tuple[float, tuple[float, float]]:
    """The prediction between two controls, of means over the same perturbations, and the interval."""
    if PREDICTION not in found or low is None or high is None:
        return math.nan, (math.nan, math.nan)
    rows = [found[name] for name in (PREDICTION, low, high)]
    place = lambda x: np.asarray(calibrated_score(*x, higher_is_better=metric.higher_is_better is True))
    if metric.level == "panel":
        value, others = float(place([row.values for row in rows])[0]), place([row.left_out for row in rows])
        return value, jackknife_interval(value, others, level=level)
    values = np.stack([row.values for row in rows])
    values = values[:, ~np.isnan(values).any(axis=0)]
    n = values.shape[1]
    if n == 0:
        return math.nan, (math.nan, math.nan)
    value = float(place(values.mean(axis=1)))
    if n == 1:
        return value, (math.nan, math.nan)
    return value, jackknife_interval(value, place((values.sum(axis=1, keepdims=True) - values) / (n - 1)), level=level)


def _reason(roles: Mapping[str, Role], status: Mapping[str, str]) -> str:
    """Which role has no control with a value, and why."""
    for role, names in (("positive", ("positive",)), ("uninformative", ("null", "negative"))):
        mine = [name for name, r in roles.items() if r in names]
        if all(status[name] != OK for name in mine):
            told = "; ".join(f"{name}: {status[name]}" for name in mine)
            return f"no {role} control has a value ({told or 'there is none'})"
    return ""
