"""Principal components, as constants of the differentiation."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._stats import safe_sqrt


def top_eigenvectors(gram: Float[Array, "n n"], count: int) -> tuple[Float[Array, " k"], Float[Array, "n k"]]:
    """The largest eigenvalues of a semi-definite matrix and their vectors, largest first; no more than it has rows.

    Constants of the differentiation: the derivative of an eigenvector is undefined where eigenvalues meet.
    """
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(gram))
    count = min(count, len(values))
    return jnp.maximum(values[::-1][:count], 0), vectors[:, ::-1][:, :count]


def principal_scores(table: Float[Array, "rows columns"], count: int) -> Float[Array, "rows k"]:
    """Scores of the rows on the first principal components of a table, whose columns are centred here.

    No more than the smaller side of the table, whose Gram matrix is what is diagonalised. The sign of a component is
    arbitrary.
    """
    gap = lax.stop_gradient(table) - jnp.mean(lax.stop_gradient(table), axis=0, keepdims=True)
    if table.shape[0] <= table.shape[1]:
        values, vectors = top_eigenvectors(gram(gap, gap), count)
        return vectors * safe_sqrt(values)[None, :]
    _, axes = top_eigenvectors(gram(gap.T, gap.T), count)
    return jnp.matmul(gap, axes, precision=lax.Precision.HIGHEST)


def gram(a: Float[Array, "rows n"], b: Float[Array, "columns n"]) -> Float[Array, "rows columns"]:
    """Inner products of rows with rows."""
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
