"""The error of fold changes between two halves, over the genes that the whole screen says count."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ..io import differential_expression, Refusal, Summary
from ..io._errors import listing
from ._replicates import Replicates
from ._report import Report


FOLD_CHANGE_ERROR = "de_wilcoxon_lfc_nmae"
_ALPHA = 0.05  # of the metric itself
_MIN_GENES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Gate:
    """The genes that count for each perturbation, by label, and their mean absolute change in the whole screen."""

    genes: Mapping[str, np.ndarray]
    scale: Mapping[str, float]


def full_gate(replicates: Replicates, report: Report, context: str) -> Gate:
    """The gate of `FOLD_CHANGE_ERROR` from the whole screen, for the perturbations that `report` has there."""
    screen = replicates.screen
    threads = replicates.options.get("threads")
    settings = report.preset.de
    memory = replicates.options.get("max_memory")
    table = differential_expression(screen, settings, context=context or None, threads=threads, max_memory=memory).table
    assert table is not None
    half = report.tables[context, "real"]
    targets = dict(zip(half.perts, half.targets.tolist(), strict=True))
    genes, scale = {}, {}
    for i, label in enumerate(screen.perts):
        change = table.log2_fold_change[i]
        gate = table.tested[i] & (table.log_padj[i] < math.log(_ALPHA)) & np.isfinite(change)
        if label not in targets or not gate.any():
            continue
        if targets[label] >= 0:
            gate[targets[label]] = False
        if gate.sum() >= _MIN_GENES and np.any(change[gate] != 0):
            genes[label], scale[label] = np.flatnonzero(gate), float(np.abs(change[gate]).mean())
    return Gate(genes, scale)


def between_halves(report: Report, context: str, gate: Gate) -> tuple[float, int]:
    """The mean over perturbations of the error between the halves, and their number."""
    first, second = (_changes(report.tables[context, side]) for side in ("real", "pred"))
    errors = []
    for label, genes in gate.genes.items():
        if label not in first or label not in second:
            raise _unmeasured(label, context)
        difference = np.abs(first[label][genes] - second[label][genes]).mean()
        errors.append(float(difference) / gate.scale[label])
    return (float(np.mean(errors)), len(errors)) if errors else (math.nan, 0)


def _changes(summary: Summary) -> dict[str, np.ndarray]:
    """The fold changes of each perturbation that is tested anywhere; 0 where they are absent or not finite."""
    table = summary.de
    assert table is not None
    usable = table.tested & np.isfinite(table.log2_fold_change)
    changes = np.where(usable, table.log2_fold_change, 0.0)
    return {label: changes[i] for i, label in enumerate(summary.perts) if table.tested[i].any()}


def check_single_cells(replicates: Replicates) -> None:
    """Refuses perturbations of one cell, unless they are left out by `min_cells`."""
    screen = replicates.screen
    single = []
    for context in screen.contexts or (None,):
        counts = screen.cell_counts(context)
        single += [label for label, n in zip(screen.perts, counts, strict=True) if n == 1]
    if single and replicates.reading.min_cells < 2:
        raise Refusal(
            what=f"{len(single)} perturbations have a single cell.",
            where=f"{screen.name}: {listing(single)}",
            why=f"{FOLD_CHANGE_ERROR} averages over every perturbation that responds; these have no replicate.",
            fix="Leave them out on both sides: min_cells=2 / --min-cells 2.",
        )


def _unmeasured(label: str, context: str) -> Refusal:
    return Refusal(
        what="A perturbation that responds is tested nowhere in a half of the screen.",
        where=f"{label}{f' in {context}' if context else ''}",
        why="It would count as a perfect replicate.",
        fix=f"Leave the metric out: skip= / --skip-metrics {FOLD_CHANGE_ERROR}.",
    )
