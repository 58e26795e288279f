"""What training directly on calibrated metrics buys, on perturbations, cells and metrics that were not trained on.

    python benchmarks/study.py [--data FOLDER] [--tasks sim-30 k562 …] [--seeds 5] [--steps 300] [--out FOLDER]

Small networks (fMLP and latent additive) are trained with five losses, and scored with all metrics on other cells of
held-out perturbations, beside the simple models and what a replicate of the cells reaches. `FOLDER` has real data
(`perturbench-devel/devel.h5ad`, `papalexi-sceptredata/papalexi_lowmoi.h5ad`,
`replogle-k562-rpe1-top1000/replogle_top1000.npz`); without it only simulated tasks run. Each task is written when it is
done (`study_TASK.json`: the values of every perturbation, some megabytes, not kept in the repository), and the report
`study.md` and `study.json` are made of all that are there; `--report` makes them anew.
"""

import argparse
import datetime
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import machine, RESULTS, versions
from _study_report import write_report
from _study_tasks import Task, TASKS

import vcjax
from vcjax.baselines import Additive, FeatureMLP, krr, LatentAdditive, PCARidge, PertData
from vcjax.calibration import interpolated_duplicate
from vcjax.de import benjamini_hochberg, rest_of, welch_test
from vcjax.losses import amplitude_guard, compose, error_guard, info_nce, Term
from vcjax.metrics import Bank, CATALOGUE
from vcjax.training import fit, TrainingData


BETA = 1.0  # of the rank terms: as much as the error, each on the scale of no skill; not tuned
ARMS: dict[str, tuple[Term, ...]] = {
    "MSE": (Term("expr_mse"),),
    "WMSE": (Term("weighted_mse"),),
    "WMSE + soft PDS": (Term("weighted_mse"), Term("pds_cosine", BETA)),
    "WMSE + InfoNCE": (Term("weighted_mse"), Term(info_nce(), BETA)),
    "WMSE + soft PDS + guards": (
        Term("weighted_mse"), Term("pds_cosine", BETA), Term(error_guard()), Term(amplitude_guard()),
    ),
    # Not among the arms that were planned; added after a look at two simulated screens of other seeds.
    "WMSE + soft PDS + guards + MSE": (
        Term("weighted_mse"), Term("pds_cosine", BETA), Term(error_guard()), Term(amplitude_guard()), Term("expr_mse"),
    ),
}  # fmt: skip
NETWORKS: dict[str, Any] = {
    "fmlp": lambda features: FeatureMLP(features=features, width=256, latent=64),
    "latent_additive": lambda features: LatentAdditive(width=256, latent=64),
}
OPTIMISER = optax.adam(1e-3)
SOFTNESS = 0.3
VALIDATION = 0.15
RIDGES = np.log(np.geomspace(1e-3, 1e2, 16))
RANKS = ("pds_l1", "pds_l2", "pds_cosine")


class Model(eqx.Module):
    """The mean of the training perturbations, and what a network adds to it: nothing at the start."""

    network: Any
    mean: jax.Array
    control: jax.Array


def forward(model: Model, batch: Any, *, key: jax.Array, relax: Any) -> jax.Array:
    """Predicted profiles of a batch."""
    mean, control = jax.lax.stop_gradient((model.mean, model.control))
    keys = jax.random.split(key, len(batch.rows))
    return mean[None, :] + jax.vmap(lambda x, k: model.network(x, control, k))(batch.inputs, keys)


def scaled_loss(arm: str, nulls: Mapping[str, float]) -> Any:
    """The loss of an arm, its errors scaled by what the mean gets."""
    terms = [term if term.null is not None else term.with_null(nulls[term.name]) for term in ARMS[arm]]
    return compose(terms, softness=SOFTNESS)


