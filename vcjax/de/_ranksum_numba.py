"""The compiled loops of the rank-sum test. Imported only where numba is to be used."""

from typing import no_type_check

import numpy as np

from .._compiled import compiled


_SHORT = 48  # up to here insertion alone beats a radix sort
_SPARE = 8  # bits sorted by beyond those that tell as many items apart
_MOVES = 8  # of insertion after it, per item, before all bits are sorted by instead
_WIDEST = 13  # bits of a digit: more counts than this leave the cache


@compiled
@no_type_check  # what checks annotations wraps a function in another that numba cannot compile
def count_stored(indptr, indices, rows, counts):
    """Adds the number of stored entries of each column in `rows` to `counts`."""
    for r in range(rows.size):
        for k in range(indptr[rows[r]], indptr[rows[r] + 1]):
            counts[indices[k]] += 1


@compiled
@no_type_check
def find_column(indptr, indices, rows, first, cursors):
    """Where in each row the columns from `first` on start; the columns of a row are ascending."""
    for r in range(rows.size):
        low, high = indptr[rows[r]], indptr[rows[r] + 1]
        while low < high:
            middle = (low + high) >> 1
            if indices[middle] < first:
                low = middle + 1
            else:
                high = middle
        cursors[r] = low


@compiled
@no_type_check
def _ordered(bits, sign, everything):
    """The bits of a float as an integer of the same order."""
    return bits ^ everything if bits & sign else bits | sign


@compiled
@no_type_check
def gather_sparse(cursors, stops, indices, values, divisors, groups, first, last, ends, items, labels):
    """Appends the items of columns [first, last) to those of each gene, rows in the order given, without zeros.

    An item is a stored value over the divisor of its row. `cursors` is where these columns start in each row, and is
    moved behind them; `stops` is where the row ends; `ends` is where the items of each gene end so far.
    """
    for r in range(cursors.size):
        k, stop, group, divisor = cursors[r], stops[r], groups[r], divisors[r]
        while k < stop:
            column = indices[k]
            if column >= last:
                break
            if values[k] != 0:
                place = ends[column - first]
                items[place] = items.dtype.type(values[k]) / divisor
                labels[place] = group
                ends[column - first] = place + 1
            k += 1
        cursors[r] = k


@compiled
@no_type_check
def gather_dense(values, rows, divisors, groups, first, last, ends, items, labels):
    """`gather_sparse` of a dense matrix."""
    for r in range(rows.size):
        for column in range(first, last):
            value = values[rows[r], column]
            if value != 0:
                place = ends[column - first]
                items[place] = value / divisors[r]
                labels[place] = groups[r]
                ends[column - first] = place + 1


@compiled
@no_type_check
def add_items(starts, ends, labels, sums, items):
    """Adds the items of each gene to `sums`, (groups, genes); those of a group come together, and so does their sum."""
    for c in range(starts.size):
        i = starts[c]
        while i < ends[c]:
            label = labels[i]
            total = sums[label, c]
            while i < ends[c] and labels[i] == label:
                total += np.float64(items[i])
                i += 1
            sums[label, c] = total


@compiled
@no_type_check
def _insertion_sort(keys, labels, budget):
    """A stable sort in place; `False` if it gave up after as many moves as `budget` allows."""
    for i in range(1, keys.size):
        key = keys[i]
        if key >= keys[i - 1]:
            continue
        label, j = labels[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j], labels[j] = keys[j - 1], labels[j - 1]
            j -= 1
        keys[j], labels[j] = key, label
        budget -= i - j
        if budget < 0:
            return False
    return True


@compiled
@no_type_check
def _radix_sort(keys, labels, other_keys, other_labels, base, low, high, counts):
    """A stable sort by the bits [low, high) of keys less `base`; `True` if it ends in the other buffers."""
    size = keys.size
    digits = max(1, (high - low + _WIDEST - 1) // _WIDEST)
    width = (high - low + digits - 1) // digits
    mask = (1 << width) - 1
    moved = False
    for d in range(digits):
        source, to = (other_keys, keys) if moved else (keys, other_keys)
        labels_from, labels_to = (other_labels, labels) if moved else (labels, other_labels)
        shift = low + d * width
        counts[: mask + 1] = 0
        for i in range(size):
            counts[((source[i] - base) >> shift) & mask] += 1
        total = 0
        for digit in range(mask + 1):
            total, counts[digit] = total + counts[digit], total
        for i in range(size):
            key = source[i]
            digit = ((key - base) >> shift) & mask
            place = counts[digit]
            counts[digit] = place + 1
            to[place] = key
            labels_to[place] = labels_from[i]
        moved = not moved
    return moved


@compiled
@no_type_check
def _sorted(keys, labels, other_keys, other_labels, counts):
    """The items in a stable order of their keys, in either pair of buffers.

    Only the leading bits that can tell this many items apart are sorted by; what they leave in disorder is little, and
    put right by insertion.
    """
    size = keys.size
    if size <= _SHORT:
        _insertion_sort(keys, labels, size * size)
        return keys, labels
    least, greatest, differing = keys[0], keys[0], keys[0] ^ keys[0]
    for i in range(size):
        least, greatest = min(least, keys[i]), max(greatest, keys[i])
        differing |= keys[i] ^ keys[0]
    if differing == 0:
        return keys, labels
    high, lowest, leading = 0, 0, _SPARE
    while high < 8 * keys.itemsize and (greatest - least) >> high:
        high += 1
    while not (differing >> lowest) & 1:
        lowest += 1
    while size >> (leading - _SPARE):
        leading += 1
    low = max(lowest, high - leading)
    if _radix_sort(keys, labels, other_keys, other_labels, least, low, high, counts):
        keys, labels, other_keys, other_labels = other_keys, other_labels, keys, labels
    if low > lowest and not _insertion_sort(keys, labels, _MOVES * size):
        if _radix_sort(keys, labels, other_keys, other_labels, least, lowest, high, counts):
            return other_keys, other_labels
    return keys, labels


@compiled
@no_type_check
def tally(starts, ends, keys, labels, sign, out):
    """Fills in the integers of the genes of a block, (genes, groups, 4): see `statistics`.

    `keys` are the bits of the items, and what they are put into the order of.
    """
    longest, everything = 0, sign | (sign - keys.dtype.type(1))
    for c in range(starts.size):
        longest = max(longest, ends[c] - starts[c])
    other_keys, other_labels = np.empty(longest, keys.dtype), np.empty(longest, labels.dtype)
    counts = np.empty(1 << _WIDEST, np.int32)
    for c in range(starts.size):
        size = ends[c] - starts[c]
        k, g = keys[starts[c] : ends[c]], labels[starts[c] : ends[c]]
        for i in range(size):
            k[i] = _ordered(k[i], sign, everything)
        k, g = _sorted(k, g, other_keys[:size], other_labels[:size], counts)
        until = below = run = np.int64(0)
        previous, last_group = keys.dtype.type(0), np.int64(-1)
        for i in range(size):  # without a branch: groups come in no order, so that a processor guesses wrong
            key, group = k[i], np.int64(g[i])
            fresh = key != previous
            below = until if fresh else below
            run = 1 if fresh | (group != last_group) else run + 1
            previous, last_group = key, group
            until += np.int64(group == 0)
            block = run + (0 if group == 0 else until - below)
            out[c, group, 0] += below + until
            out[c, group, 1] += 3 * block * (block - 1)
            out[c, group, 2] += 1
        out[c, 0, 0] = 0
        for i in range(size):
            if k[i] >= sign:
                break
            out[c, g[i], 3] += 1
