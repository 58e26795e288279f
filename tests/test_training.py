"""The trainer: what it minimises, what it keeps, how it stops, and that it goes on where it was cut off."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vcjax
from vcjax.losses import compose, Term
from vcjax.metrics import CATALOGUE
from vcjax.training import CollapseGuard, fit, TrainingData
from vcjax.training._data import draw_rows, with_train_mean
from vcjax.training._step import take_step


PERTS, GENES, FEATURES = 12, 20, 5
RNG = np.random.default_rng(0)
INPUTS = jnp.asarray(RNG.normal(size=(PERTS, FEATURES)), jnp.float32)
LOADING = jnp.asarray(RNG.normal(size=(FEATURES, GENES)), jnp.float32)
CONTROL = jnp.asarray(RNG.gamma(2, 1, GENES), jnp.float32)
WEIGHTS = jnp.asarray(RNG.gamma(1, 1, (PERTS, GENES)), jnp.float32)


class Linear(eqx.Module):
    mean: jax.Array
    weight: jax.Array

    def __call__(self, features):
        return self.mean + features @ self.weight


def measured(seed: int = 0, noise: float = 0.3) -> vcjax.Profiles:
    rng = np.random.default_rng(seed)
    effects = INPUTS @ LOADING + jnp.asarray(rng.normal(0, noise, (PERTS, GENES)), jnp.float32)
    return vcjax.Profiles(CONTROL[None] + effects, CONTROL, targets=jnp.arange(PERTS))


def start() -> Linear:
    return Linear(measured().mean.mean(axis=0), jnp.zeros((FEATURES, GENES), jnp.float32))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData(INPUTS, measured(), weights=WEIGHTS, perts=[f"gene {i}" for i in range(PERTS)])


@pytest.fixture(scope="module")
def other_cells() -> TrainingData:
    return TrainingData(INPUTS, measured(1), weights=WEIGHTS)


ADAM = optax.adam(0.05)


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_it_takes_the_steps_of_a_loop_written_by_hand(data):
    loss = compose({"weighted_mse": 1.0, "pds_l2": 0.5}, real=data.real, weights=WEIGHTS, softness=0.3)
    run = fit(start(), data, loss, ADAM, steps=7, every=3)
    model: Any = start()
    state = ADAM.init(model)
    for step in range(7):
        value, slope = eqx.filter_value_and_grad(lambda m: loss(jax.vmap(m)(INPUTS), data.real, weights=WEIGHTS)[0])(
            model
        )
        assert run.history.steps[step]["loss"] == pytest.approx(float(value), rel=1e-5)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = ADAM.update(slope, state)
        model = eqx.apply_updates(model, updates)
    np.testing.assert_allclose(run.last.weight, model.weight, rtol=1e-4, atol=1e-6)
    assert [row["step"] for row in run.history.evaluations] == [0, 3, 6, 7]
    assert [row["step"] for row in run.history.steps] == list(range(7))


def test_training_on_a_metric_raises_the_exact_metric(data, other_cells):
    run = fit(
        start(), data, "pds_cosine", ADAM, steps=60, validation=other_cells, monitor="pds_cosine", metrics=["expr_mse"]
    )
    first, best = run.history.evaluations[0]["pds_cosine"], run.score
    assert first == pytest.approx(0.5, abs=0.15)
    assert best > 0.95
    assert best == max(run.history.column("pds_cosine"))
    pred = jax.vmap(run.model)(INPUTS)
    assert float(CATALOGUE["pds_cosine"](pred, other_cells.real).mean()) == pytest.approx(best)
    assert run.history.column("expr_mse")[-1] > 0
    assert {"pds_cosine.exact", "pds_cosine.soft", "pds_cosine.gap"} <= set(run.history.steps[0])
    table = run.history.to_pandas()
    assert list(table["step"]) == [0, 25, 50, 60]


def test_the_model_of_the_best_evaluation_is_kept(data, other_cells):
    run = fit(
        start(),
        data,
        "expr_mse",
        optax.sgd(lambda step: jnp.where(jnp.asarray(step) < 20, 20.0, 120.0)),
        steps=40,
        every=5,
        validation=other_cells,
    )
    values = run.history.column("monitor")
    assert values[-1] > values.min()  # such steps are too long
    assert run.score == pytest.approx(values.min())
    assert run.best_step == run.history.column("step")[int(np.argmin(values))]
    assert not same(run.model, run.last)


def test_patience_ends_a_training_that_no_longer_improves(data, other_cells):
    run = fit(start(), data, "expr_mse", optax.sgd(0.0), steps=1000, every=5, patience=3, validation=other_cells)
    assert run.stopped == "patience"
    assert run.history.column("step")[-1] == 15
    assert run.best_step == 0


def test_a_collapsed_training_is_ended(data):
    guard = CollapseGuard(floor=0.05, patience=2, warmup=10)
    run = fit(start(), data, "expr_mse", optax.sgd(0.0), steps=1000, every=5, collapse=guard)
    assert run.stopped == "collapse"
    assert run.history.column("step")[-1] == 15
    assert np.all(run.history.column("spread_ratio") < 0.05)
    healthy = fit(start(), data, "expr_mse", ADAM, steps=40, every=5, collapse=guard)
    assert healthy.stopped == "steps"


def test_a_minibatch_is_ranked_among_all_perturbations(data):
    batch = data.batch(jnp.asarray([3, 1]))
    assert batch.bank is not None
    np.testing.assert_array_equal(batch.bank.own, [3, 1])
    assert batch.bank.real.mean.shape == (PERTS, GENES)
    pred = data.real.mean + 0.5 * jnp.asarray(RNG.normal(size=data.real.mean.shape), jnp.float32)
    among_all = CATALOGUE["pds_l1"](pred[jnp.asarray([3, 1])], batch.real, bank=batch.bank)
    np.testing.assert_allclose(among_all, CATALOGUE["pds_l1"](pred, data.real)[jnp.asarray([3, 1])])
    # What is beyond the mean does not change with the batch, either, once the mean is known, as it is to `fit`.
    known = with_train_mean(data, data.real.mean.mean(axis=0))
    batch = known.batch(jnp.asarray([3, 1]))
    for name in ("weighted_r2_mean", "delta_cosine_mean"):
        extra: dict[str, Any] = {"weights": WEIGHTS} if "weighted" in name else {}
        whole = CATALOGUE[name](pred, known.real, **extra)
        extra = {"weights": batch.weights} if extra else {}
        part = CATALOGUE[name](pred[jnp.asarray([3, 1])], batch.real, **extra)
        np.testing.assert_allclose(part, whole[jnp.asarray([3, 1])], rtol=1e-5)


def test_the_mean_of_training_perturbations_is_where_validation_measures_from(data, other_cells):
    metrics = ["weighted_r2_mean", "delta_cosine_mean"]
    run = fit(start(), data, "expr_mse", ADAM, steps=1, validation=other_cells, metrics=metrics)
    first = run.history.evaluations[0]
    assert np.isnan(first["delta_cosine_mean"])  # the mean itself, which has no effect beyond it
    assert first["weighted_r2_mean"] < 0.01
    mean = data.real.mean.mean(axis=0)
    real = dataclasses.replace(other_cells.real, train_mean=mean)
    row = CATALOGUE["weighted_r2_mean"](jnp.broadcast_to(mean, real.mean.shape), real, weights=WEIGHTS)
    assert first["weighted_r2_mean"] == pytest.approx(float(row.mean()), rel=1e-4)


def test_every_epoch_is_a_shuffle_without_repetition():
    key = jax.random.key(0)
    rows = [np.asarray(draw_rows(jnp.asarray(step), 10, 3, key)) for step in range(6)]
    for epoch in (rows[:3], rows[3:]):
        assert len(set(np.concatenate(epoch))) == 9
    assert not np.array_equal(rows[0], rows[3])
    assert draw_rows(jnp.asarray(4), 10, None, key) is None
    assert draw_rows(jnp.asarray(4), 10, 10, key) is None


def test_the_bank_may_be_of_other_cells(data):
    other = measured(5)
    split = TrainingData(INPUTS, data.real, bank=other)
    batch = split.batch()
    assert batch.bank is not None
    loss = compose({"pds_l1": 1.0})
    pred = data.real.mean
    value = loss.exact(pred, batch.real, bank=batch.bank)
    expected = 2 * (1 - CATALOGUE["pds_l1"](pred, other).mean())
    assert float(value) == pytest.approx(float(expected), abs=1e-6)


def test_a_model_of_cells_draws_control_cells(data):
    pool = CONTROL[None] + jnp.asarray(RNG.normal(0, 0.2, (50, GENES)), jnp.float32)
    cells = TrainingData(INPUTS, data.real, cells=pool)
    seen = []

    def forward(model, batch, *, key, relax):
        seen.append(batch.cells.shape)
        moved = batch.cells + jax.vmap(model)(batch.inputs)[:, None, :] - CONTROL[None, None, :]
        return batch.real.with_mean(moved.mean(axis=1))

    run = fit(start(), cells, "expr_mse", ADAM, steps=30, every=30, forward=forward, cells=8)
    assert set(seen) == {(PERTS, 8, GENES)}
    assert run.history.evaluations[-1]["expr_mse"] < 0.3 * run.history.evaluations[0]["expr_mse"]
    losses = run.history.column("loss", of="steps")
    still = fit(start(), cells, "expr_mse", optax.sgd(0.0), steps=5, every=5, forward=forward, cells=8)
    assert len(set(still.history.column("loss", of="steps"))) == 5  # other cells each step
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(data):
    run = lambda seed: fit(start(), data, "expr_mse", ADAM, steps=12, every=4, batch=5, seed=seed)
    one, again, other = run(0), run(0), run(1)
    assert same(one.last, again.last)
    assert not same(one.last, other.last)


def test_steps_compile_once(data):
    loss = compose({"pds_cosine": 1.0}, softness=optax.exponential_decay(0.5, 10, 0.1))
    fit(start(), data, loss, ADAM, steps=2, every=1)
    programs: Any = take_step
    before = programs._cached._cache_size()
    fit(start(), data, loss, ADAM, steps=30, every=10, seed=3)
    assert programs._cached._cache_size() == before


# What is not finite.


class Breaks(Linear):
    """Predicts infinity for one perturbation once a weight has grown."""

    def __call__(self, features):
        out = super().__call__(features)
        bad = (jnp.abs(features[0] - INPUTS[4, 0]) < 1e-6) & (jnp.abs(self.weight).max() > 0.12)
        return jnp.where(bad, jnp.inf, out)


def test_a_prediction_that_is_not_finite_is_named_with_its_step(data):
    begun = start()
    with pytest.raises(FloatingPointError, match="Step 3 is not finite: the prediction of 'gene 4'"):
        fit(Breaks(begun.mean, begun.weight), data, "expr_mse", ADAM, steps=50, every=10)


def test_a_term_that_is_not_finite_is_named_with_its_perturbations(data):
    def root(pred, real, *, relax, weights, where, valid):
        # The root of 0 has no slope: the error of a perturbation that is exactly right.
        return jnp.sqrt(jnp.sum((pred.mean - real.mean) ** 2, axis=1))

    unguarded = eqx.tree_at(lambda m: m, CATALOGUE["expr_l2"], CATALOGUE["expr_l2"])
    unguarded = type(unguarded)(
        name="unguarded_l2", function=root, summary="", formula="", perfect=0.0, higher_is_better=False,
        differentiable="smooth", source="a test",
    )  # fmt: skip
    model = eqx.tree_at(lambda m: m.mean, start(), data.real.mean[2] - 0.0)
    model = eqx.tree_at(lambda m: m.weight, model, jnp.zeros_like(model.weight))
    loss = compose([Term("expr_mse", null=1.0), Term(unguarded, null=1.0)])
    with pytest.raises(FloatingPointError, match="the gradient of the term `unguarded_l2` for 'gene 2'"):
        fit(model, data, loss, ADAM, steps=5, every=5)


# Files.


def test_a_training_goes_on_from_its_checkpoint_to_the_same_end(data, other_cells, tmp_path):
    path = tmp_path / "run.eqx"
    options: dict[str, Any] = {"every": 4, "batch": 5, "validation": other_cells, "monitor": "loss"}
    whole = fit(start(), data, "expr_mse", ADAM, steps=22, **options)
    part = fit(start(), data, "expr_mse", ADAM, steps=12, checkpoint=path, **options)
    assert part.history.evaluations[-1]["step"] == 12
    rest = fit(start(), data, "expr_mse", ADAM, steps=22, checkpoint=path, **options)
    assert same(rest.last, whole.last)
    assert same(rest.model, whole.model)
    assert rest.best_step == whole.best_step
    assert rest.history.steps == whole.history.steps
    drop = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert drop(rest.history.evaluations) == drop(whole.history.evaluations)
    # Once more: there is nothing left to do.
    again = fit(start(), data, "expr_mse", ADAM, steps=22, checkpoint=path, **options)
    assert same(again.last, whole.last)
    assert list(tmp_path.iterdir()) == [path]


_KILLED = """
    import json, sys
    import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax
    import vcjax
    from vcjax.training import fit, TrainingData

    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
    control = jnp.zeros(30, jnp.float32)
    real = vcjax.Profiles(jnp.asarray(rng.normal(size=(16, 30)), jnp.float32), control, targets=jnp.arange(16))
    model = eqx.nn.MLP(4, 30, 16, 1, key=jax.random.key(0))
    path = sys.argv[1] if len(sys.argv) > 1 else None
    run = fit(
        model, TrainingData(inputs, real), {"expr_mse": 1.0, "pds_cosine": 0.3}, optax.adam(1e-2),
        steps=int(sys.argv[2]) if path else 3000, every=5, batch=7, checkpoint=path, progress=False,
    )
    leaves = jax.tree.leaves(eqx.filter(run.last, eqx.is_array))
    print(json.dumps([float(np.asarray(x, np.float64).sum()).hex() for x in leaves] + [run.best_step]))
