"""Metrics as functions of arrays, (perts, genes) in and one value a perturbation out; and the table of them all."""

from .._pairwise import AbstractDistance as AbstractDistance, Cosine as Cosine, L1 as L1, L2 as L2
from ._amplitude import amplitude_ratio as amplitude_ratio, amplitude_slope as amplitude_slope
from ._catalogue import CATALOGUE as CATALOGUE, CELL_EVAL as CELL_EVAL, V2 as V2
from ._correlation import (
    cosine as cosine,
    pearson as pearson,
    r2 as r2,
    spearman as spearman,
    weighted_r2 as weighted_r2,
)
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
