"""Which simple model is the one to beat: all baselines on held-out perturbations of one screen."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..baselines import available, Baseline, BASELINES, Role, role
from ..calibration import Control, ControlSet, jackknife_interval
from ..calibration._scoring import Found, OK, score_controls
from ..comparison import confidence_interval
from ..io import read_target_map, Refusal, resolve_targets, Screen
from ..io._context import one_context
from ..metrics import Metric
from ._baseline_data import by_context, measure, read_cells, refuse_unknown, Space, take_rows
from ._baseline_folds import as_profile, check_scored, Folds, FoldSetup, held_out, HeldOut
from ._baseline_results import BaselineRow, BaselineTable
from ._controls import make_controls
from ._plan import DTypeName, find_device
from ._select import find_metric
from ._sides import Reading, Source


METRICS = ("expr_mse", "delta_pearson", "pds_l1", "pds_cosine")
_REFERENCE = "mean"
_DUPLICATES = {
    "duplicate": "technical_duplicate",
    "interpolated": "interpolated_duplicate",
    "empirical_bayes": "empirical_bayes_duplicate",
}
Progress = Callable[[str, int, int], None]


def baseline_table(
    screen: Source,
    *,
    baselines: Sequence[str | Baseline] | None = None,
    metrics: Sequence[str] = METRICS,
    external: Sequence[Source] = (),
    folds: Folds = 5,
    held_out: Sequence[str] | None = None,
    reading: Reading | None = None,
    context: str | None = None,
    space: Space | None = None,
    duplicates: bool = True,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    dtype: DTypeName = "float64",
    device: str | None = None,
    progress: Progress | None = None,
) -> BaselineTable:
    """Every baseline that can be fitted, on held-out perturbations of one screen, metric by metric.

    ```python
    print(vcjax.evaluation.baseline_table("train.h5ad", metrics=("expr_mse", "pds_cosine")).summary())
    ```

    Each perturbation is predicted once, from perturbations of other folds, and ranked among those of its own: with few
    folds the panels are large, as ranks want them, with many the training sets. Values are averaged over all
    perturbations and over those that the baseline covers, beside what the mean response scores on the same ones. Only
    competitors are ranked: not nulls, and not oracles, which have seen what they predict.

    **Arguments:**

    - `screen`: a screen with its control cells. `external`: others, for baselines that transfer.
    - `baselines`: names or `vcjax.baselines.Baseline` objects; by default all that the data allow. The mean response is
        always there.
    - `metrics`: rows of the catalogue that are made of profiles.
    - `folds`: their number, or `"loo"`: each perturbation from all others, in closed form where a baseline has one.
        Then ranks are among perturbations that the prediction was fitted to, and a mean scores below one half.
    - `held_out`: the perturbations to hold out and score, all by default; the others are always in training (singles,
        where only combinations are to be predicted).
    - `reading`, `context`, `space`: as of `fit_baseline`.
    - `duplicates`: whether halves of the cells predict each other, as oracles. They are scored against half of the
        cells, whose noise is greater, and so stand in rows of their own.
    - `samples`, `level`: of the bootstrap over perturbations. `seed`: of folds, halves, draws and bootstrap.
    - `progress`: called as `progress("baselines", done, total)`.

    **Returns:** a `BaselineTable`. A baseline that could not be fitted is in its `skipped`, with the reason.

    **Raises:** `vcjax.io.Refusal` for unknown labels, metrics and baselines, too few perturbations, and metrics that
    need cells.
    """
    reading = reading or Reading()
    rows = {name: row for name, row in map(find_metric, metrics)}
    _check_metrics(rows)
    whole = read_cells(screen, reading, "screen")
    others = [read_cells(one, reading, "external") for one in external]
    measured_screen = one_context(whole, context)
    space = space or ("bulk_lognorm" if whole.scale == "counts" else "lognorm")
    with jax.enable_x64(dtype == "float64"), jax.default_device(find_device(device)):
        setup, truth = _setup(measured_screen, others, reading, space, context or "", held_out, folds, seed)
        kinds, skipped = _chosen(setup, baselines)
        found = _predictions(setup, kinds, skipped, progress)
        scores = {name: _scores(metric, setup, truth, found) for name, metric in rows.items()}
        make = _Rows(rows, kinds, found, samples, level, seed)
        table = [row for name in rows for row in make.rows(name, scores[name])]
        if duplicates:
            table += _duplicate_rows(make, measured_screen, setup, space, seed, skipped)
    return BaselineTable(
        tuple(table), dict(skipped), whole.name, setup.scored, folds, space, level, samples, seed, whole.notes
    )


def _setup(
    screen: Screen,
    external: Sequence[Screen],
    reading: Reading,
    space: Space,
    context: str,
    scored: Sequence[str] | None,
    folds: Folds,
    seed: int,
) -> tuple[FoldSetup, Profiles]:
    target_map = read_target_map(reading.target_map)
    of = lambda one: resolve_targets(one.perts, one.genes, target_map)
    if scored is not None:
        refuse_unknown(scored, screen, "held_out= / --held-out")
    measured = measure(screen, space=space, targets=of(screen), context=context)
    data = measured.data
    wanted = set(data.perts if scored is None else scored)
    names = tuple(pert for pert in data.perts if pert in wanted)
    check_scored(data, names, folds)
    others = []
    for one in external:
        for name, part in by_context(one):
            same = name == context or (not context and bool(one.fingerprint) and one.fingerprint == screen.fingerprint)
            found = measure(part, space=space, targets=of(part), target_sum=measured.target_sum, context=name)
            others.append((found.data, same))
    truth = take_rows(measured.profiles, data.rows(names))
    return FoldSetup(screen, data, names, tuple(others), target_map, folds, seed), truth


def _chosen(
    setup: FoldSetup, baselines: Sequence[str | Baseline] | None
) -> tuple[dict[str, str | Baseline], dict[str, str]]:
    """The baselines to fit by name, and why others are not."""
    given = {"cells", "truth"} | ({"metadata"} if setup.metadata else set())
    others = [other for other, _ in setup.external]
    state = available(setup.data, predict=setup.scored, external=others, given=given)
    skipped = {one.name: one.why for one in state if not one.fits}
    if baselines is None:
        kinds: dict[str, str | Baseline] = {one.name: one.name for one in state if one.fits}
    else:
        kinds = {_REFERENCE: _REFERENCE} if _REFERENCE in BASELINES else {}
        for one in baselines:
            kinds[one if isinstance(one, str) else one.name] = one
            setup.make(one, setup.data)  # refuses an unknown name before anything is fitted
        skipped = {name: why for name, why in skipped.items() if name in kinds}
        kinds = {name: one for name, one in kinds.items() if name not in skipped or isinstance(one, Baseline)}
    return kinds, skipped


def _predictions(
    setup: FoldSetup, kinds: Mapping[str, str | Baseline], skipped: dict[str, str], progress: Progress | None
) -> dict[str, HeldOut]:
    found = {}
    for done, (name, one) in enumerate(kinds.items()):
        try:
            found[name] = held_out(setup, one)
        except ValueError as error:
            skipped[name] = error.what if isinstance(error, Refusal) else str(error)
        if progress is not None:
            progress("baselines", done + 1, len(kinds))
    return found


def _scores(metric: Metric, setup: FoldSetup, truth: Profiles, found: Mapping[str, HeldOut]) -> dict[str, Found]:
    """What each baseline scores, one value a perturbation or one of the panel.

    Perturbations are ranked among those of their own fold. Others were in training: a prediction is drawn to them and
    away from what was held out, so that even a mean, which tells none apart, would score below one half.
    """
    place = {pert: row for row, pert in enumerate(setup.scored)}
    panels = [[place[pert] for pert in part] for part in setup.parts()]
    if metric.level == "panel" or setup.folds == "loo":
        panels = [list(range(len(setup.scored)))]
    parts = [_panel_scores(metric, setup, truth, found, np.array(rows)) for rows in panels]
    if len(parts) == 1:
        return parts[0]
    merged = {}
    for name in found:
        values = np.full(len(setup.scored), np.nan)
        for rows, part in zip(panels, parts, strict=True):
            values[rows] = part[name].values
        bad = [part[name].status for part in parts if part[name].status != OK]
        merged[name] = Found(values, None, OK if np.isfinite(values).any() else bad[0])
    return merged


def _panel_scores(
    metric: Metric, setup: FoldSetup, truth: Profiles, found: Mapping[str, HeldOut], rows: np.ndarray
) -> dict[str, Found]:
    real = take_rows(truth, rows)
    predicted = {name: real.with_mean(as_profile(one.effect[rows], real.control)) for name, one in found.items()}
    controls = {name: Control(profiles, "null") for name, profiles in predicted.items()}
    return score_controls(metric, ControlSet(real, controls), None, None)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """From values of perturbations to rows of the table."""

    metrics: Mapping[str, Metric]
    kinds: Mapping[str, str | Baseline]
    found: Mapping[str, HeldOut]
    samples: int
    level: float
    seed: int

    def rows(self, name: str, scores: Mapping[str, Found]) -> list[BaselineRow]:
        """One row a baseline, the best competitor marked."""
        rows = [self._row(name, one, scores[one], scores.get(_REFERENCE)) for one in scores]
        better = self.metrics[name].higher_is_better
        ranked = [row for row in rows if row.role == "competitor" and np.isfinite(row.value)]
        if better is None or not ranked:
            return rows
        best = (max if better else min)(ranked, key=lambda row: row.value)
        return [dataclasses.replace(row, best=row is best) for row in rows]

    def _row(self, name: str, baseline: str, score: Found, reference: Found | None) -> BaselineRow:
        one, values = self.found[baseline], score.values
        row = self.plain(name, baseline, self._role(baseline), one.fairness, score)
        if self.metrics[name].level == "panel" or reference is None:
            return dataclasses.replace(row, covered=int(one.covered.sum()))
        sign = {True: 1.0, False: -1.0, None: np.nan}[self.metrics[name].higher_is_better]
        gain = self._interval(sign * (values - reference.values))
        with np.errstate(invalid="ignore"):
            mean = lambda x: float(np.nanmean(x)) if np.isfinite(x).any() else float("nan")
            on_covered = [mean(x[one.covered]) for x in (values, reference.values)]
        return dataclasses.replace(
            *(row,),
            covered=int(one.covered.sum()),
            covered_value=on_covered[0],
            mean_on_covered=on_covered[1],
            gain=gain[0],
            gain_low=gain[1],
            gain_high=gain[2],
        )

    def plain(self, name: str, baseline: str, kind: Role, fairness: str, score: Found) -> BaselineRow:
        """A row with the value on all perturbations and its interval."""
        metric = self.metrics[name]
        if metric.level == "panel":
            value = float(score.values[0])
            others = score.left_out if score.status == OK else None
            bounds = (np.nan, np.nan) if others is None else jackknife_interval(value, others, level=self.level)
            low, high, used = *bounds, 1
        else:
            value, low, high = self._interval(score.values)
            used = int(np.isfinite(score.values).sum())
        return BaselineRow(
            *(baseline, kind, fairness, name, metric.higher_is_better),
            *(value, float(low), float(high)),
            used=used,
            status=score.status,
        )

    def _role(self, baseline: str) -> Role:
        one = self.kinds[baseline]
        return role(one if isinstance(one, Baseline) else BASELINES[baseline.partition(":")[0]])

    def _interval(self, values: np.ndarray) -> tuple[float, float, float]:
        if not np.isfinite(values).any():
            return np.nan, np.nan, np.nan
        estimate, low, high = _interval(jnp.asarray(values), jax.random.key(self.seed), self.samples, self.level)
        return float(estimate), float(low), float(high)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _interval(values: Any, key: Any, samples: int, level: float) -> tuple[Any, Any, Any]:
    found = confidence_interval(values, key=key, samples=samples, level=level)
    return found.estimate, found.low, found.high


def _duplicate_rows(
    make: _Rows, screen: Screen, setup: FoldSetup, space: Space, seed: int, skipped: dict[str, str]
) -> list[BaselineRow]:
    """What halves of the cells score against each other, and the mean of the others against the same half."""
    targets = resolve_targets(screen.perts, screen.genes, setup.target_map)
    try:
        (controls,) = make_controls(screen, seeds=(seed,), space=space, kinds=("mean", *_DUPLICATES), targets=targets)  # pyright: ignore[reportArgumentType]
    except Refusal as refusal:
        skipped |= dict.fromkeys(_DUPLICATES.values(), refusal.what)
        return []
    for name in _DUPLICATES.values():
        skipped.pop(name, None)
    rows = []
    for name, metric in make.metrics.items():
        scores = score_controls(metric, controls, None, None)
        for kind, shown in {**_DUPLICATES, "loo_mean": "mean"}.items():
            row = make.plain(name, shown, "oracle" if kind in _DUPLICATES else "null", "oracle", scores[kind])
            rows.append(dataclasses.replace(row, against="half", covered=row.used))
    return rows


def _check_metrics(metrics: Mapping[str, Metric]) -> None:
    wrong = [name for name, metric in metrics.items() if metric.needs_de or metric.needs_energy or metric.needs_weights]
    if wrong:
        raise Refusal(
            what=f"{', '.join(wrong)} cannot be computed here.",
            where="metrics= / --metrics",
            why="Held-out predictions are profiles: they have no cells to test, and no weights.",
            fix="name metrics of profiles (expr_mse, delta_pearson, pds_cosine), or write the prediction with "
            "`vcjax baseline fit` and score it with `vcjax run`.",
        )
