"""Trains one network on the mean squared error, and on the error weighted by the genes that respond.

    python examples/train_on_weighted_mse.py --out train_on_weighted_mse.png

Few genes respond to a perturbation; in all the others a measured profile is noise. A model that is trained and chosen
by its mean squared error stops early, for what it learns of the few costs it more in the many: its predictions stay
close to the mean of all perturbations, and to each other. That is mode collapse, and `spread_ratio` shows it.

A small perceptron predicts profiles from features of the perturbations, in three arms that differ in the loss alone:

- `MSE`;
- `weighted MSE`: each gene of each perturbation counts by its squared t (`vcjax.weights.CALIBRATED`);
- `weighted MSE + guard`: the same, and a tenth of `amplitude_guard`, which holds the size of predictions.

The last layer starts at zero, so that every arm starts at the mean of the training perturbations. The cells are split
in halves. The network, its target profiles and the weights of training see one half. The other half is the truth for
perturbations that were kept out: some to choose the step on, each arm by its own loss, and the rest for the table.
R²w is weighted, too, by weights made of the half that is not the truth.
"""

import argparse
import dataclasses
import pathlib
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import vcjax
from vcjax.de import Moments
from vcjax.io import simulate_screen
from vcjax.losses import amplitude_guard, compose, Term
from vcjax.metrics import CATALOGUE
from vcjax.training import fit, TrainingData
from vcjax.weights import CALIBRATED


# What each arm is trained on, made anew for each run since a loss is scaled on its data.
ARMS = {
    "MSE": lambda: [Term("expr_mse")],
    "weighted MSE": lambda: [Term("weighted_mse")],
    "weighted MSE + guard": lambda: [Term("weighted_mse"), Term(amplitude_guard(), 0.1)],
}
METRICS = {
    "weighted_r2_mean": "R²w",
    "spread_ratio": "spread",
    "calibration_slope_mean": "slope",
    "expr_mse": "MSE",
    "pds_cosine": "PDS",
}
NOTES = """
R²w: share of the effect beyond the mean that is explained, in genes that respond. Spread: how much predictions differ
from each other, over how much measured profiles do; 0 is collapse. Slope: below 1 the predicted effects are too large
for what they are worth, over all genes alike. Lost: how much R²w a better choice of the step would have gained.

What to read here. The MSE stops a model early: predictions differ half as much as what is measured, and later steps of
the same training explain more of the genes that respond. The weighted error loses little by its choice, but inflates:
weights are largest where a perturbation moved a gene, so that a model learns to expect movement, and nothing holds the
genes that did not move. Slope and MSE say so, and the MSE may be worse than that of the mean. Whether R²w gains by it
depends on the screen. The guard takes most of the inflation back, and with it R²w is higher than without.

What is not gained: PDS is about the same in all arms, for it does not ask how large an effect is, and the MSE is lowest
for the model that was trained on it. The plain MSE, stopped by R²w instead of by itself, explains about as much as the
guarded arm (R²w and what it lost): weights help to choose a model at least as much as to train one.
"""


class Network(eqx.Module):
    """The mean of the training perturbations, and a perceptron of the features for the rest."""

    mean: Float[Array, " genes"]
    rest: eqx.nn.MLP

    def __init__(self, mean: Float[Array, " genes"], features: int, *, width: int, key: Array):
        self.mean = mean
        rest = eqx.nn.MLP(features, mean.size, width, depth=1, key=key)
        last = lambda mlp: (mlp.layers[-1].weight, mlp.layers[-1].bias)
        self.rest = eqx.tree_at(last, rest, replace_fn=jnp.zeros_like)

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " genes"]:
        return jax.lax.stop_gradient(self.mean) + self.rest(features)


