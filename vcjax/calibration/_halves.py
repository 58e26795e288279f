"""Random halves and resamples of cells, group by group: what replicates are made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int


def split_cells(
    groups: Int[ArrayLike, " cells"], num_groups: int, key: Array
) -> tuple[Bool[Array, " cells"], Bool[Array, " cells"]]:
    """Two disjoint random halves of the cells of every group, as masks.

    `pseudobulk(cells, groups, num_groups, where=second)` is the technical duplicate of the same with `where=first`. The
    odd cell of a group is in neither, so that both halves have one depth; nor is a cell outside `range(num_groups)`.
    Control cells want a group of their own, or the noise of a shared control passes for agreement.

    Source: Mejia et al., Miller et al. 2025 (technical duplicate).
    """
    place, size = _shuffled_places(jnp.asarray(groups), num_groups, key)
    half = size // 2
    return place < half, (place >= half) & (place < 2 * half)


def bootstrap_cells(groups: Int[ArrayLike, " cells"], num_groups: int, key: Array) -> Int[Array, " cells"]:
    r"""For every cell a cell of its group, drawn with replacement: `pseudobulk(cells[drawn], groups, num_groups)`.

    Against the profile it was drawn from, its expected squared error is $s^2 (n - 1)/n^2$: half of what a replicate of
    the same size has, since it shares cells with the truth. It flatters what it is used as a ceiling for.
    """
    groups = jnp.asarray(groups)
    slots, start, size = _slots(groups, num_groups)
    by_group = jnp.argsort(slots, stable=True).astype(jnp.int32)
    share = jax.random.uniform(key, groups.shape)
    # A uniform number may round up to 1 when it is scaled.
    step = jnp.minimum(jnp.floor(share * size.astype(share.dtype)).astype(jnp.int32), size - 1)
    return jnp.where(slots < num_groups, by_group[start + step], jnp.arange(groups.size, dtype=jnp.int32))


def _shuffled_places(groups, num_groups, key):
    """A random place of every cell among the cells of its group, and their number; 0 of 0 outside the groups."""
    slots, start, size = _slots(groups, num_groups)
    order = jnp.lexsort((jax.random.uniform(key, groups.shape), slots))
    turn = jnp.zeros(groups.shape, jnp.int32).at[order].set(jnp.arange(groups.size, dtype=jnp.int32))
    inside = slots < num_groups
    return jnp.where(inside, turn - start, 0), jnp.where(inside, size, 0)


def _slots(groups, num_groups):
    """For every cell its group (the last for those outside), the first place of that group in order, and its size."""
    inside = (groups >= 0) & (groups < num_groups)
    slots = jnp.where(inside, groups, num_groups).astype(jnp.int32)
    sizes = jnp.bincount(slots, length=num_groups + 1).astype(jnp.int32)
    start = jnp.cumsum(sizes).astype(jnp.int32) - sizes
    return slots, start[slots], sizes[slots]
