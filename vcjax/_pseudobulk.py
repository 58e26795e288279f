"""From dense cells to profiles and their sampling noise, in JAX: what a model that emits cells trains through.

Cells are rows. `groups` gives the group of each cell; a cell whose index is outside `range(num_groups)` (-1, say), or
that `where` masks out, belongs to no group.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from ._checks import as_float_matrix


def log_normalise(
    cells: Real[ArrayLike, "cells genes"], target_sum: Real[ArrayLike, ""] | None = None
) -> Float[Array, "cells genes"]:
    r"""$\log(1 + s\, y_{cg} / L_c)$ with $L_c = \sum_g y_{cg}$: cells of counts on a common scale.

    **Arguments:**

    - `cells`: non-negative counts. A model that may emit negative values should go through `jax.nn.relu` or
        `jax.nn.softplus` first; values are not checked.
    - `target_sum`: the library size $s$; `None` means the median of the positive $L_c$.

    **Returns:** the normalised cells. A cell without counts stays zero, with zero gradient. Nothing is held constant:
    the gradient goes through $L_c$ and, when `target_sum` is `None`, through the one or two cells that make the median.

    **Raises:** `ValueError` unless `cells` has two axes.
    """
    cells = as_float_matrix(cells, "cells")
    totals = cells.sum(axis=1)
    positive = totals > 0
    scale = _positive_median(totals, positive) if target_sum is None else jnp.asarray(target_sum).astype(cells.dtype)
    factor = jnp.where(positive, scale / jnp.where(positive, totals, 1), 0)
    return jnp.log1p(cells * factor[:, None])


def bulk_sums(
    cells: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    num_groups: int,
    where: Bool[ArrayLike, " cells"] | None = None,
) -> Float[Array, "groups genes"]:
    """The sum of the cells of each group; zero for a group without cells.

    **Raises:** `ValueError` unless `cells` has two axes and `groups` (and `where`) one entry a cell.
    """
    cells = as_float_matrix(cells, "cells")
    return jax.ops.segment_sum(cells, _segments(cells, groups, num_groups, where), num_groups)


def pseudobulk(
    cells: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    num_groups: int,
    where: Bool[ArrayLike, " cells"] | None = None,
) -> Float[Array, "groups genes"]:
    """The mean of the cells of each group; zero for a group without cells.

    `pseudobulk(log_normalise(counts), ...)` is the `"lognorm"` space of `vcjax.Profiles`.

    **Raises:** `ValueError` unless `cells` has two axes and `groups` (and `where`) one entry a cell.
    """
    cells = as_float_matrix(cells, "cells")
    size = _sizes(cells, _segments(cells, groups, num_groups, where), num_groups)
    return bulk_sums(cells, groups, num_groups, where) / jnp.maximum(size, 1)[:, None]


def bulk_lognorm(
    sums: Real[ArrayLike, "groups genes"], target_sum: Real[ArrayLike, ""] = 5e4
) -> Float[Array, "groups genes"]:
    r"""$\log(1 + s\, P_{pg} / \sum_{g'} P_{pg'})$ of the sums $P$ of groups of cells (see `bulk_sums`).

    This is the `"bulk_lognorm"` space of `vcjax.Profiles`. A group without counts gives a zero row, with zero gradient.

    **Raises:** `ValueError` unless `sums` has two axes.
    """
    return log_normalise(sums, target_sum)


def analytic_noise(
    cells: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    num_groups: int,
    where: Bool[ArrayLike, " cells"] | None = None,
    *,
    per_gene: bool = False,
) -> Float[Array, " groups"] | Float[Array, "groups genes"]:
    r"""Sampling noise of a mean of cells: $\operatorname{tr} \hat\Sigma_p / n_p$.

    Estimates $\mathbb{E}\lVert\bar x_p - \mathbb{E}\bar x_p\rVert^2$ of `pseudobulk(cells, ...)` from the unbiased
    covariance $\hat\Sigma_p$ of the cells; with `per_gene`, its diagonal instead of its trace. Groups of fewer than two
    cells give 0 (cell-eval2's convention): their noise is not known, it is not small.

    **Raises:** `ValueError` unless `cells` has two axes and `groups` (and `where`) one entry a cell.
    """
    cells = as_float_matrix(cells, "cells")
    segments = _segments(cells, groups, num_groups, where)
    cells, size = _kept(cells, segments, num_groups), _sizes(cells, segments, num_groups)
    mean = jax.ops.segment_sum(cells, segments, num_groups) / jnp.maximum(size, 1)[:, None]
    # Centred before squaring: the difference of two sums of squares loses digits.
    squares = jax.ops.segment_sum((cells - mean[segments]) ** 2, segments, num_groups)
    noise = squares / jnp.maximum(size * (size - 1), 1)[:, None]
    return noise if per_gene else noise.sum(axis=1)


def jackknife_noise(
    counts: Real[ArrayLike, "cells genes"],
    groups: Int[ArrayLike, " cells"],
    num_groups: int,
    target_sum: Real[ArrayLike, ""] = 5e4,
    where: Bool[ArrayLike, " cells"] | None = None,
    *,
    per_gene: bool = False,
    batch_size: int = 256,
) -> Float[Array, " groups"] | Float[Array, "groups genes"]:
    r"""Sampling noise of `bulk_lognorm(bulk_sums(counts, ...))` by the delete-one jackknife.

    $$C_p = \frac{n_p - 1}{n_p} \sum_g \sum_{i \in p} (v_{ig} - \bar v_g)^2, \qquad
    v_{ig} = \log\left(1 + s\, \frac{P_{pg} - y_{ig}}{S_p - L_i}\right)$$

    with $P_p$ the sum of the group and $S_p$ its total. With `per_gene`, without the sum over genes. What is
    accumulated is the deviation $v_{ig} - b_{pg}$ from the profile itself: sums of squares of $v$ lose half the digits.

    A cell that carries all counts of its group leaves $v_i = 0$. Groups of fewer than two cells, or without counts,
    give 0 (cell-eval2's convention): their noise is not known, it is not small. Counts must be non-negative.

    Cells are visited `batch_size` at a time, forwards and backwards, so that no second array of shape (cells, genes)
    exists at once.

    **Raises:** `ValueError` unless `counts` has two axes and `groups` (and `where`) one entry a cell.
    """
    counts = as_float_matrix(counts, "counts")
    segments = _segments(counts, groups, num_groups, where)
    size = _sizes(counts, segments, num_groups)
    sums = jax.ops.segment_sum(counts, segments, num_groups)
    scale = jnp.asarray(target_sum).astype(counts.dtype)

    # Only the deviations are recomputed on the way back; checkpointing the carry too would store it once a batch.
    deviations = jax.checkpoint(lambda batch, ids: _deviations(batch, sums, scale, ids))

    def add(carry, batch):
        first, second = carry
        deviation = deviations(*batch)
        ids = batch[1]
        return (first.at[ids].add(deviation, mode="drop"), second.at[ids].add(deviation**2, mode="drop")), None

    carry = (jnp.zeros_like(sums), jnp.zeros_like(sums))
    steps = len(counts) // batch_size
    full = steps * batch_size
    batches = (counts[:full].reshape(steps, batch_size, counts.shape[1]), segments[:full].reshape(steps, batch_size))
    carry, _ = jax.lax.scan(add, carry, batches)
    (first, second), _ = add(carry, (counts[full:], segments[full:]))

    n = jnp.maximum(size, 1)[:, None]
    noise = jnp.where(size[:, None] >= 2, (n - 1) / n * (second - first**2 / n), 0)
    return jax.nn.relu(noise if per_gene else noise.sum(axis=1))


def _deviations(counts, sums, scale, segments):
    """What leaving each cell out adds to the profile of its group, shape (cells, genes)."""
    counts = _kept(counts, segments, len(sums))
    totals = sums.sum(axis=1)
    share = scale * sums / jnp.where(totals > 0, totals, 1)[:, None]
    cell_totals, group_totals = counts.sum(axis=1), totals[segments]
    rest = group_totals - cell_totals
    # Counts are whole numbers, so that a remainder this small is rounding.
    alone = rest <= 4 * float(jnp.finfo(counts.dtype).eps) * group_totals
    rest = jnp.where(alone, 1, rest)[:, None]
    change = (share[segments] * cell_totals[:, None] - scale * counts) / (rest * (1 + share[segments]))
    return jnp.where(alone[:, None], -jnp.log1p(share)[segments], jnp.log1p(jnp.where(alone[:, None], 0, change)))


def _segments(cells, groups, num_groups, where):
    """The group of each cell, `num_groups` (which every segment sum drops) for a cell of no group."""
    groups = jnp.asarray(groups)
    keep = (groups >= 0) & (groups < num_groups)
    if where is not None:
        where = jnp.asarray(where)
        if where.shape != (len(cells),):
            raise ValueError(f"`where` must have one entry a cell, shape {(len(cells),)}, got {where.shape}.")
        keep = keep & where
    if groups.shape != (len(cells),):
        raise ValueError(f"`groups` must have one entry a cell, shape {(len(cells),)}, got {groups.shape}.")
    return jnp.where(keep, groups, num_groups)


def _kept(cells, segments, num_groups):
    """Zeros in place of the cells of no group: what padding holds must not reach a gradient as 0 * NaN."""
    return jnp.where(segments[:, None] < num_groups, cells, 0)


def _sizes(cells, segments, num_groups):
    return jax.ops.segment_sum(jnp.ones_like(segments, dtype=cells.dtype), segments, num_groups)


def _positive_median(totals, positive):
    """Median of the positive totals; 1 where there is none."""
    # Cells without counts sort last, and stay finite: a gradient must be able to pass over them.
    ordered = jnp.sort(jnp.where(positive, totals, float(jnp.finfo(totals.dtype).max)))
    count = positive.sum()
    low, high = ordered[jnp.maximum(count - 1, 0) // 2], ordered[count // 2]
    return jnp.where(count > 0, 0.5 * low + 0.5 * high, 1)