@dataclasses.dataclass(frozen=True)
class Data:
    """Perturbations to train on, in one half of the cells; to choose the step on and to score, in the other half."""

    train: TrainingData
    choose: TrainingData
    test: TrainingData

    @property
    def mean(self) -> Float[Array, " genes"]:
        """The profile that the network starts at."""
        return self.train.real.mean.mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: metrics of the perturbations the step was chosen on, at each evaluation; and of the test ones."""

    arm: str
    seed: int
    steps: np.ndarray
    curves: dict[str, np.ndarray]
    chosen: int
    scores: dict[str, float]
    seconds: float

    @property
    def place(self) -> int:
        """The evaluation at the chosen step."""
        return int(np.flatnonzero(self.steps == self.chosen)[0])

    @property
    def lost(self) -> float:
        """R²w of the best step less that of the chosen one, of the perturbations that it was chosen on."""
        curve = self.curves["weighted_r2_mean"]
        return float(curve.max() - curve[self.place])


def simulate(small: bool, seed: int) -> Data:
    """A screen whose perturbations move few genes, by programs that the features know of, with noise."""
    perts, genes, cells = (36, 200, 40) if small else (160, 1000, 40)
    screen = simulate_screen(
        perts=perts,
        genes=genes,
        cells_per_pert=cells,
        control_cells=5 * cells,
        doubles=0,
        programs=10,
        program_scale=0.6,
        effect_probability=0.05 if small else 0.01,
        effect_scale=0.1,
        strength_sigma=0.3,
        seed=seed,
    )
    counts: Any = screen.adata.X
    values = np.asarray(vcjax.log_normalise(counts.toarray()))
    labels = screen.adata.obs["target_gene"].astype(str).to_numpy()
    targets = jnp.asarray([screen.genes.index(name) for name in screen.perts])
    profiles, moments = [], []
    for half in (0, 1):  # the cells are in random order
        groups = [values[labels == name][half::2] for name in (*screen.perts, "non-targeting")]
        mean = jnp.asarray(np.stack([cells_of.mean(axis=0) for cells_of in groups]))
        variance = jnp.asarray(np.stack([cells_of.var(axis=0, ddof=1) for cells_of in groups]))
        profiles.append(vcjax.Profiles(mean[:-1], mean[-1], targets=targets))
        moments.append(Moments(mean[:-1], variance[:-1], jnp.full(perts, cells // 2, mean.dtype)))
    weights = jax.jit(lambda x: CALIBRATED(x, targets=targets).values)(moments[0])
    noise = np.random.default_rng(seed).standard_normal(screen.embedding.shape)
    features = screen.embedding + 0.7 * noise

    first, second = perts * 5 // 8, perts * 13 // 16
    train_mean = profiles[0].mean[:first].mean(axis=0)
    features = (features - features[:first].mean(axis=0)) / features[:first].std(axis=0)
    features = features.astype(np.float32)

    def part(half: vcjax.Profiles, start: int, stop: int) -> TrainingData:
        real = dataclasses.replace(half.take(jnp.arange(start, stop)), train_mean=train_mean)
        return TrainingData(
            features[start:stop], real, weights=weights[start:stop], perts=list(screen.perts[start:stop])
        )

    return Data(part(profiles[0], 0, first), part(profiles[1], first, second), part(profiles[1], second, perts))


@eqx.filter_jit
def score(model: Network, data: TrainingData) -> dict[str, Array]:
    """All metrics of a model, exact, as means over perturbations."""
    pred = jax.vmap(model)(data.inputs)
    weights = lambda row: data.weights if row.needs_weights else None
    rows = {name: CATALOGUE[name] for name in METRICS}
    return {name: jnp.nanmean(row(pred, data.real, weights=weights(row))) for name, row in rows.items()}


def train(data: Data, *, steps: int, learning_rate: float, width: int, seed: int) -> list[Run]:
    """All arms, from one network with one optimiser; and before them the network as it is, which predicts the mean."""
    start = Network(data.mean, data.train.inputs.shape[1], width=width, key=jax.random.key(seed))
    optimiser = optax.adam(learning_rate)
    runs = [Run("mean", seed, np.zeros(1), {}, 0, jax.tree.map(float, score(start, data.test)), 0.0)]
    for arm, terms in ARMS.items():
        loss = compose(terms(), real=data.train.real, weights=data.train.weights)
        began = time.perf_counter()
        trained = fit(
            start,
            data.train,
            loss,
            optimiser,
            steps=steps,
            validation=data.choose,
            metrics=list(METRICS),
            every=max(1, steps // 20),
            seed=seed,
        )
        seconds = time.perf_counter() - began
        scores = jax.tree.map(float, score(trained.model, data.test))
        curves = {name: trained.history.column(name) for name in METRICS}
        runs.append(Run(arm, seed, trained.history.column("step"), curves, trained.best_step, scores, seconds))
    return runs


def print_table(runs: list[Run]) -> None:
    """The test perturbations at the chosen step of each arm, means over screens; and R²w of each screen."""
    line = lambda name, cells: print(name.rjust(22) + "".join(str(cell).rjust(8) for cell in cells))
    line("", [*METRICS.values(), "lost", "step", "s", "  R²w of each screen"])
    for arm in ("mean", *ARMS):
        some = [run for run in runs if run.arm == arm]
        mean = {name: float(np.mean([run.scores[name] for run in some])) for name in METRICS}
        cells = ["-" if np.isnan(x) else f"{x:.{4 if name == 'expr_mse' else 3}f}" for name, x in mean.items()]
        rest = ["-"] * 3
        if arm != "mean":
            middle, seconds = np.median([run.chosen for run in some]), np.mean([run.seconds for run in some])
            rest = [f"{np.mean([run.lost for run in some]):.3f}", f"{middle:.0f}", f"{seconds:.1f}"]
        line(arm, [*cells, *rest, "  " + " ".join(f"{run.scores['weighted_r2_mean']:6.3f}" for run in some)])
    print(NOTES)


def plot(runs: list[Run], path: pathlib.Path) -> None:
    """R²w and spread at every evaluation, and the step that each arm's own loss chose."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    shown = {
        "weighted_r2_mean": ("R²w beyond the mean", 0.0),
        "spread_ratio": ("spread of predictions over that of profiles", 1.0),
        "calibration_slope_mean": ("slope of measured on predicted effects", 1.0),
    }
    for axis, (name, (title, level)) in zip(axes, shown.items(), strict=True):
        for run in runs:
            if run.arm == "mean":
                continue
            color = f"C{list(ARMS).index(run.arm)}"
            label = run.arm if run.seed == runs[0].seed else None
            axis.plot(run.steps, run.curves[name], color=color, label=label, alpha=1 if label else 0.35)
            axis.plot(run.chosen, run.curves[name][run.place], "o", color=color, alpha=1 if label else 0.35)
        axis.axhline(level, color="grey", linewidth=0.8)
        axis.set(xlabel="step", title=title)
    axes[2].set(ylim=(0, 1.5))
    axes[2].plot([], [], "o", color="grey", label="chosen by its own loss")
    axes[2].plot([], [], color="grey", alpha=0.35, label="other screens")
    axes[2].legend(fontsize="small", loc="upper right", ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"Plot: {path}")


