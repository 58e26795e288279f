"""How much of each direction of a prediction is kept: ranks that are hard, soft, or set by the noise."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide


class AbstractGates(eqx.Module):
    """The share of each direction that is kept."""

    @abc.abstractmethod
    def __call__(self, energy: Float[Array, " k"], noise: Float[Array, " k"]) -> Float[Array, " k"]:
        """Shares in [0, 1] for directions in the order of falling `energy`, of which `noise` is expected by chance."""


class HardRank(AbstractGates):
    """The first `rank` directions, whole."""

    rank: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        if self.rank < 1:
            raise ValueError(f"`rank` is at least 1, got {self.rank}.")

    def __call__(self, energy: Float[Array, " k"], noise: Float[Array, " k"]) -> Float[Array, " k"]:
        return (jnp.arange(len(energy)) < self.rank).astype(energy.dtype)


class SoftRank(AbstractGates):
    r"""$g_k = \sigma((r - k + \frac12)/w)$ for k = 1, 2, …: a rank r that can be tuned by gradient.

    **Fields:** `rank`, r; `log_width`, $\log w$.
    """

    rank: Float[ArrayLike, ""] = eqx.field(converter=lambda x: jnp.asarray(x, jnp.result_type(float)), default=10.0)
    log_width: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def __call__(self, energy: Float[Array, " k"], noise: Float[Array, " k"]) -> Float[Array, " k"]:
        place = jnp.arange(1, len(energy) + 1).astype(energy.dtype)
        rank, width = (jnp.asarray(x).astype(energy.dtype) for x in (self.rank, jnp.exp(self.log_width)))
        return jax.nn.sigmoid((rank + 0.5 - place) / width)


class SigmoidGates(AbstractGates):
    r"""$g_k = \sigma(a_k)$, one logit a direction; directions after the last are left out.

    **Fields:** `logits`, a.
    """

    logits: Float[ArrayLike, " directions"] = eqx.field(converter=jnp.asarray)

    def __call__(self, energy: Float[Array, " k"], noise: Float[Array, " k"]) -> Float[Array, " k"]:
        count = min(len(energy), np.shape(self.logits)[0])
        kept = jax.nn.sigmoid(jnp.asarray(self.logits)[:count]).astype(energy.dtype)
        return jnp.concatenate([kept, jnp.zeros(len(energy) - count, energy.dtype)])


class JamesStein(AbstractGates):
    r"""$g_k = \max(0, 1 - f\,\mathrm{noise}_k/\mathrm{energy}_k)$: what noise does not explain of a direction.

    **Fields:** `log_factor`, $\log f$: how much of the noise counts.
    """

    log_factor: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def __call__(self, energy: Float[Array, " k"], noise: Float[Array, " k"]) -> Float[Array, " k"]:
        factor = jnp.exp(jnp.asarray(self.log_factor)).astype(energy.dtype)
        return jnp.maximum(safe_divide(energy - factor * noise, energy, otherwise=0.0), 0)


def gated_projection(
    matrix: Float[Array, "n n"], noise: Float[Array, "n n"], gates: AbstractGates
) -> Float[Array, "n n"]:
    r"""$E\,\mathrm{diag}(g)\,E'$ with the eigenvectors E of a semi-definite matrix, and g by their eigenvalues and
    their share of a noise matrix, $e_k' N e_k$.

    Differentiable. Directions that the gates treat alike do not mix in it, however close their eigenvalues are; where a
    gate cuts between two equal eigenvalues the projection itself is arbitrary, and has no derivative between the two.
    """
    values, vectors = _eigh(matrix)
    values = jnp.maximum(values[::-1], 0)
    vectors = vectors[:, ::-1]
    expected = jnp.sum(vectors * (noise @ vectors), axis=0)
    return (vectors * gates(values, expected)[None, :]) @ vectors.T


@jax.custom_jvp
def _eigh(matrix: Float[Array, "n n"]) -> Any:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@_eigh.defjvp
def _eigh_jvp(primals, tangents):
    values, vectors = _eigh(primals[0])
    change = tangents[0]
    turned = vectors.T @ (0.5 * (change + change.T)) @ vectors
    gap = values[None, :] - values[:, None]
    # Vectors of equal eigenvalues turn into each other freely, and what depends on their span alone does not change.
    size = jnp.finfo(values.dtype).eps * len(values) * jnp.max(jnp.abs(values))
    apart = jnp.abs(gap) > size
    mixing = jnp.where(apart, turned / jnp.where(apart, gap, 1), 0)
    return (values, vectors), (jnp.diagonal(turned), vectors @ mixing)
