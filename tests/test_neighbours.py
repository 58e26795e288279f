"""Nearest neighbours and tables of features: limits, exact refits, coverage."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference
from jaxtyping import ArrayLike, TypeCheckError

from vcjax.baselines._features import (
    beside,
    feature_kernel,
    Features,
    one_hot,
    profile_features,
    RandomFeatures,
    reduced,
)
from vcjax.baselines._interface import PertData
from vcjax.baselines._neighbours import Neighbours
from vcjax.baselines._relatedness import NamedKernel, relate


RNG = np.random.default_rng(0)
TRAIN = tuple("abcdef")
NAMES = (*TRAIN, "u", "v")
Y = RNG.normal(size=(6, 9))
VECTORS = RNG.normal(size=(8, 4))
SIMILARITY = np.asarray(np.corrcoef(VECTORS))


def data(rows: Iterable[int] = range(6)):
    rows = list(rows)
    return PertData(jnp.asarray(Y[rows]), jnp.zeros(9), perts=tuple(TRAIN[i] for i in rows))


def kernel(names: tuple[str, ...] = NAMES, values: ArrayLike = SIMILARITY):
    return NamedKernel(jnp.asarray(values), names)


def close(value, expected, atol=1e-12):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def test_the_softmax_over_similarities():
    made = Neighbours(kernel(), log_temperature=np.log(0.3)).fit(data()).predict(["u", "v"])
    weights = np.exp(SIMILARITY[6:, :6] / 0.3)
    close(made.effect, weights / weights.sum(1, keepdims=True) @ Y)
    assert made.covered.all()
    assert (made.baseline, made.fairness) == ("knn", "external")


def test_cold_is_the_nearest_and_hot_is_the_mean():
    cold = Neighbours(kernel(), log_temperature=np.log(1e-5)).fit(data())
    close(cold.predict(["u"]).effect[0], Y[np.argmax(SIMILARITY[6, :6])])
    one = Neighbours(kernel(), log_temperature=3.0, neighbours=1).fit(data())
    close(one.predict(["u"]).effect[0], Y[np.argmax(SIMILARITY[6, :6])])
    hot = Neighbours(kernel(), log_temperature=np.log(1e15)).fit(data())
    close(hot.predict(["u", "v"]).effect, np.broadcast_to(Y.mean(0), (2, 9)))


def test_ties_with_the_last_neighbour_count_too():
    tied = np.eye(7)
    tied[6, :6] = tied[:6, 6] = [0.9, 0.5, 0.5, 0.1, 0.0, -0.2]
    fitted = Neighbours(kernel((*TRAIN, "u"), tied), log_temperature=np.log(1e15), neighbours=2).fit(data())
    close(fitted.predict(["u"]).effect[0], Y[:3].mean(0))


@pytest.mark.parametrize("neighbours", [None, 3])
def test_leaving_one_out_equals_refits(neighbours):
    model = Neighbours(kernel(), log_temperature=np.log(0.2), neighbours=neighbours)
    left = model.fit(data()).leave_one_out()
    for i in range(6):
        refit = model.fit(data([j for j in range(6) if j != i]))
        close(left.effect[i], refit.predict([TRAIN[i]]).effect[0])
    assert left.fairness == "external"


def test_what_is_not_known_gets_the_mean_response():
    fitted = Neighbours(kernel(("b", "c", "d", "u"), SIMILARITY[np.ix_([1, 2, 3, 6], [1, 2, 3, 6])])).fit(data())
    made = fitted.predict(["u", "w"])
    assert made.covered.tolist() == [True, False]
    close(made.effect[1], Y.mean(0))
    # Training perturbations without a similarity have no weight.
    weights = np.exp(SIMILARITY[6, 1:4] / 0.1)
    close(made.effect[0], weights @ Y[1:4] / weights.sum())
    left = fitted.leave_one_out()
    assert left.covered.tolist() == [False, True, True, True, False, False]
    close(left.effect[0], Y[1:].mean(0))


def test_the_temperature_has_the_gradient_of_finite_differences():
    @jax.jit
    def error(log_temperature):
        model = eqx.tree_at(lambda m: m.log_temperature, Neighbours(kernel(), neighbours=4), log_temperature)
        left = model.fit(data()).leave_one_out()
        assert left is not None
        return jnp.mean((left.effect - Y) ** 2)

    at = np.array(-1.2)
    close(jax.grad(error)(jnp.asarray(at)), finite_difference(error, at, 1.0), 1e-8)


def test_similarity_from_other_screens():
    other = PertData(jnp.asarray(RNG.normal(size=(8, 30))), jnp.zeros(30), perts=NAMES, context="RPE1")
    from_screen = Neighbours().fit(data(), external=[other]).predict(["u"])
    rows = np.arange(8)
    from_matrix = Neighbours(kernel(values=relate(other).kernel(rows, rows))).fit(data()).predict(["u"])
    close(from_screen.effect, from_matrix.effect)
    less = other.take(TRAIN[:3])
    assert not Neighbours().fit(data(), external=[less]).predict(["u"]).covered.any()
    with pytest.raises(ValueError, match="needs `external`"):
        Neighbours().fit(data())
    with pytest.raises(ValueError, match="at least 1"):
        Neighbours(neighbours=0)


def test_the_order_of_perturbations_does_not_matter():
    order = RNG.permutation(6).tolist()
    model = Neighbours(kernel())
    close(model.fit(data(order)).predict(["u"]).effect, model.fit(data()).predict(["u"]).effect)
    first, second = model.fit(data(order)).leave_one_out(), model.fit(data()).leave_one_out()
    assert first is not None
    assert second is not None
    close(first.effect, np.asarray(second.effect)[order])


def test_features_of_combinations_are_sums():
    table = Features(jnp.asarray(VECTORS[:4]), ("A", "B", "C", "A_B"))
    values, covered = table.of(["A+B", "A+ctrl", "A_B", "B_C", "A+missing", "ctrl", "missing"])
    close(values[:4], [VECTORS[0] + VECTORS[1], VECTORS[0], VECTORS[3], VECTORS[1] + VECTORS[2]])
    close(values[4:], 0)
    assert covered.tolist() == [True, True, True, True, False, False, False]
    values, covered = table.of([])
    assert values.shape == (0, 4)
    with pytest.raises(ValueError, match="once"):
        Features(jnp.zeros((2, 3)), ("a", "a"))
    with pytest.raises(ValueError, match="must sum"):
        Features(jnp.zeros((2, 3)), ("a", "b"), blocks=(1, 1))


def test_random_features_depend_on_key_and_name_alone():
    table = RandomFeatures(jax.random.key(0), 50)
    values, covered = table.of(["a", "b", "a+b"])
    again, _ = table.of(["b", "z"])
    close(values[1], again[0], 0)
    close(values[2], values[0] + values[1])
    assert covered.all()
    assert not np.allclose(values[0], RandomFeatures(jax.random.key(1), 50).of(["a"])[0])
    norms = np.sum(np.asarray(table.of([str(i) for i in range(200)])[0]) ** 2, axis=1)
    assert abs(norms.mean() - 1) < 0.05


def test_features_from_profiles_elsewhere_are_principal_component_scores():
    screen = PertData(jnp.asarray(Y), jnp.ones(9), perts=TRAIN)
    made = profile_features(screen, 3)
    table = np.vstack([Y, np.zeros(9)])
    u, s, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    close(np.abs(made.values), np.abs(u * s)[:6, :3], 1e-10)
    tall = reduced(Features(jnp.asarray(VECTORS), NAMES), 2)
    u, s, _ = np.linalg.svd(VECTORS - VECTORS.mean(0), full_matrices=False)
    close(np.abs(tall.values), np.abs(u * s)[:, :2], 1e-10)


def test_tables_beside_each_other():
    one, two = (
        Features(jnp.ones((2, 2)), ("a", "b"), source="x"),
        Features(2 * jnp.ones((2, 1)), ("b", "c"), source="y"),
    )
    both = beside(one, two)
    close(both.values, [[1, 1, 0], [1, 1, 2], [0, 0, 2]])
    assert (both.names, both.widths, both.source) == (("a", "b", "c"), (2, 1), "x + y")
    close(beside(one, two, flags=True).values, [[1, 1, 1, 0, 0], [1, 1, 1, 2, 1], [0, 0, 0, 2, 1]])
    close(one_hot(["a", "b"]).values, np.eye(2))
    with pytest.raises(ValueError, match="At least one"):
        beside()


def test_kernels_of_features():
    members = np.array([[1.0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    table = Features(jnp.asarray(members), ("a", "b", "c"))
    close(feature_kernel(table).values, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    close(feature_kernel(table, "tanimoto").values, [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    square = ((members[:, None] - members[None]) ** 2).sum(-1)
    close(feature_kernel(table, "rbf").values, np.exp(-square / (2 * np.median(square[np.triu_indices(3, 1)]))))
    with pytest.raises((ValueError, TypeCheckError)):
        feature_kernel(table, "linear")  # pyright: ignore[reportArgumentType]
