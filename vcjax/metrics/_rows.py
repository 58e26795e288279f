"""How the functions of arrays read the two sides' profiles: the glue between a metric's definition and its row."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from .._checks import as_float_matrix
from .._pairwise import AbstractDistance
from . import _expression, _retrieval


ControlSource = Literal["real", "pred"]


def on_profiles(function: Callable, **options) -> Callable:
    """Rows that compare the profiles themselves."""

    def row(pred, real, *, relax, weights, where, valid):
        return function(pred.mean, real.mean, weights=weights, where=where, **options)

    return row


def on_effects(function: Callable, control: ControlSource, *, relaxed: bool = False, **options) -> Callable:
    """Rows that compare effects against the control: the measured one for both sides, or each side's own."""

    def row(pred, real, *, relax, weights, where, valid):
        extra = {"relax": relax} if relaxed else {}
        pred_control = real.control if control == "real" else pred.control
        return function(
            pred.mean,
            real.mean,
            weights=weights,
            where=where,
            reference=real.control,
            pred_reference=pred_control,
            **extra,
            **options,
        )

    return row


def discrimination(
    distance: AbstractDistance,
    control: ControlSource | None,
    *,
    exclude: _retrieval.Exclude = "none",
    score: Callable = _retrieval.discrimination_from_distances,
    **options,
) -> Callable:
    """Rows that rank distances; `control=None` ranks the profiles themselves.

    `score` takes the distances, `candidates`, `relax`, and `own` where the candidates are those of a bank.
    """

    def row(pred, real, *, relax, weights, where, valid, bank=None):
        _unweighted(weights)
        pred_control = real.control if control == "real" else pred.control
        candidates, measured, own = valid, real, {}
        if bank is not None:
            candidates, measured, own = None, bank.real, {"own": bank.own}
        distances = _retrieval.retrieval_distances(
            pred.mean,
            measured.mean,
            distance=distance,
            where=where,
            reference=None if control is None else measured.control,
            pred_reference=None if control is None else pred_control,
            exclude=exclude,
            targets=_counted(measured.targets, candidates),
            **own,
        )
        return score(distances, candidates=candidates, relax=relax, **own, **options)

    return row


def _counted(targets, valid):
    """Targets of padding exclude nothing."""
    return targets if valid is None or targets is None else jnp.where(jnp.asarray(valid), targets, -1)


def rank_of_truth(distances, *, candidates, relax):
    """`perturbench_rank` of distances at hand."""
    return 1 - _retrieval.discrimination_from_distances(
        distances, direction="truth_to_pred", denominator="n", candidates=candidates, relax=relax
    )


def _unweighted(weights):
    if weights is not None:
        raise ValueError("This metric takes no gene weights; leave genes out with `where`.")


def expression(function: Callable, *, panel: bool = False) -> Callable:
    """Rows of the noise-corrected errors."""

    def row(pred, real, *, relax, weights, where, valid):
        _unweighted(weights)
        extra = {"valid": valid} if panel else {}
        noises = _noise(pred, real.mean.shape), _noise(real, real.mean.shape)
        return function(pred.mean, real.mean, *noises, targets=real.targets, where=where, **extra)

    return row


def _noise(profiles, shape):
    return jnp.broadcast_to(profiles.total_noise(), shape[:1])


def expression_norm(pred, real, *, relax, weights, where, valid):
    """The panel's noise-corrected error over the panel's noise-corrected effect size."""
    _unweighted(weights)
    return _expression.capped_norm(
        pred.mean,
        real.mean,
        real.control,
        pred.total_noise(),
        real.total_noise(),
        real.total_control_noise(),
        targets=real.targets,
        where=where,
        valid=valid,
    )


def effect_size(pred, real, *, relax, weights, where, valid):
    """The measured side's noise-corrected effect size."""
    _unweighted(weights)
    noises = real.total_noise(), real.total_control_noise()
    return _expression.unbiased_distance(real.mean, real.control, *noises, targets=real.targets, where=where)


def mass(pred, real, *, relax, weights, where, valid):
    """The measured side's expression relative to the library size it was scaled to."""
    _unweighted(weights)
    if real.target_sum is None:
        return jnp.full(as_float_matrix(real.mean, "real").shape[0], jnp.nan)
    return _expression.mass_ratio(real.mean, real.target_sum, where=where)
