"""The rows of the catalogue that compare differential expression, under the conventions of three packages."""

import dataclasses
import functools as ft
import math
from collections.abc import Callable
from typing import Any

from . import _de_direction as direction, _de_reach as reach, _de_reasons as why, _de_rows as rows, _de_sets as sets
from ._de_fold_change import fold_change_error, fold_change_spearman, Sign, Unknown
from ._de_overlap import Ties, top_matthews, top_overlap, top_precision
from ._de_ranking import average_precision, Floor, roc_auc
from ._metric import Differentiable, Metric


_V1, _V2 = "cell-eval 0.8.2", "cell-eval2 0.20.0"
_TOPS = (None, 50, 100, 200, 500)
_ENOUGH = (why.NO_SIGNIFICANT, why.FEW_SIGNIFICANT)
_TWO_CLASSES = (*_ENOUGH, why.ALL_MEASURED)


@dataclasses.dataclass(frozen=True)
class Conventions:
    """What packages disagree on.

    - `prefix`: of the rows' names; `ties`: at the ends of ranked lists; `floor`: of predicted p-values in rankings.
    - `gated`: whether a perturbation counts only if the measured side has enough genes, and a prediction without a
        value then gets the worst one.
    - `undefined`: chance-corrected agreement with an empty or full set.
    - `nobody`: the correlation of counts where no perturbation has a measured significant gene.
    - `unknown`: what a predicted fold change of NaN is to a rank correlation.
    - `single`: whether tables are rounded to float32.
    """

    prefix: str = "de_"
    ties: Ties = "share"
    floor: Floor = "none"
    gated: bool = False
    undefined: float = math.nan
    nobody: float = math.nan
    unknown: Unknown = "undefined"
    single: bool = False


OURS = Conventions()
CELL_EVAL2 = Conventions(
    "de_wilcoxon_",
    ties="position",
    floor="min_nonzero",
    gated=True,
    undefined=-1.0,
    nobody=1.0,
    unknown="largest",
)
CELL_EVAL1 = Conventions(ties="position", floor="clip", nobody=1.0, unknown="largest", single=True)


def _row(
    conventions: Conventions,
    suffix: str,
    function: Callable,
    summary: str,
    formula: str,
    *,
    reasons: tuple[why.Reason, ...] = (),
    gate: tuple[why.Reason, ...] = (),
    charged: float | None = None,
    relaxed: bool = True,
    targets: bool = False,
    valid: bool = False,
    perfect: float | None = 1.0,
    higher_is_better: bool | None = True,
    no_skill: float | None = None,
    worst: float | None = None,
    differentiable: Differentiable = "relaxed",
    v1: str | None = None,
    notes: str = "",
    **options,
) -> Metric:
    """One row: undefined for `reasons`, or under conventions with gates for those of its `gate`.

    `charged` is what a prediction without a value gets inside the gate.
    """
    gated, single = conventions.gated and len(gate) > 0, conventions.single
    read = rows.on_tables(
        function,
        relaxed=relaxed,
        targets=targets,
        valid=valid,
        single=single,
        gate=gate if gated else (),
        charged=charged if gated else None,
        **options,
    )
    reasons = gate if gated else reasons
    status = rows.de_status(reasons, targets=targets, single=single) if reasons else None
    return Metric(
        name=conventions.prefix + suffix,
        function=read,
        summary=summary,
        formula=formula,
        perfect=perfect,
        higher_is_better=higher_is_better,
        differentiable=differentiable,
        source=f"{_V2} de_wilcoxon_{suffix}" + (f"; {_V1} {v1}" if v1 else ""),
        no_skill=no_skill,
        worst=worst,
        level="panel" if suffix == "nsig_spearman" else "perturbation",
        status=status,
        needs_targets=targets,
        needs_de=True,
        v1=v1,
        v2=f"de_wilcoxon_{suffix}",
        notes=notes,
    )


