"""Uncertainty and comparison of values over perturbations: intervals, paired tests, influence, strata of difficulty."""

from ._bootstrap import (
    bootstrap as bootstrap,
    bootstrap_replicates as bootstrap_replicates,
    confidence_interval as confidence_interval,
    resample as resample,
    score_replicates as score_replicates,
)
from ._difficulty import (
    effect_size as effect_size,
    nearest_training as nearest_training,
    significant_genes as significant_genes,
    target_expression as target_expression,
)
from ._influence import (
    effective_perturbations as effective_perturbations,
    influence as influence,
    leave_one_out as leave_one_out,
    top_carriers as top_carriers,
    top_share as top_share,
)
from ._interval import Interval as Interval, interval_of as interval_of, Method as Method
from ._multiplicity import (
    adjust as adjust,
    benjamini_hochberg as benjamini_hochberg,
    Correction as Correction,
    holm as holm,
)
from ._paired import (
    paired_difference as paired_difference,
    PairedDifference as PairedDifference,
    share_won as share_won,
    wilcoxon_pvalue as wilcoxon_pvalue,
)
from ._permutation import (
    assignment_test as assignment_test,
    group_test as group_test,
    permutation_pvalue as permutation_pvalue,
    swap_test as swap_test,
)
from ._statistics import (
    complete_pairs as complete_pairs,
    difference_of as difference_of,
    mean as mean,
    median as median,
    ratio_of_sums as ratio_of_sums,
    Statistic as Statistic,
)
from ._strata import (
    Strata as Strata,
    stratify as stratify,
    stratum_table as stratum_table,
    StratumTable as StratumTable,
)
from ._systematic import systematic_share as systematic_share, systematic_variation as systematic_variation
