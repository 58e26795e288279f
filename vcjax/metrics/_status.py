"""Why a value is undefined."""

import enum
import functools as ft

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._checks import gene_weights
from .._profiles import Profiles
from .._stats import cosine, effect, pearson


class Status(enum.IntEnum):
    """The code beside every value of a report; a value is NaN exactly where it is not `OK`."""

    OK = 0
    CONSTANT_TRUTH = 1  # the measured effect is the same for all genes that count: nothing to correlate with
    CONSTANT_PREDICTION = 2  # the predicted effect is
    ZERO_TRUTH = 3  # there is no measured effect to compare a size or a direction with
    ZERO_PREDICTION = 4  # there is no predicted effect
    ZERO_WEIGHTS = 5  # no gene counts
    TOO_FEW_PERTS = 6  # the score compares perturbations, and there is only one
    MISSING = 7  # the perturbation has no prediction
    NO_SIGNAL = 8  # the effects of the panel are not larger than their sampling noise
    NOT_FINITE = 9  # the input, or the arithmetic, was not finite
    ERROR = 10  # the metric failed; the message is in the notes of the report
    NO_SIGNIFICANT_GENES = 11  # the measured side has no significant gene (that goes the way asked for)
    TOO_FEW_GENES = 12  # the measured side has fewer genes to judge by than the metric asks for
    NO_CALLS = 13  # the prediction calls no gene that could be judged
    NO_DIRECTION = 14  # no measured significant gene has a fold change other than 0
    ONE_CLASS = 15  # all genes are alike: all, or none, significant
    NO_TARGET = 16  # the perturbation targets no measured gene
    TOO_FEW_CELLS = 17  # the perturbation's measured cells cannot be split into halves

    @property
    def label(self) -> str:
        """The word in a report's `status` column."""
        return self.name.lower()


def effect_status(
    pred: Profiles,
    real: Profiles,
    *,
    control: str,
    similarity: str,
    pred_matters: bool = True,
    weights=None,
    where=None,
    reference=None,
) -> Int[Array, " perts"]:
    """Where a correlation (`similarity="pearson"`) or a norm (`"cosine"`) of the effects is undefined, and why."""
    w = gene_weights(real.mean.shape, real.mean.dtype, weights, where)
    alike = {"pearson": pearson, "cosine": cosine}[similarity]
    truth_code, pred_code = {
        "pearson": (Status.CONSTANT_TRUTH, Status.CONSTANT_PREDICTION),
        "cosine": (Status.ZERO_TRUTH, Status.ZERO_PREDICTION),
    }[similarity]
    real_reference = real.control if reference is None else reference
    truth = effect(real.mean, real_reference)
    guess = effect(pred.mean, real_reference if control == "real" else pred.control)
    code = jnp.where(jnp.isnan(alike(guess, guess, w)) & pred_matters, pred_code, Status.OK)
    code = jnp.where(jnp.isnan(alike(truth, truth, w)), truth_code, code)
    return _without_weight(code, w)


def weights_status(pred: Profiles, real: Profiles, *, weights=None, where=None) -> Int[Array, " perts"]:
    """Where a weighted mean over genes is undefined."""
    w = gene_weights(real.mean.shape, real.mean.dtype, weights, where)
    return _without_weight(jnp.full(real.mean.shape[0], Status.OK), w)


def _without_weight(code, w):
    return code if w is None else jnp.where(jnp.sum(w, axis=1) > 0, code, Status.ZERO_WEIGHTS)


def panel_status(pred: Profiles, real: Profiles, *, weights=None, where=None) -> Int[Array, " perts"]:
    """A score that compares perturbations needs two."""
    perts = real.mean.shape[0]
    return jnp.full(perts, Status.OK if perts > 1 else Status.TOO_FEW_PERTS)


correlation_status = ft.partial(effect_status, similarity="pearson")
norm_status = ft.partial(effect_status, similarity="cosine")
