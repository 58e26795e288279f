"""How genes vary together from cell to cell within a perturbation: diagnostics of two sets of cells.

They take log1p-normalised cells of one perturbation, as many on both sides, since a correlation matrix of few cells is
noisier than one of many.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float_matrix
from .._stats import pearson, safe_divide, safe_sqrt


Cells = Real[ArrayLike, "cells genes"]

_LEAST_SPREAD = 1e-6  # a gene of a smaller standard deviation is constant
_LEAST_TRIANGLE = 1e-10


class Responding(NamedTuple):
    """The genes that respond most to a perturbation, by their index, and which of these places are filled (`used`)."""

    gene: Int[Array, " top"]
    used: Bool[Array, " top"]


def responding_genes(
    real: Cells, control: Real[ArrayLike, "controls genes"], *, target: int = -1, top: int = 100, min_cells: int = 10
) -> Responding:
    r"""The `top` genes by $|\log_2((\bar y_p + 1)/(\bar y_c + 1))|$, with $\bar y$ the mean of $e^x - 1$ over cells.

    **Arguments:**

    - `real`, `control`: measured log1p-normalised cells of the perturbation and of the control.
    - `target`: index of the own gene, which is left out; -1 for none.
    - `min_cells`: a gene counts if so many measured cells express it, and if either side expresses it at all.

    Genes tied at the end are taken in their order. No gradient flows through the choice.

    Source: cell-eval2 0.20.0 (`cell_cov_*`, which has cells scaled to 10,000).
    """
    real, control = (lax.stop_gradient(as_float_matrix(x, name)) for x, name in ((real, "real"), (control, "control")))
    mean, control_mean = jnp.mean(jnp.expm1(real), axis=0), jnp.mean(jnp.expm1(control), axis=0)
    change = jnp.abs(jnp.log2(mean + 1) - jnp.log2(control_mean + 1))
    genes = jnp.arange(change.size)
    counted = (jnp.sum(real > 0, axis=0) >= min_cells) & (genes != target) & ((mean > 0) | (control_mean > 0))
    index = jnp.argsort(jnp.where(counted, -change, jnp.inf), stable=True)[:top]
    return Responding(index, counted[index])


def covariance_correlation(pred: Cells, real: Cells, genes: Responding, *, min_genes: int = 20) -> Float[Array, ""]:
    """Pearson correlation of the strict upper triangles of both gene-gene correlation matrices of the given genes.

    **Arguments:**

    - `pred`, `real`: log1p-normalised cells, (cells, genes), of one perturbation, as many on both sides.
    - `genes`: which ones count, from `responding_genes`. One that is constant on either side is left out.

    **Returns:** a number in [-1, 1], 1 for equal correlations; NaN with fewer than `min_genes` genes, and where all
    pairs of a side are correlated alike.

    **Raises:** `ValueError` for cells of unequal shape.

    Source: cell-eval2 0.20.0 (`cell_cov_corr`).
    """
    (a, b), used = _matrices(pred, real, genes)
    pairs = jnp.triu(used[:, None] & used[None, :], 1)
    weights = pairs.ravel().astype(a.dtype)
    alike = (_spread(a.ravel(), weights) <= _LEAST_TRIANGLE) | (_spread(b.ravel(), weights) <= _LEAST_TRIANGLE)
    value = pearson(a.ravel(), b.ravel(), weights)
    return jnp.where((jnp.sum(used) < min_genes) | alike, jnp.nan, value)


def covariance_eigenvalue_ratio(
    pred: Cells, real: Cells, genes: Responding, *, min_genes: int = 20
) -> Float[Array, ""]:
    r"""$\lambda_1(\hat R)/\lambda_1(R)$ of both gene-gene correlation matrices: 1 where cells vary together as much.

    Arguments and errors as for `covariance_correlation`; NaN with fewer than `min_genes` genes.

    Source: cell-eval2 0.20.0 (`cell_cov_eig_ratio`).
    """
    matrices, used = _matrices(pred, real, genes)
    both = used[:, None] & used[None, :]
    # What is left out stands as rows of zeros, whose eigenvalues of 0 are never the largest.
    largest = [jnp.linalg.eigvalsh(jnp.where(both, matrix, 0))[-1] for matrix in matrices]
    return jnp.where(jnp.sum(used) < min_genes, jnp.nan, safe_divide(*largest))


def covariance_concordance(pred: Cells, real: Cells) -> Float[Array, ""]:
    r"""Lin's concordance of the gene-gene correlations of all pairs that are significant (5 %) on both sides.

    $2\,\mathrm{cov}(r, \hat r) / (\mathrm{var}\,r + \mathrm{var}\,\hat r + (\bar r - \bar{\hat r})^2)$ over pairs with
    $|r|, |\hat r| \ge t/\sqrt{n - 2 + t^2}$, t the 97.5 % quantile of Student's distribution with n - 2 degrees of
    freedom. Needs memory of order genes squared.

    Arguments and errors as for `covariance_correlation`; NaN with fewer than three such pairs, and fewer than three
    cells.

    Source: cell-eval2 0.20.0 (`cell_cov_ccc`).
    """
    from scipy.special import stdtrit  # a constant of the shape

    pred, real = _both(pred, real)
    cells = real.shape[0]
    if cells < 3:
        return jnp.full((), jnp.nan, real.dtype)
    t = float(stdtrit(cells - 2, 0.975))
    least = t / math.sqrt(cells - 2 + t * t)
    a, b = _correlations(pred)[0], _correlations(real)[0]
    chosen = jnp.triu((jnp.abs(a) >= least) & (jnp.abs(b) >= least), 1)
    weights = chosen.astype(a.dtype)
    count = jnp.maximum(jnp.sum(weights), 1)
    mean = lambda x: jnp.sum(weights * x) / count
    a_gap, b_gap = a - mean(a), b - mean(b)
    below = mean(a_gap * a_gap) + mean(b_gap * b_gap) + (mean(a) - mean(b)) ** 2
    return jnp.where(jnp.sum(weights) < 3, jnp.nan, 2 * mean(a_gap * b_gap) / (below + 1e-12))


def _both(pred, real):
    pred, real = as_float_matrix(pred, "pred"), as_float_matrix(real, "real")
    if pred.shape != real.shape:
        raise ValueError(f"Both sides need as many cells of the same genes, got {pred.shape} and {real.shape}.")
    dtype = jnp.promote_types(pred.dtype, real.dtype)
    return pred.astype(dtype), real.astype(dtype)


def _matrices(pred, real, genes: Responding):
    """Both correlation matrices of the genes that respond, and which of these vary on both sides."""
    a, a_spread = _correlations(_both(pred, real)[0][:, genes.gene])
    b, b_spread = _correlations(_both(pred, real)[1][:, genes.gene])
    return (a, b), genes.used & (a_spread > _LEAST_SPREAD) & (b_spread > _LEAST_SPREAD)


def _correlations(cells: Float[Array, "cells genes"]) -> tuple[Float[Array, "genes genes"], Float[Array, " genes"]]:
    """Pearson correlation of every two genes, 0 for a constant one, and each gene's standard deviation."""
    gap = cells - jnp.mean(cells, axis=0, keepdims=True)
    spread = safe_sqrt(jnp.mean(gap * gap, axis=0))
    varies = spread > _LEAST_SPREAD
    scaled = jnp.where(varies[None, :], gap / jnp.where(varies, spread, 1)[None, :], 0)
    matrix = jnp.matmul(scaled.T, scaled, precision=lax.Precision.HIGHEST) / cells.shape[0]
    return matrix, spread


def _spread(x, weights):
    count = jnp.maximum(jnp.sum(weights), 1)
    gap = x - jnp.sum(weights * x) / count
    return safe_sqrt(jnp.sum(weights * gap * gap) / count)
