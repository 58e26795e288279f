"""Trains a model of cells on the six metrics of the 2026 Virtual Cell Challenge, and shows the trap that lies in it.

    python examples/train_on_the_six.py --out train_on_the_six.png

Four of the six start from a rank test of predicted cells against measured control cells: counts of counts, without a
gradient anywhere. Relaxed, the whole chain (cells, rank sums, p-values, their adjustment, significant sets, their
overlap) is one differentiable function, and the loss is the mean of the six scores: 0 at unchanged control cells, 1 at
a second half of the measured cells.

Three models start from one and the same prediction: measured control cells whose counts are multiplied by the fold
changes of the replicate. Then they are trained on the six, each with a number for every gene of every perturbation:

- `fold change` goes on multiplying, so that a zero stays a zero;
- `shift` adds to log-normalised expression, which turns zeros into small values, and sets what is too small to be
    expression back to zero (`zero_floor`);
- `shift, no floor` does the same without the floor.

The exact scores of all are those of the cells as they are emitted.
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
from jaxtyping import Array, Bool, Float, Int

import vcjax
from vcjax.de import (
    de_table,
    default_zero_floor,
    expressed,
    sort_control,
    SortedControl,
    tabulate_control,
    TabulatedControl,
    zero_floor,
)
from vcjax.io import simulate_screen
from vcjax.losses import compose, Term
from vcjax.metrics import V2


SIX = (
    "pds_cosine",
    "expr_mse_unbiased_capped_norm",
    "de_wilcoxon_direction_fidelity_yield_raw",
    "de_wilcoxon_direction_reach_raw",
    "de_wilcoxon_sig_jaccard",
    "de_wilcoxon_lfc_nmae",
)
SHORT = ("pds", "mse_norm", "fidelity", "reach", "jaccard", "nmae")
KINDS = ("fold change", "shift", "shift, no floor")
CPM = 1e6
TEMPERATURE = 0.1  # of the smooth rank test, in natural logarithms of expression
NOTES = """
Read the columns in pairs: `soft` is what was trained, `exact` is what a challenge would report of the same cells.

The trap: a measured cell is zero in most genes. A shift of 0.02 lifts all of these zeros above the zeros of the control
cells. The smooth rank test hardly notices; the exact one calls the gene significant with near certainty. Without a
floor the soft Jaccard index rises while the exact one falls. A model whose last operation keeps zeros, or a floor
applied alike in training and in scoring, closes the gap.
"""


class Screen(eqx.Module):
    """The measured side, and what predictions of it are made from and compared with.

    `real` and `replicate` are two halves of the cells; `pick` says which control cells a prediction starts from.
    """

    real: vcjax.Profiles
    replicate: vcjax.Profiles
    control: Float[Array, "cells genes"]
    pick: Int[Array, "perts cells"]
    sorted_control: SortedControl
    tabulated_control: TabulatedControl
    tested: Bool[Array, " genes"]

    def profiles(self, cells: Float[Array, "perts cells genes"], relax: vcjax.Relaxation):
        """Predicted cells as what metrics read: pseudobulk, its noise and the table, exact if `relax` is `HARD`."""
        control = self.sorted_control if relax is vcjax.HARD else self.tabulated_control
        table = de_table(cells, control, relax=relax, tested=self.tested)
        return _profiles(cells, self.real.control, self.real.control_noise, self.real.targets, table)


class Model(eqx.Module):
    """What a move of each gene does to the first guess; `move` is learnt.

    All else are arrays too, so that one program serves every kind.
    """

    move: Float[Array, "perts genes"]
    guess: Float[Array, "perts genes"]
    shifts: Bool[Array, ""]
    floor: Float[Array, ""]

    def __call__(self, screen: Screen) -> Float[Array, "perts cells genes"]:
        """Predicted cells, as log1p of counts per million."""
        fold = self.guess + jnp.where(self.shifts, 0, self.move)
        cells = _normalise(jnp.expm1(screen.control[screen.pick]) * jnp.exp(fold[:, None, :]))
        cells = jnp.where(self.shifts, jnp.maximum(cells + self.move[:, None, :], 0), cells)
        return zero_floor(cells, self.floor).cells


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the six values and their mean score, soft and exact, (steps logged, six) each."""

    kind: str
    steps: np.ndarray
    soft: np.ndarray
    exact: np.ndarray
    soft_score: np.ndarray
    exact_score: np.ndarray
    seconds: float


