"""Smooth bounds of rank metrics, as named alternatives to relaxing the metric itself.

A relaxed rank is the metric, blurred; these are other functions, which lie above its loss and fall where it need not.
They have gradients however badly a perturbation is ranked, so that they serve as a start, or as a rival.
"""

import functools as ft
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._relax import Relaxation
from .._stats import safe_divide
from ..metrics._catalogue import DISTANCES
from ..metrics._metric import Differentiable, Metric
from ..metrics._retrieval import candidate_gaps, check_options
from ..metrics._rows import discrimination


DistanceName = Literal["l1", "l2", "cosine"]
_MEDIAN = Relaxation(0.5)


def info_nce(distance: DistanceName = "cosine", *, temperature: float | None = 0.1) -> Metric:
    r"""InfoNCE, the cross-entropy of recognising one's own perturbation among the candidates, over that of a guess.

    $\ell_p = \log\big(1 + \sum_{q \ne p} e^{(d_{pp} - d_{pq})/T}\big) / \log C$ for C candidates: 1 where all are
    equally far, 0 where its own is nearer by many T. $C^{-\ell_p}$ is a lower bound of the reciprocal rank, since each
    candidate that is closer adds at least 1 to the sum.

    **Arguments:**

    - `distance`: of effects to the measured control, with the targets of the whole panel left out, as for `pds_cosine`.
    - `temperature`: T, in units of the distance; `None` for the median of each row's non-zero gaps (a constant of the
        differentiation), which distances that have a unit need.

    Source: van den Oord et al. 2018 (equation 4); with cosine distance and T = 0.1 in public entries to the Virtual
    Cell Challenge 2025.
    """
    return _bound(
        "info_nce",
        *(_info_nce, distance, temperature),
        summary="Cross-entropy of recognising the own perturbation among the candidates, over that of a guess",
        formula="log(1 + sum_q exp((d_pp - d_pq)/T)) / log C",
    )


def softplus_rank(distance: DistanceName = "cosine", *, temperature: float | None = None) -> Metric:
    r"""A convex bound of the rank, $\frac{1}{C-1} \sum_{q \ne p} \log_2(1 + e^{(d_{pp} - d_{pq})/T}) \ge 1 -
    \mathrm{PDS}_p$: the logistic loss of each comparison.

    1 where all candidates are equally far. Arguments as for `info_nce`. Source: the logistic majoriser of the step, as
    in RankNet (Burges et al. 2005).
    """
    return _bound(
        "softplus_rank",
        *(_softplus, distance, temperature),
        summary="Logistic loss of each comparison with another candidate, an upper bound of 1 - PDS",
        formula="mean_q log2(1 + exp((d_pp - d_pq)/T))",
    )


def hinge_rank(distance: DistanceName = "cosine", *, temperature: float | None = None) -> Metric:
    r"""The triplet loss, $\frac{1}{C-1} \sum_{q \ne p} \max(0, 1 + (d_{pp} - d_{pq})/T) \ge 1 - \mathrm{PDS}_p$, with
    margin T.

    1 where all candidates are equally far; those that are farther by the margin do not pull. Arguments as for
    `info_nce`. Source: Schroff et al. 2015 (equation 3), on distances, the mean over all candidates.
    """
    return _bound(
        "hinge_rank",
        *(_hinge, distance, temperature),
        differentiable="almost everywhere",
        summary="Triplet loss with every other candidate, an upper bound of 1 - PDS",
        formula="mean_q max(0, 1 + (d_pp - d_pq)/T)",
    )


def _bound(
    name: str,
    score: Callable,
    distance: str,
    temperature: float | None,
    *,
    summary: str,
    formula: str,
    differentiable: Differentiable = "smooth",
) -> Metric:
    check_options(distance=(distance, DistanceName))
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    return Metric(
        name=f"{name}_{distance}",
        function=discrimination(
            DISTANCES[distance], "real", exclude="panel", score=ft.partial(score, temperature=temperature)
        ),
        summary=f"{summary}.",
        formula=formula,
        differentiable=differentiable,
        perfect=0.0,
        no_skill=1.0,
        higher_is_better=False,
        takes_bank=True,
        needs_targets=True,
        source="a bound of a rank, for training",
    )


def _gaps(
    distances: Float[Array, "perts candidates"],
    own: Int[Array, " perts"] | None,
    candidates,
    temperature: float | None,
) -> tuple[Float[Array, "perts candidates"], Array, Float[Array, " perts"]]:
    """How much farther its own is than each candidate, in units of the temperature; which count, and how many."""
    gaps, others = candidate_gaps(distances, own, candidates)
    unit = _MEDIAN.temperature(gaps, others) if temperature is None else jnp.asarray(temperature, gaps.dtype)
    return gaps / unit, others, jnp.sum(others, axis=1).astype(gaps.dtype)


def _info_nce(distances, own=None, *, candidates=None, relax, temperature) -> Float[Array, " perts"]:
    gaps, others, count = _gaps(distances, own, candidates, temperature)
    nearer = jax.nn.logsumexp(jnp.where(others, gaps, -jnp.inf), axis=1, where=others)
    # A perturbation alone has nothing to be told from: log 1 of log 1.
    return safe_divide(jnp.logaddexp(0.0, jnp.where(count > 0, nearer, 0.0)), jnp.log1p(count))


def _softplus(distances, own=None, *, candidates=None, relax, temperature) -> Float[Array, " perts"]:
    gaps, others, count = _gaps(distances, own, candidates, temperature)
    return safe_divide(jnp.sum(jnp.where(others, jax.nn.softplus(gaps), 0), axis=1), jnp.log(2.0) * count)


def _hinge(distances, own=None, *, candidates=None, relax, temperature) -> Float[Array, " perts"]:
    gaps, others, count = _gaps(distances, own, candidates, temperature)
    return safe_divide(jnp.sum(jnp.where(others, jax.nn.relu(1 + gaps), 0), axis=1), count)
