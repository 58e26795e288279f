"""The rank-sum test on the default device of JAX: one flat sort of integers that hold gene, value and group."""

import functools as ft

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt

from ._ranksum_cells import blocks, items_per_gene, Side
from ._ranksum_host import in_threads, Put


_HOST_ITEMS, _DEVICE_ITEMS = 2**21, 2**26  # of one sort; the program holds about 100 bytes an item
_FEWEST_ITEMS = 2**12
_TALLIES = 2**22  # genes times groups of a block
_VALUE_BITS = 32
_PADDING = np.iinfo(np.int64).max


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
    genes = min(2 ** (63 - _VALUE_BITS - group_bits) - 1, max(1, _TALLIES // (groups + 1)), _round_up(len(items)))

    def job(first, last):
        sums = np.zeros((groups + 1, last - first))
        bits, gene, group = _block(sides, first, last, size, sums)
        # The setting belongs to a thread, and a program that sorts int64 needs it.
        with jax.enable_x64(True):
            out = _tallies(bits, gene, group, genes=genes, groups=groups + 1, group_bits=group_bits)
            put(first, np.asarray(out)[: last - first], sums)

    in_threads(job, blocks(items, size, genes), threads)


def _round_up(n):
    """To the next number of four significant bits: similar sizes share a program."""
    unit = 1 << max(int(n).bit_length() - 4, 0)
    return -(-n // unit) * unit


def _block(sides, first, last, size, sums):
    """The bits, gene and group of every stored entry of the block, padded to `size` with group -1."""
    uint = np.uint32 if sides[0].matrix.dtype == np.float32 else np.uint64
    bits, gene, group = np.zeros(size, uint), np.zeros(size, np.int32), np.full(size, -1, np.int32)
    start = 0
    for side in sides:
        part = side.columns(first, last, sums)
        # On the host a sort compares, and is quicker where the genes are in order; on an accelerator it does not.
        entries = (part.tocsc() if jax.default_backend() == "cpu" else part).tocoo(copy=False)
        stop = start + entries.nnz
        bits[start:stop] = entries.data.view(uint)
        gene[start:stop] = entries.col
        group[start:stop] = side.labels[entries.row]
        start = stop
    return bits, gene, group


@ft.partial(jax.jit, static_argnames=("genes", "groups", "group_bits"))
def _tallies(bits, gene, group, *, genes, groups, group_bits):
    value, nonzero, first_positive = _ordered(bits)
    key = (gene.astype(jnp.int64) << (_VALUE_BITS + group_bits)) | (value << group_bits) | group.astype(jnp.int64)
    # One axis of keys and nothing to carry along: the form of a sort that accelerators do by radix.
    key = lax.sort(jnp.where(nonzero & (group >= 0), key, _PADDING), is_stable=False)
    padding = key == _PADDING
    gene = jnp.where(padding, genes, (key >> (_VALUE_BITS + group_bits)).astype(jnp.int32))
    group = jnp.where(padding, 0, (key & (2**group_bits - 1)).astype(jnp.int32))
    value = (key >> group_bits) & (2**_VALUE_BITS - 1)
    place = gene * groups + group
    total = lambda terms: jax.ops.segment_sum(terms, place, (genes + 1) * groups).reshape(-1, groups)[:genes]
    items = total(jnp.ones_like(place))
    # Reference items of the genes before.
    base = jnp.cumsum(items[:, 0], dtype=jnp.int32) - items[:, 0]
    twice, ties = _terms(key, group, group_bits, base[jnp.minimum(gene, genes - 1)])
    negative = total((value < first_positive).astype(jnp.int32))
    return jnp.stack([total(twice), total(ties), items.astype(jnp.int64), negative.astype(jnp.int64)], axis=-1)


def _ordered(bits: UInt[Array, " n"]) -> tuple[Int[Array, " n"], Bool[Array, " n"], Int[Array, ""]]:
    """Integers below 2^32 in the order of the values, which values are not zero, and the least integer of a positive
    one.
    """
    sign = jnp.asarray(1 << (8 * bits.dtype.itemsize - 1), bits.dtype)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    nonzero = (bits & ~sign) != 0
    if bits.dtype == jnp.uint32:
        return ordered.astype(jnp.int64), nonzero, sign.astype(jnp.int64)
    among = lax.sort(ordered, is_stable=False)
    rank = lambda x: jnp.searchsorted(among, x).astype(jnp.int64)
    return rank(ordered), nonzero, rank(sign)


def _terms(key, group, group_bits, base):
    """What each sorted item adds to the first two integers of its gene and group."""
    reference = (group == 0).astype(jnp.int32)
    until = jnp.cumsum(reference, dtype=jnp.int32)
    before = until - reference
    # Both increase along the items, so that the greatest one so far is the one where the run began.
    below = lax.cummax(jnp.where(_starts(key >> group_bits), before, 0)) - base
    place = jnp.arange(key.shape[0], dtype=jnp.int32)
    run = place - lax.cummax(jnp.where(_starts(key), place, 0)) + 1
    until = until - base
    block = (jnp.where(reference == 1, 0, until - below) + run).astype(jnp.int64)
    return jnp.where(reference == 1, 0, below + until).astype(jnp.int64), 3 * block * (block - 1)


def _starts(x):
    return jnp.concatenate([jnp.ones(1, bool), x[1:] != x[:-1]])