def _lists(conventions: Conventions) -> tuple[Metric, ...]:
    row = ft.partial(_row, conventions, ties=conventions.ties, worst=0.0)
    name = lambda k: "" if k is None else f"_top{k}"
    v1 = lambda k: "N" if k is None else k
    tied = "Ties in the order of the genes." if conventions.ties == "position" else "Genes tied at the end share it."
    return (
        *(
            row(
                f"overlap{name(k)}",
                top_overlap,
                "Overlap of the tops of both lists of significant genes, as long as the measured list"
                + ("." if k is None else f" and at most {k}."),
                "|R_k' n R^_k'| / k', k' = |S|" if k is None else f"|R_k' n R^_k'| / k', k' = min({k}, |S|)",
                k=k,
                v1=f"overlap_at_{v1(k)}",
                notes=f"{tied} 0 where the measured side has no significant gene.",
            )
            for k in _TOPS
        ),
        *(
            row(
                f"precision{name(k)}",
                top_precision,
                "Overlap of the tops of both lists of significant genes, as long as the predicted list"
                + ("." if k is None else f" and at most {k}."),
                "|R_k' n R^_k'| / k', k' = |S^|" if k is None else f"|R_k' n R^_k'| / k', k' = min({k}, |S^|)",
                k=k,
                v1=f"precision_at_{v1(k)}",
                notes=f"{tied} Not the precision of the set: the measured list is cut at k', too.",
            )
            for k in _TOPS
        ),
        _row(
            conventions,
            "overlap_adjusted",
            top_matthews,
            "Overlap of the tops corrected for chance: Matthews' correlation.",
            "mcc(S, R^_|S|)",
            ties=conventions.ties,
            undefined=conventions.undefined,
            reasons=(why.NO_SIGNIFICANT, why.NO_CALLS, why.ALL_SIGNIFICANT),
            gate=_TWO_CLASSES,
            no_skill=0.0,
            worst=-1.0,
        ),
    )


def _sets(conventions: Conventions) -> tuple[Metric, ...]:
    row = ft.partial(_row, conventions)
    chance: dict[str, Any] = {"undefined": conventions.undefined, "no_skill": 0.0, "worst": -1.0}
    return (
        row(
            "sig_recall",
            sets.significant_recall,
            "The share of the measured significant genes that the prediction calls.",
            "|S n S^| / |S|",
            reasons=(why.NO_SIGNIFICANT,),
            gate=_ENOUGH,
            worst=0.0,
            v1="de_sig_genes_recall",
            notes="Calling every gene gets 1.",
        ),
        row(
            "sig_recall_adjusted",
            sets.significant_informedness,
            "Recall of the significant genes less the share of false calls (informedness).",
            "|S n S^|/|S| - |S^ - S|/(U - |S|)",
            reasons=(why.NO_SIGNIFICANT, why.ALL_SIGNIFICANT),
            gate=_TWO_CLASSES,
            **chance,
        ),
        row(
            "precision_adjusted",
            sets.significant_markedness,
            "Precision of the calls less the share of missed genes among the others (markedness).",
            "|S n S^|/|S^| - |S - S^|/(U - |S^|)",
            reasons=() if conventions.undefined == -1 else (why.NO_CALLS, why.ALL_CALLED),
            **chance,
        ),
        row(
            "sig_mcc",
            sets.significant_matthews,
            "Matthews' correlation of the significant sets.",
            "(tU - ab) / sqrt(ab(U-a)(U-b)), t = |S n S^|, a = |S|, b = |S^|",
            reasons=(why.NO_SIGNIFICANT, why.NO_CALLS, why.ALL_SIGNIFICANT, why.ALL_CALLED),
            gate=_TWO_CLASSES,
            **chance,
        ),
        row(
            "sig_jaccard",
            sets.significant_jaccard,
            "Jaccard index of the significant sets, without the own target.",
            "|S n S^| / |S u S^|",
            targets=True,
            worst=0.0,
            notes="1 where both sets are empty.",
        ),
        row(
            "nsig_spearman",
            sets.significant_count_spearman,
            "Spearman correlation, over perturbations, of the numbers of significant genes.",
            "spearman_p(|S_p|, |S^_p|), where |S_p| > 0",
            valid=True,
            nobody=conventions.nobody,
            reasons=(
                *(() if conventions.nobody == 1 else (why.NOBODY,)),
                why.ONE_PERT,
                why.EQUAL_COUNTS,
                why.EQUAL_CALLS,
            ),
            gate=(why.NOBODY, why.FEW_PERTS, why.EQUAL_COUNTS),
            charged=-1.0,
            no_skill=0.0,
            worst=-1.0,
            v1="de_spearman_sig",
        ),
        *(
            row(
                f"nsig_counts_{side}",
                rows.count_of(side),
                f"The number of significant genes on the {kind} side.",
                formula,
                perfect=None,
                higher_is_better=None,
                differentiable="relaxed" if side == "pred" else "constant",
                v1=f"de_nsig_counts_{side}",
            )
            for side, kind, formula in (("real", "measured", "|S|"), ("pred", "predicted", "|S^|"))
        ),
    )


