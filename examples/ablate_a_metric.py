"""What the choices inside a metric do: 81 designs of one score, judged by predictors of known quality.

    python examples/ablate_a_metric.py --out ablate_a_metric.png

"The" Perturbation Discrimination Score is a family. It asks how many other measured effects a prediction is farther
from than from its own, and leaves open

- the distance: L1, L2 or cosine;
- what effects are measured from: the control, the mean of the other perturbations, or that of training perturbations;
- which genes count: all alike, all by their weight, or the 50 of largest weight;
- which target genes are left out: none, the prediction's own, or those of the whole panel.

Each design scores each predictor, as one compiled function of arrays: distances and exclusions are options of
`perturbation_discrimination`, references and genes are axes of `vmap`. A good design ranks predictors as they are known
to be, pays nothing for inflation and gives one half to whatever knows nothing of the perturbation. Weights, the 50
genes and the training mean are made of perturbations that are not scored.
"""

import argparse
import dataclasses
import itertools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

import vcjax
from vcjax.de import Moments
from vcjax.io import DEMO_PREDICTORS, simulate_screen
from vcjax.metrics import Cosine, L1, L2, perturbation_discrimination
from vcjax.references import loo_mean
from vcjax.weights import CALIBRATED, shared_weights


DISTANCES = {"L1": L1(), "L2": L2(), "cosine": Cosine()}
REFERENCES = ("control", "others' mean", "train mean")
GENES = ("all genes", "weighted", "top 50")
EXCLUDED = ("none", "own", "panel")
FACTORS = {"distance": tuple(DISTANCES), "reference": REFERENCES, "genes": GENES, "excluded": EXCLUDED}
Design = tuple[str, str, str, str]
DESIGNS: list[Design] = [(d, r, g, e) for d, r, g, e in itertools.product(*FACTORS.values())]
# How much each predictor knows of a perturbation. Where inflated ones should stand is the question, not the answer.
KNOWS = {
    "perfect": 4,
    "replicate": 3,
    "half_noise": 2,
    "quarter": 1,
    "mean": 0,
    "panel mean": 0,
    "control": 0,
    "shuffled": 0,
    "target only": 0,
}
INFLATED = ("inflated", "half x3, control", "half x3, mean")
PREDICTORS = (*KNOWS, *INFLATED)
NO_SKILL = tuple(name for name, level in KNOWS.items() if level == 0)
PUBLISHED: dict[Design, str] = {
    ("L1", "control", "all genes", "own"): "cell-eval, challenge of 2025",
    ("cosine", "control", "all genes", "panel"): "cell-eval2, challenge of 2026",
}


NOTES = """
What one learns. Most designs put the predictors in the right order, so that an order alone recommends none of them;
they differ in what they pay for.

- Distance: L1 and L2 pay for three times the effect, which knows nothing more. Cosine does not see size, if effects are
  measured from where they were inflated from.
- Origin: L1 and L2 are the same from any origin that all perturbations share; cosine is not. From the mean of the other
  perturbations it gives 1 to the mean of the panel, a constant: less the mean of the others, that points along the very
  effect that was left out. A mean of training perturbations is one origin for all, and gives it one half.
- Target genes: if they count, cosine gives up to 1 to a prediction of the knock-down alone. If the prediction's own is
  left out and no other, L1 and L2 give more than one half to what knows nothing: its own perturbation has lost its
  largest difference, and the others keep theirs. If those of the panel are left out, it is one half again.
- Genes: weights or the top 50 change little here, but they make what is unearned less.

Which of these rankings differ most is said by `stable`: the distance first, then the origin.
"""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The mean score of each design (rows) and predictor (columns), over screens, and what follows from it."""

    values: Float[np.ndarray, "designs predictors"]

    def of(self, *names: str) -> Float[np.ndarray, "designs names"]:
        """The columns of some predictors."""
        return self.values[:, [PREDICTORS.index(name) for name in names]]

    def order(self) -> Float[np.ndarray, " designs"]:
        """Kendall's tau of each design with the known order, over the pairs that have one (Somers' D)."""
        known = list(KNOWS.values())
        return np.array([scipy.stats.somersd(known, _rounded(row)).statistic for row in self.of(*KNOWS)])

    def inflation(self) -> Float[np.ndarray, " designs"]:
        """What three times the effect adds to the score of half a prediction, at most of the two origins."""
        return (self.of("half x3, control", "half x3, mean") - self.of("half_noise")).max(axis=1)

    def unearned(self) -> Float[np.ndarray, " designs"]:
        """How far above one half the best of the predictors is that know nothing."""
        return self.of(*NO_SKILL).max(axis=1) - 0.5

    def agreement(self, factor: str) -> float:
        """Kendall's tau between the rankings of two designs that differ in this choice alone, mean over such pairs."""
        place = list(FACTORS).index(factor)
        rest = lambda design: design[:place] + design[place + 1 :]
        pairs = itertools.combinations(range(len(DESIGNS)), 2)
        rows = _rounded(self.values)
        tau = lambda i, j: np.asarray(scipy.stats.kendalltau(rows[i], rows[j]))[0]
        return float(np.mean([tau(i, j) for i, j in pairs if rest(DESIGNS[i]) == rest(DESIGNS[j])]))


