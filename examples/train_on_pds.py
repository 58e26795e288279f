"""Trains a model on the Perturbation Discrimination Score itself, and watches what that does to the size of effects.

    python examples/train_on_pds.py --out train_on_pds.png

PDS asks, for every perturbation, how many others its predicted effect is closer to: a count, with no gradient. A
relaxation makes it smooth, and one metric row then serves both as score and as loss. This script starts at the
prediction without information, the mean effect for every perturbation (PDS 1/2), and takes 300 steps of Adam, for each
distance, with

- `soft`: the smooth score as loss;
- `straight-through`: the exact score as loss, with the gradient of the smooth one;
- `soft + mse`: the smooth score and a mean squared error.

The cells are split in halves: the model is trained on the effects of one half and scored on those of the other. The
last column scores perturbations that were kept out of training altogether.
"""

import argparse
import dataclasses
import pathlib
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import vcjax
from vcjax.io import read_screen, simulate_screen, summarise


DISTANCES = ("l1", "l2", "cosine")
# What each kind of training weighs the losses with: the smooth score, the exact one, and the error.
KINDS = {"soft": (1.0, 0.0, 0.0), "straight-through": (0.0, 1.0, 0.0), "soft + mse": (1.0, 0.0, 1.0)}
NOTES = """
`soft` and `straight-through` take the same steps, for they have the same gradient; what differs is the value reported.

Why the amplitude drifts: a rank asks which measured effect is nearest, not how near it is. The cosine does not see size
at all; its gradient is at right angles to each prediction, so that steps along it lengthen the prediction and nothing
holds them. With L1 and L2, a perfect prediction has the widest gap between the wrong distances and the right one at its
true size; an imperfect one has it beyond, and the loss follows. Train and report a rank together with an error and the
amplitude ratio: `soft + mse` tells perturbations apart nearly as well, at their true size.
"""


class Data(eqx.Module):
    """What is known of the perturbations, and their profiles measured in two halves of the cells."""

    features: Float[Array, "perts features"]
    train: vcjax.Profiles
    test: vcjax.Profiles

    def __getitem__(self, rows: slice) -> "Data":
        half = lambda real: vcjax.Profiles(real.mean[rows], real.control, targets=real.targets[rows], space=real.space)
        return Data(self.features[rows], half(self.train), half(self.test))


