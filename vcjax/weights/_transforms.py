"""The steps from a statistic of every gene to its weight.

Every step works on the last axis, and a gene whose entry is not finite does not count: it stays NaN until `normalise`,
which gives it the weight 0.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import as_float, as_float_matrix
from .._relax import HARD
from .._stats import safe_divide


Flat = Literal["zero", "one"]
Total = Literal["sum1", "sumG", "max", "none"]
Fallback = Literal["uniform", "nan"]
Scores = Real[ArrayLike, "perts genes"]


def _counted(scores):
    scores = lax.stop_gradient(as_float_matrix(scores, "scores"))
    return scores, jnp.isfinite(scores)


def mask_target(scores: Scores, targets: Int[ArrayLike, " perts"]) -> Float[Array, "perts genes"]:
    """Scores in which the gene that each perturbation targets does not count.

    Done before `min_max` or `max_norm`, it also keeps the target, usually the largest score by far, from setting the
    scale of the others.

    **Arguments:**

    - `targets`: index of the targeted gene; -1 for none.

    **Raises:** `ValueError` if there is not one target a perturbation.
    """
    scores, _ = _counted(scores)
    targets = jnp.asarray(targets)
    if targets.shape != scores.shape[:1]:
        raise ValueError(f"`targets` must have shape {scores.shape[:1]}, got {targets.shape}.")
    own = jnp.arange(scores.shape[1], dtype=targets.dtype)[None, :] == targets[:, None]
    return jnp.where(own, jnp.nan, scores)


def min_max(scores: Scores, *, flat: Flat = "zero") -> Float[Array, "perts genes"]:
    r"""$(x_g - \min x)/(\max x - \min x)$ over the genes of each row that count: the least one gets 0, the most 1.

    **Arguments:**

    - `flat`: what a row of equal scores becomes: `"zero"`, or `"one"` unless the scores are 0.

    **Raises:** `ValueError` for another word.
    """
    if flat not in ("zero", "one"):
        raise ValueError(f'`flat` is "zero" or "one", got {flat!r}.')
    scores, counted = _counted(scores)
    low = jnp.min(jnp.where(counted, scores, jnp.inf), axis=1, keepdims=True)
    high = jnp.max(jnp.where(counted, scores, -jnp.inf), axis=1, keepdims=True)
    spread = high > low
    scaled = (scores - jnp.where(spread, low, 0)) / jnp.where(spread, high - low, 1)
    level = jnp.zeros_like(scores) if flat == "zero" else (scores != 0).astype(scores.dtype)
    return jnp.where(counted, jnp.where(spread, scaled, level), jnp.nan)


def max_norm(scores: Scores) -> Float[Array, "perts genes"]:
    r"""$x_g / \max x$ over the genes of each row that count; zeros where the maximum is 0."""
    scores, counted = _counted(scores)
    high = jnp.max(jnp.where(counted, scores, 0), axis=1, keepdims=True)
    scaled = safe_divide(scores, jnp.broadcast_to(high, scores.shape), otherwise=0.0)
    return jnp.where(counted, scaled, jnp.nan)


def rank01(scores: Scores) -> Float[Array, "perts genes"]:
    r"""$(\mathrm{rank}_g - 1)/(n - 1)$ among the n genes of each row that count, ties at their mid-rank."""
    scores, counted = _counted(scores)
    ranks = HARD.rank(jnp.where(counted, scores, 0), counted)
    others = jnp.sum(counted, axis=1, keepdims=True, dtype=jnp.int32).astype(scores.dtype) - 1
    return jnp.where(counted, (ranks - 1) / jnp.maximum(others, 1), jnp.nan)


def power(scores: Scores, exponent: Real[ArrayLike, ""] | Real[ArrayLike, " perts"]) -> Float[Array, "perts genes"]:
    r"""$x_g^e$ of scores $\ge 0$, with $0^0 = 1$; one exponent for all rows, or one for each."""
    scores, counted = _counted(scores)
    exponent = as_float(exponent, "exponent").astype(scores.dtype)
    exponent = exponent[:, None] if exponent.ndim == 1 else exponent[None, None]
    positive = scores > 0
    raised = jnp.power(jnp.where(positive, scores, 1), exponent)
    return jnp.where(counted, jnp.where(positive, raised, (exponent == 0).astype(scores.dtype)), jnp.nan)


def normalise(scores: Scores, to: Total = "sum1", *, fallback: Fallback = "uniform") -> Float[Array, "perts genes"]:
    r"""Scores $\ge 0$ as weights of one size in each row; what does not count gets the weight 0.

    **Arguments:**

    - `to`: `"sum1"`, `"sumG"` (the number of genes), `"max"` (the largest is 1) or `"none"` (as they are).
    - `fallback`: what a row without any positive score becomes: `"uniform"`, equal weights of the genes that count (of
        all genes if none does), or `"nan"`, weights of zero, with which every weighted metric is NaN.

    **Raises:** `ValueError` for other words.
    """
    if to not in ("sum1", "sumG", "max", "none"):
        raise ValueError(f'`to` is "sum1", "sumG", "max" or "none", got {to!r}.')
    if fallback not in ("uniform", "nan"):
        raise ValueError(f'`fallback` is "uniform" or "nan", got {fallback!r}.')
    scores, counted = _counted(scores)
    weights = jnp.where(counted, scores, 0)
    if fallback == "uniform":
        even = jnp.where(jnp.any(counted, axis=1, keepdims=True), counted, True).astype(scores.dtype)
        weights = jnp.where(jnp.any(weights > 0, axis=1, keepdims=True), weights, even)
    size = {
        "sum1": lambda: jnp.sum(weights, axis=1, keepdims=True),
        "sumG": lambda: jnp.sum(weights, axis=1, keepdims=True) / scores.shape[1],
        "max": lambda: jnp.max(weights, axis=1, keepdims=True),
        "none": lambda: jnp.ones_like(weights[:, :1]),
    }[to]()
    return safe_divide(weights, jnp.broadcast_to(size, weights.shape), otherwise=0.0)
