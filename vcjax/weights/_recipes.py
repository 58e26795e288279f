"""The published recipes of gene weights."""

import dataclasses
from collections.abc import Mapping

from ._recipe import WeightRecipe


MEJIA = WeightRecipe("mejia", flat="one", to="none", fallback="nan")
"""Mejia et al., *Diversity by Design*: min-max of |t| (overestimated variance) against the rest, squared.

Made of all cells of a perturbation, those that are scored among them. A perturbation whose scores are all 0 has no
weights, and its WMSE is NaN; one whose scores are all equal has equal weights."""

MILLER = WeightRecipe("miller", least_cells=4, to="none", fallback="nan", cells="first half")
"""Miller et al. 2025: the same of the half of the cells that serves as the truth, for perturbations of four cells and
more; equal scores have no weights."""

SCPERTEVAL = WeightRecipe("scperteval", statistic="welch", to="none", cells="first half")
"""scPertEval 0.2.0: Welch's t, its default test, of the half that serves as the truth against the others' cells
(`pool=` their whole, of which it draws 8,192); min-max, squared, with equal weights where there are none. Its exponents
are 1, 2 and 4."""

SBB = WeightRecipe("sbb", scale="max", exponent=None, target_neff=20.0, to="max")
"""SBB: |t| over its maximum, raised to the power at which 20 genes are effective; ones where all scores are 0."""

ECHOES = WeightRecipe(
    "echoes",
    statistic="moderated",
    versus="control",
    target_masked=True,
    offset=0.1,
    ceiling=10.0,
    scale="max",
    to="sumG",
)
"""Echoes of Silenced Genes 2026: moderated t against the control, cut at 10, over its maximum, squared, the target gene
left out; each row sums to the number of genes."""

VCPI = WeightRecipe("vcpi", statistic="welch", variance="floored")
"""VCPI contest 2026: Welch's t of replicates (of which `Moments` are then made) against all others, no variance below
that of all replicates; min-max, squared, each row summing to 1, equal weights where there are none."""

VCPI_POOLED = dataclasses.replace(VCPI, name="vcpi_pooled", variance="total")
"""Its variant with the variance of all replicates in the place of both."""

CALIBRATED = dataclasses.replace(MEJIA, name="calibrated", target_masked=True, to="sum1", fallback="uniform")
"""This library's choice: Mejia's without the target gene, whose statistic would otherwise set the scale of all others
and often leaves one effective gene. Give it the other half of the cells to score a model (`crossfit`), those of the
truth to score controls."""

RECIPES: Mapping[str, WeightRecipe] = {
    recipe.name: recipe for recipe in (MEJIA, MILLER, SCPERTEVAL, SBB, ECHOES, VCPI, VCPI_POOLED, CALIBRATED)
}
"""All of them by name."""
