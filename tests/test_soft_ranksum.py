"""The differentiable rank-sum test: exact at temperature zero, calibrated above, with the right gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax import de
from vcjax._kernels import AbstractSortedKernel


KERNELS = [vcjax.Laplace(), vcjax.Matern32()]
name = lambda kernel: type(kernel).__name__


def expression(rng, cells, genes, share: float | np.ndarray = 0.4, shift=0.0):
    """log1p-like values of which most are exactly zero."""
    values = rng.gamma(2, 0.5, size=(cells, genes)) + shift
    return np.where(rng.random((cells, genes)) < share, values, 0)


@pytest.fixture
def screen():
    """Two perturbations of 30 cells, 120 control cells, 6 genes: all zero, tied, dense and sparse ones."""
    rng = np.random.default_rng(0)
    cells = np.stack([expression(rng, 30, 6), expression(rng, 30, 6, 0.6, 0.3)])
    control = expression(rng, 120, 6)
    cells[..., 0] = control[:, 0] = 0
    cells[..., 1], control[:, 1] = np.round(cells[..., 1]), np.round(control[:, 1])
    cells[..., 2] += 1
    return cells, control


def mann_whitney(cells, control, continuity=True):
    """The statistic and the p-value of scipy, (perts, genes)."""
    result = scipy.stats.mannwhitneyu(cells, control[None], continuity, axis=1, method="asymptotic")
    return np.asarray(result[0]), np.asarray(result[1])


def engines(control, temperature, kernel: AbstractSortedKernel = vcjax.Laplace()):
    """Every engine as a function of the cells and of a mask."""
    table = de.tabulate_control(control, temperature=temperature, kernel=kernel)
    ordered, raw = de.sort_control(control), jnp.asarray(control)
    exact = {"temperature": temperature, "kernel": kernel}
    return (
        jax.jit(lambda x, where=None: de.soft_rank_sums(x, raw, where, **exact)),
        jax.jit(lambda x, where=None: de.soft_rank_sums(x, ordered, where, **exact)),
        jax.jit(lambda x, where=None: de.soft_rank_sums(x, table, where)),
    )


@pytest.mark.parametrize("prepare", [jnp.asarray, de.sort_control])
def test_temperature_zero_is_the_exact_test(screen, prepare):
    cells, control = screen
    ready = prepare(control)
    exact = jax.jit(lambda x: de.soft_rank_sums(x, ready))
    sums = exact(cells)
    for continuity in (True, False):
        statistic, pvalue = mann_whitney(cells[..., 1:], control[:, 1:], continuity)
        np.testing.assert_array_equal(sums.u()[:, 1:], statistic)
        np.testing.assert_allclose(np.exp(sums.log_pvalue(continuity=continuity))[:, 1:], pvalue, rtol=1e-12)
    np.testing.assert_array_equal(sums.z()[:, 0], 0)  # all tied
    np.testing.assert_array_equal(sums.log_pvalue()[:, 0], 0)
    gradient = jax.grad(lambda x: jnp.sum(exact(x).z()))(jnp.asarray(cells))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=name)
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_smoothed_sums_are_those_of_all_pairs(screen, temperature, kernel):
    cells, control = screen
    pairs = kernel.cdf(jnp.asarray((cells[:, :, None] - control[None, None]) / temperature)).sum((1, 2))
    pooled = np.concatenate([cells, np.broadcast_to(control, (2, *control.shape))], axis=1)
    gaps = jnp.asarray((pooled[:, :, None] - pooled[:, None]) / temperature)
    centred = kernel.cdf(gaps).sum(2) - 75
    variance = 30 * 120 / (150 * 149) * (centred**2).sum(1)
    for engine, (close, variances) in zip(
        engines(control, temperature, kernel), [(1e-11, 1e-11), (1e-11, 1e-11), (2e-4, 1e-2)], strict=True
    ):
        sums = engine(cells)
        np.testing.assert_allclose(sums.u(), pairs, rtol=close)
        np.testing.assert_allclose(sums.variance[:, 1:], variance[:, 1:], rtol=variances)


@pytest.mark.slow
def test_engines_agree_on_masked_cells_whatever_the_padding_holds(screen):
    cells, control = screen
    where = np.random.default_rng(1).random(cells.shape[:2]) < 0.6
    padded = np.where(where[..., None], cells, np.nan)
    exact, *_ = chosen = engines(control, 0.2)
    alone = de.soft_rank_sums(cells[:1][:, where[0]], jnp.asarray(control), temperature=0.2)
    np.testing.assert_allclose(exact(padded, where).z()[0], alone.z()[0], rtol=1e-9, atol=1e-9)
    for engine, close in zip(chosen, (1e-11, 1e-11, 1e-2), strict=True):
        sums = engine(padded, where)
        np.testing.assert_array_equal(sums.z(), engine(np.where(where[..., None], cells, 7), where).z())
        np.testing.assert_allclose(sums.z(), exact(padded, where).z(), rtol=close, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [0, 1, 2], ids=["pooled", "sorted", "tabulated"])
def test_gradient_equals_finite_differences_through_tied_zeros(screen, engine):
    cells, control = screen
    rng = np.random.default_rng(2)
    v, w = rng.normal(size=cells.shape), jnp.asarray(rng.normal(size=(2, 6)))
    # Twice differentiable at ties, so that central differences are exact there to their usual order.
    sums = engines(control, 0.3, vcjax.Matern32())[engine]
    f = lambda x: jnp.sum(w * sums(x).excess)
    assert directional(f, cells, v) == pytest.approx(finite_difference(f, cells, v), rel=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(w * sums(x).log_pvalue()))(jnp.asarray(cells))
    # The scale is a constant: only the excess moves.
    result = sums(cells)
    slope = jax.vmap(jax.vmap(jax.grad(de.log_two_sided)))(result.z())
    moves = jax.grad(lambda x: jnp.sum(w * slope * sums(x).excess / jnp.sqrt(result.variance + 1e-300)))
    expected = jnp.where(result.z()[:, None] != 0, moves(jnp.asarray(cells)), 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_gradient_reaches_the_control_cells_of_the_pooled_engine(screen):
    cells, control = screen
    v = np.random.default_rng(3).normal(size=control.shape)
    exact = {"temperature": 0.3, "kernel": vcjax.Matern32()}
    f = jax.jit(lambda y: jnp.sum(de.soft_rank_sums(cells, y, **exact).excess ** 2))
    assert directional(f, control, v) == pytest.approx(finite_difference(f, control, v), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.1, 0.5])
def test_relabelled_control_cells_keep_the_false_positive_rate(temperature):
    rng = np.random.default_rng(4)
    pool = expression(rng, 360, 1000, share=rng.uniform(0.1, 0.9, 1000))
    cells, control = pool[None, :60], pool[60:]
    chosen = (
        engines(control, temperature)[1:] if temperature else [lambda x: de.soft_rank_sums(x, jnp.asarray(control))]
    )
    for engine in chosen:
        sums = engine(cells)
        assert float(jnp.std(sums.z(continuity=False))) == pytest.approx(1, abs=0.07)
        rate = float(jnp.mean(sums.log_pvalue() < np.log(0.05)))
        assert 0.03 < rate < 0.07


def test_degenerate_groups_have_finite_statistics_and_gradients_in_single_precision():
    dtype = np.float32
    control = np.zeros((40, 3), dtype)
    control[0, 1] = control[:, 2] = 3
    cells = np.zeros((2, 3, 3), dtype)
    cells[1, :, 2] = [3, 100, 1e4]  # far outside the control values
    where = np.asarray([[True, False, False], [False, True, True]])
    for engine in engines(control, 0.1):
        value, gradient = jax.value_and_grad(lambda x, f=engine: jnp.sum(f(x, where).log_pvalue()))(jnp.asarray(cells))
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(gradient))
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient[np.logical_not(where)], 0)


def test_zero_floor_changes_small_values_alone_and_passes_gradients():
    cells = jnp.asarray([[0.0, 0.02, 0.5], [-0.1, 1.0, 0.1]])
    floored = de.zero_floor(cells, 0.1)
    np.testing.assert_array_equal(floored.cells, [[0, 0, 0.5], [0, 1, 0.1]])
    assert float(floored.changed) == pytest.approx(2 / 6)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(de.zero_floor(x, 0.1).cells))(cells), 1)
    assert float(de.default_zero_floor(jnp.asarray([[0.0, 0.4], [2.0, 0.0]]))) == 0.2
    assert float(de.default_zero_floor(jnp.zeros((2, 2)))) == 0


def test_zero_floor_undoes_what_a_decoder_without_zeros_does_to_the_test():
    rng = np.random.default_rng(5)
    control = expression(rng, 400, 200, 0.2) + 0.0
    control[control > 0] += 0.5
    predicted = expression(rng, 100, 200, 0.2)[None]
    predicted[predicted > 0] += 0.5
    jittered = np.where(predicted > 0, predicted, np.abs(rng.normal(0, 0.02, predicted.shape)))
    floor = de.default_zero_floor(control)
    ordered = de.sort_control(control)
    share = jax.jit(lambda cells: jnp.mean((jnp.abs(de.soft_rank_sums(cells, ordered).z()) > 3).astype(float)))
    assert share(jittered) > 0.9
    assert share(predicted) < 0.03
    assert share(de.zero_floor(jittered, floor).cells) == share(predicted)


def test_table_at_softness_zero_is_the_exact_table(screen):
    cells, control = screen
    tested = jnp.asarray([True, True, True, True, True, False])
    table = de.de_table(cells, de.sort_control(control), tested=tested)
    pvalue = np.nan_to_num(mann_whitney(cells, control)[1], nan=1.0)  # scipy calls a gene of ties undefined
    np.testing.assert_allclose(np.exp(table.log_pvalue), pvalue, rtol=1e-12)
    padj = scipy.stats.false_discovery_control(pvalue[:, :5], axis=1)
    np.testing.assert_allclose(np.exp(table.log_padj[:, :5]), padj, rtol=1e-12)
    np.testing.assert_array_equal(table.tested, np.broadcast_to(tested, (2, 6)))
    ratio = (np.expm1(cells).mean(1) + 1e-9) / (np.expm1(control).mean(0) + 1e-9)
    np.testing.assert_allclose(table.log2_fold_change, np.log2(ratio), atol=1e-12)
    geometric = de.de_table(cells, de.sort_control(control), means="geometric", zeros="infinite")
    ratio = np.expm1(cells.mean(1))[:, 1:] / np.expm1(control.mean(0))[1:]
    np.testing.assert_allclose(geometric.log2_fold_change[:, 1:], np.log2(ratio), atol=1e-12)
    np.testing.assert_array_equal(geometric.log2_fold_change[:, 0], 0)


@pytest.mark.parametrize("tabulated", [False, True])
def test_gradient_reaches_the_cells_through_the_soft_significant_set(screen, tabulated):
    cells, control = screen
    cells = np.where(cells > 0, cells + 1e-3, 0)  # off the boundaries between the bins of the detached variance
    rng = np.random.default_rng(6)
    v = rng.normal(size=cells.shape)
    kernel, relax = vcjax.Matern32(), vcjax.Relaxation(0.2, rank_kernel=vcjax.Matern32())
    prepared = de.tabulate_control(control, temperature=0.2, kernel=kernel) if tabulated else de.sort_control(control)
    real = jnp.asarray(rng.random((2, 6)) < 0.5).astype(float)

    @jax.jit
    def soft_jaccard(x):
        member = de.significant(de.de_table(x, prepared, relax=relax), relax=relax)
        shared = jnp.sum(member * real)
        return shared / (jnp.sum(member) + jnp.sum(real) - shared)

    # The scale of the statistic is detached, which moves it by a few per cent of what the cells do.
    assert directional(soft_jaccard, cells, v) == pytest.approx(finite_difference(soft_jaccard, cells, v), rel=0.15)
    assert float(jnp.linalg.norm(jax.grad(soft_jaccard)(jnp.asarray(cells)))) > 1e-4


def test_softness_of_the_table_is_traced(screen):
    cells, control = screen
    prepared, traces = de.sort_control(control), []

    @jax.jit
    def f(relax):
        traces.append(None)
        return de.de_table(cells, prepared, relax=relax).log_pvalue

    np.testing.assert_allclose(f(vcjax.HARD), de.de_table(cells, prepared).log_pvalue, atol=1e-12)
    assert jnp.max(jnp.abs(f(vcjax.Relaxation(0.3)) - f(vcjax.HARD))) > 0.1
    assert len(traces) == 1


def test_cells_are_grouped_and_padded():
    codes = np.asarray([1, 0, -1, 1, 1, 3])
    index, where = de.group_cells(codes, 4)
    assert index.shape == where.shape == (4, 3)
    for code in range(4):
        np.testing.assert_array_equal(np.asarray(index)[code][np.asarray(where)[code]], np.flatnonzero(codes == code))
    with pytest.raises(ValueError, match="number of perturbations"):
        de.group_cells(codes, 3)


def test_what_does_not_fit_is_refused(screen):
    cells, control = screen
    table = de.tabulate_control(control)
    with pytest.raises((ValueError, TypeCheckError)):
        de.soft_rank_sums(cells[0], control)
    with pytest.raises((ValueError, TypeCheckError)):
        de.soft_rank_sums(cells[..., :3], control)
    with pytest.raises((ValueError, TypeCheckError)):
        de.soft_rank_sums(cells, control, np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="own temperature"):
        de.soft_rank_sums(cells, table, temperature=0.1)
    with pytest.raises(ValueError, match="never exact"):
        de.de_table(cells, table)
    with pytest.raises(ValueError, match="temperature"):
        de.tabulate_control(control, temperature=0.0)
    with pytest.raises(ValueError, match="nodes"):
        de.tabulate_control(control, nodes=4)
    with pytest.raises((ValueError, TypeCheckError), match="means"):
        de.de_table(cells, de.sort_control(control), means="mode")  # pyright: ignore[reportArgumentType]
