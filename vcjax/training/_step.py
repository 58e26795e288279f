"""One step of a training, and one evaluation, as compiled programs."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from .._profiles import Profiles
from .._relax import HARD, Relaxation
from ..losses import ComposedLoss, Parts
from ..metrics import CATALOGUE, Metric
from ._data import Batch, draw_rows, TrainingData
from ._state import State


SPREAD = CATALOGUE["spread_ratio"]
_EVALUATION = 2**31 - 1  # no step has this number, so that an evaluation draws cells of its own


Forward = Callable[..., Profiles | Array]
"""`(model, batch, *, key, relax)` to profiles, or to means (perts, genes) in the space of the measured ones."""


class Plan(eqx.Module):
    """What does not change from step to step."""

    loss: ComposedLoss
    key: Array
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    forward: Forward = eqx.field(static=True)
    batch: int | None = eqx.field(static=True)
    cells: int | None = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True)


class Record(eqx.Module):
    """What is logged of a step."""

    step: Array
    loss: Float[Array, ""]
    gradient: Float[Array, ""]
    parts: Parts


def one_by_one(model: Any, batch: Batch, *, key: Array, relax: Relaxation) -> Array:
    """The model of each perturbation's inputs: what `fit` does unless it is told otherwise."""
    return jax.vmap(model)(batch.inputs)


@eqx.filter_jit
def take_step(state: State, data: TrainingData, plan: Plan) -> tuple[State, Record]:
    """The state after a step; the same state, and `failed`, where anything about the step is not finite."""
    batch, drawn = batch_of(state.step, data, plan)

    def objective(model):
        pred = predicted(model, batch, plan, drawn, plan.loss.relaxation(state.step))
        value, parts = plan.loss(pred, batch.real, step=state.step, **batch.options())
        return value, (parts, jnp.all(jnp.isfinite(pred.mean)))

    (value, (parts, sound)), gradient = eqx.filter_value_and_grad(objective, has_aux=True)(state.model)
    size = optax.tree.norm(gradient)
    fine = sound & jnp.isfinite(value) & jnp.isfinite(size) & ~state.failed
    params = eqx.filter(state.model, eqx.is_inexact_array)
    # The optimiser raises floats to integer powers, which strict promotion of the caller's would refuse.
    with jax.numpy_dtype_promotion("standard"):
        update = optax.with_extra_args_support(plan.optimiser).update
        updates, optimiser = update(gradient, state.optimiser, params, value=value, grad=gradient)
    moved = eqx.apply_updates(state.model, updates)
    model, optimiser = _where(fine, (moved, optimiser), (state.model, state.optimiser))
    after = State(model, optimiser, state.step + fine.astype(jnp.int32), ~fine, state.best, state.score, state.found)
    return after, Record(state.step, value, size, parts)


@eqx.filter_jit
def evaluate(model: Any, data: TrainingData, plan: Plan, metrics: Mapping[str, Metric]) -> dict[str, Array]:
    """The exact loss as `loss`, the exact metrics of its terms and those asked for, and the spread of predictions."""
    batch = data.batch(cells=plan.cells, key=jax.random.fold_in(plan.key, _EVALUATION))
    key = jax.random.fold_in(plan.key, _EVALUATION - 1)
    pred = predicted(eqx.nn.inference_mode(model), batch, plan, key, HARD)
    value, parts = plan.loss(pred, batch.real, relax=HARD, **batch.options())
    found = {"loss": value, **parts.exact}
    for name, metric in {SPREAD.name: SPREAD, **metrics}.items():
        if name not in found:
            weights = batch.weights if metric.needs_weights else None
            values = metric(pred, batch.real, weights=weights, where=batch.where, bank=batch.bank)
            found[name] = jnp.nanmean(values)
    return found


def batch_of(step: Array, data: TrainingData, plan: Plan) -> tuple[Batch, Array]:
    """The minibatch of a step, and the key for what the model draws in it: the same in every run of one seed."""
    order, drawn, key = (jax.random.fold_in(plan.key, i) for i in range(3))
    rows = draw_rows(step, len(data), plan.batch, order)
    batch = data.batch(rows, cells=plan.cells, key=jax.random.fold_in(drawn, step))
    if plan.mesh is not None:
        split = NamedSharding(plan.mesh, PartitionSpec(plan.mesh.axis_names[0]))
        parts = (batch.inputs, batch.real.mean, batch.cells)
        parts = jax.tree.map(lambda x: lax.with_sharding_constraint(x, split), parts)
        where = lambda b: (b.inputs, b.real.mean, b.cells)
        batch = eqx.tree_at(where, batch, parts, is_leaf=lambda x: x is None)
    return batch, jax.random.fold_in(key, step)


def predicted(model: Any, batch: Batch, plan: Plan, key: Array, relax: Relaxation) -> Profiles:
    """What the model predicts for a batch, as profiles.

    **Raises:** `ValueError` for a prediction of another shape than what is measured.
    """
    pred = plan.forward(model, batch, key=key, relax=relax)
    mean = pred.mean if isinstance(pred, Profiles) else pred
    if mean.shape != batch.real.mean.shape:
        raise ValueError(
            f"The model predicts {mean.shape} for a batch of {batch.real.mean.shape} (perts, genes). It is called for "
            "each perturbation with its inputs; a model that takes a whole batch needs `forward=`."
        )
    return pred if isinstance(pred, Profiles) else batch.real.with_mean(pred)


def _where(condition: Array, new: Any, old: Any) -> Any:
    arrays, rest = eqx.partition(new, eqx.is_array)
    kept = jax.tree.map(lambda a, b: jnp.where(condition, a, b), arrays, eqx.filter(old, eqx.is_array))
    return eqx.combine(kept, rest)
