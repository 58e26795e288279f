"""Ridge regression on features, reduced ranks, regression between contexts, and their nulls."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference

from vcjax import metrics
from vcjax.baselines._embedding_ridge import EmbeddingRidge
from vcjax.baselines._features import beside, Features
from vcjax.baselines._interface import PertData
from vcjax.baselines._neighbours import Neighbours
from vcjax.baselines._random_features import null_distribution, Permuted, permuted, RandomRidge, shuffled
from vcjax.baselines._rank_gates import HardRank, JamesStein, SigmoidGates, SoftRank
from vcjax.baselines._reduced_rank import ReducedRank
from vcjax.baselines._ref_regress import ReferenceRegression
from vcjax.baselines._relatedness import NamedKernel


pytestmark = pytest.mark.long

RNG = np.random.default_rng(2)
N, G, D = 9, 14, 4
TRAIN = tuple(f"p{i}" for i in range(N))
NAMES = (*TRAIN, "u", "v")
VECTORS = RNG.normal(size=(N + 2, D))
FEATURES = Features(jnp.asarray(VECTORS), NAMES)
PARTLY = Features(jnp.asarray(VECTORS[2:]), NAMES[2:])
BLOCKS = dataclasses.replace(FEATURES, blocks=(1, 3))
Y = VECTORS[:N] @ RNG.normal(size=(D, G)) + 0.5 * RNG.normal(size=(N, G))
NOISE = RNG.uniform(1, 4, size=N)
OTHER = PertData(jnp.asarray(RNG.normal(size=(8, 20))), jnp.zeros(20), perts=(*TRAIN[1:7], "u", "w"), context="RPE1")


def data(rows: Iterable[int] = range(N), noise: np.ndarray | None = None):
    rows = list(rows)
    own = None if noise is None else jnp.asarray(noise[rows])
    return PertData(jnp.asarray(Y[rows]), jnp.ones(G), noise=own, perts=tuple(TRAIN[i] for i in rows))


def close(value, expected, atol=1e-10):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def fit_ridge(f, y, new, ridge):
    return y.mean(0) + new @ np.linalg.solve(f.T @ f + ridge * np.eye(f.shape[1]), f.T @ (y - y.mean(0)))


def test_ridge_regression_on_features():
    made = EmbeddingRidge(FEATURES, log_ridge=np.log(0.3)).fit(data()).predict(["u", "v"])
    close(made.effect, fit_ridge(VECTORS[:N], Y, VECTORS[N:], 0.3))
    assert (made.baseline, made.fairness) == ("embedding_ridge", "external")


def test_a_free_intercept_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    expected = linear.Ridge(alpha=0.3).fit(VECTORS[:N], Y).predict(VECTORS[N:])
    model = EmbeddingRidge(FEATURES, log_ridge=np.log(0.3), intercept="free")
    close(model.fit(data()).predict(["u", "v"]).effect, expected)
    # Perturbations without features take no part in it.
    expected = linear.Ridge(alpha=0.3).fit(VECTORS[2:N], Y[2:]).predict(VECTORS[N:])
    partly = dataclasses.replace(model, features=PARTLY).fit(data())
    close(partly.predict(["u", "v"]).effect, expected)
    close(partly.predict(["p0"]).effect[0], Y.mean(0))


def test_scales_multiply_blocks():
    model = EmbeddingRidge(BLOCKS, log_scales=jnp.log(jnp.asarray([2.0, 0.5])))
    scaled = VECTORS * np.array([2, 0.5, 0.5, 0.5])
    close(model.fit(data()).predict(["u"]).effect, fit_ridge(scaled[:N], Y, scaled[N : N + 1], 0.1))
    with pytest.raises(ValueError, match="2 blocks"):
        dataclasses.replace(model, log_scales=jnp.zeros(3)).fit(data()).predict(["u"])


MODELS = {
    "mean": EmbeddingRidge(FEATURES),
    "free": EmbeddingRidge(FEATURES, intercept="free"),
    "scaled": EmbeddingRidge(BLOCKS, log_scales=jnp.asarray([0.4, -1.0])),
    "mean, some without features": EmbeddingRidge(PARTLY),
    "free, some without features": EmbeddingRidge(PARTLY, intercept="free"),
    "rank 2": ReducedRank(FEATURES, HardRank(2)),
    "rank 2 of effects": ReducedRank(FEATURES, HardRank(2), basis="effects"),
    "soft rank, some without features": ReducedRank(PARTLY, SoftRank(1.5, -0.5)),
    "own gates": ReducedRank(FEATURES, SigmoidGates(jnp.asarray([3.0, 0.1, -2.0]))),
    "gates by residuals": ReducedRank(FEATURES),
    "gates by noise": ReducedRank(FEATURES, JamesStein(np.log(2.0)), basis="effects"),
    "between contexts": ReferenceRegression(dims=3),
}


def fitted(model: Any, rows: Iterable[int] = range(N)) -> Any:
    noise = NOISE if isinstance(getattr(model, "gates", None), JamesStein) else None
    return model.fit(data(rows, noise), external=[OTHER])


@pytest.mark.parametrize("name", MODELS)
def test_leaving_one_out_equals_refits(name):
    left = fitted(MODELS[name]).leave_one_out()
    for i in range(N):
        refit = fitted(MODELS[name], [j for j in range(N) if j != i]).predict([TRAIN[i]])
        close(left.effect[i], refit.effect[0])
        assert bool(left.covered[i]) == bool(refit.covered[0])


@pytest.mark.parametrize("name", MODELS)
def test_infinite_ridge_is_the_mean_and_order_does_not_matter(name):
    model = MODELS[name]
    stiff = fitted(dataclasses.replace(model, log_ridge=jnp.asarray(60.0)))
    # An intercept of its own is the mean over the perturbations that it is fitted to.
    own = [i for i in range(N) if stiff.predict([TRAIN[i]]).covered[0]] if "free" in name else list(range(N))
    expected = Y[1:7].mean(0) if name == "between contexts" else Y[own].mean(0)
    if name == "between contexts":
        _, s, axes = np.linalg.svd(Y - Y.mean(0), full_matrices=False)
        expected = Y.mean(0) + (expected - Y.mean(0)) @ axes[:3].T @ axes[:3]
    close(stiff.predict(["u"]).effect[0], expected)
    order = RNG.permutation(N).tolist()
    first, second = fitted(model, order), fitted(model)
    close(first.predict(["u"]).effect, second.predict(["u"]).effect)
    close(first.leave_one_out().effect, np.asarray(second.leave_one_out().effect)[order])


@pytest.mark.parametrize("name", [name for name in MODELS if "without" not in name])
def test_the_ridge_has_the_gradient_of_finite_differences(name):
    @jax.jit
    def error(log_ridge):
        made = fitted(dataclasses.replace(MODELS[name], log_ridge=log_ridge))
        return jnp.mean((made.leave_one_out().effect - Y) ** 2) + jnp.sum(made.predict(["u"]).effect ** 2)

    found = jax.grad(error)(jnp.asarray(-0.4))
    close(found, finite_difference(error, -0.4, 1.0), 1e-6)
    assert abs(float(found)) > 1e-8


def test_scales_and_gates_have_the_gradient_of_finite_differences():
    @jax.jit
    def with_scales(log_scales):
        return jnp.mean((fitted(EmbeddingRidge(BLOCKS, log_scales=log_scales)).leave_one_out().effect - Y) ** 2)

    @jax.jit
    def with_logits(logits):
        return jnp.mean((fitted(ReducedRank(FEATURES, SigmoidGates(logits))).leave_one_out().effect - Y) ** 2)

    @jax.jit
    def with_rank(rank):
        return jnp.mean((fitted(ReducedRank(FEATURES, SoftRank(rank))).leave_one_out().effect - Y) ** 2)

    @jax.jit
    def with_factor(factor):
        return jnp.mean((fitted(ReducedRank(FEATURES, JamesStein(factor))).leave_one_out().effect - Y) ** 2)

    cases = [(with_scales, [0.3, -0.2]), (with_logits, [1.0, 0.0, -1.0]), (with_rank, 2.2), (with_factor, 0.3)]
    for function, at in cases:
        direction = RNG.normal(size=np.shape(at))
        value = directional(function, np.asarray(at, np.float64), direction)
        close(value, finite_difference(function, at, direction), 1e-7)
        assert abs(value) > 1e-6


def test_effects_have_a_gradient_through_the_fit():
    @jax.jit
    def total(effects):
        made = dataclasses.replace(data(), effects=effects)
        one = ReducedRank(FEATURES, JamesStein()).fit(made).predict(["u"]).effect
        return jnp.sum(jnp.sin(one)) + jnp.sum(jnp.sin(EmbeddingRidge(FEATURES).fit(made).predict(["v"]).effect))

    direction = RNG.normal(size=Y.shape)
    close(directional(total, Y, direction), finite_difference(total, Y, direction), 1e-6)


def test_reduced_rank_projects_the_ridge_regression():
    y, f = Y - Y.mean(0), VECTORS[:N]
    ridge = np.linalg.solve(f.T @ f + 0.1 * np.eye(D), f.T @ y)
    fit = y.T @ f @ ridge
    axes = np.linalg.eigh((fit + fit.T) / 2)[1][:, ::-1]
    for rank in (1, 2, 3):
        made = ReducedRank(FEATURES, HardRank(rank)).fit(data()).predict(["u", "v"])
        close(made.effect, Y.mean(0) + VECTORS[N:] @ ridge @ axes[:, :rank] @ axes[:, :rank].T)
    whole = ReducedRank(FEATURES, HardRank(N)).fit(data()).predict(["u", "v"])
    close(whole.effect, EmbeddingRidge(FEATURES).fit(data()).predict(["u", "v"]).effect)
    effects = np.linalg.svd(y, full_matrices=False)[2][:2]
    made = ReducedRank(FEATURES, HardRank(2), basis="effects").fit(data()).predict(["u"])
    close(made.effect, Y.mean(0) + VECTORS[N : N + 1] @ ridge @ effects.T @ effects)


def test_gates():
    energy, noise = jnp.asarray([4.0, 2.0, 1.0, 0.0]), jnp.asarray([1.0, 1.0, 2.0, 1.0])
    close(HardRank(2)(energy, noise), [1, 1, 0, 0])
    close(SoftRank(2.0, np.log(1e-3))(energy, noise), [1, 1, 0, 0])
    close(SoftRank(2.0)(energy, noise)[1], 1 / (1 + np.exp(-0.5)))
    close(SigmoidGates(jnp.zeros(2))(energy, noise), [0.5, 0.5, 0, 0])
    close(JamesStein()(energy, noise), [0.75, 0.5, 0, 0])
    close(JamesStein(np.log(2.0))(energy, noise), [0.5, 0, 0, 0])
    assert np.isfinite(jax.grad(lambda x: JamesStein(x)(energy, noise).sum())(0.1))
    with pytest.raises(ValueError, match="at least 1"):
        HardRank(0)


def test_noise_takes_directions_away():
    quiet, loud = (ReducedRank(FEATURES).fit(data(noise=np.full(N, level))) for level in (1e-9, 1e9))
    close(quiet.predict(["u"]).effect, EmbeddingRidge(FEATURES).fit(data()).predict(["u"]).effect, 1e-6)
    close(loud.predict(["u"]).effect[0], Y.mean(0))


def test_regression_between_contexts():
    model = ReferenceRegression(dims=3, log_ridge=np.log(0.7))
    made = model.fit(data(), external=[OTHER]).predict(["u", "v", "p0", "p1"])
    reference = np.asarray(OTHER.effects) - np.asarray(OTHER.effects).mean(0)
    u, s, _ = np.linalg.svd(reference, full_matrices=False)
    x = (u * s)[:, :3]
    own, size, axes = np.linalg.svd(Y - Y.mean(0), full_matrices=False)
    scores = (own * size)[1:7, :3]
    design = np.hstack([np.ones((6, 1)), x[:6]])
    beta = np.linalg.solve(design.T @ design + np.diag([0, 0.7, 0.7, 0.7]), design.T @ scores)
    close(made.effect[0], Y.mean(0) + np.hstack([1, x[6]]) @ beta @ axes[:3])
    close(made.effect[1:3], np.broadcast_to(Y.mean(0), (2, G)))
    close(made.effect[3], Y.mean(0) + design[0] @ beta @ axes[:3])
    assert made.covered.tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match="`reference`"):
        ReferenceRegression(reference=1).fit(data(), external=[OTHER])
    with pytest.raises(ValueError, match="Only 1"):
        ReferenceRegression().fit(data([0, 1, 8]), external=[OTHER])
    with pytest.raises(ValueError, match="at least 1"):
        ReferenceRegression(dims=0)


def test_refusals():
    for model in (EmbeddingRidge(), ReducedRank()):
        with pytest.raises(ValueError, match="needs `features`"):
            model.fit(data())
    nothing = Features(jnp.ones((1, 2)), ("x",))
    for model in (EmbeddingRidge(nothing), ReducedRank(nothing)):
        with pytest.raises(ValueError, match="named alike"):
            model.fit(data())
    with pytest.raises(ValueError, match="needs `key`"):
        RandomRidge().fit(data())
    with pytest.raises(ValueError, match="needs `key`"):
        Permuted(EmbeddingRidge(FEATURES)).fit(data())
    with pytest.raises(ValueError, match="needs `model`"):
        Permuted().fit(data(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="to shuffle"):
        Permuted(ReferenceRegression()).fit(data(), external=[OTHER], key=jax.random.key(0))


def test_random_features_through_the_same_solver(getkey):
    key = getkey()
    made = RandomRidge(dims=5, log_ridge=np.log(0.3)).fit(data(), key=key).predict(["u", "anything"])
    again = RandomRidge(dims=5, log_ridge=np.log(0.3)).fit(data(), key=key).predict(["anything"])
    close(made.effect[1], again.effect[0])
    assert made.covered.all()
    assert (made.baseline, made.fairness) == ("random_features", "inductive")


def test_shuffled_names(getkey):
    key = getkey()
    table = shuffled(FEATURES, key)
    assert table.names == NAMES
    assert (np.abs(np.asarray(table.values) - VECTORS).sum(axis=1) > 0).all()
    close(np.sort(np.asarray(table.values), axis=0), np.sort(VECTORS, axis=0), 0)
    kernel = NamedKernel(jnp.asarray(VECTORS @ VECTORS.T), NAMES)
    close(shuffled(kernel, key).values, np.asarray(table.values) @ np.asarray(table.values).T)
    made = Permuted(EmbeddingRidge(FEATURES)).fit(data(), key=key).predict(["u"])
    close(made.effect, EmbeddingRidge(table).fit(data()).predict(["u"]).effect)
    assert made.baseline == "permuted_features"
    assert isinstance(permuted(Neighbours(kernel), key), Neighbours)


def test_features_that_know_beat_their_nulls(getkey):
    score = lambda pred, real: metrics.mse(pred, real)
    found = float(jnp.mean(score(EmbeddingRidge(FEATURES).fit(data()).leave_one_out().effect, jnp.asarray(Y))))
    for null in (RandomRidge(dims=D), Permuted(EmbeddingRidge(FEATURES))):
        values = null_distribution(null, data(), score, getkey(), repeats=8)
        assert values.shape == (8,)
        assert found < float(values.min())
    both = beside(FEATURES, Features(jnp.asarray(RNG.normal(size=(N + 2, 3))), NAMES))
    assert both.widths == (D, 3)
