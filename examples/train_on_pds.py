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
KINDS = ("soft", "straight-through", "soft + mse")
WHY = """
Why the amplitude drifts. A rank asks which measured effect is nearest, not how near it is. The cosine does not see size
at all: its gradient is at right angles to the prediction, so that every step makes it longer. With L1 and L2, the gap
between a wrong and the right distance keeps growing with the part of the prediction that tells perturbations apart, so
that inflating it is paid for beyond its true size. Train and report a rank together with an error and the amplitude
ratio: `soft + mse` has the discrimination, and the size too.
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


def make_step(distance: str, seen: Data, optimiser: optax.GradientTransformation, *, softness: float, exact: bool):
    """One step of Adam, and the scores before it; `exact` makes the loss the exact score (straight-through)."""
    pds, mse, amplitude = (vcjax.metrics.CATALOGUE[name] for name in (f"pds_{distance}", "expr_mse", "amplitude_ratio"))
    relax = vcjax.Relaxation(softness)
    pds_loss = vcjax.as_loss(pds, relax=relax, straight_through=exact, aux=True)
    mse_loss = vcjax.as_loss(mse)
    # In units of the error of the mean prediction, so that both terms are of order one.
    spread = jnp.mean((seen.train.mean - seen.train.mean.mean(axis=0, keepdims=True)) ** 2)

    def loss(model, mse_weight):
        pred = model(seen.features)
        value, aux = pds_loss(pred, seen.train)
        return value + mse_weight * mse_loss(pred, seen.train) / spread, aux["hard"]

    @eqx.filter_jit
    def step(model, state, mse_weight):
        pred = model(seen.features)
        (value, pds_train), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, mse_weight)
        updates, state = optimiser.update(gradient, state)
        scores = value, pds_train, pds(pred, seen.test).mean(), jnp.median(amplitude(pred, seen.test))
        return eqx.apply_updates(model, updates), state, scores

    return step


def train(distance: str, seen: Data, unseen: Data, *, steps: int, softness: float, learning_rate: float) -> list[Run]:
    """All kinds of training for one distance, each from the mean prediction."""
    optimiser = optax.adam(learning_rate)
    step_of = {exact: make_step(distance, seen, optimiser, softness=softness, exact=exact) for exact in (False, True)}
    score = eqx.filter_jit(vcjax.metrics.CATALOGUE[f"pds_{distance}"])
    runs = []
    for kind in KINDS:
        start = time.perf_counter()
        step, mse_weight = step_of[kind == "straight-through"], jnp.asarray(1.0 if kind == "soft + mse" else 0.0)
        model = Model(seen.train.mean.mean(axis=0), jnp.zeros((seen.features.shape[1], seen.train.mean.shape[1])))
        state, history = optimiser.init(eqx.filter(model, eqx.is_array)), []
        for _ in range(steps):
            model, state, scores = step(model, state, mse_weight)
            history.append(scores)
        history.append(step(model, state, mse_weight)[2])
        columns = [np.array(column, np.float64) for column in zip(*history, strict=True)]
        pds_unseen = float(score(model(unseen.features), unseen.test).mean())
        runs.append(Run(distance, kind, *columns, pds_unseen, time.perf_counter() - start))
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
    print(WHY)


def plot(runs: list[Run], path: pathlib.Path) -> None:
    """Exact PDS on the other half, and amplitude ratio, at every step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run in runs:
        style = {
            "color": f"C{DISTANCES.index(run.distance)}",
            "linestyle": ("-", "--", ":")[KINDS.index(run.kind)],
            "label": f"{run.distance}, {run.kind}",
        }
        left.plot(run.pds, **style)
        right.plot(run.amplitude, **style)
    left.axhline(0.5, color="grey", linewidth=0.8)
    left.set(xlabel="step", ylabel="exact PDS", title="Discrimination, in cells not trained on")
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xlabel="step", ylabel="size of predicted / measured effect", yscale="log", title="Amplitude")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> list[Run]:
    parser = argparse.ArgumentParser(description="Train on a soft PDS, score with the exact one.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("train_on_pds.png"), help="where the plot goes"
    )
    parser.add_argument("--steps", type=int, default=300, help="steps of Adam")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of Adam")
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
    print(f"Plot: {args.out}")
    return runs


if __name__ == "__main__":
    main()
