"""How the metrics of differential expression and of energy distances read two sets of profiles."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._profiles import Profiles
from .._relax import HARD
from ..de import DETable
from ._de_pair import Pair, pair_tables, rounded
from ._de_reasons import Reason
from ._de_sets import significant_count
from ._energy import energy_pearson
from ._rows import _unweighted
from ._status import Status


def on_tables(
    function: Callable,
    *,
    relaxed: bool = True,
    targets: bool = False,
    valid: bool = False,
    single: bool = False,
    gate: tuple[Reason, ...] = (),
    charged: float | None = None,
    **options,
) -> Callable:
    """Rows that compare tables of differential expression.

    **Arguments:**

    - `relaxed`, `targets`, `valid`: whether the function takes `relax`, `targets` and `valid`.
    - `single`: round the tables to float32 first, as a tool does that keeps them so.
    - `gate`: reasons of the measured side, any of which makes the value NaN.
    - `charged`: what a value that is not finite becomes otherwise.
    """
    takes_valid = valid

    def row(pred, real, *, relax, weights, where, valid) -> Float[Array, "..."]:
        _unweighted(weights)
        tables = [_table(side, single) for side in (pred, real)]
        extra = {"relax": relax} if relaxed else {}
        extra |= {"targets": real.targets} if targets else {}
        extra |= {"valid": valid} if takes_valid else {}
        values = function(*tables, where=where, **extra, **options)
        if charged is not None:
            values = jnp.where(jnp.isfinite(values), values, charged)
        return jnp.where(_inside(gate, tables[1], where, valid), values, jnp.nan) if gate else values

    return row


def _table(side: Profiles, single: bool) -> DETable:
    assert side.de is not None  # `Metric` has seen to it
    return rounded(side.de) if single else side.de


def _inside(gate: tuple[Reason, ...], real: DETable, where, valid) -> Bool[Array, "..."]:
    pair = pair_tables(real, real, relax=HARD, where=where)
    if valid is not None:
        # Without a significant gene, padding takes no part in what is counted over perturbations.
        truth = jnp.where(jnp.asarray(valid)[:, None], pair.truth, 0)
        pair = Pair(pair.pred, pair.real, truth, truth, pair.kept)
    inside = jnp.asarray(True)
    for holds, _ in gate:
        inside = inside & ~holds(pair)
    return inside


def de_status(reasons: tuple[Reason, ...], *, targets: bool, single: bool) -> Callable:
    """The status of a row: the first reason that holds, else `OK`."""

    def status(pred, real, *, weights=None, where=None) -> Int[Array, " perts"]:
        tables = [_table(side, single) for side in (pred, real)]
        pair = pair_tables(*tables, relax=HARD, where=where, without=real.targets if targets else None)
        code = jnp.full(real.mean.shape[0], Status.OK)
        for holds, reason in reversed(reasons):
            code = jnp.where(holds(pair), reason, code)
        return code

    return status


def count_of(side: str) -> Callable:
    """A function of both tables that counts the significant genes of one of them."""

    def count(pred, real, *, relax=HARD, where=None):
        if side == "pred":
            return significant_count(pred, relax=relax, where=where)
        return lax.stop_gradient(significant_count(real, where=where))

    return count


def energy(pred, real, *, relax, weights, where, valid) -> Float[Array, ""]:
    """The panel's correlation of energy distances."""
    _unweighted(weights)
    return energy_pearson(pred.energy, real.energy, valid=valid)


def energy_status(pred, real, *, weights=None, where=None) -> Int[Array, " perts"]:
    """Why the panel's correlation of energy distances is undefined."""
    perts = real.energy.shape[0]
    alike = lambda side: jnp.isnan(energy_pearson(side.energy, side.energy))
    code = jnp.where(alike(pred), Status.CONSTANT_PREDICTION, Status.OK)
    code = jnp.where(alike(real), Status.CONSTANT_TRUTH, code)
    return jnp.broadcast_to(code, (perts,)) if perts > 1 else jnp.full(perts, Status.TOO_FEW_PERTS)
