"""What every metric is worth on one measured screen, as tables, as text and as files."""

import dataclasses
import io
import math
import os
from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from ..calibration import Calibration
from ._beside import write_beside
from ._report import _plain
from ._write import _prefixes


if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class ScreenCalibration:
    """Every metric between the controls of a screen, and a prediction beside them if there is one.

    **Fields:**

    - `calibrations`: one of each context (`""` without contexts) and metric; see `vcjax.calibration.Calibration`.
    - `perturbations`: of each context, in the order of the values.
    - `left_out`: metrics that cannot be calibrated, each with the reason.
    - `stamp`: settings, seeds, inputs, notes and versions.
    """

    calibrations: Mapping[tuple[str, str], Calibration]
    perturbations: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]
    stamp: Mapping[str, Any]

    @property
    def contexts(self) -> tuple[str, ...]:
        """The contexts in order; `("",)` without contexts."""
        return tuple(self.perturbations)

    def of(self, context: str = "") -> dict[str, Calibration]:
        """The calibrations of one context by metric.

        **Raises:** `KeyError` for a context that there is none of.
        """
        if context not in self.perturbations:
            raise KeyError(f"There is no context {context!r}; there are {', '.join(map(repr, self.contexts))}.")
        return {name: row for (where, name), row in self.calibrations.items() if where == context}

    def to_pandas(self) -> "pd.DataFrame":
        """One row a context and metric: what the controls and the prediction score, and what follows."""
        import pandas as pd

        return pd.DataFrame([self._row(*key) for key in self.calibrations])

    def controls_to_pandas(self) -> "pd.DataFrame":
        """The long table of values: one row a context, metric, control and perturbation."""
        import pandas as pd

        return pd.DataFrame([dict(zip(_LONG, row, strict=True)) for row in self._long()])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python, ready for `json.dump`; undefined numbers are `None`."""
        rows = [{name: _plain(x) for name, x in self._row(*key).items()} for key in self.calibrations]
        return {"stamp": dict(self.stamp), "left_out": dict(self.left_out), "rows": rows}

    def summary(self, width: int = 140, *, notes: bool = True) -> str:
        """A table of what the controls score, with a verdict for each metric, as text; with the notes of the stamp."""
        from rich.console import Console

        from ._calibration_table import calibration_table, verdict_lines

        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        for context in self.contexts:
            console.print(calibration_table(self, context))
            for line in verdict_lines(self, context):
                console.print(line, highlight=False, markup=False)
        for name, why in self.left_out.items():
            console.print(f"not calibrated: {name}: {why}", highlight=False, markup=False)
        for note in self.stamp["notes"] if notes else ():
            console.print(f"note: {note}", highlight=False, markup=False)
        return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]

    def write(self, folder: str | os.PathLike, *, force: bool = False) -> tuple[str, ...]:
        """Writes `calibration_results.csv` and `control_results.csv`, beside those of a run if there is one.

        **Raises:** `vcjax.io.Refusal` if the folder holds such files already (unless `force`).
        """
        tables: dict[str, list[list[Any]]] = {}
        for context, prefix in _prefixes(self.contexts).items():
            rows = [self._row(where, name) for where, name in self.calibrations if where == context]
            columns = list(dict.fromkeys(name for row in rows for name in row if name != "context"))
            tables[f"{prefix}calibration_results.csv"] = [columns, *([row.get(x) for x in columns] for row in rows)]
            long = [list(row[1:]) for row in self._long() if row[0] == context]
            tables[f"{prefix}control_results.csv"] = [list(_LONG[1:]), *long]
        return write_beside(folder, tables, "calibration", self.stamp, force=force)

    def _row(self, context: str, name: str) -> dict[str, Any]:
        found = self.calibrations[context, name]
        pair = found.decisive
        shares = (math.nan, math.nan) if pair is None else pair.discrimination_interval
        return {
            "context": context,
            "metric": name,
            **{control: found.mean(control) for control in found.values},
            "perfect": math.nan if found.perfect is None else found.perfect,
            "drf": math.nan if pair is None else pair.fraction.median,
            "drf_low": math.nan if pair is None else pair.fraction.low,
            "drf_high": math.nan if pair is None else pair.fraction.high,
            "bds": math.nan if pair is None else pair.discrimination,
            **dict(zip(("bds_low", "bds_high"), shares, strict=True)),
            "score": found.score,
            **dict(zip(("score_low", "score_high"), found.score_interval, strict=True)),
            "score_over_null": found.score_over_null,
            "separates": found.separates,
            "verdict": found.verdict,
        }

    def _long(self) -> list[tuple[Any, ...]]:
        rows = []
        for (context, name), found in self.calibrations.items():
            panel = found.metric.level == "panel"
            labels = ("",) if panel else self.perturbations[context]
            for control, values in found.values.items():
                role = found.roles.get(control, "prediction")
                rows += [
                    (context, name, control, role, label, float(x)) for label, x in zip(labels, values, strict=True)
                ]
        return rows


_LONG = ("context", "metric", "control", "role", "perturbation", "value")
