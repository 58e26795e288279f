"""The rows that choose genes by the truth, correct for its noise, or compose."""

import functools as ft

import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Real

from . import _correlation, _error, _weighted_rows as rows
from ._metric import Metric


_score = ft.partial(Metric, perfect=1.0, higher_is_better=True, differentiable="smooth")
_correlation_row = ft.partial(_score, no_skill=0.0, worst=-1.0)
_error_row = ft.partial(Metric, perfect=0.0, higher_is_better=False, differentiable="smooth")


def corrected_metrics() -> tuple[Metric, ...]:
    """Errors and correlations without the sampling noise of the measured side."""
    row = ft.partial(
        Metric, perfect=None, no_skill=0.0, higher_is_better=True, differentiable="smooth", needs_noise=True
    )
    notes = "About 1 for a perfect model, beyond it by chance or for the measured cells pasted."
    pearson = {
        "function": rows.disattenuated(_correlation.pearson, centred=True),
        "status": rows.disattenuated_status(similarity="pearson"),
        "source": "Spearman 1904; vcjax",
        "notes": notes,
    }
    return (
        Metric(
            name="weighted_mse_unbiased",
            function=rows.noise_corrected,
            summary="Weighted mean squared error of the profile less the measured side's noise floor.",
            formula="sum_g w_pg ((x^_pg - x_pg)^2 - s2_pg / n_p) / sum_g w_pg",
            perfect=None,
            higher_is_better=False,
            differentiable="smooth",
            status=rows.weights_status,
            needs_noise=True,
            needs_weights=True,
            source="vcjax",
            notes="About 0 for a perfect model; negative if measured cells are pasted, or make the weights.",
        ),
        row(
            name="delta_pearson_disattenuated",
            summary="Pearson correlation of the effects over the root of the measured effect's reliability.",
            formula="corr_g(d^_pg, d_pg) / sqrt(1 - noise_p / var_g d_pg)",
            **pearson,
        ),
        row(
            name="weighted_pearson_disattenuated",
            summary="Weighted Pearson correlation of the effects over the root of the measured effect's reliability.",
            formula="corr_w(d^_pg, d_pg) / sqrt(1 - noise_w / var_w d_pg)",
            needs_weights=True,
            **pearson,
        ),
        row(
            name="delta_cosine_disattenuated",
            function=rows.disattenuated(_correlation.cosine, centred=False),
            summary="Cosine similarity of the effects over the root of the measured effect's reliability.",
            formula="<d^_p, d_p> / (|d^_p| sqrt(|d_p|^2 - noise_p))",
            status=rows.disattenuated_status(similarity="cosine"),
            source="vcjax",
            notes=notes,
        ),
    )


def top_metrics(k: int) -> tuple[Metric, ...]:
    """Errors and correlations over the k genes of largest measured effect."""
    chosen = rows.largest_effects(k)
    status = ft.partial(rows.chosen_status, chosen)
    among = f"over the {k} genes of largest measured effect"
    notes = "The genes are chosen by the measured side, noise included: it flatters large noise. Ties share a place."
    return (
        _error_row(
            name=f"expr_mse_top{k}",
            function=rows.on_chosen(_error.mse, chosen, effects=False),
            summary=f"Mean squared error {among}.",
            formula=f"mean_(g in top {k} of |d_pg|) (x^_pg - x_pg)^2",
            status=status(effects=False),
            source="Systema (top 20); scPertEval 0.2 (by |t|)",
            notes=notes,
        ),
        _correlation_row(
            name=f"delta_pearson_top{k}",
            function=rows.on_chosen(_correlation.pearson, chosen, effects=True),
            summary=f"Pearson correlation of the effects {among}.",
            formula=f"corr_(g in top {k} of |d_pg|)(d^_pg, d_pg)",
            status=status(effects=True),
            source="Systema (top 20)",
            notes=notes,
        ),
        _score(
            name=f"delta_r2_top{k}",
            function=rows.on_chosen(_correlation.r2, chosen, effects=True),
            summary=f"Coefficient of determination of the effect {among}.",
            formula=f"delta_r2 over the top {k} of |d_pg|",
            status=status(effects=True, pred_matters=False),
            source="vcjax",
            notes=notes,
        ),
    )


