"""Combinations from their parts: sums on three scales, their mean, and fitted sums with leave-one-out."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax.baselines import Additive, AdditiveRidge, MatchingMean, mean_response, PertData


pytestmark = pytest.mark.slow
GENES = 20
SINGLES = ("A", "B", "C", "D")
DOUBLES = ("A+B", "A+C", "B+C", "C+D", "B+D")


def screen(perts=(*SINGLES, *DOUBLES), seed=0):
    rng = np.random.default_rng(seed)
    control = rng.uniform(2.0, 4, GENES)  # high enough that no sum of effects is below zero
    single = {name: rng.normal(0, 0.3, GENES) for name in SINGLES}
    rows = []
    for pert in perts:
        parts = [part for part in pert.split("+") if part in single]
        total = sum(single[part] for part in parts)
        rows.append(total if len(parts) == 1 else 0.7 * total + 0.05 + rng.normal(0, 0.1, GENES))
    effects = np.array(rows)
    return effects, control, PertData(jnp.asarray(effects), jnp.asarray(control), perts=tuple(perts))


@pytest.fixture(scope="module")
def small():
    return screen()


def test_effects_are_added(small):
    y, _, data = small
    found = Additive().fit(data).predict(("A+D", "D", "B+A", "A+B+C", "A+ctrl"))
    expected = [y[0] + y[3], y[3], y[0] + y[1], y[0] + y[1] + y[2], y[0]]
    np.testing.assert_allclose(found.effect, expected, atol=1e-12)
    assert bool(jnp.all(found.covered))


def test_counts_are_added_or_multiplied(small):
    y, c, data = small
    u, base = np.expm1(c + y), np.expm1(c)
    perts = ("A+D", "A", "A+B+C")
    counts = np.stack([base + u[0] - base + u[3] - base, u[0], u[0] + u[1] + u[2] - 2 * base])
    ratio = np.stack([u[0] * u[3] / base, u[0], u[0] * u[1] * u[2] / base**2])
    found = Additive(space="counts").fit(data).predict(perts).profile
    np.testing.assert_allclose(found, np.log1p(np.maximum(counts, 0)), atol=1e-12)
    found = Additive(space="ratio").fit(data).predict(perts).profile
    np.testing.assert_allclose(found, np.log1p(ratio), atol=1e-12)


def test_the_pseudocount_leads_from_ratios_to_logs_and_to_counts(small):
    data = small[2]
    of = lambda **options: np.asarray(Additive(**options).fit(data).predict(("A+D", "A+B+C")).effect)
    np.testing.assert_allclose(of(space="ratio", pseudocount=1.0), of(space="log"), atol=1e-12)
    np.testing.assert_allclose(of(space="ratio", pseudocount=1e9), of(space="counts"), atol=1e-5)


def test_a_gene_without_control_counts_is_added(small):
    y, c, data = small
    control = jnp.asarray(np.where(np.arange(GENES) == 4, 0, c))
    data = dataclasses.replace(data, control=control, effects=jnp.abs(data.effects))
    u = np.expm1(np.asarray(control) + np.abs(y))
    found = Additive(space="ratio").fit(data).predict(("A+D",)).profile[0]
    np.testing.assert_allclose(found[4], np.log1p(u[0, 4] + u[3, 4]), atol=1e-12)
    assert bool(jnp.all(jnp.isfinite(found)))


def test_a_sum_below_zero_counts_is_none(small):
    data = dataclasses.replace(small[2], effects=small[2].effects - 2.5)
    found = Additive(space="counts").fit(data).predict(("A+D",)).profile[0]
    assert float(jnp.min(found)) == 0


@pytest.mark.parametrize("baseline", [Additive(), Additive(space="counts"), AdditiveRidge()])
def test_an_unknown_part_leaves_the_mean_response(small, baseline):
    _, control, data = small
    found = baseline.fit(data).predict(("A+X", "X", "A+D"))
    np.testing.assert_array_equal(found.covered, [False, False, True])
    np.testing.assert_allclose(found.profile[:2], np.tile(control + mean_response(data), (2, 1)), atol=1e-12)


def test_the_matching_mean_of_systema(small):
    y, _, data = small
    mean = y.mean(axis=0)
    found = MatchingMean().fit(data).predict(("A+D", "A+X", "X+Y", "C", "A+B+C"))
    expected = [(y[0] + y[3]) / 2, (y[0] + mean) / 2, mean, y[2], (y[0] + y[1] + y[2]) / 3]
    np.testing.assert_allclose(found.effect, expected, atol=1e-12)
    np.testing.assert_array_equal(found.covered, [True, True, False, True, True])
    additive = Additive().fit(data).predict(("A+D",)).effect
    np.testing.assert_allclose(2 * found.effect[:1], additive, atol=1e-12)


def test_singles_may_be_named_with_a_control(small):
    y, _, data = small
    perts = ("A+ctrl", "ctrl+B", "C", "D", *DOUBLES)
    renamed = dataclasses.replace(data, perts=perts)
    np.testing.assert_allclose(Additive().fit(renamed).predict(("A+B",)).effect[0], y[0] + y[1], atol=1e-12)
    underscored = dataclasses.replace(data, perts=tuple(pert.replace("+", "_") for pert in data.perts))
    np.testing.assert_allclose(Additive().fit(underscored).predict(("A_D",)).effect[0], y[0] + y[3], atol=1e-12)


def normal_equations(y, interaction, ridge):
    """The coefficients from all training doubles, by stacking their genes into one least-squares problem."""
    design, target = [], []
    for pert in DOUBLES:
        (a, b), row = (y[part] for part in pert.split("+")), y[pert]
        design.append(np.stack([a + b, np.ones(GENES)] + ([a * b] if interaction else []), axis=1))
        target.append(row - a - b)
    design, target = np.concatenate(design), np.concatenate(target)
    penalty = np.sqrt(ridge * (design**2).sum(axis=0))
    found = np.linalg.lstsq(np.vstack([design, np.diag(penalty)]), np.append(target, 0 * penalty), rcond=None)[0]
    return found + np.eye(len(found))[0]


@pytest.mark.parametrize("interaction", [False, True])
@pytest.mark.parametrize("log_ridge", [-20.0, -3.0])
def test_the_fitted_sum_is_the_ridge_regression_over_doubles(small, interaction, log_ridge):
    y, _, data = small
    fitted = AdditiveRidge(log_ridge=log_ridge, interaction=interaction).fit(data)
    expected = normal_equations(dict(zip(data.perts, y, strict=True)), interaction, np.exp(log_ridge))
    np.testing.assert_allclose(fitted.coefficients, expected, atol=1e-9)
    found = fitted.predict(("A+D", "A"))
    product = expected[2] * y[0] * y[3] if interaction else 0
    np.testing.assert_allclose(found.effect[0], expected[0] * (y[0] + y[3]) + expected[1] + product, atol=1e-9)
    np.testing.assert_allclose(found.effect[1], y[0], atol=1e-12)


def test_without_doubles_or_with_a_large_ridge_it_is_the_plain_sum(small):
    _, _, data = small
    plain = Additive().fit(data).predict(("A+D", "B+C")).effect
    singles = AdditiveRidge(interaction=True).fit(data.take(SINGLES)).predict(("A+D", "B+C")).effect
    np.testing.assert_allclose(singles, plain, atol=1e-12)
    np.testing.assert_allclose(AdditiveRidge(log_ridge=40.0).fit(data).predict(("A+D", "B+C")).effect, plain, atol=1e-9)


@pytest.mark.parametrize(
    "baseline",
    [
        *(Additive(), Additive(space="counts"), Additive(space="ratio", pseudocount=0.5)),
        *(MatchingMean(), AdditiveRidge(log_ridge=-2.0), AdditiveRidge(interaction=True)),
    ],
)
def test_leave_one_out_is_a_refit_without_the_combination(small, baseline):
    _, _, data = small
    found = baseline.fit(data).leave_one_out()
    for i, pert in enumerate(data.perts):
        rest = data.take([p for p in data.perts if p != pert])
        again = baseline.fit(rest).predict((pert,))
        assert bool(found.covered[i]) == bool(again.covered[0])
        np.testing.assert_allclose(found.effect[i], again.effect[0], atol=1e-10)
    assert found.fairness == "inductive"


def test_gradients_match_finite_differences(small):
    data = small[2]
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(2, GENES)))
    of = lambda baseline, data: jnp.sum(weight * jnp.tanh(baseline.fit(data).predict(("A+D", "A+B+D")).effect))
    ridge = lambda x: of(AdditiveRidge(log_ridge=x, interaction=True), data)
    np.testing.assert_allclose(directional(ridge, -1.0, 1.0), finite_difference(ridge, -1.0, 1.0), rtol=1e-5)
    pseudo = lambda x: of(Additive(space="ratio", pseudocount=x), data)
    np.testing.assert_allclose(directional(pseudo, 0.7, 1.0), finite_difference(pseudo, 0.7, 1.0), rtol=1e-5)
    direction = np.random.default_rng(3).normal(size=data.effects.shape)
    for baseline in (Additive(space="counts"), AdditiveRidge(log_ridge=-1.0), MatchingMean()):
        loss = lambda x, baseline=baseline: of(baseline, dataclasses.replace(data, effects=x))
        expected = finite_difference(loss, data.effects, direction)
        np.testing.assert_allclose(directional(loss, data.effects, direction), expected, rtol=1e-5)


def test_unknown_spaces_are_refused(small):
    with pytest.raises((ValueError, TypeCheckError)):
        Additive(space="linear").fit(small[2])  # pyright: ignore[reportArgumentType]
