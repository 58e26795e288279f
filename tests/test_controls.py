"""Controls of known worth, on arrays of cells and profiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import analytic_noise, Profiles, pseudobulk
from vcjax.calibration import (
    bootstrap_cells,
    Control,
    control_mean,
    ControlSet,
    empirical_bayes_duplicate,
    interpolated_duplicate,
    leave_one_out_mean,
    sparse_mean,
    split_cells,
    train_mean,
)
from vcjax.de import benjamini_hochberg, Moments, rest_of, welch_test
from vcjax.metrics import CATALOGUE


refused = (ValueError, TypeCheckError)


def truth(perts=4, genes=5):
    rng = np.random.default_rng(0)
    return Profiles(
        jnp.asarray(rng.normal(size=(perts, genes))),
        jnp.asarray(rng.normal(size=genes)),
        noise=jnp.asarray(rng.gamma(2, 0.1, perts)),
        control_noise=jnp.asarray(0.01),
        targets=jnp.arange(perts),
    )


def test_the_control_has_no_effect_at_all():
    real = truth()
    nothing = control_mean(real)
    np.testing.assert_array_equal(nothing.mean, np.tile(real.control, (4, 1)))
    np.testing.assert_array_equal(nothing.noise, np.full(4, 0.01))
    assert float(jnp.mean(CATALOGUE["pds_l1"](nothing, real))) == 0.5
    assert np.isnan(CATALOGUE["delta_pearson"](nothing, real)).all()
    by_gene = Profiles(real.mean, real.control, control_noise=jnp.arange(5.0))
    np.testing.assert_array_equal(control_mean(by_gene).noise, np.tile(np.arange(5.0), (4, 1)))
    assert control_mean(Profiles(real.mean, real.control)).noise is None


def test_means_weigh_perturbations_or_cells_alike():
    rng = np.random.default_rng(1)
    mean, cells = rng.normal(size=(5, 3)), np.asarray([3, 1, 7, 2, 9])
    np.testing.assert_allclose(train_mean(mean), mean.mean(0), rtol=1e-14)
    np.testing.assert_allclose(train_mean(mean, cells), np.average(mean, axis=0, weights=cells), rtol=1e-14)
    for weights, given in ((np.ones(5), None), (cells, cells)):
        others = [np.average(np.delete(mean, p, 0), axis=0, weights=np.delete(weights, p)) for p in range(5)]
        np.testing.assert_allclose(leave_one_out_mean(mean, given), others, rtol=1e-13)


def test_the_mean_of_others_in_single_precision_survives_a_large_common_profile():
    rng = np.random.default_rng(2)
    mean = 1000 + rng.normal(size=(300, 4))
    exact = (mean.sum(0) - mean) / 299
    ours = leave_one_out_mean(mean.astype(np.float32))
    np.testing.assert_allclose(ours, exact, atol=2e-4)


def test_without_others_there_is_no_mean():
    assert np.isnan(leave_one_out_mean(np.ones((1, 3)))).all()
    assert np.isnan(train_mean(np.ones((2, 3)), np.zeros(2))).all()
    gradient = jax.grad(lambda x: jnp.nansum(leave_one_out_mean(x)))(jnp.ones((1, 3)))
    assert np.isfinite(gradient).all()
    with pytest.raises(refused, match="cells"):
        train_mean(np.ones((2, 3)), np.ones(3))


def test_an_interpolated_duplicate_is_the_duplicate_where_it_found_something():
    rng = np.random.default_rng(3)
    duplicate, mean = rng.normal(size=(2, 4)), rng.normal(size=(2, 4))
    padj = np.asarray([[0, 1, 0.25, np.nan], [1e-300, 0.5, 0.999, 1]])
    with np.errstate(divide="ignore"):
        ours = np.asarray(interpolated_duplicate(duplicate, mean, np.log(padj)))
    a = 1 - np.nan_to_num(padj, nan=1.0)
    np.testing.assert_allclose(ours, a * duplicate + (1 - a) * mean, rtol=1e-13)
    assert ours[0, 0] == duplicate[0, 0]
    assert ours[0, 3] == mean[0, 3]
    one = interpolated_duplicate(duplicate, mean[0], np.zeros((2, 4)))
    np.testing.assert_allclose(one, np.tile(mean[0], (2, 1)), rtol=1e-14)
    with pytest.raises(refused):
        interpolated_duplicate(duplicate, mean[:, :3], np.zeros((2, 4)))
    with pytest.raises(refused):
        interpolated_duplicate(duplicate, mean, np.zeros((2, 3)))


def test_shrinkage_follows_its_formula():
    rng = np.random.default_rng(4)
    duplicate, mean, noise = rng.normal(size=(3, 6)), rng.normal(size=6), rng.gamma(2, 0.2, (3, 6))
    tau2 = np.maximum(((duplicate - mean) ** 2 - noise).mean(1, keepdims=True), 0)
    expected = mean + tau2 / (tau2 + noise) * (duplicate - mean)
    np.testing.assert_allclose(empirical_bayes_duplicate(duplicate, mean, noise), expected, rtol=1e-12)
    drowned = empirical_bayes_duplicate(duplicate, mean, np.full((3, 6), 100.0))
    np.testing.assert_allclose(drowned, np.tile(mean, (3, 1)), rtol=1e-14)
    np.testing.assert_allclose(empirical_bayes_duplicate(duplicate, mean, np.zeros((3, 6))), duplicate, rtol=1e-14)
    w, v = jnp.asarray(rng.normal(size=(3, 6))), rng.normal(size=(3, 6))
    f = lambda x: jnp.sum(w * empirical_bayes_duplicate(x, mean, noise))
    assert directional(f, duplicate, v) == pytest.approx(finite_difference(f, duplicate, v), rel=1e-6)


def test_halves_are_disjoint_and_of_one_depth():
    groups = jnp.asarray([2, 0, 0, -1, 1, 0, 2, 0, 0, 7, 2, 2])
    seen = set()
    for seed in range(20):
        first, second = (np.asarray(x) for x in jax.jit(split_cells, static_argnums=1)(groups, 3, jax.random.key(seed)))
        assert not np.any(first & second)
        for half in (first, second):
            assert [int(half[np.asarray(groups) == g].sum()) for g in range(3)] == [2, 0, 2]
            assert not half[[3, 9]].any()
        seen.add(tuple(first))
    assert len(seen) > 10


def test_a_resample_stays_in_its_group_and_has_the_error_of_a_mean():
    groups = jnp.asarray(np.repeat([1, 0, 3, 5], [40, 10, 1, 3]))
    rows = np.asarray(bootstrap_cells(groups, 4, jax.random.key(0)))
    np.testing.assert_array_equal(np.asarray(groups)[rows], groups)
    np.testing.assert_array_equal(rows[51:], [51, 52, 53])
    cells = np.random.default_rng(5).normal(size=(54, 1))
    draw = jax.jit(lambda key: pseudobulk(jnp.asarray(cells)[bootstrap_cells(groups, 4, key)], groups, 4))
    means = np.stack([np.asarray(draw(key))[1, 0] for key in jax.random.split(jax.random.key(1), 600)])
    n, spread = 40, cells[:40, 0].var(ddof=1)
    expected = spread * (n - 1) / n**2
    assert np.mean((means - cells[:40].mean()) ** 2) == pytest.approx(expected, rel=0.2)


def test_a_sparse_mean_is_of_as_many_cells_of_others_as_a_half_has():
    groups = np.asarray([0, 0, 0, 0, 1, 1, 1, 2, -1, 1, 0])
    # Each cell expresses a gene of its own, so the mean shows which cells were drawn.
    ours = np.asarray(sparse_mean(np.eye(11), groups, 3, jax.random.key(0)))
    for group, size in ((0, 2), (1, 2)):
        drawn = np.flatnonzero(ours[group])
        assert len(drawn) == size
        np.testing.assert_allclose(ours[group, drawn], 1 / size)
        assert np.all((groups[drawn] != group) & (groups[drawn] >= 0))
    assert np.isnan(ours[2]).all()  # half of one cell is none
    other = np.asarray(sparse_mean(np.eye(11), groups, 3, jax.random.key(3)))
    assert not np.array_equal(ours[:2], other[:2])
    with pytest.raises(refused):
        sparse_mean(np.eye(11), groups[:5], 3, jax.random.key(0))


def sparse_screen(rng, perts=12, genes=400, cells=60):
    """Cells of perturbations of which each moves a twentieth of the genes, with the true means."""
    effect = np.where(rng.random((perts, genes)) < 0.05, rng.normal(0, 1, (perts, genes)), 0.0)
    sigma = rng.gamma(4, 0.25, genes)
    draws = effect[:, None, :] + sigma * rng.normal(size=(perts, cells, genes))
    return draws, effect


def test_shrunken_duplicates_lie_between_the_mean_and_the_truth():
    """With sparse effects: a raw duplicate is little better than the mean, and both shrunken ones are."""
    draws, effect = sparse_screen(np.random.default_rng(6))
    first, second = draws[:, :30], draws[:, 30:]
    duplicate, real = second.mean(1), first.mean(1)
    groups = Moments(*(jnp.asarray(x) for x in (duplicate, second.var(1, ddof=1), np.full(12, 30.0))))
    null = np.asarray(leave_one_out_mean(duplicate))
    log_padj = benjamini_hochberg(welch_test(groups, rest_of(groups), overestimate=True).log_pvalue)
    predictions = {
        "duplicate": duplicate,
        "mean": null,
        "interpolated": np.asarray(interpolated_duplicate(duplicate, null, log_padj)),
        "shrunken": np.asarray(empirical_bayes_duplicate(duplicate, null, groups.variance / 30)),
    }
    low, high = np.minimum(duplicate, null), np.maximum(duplicate, null)
    for name in ("interpolated", "shrunken"):
        assert np.all((predictions[name] >= low - 1e-12) & (predictions[name] <= high + 1e-12))
    for target in (real, effect):
        error = {name: np.mean((x - target) ** 2) for name, x in predictions.items()}
        assert error["interpolated"] < error["shrunken"] < min(error["duplicate"], error["mean"])


def test_errors_of_the_controls_are_those_of_theory():
    """Duplicate s2/n1 + s2/n2, mean |d|2 + s2/n1 (and its own noise), sparse mean s2/n2 more."""
    rng = np.random.default_rng(7)
    perts, genes, cells = 20, 200, 40
    effect = rng.normal(0, 0.3, (perts, genes))
    errors = {"duplicate": [], "mean": [], "sparse": []}
    groups = np.repeat(np.arange(perts), cells)
    for seed in range(4):
        draws = effect[groups] + rng.normal(size=(perts * cells, genes))
        first, second = split_cells(jnp.asarray(groups), perts, jax.random.key(seed))
        real = np.asarray(pseudobulk(draws, groups, perts, first))
        errors["duplicate"].append(np.mean((np.asarray(pseudobulk(draws, groups, perts, second)) - real) ** 2))
        errors["mean"].append(
            np.mean((np.asarray(leave_one_out_mean(pseudobulk(draws, groups, perts, second))) - real) ** 2)
        )
        errors["sparse"].append(
            np.mean((np.asarray(sparse_mean(draws, groups, perts, jax.random.key(seed))) - real) ** 2)
        )
    others = np.asarray(leave_one_out_mean(effect))
    signal, s2, half = np.mean((effect - others) ** 2), 1.0, cells // 2
    among = np.mean([np.delete(effect, p, 0).var(0).mean() for p in range(perts)])  # between perturbations
    assert np.mean(errors["duplicate"]) == pytest.approx(2 * s2 / half, rel=0.03)
    assert np.mean(errors["mean"]) == pytest.approx(signal + s2 / half + s2 / (half * (perts - 1)), rel=0.03)
    assert np.mean(errors["sparse"]) == pytest.approx(signal + s2 / half + (s2 + among) / half, rel=0.03)


def test_controls_of_other_shapes_or_roles_are_refused():
    real = truth()
    with pytest.raises(ValueError, match="shape of the truth"):
        ControlSet(real, {"a": Control(truth(perts=3), "positive")})
    with pytest.raises(ValueError, match="names"):
        ControlSet(real, {}, perts=("A", "B"))
    with pytest.raises(refused, match="role"):
        Control(real, "best")  # pyright: ignore[reportArgumentType]


def test_noise_of_cells_is_what_shrinkage_expects():
    draws, _ = sparse_screen(np.random.default_rng(8), perts=3, genes=20)
    cells, groups = draws.reshape(-1, 20), np.repeat(np.arange(3), 60)
    noise = analytic_noise(cells, groups, 3, per_gene=True)
    np.testing.assert_allclose(noise, draws.var(1, ddof=1) / 60, rtol=1e-10)
