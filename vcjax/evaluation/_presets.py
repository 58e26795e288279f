"""Presets: whose conventions an evaluation follows, and the sets of metrics those tools call profiles."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ..io import CELL_EVAL2_DE, CELL_EVAL_DE, DESettings, VCC2025_DE
from ..metrics import CATALOGUE, CELL_EVAL, Metric, V2
from ..weights import CALIBRATED, ECHOES, WeightRecipe
from ._weighting import WeightsFrom


Layout = Literal["wide", "long"]
Statistics = Literal["describe", "finite"]

_DE_K = ("", "_top50", "_top100", "_top200", "_top500")
_V2_DE = tuple(
    f"de_wilcoxon_{name}"
    for name in (
        *(f"overlap{k}" for k in _DE_K),
        *(f"precision{k}" for k in _DE_K),
        *("nsig_counts_real", "nsig_counts_pred", "nsig_spearman", "sig_recall"),
        *("direction_match", "model_direction_match", "lfc_spearman", "lfc_spearman_pos", "lfc_spearman_neg"),
        *("lfc_nmae", "pr_auc", "roc_auc", "overlap_adjusted", "precision_adjusted", "sig_recall_adjusted", "sig_mcc"),
        *("direction_precision", "direction_sensitivity", "direction_sensitivity_universe", "direction_fidelity"),
        *("direction_fidelity_raw", "direction_coverage", "direction_yield", "direction_yield_raw"),
        *("direction_fidelity_yield", "direction_fidelity_yield_raw", "direction_reach", "direction_reach_raw"),
        *("direction_reach_unbounded", "direction_reach_unbounded_raw", "sig_jaccard"),
    )
)
_V2_PROFILES = (
    *("expr_mae", "pds_l1", "pds_l2", "pds_cosine", "delta_pearson", "expr_mse", "expr_mse_unbiased"),
    *("expr_mse_unbiased_capped", "expr_distance_unbiased", "expr_real_mass_ratio"),
    *("expr_mse_unbiased_capped_norm", "delta_mse", "delta_mae"),
)
_V2_COUNTS = ("de_wilcoxon_nsig_counts_real", "de_wilcoxon_nsig_counts_pred")
_V2_2026 = (
    *("pds_cosine", "expr_mse_unbiased", "expr_mse_unbiased_capped", "expr_distance_unbiased"),
    *("expr_real_mass_ratio", "expr_mse_unbiased_capped_norm", "de_wilcoxon_lfc_nmae"),
    *("de_wilcoxon_direction_fidelity_yield_raw", "de_wilcoxon_direction_reach_raw", "de_wilcoxon_sig_jaccard"),
)

_V1_K = ("N", "50", "100", "200", "500")
_V1_DE = (
    *(f"overlap_at_{k}" for k in _V1_K),
    *(f"precision_at_{k}" for k in _V1_K),
    *("de_spearman_sig", "de_direction_match", "de_spearman_lfc_sig", "de_sig_genes_recall"),
    *("de_nsig_counts_real", "de_nsig_counts_pred", "pr_auc", "roc_auc"),
)
_V1_PROFILES = (
    *("pearson_delta", "mse", "mae", "mse_delta", "mae_delta"),
    *("discrimination_score_l1", "discrimination_score_l2", "discrimination_score_cosine"),
)
_V1_CELLS = ("pearson_edistance", "clustering_agreement")
_V1_VCC = ("mae", "discrimination_score_l1", "overlap_at_N")
_V1_MINIMAL = (
    *("pearson_delta", "mse", "mae", "discrimination_score_l1"),
    *("overlap_at_N", "precision_at_N", "de_nsig_counts_real", "de_nsig_counts_pred"),
)


@dataclasses.dataclass(frozen=True)
class Preset:
    """The conventions of one evaluation tool: they change the numbers, not only the names.

    **Fields:**

    - `source`: the package and version whose numbers are reproduced.
    - `space`: `auto` compares pseudobulks of counts where both sides are counts and means of log-normalised cells
        otherwise; `lognorm` always compares the latter.
    - `bulk_target_sum`: the library size that a pseudobulk of counts is scaled to.
    - `target_sum`: the library size that cells given as counts are scaled to before `log1p`, and that log-normalised
        cells are taken to have been scaled to; `None` for the median total of that side's cells.
    - `control_source`: whether effects of the prediction are measured from the real or from its own control.
    - `de`: how tables of differential expression are made.
    - `metrics`: the rows this release computes; `profiles`: the members of every named set, computed here or not;
        `default`: the set that is computed if none is named.
    - `left_out`: members that are omitted with a note instead of refusing the profile, each with the reason.
    - `layout`: the default shape of the files; `statistics`: how aggregates treat undefined values, see `Aggregate`.
    - `ratios`: panel metrics that are a ratio of sums over perturbations.
    - `float32_profiles`: profiles are rounded to float32, as a tool keeps them whose cells are float32.
    - `absent`: the statuses for which the tool has no row, instead of an undefined value.
    - `rank_options`: how discrimination scores are built, for a caller who excludes other targets than the preset does.
    - `weights`, `weights_from`: the gene weights of metrics that need them, and what they are made of.
    """

    name: str
    source: str
    summary: str
    space: Literal["auto", "lognorm"]
    bulk_target_sum: float
    target_sum: float | None
    control_source: Literal["real", "pred"]
    de: DESettings
    metrics: Mapping[str, Metric]
    profiles: Mapping[str, tuple[str, ...]]
    default: str
    layout: Layout
    statistics: Statistics
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ratios: tuple[str, ...] = ()
    float32_profiles: bool = False
    absent: tuple[str, ...] = ("missing",)
    rank_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: WeightRecipe = CALIBRATED
    weights_from: WeightsFrom = "other-half"

    def provided(self, profile: str) -> bool:
        """Whether every member of a profile is computed by this release, or left out by declaration."""
        return all(name in self.metrics or name in self.left_out for name in self.profiles[profile])


_V2 = Preset(
    name="v2",
    source="cell-eval2 0.20.0",
    summary="Control of the measured side for both, whole-panel target exclusion, mid-ranks, counts as pseudobulks.",
    space="auto",
    bulk_target_sum=5e4,
    target_sum=1e6,
    control_source="real",
    de=CELL_EVAL2_DE,
    metrics=V2,
    profiles={
        "anndata": _V2_PROFILES,
        "pds": ("pds_l1",),
        "full": (*_V2_DE, *_V2_PROFILES),
        "de": _V2_DE,
        "minimal": (
            *("expr_mae", "pds_l1", "delta_pearson", "expr_mse"),
            *("de_wilcoxon_overlap", "de_wilcoxon_precision", *_V2_COUNTS),
        ),
        "vcc": ("expr_mae", "pds_l1", "de_wilcoxon_overlap"),
        "vcc2026": _V2_2026,
    },
    default="full",
    layout="long",
    statistics="finite",
    ratios=("expr_mse_unbiased_capped_norm",),
    rank_options={"control": "real"},
)

_VCC2026 = dataclasses.replace(
    _V2,
    name="vcc2026",
    summary="The Virtual Cell Challenge of 2026: six scored metrics and four diagnostics, as v2 computes them.",
    profiles={"vcc2026": _V2_2026},
    default="vcc2026",
)

_CELL_EVAL = Preset(
    name="cell_eval",
    source="cell-eval 0.8.2",
    summary="Each side's own control, own-gene exclusion by label, ranks by position, means of log-normalised cells.",
    space="lognorm",
    bulk_target_sum=5e4,
    target_sum=None,
    control_source="pred",
    de=CELL_EVAL_DE,
    metrics=CELL_EVAL,
    profiles={
        "anndata": (*_V1_PROFILES, *_V1_CELLS),
        "pds": ("discrimination_score_l1",),
        "full": (*_V1_DE, *_V1_PROFILES, *_V1_CELLS),
        "de": _V1_DE,
        "minimal": _V1_MINIMAL,
        "vcc": _V1_VCC,
    },
    default="full",
    layout="wide",
    statistics="describe",
    left_out={"clustering_agreement": "it is the Leiden clustering of a graph, whose result hangs on one library"},
    float32_profiles=True,
    absent=("missing", "no_significant_genes"),
    rank_options={"control": "pred", "ties": "position", "denominator": "n"},
)

_VCC2025 = dataclasses.replace(
    _CELL_EVAL,
    name="vcc2025",
    source="cell-eval 0.6.6",
    summary="The Virtual Cell Challenge of 2025: as cell_eval, with p-values adjusted over all perturbations at once.",
    de=VCC2025_DE,
    profiles={"vcc": _V1_VCC, "minimal": _V1_MINIMAL, "pds": ("discrimination_score_l1",)},
    default="vcc",
    left_out={},
)

_STANDARD = (
    *("pds_cosine", "pds_l1", "delta_pearson_mean", "weighted_r2_mean"),
    *("weighted_mse", "expr_mse", "expr_mse_unbiased", "delta_pearson"),
    *("amplitude_ratio", "amplitude_slope", "amplitude_ratio_mean"),
)
_RESPONSE = tuple(
    f"de_{name}"
    for name in ("sig_jaccard", "sig_mcc", "direction_fidelity_yield_raw", "direction_reach_raw", "lfc_nmae")
)
_NOISE_CORRECTED = ("weighted_mse_unbiased", "delta_pearson_disattenuated", "expr_distance_unbiased")
_TARGETS = ("target_knockdown_error", "target_sign", "delta_pearson_without_target")

_CALIBRATED = dataclasses.replace(
    _V2,
    name="calibrated",
    source="vcjax",
    summary="Discrimination beside magnitude: ranks, weighted errors beyond the mean of perturbations, amplitude.",
    space="lognorm",
    target_sum=1e4,
    metrics={name: CATALOGUE[name] for name in (*_STANDARD, *_RESPONSE, *_NOISE_CORRECTED, *_TARGETS)},
    profiles={
        "standard": _STANDARD,
        "de": (*_STANDARD, *_RESPONSE),
        "full": (*_STANDARD, *_RESPONSE, *_NOISE_CORRECTED, *_TARGETS),
    },
    default="standard",
    ratios=(),
)

_ECHOES = dataclasses.replace(
    _CALIBRATED,
    name="echoes",
    source="Echoes of Silenced Genes (Myllia, Kaggle 2026)",
    summary="Halvings of a baseline's weighted error times a gated cosine of effects, and what that composite hides.",
    metrics={name: CATALOGUE[name] for name in ("echoes", "echoes_term", *_STANDARD)},
    profiles={"echoes": ("echoes", "echoes_term", "pds_cosine", "weighted_mse", "amplitude_ratio", "amplitude_slope")},
    default="echoes",
    weights=ECHOES,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (_CALIBRATED, _V2, _VCC2026, _CELL_EVAL, _VCC2025, _ECHOES)
}
ALIASES = {"v1": "cell_eval", "cell-eval": "cell_eval", "cell-eval2": "v2", "cell_eval2": "v2"}
