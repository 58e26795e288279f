"""The values of controls, and of a prediction, on one metric; and why there are none."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._profiles import Profiles
from .._types import GeneMask
from ..metrics import Metric, Status
from ._calibration import PREDICTION
from ._controls import ControlSet


OK = Status.OK.label


@dataclasses.dataclass(frozen=True)
class Found:
    """Values of one prediction, without each perturbation in turn for a panel metric, and `ok` or what is wrong."""

    values: np.ndarray
    left_out: np.ndarray | None
    status: str


def score_controls(metric: Metric, one: ControlSet, pred: Any, where: GeneMask) -> dict[str, Found]:
    """Every control of a set, and the prediction if there is one, against the truth of the set."""
    predictions: dict[str, Profiles] = {name: control.profiles for name, control in one.controls.items()}
    if pred is not None:
        if PREDICTION in predictions:
            raise ValueError(f"A control must not be named {PREDICTION!r}.")
        predictions[PREDICTION] = pred if isinstance(pred, Profiles) else one.truth.with_mean(pred)
    weights = one.weights if metric.needs_weights else None
    return {name: _value(metric, profiles, one, weights, where) for name, profiles in predictions.items()}


def _value(metric: Metric, profiles: Profiles, one: ControlSet, weights: Any, where: Any) -> Found:
    lack = _lack(metric, profiles, one)
    if lack is not None:
        return _none(metric, one, lack)
    where = None if where is None else jnp.asarray(where)
    try:
        found = _evaluate(metric, _needed(metric, profiles), one.truth, weights, where)
    except ValueError:
        lack = _possible_lack(metric, profiles, one.truth)
        if lack is None:
            raise
        return _none(metric, one, lack)
    values, codes, left_out = jax.device_get(found)
    values, codes = np.atleast_1d(np.asarray(values, np.float64)), np.atleast_1d(codes)
    status = OK
    if np.all(np.isnan(values)):
        bad = codes[codes != Status.OK]
        status = Status(int(np.bincount(bad).argmax())).label if len(bad) else Status.NOT_FINITE.label
    return Found(values, None if left_out is None else np.asarray(left_out, np.float64), status)


def _none(metric: Metric, one: ControlSet, status: str) -> Found:
    nothing = np.full(one.truth.mean.shape[0], np.nan)
    return Found(nothing[:1], nothing, status) if metric.level == "panel" else Found(nothing, None, status)


def _lack(metric: Metric, profiles: Profiles, one: ControlSet) -> str | None:
    """What the metric needs and a side does not have."""
    if metric.needs_de and (profiles.de is None or one.truth.de is None):
        return "no_differential_expression"
    if metric.needs_real_de and one.truth.de is None:
        return "no_differential_expression"
    if metric.needs_energy and (profiles.energy is None or one.truth.energy is None):
        return "no_energy_distances"
    if metric.needs_noise and one.truth.noise is None:
        return "no_sampling_noise"
    if metric.needs_targets and one.truth.targets is None:
        return "no_targets"
    return "no_weights" if metric.needs_weights and one.weights is None else None


def _possible_lack(metric: Metric, profiles: Profiles, truth: Profiles) -> str | None:
    """What some of the metrics that say so need of one side only, and refuse to do without."""
    lacks = profiles.noise is None or truth.control_noise is None
    return "no_sampling_noise" if metric.needs_noise and lacks else None


def _needed(metric: Metric, pred: Profiles) -> Profiles:
    """What a metric reads of a prediction: controls that bring more or less share one program."""
    unread = ["cells", "targets", "target_sum", "control_noise"]
    unread += [] if metric.needs_energy else ["energy"]
    unread += [] if metric.needs_de else ["de"]
    unread += [] if metric.needs_noise else ["noise"]
    return dataclasses.replace(pred, **dict.fromkeys(unread))


@eqx.filter_jit
def _evaluate(metric: Metric, pred: Profiles, real: Profiles, weights: Any, where: Any) -> tuple[Any, Any, Any]:
    options = {"weights": weights, "where": where}
    values = metric(pred, real, **options)
    codes = jnp.zeros(values.shape, jnp.int32) if metric.status is None else metric.status(pred, real, **options)
    if metric.level == "perturbation":
        return values, codes, None
    others = ~jnp.eye(real.mean.shape[0], dtype=bool)
    return values, jnp.max(codes), lax.map(lambda valid: metric(pred, real, valid=valid, **options), others)


def averaged(rows: Sequence[Found]) -> Found:
    """The mean over divisions of the cells, NaN where one of them is."""
    values = np.mean([row.values for row in rows], axis=0)
    parts = [row.left_out for row in rows if row.left_out is not None]
    left_out = np.mean(parts, axis=0) if parts else None
    if np.all(np.isnan(values)):
        # Defined here and there, but in no perturbation for all divisions of the cells.
        bad = [row.status for row in rows if row.status != OK]
        return Found(values, left_out, bad[0] if bad else "not_in_all_splits")
    return Found(values, left_out, OK)
