"""Transfer by regression between principal components of two contexts."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ._embedding_ridge import fit_ridge, FittedEmbeddingRidge
from ._features import Features
from ._fitted import need
from ._interface import Baseline, Fairness, PertData
from ._pca import gram, principal_scores, top_eigenvectors
from ._smoother import FittedSmoother


class ReferenceRegression(Baseline):
    r"""Scores of the training effects on their principal components, regressed on the scores that the same
    perturbations have in a reference context, by ridge regression with a free intercept.

    Perturbations that both contexts measure are fitted; one that the reference lacks is predicted the mean response.
    Components of the reference are of all its perturbations, those of the context to predict of the training
    perturbations. Leaving one out refits the latter in each fold. Components are constants of the differentiation.

    **Fields:**

    - `log_ridge`: $\log\lambda$ of $\lVert \cdot \rVert^2 + \lambda \lVert \beta \rVert^2$. The published code gives
        its penalty r to a function for which it amounts to $\lambda = n r^4$ for n perturbations.
    - `dims`: components of either context, no more than it has perturbations. `reference`: which of `external`.
    """

    name: ClassVar[str] = "reference_regression"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Ridge regression from principal components of another context to those of this one."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (run_transfer_perturbation_prediction; penalty 0.1)"
    needs: ClassVar[tuple[str, ...]] = ("external",)

    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    dims: int = eqx.field(static=True, default=10)
    reference: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if self.dims < 1:
            raise ValueError(f"`dims` is at least 1, got {self.dims}.")

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> "FittedReferenceRegression":
        """**Raises:** `ValueError` without that reference, and where it has fewer than two training perturbations."""
        need(external, "external", "the screen of a reference context", self.name)
        if not 0 <= self.reference < len(external):
            raise ValueError(f"`reference` is one of {len(external)} external screens, got {self.reference}.")
        other = external[self.reference]
        scores = Features(principal_scores(other.effects, self.dims), other.perts, source=other.context)
        ridge = fit_ridge(self, scores, data, self.log_ridge, intercept="free")
        return FittedReferenceRegression(data, self.name, self.fairness, self, ridge)


class FittedReferenceRegression(FittedSmoother):
    """The regression on scores of the reference, and the components that its predictions are confined to."""

    model: ReferenceRegression
    ridge: FittedEmbeddingRidge

    def weights(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        weights, covered = self.ridge.weights(perts)
        return self._confined(weights, gram(self.data.effects, self.data.effects)), covered

    def held_out_weights(self) -> tuple[Float[Array, "perts perts"], np.ndarray]:
        weights, covered = self.ridge.held_out_weights()
        products, count = gram(self.data.effects, self.data.effects), len(self.data.perts)

        def fold(args):
            row, other = args
            left = self._confined(row[other][None, :], products[other][:, other])[0]
            return jnp.zeros(count, left.dtype).at[other].set(left)

        other = np.array([np.delete(np.arange(count, dtype=np.int32), i) for i in range(count)])
        return lax.map(fold, (weights, jnp.asarray(other))), covered

    def _confined(self, weights: Float[Array, "new n"], products: Float[Array, "n n"]) -> Float[Array, "new n"]:
        """Weights whose predictions are the mean effect and a sum of principal components: $1/n + (w - 1/n) E E'$."""
        centred = products - jnp.mean(products, axis=0, keepdims=True)
        centred = (centred - jnp.mean(centred, axis=1, keepdims=True)).astype(weights.dtype)
        _, vectors = top_eigenvectors(centred, self.model.dims)
        inside = (weights - 1 / len(products)) @ vectors @ vectors.T
        return inside + (1 - jnp.sum(inside, axis=1, keepdims=True)) / len(products)
