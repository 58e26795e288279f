"""Oracles against the calibration code and least squares; the registry and what data allow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vcjax import calibration
from vcjax.baselines import (
    Additive,
    available,
    BASELINES,
    BestLinearSpan,
    EmpiricalBayesDuplicate,
    expected_shares,
    gene_ratios,
    get_baseline,
    InterpolatedDuplicate,
    mean_response,
    MeanResponse,
    NULLS,
    OracleScaled,
    PertData,
    role,
    settings,
    TechnicalDuplicate,
)


GENES = 30
TRAIN, TEST = ("A", "B", "C", "D", "E"), ("T1", "T2", "T3")


def data_of(perts, seed, noise=None, **options):
    rng = np.random.default_rng(seed)
    control = jnp.asarray(np.random.default_rng(0).uniform(0.5, 3, GENES))
    shared = np.random.default_rng(1).normal(0, 0.3, GENES)
    effects = jnp.asarray(shared + rng.normal(0, 0.3, (len(perts), GENES)))
    return PertData(effects, control, noise=noise, perts=perts, **options)


@pytest.fixture(scope="module")
def train():
    return data_of(TRAIN, 2)


@pytest.fixture(scope="module")
def replicate():
    rng = np.random.default_rng(9)
    return data_of(TEST, 3, noise=jnp.asarray(rng.uniform(0.01, 0.2, (3, GENES))))


def test_a_technical_duplicate_is_the_replicate(train, replicate):
    found = TechnicalDuplicate(replicate).fit(train).predict(("T2", "unknown", "T1"))
    np.testing.assert_array_equal(found.effect[0], replicate.effects[1])
    np.testing.assert_allclose(found.effect[1], mean_response(train), atol=1e-12)
    np.testing.assert_array_equal(found.covered, [True, False, True])
    assert found.fairness == "oracle"
    few = PertData(replicate.effects[:, :5], replicate.control[:5], perts=TEST)
    with pytest.raises(ValueError, match="genes"):
        TechnicalDuplicate(few).fit(train)


def test_a_duplicate_of_the_same_size_costs_twice_the_noise():
    rng = np.random.default_rng(0)
    control, truth = jnp.zeros(50_000), rng.normal(0, 0.5, (1, 50_000))
    noisy = lambda: PertData(jnp.asarray(truth + rng.normal(0, 0.3, truth.shape)), control, perts=("p",))
    train = PertData(jnp.asarray(rng.normal(0, 0.5, truth.shape)), control, perts=("q",))
    pred = TechnicalDuplicate(noisy()).fit(train).predict(("p",))
    error = float(jnp.mean((pred.effect - noisy().effects) ** 2))
    assert abs(error / (2 * 0.3**2) - 1) < 0.03


def test_interpolated_and_shrunken_duplicates_are_those_of_calibration(train, replicate):
    log_padj = jnp.asarray(np.log(np.random.default_rng(4).uniform(0.001, 1, (3, GENES))))
    mean = mean_response(train)
    found = InterpolatedDuplicate(replicate, log_padj).fit(train).predict(TEST)
    np.testing.assert_allclose(
        found.effect, calibration.interpolated_duplicate(replicate.effects, mean, log_padj), atol=1e-12
    )
    found = EmpiricalBayesDuplicate(replicate).fit(train).predict(TEST)
    expected = calibration.empirical_bayes_duplicate(replicate.effects, mean, replicate.noise)
    np.testing.assert_allclose(found.effect, expected, atol=1e-12)
    with pytest.raises(ValueError, match="gene by gene"):
        EmpiricalBayesDuplicate(data_of(TEST, 3)).fit(train)


def test_the_oracle_scale_is_least_squares(train, replicate):
    mean, truth = np.asarray(mean_response(train)), np.asarray(replicate.effects)
    found = np.asarray(OracleScaled(replicate).fit(train).predict(TEST).effect)
    for row, y in zip(found, truth, strict=True):
        scale = np.linalg.lstsq(mean[:, None], y, rcond=None)[0]
        np.testing.assert_allclose(row, scale * mean, atol=1e-12)
    common = OracleScaled(replicate, inner=MeanResponse(scale=3.0), scale="others")
    found = np.asarray(common.fit(train).predict(TEST).effect)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        scale = np.linalg.lstsq(np.tile(mean, 2)[:, None], truth[others].ravel(), rcond=None)[0]
        np.testing.assert_allclose(found[i], scale * mean, atol=1e-12)


def test_the_span_is_the_least_squares_projection(train, replicate):
    basis, truth = np.asarray(train.effects), np.asarray(replicate.effects)
    found = np.asarray(BestLinearSpan(replicate).fit(train).predict(TEST).effect)
    expected = (basis.T @ np.linalg.lstsq(basis.T, truth.T, rcond=None)[0]).T
    np.testing.assert_allclose(found, expected, atol=1e-8)
    error = lambda effect: np.mean((np.asarray(effect) - truth) ** 2)
    assert error(found) < error(MeanResponse().fit(train).predict(TEST).effect)
    # Twice the same training effect spans nothing more.
    double = PertData(jnp.concatenate([train.effects, train.effects[:2]]), train.control, perts=(*TRAIN, "A2", "B2"))
    again = np.asarray(BestLinearSpan(replicate).fit(double).predict(TEST).effect)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    member = dataclasses.replace(train, perts=("T1", "T2", "T3", "x", "y"))
    np.testing.assert_allclose(BestLinearSpan(member).fit(train).predict(("T1",)).effect[0], basis[0], atol=1e-8)


def test_every_baseline_says_what_it_is():
    for name, kind in BASELINES.items():
        assert name == kind.name
        assert kind.fairness in ("inductive", "external", "transductive", "oracle")
        assert kind.summary.endswith(".")
        assert kind.source
        assert role(kind) == ("oracle" if kind.fairness == "oracle" else "null" if name in NULLS else "competitor")
    assert set(BASELINES) >= NULLS


def test_what_can_be_fitted_depends_on_the_data(train):
    found = {one.name: one for one in available(train)}
    assert found["mean"].fits
    assert "context" in found["cross_context_mean"].why
    assert "targets" in found["crispr_mean"].why
    assert "combination" in found["additive"].why
    assert not found["technical_duplicate"].fits
    assert not found["metadata_neighbour"].fits
    richer = dataclasses.replace(train, targets=jnp.array([0, 1, -1, -1, -1]))
    found = {one.name: one for one in available(richer, predict=("A+B",), external=[train], given={"truth"})}
    for name in ("cross_context_mean", "crispr_mean", "additive", "matching_mean", "best_linear_span"):
        assert found[name].fits, name
    assert not {one.name: one for one in available(richer, predict=("X+Y", "A"))}["additive"].fits


def test_baselines_by_name():
    assert get_baseline("additive", space="counts") == Additive(space="counts")
    null = get_baseline("gene_permuted:additive", space="ratio")
    assert settings(null) == {"inner": {"baseline": "additive", "space": "ratio", "pseudocount": 0.0}}
    for name, options, words in (
        ("additiv", {}, "'additive'"),
        ("mean", {"weight": 2}, "scale"),
        ("technical_duplicate", {}, "replicate"),
        ("permuted_labels", {}, "inner"),
    ):
        with pytest.raises(ValueError, match=words):
            get_baseline(name, **options)


def test_shares_and_ratios_undo_the_normalisation():
    rng = np.random.default_rng(0)
    sums = rng.poisson(20.0, (3, 12)).astype(float)
    profile = np.log1p(5e4 * sums / sums.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(expected_shares(profile), sums / sums.sum(axis=1, keepdims=True), rtol=1e-10)
    np.testing.assert_array_equal(expected_shares(np.zeros((1, 4))), np.zeros((1, 4)))
    ratio = gene_ratios(profile[1:], profile[0])
    shares = sums / sums.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ratio, shares[1:] / shares[0], rtol=1e-10)
    assert float(gene_ratios(np.ones((1, 2)), np.array([0.0, 1.0]))[0, 0]) == 0
    with pytest.raises((ValueError, TypeCheckError)):
        gene_ratios(profile, profile[0, :5])


def test_a_gradient_flows_through_the_span(train, replicate):
    loss = lambda y: jnp.sum(
        BestLinearSpan(replicate).fit(dataclasses.replace(train, effects=y)).predict(TEST).effect ** 3
    )
    direction = np.random.default_rng(1).normal(size=train.effects.shape)
    slope = float(jnp.sum(jax.grad(loss)(train.effects) * direction))
    step = 1e-6
    expected = (loss(train.effects + step * direction) - loss(train.effects - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, float(expected), rtol=1e-4)
