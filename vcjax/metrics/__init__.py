"""Metrics as functions of arrays, (perts, genes) in and one value a perturbation out; and the table of them all."""

from .._pairwise import AbstractDistance as AbstractDistance, Cosine as Cosine, L1 as L1, L2 as L2
from ._amplitude import (
    amplitude_ratio as amplitude_ratio,
    amplitude_slope as amplitude_slope,
    calibration_slope as calibration_slope,
    spread_ratio as spread_ratio,
)
from ._bank import Bank as Bank
from ._catalogue import CATALOGUE as CATALOGUE, CELL_EVAL as CELL_EVAL, V2 as V2
from ._cell_covariance import (
    covariance_concordance as covariance_concordance,
    covariance_correlation as covariance_correlation,
    covariance_eigenvalue_ratio as covariance_eigenvalue_ratio,
    Responding as Responding,
    responding_genes as responding_genes,
)
from ._chosen import significant_mask as significant_mask, top_genes as top_genes
from ._corrected import (
    disattenuate as disattenuate,
    disattenuated_cosine as disattenuated_cosine,
    disattenuated_pearson as disattenuated_pearson,
    effect_reliability as effect_reliability,
    noise_corrected_mse as noise_corrected_mse,
)
from ._correlation import (
    cosine as cosine,
    pearson as pearson,
    r2 as r2,
    spearman as spearman,
    weighted_r2 as weighted_r2,
)
from ._de_direction import (
    direction_coverage as direction_coverage,
    direction_fidelity as direction_fidelity,
    direction_fidelity_yield as direction_fidelity_yield,
    direction_match as direction_match,
    direction_precision as direction_precision,
    direction_yield as direction_yield,
    model_direction_match as model_direction_match,
)
from ._de_fold_change import fold_change_error as fold_change_error, fold_change_spearman as fold_change_spearman
from ._de_overlap import top_matthews as top_matthews, top_overlap as top_overlap, top_precision as top_precision
from ._de_ranking import average_precision as average_precision, roc_auc as roc_auc
from ._de_reach import direction_reach as direction_reach, direction_sensitivity as direction_sensitivity
from ._de_sets import (
    significant_count as significant_count,
    significant_count_spearman as significant_count_spearman,
    significant_informedness as significant_informedness,
    significant_jaccard as significant_jaccard,
    significant_markedness as significant_markedness,
    significant_matthews as significant_matthews,
    significant_recall as significant_recall,
)
from ._echoes import (
    echoes as echoes,
    echoes_cosine as echoes_cosine,
    echoes_loss as echoes_loss,
    echoes_terms as echoes_terms,
)
from ._energy import energy_pearson as energy_pearson
from ._error import l2 as l2, mae as mae, mse as mse, rmse as rmse, weighted_mse as weighted_mse
from ._expression import (
    capped_norm as capped_norm,
    capped_unbiased_mse as capped_unbiased_mse,
    granted_noise as granted_noise,
    mass_ratio as mass_ratio,
    unbiased_distance as unbiased_distance,
    unbiased_mse as unbiased_mse,
)
from ._metric import Metric as Metric
from ._retrieval import (
    candidates_closer as candidates_closer,
    discrimination_from_distances as discrimination_from_distances,
    mean_reciprocal_rank as mean_reciprocal_rank,
    normalised_inverse_rank as normalised_inverse_rank,
    perturbation_discrimination as perturbation_discrimination,
    perturbench_rank as perturbench_rank,
    recall_at_k as recall_at_k,
    retrieval_distances as retrieval_distances,
)
from ._status import Status as Status
from ._target import (
    knockdown_efficiency as knockdown_efficiency,
    knockdown_error as knockdown_error,
    only_targets as only_targets,
    target_error as target_error,
    target_sign as target_sign,
    without_targets as without_targets,
)
from ._weighted_catalogue import echoes_metrics as echoes_metrics, top_metrics as top_metrics
