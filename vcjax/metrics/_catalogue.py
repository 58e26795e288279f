"""The table of metrics, which the reports, the losses, the command line and the law tests all read."""

import dataclasses
import functools as ft

from .._pairwise import AbstractDistance, Cosine, L1, L2
from . import _amplitude, _correlation, _error, _expression, _retrieval
from ._de_catalogue import CELL_EVAL1, CELL_EVAL2, de_metrics, ENERGY
from ._mean_reference import mean_referenced_metrics
from ._metric import Metric
from ._rows import (
    ControlSource,
    discrimination,
    effect_size,
    expression,
    expression_norm,
    mass,
    on_effects,
    on_profiles,
    rank_of_truth,
)
from ._status import correlation_status, norm_status, panel_status, weights_status
from ._target_catalogue import target_metrics
from ._weighted_catalogue import corrected_metrics, echoes_metrics, significant_metrics, top_metrics


_V1, _V2 = "cell-eval 0.8.2", "cell-eval2 0.20.0"
_error_row = ft.partial(Metric, perfect=0.0, higher_is_better=False, status=weights_status)
_score_row = ft.partial(Metric, perfect=1.0, higher_is_better=True)


def _errors() -> tuple[Metric, ...]:
    return (
        _error_row(
            name="expr_mae",
            function=on_profiles(_error.mae),
            summary="Mean absolute error of the profile.",
            formula="mean_g |x^_pg - x_pg|",
            differentiable="almost everywhere",
            source=f"{_V1} mae; {_V2} expr_mae",
            v1="mae",
            v2="expr_mae",
            notes="Rewards the mean of all perturbations; own target included.",
        ),
        _error_row(
            name="expr_mse",
            function=on_profiles(_error.mse),
            summary="Mean squared error of the profile.",
            formula="mean_g (x^_pg - x_pg)^2",
            differentiable="smooth",
            source=f"{_V1} mse; {_V2} expr_mse",
            v1="mse",
            v2="expr_mse",
            notes="Rewards the mean of all perturbations; own target included.",
        ),
        _error_row(
            name="expr_rmse",
            function=on_profiles(_error.rmse),
            summary="Root mean squared error of the profile.",
            formula="sqrt(mean_g (x^_pg - x_pg)^2)",
            differentiable="almost everywhere",
            source="PerturBench rmse",
        ),
        _error_row(
            name="expr_l2",
            function=on_profiles(_error.l2),
            summary="Euclidean distance of the profile.",
            formula="sqrt(sum_g (x^_pg - x_pg)^2)",
            differentiable="almost everywhere",
            source="Ahlmann-Eltze et al. 2025",
            status=None,
        ),
        _error_row(
            name="weighted_mse",
            function=on_profiles(_error.mse),
            summary="Mean squared error weighted towards the genes that respond (WMSE).",
            formula="sum_g w_pg (x^_pg - x_pg)^2 / sum_g w_pg",
            differentiable="smooth",
            source="Mejia et al., Diversity by Design (WMSE)",
            needs_weights=True,
            notes="Weights must not be available to training on the perturbations that are scored.",
        ),
    )


def _delta_errors(control: ControlSource) -> tuple[Metric, ...]:
    own = "" if control == "real" else " (each side from its own control)"
    same = "Equal to the expr_ form: with one control for both sides it cancels." if control == "real" else ""
    row = ft.partial(_error_row, notes=same)
    return (
        row(
            name="delta_mae",
            function=on_effects(_error.mae, control),
            summary=f"Mean absolute error of the effect{own}.",
            formula="mean_g |d^_pg - d_pg|",
            differentiable="almost everywhere",
            source=f"{_V1} mae_delta; {_V2} delta_mae",
            v1="mae_delta",
            v2="delta_mae",
        ),
        row(
            name="delta_mse",
            function=on_effects(_error.mse, control),
            summary=f"Mean squared error of the effect{own}.",
            formula="mean_g (d^_pg - d_pg)^2",
            differentiable="smooth",
            source=f"{_V1} mse_delta; {_V2} delta_mse",
            v1="mse_delta",
            v2="delta_mse",
        ),
        row(
            name="delta_rmse",
            function=on_effects(_error.rmse, control),
            summary=f"Root mean squared error of the effect{own}.",
            formula="sqrt(mean_g (d^_pg - d_pg)^2)",
            differentiable="almost everywhere",
            source="PerturBench rmse",
        ),
        row(
            name="delta_l2",
            function=on_effects(_error.l2, control),
            summary=f"Euclidean distance of the effect{own}.",
            formula="sqrt(sum_g (d^_pg - d_pg)^2)",
            differentiable="almost everywhere",
            source="Ahlmann-Eltze et al. 2025",
            status=None,
        ),
    )