def train_network(task: Task, fold: np.ndarray, network: str, arm: str, seed: int, steps: int) -> Any:
    """A network trained on one arm, chosen on validation perturbations by the exact value of its own loss."""
    rows = task.train_rows(fold)
    # Where combinations are to be predicted, combinations are what a model is chosen on.
    known = task.features.of([task.perts[i] for i in rows])[1]
    pairs = np.array([i for i, has in zip(rows, known, strict=True) if has and "+" in task.perts[i]], int)
    judges = pairs if len(pairs) else rows
    count = round(VALIDATION * len(rows)) if not len(pairs) else max(1, len(pairs) // 3)
    chosen = np.sort(np.random.default_rng([seed, len(fold)]).permutation(judges)[:count])
    kept = np.setdiff1d(rows, chosen)
    train, candidates = task.parts["train"].profiles, task.parts["weights"].profiles
    mean = train.mean[kept].mean(axis=0)
    weights = np.zeros(train.mean.shape, np.float32)
    weights[rows] = task.weights(rows)
    recipe = NETWORKS[network](task.features)
    data = PertData.of(train.take(kept), [task.perts[i] for i in kept])
    encoding = recipe.encoding(data)

    def side(of: np.ndarray) -> TrainingData:
        inputs, covered = encoding.of([task.perts[i] for i in of], jnp.float32)
        of = of[np.asarray(covered)]
        inputs = jax.tree.map(lambda x: x[np.flatnonzero(covered)], inputs)
        real = eqx.tree_at(lambda r: r.train_mean, train.take(of), mean, is_leaf=lambda x: x is None)
        own = jnp.asarray(np.searchsorted(rows, of))
        bank = candidates.take(rows)
        return TrainingData(inputs, real, weights=weights[of], bank=bank, own=own, perts=[task.perts[i] for i in of])

    learnt, judged = side(kept), side(chosen)
    spread = ((learnt.real.mean - mean[None, :]) ** 2).mean(axis=1)
    weighted = CATALOGUE["weighted_mse"](
        jnp.broadcast_to(mean, learnt.real.mean.shape), learnt.real, weights=learnt.weights
    )
    nulls = {"expr_mse": float(spread.mean()), "weighted_mse": float(weighted.mean())}
    made = recipe.network(learnt.inputs, len(task.genes), jnp.float32, jax.random.key(seed))
    run = fit(
        Model(made, mean, train.control), learnt, scaled_loss(arm, nulls), OPTIMISER, steps=steps, every=20, patience=5,
        validation=judged, forward=forward, seed=seed, progress=False,
    )  # fmt: skip
    inputs, covered = encoding.of([task.perts[i] for i in fold], jnp.float32)
    batch = eqx.tree_at(lambda b: (b.inputs, b.rows), learnt.batch(), (inputs, jnp.asarray(fold)))
    pred = forward(eqx.nn.inference_mode(run.model), batch, key=jax.random.key(0), relax=vcjax.HARD)
    pred = jnp.where(jnp.asarray(covered)[:, None], pred, mean[None, :])
    # What a factor on all effects beyond the mean should be, by the perturbations that were not trained on.
    batch = judged.batch()
    guess = forward(eqx.nn.inference_mode(run.model), batch, key=jax.random.key(0), relax=vcjax.HARD) - mean[None, :]
    slope = jnp.sum(guess * (batch.real.mean - mean[None, :])) / jnp.maximum(jnp.sum(guess * guess), 1e-12)
    return np.asarray(pred), np.asarray(mean[None, :] + slope * (pred - mean[None, :])), run


def simple_models(task: Task, fold: np.ndarray) -> dict[str, np.ndarray]:
    """Profiles that the simple models predict, and those of replicates, for the held-out perturbations."""
    rows = task.train_rows(fold)
    train, names = task.parts["train"].profiles, [task.perts[i] for i in rows]
    data = PertData.of(train.take(rows), names, task.genes)
    held = [task.perts[i] for i in fold]
    mean, control = np.asarray(train.mean[rows].mean(axis=0)), np.asarray(train.control)
    repeated = lambda x: np.repeat(np.asarray(x)[None], len(fold), axis=0)
    found = {"control": repeated(control), "mean": repeated(mean)}
    if any("+" in name for name in held):
        found["additive"] = np.asarray(Additive().fit(data).predict(held).effect) + control
    # Their model reads a perturbation's vector off the gene that it is named after; where most are not among the
    # measured genes, it is given the vectors that all others have.
    named = np.mean([set(name.split("+")) <= set(task.genes) for name in names]) > 0.5
    linear = PCARidge() if named else PCARidge(pert_embedding=task.features)
    found["linear (Ahlmann-Eltze)"] = np.asarray(linear.fit(data).predict(held).effect) + control
    found |= tuned_ridges(task, rows, fold)
    if task.duplicates:
        duplicate = train.mean[fold]
        moments = task.parts["train"].moments
        assert moments is not None
        log_padj = benjamini_hochberg(welch_test(moments, rest_of(moments)).log_pvalue)[fold]
        found["interpolated duplicate"] = np.asarray(interpolated_duplicate(duplicate, jnp.asarray(mean), log_padj))
        found["technical duplicate"] = np.asarray(duplicate)
    return found


@jax.jit
def _left_out(kernel: jax.Array, cross: jax.Array, effects: jax.Array, ridges: jax.Array) -> Any:
    def one(ridge):
        made = krr(kernel, cross, effects, ridge)
        return made.effect, made.leave_one_out

    return jax.lax.map(one, ridges)


@jax.jit
def _ridge_scores(left_out: jax.Array, real: vcjax.Profiles, weights: jax.Array, bank: Bank) -> Any:
    def one(effect):
        mean = effect.astype(real.mean.dtype) + real.control[None, :]
        weighted = CATALOGUE["weighted_mse"](mean, real, weights=weights).mean()
        ranks = CATALOGUE["pds_cosine"](mean, real, bank=bank).mean()
        return CATALOGUE["expr_mse"](mean, real).mean(), weighted, -ranks

    return jax.lax.map(one, left_out)


def tuned_ridges(task: Task, rows: np.ndarray, fold: np.ndarray) -> dict[str, np.ndarray]:
    """Kernel ridge regression on the same features, its ridge chosen by exact leave-one-out for three metrics."""
    vectors, _ = task.features.of([task.perts[i] for i in (*rows, *fold)])
    vectors = vectors / jnp.sqrt(jnp.mean(jnp.sum(vectors[: len(rows)] ** 2, axis=1)))
    train = task.parts["train"].profiles.take(rows)
    old, new = vectors[: len(rows)], vectors[len(rows) :]
    effects = train.mean - train.control[None, :]
    made, left_out = _left_out(old @ old.T, new @ old.T, effects, jnp.asarray(RIDGES, jnp.float32))
    bank = Bank(task.parts["weights"].profiles.take(rows), jnp.arange(len(rows)))
    scores = _ridge_scores(left_out, train, jnp.asarray(task.weights(rows), jnp.float32), bank)
    names = ("MSE", "WMSE", "PDS")
    best = [int(np.argmin(np.asarray(score))) for score in scores]
    return {
        f"kernel ridge, {n}": np.asarray(made[i] + train.control[None, :]) for n, i in zip(names, best, strict=True)
    }


def score(task: Task, fold: np.ndarray, pred: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of held-out perturbations, on the third of their cells that is kept for it.

    Also the sums that panel numbers are made of: `along`, `size`, `truth` (products and squares of effects beyond the
    training mean) and `noise`, the sampling noise of the measured profile.
    """
    everyone = task.parts["score"].profiles
    real = eqx.tree_at(lambda r: r.train_mean, everyone.take(fold), jnp.asarray(mean), is_leaf=lambda x: x is None)
    weights, bank = jnp.asarray(task.weights()[fold], jnp.float32), Bank(everyone, jnp.asarray(fold))
    found = {name: np.asarray(x, np.float64) for name, x in _scores(jnp.asarray(pred), real, weights, bank).items()}
    noise = np.zeros(len(fold)) if real.noise is None else np.asarray(real.total_noise(), np.float64)
    found |= _products(pred, np.asarray(real.mean), mean, "") | {"noise": noise}
    if task.truth is not None:
        found |= _products(pred, task.truth[fold], mean, "true_")
    return found


@jax.jit
def _scores(pred: jax.Array, real: vcjax.Profiles, weights: jax.Array, bank: Bank) -> dict[str, jax.Array]:
    assert real.train_mean is not None
    mean = jnp.broadcast_to(real.train_mean, pred.shape)
    error = lambda name, x, **extra: CATALOGUE[name](x, real, **extra)
    return {
        "weighted_mse": error("weighted_mse", pred, weights=weights),
        "weighted_mse_mean": error("weighted_mse", mean, weights=weights),
        "expr_mae": error("expr_mae", pred),
        "expr_mae_mean": error("expr_mae", mean),
        "weighted_r2_mean": error("weighted_r2_mean", pred, weights=weights),
        "delta_cosine_mean": error("delta_cosine_mean", pred),
        **{name: CATALOGUE[name](pred, real, bank=bank) for name in RANKS},
    }


def _products(pred: np.ndarray, real: np.ndarray, mean: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    a, b = np.asarray(pred, np.float64) - mean, np.asarray(real, np.float64) - mean
    sums = {"along": (a * b).sum(axis=1), "size": (a * a).sum(axis=1), "truth": (b * b).sum(axis=1)}
    centred = lambda x: ((x - x.mean(axis=0)) ** 2).sum(axis=1)
    sums |= {"pred_spread": centred(np.asarray(pred, np.float64)), "real_spread": centred(np.asarray(real, np.float64))}
    return {f"{prefix}{name}": value for name, value in sums.items()}


def run_task(name: str, data: pathlib.Path | None, seeds: int, steps: int) -> dict[str, Any]:
    """All seeds, folds, networks, arms and simple models of one task: values of each held-out perturbation."""
    began, values, trainings, task = time.perf_counter(), {}, {}, None
    for seed in range(seeds):
        task = TASKS[name](data, seed)
        made: dict[str, dict[str, dict[str, float]]] = {}
        for fold in task.folds:
            rows = task.train_rows(fold)
            mean = np.asarray(task.parts["train"].profiles.mean[rows].mean(axis=0), np.float64)
            preds = simple_models(task, fold)
            for network in task.models:
                for arm in ARMS:
                    label = f"{network}: {arm}"
                    preds[label], rescaled, run = train_network(task, fold, network, arm, seed, steps)
                    preds[f"{label}, rescaled"] = rescaled
                    trainings.setdefault(label, []).append([run.best_step, int(run.history.evaluations[-1]["step"])])
            for label, pred in preds.items():
                held = score(task, fold, pred, mean)
                for i, row in enumerate(fold):
                    made.setdefault(label, {})[task.perts[row]] = {k: float(v[i]) for k, v in held.items()}
        for label, by_pert in made.items():
            values.setdefault(label, []).append(by_pert)
        print(f"{name}: seed {seed} done after {time.perf_counter() - began:.0f} s", flush=True)
    assert task is not None
    return {
        "task": name,
        "title": task.name,
        "about": task.about,
        "seeds": seeds,
        "steps": steps,
        "beta": BETA,
        "softness": SOFTNESS,
        "seconds": time.perf_counter() - began,
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(["vcjax", "jax", "jaxlib", "equinox", "optax", "numpy"]),
        "trainings": trainings,
        "values": values,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs tasks and writes the report of all that have been run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder of the real data")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), help="all, or the simulated ones without --data")
    parser.add_argument("--seeds", type=int, default=5, help="of cells' thirds, simulated screens and networks")
    parser.add_argument("--steps", type=int, default=300, help="of Adam, at most")
    parser.add_argument("--report", action="store_true", help="only make the report anew")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    wanted = args.tasks or [name for name in TASKS if args.data is not None or name.startswith("sim")]
    for name in () if args.report else wanted:
        found = run_task(name, args.data, args.seeds, args.steps)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"study_{name}.json").write_text(json.dumps(_rounded(found), indent=None) + "\n")
        write_report(args.out, list(TASKS))
    write_report(args.out, list(TASKS))


def _rounded(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_rounded(value) for value in x]
    return float(f"{x:.5g}") if isinstance(x, float) else x


if __name__ == "__main__":
    main()
