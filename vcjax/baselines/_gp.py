"""The Gaussian process behind kernel ridge regression: how sure a prediction is, and what the kernel is worth."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax.scipy.special import ndtr
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import as_float
from .._stats import safe_divide, safe_sqrt
from ._interface import Baseline, Fairness, Fitted, PertData, Prediction
from ._kernel_ridge import FittedKernelRidge, KernelRidge, Source
from ._krr import Intercept, precision_of, predictive_variance


_NORMAL = 0.3989422804014327  # density of the standard normal at 0
_HALF_WIDTH = 0.5641895835477563  # 1 / sqrt(pi)


class GaussianProcess(Baseline):
    r"""A Gaussian process on the kernel of relatedness transfer: the prediction of `KernelRidge`, with its variance.

    Gene by gene, with one kernel for all: $y_{ug} \sim N(\hat y_{ug}, v_u s_g^2)$, $v_u = k_{uu} - k_u'Qk_u$, and the
    scale $s_g^2$ the mean squared leave-one-out residual over its variance. A perturbation without relatives has the
    mean response, with the prior variance.

    **Fields:**

    - `ridge`: the kernel ridge regression, by default with an unpenalised intercept, whose uncertainty then counts.
    - `measured`: whether the variance is that of a measured effect of average noise, $(v_u + \lambda) s_g^2$, and not
        of the effect itself.
    """

    name: ClassVar[str] = "gaussian_process"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Kernel ridge regression with its predictive variance."
    source: ClassVar[str] = "GRAFT (vcc_gp); Rasmussen and Williams 2006, ch. 2 and 5"
    needs: ClassVar[tuple[str, ...]] = ("external",)

    ridge: KernelRidge = eqx.field(default_factory=lambda: KernelRidge(intercept="free"))
    measured: bool = eqx.field(static=True, default=False)

    def prepare(self, external: Sequence[Source]):
        """See `KernelRidge.prepare`."""
        return self.ridge.prepare(external)

    def fit(
        self, data: PertData, *, external: Sequence[Source] = (), key: Array | None = None
    ) -> "FittedGaussianProcess":
        """Fits to training perturbations; arguments and errors as for `KernelRidge`."""
        return FittedGaussianProcess(self, self.ridge.fit(data, external=external, key=key))


class FittedGaussianProcess(Fitted):
    """A Gaussian process after the fit. **Fields:** `model`, the recipe; `ridge`, the fitted regression."""

    model: GaussianProcess
    ridge: FittedKernelRidge

    def scale(self) -> Float[Array, " genes"]:
        r"""$s_g^2 = \frac1n \sum_i (y_{ig} - \hat y_{-i,g})^2 Q_{ii}$."""
        residual = self.ridge.data.effects - self.ridge.leave_one_out().effect
        return jnp.mean(residual * residual / self._left_out_variance()[:, None].astype(residual.dtype), axis=0)

    def predict(self, perts: Sequence[str]) -> Prediction:
        """Predictions by name, with the variance of each gene."""
        cross = self.ridge.cross(perts)
        variance = predictive_variance(self.ridge.inverse, cross, None, self._intercept)
        if self.model.measured:
            variance = variance + jnp.exp(jnp.asarray(self.model.ridge.log_ridge).astype(variance.dtype))
        return self._with_variance(self.ridge.predict(perts), variance)

    def leave_one_out(self) -> Prediction:
        """Each training perturbation from the others, with the variance of its measured effect."""
        return self._with_variance(self.ridge.leave_one_out(), self._left_out_variance())

    def crps(self) -> Float[Array, ""]:
        """The continuous ranked probability score of the leave-one-out predictions, mean over perturbations and genes.

        In units of the effects; smaller is better. To be minimised in the hyper-parameters by `tune`.
        """
        made = self.leave_one_out()
        assert made.variance is not None
        return jnp.mean(gaussian_crps(made.effect, made.variance, self.ridge.data.effects))

    def negative_log_likelihood(self) -> Float[Array, ""]:
        """Minus the marginal likelihood, see `log_marginal_likelihood`, per measured value. For `tune`."""
        effects = self.ridge.data.effects
        return -log_marginal_likelihood(self.ridge.matrix, effects, intercept=self._intercept) / effects.size

    @property
    def _intercept(self) -> Intercept:
        return self.model.ridge.intercept

    def _left_out_variance(self):
        return 1 / jnp.diagonal(precision_of(self.ridge.inverse, self._intercept))

    def _with_variance(self, made, variance):
        variance = variance.astype(made.effect.dtype)[:, None] * self.scale()[None, :]
        return dataclasses.replace(made, variance=variance, baseline=self.model.name)


def gaussian_crps(
    mean: Real[ArrayLike, "*shape"], variance: Real[ArrayLike, "*shape"], value: Real[ArrayLike, "*shape"]
) -> Float[Array, "*shape"]:
    r"""The continuous ranked probability score of a normal distribution.

    $\sigma \big( z (2\Phi(z) - 1) + 2\varphi(z) - 1/\sqrt\pi \big)$, $z = (y - \mu)/\sigma$; $|y - \mu|$ for a variance
    of 0. Smaller is better, 0 is best.

    Source: Gneiting and Raftery (2007), eq. 21.
    """
    mean, variance, value = (as_float(x, "crps") for x in (mean, variance, value))
    sigma, gap = safe_sqrt(variance), value - mean
    z = safe_divide(gap, sigma, otherwise=0.0)
    spread = z * (2 * ndtr(z) - 1) + 2 * _NORMAL * jnp.exp(-0.5 * z * z) - _HALF_WIDTH
    return jnp.where(sigma > 0, sigma * spread, jnp.abs(gap))


def log_marginal_likelihood(
    matrix: Float[Array, "perts perts"],
    effects: Real[ArrayLike, "perts genes"],
    *,
    intercept: Intercept = "free",
    scale: Real[ArrayLike, " genes"] | None = None,
) -> Float[Array, ""]:
    r"""$\sum_g \log N(y_g; \mu_g 1, s_g^2 M)$, the log density of the training effects, summed over genes.

    **Arguments:**

    - `matrix`: $M = K + \lambda\,\mathrm{diag}(v)$.
    - `intercept`: `"free"` integrates over a flat $\mu_g$ (restricted likelihood, n - 1 degrees of freedom); `"mean"`
        takes the mean of the effects as known; `"none"` has $\mu = 0$.
    - `scale`: $s_g^2$; by default the one of largest likelihood, $y_g'Q y_g/n$ (n - 1 for `"free"`).

    NaN where M is not positive definite, and -inf or inf for a gene whose effects are all equal to its mean.
    """
    y = as_float(effects, "effects").astype(matrix.dtype)
    size = len(matrix)
    factor = jsl.cho_factor(matrix, lower=True)
    half_log_determinant = jnp.sum(jnp.log(jnp.diagonal(factor[0])))
    one = jnp.ones((size, 1), y.dtype)
    freedom = size
    if intercept == "free":
        solved = jsl.cho_solve(factor, one)
        total = jnp.sum(solved)
        y = y - (solved.T @ y) / total
        half_log_determinant = half_log_determinant + 0.5 * jnp.log(total)
        freedom = size - 1
    elif intercept == "mean":
        y = y - jnp.mean(y, axis=0, keepdims=True)
    square = jnp.sum(y * jsl.cho_solve(factor, y), axis=0)
    s = square / freedom if scale is None else as_float(scale, "scale").astype(y.dtype)
    return jnp.sum(-0.5 * (square / s + freedom * jnp.log(2 * jnp.pi * s)) - half_log_determinant)
