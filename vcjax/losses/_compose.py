"""Several metrics as one loss, each on the scale between no skill and the best."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._profiles import effects_as_profiles, Profiles
from .._relax import HARD, Relaxation
from .._types import GeneMask, GeneWeights
from ..metrics import Bank
from ._term import Term


Schedule = Callable[[Any], Any]


class Parts(eqx.Module):
    """What a composed loss is made of, by the name of each metric; without gradients.

    **Fields:**

    - `exact`, `soft`: the metric's mean over perturbations, in its own unit and direction; NaN if it is undefined for
        all of them. Where the two part, the smooth one is the wrong guide: see `gap`.
    - `loss`: what the term adds to the smooth loss.
    - `undefined`: how many perturbations the metric is undefined for.
    """

    exact: dict[str, Float[Array, ""]]
    soft: dict[str, Float[Array, ""]]
    loss: dict[str, Float[Array, ""]]
    undefined: dict[str, Int[Array, ""]]

    @property
    def gap(self) -> dict[str, Float[Array, ""]]:
        """Soft less exact."""
        return {name: self.soft[name] - self.exact[name] for name in self.exact}


class ComposedLoss(eqx.Module):
    """A weighted sum of terms. Make it with `compose`; call it to have the loss and its `Parts`.

    **Fields:** `terms`; `relax`: how comparisons are smoothed; `schedule`: the softness at each step, if it changes.
    """

    terms: tuple[Term, ...]
    relax: Relaxation
    schedule: Schedule | None = eqx.field(static=True, default=None)

    def __call__(
        self,
        pred: Profiles | Array,
        real: Profiles | Array,
        *,
        step: Int[Array, ""] | int = 0,
        relax: Relaxation | None = None,
        weights: GeneWeights = None,
        where: GeneMask = None,
        valid: Bool[Array, " perts"] | None = None,
        bank: Bank | None = None,
    ) -> tuple[Float[Array, ""], Parts]:
        """The smooth loss, to differentiate with `has_aux=True`, and what it is made of.

        No gradient flows into anything but `pred`. A metric counts with its mean over the perturbations that it is
        defined for, and with its value without skill, and no gradient, where there are none.

        **Arguments:** `pred`, `real`, `weights`, `where`, `valid`, `bank` as for `Metric`; weights reach the metrics
        that need them and no others. `step`: for the schedule. `relax`: instead of the loss's own; `HARD` gives the
        exact loss.
        """
        relax = self.relaxation(step) if relax is None else relax
        real, relax, options = lax.stop_gradient(
            (real, relax, {"weights": weights, "where": where, "valid": valid, "bank": bank})
        )
        total, parts = 0.0, Parts({}, {}, {}, {})
        for term in self.terms:
            values = term.value(pred, real, relax, options)
            soft, known = _mean(values)
            exact, _ = _mean(term.exact(values, pred, real, options))
            added = jnp.where(known > 0, term.scaled(soft), term.unskilled(soft))
            total = total + added
            unknown = values.size - known if valid is None or values.ndim == 0 else jnp.sum(options["valid"]) - known
            parts.exact[term.name], parts.soft[term.name] = exact, lax.stop_gradient(soft)
            parts.loss[term.name], parts.undefined[term.name] = lax.stop_gradient(added), jnp.asarray(unknown)
        return jnp.asarray(total), parts

    def exact(self, pred: Profiles | Array, real: Profiles | Array, **options: Any) -> Float[Array, ""]:
        """The loss with exact metrics: what to select models by."""
        return self(pred, real, relax=HARD, **options)[0]

    def relaxation(self, step: Int[Array, ""] | int) -> Relaxation:
        """How comparisons are smoothed at a step."""
        if self.schedule is None:
            return self.relax
        softness = jnp.asarray(self.schedule(step), jnp.result_type(float))
        return dataclasses.replace(self.relax, softness=softness)


def compose(
    terms: Mapping[str, float] | Sequence[Term],
    *,
    real: Profiles | Array | None = None,
    weights: GeneWeights = None,
    where: GeneMask = None,
    relax: Relaxation | None = None,
    softness: float | Schedule | None = None,
) -> ComposedLoss:
    r"""A loss of several metrics, $\sum_m c_m (u_m - b_m)/(n_m - b_m)$: commensurate, and none is cut.

    Each term is 0 at the metric's best value $b$ and $c$ at its value without skill $n$, so that coefficients mean the
    same for an error of $10^{-3}$, a correlation and a rank. With the values of the negative and positive controls of
    your data as `Term(metric, null=..., best=...)` it is one less the scaled score of `vcjax calibrate`.

    **Arguments:**

    - `terms`: coefficients by the names of metrics, `{"weighted_mse": 1.0, "pds_cosine": 0.3}`, or `Term`s.
    - `real`, `weights`, `where`: measured training perturbations, on which a metric that has no value without skill (an
        error) is scaled: by what their mean gets, which is also what effects beyond the mean are measured from unless
        `real` says otherwise.
    - `relax`: how comparisons are smoothed, `Relaxation(0.1)` by default.
    - `softness`: of the relaxation: a number, or a schedule of optax such as `optax.exponential_decay(0.5, 300, 0.2)`,
        a function of the `step` that the loss is called with. Annealing compiles nothing.

    **Raises:** `ValueError` for no term, for two of one name, for a metric that cannot be a loss, and for one whose
    value without skill is neither known nor can be found on `real`, or is no worse than its best.
    """
    parts = [Term(name, value) for name, value in terms.items()] if isinstance(terms, Mapping) else list(terms)
    if not parts:
        raise ValueError("A loss needs at least one term.")
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two terms are called {name!r}: a log could not tell them apart.")
    relax = Relaxation(0.1) if relax is None else relax
    schedule = softness if callable(softness) else None
    if softness is not None and not callable(softness):
        relax = dataclasses.replace(relax, softness=softness)
    scale = lambda part: part if part.null is not None else _scaled_on(part, real, weights, where)
    return ComposedLoss(tuple(map(scale, parts)), relax, schedule)


def _scaled_on(term: Term, real: Profiles | Array | None, weights: GeneWeights, where: GeneMask) -> Term:
    if real is None:
        raise ValueError(
            f"`{term.name}` has no value without skill of its own: give `compose` the measured training perturbations, "
            "`real=`, or the value as `Term(..., null=)`."
        )
    if not isinstance(real, Profiles):
        real = effects_as_profiles(real)
    if term.metric.needs_de or term.metric.needs_energy:
        raise ValueError(
            f"`{term.name}` reads cells, which the mean of perturbations has none of: give what a prediction without "
            "skill gets, such as the mean baseline of `vcjax baseline`, as `Term(..., null=)`."
        )
    mean = jnp.mean(real.mean, axis=0)
    if real.train_mean is None:
        real = dataclasses.replace(real, train_mean=mean)
    mean = jnp.broadcast_to(mean, real.mean.shape)
    options = {"weights": weights, "where": where, "valid": None, "bank": None}
    values = jax.jit(lambda pred, real, options: term.value(pred, real, HARD, options))(
        real.with_mean(mean), real, options
    )
    return term.with_null(float(_mean(values)[0]))


def _mean(values: Float[Array, "..."]) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The mean of what is defined, NaN with zero gradients if nothing is, and how much that is."""
    known = ~jnp.isnan(values)
    count = jnp.sum(known)
    total = jnp.sum(jnp.where(known, values, 0))
    return jnp.where(count > 0, total / jnp.maximum(count, 1).astype(values.dtype), jnp.nan), count
