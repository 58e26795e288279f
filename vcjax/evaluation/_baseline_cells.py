"""What a fitted baseline predicts, made into cells, with its provenance."""

import dataclasses

import numpy as np

from ..baselines import Baseline, expected_shares, gene_ratios, PertData, Prediction, settings
from ..io import log_normalised, Screen
from ._baseline_file import BaselineScreen
from ._baseline_fit import BaselineFit
from ._emitted import Emit, emit_screen
from ._stamp import versions


def predicted_screen(
    fit: BaselineFit,
    baseline: Baseline,
    data: PertData,
    found: Prediction,
    *,
    shown: Screen | None,
    emit: Emit,
    cells: int | None,
) -> BaselineScreen:
    """The prediction as cells, and where they come from; arguments as of `fit_baseline`.

    **Raises:** `ValueError` for another word of `emit` and for less than one cell.
    """
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


def _cell_numbers(fit: BaselineFit, shown: Screen | None, cells: int | None) -> np.ndarray:
    """How many cells of each perturbation to make."""
    counts = fit.train.cell_counts()
    usual = int(np.median(counts[counts > 0])) if cells is None else cells
    if usual < 1:
        raise ValueError(f"`cells` must be at least 1, got {usual}.")
    asked = {} if shown is None or cells is not None else dict(zip(shown.perts, shown.cell_counts(), strict=True))
    return np.array([max(1, int(asked.get(pert, usual))) for pert in fit.perts])
