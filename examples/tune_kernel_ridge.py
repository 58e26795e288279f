"""Which ridge is best depends on the metric, and a gradient finds it for each.

    python examples/tune_kernel_ridge.py --out tune_kernel_ridge.png

Kernel ridge regression with relatedness transfer predicts the effect of an unseen perturbation from the measured
effects of those that resemble it in other cell lines. Its leave-one-out predictions have a closed form, through which
any metric of the catalogue can be differentiated: here with respect to the ridge and the weights of two other lines,
one of which is closely related to the line in question and one hardly.

The screens are made up in a few lines: effects linear in latent features that the lines share in part, of unequal
strength, in a part of the genes, and measured with noise. Hypotheses, checked at the end:

1. the squared error prefers a larger ridge than the error weighted by the size of the effect, and that a larger one
   than discrimination by Euclidean distance, by a factor of ten or more from first to last;
2. tuned by gradient, the leave-one-out score is at least that of the best point of a grid of ridges, where the related
   line has three quarters of the weight;
3. what is tuned for a metric is the best by that metric on perturbations that were not trained on, or within 2 % of it;
4. the related line gets the larger weight, whatever the metric;
5. tuned for discrimination by Euclidean distance, predictions are larger than tuned for the squared error.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vcjax.baselines import KernelRidge, PertData, tune
from vcjax.metrics import CATALOGUE


# What is tuned, and what each is called.
METRICS = {"delta_mse": "MSE", "weighted_mse": "WMSE", "pds_l2": "PDS, Euclidean", "pds_cosine": "PDS, cosine"}
Evaluate = Callable[[Any], dict[str, dict[str, float]]]
LOG_RIDGES = np.linspace(np.log(1e-3), np.log(30), 16)


@dataclasses.dataclass(frozen=True)
class Screens:
    """Training and test perturbations of one line, and two other lines with both."""

    train: PertData
    test: PertData
    others: list[PertData]
    weights: dict[str, jax.Array]

    def score(self, metric: str, effect: jax.Array, split: str) -> jax.Array:
        """A metric of predicted effects, mean over the perturbations of a split."""
        real = getattr(self, split).effects
        weights = self.weights[split] if metric == "weighted_mse" else None
        return jnp.mean(CATALOGUE[metric](effect, real, weights=weights))


def simulate(train: int, test: int, genes: int, seed: int) -> Screens:
    """Lines whose latent features correlate with those of the line in question by 0.7 and 0.3."""
    rng = np.random.default_rng(seed)
    perts, features = train + test, 12
    names = tuple(f"P{i}" for i in range(perts))
    latent = rng.standard_normal((perts, features))
    strength = np.exp(0.6 * rng.standard_normal((perts, 1)))

    def line(correlation: float, noise: float) -> np.ndarray:
        own = correlation * latent + np.sqrt(1 - correlation**2) * rng.standard_normal(latent.shape)
        responds = rng.random((features, genes)) < 0.2
        loadings = responds * rng.standard_normal((features, genes)) / np.sqrt(features)
        shared = 0.5 * rng.standard_normal(genes) * (rng.random(genes) < 0.2)
        return strength * (own @ loadings) + shared + noise * rng.standard_normal((perts, genes))

    make = lambda effects: PertData(jnp.asarray(effects), jnp.zeros(genes), perts=names)
    measured = make(line(1.0, 0.25))
    split = {"train": measured.take(names[:train]), "test": measured.take(names[train:])}
    # Weights of measured effects themselves: enough to compare predictions under the same weights, and no more.
    mean = jnp.mean(split["train"].effects, axis=0, keepdims=True)
    weights = {name: (data.effects - mean) ** 2 for name, data in split.items()}
    return Screens(split["train"], split["test"], [make(line(0.7, 0.25)), make(line(0.3, 0.25))], weights)


def evaluator(screens: Screens) -> Callable[[Any], dict[str, dict[str, float]]]:
    """A function of a model: every metric of its leave-one-out and of its test predictions, and how large these are."""
    mean = jnp.mean(screens.train.effects, axis=0, keepdims=True)
    others = KernelRidge().prepare(screens.others)

    @eqx.filter_jit
    def compute(model):
        fitted = model.fit(screens.train, external=others)
        predictions = {"train": fitted.leave_one_out().effect, "test": fitted.predict(screens.test.perts).effect}
        found = {}
        for split, effect in predictions.items():
            found[split] = {metric: screens.score(metric, effect, split) for metric in METRICS}
            found[split]["size"] = jnp.std(effect - mean) / jnp.std(getattr(screens, split).effects - mean)
        return found

    return lambda model: jax.tree.map(float, compute(model))


def sweep(evaluate: Evaluate) -> list[dict[str, dict[str, float]]]:
    """All metrics at every ridge of the grid, with three quarters of the weight on the related line."""
    logits = [np.log(3.0), 0.0]
    return [evaluate(KernelRidge(ridge, logits=logits)) for ridge in LOG_RIDGES]


def tune_all(
    screens: Screens, evaluate: Evaluate, steps: int, optimiser: Literal["adam"] | None
) -> dict[str, dict[str, Any]]:
    """The hyper-parameters that each metric prefers, by gradient."""
    start = KernelRidge(0.0, logits=[0.0, 0.0])
    external, found = start.prepare(screens.others), {}
    train = dataclasses.replace(screens.train, targets=jnp.full(len(screens.train.perts), -1))
    for metric in METRICS:
        weights = screens.weights["train"] if metric == "weighted_mse" else None
        options: dict[str, Any] = {"external": external, "weights": weights}
        began = time.perf_counter()
        over = lambda b: (b.log_ridge, b.logits)
        tuned = tune(start, train, metric, over=over, optimiser=optimiser, steps=steps, learning_rate=0.3, **options)
        seconds = time.perf_counter() - began
        model: Any = tuned.baseline
        found[metric] = {
            "log_ridge": float(model.log_ridge),
            "share": float(jax.nn.softmax(model.logits)[0]),
            "before": float(tuned.before.exact),
            "after": float(tuned.after.exact),
            "scores": evaluate(model),
            "seconds": seconds,
        }
    return found


def best_of(swept: list[dict[str, Any]], metric: str) -> float:
    """The best leave-one-out score of the grid."""
    choose = max if CATALOGUE[metric].higher_is_better else min
    return choose(row["train"][metric] for row in swept)


def better(metric: str, ours: float, theirs: float, slack: float = 0.0) -> bool:
    """Whether a score is at least as good as another, but for a relative slack."""
    if CATALOGUE[metric].higher_is_better:
        return ours >= theirs * (1 - slack)
    return ours <= theirs * (1 + slack)


def check(swept: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """The hypotheses, and whether they held."""
    ridge = {metric: np.exp(row["log_ridge"]) for metric, row in found.items()}
    test = {metric: row["scores"]["test"] for metric, row in found.items()}
    ordered = ridge["delta_mse"] > ridge["weighted_mse"] > ridge["pds_l2"]
    return {
        "1  MSE prefers a larger ridge than WMSE, WMSE than PDS, ten times in all": bool(
            ordered and ridge["delta_mse"] >= 10 * ridge["pds_l2"]
        ),
        "2  by gradient at least as good as the best ridge of the grid": all(
            better(metric, row["after"], best_of(swept, metric), 1e-6) for metric, row in found.items()
        ),
        "3  best on new perturbations by the metric it is tuned for, within 2 %": all(
            better(metric, test[metric][metric], other[metric], 0.02) for metric in METRICS for other in test.values()
        ),
        "4  the related line gets the larger weight": all(row["share"] > 0.5 for row in found.values()),
        "5  larger predictions for PDS than for MSE": test["pds_l2"]["size"] > test["delta_mse"]["size"],
    }


def print_tables(swept: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
    """The sweep, what each metric prefers, and what that is worth by the others."""
    names = [*METRICS.values(), "size"]
    line = lambda cells: "".join(str(cell).rjust(17) for cell in cells)
    print("Leave-one-out scores at ridges of the grid; size is that of predictions over that of measured effects\n")
    print(line(["ridge", *names]))
    for log_ridge, row in list(zip(LOG_RIDGES, swept, strict=True))[::3]:
        print(line([f"{np.exp(log_ridge):.3g}", *(f"{row['train'][key]:.4g}" for key in [*METRICS, "size"])]))
    print(
        "\nTuned by gradient for each metric: leave-one-out score before and after, and of the best ridge of the grid\n"
    )
    print(line(["tuned for", "ridge", "related line", "before", "after", "grid", "seconds"]))
    for metric, row in found.items():
        numbers = [f"{x:.4g}" for x in (row["before"], row["after"], best_of(swept, metric))]
        cells = [METRICS[metric], f"{np.exp(row['log_ridge']):.3g}", f"{row['share']:.2f}", *numbers]
        print(line([*cells, f"{row['seconds']:.1f}"]))
    print("\nThe same on perturbations that were not trained on, by every metric\n")
    print(line(["tuned for", *names]))
    for metric, row in found.items():
        test = row["scores"]["test"]
        print(line([METRICS[metric], *(f"{test[key]:.4g}" for key in [*METRICS, "size"])]))
    print()
    for hypothesis, held in check(swept, found).items():
        print(f"{'held    ' if held else 'FAILED  '} {hypothesis}")


def plot(swept: list[dict[str, Any]], found: dict[str, dict[str, Any]], path: pathlib.Path) -> None:
    """Each metric along the ridge, on the scale from its worst to its best there; and the size of predictions."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    ridges = np.exp(LOG_RIDGES)
    for i, (metric, name) in enumerate(METRICS.items()):
        for split, style in (("train", "-"), ("test", ":")):
            curve = np.array([row[split][metric] for row in swept])
            curve = curve if CATALOGUE[metric].higher_is_better else -curve
            scaled = (curve - curve.min()) / (curve.max() - curve.min())
            left.plot(ridges, scaled, style, color=f"C{i}", label=name if split == "train" else None)
        left.axvline(np.exp(found[metric]["log_ridge"]), color=f"C{i}", alpha=0.35, linewidth=5, zorder=0)
    left.plot([], [], ":", color="grey", label="new perturbations")
    left.plot([], [], color="grey", alpha=0.35, linewidth=5, label="tuned by gradient, weights too")
    left.set(xscale="log", xlabel="ridge", ylabel="score, from worst to best of the curve")
    left.set(title="Each metric prefers a ridge of its own", ylim=(-0.03, 1.05))
    left.legend(fontsize="small", loc="lower center", framealpha=1)
    for split, style, name in (("train", "-", "leave-one-out"), ("test", ":", "new perturbations")):
        right.plot(ridges, [row[split]["size"] for row in swept], style, color="black", label=name)
    for i, (metric, name) in enumerate(METRICS.items()):
        row = found[metric]
        right.plot(
            np.exp(row["log_ridge"]), row["scores"]["test"]["size"], "o", color=f"C{i}", label=f"tuned for {name}"
        )
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xscale="log", xlabel="ridge", ylabel="size of predicted / measured effects")
    right.set(title="and a size of its own (less the mean response)", ylim=(0, None))
    right.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"\nFigure: {path}")


def main(argv: list[str] | None = None) -> dict[str, dict[str, Any]]:
    parser = argparse.ArgumentParser(description="Tune a kernel ridge regression by gradient, for four metrics.")
    parser.add_argument(
        "--out", "--figure", type=pathlib.Path, default=pathlib.Path("tune_kernel_ridge.png"), help="where it goes"
    )
    parser.add_argument(
        "--steps", type=int, default=40, help="of L-BFGS, at most; of Adam, for discrimination and if small"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the screens")
    parser.add_argument("--small", action="store_true", help="fewer perturbations and genes, and Adam")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    sizes = (60, 40, 300) if args.small else (150, 100, 1500)
    screens = simulate(*sizes, seed=args.seed)
    print(f"{sizes[0]} perturbations to train on, {sizes[1]} new ones, {sizes[2]} genes.\n")
    # Line searches find the place to more digits, but take longer to compile than the small screens take to run.
    evaluate = evaluator(screens)
    swept = sweep(evaluate)
    found = tune_all(screens, evaluate, args.steps, "adam" if args.small else None)
    print_tables(swept, found)
    plot(swept, found, args.out)
    return found


if __name__ == "__main__":
    main()
