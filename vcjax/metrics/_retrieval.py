"""Discrimination and retrieval: is a prediction nearest to its own perturbation?"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import as_float_matrix
from .._pairwise import AbstractDistance, Cosine, Effects, L1, L2
from .._relax import HARD, Relaxation
from .._stats import safe_divide
from .._types import PertsGenes, Reference


Ties = Literal["half", "strict", "position"]
Denominator = Literal["n-1", "n"]
Exclude = Literal["none", "own", "panel"]
Direction = Literal["pred_to_truth", "truth_to_pred", "both"]
Candidates = Bool[ArrayLike, " candidates"] | Bool[ArrayLike, "perts candidates"] | None
Bank = PertsGenes | Float[ArrayLike, "candidates genes"]


def candidates_closer(
    distances: Float[Array, "perts candidates"],
    own: Int[ArrayLike, " perts"] | None = None,
    *,
    candidates: Candidates = None,
    ties: Ties = "half",
    relax: Relaxation = HARD,
) -> tuple[Float[Array, " perts"], Float[Array, " perts"]]:
    r"""How many other candidates are closer than a query's own, and how many others there are.

    $k_p = \sum_{q \ne p} H(d_{pp} - d_{pq})$. What all retrieval scores are made of.

    **Arguments:**

    - `distances`: of each query to each candidate.
    - `own`: column of each query's own candidate; by default the diagonal.
    - `candidates`: which columns count (for all queries, or for each); a query's own always does.
    - `ties`: `"half"` counts an equally near candidate one half, `"strict"` counts it as closer, `"position"` as
        closer if it stands before the query's own (what a stable argsort does).
    - `relax`: smooths the comparisons; the two conventions that are not `"half"` are exact only.
    """
    own = _own(own, *distances.shape)
    gaps, others = candidate_gaps(distances, own, candidates)
    closer = relax.step(gaps, relax.temperature(gaps, others))
    if ties != "half":
        before = jnp.arange(distances.shape[1])[None, :] < own[:, None]
        tied = jnp.where(before, 1.0, 0.0) if ties == "position" else jnp.ones(gaps.shape)
        closer = jnp.where(gaps == 0, tied.astype(closer.dtype), closer)
    closer = jnp.sum(jnp.where(others, closer, 0), axis=1)
    # A distance that is not a number says nothing about its row; a comparison would silently call it a loss.
    mine = jnp.take_along_axis(distances, own[:, None], axis=1)
    undefined = jnp.any(jnp.isnan(distances) & others, axis=1) | jnp.isnan(mine[:, 0])
    return jnp.where(undefined, jnp.nan, closer), jnp.sum(others, axis=1).astype(closer.dtype)


def candidate_gaps(
    distances: Float[Array, "perts candidates"],
    own: Int[ArrayLike, " perts"] | None,
    candidates: Candidates,
) -> tuple[Float[Array, "perts candidates"], Bool[Array, "perts candidates"]]:
    """How much farther a query's own candidate is than each, and which of them count as others."""
    rows, columns = distances.shape
    own = _own(own, rows, columns)
    others = jnp.arange(columns)[None, :] != own[:, None]
    if candidates is not None:
        candidates = jnp.asarray(candidates)
        others = others & jnp.broadcast_to(candidates if candidates.ndim == 2 else candidates[None, :], others.shape)
    return jnp.take_along_axis(distances, own[:, None], axis=1) - distances, others


def _own(own, rows, columns):
    if own is None:
        if rows != columns:
            raise ValueError(
                f"{rows} predictions and {columns} candidates: "
                "say with `own` which candidate belongs to which prediction."
            )
        return jnp.arange(rows)
    return jnp.asarray(own)


def _banks(pred, real, reference, pred_reference, kept):
    pred, real = as_float_matrix(pred, "pred"), as_float_matrix(real, "real")
    if pred.shape[1] != real.shape[1]:
        raise ValueError(f"`pred` and `real` must have the same genes, got shapes {pred.shape} and {real.shape}.")
    dtype = np.promote_types(pred.dtype, real.dtype)
    pred_reference = reference if pred_reference is None else pred_reference
    return tuple(
        Effects.of(side.astype(dtype), None if origin is None else jnp.asarray(origin), kept)
        for side, origin in ((pred, pred_reference), (real, reference))
    )


