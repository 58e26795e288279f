"""Differentiable metrics and baselines for single-cell perturbation prediction, in JAX."""

import importlib.metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._lazy import attach as _attach


if _TYPE_CHECKING:
    from . import (
        baselines as baselines,
        calibration as calibration,
        comparison as comparison,
        de as de,
        io as io,
        losses as losses,
        metrics as metrics,
        references as references,
        report as report,
        scores as scores,
        training as training,
        weights as weights,
    )
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
    from .evaluation import evaluate as evaluate, Report as Report
    from .losses import as_loss as as_loss, straight_through as straight_through

__version__ = _metadata.version("vcjax")

__getattr__, __dir__ = _attach(
    __name__,
    {
        **dict.fromkeys(("baselines", "calibration", "comparison", "de", "io", "losses", "metrics"), ""),
        **dict.fromkeys(("references", "report", "scores", "training", "weights"), ""),
        **dict.fromkeys(("Gauss", "Laplace", "Logistic", "Matern32"), "._kernels"),
        **dict.fromkeys(("effects_as_profiles", "Profiles"), "._profiles"),
        **dict.fromkeys(
            ("analytic_noise", "bulk_lognorm", "bulk_sums", "jackknife_noise", "log_normalise", "pseudobulk"),
            "._pseudobulk",
        ),
        **dict.fromkeys(("HARD", "Relaxation"), "._relax"),
        "DETable": ".de",
        **dict.fromkeys(("evaluate", "Report"), ".evaluation"),
        **dict.fromkeys(("as_loss", "straight_through"), ".losses"),
    },
)