def _correlations(control: ControlSource) -> tuple[Metric, ...]:
    pearson_status = ft.partial(correlation_status, control=control)
    cosine_status = ft.partial(norm_status, control=control)
    r2_status = ft.partial(correlation_status, control=control, pred_matters=False)
    return (
        _score_row(
            name="delta_pearson",
            function=on_effects(_correlation.pearson, control),
            summary="Pearson correlation of predicted and measured effect over genes.",
            formula="corr_g(d^_pg, d_pg)",
            differentiable="smooth",
            no_skill=0.0,
            worst=-1.0,
            status=pearson_status,
            source=f"{_V1} pearson_delta; {_V2} delta_pearson",
            v1="pearson_delta",
            v2="delta_pearson",
            notes="Against the control, the mean of all perturbations scores high where the response is shared.",
        ),
        _score_row(
            name="delta_cosine",
            function=on_effects(_correlation.cosine, control),
            summary="Cosine similarity of predicted and measured effect.",
            formula="<d^_p, d_p> / (|d^_p| |d_p|)",
            differentiable="smooth",
            no_skill=0.0,
            worst=-1.0,
            status=cosine_status,
            source="PerturBench cosine",
        ),
        _score_row(
            name="delta_spearman",
            function=on_effects(_correlation.spearman, control, relaxed=True),
            summary="Spearman correlation of predicted and measured effect over genes.",
            formula="corr_g(rank d^_pg, rank d_pg), mid-ranks",
            differentiable="relaxed",
            no_skill=0.0,
            worst=-1.0,
            status=pearson_status,
            source="scipy.stats.spearmanr; pertpy, PerturBench",
        ),
        _score_row(
            name="delta_r2",
            function=on_effects(_correlation.r2, control),
            summary="Coefficient of determination of the effect over genes.",
            formula="1 - sum_g (d^_pg - d_pg)^2 / sum_g (d_pg - mean_g d_pg)^2",
            differentiable="smooth",
            status=r2_status,
            source="Mejia et al., Miller et al. (r2_delta)",
            notes="Per perturbation it is 1 - MSE / variance; unbounded below.",
        ),
        _score_row(
            name="weighted_r2",
            function=on_effects(_correlation.r2, control),
            summary="Weighted coefficient of determination of the effect over genes, R2w(delta).",
            formula="1 - sum_g w_pg (d^_pg - d_pg)^2 / sum_g w_pg (d_pg - mean_w d_pg)^2",
            differentiable="smooth",
            status=r2_status,
            needs_weights=True,
            source="Mejia et al., Diversity by Design (R2w)",
            notes="Per perturbation it is 1 - WMSE / weighted variance; unbounded below.",
        ),
        _score_row(
            name="weighted_pearson",
            function=on_effects(_correlation.pearson, control),
            summary="Weighted Pearson correlation of predicted and measured effect over genes.",
            formula="corr_w(d^_pg, d_pg)",
            differentiable="smooth",
            no_skill=0.0,
            worst=-1.0,
            status=pearson_status,
            needs_weights=True,
            source="scPertEval, SBB (weighted Pearson)",
        ),
    )


