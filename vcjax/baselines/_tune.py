"""Hyper-parameters of a baseline chosen by gradient, on leave-one-out predictions, for the metric that is scored."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._relax import Relaxation
from .._types import GeneMask, GeneWeights
from ._interface import Baseline, PertData
from ._objective import Objective, problem_of, Scores


B = TypeVar("B", bound=Baseline)


class Tuned(eqx.Module, Generic[B]):
    """A baseline with hyper-parameters chosen by gradient, and how they were come by.

    **Fields:**

    - `baseline`: the recipe with the best values of the smooth score that were met; fit it to predict.
    - `before`, `after`: exact and smooth score of the leave-one-out predictions at the start and with `baseline`, in
        the metric's own direction. Where the two part, the smooth score is the wrong guide.
    - `history`: the same before every step. `losses`: what was minimised.
    """

    baseline: B
    before: Scores
    after: Scores
    history: Scores
    losses: Float[np.ndarray, " steps"]


class Gridded(eqx.Module, Generic[B]):
    """A baseline with hyper-parameters chosen from a grid.

    **Fields:** `baseline`, the best by the exact score; `scores`, exact and smooth of every point, in order; `best`,
    its place.
    """

    baseline: B
    scores: Scores
    best: int


def tune(
    baseline: B,
    data: PertData,
    metric: Objective,
    *,
    external: Sequence[Any] = (),
    over: Callable[[Any], Any] | None = None,
    relax: Relaxation | None = None,
    weights: GeneWeights = None,
    where: GeneMask = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    optimiser: Literal["lbfgs", "adam"] | optax.GradientTransformation | None = None,
    steps: int = 40,
    learning_rate: float = 0.1,
    tolerance: float = 1e-5,
    key: Array | None = None,
) -> Tuned[B]:
    """Tunes the hyper-parameters of any baseline that has leave-one-out predictions, by gradient through its fit.

    Each step fits, predicts every training perturbation from the others and scores that, in programs compiled once. Few
    hyper-parameters cannot learn the training perturbations by heart, but many can: hold some perturbations out to see.

    **Arguments:**

    - `metric`: a row of `vcjax.metrics.CATALOGUE`, or its name; or a function of the fitted baseline to minimise, such
        as `lambda fitted: fitted.crps()`.
    - `external`: other screens, as for the fit.
    - `over`: which leaves to tune, `lambda b: (b.log_ridge, b.logits)`; by default all floating ones that are numbers
        or vectors.
    - `relax`: how comparisons are smoothed, `Relaxation(0.1)` by default; exact metrics of a smooth kind ignore it.
    - `weights`, `where`: gene weights and genes that count, for metrics that take them.
    - `groups`: labels of perturbations that are left out together, for baselines that have `leave_group_out`.
    - `optimiser`: optax's L-BFGS with line search, Adam, or a transformation of your own. By default Adam for metrics
        that need a relaxation and L-BFGS for all others: the temperature of a relaxation follows the predictions
        without a gradient, so that a line search may find no step where there is one.
    - `steps`: at most; it ends earlier where the loss no longer falls by `tolerance` of itself (L-BFGS only).
    - `learning_rate`: of Adam.
    - `key`: for baselines that are random, the same in every step.

    **Raises:** `ValueError` for a baseline without leave-one-out predictions or hyper-parameters, for a metric that
    cannot be a loss, and for another optimiser.
    """
    problem = problem_of(
        baseline, data, metric, external=external, relax=relax, weights=weights, where=where, groups=groups, key=key
    )
    spec = tunable(baseline, over)
    params, rest = eqx.partition(_as_arrays(baseline, spec), spec)
    optimiser = problem.optimiser if optimiser is None else optimiser
    transformation = _optimiser(optimiser, learning_rate)
    widest = jnp.result_type(float)

    def loss(params, problem):
        value, scores = problem.loss(eqx.combine(params, rest))
        return value.astype(widest), scores

    evaluate = eqx.filter_jit(jax.value_and_grad(loss, has_aux=True))

    @eqx.filter_jit
    def move(params, state, problem, unit, now, slope):
        slope = jax.tree.map(lambda x: unit * x, slope)
        value = lambda p: unit * loss(p, problem)[0]
        # optax mixes dtypes in its bookkeeping, where nothing is lost by it.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, state = optax.with_extra_args_support(transformation).update(
                slope, state, params, value=unit * now, grad=slope, value_fn=value
            )
        return _strong(optax.apply_updates(params, updates)), _strong(state)

    state, unit = _strong(transformation.init(params)), None
    seen: list[tuple[float, Any, Scores]] = []
    for _ in range(steps + 1):
        (now, scores), slope = evaluate(params, problem)
        seen.append((float(now), params, scores))
        ended = optimiser == "lbfgs" and len(seen) > 1 and _settled(seen[-2][0], seen[-1][0], tolerance)
        if ended or len(seen) > steps:
            break
        # A slope of one at the start, whatever the unit of the metric: what line searches expect.
        unit = 1 / _norm(slope) if unit is None else unit
        params, state = move(params, state, problem, unit, now, slope)
    return _best(seen, rest)


def grid(
    baseline: B,
    data: PertData,
    metric: Objective,
    values: Sequence[Any] | np.ndarray,
    *,
    over: Callable[[Any], Any],
    external: Sequence[Any] = (),
    relax: Relaxation | None = None,
    weights: GeneWeights = None,
    where: GeneMask = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    key: Array | None = None,
) -> Gridded[B]:
    """The best of listed hyper-parameters by the exact score of leave-one-out predictions, with one compilation.

    **Arguments:** as for `tune`, and `values`, what the leaf that `over` selects takes in turn; tuples, if it selects
    several.

    **Raises:** as `tune`, and `ValueError` for no values.
    """
    if not len(values):
        raise ValueError("A grid needs values.")
    problem = problem_of(
        baseline, data, metric, external=external, relax=relax, weights=weights, where=where, groups=groups, key=key
    )
    spec = tunable(baseline, over)
    score = eqx.filter_jit(lambda candidate, problem: problem.loss(candidate)[1])
    candidates = [_as_arrays(eqx.tree_at(over, baseline, value), spec) for value in values]
    found = [score(candidate, problem) for candidate in candidates]
    scores = Scores(*(np.array([float(x) for x in column]) for column in zip(*found, strict=True)))
    losses = np.where(np.isnan(scores.exact), np.inf, problem.sign * scores.exact)
    best = int(np.argmin(losses))
    return Gridded(candidates[best], scores, best)


def tunable(baseline: Baseline, over: Callable[[Any], Any] | None = None) -> Any:
    """Which leaves of a baseline are tuned, as a tree of booleans.

    **Raises:** `ValueError` if none is.
    """
    number = lambda x: eqx.is_inexact_array_like(x) and np.ndim(x) <= 1
    if over is None:
        spec = jax.tree.map(number, baseline)
    else:
        spec = eqx.tree_at(over, jax.tree.map(lambda _: False, baseline), replace_fn=lambda _: True)
    if not any(jax.tree.leaves(spec)):
        raise ValueError(f"The baseline {baseline.name!r} has no hyper-parameter to tune.")
    return spec


def _as_arrays(baseline, spec):
    """The leaves to tune as arrays of the widest precision, which a change of value does not compile anew."""
    cast = lambda x, chosen: jnp.asarray(x).astype(jnp.result_type(float)) if chosen else x
    return jax.tree.map(cast, baseline, spec)


def _norm(slope):
    size = jnp.sqrt(sum(jnp.sum(x * x) for x in jax.tree.leaves(slope)))
    return jnp.where(size > 0, size, 1)


def _strong(tree):
    """Arrays without the weak types that would compile the second step anew."""
    return jax.tree.map(lambda x: x.astype(x.dtype), tree)


def _optimiser(optimiser, learning_rate):
    if isinstance(optimiser, optax.GradientTransformation):
        return optimiser
    if optimiser == "lbfgs":
        return optax.lbfgs()
    if optimiser == "adam":
        return optax.adam(learning_rate)
    raise ValueError(f'`optimiser` is "lbfgs", "adam" or a transformation of optax, got {optimiser!r}.')


def _settled(before: float, now: float, tolerance: float) -> bool:
    return not abs(now - before) > tolerance * max(abs(now), abs(before))


def _best(seen, rest) -> Tuned:
    losses = np.array([loss for loss, _, _ in seen])
    best = int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))
    number = lambda scores: Scores(*(np.float64(x) for x in scores))
    history = Scores(*(np.array([float(x) for x in column]) for column in zip(*(aux for *_, aux in seen), strict=True)))
    baseline = eqx.combine(seen[best][1], rest)
    return Tuned(baseline, number(seen[0][2]), number(seen[best][2]), history, losses)