def retrieval_distances(
    pred: PertsGenes,
    real: Bank,
    *,
    distance: AbstractDistance = L1(),
    where: Bool[ArrayLike, " genes"] | None = None,
    reference: Reference = None,
    pred_reference: Reference = None,
    exclude: Exclude = "none",
    targets: Int[ArrayLike, " candidates"] | None = None,
    own: Int[ArrayLike, " perts"] | None = None,
) -> Float[Array, "perts candidates"]:
    """The distance of every predicted effect to every measured one, with target genes left out as asked.

    Arguments as for `perturbation_discrimination`.
    """
    if where is not None and jnp.ndim(where) != 1:
        raise ValueError("`where` is one mask of genes here: distances between perturbations need the same genes.")
    if exclude != "none" and targets is None:
        raise ValueError(
            f"`exclude={exclude!r}` needs `targets`: the index of the gene that each perturbation targets."
        )
    kept = None if where is None else jnp.asarray(where)
    if exclude == "panel":
        others = ~_targeted(targets, jnp.shape(real)[1])
        kept = others if kept is None else kept & others
    ours, theirs = _banks(pred, real, reference, pred_reference, kept)
    distances = distance(ours, theirs)
    if exclude == "own":
        gene = jnp.asarray(targets)[_own(own, ours.shape[0], theirs.shape[0])]
        distances = distance.excluding(distances, ours, theirs, gene)
    return distances


def _targeted(targets, genes):
    """Which genes any perturbation targets."""
    targets = jnp.asarray(targets)
    slots = jnp.where(targets >= 0, targets, genes)
    return jnp.zeros(genes + 1, bool).at[slots].set(True)[:genes]


