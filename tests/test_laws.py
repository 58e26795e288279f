"""Laws that every row of the catalogue obeys. A new metric is one more row, and these tests read the table.

Rows that read differential expression have theirs in `test_de_laws.py`.
"""

import dataclasses
import functools as ft
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference
from jaxtyping import TypeCheckError

import vcjax
from vcjax.metrics import CATALOGUE, CELL_EVAL, Metric, Status, top_metrics


PERTS, GENES = 6, 14
ROWS = {
    name: row
    for name, row in {**CATALOGUE, **{f"v1 {name}": row for name, row in CELL_EVAL.items()}}.items()
    if not (row.needs_de or row.needs_energy or name.endswith("_top20"))
} | {row.name: row for row in top_metrics(5)}  # of these genes, 20 would be all
TRAINABLE = [name for name, row in ROWS.items() if row.differentiable != "constant"]
RELAXED = [name for name, row in ROWS.items() if row.differentiable == "relaxed"]
SOFT = 0.3

every_row = pytest.mark.parametrize("name", ROWS)
every_trainable_row = pytest.mark.parametrize("name", TRAINABLE)


def measured(dtype: Any = np.float64, perts: int = PERTS, genes: int = GENES) -> vcjax.Profiles:
    rng = np.random.default_rng(0)
    control = rng.gamma(2, 1, genes)
    mean = control + rng.normal(0, 0.7, (perts, genes))
    mean[1, 3:6] = control[3:6]  # ties among the effects of a gene set
    noise = rng.gamma(2, 0.02, perts)[:, None] * rng.dirichlet(np.ones(genes), perts)
    return vcjax.Profiles(
        mean=jnp.asarray(mean, dtype),
        control=jnp.asarray(control, dtype),
        noise=jnp.asarray(noise, dtype),
        control_noise=jnp.asarray(0.01 * rng.dirichlet(np.ones(genes)), dtype),
        targets=jnp.asarray(np.arange(perts) % (genes - 4)),
        target_sum=jnp.asarray(40.0, dtype),
        de=table(rng, (perts, genes), dtype),
    )


def table(rng, shape, dtype) -> vcjax.DETable:
    """Tested genes of which each perturbation has some that are significant."""
    log_p = -rng.exponential(1, shape)
    log_p[:, ::3] -= 9
    log_p = jnp.asarray(log_p, dtype)
    return vcjax.DETable(jnp.zeros_like(log_p), log_p, log_p, jnp.ones(shape, bool))


def predicted(real: vcjax.Profiles, mean) -> vcjax.Profiles:
    rng = np.random.default_rng(1)
    perts, genes = real.mean.shape
    noise = jnp.asarray(np.repeat(rng.gamma(2, 0.02, perts)[:, None] / genes, genes, axis=1), real.mean.dtype)
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
    """The row as one jitted function of both sides, the weights and the softness: one program a shape and dtype."""
    row = ROWS[name]

    def score(pred, real, extra, softness):
        return row(pred, real, relax=vcjax.Relaxation(softness), **extra)

    return jax.jit(score)


def score(name, pred, real, softness=0.0, extra=None) -> np.ndarray:
    extra = options(ROWS[name], real.mean.shape) if extra is None else extra
    return np.asarray(compiled(name)(pred, real, extra, jnp.asarray(softness, real.mean.dtype)))


def replaced(side: vcjax.Profiles, **fields) -> vcjax.Profiles:
    return dataclasses.replace(side, **{name: jnp.asarray(value) for name, value in fields.items()})


@every_row
def test_jit_equals_eager(name):
    row, real = ROWS[name], measured()
    pred = predicted(real, guess(real))
    eager = row(pred, real, **options(row, real.mean.shape))
    np.testing.assert_allclose(score(name, pred, real), eager, rtol=1e-12, atol=1e-14)


