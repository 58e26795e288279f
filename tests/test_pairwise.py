"""Distances between all predictions and all measured effects."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from scipy.spatial.distance import cdist

import vcjax
from vcjax import _pairwise
from vcjax._pairwise import Effects
from vcjax._stats import effect
from vcjax.metrics import Cosine, L1, L2


DISTANCES = {"cityblock": L1(), "euclidean": L2(), "cosine": Cosine()}
each = pytest.mark.parametrize("name", DISTANCES)


def sides(rows=37, columns=150, genes=53, offset=0.0, dtype: Any = np.float64):
    rng = np.random.default_rng(0)
    return tuple((offset + rng.normal(0, 0.3, (n, genes))).astype(dtype) for n in (rows, columns))


@each
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 16), (37, 150, 53), (9, 128, 32)])
def test_values_equal_scipy(name, shape):
    a, b = sides(*shape)
    ours, theirs = np.asarray(DISTANCES[name](jnp.asarray(a), jnp.asarray(b))), cdist(a, b, name)
    if name == "cityblock":
        np.testing.assert_array_equal(ours, theirs)  # bit for bit, so that no rank can flip
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_a_common_offset_does_not_spoil_float32_distances():
    a, b = sides(offset=5.0, dtype=np.float32)
    expected = cdist(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(L2()(jnp.asarray(a), jnp.asarray(b)), expected, rtol=2e-6)


@each
def test_leaving_a_gene_out_equals_deleting_it(name):
    a, b = sides(12, 20, 31)
    gene = np.array([0, 3, -1, 30, 5, 5, -1, 7, 8, 9, 10, 11])
    distance = DISTANCES[name]
    whole = distance(jnp.asarray(a), jnp.asarray(b))
    ours = distance.excluding(whole, jnp.asarray(a), jnp.asarray(b), jnp.asarray(gene))
    kept = [np.arange(31) != g for g in gene]
    theirs = np.stack([cdist(a[i : i + 1, k], b[:, k], name)[0] for i, k in enumerate(kept)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_nothing_but_the_excluded_gene_is_no_direction():
    a, b = np.zeros((2, 5)), np.random.default_rng(0).normal(size=(3, 5))
    a[0, 2], a[1, 2] = -2.7, 1e-3
    distances = Cosine()(jnp.asarray(a), jnp.asarray(b))
    left = Cosine().excluding(distances, jnp.asarray(a), jnp.asarray(b), jnp.asarray([2, 2]))
    np.testing.assert_array_equal(left, 1.0)


@each
def test_zero_and_equal_rows_have_finite_gradients(name):
    a = jnp.zeros((3, 8)).at[1].set(1.0)
    b = jnp.zeros((4, 8)).at[2].set(1.0)
    for dtype in (jnp.float32, jnp.float64):
        total = lambda a, b: jnp.sum(DISTANCES[name](a, b))
        for grad in jax.grad(total, argnums=(0, 1))(a.astype(dtype), b.astype(dtype)):
            assert np.isfinite(grad).all()


def test_zero_rows_are_at_cosine_distance_one():
    a, b = jnp.zeros((2, 4)), jnp.ones((3, 4))
    np.testing.assert_array_equal(Cosine()(a, b), 1.0)


def test_exact_genes_are_not_pushed():
    a = jnp.asarray([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(jax.grad(lambda x: L1()(x, a).sum())(a), 0.0)


@each
@pytest.mark.parametrize("argument", [0, 1])
def test_gradients_equal_finite_differences(name, argument):
    inputs = [jnp.asarray(x) for x in sides(5, 11, 19)]
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(5, 11)))

    def total(x):
        inputs[argument] = x
        return jnp.sum(weights * DISTANCES[name](*inputs))

    x = inputs[argument]
    direction = np.random.default_rng(2).normal(size=x.shape)
    assert directional(total, x, direction) == pytest.approx(finite_difference(total, x, direction), rel=1e-6)


@each
def test_no_array_of_perts_by_perts_by_genes(name):
    rows, genes = 64, 4096
    shape = jax.ShapeDtypeStruct((rows, genes), jnp.float64)
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(DISTANCES[name](a, b) ** 2)))
    analysis: Any = gradient.lower(shape, shape).compile().memory_analysis()
    temporary = analysis.temp_size_in_bytes
    assert temporary < rows * rows * genes * 8 / 8
    assert temporary < 8 * 2**20 + 8 * rows * genes * 8


@each
def test_vmap_equals_loop(name):
    a, b = sides(4, 6, 17)
    batch = jnp.stack([jnp.asarray(a), 2 * jnp.asarray(a), jnp.asarray(a) ** 2])
    together = jax.vmap(DISTANCES[name], in_axes=(0, None))(batch, jnp.asarray(b))
    alone = jnp.stack([DISTANCES[name](x, jnp.asarray(b)) for x in batch])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@each
def test_effects_made_in_blocks_equal_effects_made_at_once(name, monkeypatch):
    for elements in ("_L1_ELEMENTS", "_PRODUCT_ELEMENTS"):
        monkeypatch.setattr(_pairwise, elements, 20 * 16)  # several blocks, the last one shorter
    a, b = (jnp.asarray(side) for side in sides(7, 20, 53))
    control = jnp.asarray(np.random.default_rng(1).normal(size=53))
    profile = b + control[None, :]
    profile = profile.at[3].set(control * (1 + 1e-16))  # pastes the control, but for rounding
    kept = jnp.arange(53) % 7 != 0
    lazy = Effects.of(profile, control, kept)
    whole = jnp.where(kept[None, :], effect(profile, control), 0)
    assert (whole[3] == 0).all()
    gene = jnp.asarray([0, 3, -1, 30, 5, 5, 52])
    distance = DISTANCES[name]
    np.testing.assert_allclose(distance(a, lazy), distance(a, whole), rtol=1e-13)
    np.testing.assert_allclose(
        distance.excluding(distance(a, lazy), a, lazy, gene),
        distance.excluding(distance(a, whole), a, whole, gene),
        rtol=1e-11,
    )
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(7, 20)))
    lazily = jax.grad(lambda x: jnp.sum(weights * distance(a, Effects.of(x, control, kept))))(profile)
    at_once = jax.grad(lambda x: jnp.sum(weights * distance(a, jnp.where(kept[None, :], effect(x, control), 0))))
    np.testing.assert_allclose(lazily, at_once(profile), rtol=1e-10, atol=1e-12)


@each
def test_neither_a_score_nor_its_gradient_makes_the_effects_whole(name):
    perts, genes = 256, 80_000
    matrix = jnp.zeros((perts, genes))
    real = vcjax.Profiles(matrix, matrix[0], targets=jnp.arange(perts))
    row = vcjax.metrics.CATALOGUE[{"cityblock": "pds_l1", "euclidean": "pds_l2", "cosine": "pds_cosine"}[name]]
    loss = vcjax.as_loss(row)
    for program in (loss, jax.value_and_grad(loss)):
        memory: Any = jax.jit(program).lower(matrix, real).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 0.5 * perts * genes * 8
