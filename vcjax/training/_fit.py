"""A small trainer: a loss, an optimiser and a model in; the model of the best validation out."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..losses import compose, ComposedLoss
from ..metrics import Metric
from ..metrics._catalogue import metric_named
from . import _state
from ._data import TrainingData, with_train_mean
from ._failure import explain
from ._history import History
from ._step import evaluate, Forward, one_by_one, Plan, Record, SPREAD, take_step


M = TypeVar("M")
Stopped = Literal["steps", "patience", "collapse"]


@dataclasses.dataclass(frozen=True)
class CollapseGuard:
    """Ends a training whose predictions are nearly the same for all perturbations.

    **Fields:** `floor`, the `spread_ratio` that counts as collapsed; `patience`, evaluations in a row; `warmup`, steps
    before the first that counts, for a model that starts at the mean.
    """

    floor: float = 0.05
    patience: int = 3
    warmup: int = 100


@dataclasses.dataclass(frozen=True)
class Trained(Generic[M]):
    """A trained model, and how it came about.

    **Fields:** `model`, that of the best evaluation, found after `best_step` steps with the value `score` of `monitor`;
    `last`, that of the last step; `history`; `stopped`: by what; `seed`; `settings`, as a checkpoint records them.
    """

    model: M
    last: M
    best_step: int
    score: float
    monitor: str
    history: History
    stopped: Stopped
    seed: int
    settings: dict[str, Any]


def fit(
    model: M,
    data: TrainingData,
    loss: ComposedLoss | Mapping[str, float] | str,
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    validation: TrainingData | None = None,
    metrics: Sequence[str | Metric] = (),
    monitor: str = "loss",
    every: int = 25,
    patience: int | None = None,
    collapse: CollapseGuard | None = None,
    batch: int | None = None,
    cells: int | None = None,
    forward: Forward = one_by_one,
    seed: int = 0,
    checkpoint: str | pathlib.Path | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
) -> Trained[M]:
    """Trains an Equinox model on metrics, and gives the one that was best on exact metrics.

    A convenience: its step is `compose`'s loss, `eqx.filter_value_and_grad` and the optimiser, which you can as well
    write yourself. Everything random is drawn from `seed` and the number of the step, so that a training that is
    continued from a checkpoint ends where it would have ended.

    **Arguments:**

    - `model`: any Equinox module. It is called for each perturbation with its inputs and returns the mean of its
        profile, unless `forward(model, batch, *, key, relax)` says how it predicts a whole `Batch`; what that returns
        is a matrix of means, or `Profiles` with what the loss needs of cells. `relax` is exact in evaluations.
    - `loss`: of `vcjax.losses.compose`; or coefficients by metric, or the name of one, which are then composed on
        `data`.
    - `optimiser`: of optax. Its object, like those of `loss` and `forward`, is compiled into the step: trainings with
        the same ones and the same shapes share the program.
    - `validation`: perturbations to choose the model on; without them it is chosen on the training data.
    - `metrics`: evaluated beside the terms of the loss, which are always.
    - `monitor`: what the best model has, the exact `"loss"` or a metric, by its own direction.
    - `every`: steps from one evaluation (and checkpoint) to the next. The first is before training.
    - `patience`: evaluations without a better model after which to stop.
    - `batch`: perturbations a step, all by default. Metrics that rank do so among all of `data`, or its bank.
    - `cells`: control cells drawn a step for each perturbation, from `data.cells`.
    - `checkpoint`: a file to write at each evaluation and to continue from if it is there. Settings that have changed
        since are refused (but for `steps`); a schedule or an optimiser is known by its structure alone.
    - `mesh`: devices to divide each batch over, along the first axis of the mesh; the model is on all of them.
    - `progress`: show a bar; by default if someone is watching.

    **Raises:** `ValueError` for settings that contradict each other or a checkpoint; `FloatingPointError` where a step
    is not finite, naming the term of the loss and the perturbations.
    """
    judged = data if validation is None else validation
    mean = jnp.mean(data.real.mean, axis=0)
    data, judged = with_train_mean(data, mean), with_train_mean(judged, mean)
    loss = _composed(loss, data)
    rows = _rows(metrics)
    _check(steps, every, patience, batch, cells, data, judged, mesh)
    sign = _direction(monitor, loss, rows)
    params = eqx.filter(model, eqx.is_inexact_array)
    settings = _settings(
        model, data, loss, judged,
        metrics=list(rows), monitor=monitor, every=every, patience=patience, batch=batch, cells=cells, seed=seed,
        collapse=None if collapse is None else dataclasses.asdict(collapse),
    )  # fmt: skip
    plan = Plan(loss, jax.random.key(seed), optimiser, forward, batch, cells, mesh)
    perts, data, judged = data.perts, data.unnamed(), judged.unnamed()
    path = None if checkpoint is None else pathlib.Path(checkpoint)
    state, history = _resumed(path, settings, _state.start(model, optimiser.init(params)))
    if mesh is not None:
        mesh = Mesh(mesh.devices, mesh.axis_names)  # of axes that the compiler divides over, whatever they were
        plan = dataclasses.replace(plan, mesh=mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())
        state, data, judged, plan = eqx.filter_shard((state, data, judged, plan), everywhere)
    records: list[Record] = []
    began = time.perf_counter()
    at = int(state.step)
    with _progress(progress, steps, at) as advance:
        while True:
            evaluated = bool(history.evaluations) and history.evaluations[-1]["step"] >= at
            if not evaluated and (at % every == 0 or at >= steps):
                _log(history, records)
                if bool(state.failed):
                    raise FloatingPointError(explain(state, data, plan, perts))
                found = {k: float(v) for k, v in jax.device_get(evaluate(state.model, judged, plan, rows)).items()}
                seconds = time.perf_counter() - began
                history.evaluations.append({"step": at, "seconds": seconds, "monitor": found[monitor], **found})
                if sign * found[monitor] < float(state.score):
                    state = _better(state, sign * found[monitor])
                if path is not None:
                    _state.save(path, state, {"settings": settings, "history": vars(history)})
            stopped = _stops(history, int(state.found), patience, collapse, at, steps)
            if stopped is not None:
                break
            state, record = take_step(state, data, plan)
            records.append(record)
            at += 1
            advance(at)
    return Trained(
        state.best, state.model, int(state.found), sign * float(state.score), monitor, history, stopped, seed, settings
    )


def _composed(loss: ComposedLoss | Mapping[str, float] | str, data: TrainingData) -> ComposedLoss:
    if isinstance(loss, str):
        loss = {loss: 1.0}
    if isinstance(loss, Mapping):
        return compose(loss, real=data.real, weights=data.weights, where=data.where)
    return loss


def _rows(metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    rows = [metric_named(metric) if isinstance(metric, str) else metric for metric in metrics]
    return {row.name: row for row in rows}


def _direction(monitor: str, loss: ComposedLoss, rows: Mapping[str, Metric]) -> int:
    """1 if less is better, -1 if more is."""
    if monitor == "loss":
        return 1
    known = {term.name: term.metric for term in loss.terms} | dict(rows)
    if monitor not in known:
        raise ValueError(
            f"`monitor` {monitor!r} is not evaluated: name 'loss', a term of it or one of `metrics` "
            f"({', '.join(known)})."
        )
    better = known[monitor].higher_is_better
    if better is None:
        raise ValueError(f"`monitor` {monitor!r} is a diagnostic without a good direction: no model is best by it.")
    return -1 if better else 1


def _check(steps, every, patience, batch, cells, data, validation, mesh) -> None:
    for name, value, least in (
        ("steps", steps, 0),
        ("every", every, 1),
        ("patience", patience, 1),
        ("batch", batch, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if cells is not None:
        for name, side in (("data", data), ("validation", validation)):
            if side.cells is None:
                raise ValueError(f"`cells={cells}` control cells are to be drawn, and `{name}` has none (`cells=`).")
    if mesh is not None:
        size, devices = min(batch or len(data), len(data)), mesh.shape[mesh.axis_names[0]]
        if size % devices:
            raise ValueError(f"{size} perturbations a step cannot be divided over {devices} devices: change `batch`.")


def _settings(model, data, loss, validation, **options) -> dict[str, Any]:
    terms = {term.name: [float(np.asarray(x)) for x in (term.coefficient, term.null, term.best)] for term in loss.terms}
    softness = "schedule" if loss.schedule is not None else float(loss.relax.softness)
    return {
        "model": _state.fingerprint(model),
        "data": _state.fingerprint(data),
        "validation": _state.fingerprint(validation),
        "loss": {"terms": terms, "softness": softness},
        **options,
    }


def _resumed(
    path: pathlib.Path | None, settings: dict[str, Any], start: _state.State[M]
) -> tuple[_state.State[M], History]:
    """Where to go on: at the checkpoint, if there is one, or at the start."""
    if path is None or not path.exists():
        return start, History()
    history = _checked_history(path, settings)
    return _state.load(path, start), history


def _checked_history(path: pathlib.Path, settings: dict[str, Any]) -> History:
    """What a checkpoint knows of the steps so far, if it is one of this training."""
    about = _state.read_about(path)
    theirs = about["settings"]
    changed = [name for name in settings if settings[name] != theirs.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{path} is the checkpoint of another training: `{name}` was {theirs.get(name)} and is {settings[name]}"
            + (f" (also changed: {', '.join(changed[1:])})" if changed[1:] else "")
            + ". Going on would mix the two: name another file, or remove that one to start anew."
        )
    return History(**about["history"])


def _log(history: History, records: list[Record]) -> None:
    """Fetches what the device has recorded since the last evaluation."""
    for record in jax.device_get(records):
        row = {"step": int(record.step), "loss": float(record.loss), "gradient": float(record.gradient)}
        parts = record.parts
        for name in parts.exact:
            exact, soft = float(parts.exact[name]), float(parts.soft[name])
            row |= {f"{name}.exact": exact, f"{name}.soft": soft, f"{name}.gap": soft - exact}
            row[f"{name}.undefined"] = int(parts.undefined[name])
        history.steps.append(row)
    records.clear()


def _better(state: _state.State, score: float) -> _state.State:
    return dataclasses.replace(state, best=state.model, score=jnp.asarray(score, state.score.dtype), found=state.step)


def _stops(
    history: History, found: int, patience: int | None, collapse: CollapseGuard | None, at: int, steps: int
) -> Stopped | None:
    rows = history.evaluations
    if patience is not None and sum(row["step"] > found for row in rows) >= patience:
        return "patience"
    if collapse is not None:
        recent = [row[SPREAD.name] < collapse.floor for row in rows if row["step"] >= collapse.warmup]
        if len(recent) >= collapse.patience and all(recent[-collapse.patience :]):
            return "collapse"
    return "steps" if at >= steps else None


@contextlib.contextmanager
def _progress(wanted: bool | None, steps: int, at: int) -> Iterator[Callable[[int], None]]:
    import sys

    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=steps, completed=at)
        yield lambda done: bar.update(task, completed=done)