def _rounded(scores: np.ndarray) -> np.ndarray:
    # What is below a thousandth is no order.
    return np.round(scores, 3)


@dataclasses.dataclass(frozen=True)
class Screen:
    """The perturbations that are scored, and what was made of the others."""

    real: vcjax.Profiles
    preds: Float[Array, "predictors perts genes"]
    references: Float[Array, "references perts genes"]
    weights: Float[Array, "genes_options genes"]


def simulate(small: bool, seed: int) -> Screen:
    """A screen of weak, overlapping effects, and all predictions of it."""
    perts, genes, cells = (24, 300, 30) if small else (80, 1000, 30)
    screen = simulate_screen(
        perts=perts,
        genes=genes,
        cells_per_pert=cells,
        control_cells=8 * cells,
        doubles=0,
        effect_probability=0.05,
        effect_scale=0.25,
        program_scale=0.2,
        seed=seed,
    )
    names = [*screen.perts, "non-targeting"]
    targets = jnp.asarray([screen.genes.index(name) for name in screen.perts])

    def groups_of(adata: Any) -> list[np.ndarray]:
        labels = adata.obs["target_gene"].astype(str).to_numpy()
        values = np.asarray(vcjax.log_normalise(adata.X.toarray(), 2000.0))
        return [values[labels == name] for name in names]

    measured = groups_of(screen.adata)
    mean = jnp.asarray(np.stack([group.mean(axis=0) for group in measured]))
    variance = jnp.asarray(np.stack([group.var(axis=0, ddof=1) for group in measured]))
    train, scored = np.arange(0, perts, 2), np.arange(1, perts, 2)
    control, train_mean, truth = mean[-1], mean[train].mean(axis=0), mean[scored]
    size = jnp.full(len(train), cells, mean.dtype)
    moments = Moments(mean[train], variance[train], size)
    weights = shared_weights(CALIBRATED(moments, targets=targets[train]), cells="train").values[0]

    found = {}
    for predictor in DEMO_PREDICTORS:
        means = np.stack([group.mean(axis=0) for group in groups_of(predictor(screen, seed=seed))[:-1]])
        found[predictor.name] = jnp.asarray(means)[scored]
    half, replicate = found["half_noise"], found["replicate"]
    row, target = np.arange(len(scored)), targets[scored]
    found |= {
        "quarter": 0.25 * replicate + 0.75 * jnp.roll(replicate, 1, axis=0),
        "panel mean": jnp.broadcast_to(truth.mean(axis=0), truth.shape),
        "target only": jnp.broadcast_to(train_mean, truth.shape).at[row, target].set(replicate[row, target]),
        "half x3, control": control + 3 * (half - control),
        "half x3, mean": train_mean + 3 * (half - train_mean),
    }
    others = loo_mean(truth, perts=[screen.perts[i] for i in scored]).values
    top = (weights >= jnp.sort(weights)[-50]).astype(weights.dtype)
    return Screen(
        vcjax.Profiles(truth, control, targets=target),
        jnp.stack([found[name] for name in PREDICTORS]),
        jnp.stack([jnp.broadcast_to(x, truth.shape) for x in (control, others, train_mean)]),
        jnp.stack([jnp.ones_like(weights), weights / weights.max(), top]),
    )


@jax.jit
def score(real, preds, references, weights) -> Float[Array, "distances references genes excluded predictors"]:
    """The mean score of every predictor by every design."""

    def grid(name: str, exclude: Any) -> Float[Array, "references genes predictors"]:
        # A sum of weighted differences is the distance of weighted profiles; of squares, with the root of the weights.
        scales = weights if name == "L1" else jnp.sqrt(weights)

        def one(reference, scale, pred):
            sides = pred * scale, real.mean * scale
            options = {"distance": DISTANCES[name], "exclude": exclude, "targets": real.targets}
            return jnp.mean(perturbation_discrimination(*sides, reference=reference * scale, **options))

        for axis in (2, 1, 0):
            one = jax.vmap(one, in_axes=tuple(0 if i == axis else None for i in range(3)))
        return one(references, scales, preds)

    return jnp.stack([jnp.stack([grid(name, exclude) for exclude in EXCLUDED], axis=2) for name in DISTANCES])


