"""The tables of the study, with bootstrap intervals over perturbations."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from _measure import table


SAMPLES = 1000
Sums = Mapping[str, np.ndarray]
_ABOUT = """
Every number is of perturbations that were held out of training, on a third of their cells that neither the training
nor the gene weights have seen, or of the second third (weights); the mean that effects are measured from is that of
the training perturbations. Brackets: 95 % bootstrap intervals over perturbations (of simulated screens: over the
perturbations of all seeds, each seed a screen of its own; of real ones: over perturbations, after the mean over
seeds, which divide the cells, the folds and start the networks anew). Networks start at the mean of the training
perturbations, take at most as many steps of Adam (1e-3) as each task says and are chosen by the exact value of their
own loss on 15 % of the training perturbations (of doubles: on a third of the training doubles). Rank terms have
coefficient {beta} and rank among all training perturbations, in cells that were not trained on. Kernel ridge
regression has the networks' features, and the ridge that is best for the metric by exact leave-one-out of all
training perturbations. `rescaled`: the effects beyond the mean times one factor, the slope on the validation
perturbations, which no network was trained on. The duplicates are the training third of the held-out perturbations
themselves: what a replicate of that many cells is worth, and no competitor.

- `R2`: noise-corrected share of the squared effect beyond the mean that is explained, unweighted. 0 for the mean.
- `WMSE`: weighted squared error over that of the mean. `R2w`: weighted R2 beyond the mean, mean of perturbations.
- `PDS`: discrimination among all perturbations, by L1, L2 and cosine; 1/2 is chance.
- `cosine`: of the effects beyond the mean. `MAE`: over that of the mean.
- `spread`: how much predictions differ from each other over how much the truth does (noise-corrected). 0: collapse.
- `slope`: of measured on predicted effects beyond the mean: 1 is calibrated, below 1 inflated.
"""


_READING = """
- **Rank terms buy what they are trained on, and more, where there is something to gain.** Soft PDS and InfoNCE
  beside a weighted error raise the exact PDS of held-out single perturbations on every simulated screen, also where
  amplitudes are made equal, and the less data there are the more; on guides of THP-1 cells and from K562 to RPE1,
  too. Cosine and R2 rise with it: to be recognised, an effect must point its way. For doubles of known singles PDS is
  near 1 whatever the loss, and nothing is gained.
- **Weights alone do not.** Against training on MSE they end the collapse (the spread doubles where cells are few),
  but R2w does not rise, and for doubles it falls: what is gained in genes that respond is lost to effects that are
  too large, for nothing holds the genes that a weight is small for. The unweighted R2 falls below that of the mean.
- **Why the guard does not hold the slope of single perturbations.** It sees the perturbations that are trained on,
  where a network of this size is calibrated; what it says of new ones is half as sure, and no term on training
  perturbations knows that. One factor from the validation perturbations puts the slope where it belongs, and shows
  what amplitude was worth: PDS by L1 and L2 falls to what the direction alone earns.
- **What to train on, then.** On simulated screens the arm that was not planned, all terms and the MSE, is at least
  as good as any other with weights in nearly every column; a plain error holds the many genes that weights leave
  alone.
- **Where it buys nothing.** Kernel ridge regression with a tuned ridge and the same features is better than every
  network on simulated singles (a part of the truth is linear in the features), in seconds, and the ridge that suits
  WMSE or PDS brings most of what those losses bring to a network: a network is worth its trouble only where it
  beats that. For doubles the sum of the single effects has the least weighted error of all predictions, and MSE is
  as good a loss as any; on those of K562 the rank terms cost R2. These are five doubles, though, whose intervals
  are narrower than five perturbations can bear. From K562 to RPE1 soft PDS and InfoNCE have the greatest PDS by
  cosine of all predictions, and owe it to amplitude: rescaled, they fall below MSE, which has the higher R2, R2w and
  cosine of all losses; and kernel ridge regression has the highest.
