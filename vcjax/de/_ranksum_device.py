"""The rank-sum test on the default device of JAX: one flat sort of integers that hold gene, value and group."""

import functools as ft

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, UInt

from ._ranksum_cells import blocks, items_per_gene, Side
from ._ranksum_host import cores, in_threads, Put


_HOST_ITEMS, _DEVICE_ITEMS = 2**18, 2**26  # of one sort; the program holds about 100 bytes an item
_RANGE = 2**21  # items of the blocks that are cut out of the cells together
_FEWEST_ITEMS = 2**12
_TALLIES = 2**22  # genes times groups of a block
_WIDE = 4  # genes of a block, at most, to those of an average one
_VALUE_BITS = 32
_PADDING = np.uint64(2**64 - 1)


def device_tallies(sides: list[Side], groups: int, put: Put, threads: int | None) -> None:
    """The integers of all genes, see `statistics`, from blocks of equal size, so that one program serves them all.

    Float32 values are sorted by their bits. Float64 values, whose bits would leave no room for gene and group, are
    replaced by their ranks among those of the block first, which takes a second sort.
    """
    items = items_per_gene(sides)
    group_bits = int(groups).bit_length()
    most = _HOST_ITEMS if jax.default_backend() == "cpu" else _DEVICE_ITEMS
    total, longest = int(items.sum()), int(items.max(initial=0))
    size = max(_round_up(total // (total // most + 1) + longest), _FEWEST_ITEMS)
    genes = _round_up(min(len(items), _WIDE * len(items) * size // max(total, 1) + 1))
    genes = min(genes, max(1, _TALLIES // (groups + 1)), 2 ** (64 - _VALUE_BITS - group_bits) - 1)

    ranges = list(blocks(items, size, genes))
    together = max(1, min(_RANGE // size, -(-len(ranges) // (cores() if threads is None else threads))))

    def job(start, stop):
        first, last = ranges[start][0], ranges[stop - 1][1]
        sums = np.zeros((groups + 1, last - first))
        parts = [(side.columns(first, last, sums), side.labels) for side in sides]
        for a, b in ranges[start:stop]:
            bits, gene, group = _block(parts, a - first, b - first, size)
            # The setting belongs to a thread, and a program that sorts integers of 64 bits needs it.
            with jax.enable_x64(True):
                out = _tallies(bits, gene, group, genes=genes, groups=groups + 1, group_bits=group_bits)
                put(a, np.asarray(out)[: b - a], sums[:, a - first : b - first])

    starts = range(0, len(ranges), together)
    in_threads(job, [(start, min(start + together, len(ranges))) for start in starts], threads)


def _round_up(n):
    """To the next number of four significant bits: similar sizes share a program."""
    unit = 1 << max(int(n).bit_length() - 4, 0)
    return -(-n // unit) * unit


def _block(parts, first, last, size):
    """The bits, gene and group of every stored entry of these genes, padded to `size` with group -1."""
    uint = np.uint32 if parts[0][0].dtype == np.float32 else np.uint64
    bits, gene, group = np.zeros(size, uint), np.zeros(size, np.int32), np.full(size, -1, np.int32)
    start = 0
    for matrix, labels in parts:
        low, high = matrix.indptr[first], matrix.indptr[last]
        stop = start + high - low
        bits[start:stop] = matrix.data[low:high].view(uint)
        gene[start:stop] = np.repeat(np.arange(last - first), np.diff(matrix.indptr[first : last + 1]))
        group[start:stop] = labels[matrix.indices[low:high]]
        start = stop
    return bits, gene, group


@ft.partial(jax.jit, static_argnames=("genes", "groups", "group_bits"))
def _tallies(bits, gene, group, *, genes, groups, group_bits):
    value, nonzero, first_positive = _ordered(bits)
    key = (gene.astype(jnp.uint64) << (_VALUE_BITS + group_bits)) | (value << group_bits) | group.astype(jnp.uint64)
    # One axis of keys and nothing to carry along: the form of a sort that accelerators do by radix.
    key = lax.sort(jnp.where(nonzero & (group >= 0), key, _PADDING), is_stable=False)
    padding = key == _PADDING
    gene = jnp.where(padding, genes, (key >> (_VALUE_BITS + group_bits)).astype(jnp.int32))
    group = jnp.where(padding, 0, (key & (2**group_bits - 1)).astype(jnp.int32))
    value = (key >> group_bits) & (2**_VALUE_BITS - 1)
    place = gene * groups + group
    total = lambda terms: jax.ops.segment_sum(terms, place, (genes + 1) * groups).reshape(-1, groups)[:genes]
    twice, ties = _terms(key, group, group_bits)
    count = lambda among: total(among.astype(jnp.int32)).astype(jnp.int64)
    items, negative = count(jnp.ones_like(padding)), count(value < first_positive)
    # Reference items of the genes before were counted along.
    before = jnp.cumsum(items[:, :1], axis=0) - items[:, :1]
    twice = total(twice) - 2 * before * items.at[:, 0].set(0)
    return jnp.stack([twice, total(ties), items, negative], axis=-1)


def _ordered(bits: UInt[Array, " n"]) -> tuple[UInt[Array, " n"], Bool[Array, " n"], UInt[Array, ""]]:
    """Integers below 2^32 in the order of the values, which values are not zero, and the least integer of a positive
    one.
    """
    sign = jnp.asarray(1 << (8 * bits.dtype.itemsize - 1), bits.dtype)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    nonzero = (bits & ~sign) != 0
    if bits.dtype == jnp.uint32:
        return ordered.astype(jnp.uint64), nonzero, sign.astype(jnp.uint64)
    among = lax.sort(ordered, is_stable=False)
    rank = lambda x: jnp.searchsorted(among, x).astype(jnp.uint64)
    return rank(ordered), nonzero, rank(sign)


def _terms(key, group, group_bits):
    """What each sorted item adds to the first two integers of its gene and group, reference items of the genes before
    counted along.
    """
    reference = (group == 0).astype(jnp.int32)
    until = _running(jnp.add, lax.cumsum, reference)
    before = until - reference
    # Both increase along the items, so that the greatest one so far is the one where the run began.
    below = _running(jnp.maximum, lax.cummax, jnp.where(_starts(key >> group_bits), before, 0))
    place = jnp.arange(key.shape[0], dtype=jnp.int32)
    run = place - _running(jnp.maximum, lax.cummax, jnp.where(_starts(key), place, 0)) + 1
    block = (jnp.where(reference == 1, 0, until - below) + run).astype(jnp.int64)
    return jnp.where(reference == 1, 0, below + until).astype(jnp.int64), 3 * block * (block - 1)


def _starts(x):
    return jnp.concatenate([jnp.ones(1, bool), x[1:] != x[:-1]])


def _running(add, running, x):
    """`running(x)`. On the host a tree of `add` is quicker, if what it adds up is made once and not in every branch."""
    if jax.default_backend() != "cpu":
        return running(x)
    return lax.associative_scan(add, lax.optimization_barrier(x))
