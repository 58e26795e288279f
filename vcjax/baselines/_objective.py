"""The score of leave-one-out predictions as a function of a baseline's hyper-parameters."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._profiles import Profiles
from .._relax import Relaxation
from .._types import GeneMask, GeneWeights
from ..losses import as_loss
from ..metrics import Metric
from ..metrics._catalogue import metric_named
from ._interface import Baseline, Fitted, PertData


Objective: TypeAlias = Metric | str | Callable[[Any], Array]
"""A row of the catalogue, its name, or a function of the fitted baseline to minimise."""


class Scores(NamedTuple):
    """A metric, mean over perturbations: the exact one and the smooth one, equal where it needs no relaxation."""

    exact: Any
    soft: Any


class Problem(eqx.Module):
    """Everything but the hyper-parameters: what a step of tuning is given."""

    data: PertData
    external: tuple[Any, ...]
    metric: Metric | Callable[[Any], Array] = eqx.field(static=True)
    relax: Relaxation
    weights: GeneWeights
    where: GeneMask
    key: Array | None
    groups: tuple[Any, ...] | None = eqx.field(static=True)

    @property
    def sign(self) -> int:
        """-1 for a metric of which more is better."""
        return -1 if isinstance(self.metric, Metric) and self.metric.higher_is_better else 1

    @property
    def optimiser(self) -> Literal["lbfgs", "adam"]:
        """Adam where the score is smooth but its slope is not that of its value, see `Relaxation`."""
        return "adam" if isinstance(self.metric, Metric) and self.metric.differentiable == "relaxed" else "lbfgs"

    def loss(self, baseline: Baseline) -> tuple[Float[Array, ""], Scores]:
        """What is to be minimised, and the scores in the metric's own direction."""
        fitted = baseline.fit(self.data, external=self.external, key=self.key)
        if not isinstance(self.metric, Metric):
            value = self.metric(fitted)
            return value, Scores(lax.stop_gradient(value), lax.stop_gradient(value))
        made = left_out(fitted, self.groups, baseline.name)
        loss = as_loss(self.metric, relax=self.relax, straight_through=False, aux=True)
        real = measured(self.data)
        value, aux = loss(made.as_profiles(real), real, weights=self.weights, where=self.where)
        return value, Scores(aux["hard"], aux["soft"])


def problem_of(
    baseline: Baseline,
    data: PertData,
    metric: Objective,
    *,
    external: Sequence[Any],
    relax: Relaxation | None,
    weights: GeneWeights,
    where: GeneMask,
    groups: Sequence[Any] | np.ndarray | None,
    key: Array | None,
) -> Problem:
    """Checks the objective, and prepares what no hyper-parameter changes.

    **Raises:** `ValueError` for a name that is not in the catalogue, and for a metric that cannot be a loss.
    """
    if isinstance(metric, str):
        metric = metric_named(metric)
    if isinstance(metric, Metric):
        as_loss(metric)  # refuses diagnostics
    prepare = getattr(baseline, "prepare", None)
    external = external if prepare is None else prepare(external)
    labels = None if groups is None else tuple(np.asarray(groups).tolist())
    relax = Relaxation(0.1) if relax is None else relax
    array = lambda x: None if x is None else jnp.asarray(x)
    return Problem(data, tuple(external), metric, relax, array(weights), array(where), key, labels)


def left_out(fitted: Fitted, groups: tuple[Any, ...] | None, name: str):
    """Predictions of the training perturbations, each without itself or its group.

    **Raises:** `ValueError` where a baseline has none.
    """
    if groups is not None:
        leave_group_out = getattr(fitted, "leave_group_out", None)
        if leave_group_out is None:
            raise ValueError(f"The baseline {name!r} has no closed form for leaving groups out.")
        return leave_group_out(groups)
    made = fitted.leave_one_out()
    if made is None:
        raise ValueError(f"The baseline {name!r} has no leave-one-out predictions to tune it on.")
    return made


def measured(data: PertData) -> Profiles:
    """The training perturbations as profiles to be scored against."""
    return Profiles(
        data.effects + data.control[None, :],
        data.control,
        cells=data.cells,
        noise=data.noise,
        targets=data.targets,
        space=data.space,
    )
