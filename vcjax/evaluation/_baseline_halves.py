"""What halves of the cells score against each other, as rows of the table of baselines."""

import dataclasses

from ..calibration._scoring import score_controls
from ..io import Refusal, resolve_targets, Screen
from ._baseline_data import Space
from ._baseline_folds import FoldSetup
from ._baseline_results import BaselineRow
from ._baseline_rows import RowMaker
from ._baseline_scores import Score
from ._controls import make_controls


_DUPLICATES = {
    "duplicate": "technical_duplicate",
    "interpolated": "interpolated_duplicate",
    "empirical_bayes": "empirical_bayes_duplicate",
}


def duplicate_rows(
    make: RowMaker, screen: Screen, setup: FoldSetup, space: Space, skipped: dict[str, str]
) -> list[BaselineRow]:
    """The duplicates, and the mean of the others, against the same half of the cells.

    Where the cells cannot be halved the reason goes to `skipped`.
    """
    targets = resolve_targets(screen.perts, screen.genes, setup.target_map)
    kinds = ("mean", *_DUPLICATES)
    try:
        (controls,) = make_controls(screen, seeds=(setup.seed,), space=space, kinds=kinds, targets=targets)  # pyright: ignore[reportArgumentType]
    except Refusal as refusal:
        skipped |= dict.fromkeys(_DUPLICATES.values(), refusal.what)
        return []
    for name in _DUPLICATES.values():
        skipped.pop(name, None)
    rows = []
    for name, metric in make.metrics.items():
        scores = score_controls(metric, controls, None, None)
        for kind, shown in {**_DUPLICATES, "loo_mean": "mean"}.items():
            seen = ("oracle", "oracle") if kind in _DUPLICATES else ("null", "inductive")
            row = make.plain(name, shown, *seen, Score.of(scores[kind]))
            rows.append(dataclasses.replace(row, against="half", covered=row.used))
    return rows
