"""The rows of the catalogue about target genes, and those that leave them out."""

import functools as ft
from collections.abc import Callable

import jax.numpy as jnp

from .._stats import effect
from . import _correlation, _error, _target
from ._metric import Metric
from ._rows import _unweighted, ControlSource, on_effects, on_profiles
from ._status import correlation_status, Status, weights_status


_EXPRESSED = 5e-6  # of the library size: five counts per million


def on_targets(
    function: Callable, control: ControlSource, *, relaxed: bool = False, efficiency: bool = False
) -> Callable:
    """Rows about the target gene of each perturbation.

    **Arguments:**

    - `relaxed`: whether the function takes `relax` (and `valid`, for the temperature).
    - `efficiency`: whether it is about expression before the logarithm, and needs the target to be expressed.
    """

    def row(pred, real, *, relax, weights, where, valid):
        _unweighted(weights)
        extra = {"relax": relax, "valid": valid} if relaxed else {}
        if efficiency and real.target_sum is not None:
            extra["min_expression"] = _EXPRESSED * real.target_sum
        return function(
            pred.mean,
            real.mean,
            real.targets,
            reference=real.control,
            pred_reference=real.control if control == "real" else pred.control,
            where=where,
            **extra,
        )

    return row


def without_own_target(function: Callable) -> Callable:
    """A row, or its status, over all genes but each perturbation's own target."""

    def row(pred, real, *, where=None, **options):
        kept = _target.without_targets(real.targets, real.mean.shape[1])
        if where is not None:
            kept = kept & jnp.atleast_2d(jnp.asarray(where))
        return function(pred, real, where=kept, **options)

    return row


def target_status(pred, real, *, weights=None, where=None, efficiency: bool = False, change: bool = False):
    """No gene counts where there is no measured target (or, for an efficiency, none that the control expresses)."""
    genes = _target.without_targets(real.targets, real.mean.shape[1])
    target = ~genes if where is None else ~genes & jnp.atleast_2d(jnp.asarray(where))
    if efficiency:
        floor = 0.0 if real.target_sum is None else _EXPRESSED * real.target_sum
        target = target & (jnp.expm1(real.control) > floor)[None, :]
    still = jnp.any(target & (effect(real.mean, real.control) == 0), axis=1) & change
    code = jnp.where(still, Status.ZERO_TRUTH, Status.OK)
    return jnp.where(jnp.any(target, axis=1), code, Status.NO_TARGET)


def target_metrics(control: ControlSource = "real") -> tuple[Metric, ...]:
    """The rows, with effects of the prediction measured from the measured control or from its own."""
    row = ft.partial(Metric, needs_targets=True)
    error = ft.partial(row, perfect=0.0, higher_is_better=False, source="vcjax")
    pearson_status = ft.partial(correlation_status, control=control)
    return (
        error(
            name="target_knockdown_error",
            function=on_targets(_target.knockdown_error, control, efficiency=True),
            summary="Absolute error of the knock-down efficiency of the target gene.",
            formula="|eta^_p - eta_p|, eta_p = 1 - (exp(x_pt) - 1) / (exp(c_t) - 1)",
            differentiable="almost everywhere",
            status=ft.partial(target_status, efficiency=True),
            notes="Only targets that the control expresses: above 5 counts per million, if the library size is known.",
        ),
        error(
            name="target_error",
            function=on_targets(_target.target_error, control),
            summary="Absolute error of the effect at the target gene alone.",
            formula="|d^_pt - d_pt|",
            differentiable="almost everywhere",
            status=target_status,
        ),
        row(
            name="target_sign",
            function=on_targets(_target.target_sign, control, relaxed=True),
            summary="Whether the target gene is predicted to change in the direction in which it does.",
            formula="H(d^_pt sign(d_pt))",
            perfect=1.0,
            worst=0.0,
            higher_is_better=True,
            differentiable="relaxed",
            status=ft.partial(target_status, change=True),
            source="vcjax",
            notes="No predicted change counts one half; lowering every target is always right for knock-downs.",
        ),
        error(
            name="expr_mse_without_target",
            function=without_own_target(on_profiles(_error.mse)),
            summary="Mean squared error of the profile over all genes but the perturbation's own target.",
            formula="mean_(g != t_p) (x^_pg - x_pg)^2",
            differentiable="smooth",
            status=without_own_target(weights_status),
            notes="Equal to expr_mse where the target is not measured.",
        ),
        row(
            name="delta_pearson_without_target",
            function=without_own_target(on_effects(_correlation.pearson, control)),
            summary="Pearson correlation of predicted and measured effect over all genes but the own target.",
            formula="corr_(g != t_p)(d^_pg, d_pg)",
            perfect=1.0,
            no_skill=0.0,
            worst=-1.0,
            higher_is_better=True,
            differentiable="smooth",
            status=without_own_target(pearson_status),
            source="vcjax",
            notes="How much of delta_pearson is the knock-down itself shows in the difference of the two.",
        ),
    )
