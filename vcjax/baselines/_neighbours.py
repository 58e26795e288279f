"""Nearest neighbours: effects of the training perturbations that resemble one most, by any similarity."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._stats import safe_divide
from ._fitted import need
from ._interface import Baseline, Fairness, PertData
from ._kernel_combine import combine_kernels
from ._relatedness import NamedKernel, relate, Relatives
from ._smoother import FittedSmoother


class FittedNeighbours(FittedSmoother):
    """Training effects, and what is known of how perturbations resemble each other."""

    relatives: tuple[Relatives | NamedKernel, ...]
    log_temperature: Float[ArrayLike, ""]
    neighbours: int | None = eqx.field(static=True, default=None)

    def weights(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        similarity, known = self._similarity(perts)
        return self._softmax(similarity, known), np.asarray(np.any(known, axis=1))

    def held_out_weights(self) -> tuple[Float[Array, "perts perts"], np.ndarray]:
        similarity, known = self._similarity(self.data.perts)
        known = known & ~np.eye(len(known), dtype=bool)
        return self._softmax(similarity, known), np.asarray(np.any(known, axis=1))

    def _similarity(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        rows = [relatives.rows(perts) for relatives in self.relatives]
        columns = [relatives.rows(self.data.perts) for relatives in self.relatives]
        kernels = [x.kernel(row, column) for x, row, column in zip(self.relatives, rows, columns, strict=True)]
        here, there = [row >= 0 for row in rows], [column >= 0 for column in columns]
        both = [row[:, None] & column[None, :] for row, column in zip(here, there, strict=True)]
        return combine_kernels(kernels, here, there), np.any(both, axis=0)

    def _softmax(self, similarity: Float[Array, "new perts"], known: np.ndarray) -> Float[Array, "new perts"]:
        temperature = jnp.exp(jnp.asarray(self.log_temperature)).astype(similarity.dtype)
        near = self._nearest(similarity, jnp.asarray(known))
        high = lax.stop_gradient(jnp.max(jnp.where(near, similarity, -jnp.inf), axis=1, keepdims=True))
        gap = jnp.where(near, similarity - high, 0)
        share = jnp.where(near, jnp.exp(gap / temperature), 0)
        total = jnp.broadcast_to(jnp.sum(share, axis=1, keepdims=True), share.shape)
        return safe_divide(share, total, otherwise=0.0)

    def _nearest(self, similarity: Float[Array, "new perts"], known: Bool[Array, "new perts"]):
        """The neighbours that count: as many as asked for, and all that tie with the last of them."""
        if self.neighbours is None or self.neighbours >= similarity.shape[1]:
            return known
        ranked = jnp.where(known, lax.stop_gradient(similarity), -jnp.inf)
        last = jnp.sort(ranked, axis=1)[:, -self.neighbours][:, None]
        return known & (ranked >= last)


class Neighbours(Baseline):
    r"""The softmax-weighted mean of training effects,
    $\hat y_u = \sum_o \mathrm{softmax}_o(S_{uo}/\tau)\, y_o$ over the training perturbations with a similarity to $u$.

    With $\tau \to 0$ it is the effect of the nearest neighbour (the mean over ties), which keeps the amplitude of a
    measured effect; with $\tau \to \infty$ the mean. Leaving one out is exact: its column is masked.

    **Fields:**

    - `similarity`: of perturbations by name; without one, that of their effects in the `external` screens of the
        fit, combined as in `combine_kernels`.
    - `log_temperature`: $\log \tau$, in units of the similarity.
    - `neighbours`: how many count at most, all by default; ties with the last count too.
    """

    name: ClassVar[str] = "knn"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Softmax-weighted mean effect of the most similar training perturbations."
    source: ClassVar[str] = (
        "Nearest neighbours of Virtual Cell Challenge 2025 entries (dependency or screen similarity)"
    )
    needs: ClassVar[tuple[str, ...]] = ("similarity",)

    similarity: NamedKernel | Relatives | None = None
    log_temperature: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    neighbours: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.neighbours is not None and self.neighbours < 1:
            raise ValueError(f"`neighbours` is at least 1, got {self.neighbours}.")

    def fit(
        self, data: PertData, *, external: Sequence[PertData | Relatives | NamedKernel] = (), key: Array | None = None
    ) -> FittedNeighbours:
        """**Raises:** `ValueError` with neither a `similarity` nor `external` screens or kernels."""
        sources = external if self.similarity is None else (self.similarity,)
        need(sources, "external", "other screens or kernels, or a `similarity` of perturbations", self.name)
        relatives = tuple(relate(source) if isinstance(source, PertData) else source for source in sources)
        return FittedNeighbours(data, self.name, self.fairness, relatives, self.log_temperature, self.neighbours)
