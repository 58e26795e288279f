"""A metric of your own, from its definition to a training: one function, one row, and the laws it should obey.

    python examples/define_a_metric.py --out define_a_metric.png

The metric asks: of the k genes in which a perturbation differs most from the mean of training perturbations, how many
are predicted to go the right way? A sign has no gradient; written with `relax.step` in its place, the same lines are
the exact score and a loss. The script

- writes it as a function of arrays, and as one `Metric` row;
- checks its laws: what the tests of this library ask of every row of the catalogue;
- scores predictors of known quality by it, beside metrics of the catalogue;
- trains a linear model on it, alone and with a guard of the amplitude, and watches the exact score of perturbations
    that were kept out, in cells that were not trained on.
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
from vcjax.io import DEMO_PREDICTORS, read_screen, simulate_screen, SimulatedScreen, split_halves, summarise
from vcjax.losses import amplitude_guard, compose, Term
from vcjax.metrics import CATALOGUE, Metric, top_genes
from vcjax.training import fit, Trained, TrainingData


K = 20
BESIDE = ("delta_pearson", "delta_pearson_mean", "pds_cosine", "amplitude_ratio", "expr_mse")
SOFTNESS = 0.3
NOTES = """
What the score says of the predictors: nearly all signs are right for a replicate, half of them for what knows nothing
of the perturbation. Measured from the mean of training perturbations, the mean gains nothing by the response that all
share, which Pearson from the control rewards.