def _expression_family() -> tuple[Metric, ...]:
    diagnostic = ft.partial(Metric, perfect=None, higher_is_better=None, needs_noise=True)
    return (
        Metric(
            name="expr_mse_unbiased",
            function=expression(_expression.unbiased_mse),
            summary="Mean squared error of the profile less the sampling noise of both sides.",
            formula="(|x^_p - x_p|^2 - C^_p - C_p) / G_p, own target left out of the distance",
            perfect=None,
            higher_is_better=False,
            differentiable="smooth",
            needs_noise=True,
            source=f"{_V2} expr_mse_unbiased",
            v2="expr_mse_unbiased",
            notes="About 0 for a perfect prediction sampled anew; negative if measured cells are pasted.",
        ),
        Metric(
            name="expr_mse_unbiased_capped",
            function=expression(_expression.capped_unbiased_mse, panel=True),
            summary="The same, with the predicted side's noise granted only as far as real cells and predictions vary.",
            formula="(|x^_p - x_p|^2 - rho min(C^_p, C_p) - C_p) / G_p",
            perfect=None,
            higher_is_better=False,
            differentiable="smooth",
            needs_noise=True,
            source=f"{_V2} expr_mse_unbiased_capped",
            v2="expr_mse_unbiased_capped",
            notes="rho depends on all perturbations of the panel.",
        ),
        Metric(
            name="expr_mse_unbiased_capped_norm",
            function=expression_norm,
            summary="Noise-corrected error of the panel over its noise-corrected effect size.",
            formula="sum_p capped_p / sum_p distance_p",
            perfect=None,
            no_skill=1.0,
            higher_is_better=False,
            differentiable="smooth",
            level="panel",
            needs_noise=True,
            source=f"{_V2} expr_mse_unbiased_capped_norm",
            v2="expr_mse_unbiased_capped_norm",
            notes="About 1 for the control pasted; NaN if the panel's effects are not larger than their noise.",
        ),
        diagnostic(
            name="expr_distance_unbiased",
            function=effect_size,
            summary="Squared size of the measured effect less its sampling noise.",
            formula="(|x_p - x_c|^2 - C_p - C_c) / G_p",
            differentiable="constant",
            source=f"{_V2} expr_distance_unbiased",
            v2="expr_distance_unbiased",
        ),
        diagnostic(
            name="expr_real_mass_ratio",
            function=mass,
            summary="Total measured expression over the library size it was normalised to.",
            formula="sum_g (exp(x_pg) - 1) / s",
            differentiable="constant",
            needs_noise=False,
            source=f"{_V2} expr_real_mass_ratio",
            v2="expr_real_mass_ratio",
            notes="1 for group sums; below 1 for means of log1p cells.",
        ),
    )


DISTANCES: dict[str, AbstractDistance] = {"l1": L1(), "l2": L2(), "cosine": Cosine()}
_NAMES = {"l1": "L1", "l2": "Euclidean", "cosine": "cosine"}


def _discriminations(control: ControlSource, exclude: _retrieval.Exclude, **options) -> tuple[Metric, ...]:
    below = "P-1" if options.get("denominator", "n-1") == "n-1" else "P"
    return tuple(
        _score_row(
            name=f"pds_{kind}",
            function=discrimination(distance, control, exclude=exclude, **options),
            summary=f"Perturbation discrimination by {_NAMES[kind]} distance: the share of others it is farther from.",
            formula=f"1 - #{{q: d(d^_p, d_q) < d(d^_p, d_p)}} / ({below})",
            differentiable="relaxed",
            takes_bank=True,
            no_skill=0.5 if below == "P-1" else None,
            worst=0.0 if below == "P-1" else None,
            status=panel_status if below == "P-1" else None,
            needs_targets=exclude != "none",
            source=f"{_V1} discrimination_score_{kind}; {_V2} pds_{kind}",
            v1=f"discrimination_score_{kind}",
            v2=f"pds_{kind}",
            notes=(
                "Ties count one half; scale-free." if kind == "cosine" else
                "Ties count one half; rewards inflated effects: read amplitude_ratio beside it."
            ),
        )
        for kind, distance in DISTANCES.items()
    )  # fmt: skip


def _retrievals(control: ControlSource, exclude: _retrieval.Exclude) -> tuple[Metric, ...]:
    ranked = ft.partial(discrimination, Cosine(), control, exclude=exclude)
    row = ft.partial(_score_row, differentiable="relaxed", takes_bank=True, needs_targets=exclude != "none")
    return (
        row(
            name="nir",
            function=discrimination(L2(), None),
            summary="Normalised inverse rank: discrimination of raw profiles with Euclidean distance.",
            formula="#{q: |x^_p - x_q| > |x^_p - x_p|} / (P-1)",
            no_skill=0.5,
            worst=0.0,
            status=panel_status,
            needs_targets=False,
            source="Miller et al. 2025; with all perturbations as candidates, Systema's centroid accuracy",
            notes="Ties count one half; the original lets them lose.",
        ),
        Metric(
            name="perturbench_rank",
            function=discrimination(L2(), None, score=rank_of_truth),
            summary="Rank of a prediction among all predictions, seen from the measured profile.",
            formula="#{q: |x^_q - x_p| < |x^_p - x_p|} / P",
            perfect=0.0,
            higher_is_better=False,
            differentiable="relaxed",
            status=panel_status,
            source="PerturBench rank",
            notes="Ties count one half; the original shuffles them. Chance is (P-1)/2P.",
        ),
        row(
            name="mrr",
            function=ranked(score=_retrieval.reciprocal_from_distances),
            summary="Reciprocal rank of the own perturbation by cosine distance.",
            formula="1 / (1 + #closer + #tied/2)",
            source="mean reciprocal rank",
            notes="1 with a single perturbation.",
        ),
        *(
            row(
                name=f"recall_at_{k}",
                function=ranked(score=ft.partial(_retrieval.recall_from_distances, k=k)),
                summary=f"Whether the own perturbation is among the {k} nearest by cosine distance.",
                formula=f"H({k} - 1/2 - #closer - #tied/2)",
                worst=0.0,
                source="recall@k",
                notes="1/2 if a tie stands on the boundary.",
            )
            for k in (1, 5, 10)
        ),
    )


