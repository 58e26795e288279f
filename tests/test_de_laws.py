"""The laws of `test_laws.py` for the rows that compare differential expression, whose gradients are those of a table.

Rows run in groups, one program a group and shape, and of rows that are one function with another number (how many
genes, which sign, which pool) one stands for all: a program a row would take most of the suite's time.
"""

import dataclasses
import functools as ft
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from de_tables import odd_tables, PERTS, smooth_tables
from helpers import finite_difference

import vcjax
from vcjax.metrics import CATALOGUE, V2


SOFT = 0.3
pytestmark = pytest.mark.slow
ROWS = {name: row for name, row in CATALOGUE.items() if row.needs_de or row.needs_energy}
GATED = {name: row for name, row in V2.items() if row.needs_de}
GROUPS = {
    "lists": ("de_overlap", "de_precision", "de_overlap_adjusted"),
    "sets": (
        *("de_sig_recall", "de_sig_recall_adjusted", "de_precision_adjusted", "de_sig_mcc", "de_sig_jaccard"),
        *("de_nsig_spearman", "de_nsig_counts_real", "de_nsig_counts_pred", "de_lfc_nmae", "pearson_energy"),
    ),
    "ranks": ("de_lfc_spearman_pos", "de_pr_auc", "de_roc_auc"),
    "reach": ("de_direction_sensitivity", "de_direction_reach", "de_direction_reach_unbounded_raw"),
    "directions": (
        *("de_direction_match", "de_model_direction_match", "de_direction_precision", "de_direction_fidelity"),
        *("de_direction_coverage", "de_direction_yield", "de_direction_fidelity_yield"),
        "de_direction_fidelity_yield_raw",
    ),
}
every_group = pytest.mark.parametrize("group", GROUPS)


def stacked(names, pred, real, **options):
    """The values of several rows as (rows, perts); a number for the panel is repeated."""
    perts = real.mean.shape[0]
    return jnp.stack([jnp.broadcast_to(ROWS[name](pred, real, **options), (perts,)) for name in names])


@ft.cache
def compiled(group: str) -> Any:
    return jax.jit(
        lambda pred, real, softness, masks: stacked(
            GROUPS[group], pred, real, relax=vcjax.Relaxation(softness), **masks
        )
    )


def score(group, pred, real, softness=0.0, **masks) -> np.ndarray:
    return np.asarray(compiled(group)(pred, real, jnp.asarray(softness, real.mean.dtype), masks))


def compare(group, ours, theirs, **tolerance):
    for name, a, b in zip(GROUPS[group], np.asarray(ours), np.asarray(theirs), strict=True):
        np.testing.assert_allclose(a, b, err_msg=name, **tolerance)


def test_every_row_is_in_a_group_or_has_a_sibling_in_one():
    stem = re.compile("_top[0-9]+|_pos|_neg|_raw|_unbounded|_universe")
    stems = {stem.sub("", name) for names in GROUPS.values() for name in names}
    alone = {name for name in ROWS if stem.sub("", name) not in stems}
    assert alone == set()
    assert (len(ROWS), len(GATED)) == (42, 41)


def odd_pair(seed):
    """Odd tables in the form of the smooth ones."""
    return tuple(
        dataclasses.replace(odd, energy=fill.energy, de=dataclasses.replace(odd.de, z=fill.de.z, name_order=None))
        for odd, fill in zip(odd_tables(seed), smooth_tables(), strict=True)
    )


@every_group
def test_an_exact_row_is_the_traced_row_at_softness_zero(group):
    # Called without a relaxation only the exact form is traced; with a traced softness it is one branch of two.
    for pred, real in (smooth_tables(), odd_pair(1)):
        eager = stacked(GROUPS[group], pred, real)
        compare(group, score(group, pred, real), eager, rtol=1e-12, atol=1e-14)


@every_group
def test_vmap_equals_loop(group):
    pred, real = smooth_tables()
    batch = [moved(pred, np.random.default_rng(i).normal(0, 0.3, real.mean.shape)) for i in range(3)]
    together = jax.jit(jax.vmap(compiled(group), in_axes=(0, None, None, None)))
    for softness in (0.0, SOFT):
        ours = together(jax.tree.map(lambda *x: jnp.stack(x), *batch), real, jnp.asarray(softness), {})
        for values, side in zip(ours, batch, strict=True):
            compare(group, values, score(group, side, real, softness), rtol=1e-10, atol=1e-12)