@every_row
def test_vmap_equals_loop(name):
    row, real = ROWS[name], measured()
    rng = np.random.default_rng(5)
    batch = [replaced(predicted(real, guess(real) + rng.normal(0, s, real.mean.shape))) for s in (0, 0.3, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batch)
    extra = options(row, real.mean.shape)
    together = jax.jit(jax.vmap(compiled(name), in_axes=(0, None, None, None)))
    for softness in (0.0, SOFT):
        alone = np.stack([score(name, pred, real, softness) for pred in batch])
        ours = together(stacked, real, extra, jnp.asarray(softness))
        np.testing.assert_allclose(ours, alone, rtol=1e-11, atol=1e-13)


@every_row
@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_permuting_perturbations_and_genes_permutes_the_values(name, softness):
    row, real = ROWS[name], measured()
    rng = np.random.default_rng(6)
    p, g = rng.permutation(PERTS), rng.permutation(GENES)
    pred = predicted(real, guess(real))
    gene_of = np.argsort(g)
    gene_wise = lambda x: x[p][:, g]

    def shuffle(s):
        targets = jnp.asarray(gene_of[np.asarray(s.targets)[p]])
        fields = {"mean": gene_wise(s.mean), "control": s.control[g], "noise": gene_wise(s.noise), "targets": targets}
        control_noise = None if s.control_noise is None else s.control_noise[g]
        return dataclasses.replace(s, **fields, control_noise=control_noise, de=jax.tree.map(gene_wise, s.de))

    moved = {key: w[p][:, g] for key, w in options(row, real.mean.shape).items()}
    before = score(name, pred, real, softness)
    after = score(name, shuffle(pred), shuffle(real), softness, moved)
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
        put = lambda x, filler: jnp.full(wide, filler, x.dtype).at[:PERTS, :GENES].set(x)
        # A row that sums the noise over all genes is given that of the genes that count.
        noise = jnp.full(wide, 9.0).at[:PERTS].set(0).at[:PERTS, :GENES].set(side.noise)
        control_noise = None if side.control_noise is None else put(side.control_noise[None, :], 0)[0]
        return vcjax.Profiles(
            mean=mean,
            control=jnp.asarray(rng.normal(0, 50, wide[1])).at[:GENES].set(side.control),
            noise=noise,
            control_noise=control_noise,
            targets=jnp.full(wide[0], 2).at[:PERTS].set(side.targets),
            target_sum=side.target_sum,
            de=jax.tree.map(lambda x: put(x, True if x.dtype == bool else -50), side.de),
        )

    masks = {"where": jnp.arange(wide[1]) < GENES, "valid": jnp.arange(wide[0]) < PERTS}
    weights = {key: jnp.ones(wide).at[:PERTS, :GENES].set(w) for key, w in options(row, shape).items()}
    padded = score(name, pad(pred), pad(real), softness, {**weights, **masks})
    plain = score(name, pred, real, softness)
    if plain.ndim == 0:
        np.testing.assert_allclose(padded, plain, rtol=1e-9)
    else:
        np.testing.assert_allclose(padded[:PERTS], plain, rtol=1e-9, atol=1e-12)
        assert np.isnan(padded[PERTS:]).all()


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.perfect is not None])
def test_a_perfect_prediction_gets_the_perfect_value(name):
    row, real = ROWS[name], measured()
    pred = replaced(predicted(real, real.mean), control=real.control)
    values = score(name, pred, real)
    assert row.perfect is not None
    np.testing.assert_allclose(values, row.perfect, atol=1e-7)


def uninformative():
    for name, row in ROWS.items():
        if row.no_skill is not None:
            yield name, "zero"
            # A shift of all genes is an effect of a size.
            if not row.name.startswith(("amplitude", "expr_mse_unbiased_capped_norm", "echoes")):
                yield name, "constant"


@pytest.mark.parametrize(("name", "kind"), list(uninformative()))
def test_an_uninformative_prediction_gets_no_skill_or_a_reason(name, kind):
    row, real = ROWS[name], measured()
    if row.level == "panel":
        real = replaced(real, control_noise=0.0)
    shift = 0.5 if kind == "constant" else 0.0
    mean = np.broadcast_to(real.control, real.mean.shape) + shift
    pred = replaced(predicted(real, mean), control=real.control, noise=np.zeros(PERTS))
    values = score(name, pred, real)
    if np.isnan(values).any():
        assert row.status is not None
        codes = row.status(pred, real, **options(row, real.mean.shape))
        assert set(np.asarray(codes)) <= {Status.CONSTANT_PREDICTION, Status.ZERO_PREDICTION}
    elif row.name.startswith("delta_cosine"):  # a common shift has a direction, if an uninformative one
        assert np.abs(values.mean()) < 0.5
    else:
        assert row.no_skill is not None
        np.testing.assert_allclose(values.mean(), row.no_skill, atol=1e-12)


