"""Hyper-parameters chosen by gradient on leave-one-out predictions."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jaxtyping import TypeCheckError

import vcjax
from vcjax.baselines._gp import GaussianProcess
from vcjax.baselines._interface import Baseline, Fairness, Fitted, PertData, Prediction
from vcjax.baselines._kernel_ridge import KernelRidge
from vcjax.baselines._objective import measured
from vcjax.baselines._tune import grid, tunable, tune
from vcjax.metrics import CATALOGUE


pytestmark = pytest.mark.long

N, G = 40, 60
PERTS = tuple(f"P{i}" for i in range(N))
RNG = np.random.default_rng(2)
LATENT = RNG.normal(size=(N, 8))
TRUE = LATENT @ RNG.normal(size=(8, G)) * np.exp(0.5 * RNG.normal(size=(N, 1)))
DATA = PertData(
    jnp.asarray(TRUE + 2.0 * RNG.normal(size=(N, G)) + RNG.normal(size=G)),
    jnp.zeros(G),
    targets=jnp.full(N, -1),
    perts=PERTS,
)


def screen(noise, seed):
    rng = np.random.default_rng(seed)
    effects = LATENT @ rng.normal(size=(8, 90)) + noise * rng.normal(size=(N, 90))
    return PertData(jnp.asarray(effects), jnp.zeros(90), perts=PERTS)


EXTERNAL = [screen(1.0, 1), screen(30.0, 2)]  # the second is nearly noise
RIDGE = lambda b: b.log_ridge
ADAM: Any = {"optimiser": "adam", "learning_rate": 0.2, "steps": 60}  # a line search takes longer to compile


def number(leaf):
    return float(np.asarray(leaf))


def exact(model, metric, external=EXTERNAL, **options):
    made = model.fit(DATA, external=external).leave_one_out()
    real = measured(DATA)
    return float(jnp.mean(CATALOGUE[metric](made.as_profiles(real), real, **options)))


def test_lbfgs_finds_the_ridge_that_scipy_finds():
    found = tune(KernelRidge(3.0), DATA, "delta_mse", external=EXTERNAL, over=RIDGE)
    of_ridge = lambda x: exact(KernelRidge(x), "delta_mse")
    theirs: Any = scipy.optimize.minimize_scalar(of_ridge, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6})
    assert number(found.baseline.log_ridge) == pytest.approx(theirs.x, abs=1e-2)
    assert float(found.after.exact) == pytest.approx(theirs.fun, rel=1e-6)
    assert float(found.before.exact) == pytest.approx(of_ridge(3.0), rel=1e-10)
    assert found.after.exact < 0.9 * found.before.exact
    assert found.after.exact == found.after.soft
    assert len(found.history.exact) == len(found.losses)
    assert number(found.baseline.centre) == 1


def test_a_screen_of_noise_loses_its_weight():
    start = KernelRidge(logits=[0.0, 0.0])
    over = lambda b: (b.log_ridge, b.logits)
    found = tune(start, DATA, "delta_mse", external=EXTERNAL, over=over, **ADAM)
    share = jax.nn.softmax(np.asarray(found.baseline.logits))
    assert float(share[0]) > 0.85
    only_ridge = grid(start, DATA, "delta_mse", np.linspace(-4, 4, 33), over=RIDGE, external=EXTERNAL)
    assert found.after.exact < only_ridge.scores.exact.min()


@pytest.mark.parametrize("optimiser", ["lbfgs", None])
def test_the_ranks_are_climbed_through_their_smooth_form(optimiser):
    start = KernelRidge(4.0, logits=[0.0, 0.0])
    found = tune(start, DATA, "pds_l2", external=EXTERNAL, relax=vcjax.Relaxation(0.2), optimiser=optimiser)
    assert found.after.exact > found.before.exact + 0.02
    assert found.after.soft > found.before.soft
    assert found.after.exact != found.after.soft
    assert found.after.exact == pytest.approx(exact(found.baseline, "pds_l2"), abs=1e-12)
    assert optimiser or len(found.losses) == 41  # Adam, which does not stop by itself


def test_metrics_prefer_different_ridges():
    weights = jnp.square(DATA.effects - DATA.effects.mean(axis=0)[None, :])
    values = np.linspace(-6, 4, 11)
    best = {
        name: number(
            grid(KernelRidge(), DATA, name, values, over=RIDGE, external=EXTERNAL[:1], **options).baseline.log_ridge
        )
        for name, options in {"delta_mse": {}, "weighted_mse": {"weights": weights}, "pds_l2": {}}.items()
    }
    assert best["delta_mse"] > best["weighted_mse"] >= best["pds_l2"]


def test_the_gradient_is_at_least_as_good_as_the_grid():
    values = np.linspace(-4, 4, 9)
    listed = grid(KernelRidge(), DATA, "delta_mse", values, over=RIDGE, external=EXTERNAL)
    np.testing.assert_allclose(listed.scores.exact, [exact(KernelRidge(x), "delta_mse") for x in values], rtol=1e-10)
    assert listed.best == int(np.argmin(listed.scores.exact))
    assert number(listed.baseline.log_ridge) == values[listed.best]
    found = tune(listed.baseline, DATA, "delta_mse", external=EXTERNAL, over=RIDGE, **ADAM)
    assert found.after.exact <= listed.scores.exact.min()
    pairs = [(x, c) for x in (0.0, 1.0) for c in (0.0, 1.0)]
    both = grid(KernelRidge(), DATA, "pds_cosine", pairs, over=lambda b: (b.log_ridge, b.centre), external=EXTERNAL)
    assert both.best == int(np.argmax(both.scores.exact))
    assert (number(both.baseline.log_ridge), number(both.baseline.centre)) == pairs[both.best]


def test_adam_and_a_transformation_of_ones_own():
    options: Any = {"external": EXTERNAL, "over": RIDGE}
    best = grid(KernelRidge(), DATA, "delta_mse", np.linspace(-2, 2, 81), **options).scores.exact.min()
    adam = tune(KernelRidge(2.0), DATA, "delta_mse", **ADAM, **options)
    assert adam.after.exact == pytest.approx(best, rel=1e-3)
    assert len(adam.losses) == 61
    own = tune(KernelRidge(2.0), DATA, "delta_mse", optimiser=optax.sgd(0.5), steps=40, **options)
    assert own.after.exact == pytest.approx(best, rel=1e-2)


def test_likelihood_and_crps_are_objectives_too():
    start = GaussianProcess(KernelRidge(4.0, intercept="free"))
    over = lambda b: b.ridge.log_ridge
    for criterion in (lambda f: f.crps(), lambda f: f.negative_log_likelihood()):
        found = tune(start, DATA, criterion, external=EXTERNAL[:1], over=over, **ADAM)
        values = np.linspace(-3, 4, 15)
        listed = grid(start, DATA, criterion, values, external=EXTERNAL[:1], over=over)
        assert number(found.baseline.ridge.log_ridge) == pytest.approx(values[listed.best], abs=0.6)
        assert found.after.exact <= listed.scores.exact.min() + 1e-12


def test_groups_are_left_out_together():
    groups = [i // 4 for i in range(N)]
    found = tune(
        KernelRidge(2.0), DATA, "delta_mse", external=EXTERNAL, over=RIDGE, groups=groups, optimiser="adam", steps=5
    )
    made = found.baseline.fit(DATA, external=EXTERNAL).leave_group_out(groups)
    value = float(jnp.mean((made.effect - DATA.effects) ** 2))
    assert float(found.after.exact) == pytest.approx(value, rel=1e-10)


class Scaled(Baseline):
    """A fraction of the mean of the others: the least baseline that can be tuned."""

    name: ClassVar[str] = "scaled"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    scale: float = 0.3
    known: bool = eqx.field(static=True, default=True)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: jax.Array | None = None) -> Fitted:
        return FittedScaled(self, data)


class FittedScaled(Fitted):
    model: Scaled
    data: PertData

    def predict(self, perts: Sequence[str]) -> Prediction:
        raise NotImplementedError

    def leave_one_out(self) -> Prediction | None:
        if not self.model.known:
            return None
        effects = self.data.effects
        others = (jnp.sum(effects, axis=0, keepdims=True) - effects) / (len(effects) - 1)
        return Prediction(self.model.scale * others, self.data.control, jnp.ones(len(effects), bool))


def test_any_baseline_with_leave_one_out_predictions():
    found = tune(Scaled(), DATA, "delta_mse")
    effects = np.asarray(DATA.effects)
    others = (effects.sum(axis=0) - effects) / (N - 1)
    best = np.sum(others * effects) / np.sum(others**2)
    assert float(found.baseline.scale) == pytest.approx(best, rel=1e-3)
    with pytest.raises(ValueError, match="no leave-one-out"):
        tune(Scaled(known=False), DATA, "delta_mse")
    with pytest.raises(ValueError, match="leaving groups out"):
        tune(Scaled(), DATA, "delta_mse", groups=[i // 2 for i in range(N)])


def test_more_steps_compile_nothing_more():
    traces = []

    def objective(fitted):
        traces.append(1)
        return jnp.mean((fitted.leave_one_out().effect - fitted.data.effects) ** 2)

    counts = []
    for steps in (1, 4):
        traces.clear()
        tune(KernelRidge(3.0), DATA, objective, external=EXTERNAL, over=RIDGE, steps=steps, tolerance=0.0)
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_no_gradient_flows_back_from_the_truth():
    # The truth is a constant of the loss: what changes with the data is the prediction alone.
    real = measured(DATA)
    loss = vcjax.as_loss(CATALOGUE["delta_mse"])
    slope = jax.grad(lambda data: loss(jnp.zeros_like(TRUE), dataclasses.replace(real, mean=data)))(real.mean)
    assert not jnp.any(slope)


def test_what_is_tuned_by_default():
    names = lambda spec: {name for name in ("log_ridge", "logits", "centre", "shrinkage") if getattr(spec, name)}
    assert names(tunable(KernelRidge())) == {"log_ridge", "centre", "shrinkage"}
    assert names(tunable(KernelRidge(logits=[0.0]))) == {"log_ridge", "logits", "centre", "shrinkage"}
    assert names(tunable(KernelRidge(), RIDGE)) == {"log_ridge"}


def test_refusals():
    options: Any = {"external": EXTERNAL}
    with pytest.raises(ValueError, match="No metric is called"):
        tune(KernelRidge(), DATA, "likeness", **options)
    with pytest.raises(ValueError, match="diagnostic"):
        tune(KernelRidge(), DATA, "amplitude_ratio", **options)
    with pytest.raises(ValueError, match="weights"):
        tune(KernelRidge(), DATA, "weighted_mse", **options)
    with pytest.raises((ValueError, TypeCheckError), match="optimiser"):
        tune(KernelRidge(), DATA, "delta_mse", optimiser="newton", **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="values"):
        grid(KernelRidge(), DATA, "delta_mse", [], over=RIDGE, **options)

    class Constant(Scaled):
        scale: float = eqx.field(static=True, default=0.3)

    with pytest.raises(ValueError, match="no hyper-parameter"):
        tune(Constant(), DATA, "delta_mse")
