"""The moderated t of limma: variances of genes squeezed towards one prior that all genes share."""

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import digamma, polygamma
from jaxtyping import Array, Float

from .._stats import safe_divide, safe_sqrt
from ..de import Moments


_NEWTON_STEPS = 12
_LEAST_SHARE = 1e-5  # of the median variance: below, a logarithm would rule the fit of all genes


def moderated_t(groups: Moments, reference: Moments) -> Float[Array, "groups genes"]:
    r"""$t = (m - m_r) / \big(\tilde s \sqrt{1/n + 1/n_r}\big)$ of each group against its reference.

    $s^2$ is the pooled variance of both, of $d = n + n_r - 2$ degrees of freedom, and $\tilde s^2 = (d_0 s_0^2 + d
    s^2)/(d_0 + d)$ with the prior of `fit_prior`, fitted over the genes of each group. 0 where nothing varies.

    **Arguments:**

    - `reference`: one group for all, or one for each.

    **Raises:** `ValueError` for other numbers of reference groups, or of genes.

    Source: Smyth (2004), *Linear models and empirical Bayes methods*, section 4; limma `eBayes` for two groups.
    """
    count, genes = groups.mean.shape
    if reference.mean.shape not in ((1, genes), (count, genes)):
        raise ValueError(f"The reference is one group or {count}, of {genes} genes, got {reference.mean.shape}.")
    n, others = groups.cells[:, None], reference.cells[:, None]
    freedom = jnp.maximum(n + others - 2, 1)
    variance = ((n - 1) * groups.variance + (others - 1) * reference.variance) / freedom
    prior_freedom, prior_variance = fit_prior(variance, freedom[:, 0])
    share = 1 / (1 + freedom / prior_freedom[:, None])  # 1 for an infinite prior
    squeezed = share * prior_variance[:, None] + (1 - share) * variance
    error = safe_sqrt(lax.stop_gradient(squeezed) * (1 / n + 1 / others))
    return safe_divide(groups.mean - reference.mean, error, otherwise=0.0)


def fit_prior(
    variance: Float[Array, "groups genes"], freedom: Float[Array, " groups"]
) -> tuple[Float[Array, " groups"], Float[Array, " groups"]]:
    r"""Degrees of freedom $d_0$ and variance $s_0^2$ of the prior behind the variances of each row.

    By moments: with $e_g = \log s_g^2 - \psi(d/2) + \log(d/2)$,

    $$\psi'(d_0/2) = \mathrm{var}_g(e) - \psi'(d/2), \qquad \log s_0^2 = \bar e + \psi(d_0/2) - \log(d_0/2).$$

    If the logarithms vary no more than sampling makes them, $d_0$ is infinite and $s_0^2$ the mean variance. Genes that
    do not vary take no part; where none does, $s_0^2 = 0$.

    Source: Smyth (2004), section 6.2; limma `fitFDist`.
    """
    variance, freedom = lax.stop_gradient((variance, freedom))
    half = freedom[:, None] / 2
    varies = variance > 0
    count = jnp.sum(varies, axis=1, keepdims=True, dtype=jnp.int32).astype(variance.dtype)
    mean = lambda x: jnp.sum(jnp.where(varies, x, 0), axis=1, keepdims=True) / jnp.maximum(count, 1)
    floor = _LEAST_SHARE * _median(variance, varies)
    e = jnp.log(jnp.where(varies, jnp.maximum(variance, floor), 1)) - digamma(half) + jnp.log(half)
    centre = mean(e)
    spread = mean((e - centre) ** 2) * count / jnp.maximum(count - 1, 1) - polygamma(1, half)
    finite = spread > 0
    prior_half = _trigamma_inverse(jnp.where(finite, spread, 1))
    scale = jnp.exp(centre + digamma(prior_half) - jnp.log(prior_half))
    prior_freedom = jnp.where(finite, 2 * prior_half, jnp.inf)
    prior_variance = jnp.where(count > 0, jnp.where(finite, scale, mean(variance)), 0)
    return prior_freedom[:, 0], prior_variance[:, 0]


def _median(x, where):
    """The median of each row over `where`; 0 where there is nothing."""
    ascending = jnp.sort(jnp.where(where, x, jnp.inf), axis=1)
    count = jnp.sum(where, axis=1, keepdims=True, dtype=jnp.int32)
    at = lambda place: jnp.take_along_axis(ascending, jnp.maximum(place, 0), axis=1)
    middle = 0.5 * (at((count - 1) // 2) + at(count // 2))
    return jnp.where(count > 0, middle, 0)


def _trigamma_inverse(x):
    r"""y with $\psi'(y) = x$, by Newton's method on $1/\psi'$, which is convex and nearly straight."""
    inside = jnp.clip(x, 1e-6, 1e7)

    def step(_, y):
        value = polygamma(1, y)
        return y + value * (1 - value / inside) / polygamma(2, y)

    y = lax.fori_loop(0, _NEWTON_STEPS, step, 0.5 + 1 / inside)
    return jnp.where(x > 1e7, 1 / jnp.sqrt(x), jnp.where(x < 1e-6, 1 / x, y))