"""


def _ratio(x: Any, y: Any) -> Any:
    return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.asarray(y) > 1e-9)


def _panel(prefix: str) -> dict[str, Callable[[Sums], Any]]:
    noise = (lambda s: 0.0) if prefix else (lambda s: s["noise"])
    return {
        "R2": lambda s: _ratio(2 * s[f"{prefix}along"] - s[f"{prefix}size"], s[f"{prefix}truth"] - noise(s)),
        "spread": lambda s: np.sqrt(_ratio(s[f"{prefix}pred_spread"], s[f"{prefix}real_spread"] - noise(s))),
        "slope": lambda s: _ratio(s[f"{prefix}along"], s[f"{prefix}size"]),
    }


PANEL = _panel("")
COLUMNS: dict[str, Callable[[Sums], Any]] = {
    "R2": PANEL["R2"],
    "WMSE": lambda s: _ratio(s["weighted_mse"], s["weighted_mse_mean"]),
    "R2w": lambda s: s["weighted_r2_mean"],
    "PDS L1": lambda s: s["pds_l1"],
    "PDS L2": lambda s: s["pds_l2"],
    "PDS cosine": lambda s: s["pds_cosine"],
    "cosine": lambda s: s["delta_cosine_mean"],
    "MAE": lambda s: _ratio(s["expr_mae"], s["expr_mae_mean"]),
    "spread": PANEL["spread"],
    "slope": PANEL["slope"],
}
LESS_IS_BETTER = ("WMSE", "MAE")


class Found:
    """The values of one prediction: means over perturbations of what panel numbers are made of, resampled."""

    def __init__(self, seeds: Sequence[Mapping[str, Mapping[str, float]]], *, pooled: bool):
        names = list(next(iter(seeds[0].values())))
        values = np.array([[[seed[pert][name] for name in names] for pert in sorted(seed)] for seed in seeds])
        units = values.reshape(-1, len(names)) if pooled else values.mean(axis=0)
        self.by_seed = [dict(zip(names, row, strict=True)) for row in values.mean(axis=1)]
        draws = np.random.default_rng(0).multinomial(len(units), np.full(len(units), 1 / len(units)), SAMPLES)
        self.mean = dict(zip(names, units.mean(axis=0), strict=True))
        self.samples = dict(zip(names, (draws @ units / len(units)).T, strict=True))

    def number(self, column: str) -> np.ndarray:
        """The value, and the values of all bootstrap samples."""
        of = COLUMNS[column]
        with np.errstate(invalid="ignore"):
            return np.concatenate([[float(of(self.mean))], np.asarray(of(self.samples), np.float64)])

    def seeds(self, column: str) -> np.ndarray:
        """The value of each seed."""
        return np.array([float(COLUMNS[column](one)) for one in self.by_seed])


def interval(values: np.ndarray) -> list[float]:
    """The value and its 95 % interval, from the bootstrap samples behind it."""
    known = values[1:][np.isfinite(values[1:])]
    if not len(known) or not np.isfinite(values[0]):
        return [np.nan, np.nan, np.nan]
    return [float(values[0]), *np.quantile(known, [0.025, 0.975]).tolist()]


def _or_none(values: Sequence[float]) -> list[float] | None:
    return [float(f"{x:.5g}") for x in values] if np.isfinite(values[0]) else None


def _cell(values: Sequence[float]) -> str:
    if not np.isfinite(values[0]):
        return "–"
    show = lambda x: f"{x:.2f}" if abs(x) < 99.5 else f"{x:.3g}"
    return f"{show(values[0])} [{show(values[1])}, {show(values[2])}]"


def read_task(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Found]]:
    """A task's record, and what is found of every prediction."""
    held = json.loads(path.read_text())
    pooled = held["task"].startswith("sim")
    return held, {label: Found(seeds, pooled=pooled) for label, seeds in held["values"].items()}


def task_lines(held: Mapping[str, Any], found: Mapping[str, Found]) -> list[str]:
    """The section of a task: all predictions, and what each loss changes over weighted MSE."""
    lines = [
        f"## {held['title']}",
        "",
        f"{held['about']}. {held['seeds']} seeds, at most {held['steps']} steps, {held['seconds'] / 60:.0f} min.",
        "",
    ]
    rows = [[label, *(_cell(interval(one.number(c))) for c in COLUMNS)] for label, one in found.items()]
    lines += table(["prediction", *COLUMNS], rows)
    lines += ["", "Differences between losses, paired over perturbations (brackets without 0 are in bold):", ""]
    rows = []
    for label in (name for name in found if ": " in name and "kernel" not in name):
        network, arm = label.split(": ", 1)
        base = f"{network}: {'MSE' if arm == 'WMSE' else 'WMSE'}"
        if arm != "MSE" and "rescaled" not in arm:
            cells = [interval(found[label].number(c) - found[base].number(c)) for c in COLUMNS]
            bold = [f"**{_cell(x)}**" if x[1] > 0 or x[2] < 0 else _cell(x) for x in cells]
            rows.append([f"{label} − {base.split(': ')[1]}", *bold])
    lines += table(["difference", *COLUMNS], rows)
    steps = {label: np.mean([best for best, _ in runs]) for label, runs in held["trainings"].items()}
    limit = held["steps"]
    cut = [label for label, runs in held["trainings"].items() if np.mean([best >= limit for best, _ in runs]) > 0.5]
    if cut:
        text = f"**Not trained to the end:** most models of {', '.join(cut)} were best at the last step of {limit}."
        lines += ["", f"{text} Where that is so the table compares how fast losses learn, too."]
    lines += [
        "",
        "Steps of the model chosen, on average: " + "; ".join(f"{k} {v:.0f}" for k, v in steps.items()) + ".",
        "",
    ]
    return lines


