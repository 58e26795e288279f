"""The table of baselines: rows and plain values."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class BaselineRow:
    """One baseline on one metric.

    **Fields:**

    - `role`: `competitor`, `null` or `oracle`; `fairness`: what it was allowed to see.
    - `value`, `low`, `high`: the mean over the held-out perturbations with its interval; of a metric of the panel the
        mean of its numbers in the folds (or its number over all), with that of the jackknife over perturbations.
        `used`: perturbations with a value.
    - `covered`: perturbations of which the baseline had something specific to say; `covered_value`: the mean over
        these; `mean_on_covered`: what the mean response scores on the same ones.
    - `gain`, `gain_low`, `gain_high`: how much better than the mean response on the same perturbations, positive for
        better whatever the metric's direction.
    - `best`: whether it has the best value of all competitors. `status`: `ok`, or why there is no value.
    - `against`: `all` cells of the held-out perturbations, or `half` of them (duplicates).
    """

    baseline: str
    role: str
    fairness: str
    metric: str
    higher_is_better: bool | None
    value: float
    low: float
    high: float
    used: int = 0
    covered: int = 0
    covered_value: float = math.nan
    mean_on_covered: float = math.nan
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    best: bool = False
    status: str = "ok"
    against: str = "all"


@dataclasses.dataclass(frozen=True, eq=False)
class BaselineTable:
    """All baselines on held-out perturbations of one screen.

    **Fields:** `rows`; `skipped`: baselines that could not be fitted, with the reason; `source`, the screen; `perts`,
    the held-out perturbations; `folds`, `space`, `level`, `samples`, `seed`: how it was made; `notes`.
    """

    rows: tuple[BaselineRow, ...]
    skipped: Mapping[str, str]
    source: str
    perts: tuple[str, ...]
    folds: int | str
    space: str
    level: float
    samples: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, in order."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def row(self, baseline: str, metric: str, against: str = "all") -> BaselineRow:
        """One row.

        **Raises:** `KeyError` where there is none.
        """
        for row in self.rows:
            if (row.baseline, row.metric, row.against) == (baseline, metric, against):
                return row
        raise KeyError(f"There is no row of {baseline!r} on {metric!r} against {against} cells.")

    def best(self) -> dict[str, str]:
        """The competitor to beat on each metric that has a good direction."""
        return {row.metric: row.baseline for row in self.rows if row.best}

    def to_pandas(self) -> "pd.DataFrame":
        """One row a baseline and metric."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python, ready for `json.dump`; undefined numbers are `None`."""
        tidy = lambda x: None if isinstance(x, float) and not math.isfinite(x) else x
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["rows"] = [{key: tidy(x) for key, x in dataclasses.asdict(row).items()} for row in self.rows]
        return {**plain, "skipped": dict(self.skipped), "best": self.best()}

    def summary(self, width: int = 180) -> str:
        """The table as text: one block a metric, which baseline is the one to beat, and how to read it."""
        from ._baseline_text import table_text

        return table_text(self, width)
