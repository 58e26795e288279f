import functools as ft
import math
from typing import Any

import de_brute as brute
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from de_tables import odd_tables, PERTS, smooth_tables
from jaxtyping import TypeCheckError

import vcjax
from vcjax import metrics
from vcjax.metrics import CATALOGUE, CELL_EVAL, Status, V2


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly():
    """Each program runs a few times on tiny arrays: optimising it would take most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


TABLES = {"ours": CATALOGUE, "v2": V2, "v1": CELL_EVAL}
SEEDS = (0, 1, 2)


@ft.cache
def compiled(convention):
    rows = {name: row for name, row in TABLES[convention].items() if row.needs_de}

    def all_rows(pred, real):
        ok = jnp.zeros(real.mean.shape[0], jnp.int32)
        codes = {name: ok if row.status is None else row.status(pred, real) for name, row in rows.items()}
        return {name: row(pred, real) for name, row in rows.items()}, codes

    return jax.jit(all_rows)


def suffix(row):
    return row.v2.removeprefix("de_wilcoxon_")


def expected(convention, pred, real):
    single = convention == "v1"
    used = np.asarray(pred.de.log_padj)[np.asarray(pred.de.tested)]
    smallest = float(np.min(used[used >= math.log(5e-324)]))
    rows = []
    for p in range(real.mean.shape[0]):
        sides = tuple(brute.Side(side.de, p, single=single) for side in (pred, real))
        options = {
            "ours": {"ties": "share"},
            "v2": {"ties": "position", "floor": "min_nonzero", "smallest": smallest, "unknown": "largest"},
            "v1": {"ties": "position", "floor": "clip", "unknown": "largest"},
        }[convention]
        values = brute.metrics_of(sides[0], sides[1], int(real.targets[p]), **options)
        rows.append(brute.gated(values, sides[0], sides[1]) if convention == "v2" else values)
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]}


@pytest.mark.slow
@pytest.mark.parametrize("convention", TABLES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_metric_equals_its_definition_gene_by_gene(convention, seed):
    pred, real = odd_tables(seed)
    values, _ = compiled(convention)(pred, real)
    wanted = expected(convention, pred, real)
    compared = 0
    for name, row in TABLES[convention].items():
        if row.needs_de and row.level == "perturbation":
            np.testing.assert_allclose(values[name], wanted[suffix(row)], rtol=1e-12, atol=1e-14, err_msg=name)
            compared += 1
    assert compared == {"ours": 40, "v2": 40, "v1": 17}[convention]


@pytest.mark.parametrize("ties", ["share", "position"])
def test_short_tops_equal_their_definition(ties):
    pred, real = odd_tables(3)
    for k in (1, 3, 7):
        ours = (
            metrics.top_overlap(pred.de, real.de, k=k, ties=ties),
            metrics.top_precision(pred.de, real.de, k=k, ties=ties),
        )
        for p in range(PERTS):
            left, right = (brute.Side(side.de, p) for side in (pred, real))
            for values, side in zip(ours, (right, left), strict=True):
                wanted = brute.agreement(left, right, min(k, len(side.called)), ties)
                assert float(values[p]) == pytest.approx(wanted, abs=1e-14), (k, p)


@pytest.mark.parametrize("convention", TABLES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_value_is_undefined_exactly_where_its_status_says_so(convention, seed):
    values, codes = compiled(convention)(*odd_tables(seed))
    for name, value in values.items():
        undefined = np.isnan(np.broadcast_to(value, PERTS))
        np.testing.assert_array_equal(undefined, np.asarray(codes[name]) != Status.OK, err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_correlation_of_counts_equals_scipy_over_perturbations_with_a_significant_gene(seed):
    pred, real = odd_tables(seed)
    counts = [np.asarray(metrics.significant_count(side.de)) for side in (pred, real)]
    part = counts[1] > 0
    wanted = brute.rank_correlation(list(counts[0][part]), list(counts[1][part]))
    for convention, name in (("ours", "de_nsig_spearman"), ("v2", "de_wilcoxon_nsig_spearman")):
        assert float(compiled(convention)(pred, real)[0][name]) == pytest.approx(wanted, abs=1e-14)


def changed(side, **fields):
    import dataclasses

    fields = {name: jnp.asarray(value) for name, value in fields.items()}
    return dataclasses.replace(side, de=dataclasses.replace(side.de, **fields))


def test_without_any_significant_gene_the_correlation_of_counts_follows_its_source():
    pred, real = odd_tables(0)
    real = changed(real, log_padj=jnp.zeros_like(real.de.log_padj))
    assert np.isnan(compiled("ours")(pred, real)[0]["de_nsig_spearman"])
    assert compiled("v1")(pred, real)[0]["de_spearman_sig"] == 1
    values, codes = compiled("v2")(pred, real)
    assert np.isnan(values["de_wilcoxon_nsig_spearman"])
    assert (np.asarray(codes["de_wilcoxon_nsig_spearman"]) == Status.NO_SIGNIFICANT_GENES).all()


def test_equal_predicted_counts_are_charged_by_v2_alone():
    pred, real = odd_tables(0)
    pred = changed(pred, log_padj=jnp.zeros_like(pred.de.log_padj))
    assert compiled("v2")(pred, real)[0]["de_wilcoxon_nsig_spearman"] == -1
    assert np.isnan(compiled("ours")(pred, real)[0]["de_nsig_spearman"])
    assert np.isnan(compiled("v1")(pred, real)[0]["de_spearman_sig"])


def single(change, padj, **fields):
    """A table of one perturbation."""
    log_padj = jnp.log(jnp.asarray([padj], float))
    return vcjax.DETable(jnp.asarray([change], float), log_padj, log_padj, jnp.ones((1, len(padj)), bool), **fields)


def test_depth_recovers_after_a_miss():
    # Nine of ten right, the miss second: the share is 9/10 at depth ten, and below 0.9 from depth two to nine.
    change = [1.0] * 10
    guess = [1.0, -1.0, *[1.0] * 8]
    real, pred = single(change, [0.001] * 10), single(guess, list(np.linspace(0.001, 0.01, 10)))
    assert metrics.direction_reach(pred, real, purity=0.9)[0] == 1
    assert metrics.direction_sensitivity(pred, real)[0] == pytest.approx(0.1)


def test_a_p_value_of_alpha_is_not_significant():
    table = single([1.0, 1.0, 1.0], [0.05, 0.0499999, 0.0])
    assert metrics.significant_count(table)[0] == 2
    assert metrics.significant_count(table, alpha=0.01)[0] == 1


def test_tied_tops_are_shared_or_taken_in_order():
    real = single([3.0, 2.0, 2.0, 1.0], [0.01, 0.01, 0.01, 0.01])
    pred = single([3.0, 1.0, 2.0, 2.0], [0.01, 0.01, 0.01, 0.01])
    # The top two: {0, 1 or 2} against {0, 2 or 3}.
    assert metrics.top_overlap(pred, real, k=2)[0] == pytest.approx((1 + 0.25) / 2)
    assert metrics.top_overlap(pred, real, k=2, ties="position")[0] == pytest.approx(0.5)


def test_floors_of_p_values_of_zero():
    # A positive at log p = -800 and a negative at -900: float64 holds both as 0.
    log_padj = jnp.asarray([[-800.0, -900.0, -5.0, -1.0], [-30.0, -1.0, -1.0, -1.0]])
    change = jnp.ones_like(log_padj)
    pred = vcjax.DETable(change, log_padj, log_padj, jnp.ones(change.shape, bool))
    real_padj = jnp.asarray([[-9.0, 0.0, -9.0, 0.0]] * 2)
    real = vcjax.DETable(change, real_padj, real_padj, pred.tested)
    auc = lambda floor: float(metrics.roc_auc(pred, real, floor=floor)[0])
    assert auc("none") == pytest.approx(2 / 4)
    for floor in ("preserve", "min_nonzero", "replace_zero", "clip"):
        assert auc(floor) == pytest.approx(2.5 / 4), floor
    # What underflows becomes the smallest of the panel, exp(-30), and so ties with a gene at -20 only if that is lower.
    shifted = vcjax.DETable(change, log_padj, log_padj.at[0, 2].set(-40.0), pred.tested)
    ranked = lambda floor: float(metrics.roc_auc(shifted, real, floor=floor)[0])
    assert ranked("min_nonzero") == pytest.approx(3 / 4)  # all three tie at -40
    assert ranked("clip") == pytest.approx(3 / 4)
    assert ranked("preserve") == pytest.approx(2.5 / 4)
    with pytest.raises((ValueError, TypeCheckError), match="floor"):
        metrics.roc_auc(pred, real, floor="none of these")  # pyright: ignore[reportArgumentType]


def test_padding_takes_no_part_in_the_smallest_p_value():
    pred, real = odd_tables(0)
    padded = changed(pred, log_padj=pred.de.log_padj.at[-1].set(-700.0))
    valid = jnp.arange(PERTS) < PERTS - 1
    row = V2["de_wilcoxon_pr_auc"]
    np.testing.assert_array_equal(row(padded, real, valid=valid)[:-1], row(pred, real, valid=valid)[:-1])


def test_energy_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2, 1, (2, 8))
    assert float(metrics.energy_pearson(a, b)) == pytest.approx(np.corrcoef(a, b)[0, 1])
    valid = np.arange(8) < 5
    assert float(metrics.energy_pearson(a, b, valid=valid)) == pytest.approx(np.corrcoef(a[:5], b[:5])[0, 1])
    assert np.isnan(metrics.energy_pearson(a[:1], b[:1]))
    assert np.isnan(metrics.energy_pearson(np.ones(4), b[:4]))
    with pytest.raises((ValueError, TypeCheckError), match="one number a perturbation|pred"):
        metrics.energy_pearson(a, b[:3])


def test_what_a_metric_needs_and_what_it_refuses():
    pred, real = smooth_tables()
    bare = real.with_mean(real.mean)
    with pytest.raises(ValueError, match="predicted profiles have no table"):
        CATALOGUE["de_overlap"](bare, real)
    with pytest.raises(ValueError, match="measured profiles have no table"):
        CATALOGUE["de_overlap"](pred, bare)
    with pytest.raises(ValueError, match="have none"):
        CATALOGUE["pearson_energy"](bare, real)
    with pytest.raises(ValueError, match="no gene weights"):
        CATALOGUE["de_overlap"](pred, real, weights=jnp.ones(real.mean.shape[1]))
    short = jax.tree.map(lambda x: x[:-1], pred.de)
    with pytest.raises((ValueError, TypeCheckError), match="one shape|real"):
        metrics.significant_recall(short, real.de)
    with pytest.raises((ValueError, TypeCheckError), match="where"):
        metrics.significant_recall(pred.de, real.de, where=jnp.ones(3, bool))
    options: dict[str, Any]
    for options, match in (({"alpha": 1.0}, "alpha"), ({"k": 0}, "`k`"), ({"ties": "random"}, "ties")):
        with pytest.raises((ValueError, TypeCheckError), match=match):
            metrics.top_overlap(pred.de, real.de, **options)
    with pytest.raises((ValueError, TypeCheckError), match="sign"):
        metrics.fold_change_spearman(pred.de, real.de, sign="sideways")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError), match="pool"):
        metrics.direction_sensitivity(pred.de, real.de, pool="some")  # pyright: ignore[reportArgumentType]
