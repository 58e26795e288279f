"""Kernel ridge regression: fit, exact leave-one-out and prediction, against scikit-learn with explicit refits.

    python benchmarks/kernel_ridge.py [--sizes 300 1000 2000] [--genes 18080] [--tune-size 300] [--out FOLDER]

Effects and another screen are made up with shared latent features. vcjax gives the leave-one-out predictions of all
perturbations in closed form. scikit-learn has no such form, so one refit without each perturbation is what it takes;
a few are timed and the rest extrapolated, which the report says. Everything is float64.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _measure import (
    interleave,
    load,
    machine,
    preamble,
    RESULTS,
    Sample,
    table,
    target,
    target_rows,
    time_call,
    versions,
    write_results,
)
from jax import lax
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge

from vcjax.baselines._interface import PertData
from vcjax.baselines._kernel_ridge import KernelRidge
from vcjax.baselines._krr import krr
from vcjax.baselines._tune import grid, tune


RIDGE = 0.5
BUDGET = 120  # seconds for a case; two rounds are made whatever they take
_ABOUT = """
`wall` is the least of all rounds, `CPU` the median over rounds of the time of all cores together; ratios are to the
row marked 1. vcjax is timed after compilation, on arrays that JAX holds already. `extrapolated`: a fit with all
perturbations, and as many refits as there are perturbations at the mean time of the few that were timed.
"""
_ABOUT_TUNING = """
The mean squared error (and the cosine discrimination score) of leave-one-out predictions, minimised (maximised) in the
ridge, the weights of two screens and the share of the mean response that is taken off: by L-BFGS (Adam for the
discrimination score) with gradients through the fit, and on a grid of every combination. Seconds include compiling.
"""


def screens(perts: int, genes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects in the context to predict, in a related screen and in one that hardly is.

    They are linear in 20 latent features, which correlate with those of the context to predict by 0.6 and 0.2.
    """
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((perts, 20))

    def effects(correlation: float) -> np.ndarray:
        own = correlation * latent + np.sqrt(1 - correlation**2) * rng.standard_normal(latent.shape)
        made = (0.1 / np.sqrt(20)) * own @ rng.standard_normal((20, genes))
        made += 0.05 * rng.standard_normal(genes)
        made += 0.1 * rng.standard_normal((perts, genes))
        return made

    return effects(1.0), effects(0.6), effects(0.2)


def similarities(effects: np.ndarray) -> np.ndarray:
    """Correlations of centred effects."""
    return np.corrcoef(effects - effects.mean(axis=0))


def compiled(function: Callable, *args: Any) -> Any:
    """The program for arguments of these shapes."""
    return jax.jit(function).lower(*args).compile()


def call(program: Callable, *args: Any) -> Callable[[], Sample]:
    """A contender that waits for the result."""
    return lambda: time_call(lambda: jax.block_until_ready(program(*args)))


