"""Weights of genes, made of the measured side: which genes respond to a perturbation, and how much each counts."""

from ._crossfit import crossfit as crossfit
from ._effective import effective_genes as effective_genes, exponent_for as exponent_for
from ._moderated import fit_prior as fit_prior, moderated_t as moderated_t
from ._recipe import WeightRecipe as WeightRecipe
from ._recipes import (
    CALIBRATED as CALIBRATED,
    ECHOES as ECHOES,
    MEJIA as MEJIA,
    MILLER as MILLER,
    RECIPES as RECIPES,
    SBB as SBB,
    SCPERTEVAL as SCPERTEVAL,
    VCPI as VCPI,
    VCPI_POOLED as VCPI_POOLED,
)
from ._statistics import gene_scores as gene_scores, leave_one_out as leave_one_out
from ._transforms import (
    mask_target as mask_target,
    max_norm as max_norm,
    min_max as min_max,
    normalise as normalise,
    power as power,
    rank01 as rank01,
)
from ._weights import shared_weights as shared_weights, Weights as Weights