def _normalise(counts):
    return jnp.log1p(CPM * counts / jnp.maximum(jnp.sum(counts, axis=-1, keepdims=True), 1e-6))


def _profiles(cells, control, control_noise, targets, table):
    """Pseudobulk of perturbations of one number of cells, in the space of the challenge."""
    perts, size, genes = cells.shape
    counts, groups = jnp.expm1(cells).reshape(-1, genes), jnp.repeat(jnp.arange(perts), size)
    return vcjax.Profiles(
        vcjax.bulk_lognorm(vcjax.bulk_sums(counts, groups, perts)),
        control,
        noise=jax.lax.stop_gradient(vcjax.jackknife_noise(counts, groups, perts)),
        control_noise=control_noise,
        targets=targets,
        de=table,
    )


def measure(small: bool, seed: int) -> Screen:
    """A simulated screen, its cells split in halves."""
    perts, genes, size = (10, 150, 40) if small else (20, 400, 100)
    screen = simulate_screen(
        perts=perts,
        genes=genes,
        cells_per_pert=2 * size,
        control_cells=5 * size,
        doubles=0,
        effect_probability=0.06,
        effect_scale=1.0,
        depth=1.5 * genes,
        seed=seed,
    )
    counts: Any = screen.adata.X
    cells = np.asarray(_normalise(jnp.asarray(counts.toarray())))
    labels = screen.adata.obs["target_gene"].astype(str).to_numpy()
    control = jnp.asarray(cells[labels == "non-targeting"])
    prepared = sort_control(control)
    tested = expressed(prepared.mean, target_sum=CPM)
    bulk = _profiles(control[None], None, None, None, None)
    noise: Any = bulk.noise
    targets = jnp.asarray([screen.genes.index(name) for name in screen.perts])
    halves = []
    for half in (0, 1):
        own = jnp.asarray(np.stack([cells[labels == name][half::2] for name in screen.perts]))
        table = de_table(own, prepared, tested=tested)
        halves.append(_profiles(own, bulk.mean[0], noise[0], targets, table))
    pick = np.random.default_rng(seed).integers(len(control), size=(perts, size))
    return Screen(
        real=halves[0],
        replicate=halves[1],
        control=control,
        pick=jnp.asarray(pick),
        sorted_control=prepared,
        tabulated_control=tabulate_control(control, temperature=TEMPERATURE),
        tested=tested,
    )


def make_loss(screen: Screen):
    """The mean of the six, each 1 for unchanged control cells and 0 for a replicate; and these values of each."""
    metrics = {name: V2[name] for name in SIX}
    score = jax.jit(lambda pred: {name: jnp.nanmean(row(pred, screen.real)) for name, row in metrics.items()})
    control = screen.profiles(screen.control[screen.pick], vcjax.HARD)
    scale = {"baseline": jax.device_get(score(control)), "anchor": jax.device_get(score(screen.replicate))}
    ends = lambda name: {"null": float(scale["baseline"][name]), "best": float(scale["anchor"][name])}
    return compose([Term(row, 1 / len(SIX), **ends(name)) for name, row in metrics.items()]), scale


