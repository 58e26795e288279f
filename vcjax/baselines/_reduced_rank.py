"""Reduced-rank regression: predictions confined to the few directions of effects that can be predicted."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ._features import AbstractFeatures
from ._fitted import need
from ._interface import Baseline, Fairness, PertData
from ._pca import gram
from ._rank_gates import AbstractGates, gated_projection, JamesStein
from ._smoother import FittedSmoother


class ReducedRank(Baseline):
    r"""Ridge regression on features, of which few directions over genes are kept:
    $\hat y_u = \mu + f_u (F'F + \lambda I)^{-1} F'(Y - 1\mu')\,V\,\mathrm{diag}(g)\,V'$.

    The columns of V are the main directions of the fitted effects (of $Y'SY$, with the smoother
    $S = F(F'F + \lambda I)^{-1}F'$), which for `HardRank(r)` is the ridge regression of rank r that fits best. All is
    computed from inner products of perturbations: no matrix over pairs of genes. Leaving one out refits the directions,
    one small eigenvalue problem a perturbation.

    **Fields:**

    - `features`: vectors of perturbations by name, see `EmbeddingRidge`.
    - `gates`: the g, by how much of a direction is kept: `HardRank`, `SoftRank`, `SigmoidGates` or `JamesStein`, which
        takes the noise of the training effects off (where it is not known, the variance of the residuals).
    - `log_ridge`: $\log\lambda$.
    - `basis`: `"fitted"`, as above; `"effects"`, the principal components of the training effects, so that it is ridge
        regression of their scores.
    """

    name: ClassVar[str] = "reduced_rank"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Ridge regression on features, confined to the directions that can be predicted."
    source: ClassVar[str] = "Mukherjee & Zhu 2011 (reduced-rank ridge); GRAFT (principal components of effects)"
    needs: ClassVar[tuple[str, ...]] = ("features",)

    features: AbstractFeatures | None = None
    gates: AbstractGates = eqx.field(default_factory=JamesStein)
    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    basis: Literal["fitted", "effects"] = eqx.field(static=True, default="fitted")

    def __check_init__(self):
        if self.basis not in ("fitted", "effects"):
            raise ValueError(f'`basis` is "fitted" or "effects", got {self.basis!r}.')

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> "FittedReducedRank":
        """**Raises:** `ValueError` without features, and where no training perturbation has any."""
        need(self.features, "features", "vectors of the perturbations or of the genes they target", self.name)
        assert self.features is not None
        if not self.features.of(data.perts)[1].any():
            raise ValueError(f"None of {len(data.perts)} training perturbations has features: are both named alike?")
        return FittedReducedRank(data, self.name, self.fairness, self, self.features)


class FittedReducedRank(FittedSmoother):
    """Training effects, and the recipe that is applied to the inner products of perturbations."""

    model: ReducedRank
    features: AbstractFeatures

    def weights(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        vectors, covered = self.features.of(perts)
        trained = self.features.of(self.data.perts)[0]
        effects, noise = self.data.effects, _total_noise(self.data)
        return _weights(self.model, trained, vectors, gram(effects, effects), noise), covered

    def held_out_weights(self) -> tuple[Float[Array, "perts perts"], np.ndarray]:
        vectors, covered = self.features.of(self.data.perts)
        effects, noise = self.data.effects, _total_noise(self.data)
        products, count = gram(effects, effects), len(self.data.perts)

        def fold(args):
            i, other = args
            own_noise = None if noise is None else noise[other]
            row = _weights(self.model, vectors[other], vectors[i][None, :], products[other][:, other], own_noise)[0]
            return jnp.zeros(count, row.dtype).at[other].set(row)

        other = np.array([np.delete(np.arange(count, dtype=np.int32), i) for i in range(count)])
        return lax.map(fold, (jnp.arange(count), jnp.asarray(other))), covered


def _weights(
    model: ReducedRank,
    trained: Float[Array, "perts dims"],
    vectors: Float[Array, "new dims"],
    products: Float[Array, "perts perts"],
    noise: Float[Array, " perts"] | None,
) -> Float[Array, "new perts"]:
    r"""The weight of every training effect: $1/n$ and those of centred effects, $f R^{-\top} E g E' L'$."""
    dtype = jnp.result_type(float)
    trained, vectors, products = (x.astype(dtype) for x in (trained, vectors, products))
    count = len(trained)
    ridge = jnp.exp(jnp.asarray(model.log_ridge)).astype(dtype)
    root = jnp.linalg.cholesky(gram(trained.T, trained.T) + ridge * jnp.eye(trained.shape[1], dtype=dtype))
    # With F'F + lambda I = R R', the smoother is L L' and a prediction a L'.
    half, ahead = (jsl.solve_triangular(root, x.T, lower=True).T for x in (trained, vectors))
    centred = products - jnp.mean(products, axis=0, keepdims=True)
    centred = centred - jnp.mean(centred, axis=1, keepdims=True)
    amount = _residual_noise(half, centred) if noise is None else noise.astype(dtype)
    level = jnp.diag(amount) - jnp.mean(jnp.diag(amount), axis=0, keepdims=True)
    level = level - jnp.mean(level, axis=1, keepdims=True)
    if model.basis == "fitted":
        projection = gated_projection(half.T @ centred @ half, half.T @ level @ half, model.gates)
        weights = ahead @ projection @ half.T
    else:
        weights = ahead @ half.T @ gated_projection(centred, level, model.gates)
    # Centred effects are effects less their mean: rows of weights sum to one.
    return weights + (1 - jnp.sum(weights, axis=1, keepdims=True)) / count


def _residual_noise(half: Float[Array, "perts dims"], centred: Float[Array, "perts perts"]) -> Float[Array, " perts"]:
    """The variance of what the smoother leaves of a training effect, over all genes, the same for every one."""
    count = len(half)
    rest = jnp.eye(count, dtype=half.dtype) - gram(half, half)
    freedom = jnp.maximum(jnp.sum(rest * rest) - 1, 1)
    return jnp.full(count, 1, half.dtype) * jnp.sum((rest @ centred) * rest) / freedom


def _total_noise(data: PertData) -> Float[Array, " perts"] | None:
    if data.noise is None:
        return None
    noise = lax.stop_gradient(data.noise)
    return noise if noise.ndim == 1 else jnp.sum(noise, axis=1)
