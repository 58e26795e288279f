"""Small neural baselines: they start at the mean response, learn, and repeat themselves."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcjax
from vcjax import metrics
from vcjax.baselines import _neural as neural
from vcjax.baselines._features import Features
from vcjax.baselines._interface import mean_response, PertData
from vcjax.baselines._neural_fit import mean_squared_error, Training
from vcjax.baselines._neural_nets import Perceptron


pytestmark = pytest.mark.slow

RNG = np.random.default_rng(4)
SINGLES = tuple("ABCDE")
PERTS = (*SINGLES, "A+B", "C+D")
EFFECTS = RNG.normal(size=(5, 8))
Y = np.vstack([EFFECTS, EFFECTS[0] + EFFECTS[1], EFFECTS[2] + EFFECTS[3]])
TABLE = Features(jnp.asarray(np.hstack([EFFECTS, RNG.normal(size=(5, 1))])), SINGLES)
DATA = PertData(jnp.asarray(Y), jnp.asarray(RNG.gamma(2, size=8)), perts=PERTS)
NEW = ["A+C", "B+E", "A", "A+x", "x"]

SMALL: dict[str, Any] = {"width": 16}
MODELS = {
    "linear_additive": neural.LinearAdditive(),
    "latent_additive": neural.LatentAdditive(**SMALL, latent=6),
    "embed_sum": neural.EmbedSum(**SMALL),
    "decoder_only": neural.DecoderOnly(**SMALL),
    "blind": neural.DecoderOnly(**SMALL, blind=True),
    "fmlp": neural.FeatureMLP(TABLE, **SMALL, latent=6),
}


def trained(name, **options):
    training = Training(**{"steps": 0, "learning_rate": 1e-2, **options})
    return dataclasses.replace(MODELS[name], training=training).fit(DATA, key=jax.random.key(0))


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_network_is_the_mean_response_bit_for_bit(name):
    fitted = trained(name)
    made = fitted.predict(NEW)
    np.testing.assert_array_equal(made.effect, np.broadcast_to(mean_response(DATA), (5, 8)))
    assert made.covered.tolist() == [True, True, True, False, False]
    assert fitted.history.shape == (0,)
    assert fitted.leave_one_out() is None


@pytest.mark.parametrize("name", MODELS)
def test_training_is_better_than_the_mean_and_repeats_itself(name):
    first, second = trained(name, steps=30), trained(name, steps=30)
    np.testing.assert_array_equal(first.predict(NEW).effect, second.predict(NEW).effect)
    np.testing.assert_array_equal(first.history, second.history)
    mean = np.mean((Y - Y.mean(0)) ** 2)
    np.testing.assert_allclose(first.history[0], mean, rtol=1e-12)
    own = first.predict(PERTS).effect
    if name == "blind":
        # What does not see the perturbation can only say one thing, and the mean is the best of these.
        np.testing.assert_allclose(own, np.broadcast_to(own[:1], own.shape), atol=1e-12)
        assert np.mean((own - Y) ** 2) >= mean
    else:
        assert np.mean((own - Y) ** 2) < 0.9 * mean
    np.testing.assert_array_equal(first.predict(NEW).effect[3:], np.broadcast_to(mean_response(DATA), (2, 8)))


def test_the_additive_network_finds_additive_effects():
    fitted = trained("linear_additive", steps=600, learning_rate=3e-2)
    made = fitted.predict(["A+C", "B+E"]).effect
    mu = Y.mean(0)
    design = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    design = np.vstack([design, [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    weights = np.linalg.lstsq(design, Y - mu, rcond=None)[0]
    np.testing.assert_allclose(made, mu + np.stack([weights[0] + weights[2], weights[1] + weights[4]]), atol=1e-3)


def test_members_are_counted_and_controls_are_nobody():
    encoding = neural.MultiHot.of_training(("A", "B+C", "A_B"))
    assert encoding.names == ("A", "B", "C", "A_B")
    values, covered = encoding.of(["A+ctrl", "B+B", "C+A", "D", "ctrl"], jnp.float64)
    np.testing.assert_array_equal(values, [[1, 0, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert covered.tolist() == [True, True, True, False, False]


def test_features_predict_perturbations_that_were_not_trained_on():
    fitted = trained("fmlp", steps=20)
    more = Features(jnp.concatenate([TABLE.values, TABLE.values[:1]]), (*SINGLES, "twin"))
    wider = dataclasses.replace(MODELS["fmlp"], features=more, training=Training(steps=20, learning_rate=1e-2))
    made = wider.fit(DATA, key=jax.random.key(0)).predict(["twin", "A", "twin+A+B"])
    np.testing.assert_allclose(made.effect[0], made.effect[1], atol=1e-12)
    np.testing.assert_allclose(made.effect[1], fitted.predict(["A"]).effect[0], atol=1e-12)
    assert made.covered.all()


def test_any_loss_of_predicted_and_measured_effects():
    loss = vcjax.as_loss(metrics.CATALOGUE["delta_mae"])
    fitted = trained("decoder_only", steps=40, loss=loss)
    start, end = (
        float(loss(x, jnp.asarray(Y))) for x in (jnp.broadcast_to(Y.mean(0), Y.shape), fitted.predict(PERTS).effect)
    )
    np.testing.assert_allclose(fitted.history[0], start, atol=1e-12)
    assert end < start - 0.1


def test_batches_and_decay():
    few = trained("latent_additive", steps=5, batch=3)
    whole = trained("latent_additive", steps=5)
    assert few.history[0] != whole.history[0]
    np.testing.assert_array_equal(trained("latent_additive", steps=5, batch=7).history, whole.history)
    free, decayed = (trained("linear_additive", steps=50, weight_decay=x).network.weight for x in (0.0, 5.0))
    assert float(jnp.sum(decayed**2)) < 0.9 * float(jnp.sum(free**2))


def test_one_program_for_all_steps_and_fits():
    traces = []

    def loss(pred, real):
        traces.append(1)
        return mean_squared_error(pred, real)

    trained("decoder_only", steps=4, loss=loss)
    trained("decoder_only", steps=6, loss=loss)
    assert len(traces) == 1


def test_dropout_is_off_in_predictions():
    fitted = trained("latent_additive", steps=3)
    np.testing.assert_array_equal(fitted.predict(PERTS).effect, fitted.predict(PERTS).effect)
    layer = Perceptron((3, 400, 2), key=jax.random.key(0), dtype=jnp.float64, dropout=0.5)
    x = jnp.ones(3)
    assert not np.allclose(layer(x, jax.random.key(1)), layer(x, jax.random.key(2)))
    still = eqx.nn.inference_mode(layer)
    np.testing.assert_array_equal(still(x, None), still(x, jax.random.key(1)))


def test_a_perceptron_is_its_layers():
    layer = Perceptron((3, 5, 2), key=jax.random.key(0), dtype=jnp.float64, normalised=True)
    x = RNG.normal(size=3)
    (first, b), (second, c) = ((np.asarray(x.weight), np.asarray(x.bias)) for x in layer.layers)
    h = first @ x + b
    h = np.maximum((h - h.mean()) / np.sqrt(h.var() + 1e-5), 0)
    np.testing.assert_allclose(layer(jnp.asarray(x), None), second @ h + c, atol=1e-12)


def test_float32_stays_float32():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), DATA)
    for name in ("linear_additive", "latent_additive", "fmlp"):
        model = MODELS[name]
        made = dataclasses.replace(model, training=Training(steps=2)).fit(single, key=jax.random.key(0))
        assert made.predict(NEW).effect.dtype == jnp.float32, name


def test_refusals():
    with pytest.raises(ValueError, match="needs `key`"):
        MODELS["embed_sum"].fit(DATA)
    with pytest.raises(ValueError, match="needs `features`"):
        neural.FeatureMLP().fit(DATA, key=jax.random.key(0))
    with pytest.raises(ValueError, match="None of 7"):
        neural.FeatureMLP(Features(jnp.ones((1, 2)), ("x",))).fit(DATA, key=jax.random.key(0))
    cases: list[dict[str, Any]] = [{"steps": -1}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"batch": 0}]
    for bad in cases:
        with pytest.raises(ValueError, match="are needed"):
            Training(**bad)
