"""The data ceiling: how high a metric can be expected to go, given the noise of the measured screen."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..io import Refusal
from ._beside import write_beside
from ._presets import Layout, Preset
from ._replicates import open_replicates, Replicates
from ._report import Report
from ._run import Progress
from ._select import Exclude
from ._sides import Reading, Source
from ._write import _long_rows, _prefixes, _wide_rows


_K = ("50", "100", "200", "500")
RELIABILITIES_V1 = frozenset(
    (
        *("pearson_delta", "discrimination_score_l1", "discrimination_score_l2", "discrimination_score_cosine"),
        *(f"{kind}_at_{k}" for kind in ("overlap", "precision") for k in ("N", *_K)),
        *("de_spearman_sig", "de_spearman_lfc_sig", "de_direction_match", "de_sig_genes_recall", "pr_auc", "roc_auc"),
    )
)
"""The metrics that cell-eval 0.8.2 corrects: shares and correlations that grow with depth."""

RELIABILITIES_V2 = frozenset(
    (
        *("delta_pearson", "pds_l1", "pds_l2", "pds_cosine"),
        *(f"de_wilcoxon_{kind}{k}" for kind in ("overlap", "precision") for k in ("", *(f"_top{k}" for k in _K))),
        *("de_wilcoxon_nsig_spearman", "de_wilcoxon_lfc_spearman", "de_wilcoxon_direction_match"),
        "de_wilcoxon_sig_recall",
    )
)
"""Those that cell-eval2 0.20.0 corrects: the same, without the areas under curves."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ceiling:
    """What half a screen says of the other half, and what all of it would.

    **Fields:** `report`, the second half as a prediction of the first; `values`, the ceiling of each metric by context
    (`""` without contexts), NaN for a metric that has none; `seed`, of the split.
    """

    report: Report
    values: Mapping[str, Mapping[str, float]]
    seed: int

    def write(self, folder: str | os.PathLike, layout: Layout | None = None, *, force: bool = False) -> tuple[str, ...]:
        """Writes `ceiling_results.csv` and `agg_ceiling_results.csv`, beside those of a run if there is one.

        **Raises:** `vcjax.io.Refusal` if the folder holds ceilings already (unless `force`).
        """
        layout = layout or self.report.preset.layout
        tables = {}
        for context, prefix in _prefixes(self.report.contexts).items():
            found = self.values[context]
            tables[f"{prefix}ceiling_results.csv"] = (
                _wide_rows(self.report, context) if layout == "wide" else _long_rows(self.report, context)
            )
            tables[f"{prefix}agg_ceiling_results.csv"] = (
                [list(found), list(found.values())] if layout == "wide" else [["metric", "ceiling"], *found.items()]
            )
        return write_beside(folder, tables, "ceiling", self.report.stamp, force=force)


def data_ceiling(
    real: Source,
    reading: Reading | None = None,
    *,
    preset: str | Preset = "v2",
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    exclude_targets: Exclude | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Ceiling:
    r"""How high each metric goes when a measured screen is predicted by a replicate of itself.

    The cells of every perturbation, and the control's, are split into disjoint halves
    (`numpy.random.default_rng(seed)`), and one half is scored as a prediction of the other, with its own control. The
    mean $r$ over perturbations is that of half the depth; at full depth

    $$r' = \frac{2 r}{1 + r} \qquad (r > 0)$$

    after Spearman and Brown. It is an estimate, not a bound: a model that sees through the noise of a half can pass it.

    **Arguments:** as of `evaluate`, for the measured side; `options` are `max_memory`, `threads`, `device`, `dtype`.

    **Returns:** a `Ceiling`. A metric that is no reliability (an error, a count), and one with $r \le 0$, gets NaN.

    **Raises:** `vcjax.io.Refusal` for a screen without two control cells or a perturbation of two cells, and if none of
    the metrics has a ceiling.

    Source: cell-eval 0.8.2 and cell-eval2 0.20.0 (`compute_ceiling`).
    """
    selected = {"preset": preset, "profile": profile, "metrics": metrics, "skip": skip}
    replicates = open_replicates(real, reading, **selected, exclude_targets=exclude_targets, **options)
    return ceiling_of(replicates, seed, progress)


def ceiling_of(replicates: Replicates, seed: int = 0, progress: Progress | None = None) -> Ceiling:
    """The ceiling of a screen that is ready to be split; see `data_ceiling`."""
    selection = replicates.selection
    reliable = [name for name in selection.metrics if _is_reliability(name)]
    if not reliable:
        raise Refusal(
            what="None of the metrics has a ceiling.",
            where=f"profile {selection.profile!r}: {', '.join(selection.metrics)}",
            why="Only a share or a correlation of replicates grows with depth in a known way.",
            fix="Ask for one: metrics= / --metrics delta_pearson, or leave the ceiling out (--ceiling).",
        )
    # cell-eval reports every metric of the halves, cell-eval2 those that have a ceiling.
    wide = selection.preset.layout == "wide"
    report = replicates.evaluate(seed, list(selection.metrics) if wide else reliable, progress=progress)
    means = {(row.context, row.metric): row.value for row in report.aggregates}
    values = {
        context: {
            name: spearman_brown(means[context, name]) if name in reliable else math.nan for name in selection.metrics
        }
        for context in report.contexts
    }
    return Ceiling(report, values, seed)


def spearman_brown(reliability: float) -> float:
    """The reliability at twice the depth; NaN where it is not positive and tells nothing."""
    return 2 * reliability / (1 + reliability) if reliability > 0 else math.nan


def _is_reliability(name: str) -> bool:
    return name in RELIABILITIES_V1 or name in RELIABILITIES_V2
