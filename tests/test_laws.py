"""Laws that every row of the catalogue obeys. A new metric is one more row, and these tests read the table."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax.metrics import CATALOGUE, CELL_EVAL, Metric, Status


PERTS, GENES = 6, 14
ROWS = {**CATALOGUE, **{f"v1 {name}": row for name, row in CELL_EVAL.items()}}
TRAINABLE = [name for name, row in ROWS.items() if row.differentiable != "constant"]
SOFT = 0.3

every_row = pytest.mark.parametrize("name", ROWS)
every_trainable_row = pytest.mark.parametrize("name", TRAINABLE)


def measured(dtype: Any = np.float64, perts: int = PERTS, genes: int = GENES) -> vcjax.Profiles:
    rng = np.random.default_rng(0)
    control = rng.gamma(2, 1, genes)
    mean = control + rng.normal(0, 0.7, (perts, genes))
    mean[1, 3:6] = control[3:6]  # ties among the effects of a gene set
    return vcjax.Profiles(
        mean=jnp.asarray(mean, dtype),
        control=jnp.asarray(control, dtype),
        noise=jnp.asarray(rng.gamma(2, 0.02, perts), dtype),
        control_noise=jnp.asarray(0.01, dtype),
        targets=jnp.asarray(np.arange(perts) % (genes - 4)),
        target_sum=jnp.asarray(40.0, dtype),
    )


def predicted(real: vcjax.Profiles, mean) -> vcjax.Profiles:
    rng = np.random.default_rng(1)
    noise = jnp.asarray(rng.gamma(2, 0.02, real.mean.shape[0]), real.mean.dtype)
    other_control = real.control + jnp.asarray(rng.normal(0, 0.05, real.control.shape), real.mean.dtype)
    return vcjax.Profiles(jnp.asarray(mean, real.mean.dtype), other_control, noise=noise, targets=real.targets)


def guess(real: vcjax.Profiles) -> np.ndarray:
    rng = np.random.default_rng(2)
    control, measured_mean = np.asarray(real.control, np.float64), np.asarray(real.mean, np.float64)
    mean = control + 0.5 * (measured_mean - control)
    return mean + rng.normal(0, 0.3, mean.shape)


def gene_weights(shape) -> jax.Array:
    weights = np.random.default_rng(3).gamma(1, 1, shape)
    weights[:, 2] = 0
    return jnp.asarray(weights)


def options(row: Metric, shape) -> dict:
    return {"weights": gene_weights(shape)} if row.needs_weights else {}


@ft.cache
def compiled(name: str) -> Any:
    """The row as one jitted function of both means and the softness, for float64 profiles of the usual shape."""
    row, real = ROWS[name], measured()

    def score(pred_mean, real_mean, softness):
        side = eqx.tree_at(lambda p: p.mean, real, real_mean)
        return row(predicted(side, pred_mean), side, relax=vcjax.Relaxation(softness), **options(row, real.mean.shape))

    return jax.jit(score)


@ft.cache
def compiled_gradient(name: str):
    """The gradient of a random projection of the row's defined values with respect to the predicted means."""
    row, score = ROWS[name], compiled(name)
    projection = jnp.asarray(np.random.default_rng(4).normal(size=PERTS))

    def total(pred_mean, real_mean, softness):
        values = jnp.atleast_1d(score(pred_mean, real_mean, softness))
        return jnp.sum(jnp.where(jnp.isnan(values), 0, values) * projection[: values.size])

    return jax.jit(total), jax.jit(jax.grad(total)), row


def exact(name, pred_mean, real_mean=None):
    return np.asarray(compiled(name)(jnp.asarray(pred_mean), measured().mean if real_mean is None else real_mean, 0.0))


@every_row
def test_jit_equals_eager(name):
    row, real = ROWS[name], measured()
    eager = row(predicted(real, guess(real)), real, **options(row, real.mean.shape))
    np.testing.assert_allclose(exact(name, guess(real)), eager, rtol=1e-12, atol=1e-14)