def significant_metrics() -> tuple[Metric, ...]:
    """Errors and correlations over the genes that are significant on the measured side."""
    least = rows.LEAST
    some, three = rows.significant_genes(1), rows.significant_genes(least)
    status = ft.partial(rows.chosen_status, significant=True)
    error, correlation, score = (ft.partial(row, needs_real_de=True) for row in (_error_row, _correlation_row, _score))
    among = "over the measured side's significant genes"
    notes = "Reads the table of the measured side only; the larger the screen, the more genes."
    few = f"{notes} At least {least} genes."
    return (
        error(
            name="expr_mse_degs",
            function=rows.on_chosen(_error.mse, some, effects=False),
            summary=f"Mean squared error {among}.",
            formula="mean_(g: q_pg < .05) (x^_pg - x_pg)^2",
            status=status(some, effects=False),
            source="Mejia et al., Miller et al. (mse_degs)",
            notes=notes,
        ),
        correlation(
            name="delta_pearson_degs",
            function=rows.on_chosen(_correlation.pearson, three, effects=True),
            summary=f"Pearson correlation of the effects {among}.",
            formula="corr_(g: q_pg < .05)(d^_pg, d_pg)",
            status=status(three, effects=True),
            source="Mejia et al., Miller et al. (pearson_deltactrl_degs)",
            notes=few,
        ),
        score(
            name="delta_r2_degs",
            function=rows.on_chosen(_correlation.r2, three, effects=True),
            summary=f"Coefficient of determination of the effect {among}.",
            formula="delta_r2 over {g: q_pg < .05}",
            status=status(three, effects=True, pred_matters=False),
            source="Miller et al. (r2_deltactrl_degs)",
            notes=few,
        ),
    )


def echoes_metrics(baseline: Real[ArrayLike, " genes"] | None = None, *, average: bool = True) -> tuple[Metric, Metric]:
    """The rows `echoes_term` (one value a perturbation) and `echoes` (the panel).

    **Arguments:**

    - `baseline`: the profile that scores 0, normally the mean of the training perturbations; by default that of the
        measured profiles (`train_mean`), and where they have none the mean of the panel's other perturbations, so that
        a panel can be scored without training data.
    - `average`: the mean of the terms; the challenge's sum grows with the number of perturbations.
    """
    profile = None if baseline is None else lax.stop_gradient(jnp.asarray(baseline))
    amount = "Mean" if average else "Sum of the"
    which = "the mean of the other perturbations" if baseline is None else "the baseline"
    row = ft.partial(
        Metric,
        higher_is_better=True,
        differentiable="almost everywhere",
        needs_weights=True,
        status=rows.echoes_status(alone=baseline is None),
        source="Echoes of Silenced Genes (Myllia, Kaggle 2026)",
    )
    return (
        row(
            name="echoes_term",
            function=rows.echoes_term(profile),
            summary=f"How often the weighted absolute error of {which} is halved, 5 at most.",
            formula="min(5, log2(wmae(baseline) / wmae(x^_p)))",
            perfect=5.0,
            notes="0 for the baseline; unbounded below.",
        ),
        row(
            name="echoes",
            function=rows.echoes_panel(profile, average=average),
            summary=f"{amount} halvings of the baseline's weighted absolute error, times a gated cosine of effects.",
            formula="mean_p term_p max(0, cos_W(d^, d))" if average else "sum_p term_p max(0, cos_W(d^, d))",
            perfect=5.0 if average else None,
            no_skill=0.0,
            level="panel",
            notes="The challenge sums the terms: multiply by P. Negative terms pay for a cosine of 0.",
        ),
    )