def _rankings(conventions: Conventions) -> tuple[Metric, ...]:
    row = ft.partial(
        _row,
        conventions,
        valid=True,
        floor=conventions.floor,
        reasons=(why.ONE_LABEL,),
        gate=_TWO_CLASSES,
        worst=0.0,
        notes="Labels from the measured table, order from the predicted adjusted p-values.",
    )
    return (
        row(
            "pr_auc",
            average_precision,
            "Average precision of the predicted p-values for the measured significant genes.",
            "mean_{i in S} #{j in S: q^_j <= q^_i} / #{j: q^_j <= q^_i}",
            v1="pr_auc",
        ),
        row(
            "roc_auc",
            roc_auc,
            "How often a measured significant gene has the smaller predicted p-value.",
            "mean_{i in S, j not in S} H(q^_j - q^_i)",
            no_skill=0.5,
            v1="roc_auc",
        ),
    )


def _fold_changes(conventions: Conventions) -> tuple[Metric, ...]:
    signs: tuple[tuple[Sign, str, str], ...] = (
        ("any", "", "the measured significant genes"),
        ("up", "_pos", "the significant genes that go up"),
        ("down", "_neg", "the significant genes that go down"),
    )
    return (
        *(
            _row(
                conventions,
                f"lfc_spearman{suffix}",
                fold_change_spearman,
                f"Spearman correlation of the log fold changes over {genes}.",
                f"spearman_g(f^, f), g in S{', f > 0' * (sign == 'up')}{', f < 0' * (sign == 'down')}",
                sign=sign,
                unknown=conventions.unknown,
                reasons=why.ranking_reasons(sign, conventions.unknown),
                gate=why.ranking_gate(sign),
                charged=-1.0,
                no_skill=0.0,
                worst=-1.0,
                v1="de_spearman_lfc_sig" if sign == "any" else None,
                notes="Reads no predicted p-value.",
            )
            for sign, suffix, genes in signs
        ),
        _row(
            conventions,
            "lfc_nmae",
            fold_change_error,
            "Absolute error of the log fold changes of the measured significant genes, relative to their size.",
            "sum_S |f^ - f| / sum_S |f|",
            relaxed=False,
            targets=True,
            perfect=0.0,
            higher_is_better=False,
            no_skill=1.0,
            differentiable="almost everywhere",
            reasons=(why.FEW_MEASURABLE, why.NO_CHANGE),
            notes="At least ten such genes with a finite fold change, without the own target; 1 for no effect.",
        ),
    )