@every_row
def test_vmap_equals_loop(name):
    real = measured()
    rng = np.random.default_rng(5)
    batch = jnp.asarray(np.stack([guess(real) + rng.normal(0, s, real.mean.shape) for s in (0, 0.3, 1)]))
    for softness in (0.0, SOFT):
        together = jax.vmap(lambda m, s=softness: compiled(name)(m, real.mean, s))(batch)
        alone = np.stack([compiled(name)(m, real.mean, softness) for m in batch])
        np.testing.assert_allclose(together, alone, rtol=1e-11, atol=1e-13)


@every_row
@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_permuting_perturbations_and_genes_permutes_the_values(name, softness):
    row, real = ROWS[name], measured()
    rng = np.random.default_rng(6)
    p, g = rng.permutation(PERTS), rng.permutation(GENES)
    pred = predicted(real, guess(real))
    gene_of = np.argsort(g)
    shuffle = lambda s: vcjax.Profiles(
        mean=s.mean[p][:, g],
        control=s.control[g],
        noise=s.noise[p],
        control_noise=s.control_noise,
        targets=jnp.asarray(gene_of[np.asarray(s.targets)[p]]),
        target_sum=s.target_sum,
    )
    weights = options(row, real.mean.shape)
    moved = {key: w[p][:, g] for key, w in weights.items()}
    relax = vcjax.Relaxation(softness)
    before = row(pred, real, relax=relax, **weights)
    after = row(shuffle(pred), shuffle(real), relax=relax, **moved)
    np.testing.assert_allclose(after, before if before.ndim == 0 else before[p], rtol=1e-9, atol=1e-12)


@every_row
@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_masked_padding_changes_nothing(name, softness):
    row, real = ROWS[name], measured()
    pred, shape = predicted(real, guess(real)), real.mean.shape
    wide = (PERTS + 3, GENES + 5)
    rng = np.random.default_rng(7)

    def pad(side):
        mean = jnp.asarray(rng.normal(0, 50, wide)).at[:PERTS, :GENES].set(side.mean)
        return vcjax.Profiles(
            mean=mean,
            control=jnp.asarray(rng.normal(0, 50, wide[1])).at[:GENES].set(side.control),
            noise=jnp.full(wide[0], 9.0).at[:PERTS].set(side.noise),
            control_noise=side.control_noise,
            targets=jnp.full(wide[0], 2).at[:PERTS].set(side.targets),
            target_sum=side.target_sum,
        )

    relax = vcjax.Relaxation(softness)
    masks = {"where": jnp.arange(wide[1]) < GENES, "valid": jnp.arange(wide[0]) < PERTS}
    weights = {key: jnp.ones(wide).at[:PERTS, :GENES].set(w) for key, w in options(row, shape).items()}
    padded = row(pad(pred), pad(real), relax=relax, **weights, **masks)
    plain = row(pred, real, relax=relax, **options(row, shape))
    if plain.ndim == 0:
        np.testing.assert_allclose(padded, plain, rtol=1e-9)
    else:
        np.testing.assert_allclose(padded[:PERTS], plain, rtol=1e-9, atol=1e-12)
        assert np.isnan(padded[PERTS:]).all()


@every_row
def test_a_perfect_prediction_gets_the_perfect_value(name):
    row, real = ROWS[name], measured()
    if row.perfect is None:
        pytest.skip("has no perfect value")
    pred = eqx.tree_at(lambda p: p.mean, real, real.mean)  # its own control is the measured one, too
    values = row(pred, real, **options(row, real.mean.shape))
    np.testing.assert_allclose(values, row.perfect, atol=1e-7)


@every_row
@pytest.mark.parametrize("kind", ["zero", "constant"])
def test_an_uninformative_prediction_gets_no_skill_or_a_reason(name, kind):
    row, real = ROWS[name], measured()
    if row.no_skill is None:
        pytest.skip("has no no-skill value")
    if row.level == "panel":
        real = eqx.tree_at(lambda p: p.control_noise, real, jnp.asarray(0.0))
    pred = eqx.tree_at(lambda p: p.mean, real, jnp.broadcast_to(real.control, real.mean.shape))
    if kind == "constant":
        if row.name.startswith(("amplitude", "expr_mse_unbiased_capped_norm")):
            pytest.skip("a shift of all genes is an effect of a size")
        pred = eqx.tree_at(lambda p: p.mean, pred, pred.mean + 0.5)
    pred = eqx.tree_at(lambda p: p.noise, pred, jnp.zeros(PERTS))
    values = np.asarray(row(pred, real, **options(row, real.mean.shape)))
    if np.isnan(values).any():
        assert row.status is not None
        codes = row.status(pred, real, **options(row, real.mean.shape))
        assert set(np.asarray(codes)) <= {Status.CONSTANT_PREDICTION, Status.ZERO_PREDICTION}
    elif row.name == "delta_cosine":  # a common shift has a direction, if an uninformative one
        assert np.abs(values.mean()) < 0.5
    else:
        np.testing.assert_allclose(values.mean(), row.no_skill, atol=1e-12)


