"""Energy distances between groups of cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError
from scipy.spatial.distance import cdist

from vcjax.de import _energy, energy_distance, energy_distances, mean_distance


GENES, GROUPS = 30, 3


def screen(cells=120, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-2, GROUPS, cells)
    rate = np.exp(rng.normal(0, 1, GENES) + 0.3 * codes[:, None] * (np.arange(GENES) < 5))
    return np.log1p(rng.poisson(rate)).astype(np.float32), codes


def by_definition(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def all_by_definition(dense, codes):
    return np.array([by_definition(dense[codes == p], dense[codes == -1]) for p in range(GROUPS)])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_definition(sparse, dtype):
    dense, codes = screen()
    values = scipy.sparse.csr_matrix(dense, dtype=dtype) if sparse else dense.astype(dtype)
    assert np.allclose(energy_distances(values, codes, GROUPS), all_by_definition(dense, codes), rtol=1e-7, atol=0)


def test_blocks_add_up(monkeypatch):
    monkeypatch.setattr(_energy, "_ROWS", 16)
    monkeypatch.setattr(_energy, "_STEP", 8)
    dense, codes = screen()
    expected = all_by_definition(dense, codes)
    assert np.allclose(energy_distances(dense, codes, GROUPS), expected, rtol=1e-7, atol=0)
    control = scipy.sparse.csr_matrix(dense[codes == -1])
    others = scipy.sparse.csr_matrix(dense), np.where(codes == -1, -2, codes)
    assert np.allclose(energy_distances(*others, GROUPS, reference=control), expected, rtol=1e-7, atol=0)


def test_copies_of_control_cells():
    """Cells that are equal are at distance 0, of which single precision would make a small number."""
    dense, codes = screen()
    control = np.flatnonzero(codes == -1)
    dense[codes == 0] = dense[np.random.default_rng(0).choice(control, (codes == 0).sum())]
    found = energy_distances(dense, codes, GROUPS)
    assert np.allclose(found, all_by_definition(dense, codes), rtol=1e-10, atol=0)
    same = np.concatenate([dense[control], dense[control]]), np.repeat([-1, 0], len(control))
    assert energy_distances(*same, 1)[0] == pytest.approx(0, abs=1e-12)


def test_far_from_the_origin():
    """A shift that all cells share changes nothing."""
    dense, codes = screen()
    shifted = dense.astype(np.float64) + 1000
    assert np.allclose(energy_distances(shifted, codes, GROUPS), all_by_definition(dense, codes), rtol=1e-6, atol=0)


def test_empty_groups():
    dense, codes = screen()
    found = energy_distances(dense, np.where(codes == 1, -2, codes), GROUPS + 1)
    assert np.isnan(found).tolist() == [False, True, False, True]
    assert np.isnan(energy_distances(dense, np.where(codes == -1, -2, codes), GROUPS)).all()


def test_equal_cells():
    assert np.all(energy_distances(np.full((6, 4), 2.5, np.float32), np.array([-1, -1, 0, 0, 1, 1]), 2) == 0)
    one = energy_distances(np.array([[0.0, 3.0], [4.0, 0.0]], np.float32), np.array([-1, 0]), 1)
    assert one.tolist() == pytest.approx([10])


@pytest.mark.parametrize(("chunk", "dtype", "tolerance"), [(7, jnp.float64, 1e-12), (1000, jnp.float32, 1e-4)])
def test_dense_form_agrees_with_the_definition(chunk, dtype, tolerance):
    dense, codes = screen()
    found = jax.jit(lambda x, y: energy_distance(x, y, chunk=chunk))(
        *(dense[codes == p].astype(dtype) for p in (0, -1))
    )
    assert float(found) == pytest.approx(by_definition(dense[codes == 0], dense[codes == -1]), rel=tolerance)


def test_gradient_agrees_with_finite_differences():
    dense, codes = screen()
    rng = np.random.default_rng(1)
    x, y = dense[codes == 0] + 0.1 * rng.normal(size=dense[codes == 0].shape), jnp.asarray(dense[codes == -1], float)
    spread = mean_distance(y, chunk=8)
    f = jax.jit(lambda x: energy_distance(x, y, y_spread=spread, chunk=8))
    assert float(f(x)) == pytest.approx(by_definition(x, dense[codes == -1]), rel=1e-12)
    direction = rng.normal(size=x.shape)
    assert directional(f, x, direction) == pytest.approx(finite_difference(f, x, direction), rel=1e-6)


@pytest.mark.slow
def test_gradient_is_finite_where_cells_coincide():
    y = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)))
    for x in (y, y[:3], jnp.zeros((5, 4))):
        assert jnp.all(jnp.isfinite(jax.grad(energy_distance)(x, y)))
    assert jnp.allclose(jax.grad(energy_distance)(y, y), 0, atol=1e-7)


def test_shapes_are_checked():
    with pytest.raises((ValueError, TypeCheckError), match="y"):
        energy_distance(jnp.zeros((3, 2)), jnp.zeros((3, 4)))
