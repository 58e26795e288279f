"""What a score is worth: controls of known worth, the range between them, and the floor that sampling noise sets."""

from ._bds import bound_discrimination as bound_discrimination, BoundTest as BoundTest
from ._bds_permutation import bound_discrimination_test as bound_discrimination_test
from ._calibrate import calibrate as calibrate
from ._calibration import Bounds as Bounds, Calibration as Calibration
from ._controls import (
    Control as Control,
    control_mean as control_mean,
    ControlSet as ControlSet,
    empirical_bayes_duplicate as empirical_bayes_duplicate,
    interpolated_duplicate as interpolated_duplicate,
    leave_one_out_mean as leave_one_out_mean,
    sparse_mean as sparse_mean,
    train_mean as train_mean,
)
from ._drf import (
    dynamic_range_fraction as dynamic_range_fraction,
    FractionSummary as FractionSummary,
    summarise_fractions as summarise_fractions,
)
from ._effect_curve import effect_curve as effect_curve, EffectCurve as EffectCurve
from ._halves import bootstrap_cells as bootstrap_cells, split_cells as split_cells
from ._intervals import (
    jackknife_interval as jackknife_interval,
    median_interval as median_interval,
    share_interval as share_interval,
)
from ._noise_floor import (
    explained_fraction as explained_fraction,
    noise_floor as noise_floor,
    signal_to_noise as signal_to_noise,
    unbiased_effect_size as unbiased_effect_size,
)
from ._reliability import (
    Ceilings as Ceilings,
    correlation_ceilings as correlation_ceilings,
    extrapolated_ceiling as extrapolated_ceiling,
    reliability as reliability,
    spearman_brown as spearman_brown,
    squared_error_ceilings as squared_error_ceilings,
)
from ._scaled import calibrated_score as calibrated_score
