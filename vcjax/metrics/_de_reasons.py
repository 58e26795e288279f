"""Why metrics of differential expression are undefined.

Each reason is a condition on a pair of tables and its status code. Conditions that read the measured side alone also
serve as gates: which perturbations give a metric enough to go by, whatever is predicted.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._de_direction import has_direction
from ._de_fold_change import changed_genes, in_order, measurable_genes, Sign, Unknown
from ._de_pair import Pair
from ._status import Status


Reason = tuple[Callable[[Pair], Bool[Array, "..."]], Status]

LEAST = 10  # genes, or perturbations, that a gate of cell-eval2 0.20.0 asks for


def _empty(member) -> Bool[Array, " perts"]:
    return jnp.sum(member, axis=1) == 0


def _few(genes) -> Bool[Array, " perts"]:
    return jnp.sum(genes, axis=1) < LEAST


def _pointed(pair: Pair) -> Bool[Array, "perts genes"]:
    """Measured significant genes with a direction."""
    return has_direction(pair) & (pair.truth > 0)


def _judged(pair: Pair) -> Bool[Array, "perts genes"]:
    """Predicted calls with a measured direction."""
    return has_direction(pair) & (pair.called > 0)


def _all(member, among) -> Bool[Array, " perts"]:
    return jnp.sum(member > 0, axis=1) == jnp.sum(among, axis=1)


def _either(pair: Pair) -> Bool[Array, "perts genes"]:
    return pair.kept & (pair.pred.tested | pair.real.tested)


def _alike(x, where) -> Bool[Array, " rows"]:
    """Whether the entries of each row that count and are defined are all equal, or fewer than two."""
    where = where & ~jnp.isnan(x)
    largest = jnp.max(jnp.where(where, x, -jnp.inf), axis=1)
    smallest = jnp.min(jnp.where(where, x, jnp.inf), axis=1)
    return ~(largest > smallest)


def _equal_sizes(pair: Pair, member) -> Bool[Array, ""]:
    """Whether all perturbations with a measured significant gene have as many members."""
    return _alike(jnp.sum(member, axis=1)[None, :], ~_empty(pair.truth)[None, :])[0]


def _measurable_change(pair: Pair):
    return jnp.where(measurable_genes(pair), jnp.abs(pair.real.log2_fold_change), 0)


def _significant_perts(pair: Pair):
    return jnp.sum(~_empty(pair.truth))


# Of the measured side alone.
NO_SIGNIFICANT: Reason = (lambda pair: _empty(pair.truth), Status.NO_SIGNIFICANT_GENES)
FEW_SIGNIFICANT: Reason = (lambda pair: _few(pair.truth > 0), Status.TOO_FEW_GENES)
ALL_MEASURED: Reason = (lambda pair: _all(pair.truth, pair.real.tested), Status.ONE_CLASS)
ONE_LABEL: Reason = (lambda pair: _empty(pair.truth) | _all(pair.truth, pair.real.tested), Status.ONE_CLASS)
NO_DIRECTION: Reason = (lambda pair: _empty(_pointed(pair)) & ~_empty(pair.truth), Status.NO_DIRECTION)
FEW_DIRECTIONS: Reason = (lambda pair: _few(has_direction(pair)), Status.TOO_FEW_GENES)
FEW_CHANGES: Reason = (
    lambda pair: _few(pair.real.tested & ~jnp.isnan(pair.real.log2_fold_change)),
    Status.TOO_FEW_GENES,
)
FEW_MEASURABLE: Reason = (lambda pair: _few(measurable_genes(pair)), Status.TOO_FEW_GENES)
NO_CHANGE: Reason = (lambda pair: _empty(_measurable_change(pair)), Status.ZERO_TRUTH)
NOBODY: Reason = (lambda pair: _significant_perts(pair) == 0, Status.NO_SIGNIFICANT_GENES)
ONE_PERT: Reason = (lambda pair: _significant_perts(pair) == 1, Status.TOO_FEW_PERTS)
FEW_PERTS: Reason = (lambda pair: _significant_perts(pair) < LEAST, Status.TOO_FEW_PERTS)
EQUAL_COUNTS: Reason = (
    lambda pair: _equal_sizes(pair, pair.truth) & (_significant_perts(pair) > 0),
    Status.CONSTANT_TRUTH,
)

# Of both sides.
ALL_SIGNIFICANT: Reason = (lambda pair: _all(pair.truth, _either(pair)), Status.ONE_CLASS)
ALL_CALLED: Reason = (lambda pair: _all(pair.called, _either(pair)), Status.ONE_CLASS)
NOT_SHARED: Reason = (lambda pair: _empty((pair.truth > 0) & pair.pred.tested), Status.MISSING)
NO_CALLS: Reason = (lambda pair: _empty(pair.called), Status.NO_CALLS)
NO_SHARED_CALLS: Reason = (lambda pair: _empty((pair.called > 0) & pair.real.tested), Status.NO_CALLS)
NOTHING_JUDGED: Reason = (lambda pair: _empty(_judged(pair)), Status.NO_CALLS)
SILENT: Reason = (lambda pair: _empty(_judged(pair)) & ~_empty(pair.truth), Status.NO_CALLS)
NO_GENES: Reason = (lambda pair: _empty(pair.truth) & _empty(_judged(pair)), Status.NO_SIGNIFICANT_GENES)
EQUAL_CALLS: Reason = (
    lambda pair: _equal_sizes(pair, pair.called) & (_significant_perts(pair) > 0),
    Status.CONSTANT_PREDICTION,
)


def ranking_gate(sign: Sign) -> tuple[Reason, ...]:
    """Too few significant genes that go that way, or all with one fold change."""
    genes = lambda pair: changed_genes(pair, sign)
    return _none_change(sign), (lambda pair: _few(genes(pair)), Status.TOO_FEW_GENES), _change_alike(sign)


def ranking_reasons(sign: Sign, unknown: Unknown) -> tuple[Reason, ...]:
    """Why a rank correlation of fold changes is undefined."""
    genes = lambda pair: changed_genes(pair, sign)
    no_number = lambda table, pair: jnp.any(jnp.isnan(table.log2_fold_change) & genes(pair), axis=1)
    alike = lambda pair: _alike(in_order(pair.pred.log2_fold_change, genes(pair)), genes(pair))
    guessed = (lambda pair: no_number(pair.pred, pair), Status.NOT_FINITE)
    return (
        _none_change(sign),
        _change_alike(sign),
        (lambda pair: no_number(pair.real, pair), Status.NOT_FINITE),
        *((guessed,) if unknown == "undefined" else ()),
        (alike, Status.CONSTANT_PREDICTION),
    )


def _none_change(sign: Sign) -> Reason:
    return lambda pair: _empty(changed_genes(pair, sign)), Status.NO_SIGNIFICANT_GENES


def _change_alike(sign: Sign) -> Reason:
    return lambda pair: _alike(pair.real.log2_fold_change, changed_genes(pair, sign)), Status.CONSTANT_TRUTH
