"""Scaled scores: 0 at the baseline, 1 at the anchor, and each challenge's rules beyond."""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide


class ScorePolicy(eqx.Module):
    r"""How the value of one metric becomes a score.

    **Fields:**

    - `higher_is_better`: the direction of the metric.
    - `anchor`: the value that scores 1 unless another (a replicate's) is given; `None` for an open-ended metric, whose
        unit is the baseline itself.
    - `signed`: an open-ended metric that may be negative, whose unit is the size of the baseline.
    - `penalty`: below the baseline, `"boxcox"` replaces $1 - r$, with $r$ the error over the baseline's, by $-(r^2 -
        1)/2$: an error three times the baseline's costs more than twice one of twice.
    - `low`, `high`: where the score is cut; `None` for no cut.
    - `missing`: what an undefined value scores: `"low"` the lower cut, `"zero"` what a raw value of 0 scores.
    - `baseline`: a baseline that belongs to the scale itself, as on the frozen one; `None` where it is measured.
    """

    higher_is_better: bool = eqx.field(static=True)
    anchor: float | None = eqx.field(static=True)
    penalty: Literal["linear", "boxcox"] = eqx.field(static=True, default="linear")
    low: float | None = eqx.field(static=True, default=None)
    high: float | None = eqx.field(static=True, default=None)
    missing: Literal["low", "zero"] = eqx.field(static=True, default="low")
    signed: bool = eqx.field(static=True, default=False)
    baseline: float | None = eqx.field(static=True, default=None)


