"""Which simple model is the one to beat: all baselines on held-out perturbations of one screen."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import jax

from .._profiles import Profiles
from ..baselines import available, Baseline
from ..io import read_target_map, Refusal, resolve_targets, Screen
from ..io._context import one_context
from ._baseline_data import by_context, measure, read_cells, refuse_unknown, Space, take_rows
from ._baseline_features import features_of, FeatureSource
from ._baseline_folds import check_scored, Folds, FoldSetup, held_out, HeldOut
from ._baseline_halves import duplicate_rows
from ._baseline_results import BaselineTable
from ._baseline_rows import REFERENCE, RowMaker
from ._baseline_scores import check_metrics, Scorer
from ._plan import DTypeName, find_device
from ._select import find_metric
from ._sides import Reading, Source


METRICS = ("expr_mse", "delta_pearson", "pds_l1", "pds_cosine")
Progress = Callable[[str, int, int], None]


def baseline_table(
    screen: Source,
    *,
    baselines: Sequence[str | Baseline] | None = None,
    metrics: Sequence[str] = METRICS,
    external: Sequence[Source] = (),
    features: FeatureSource | None = None,
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

    - `screen`: a screen with its control cells. `external`: others, for baselines that transfer. `features`: as of
        `fit_baseline`.
    - `baselines`: names or `vcjax.baselines.Baseline` objects; by default all that the data allow. The mean response is
        always there. A second object of one recipe is called `name (2)`.
    - `metrics`: rows of the catalogue that are made of profiles. One number of the panel (`spread_ratio`) is taken in
        each fold and averaged, each fold counting as its perturbations; a ratio of sums over perturbations
        (`expr_mse_unbiased_capped_norm`) over all at once. Their intervals are those of the jackknife.
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
    check_metrics(rows)
    whole = read_cells(screen, reading, "screen")
    others = [read_cells(one, reading, "external") for one in external]
    measured_screen = one_context(whole, context)
    space = space or ("bulk_lognorm" if whole.scale == "counts" else "lognorm")
    with jax.enable_x64(dtype == "float64"), jax.default_device(find_device(device)):
        setup, truth = _setup(measured_screen, others, reading, space, context or "", held_out, folds, seed)
        setup = dataclasses.replace(setup, features=features_of(features, setup.data.perts))
        kinds, skipped = _chosen(setup, baselines)
        found = _predictions(setup, kinds, skipped, progress)
        make = RowMaker(rows, kinds, Scorer(setup, truth, found), samples, level, seed)
        table = [row for name in rows for row in make.rows(name)]
        if duplicates:
            table += duplicate_rows(make, measured_screen, setup, space, skipped)
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
    given |= set() if setup.features is None else {"features", "similarity"}
    others = [other for other, _ in setup.external]
    state = available(setup.data, predict=setup.scored, external=others, given=given)
    skipped = {one.name: one.why for one in state if not one.fits}
    if baselines is None:
        kinds: dict[str, str | Baseline] = {one.name: one.name for one in state if one.fits}
    else:
        kinds = {REFERENCE: REFERENCE}
        for one in baselines:
            kinds[one if isinstance(one, str) else _free(one.name, kinds)] = one
            setup.make(one, setup.data)  # refuses an unknown name before anything is fitted
        # What an object needs it may have brought itself.
        skipped = {name: why for name, why in skipped.items() if isinstance(kinds.get(name), str)}
        kinds = {name: one for name, one in kinds.items() if name not in skipped}
    return kinds, skipped


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or `name (2)` and so on: one recipe may come with several settings."""
    names = (name, *(f"{name} ({i})" for i in range(2, len(taken) + 3)))
    return next(one for one in names if one not in taken)


def _predictions(
    setup: FoldSetup, kinds: Mapping[str, str | Baseline], skipped: dict[str, str], progress: Progress | None
) -> dict[str, HeldOut]:
    found = {}
    for done, (name, one) in enumerate(kinds.items()):
        try:
            effects = held_out(setup, one)
            if effects.covered.any():
                found[name] = effects
            else:
                skipped[name] = "it covers none of the held-out perturbations, and would be the mean response"
        except ValueError as error:
            skipped[name] = error.what if isinstance(error, Refusal) else str(error)
        if progress is not None:
            progress("baselines", done + 1, len(kinds))
    return found
