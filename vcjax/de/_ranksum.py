"""The exact rank-sum (Mann-Whitney) test of every perturbation against the control cells, on the host in float64."""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np
import scipy.special

from .._compiled import numba_installed
from ._ranksum_cells import CellMatrix, Side, sides_of


Engine = Literal["auto", "numba", "numpy", "jax"]


@dataclasses.dataclass(frozen=True, eq=False)
class RankSums:
    r"""Rank sums of every perturbation and gene against the reference cells.

    **Fields:**

    - `u`: $U$, (perts, genes), the number of pairs in which the perturbed cell is the greater one; a tie counts half.
    - `variance`: $\sigma^2 = \frac{n m}{12} \left(N + 1 - \frac{\sum_t t^3 - t}{N (N - 1)}\right)$ over the tied blocks
        of t cells, $N = n + m$; 0 where all cells are equal, and where a side has no cells.
    - `cells`: n of every perturbation; `control_cells`: m.
    - `sums`: over the cells of the reference and of every perturbation, (perts + 1, genes), of what `Side.sums` says.
    """

    u: np.ndarray
    variance: np.ndarray
    cells: np.ndarray
    control_cells: int
    sums: np.ndarray | None = None

    def z(self, continuity: bool = True) -> np.ndarray:
        r"""$(|U - n m / 2| - 1/2) / \sigma$, at least 0, and 0 where the variance is; without the 1/2 if told so."""
        mean = 0.5 * self.cells * self.control_cells
        distance = np.abs(self.u - mean[:, None])
        distance -= 0.5 * continuity
        some = self.variance > 0
        return np.maximum(distance, 0) / np.sqrt(np.where(some, self.variance, np.inf))

    def log_pvalue(self, continuity: bool = True) -> np.ndarray:
        r"""Natural logarithms of the two-sided p-values $2 \Phi(-z)$, which do not underflow; 0 where z is 0."""
        return np.minimum(math.log(2) + scipy.special.log_ndtr(-self.z(continuity)), 0)


def rank_sums(
    values: CellMatrix,
    codes: np.ndarray,
    groups: int,
    *,
    engine: Engine = "auto",
    threads: int | None = None,
    reference: CellMatrix | None = None,
) -> RankSums:
    """The exact rank-sum test of each group of cells against the reference cells, gene by gene.

    The non-zero values of a gene are sorted once for all groups; its zeros, stored or not, are one block of ties. Sums
    are integers, so that all engines give the same bits. Ties are equality of the values as they are: float32 is ranked
    as float32, float64 as float64, and anything else as float64 (half precision as float32). Memory beside the result
    is that of a few blocks of genes, unless a sparse matrix holds duplicates or is not sorted: then a copy is made.

    **Arguments:**

    - `values`: cells by genes, sparse or dense, of any sign.
    - `codes`: of each cell its group, 0 to `groups - 1`; -1 for a control cell, -2 to leave it out.
    - `engine`: `"numba"` runs compiled loops on the host, `"numpy"` sorts with numpy, `"jax"` sorts on the default
        device of JAX. `"auto"` takes `"jax"` where that is an accelerator, else `"numba"` if it is installed.
    - `threads`: on the host; all cores by default.
    - `reference`: control cells that are rows of another matrix of the same genes; all of them are taken, and `codes`
        then names none.

    A group of no cells, a reference of none, and a gene whose cells are all equal give variance 0, so p = 1.

    **Raises:** `ValueError` for codes that do not fit, NaN, matrices of different genes, an unknown engine, and more
    than 2,097,151 cells in one comparison. `ImportError` where numba is asked for and not installed.
    """
    sides, cells = sides_of(values, codes, groups, reference)
    return rank_sums_of(sides, cells, engine=engine, threads=threads)


def rank_sums_of(
    sides: list[Side], cells: np.ndarray, *, engine: Engine = "auto", threads: int | None = None
) -> RankSums:
    """`rank_sums` of sides that are known to be in order: the reference and the other cells, or one of both."""
    groups, genes = len(cells) - 1, sides[0].matrix.shape[1]
    u, variance = np.zeros((groups, genes)), np.zeros((groups, genes))
    totals = None if sides[0].sums is None else np.zeros((groups + 1, genes))

    def put(first, tallies, sums):
        part = slice(first, first + len(tallies))
        u[:, part], variance[:, part] = statistics(tallies, cells)
        if totals is not None:
            totals[:, part] = sums

    if genes and (groups or totals is not None):
        _engine(engine)(sides, groups, put, threads)
    return RankSums(u, variance, cells[1:], int(cells[0]), totals)


def best_engine() -> Engine:
    """What `"auto"` is here."""
    return "jax" if jax.default_backend() != "cpu" else "numba" if numba_installed() else "numpy"


def _engine(name):
    name = best_engine() if name == "auto" else name
    if name == "jax":
        from ._ranksum_device import device_tallies

        return device_tallies
    from ._ranksum_host import numba_tallies, numpy_tallies

    if name not in ("numba", "numpy"):
        raise ValueError(f'`engine` is "auto", "numba", "numpy" or "jax", got {name!r}.')
    return numba_tallies if name == "numba" else numpy_tallies


def statistics(tallies: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""U and its variance, (perts, genes), from the integers that every engine makes: the shared finish.

    `tallies` is (genes, groups + 1, 4) with the reference as group 0. With B reference items below an item, C up to its
    value, zeros left out of both, they are for each group:

    - the sum of B + C, twice the mid-rank count of its items against the reference;
    - a sum that telescopes to $\sum (a + b)^3 - (a + b) - (a^3 - a)$ over blocks of a reference items and b of its own,
        and for the reference itself to $\sum a^3 - a$;
    - the number of its items, and the number of those that are negative.
    """
    twice, ties, items, negative = (np.moveaxis(tallies, 2, 0)[i].T for i in range(4))
    zeros = cells[:, None] - items
    # Zeros lie above the negative items and below the positive ones.
    twice = twice[1:] + 2 * zeros[0] * (items[1:] - negative[1:]) + zeros[1:] * (2 * negative[0] + zeros[0])
    count, block = cells[0] + cells[1:, None], zeros[0] + zeros[1:]
    free = count**3 - count - (block**3 - block) - ties[0] - ties[1:]
    pairs = cells[0] * cells[1:, None]
    variance = pairs * free.astype(np.float64) / (12.0 * np.maximum(count * (count - 1), 1))
    return 0.5 * twice, variance
