"""The conventions of a table of differential expression: whose fold change, whose p-value, which genes."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class DESettings:
    """What decides the numbers of a table. The defaults are those of cell-eval2's preset `v2`.

    **Fields:**

    - `target_sum`: the library size that counts are scaled to; `None` for the median of the positive totals of the
        side's own cells. Log-normalised cells are taken as they are.
    - `values`: the precision in which counts are divided and their logarithm is taken. Ties between cells are decided
        by the last bit: `"double"` is cell-eval2's, `"stored"` (normally float32) cell-eval's.
    - `mean`: of a group, what the fold change is of: `"arithmetic"` of the linear values, or `"geometric"`,
        `expm1` of the mean of the logarithms.
    - `pseudocount`: added to both means.
    - `clip`: the fold change where only the control's mean is zero, and its inverse where only the other is (equal
        means of zero: 1); `None` leaves what the pseudocount gives, infinite without one, and 0/0 is no change.
    - `min_cpm`: keeps the genes of which the control has more counts per million, so that both sides and all
        perturbations test the same genes; `None` keeps all. It needs counts and the arithmetic mean.
    - `scope`: whether the Benjamini–Hochberg adjustment is within each perturbation or `"pooled"` over all.
    - `mask_nan`: genes without a fold change get an adjusted p-value of 1.
    - `rounded`: fold changes and adjusted p-values are rounded to float32, as a tool does that keeps its tables so.
    - `continuity`: whether the rank-sum statistic is corrected by half a unit.
    """

    target_sum: float | None = 1e6
    values: Literal["double", "stored"] = "double"
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    pseudocount: float = 1e-9
    clip: float | None = None
    min_cpm: float | None = 5.0
    scope: Literal["perturbation", "pooled"] = "perturbation"
    mask_nan: bool = True
    rounded: bool = False
    continuity: bool = True

    def __post_init__(self) -> None:
        if self.target_sum is not None and not 0 < self.target_sum < float("inf"):
            raise ValueError(f"`target_sum` must be positive, got {self.target_sum}.")
        if not self.pseudocount >= 0:
            raise ValueError(f"`pseudocount` must not be negative, got {self.pseudocount}.")
        if self.clip is not None and not self.clip > 1:
            raise ValueError(f"`clip` must be above 1, got {self.clip}.")
        if self.min_cpm is not None and (self.mean != "arithmetic" or self.target_sum is None):
            raise ValueError("`min_cpm` is of the arithmetic mean of counts scaled to a known `target_sum`.")


CELL_EVAL2_DE = DESettings()
"""cell-eval2 0.20.0, preset `v2`."""

CELL_EVAL_DE = DESettings(
    target_sum=None, values="stored", mean="geometric", pseudocount=0.0, min_cpm=None, mask_nan=False, rounded=True
)
"""cell-eval 0.8.2 with pdex 0.3."""

VCC2025_DE = dataclasses.replace(CELL_EVAL_DE, clip=20.0, scope="pooled")
"""The scorer of the Virtual Cell Challenge 2025: cell-eval 0.6.6 with pdex 0.1.27."""
