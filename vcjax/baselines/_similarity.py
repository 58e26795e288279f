"""The similarity of two perturbations over exactly the genes that neither targets."""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import as_float, as_float_matrix
from .._stats import safe_divide, safe_sqrt


def similarity(
    effects: Real[ArrayLike, "perts genes"],
    *,
    targets: Int[ArrayLike, " perts"] | None = None,
    kind: Literal["pearson", "cosine"] = "pearson",
    centre: Real[ArrayLike, ""] = 1.0,
) -> Float[Array, "perts perts"]:
    r"""The correlation (or cosine) of effects over the genes that neither of two perturbations targets.

    Every pair has genes of its own here. `relate` avoids that by setting each row's own target to nothing, which
    differs by one gene in each norm: its matrix is positive semi-definite, and this one need not be. What is dropped is
    taken from sums over all genes, so that the cost is that of one matrix product.

    **Arguments:**

    - `targets`: index of the targeted gene, -1 for none.
    - `centre`: the share of the mean effect that is taken from every effect.

    **Returns:** values in [-1, 1]; 0 where an effect is constant (or zero).

    **Raises:** `ValueError` for another kind, and unless there is one target a perturbation.
    """
    if kind not in ("pearson", "cosine"):
        raise ValueError(f'`kind` is "pearson" or "cosine", got {kind!r}.')
    y = as_float_matrix(effects, "effects")
    gene = jnp.full(y.shape[0], -1) if targets is None else jnp.asarray(targets)
    if gene.shape != y.shape[:1]:
        raise ValueError(f"`targets` must have shape {y.shape[:1]}, got {gene.shape}.")
    z = y - as_float(centre, "centre").astype(y.dtype) * jnp.mean(y, axis=0, keepdims=True)
    if kind == "pearson":
        # A correlation does not change with the level of a row; the rounding of its sums does.
        z = z - jnp.mean(z, axis=1, keepdims=True)
    has, different = gene >= 0, gene[:, None] != gene[None, :]
    at = jnp.where(has[None, :], z[:, jnp.where(has, gene, 0)], 0)  # the gene that q targets, in the row of p
    mine = jnp.diagonal(at)[:, None]
    other = jnp.where(different, at, 0)  # a gene that both target is dropped once
    product = jnp.matmul(z, z.T, precision=lax.Precision.HIGHEST) - mine * at.T - other * mine.T
    square = jnp.sum(z * z, axis=1, keepdims=True) - mine * mine - other * other
    if kind == "pearson":
        total = jnp.sum(z, axis=1, keepdims=True) - mine - other
        dropped = has[:, None].astype(jnp.int32) + (has[None, :] & different).astype(jnp.int32)
        count = jnp.maximum(y.shape[1] - dropped, 1).astype(z.dtype)
        product, square = product - total * total.T / count, square - total * total / count
    rounding = 16 * jnp.finfo(z.dtype).eps * lax.stop_gradient(jnp.sum(z * z, axis=1, keepdims=True))
    rounding = rounding + (16 * jnp.finfo(z.dtype).eps) ** 2 * lax.stop_gradient(jnp.sum(y * y, axis=1, keepdims=True))
    root = safe_sqrt(jnp.where(square > rounding, square, 0))
    return jnp.clip(safe_divide(product, root * root.T, otherwise=0.0), -1, 1)