What it does not say: half a prediction with as much noise is as good as a replicate, for the noise lies in genes that
the metric does not look at; and ten times too large is as good, since a sign does not see size. Trained on it alone,
predictions grow as they like. A guard of the amplitude holds them, and costs few signs or none.
"""


# 1. The metric: a function of arrays. What is a comparison goes through `relax`; what chooses genes is measured.


def sign_agreement(
    pred: Float[Array, "perts genes"],
    real: Float[Array, "perts genes"],
    *,
    k: int,
    where: Array | None = None,
    relax: vcjax.Relaxation = vcjax.HARD,
) -> Float[Array, " perts"]:
    r"""The share of the k genes of largest measured effect whose predicted effect has the measured sign.

    $\frac1k \sum_{g \in \mathrm{top}_k |\delta_p|} H(\hat\delta_{pg}\,\mathrm{sign}\,\delta_{pg})$, with one half for
    no predicted effect; NaN for a perturbation without a measured one.
    """
    chosen = top_genes(jnp.abs(real), k, where=where) * (
        real != 0
    )  # 0, 1, or a share where genes tie for the last place
    along = pred * jnp.sign(real)
    right = relax.step(along, relax.temperature(along, chosen > 0))
    count = jnp.sum(chosen, axis=1)
    # Dividing by 1 where there is nothing to divide keeps NaN out of the gradient.
    return jnp.where(count > 0, jnp.sum(chosen * right, axis=1) / jnp.where(count > 0, count, 1), jnp.nan)


# 2. The row: how it reads two sides' profiles, and the facts that a report, a loss and a test need.


def sign_agreement_row(k: int) -> Metric:
    """The metric of effects beyond the mean of training perturbations.

    One mean for all: the mean of all perturbations less that of the others points along the effect of the one left out,
    so that measured from the others a constant prediction could have all signs right.
    """

    def row(pred, real, *, relax, weights, where, valid):
        if weights is not None:
            raise ValueError("This metric takes no gene weights; leave genes out with `where`.")
        if real.train_mean is None:
            raise ValueError("This metric measures from `train_mean`, which the measured profiles lack.")
        origin = jax.lax.stop_gradient(real.train_mean)
        return sign_agreement(pred.mean - origin, real.mean - origin, k=k, where=where, relax=relax)

    return Metric(
        name=f"sign_agreement_top{k}",
        function=row,
        summary=f"Share of the {k} genes of largest measured effect beyond the mean that are predicted to go that way.",
        formula="mean_(g in top k of |D_pg|) H(D^_pg sign D_pg), D = x - mu",
        perfect=1.0,
        no_skill=0.5,
        worst=0.0,
        higher_is_better=True,
        differentiable="relaxed",
        source="examples/define_a_metric.py",
        notes="Blind to size: read an amplitude beside it. The genes are chosen by the measured side, noise included.",
    )


# 3. The laws, each a few lines. They need float64, which `main` switches on.

# A metric is a pytree without leaves, and can be an argument of a compiled function.
score = jax.jit(lambda metric, pred, real, relax: metric(pred, real, relax=relax))


def check_laws(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> dict[str, str]:
    """What was checked, with the numbers; fails where a law does not hold."""
    laws = (
        jit_equals_eager,
        perfect_is_best,
        permutation_permutes,
        soft_tends_to_exact,
        gradient_is_right,
        softness_compiles_nothing,
        undefined_is_harmless,
    )
    return {law.__name__.replace("_", " "): law(metric, pred, real) for law in laws}


def jit_equals_eager(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """Compiled or not, exact or soft, the values are the same."""
    worst = 0.0
    for softness in (0.0, SOFTNESS):
        relax = vcjax.Relaxation(softness)
        gap = score(metric, pred, real, relax) - metric(pred, real, relax=relax)
        worst = max(worst, float(jnp.max(jnp.abs(gap))))
    assert worst < 1e-12, worst
    return f"largest difference {worst:.0e}"


def perfect_is_best(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """The measured profiles get the perfect value; nothing is better, and nothing worse than the worst."""
    assert metric.perfect is not None
    assert metric.worst is not None
    assert metric.no_skill is not None
    exact = lambda mean: np.asarray(score(metric, real.with_mean(mean), real, vcjax.HARD))
    np.testing.assert_allclose(exact(real.mean), metric.perfect)
    rng = np.random.default_rng(0)
    guesses = [real.mean + size * rng.normal(size=real.mean.shape) for size in (0.01, 0.1, 1.0)]
    values = np.concatenate([exact(guess) for guess in (*guesses, pred.mean)])
    assert np.all((values <= metric.perfect) & (values >= metric.worst))
    np.testing.assert_allclose(exact(mean_prediction(real)), metric.no_skill)
    return f"{metric.perfect:g} for the truth, {metric.no_skill:g} for the mean"


def permutation_permutes(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """Another order of perturbations and genes gives the same values in that order."""
    rng = np.random.default_rng(1)
    perts, genes = (rng.permutation(size) for size in real.mean.shape)

    def shuffle(side: vcjax.Profiles) -> vcjax.Profiles:
        train_mean = None if side.train_mean is None else side.train_mean[genes]
        fields = {"mean": side.mean[perts][:, genes], "control": side.control[genes], "train_mean": train_mean}
        assert side.targets is not None
        return dataclasses.replace(side.take(perts), **fields, targets=jnp.argsort(genes)[side.targets[perts]])

    for relax in (vcjax.HARD, vcjax.Relaxation(SOFTNESS)):
        moved, before = score(metric, shuffle(pred), shuffle(real), relax), score(metric, pred, real, relax)
        np.testing.assert_allclose(moved, before[perts], rtol=1e-9)
    return "of perturbations and of genes"


def soft_tends_to_exact(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """The less softness, the nearer to the exact metric."""
    exact = score(metric, pred, real, vcjax.HARD)
    softness = (0.5, 0.2, 0.05, 1e-4)
    gaps = [float(jnp.mean(jnp.abs(score(metric, pred, real, vcjax.Relaxation(s)) - exact))) for s in softness]
    assert gaps[0] > 1e-3, "softness does nothing"
    assert gaps == sorted(gaps, reverse=True), gaps
    assert gaps[-1] < 1e-3, gaps
    return "gaps " + ", ".join(f"{gap:.0e} at {s:g}" for gap, s in zip(gaps, softness, strict=True))


class Recording(vcjax.Relaxation):
    """Keeps the temperature that a metric asks for; this metric asks once."""

    seen: list = eqx.field(static=True, default_factory=list)

    def __init__(self, softness: float, seen: list):
        super().__init__(softness)
        self.seen = seen

    def temperature(self, gaps, where=None):
        self.seen.append(super().temperature(gaps, where))
        return self.seen[-1]


class Held(vcjax.Relaxation):
    """Of a given temperature: the derivative holds it still, so that a finite difference must, too."""

    held: Any = None

    def __init__(self, softness: float, held: Any):
        super().__init__(softness)
        self.held = held

    def temperature(self, gaps, where=None):
        return self.held


def gradient_is_right(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """Along a random direction the gradient is the slope that two evaluations show."""
    seen = []
    metric(pred, real, relax=Recording(SOFTNESS, seen))
    rng = np.random.default_rng(2)
    mixture, direction = rng.normal(size=len(pred.mean)), rng.normal(size=pred.mean.shape)
    value = jax.jit(lambda mean, real, relax: jnp.sum(mixture * metric(mean, real, relax=relax)))
    slope = jnp.sum(jax.jit(jax.grad(value))(pred.mean, real, vcjax.Relaxation(SOFTNESS)) * direction)
    step, held = 1e-6, Held(SOFTNESS, seen[0])
    ends = [value(pred.mean + sign * step * direction, real, held) for sign in (1, -1)]
    numeric = float(ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)
    return f"{slope:.6f}, by differences {numeric:.6f}"


def softness_compiles_nothing(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """One program serves the exact metric and every softness."""
    traces = []

    @jax.jit
    def counted(pred, real, relax):
        traces.append(1)
        return metric(pred, real, relax=relax)

    for softness in (0.0, 0.1, 0.5):
        counted(pred, real, vcjax.Relaxation(softness))
    assert len(traces) == 1, len(traces)
    return f"{len(traces)} trace for three values"


def undefined_is_harmless(metric: Metric, pred: vcjax.Profiles, real: vcjax.Profiles) -> str:
    """NaN where nothing is measured, and no NaN in any gradient, also of a prediction of nothing."""
    mean = mean_prediction(real)
    flat = dataclasses.replace(real, mean=mean)
    assert np.isnan(score(metric, pred, flat, vcjax.HARD)).all()
    gradient = jax.jit(jax.grad(lambda mean, real, relax: jnp.nansum(metric(mean, real, relax=relax))))
    for guess, side in ((pred.mean, flat), (mean, real)):
        assert np.isfinite(gradient(guess, side, vcjax.Relaxation(SOFTNESS))).all()
    return "NaN without a measured effect, finite gradients"


def mean_prediction(real: vcjax.Profiles) -> Float[Array, "perts genes"]:
    """The mean of the training perturbations for all."""
    assert real.train_mean is not None
    return jnp.broadcast_to(real.train_mean, real.mean.shape)


# 4. The score of predictors of known quality, beside metrics of the catalogue.


def simulate(small: bool, seed: int) -> SimulatedScreen:
    """A screen whose perturbations act through programs that a linear model can learn."""
    perts, genes, cells = (24, 300, 60) if small else (48, 800, 100)
    return simulate_screen(
        perts=perts, genes=genes, cells_per_pert=cells, control_cells=5 * cells, doubles=0, program_scale=0.4, seed=seed
    )


def profiles_of(adata: Any) -> vcjax.Profiles:
    """Means of log-normalised cells."""
    return summarise(read_screen(adata, pert_col="target_gene"), space="lognorm", target_sum=1e4).to_profiles()


def training(profiles: vcjax.Profiles) -> vcjax.Profiles:
    """The first two thirds of the perturbations, with their mean."""
    first = profiles.take(jnp.arange(len(profiles.mean) * 2 // 3))
    return dataclasses.replace(first, train_mean=first.mean.mean(axis=0))


def kept_out(profiles: vcjax.Profiles, train: vcjax.Profiles | None = None) -> vcjax.Profiles:
    """The last third, with the mean of the others, in these cells or in those that were trained on."""
    first = training(profiles if train is None else train)
    rest = profiles.take(jnp.arange(len(first.mean), len(profiles.mean)))
    return dataclasses.replace(rest, train_mean=first.train_mean)


def score_predictors(metric: Metric, screen: SimulatedScreen, seed: int) -> dict[str, dict[str, float]]:
    """The mean over perturbations of each metric, for each predictor."""
    real = kept_out(profiles_of(screen.adata))
    rows = {row.name: row for row in (metric, *(CATALOGUE[name] for name in BESIDE))}
    evaluate = jax.jit(lambda pred, real: {name: jnp.nanmean(row(pred, real)) for name, row in rows.items()})
    found = {}
    for predictor in DEMO_PREDICTORS:
        pred = kept_out(profiles_of(predictor(screen, seed=seed)))
        values = evaluate(real.with_mean(pred.mean), real)
        found[predictor.name] = {name: float(values[name]) for name in rows}
    return found


# 5. A training on it.


class Linear(eqx.Module):
    """The mean profile and a linear map of features; it starts at zero."""

    mean: Float[Array, " genes"]
    weight: Float[Array, "features genes"]

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " genes"]:
        return jax.lax.stop_gradient(self.mean) + features @ self.weight


def train(metric: Metric, screen: SimulatedScreen, *, steps: int, seed: int) -> dict[str, Trained[Linear]]:
    """By the metric alone, and with a guard of the amplitude; validated on other perturbations in other cells."""
    whole = read_screen(screen.adata, pert_col="target_gene")
    halves = split_halves(whole, seed)[:2]
    one, two = (summarise(half, space="lognorm", target_sum=1e4).to_profiles() for half in halves)
    first = training(one)
    seen = len(first.mean)
    data = TrainingData(screen.embedding[:seen], first)
    other = TrainingData(screen.embedding[seen:], kept_out(two, one))
    assert first.train_mean is not None
    start = Linear(first.train_mean, jnp.zeros((screen.embedding.shape[1], first.mean.shape[1])))
    optimiser = optax.adam(1e-2)
    arms = {"alone": [Term(metric)], "with a guard": [Term(metric), Term(amplitude_guard())]}
    return {
        arm: fit(
            start,
            data,
            compose(terms, softness=SOFTNESS),
            optimiser,
            steps=steps,
            validation=other,
            metrics=["amplitude_ratio_mean"],
            monitor=metric.name,
            every=max(1, steps // 20),
            seed=seed,
        )
        for arm, terms in arms.items()
    }


def print_tables(scores: dict[str, dict[str, float]], runs: dict[str, Trained[Linear]], name: str) -> None:
    """The predictors, and the first and last step of each training."""
    line = lambda cells: print("".join(str(cell).rjust(22 if i < 2 else 20) for i, cell in enumerate(cells)))
    line(["predictor", *next(iter(scores.values()))])
    for predictor, row in scores.items():
        line([predictor, *(f"{value:.3f}" for value in row.values())])
    print()
    line(["trained on it", "soft, trained on", "exact, trained on", "exact, kept out", "size, kept out"])
    for arm, run in runs.items():
        steps = [run.history.column(f"{name}.{kind}", of="steps") for kind in ("soft", "exact")]
        curves = [*steps, run.history.column(name), run.history.column("amplitude_ratio_mean")]
        line([arm, *(f"{curve[0]:.3f} > {curve[-1]:.3f}" for curve in curves)])
    print(NOTES)


def plot(
    scores: dict[str, dict[str, float]], runs: dict[str, Trained[Linear]], metric: Metric, path: pathlib.Path
) -> None:
    """The predictors by the metric; soft and exact along the training; the size of predictions."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed (pip install "vcjax[plot]").')
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for shift, (name, color) in enumerate(((metric.name, "C0"), ("delta_pearson", "C7"))):
        values = [row[name] for row in scores.values()]
        left.barh(np.arange(len(scores)) + 0.4 * shift, values, height=0.38, color=color, label=name)
    left.set_yticks(np.arange(len(scores)) + 0.2, list(scores))
    left.invert_yaxis()
    left.axvline(0.5, color="C0", linewidth=0.8, linestyle=":")
    left.set(title="predictors of known quality", xlim=(-0.1, 1.55))
    left.legend(fontsize="small", loc="lower right")
    for i, (arm, run) in enumerate(runs.items()):
        column = run.history.column
        middle.plot(column(f"{metric.name}.soft", of="steps"), "--", color=f"C{i}", label=f"soft, {arm}")
        middle.plot(column(f"{metric.name}.exact", of="steps"), ":", color=f"C{i}", label=f"exact, {arm}")
        middle.plot(column("step"), column(metric.name), color=f"C{i}", label=f"exact, kept out, {arm}")
        right.plot(column("step"), column("amplitude_ratio_mean"), color=f"C{i}", label=arm)
    middle.axhline(0.5, color="grey", linewidth=0.8)
    middle.set(xlabel="step", title=f"training on {metric.name}")
    middle.legend(fontsize="small")
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xlabel="step", title="size of predicted over measured effects", ylim=(0, None))
    right.legend(fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"Plot: {path}")


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description="Define a metric, check its laws, score and train with it.")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("define_a_metric.png"), help="where the plot goes"
    )
    parser.add_argument("--steps", type=int, default=None, help="steps of Adam; 200, or 60 with --small")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated screen")
    parser.add_argument("--small", action="store_true", help="fewer perturbations, genes, cells and steps")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    metric = sign_agreement_row(K)
    screen = simulate(args.small, args.seed)
    rng = np.random.default_rng(args.seed)
    real = kept_out(profiles_of(screen.adata))
    guess = real.with_mean(0.5 * (real.mean + real.control) + 0.1 * rng.normal(size=real.mean.shape))
    print(f"The laws of {metric.name}:")
    for law, numbers in check_laws(metric, guess, real).items():
        print(f"  held  {law}: {numbers}")
    print()
    scores = score_predictors(metric, screen, args.seed)
    runs = train(metric, screen, steps=args.steps or (60 if args.small else 200), seed=args.seed)
    print_tables(scores, runs, metric.name)
    plot(scores, runs, metric, args.out)
    print(f"{time.perf_counter() - began:.0f} s")
    return scores


if __name__ == "__main__":
    main()
