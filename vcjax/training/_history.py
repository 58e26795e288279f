"""What happened in a training, as a table."""

import dataclasses
import pathlib
from typing import Any, TYPE_CHECKING

import numpy as np

from .._files import replacing


if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class History:
    """One row a step, and one an evaluation.

    **Fields:**

    - `steps`: of each step, on its minibatch and before it moves: `step`, the smooth `loss`, the `gradient`'s norm, and
        of each term `NAME.exact`, `NAME.soft`, `NAME.gap` and `NAME.undefined` (see `vcjax.losses.Parts`).
    - `evaluations`: of each evaluation, with exact metrics and without dropout: `step`, `seconds` since the start,
        `monitor` (what the best model is chosen by) and one column a metric. On the validation data, or on the training
        data where there are none.
    """

    steps: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def column(self, name: str, *, of: str = "evaluations") -> np.ndarray:
        """One column of either table.

        **Raises:** `KeyError` for a column that is not there.
        """
        rows: list[dict[str, Any]] = getattr(self, of)
        if rows and name not in rows[0]:
            raise KeyError(f"No column {name!r} of {of}; there are {', '.join(rows[0])}.")
        return np.array([row[name] for row in rows])

    def to_pandas(self, *, of: str = "evaluations") -> "pd.DataFrame":
        """Either table as a data frame."""
        import pandas as pd

        return pd.DataFrame(getattr(self, of))

    def write_csv(self, path: str | pathlib.Path, *, of: str = "evaluations") -> None:
        """Writes either table; a file that is there is replaced when the new one is whole."""
        with replacing(path) as partial:
            self.to_pandas(of=of).to_csv(partial, index=False)
