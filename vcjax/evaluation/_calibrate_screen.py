"""Calibrating the metrics of a preset on a measured screen, with controls made of its own cells."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..calibration import calibrate, Calibration, ControlSet
from ..io import differential_expression, Refusal, Screen, split_halves, summarise, Summary
from ..io._context import one_context
from ..metrics import Metric
from ._controls import Kind, KINDS, make_controls
from ._evaluate import prepare
from ._pair import take_perts
from ._plan import Plan
from ._run import Progress
from ._screen_calibration import ScreenCalibration
from ._sides import read_side, Reading, Source
from ._stamp import versions
from ._weighting import LEAST_CELLS


def calibrate_screen(
    real: Source,
    pred: Source | None = None,
    reading: Reading | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    kinds: Sequence[Kind] = KINDS,
    train_perts: Sequence[str] | None = None,
    positive: str = "duplicate",
    level: float = 0.95,
    progress: Progress | None = None,
    **options: Any,
) -> ScreenCalibration:
    """What every metric is worth on a measured screen, and where a prediction lies between its controls.

    ```python
    print(vcjax.evaluation.calibrate_screen("real.h5ad", "pred.h5ad").summary())
    ```

    The cells of the screen are split into halves; one is the truth, the other makes the controls (`make_controls`).
    Every metric is computed for all of them, and for the prediction, against the same truth (`vcjax.calibration`). Gene
    weights are made of the truth's own half, which no control and no prediction has seen: what the truth shows by
    chance then costs all of them alike.

    **Arguments:**

    - `real`, `pred`: as of `evaluate`; without a prediction only the controls are scored.
    - `seeds`: of the divisions into halves, whose values are averaged. `kinds`, `train_perts`: as `kinds`
        and `train` of `make_controls`.
    - `positive`, `level`: as of `vcjax.calibration.calibrate`.
    - `options`: of `prepare`: `preset`, `profile`, `metrics`, `skip`, `weights`, `max_memory`, `device`, `dtype`, ….

    **Returns:** a `ScreenCalibration`. A metric without a good direction, or one that fails, is in its `left_out`.

    **Raises:** `vcjax.io.Refusal` as `evaluate`, and for a screen that cannot be split.
    """
    reading = reading or Reading()
    if pred is None:
        memory = options.get("max_memory")
        real = read_side(real, reading, reading.input_type_real, require_control=True, max_memory=memory)
    plan = prepare(real if pred is None else pred, real, reading, **options)
    made = {"seeds": seeds, "kinds": kinds, "train_perts": train_perts, "positive": positive, "level": level}
    return calibrate_plan(plan, predicted=pred is not None, **made, progress=progress)


def calibrate_plan(
    plan: Plan,
    *,
    predicted: bool = True,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    kinds: Sequence[Kind] = KINDS,
    train_perts: Sequence[str] | None = None,
    positive: str = "duplicate",
    level: float = 0.95,
    progress: Progress | None = None,
) -> ScreenCalibration:
    """The same for a plan that is ready to run; `predicted`: whether its prediction is one."""
    if not isinstance(plan.sides.real, Screen) or plan.sides.real.scale == "delta":
        raise Refusal(
            what="Controls are made of measured cells, and there are none.",
            where=plan.sides.inputs["real"],
            why="What a replicate would score can only be seen from cells that are split.",
            fix="Give the measured screen itself: real= / --adata-real.",
        )
    directed = {name: row for name, row in plan.selection.metrics.items() if row.higher_is_better is not None}
    left_out = {
        name: "a diagnostic without a good direction" for name in plan.selection.metrics if name not in directed
    }
    calibrations, perturbations = {}, {}
    # Without a prediction the measured side stands in its place, and what is said of it is said of nothing.
    notes = [note for note in plan.notes if predicted or not (note.startswith("pred:") or "prediction" in note)]
    notes = [note for note in notes if not note.startswith("gene weights:")]
    if plan.weighting is not None:
        notes.append(f"gene weights: recipe {plan.weighting.recipe.name!r}, made of the half that is the truth")
    with jax.enable_x64(plan.dtype == "float64"), jax.default_device(plan.device):
        for context in plan.contexts:
            sets = _sets(plan, context, seeds, kinds, train_perts, progress)
            preds = _predictions(plan, context, sets, seeds) if predicted else None
            perturbations[context] = sets[0].perts
            notes += [note for note in dict.fromkeys(note for one in sets for note in one.notes)]
            for name, metric in directed.items():
                found = _calibrated(metric, sets, preds, positive=positive, level=level)
                if isinstance(found, Calibration):
                    calibrations[context, name] = found
                else:
                    left_out[name] = found
    stamp = {
        "versions": versions(),
        "preset": plan.selection.preset.name,
        "settings": plan.settings(),
        "inputs": dict(plan.sides.inputs) if predicted else {"real": plan.sides.inputs["real"]},
        "fingerprints": {"screens": dict(plan.sides.fingerprints)},
        "seeds": {"halves": list(seeds)},
        "controls": list(kinds),
        "notes": list(dict.fromkeys(notes)),
    }
    return ScreenCalibration(calibrations, perturbations, left_out, stamp)


def _calibrated(metric: Metric, sets: Sequence[ControlSet], preds: Any, **options: Any) -> Calibration | str:
    try:
        return calibrate(metric, sets, preds, **options)
    except (ValueError, RuntimeError) as failure:
        lines = str(failure).strip().splitlines()
        return lines[0] if lines else type(failure).__name__


def _sets(
    plan: Plan,
    context: str,
    seeds: Sequence[int],
    kinds: Sequence[Kind],
    train: Sequence[str] | None,
    progress: Progress | None,
) -> tuple[ControlSet, ...]:
    """The controls of one context, with gene weights where a metric needs them."""
    metrics = plan.selection.metrics.values()
    tested = any(metric.needs_de or metric.needs_real_de for metric in metrics)
    sets = make_controls(
        plan.sides.real,  # pyright: ignore[reportArgumentType]
        seeds=seeds,
        space=plan.space,
        target_sum=plan.target_sum,
        context=context or None,
        train=train,
        kinds=kinds,
        targets=plan.targets,
        de=plan.selection.preset.de if tested else None,
        energy=any(metric.needs_energy for metric in metrics),
        progress=None if progress is None else functools.partial(_tell, progress, context),
    )
    if plan.weighting is None:
        return sets
    return tuple(_weighed(one, plan) for one in sets)


def _weighed(one: ControlSet, plan: Plan) -> ControlSet:
    assert plan.weighting is not None
    assert one.moments is not None
    weights = plan.weighting.recipe(
        one.moments, control=one.control_moments, targets=one.truth.targets, perts=one.perts, cells="first half"
    )
    return dataclasses.replace(one, weights=weights.values)


def _tell(progress: Progress, context: str, stage: str, done: int, total: int) -> None:
    progress(f"{stage} {context}" if context else stage, done, total)


def _predictions(plan: Plan, context: str, sets: Sequence[ControlSet], seeds: Sequence[int]) -> tuple[Profiles, ...]:
    """The prediction beside every truth: one profile for all, tested against the control cells of each half."""
    pred = plan.sides.pred
    if isinstance(pred, Summary):
        return tuple(_beside(pred, one, plan) for one in sets)
    summary = summarise(
        pred,
        space=plan.space,
        target_sum=plan.target_sum,
        noise=True,
        context=context or None,
        targets=plan.targets,
        max_entries=plan.max_entries,
    )
    tests: dict[str, Any] = {
        "table": any(metric.needs_de for metric in plan.selection.metrics.values()),
        "energy": any(metric.needs_energy for metric in plan.selection.metrics.values()),
    }
    if not any(tests.values()):
        return tuple(_beside(summary, one, plan) for one in sets)
    return tuple(
        _beside(_tested(summary, plan, context, seed, tests), one, plan) for one, seed in zip(sets, seeds, strict=True)
    )


def _tested(summary: Summary, plan: Plan, context: str, seed: int, tests: dict[str, Any]) -> Summary:
    """The prediction's table against the control cells of the half that is the truth."""
    real, pred = plan.sides.real, plan.sides.pred
    assert isinstance(real, Screen)
    assert isinstance(pred, Screen)
    shared = None
    if plan.selection.preset.control_source == "real":
        shared, _, _ = split_halves(one_context(real, context), seed, min_cells=LEAST_CELLS)
    found = differential_expression(
        one_context(pred, context), plan.selection.preset.de, control_of=shared, max_entries=plan.max_entries, **tests
    )
    return dataclasses.replace(summary, de=found.table, energy=found.energy)


def _beside(summary: Summary, one: ControlSet, plan: Plan) -> Profiles:
    """The prediction's rows in the order of the truth, measured from the truth's control where the preset says so."""
    taken = take_perts(summary, one.perts)
    if plan.selection.preset.control_source == "real" or taken.control is None:
        taken = dataclasses.replace(taken, control=np.asarray(one.truth.control))
    profiles = taken.to_profiles()
    return dataclasses.replace(profiles, control=jnp.asarray(taken.control, one.truth.mean.dtype))