def scikit_fit(kernel: np.ndarray, cross: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """The same predictions: scikit-learn has no intercept, so effects are centred before and after."""
    mean = effects.mean(axis=0)
    ridge: Any = RIDGE
    model = SklearnKernelRidge(alpha=ridge, kernel="precomputed").fit(kernel, effects - mean)
    return model.predict(cross) + mean


def scikit_without(kernel: np.ndarray, effects: np.ndarray, row: int) -> np.ndarray:
    """One perturbation from a refit without it."""
    kept = np.delete(np.arange(len(effects)), row)
    return scikit_fit(kernel[np.ix_(kept, kept)], kernel[None, row, kept], effects[kept])[0]


def size_case(perts: int, genes: int, rounds: int, refits: int) -> dict[str, Any]:
    """All contenders at one number of training perturbations."""
    new = perts // 10
    effects, other, _ = screens(perts + new, genes)
    full = similarities(other)
    kernel, cross, effects = full[:perts, :perts], full[perts:, :perts], effects[:perts]
    arrays = jnp.asarray(kernel), jnp.asarray(cross), jnp.asarray(effects), jnp.asarray(np.log(RIDGE))
    program = compiled(krr, *arrays)

    def losses(kernel, cross, effects, log_ridges):
        error = lambda x: jnp.mean((krr(kernel, cross, effects, x).leave_one_out - effects) ** 2)
        return lax.map(error, log_ridges)

    ridges = jnp.linspace(-4.0, 4.0, 9)
    whole = compiled(losses, *arrays[:3], ridges)
    from_screen = lambda other, effects: _fit_from_screen(other, effects, perts)
    end_to_end = compiled(from_screen, jnp.asarray(other), arrays[2])
    rows = np.random.default_rng(1).choice(perts, refits, replace=False)
    one = lambda: time_call(lambda: scikit_fit(kernel, cross, effects))
    some = lambda: time_call(lambda: [scikit_without(kernel, effects, row) for row in rows])

    def extrapolated() -> Sample:
        fit, again = one(), some()
        return Sample(fit.wall + again.wall * perts / refits, fit.cpu + again.cpu * perts / refits)

    contenders = {
        "vcjax: fit, leave-one-out, predict": call(program, *arrays),
        "vcjax: the same, with similarities from a screen": call(end_to_end, jnp.asarray(other), arrays[2]),
        "vcjax: leave-one-out error of 9 ridges": call(whole, *arrays[:3], ridges),
        "scikit-learn: fit, predict": one,
        f"scikit-learn: with refits ({refits} timed, extrapolated)": extrapolated,
    }
    measured = interleave(contenders, rounds, budget=BUDGET)
    results = {name: runs.summary() for name, runs in measured.items()}
    unit = results["vcjax: fit, leave-one-out, predict"]
    for result in results.values():
        result["wall_ratio"] = result["wall_s"] / unit["wall_s"]
        result["cpu_ratio"] = result["cpu_s"] / unit["cpu_s"]
    ours = program(*arrays)
    apart = {
        "predictions": float(np.max(np.abs(np.asarray(ours.effect) - scikit_fit(kernel, cross, effects)))),
        f"{refits} refits": float(
            max(np.max(np.abs(np.asarray(ours.leave_one_out[r]) - scikit_without(kernel, effects, r))) for r in rows)
        ),
    }
    print(f"P={perts}:", *(f"{name} {run['wall_s']:.3g} s;" for name, run in results.items()))
    rounds_made = len(next(iter(measured.values())).samples)
    case = {"perts": perts, "new": new, "genes": genes, "refits": refits, "rounds": rounds_made}
    return {**case, "load": load(), "results": results, "agreement": apart}


def _fit_from_screen(other: Any, effects: Any, perts: int) -> Any:
    names = tuple(f"P{i}" for i in range(len(other)))
    zeros = jnp.zeros(effects.shape[1])
    fitted = KernelRidge(np.log(RIDGE)).fit(
        PertData(effects, zeros, perts=names[:perts]), external=[PertData(other, zeros, perts=names)]
    )
    return fitted.leave_one_out().effect, fitted.predict(names[perts:]).effect


def tuning_case(perts: int, genes: int) -> list[dict[str, Any]]:
    """Gradients against a grid, in four hyper-parameters."""
    names = tuple(f"P{i}" for i in range(perts))
    zeros, none = jnp.zeros(genes), jnp.full(perts, -1)
    data, *others = (PertData(jnp.asarray(x), zeros, targets=none, perts=names) for x in screens(perts, genes))
    start = KernelRidge(0.0, logits=[0.0, 0.0])
    external = start.prepare(others)
    over = lambda b: (b.log_ridge, b.logits, b.centre)
    values = [
        (ridge, jnp.asarray([logit, 0.0]), centre)
        for ridge in (-3.0, -1.5, 0.0, 1.5, 3.0)
        for logit in (-2.0, 0.0, 2.0)
        for centre in (0.0, 0.5, 1.0)
    ]
    rows = []
    for metric in ("delta_mse", "pds_cosine"):
        found: dict[str, Any] = {}

        def by_gradient(metric=metric, found=found):
            found["gradient"] = tune(start, data, metric, external=external, over=over)

        def by_grid(metric=metric, found=found):
            found["grid"] = grid(start, data, metric, values, external=external, over=over)

        seconds = {"gradient": time_call(by_gradient).wall, "grid": time_call(by_grid).wall}
        tuned, gridded = found["gradient"], found["grid"]
        rows += [
            {"metric": metric, "by": "gradient", "seconds": seconds["gradient"], "score": float(tuned.after.exact)}
            | {"start": float(tuned.before.exact), "points": len(tuned.losses)},
            {"metric": metric, "by": "grid", "seconds": seconds["grid"], "points": len(values)}
            | {"start": float(tuned.before.exact), "score": float(gridded.scores.exact[gridded.best])},
        ]
        jax.clear_caches()
        eqx.clear_caches()
    return rows


def report(results: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The Markdown report, and whether the targets are met."""
    targets, lines = [], []
    for case in results["cases"]:
        runs = case["results"]
        ours, theirs = runs["vcjax: fit, leave-one-out, predict"], next(v for k, v in runs.items() if "refits" in k)
        ratio = theirs["wall_s"] / ours["wall_s"]
        targets.append(target(f"P = {case['perts']}: scikit-learn with refits / vcjax", ratio, 50, at_least=True))
        lines += [f"### {case['perts']} perturbations, {case['new']} new, {case['genes']} genes"]
        lines[-1] += f" ({case['rounds']} rounds)"
        header = ["", "wall s", "CPU s", "wall ratio", "CPU ratio"]
        keys = ("wall_s", "cpu_s", "wall_ratio", "cpu_ratio")
        lines += table(header, [[name, *(run[key] for key in keys)] for name, run in runs.items()])
        apart = ", ".join(f"{name} {value:.1e}" for name, value in case["agreement"].items())
        lines += [f"Largest difference from scikit-learn: {apart}.", ""]
    rows = [
        [row["metric"], row["by"], row["points"], row["seconds"], row["start"], row["score"]]
        for row in results["tuning"]
    ]
    tuned = table(["metric", "by", "steps or points", "seconds", "score at the start", "score"], rows)
    size = results["settings"]
    head = [*preamble("Kernel ridge regression", results), "", "## Targets", *target_rows(targets)]
    lines = [*head, "## Times", _ABOUT, *lines, "## Tuning", _ABOUT_TUNING]
    lines += [f"{size['tune_size']} perturbations, {size['tune_genes']} genes.", *tuned]
    return "\n".join(lines), targets


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `kernel_ridge.json` and `kernel_ridge.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1000, 2000], help="training perturbations")
    parser.add_argument("--genes", type=int, default=18080)
    parser.add_argument("--tune-size", type=int, default=300, help="perturbations of the comparison with a grid")
    parser.add_argument("--tune-genes", type=int, default=5000)
    parser.add_argument("--refits", type=int, default=3, help="refits of scikit-learn that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="at most; fewer where a case is slow")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    start = load()
    cases = [size_case(perts, args.genes, args.rounds, args.refits) for perts in args.sizes]
    tuning = tuning_case(args.tune_size, args.tune_genes)
    results = {
        "machine": machine(),
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy"]),
        "peers_versions": versions(["scikit-learn", "numpy", "scipy"]),
        "settings": {name: value for name, value in vars(args).items() if name != "out"},
        "cases": cases,
        "tuning": tuning,
    }
    text, targets = report(results)
    write_results("kernel_ridge", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
