"""Transfer between contexts: each rule against numpy, refits, missing measurements, contexts left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import directional, finite_difference

from vcjax import metrics
from vcjax.baselines import _transfer_learnt as learnt, _transfer_models as models
from vcjax.baselines._interface import PertData
from vcjax.baselines._leave_context import context_scores, leave_one_context_out
from vcjax.baselines._transfer import gather_sources
from vcjax.baselines._transfer_rules import (
    compressed,
    gene_scales,
    knockdown_depth,
    nonnegative_weights,
    optimal_scale,
    source_agreement,
    source_mean,
    source_median,
)


pytestmark = pytest.mark.long

RNG = np.random.default_rng(3)
GENES = tuple(f"g{i}" for i in range(12))
PERTS = tuple(f"p{i}" for i in range(7))
TRUTH = RNG.normal(size=(9, 12)) + 0.5
NAMES = (*PERTS, "u", "v")


def screen(names, scale, genes=GENES, context="", seed=0, targets=None):
    rng = np.random.default_rng(seed)
    rows, columns = [NAMES.index(name) for name in names], [GENES.index(gene) for gene in genes]
    effects = scale * TRUTH[np.ix_(rows, columns)] + 0.4 * rng.normal(size=(len(rows), len(columns)))
    control, cells = rng.gamma(2, size=len(genes)), jnp.asarray(rng.uniform(20, 90, size=len(rows)))
    found = None if targets is None else jnp.asarray(targets, jnp.int32)
    return PertData(
        jnp.asarray(effects), jnp.asarray(control), cells, targets=found, perts=names, genes=genes, context=context
    )


TARGET = screen(PERTS, 1.0, context="H1", seed=1)
ONE = screen((*PERTS[1:], "u"), 2.0, context="K562", seed=2)
TWO = screen((*PERTS[2:], "u", "v"), 0.7, GENES[:9], context="RPE1", seed=3)
THREE = screen((*PERTS[1:5], "v", "u"), 1.3, context="HepG2", seed=4)
SOURCES = [ONE, TWO, THREE]


def stack(names, sources=SOURCES):
    """The effects of the sources on the genes of the target, NaN where there are none."""
    values = np.full((len(sources), len(names), 12), np.nan)
    for d, source in enumerate(sources):
        for i, name in enumerate(names):
            if name in source.perts:
                columns = [GENES.index(gene) for gene in source.genes]
                values[d, i, columns] = np.asarray(source.effects)[source.perts.index(name)]
    return values


ALL = stack(NAMES)
NEW = ALL[:, 7:]
Y = np.asarray(TARGET.effects)
MU = Y.mean(0)
GENERIC = np.stack([np.nanmean(stack(source.perts, [source])[0], axis=0) for source in SOURCES[:1]])


def close(value, expected, atol=1e-10):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def weights(temperature=0.05):
    similar = []
    for source in SOURCES:
        columns = [GENES.index(gene) for gene in source.genes]
        similar.append(np.corrcoef(np.asarray(TARGET.control)[columns], source.control)[0, 1])
    raw = np.exp(np.array(similar) / temperature)
    return raw / raw.sum()


def averaged(values, share=None):
    share = np.ones(len(values)) if share is None else share
    amount = np.where(np.isnan(values), 0, share[:, None, None])
    with np.errstate(invalid="ignore"):
        return (amount * np.nan_to_num(values)).sum(0) / amount.sum(0)


def generics():
    rows = []
    for source in SOURCES:
        row = np.full(12, np.nan)
        row[[GENES.index(gene) for gene in source.genes]] = np.asarray(source.effects).mean(0)
        rows.append(row)
    return np.stack(rows)


def expected_scaled(values, rows=range(7)):
    rows = list(rows)
    mean = averaged(ALL[:, rows])
    known = ~np.isnan(mean)
    return (mean * Y[rows])[known].sum() / (mean**2)[known].sum() * averaged(values)


def expected_gene_scaled(values):
    mean = averaged(ALL[:, :7])
    product, square = np.nansum(mean * Y, axis=0), np.nansum(mean**2, axis=0)
    ridge = square.mean()
    return (product + ridge * product.sum() / square.sum()) / (square + ridge) * averaged(values)


def expected_specific(values):
    own = averaged(ALL[:, :7] - generics()[:, None])
    known = ~np.isnan(own)
    scale = (own * (Y - MU))[known].sum() / (own**2)[known].sum()
    return MU + scale * averaged(values - generics()[:, None])


def filled(values):
    mean = averaged(values)
    return np.where(np.isnan(values), np.where(np.isnan(mean), 0, mean), values), ~np.isnan(mean)


def expected_nnls(values):
    parts, known = filled(ALL[:, :7])
    design = np.stack([*(part[known] for part in parts), np.broadcast_to(MU, Y.shape)[known]], axis=1)
    found, _ = scipy.optimize.nnls(design, Y[known])
    return np.einsum("d,dpg->pg", found[:-1], filled(values)[0]) + found[-1] * MU


def expected_norm(values):
    direction = averaged(values, weights())
    size = np.sqrt(np.nanmean(values**2, axis=2))
    amount = np.where(np.isnan(size), 0, weights()[:, None])
    wanted = (amount * np.nan_to_num(size)).sum(0) / amount.sum(0)
    return direction * (wanted / np.sqrt(np.nanmean(direction**2, axis=1)))[:, None]


def expected_agreement(values):
    scales = []
    for p in range(values.shape[1]):
        rows = [row for row in values[:, p] if not np.isnan(row).all()]
        pairs = [
            np.corrcoef(*(np.stack([a, b])[:, ~np.isnan(a + b)]))[0, 1]
            for i, a in enumerate(rows)
            for b in rows[i + 1 :]
        ]
        r = np.mean(pairs) if pairs else 0.5
        k = len(rows)
        scales.append(max(0, k * r / (1 + (k - 1) * r)) if pairs and r > 0 else (0 if pairs else 0.5))
    return np.array(scales)[:, None] * averaged(values)


def expected_compressed(values):
    depth = np.array([np.asarray(source.cells).mean() for source in SOURCES])
    share = weights() * depth / (depth + 50)
    shape = lambda x: np.sign(averaged(x, share)) * np.sqrt(np.abs(averaged(x, share)))
    return shape(values) * 0.0898 / np.nanmean(np.abs(shape(stack((*PERTS[1:], "u", "v")))))


RULES = {
    "direct": (models.DirectTransfer(), lambda values: values[0]),
    "mean": (models.MeanTransfer(), averaged),
    "median": (models.MedianTransfer(), lambda values: np.nanmedian(values, axis=0)),
    "weighted": (models.WeightedTransfer(), lambda values: averaged(values, weights())),
    "norm": (models.NormRestoredTransfer(), expected_norm),
    "agreement": (models.AgreementTransfer(), expected_agreement),
    "compressed": (models.CompressedTransfer(), expected_compressed),
    "scaled": (learnt.ScaledTransfer(), expected_scaled),
    "given scale": (learnt.ScaledTransfer(0.3), lambda values: 0.3 * averaged(values)),
    "gene scaled": (learnt.GeneScaledTransfer(), expected_gene_scaled),
    "specific": (learnt.SpecificTransfer(), expected_specific),
    "given specific": (
        learnt.SpecificTransfer(0.4),
        lambda values: MU + 0.4 * averaged(values - generics()[:, None]),
    ),
    "nnls": (learnt.StackedTransfer(), expected_nnls),
}


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_its_formula(name):
    model, expected = RULES[name]
    made = model.fit(TARGET, external=SOURCES).predict(["u", "v", "w"])
    value = expected(NEW)
    # What no source measures has the mean response, not zero.
    close(made.effect[:2], np.where(np.isnan(value), MU, value))
    close(made.effect[2], MU)
    assert made.covered.tolist() == [True, True, False]
    assert (made.baseline, made.fairness) == (model.name, "external")


@pytest.mark.parametrize("name", RULES)
def test_leaving_one_out_equals_refits(name):
    model = dataclasses.replace(RULES[name][0], depth_power=None)
    left = model.fit(TARGET, external=SOURCES).leave_one_out()
    for i, pert in enumerate(PERTS):
        others = TARGET.take([name for name in PERTS if name != pert])
        refit = model.fit(others, external=SOURCES).predict([pert])
        close(left.effect[i], refit.effect[0])
        assert bool(left.covered[i]) == bool(refit.covered[0]) == (i > 0)
    assert left.fairness == "external"


KNOBS = [
    (models.WeightedTransfer(logits=np.zeros(3)), "log_temperature", -2.0),
    (models.WeightedTransfer(), "logits", [0.3, -0.2, 0.1]),
    (models.NormRestoredTransfer(), "log_temperature", -2.0),
    (models.NormRestoredTransfer(), "log_amplitude", 0.2),
    (models.AgreementTransfer(), "power", 0.7),
    (models.AgreementTransfer(), "log_amplitude", 0.1),
    (models.CompressedTransfer(), "power", 0.6),
    (models.CompressedTransfer(), "log_shrinkage", 3.0),
    (models.CompressedTransfer(), "log_level", -1.0),
    (learnt.ScaledTransfer(), "amplitude", 0.3),
    (learnt.SpecificTransfer(), "amplitude", 0.3),
    (learnt.GeneScaledTransfer(), "log_ridge", -0.5),
    (learnt.StackedTransfer(), "log_ridge", -1.0),
    (learnt.ScaledTransfer(), "depth_power", 0.5),
]


@pytest.mark.parametrize(("model", "field", "at"), KNOBS, ids=lambda x: x if isinstance(x, str) else None)
def test_knobs_have_the_gradient_of_finite_differences(model, field, at):
    targeted = [dataclasses.replace(x, targets=jnp.arange(len(x.perts), dtype=jnp.int32)) for x in (TARGET, *SOURCES)]

    @jax.jit
    def error(value):
        fitted = dataclasses.replace(model, **{field: value}).fit(targeted[0], external=targeted[1:])
        return jnp.mean((fitted.leave_one_out().effect - Y) ** 2) + jnp.sum(jnp.cos(fitted.predict(["u"]).effect))

    direction = np.ones(np.shape(at)) if np.ndim(at) == 0 else np.array([1.0, -0.5, 0.2])
    found = directional(error, np.asarray(at), direction)
    close(found, finite_difference(error, at, direction), 1e-6)
    assert abs(found) > 1e-7


def test_effects_have_a_gradient_through_missing_measurements():
    @jax.jit
    def total(effects):
        source = dataclasses.replace(TWO, effects=effects)
        made = [model.fit(TARGET, external=[ONE, source]).predict(["u", "v", "w"]) for model, _ in RULES.values()]
        return sum(jnp.sum(jnp.sin(x.effect)) for x in made)

    at = np.asarray(TWO.effects)
    direction = RNG.normal(size=at.shape)
    close(directional(total, at, direction), finite_difference(total, at, direction), 1e-5)


def test_the_order_of_perturbations_and_sources_does_not_matter():
    order = [PERTS[i] for i in RNG.permutation(7)]
    for name, (model, _) in RULES.items():
        straight = model.fit(TARGET, external=SOURCES).predict(["u", "v"])
        close(model.fit(TARGET.take(order), external=SOURCES).predict(["v", "u"]).effect[::-1], straight.effect)
        if name != "direct":
            close(model.fit(TARGET, external=SOURCES[::-1]).predict(["u", "v"]).effect, straight.effect)


def test_without_training_perturbations_scales_come_from_the_sources():
    nothing = TARGET.take(())
    products = squares = 0.0
    for d, source in enumerate(SOURCES):
        others = [i for i in range(3) if i != d]
        mean, real = averaged(stack(source.perts)[others]), stack(source.perts)[d]
        known = ~np.isnan(mean * real)
        products, squares = products + (mean * real)[known].sum(), squares + (mean**2)[known].sum()
    fitted = learnt.ScaledTransfer().fit(nothing, external=SOURCES)
    made = fitted.predict(["u", "w"])
    close(made.effect[0], products / squares * averaged(NEW)[0])
    close(made.effect[1], np.nanmean(generics(), axis=0))
    assert fitted.leave_one_out() is None
    specific = learnt.SpecificTransfer().fit(nothing, external=SOURCES).predict(["u"])
    assert np.isfinite(specific.effect).all()
    with pytest.raises(ValueError, match="there is none"):
        learnt.StackedTransfer().fit(nothing, external=SOURCES)
    with pytest.raises(ValueError, match="there is none"):
        learnt.ScaledTransfer().fit(nothing, external=[ONE])


def test_what_is_measured_nowhere_stays_unknown():
    made = models.MeanTransfer().fit(TARGET.take(()), external=[TWO]).predict(["v"])
    assert np.isnan(made.effect[0, 9:]).all()
    assert np.isfinite(made.effect[0, :9]).all()


def test_contexts_left_out():
    contexts = [TARGET, ONE, THREE]
    made = leave_one_context_out(models.MeanTransfer(), contexts)
    assert made[0].perts == PERTS[1:]
    assert made[1].perts == (*PERTS[1:], "u")
    close(made[0].effect, averaged(stack(PERTS[1:], [ONE, THREE])))
    expected = [
        np.mean((np.asarray(x.effect) - np.asarray(y.take(x.perts).effects)) ** 2)
        for x, y in zip(made, contexts, strict=True)
    ]
    close(context_scores(models.MeanTransfer(), contexts, metrics.mse), expected)
    with pytest.raises(ValueError, match="At least two"):
        leave_one_context_out(models.MeanTransfer(), [ONE])
    alone = dataclasses.replace(ONE, perts=tuple("abcdefg"))
    with pytest.raises(ValueError, match="No other context"):
        leave_one_context_out(models.MeanTransfer(), [TARGET, alone])


def test_contexts_left_out_compare_the_genes_that_others_measure():
    made = context_scores(models.MeanTransfer(), [THREE, TWO], metrics.mse)
    shared = [pert for pert in THREE.perts if pert in TWO.perts]
    gap = np.asarray(THREE.take(shared).effects)[:, :9] - np.asarray(TWO.take(shared).effects)
    close(made[0], np.mean(gap**2))

    @jax.jit
    def total(amplitude):
        return jnp.sum(context_scores(learnt.ScaledTransfer(amplitude), [TARGET, *SOURCES], metrics.mse))

    close(directional(total, 0.6, 1.0), finite_difference(total, 0.6, 1.0), 1e-7)


def test_knock_down_depth():
    targets = {"H1": [0, 1, 2, -1, 4, 5, 6], "K562": [1, 2, 3, 4, 5, 6, -1]}
    target = dataclasses.replace(TARGET, targets=jnp.asarray(targets["H1"], jnp.int32))
    source = dataclasses.replace(ONE, targets=jnp.asarray(targets["K562"], jnp.int32))
    own = np.median([abs(Y[i, t]) for i, t in enumerate(targets["H1"]) if t >= 0])
    other = np.median([abs(np.asarray(ONE.effects)[i, t]) for i, t in enumerate(targets["K562"]) if t >= 0])
    close(knockdown_depth(target), own)
    assert np.isnan(knockdown_depth(ONE))
    for power, factor in ((1.0, own / other), (0.5, np.sqrt(own / other)), (0.0, 1.0)):
        model = models.DirectTransfer(depth_power=power)
        made = model.fit(target, external=[source]).predict(["u"])
        close(made.effect[0], factor * np.asarray(ONE.effects)[-1])
    # A source of unknown depth is left as it is; a target of unknown depth takes that of the sources.
    made = models.DirectTransfer(depth_power=1.0).fit(target, external=[ONE]).predict(["u"])
    close(made.effect[0], np.asarray(ONE.effects)[-1])
    made = models.DirectTransfer(depth_power=1.0).fit(TARGET, external=[source]).predict(["u"])
    close(made.effect[0], np.asarray(ONE.effects)[-1])


def test_genes_are_matched_by_name():
    order = RNG.permutation(12)
    turned = dataclasses.replace(
        ONE, effects=ONE.effects[:, order], control=ONE.control[order], genes=tuple(GENES[i] for i in order)
    )
    straight, other = (gather_sources(TARGET, [source]) for source in (ONE, turned))
    close(straight.of(["u"]), other.of(["u"]), 0)
    close(straight.similarity, other.similarity)
    with pytest.raises(ValueError, match="matched by name"):
        gather_sources(TARGET, [dataclasses.replace(TWO, genes=())])
    with pytest.raises(ValueError, match="`place`"):
        models.DirectTransfer(place=3).fit(TARGET, external=SOURCES).predict(["u"])
    with pytest.raises(ValueError, match="needs `external`"):
        models.MeanTransfer().fit(TARGET)


def test_stacked_effects():
    values = jnp.asarray(ALL)
    close(source_mean(values), averaged(ALL))
    known = ~np.isnan(ALL).all(axis=0)
    close(np.asarray(source_median(values))[known], np.nanmedian(ALL[:, known], axis=0))
    assert np.isnan(source_median(values)[0]).all()
    pred, real = RNG.normal(size=(2, 3, 5))
    close(optimal_scale(jnp.asarray(pred), jnp.asarray(real)), (pred * real).sum() / (pred**2).sum())
    rho = (pred * real).sum() / np.sqrt((pred**2).sum() * (real**2).sum())
    best = real - np.asarray(optimal_scale(jnp.asarray(pred), jnp.asarray(real))) * pred
    close((best**2).sum() / (real**2).sum(), 1 - rho**2)
    close(gene_scales(jnp.zeros(3), jnp.zeros(3), jnp.asarray(0.0)), np.ones(3))
    close(gene_scales(jnp.asarray([1.0, 2]), jnp.asarray([2.0, 1]), jnp.asarray(50.0)), [1, 1])
    close(compressed(jnp.asarray([-4.0, 0, 9]), jnp.asarray(0.5)), [-2, 0, 3])
    assert np.isfinite(jax.grad(lambda x: compressed(x, jnp.asarray(0.5)).sum())(jnp.zeros(2))).all()
    assert np.isnan(source_agreement(values[:1])).all()
    close(source_agreement(jnp.stack([values[0], -values[0]]))[1:], np.r_[np.zeros(7), np.nan])


def test_nonnegative_least_squares():
    for _ in range(20):
        design, aim = RNG.normal(size=(15, 4)), RNG.normal(size=15)
        design[:, 3] = design[:, 2] + 0.1 * RNG.normal(size=15)
        found = nonnegative_weights(jnp.asarray(design.T @ design), jnp.asarray(design.T @ aim))
        close(found, scipy.optimize.nnls(design, aim)[0], 1e-9)
    close(nonnegative_weights(jnp.zeros((2, 2)), jnp.zeros(2)), [0, 0])
    gram, cross = jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jnp.asarray([1.0, 1.0])
    weigh = jax.jit(lambda cross: jnp.sum(jnp.sin(nonnegative_weights(gram, cross))))
    close(directional(weigh, cross, np.array([1.0, 0.3])), finite_difference(weigh, cross, np.array([1.0, 0.3])), 1e-8)
