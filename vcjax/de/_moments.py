"""Tests of means: Welch's t and its relatives, from means, variances and numbers of cells."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._stats import safe_divide, safe_sqrt
from ._student import log_student


class Moments(eqx.Module):
    """Mean and variance (with ddof 1) of each gene over the cells of each group, and the number of cells.

    `mean` and `variance` are (groups, genes), `cells` is (groups,); a group of one cell has variance 0.
    """

    mean: Float[Array, "groups genes"]
    variance: Float[Array, "groups genes"]
    cells: Float[Array, " groups"]

    def __check_init__(self):
        if self.mean.shape != self.variance.shape or self.cells.shape != self.mean.shape[:1]:
            raise ValueError(
                f"Moments are (groups, genes), (groups, genes) and (groups,), got {self.mean.shape}, "
                f"{self.variance.shape} and {self.cells.shape}."
            )


class MeanTest(NamedTuple):
    """The statistic of a test of means, its degrees of freedom and the natural logarithm of its two-sided p-value."""

    t: Float[Array, "groups genes"]
    freedom: Float[Array, "groups genes"]
    log_pvalue: Float[Array, "groups genes"]


def welch_test(groups: Moments, reference: Moments, *, overestimate: bool = False) -> MeanTest:
    r"""Welch's t of each group against its reference: $t = (m - m_r)/\sqrt{v/n + v_r/n_r}$.

    The degrees of freedom are those of Welch and Satterthwaite. Differentiable in the means; the variances, and with
    them the scale, are constants. Where both variances are zero there is nothing to measure a difference with: t = 0
    and p = 1, with zero gradients, as for the rank test.

    **Arguments:**

    - `reference`: one group for all, or one for each (`rest_of`).
    - `overestimate`: count as many reference cells as the group has, as scanpy's `t-test_overestim_var` does.

    **Raises:** `ValueError` for other numbers of reference groups, or of genes.

    Reference: scanpy 1.11 `rank_genes_groups`; `scipy.stats.ttest_ind_from_stats(equal_var=False)`.
    """
    count, genes = groups.mean.shape
    if reference.mean.shape not in ((1, genes), (count, genes)):
        raise ValueError(f"The reference is one group or {count}, of {genes} genes, got {reference.mean.shape}.")
    cells, others = groups.cells[:, None], reference.cells[:, None]
    others = cells if overestimate else others
    own, other = (lax.stop_gradient(x) for x in (groups.variance / cells, reference.variance / others))
    square = own + other
    error = safe_sqrt(square)
    t = jnp.where(square > 0, safe_divide(groups.mean - reference.mean, error, 0.0), 0)
    spread = own * own / jnp.maximum(cells - 1, 1) + other * other / jnp.maximum(others - 1, 1)
    freedom = safe_divide(square * square, spread, 1.0)
    return MeanTest(t, freedom, log_student(t, freedom))


def pseudo_test(
    mean: Float[Array, "groups genes"], measured: Moments, reference: Moments, *, overestimate: bool = False
) -> MeanTest:
    r"""The test of a model that predicts means only: its means, with the standard errors of the measured cells.

    It asks which predicted effects would have been significant, had cells as many and as noisy as the measured ones
    shown them. See `welch_test`.

    **Raises:** `ValueError` if the shape of `mean` is not that of the measured means.
    """
    if mean.shape != measured.mean.shape:
        raise ValueError(f"`mean` must have the shape of the measured means, {measured.mean.shape}, got {mean.shape}.")
    return welch_test(Moments(mean, measured.variance, measured.cells), reference, overestimate=overestimate)


def rest_of(groups: Moments, also: Moments | None = None) -> Moments:
    """For each group, the moments of the cells of all the others together.

    **Arguments:**

    - `also`: further groups that are in the rest of every group: the control cells, where the rest includes them.

    **Raises:** `ValueError` if no other group is left.
    """
    own = groups
    if also is not None:
        groups = Moments(*(jnp.concatenate([getattr(x, name) for x in (groups, also)]) for name in _FIELDS))
    if groups.mean.shape[0] < 2:
        raise ValueError("The rest of a group needs at least one other group.")
    total = jnp.sum(groups.cells)
    # About the mean of all cells: a difference of raw sums of squares would lose the variance of a high mean.
    centre = jnp.sum(groups.cells[:, None] * groups.mean, axis=0, keepdims=True) / total
    offset = groups.mean - centre
    squares = (groups.cells[:, None] - 1) * groups.variance + groups.cells[:, None] * offset * offset
    first = own.mean.shape[0]
    cells = total - own.cells
    shift = -own.cells[:, None] * offset[:first] / cells[:, None]
    rest = jnp.sum(squares, axis=0, keepdims=True) - squares[:first] - cells[:, None] * shift * shift
    variance = jnp.maximum(rest, 0) / jnp.maximum(cells - 1, 1)[:, None]
    return Moments(centre + shift, variance, cells)


_FIELDS = ("mean", "variance", "cells")