@every_row
def test_float32_is_close_to_float64(name):
    row, real = ROWS[name], measured(np.float32)
    pred = predicted(real, guess(real))
    weights = {key: w.astype(np.float32) for key, w in options(row, real.mean.shape).items()}
    values = row(pred, real, **weights)
    assert values.dtype == jnp.float32
    double = measured()
    double = eqx.tree_at(
        lambda p: (p.mean, p.control), double, tuple(jnp.asarray(x, jnp.float64) for x in (real.mean, real.control))
    )
    reference = ROWS[name](predicted(double, pred.mean), double, **options(row, real.mean.shape))
    np.testing.assert_allclose(values, reference, rtol=3e-5, atol=3e-5)


@every_trainable_row
def test_soft_approaches_hard_with_ties_present(name):
    if ROWS[name].differentiable != "relaxed":
        pytest.skip("has nothing to relax")
    real = measured()
    mean = guess(real)
    mean[2] = mean[4]  # equal predictions
    mean[0, :5] = np.asarray(real.control)[:5]  # tied genes
    hard = exact(name, mean)
    values = [np.asarray(compiled(name)(jnp.asarray(mean), real.mean, s)) for s in (0.6, 0.2, 1e-3)]
    errors = [np.abs(v - hard).mean() for v in values]
    assert errors[0] >= errors[1] >= errors[2]
    assert errors[2] < 1e-3
    assert np.abs(values[0] - hard).mean() > 1e-4  # softness does something


CASES = ("usual", "tied", "zero", "constant", "perfect")


def case(kind: str) -> np.ndarray:
    real = measured()
    mean = guess(real)
    if kind == "tied":
        mean[2] = mean[4]
        mean[0, :5] = np.asarray(real.control)[:5]
    elif kind == "zero":
        mean = np.broadcast_to(np.asarray(real.control), mean.shape).copy()
    elif kind == "constant":
        mean = np.broadcast_to(np.asarray(real.control) + 0.5, mean.shape).copy()
    elif kind == "perfect":
        mean = np.asarray(real.mean).copy()
    return mean


@every_trainable_row
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_gradients_are_finite(name, kind, softness):
    _, gradient, _ = compiled_gradient(name)
    grad = np.asarray(gradient(jnp.asarray(case(kind)), measured().mean, softness))
    assert np.isfinite(grad).all()
    if kind == "usual" and (softness > 0 or ROWS[name].differentiable != "relaxed"):
        assert np.abs(grad).max() > 0


@every_trainable_row
@pytest.mark.parametrize("kind", ["usual", "tied"])
def test_gradients_equal_finite_differences(name, kind):
    total, gradient, row = compiled_gradient(name)
    real, mean = measured(), case(kind)
    if row.differentiable == "relaxed":
        total, gradient = _with_frozen_temperature(name, mean)
    direction = np.random.default_rng(8).normal(size=mean.shape)
    if kind == "tied" and row.differentiable == "almost everywhere" and "mae" in row.name:
        direction[0, :5] = 0  # the kink itself has a subgradient only
    numeric = finite_difference(lambda m: total(m, real.mean, SOFT), mean, direction, 1e-6)
    analytic = float(jnp.sum(gradient(jnp.asarray(mean), real.mean, SOFT) * direction))
    assert analytic == pytest.approx(numeric, rel=2e-5, abs=1e-8)