def train(screen: Screen, *, steps: int, every: int, softness: float, learning_rate: float) -> list[Run]:
    """All kinds of model, each from the same first guess, with the same optimiser."""
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    loss, scale = make_loss(screen)

    @eqx.filter_jit
    def evaluate(model, *, exact):
        relax = vcjax.HARD if exact else vcjax.Relaxation(softness)
        value, parts = loss(screen.profiles(model(screen), relax), screen.real, relax=relax)
        values = parts.exact if exact else parts.soft
        return 1 - value, jnp.stack([values[name] for name in SIX])

    @eqx.filter_jit
    def step(model, state):
        of_move = lambda move: -evaluate(eqx.tree_at(lambda model: model.move, model, move), exact=False)[0]
        updates, state = optimiser.update(jax.grad(of_move)(model.move), state)
        return eqx.tree_at(lambda model: model.move, model, optax.apply_updates(model.move, updates)), state

    print_row("", SHORT, "mean score")
    for name, score in (("baseline", 0.0), ("anchor", 1.0)):
        print_row(name, [scale[name][member] for member in SIX], score)
    guess = screen.replicate.mean - screen.real.control[None, :]
    runs = []
    for kind in KINDS:
        start = time.perf_counter()
        floor = default_zero_floor(screen.control) if kind == "shift" else jnp.zeros(())
        model = Model(jnp.zeros_like(guess), guess, jnp.asarray(kind != "fold change"), floor)
        state, logged = optimiser.init(model.move), []
        for count in range(steps + 1):
            if count % every == 0 or count == steps:
                logged.append((count, evaluate(model, exact=False), evaluate(model, exact=True)))
            if count < steps:
                model, state = step(model, state)
        counts, soft, exact = zip(*logged, strict=True)
        curve = lambda side, i: np.array([np.asarray(logs[i]) for logs in side])
        runs.append(
            Run(
                kind=kind,
                steps=np.array(counts),
                soft=curve(soft, 1),
                exact=curve(exact, 1),
                soft_score=curve(soft, 0),
                exact_score=curve(exact, 0),
                seconds=time.perf_counter() - start,
            )
        )
        print_run(runs[-1])
    print(NOTES)
    return runs


def print_run(run: Run) -> None:
    """The first values, and the last, soft and exact, and the gap between them."""
    print_row(f"{run.kind}: start", run.exact[0], run.exact_score[0])
    print_row(f"{run.kind}: soft", run.soft[-1], run.soft_score[-1])
    print_row(f"{run.kind}: exact", run.exact[-1], run.exact_score[-1])
    print_row(f"  gap ({run.seconds:.0f} s)", run.soft[-1] - run.exact[-1], run.soft_score[-1] - run.exact_score[-1])


def print_row(name: str, cells, last) -> None:
    """One line of the table."""
    show = lambda cell: cell if isinstance(cell, str) else f"{cell:.3f}"
    print(name.ljust(24) + "".join(show(cell).rjust(11) for cell in (*cells, last)))


def plot(runs: list[Run], path: pathlib.Path) -> None:
    """The mean score, and the Jaccard index, soft and exact, along each training."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(runs), figsize=(12, 7), sharex=True, sharey="row", layout="constrained")
    jaccard = SHORT.index("jaccard")
    for (score, members), run in zip(axes.T, runs, strict=True):
        curves = ((score, run.soft_score, run.exact_score), (members, run.soft[:, jaccard], run.exact[:, jaccard]))
        for axis, soft, exact in curves:
            axis.plot(run.steps, soft, "--", color="C0", label="soft (trained)")
            axis.plot(run.steps, exact, color="C3", label="exact")
        score.set(title=run.kind)
        members.set(xlabel="step")
    axes[0, 0].set(ylabel="mean of the six scores")
    axes[1, 0].set(ylabel="Jaccard index of significant genes")
    axes[0, 0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"Plot: {path}")


def main(argv: list[str] | None = None) -> list[Run]:
    parser = argparse.ArgumentParser(description="Train cells on the relaxed six of 2026, score with the exact ones.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("train_on_the_six.png"), help="where the plot goes"
    )
    parser.add_argument("--steps", type=int, default=None, help="steps of Adam; 60, or 20 with --small")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="of Adam, at the start")
    parser.add_argument("--softness", type=float, default=0.1, help="of the relaxation, in (0, 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated screen")
    parser.add_argument("--small", action="store_true", help="fewer perturbations, genes, cells and steps")
    args = parser.parse_args(argv)
    steps = args.steps or (20 if args.small else 60)
    screen = measure(args.small, args.seed)
    options = {"softness": args.softness, "learning_rate": args.learning_rate}
    runs = train(screen, steps=steps, every=max(1, steps // 20), **options)
    plot(runs, args.out)
    return runs


if __name__ == "__main__":
    main()
