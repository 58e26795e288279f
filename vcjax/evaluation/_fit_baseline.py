"""A baseline fitted to a training screen, as a predicted screen of the perturbations that are asked for."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from ..baselines import Baseline, expected_shares, gene_ratios, PertData, Prediction, settings
from ..io import log_normalised, read_target_map, Refusal, resolve_targets, Screen
from ..io._context import one_context
from ..io._errors import listing
from ._baseline_data import (
    by_context,
    configure,
    measure,
    metadata_of,
    read_cells,
    refusal_of,
    refuse_unknown,
    Space,
    without,
)
from ._baseline_file import BaselineScreen
from ._emitted import Emit, emit_screen
from ._plan import DTypeName, find_device
from ._sides import Reading, Source
from ._stamp import versions


def fit_baseline(
    train: Source,
    *,
    baseline: str | Baseline = "mean",
    predict: Sequence[str] = (),
    like: Source | None = None,
    held_out: Sequence[str] = (),
    external: Sequence[Source] = (),
    options: Mapping[str, Any] | None = None,
    reading: Reading | None = None,
    context: str | None = None,
    space: Space | None = None,
    emit: Emit = "dispersed",
    cells: int | None = None,
    seed: int = 0,
    dtype: DTypeName = "float64",
    device: str | None = None,
) -> BaselineScreen:
    """Fits a baseline to a training screen and predicts the cells of other perturbations.

    ```python
    vcjax.evaluation.fit_baseline("train.h5ad", baseline="additive", like="test.h5ad").write("pred.h5ad")
    ```

    What is predicted is never fitted to: a label to predict that the training screen has is left out of the fit, with a
    note. Of `like` only labels, numbers of cells and library sizes are read.

    **Arguments:**

    - `train`: the screen with its control cells: a path, an AnnData or a `Screen`. `external`: others, for baselines
        that transfer; each context of theirs counts by itself.
    - `baseline`: a name of `vcjax.baselines.BASELINES` (`null:inner` for the nulls of another one), with `options` for
        its fields, or a `vcjax.baselines.Baseline`.
    - `predict`, `held_out`, `like`: labels to predict; labels of the training screen to leave out and predict; a screen
        whose labels are to be predicted, with as many cells of each.
    - `reading`: how files are read. `context`: one context of a training screen with several, and then needed.
    - `space`: what profiles are fitted: `"bulk_lognorm"` (sums of counts; the default for counts) or `"lognorm"` (means
        of log-normalised cells). The first gives cells of counts, the second log-normalised ones.
    - `emit`: what cells are made of: `"dispersed"`, control cells drawn anew and multiplied gene by gene; `"tile"`,
        the profile in every cell; `"profile"`, one cell a perturbation.
    - `cells`: of each perturbation, by default the median number of the training perturbations.
    - `seed`: of everything that is drawn. `dtype`, `device`: of the arithmetic.

    **Raises:** `vcjax.io.Refusal` for nothing to predict or to fit, unknown labels, baselines and options, several
    contexts without `context`, sums of counts of cells that are not counts, and a prediction that is not finite.
    """
    reading = reading or Reading()
    screen = one_context(_read(train, reading, "train"), context)
    shown = None if like is None else _read(like, reading, "like", control=False, context=context)
    refuse_unknown(held_out, screen, "held_out= / --held-out")
    perts = _labels(screen, [*held_out, *predict, *(() if shown is None else shown.perts)])
    space = space or ("bulk_lognorm" if screen.scale == "counts" else "lognorm")
    others = [_read(one, reading, "external") for one in external]
    with jax.enable_x64(dtype == "float64"), jax.default_device(find_device(device)):
        fit = _Fit(screen, perts, reading, space, context or "", seed)
        made = fit.run(baseline, options or {}, others, shown)
        return _as_screen(fit, *made, shown=shown, emit=emit, cells=cells)


@dataclasses.dataclass
class _Fit:
    """One fit: the training screen without what is predicted, and what there is to say about it."""

    screen: Screen
    perts: tuple[str, ...]
    reading: Reading
    space: Space
    context: str
    seed: int

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        seen = [pert for pert in self.perts if pert in self.screen.perts]
        self.train = without(self.screen, seen)
        if seen:
            self.notes.append(f"{len(seen)} perturbations to predict are left out of the fit: {listing(seen)}")
        if np.count_nonzero(self.train.cell_counts()) < 2:
            raise Refusal(
                what=f"{np.count_nonzero(self.train.cell_counts())} perturbations are left to fit a baseline to.",
                where=f"{self.screen.name}, without the {len(seen)} to predict",
                why="What is predicted must not be fitted to, and a mean needs others.",
                fix="predict fewer (predict= / --perts, held_out= / --held-out), or give a larger training screen.",
            )

    def run(
        self, baseline: str | Baseline, options: Mapping[str, Any], external: Sequence[Screen], shown: Screen | None
    ) -> tuple[Baseline, PertData, Prediction]:
        """The baseline, what it was fitted to, and what it predicts."""
        target_map = read_target_map(self.reading.target_map)
        of = lambda one: resolve_targets(one.perts, one.genes, target_map)
        measured = measure(self.train, space=self.space, targets=of(self.train), context=self.context)
        others = [
            measure(part, space=self.space, targets=of(part), target_sum=measured.target_sum, context=name).data
            for name, part in self._elsewhere(external)
        ]
        self.external = [one.context for one in others]
        name = baseline if isinstance(baseline, str) else baseline.name
        if isinstance(baseline, str):
            metadata = metadata_of(self.train) | ({} if shown is None else metadata_of(shown))
            about = {"target_map": target_map, "metadata": metadata, "seed": self.seed}
            baseline = configure(baseline, options, self.train, measured.data, **about)
        try:
            found = baseline.fit(measured.data, external=others, key=jax.random.key(self.seed)).predict(self.perts)
        except ValueError as error:
            raise refusal_of(error, name) from error
        self._check(found, name)
        return baseline, measured.data, found

    def _elsewhere(self, external: Sequence[Screen]) -> Iterator[tuple[str, Screen]]:
        """Every context of the external screens; what is predicted is left out of the one that it is predicted in."""
        for one in external:
            for name, part in by_context(one):
                same = bool(one.fingerprint) and one.fingerprint == self.screen.fingerprint
                yield name, without(part, self.perts) if name == self.context or (same and not self.context) else part

    def _check(self, found: Prediction, name: str) -> None:
        bad = np.flatnonzero(~np.isfinite(np.asarray(found.effect)).all(axis=1))
        if len(bad):
            raise Refusal(
                what=f"{len(bad)} predicted profiles are not finite.",
                where=f"baseline {name!r}, e.g. {listing(self.perts[i] for i in bad)}",
                why="NaN in a prediction would be scored as the worst, or not at all.",
                fix="use another baseline, or leave out what it cannot predict.",
            )
        bare = [pert for pert, covered in zip(self.perts, np.asarray(found.covered), strict=True) if not covered]
        if bare:
            number = f"{len(bare)} of {len(self.perts)} perturbations"
            self.notes.append(f"Warning: {number} are not covered and get the mean response: {listing(bare)}")


def _as_screen(
    fit: _Fit,
    baseline: Baseline,
    data: PertData,
    found: Prediction,
    *,
    shown: Screen | None,
    emit: Emit,
    cells: int | None,
) -> BaselineScreen:
    if emit not in ("profile", "tile", "dispersed"):
        raise ValueError(f'`emit` is "profile", "tile" or "dispersed", got {emit!r}.')
    train = fit.train if fit.space == "bulk_lognorm" else log_normalised(fit.train)
    profile = np.asarray(found.profile, np.float64)
    below = int(np.sum(profile < 0))
    if below:
        fit.notes.append(f"{below} predicted values below zero are written as zero")
    made = emit_screen(
        *(train, fit.perts),
        shares=np.asarray(expected_shares(found.profile), np.float64),
        ratios=np.asarray(gene_ratios(found.profile, found.control), np.float64),
        profiles=np.maximum(profile, 0),
        cells=_cell_numbers(fit, shown, cells),
        emit=emit,
        seed=fit.seed,
    )
    screen = dataclasses.replace(made, name=f"baseline {found.baseline!r} fitted to {fit.screen.name}")
    provenance = {
        "baseline": found.baseline,
        "fairness": found.fairness,
        "settings": settings(baseline),
        "details": dict(found.provenance),
        "train": fit.screen.name,
        "train_fingerprint": fit.screen.fingerprint,
        "context": fit.context,
        "trained_on": len(data.perts),
        "external": fit.external,
        "space": fit.space,
        "emit": emit,
        "seed": fit.seed,
        "notes": fit.notes,
        "versions": versions(),
    }
    covered = dict(zip(fit.perts, np.asarray(found.covered).tolist(), strict=True))
    return BaselineScreen(screen, found, covered, provenance, fit.reading.context_col)


def _cell_numbers(fit: _Fit, shown: Screen | None, cells: int | None) -> np.ndarray:
    """How many cells of each perturbation to make."""
    counts = fit.train.cell_counts()
    usual = int(np.median(counts[counts > 0])) if cells is None else cells
    if usual < 1:
        raise ValueError(f"`cells` must be at least 1, got {usual}.")
    asked = {} if shown is None or cells is not None else dict(zip(shown.perts, shown.cell_counts(), strict=True))
    return np.array([max(1, int(asked.get(pert, usual))) for pert in fit.perts])


def _read(
    source: Source,
    reading: Reading,
    name: Literal["train", "like", "external"],
    *,
    control: bool = True,
    context: str | None = None,
) -> Screen:
    screen = read_cells(source, reading, name, control=control)
    return screen if name != "like" or context is None else one_context(screen, context)


def _labels(screen: Screen, names: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name for name in names if name != screen.control))
    if not found:
        raise Refusal(
            what="There is nothing to predict.",
            where="predict= / --perts, like= / --like, held_out= / --held-out",
            why="A baseline predicts perturbations by name.",
            fix="name labels, or a screen that has them: --like test.h5ad.",
        )
    return found
