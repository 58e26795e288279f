"""What a baseline is worth in a context of which nothing but control cells has been measured."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._stats import safe_divide
from ._interface import Baseline, PertData, Prediction


def leave_one_context_out(baseline: Baseline, contexts: Sequence[PertData]) -> tuple[Prediction, ...]:
    """Every context predicted from the others alone, as if none of its perturbations had been measured.

    **Returns:** for each context the predictions of its own perturbations that another context measures, in its order.

    **Raises:** `ValueError` for fewer than two contexts, and for one that shares no perturbation with the others.
    """
    if len(contexts) < 2:
        raise ValueError(f"At least two contexts are needed, got {len(contexts)}.")
    made = []
    for i, target in enumerate(contexts):
        others = [context for j, context in enumerate(contexts) if j != i]
        elsewhere = {pert for context in others for pert in context.perts}
        perts = [pert for pert in target.perts if pert in elsewhere]
        if not perts:
            raise ValueError(f"No other context measures a perturbation of {target.context or f'context {i}'!r}.")
        made.append(baseline.fit(target.take(()), external=others).predict(perts))
    return tuple(made)


def context_scores(
    baseline: Baseline, contexts: Sequence[PertData], metric: Callable[[Any, Any], Float[Array, "..."]]
) -> Float[Array, " contexts"]:
    """The mean value of a metric of predicted and measured effects for every context, predicted from the others.

    Differentiable in the knobs of the baseline. Over the genes that another context measures, by name; perturbations
    for which the metric is undefined do not count.
    """
    scores = []
    for i, (made, real) in enumerate(zip(leave_one_context_out(baseline, contexts), contexts, strict=True)):
        others = [context for j, context in enumerate(contexts) if j != i]
        named = real.genes and all(context.genes for context in others)
        measured = {gene for context in others for gene in context.genes}
        genes = np.array([not named or gene in measured for gene in real.genes or range(real.effects.shape[1])])
        values = jnp.atleast_1d(metric(made.effect[:, genes], real.take(made.perts).effects[:, genes]))
        known = ~jnp.isnan(values)
        count = jnp.sum(known, dtype=jnp.int32).astype(values.dtype)
        scores.append(safe_divide(jnp.sum(jnp.where(known, values, 0)), count))
    return jnp.stack(scores)