class Model(eqx.Module):
    """The mean profile, and a linear map from features to the rest; it starts at zero, which predicts the mean."""

    mean: Float[Array, " genes"]
    weight: Float[Array, "features genes"]

    def __call__(self, features: Float[Array, "perts features"]) -> Float[Array, "perts genes"]:
        return jax.lax.stop_gradient(self.mean)[None, :] + features @ self.weight


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: loss, exact PDS and amplitude ratio at every step, and the exact PDS of new perturbations."""

    distance: str
    kind: str
    loss: np.ndarray
    pds_train: np.ndarray
    pds: np.ndarray
    amplitude: np.ndarray
    pds_unseen: float
    seconds: float


def simulate(small: bool, seed: int) -> tuple[Data, Data]:
    """Perturbations to train on and perturbations to keep out, with effects that are nearly linear in the features."""
    perts, genes, cells = (24, 400, 120) if small else (64, 1000, 200)
    screen = simulate_screen(
        perts=perts,
        genes=genes,
        cells_per_pert=cells,
        control_cells=5 * cells,
        doubles=0,
        programs=8,
        program_scale=0.4,
        effect_probability=0.1,
        effect_scale=0.05,
        seed=seed,
    )
    half = np.random.default_rng(seed).permuted(np.arange(screen.adata.n_obs) % 2)
    train, test = (
        summarise(read_screen(screen.adata[half == i].copy(), pert_col="target_gene"), space="lognorm", target_sum=1e4)
        for i in (0, 1)
    )
    assert train.perts == test.perts == screen.perts
    data = Data(jnp.asarray(screen.embedding, jnp.result_type(float)), train.to_profiles(), test.to_profiles())
    seen = len(screen.perts) * 3 // 4
    return data[:seen], data[seen:]


def make_step(distance: str, seen: Data, optimiser: optax.GradientTransformation, softness: float):
    """One step of Adam on a weighted sum of losses, and the scores before it."""
    pds, mse, amplitude = (vcjax.metrics.CATALOGUE[name] for name in (f"pds_{distance}", "expr_mse", "amplitude_ratio"))
    relax = vcjax.Relaxation(softness)
    soft_loss = vcjax.as_loss(pds, relax=relax, straight_through=False, aux=True)
    exact_loss = vcjax.as_loss(pds, relax=relax, straight_through=True)
    mse_loss = vcjax.as_loss(mse)
    spread = seen.train.mean.var(axis=0).mean()  # the error of the mean prediction: all losses are of order one

    def loss(model, weights):
        pred = model(seen.features)
        soft, aux = soft_loss(pred, seen.train)
        error = mse_loss(pred, seen.train) / spread
        terms = jnp.stack([soft, exact_loss(pred, seen.train), error])
        return weights @ terms, aux["hard"]

    @eqx.filter_jit
    def step(model, state, weights):
        pred = model(seen.features)
        (value, pds_train), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, weights)
        updates, state = optimiser.update(gradient, state)
        scores = value, pds_train, pds(pred, seen.test).mean(), jnp.median(amplitude(pred, seen.test))
        return eqx.apply_updates(model, updates), state, jnp.stack(scores)

    return step


def train(distance: str, seen: Data, unseen: Data, *, steps: int, softness: float, learning_rate: float) -> list[Run]:
    """All kinds of training for one distance, each from the mean prediction."""
    optimiser = optax.adam(learning_rate)
    step = make_step(distance, seen, optimiser, softness)
    unseen_pds = eqx.filter_jit(
        lambda model: vcjax.metrics.CATALOGUE[f"pds_{distance}"](model(unseen.features), unseen.test).mean()
    )
    runs = []
    for kind, weights in KINDS.items():
        start = time.perf_counter()
        model = Model(seen.train.mean.mean(axis=0), jnp.zeros((seen.features.shape[1], seen.train.mean.shape[1])))
        state, history = optimiser.init(eqx.filter(model, eqx.is_array)), []
        for _ in range(steps):
            model, state, scores = step(model, state, jnp.asarray(weights))
            history.append(scores)
        history.append(step(model, state, jnp.asarray(weights))[2])
        loss, pds_train, pds_test, sizes = np.array(history, np.float64).T
        seconds = time.perf_counter() - start
        runs.append(Run(distance, kind, loss, pds_train, pds_test, sizes, float(unseen_pds(model)), seconds))
    return runs


def print_table(runs: list[Run]) -> None:
    """One line a run, from its first step to its last."""
    names = ("distance", "loss", "its value", "PDS, train half", "PDS, other half", "amplitude", "PDS, unseen", "s")
    widths = (9, 17, 17, 17, 17, 16, 13, 6)
    print("".join(name.rjust(width) for name, width in zip(names, widths, strict=True)))
    for run in runs:
        curves = (run.loss, run.pds_train, run.pds, run.amplitude)
        cells = [run.distance, run.kind, *(f"{curve[0]:.3f} > {curve[-1]:.3f}" for curve in curves)]
        cells += [f"{run.pds_unseen:.3f}", f"{run.seconds:.1f}"]
        print("".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    print(NOTES)


def plot(runs: list[Run], path: pathlib.Path) -> None:
    """Exact PDS on the other half, and amplitude ratio, at every step."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run in runs:
        kind = list(KINDS).index(run.kind)
        style = {
            "color": f"C{DISTANCES.index(run.distance)}",
            "linestyle": ("-", "--", ":")[kind],
            # Wide and pale, so that the dashes of straight-through show on top of it.
            "linewidth": (5, 1.5, 1.5)[kind],
            "alpha": (0.3, 1, 1)[kind],
            "label": f"{run.distance}, {run.kind}",
        }
        left.plot(run.pds, **style)
        right.plot(run.amplitude, **style)
    left.axhline(0.5, color="grey", linewidth=0.8)
    left.set(xlabel="step", ylabel="exact PDS", title="Discrimination, in cells not trained on")
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xlabel="step", ylabel="size of predicted / measured effect", title="Amplitude")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"Plot: {path}")


def main(argv: list[str] | None = None) -> list[Run]:
    parser = argparse.ArgumentParser(description="Train on a soft PDS, score with the exact one.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("train_on_pds.png"), help="where the plot goes"
    )
    parser.add_argument("--steps", type=int, default=300, help="steps of Adam")
    parser.add_argument("--learning-rate", type=float, default=1e-2, help="of Adam")
    parser.add_argument("--softness", type=float, default=0.3, help="of the relaxation, in (0, 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated screen")
    parser.add_argument("--small", action="store_true", help="fewer perturbations, genes and cells")
    args = parser.parse_args(argv)
    seen, unseen = simulate(args.small, args.seed)
    print(f"{len(seen.features)} perturbations to train on, {len(unseen.features)} kept out.\n")
    options = {"steps": args.steps, "softness": args.softness, "learning_rate": args.learning_rate}
    runs = [run for distance in DISTANCES for run in train(distance, seen, unseen, **options)]
    print_table(runs)
    plot(runs, args.out)
    return runs


if __name__ == "__main__":
    main()
