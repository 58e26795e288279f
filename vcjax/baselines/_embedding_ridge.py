"""Ridge regression of effects on vectors of perturbations: gene embeddings, profiles elsewhere, gene sets."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._features import AbstractFeatures
from ._fitted import need
from ._interface import Baseline, Fairness, PertData
from ._krr import held_out_smoother, inverse_of, regularised, smoother
from ._leaves import optional
from ._pca import gram
from ._smoother import FittedSmoother


class FittedEmbeddingRidge(FittedSmoother):
    """Training effects and the vectors they are regressed on, in dual form: small matrices over perturbations."""

    features: AbstractFeatures
    log_ridge: Float[ArrayLike, ""]
    log_scales: Float[ArrayLike, " blocks"] | None
    intercept: Literal["mean", "free"] = eqx.field(static=True)

    def weights(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        trained, rows = self._training()
        vectors, covered = self._scaled(perts)
        inverse = self._inverse(trained)
        cross = gram(vectors, trained).astype(inverse.dtype)
        return _spread(smoother(inverse, cross, self.intercept), rows, len(self.data.perts)), covered

    def held_out_weights(self) -> tuple[Float[Array, "perts perts"], np.ndarray]:
        trained, rows = self._training()
        weights = held_out_smoother(self._inverse(trained), self.intercept)
        weights = _spread(_spread(weights, rows, len(self.data.perts)).T, rows, len(self.data.perts)).T
        return weights, self.features.of(self.data.perts)[1]

    def _training(self) -> tuple[Float[Array, "used dims"], np.ndarray]:
        """The vectors that take part in the regression, and their rows among the training perturbations."""
        vectors, covered = self._scaled(self.data.perts)
        # Zeros leave the slope alone; a fitted intercept they would move.
        rows = np.flatnonzero(covered) if self.intercept == "free" else np.arange(len(covered))
        return vectors[rows], rows

    def _scaled(self, perts: Sequence[str]) -> tuple[Float[Array, "perts dims"], np.ndarray]:
        vectors, covered = self.features.of(perts)
        if self.log_scales is None:
            return vectors, covered
        widths = self.features.widths
        scales = jnp.exp(jnp.asarray(self.log_scales)).astype(vectors.dtype)
        if scales.shape != (len(widths),):
            raise ValueError(f"`log_scales` must have one entry for each of {len(widths)} blocks, got {scales.shape}.")
        return vectors * jnp.repeat(scales, np.array(widths), total_repeat_length=sum(widths))[None, :], covered

    def _inverse(self, vectors: Float[Array, "used dims"]) -> Float[Array, "used used"]:
        return inverse_of(regularised(gram(vectors, vectors), jnp.exp(jnp.asarray(self.log_ridge))))


class EmbeddingRidge(Baseline):
    r"""Ridge regression of effects on features, $\hat y_u = \mu + f_u (F'F + \lambda I)^{-1} F'(Y - 1\mu')$.

    In dual form, with the kernel $FF'$, so that the cost is that of the number of perturbations, and leaving one out is
    a closed form. Choose $\lambda$ and the scales on leave-one-out predictions. A perturbation without features is
    predicted the mean response; in training it tells of the mean response alone.

    **Fields:**

    - `features`: vectors by name of perturbation or target gene.
    - `log_ridge`: $\log\lambda$.
    - `log_scales`: one for each block of the features, whose columns are multiplied by $e^s$ (automatic relevance); all
        0 by default.
    - `intercept`: `"mean"`, $\mu$ is the mean response; `"free"`, unpenalised and fitted with the slope, the same as
        features that are centred over the training perturbations that have them.
    """

    name: ClassVar[str] = "embedding_ridge"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Ridge regression of effects on vectors of the perturbed genes."
    source: ClassVar[str] = (
        "pertkit (ridge_embedding, penalty 0.1); Molina & Zhang 2026 (ridge on dependency components)"
    )
    needs: ClassVar[tuple[str, ...]] = ("features",)

    features: AbstractFeatures | None = None
    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    log_scales: Float[ArrayLike, " blocks"] | None = eqx.field(converter=optional, default=None)
    intercept: Literal["mean", "free"] = eqx.field(static=True, default="mean")

    def __check_init__(self):
        if self.intercept not in ("mean", "free"):
            raise ValueError(f'`intercept` is "mean" or "free", got {self.intercept!r}.')

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> FittedEmbeddingRidge:
        """**Raises:** `ValueError` without features, and where no training perturbation (for a free intercept, at most
        one) has any.
        """
        need(self.features, "features", "vectors of the perturbations or of the genes they target", self.name)
        assert self.features is not None
        return fit_ridge(
            self, self.features, data, self.log_ridge, log_scales=self.log_scales, intercept=self.intercept
        )


def fit_ridge(
    recipe: Baseline,
    features: AbstractFeatures,
    data: PertData,
    log_ridge: Float[ArrayLike, ""],
    *,
    log_scales: Float[ArrayLike, " blocks"] | None = None,
    intercept: Literal["mean", "free"] = "mean",
) -> FittedEmbeddingRidge:
    """The ridge regression of effects on these features, under the name of a recipe."""
    known = int(features.of(data.perts)[1].sum())
    if known < (2 if intercept == "free" else 1):
        raise ValueError(
            f"Only {known} of {len(data.perts)} training perturbations have features: are both named alike?"
        )
    return FittedEmbeddingRidge(data, recipe.name, recipe.fairness, features, log_ridge, log_scales, intercept)


def _spread(weights: Float[Array, "rows used"], columns: np.ndarray, count: int) -> Float[Array, "rows perts"]:
    """Weights of the training perturbations that were used as weights of all."""
    return jnp.zeros((len(weights), count), weights.dtype).at[:, columns].set(weights)
