"""What a metric's value is worth between a baseline and an anchor: the scales of the challenges."""

from ._policy import (
    cell_eval_policy as cell_eval_policy,
    frozen_policy as frozen_policy,
    FROZEN_SCALE as FROZEN_SCALE,
    scaled_score as scaled_score,
    ScorePolicy as ScorePolicy,
    V2_POLICIES as V2_POLICIES,
)
