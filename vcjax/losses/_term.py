"""One part of a composed loss, on a scale that all parts share."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._relax import HARD, Relaxation
from ..metrics._catalogue import metric_named
from ..metrics._metric import Metric


class Term(eqx.Module):
    r"""A metric in a composed loss: $c\,(u - b)/(n - b)$ with the metric's mean $u$, 0 at its best, $c$ at no skill.

    **Fields:**

    - `metric`: a row of the catalogue, or its name; one of `info_nce()`, `softplus_rank()`, `hinge_rank()`, which bound
        a rank; or a row of your own.
    - `coefficient`: $c$, how much the term counts. Like the next two a leaf of the pytree: changing it compiles
        nothing.
    - `null`: $n$, the value without skill, by default the metric's `no_skill`. Where the metric has none, `compose`
        finds what the mean of the training perturbations gets.
    - `best`: $b$, by default the metric's `perfect`; or what a replicate gets.

    **Raises:** `ValueError` for an unknown name, for a diagnostic without a good direction, for a metric that is
    constant in the prediction or has no best value, and for a null that is not worse than the best.
    """

    metric: Metric
    coefficient: Float[ArrayLike, ""]
    null: Float[ArrayLike, ""] | None
    best: Float[ArrayLike, ""]

    def __init__(
        self,
        metric: Metric | str,
        coefficient: float | Float[ArrayLike, ""] = 1.0,
        *,
        null: float | None = None,
        best: float | None = None,
    ):
        self.metric = metric_named(metric) if isinstance(metric, str) else metric
        check_trainable(self.metric)
        self.coefficient = np.float64(coefficient) if isinstance(coefficient, int | float) else coefficient
        null = self.metric.no_skill if null is None else null
        best = self.metric.perfect if best is None else best
        if best is None:
            raise ValueError(
                f"`{self.name}` has no perfect value: give one that is good, such as a replicate's, `best=`."
            )
        if null is not None:
            _check_scale(self.metric, float(null), float(best))
        # Leaves: another scale compiles nothing.
        self.null, self.best = None if null is None else np.float64(null), np.float64(best)

    @property
    def name(self) -> str:
        """That of the metric."""
        return self.metric.name

    def value(self, pred: Any, real: Any, relax: Relaxation, options: dict[str, Any]) -> Float[Array, "..."]:
        """The metric of each perturbation, or of the panel; weights only where it cannot do without."""
        weights = options["weights"] if self.metric.needs_weights else None
        return self.metric(pred, real, relax=relax, **(options | {"weights": weights}))

    def scaled(self, value: Float[Array, ""]) -> Float[Array, ""]:
        """What a mean value of the metric adds to the loss."""
        assert self.null is not None
        null, best = (lax.stop_gradient(jnp.asarray(x)).astype(value.dtype) for x in (self.null, self.best))
        return self.unskilled(value) * (value - best) / (null - best)

    def unskilled(self, value: Float[Array, ""]) -> Float[Array, ""]:
        """What the value without skill adds: the coefficient."""
        return lax.stop_gradient(jnp.asarray(self.coefficient)).astype(value.dtype)

    def with_null(self, null: float) -> "Term":
        """The same term with another value without skill."""
        return Term(self.metric, self.coefficient, null=null, best=float(np.asarray(self.best)))

    def exact(self, soft: Float[Array, "..."], pred: Any, real: Any, options: dict[str, Any]) -> Float[Array, "..."]:
        """The exact values beside the smooth ones, which are the same for a metric that needs no relaxation."""
        if self.metric.differentiable != "relaxed":
            return lax.stop_gradient(soft)
        return self.value(lax.stop_gradient(pred), real, HARD, options)


def _check_scale(metric: Metric, null: float, best: float) -> None:
    span = best - null
    if not abs(span) < float("inf") or span == 0 or (span > 0) != metric.higher_is_better:
        better = "above" if metric.higher_is_better else "below"
        raise ValueError(
            f"The best value of `{metric.name}` must lie {better} the one without skill, got {best} and {null}: "
            "on this data the metric cannot tell them apart, and training on it would follow noise."
        )


def check_trainable(metric: Metric) -> None:
    """**Raises:** `ValueError` for a metric that cannot be a loss."""
    if metric.higher_is_better is None:
        raise ValueError(f"`{metric.name}` is a diagnostic without a good direction, so there is nothing to minimise.")
    if metric.differentiable == "constant":
        raise ValueError(f"`{metric.name}` does not depend on the prediction, so there is nothing to train.")
