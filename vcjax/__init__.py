"""Differentiable metrics and baselines for single-cell perturbation prediction, in JAX."""

import importlib as _importlib
import importlib.metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import losses as losses, metrics as metrics
from ._kernels import Gauss as Gauss, Laplace as Laplace, Logistic as Logistic, Matern32 as Matern32
from ._profiles import effects_as_profiles as effects_as_profiles, Profiles as Profiles
from ._pseudobulk import (
    analytic_noise as analytic_noise,
    bulk_lognorm as bulk_lognorm,
    bulk_sums as bulk_sums,
    jackknife_noise as jackknife_noise,
    log_normalise as log_normalise,
    pseudobulk as pseudobulk,
)
from ._relax import HARD as HARD, Relaxation as Relaxation
from .de import DETable as DETable
from .losses import as_loss as as_loss, straight_through as straight_through


if _TYPE_CHECKING:
    from . import io as io
    from .evaluation import evaluate as evaluate, Report as Report

__version__ = _metadata.version("vcjax")

# What reads files brings pandas and anndata with it, so it is imported when it is first asked for.
_LATER = {
    "io": ("vcjax.io", None),
    "evaluate": ("vcjax.evaluation", "evaluate"),
    "Report": ("vcjax.evaluation", "Report"),
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'vcjax' has no attribute {name!r}")
    module, attribute = _LATER[name]
    value = _importlib.import_module(module)
    return value if attribute is None else getattr(value, attribute)


def __dir__():
    return sorted({*globals(), *_LATER})
