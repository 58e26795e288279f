"""The bound discrimination score: how often a replicate beats an uninformative prediction, and whether by chance."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float
from .._relax import HARD, Relaxation


def bound_discrimination(
    positive: Real[ArrayLike, " perts"],
    negative: Real[ArrayLike, " perts"],
    *,
    higher_is_better: bool,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Whether the positive control beats the negative one, $H(m_+ - m_-)$: 1, 0, or 1/2 for a tie.

    Its mean over perturbations is the bound discrimination score (BDS): 1 if the metric always prefers a replicate to
    the uninformative prediction, 1/2 if it cannot tell them apart. For an error the difference is turned round.

    **Arguments:**

    - `positive`, `negative`: values of the metric, one a perturbation.
    - `relax`: smooths the step.

    **Returns:** NaN (with zero gradients) where either value is NaN.

    **Raises:** `ValueError` for shapes that differ.

    Source: SBB, scPertEval 0.2.0 (there a tie loses).
    """
    positive, negative = as_float(positive, "positive"), as_float(negative, "negative")
    if positive.shape != negative.shape:
        raise ValueError(f"Both controls need one value a perturbation, got {positive.shape} and {negative.shape}.")
    dtype = np.promote_types(positive.dtype, negative.dtype)
    positive, negative = positive.astype(dtype), negative.astype(dtype)
    defined = ~(jnp.isnan(positive) | jnp.isnan(negative))
    gap = jnp.where(defined, positive, 0) - jnp.where(defined, negative, 0)
    gap = gap if higher_is_better else -gap
    return jnp.where(defined, relax.step(gap, relax.temperature(gap, defined)), jnp.nan)


class BoundTest(NamedTuple):
    """What `bound_discrimination_test` found of each perturbation.

    **Fields:** `gap`, by how much the replicate is better than the control cells, in the metric's unit; `pvalue` of a
    gap this large among random splits of the same cells; `padj`, after Benjamini and Hochberg. The share of
    perturbations with a small `padj` is the sensitivity of the metric.
    """

    gap: Float[Array, " perts"]
    pvalue: Float[Array, " perts"]
    padj: Float[Array, " perts"]
