"""The replicate anchor: what a second experiment of half the depth scores, which a score can take as its 1."""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..io import Refusal
from ..io._errors import listing
from ._beside import write_beside
from ._full_gate import between_halves, check_single_cells, FOLD_CHANGE_ERROR, full_gate, Gate
from ._presets import Preset
from ._replicates import open_replicates, Replicates
from ._report import Report
from ._run import Progress
from ._select import Exclude
from ._sides import Reading, Source
from ._write import _prefixes


@dataclasses.dataclass(frozen=True)
class Split:
    """What one metric gave in one split: the aggregate, and the number of perturbations behind it."""

    context: str
    seed: int
    metric: str
    value: float
    n_used: int


@dataclasses.dataclass(frozen=True, eq=False)
class Anchor:
    """What a replicate scores. `splits` has a row a context, split and metric; `stamp` says what they were made of."""

    splits: tuple[Split, ...]
    contexts: tuple[str, ...]
    stamp: Mapping[str, Any]

    def values(self, context: str | None = None) -> dict[str, float]:
        """Each metric's mean over the splits of one context, or averaged over the contexts too.

        What `vcjax.evaluation.score` takes as `replicate=`.
        """
        found = [self._of(name) for name in (self.contexts if context is None else (context,))]
        return {metric: float(np.mean([rows[metric].mean() for rows in found])) for metric in found[0]}

    def write(self, folder: str | os.PathLike, *, force: bool = False) -> tuple[str, ...]:
        """Writes `anchor_results.csv` and `agg_anchor_results.csv`, beside those of a run if there is one.

        The latter has the columns `metric`, `mean`, `sd`, `min`, `max`, `n_used_min`, `n_used_max` and `estimator`, and
        is what `vcjax score --replicate` reads.

        **Raises:** `vcjax.io.Refusal` if the folder holds anchors already (unless `force`).
        """
        tables: dict[str, list[list[Any]]] = {}
        for context, prefix in _prefixes(self.contexts).items():
            rows = [row for row in self.splits if row.context == context]
            tables[f"{prefix}anchor_results.csv"] = [
                ["seed", "metric", "value", "n_used"],
                *([row.seed, row.metric, row.value, row.n_used] for row in rows),
            ]
            columns = ["metric", "mean", "sd", "min", "max", "n_used_min", "n_used_max", "estimator"]
            tables[f"{prefix}agg_anchor_results.csv"] = [columns, *self._statistics(context)]
        return write_beside(folder, tables, "anchor", self.stamp, force=force)

    def _of(self, context: str) -> dict[str, np.ndarray]:
        found: dict[str, list[float]] = {}
        for row in self.splits:
            if row.context == context:
                found.setdefault(row.metric, []).append(row.value)
        return {metric: np.array(values) for metric, values in found.items()}

    def _statistics(self, context: str) -> list[list[Any]]:
        rows = []
        for metric, x in self._of(context).items():
            used = [row.n_used for row in self.splits if (row.context, row.metric) == (context, metric)]
            how = "full_gate_raw" if metric == FOLD_CHANGE_ERROR else "split_half_raw"
            spread = (float(x.mean()), float(x.std()), float(x.min()), float(x.max()))
            rows.append([metric, *spread, min(used), max(used), how])
        return rows


def replicate_anchor(
    real: Source,
    reading: Reading | None = None,
    *,
    preset: str | Preset = "v2",
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    exclude_targets: Exclude | None = None,
    seed: int = 0,
    splits: int = 5,
    progress: Progress | None = None,
    **options: Any,
) -> Anchor:
    r"""What a replicate of half the depth scores in each metric: the upper end of a scale that begins at a baseline.

    For each of the seeds `numpy.random.SeedSequence(seed).generate_state(splits)` the measured screen is split into
    disjoint halves, each with its own control cells, and one half is scored as a prediction of the other. The anchor is
    the mean of the aggregates, not corrected for depth.

    `de_wilcoxon_lfc_nmae` is different: which genes count, and what their change is measured in, follow from the whole
    screen, as they do for a prediction, and only the error is between the halves:

    $$\frac{\sum_{g \in S'} |f^A_g - f^B_g|}{\sum_{g \in S'} |f_g|}$$

    **Arguments:** as of `data_ceiling`; `seed` and `splits` are of the sequence.

    **Raises:** `vcjax.io.Refusal` as `data_ceiling`; for a metric that is undefined in one of the splits; and, with
    `de_wilcoxon_lfc_nmae`, for a perturbation of a single cell.

    Source: cell-eval2 0.20.0 (`compute_replicate_anchor`).
    """
    selected = {"preset": preset, "profile": profile, "metrics": metrics, "skip": skip}
    replicates = open_replicates(real, reading, **selected, exclude_targets=exclude_targets, **options)
    return anchor_of(replicates, seed, splits, progress)


def split_seeds(seed: int, splits: int) -> tuple[int, ...]:
    """The seeds of the splits.

    **Raises:** `ValueError` for less than one split.
    """
    if splits < 1:
        raise ValueError(f"At least one split is needed, got {splits}.")
    return tuple(int(x) for x in np.random.SeedSequence(seed).generate_state(splits))


def anchor_of(replicates: Replicates, seed: int = 0, splits: int = 5, progress: Progress | None = None) -> Anchor:
    """The anchor of a screen that is ready to be split; see `replicate_anchor`."""
    names = list(replicates.selection.metrics)
    gated = FOLD_CHANGE_ERROR in names
    seeds = split_seeds(seed, splits)
    if gated:
        check_single_cells(replicates)
    gates: dict[str, Gate] = {}
    rows, report = [], None
    for i, split_seed in enumerate(seeds):
        told = None if progress is None else functools.partial(_tell, progress, f"split {i + 1} of {len(seeds)}")
        report = replicates.evaluate(split_seed, names, keep_de=gated, progress=told)
        for row in report.aggregates:
            value, used = row.value, row.n_used
            if row.metric == FOLD_CHANGE_ERROR:
                if row.context not in gates:
                    gates[row.context] = full_gate(replicates, report, row.context)
                value, used = between_halves(report, row.context, gates[row.context])
            rows.append(Split(row.context, split_seed, row.metric, value, used))
        _check_defined([row for row in rows if row.seed == split_seed], report)
    assert report is not None
    stamp = {**report.stamp, "seeds": {"anchor": seed, "halves": list(seeds)}}
    return Anchor(tuple(rows), report.contexts, stamp)


def _tell(progress: Progress, split: str, stage: str, done: int, total: int) -> None:
    progress(f"{split}: {stage}", done, total)


def _check_defined(rows: Sequence[Split], report: Report) -> None:
    undefined = [row for row in rows if not math.isfinite(row.value)]
    if undefined:
        names = listing(f"{row.metric} in {row.context}" if row.context else row.metric for row in undefined)
        errors = [report.stamp["errors"][row.metric] for row in undefined if row.metric in report.stamp["errors"]]
        raise Refusal(
            what=f"{len(undefined)} metrics have no value in a split of the measured screen: {names}.",
            where=f"seed {undefined[0].seed}{f': {errors[0]}' if errors else ''}",
            why="A metric without an anchor cannot be scored, and leaving it out would change the average.",
            fix=f"Leave it out everywhere: skip= / --skip-metrics {undefined[0].metric}, or give a larger screen.",
        )
