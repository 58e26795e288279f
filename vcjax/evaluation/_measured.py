"""What one context's measured side is beside its summary: the training mean, and truths with gene weights."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..io import Screen, Summary
from ..metrics import Metric, Status
from ._compute import averaged, compute, Outcome
from ._pair import Pair, take_perts
from ._training import train_mean_of
from ._weighting import Profiling, Truth, weighted_truths


if TYPE_CHECKING:
    from ._plan import Plan


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What metrics compare a prediction with.

    **Fields:** `train_mean`, the mean profile of training perturbations, if there are any; `truths`, what metrics with
    gene weights take for the truth, none if there are no such metrics.
    """

    train_mean: np.ndarray | None
    truths: tuple[Truth, ...]

    @classmethod
    def of(cls, plan: "Plan", pair: Pair, context: str) -> "Measured":
        """What a plan needs of one context; reads the cells again where it needs gene weights."""
        how = Profiling(plan.space, plan.target_sum, plan.max_entries)
        mean = None if plan.train is None else train_mean_of(plan.train, how, context)
        if plan.weighting is None:
            return cls(mean, ())
        assert isinstance(plan.sides.real, Screen)
        return cls(mean, weighted_truths(plan.sides.real, pair.real, plan.weighting, how, context, plan.train))

    def profiles(self, real: Summary) -> Profiles:
        """The measured profiles as arrays."""
        profiles = real.to_profiles()
        if self.train_mean is None:
            return profiles
        return dataclasses.replace(profiles, train_mean=jnp.asarray(self.train_mean, profiles.mean.dtype))

    def weighted(self, metrics: Mapping[str, Metric], pred: Summary, real: Summary) -> dict[str, Outcome]:
        """The values of metrics that take gene weights, averaged over the truths.

        A perturbation whose cells cannot be split has the status `too_few_cells`.
        """
        usable = set(self.truths[0].real.perts)
        kept = np.array([label in usable for label in real.perts])
        perts = [label for label in real.perts if label in usable]
        parts = [self._one(truth.take(perts), metrics, take_perts(pred, perts)) for truth in self.truths]
        found = {name: averaged([part[name] for part in parts]) for name in metrics}
        return {name: _spread(metric, found[name], kept) for name, metric in metrics.items()}

    def _one(self, truth: Truth, metrics: Mapping[str, Metric], pred: Summary) -> dict[str, Outcome]:
        real = self.profiles(truth.real)
        dtype = real.mean.dtype
        noise, control_noise = jnp.asarray(truth.noise, dtype), jnp.asarray(truth.control_noise, dtype)
        real = dataclasses.replace(real, noise=noise, control_noise=control_noise)
        # Effects of the prediction are measured from the truth's control, as those of the truth are.
        guess = dataclasses.replace(pred.to_profiles(), control=real.control)
        weights = truth.weights.values
        return compute(metrics, guess, real, weights[0] if len(weights) == 1 else weights)


def _spread(metric: Metric, outcome: Outcome, kept: np.ndarray) -> Outcome:
    """The values in the places of the perturbations that have them."""
    if metric.level == "panel" or kept.all():
        return outcome
    values = np.full(len(kept), np.nan)
    status = np.full(len(kept), Status.TOO_FEW_CELLS.label, object)
    values[kept], status[kept] = outcome.values, outcome.status
    return Outcome(values, status, outcome.error)
