"""The conventions of fold changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import de


MEAN = jnp.asarray([[4.0, 0.0, 0.0, 3.0], [1.0, 5.0, 0.0, 1e-3]])
CONTROL = jnp.asarray([2.0, 0.0, 7.0, 3.0])


def test_pseudocount_is_added_to_both_means():
    expected = np.log2((np.asarray(MEAN) + 1e-9) / (np.asarray(CONTROL) + 1e-9))
    np.testing.assert_allclose(de.log2_fold_change(MEAN, CONTROL), expected, rtol=1e-13)
    expected = np.log2((np.asarray(MEAN) + 0.5) / (np.asarray(CONTROL) + 0.5))
    np.testing.assert_allclose(de.log2_fold_change(MEAN, CONTROL, pseudocount=0.5), expected, rtol=1e-13)


def test_zeros_are_infinite_or_clipped_and_other_ratios_stay():
    rest = np.log2(1e-3 / 3)
    infinite = de.log2_fold_change(MEAN, CONTROL, zeros="infinite")
    np.testing.assert_allclose(infinite, [[1, 0, -np.inf, 0], [-1, np.inf, -np.inf, rest]], rtol=1e-13)
    bound = np.log2(20)
    clipped = de.log2_fold_change(MEAN, CONTROL, zeros="clip")
    np.testing.assert_allclose(clipped, [[1, 0, -bound, 0], [-1, bound, -bound, rest]], rtol=1e-13)
    assert rest < -bound


def test_control_may_differ_between_perturbations():
    control = jnp.stack([CONTROL, 2 * CONTROL])
    rows = [de.log2_fold_change(MEAN[i : i + 1], control[i])[0] for i in range(2)]
    np.testing.assert_array_equal(de.log2_fold_change(MEAN, control), jnp.stack(rows))


@pytest.mark.parametrize("zeros", ["pseudocount", "infinite", "clip"])
def test_negative_and_undefined_means_have_no_fold_change(zeros):
    mean = jnp.asarray([[-1.0, jnp.nan, 1.0]])
    values = de.log2_fold_change(mean, jnp.asarray([1.0, 1.0, 1.0]), zeros=zeros)
    np.testing.assert_array_equal(np.isnan(values), [[True, True, False]])


@pytest.mark.parametrize("zeros", ["pseudocount", "infinite", "clip"])
def test_gradients_are_finite_at_zero_and_right_elsewhere(zeros):
    f = lambda m: jnp.sum(jnp.where(jnp.isfinite(x := de.log2_fold_change(m, CONTROL, zeros=zeros)), x, 0))
    assert jnp.all(jnp.isfinite(jax.grad(f)(MEAN)))
    rng = np.random.default_rng(0)
    mean, v = rng.random((2, 4)) + 0.1, rng.normal(size=(2, 4))
    assert directional(f, mean, v) == pytest.approx(finite_difference(f, mean, v), rel=1e-6)


def test_geometric_mean_undoes_log1p():
    x = np.random.default_rng(1).random((5, 3))
    np.testing.assert_allclose(de.geometric_mean(jnp.asarray(np.log1p(x).mean(0))), np.expm1(np.log1p(x).mean(0)))


def test_options_that_mean_nothing_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="zeros"):
        de.log2_fold_change(MEAN, CONTROL, zeros="drop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="pseudocount"):
        de.log2_fold_change(MEAN, CONTROL, pseudocount=0.0)
    with pytest.raises(ValueError, match="clip"):
        de.log2_fold_change(MEAN, CONTROL, zeros="clip", clip=1.0)
    with pytest.raises((ValueError, TypeCheckError), match="control_mean"):
        de.log2_fold_change(MEAN, CONTROL[:3])
