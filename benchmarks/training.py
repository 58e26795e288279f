"""A training step on each loss against the same step on plain MSE, for two networks.

    python benchmarks/training.py [--perts 150] [--genes 5000] [--rounds 40] [--out FOLDER]

The step is that of `vcjax.training.fit`: gradient, exact values for the log, the check that all is finite, and Adam.
`by hand` is a step without any of it: MSE, `eqx.filter_value_and_grad` and Adam.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import (
    interleave,
    load,
    machine,
    RESULTS,
    Sample,
    table,
    target,
    target_rows,
    time_call,
    versions,
    write_results,
)
from study import ARMS, forward, Model, scaled_loss

import vcjax
from vcjax.baselines import FeatureMLP, Features
from vcjax.baselines._neural import MemberFeatures
from vcjax.losses import compose, Term
from vcjax.training import TrainingData
from vcjax.training._state import start
from vcjax.training._step import Plan, take_step


STEPS = 5
LIMIT = 1.5
OPTIMISER = optax.adam(1e-3)
FEATURES = 64
SIZES = {"study": (256, 64), "default": (512, 128)}  # width and latent dimensions: the study's, those of `FeatureMLP`
_ABOUT = """
Seconds of one step, in a call of {steps}: `wall` is the least of all rounds, `CPU` the median of the time of all
threads. Ratios are to `fit: MSE`. Compilation is not included.
"""


def data_of(perts: int, genes: int) -> tuple[TrainingData, Features]:
    """Random effects of sensible sizes; only their shapes matter here."""
    rng = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)
    control = jnp.asarray(rng.gamma(1, 1, genes), jnp.float32)
    means = [control[None] + array(perts, genes) for _ in range(2)]
    # `fit` measures from the mean of the training perturbations.
    average = means[0].mean(axis=0)
    profiles = [vcjax.Profiles(mean, control, targets=jnp.arange(perts), train_mean=average) for mean in means]
    names = tuple(f"p{i}" for i in range(perts))
    features = Features(array(perts, FEATURES), names)
    inputs, _ = MemberFeatures(features).of(names, jnp.float32)
    weights = jnp.asarray(rng.gamma(0.3, 1, (perts, genes)), jnp.float32)
    return TrainingData(inputs, profiles[0], weights=weights, bank=profiles[1]), features


def contenders(perts: int, genes: int, width: int, latent: int) -> dict[str, Callable[[], Any]]:
    """Calls of some steps, each after its compilation."""
    data, features = data_of(perts, genes)
    recipe = FeatureMLP(features=features, width=width, latent=latent)
    network = recipe.network(data.inputs, genes, jnp.float32, jax.random.key(0))
    model = Model(network, data.real.mean.mean(axis=0), data.real.control)
    params = eqx.filter(model, eqx.is_inexact_array)
    found: dict[str, Callable[[], Any]] = {"MSE by hand": _by_hand(model, data)}
    losses = {name: scaled_loss(name, {"expr_mse": 1.0, "weighted_mse": 1.0}) for name in ARMS}
    for kind in ("l1", "l2"):
        terms = [Term("weighted_mse", null=1.0), Term(f"pds_{kind}")]
        losses[f"WMSE + soft PDS, {kind.upper()}"] = compose(terms, softness=0.3)
    for name, loss in losses.items():
        plan = Plan(loss, jax.random.key(0), OPTIMISER, forward, None, None, None)
        state = start(model, OPTIMISER.init(params))
        found[f"fit: {name}"] = _stepper(state, data.unnamed(), plan)
    for call in found.values():
        call()
    return found


def _stepper(state: Any, data: TrainingData, plan: Plan) -> Callable[[], None]:
    def call() -> None:
        moving, record = state, None
        for _ in range(STEPS):
            moving, record = take_step(moving, data, plan)
        jax.block_until_ready((moving.step, record))
        assert int(moving.step) == STEPS

    return call


def _by_hand(model: Model, data: TrainingData) -> Callable[[], None]:
    batch = data.batch()

    @eqx.filter_jit
    def step(model, state):
        error = lambda m: jnp.mean((forward(m, batch, key=jax.random.key(0), relax=None) - batch.real.mean) ** 2)
        updates, state = OPTIMISER.update(eqx.filter_grad(error)(model), state)
        return eqx.apply_updates(model, updates), state

    def call() -> None:
        moving, state = model, OPTIMISER.init(eqx.filter(model, eqx.is_inexact_array))
        for _ in range(STEPS):
            moving, state = step(moving, state)
        jax.block_until_ready(jax.tree.leaves(eqx.filter(moving, eqx.is_array)))

    return call


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `training.json` and `training.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perts", type=int, default=150)
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    begun = load()

    def per_step(call: Callable[[], Any]) -> Sample:
        sample = time_call(call)
        return dataclasses.replace(sample, wall=sample.wall / STEPS, cpu=sample.cpu / STEPS)

    found, targets = {}, []
    for size, (width, latent) in SIZES.items():
        calls = contenders(args.perts, args.genes, width, latent)
        measured = interleave({name: lambda call=call: per_step(call) for name, call in calls.items()}, args.rounds)
        found[size] = {name: one.summary() for name, one in measured.items()}
        base = found[size]["fit: MSE"]
        targets += [
            target(f"{size}: wall of a step, {name[5:]} / MSE", row["wall_s"] / base["wall_s"], LIMIT)
            for name, row in found[size].items()
            if name.removeprefix("fit: ") in ARMS and name != "fit: MSE"
        ]
    where = machine()
    now = versions(["vcjax", "jax", "jaxlib", "equinox", "optax", "numpy"])
    results = {
        "machine": where, "load": {"start": begun, "end": load()}, "versions": now, "perts": args.perts,
        "genes": args.genes, "steps": found, "targets": targets,
    }  # fmt: skip
    lines = [
        "# A training step", "",
        f"{where['cpu']}, {where['cores']} cores; device {jax.devices()[0].device_kind}. Load average "
        f"{begun} at the start, {load()} at the end. " + ", ".join(f"{k} {v}" for k, v in now.items()) + ".", "",
        f"{args.perts} perturbations, {args.genes} genes, {FEATURES} features. Width and latent dimensions of the "
        f"network: {', '.join(f'{name} {size}' for name, size in SIZES.items())}.", "",
        "## Targets", *target_rows(targets), *_ABOUT.format(steps=STEPS).split("\n"),
    ]  # fmt: skip
    for size, rows in found.items():
        base = rows["fit: MSE"]
        lines += ["", f"## Times, {size}", "", *table(
            ["step", "wall s", "CPU s", "wall ratio", "CPU ratio"],
            [[name, row["wall_s"], row["cpu_s"], row["wall_s"] / base["wall_s"], row["cpu_s"] / base["cpu_s"]]
             for name, row in rows.items()],
        )]  # fmt: skip
    write_results("training", results, "\n".join(lines), args.out)


if __name__ == "__main__":
    main()
