"""Baselines: the simple models that every prediction must beat, fitted to measured effects and differentiable."""

from ._additive import Additive as Additive, AdditiveRidge as AdditiveRidge, MatchingMean as MatchingMean
from ._context_means import ContextMean as ContextMean, CrossContextMean as CrossContextMean
from ._crispr import CrisprMean as CrisprMean
from ._embedding_ridge import EmbeddingRidge as EmbeddingRidge
from ._emit import expected_shares as expected_shares, gene_ratios as gene_ratios
from ._features import (
    AbstractFeatures as AbstractFeatures,
    beside as beside,
    feature_kernel as feature_kernel,
    Features as Features,
    one_hot as one_hot,
    profile_features as profile_features,
    RandomFeatures as RandomFeatures,
    reduced as reduced,
)
from ._gp import (
    gaussian_crps as gaussian_crps,
    GaussianProcess as GaussianProcess,
    log_marginal_likelihood as log_marginal_likelihood,
)
from ._interface import (
    Baseline as Baseline,
    Fairness as Fairness,
    Fitted as Fitted,
    mean_response as mean_response,
    PertData as PertData,
    Prediction as Prediction,
)
from ._jackknife import jackknife_bands as jackknife_bands
from ._kernel_combine import combine_kernels as combine_kernels
from ._kernel_ridge import KernelRidge as KernelRidge
from ._knowledge import (
    gene_set_features as gene_set_features,
    read_embeddings as read_embeddings,
    read_gmt as read_gmt,
)
from ._krr import Intercept as Intercept, KernelRidgeResult as KernelRidgeResult, krr as krr
from ._leave_context import context_scores as context_scores, leave_one_context_out as leave_one_context_out
from ._means import (
    CellMean as CellMean,
    GenericResponse as GenericResponse,
    MeanResponse as MeanResponse,
    MeanWithControl as MeanWithControl,
    NoChange as NoChange,
    OrderMean as OrderMean,
)
from ._members import members as members
from ._neighbours import Neighbours as Neighbours
from ._neural import (
    DecoderOnly as DecoderOnly,
    EmbedSum as EmbedSum,
    FeatureMLP as FeatureMLP,
    LatentAdditive as LatentAdditive,
    LinearAdditive as LinearAdditive,
)
from ._neural_fit import Training as Training
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
from ._pca_ridge import PCARidge as PCARidge
from ._random_features import (
    null_distribution as null_distribution,
    Permuted as Permuted,
    permuted as permuted,
    RandomRidge as RandomRidge,
    shuffled as shuffled,
)
from ._rank_gates import (
    HardRank as HardRank,
    JamesStein as JamesStein,
    SigmoidGates as SigmoidGates,
    SoftRank as SoftRank,
)
from ._reduced_rank import ReducedRank as ReducedRank
from ._ref_regress import ReferenceRegression as ReferenceRegression
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
from ._relatedness import NamedKernel as NamedKernel, relate as relate, Relatives as Relatives
from ._similarity import similarity as similarity
from ._sparse_mean import SparseMean as SparseMean
from ._transfer_learnt import (
    GeneScaledTransfer as GeneScaledTransfer,
    ScaledTransfer as ScaledTransfer,
    SpecificTransfer as SpecificTransfer,
    StackedTransfer as StackedTransfer,
)
from ._transfer_models import (
    AgreementTransfer as AgreementTransfer,
    CompressedTransfer as CompressedTransfer,
    DirectTransfer as DirectTransfer,
    MeanTransfer as MeanTransfer,
    MedianTransfer as MedianTransfer,
    NormRestoredTransfer as NormRestoredTransfer,
    WeightedTransfer as WeightedTransfer,
)
from ._transfer_rules import (
    gene_scales as gene_scales,
    knockdown_depth as knockdown_depth,
    nonnegative_weights as nonnegative_weights,
    optimal_scale as optimal_scale,
    source_agreement as source_agreement,
)
from ._tune import grid as grid, Gridded as Gridded, tune as tune, Tuned as Tuned
