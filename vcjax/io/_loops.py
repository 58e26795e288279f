"""The compiled loops of walks over cells. Imported only where numba is to be used."""

from typing import no_type_check

import numpy as np

from .._compiled import compiled


_SMALL = 0.25  # up to here ten terms of the series below are exact to rounding


@compiled
@no_type_check  # what checks annotations wraps a function in another that numba cannot compile
def add_rows(indptr, indices, values, groups, sums):
    """Adds each row to that of `sums` which is its group (-1: none), entry by entry."""
    for r in range(groups.size):
        group = groups[r]
        if group >= 0:
            for k in range(indptr[r], indptr[r + 1]):
                sums[group, indices[k]] += np.float64(values[k])


@compiled
@no_type_check
def _log1p(z, out):
    """log(1 + z) = 2 artanh(z / (2 + z)), by its series where z is small; loops without a branch become vectors."""
    for i in range(z.size):
        w = z[i] / (2.0 + z[i])
        q = w * w
        series = 1 / 19 + q * (1 / 21)
        series = 1 / 15 + q * (1 / 17 + q * series)
        series = 1 / 11 + q * (1 / 13 + q * series)
        series = 1 / 7 + q * (1 / 9 + q * series)
        series = 1 / 3 + q * (1 / 5 + q * series)
        out[i] = 2.0 * w * (1.0 + q * series)
    for i in range(z.size):
        if abs(z[i]) > _SMALL:
            out[i] = np.log1p(z[i])


@compiled
@no_type_check
def replace_deviations(indptr, indices, counts, groups, delta, share, scaled, rest, first, second):
    """Adds, for each entry, its true deviation less the one it has as a zero, and the same of the squares.

    See `jackknife_noise`: `delta` and `share` (times the target sum) of each row, -1 in `groups` for a row to leave
    out; `scaled`, the profiles x of the groups, and `rest`, 1 / (1 + x).
    """
    longest = 0
    for r in range(groups.size):
        longest = max(longest, indptr[r + 1] - indptr[r])
    zero, true, as_zero, as_it_is = np.empty(longest), np.empty(longest), np.empty(longest), np.empty(longest)
    for r in range(groups.size):
        group, start, size = groups[r], indptr[r], indptr[r + 1] - indptr[r]
        if group < 0:
            continue
        for i in range(size):
            gene = indices[start + i]
            zero[i] = delta[r] * scaled[group, gene] * rest[group, gene]
            true[i] = zero[i] - share[r] * counts[start + i] * rest[group, gene]
        _log1p(zero[:size], as_zero)
        _log1p(true[:size], as_it_is)
        total = 0.0
        for i in range(size):
            less = as_it_is[i] - as_zero[i]
            first[group, indices[start + i]] += less
            total += less * (as_it_is[i] + as_zero[i])
        second[group] += total


@compiled
@no_type_check
def copy_entries(places, lengths, values, columns, offset, out_values, out_columns):
    """Copies runs of entries one behind the other, with `offset` less in each column."""
    to = 0
    for r in range(places.size):
        for k in range(places[r], places[r] + lengths[r]):
            out_values[to] = values[k]
            out_columns[to] = columns[k] - offset
            to += 1