def _amplitudes(control: ControlSource) -> tuple[Metric, ...]:
    status = ft.partial(norm_status, control=control, pred_matters=False)
    diagnostic = ft.partial(Metric, perfect=1.0, no_skill=0.0, higher_is_better=None, status=status)
    return (
        diagnostic(
            name="amplitude_ratio",
            function=on_effects(_amplitude.amplitude_ratio, control),
            summary="Size of the predicted effect over the size of the measured one.",
            formula="|d^_p| / |d_p|",
            differentiable="almost everywhere",
            source="vcjax",
            notes="Beside every scale-free score: 10 is a tenfold inflation.",
        ),
        diagnostic(
            name="amplitude_slope",
            function=on_effects(_amplitude.amplitude_slope, control),
            summary="Slope of the predicted on the measured effect.",
            formula="<d^_p, d_p> / <d_p, d_p>",
            differentiable="smooth",
            source="vcjax",
            notes="Errors at right angles to the truth do not change it.",
        ),
        diagnostic(
            name="calibration_slope",
            function=on_effects(_amplitude.calibration_slope, control),
            summary="Slope of the measured on the predicted effect.",
            formula="<d^_p, d_p> / <d^_p, d^_p>",
            differentiable="smooth",
            no_skill=None,
            status=ft.partial(norm_status, control=control),
            source="linear calibration of a prediction",
            notes="Below 1 the prediction is inflated, or noise: that factor times it has the least squared error.",
        ),
        diagnostic(
            name="spread_ratio",
            function=_spread,
            summary="How much predictions differ from each other, over how much the measured profiles do.",
            formula="sqrt(sum_p |x^_p - mean x^|^2 / sum_p |x_p - mean x|^2)",
            differentiable="almost everywhere",
            level="panel",
            status=panel_status,
            source="vcjax",
            notes="Near 0 where all predictions are alike (mode collapse). Sampling noise spreads the measured side.",
        ),
    )


def _spread(pred, real, *, relax, weights, where, valid):
    return _amplitude.spread_ratio(pred.mean, real.mean, weights=weights, where=where, valid=valid)


def metric_named(name: str) -> Metric:
    """The row of `CATALOGUE` with this name.

    **Raises:** `ValueError` for a name that is not in it.
    """
    if name not in CATALOGUE:
        raise ValueError(f"No metric is called {name!r}; see `vcjax.metrics.CATALOGUE` or `vcjax list`.")
    return CATALOGUE[name]


def _table(*families: tuple[Metric, ...]) -> dict[str, Metric]:
    return {row.name: row for family in families for row in family}


CATALOGUE: dict[str, Metric] = _table(
    _errors(),
    _delta_errors("real"),
    _correlations("real"),
    _expression_family(),
    _discriminations("real", "panel"),
    _retrievals("real", "panel"),
    _amplitudes("real"),
    target_metrics(),
    corrected_metrics(),
    top_metrics(20),
    significant_metrics(),
    mean_referenced_metrics(),
    echoes_metrics(),
    de_metrics(),
    (ENERGY,),
)
"""Every metric under this library's conventions: the measured control on both sides, ties one half, n − 1, the targets
of the whole panel left out of discrimination; NaN where a metric of differential expression has nothing to go by."""

V2: dict[str, Metric] = {row.v2: row for row in CATALOGUE.values() if row.v2 and not row.needs_de} | {
    row.name: row for row in de_metrics(CELL_EVAL2)
}
"""cell-eval2 0.20.0 (its `v2` preset), by its names."""

CELL_EVAL: dict[str, Metric] = {
    row.v1: dataclasses.replace(row, name=row.v1)
    for row in (
        *_errors(),
        *_delta_errors("pred"),
        *_correlations("pred"),
        *_discriminations("pred", "own", ties="position", denominator="n"),
        *de_metrics(CELL_EVAL1),
        ENERGY,
    )
    if row.v1
}
"""cell-eval 0.8.2, by its names: each side's own control, argsort positions over P, own target left out."""
