"""Rows that measure effects from the mean of perturbations: what is left when the response they share is taken out."""

import functools as ft
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._profiles import Profiles
from ..references._means import means_of_others
from . import _amplitude, _correlation
from ._metric import Metric
from ._status import effect_status, Status


def mean_reference(real: Profiles, valid=None) -> Float[Array, "perts genes"]:
    """The mean of the training perturbations, or else of the panel's others; constant, and the row itself if alone."""
    if real.train_mean is not None:
        return lax.stop_gradient(jnp.broadcast_to(real.train_mean.astype(real.mean.dtype), real.mean.shape))
    amount = jnp.ones(real.mean.shape[0], bool) if valid is None else jnp.asarray(valid)
    others = means_of_others(real.mean, amount.astype(real.mean.dtype))
    # A perturbation without others then has no effect, which every row below knows how to leave undefined.
    return lax.stop_gradient(jnp.where(jnp.isnan(others), real.mean, others))


def _row(function: Callable) -> Callable:
    def row(pred, real, *, relax, weights, where, valid):
        reference = mean_reference(real, valid)
        return function(pred.mean, real.mean, weights=weights, where=where, reference=reference)

    return row


def _status(similarity: str, *, pred_matters: bool = True) -> Callable:
    def status(pred, real, *, weights=None, where=None):
        code = effect_status(
            *(pred, real),
            control="real",
            similarity=similarity,
            pred_matters=pred_matters,
            weights=weights,
            where=where,
            reference=mean_reference(real),
        )
        if real.train_mean is None and real.mean.shape[0] < 2:
            return jnp.where(code == Status.ZERO_WEIGHTS, code, Status.TOO_FEW_PERTS)
        return code

    return status


# Seen from the others, what the mean of all adds is the truth over P.
_LEAK = "Without a training mean, the panel's own mean, which holds a share of each truth, points exactly its way."


def mean_referenced_metrics() -> tuple[Metric, ...]:
    """Correlations, explained variance and size of the effect beyond the mean of perturbations.

    The mean is `Profiles.train_mean` of the measured side where that is given, the mean of the panel's other
    perturbations where it is not.
    """
    score = ft.partial(Metric, perfect=1.0, higher_is_better=True, differentiable="smooth")
    r2 = {
        "status": _status("pearson", pred_matters=False),
        "notes": "At most 0 for the training mean: reading the shared response off the others earns nothing. " + _LEAK,
    }
    correlation = {"worst": -1.0, "notes": "Undefined for a prediction of the training mean itself. " + _LEAK}
    return (
        score(
            name="delta_pearson_mean",
            function=_row(_correlation.pearson),
            summary="Pearson correlation of predicted and measured effect beyond the mean of perturbations.",
            formula="corr_g(x^_pg - mu_g, x_pg - mu_g)",
            status=_status("pearson"),
            source="Miller et al. (pearson_deltapert); Systema; scPertEval 0.2 (leave-one-out)",
            **correlation,
        ),
        score(
            name="delta_cosine_mean",
            function=_row(_correlation.cosine),
            summary="Cosine similarity of predicted and measured effect beyond the mean of perturbations.",
            formula="<x^_p - mu, x_p - mu> / (|x^_p - mu| |x_p - mu|)",
            status=_status("cosine"),
            source="vcjax",
            **correlation,
        ),
        score(
            name="delta_r2_mean",
            function=_row(_correlation.r2),
            summary="Coefficient of determination of the effect beyond the mean of perturbations.",
            formula="1 - sum_g (x^_pg - x_pg)^2 / var_g(x_pg - mu_g)",
            source="Miller et al. (r2_deltapert)",
            **r2,
        ),
        score(
            name="weighted_r2_mean",
            function=_row(_correlation.r2),
            summary="Weighted coefficient of determination of the effect beyond the mean of perturbations, R2w(delta).",
            formula="1 - sum_g w_pg (x^_pg - x_pg)^2 / sum_g w_pg (D_pg - mean_w D_pg)^2, D = x - mu",
            needs_weights=True,
            source="Mejia et al., Diversity by Design; Miller et al. (weighted_r2_deltapert)",
            **r2,
        ),
        Metric(
            name="amplitude_ratio_mean",
            function=_row(_amplitude.amplitude_ratio),
            summary="Size of the predicted effect beyond the mean of perturbations over that of the measured one.",
            formula="|x^_p - mu| / |x_p - mu|",
            perfect=1.0,
            higher_is_better=None,
            differentiable="almost everywhere",
            status=_status("cosine", pred_matters=False),
            source="vcjax",
            notes="Near 0 where all predictions are alike (mode collapse); above 1 where they differ too much.",
        ),
        Metric(
            name="calibration_slope_mean",
            function=_row(_amplitude.calibration_slope),
            summary="Slope of the measured on the predicted effect beyond the mean of perturbations.",
            formula="<x^_p - mu, x_p - mu> / |x^_p - mu|^2",
            perfect=1.0,
            higher_is_better=None,
            differentiable="smooth",
            status=_status("cosine"),
            source="linear calibration of a prediction",
            notes="Below 1 what tells perturbations apart is inflated, or noise. Undefined for the mean itself.",
        ),
    )
