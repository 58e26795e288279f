"""Running a plan: summarise, pair, compute, and collect the rows."""

import dataclasses
import datetime
import functools
from collections.abc import Callable
from typing import Any, TYPE_CHECKING

import jax
import numpy as np

from ..io import Screen, summarise, Summary
from ..io._de import Tested
from ..metrics import Metric
from ._cache import cached_summary, save_cached
from ._compute import compute, Outcome
from ._measured import Measured
from ._pair import align_summaries, measured_pair, Pair, with_control_in_gaps, without_gaps
from ._plan import Plan
from ._report import PANEL, Report
from ._sides import at_once
from ._stamp import device_name, digest, versions
from ._tables import run_tests, with_tests


if TYPE_CHECKING:
    from ..calibration import EffectCurve

Progress = Callable[[str, int, int], None]  # stage, done, total


def run_plan(plan: Plan, progress: Progress | None = None, *, details: bool = False) -> Report:
    """Computes a plan. A metric that fails ends as rows with status `error`; see `Report.failed`.

    `details`: keep in the report what figures show beside the scores, its `curves` and `difficulty`.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    errors, fingerprints, tables, curves, hardness = {}, {}, {}, {}, {}
    for context in plan.contexts:
        pair = _pair(plan, context, progress)
        if context == plan.contexts[-1]:
            _let_go(plan)
        if plan.tables is not None and plan.tables.write:
            tables |= {(context, "pred"): _against(plan, pair).pred, (context, "real"): pair.real}
        fingerprints[context or "all"] = {"pred": pair.pred.fingerprint, "real": pair.real.fingerprint}
        with jax.enable_x64(plan.dtype == "float64"), jax.default_device(plan.device):
            outcomes = _outcomes(plan, pair, Measured.of(plan, pair, context))
            if details:
                curves[context], hardness[context] = _details(plan, pair)
        for name in plan.selection.metrics:
            _add_rows(columns, plan, pair, name, outcomes[name])
            if outcomes[name].error:
                errors[name] = outcomes[name].error
    arrays: dict[str, Any] = {name: np.array(values, _COLUMNS[name]) for name, values in columns.items()}
    return Report(
        **arrays,
        metrics=dict(plan.selection.metrics),
        preset=plan.selection.preset,
        stamp=_stamp(plan, errors, fingerprints),
        tables=tables,
        curves=curves,
        difficulty=hardness,
    )


_COLUMNS = {
    **dict.fromkeys(("perturbation", "context", "metric", "status", "version"), object),
    "value": np.float64,
    "n_pred": np.int64,
    "n_real": np.int64,
}


def _pair(plan: Plan, context: str, progress: Progress | None) -> Pair:
    pred, real = plan.sides.pred, plan.sides.real
    label = f" {context}" if context else ""
    make_real = functools.partial(_summary, plan, real, context, progress, f"measured{label}")
    make_pred = functools.partial(_summary, plan, pred, context, progress, f"predicted{label}")
    if plan.tables is not None and not plan.noise and plan.space == "lognorm":
        # The tests may leave the sums that the profiles are made of.
        tests = run_tests(plan, context, progress)
        real_summary, pred_summary = make_real(tests.get("real")), make_pred(tests.get("pred"))
    else:
        if plan.cache_real is not None:
            make_real = functools.partial(cached_summary, plan, context, make_real)
        real_summary, pred_summary = at_once(make_real, make_pred)
        tests = run_tests(plan, context, progress, cached=real_summary)
    pred_summary = with_tests(plan, "pred", pred_summary, tests)
    real_summary = with_tests(plan, "real", real_summary, tests)
    if plan.cache_real is not None and "real" in tests and plan.tables is not None and "real" not in plan.tables.given:
        save_cached(plan, context, real_summary)
    if isinstance(pred, Screen) and isinstance(real, Screen):
        return measured_pair(pred_summary, real_summary, context)
    return align_summaries(
        pred_summary, real_summary, missing=plan.reading.missing, extra=plan.reading.extra, context=context
    )


def _let_go(plan: Plan) -> None:
    """Frees cells that reading has kept: what comes now needs memory, and not the cells."""
    for side in (plan.sides.pred, plan.sides.real):
        if isinstance(side, Screen):
            side.matrix.let_go()


def _summary(
    plan: Plan,
    side: Screen | Summary,
    context: str,
    progress: Progress | None,
    stage: str,
    tested: Tested | None = None,
) -> Summary:
    if isinstance(side, Summary):
        return side
    return summarise(
        side,
        space=plan.space,
        target_sum=plan.target_sum,
        noise=plan.noise,
        context=context or None,
        targets=plan.targets if side.perts == plan.sides.real.perts else None,
        tested=tested,
        max_entries=plan.max_entries,
        progress=None if progress is None else functools.partial(progress, stage),
    )


def _outcomes(plan: Plan, pair: Pair, measured: Measured) -> dict[str, Outcome]:
    metrics = dict(plan.selection.metrics)
    if not pair.missing.any():
        return _compute(plan, metrics, pair, measured)
    # What stands in for a missing row must not reach the others. Ranks are safe, since each row is ranked among
    # measured profiles only; other metrics may couple predicted rows and are computed without the missing ones.
    whole = _compute(plan, metrics, with_control_in_gaps(pair), measured)
    alone = {name: metric for name, metric in metrics.items() if not _ranks_measured(name)}
    part = _compute(plan, alone, without_gaps(pair), measured)
    return {name: _merged(plan, metrics[name], pair, whole[name], part.get(name)) for name in metrics}


def _against(plan: Plan, pair: Pair) -> Pair:
    """The pair with the control, and the targets, that the prediction is measured from."""
    pred = dataclasses.replace(pair.pred, targets=pair.real.targets)
    if plan.selection.preset.control_source == "real":
        pred = pred.with_control_of(pair.real)
    return dataclasses.replace(pair, pred=pred)


def _compute(plan: Plan, metrics: dict[str, Metric], pair: Pair, measured: Measured) -> dict[str, Outcome]:
    pair = _against(plan, pair)
    pred, real = pair.pred, pair.real
    if plan.selection.preset.float32_profiles:
        pred, real = _in_float32(pred), _in_float32(real)
    weighted = {name: metric for name, metric in metrics.items() if metric.needs_weights}
    plain = {name: metric for name, metric in metrics.items() if name not in weighted}
    outcomes = compute(plain, pred.to_profiles(), measured.profiles(real)) if plain else {}
    return outcomes | measured.weighted(weighted, pred, real) if weighted else outcomes


def _details(plan: Plan, pair: Pair) -> tuple["EffectCurve", dict[str, np.ndarray]]:
    """Measured against predicted effects of what was predicted, and what makes each perturbation hard."""
    # Few runs ask for these, and none should wait for the import.
    from ..calibration import effect_curve
    from ._difficulty import difficulty

    hardness = difficulty(pair.real.to_profiles())
    pair = _against(plan, without_gaps(pair))
    assert pair.pred.control is not None
    assert pair.real.control is not None
    return effect_curve(pair.pred.mean - pair.pred.control, pair.real.mean - pair.real.control), hardness


def _in_float32(summary: Summary) -> Summary:
    control = None if summary.control is None else summary.control.astype(np.float32)
    return dataclasses.replace(summary, mean=summary.mean.astype(np.float32), control=control)


def _ranks_measured(name: str) -> bool:
    return name.startswith(("pds", "discrimination_score"))


def _merged(plan: Plan, metric: Metric, pair: Pair, whole: Outcome, part: Outcome | None) -> Outcome:
    """Rows that were predicted from `part` (or `whole`), and what the policy says for the missing ones."""
    if whole.error:
        return whole
    if metric.level == "panel":
        return whole if part is None else part
    values, status = whole.values.copy(), whole.status.copy()
    if part is not None:
        values[~pair.missing], status[~pair.missing] = part.values, part.status
    status[pair.missing] = "missing"
    if plan.reading.missing != "worst":
        values[pair.missing] = np.nan
    elif metric.worst is not None:
        values[pair.missing] = metric.worst
    # An error without an upper bound keeps what the unperturbed control scores in place of the missing row.
    return Outcome(values, status, "" if part is None else part.error)


def _add_rows(columns: dict[str, list[Any]], plan: Plan, pair: Pair, name: str, outcome: Outcome) -> None:
    panel = plan.selection.metrics[name].level == "panel"
    perts = [PANEL] if panel else pair.real.perts
    preset = plan.selection.preset
    columns["perturbation"] += perts
    columns["context"] += [pair.context] * len(perts)
    columns["metric"] += [name] * len(perts)
    columns["value"] += outcome.values.tolist()
    columns["status"] += outcome.status.tolist()
    columns["n_pred"] += [pair.pred.cells.sum()] if panel else pair.pred.cells.tolist()
    columns["n_real"] += [pair.real.cells.sum()] if panel else pair.real.cells.tolist()
    source = preset.source if name in preset.metrics else f"vcjax {versions()['vcjax']}"
    columns["version"] += [source] * len(perts)


def _stamp(plan: Plan, errors: dict[str, str], fingerprints: dict[str, Any]) -> dict[str, Any]:
    settings = plan.settings()
    return {
        "versions": versions(),
        "device": device_name(plan.device),
        "dtype": plan.dtype,
        "preset": plan.selection.preset.name,
        "source": plan.selection.preset.source,
        "genes": plan.shape[1],
        "settings": settings,
        "digest": digest(settings),
        "inputs": {**plan.sides.inputs, **({} if plan.tables is None else plan.tables.files)},
        "fingerprints": {"screens": dict(plan.sides.fingerprints), "profiles": fingerprints},
        "seeds": {"match_cells": plan.reading.seed} if plan.reading.match_cells else {},
        "not_provided": list(plan.selection.not_provided),
        "errors": errors,
        "notes": list(plan.notes),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