def print_tables(scores: Scores) -> None:
    """Each choice by itself; the best designs, the worst and the published ones."""
    line = lambda cells, widths: print(
        "".join(str(cell).rjust(width) for cell, width in zip(cells, widths, strict=True))
    )
    order, inflation, unearned = scores.order(), scores.inflation(), scores.unearned()
    widths = (14, 14, 10, 12, 12, 12)
    print("Mean over all designs with each choice. order: Kendall's tau with the known order of predictors; inflation:")
    print(
        "what three times the effect adds to the score; unearned: the best of those that know nothing, above one half."
    )
    print("stable: tau between rankings of designs that differ in this choice alone.\n")
    line(["", "", "order", "inflation", "unearned", "stable"], widths)
    for place, (factor, options) in enumerate(FACTORS.items()):
        for option in options:
            some = np.array([design[place] == option for design in DESIGNS])
            means = [f"{x[some].mean():.3f}" for x in (order, inflation, unearned)]
            first = option == options[0]
            line([factor if first else "", option, *means, f"{scores.agreement(factor):.3f}" if first else ""], widths)
    ranked = sorted(range(len(DESIGNS)), key=lambda i: (-order[i], max(inflation[i], 0) + unearned[i]))
    widths = (9, 14, 11, 10, 8, 11, 10)
    print("\nThe best designs (by order, then by what is not earned), the worst, and two that are in use\n")
    line([*FACTORS, "order", "inflation", "unearned"], widths)
    for title, places in (("", ranked[:4]), ("", ranked[-4:]), ("", [DESIGNS.index(design) for design in PUBLISHED])):
        for i in places:
            numbers = (f"{order[i]:.3f}", f"{inflation[i]:.3f}", f"{unearned[i]:.3f}")
            line([*DESIGNS[i], *numbers], widths)
        print(title)
    for predictor, column in zip(PREDICTORS, scores.values.T, strict=True):
        low, high = int(column.argmin()), int(column.argmax())
        ends = f"{column[low]:.3f} ({', '.join(DESIGNS[low])}) to {column[high]:.3f} ({', '.join(DESIGNS[high])})"
        print(f"{predictor:>18}: {ends}")


def plot(scores: Scores, path: pathlib.Path) -> None:
    """Every design (rows, a panel for each distance) by every predictor (columns)."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 10), layout="constrained", sharey=True)
    rows = len(DESIGNS) // 3
    image: Any = None
    for i, (axis, name) in enumerate(zip(axes, DISTANCES, strict=True)):
        values = scores.values[i * rows : (i + 1) * rows]
        image = axis.imshow(values, vmin=0, vmax=1, cmap="RdBu", aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            color = "white" if abs(value - 0.5) > 0.35 else "black"
            axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
        axis.set_xticks(range(len(PREDICTORS)), PREDICTORS, rotation=60, ha="right")
        axis.set_yticks(range(rows), [", ".join(design[1:]) for design in DESIGNS[:rows]])
        for edge in range(9, rows, 9):
            axis.axhline(edge - 0.5, color="black", linewidth=1.5)
        for edge in (4, len(KNOWS)):
            axis.axvline(edge - 0.5, color="black", linewidth=1.5)
        axis.set(title=name)
    axes[0].set(ylabel="measured from, genes, target genes left out")
    figure.colorbar(image, ax=axes, label="discrimination score; white is a guess", shrink=0.6)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"\nPlot: {path}")


def main(argv: list[str] | None = None) -> Scores:
    parser = argparse.ArgumentParser(description="Ablate the perturbation discrimination score.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("ablate_a_metric.png"), help="where the plot goes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first simulated screen")
    parser.add_argument("--screens", type=int, default=None, help="how many, a seed each; 3, or 1 with --small")
    parser.add_argument("--small", action="store_true", help="fewer screens, perturbations and genes")
    args = parser.parse_args(argv)
    began, found = time.perf_counter(), []
    for seed in range(args.seed, args.seed + (args.screens or (1 if args.small else 3))):
        screen = simulate(args.small, seed)
        values = np.asarray(score(screen.real, screen.preds, screen.references, screen.weights))
        found.append(values.reshape(len(DESIGNS), len(PREDICTORS)))
    scores = Scores(np.mean(found, axis=0))
    print(f"{len(DESIGNS)} designs, {len(PREDICTORS)} predictors, {len(found)} screens.\n")
    print_tables(scores)
    print(NOTES)
    plot(scores, args.out)
    print(f"{time.perf_counter() - began:.0f} s")
    return scores


if __name__ == "__main__":
    main()