@every_row
def test_float32_is_close_to_float64(name):
    row, real = ROWS[name], measured(np.float32)
    pred = predicted(real, guess(real))
    weights = {key: w.astype(np.float32) for key, w in options(row, real.mean.shape).items()}
    single = score(name, pred, real, extra=weights)
    assert single.dtype == np.float32
    wider = lambda side: jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, side)
    np.testing.assert_allclose(single, score(name, wider(pred), wider(real)), rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("name", RELAXED)
def test_soft_approaches_hard_with_ties_present(name):
    real = measured()
    mean = guess(real)
    mean[2] = mean[4]  # equal predictions
    mean[0, :5] = np.asarray(real.control)[:5]  # tied genes
    pred = predicted(real, mean)
    hard = score(name, pred, real)
    values = [score(name, pred, real, s) for s in (0.6, 0.2, 1e-3)]
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


PROJECTION = np.random.default_rng(4).normal(size=PERTS)


def projected(values):
    """A random projection of the defined values: their plain sum can be constant, as that of ranks is."""
    values = jnp.atleast_1d(values)
    return jnp.sum(jnp.where(jnp.isnan(values), 0, values) * PROJECTION[: values.size])


@ft.cache
def compiled_gradient(name: str) -> Any:
    real = measured()
    extra = options(ROWS[name], real.mean.shape)
    function = compiled(name)
    return jax.jit(jax.grad(lambda mean, softness: projected(function(predicted(real, mean), real, extra, softness))))


@every_trainable_row
def test_gradients_are_finite(name):
    for kind, softness in itertools.product(CASES, (0.0, SOFT)):
        grad = np.asarray(compiled_gradient(name)(jnp.asarray(case(kind)), softness))
        assert np.isfinite(grad).all(), (kind, softness)
        if kind == "usual" and (softness > 0 or ROWS[name].differentiable != "relaxed"):
            assert np.abs(grad).max() > 0


@every_trainable_row
def test_gradients_equal_finite_differences(name):
    # A soft metric's gradient holds the temperature still, so its finite difference must, too.
    row, real = ROWS[name], measured()
    extra = options(row, real.mean.shape)
    total = jax.jit(
        lambda mean, frozen: projected(row(predicted(real, mean), real, relax=Frozen(SOFT, frozen), **extra))
    )
    gradient = jax.jit(jax.grad(total))
    for kind in ("usual", "tied"):
        mean = case(kind)
        recording = Recording(SOFT)
        row(predicted(real, mean), real, relax=recording, **extra)
        direction = np.random.default_rng(8).normal(size=mean.shape)
        if kind == "tied" and "mae" in row.name:
            direction[0, :5] = 0  # the kink itself has a subgradient only
        frozen = tuple(recording.seen)
        numeric = finite_difference(lambda m, frozen=frozen: total(m, frozen), mean, direction, 1e-6)
        analytic = float(jnp.sum(gradient(jnp.asarray(mean), frozen) * direction))
        assert analytic == pytest.approx(numeric, rel=2e-5, abs=1e-8), kind


class Recording(vcjax.Relaxation):
    """Keeps the temperatures of an evaluation."""

    seen: list = eqx.field(static=True, default_factory=list)

    def temperature(self, gaps, where=None):
        return self._keep(vcjax.Relaxation(self.softness).temperature(gaps, where))

    def _axis_temperature(self, x, where):
        return self._keep(vcjax.Relaxation(self.softness)._axis_temperature(x, where))

    def _keep(self, temperature):
        self.seen.append(temperature)
        return temperature


class Frozen(vcjax.Relaxation):
    """Uses recorded temperatures again, in their order."""

    left: list = eqx.field(default_factory=list)

    def __init__(self, softness, temperatures):
        super().__init__(softness)
        self.left = list(temperatures)

    def temperature(self, gaps, where=None):
        return self.left.pop(0)

    def _axis_temperature(self, x, where):
        return self.left.pop(0)


@every_row
def test_new_values_and_new_softness_compile_nothing(name):
    real = measured()
    score(name, predicted(real, guess(real)), real)
    programs = compiled(name)._cache_size()
    for softness, scale in ((0.1, 1.0), (0.5, 1.1)):
        score(name, predicted(real, scale * guess(real)), replaced(real, mean=scale * real.mean), softness)
    assert compiled(name)._cache_size() == programs


@every_row
def test_shapes_and_dtypes_are_checked(name):
    row, real = ROWS[name], measured()
    pred = predicted(real, guess(real))
    weights = options(row, real.mean.shape)
    with pytest.raises((ValueError, TypeCheckError)):
        row(replaced(pred, mean=pred.mean[:-1]), real, **weights)
    with pytest.raises((TypeError, TypeCheckError)):
        row(np.asarray(real.mean) + 1j, real, **weights)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.level == "perturbation"])
def test_a_value_is_undefined_exactly_where_its_status_says_so(name):
    row, real = ROWS[name], measured()
    mean = np.asarray(real.mean).copy()
    mean[3] = np.asarray(real.control)  # a measured effect of zero
    side = replaced(real, mean=mean)
    for kind in ("usual", "zero", "constant"):
        pred = predicted(side, case(kind))
        weights = options(row, mean.shape)
        values = score(name, pred, side)
        codes = np.zeros(PERTS) if row.status is None else np.asarray(row.status(pred, side, **weights))
        np.testing.assert_array_equal(np.isnan(values), codes != Status.OK)


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.needs_weights])
def test_zero_weights_are_undefined_with_zero_gradient(name):
    row, real = ROWS[name], measured()
    weights = gene_weights(real.mean.shape).at[2].set(0)
    pred = predicted(real, guess(real))
    values = row(pred, real, weights=weights)
    undefined = np.arange(PERTS) == 2 if row.level == "perturbation" else True
    np.testing.assert_array_equal(np.isnan(values), undefined)
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
    assert len({row.v2 for row in CATALOGUE.values() if row.v2}) == 54
    assert len(CELL_EVAL) == 27
