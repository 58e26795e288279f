"""A model's value on the scale between two controls."""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float
from .._stats import safe_divide


Orientation = Literal["score", "sbb"]
_LEAST_SPAN = 1e-8


def calibrated_score(
    value: Real[ArrayLike, "*shape"],
    negative: Real[ArrayLike, "*#shape"],
    positive: Real[ArrayLike, "*#shape"],
    *,
    higher_is_better: bool,
    orientation: Orientation = "score",
) -> Float[Array, "*shape"]:
    r"""$(m - m_-) / (m_+ - m_-)$: 0 is the negative control, 1 the positive one, for errors and scores alike.

    Not cut: a model below the control is negative, one that sees through the noise of a replicate is above 1. Affine in
    `value`, the controls are constants of the differentiation, so `1 - calibrated_score` is a loss.

    **Arguments:**

    - `value`, `negative`, `positive`: values of one metric, each one a perturbation or a mean over perturbations. The
        score of the means is the steadier one: a single perturbation's controls may lie close together.
    - `orientation`: `"sbb"` is turned round, $(m - m_+)/(m_- - m_+)$: 0 is the replicate and 1 the control, lower is
        better.

    **Returns:** NaN (with zero gradients) where the positive control is not better than the negative one by more than
    1e-8: there is no scale.

    **Raises:** `ValueError` for an unknown orientation.

    Source: the calibrated score of SBB, without its floor at 0, which hides a model that beats the replicate.
    """
    if orientation not in ("score", "sbb"):
        raise ValueError(f'`orientation` is "score" or "sbb", got {orientation!r}.')
    value = as_float(value, "value")
    low, high = (lax.stop_gradient(jnp.asarray(x).astype(value.dtype)) for x in (negative, positive))
    span = jnp.broadcast_to(high - low, value.shape)
    defined = (span if higher_is_better else -span) > _LEAST_SPAN
    score = safe_divide(value - low, jnp.where(defined, span, 0))
    return score if orientation == "score" else 1 - score
