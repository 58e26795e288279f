"""The result of an evaluation: a long table, its statistics, and a stamp that says where the numbers come from."""

import dataclasses
import functools
import io
import math
import os
from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

import numpy as np

from ..io import Summary
from ..metrics import Metric
from ._aggregate import Aggregate, aggregate, panel_aggregate
from ._presets import Layout, Preset


if TYPE_CHECKING:
    import pandas as pd

    from ..calibration import EffectCurve
    from ._intervals import ScoreInterval

PANEL = ""  # the perturbation of a row that is about all of them


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """Values of every metric for every perturbation and context.

    **Fields:** `perturbation`, `context`, `metric`, `value`, `status`, `n_pred`, `n_real`, `version` are the columns of
    one long table, of equal length. `perturbation` is empty in the row of a metric that is one number for the panel;
    `context` is empty without contexts; `status` is `ok`, or why the value is undefined (`missing`, `error`, …);
    `n_pred` and `n_real` are cells; `version` names the tool whose definition it is. `metrics` are the catalogue rows
    by column name. `stamp` holds versions, device, dtype, preset, settings and their digest, input fingerprints, notes,
    members of the profile that were not provided, and errors. `tables` are the summaries with their tables of
    differential expression, by context and side (`pred`, `real`), where they were to be kept. `intervals` are those of
    the scores, where they were asked for (`with_intervals`). `curves` tell how large effects are that were predicted of
    some size, `difficulty` what makes each perturbation hard (see `difficulty`), both by context, where they were asked
    for.
    """

    perturbation: np.ndarray
    context: np.ndarray
    metric: np.ndarray
    value: np.ndarray
    status: np.ndarray
    n_pred: np.ndarray
    n_real: np.ndarray
    version: np.ndarray
    metrics: Mapping[str, Metric]
    preset: Preset
    stamp: Mapping[str, Any]
    tables: Mapping[tuple[str, str], Summary] = dataclasses.field(default_factory=dict)
    intervals: tuple["ScoreInterval", ...] = ()
    curves: Mapping[str, "EffectCurve"] = dataclasses.field(default_factory=dict)
    difficulty: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The contexts in order; `("",)` without contexts."""
        return tuple(dict.fromkeys(self.context))

    @property
    def failed(self) -> tuple[str, ...]:
        """Metrics that ended in an error."""
        return tuple(dict.fromkeys(self.metric[self.status == "error"]))

    def perturbations(self, context: str | None = None) -> tuple[str, ...]:
        """The perturbations of one context (of all, in order, if none is named)."""
        rows = self.perturbation != PANEL
        if context is not None:
            rows &= self.context == context
        return tuple(dict.fromkeys(self.perturbation[rows]))

    def values(self, metric: str, context: str | None = None) -> np.ndarray:
        """The values of one metric in the order of the table.

        **Raises:** `KeyError` for a metric that is not in this report.
        """
        return self.value[self._rows(metric, context)]

    def score(self, metric: str, context: str | None = None) -> float:
        """The number to quote for a metric: its `Aggregate.value`, averaged over contexts if none is named."""
        self._rows(metric, context)
        rows = [row for row in self.aggregates if row.metric == metric and context in (None, row.context)]
        return float(np.mean([row.value for row in rows]))

    @functools.cached_property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """Statistics over perturbations, one entry a context and metric."""
        return tuple(self._aggregate(name, context) for context in self.contexts for name in self.metrics)

    def aggregate(self) -> "pd.DataFrame":
        """The statistics as a table: one row a context and metric."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.aggregates])

    def to_pandas(self) -> "pd.DataFrame":
        """The long table."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def columns(self) -> dict[str, np.ndarray]:
        """The long table as plain columns."""
        names = ("perturbation", "context", "metric", "value", "status", "n_pred", "n_real", "version")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python, ready for `json.dump`; undefined numbers are `None`."""
        aggregates = [{key: _plain(x) for key, x in dataclasses.asdict(row).items()} for row in self.aggregates]
        columns = self.columns()
        rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in zip(*columns.values(), strict=True)]
        intervals = [{key: _plain(x) for key, x in dataclasses.asdict(row).items()} for row in self.intervals]
        more = {"intervals": intervals} if intervals else {}
        return {"stamp": dict(self.stamp), "aggregates": aggregates, **more, "rows": rows}

    def summary(self, width: int = 140) -> str:
        """A table of the statistics, as text."""
        from rich.console import Console

        from ._table import summary_table

        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(summary_table(self))
        for note in self.stamp["notes"]:
            console.print(f"note: {note}", highlight=False, markup=False)
        return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]

    def write(self, folder: str | os.PathLike, layout: Layout | None = None, *, force: bool = False) -> tuple[str, ...]:
        """Writes the files of the peer tools into `folder`; see `write_report`."""
        from ._write import write_report

        return write_report(self, folder, layout or self.preset.layout, force=force)

    def _rows(self, metric: str, context: str | None) -> np.ndarray:
        if metric not in self.metrics:
            raise KeyError(f"{metric!r} is not in this report, which has {', '.join(self.metrics)}.")
        rows = self.metric == metric
        return rows if context is None else rows & (self.context == context)

    def _aggregate(self, name: str, context: str) -> Aggregate:
        rows = self._rows(name, context)
        if self.metrics[name].level == "panel":
            total, ratio = len(self.perturbations(context)), name in self.preset.ratios
            return panel_aggregate(float(self.value[rows][0]), total, metric=name, context=context, ratio=ratio)
        missing = np.isin(self.status[rows], self.preset.absent) & np.isnan(self.value[rows])
        return aggregate(self.value[rows], missing, metric=name, context=context, statistics=self.preset.statistics)


def _plain(x: Any) -> Any:
    x = x.item() if isinstance(x, np.generic) else x
    return None if isinstance(x, float) and not math.isfinite(x) else x