def main(argv: list[str] | None = None) -> list[Run]:
    parser = argparse.ArgumentParser(description="Train on MSE and on weighted MSE, score what tells models apart.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("train_on_weighted_mse.png"), help="where the plot goes"
    )
    parser.add_argument("--steps", type=int, default=None, help="steps of Adam; 320, or 160 with --small")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    parser.add_argument("--width", type=int, default=64, help="of the hidden layer")
    parser.add_argument("--seed", type=int, default=0, help="of the first screen, its features and its network")
    parser.add_argument("--screens", type=int, default=None, help="how many, a seed each; 3, or 1 with --small")
    parser.add_argument("--small", action="store_true", help="fewer screens, perturbations, genes and steps")
    args = parser.parse_args(argv)
    steps, screens = args.steps or (160 if args.small else 320), args.screens or (1 if args.small else 3)
    options = {"steps": steps, "learning_rate": args.learning_rate, "width": args.width}
    runs: list[Run] = []
    for seed in range(args.seed, args.seed + screens):
        data = simulate(args.small, seed)
        if not runs:
            sizes = f"{len(data.train)} perturbations to train on, {len(data.choose)} to choose the step on"
            print(f"{sizes}, {len(data.test)} to score.\n")
        runs += train(data, **options, seed=seed)
    print_table(runs)
    plot(runs, args.out)
    return runs


if __name__ == "__main__":
    main()
