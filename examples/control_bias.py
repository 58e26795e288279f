"""A control that is off, and effects that are sparse: what they do to the metrics that predictions are judged by.

    python examples/control_bias.py --out control_bias.png

After the simulation of *Diversity by Design* (Mejia et al. 2025). Cells of a screen are made up (`simulate_screen`,
whose `control_bias` and `effect_probability` are the two knobs), half of the perturbations are for training, and three
predictions are made of the others:

- `mean`: the mean of the training perturbations, the same for all; it knows nothing of any of them;
- `duplicate`: other cells of each perturbation itself, what a repetition of the experiment would predict;
- `interpolated`: the duplicate where its own cells differ significantly, the mean elsewhere.

A metric that is worth its name puts the mean at its value without skill and the other two far above, wherever the
control lies and however few genes respond. Between mean and duplicate lies its dynamic range.

The cells are divided into thirds, which take turns as the truth, as the duplicate, and as what weights of genes are
made of. Effects for R² are measured from the mean of the training perturbations. So neither weights nor reference hold
what they judge: `check_leak` would refuse it. What happens if weights are made of the duplicate's own cells (halves
instead of thirds, cross-fitted) is shown, too: a gene in which the duplicate is off by chance then counts more.
"""

import argparse
import dataclasses
import functools as ft
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float, Int

import vcjax
from vcjax.calibration import (
    bound_discrimination,
    dynamic_range_fraction,
    interpolated_duplicate,
    signal_to_noise,
    summarise_fractions,
)
from vcjax.de import benjamini_hochberg, Moments, rest_of, welch_test
from vcjax.io import simulate_screen
from vcjax.metrics import Cosine, mse, pearson, perturbation_discrimination, weighted_r2
from vcjax.references import check_leak, train_mean
from vcjax.weights import CALIBRATED


