"""A small trainer on optax: any Equinox model, on the metrics that it will be judged by."""

from ._data import Batch as Batch, TrainingData as TrainingData
from ._fit import CollapseGuard as CollapseGuard, fit as fit, Trained as Trained
from ._history import History as History
