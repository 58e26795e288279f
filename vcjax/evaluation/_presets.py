"""Presets: whose conventions an evaluation follows, and the sets of metrics those tools call profiles."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ..io import CELL_EVAL2_DE, CELL_EVAL_DE, DESettings, VCC2025_DE
from ..metrics import CATALOGUE, CELL_EVAL, Metric, V2
from ..weights import CALIBRATED, ECHOES, WeightRecipe
from ._profiles import DEFAULTS, PROFILES
from ._weighting import WeightsFrom


Layout = Literal["wide", "long"]
Statistics = Literal["describe", "finite"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """The conventions of one evaluation tool: they change the numbers, not only the names.

    **Fields:**

    - `source`: the package and version whose numbers are reproduced.
    - `space`: `auto` compares pseudobulks of counts where both sides are counts and means of log-normalised cells
        otherwise; `lognorm` always compares the latter.
    - `bulk_target_sum`: the library size that a pseudobulk of counts is scaled to.
    - `target_sum`: the library size that cells given as counts are scaled to before `log1p`, and that log-normalised
        cells are taken to have been scaled to; `None` for the median total of that side's cells.
    - `control_source`: whether effects of the prediction are measured from the real or from its own control.
    - `de`: how tables of differential expression are made.
    - `metrics`: the rows this release computes; `profiles`: the members of every named set, computed here or not;
        `default`: the set that is computed if none is named.
    - `left_out`: members that are omitted with a note instead of refusing the profile, each with the reason.
    - `layout`: the default shape of the files; `statistics`: how aggregates treat undefined values, see `Aggregate`.
    - `ratios`: panel metrics that are a ratio of sums over perturbations.
    - `float32_profiles`: profiles are rounded to float32, as a tool keeps them whose cells are float32.
    - `absent`: the statuses for which the tool has no row, instead of an undefined value.
    - `rank_options`: how discrimination scores are built, for a caller who excludes other targets than the preset does.
    - `weights`, `weights_from`: the gene weights of metrics that need them, and what they are made of.
    """

    name: str
    source: str
    summary: str
    space: Literal["auto", "lognorm"]
    bulk_target_sum: float
    target_sum: float | None
    control_source: Literal["real", "pred"]
    de: DESettings
    metrics: Mapping[str, Metric]
    profiles: Mapping[str, tuple[str, ...]]
    default: str
    layout: Layout
    statistics: Statistics
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ratios: tuple[str, ...] = ()
    float32_profiles: bool = False
    absent: tuple[str, ...] = ("missing",)
    rank_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: WeightRecipe = CALIBRATED
    weights_from: WeightsFrom = "other-half"

    def provided(self, profile: str) -> bool:
        """Whether every member of a profile is computed by this release, or left out by declaration."""
        return all(name in self.metrics or name in self.left_out for name in self.profiles[profile])


_V2 = Preset(
    name="v2",
    source="cell-eval2 0.20.0",
    summary="Control of the measured side for both, whole-panel target exclusion, mid-ranks, counts as pseudobulks.",
    space="auto",
    bulk_target_sum=5e4,
    target_sum=1e6,
    control_source="real",
    de=CELL_EVAL2_DE,
    metrics=V2,
    profiles=PROFILES["v2"],
    default=DEFAULTS["v2"],
    layout="long",
    statistics="finite",
    ratios=("expr_mse_unbiased_capped_norm",),
    rank_options={"control": "real"},
)

_VCC2026 = dataclasses.replace(
    _V2,
    name="vcc2026",
    summary="The Virtual Cell Challenge of 2026: six scored metrics and four diagnostics, as v2 computes them.",
    profiles=PROFILES["vcc2026"],
    default=DEFAULTS["vcc2026"],
)

_CELL_EVAL = Preset(
    name="cell_eval",
    source="cell-eval 0.8.2",
    summary="Each side's own control, own-gene exclusion by label, ranks by position, means of log-normalised cells.",
    space="lognorm",
    bulk_target_sum=5e4,
    target_sum=None,
    control_source="pred",
    de=CELL_EVAL_DE,
    metrics=CELL_EVAL,
    profiles=PROFILES["cell_eval"],
    default=DEFAULTS["cell_eval"],
    layout="wide",
    statistics="describe",
    left_out={"clustering_agreement": "it is the Leiden clustering of a graph, whose result hangs on one library"},
    float32_profiles=True,
    absent=("missing", "no_significant_genes"),
    rank_options={"control": "pred", "ties": "position", "denominator": "n"},
)

_VCC2025 = dataclasses.replace(
    _CELL_EVAL,
    name="vcc2025",
    source="cell-eval 0.6.6",
    summary="The Virtual Cell Challenge of 2025: as cell_eval, with p-values adjusted over all perturbations at once.",
    de=VCC2025_DE,
    profiles=PROFILES["vcc2025"],
    default=DEFAULTS["vcc2025"],
    left_out={},
)

_CALIBRATED = dataclasses.replace(
    _V2,
    name="calibrated",
    source="vcjax",
    summary="Discrimination beside magnitude: ranks, weighted errors beyond the mean of perturbations, amplitude.",
    space="lognorm",
    target_sum=1e4,
    metrics={name: CATALOGUE[name] for name in PROFILES["calibrated"]["full"]},
    profiles=PROFILES["calibrated"],
    default=DEFAULTS["calibrated"],
    ratios=(),
)

_ECHOES = dataclasses.replace(
    _CALIBRATED,
    name="echoes",
    source="Echoes of Silenced Genes (Myllia, Kaggle 2026)",
    summary="Halvings of a baseline's weighted error times a gated cosine of effects, and what that composite hides.",
    metrics={name: CATALOGUE[name] for name in ("echoes", "echoes_term", *PROFILES["calibrated"]["standard"])},
    profiles=PROFILES["echoes"],
    default=DEFAULTS["echoes"],
    weights=ECHOES,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (_CALIBRATED, _V2, _VCC2026, _CELL_EVAL, _VCC2025, _ECHOES)
}