def scaled_score(
    value: Float[ArrayLike, "*shape"],
    baseline: Float[ArrayLike, "*#shape"],
    policy: ScorePolicy,
    *,
    anchor: Float[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The score of a metric's value (normally its mean over perturbations), differentiable in the value.

    $s = (u - b)/(a - b)$ with the value $u$, the baseline's value $b$ and the anchor $a$; for an open-ended metric $(u
    - b)/b$. Then the policy's penalty, cuts and rule for undefined values.

    **Arguments:**

    - `anchor`: the value that scores 1, e.g. that of a replicate; the policy's own by default.

    **Returns:** NaN where the scale is degenerate: the baseline is not on the bad side of the anchor, or is not finite.
    The gradient is 0 where the score is cut.

    Source: cell-eval 0.8.2 `score_agg_metrics`; cell-eval2 0.20.0 `score_metrics`, scale `from_baseline` and
    `from_replicate`.
    """
    value, baseline = (jnp.asarray(x, jnp.result_type(float, value)) for x in (value, baseline))
    end = policy.anchor if anchor is None else anchor
    if end is None:
        span = jnp.abs(baseline) if policy.signed else baseline
    else:
        span = jnp.asarray(end, value.dtype) - baseline
    defined = jnp.isfinite(span) & (span > 0 if policy.higher_is_better or end is None else span < 0)
    score = lambda u: _penalised(safe_divide(u - baseline, jnp.where(defined, span, 0)), policy)
    finite = jnp.isfinite(value)
    result = score(jnp.where(finite, value, baseline))
    if policy.missing == "zero":
        lost = score(jnp.zeros_like(value))
    else:
        lost = jnp.full_like(value, jnp.nan if policy.low is None else policy.low)
    return jnp.where(defined, jnp.where(finite, result, lost), jnp.nan)


def _penalised(score, policy):
    if policy.penalty == "boxcox":
        ratio = 1 - score  # the error over the baseline's error
        score = jnp.where(score < 0, (1 - ratio * ratio) / 2, score)
    if policy.low is not None:
        score = jnp.where(score < policy.low, policy.low, score)
    if policy.high is not None:
        score = jnp.where(score > policy.high, policy.high, score)
    return score


def cell_eval_policy(perfect: float, *, clip: bool = True) -> ScorePolicy:
    """cell-eval's rule: $1 - u/b$ for an error, $(u - b)/(1 - b)$ for a score, cut at 0 and undefined values 0.

    `clip=False` leaves scores below the baseline negative, so that a bad error costs something.
    """
    low = 0.0 if clip else None
    return ScorePolicy(higher_is_better=perfect != 0, anchor=perfect, low=low)


_ERROR = ScorePolicy(higher_is_better=False, anchor=0.0, penalty="boxcox", low=-6.0)
_UNFLOORED = ScorePolicy(higher_is_better=True, anchor=1.0, missing="zero")
_BOUNDED = ScorePolicy(higher_is_better=True, anchor=1.0, low=0.0)
_OPEN = ScorePolicy(higher_is_better=True, anchor=None, low=-2.0, high=2.0)
_SIGNED = ScorePolicy(higher_is_better=True, anchor=None, low=-2.0, high=2.0, signed=True)
_DE = "de_wilcoxon_"

V2_POLICIES: Mapping[str, ScorePolicy] = {
    **dict.fromkeys(("expr_mae", "expr_mse", "delta_mae", "delta_mse"), _ERROR),
    f"{_DE}lfc_nmae": ScorePolicy(higher_is_better=False, anchor=0.0, low=-6.0),
    "expr_mse_unbiased_capped_norm": ScorePolicy(higher_is_better=False, anchor=0.0, low=0.0, high=1.0),
    **dict.fromkeys(
        ("pds_cosine", f"{_DE}direction_fidelity_yield_raw", f"{_DE}direction_reach_raw", f"{_DE}sig_jaccard"),
        _UNFLOORED,
    ),
    **dict.fromkeys(("delta_pearson", "pds_l1", "pds_l2"), _BOUNDED),
    **dict.fromkeys(
        (
            f"{_DE}{name}"
            for name in (
                *("overlap", "overlap_top50", "overlap_top100", "overlap_top200", "overlap_top500"),
                *("precision", "precision_top50", "precision_top100", "precision_top200", "precision_top500"),
                *("nsig_spearman", "sig_recall", "sig_recall_adjusted", "precision_adjusted", "sig_mcc"),
                *("overlap_adjusted", "pr_auc", "roc_auc", "direction_match", "model_direction_match"),
                *("lfc_spearman", "lfc_spearman_pos", "lfc_spearman_neg", "direction_precision"),
                *("direction_sensitivity", "direction_fidelity", "direction_fidelity_raw"),
                *("direction_fidelity_yield", "direction_reach"),
            )
        ),
        _BOUNDED,
    ),
    **dict.fromkeys(
        (
            f"{_DE}{name}"
            for name in (
                *("direction_sensitivity_universe", "direction_coverage", "direction_yield_raw"),
                *("direction_reach_unbounded", "direction_reach_unbounded_raw"),
            )
        ),
        _OPEN,
    ),
    f"{_DE}direction_yield": _SIGNED,
}
"""The policy of every scored metric of cell-eval2 0.20.0, by its name there."""


def frozen_policy(higher_is_better: bool, baseline: float, low: float, high: float) -> ScorePolicy:
    """A policy of the frozen scale, which needs no measured baseline."""
    anchor = 1.0 if higher_is_better else 0.0
    return ScorePolicy(higher_is_better, anchor, low=low, high=high, baseline=baseline)


FROZEN_SCALE: Mapping[str, ScorePolicy] = {
    "expr_mse_unbiased_capped_norm": frozen_policy(False, 1.0, -6.0, 1.0),
    f"{_DE}lfc_nmae": frozen_policy(False, 1.0, -1.0, 1.0),
    "pds_cosine": frozen_policy(True, 0.5, -1.0, 1.0),
    f"{_DE}direction_fidelity_yield_raw": frozen_policy(True, 0.5, -1.0, 1.0),
    f"{_DE}direction_reach_raw": frozen_policy(True, 0.0, 0.0, 1.0),
    f"{_DE}sig_jaccard": frozen_policy(True, 0.0, 0.0, 1.0),
}
"""cell-eval2's scale `low-random_high-1_v10` of the 2026 six: pasted real cells score 1, a random prediction 0."""