def summary(tasks: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Found]]]) -> list[str]:
    """R2w and PDS of every task and prediction, without intervals: one look at everything."""
    labels = list(dict.fromkeys(label for _, found in tasks.values() for label in found if "rescaled" not in label))
    shown = ("R2", "R2w", "PDS cosine")
    rows = []
    for label in labels:
        cells = []
        for _, found in tasks.values():
            values = [found[label].number(column)[0] for column in shown] if label in found else []
            cells.append(" / ".join("–" if not np.isfinite(x) else f"{x:.2f}" for x in values) or "–")
        rows.append([label, *cells])
    titles = [held["title"] for held, _ in tasks.values()]
    return ["## Everything in one table", "", f"{', '.join(shown)} of held-out perturbations; intervals below.", "",
            *table(["prediction", *titles], rows), ""]  # fmt: skip


def hypotheses(tasks: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Found]]]) -> list[str]:
    """What was expected of simulated screens before they were run, and what is found."""
    lines = ["## What was expected of the simulated screens, and what was found", ""]
    rows = []
    for name, (held, found) in tasks.items():
        if not name.startswith("sim"):
            continue
        for network in dict.fromkeys(
            label.split(": ")[0] for label in found if ": " in label and "kernel" not in label
        ):
            arm = lambda text, network=network, found=found: found[f"{network}: {text}"]
            gap = lambda a, b, column, arm=arm: interval(arm(a).number(column) - arm(b).number(column))
            where = f"{held['title']}, {network}"
            for text, a, b, column in (
                ("WMSE raises the spread over MSE", "WMSE", "MSE", "spread"),
                ("WMSE raises R2w over MSE", "WMSE", "MSE", "R2w"),
                ("soft PDS raises PDS (cosine) over WMSE", "WMSE + soft PDS", "WMSE", "PDS cosine"),
            ):
                found_gap = gap(a, b, column)
                rows.append([text, where, _cell(found_gap), _verdict(found_gap)])
            guarded, free = "WMSE + soft PDS + guards", "WMSE + soft PDS"
            slope = interval(arm(guarded).number("slope"))
            gained, kept = gap(free, "WMSE", "PDS cosine"), gap(guarded, "WMSE", "PDS cosine")[0]
            inside = 0.8 <= slope[0] <= 1.25
            unguarded = interval(arm(free).number("slope"))
            rows.append(
                ["guards hold the slope within 0.8-1.25", where, f"{_cell(slope)}; without {_cell(unguarded)}",
                 "yes" if inside else "**no**"]
            )  # fmt: skip
            scaled = interval(arm(f"{guarded}, rescaled").number("slope"))
            inside = 0.8 <= scaled[0] <= 1.25
            rows.append(
                [
                    "… and one factor from the validation perturbations does",
                    where,
                    _cell(scaled),
                    "yes" if inside else "**no**",
                ]
            )
            equal = gap(f"{free}, rescaled", "WMSE, rescaled", "PDS cosine")
            rows.append(["… and it does so at equal amplitude, both rescaled", where, _cell(equal), _verdict(equal)])
            share = f"{kept:.3f} of {gained[0]:.3f}"
            holds = "yes" if kept > 0.5 * gained[0] else "**no**"
            rows.append(
                ["guards keep most of the gain in PDS", where, share, holds if gained[1] > 0 else "no gain to keep"]
            )
    return [*lines, *table(["expected", "where", "measured", "holds"], rows), ""]


def _verdict(gap: Sequence[float]) -> str:
    return "yes" if gap[1] > 0 else "**no, the reverse**" if gap[2] < 0 else "not shown"


def write_report(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Writes `study.md` of the tasks that have been run, and `study.json`: every number with its interval."""
    paths = {name: folder / f"study_{name}.json" for name in names}
    tasks = {name: read_task(path) for name, path in paths.items() if path.exists()}
    if not tasks:
        return
    first = next(iter(tasks.values()))[0]
    machine, versions = first["machine"], first["versions"]
    lines = [
        "# Training on calibrated metrics: what it buys",
        "",
        f"{first['date']}; {machine['cpu']}, {machine['cores']} cores. "
        + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".",
        *_ABOUT.format(beta=first["beta"]).split("\n"),
        *summary(tasks),
        "## What it says",
        *_READING.split("\n"),
        *hypotheses(tasks),
    ]  # fmt: skip
    for held, found in tasks.values():
        lines += task_lines(held, found)
    (folder / "study.md").write_text("\n".join(lines).rstrip() + "\n")
    kept = ("title", "about", "date", "seeds", "steps", "beta", "softness", "seconds", "machine", "versions")
    numbers = {
        name: {key: held[key] for key in kept}
        | {"values": {label: {c: _or_none(interval(one.number(c))) for c in COLUMNS} for label, one in found.items()}}
        for name, (held, found) in tasks.items()
    }
    (folder / "study.json").write_text(json.dumps(numbers, indent=1) + "\n")