def _directions(conventions: Conventions) -> tuple[Metric, ...]:
    row = ft.partial(_row, conventions)
    own = ft.partial(row, targets=True)
    adjusted = ft.partial(own, reasons=(why.NO_SIGNIFICANT, why.NO_DIRECTION))
    plain = ft.partial(own, reasons=(why.NO_SIGNIFICANT,))
    unbounded: dict = {"perfect": None, "notes": "Above 1 for a prediction that calls more than there is."}
    return (
        row(
            "direction_match",
            direction.direction_match,
            "The share of the measured significant genes that are predicted to go the right way.",
            "mean_{g in S} [sign f^ = sign f]",
            reasons=(why.NO_SIGNIFICANT, why.NOT_SHARED),
            gate=_ENOUGH,
            charged=0.0,
            worst=0.0,
            v1="de_direction_match",
            notes="Reads no predicted p-value.",
        ),
        row(
            "model_direction_match",
            direction.model_direction_match,
            "The share of the predicted calls that go the right way.",
            "mean_{g in S^} [sign f^ = sign f]",
            reasons=(why.NO_SHARED_CALLS,),
            gate=(why.FEW_CHANGES,),
            charged=0.0,
            worst=0.0,
        ),
        row(
            "direction_precision",
            direction.direction_precision,
            "The share of the predicted calls with a measured direction that go that way.",
            "k/n",
            reasons=(why.NOTHING_JUDGED,),
            gate=(why.FEW_DIRECTIONS,),
            charged=0.0,
            worst=0.0,
        ),
        own(
            "direction_fidelity_raw",
            direction.direction_precision,
            "The share of the predicted calls with a measured direction that go that way, without the own target.",
            "k/n",
            reasons=(why.NOTHING_JUDGED,),
            worst=0.0,
        ),
        own(
            "direction_fidelity",
            direction.direction_fidelity,
            "The share of right directions among the calls, above that of the majority sign.",
            "(k/n - q) / max(1 - q, 0.05)",
            reasons=(why.NO_DIRECTION, why.SILENT),
            notes="At most (1 - q)/max(1 - q, 0.05): below 1 where more than 95 % have one sign.",
            perfect=None,
        ),
        plain(
            "direction_coverage",
            direction.direction_coverage,
            "Predicted calls with a measured direction over measured significant genes.",
            "n/N",
            worst=0.0,
            **unbounded,
        ),
        plain(
            "direction_yield_raw",
            direction.direction_yield,
            "Predicted calls that go the right way over measured significant genes.",
            "k/N",
            above_majority=False,
            worst=0.0,
            **unbounded,
        ),
        adjusted(
            "direction_yield",
            direction.direction_yield,
            "Right calls above those of the majority sign, over measured significant genes.",
            "(k - qn) / (N max(1 - q, 0.05))",
            **unbounded,
        ),
        own(
            "direction_fidelity_yield_raw",
            direction.direction_fidelity_yield,
            "Calls that go the right way over the calls or the measured significant genes, whichever are more.",
            "k / max(n, N)",
            above_majority=False,
            reasons=(why.NO_GENES,),
            worst=0.0,
        ),
        own(
            "direction_fidelity_yield",
            direction.direction_fidelity_yield,
            "Direction above the majority sign, brought down where fewer genes are called than there are.",
            "min(1, n/N) (k/n - q) / max(1 - q, 0.05)",
            reasons=(why.NO_DIRECTION,),
            notes="At most (1 - q)/max(1 - q, 0.05): below 1 where more than 95 % have one sign.",
            perfect=None,
        ),
        *_reaches(conventions),
    )


def _reaches(conventions: Conventions) -> tuple[Metric, ...]:
    row = ft.partial(_row, conventions, worst=0.0)
    own = ft.partial(row, targets=True)
    majority = "q + 0.95 (1 - q)"
    pools: tuple[tuple[str, reach.Pool, str], ...] = (
        ("", "significant", "of the measured significant genes"),
        ("_unbounded", "shared", "of all genes"),
    )
    for_pool: Callable[[str], dict[str, Any]] = lambda pool: {} if pool == "significant" else {"perfect": None}
    return (
        *(
            row(
                f"direction_sensitivity{suffix}",
                reach.direction_sensitivity,
                f"How deep the prediction's list {genes} stays 97.5 % right in direction.",
                "k*(0.975) / |S|",
                pool=pool,
                reasons=(why.NO_SIGNIFICANT,),
                gate=_ENOUGH,
                **for_pool(pool),
            )
            for suffix, pool, genes in (("", *pools[0][1:]), ("_universe", *pools[1][1:]))
        ),
        *(
            own(
                f"direction_reach{suffix}",
                reach.direction_reach,
                f"How deep the prediction's list {genes} beats the majority sign.",
                f"k*({majority}) / N",
                pool=pool,
                reasons=(why.NO_SIGNIFICANT, why.NO_DIRECTION),
                **for_pool(pool),
            )
            for suffix, pool, genes in pools
        ),
        *(
            own(
                f"direction_reach{suffix}_raw",
                reach.direction_reach,
                f"How deep the prediction's list {genes} stays 90 % right in direction.",
                "k*(0.9) / N",
                pool=pool,
                purity=0.9,
                reasons=(why.NO_SIGNIFICANT,),
                **for_pool(pool),
            )
            for suffix, pool, genes in pools
        ),
    )


def de_metrics(conventions: Conventions = OURS) -> tuple[Metric, ...]:
    """All 41 rows."""
    families = _lists, _sets, _rankings, _fold_changes, _directions
    return tuple(row for family in families for row in family(conventions))


ENERGY = Metric(
    name="pearson_energy",
    function=rows.energy,
    summary="Correlation, over perturbations, of the energy distances of their cells from the control cells.",
    formula="corr_p(E^_p, E_p)",
    perfect=1.0,
    higher_is_better=True,
    differentiable="smooth",
    source=f"{_V1} pearson_edistance",
    no_skill=0.0,
    worst=-1.0,
    level="panel",
    status=rows.energy_status,
    needs_energy=True,
    v1="pearson_edistance",
    notes="About the size of effects, not their direction.",
)
