"""Training losses made of metrics."""

from ._bounds import hinge_rank as hinge_rank, info_nce as info_nce, softplus_rank as softplus_rank
from ._compose import compose as compose, ComposedLoss as ComposedLoss, Parts as Parts
from ._guards import amplitude_guard as amplitude_guard, collapse_guard as collapse_guard, error_guard as error_guard
from ._loss import as_loss as as_loss
from ._straight_through import straight_through as straight_through
from ._term import Term as Term