def perturbation_discrimination(
    pred: PertsGenes,
    real: Bank,
    *,
    distance: AbstractDistance = L1(),
    ties: Ties = "half",
    denominator: Denominator = "n-1",
    exclude: Exclude = "none",
    targets: Int[ArrayLike, " candidates"] | None = None,
    own: Int[ArrayLike, " perts"] | None = None,
    candidates: Candidates = None,
    direction: Direction = "pred_to_truth",
    where: Bool[ArrayLike, " genes"] | None = None,
    reference: Reference = None,
    pred_reference: Reference = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Perturbation Discrimination Score (PDS): the share of other perturbations that a prediction is farther from.

    $\mathrm{PDS}_p = 1 - \frac{1}{P-1} \sum_{q \ne p} H\big(d(\hat\delta_p, \delta_p) - d(\hat\delta_p,
    \delta_q)\big)$: 1 is best, and predictions without information score exactly 1/2 on average when all perturbations
    are candidates. L1 and L2 reward inflated effects; read an amplitude ratio beside them.

    **Arguments:**

    - `pred`: predicted effects (or profiles, with `reference`), (perts, genes).
    - `real`: measured effects of the candidates, (candidates, genes); the same perturbations in the same order unless
        `own` gives each prediction's row.
    - `distance`: `L1()`, `L2()` or `Cosine()`. A zero effect has cosine distance 1 to everything.
    - `ties`, `candidates`: see `candidates_closer`.
    - `denominator`: `"n-1"` (range [0, 1]), or `"n"` as cell-eval and the 2025 challenge had it (range [1/P, 1]).
    - `exclude`: drop from the distance no gene, a query's `"own"` target, or the targets of the whole `"panel"`.
    - `targets`: index of the gene that each candidate targets, -1 for none.
    - `direction`: predictions as queries among measured effects; `"truth_to_pred"` the other way round; or the mean.
    - `where`: genes that count; `reference`, `pred_reference`: what the measured and predicted effects are measured
        from.
    - `relax`: smooths the comparisons; the temperature is a quantile of each row's own gaps.

    **Returns:** one value a perturbation; NaN without another candidate, and where a distance is NaN.

    **Raises:** `ValueError` for gene axes that differ, for an exclusion without `targets`, for more or fewer
    candidates than predictions without `own`, and for an unknown option.

    Source: cell-eval2 0.20.0 (`pds_*`: `exclude="panel"`); cell-eval 0.8.2 (`discrimination_score_*`:
    `ties="position"`, `denominator="n"`, `exclude="own"`).
    """
    check_options(
        ties=(ties, Ties),
        denominator=(denominator, Denominator),
        exclude=(exclude, Exclude),
        direction=(direction, Direction),
    )
    distances = retrieval_distances(
        pred, real, distance=distance, where=where, reference=reference, pred_reference=pred_reference,
        exclude=exclude, targets=targets, own=own,
    )  # fmt: skip
    return discrimination_from_distances(
        distances, own, ties=ties, denominator=denominator, candidates=candidates, direction=direction, relax=relax
    )


def discrimination_from_distances(
    distances: Float[Array, "perts candidates"],
    own: Int[ArrayLike, " perts"] | None = None,
    *,
    ties: Ties = "half",
    denominator: Denominator = "n-1",
    candidates: Candidates = None,
    direction: Direction = "pred_to_truth",
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    """`perturbation_discrimination` of distances at hand: several scores from one distance matrix."""
    if direction == "both":
        there, back = (
            discrimination_from_distances(
                distances, own, ties=ties, denominator=denominator, candidates=candidates, direction=one, relax=relax
            )
            for one in ("pred_to_truth", "truth_to_pred")
        )
        return 0.5 * (there + back)
    if direction == "truth_to_pred":
        if own is not None or distances.shape[0] != distances.shape[1]:
            raise ValueError('`direction="truth_to_pred"` needs the same perturbations on both sides, and no `own`.')
        distances = distances.T
    closer, others = candidates_closer(distances, own, candidates=candidates, ties=ties, relax=relax)
    score = 1 - safe_divide(closer, others + 1 if denominator == "n" else others)
    return jnp.where(others > 0, score, jnp.nan)


def check_options(**options):
    """**Raises:** `ValueError` for an option, given with its `Literal`, that is none of the words of that."""
    for name, (value, allowed) in options.items():
        if value not in allowed.__args__:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed.__args__))}, got {value!r}.")


def normalised_inverse_rank(
    pred: PertsGenes,
    real: Bank,
    *,
    distance: AbstractDistance = L2(),
    ties: Ties = "half",
    own: Int[ArrayLike, " perts"] | None = None,
    candidates: Candidates = None,
    where: Bool[ArrayLike, " genes"] | None = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Normalised inverse rank (NIR), $\frac{1}{P-1}\sum_{q \ne p} H(d_{pq} - d_{pp})$ on raw profiles with L2
    distance.

    The same number as `perturbation_discrimination` with that distance. The original lets ties lose (`ties="strict"`),
    so that a constant truth scores 0; here they count one half.

    With the measured effects of *all* perturbations as `real`, and `own`, this is Systema's centroid accuracy.

    Source: Miller et al. 2025; `centroid_accuracy` of Systema (Viñas Torné et al. 2025).
    """
    return perturbation_discrimination(
        pred, real, distance=distance, ties=ties, own=own, candidates=candidates, where=where, relax=relax
    )


def perturbench_rank(
    pred: PertsGenes,
    real: PertsGenes,
    *,
    distance: AbstractDistance = L2(),
    where: Bool[ArrayLike, " genes"] | None = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Rank of PerturBench, $\frac1n \sum_{q \ne p} H(d(\hat x_p, x_p) - d(\hat x_q, x_p))$: 0 is best, $(n-1)/2n$ is
    chance.

    The truth is the query, the predictions are the candidates. Ties count one half (the original shuffles them with an
    unseeded generator). The distance of the original, the RMSE, orders as L2 does.

    Source: PerturBench (Wu et al. 2024), `rank`.
    """
    score = perturbation_discrimination(
        pred, real, distance=distance, direction="truth_to_pred", denominator="n", where=where, relax=relax
    )
    return 1 - score


def mean_reciprocal_rank(
    pred: PertsGenes,
    real: Bank,
    *,
    distance: AbstractDistance = Cosine(),
    own: Int[ArrayLike, " perts"] | None = None,
    candidates: Candidates = None,
    where: Bool[ArrayLike, " genes"] | None = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Reciprocal rank of a prediction's own perturbation, $1 / (1 + k_p)$ with $k_p$ the number of closer candidates.

    Its mean over perturbations is the MRR. Arguments as for `perturbation_discrimination`; 1 with a single candidate.
    """
    distances = retrieval_distances(pred, real, distance=distance, where=where, own=own)
    return reciprocal_from_distances(distances, own, candidates=candidates, relax=relax)


def reciprocal_from_distances(
    distances: Float[Array, "perts candidates"],
    own: Int[ArrayLike, " perts"] | None = None,
    *,
    candidates: Candidates = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    """`mean_reciprocal_rank` of distances at hand."""
    return 1 / (1 + candidates_closer(distances, own, candidates=candidates, relax=relax)[0])


def recall_at_k(
    pred: PertsGenes,
    real: Bank,
    k: int,
    *,
    distance: AbstractDistance = Cosine(),
    own: Int[ArrayLike, " perts"] | None = None,
    candidates: Candidates = None,
    where: Bool[ArrayLike, " genes"] | None = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    r"""Whether a prediction's own perturbation is among the k nearest, $H(k - \tfrac12 - k_p)$: 1, 0, or 1/2 on the
    boundary.

    With a relaxation the rank is smooth, and so is the cut, over `softness` times the number of candidates. Arguments
    as for `perturbation_discrimination`.

    **Raises:** `ValueError` for k < 1.
    """
    distances = retrieval_distances(pred, real, distance=distance, where=where, own=own)
    return recall_from_distances(distances, own, k=k, candidates=candidates, relax=relax)


def recall_from_distances(
    distances: Float[Array, "perts candidates"],
    own: Int[ArrayLike, " perts"] | None = None,
    *,
    k: int,
    candidates: Candidates = None,
    relax: Relaxation = HARD,
) -> Float[Array, " perts"]:
    """`recall_at_k` of distances at hand."""
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    closer, others = candidates_closer(distances, own, candidates=candidates, relax=relax)
    ranks = jnp.asarray(relax.softness).astype(others.dtype) * others
    return relax.step(k - 0.5 - closer, ranks)
