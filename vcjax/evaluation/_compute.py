"""Running catalogue rows on two sets of profiles: one compiled program for a group of metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..metrics import Metric, Status


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one metric gave: host values (one a perturbation, or one number), a word of status for each, or an error."""

    values: np.ndarray
    status: np.ndarray
    error: str = ""


@eqx.filter_jit
def _group(
    metrics: dict[str, Metric], pred: Profiles, real: Profiles, weights: jax.Array | None
) -> dict[str, tuple[jax.Array, jax.Array]]:
    results = {}
    for name, metric in metrics.items():
        options: dict[str, Any] = {"weights": weights} if metric.needs_weights else {}
        values = metric(pred, real, **options)
        status = jnp.zeros(values.shape, jnp.int32) if metric.status is None else metric.status(pred, real, **options)
        if metric.level == "panel":
            status = jnp.max(status)
        results[name] = (values, jnp.broadcast_to(status, values.shape))
    return results


def compute(
    metrics: Mapping[str, Metric], pred: Profiles, real: Profiles, weights: jax.Array | None = None
) -> dict[str, Outcome]:
    """The values of every metric; one that fails gives an error in its place and leaves the others alone.

    `weights` are for the metrics that need them. The metrics that read tables of differential expression share one
    program, and the others another, each compiled once per set of metrics and shapes; they have little in common, and
    one program of all takes more memory to compile.
    """
    outcomes: dict[str, Outcome] = {}
    for needs_de in (False, True):
        outcomes |= _compute(
            {name: metric for name, metric in metrics.items() if metric.needs_de == needs_de}, pred, real, weights
        )
    return {name: outcomes[name] for name in metrics}


def _compute(metrics, pred, real, weights):
    """The same in one program. Only if that fails is each metric run by itself, to find which."""
    if not metrics:
        return {}
    try:
        return _fetch(_group(metrics, pred, real, weights))
    except Exception as failure:
        if len(metrics) == 1:
            return {name: _failed(metric, len(real.mean), failure) for name, metric in metrics.items()}
    outcomes = {}
    for name, metric in metrics.items():
        outcomes |= _compute({name: metric}, pred, real, weights)
    return outcomes


def averaged(parts: Sequence[Outcome]) -> Outcome:
    """The mean of several truths' values: undefined where one of them is, and then with the first reason."""
    values, status = np.mean([part.values for part in parts], axis=0), parts[0].status.copy()
    for part in parts[1:]:
        odd = (status == Status.OK.label) & (part.status != Status.OK.label)
        status[odd] = part.status[odd]
    return Outcome(values, status, next((part.error for part in parts if part.error), ""))


def _fetch(results: dict[str, tuple[jax.Array, jax.Array]]) -> dict[str, Outcome]:
    outcomes = {}
    for name, (values, codes) in jax.device_get(results).items():
        words = np.array([Status(int(code)).label for code in np.atleast_1d(codes)], object)
        values = np.atleast_1d(np.asarray(values, np.float64))
        # A NaN that a metric's status does not foresee must not pass as fine.
        words[np.isnan(values) & (words == Status.OK.label)] = Status.NOT_FINITE.label
        outcomes[name] = Outcome(values, words)
    return outcomes


def _failed(metric: Metric, perts: int, failure: Exception) -> Outcome:
    size = 1 if metric.level == "panel" else perts
    lines = str(failure).strip().splitlines()
    reason = f"{type(failure).__name__}: {lines[0] if lines else 'no message'}"
    return Outcome(np.full(size, np.nan), np.full(size, Status.ERROR.label, object), reason)
