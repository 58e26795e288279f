"""How the rows that choose genes by the truth, correct for its noise, or compose, read two sets of profiles."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._profiles import Profiles
from .._stats import effect
from .._types import GeneMask
from ..references._means import means_of_others
from . import _echoes
from ._chosen import significant_mask, top_genes
from ._corrected import disattenuate, effect_reliability, noise_corrected_mse
from ._error import mae
from ._rows import _unweighted
from ._status import effect_status, Status, weights_status


Chosen = Callable[[Profiles, GeneMask], Float[Array, "perts genes"]]
LEAST = 3  # significant genes that a correlation asks for: of two genes it is 1 or -1


def largest_effects(k: int) -> Chosen:
    """The k genes of largest measured effect."""

    def chosen(real, where):
        return top_genes(jnp.abs(effect(real.mean, real.control)), k, where=where)

    return chosen


def significant_genes(least: int) -> Chosen:
    """The genes that the measured side's table calls significant, if there are as many as `least`."""

    def chosen(real, where):
        return _significant(real, where, least)

    return chosen


def _significant(real: Profiles, where: GeneMask, least: int) -> Float[Array, "perts genes"]:
    if real.de is None:
        raise ValueError(
            "This metric keeps to the genes that respond, and the measured profiles have no table of differential "
            "expression: give them one with `de=DETable(...)`."
        )
    table = real.de
    inside = jnp.ones((1, table.tested.shape[1]), bool) if where is None else jnp.atleast_2d(jnp.asarray(where))
    mask = significant_mask(table, least=1) & inside
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.int32)
    return (mask & (count >= least)).astype(real.mean.dtype)


def on_chosen(function: Callable, chosen: Chosen, *, effects: bool) -> Callable:
    """Rows that keep to genes chosen by the measured side."""

    def row(pred, real, *, relax, weights, where, valid):
        _unweighted(weights)
        reference = {"reference": real.control} if effects else {}
        return function(pred.mean, real.mean, weights=chosen(real, where), **reference)

    return row


def chosen_status(chosen: Chosen, *, effects: bool, pred_matters: bool = True, significant: bool = False) -> Callable:
    """The status of such a row."""

    def status(pred, real, *, weights=None, where=None):
        kept = chosen(real, where)
        if effects:
            code = effect_status(
                pred, real, control="real", similarity="pearson", pred_matters=pred_matters, weights=kept
            )
        else:
            code = weights_status(pred, real, weights=kept)
        if not significant:
            return code
        none = jnp.sum(_significant(real, where, 1), axis=1) == 0
        reason = jnp.where(none, Status.NO_SIGNIFICANT_GENES, Status.TOO_FEW_GENES)
        return jnp.where(code == Status.ZERO_WEIGHTS, reason, code)

    return status


def noise_corrected(pred, real, *, relax, weights, where, valid):
    """The weighted error of the profiles less the measured side's noise floor."""
    return noise_corrected_mse(pred.mean, real.mean, _gene_noise(real, weights, where), weights=weights, where=where)


def disattenuated(function: Callable, *, centred: bool) -> Callable:
    """Rows of correlations of effects against the measured control, over the root of the measured reliability."""

    def row(pred, real, *, relax, weights, where, valid):
        value = function(pred.mean, real.mean, weights=weights, where=where, reference=real.control)
        return disattenuate(value, _reliability(real, weights, where, centred))

    return row


def disattenuated_status(*, similarity: str) -> Callable:
    """The status of such a row."""

    def status(pred, real, *, weights=None, where=None):
        code = effect_status(pred, real, control="real", similarity=similarity, weights=weights, where=where)
        reliable = _reliability(real, weights, where, similarity == "pearson") > 0
        return jnp.where((code == Status.OK) & ~reliable, Status.NO_SIGNAL, code)

    return status


def _reliability(real: Profiles, weights, where, centred: bool) -> Float[Array, " perts"]:
    noise = _gene_noise(real, weights, where)
    if real.control_noise is not None:
        noise = noise + _gene_noise(real, weights, where, control=True)
    return effect_reliability(real.mean, noise, weights=weights, where=where, reference=real.control, centred=centred)


def _gene_noise(real: Profiles, weights, where, *, control: bool = False) -> Float[Array, "perts genes"]:
    """The noise of every gene. Its sum over genes serves as well where all genes count alike."""
    genes = real.mean.shape[1]
    noise = real.control_noise if control else real.noise
    total = real.total_control_noise() if control else real.total_noise()
    assert noise is not None  # or its sum has raised
    if jnp.ndim(noise) > jnp.ndim(total):
        return jnp.broadcast_to(jnp.asarray(noise), real.mean.shape)
    if weights is not None or where is not None:
        raise ValueError(
            "With `weights` or `where` this metric needs the sampling noise gene by gene, `noise` of shape "
            f"{real.mean.shape} and `control_noise` of shape {(genes,)}; the measured profiles have its sum."
        )
    even = total / genes
    return jnp.broadcast_to(even if control else even[:, None], real.mean.shape)


def echoes_term(baseline: Float[Array, " genes"] | None) -> Callable:
    """Rows of the terms of the composite score, against a baseline or the mean of the other perturbations."""

    def row(pred, real, *, relax, weights, where, valid):
        base = _baseline_error(real, baseline, weights, where, valid)
        return _echoes.echoes_terms(pred.mean, real.mean, weights, base, where=where)

    return row


def echoes_panel(baseline: Float[Array, " genes"] | None, *, average: bool) -> Callable:
    """Rows of the composite score."""

    def row(pred, real, *, relax, weights, where, valid):
        base = _baseline_error(real, baseline, weights, where, valid)
        effects = effect(pred.mean, real.control), effect(real.mean, real.control)
        return _echoes.echoes(*effects, weights, base, average=average, where=where, valid=valid)

    return row


def _baseline_error(real: Profiles, baseline, weights, where, valid) -> Float[Array, " perts"]:
    profile = real.train_mean if baseline is None else baseline
    if profile is None:
        perts = real.mean.shape[0]
        amount = (jnp.ones(perts, bool) if valid is None else jnp.asarray(valid)).astype(real.mean.dtype)
        guess = means_of_others(real.mean, amount)
    else:
        guess = jnp.broadcast_to(profile.astype(real.mean.dtype), real.mean.shape)
    return lax.stop_gradient(mae(guess, real.mean, weights=weights, where=where))


def echoes_status(alone: bool) -> Callable:
    """The status of both; `alone` if the baseline needs another perturbation."""

    def status(pred, real, *, weights=None, where=None):
        code = weights_status(pred, real, weights=weights, where=where)
        few = alone and real.train_mean is None and real.mean.shape[0] < 2
        return jnp.where(code == Status.OK, Status.TOO_FEW_PERTS, code) if few else code

    return status
