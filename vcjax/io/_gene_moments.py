"""Mean, variance and sampling noise of every gene in every group of cells, in one or two walks over a screen."""

import dataclasses
from typing import Any, TYPE_CHECKING

import numpy as np

from ._context import cell_groups
from ._errors import Refusal
from ._matrix import BLOCK_ENTRIES
from ._pseudobulk import cell_totals, Done, entries
from ._screen import Screen


if TYPE_CHECKING:
    from ..de import Moments


@dataclasses.dataclass(frozen=True, eq=False)
class GeneMoments:
    """Mean and variance (ddof 1) of the log-normalised cells of each group, as float64; the control is the last row.

    A group of one cell has variance 0, one without cells mean 0.
    """

    mean: np.ndarray
    variance: np.ndarray
    cells: np.ndarray

    @property
    def noise(self) -> np.ndarray:
        """The sampling variance of each mean: variance over number of cells; 0 for fewer than two cells (not known)."""
        return self.variance / np.maximum(self.cells, 1)[:, None]

    def to_moments(self, rows: Any) -> "Moments":
        """Those of some groups as arrays on the device, in JAX's default float dtype."""
        import jax.numpy as jnp

        from ..de import Moments

        dtype = jnp.result_type(float)
        return Moments(*(jnp.asarray(x[rows], dtype) for x in (self.mean, self.variance, self.cells)))


def gene_moments(
    screen: Screen,
    *,
    target_sum: float | None = None,
    context: str | None = None,
    max_entries: int = BLOCK_ENTRIES,
    done: Done | None = None,
) -> GeneMoments:
    """Moments of log-normalised cells, normalised as `summarise(space="lognorm")` does.

    **Arguments:** `target_sum`: the library size that counts are scaled to, the median of the positive totals of these
    cells by default; cells that are log-normalised already are taken as they are.

    **Raises:** `Refusal` for an unknown context.
    """
    groups = cell_groups(screen, context)
    sizes = np.bincount(groups[groups >= 0], minlength=len(screen.perts) + 1)
    divisors = None
    if screen.scale == "counts":
        totals = cell_totals(screen.matrix, max_entries) if screen.totals is None else screen.totals
        positive = totals[(groups >= 0) & (totals > 0)]
        middle = float(np.median(positive)) if len(positive) else 1.0
        divisors = totals / (middle if target_sum is None else target_sum)
    genes = screen.matrix.shape[1]
    sums, squares = np.zeros((2, len(sizes), genes))
    for some in entries(screen.matrix, groups, max_entries, done):
        values = some.values
        if divisors is not None:
            values = np.log1p(values / np.repeat(divisors[some.cells].astype(values.dtype), some.lengths))
        values = values.astype(np.float64)
        np.add.at(sums.reshape(-1), some.places, values)
        np.add.at(squares.reshape(-1), some.places, values * values)
    n = np.maximum(sizes, 1)[:, None]
    mean = sums / n
    variance = np.maximum(squares - n * mean * mean, 0) / np.maximum(n - 1, 1)
    return GeneMoments(mean, np.where(n > 1, variance, 0.0), sizes)


def bulk_gene_noise(
    screen: Screen, *, target_sum: float = 5e4, context: str | None = None, max_entries: int = BLOCK_ENTRIES
) -> np.ndarray:
    r"""Sampling variance of each gene of the log-normalised group sums, (groups, genes), the control last.

    With the share $\pi_g = P_g / S$ of a gene in its group and $x_g = s \pi_g$, to first order in the cells' weights,

    $$\left(\frac{s}{1 + x_g}\right)^2 \frac{n}{n - 1} \sum_i \frac{(y_{ig} - \pi_g L_i)^2}{S^2},$$

    which is the linear part of the delete-one jackknife. 0 for fewer than two cells (not known, rather than small).

    **Raises:** `Refusal` for cells that are not counts, and for an unknown context.
    """
    if screen.scale != "counts":
        raise Refusal(
            what=f"The noise of pseudobulks of counts is asked of cells that are {screen.scale}.",
            where=screen.name,
            why="A sum of logarithms is no number of counts.",
            fix="give counts, or use means of log-normalised cells: space='lognorm'.",
        )
    groups = cell_groups(screen, context)
    sizes = np.bincount(groups[groups >= 0], minlength=len(screen.perts) + 1)
    totals = cell_totals(screen.matrix, max_entries) if screen.totals is None else screen.totals
    genes = screen.matrix.shape[1]
    sums, squares, cross = np.zeros((3, len(sizes), genes))
    for some in entries(screen.matrix, groups, max_entries):
        values = some.values.astype(np.float64)
        np.add.at(sums.reshape(-1), some.places, values)
        np.add.at(squares.reshape(-1), some.places, values * values)
        np.add.at(cross.reshape(-1), some.places, values * np.repeat(totals[some.cells], some.lengths))
    kept = groups >= 0
    depth = np.bincount(groups[kept], totals[kept] ** 2, minlength=len(sizes))[:, None]
    whole = sums.sum(axis=1, keepdims=True)
    share = np.divide(sums, whole, out=np.zeros_like(sums), where=whole > 0)
    spread = np.maximum(squares - 2 * share * cross + share * share * depth, 0)
    n = np.maximum(sizes, 2)[:, None].astype(np.float64)
    slope = np.divide(target_sum, whole, out=np.zeros_like(whole), where=whole > 0) / (1 + target_sum * share)
    return np.where(sizes[:, None] >= 2, slope * slope * spread * n / (n - 1), 0.0)
