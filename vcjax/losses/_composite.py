"""Several metrics as one loss, each on the scale between a baseline and an anchor."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._relax import Relaxation
from ..metrics._metric import Metric


def composite_loss(
    metrics: Mapping[str, Metric],
    *,
    baseline: Mapping[str, float],
    anchor: Mapping[str, float],
    relax: Relaxation | None = None,
    aux: bool = False,
) -> Callable[..., Any]:
    r"""A loss of several metrics: $1 - \frac{1}{M}\sum_m (u_m - b_m) / (a_m - b_m)$.

    It is 1 where every metric has its baseline's value $b$ and 0 where each has the anchor's $a$, such as that of a
    replicate; so that metrics of any unit and direction are commensurate, and none is cut. $u_m$ is the mean over the
    perturbations where the metric is defined, or the value of a panel metric.

    **Arguments:**

    - `metrics`: rows of the catalogue, by any name.
    - `baseline`, `anchor`: the value of each metric that scores 0, and the one that scores 1.
    - `relax`: how comparisons are smoothed, `Relaxation(0.1)` by default.
    - `aux`: return `(loss, values)`, with each $u_m$ by name.

    **Returns:** `loss(pred, real, *, relax=..., where=..., valid=...)` of `Profiles`. A `relax` given there replaces
    the one above; `HARD` gives the exact composite of tables that are exact. No gradient flows into `real`. Where no
    perturbation is defined a metric counts with its baseline's value, and its value in `aux` is NaN.

    **Raises:** `ValueError` for a metric without a baseline or an anchor, for two that are equal, not finite or against
    the direction of the metric, and for no metric at all.
    """
    if not metrics:
        raise ValueError("A composite needs at least one metric.")
    for name, metric in metrics.items():
        _check_scale(name, metric, baseline, anchor)
    relax_default = Relaxation(0.1) if relax is None else relax

    def loss(pred, real, *, relax: Relaxation = relax_default, where=None, valid=None):
        real, relax, where, valid = lax.stop_gradient((real, relax, where, valid))
        values, scores = {}, []
        for name, metric in metrics.items():
            values[name], defined = _mean(metric(pred, real, relax=relax, where=where, valid=valid))
            scaled = (values[name] - baseline[name]) / (anchor[name] - baseline[name])
            scores.append(jnp.where(defined, scaled, 0))
            values[name] = lax.stop_gradient(jnp.where(defined, values[name], jnp.nan))
        value = 1 - jnp.mean(jnp.stack(scores))
        return (value, values) if aux else value

    return loss


def _mean(values: Float[Array, "..."]) -> tuple[Float[Array, ""], Any]:
    """The mean of what is defined, 0 if nothing is, and whether something is."""
    known = ~jnp.isnan(values)
    count = jnp.sum(known)
    total = jnp.sum(jnp.where(known, values, 0))
    return total / jnp.maximum(count, 1).astype(values.dtype), count > 0


def _check_scale(name: str, metric: Metric, baseline: Mapping[str, float], anchor: Mapping[str, float]) -> None:
    for what, scale in (("baseline", baseline), ("anchor", anchor)):
        if name not in scale:
            raise ValueError(f"`{name}` has no {what}: a composite needs one for every metric.")
    span = float(anchor[name]) - float(baseline[name])
    wrong = metric.higher_is_better is not None and (span > 0) != metric.higher_is_better
    if not abs(span) < float("inf") or span == 0 or wrong:
        better = {True: "above", False: "below", None: "apart from"}[metric.higher_is_better]
        raise ValueError(
            f"The anchor of `{name}` must lie {better} its baseline, got {float(anchor[name])} and "
            f"{float(baseline[name])}: on this data the metric cannot tell them apart."
        )
