"""How many genes a row of weights amounts to, and the exponent that makes it a given number."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float_matrix
from .._stats import safe_divide
from ._weights import Weights


_LARGEST = 128.0
_STEPS = 60  # halvings of [0, 128]: more than the digits of a float64


def effective_genes(weights: Weights | Real[ArrayLike, "perts genes"]) -> Float[Array, " perts"]:
    r"""The effective number of genes of each row, $N_\mathrm{eff} = (\sum_g w_g)^2 / \sum_g w_g^2$.

    From 1 (one gene has all the weight) to the number of genes (equal weights); NaN where all weights are zero. A
    weighted metric whose $N_\mathrm{eff}$ is 1 or 2 is a metric of one or two genes: report it beside the value.
    """
    values = weights.values if isinstance(weights, Weights) else weights
    values = as_float_matrix(values, "weights")
    high = jnp.max(values, axis=1, keepdims=True)
    share = values / jnp.where(high > 0, high, 1)  # squares of small weights would underflow in float32
    return safe_divide(jnp.sum(share, axis=1) ** 2, jnp.sum(share * share, axis=1))


def exponent_for(
    scores: Real[ArrayLike, "perts genes"], target: Real[ArrayLike, ""], *, shared: bool = False
) -> Float[Array, " perts"]:
    r"""The exponent $e \in [0, 128]$ with $N_\mathrm{eff}(x^e) = $ `target`, for each row of scores $x \ge 0$.

    $N_\mathrm{eff}$ falls with the exponent, from the number of positive scores just above 0; bisection in a fixed
    number of steps finds it, under `jit` and `vmap` too. A constant of the differentiation. A target of 1 or less gives
    128; one of at least the number of genes that count gives 0, at which even a score of 0 has its share; between that
    and the number of positive scores the exponent is so small that these share equally.

    **Arguments:**

    - `target`: effective number of genes.
    - `shared`: one exponent for all rows, with which the mean of their effective numbers is the target.

    Source: SBB (which stops within half a gene of the target).
    """
    scores = lax.stop_gradient(as_float_matrix(scores, "scores"))
    counted = jnp.isfinite(scores)
    positive = counted & (scores > 0)
    high = jnp.max(jnp.where(positive, scores, 0), axis=1, keepdims=True)
    # Relative to the largest, in logarithms: x^128 leaves the range of a float.
    logs = jnp.log(jnp.where(positive, scores / jnp.where(high > 0, high, 1), 1))
    wanted = jnp.asarray(target, scores.dtype)

    def effective(exponent):
        share = jnp.where(positive, jnp.exp(exponent[:, None] * logs), 0)
        number = safe_divide(jnp.sum(share, axis=1) ** 2, jnp.sum(share * share, axis=1), otherwise=0.0)
        return jnp.broadcast_to(jnp.mean(number), number.shape) if shared else number

    def halve(_, interval):
        low, high = interval
        middle = 0.5 * (low + high)
        too_many = effective(middle) > wanted
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    zero = jnp.zeros_like(scores[:, 0])
    low, high_end = lax.fori_loop(0, _STEPS, halve, (zero, jnp.full_like(zero, _LARGEST)))
    genes = jnp.sum(counted, axis=1, dtype=jnp.int32).astype(scores.dtype)
    genes = jnp.broadcast_to(jnp.mean(genes), genes.shape) if shared else genes
    exponent = jnp.where(wanted <= 1, _LARGEST, 0.5 * (low + high_end))
    return jnp.where(wanted >= genes, 0, exponent)