"""


@pytest.mark.slow
def test_a_training_that_is_killed_ends_where_it_would_have(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(_KILLED))
    run = lambda path: (
        subprocess.run(
            [sys.executable, script, path, "600"], capture_output=True, text=True, check=True, env=os.environ
        ).stdout
    )
    whole = json.loads(run(tmp_path / "whole.eqx"))
    path = tmp_path / "cut.eqx"
    process = subprocess.Popen([sys.executable, script, path, "600"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"
    assert json.loads(run(path)) == whole


def test_another_training_does_not_go_on_from_this_one_s_checkpoint(data, tmp_path):
    path = tmp_path / "run.eqx"
    fit(start(), data, "expr_mse", ADAM, steps=4, every=2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint of another training: `seed` was 0 and is 1"):
        fit(start(), data, "expr_mse", ADAM, steps=4, every=2, checkpoint=path, seed=1)
    with pytest.raises(ValueError, match="`loss` was"):
        fit(start(), data, "expr_mae", ADAM, steps=4, every=2, checkpoint=path)
    changed = TrainingData(INPUTS, measured(3), weights=WEIGHTS)
    with pytest.raises(ValueError, match="`data` was"):
        fit(start(), changed, "expr_mse", ADAM, steps=4, every=2, checkpoint=path)
    assert path.read_bytes() == before
    other = tmp_path / "notes.txt"
    other.write_text("not a checkpoint\n")
    with pytest.raises(ValueError, match="is not a checkpoint of vcjax"):
        fit(start(), data, "expr_mse", ADAM, steps=4, every=2, checkpoint=other)
    assert other.read_text() == "not a checkpoint\n"


def test_the_history_can_be_written(data, tmp_path):
    run = fit(start(), data, "expr_mse", ADAM, steps=4, every=2)
    run.history.write_csv(tmp_path / "steps.csv", of="steps")
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert lines[0].startswith("step,loss,gradient,expr_mse.exact")
    assert len(lines) == 5
    with pytest.raises(KeyError, match="No column 'pds'"):
        run.history.column("pds")


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "`steps` must be at least 0"),
        ({"every": 0}, "`every` must be at least 1"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"monitor": "pds_l1"}, "`monitor` 'pds_l1' is not evaluated"),
        ({"metrics": ["nothing"]}, "No metric is called 'nothing'"),
        ({"metrics": ["amplitude_ratio"], "monitor": "amplitude_ratio"}, "diagnostic"),
        ({"cells": 4}, "has none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(start(), data, "expr_mse", ADAM, **({"steps": 3} | options))


def test_a_model_of_another_shape_is_refused(data):
    with pytest.raises(ValueError, match=r"The model predicts \(12, 3\) for a batch of \(12, 20\)"):
        fit(eqx.nn.Linear(FEATURES, 3, dtype=jnp.float32, key=jax.random.key(0)), data, "expr_mse", ADAM, steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": INPUTS[:5]}, "first axis must be that of the 12 perturbations"),
        ({"weights": jnp.ones((3, GENES))}, "`weights` has shape"),
        ({"inputs": INPUTS[:0], "real": measured().take(jnp.arange(0))}, "There are no perturbations"),
        ({"perts": ["a"]}, "1 labels for 12 perturbations"),
        ({"cells": jnp.ones((4, 3))}, "`cells` have 3 genes"),
        ({"own": jnp.arange(PERTS)}, "there is no bank"),
        ({"bank": measured().take(jnp.arange(5))}, "say with `own`"),
        ({"bank": measured().take(jnp.arange(5)), "own": jnp.arange(PERTS)}, "one row of 0 to 4"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(change, message):
    given = {"inputs": INPUTS, "real": measured()} | change
    with pytest.raises(ValueError, match=message):
        TrainingData(**given)


# Several devices.

_DEVICES = """
    import json
    import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax
    import vcjax
    from vcjax.training import fit, TrainingData

    assert len(jax.devices()) == 2
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
    control = jnp.zeros(30, jnp.float32)
    real = vcjax.Profiles(jnp.asarray(rng.normal(size=(16, 30)), jnp.float32), control, targets=jnp.arange(16))
    data, adam = TrainingData(inputs, real), optax.adam(1e-2)
    found = []
    for mesh in (None, jax.make_mesh((2,), ("perts",))):
        model = eqx.nn.MLP(4, 30, 16, 1, key=jax.random.key(0))
        run = fit(
            model, data, {"expr_mse": 1.0, "pds_cosine": 0.3, "pds_l1": 0.1}, adam,
            steps=20, every=10, batch=8, mesh=mesh, progress=False,
        )
        found.append([np.asarray(x).tolist() for x in jax.tree.leaves(eqx.filter(run.last, eqx.is_array))])
    try:
        fit(model, data, "expr_mse", adam, steps=1, batch=7, mesh=mesh)
    except ValueError as error:
        found.append(str(error))
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices_agree_with_one(tmp_path):
    script = tmp_path / "devices.py"
    script.write_text(textwrap.dedent(_DEVICES))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    one, two, refusal = json.loads(made.stdout)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-4, atol=1e-5)
    assert "7 perturbations a step cannot be divided over 2 devices" in refusal
