"""A metric as a loss: the same lines, with a sign and without NaN."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._relax import HARD, Relaxation
from ..metrics._metric import Metric
from ._straight_through import straight_through as _straight_through
from ._term import check_trainable


Auxiliary = dict[str, Float[Array, ""]]


def as_loss(
    metric: Metric,
    *,
    relax: Relaxation | None = None,
    straight_through: bool = True,
    aux: bool = False,
) -> Callable[..., Any]:
    """A loss to minimise: the mean of the metric over perturbations, negated if higher is better.

    **Arguments:**

    - `metric`: a row of the catalogue (`vcjax.metrics.CATALOGUE["pds_cosine"]`), or a `Metric` of your own.
    - `relax`: how comparisons are smoothed, `Relaxation(0.1)` by default; ignored by metrics that have none.
    - `straight_through`: report the exact value and differentiate the soft one; otherwise both are the soft one.
    - `aux`: return `(loss, {"hard", "soft", "gap"})`: the metric's exact and soft mean, in its own direction, and
        soft − hard, so that a log shows when a surrogate lies.

    **Returns:** `loss(pred, real, *, relax=..., weights=..., where=..., valid=..., bank=...)`, where `pred` and `real`
    are `Profiles` or arrays as for `Metric`; a `relax` given here replaces the one above, so that it can be annealed
    under `jit`. No gradient flows into `real`, the weights or the softness. A perturbation whose value is undefined
    counts with the metric's no-skill value (0 where it has none) and has no gradient.

    **Raises:** `ValueError` for a metric without a good direction, and for one that is constant in the prediction.
    """
    check_trainable(metric)
    relax_default = Relaxation(0.1) if relax is None else relax
    sign = -1 if metric.higher_is_better else 1

    def loss(pred, real, *, relax: Relaxation = relax_default, weights=None, where=None, valid=None, bank=None):
        constants = lax.stop_gradient((real, relax, weights, where, valid, bank))
        hard = lambda pred, constants: _mean(metric, pred, constants, HARD)
        soft = lambda pred, constants: _mean(metric, pred, constants, constants[1])
        value = (_straight_through(hard, soft) if straight_through else soft)(pred, constants)
        if not aux:
            return sign * value
        exact, smooth = (lax.stop_gradient(f(pred, constants)) for f in (hard, soft))
        return sign * value, {"hard": exact, "soft": smooth, "gap": smooth - exact}

    return loss


def _mean(metric: Metric, pred: Any, constants: tuple[Any, ...], relax: Relaxation) -> Float[Array, ""]:
    real, _, weights, where, valid, bank = constants
    values = metric(pred, real, relax=relax, weights=weights, where=where, valid=valid, bank=bank)
    neutral = 0.0 if metric.no_skill is None else metric.no_skill
    values = jnp.where(jnp.isnan(values), neutral, values)
    if valid is None or values.ndim == 0:
        return jnp.mean(values)
    counted = jnp.asarray(valid).astype(values.dtype)
    return jnp.sum(counted * values) / jnp.maximum(jnp.sum(counted), 1)
