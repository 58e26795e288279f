r"""Sampling noise of a profile from its cells: $\mathbb{E}\lVert\bar x_p - \mathbb{E}\bar x_p\rVert^2$, over all genes.

Groups of fewer than two cells give 0, as in cell-eval2: their noise is not known, it is not small.
"""

import numpy as np

from ._matrix import Matrix, n_rows
from ._pseudobulk import bulk_lognorm, compiled_loops, Done, entries, sums_of_cells


# Up to here the power series of the logarithm is exact to rounding in at most 17 terms.
_SERIES_LIMIT = 0.1
_DENSE_ENTRIES = 262_144


def analytic_noise(sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    r"""$\operatorname{tr} \hat\Sigma_p / n_p$ of a mean of cells, from the sums of $x_c$ and $\lVert x_c \rVert^2$."""
    n = np.maximum(sizes, 2).astype(np.float64)
    spread = squares - np.einsum("pg,pg->p", sums, sums) / n
    return np.where(sizes >= 2, np.maximum(spread, 0) / ((n - 1) * n), 0.0)


def jackknife_noise(
    matrix: Matrix,
    groups: np.ndarray,
    sums: np.ndarray,
    totals: np.ndarray,
    target_sum: float,
    max_entries: int,
    done: Done | None = None,
) -> np.ndarray:
    r"""Delete-one jackknife of the log-normalised group sum, in time proportional to the stored entries.

    $$C_p = \frac{n_p - 1}{n_p} \sum_g \sum_{i \in p} (v_{ig} - \bar v_g)^2, \qquad
    v_{ig} = \log\left(1 + s\, \frac{P_{pg} - y_{ig}}{S_p - L_i}\right)$$

    With $x_g = s P_{pg} / S_p$, $u_g = x_g / (1 + x_g)$ and $\delta_i = L_i / (S_p - L_i)$, the deviation from the
    profile $b$ itself is $v_{ig} - b_g = \log(1 + u_g \delta_i - \frac{s}{1 + x_g} \frac{y_{ig}}{S_p - L_i})$. Where
    $y_{ig} = 0$ it depends on the cell through $\delta_i$ alone, so that sums over all cells of a group follow from a
    few power sums of $\delta$. The stored entries are then visited once, to replace the deviation that they would have
    as zeros by the one that they have.

    **Arguments:** the `groups` of the cells (-1: leave out), the `sums` $P$ of each group, the `totals` $L$ of each
    cell. Counts must be non-negative. A cell that carries all counts of its group leaves $v_i = 0$.
    """
    sizes = np.bincount(groups[groups >= 0], minlength=len(sums))
    group_totals = sums.sum(axis=1)
    rest = group_totals[groups] - totals
    # Counts are whole numbers, so that a remainder this small is rounding.
    alone = rest <= 1e-12 * group_totals[groups]
    share = np.divide(1, rest, out=np.zeros_like(rest), where=~alone)
    delta = totals * share

    scale = target_sum / np.where(group_totals > 0, group_totals, np.inf)
    counted = np.where((groups >= 0) & (sizes[groups] >= 2), groups, -1)
    walk = matrix, counted, scale[:, None] * sums, delta, target_sum * share, max_entries, done
    loops = compiled_loops(matrix)
    first, second = _replace_stored(*walk) if loops is None else _replace_compiled(loops, *walk)

    noise = np.zeros(len(sums))
    cells_of = _members(groups, len(sums))
    for group in np.flatnonzero((sizes >= 2) & (group_totals > 0)):
        n, cells = sizes[group], cells_of[group]
        lost = np.count_nonzero(alone[cells])
        bulk = bulk_lognorm(sums[group : group + 1], target_sum)[0]
        x = scale[group] * sums[group]
        zeros, squares = _zero_deviations(x / (1 + x), delta[cells[~alone[cells]]])
        deviation = first[group] + zeros - lost * bulk
        total = second[group] + squares.sum() + lost * _square(bulk) - _square(deviation) / n
        noise[group] = max(total, 0.0) * (n - 1) / n
    return noise


def _replace_stored(matrix, groups, scaled, delta, share, max_entries, done):
    """The sums over all stored entries of what they change: of deviations by group and gene, of squares by group."""
    first, second = np.zeros_like(scaled), np.zeros(len(scaled))
    for some in entries(matrix, groups, max_entries, done):
        rates = delta[some.cells], share[some.cells]
        x = scaled.reshape(-1).take(some.places)
        less, squares = _replaced(x, some.values, *(np.repeat(rate, some.lengths) for rate in rates))
        np.add.at(first.reshape(-1), some.places, less)
        np.add.at(second, some.groups, sums_of_cells(squares, some.lengths))
    return first, second


def _replace_compiled(loops, matrix, groups, scaled, delta, share, max_entries, done):
    """`_replace_stored` in compiled loops: equal but for the rounding of logarithms and of the sums of squares."""
    first, second, rest = np.zeros_like(scaled), np.zeros(len(scaled)), 1 / (1 + scaled)
    for start, block in matrix.chunks(max_entries):
        stop = start + n_rows(block)
        cells = slice(start, stop)
        csr = block.indptr, block.indices, block.data
        loops.replace_deviations(*csr, groups[cells], delta[cells], share[cells], scaled, rest, first, second)
        if done is not None:
            done(stop)
    return first, second


def _square(x: np.ndarray) -> float:
    """`x @ x`, the same on any number of threads: a BLAS may split it, and gains nothing at this length."""
    return float(np.einsum("i,i->", x, x))


def _members(groups: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """The cells of each group."""
    ends = np.cumsum(np.bincount(groups + 1, minlength=num_groups + 1))
    return np.split(np.argsort(groups, kind="stable"), ends)[1:-1]


def _replaced(x: np.ndarray, counts: np.ndarray, delta: np.ndarray, share: np.ndarray):
    """The true deviation of each entry, less the one that it has as a zero; and the same of the squares.

    `x` is the scaled profile, `delta` and `share` those of the entry's cell; `x` and `delta` are overwritten.
    """
    rest = 1 / (1 + x)
    delta *= x
    delta *= rest
    share = share * counts
    share *= rest
    true = np.subtract(delta, share, out=share)
    as_zero = np.log1p(delta, out=delta)
    np.log1p(true, out=true)
    less = true - as_zero
    true += as_zero
    true *= less
    return less, true


def _zero_deviations(u: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""$\sum_i \log(1 + u_g \delta_i)$ and $\sum_i \log(1 + u_g \delta_i)^2$ for every gene."""
    small = delta <= _SERIES_LIMIT
    first, second = _series(u, delta[small])
    large = delta[~small]
    step = max(1, _DENSE_ENTRIES // len(u))
    for start in range(0, len(large), step):
        deviation = np.log1p(np.multiply.outer(large[start : start + step], u))
        first += deviation.sum(axis=0)
        second += np.einsum("ig,ig->g", deviation, deviation)
    return first, second


def _series(u: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""The same by power series.

    $\log(1 + z) = \sum_k (-1)^{k+1} z^k / k$ and $\log(1 + z)^2 = \sum_k (-1)^k (2 H_{k-1} / k) z^k$, with $H$ the
    harmonic numbers, cut where the next term is below the rounding of the leading one.
    """
    first, second = np.zeros_like(u), np.zeros_like(u)
    largest = delta.max(initial=0.0) * u.max(initial=0.0)
    if largest == 0:
        return first, second
    order = 2 + int(np.ceil(16 / -np.log10(largest)))
    powers = [np.sum(delta**k) for k in range(order + 1)]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, order + 1))])
    for k in range(order, 0, -1):
        first = u * ((-1) ** (k + 1) * powers[k] / k + first)
        second = u * ((-1) ** k * 2 * harmonic[k - 1] / k * powers[k] + second)
    return first, second
