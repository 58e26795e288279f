"""The result of a comparison: one row a metric, as a table, as text, and as plain values."""

import dataclasses
import io
import math
from typing import Any, TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class ComparedMetric:
    """One metric of two models on the same perturbations (of one context, or of all).

    **Fields:**

    - `agg`: `mean`; `ratio_of_sums`, or `number` for a metric of the panel that cannot be taken apart.
    - `a`, `b`: the aggregate of each model over the `used` perturbations of `total`. `filled_a`, `filled_b` count those
        where that model alone has no value and got the value without skill.
    - `difference`: a − b, with its interval `low` to `high`.
    - `pvalue`: of the test that swaps the models within perturbations; `adjusted` for the number of metrics;
        `wilcoxon`: of the signed-rank test, which a single perturbation cannot carry.
    - `won`: the share of perturbations where A is better, ties one half.
    - `carrier`: the perturbation with the largest influence on the difference; `without_carrier`: the difference
        without it.
    - `verdict`: the better model's name, `no difference shown`, or empty where nothing can be said: a diagnostic has no
        good direction, a panel's number no interval.
    """

    metric: str
    context: str
    agg: str
    higher_is_better: bool | None
    a: float = math.nan
    b: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    pvalue: float = math.nan
    adjusted: float = math.nan
    wilcoxon: float = math.nan
    won: float = math.nan
    used: int = 0
    total: int = 0
    filled_a: int = 0
    filled_b: int = 0
    carrier: str = ""
    without_carrier: float = math.nan
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models side by side: one row a metric and context, and how the rows were made.

    **Fields:** `rows`; `names` and `sources` of A and B; `preset`; `level`, `method`, `samples` of the intervals;
    `permutations`, `correction` of the p-values; `undefined`, `seed`; `notes`.
    """

    rows: tuple[ComparedMetric, ...]
    names: tuple[str, str]
    sources: tuple[str, str]
    preset: str
    level: float
    method: str
    samples: int
    permutations: int
    correction: str
    undefined: str
    seed: int
    notes: tuple[str, ...] = ()

    def row(self, metric: str, context: str | None = None) -> ComparedMetric:
        """The row of a metric, of the first context unless one is named.

        **Raises:** `KeyError` for a metric or context that was not compared.
        """
        for row in self.rows:
            if row.metric == metric and context in (None, row.context):
                return row
        known = ", ".join(dict.fromkeys(row.metric for row in self.rows))
        raise KeyError(f"{metric!r} (context {context!r}) was not compared; there are {known}.")

    def to_pandas(self) -> "pd.DataFrame":
        """One row a metric and context."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python, ready for `json.dump`; undefined numbers are `None`."""
        plain = dataclasses.asdict(self)
        tidy = lambda x: None if isinstance(x, float) and not math.isfinite(x) else x
        plain["rows"] = [{key: tidy(x) for key, x in row.items()} for row in plain["rows"]]
        return plain

    def summary(self, width: int = 140) -> str:
        """The comparison as a text table, with how to read it."""
        from rich.console import Console

        from ._compare_table import compare_table, reading

        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(compare_table(self))
        for line in reading(self):
            console.print(line, highlight=False, markup=False)
        return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