def moved(side, step):
    """A side whose fold changes, and with them its p-values, are moved."""
    change = side.de.log2_fold_change + step
    z = jnp.abs(4 * change)
    log_p = vcjax.de.log_two_sided(z)
    de = dataclasses.replace(
        side.de, log2_fold_change=change, log_pvalue=log_p, log_padj=vcjax.de.benjamini_hochberg(log_p), z=z
    )
    return dataclasses.replace(side, de=de)


@every_group
def test_permuting_perturbations_and_genes_permutes_the_values(group):
    pred, real = smooth_tables()
    rng = np.random.default_rng(6)
    perts, genes = real.mean.shape
    p, g = rng.permutation(perts), rng.permutation(genes)
    where_to = np.append(np.argsort(g), -1)  # the last entry is for "none"

    def shuffle(side):
        de = jax.tree.map(lambda x: x[p][:, g], side.de)
        return dataclasses.replace(side, de=de, energy=side.energy[p], targets=jnp.asarray(where_to[side.targets[p]]))

    for softness in (0.0, SOFT):
        before, after = score(group, pred, real, softness), score(group, shuffle(pred), shuffle(real), softness)
        compare(group, after, before[:, p], rtol=1e-9, atol=1e-12)


@every_group
def test_masked_padding_changes_nothing(group):
    pred, real = smooth_tables()
    perts, genes = real.mean.shape
    wide = perts + 2, genes + 5
    rng = np.random.default_rng(7)

    def pad(side):
        put = lambda x, filler: jnp.asarray(filler).astype(x.dtype).at[: x.shape[0], : x.shape[1]].set(x)
        de = jax.tree.map(
            lambda x: put(x, np.full(wide, True) if x.dtype == bool else rng.normal(-9, 3, wide)), side.de
        )
        de = dataclasses.replace(de, log2_fold_change=de.log2_fold_change.at[:, -1].set(jnp.nan))
        return vcjax.Profiles(
            mean=jnp.zeros(wide),
            control=jnp.zeros(wide[1]),
            targets=jnp.full(wide[0], 2).at[:perts].set(side.targets),
            de=de,
            energy=jnp.full(wide[0], 9.0).at[:perts].set(side.energy),
        )

    masks = {"where": jnp.arange(wide[1]) < genes, "valid": jnp.arange(wide[0]) < perts}
    for softness in (0.0, SOFT):
        padded, plain = score(group, pad(pred), pad(real), softness, **masks), score(group, pred, real, softness)
        compare(group, padded[:, :perts], plain, rtol=1e-9, atol=1e-12)
        for name, row in zip(GROUPS[group], padded, strict=True):
            assert ROWS[name].level == "panel" or np.isnan(row[perts:]).all()


@every_group
def test_a_perfect_prediction_gets_the_perfect_value(group):
    _, real = smooth_tables()
    for name, values in zip(GROUPS[group], score(group, real, real), strict=True):
        perfect = ROWS[name].perfect
        if perfect is not None:
            defined = values[~np.isnan(values)]
            assert defined.size > PERTS / 2
            np.testing.assert_allclose(defined, perfect, atol=1e-12, err_msg=name)


def test_gated_rows_give_the_perfect_value_or_nothing():
    _, real = smooth_tables()
    for name, row in GATED.items():
        values = np.asarray(row(real, real))
        if row.perfect is not None:
            np.testing.assert_allclose(values[~np.isnan(values)], row.perfect, atol=1e-12, err_msg=name)


@every_group
def test_float32_is_close_to_float64(group):
    pred, real = smooth_tables(np.float32)
    wider = lambda side: jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, side)
    for softness in (0.0, SOFT):
        single = score(group, pred, real, softness)
        assert single.dtype == np.float32
        double = score(group, wider(pred), wider(real), softness)
        compare(group, single, double, rtol=2e-3 if softness else 3e-6, atol=2e-3 if softness else 3e-6)


@every_group
def test_soft_approaches_hard(group):
    pred, real = smooth_tables()
    hard = score(group, pred, real)
    errors = [np.nanmean(np.abs(score(group, pred, real, s) - hard), axis=1) for s in (0.5, 0.1, 1e-7)]
    for i, name in enumerate(GROUPS[group]):
        if ROWS[name].differentiable != "relaxed":
            assert all(error[i] == 0 for error in errors), name
            continue
        assert errors[0][i] > 1e-5, name  # softness does something
        # Equal adjusted p-values count one half in smooth average precision.
        assert errors[2][i] < (5e-3 if name == "de_pr_auc" else 1e-3), name
        assert errors[2][i] < errors[1][i], name


