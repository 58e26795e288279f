"""Baselines: the simple models that every prediction must beat, fitted to measured effects and differentiable."""

from ._additive import Additive as Additive, AdditiveRidge as AdditiveRidge, MatchingMean as MatchingMean
from ._context_means import ContextMean as ContextMean, CrossContextMean as CrossContextMean
from ._crispr import CrisprMean as CrisprMean
from ._emit import expected_shares as expected_shares, gene_ratios as gene_ratios
from ._interface import (
    Baseline as Baseline,
    Fairness as Fairness,
    Fitted as Fitted,
    mean_response as mean_response,
    PertData as PertData,
    Prediction as Prediction,
)
from ._means import (
    CellMean as CellMean,
    GenericResponse as GenericResponse,
    MeanResponse as MeanResponse,
    MeanWithControl as MeanWithControl,
    NoChange as NoChange,
    OrderMean as OrderMean,
    SparseMean as SparseMean,
)
from ._members import members as members
from ._nulls import (
    GenePermuted as GenePermuted,
    MetadataNeighbour as MetadataNeighbour,
    PermutedLabels as PermutedLabels,
    WrongTarget as WrongTarget,
)
from ._oracles import (
    BestLinearSpan as BestLinearSpan,
    EmpiricalBayesDuplicate as EmpiricalBayesDuplicate,
    InterpolatedDuplicate as InterpolatedDuplicate,
    OracleScaled as OracleScaled,
    TechnicalDuplicate as TechnicalDuplicate,
)
from ._registry import (
    Availability as Availability,
    available as available,
    BASELINES as BASELINES,
    get_baseline as get_baseline,
    NULLS as NULLS,
    Role as Role,
    role as role,
    settings as settings,
)
