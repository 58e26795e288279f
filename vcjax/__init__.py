"""Differentiable metrics and baselines for single-cell perturbation prediction, in JAX."""

import importlib as _importlib
import importlib.metadata as _metadata

from . import losses as losses, metrics as metrics
from ._kernels import Gauss as Gauss, Laplace as Laplace, Logistic as Logistic, Matern32 as Matern32
from ._profiles import effects_as_profiles as effects_as_profiles, Profiles as Profiles
from ._relax import HARD as HARD, Relaxation as Relaxation
from .losses import as_loss as as_loss


__version__ = _metadata.version("vcjax")