def _with_frozen_temperature(name, mean):
    """A soft metric's gradient holds the temperature still, so its finite difference must, too."""
    projection = jnp.asarray(np.random.default_rng(4).normal(size=PERTS))
    row, real = ROWS[name], measured()
    frozen = FrozenTemperature(SOFT)
    frozen.record(lambda relax: row(predicted(real, mean), real, relax=relax, **options(row, real.mean.shape)))

    def total(pred_mean, real_mean, softness):
        relax = frozen.replay()
        values = row(predicted(real, pred_mean), real, relax=relax, **options(row, real.mean.shape))
        return jnp.sum(jnp.where(jnp.isnan(values), 0, values) * projection)

    return jax.jit(total), jax.jit(jax.grad(total))


class FrozenTemperature:
    """Relaxations that use the temperatures of one recorded evaluation again."""

    def __init__(self, softness):
        self.softness, self.seen = softness, []

    def record(self, evaluate):
        seen = self.seen

        class Recording(vcjax.Relaxation):
            def temperature(self, gaps, where=None):
                return self._keep(vcjax.Relaxation(self.softness).temperature(gaps, where))

            def _axis_temperature(self, x, where):
                return self._keep(vcjax.Relaxation(self.softness)._axis_temperature(x, where))

            def _keep(self, temperature):
                seen.append(temperature)
                return temperature

        evaluate(Recording(self.softness))

    def replay(self):
        temperatures = iter(self.seen)

        class Replaying(vcjax.Relaxation):
            def temperature(self, gaps, where=None):
                return next(temperatures)

            def _axis_temperature(self, x, where):
                return next(temperatures)

        return Replaying(self.softness)


@every_row
def test_new_values_and_new_softness_compile_nothing(name):
    real = measured()
    score = compiled(name)
    score(jnp.asarray(guess(real)), real.mean, 0.0)
    programs = score._cache_size()
    for softness, scale in ((0.1, 1.0), (0.5, 1.1)):
        score(jnp.asarray(scale * guess(real)), scale * real.mean, softness)
    assert score._cache_size() == programs


@every_row
def test_shapes_and_dtypes_are_checked(name):
    row, real = ROWS[name], measured()
    pred = predicted(real, guess(real))
    weights = options(row, real.mean.shape)
    with pytest.raises((ValueError, TypeCheckError)):
        row(eqx.tree_at(lambda p: p.mean, pred, pred.mean[:-1]), real, **weights)
    with pytest.raises((TypeError, TypeCheckError)):
        row(np.asarray(real.mean) + 1j, real, **weights)


@every_row
def test_a_value_is_undefined_exactly_where_its_status_says_so(name):
    row, real = ROWS[name], measured()
    mean = np.asarray(real.mean).copy()
    mean[3] = np.asarray(real.control)  # a measured effect of zero
    side = eqx.tree_at(lambda p: p.mean, real, jnp.asarray(mean))
    for kind in ("usual", "zero", "constant"):
        pred = predicted(side, case(kind))
        if row.level == "panel":
            continue
        weights = options(row, mean.shape)
        values = np.asarray(row(pred, side, **weights))
        codes = np.zeros(PERTS) if row.status is None else np.asarray(row.status(pred, side, **weights))
        np.testing.assert_array_equal(np.isnan(values), codes != Status.OK)


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.needs_weights])
def test_zero_weights_are_undefined_with_zero_gradient(name):
    row, real = ROWS[name], measured()
    weights = gene_weights(real.mean.shape).at[2].set(0)
    pred = predicted(real, guess(real))
    values = row(pred, real, weights=weights)
    np.testing.assert_array_equal(np.isnan(values), np.arange(PERTS) == 2)
    assert row.status is not None
    assert row.status(pred, real, weights=weights)[2] == Status.ZERO_WEIGHTS
    grad = jax.grad(lambda m: jnp.nansum(row(predicted(real, m), real, weights=weights)))(pred.mean)
    assert np.isfinite(grad).all()
    assert (np.asarray(grad)[2] == 0).all()
    with pytest.raises(ValueError, match="needs `weights`"):
        row(pred, real)


def test_names_are_unique_and_rows_complete():
    for table in (CATALOGUE, CELL_EVAL):
        for name, row in table.items():
            assert name == row.name
            assert row.summary.endswith(".")
            assert row.formula
            assert row.source
    assert len({row.v2 for row in CATALOGUE.values() if row.v2}) == 13
    assert len(CELL_EVAL) == 8
