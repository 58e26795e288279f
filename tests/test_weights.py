"""Weights of genes: the steps, the published recipes, the effective number of genes, cross-fitting."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from jaxtyping import TypeCheckError

from vcjax import de, weights
from vcjax.metrics import mse


SCORES = np.array([[4, 2, 0.5, np.nan]])

# scanpy 1.12.4, rank_genes_groups(method="t-test_overestim_var", reference="rest"): the scores of the groups a, b and c
# of `small_screen`, which has no control cells, in the order of the genes.
SCANPY = np.array(
    [
        [-0.192447, -0.441414, -0.367061, -1.440302, 0.568550, -0.541442],
        [-0.643719, 0.598897, -0.345674, 1.384775, -0.075352, 0.825596],
        [0.990463, -0.090698, 0.816604, 0.177303, -0.339558, -0.172379],
    ]
)


def close(value, expected, atol=6e-7):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def moments_of(cells):
    rows = [(x.mean(0), x.var(0, ddof=1) if len(x) > 1 else 0 * x[0], len(x)) for x in cells]
    return de.Moments(*(jnp.asarray(np.stack(column), float) for column in zip(*rows, strict=True)))


def small_screen():
    cells = np.log1p(np.random.default_rng(11).poisson(3.0, (16, 6))).astype(float)
    return np.split(cells, [5, 12])


def screen(seed=0, perts=5, genes=12):
    rng = np.random.default_rng(seed)
    return [rng.gamma(2, 1, (6 + p, genes)) + (p == np.arange(genes) % perts) for p in range(perts)]


def test_steps_of_a_worked_example():
    scaled = weights.min_max(SCORES)
    close(scaled, [[1, 0.428571, 0, np.nan]])
    squared = weights.power(scaled, 2.0)
    close(squared, [[1, 0.183673, 0, np.nan]])
    normalised = weights.normalise(squared)
    close(normalised, [[0.844828, 0.155172, 0, 0]])
    close(mse(np.array([[1, 2, 3, 4.0]]), np.zeros((1, 4)), weights=normalised), [1.465517])
    close(weights.effective_genes(normalised), [1.355359])


def test_scales():
    close(weights.max_norm(SCORES), [[1, 0.5, 0.125, np.nan]], 1e-15)
    tied = np.array([[3, 1, 3, 0, np.inf]])
    close(weights.rank01(tied), [[2.5 / 3, 1 / 3, 2.5 / 3, 0, np.nan]], 1e-15)
    close(weights.max_norm(np.zeros((1, 3))), 0, 0)
    close(weights.power(np.array([[0.5, 0, np.nan]]), 0.0), [[1, 1, np.nan]], 0)
    close(weights.power(np.array([[4.0, 9], [4, 9]]), np.array([0.5, 2])), [[2, 3], [16, 81]], 1e-12)
    close(np.sum(weights.normalise(SCORES, "sum1"), axis=1), 1, 1e-15)
    close(np.sum(weights.normalise(SCORES, "sumG"), axis=1), 4, 1e-15)
    close(weights.normalise(SCORES, "max"), [[1, 0.5, 0.125, 0]], 1e-15)
    close(weights.normalise(SCORES, "none"), [[4, 2, 0.5, 0]], 0)


def test_degenerate_rows_follow_the_rule():
    flat, zero, none = np.full((1, 3), 2.0), np.zeros((1, 3)), np.full((1, 3), np.nan)
    close(weights.min_max(flat), 0, 0)
    close(weights.min_max(flat, flat="one"), 1, 0)
    close(weights.min_max(zero, flat="one"), 0, 0)
    for row in (zero, none):
        close(weights.normalise(row), 1 / 3, 1e-15)
        close(weights.normalise(row, fallback="nan"), 0, 0)
    close(weights.normalise(np.array([[0, np.nan, 0]])), [[0.5, 0, 0.5]], 1e-15)
    assert np.isnan(weights.effective_genes(zero)[0])


def test_a_masked_target_has_no_weight_and_does_not_set_the_scale():
    scores = np.array([[9.0, 4, 2], [9.0, 4, 2]])
    close(weights.min_max(weights.mask_target(scores, np.array([0, -1]))), [[np.nan, 1, 0], [1, 2 / 7, 0]], 1e-15)
    with pytest.raises((ValueError, TypeCheckError)):
        weights.mask_target(scores, np.array([0]))


def test_scores_equal_those_of_scanpy():
    close(weights.gene_scores(moments_of(small_screen())), np.abs(SCANPY), 2e-6)


def test_leave_one_out_gives_every_other_perturbation_one_part():
    cells = screen()
    loo = weights.leave_one_out(moments_of(cells))
    for p in range(len(cells)):
        others = [x for q, x in enumerate(cells) if q != p]
        mean = np.mean([x.mean(0) for x in others], axis=0)
        variance = np.mean([x.var(0, ddof=1) + (x.mean(0) - mean) ** 2 for x in others], axis=0)
        np.testing.assert_allclose(loo.mean[p], mean, rtol=1e-12)
        np.testing.assert_allclose(loo.variance[p], variance, rtol=1e-11)
        assert loo.cells[p] == sum(map(len, others))
    scores = weights.gene_scores(moments_of(cells), versus="loo", statistic="welch")
    groups = moments_of(cells)
    expected = (groups.mean - loo.mean) / np.sqrt(
        groups.variance / groups.cells[:, None] + loo.variance / loo.cells[:, None]
    )
    np.testing.assert_allclose(scores, np.abs(expected), rtol=1e-11)


def naive_prior(variance, freedom):
    """Smyth's moment estimates for one row, with a root finder in place of Newton's method."""
    e = np.log(variance) - scipy.special.digamma(freedom / 2) + np.log(freedom / 2)
    spread = e.var(ddof=1) - scipy.special.polygamma(1, freedom / 2)
    if spread <= 0:
        return np.inf, variance.mean()
    root: Any = scipy.optimize.brentq(lambda y: scipy.special.polygamma(1, y) - spread, 1e-6, 1e6, xtol=1e-14)
    half = float(root)
    return 2 * half, np.exp(e.mean() + scipy.special.digamma(half) - np.log(half))


@pytest.mark.parametrize("freedom", [4.0, 38.0])
def test_the_prior_of_variances_equals_the_moment_estimates(freedom):
    rng = np.random.default_rng(1)
    prior = 3.0 * 8 / rng.chisquare(8, 4000)  # d0 = 8, s0^2 = 3
    variance = prior * rng.chisquare(freedom, 4000) / freedom
    even = rng.chisquare(freedom, 4000) / freedom  # no more spread than sampling gives, or hardly
    found, scale = weights.fit_prior(jnp.asarray([variance, even]), jnp.full(2, freedom))
    for row, x in enumerate((variance, even)):
        expected = naive_prior(x, freedom)
        if np.isfinite(expected[0]):
            np.testing.assert_allclose([found[row], scale[row]], expected, rtol=1e-8)
        else:
            assert np.isposinf(found[row])
            np.testing.assert_allclose(scale[row], expected[1], rtol=1e-12)
    assert float(found[0]) == pytest.approx(8, rel=0.2)
    assert float(scale[0]) == pytest.approx(3, rel=0.1)
    # Genes without any variance take no part.
    padded = jnp.concatenate([jnp.asarray([variance]), jnp.zeros((1, 50))], axis=1)
    np.testing.assert_allclose(weights.fit_prior(padded, jnp.full(1, freedom))[0], found[:1], rtol=1e-10)


def test_moderated_t_squeezes_the_pooled_variance():
    rng = np.random.default_rng(2)
    scale = rng.gamma(3, 1, 300)
    group, control = rng.normal(0, scale, (4, 300)), rng.normal(0, scale, (9, 300))
    ours = weights.moderated_t(moments_of([group]), moments_of([control]))[0]
    pooled = (3 * group.var(0, ddof=1) + 8 * control.var(0, ddof=1)) / 11
    d0, s0 = naive_prior(pooled, 11.0)
    squeezed = (d0 * s0 + 11 * pooled) / (d0 + 11)
    expected = (group.mean(0) - control.mean(0)) / np.sqrt(squeezed * (1 / 4 + 1 / 9))
    np.testing.assert_allclose(ours, expected, rtol=1e-8)
    plain = np.asarray(scipy.stats.ttest_ind(group, control, axis=0)[0])
    assert np.std(np.asarray(ours)) < np.std(plain)
    still = de.Moments(jnp.ones((1, 3)), jnp.zeros((1, 3)), jnp.full(1, 4.0))
    np.testing.assert_array_equal(weights.moderated_t(still, still), 0)


def test_weights_of_mejia_of_a_screen():
    ours = weights.MEJIA(moments_of(small_screen()), perts="abc")
    score = np.abs(SCANPY)
    low, high = score.min(1, keepdims=True), score.max(1, keepdims=True)
    close(ours.values, ((score - low) / (high - low)) ** 2, 5e-6)
    told = ours.provenance()
    assert (told["recipe"], told["statistic"], told["versus"], told["cells"]) == ("mejia", "t_overestim", "rest", "all")
    assert (told["exponent"], told["target_neff"], told["perts"]) == (2.0, None, ("a", "b", "c"))
    flat = weights.MEJIA.from_scores(np.array([[2.0, 2], [0, 0]])).values
    close(flat, [[1, 1], [0, 0]], 0)


def test_weights_of_miller_ask_for_four_cells():
    cells = screen()
    cells[2] = cells[2][:3]
    ours = weights.MILLER(moments_of(cells))
    reference = weights.MEJIA(moments_of(cells)).values
    close(ours.values[2], 0, 0)
    np.testing.assert_array_equal(np.delete(ours.values, 2, 0), np.delete(reference, 2, 0))
    assert ours.cells == "first half"
    close(weights.MILLER.from_scores(np.full((1, 2), 2.0)).values, 0, 0)


def test_weights_of_scperteval_test_a_half_against_the_whole_of_the_others():
    halves, whole = [x[::2] for x in screen()], screen()
    ours = weights.SCPERTEVAL(moments_of(halves), pool=moments_of(whole)).values
    for p, half in enumerate(halves):
        rest = np.concatenate(whole[:p] + whole[p + 1 :])
        error = half.var(0, ddof=1) / len(half) + rest.var(0, ddof=1) / len(rest)
        t = np.abs(half.mean(0) - rest.mean(0)) / np.sqrt(error)
        close(ours[p], ((t - t.min()) / (t.max() - t.min())) ** 2, 1e-12)
    close(weights.SCPERTEVAL.from_scores(np.full((1, 4), 2.0)).values, 1, 0)


def test_weights_of_sbb_have_the_effective_number_asked_for():
    recipe = dataclasses.replace(weights.SBB, target_neff=4.0)
    ours = recipe(moments_of(screen()))
    close(weights.effective_genes(ours), 4, 1e-9)
    close(np.max(ours.values, axis=1), 1, 0)
    assert (ours.exponent, ours.target_neff) == (None, 4.0)
    close(recipe.from_scores(np.zeros((1, 6))).values, 1, 0)


def test_weights_of_echoes_of_a_worked_example():
    ours = weights.ECHOES.from_scores(np.array([[3, -20, 0.5, 1]]), targets=np.array([3])).values
    close(ours, [[0.349550, 3.637356, 0.013094, 0]])
    control = moments_of([np.random.default_rng(3).gamma(2, 1, (30, 12))])
    made = weights.ECHOES(moments_of(screen()), control=control, targets=np.array([0, 1, -1, 2, 3]))
    close(np.sum(made.values, axis=1), 12, 1e-12)
    assert (made.values[0, 0], made.values[4, 3]) == (0, 0)
    assert made.target_masked
    with pytest.raises(ValueError, match="needs `targets`"):
        weights.ECHOES(moments_of(screen()), control=control)
    with pytest.raises(ValueError, match="needs `control`"):
        weights.ECHOES(moments_of(screen()), targets=np.array([0, 1, -1, 2, 3]))


@pytest.mark.parametrize("recipe", [weights.VCPI, weights.VCPI_POOLED], ids=lambda r: r.name)
def test_weights_of_vcpi_have_a_floor_of_variance(recipe):
    rng = np.random.default_rng(4)
    cells = [rng.gamma(2, 1, (n, 8)) for n in (2, 3, 1, 4)]
    ours = recipe(moments_of(cells)).values
    every = np.concatenate(cells)
    total = every.var(0, ddof=1)
    for p, own in enumerate(cells):
        rest = np.concatenate(cells[:p] + cells[p + 1 :])
        v, v_rest = (x.var(0, ddof=1) if len(x) > 1 else 0 * total for x in (own, rest))
        if recipe is weights.VCPI:
            v, v_rest = np.maximum(v, total), np.maximum(v_rest, total)
        else:
            v = v_rest = total
        t = np.abs(own.mean(0) - rest.mean(0)) / np.sqrt(v / len(own) + v_rest / len(rest))
        w = ((t - t.min()) / (t.max() - t.min())) ** 2
        close(ours[p], w / w.sum(), 1e-12)
    close(recipe.from_scores(np.full((1, 5), 3.0)).values, 0.2, 1e-15)


def test_exponents_give_the_target_and_keep_their_bounds():
    scores = np.random.default_rng(5).gamma(1, 1, (4, 200))
    scores[3, 150:] = 0
    find: Any = jax.jit(weights.exponent_for, static_argnames="shared")
    for target in (1.5, 20.0, 100.0):
        powers = find(scores, target)
        close(weights.effective_genes(weights.power(scores, powers)), target, 1e-6)
    assert find._cache_size() == 1
    together = find(scores, 20.0, shared=True)
    assert np.ptp(together) == 0
    number = weights.effective_genes(weights.power(scores / scores.max(1, keepdims=True), together))
    assert float(jnp.mean(number)) == pytest.approx(20, abs=1e-6)
    assert np.ptp(number) > 1
    np.testing.assert_array_equal(find(scores, 200.0), 0)
    np.testing.assert_array_equal(find(scores, 1.0), 128)
    # Between the positive scores and all genes: equal weights of the positive ones.
    close(weights.effective_genes(weights.power(scores, find(scores, 180.0)))[3], 150, 1e-6)
    single = find(jnp.asarray(scores, jnp.float32), 20.0)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, find(scores, 20.0), rtol=1e-4)


def test_crossfit_weights_of_a_half_come_from_the_other():
    cells = screen()
    first, second = (moments_of([x[k::2] for x in cells]) for k in (0, 1))
    for_first, for_second = weights.crossfit(weights.MEJIA, first, second, perts="abcde")
    np.testing.assert_array_equal(for_first.values, weights.MEJIA(second).values)
    np.testing.assert_array_equal(for_second.values, weights.MEJIA(first).values)
    assert for_first.cells == for_second.cells == "crossfit"
    control = moments_of([np.random.default_rng(6).gamma(2, 1, (9, 12)), np.random.default_rng(7).gamma(2, 1, (9, 12))])
    one, other = (jax.tree.map(lambda x, k=k: x[k : k + 1], control) for k in (0, 1))
    targets = np.zeros(5, int)
    by_control = weights.crossfit(weights.ECHOES, first, second, controls=(one, other), targets=targets)
    np.testing.assert_array_equal(by_control[0].values, weights.ECHOES(second, control=other, targets=targets).values)
    with pytest.raises(ValueError, match="one shape"):
        weights.crossfit(weights.MEJIA, first, jax.tree.map(lambda x: x[:2], second))


def test_weights_of_noise_alone_are_right_on_the_other_half():
    # Without any effect, weights made of the scored half pick the genes where it is off by chance.
    rng = np.random.default_rng(8)
    first, second = (moments_of(list(rng.normal(size=(30, 20, 60)))) for _ in range(2))
    expectation = jnp.zeros(first.mean.shape)
    crossed, _ = weights.crossfit(weights.MEJIA, first, second)
    naive = weights.MEJIA(first)
    assert float(mse(expectation, first.mean, weights=crossed.values).mean()) == pytest.approx(1 / 20, rel=0.1)
    assert float(mse(expectation, first.mean, weights=naive.values).mean()) > 1.5 / 20


@pytest.mark.parametrize("name", weights.RECIPES)
def test_no_gradient_flows_from_the_weights_into_the_truth(name):
    groups, control = moments_of(screen()), moments_of([np.random.default_rng(3).gamma(2, 1, (30, 12))])
    targets = np.arange(5)

    @jax.jit
    def total(mean, control_mean):
        side = dataclasses.replace(groups, mean=mean)
        made = weights.RECIPES[name](side, control=dataclasses.replace(control, mean=control_mean), targets=targets)
        return jnp.sum(made.values * np.arange(12.0)[None, :])

    for gradient in jax.grad(total, argnums=(0, 1))(groups.mean, control.mean):
        np.testing.assert_array_equal(gradient, 0)
    assert float(total(groups.mean, control.mean)) > 0


def test_one_row_for_all_is_the_mean_of_the_rows():
    made = weights.Weights(jnp.asarray([[1.0, 3], [2, 0], [0, 0]]), "own", perts=("a", "b", "c"))
    shared = weights.shared_weights(made, cells="train")
    close(shared.values, [[(0.25 + 1) / 2, 0.75 / 2]], 1e-15)
    assert (shared.cells, shared.perts) == ("train", ("a", "b", "c"))
    assert shared.take(["x", "y"]) is shared
    nothing = weights.shared_weights(dataclasses.replace(made, values=jnp.zeros((3, 2))))
    np.testing.assert_array_equal(nothing.values, 0)


def test_rows_are_taken_by_name():
    made = weights.MEJIA(moments_of(screen()), perts="abcde")
    part = made.take(["d", "a"])
    np.testing.assert_array_equal(part.values, made.values[np.array([3, 0])])
    assert part.perts == ("d", "a")
    assert set(part.pool) == set("abcde")  # each row was tested against all the others
    with pytest.raises(ValueError, match="no weights for 1"):
        made.take(["a", "z"])


def test_what_does_not_fit_is_refused():
    groups = moments_of(screen())
    with pytest.raises((ValueError, TypeCheckError)):
        weights.gene_scores(groups, statistic="wilcoxon")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`pool`"):
        weights.gene_scores(groups, pool=jax.tree.map(lambda x: x[:2], groups))
    with pytest.raises(ValueError, match="other group"):
        weights.leave_one_out(jax.tree.map(lambda x: x[:1], groups))
    with pytest.raises(ValueError, match="not both"):
        dataclasses.replace(weights.MEJIA, target_neff=3.0)
    with pytest.raises(ValueError, match="one row"):
        weights.MEJIA(groups, perts="abc")
    with pytest.raises((ValueError, TypeCheckError)):
        weights.normalise(SCORES, "sum")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError)):
        weights.normalise(SCORES, fallback="zero")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError)):
        weights.min_max(SCORES, flat="two")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError)):
        weights.moderated_t(groups, jax.tree.map(lambda x: x[:2], groups))
