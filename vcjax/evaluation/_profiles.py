"""The sets of metrics that presets call profiles: names alone, known before any metric is imported."""

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

PROFILES: dict[str, dict[str, tuple[str, ...]]] = {
    "v2": {
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
    "vcc2026": {"vcc2026": _V2_2026},
    "cell_eval": {
        "anndata": (*_V1_PROFILES, *_V1_CELLS),
        "pds": ("discrimination_score_l1",),
        "full": (*_V1_DE, *_V1_PROFILES, *_V1_CELLS),
        "de": _V1_DE,
        "minimal": _V1_MINIMAL,
        "vcc": _V1_VCC,
    },
    "vcc2025": {"vcc": _V1_VCC, "minimal": _V1_MINIMAL, "pds": ("discrimination_score_l1",)},
    "calibrated": {
        "standard": _STANDARD,
        "de": (*_STANDARD, *_RESPONSE),
        "full": (*_STANDARD, *_RESPONSE, *_NOISE_CORRECTED, *_TARGETS),
    },
    "echoes": {"echoes": ("echoes", "echoes_term", "pds_cosine", "weighted_mse", "amplitude_ratio", "amplitude_slope")},
}
# Of each preset, the profile that is computed if none is named.
DEFAULTS = {
    "v2": "full",
    "vcc2026": "vcc2026",
    "cell_eval": "full",
    "vcc2025": "vcc",
    "calibrated": "standard",
    "echoes": "echoes",
}
ALIASES = {"v1": "cell_eval", "cell-eval": "cell_eval", "cell-eval2": "v2", "cell_eval2": "v2"}

_TESTED = frozenset((*_V2_DE, *_V1_DE, *_RESPONSE))
_HELD_OTHERWISE = frozenset(_V1_CELLS)  # what energy distances hold beside the cells leaves no room for more


def keeps_cells(preset: str, profile: str | None, *others: object) -> bool:
    """Whether a run tests all cells of both sides at once, so that they may as well be kept when they are first read.

    A hint that costs memory and saves time, and changes no number: `False` for what is not known, and where one of the
    `others` is not `None`: metrics chosen by name, and tables that come as files.
    """
    preset = ALIASES.get(preset, preset)
    members = PROFILES.get(preset, {}).get(profile or DEFAULTS.get(preset, ""), ())
    named = any(other is not None for other in others)
    return not named and not _TESTED.isdisjoint(members) and _HELD_OTHERWISE.isdisjoint(members)
