"""What was not finite in a step, and for which perturbation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..losses import Term
from ._data import TrainingData
from ._state import State
from ._step import batch_of, Plan, predicted


def explain(state: State, data: TrainingData, plan: Plan, perts: tuple[str, ...]) -> str:
    """Which term of the loss is not finite at the step that failed, where, and what to do about it."""
    batch, key = batch_of(state.step, data, plan)
    relax = plan.loss.relaxation(state.step)
    pred = predicted(state.model, batch, plan, key, relax)
    labels = [perts[row] for row in np.asarray(batch.rows)]
    wrong = _wrong(pred.mean)
    found = [f"the prediction of {_listing(labels, wrong)}"] if wrong.any() else []
    for term in () if wrong.any() else plan.loss.terms:
        value, slope = eqx.filter_value_and_grad(_alone)(pred, term, batch, relax)
        rows = _wrong(slope.mean)
        if rows.any() or not np.isfinite(value):
            what = "the gradient of " if np.isfinite(value) else ""
            found.append(f"{what}the term `{term.name}`" + (f" for {_listing(labels, rows)}" if rows.any() else ""))
    where = "; ".join(found) or "the gradient of the model's own parameters, though prediction and loss are finite"
    return (
        f"Step {int(state.step)} is not finite: {where}. Training on would turn every parameter into NaN, so the model "
        "stays as it was before that step. A smaller learning rate or `optax.clip_by_global_norm` keeps a prediction "
        "finite; a term that is not finite for a perturbation asks for a look at its measured profile."
    )


def _alone(pred: Any, term: Term, batch: Any, relax: Any) -> Array:
    values = term.value(pred, batch.real, relax, batch.options() | {"valid": None})
    return jnp.sum(jnp.where(jnp.isnan(values), 0, values))


def _wrong(rows: Array) -> np.ndarray:
    return np.any(~np.isfinite(np.asarray(jax.device_get(rows))), axis=1)


def _listing(labels: list[str], wrong: np.ndarray) -> str:
    names = [repr(label) for label, odd in zip(labels, wrong, strict=True) if odd]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