PREDICTIONS = ("mean", "duplicate", "interpolated")
# The label of each metric, its perfect value, and whether higher is better.
METRICS = {
    "mse": ("MSE", 0.0, False),
    "pearson": ("Pearson Δ, from the control", 1.0, True),
    "r2w": ("weighted R²(Δ), from the mean", 1.0, True),
    "pds": ("PDS, cosine", 1.0, True),
    "r2w_own": ("weighted R²(Δ), weights of the duplicate", 1.0, True),
}
SIZES: dict[bool, dict[str, Any]] = {
    False: {"perts": 40, "genes": 1000, "cells_per_pert": 180, "control_cells": 480},
    True: {"perts": 24, "genes": 200, "cells_per_pert": 60, "control_cells": 120},
}
PARTS = 3  # numbers of cells above are multiples of it
# The knob of each sweep, its values (all, and those of a small run), and the other knob.
SWEEPS = {
    "control bias": (
        "control_bias",
        (-1.0, 0.0, 1.0, 2.0, 4.0),
        (-1.0, 1.0, 4.0),
        {"effect_probability": 0.02},
    ),
    "genes that respond": (
        "effect_probability",
        (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
        (0.01, 0.03, 0.1),
        {"control_bias": 0.0},
    ),
}
NOTES = """
Weighted R² and weighted MSE have one and the same dynamic range fraction: R²w = 1 - WMSE / variance, and the variance
cancels. MSE, weighted MSE and R² from the mean do not look at the control at all, so that no bias can move them.

Pearson from the control does. With a large bias every effect is the bias and a little more: the correlation sees the
bias, which the mean knows as well as a replicate does. What is left of its dynamic range is that of the MSE,
(SNR - 1) / (SNR + 1), with SNR the size of the effects over the noise of the replicate. Below SNR 1, where few genes
respond, the noise that a replicate has in all the others outweighs what it knows, and both prefer the mean.

What keeps R²w below 1 is noise, of the truth and of the replicate; the interpolated duplicate loses besides what its
own cells do not show significantly, in genes that count. Where 2 of 1,000 genes respond, the squares of |t| of the
other 998 add up to more than those of the two, and R²w begins to see what the MSE sees.
"""


class Cells(NamedTuple):
    """Log-normalised cells, the perturbation of each (the last number is the control), the gene each targets."""

    values: Float[Array, "cells genes"]
    groups: Int[Array, " cells"]
    targets: Int[Array, " perts"]


class Part(NamedTuple):
    """A third of the cells: moments of each perturbation, and the profile of the control cells."""

    moments: Moments
    control: Float[Array, " genes"]


@dataclasses.dataclass(frozen=True)
class Point:
    """One value of a knob, over seeds: values of (seeds, predictions, perturbations), the signal to noise of each."""

    knob: float
    values: dict[str, np.ndarray]
    snr: np.ndarray

    def means(self, metric: str) -> np.ndarray:
        """The mean over perturbations, (seeds, predictions)."""
        return self.values[metric].mean(axis=2)

    def fractions(self, metric: str, positive: str = "duplicate") -> np.ndarray:
        """The median dynamic range fraction of each seed, between the mean and a positive control."""
        _, perfect, higher = METRICS[metric]
        high, low = self.values[metric][:, PREDICTIONS.index(positive)], self.values[metric][:, 0]
        pairs = zip(high, low, strict=True)
        found = [dynamic_range_fraction(*pair, perfect, higher_is_better=higher) for pair in pairs]
        return np.array([summarise_fractions(row, least=1).median for row in found])


def draw(knobs: dict[str, Any], small: bool, seed: int) -> Cells:
    """The cells of a simulated screen. Turning a knob leaves the other draws of a seed as they are."""
    screen = simulate_screen(**SIZES[small], doubles=0, programs=0, shared_scale=0.3, seed=seed, **knobs)
    counts: Any = screen.adata.X
    number = {name: i for i, name in enumerate((*screen.perts, "non-targeting"))}
    groups = np.array([number[label] for label in screen.adata.obs["target_gene"].astype(str)], np.int32)
    targets = np.array([screen.genes.index(name) for name in screen.perts], np.int32)
    return Cells(vcjax.log_normalise(jnp.asarray(counts.toarray())), jnp.asarray(groups), jnp.asarray(targets))


def parts_of(cells: Cells, key: Array) -> list[Part]:
    """Summarises a random third of the cells of every perturbation, and of the control, after the other."""
    order = jnp.lexsort((jax.random.uniform(key, cells.groups.shape), cells.groups))
    turn = jnp.argsort(order) % PARTS  # the groups' sizes are multiples, so that each starts anew
    return [part_of(cells, turn == i) for i in range(PARTS)]


def part_of(cells: Cells, where: Bool[Array, " cells"]) -> Part:
    """Summarises the cells of `where`."""
    groups = cells.targets.size + 1
    some = cells.values, cells.groups, groups, where
    mean, noise = vcjax.pseudobulk(*some), vcjax.analytic_noise(*some, per_gene=True)
    size = jax.ops.segment_sum(where.astype(mean.dtype), cells.groups, groups)[:-1]
    return Part(Moments(mean[:-1], noise[:-1] * size[:, None], size), mean[-1])


@ft.partial(jax.jit, static_argnames="perts")
def evaluate(cells: Cells, key: Array, perts: tuple[str, ...]) -> tuple[dict[str, Array], Array]:
    """Values of (predictions, perturbations) on every metric, and signal to noise; each third in turn is the truth.

    `perts` are the names, which `check_leak` reads; every other perturbation is for training.
    """
    one, two, three = parts_of(cells, key)
    turns = (one, two, three), (two, three, one), (three, one, two)
    found = [judge(*turn, cells.targets, perts) for turn in turns]
    return jax.tree.map(lambda *values: sum(values) / PARTS, *found)


def judge(truth: Part, copy: Part, third: Part, targets: Int[Array, " perts"], perts: tuple[str, ...]):
    """The predictions that are made of `copy`, against `truth`, with weights made of `third`."""
    train = np.arange(len(perts)) % 2 == 0
    scored = np.flatnonzero(~train)
    names = [perts[i] for i in scored.tolist()]
    reference = train_mean(copy.moments.mean, perts=perts, train=train)
    weights, of_copy = (
        CALIBRATED(part.moments, targets=targets, perts=perts, cells="crossfit").take(names) for part in (third, copy)
    )
    check_leak(reference, names)
    check_leak(weights, names)

    real, duplicate, mean = truth.moments.mean[scored], copy.moments.mean[scored], reference.values
    log_padj = benjamini_hochberg(welch_test(copy.moments, rest_of(copy.moments), overestimate=True).log_pvalue)
    predictions = {
        "mean": jnp.broadcast_to(mean[None, :], real.shape),
        "duplicate": duplicate,
        "interpolated": interpolated_duplicate(duplicate, mean, log_padj[scored]),
    }
    ranks = {"distance": Cosine(), "exclude": "panel", "targets": targets[scored]}
    metrics = {
        "mse": lambda pred: mse(pred, real),
        "pearson": lambda pred: pearson(pred, real, reference=truth.control),
        "r2w": lambda pred: weighted_r2(pred, real, weights.values, reference=mean),
        "pds": lambda pred: perturbation_discrimination(pred, real, reference=truth.control, **ranks),
        "r2w_own": lambda pred: weighted_r2(pred, real, of_copy.values, reference=mean),
    }
    values = {name: jnp.stack([metric(predictions[p]) for p in PREDICTIONS]) for name, metric in metrics.items()}
    noise, copied = (x.moments.variance[scored] / x.moments.cells[scored, None] for x in (truth, copy))
    return values, signal_to_noise(real, mean, noise, duplicate_noise=copied)


def sweep(name: str, seeds: int, small: bool) -> list[Point]:
    """One knob through its values, the other fixed; the same seeds at every value."""
    knob, values, few, fixed = SWEEPS[name]
    # One tuple of names for all screens: it is static, and a new one would compile anew.
    perts = tuple(f"perturbation {i}" for i in range(SIZES[small]["perts"]))
    points = []
    for value in few if small else values:
        runs = []
        for seed in range(seeds):
            cells = draw({**fixed, knob: value}, small, seed)
            runs.append(jax.device_get(evaluate(cells, jax.random.key(seed), perts)))
        found = {metric: np.stack([run[0][metric] for run in runs]) for metric in METRICS}
        points.append(Point(value, found, np.stack([run[1] for run in runs])))
    return points


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean over seeds, and its 95 % interval after Student."""
    centre = float(values.mean())
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return centre, centre - half, centre + half


def told(values: np.ndarray) -> str:
    """The same in words."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*interval(values))


def print_table(name: str, points: list[Point]) -> None:
    """One line a value of the knob: the three predictions on each metric, and the fraction of the range (DRF)."""
    short = {"mse": "MSE", "pearson": "Pearson Δ", "r2w": "R²w(Δ)", "pds": "PDS", "r2w_own": "R²w, duplicate's weights"}
    print(f"\n{name}: mean / duplicate / interpolated, and the dynamic range fraction of the duplicate")
    print(f"{'':>10}{'SNR':>7}" + "".join(f"{short[metric]:>33}" for metric in METRICS))
    for point in points:
        cells = []
        for metric in METRICS:
            low, high, between = point.means(metric).mean(axis=0)
            digits = 4 if metric == "mse" else 2
            shown = " / ".join(f"{x:.{digits}f}" for x in (low, high, between))
            cells.append(f"{shown} {point.fractions(metric).mean():6.2f}".rjust(33))
        print(f"{point.knob:10.4g}{np.median(point.snr):7.2f}{''.join(cells)}")


def check(points: dict[str, list[Point]]) -> None:
    """What was expected, and whether it held, with intervals over seeds."""
    bias, sparse = points["control bias"], points["genes that respond"]
    check_pearson(bias[0], bias[-1])
    means = np.concatenate([point.values["r2w"][:, 0].ravel() for point in (*bias, *sparse)])
    report("weighted R²: the mean is at 0 or below, always", means.max() <= 1e-6, f"largest {means.max():.4f}")
    moved = bias[-1].means("r2w")[:, 1] - bias[0].means("r2w")[:, 1]
    still = max(abs(x) for x in interval(moved)) < 0.02
    report("  and the duplicate stays where it is, whatever the bias", still, f"moved by {told(moved)}")
    leads = [point.means("r2w")[:, 1] - point.means("r2w")[:, 0] for point in bias]
    apart = min(interval(lead)[1] for lead in leads) > 0
    report("  and leads the mean at every bias", apart, f"by {told(min(leads, key=np.mean))} at least")
    best = min(point.means("r2w")[:, 2].mean() for point in bias)
    report("  and interpolated comes near 1 (above 0.8)", best > 0.8, f"at least {best:.3f}")
    chance = max(abs(point.means("pds")[:, 0] - 0.5).max() for point in (*bias, *sparse))
    report("PDS: the mean is at 1/2, always", chance < 1e-5, f"off by {chance:.1e} at most")
    top = min(point.means("pds")[:, 1].mean() for point in bias)
    report("  and the duplicate above 0.9 at every bias", top > 0.9, f"at least {top:.3f}")
    everywhere = lambda metric: np.mean([point.fractions(metric) for point in (*bias, *sparse)], axis=0)
    lost = everywhere("r2w") - everywhere("r2w_own")
    report("  and weights of the duplicate's own cells narrow its DRF", interval(lost)[1] > 0, f"by {told(lost)}")
    check_sparse(min(sparse, key=lambda point: abs(point.knob - 0.01)))
    credit = [
        bound_discrimination(*point.values["mse"][:, [1, 0]].swapaxes(0, 1).reshape(2, -1), higher_is_better=False)
        for point in (*bias, *sparse)
    ]
    above = np.concatenate([point.snr.ravel() for point in (*bias, *sparse)]) > 1
    agree = np.mean(np.concatenate(credit) == above)
    report("the MSE prefers the duplicate where SNR > 1, and the mean elsewhere", agree > 0.9, f"{agree:.0%} of cases")


def check_pearson(first: Point, last: Point) -> None:
    """Of the smallest bias and of the largest."""
    mean = [point.means("pearson")[:, 0] for point in (first, last)]
    rises = interval(mean[1] - mean[0])[1] > 0 and mean[1].mean() > 0.8
    report("Pearson from the control: the mean rises towards 1 with the bias", rises, " to ".join(map(told, mean)))
    lead = [point.means("pearson")[:, 1] - point.means("pearson")[:, 0] for point in (first, last)]
    shrinks = interval(lead[0] - lead[1])[1] > 0
    report("  and the lead of the duplicate shrinks", shrinks, " to ".join(map(told, lead)))
    excess = [point.fractions("pearson") - point.fractions("mse") for point in (first, last)]
    falls = interval(excess[0] - excess[1])[1] > 0 and abs(excess[1].mean()) < 0.1
    report("  and its DRF falls to that of the MSE", falls, "above it by " + ", then by ".join(map(told, excess)))


def check_sparse(few: Point) -> None:
    """Of the share of genes that Mejia et al. let respond, one in a hundred."""
    ranges = {metric: few.fractions(metric) for metric in ("mse", "r2w", "pds")}
    prefers_mean = interval(ranges["mse"])[2] < 0
    separates = min(interval(ranges[metric])[1] for metric in ("r2w", "pds")) > 0
    numbers = ", ".join(f"{metric} {told(values)}" for metric, values in ranges.items())
    what = "one gene in a hundred responds: the MSE prefers the mean (DRF < 0), weighted R² and PDS do not"
    report(what, prefers_mean and separates, numbers)


def report(what: str, held: bool | np.bool_, numbers: str) -> None:
    """One line."""
    print(f"{'held' if held else 'DID NOT HOLD':>12}  {what}: {numbers}")


def plot(points: dict[str, list[Point]], small: bool, path: pathlib.Path) -> None:
    """Values of the three predictions on each metric, and all dynamic ranges, along both sweeps."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(15, 7), layout="constrained", sharey="col")
    shown = ("pearson", "r2w", "pds")
    for row, (name, curve) in zip(axes, points.items(), strict=True):
        sparse = name == "genes that respond"
        x = [point.knob * (SIZES[small]["genes"] if sparse else 1) for point in curve]
        for axis, metric in zip(row, shown, strict=False):
            for i, prediction in enumerate(PREDICTIONS):
                band(axis, x, [point.means(metric)[:, i] for point in curve], f"C{(3, 0, 2)[i]}", prediction)
            axis.set(title=METRICS[metric][0])
        for i, metric in enumerate(METRICS):
            style = ("--", "-", "-", "-", ":")[i]
            color = ("black", "C1", "C4", "C9", "C4")[i]
            band(row[3], x, [point.fractions(metric) for point in curve], color, METRICS[metric][0], style)
        row[3].set(title="dynamic range fraction, duplicate", ylim=(-1.05, 1.05))
        for axis, level in zip(row, (0, 0, 0.5, 0), strict=True):
            axis.axhline(level, color="grey", linewidth=0.8)
            axis.set(xlabel="genes that respond to a perturbation" if sparse else "control bias")
            axis.set_xscale("log" if sparse else "linear")
    axes[0, 0].legend(fontsize="small", loc="lower right")
    axes[0, 3].legend(fontsize="small", loc="lower left")
    axes[0, 0].set(ylabel="control bias swept")
    axes[1, 0].set(ylabel="sparsity swept")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"Plot: {path}")


def band(axis: Any, x: list[float], rows: list[np.ndarray], color: str, label: str, style: str = "-") -> None:
    """A curve with its interval over seeds."""
    centre, low, high = np.array([interval(row) for row in rows]).T
    axis.plot(x, centre, style, marker="o", markersize=4, color=color, label=label)
    axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def main(argv: list[str] | None = None) -> dict[str, list[Point]]:
    parser = argparse.ArgumentParser(description="Metrics under a biased control and under sparse effects.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("control_bias.png"), help="where the plot goes"
    )
    parser.add_argument("--seeds", type=int, default=None, help="screens at each point; 5, or 2 with --small")
    parser.add_argument("--small", action="store_true", help="fewer perturbations, genes, cells and points")
    args = parser.parse_args(argv)
    seeds, start = args.seeds or (2 if args.small else 5), time.perf_counter()
    if seeds < 2:
        parser.error("an interval over seeds needs two of them")
    points = {name: sweep(name, seeds, args.small) for name in SWEEPS}
    for name, curve in points.items():
        print_table(name, curve)
    print(f"\nWhat was expected, with 95 % intervals over {seeds} seeds:")
    check(points)
    print(NOTES)
    plot(points, args.small, args.out)
    print(f"{time.perf_counter() - start:.0f} s")
    return points


if __name__ == "__main__":
    main()
