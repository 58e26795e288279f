"""Kernels of several data sets as one, where not every data set has every perturbation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float
from .._stats import safe_divide, safe_sqrt


def combine_kernels(
    kernels: Sequence[Real[ArrayLike, "rows columns"]],
    rows: Sequence[Bool[ArrayLike, " rows"]],
    columns: Sequence[Bool[ArrayLike, " columns"]] | None = None,
    *,
    logits: Real[ArrayLike, " datasets"] | None = None,
) -> Float[Array, "rows columns"]:
    r"""$K_{pq} = \sum_d \eta_d K^{(d)}_{pq} / \sqrt{a_p a_q}$, with $a_p$ the weight of the data sets that have $p$.

    The sum is that of features put side by side, with zeros for perturbations that a data set lacks, and dividing by
    $\sqrt{a_p a_q}$ is a diagonal scaling: so K is positive semi-definite if every kernel is, which an average over
    the data sets that have both perturbations is not. A perturbation seen in one data set is not shrunk against one
    that is seen in all, and only the ratios of weights matter.

    **Arguments:**

    - `kernels`: one matrix a data set; entries of absent perturbations are ignored.
    - `rows`, `columns`: which perturbations each data set has. Without `columns` they are those of the rows.
    - `logits`: $\eta$ is their softmax; by default all weigh alike.

    **Returns:** 0 in the rows and columns of perturbations that no data set has.

    **Raises:** `ValueError` for no kernel, or not one mask and one logit a kernel.
    """
    columns = rows if columns is None else columns
    if not kernels or not len(kernels) == len(rows) == len(columns):
        raise ValueError(f"{len(kernels)} kernels, {len(rows)} and {len(columns)} masks: one each is needed, at least.")
    matrices = [as_float(kernel, "kernels") for kernel in kernels]
    dtype = jnp.result_type(float)
    logits = jnp.zeros(len(kernels), dtype) if logits is None else as_float(logits, "logits").astype(dtype)
    if logits.shape != (len(kernels),):
        raise ValueError(f"`logits` must have shape {(len(kernels),)}, got {logits.shape}.")
    total = jnp.zeros((), dtype)
    weight_rows, weight_columns = jnp.zeros((), dtype), jnp.zeros((), dtype)
    for kernel, row, column, share in zip(matrices, rows, columns, jax.nn.softmax(logits), strict=True):
        row, column = jnp.asarray(row), jnp.asarray(column)
        both = row[:, None] & column[None, :]
        total = total + share * jnp.where(both, kernel.astype(dtype), 0)
        weight_rows = weight_rows + share * row.astype(dtype)
        weight_columns = weight_columns + share * column.astype(dtype)
    scale = safe_sqrt(weight_rows)[:, None] * safe_sqrt(weight_columns)[None, :]
    return safe_divide(total, scale, otherwise=0.0)


def with_unit_diagonal(kernel: Float[Array, "perts perts"]) -> Float[Array, "perts perts"]:
    """A kernel of which every perturbation has variance 1: what it does not share with others is its own.

    For a kernel with at most 1 on the diagonal this adds a non-negative diagonal, so it stays semi-definite.
    """
    return jnp.where(jnp.eye(len(kernel), dtype=bool), 1, kernel)