class Fixed(vcjax.Relaxation):
    """Temperatures that do not depend on the data, so that a finite difference holds them still, too."""

    def temperature(self, gaps, where=None):
        return jnp.full_like(gaps[..., :1], 0.3)

    def _axis_temperature(self, x, where):
        return jnp.full_like(x[..., :1], 0.3)

    def _topk_temperature(self, x, k, softness):
        return jnp.asarray(0.3, x.dtype)


LEAVES = ("log2_fold_change", "log_pvalue", "log_padj", "z")


def leaves_of(side):
    return {name: getattr(side.de, name) for name in LEAVES} | {"energy": side.energy}


def with_leaves(side, leaves):
    de = dataclasses.replace(side.de, **{name: leaves[name] for name in LEAVES})
    return dataclasses.replace(side, de=de, energy=leaves["energy"])


PROJECTION = np.random.default_rng(4).normal(size=PERTS)


@ft.cache
def compiled_gradients(group: str, relaxation: type) -> Any:
    """Projections of the rows of a group, and their gradients by the predicted table."""

    def projected(leaves, pred, real, softness):
        values = stacked(GROUPS[group], with_leaves(pred, leaves), real, relax=relaxation(softness))
        return jnp.sum(jnp.where(jnp.isnan(values), 0, values) * PROJECTION[None, :], axis=1)

    return jax.jit(lambda *args: (projected(*args), jax.jacrev(projected)(*args)))


@every_group
def test_gradients_are_finite_and_there_where_they_are_needed(group):
    pred, real = smooth_tables()
    nothing = jax.tree.map(jnp.zeros_like, pred.de)
    silent = dataclasses.replace(pred, de=dataclasses.replace(nothing, tested=pred.de.tested))
    for case, (side, truth) in {
        "usual": (pred, real),
        "perfect": (real, real),
        "silent": (silent, real),
        "odd": odd_pair(0),
    }.items():
        for softness in (0.0, 0.1, SOFT):
            gradients = compiled_gradients(group, vcjax.Relaxation)(
                leaves_of(side), side, truth, jnp.asarray(softness)
            )[1]
            for i, name in enumerate(GROUPS[group]):
                parts = [np.asarray(gradient[i]) for gradient in gradients.values()]
                assert all(np.isfinite(part).all() for part in parts), (name, case, softness)
                wanted = ROWS[name].differentiable
                if case == "usual" and (softness > 0 or wanted == "almost everywhere") and wanted != "constant":
                    assert max(np.abs(part).max() for part in parts) > 1e-6, (name, softness)


@every_group
def test_gradients_equal_finite_differences(group):
    pred, real = smooth_tables()
    program = compiled_gradients(group, Fixed)
    leaves, softness = leaves_of(pred), jnp.asarray(SOFT)
    rng = np.random.default_rng(8)
    direction = {name: jnp.asarray(rng.normal(size=x.shape)) for name, x in leaves.items()}
    gradients = program(leaves, pred, real, softness)[1]
    along = lambda t: {name: x + t * direction[name] for name, x in leaves.items()}
    for i, name in enumerate(GROUPS[group]):
        numeric = finite_difference(lambda t, i=i: program(along(t), pred, real, softness)[0][i], 0.0, 1.0, 1e-6)
        analytic = sum(float(jnp.sum(g[i] * direction[leaf])) for leaf, g in gradients.items())
        assert analytic == pytest.approx(numeric, rel=2e-5, abs=1e-8), name


@every_group
def test_new_values_and_new_softness_compile_nothing(group):
    pred, real = smooth_tables()
    score(group, pred, real)
    programs = compiled(group)._cache_size()
    for softness in (0.1, 0.5):
        score(group, moved(pred, 0.1 * np.ones(real.mean.shape)), real, softness)
    assert compiled(group)._cache_size() == programs


def test_the_challenge_members_are_losses():
    pred, real = smooth_tables()
    for name in ("sig_jaccard", "direction_fidelity_yield_raw", "direction_reach_raw", "lfc_nmae"):
        loss = vcjax.as_loss(V2[f"de_wilcoxon_{name}"], relax=vcjax.Relaxation(0.2))
        value, gradient = jax.jit(jax.value_and_grad(lambda leaves, loss=loss: loss(with_leaves(pred, leaves), real)))(
            leaves_of(pred)
        )
        sign = -1 if V2[f"de_wilcoxon_{name}"].higher_is_better else 1
        exact = np.asarray(V2[f"de_wilcoxon_{name}"](pred, real))
        assert float(value) == pytest.approx(sign * np.where(np.isnan(exact), 1.0, exact).mean(), abs=1e-12)
        assert sum(float(jnp.abs(g).sum()) for g in gradient.values()) > 0
