"""Training losses made of metrics."""

from ._composite import composite_loss as composite_loss
from ._loss import as_loss as as_loss
from ._straight_through import straight_through as straight_through
