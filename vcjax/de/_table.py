"""What a differential-expression test leaves: one row of genes a perturbation."""

import dataclasses

import equinox as eqx
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class DETable(eqx.Module):
    r"""Differential expression of every perturbation against the control cells, as a pytree of arrays.

    **Fields:**

    - `log2_fold_change`: $\log_2$ of the ratio of means; infinite where a mean is zero and there is no pseudocount, NaN
        where it is undefined.
    - `log_pvalue`, `log_padj`: natural logarithms of the p-value and of the adjusted one, since a p-value of a screen
        of many cells underflows in float32 and in float64.
    - `tested`: which genes are in the table of a perturbation. What is not tested is in no significant set, in no
        ranked list and in no universe; its other entries mean nothing.
    - `z`: size of the test statistic in standard errors, which smooth significance is made of.
    - `name_order`: rank of each gene's name among the names, the last key where all else is tied; `None` stands for the
        order of the genes.
    """

    log2_fold_change: Float[Array, "perts genes"]
    log_pvalue: Float[Array, "perts genes"]
    log_padj: Float[Array, "perts genes"]
    tested: Bool[Array, "perts genes"]
    z: Float[Array, "perts genes"] | None = None
    name_order: Int[Array, " genes"] | None = None

    def take(self, rows: Int[ArrayLike, " taken"]) -> "DETable":
        """The table of these perturbations, in this order."""
        of_perts = {name: getattr(self, name) for name in ("log2_fold_change", "log_pvalue", "log_padj", "tested", "z")}
        return dataclasses.replace(self, **{name: x[rows] for name, x in of_perts.items() if x is not None})
