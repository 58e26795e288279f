r"""Smoothed comparisons: symmetric distribution functions that replace the unit step.

Every kernel is scaled so that $F(1) = 3/4$: a temperature is the gap at which a comparison is three quarters decided.
"""

import abc
import functools as ft
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


_LN2, _LN3 = math.log(2.0), math.log(3.0)
_GAUSS_QUARTILE = 0.6744897501960817  # standard normal: Phi(q) = 3/4
_MATERN_QUARTILE = 1.1461932206205825  # (2 + q) exp(-q) = 1


class AbstractKernel(eqx.Module):
    """A symmetric distribution function `cdf` with density `pdf`, and `cdf(0) = 1/2`."""

    @abc.abstractmethod
    def cdf(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """$F(t)$, with $F(t) + F(-t) = 1$ and $F(1) = 3/4$."""

    @abc.abstractmethod
    def pdf(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The derivative of `cdf`."""


class Logistic(AbstractKernel):
    r"""$F(t) = 1 / (1 + 3^{-t})$: light tails, for rows of few comparisons and for thresholds."""

    def cdf(self, t):
        return jax.nn.sigmoid(_LN3 * t)

    def pdf(self, t):
        return _LN3 * jax.nn.sigmoid(_LN3 * t) * jax.nn.sigmoid(-_LN3 * t)


class Gauss(AbstractKernel):
    r"""$F(t) = \Phi(0.674\,t)$: the lightest tails."""

    def cdf(self, t):
        return jax.scipy.special.ndtr(_GAUSS_QUARTILE * t)

    def pdf(self, t):
        return _GAUSS_QUARTILE * jnp.exp(-0.5 * (_GAUSS_QUARTILE * t) ** 2) / math.sqrt(2 * math.pi)


class AbstractSortedKernel(AbstractKernel):
    r"""A kernel whose sums $\sum_j w_j F((z_i - z_j)/T)$ over sorted $z$ follow a first-order recurrence.

    That makes them exact in O(n log n), where any other kernel needs all pairs.
    """

    @abc.abstractmethod
    def sorted_cdf_sums(
        self, z: Float[Array, "*batch n"], w: Float[Array, "*batch n"], temperature: Float[Array, "*batch 1"]
    ) -> Float[Array, "*batch n"]:
        r"""$\sum_{j} w_j F((z_i - z_j)/T)$ for ascending `z`; the pair of an item with itself counts $w_i/2$."""

    @abc.abstractmethod
    def sorted_pdf_sums(
        self, z: Float[Array, "*batch n"], w: Float[Array, "*batch n"], temperature: Float[Array, "*batch 1"]
    ) -> Float[Array, "*batch n"]:
        r"""$\sum_{j \neq i} w_j f((z_i - z_j)/T) / T$ for ascending `z`; zero where T is zero."""


class Laplace(AbstractSortedKernel):
    r"""$F(t) = 2^{t}/2$ for $t < 0$: the default where a whole axis is ranked."""

    def cdf(self, t):
        tail = 0.5 * jnp.exp(-_LN2 * jnp.abs(t))
        return jnp.where(t < 0, tail, 1 - tail)

    def pdf(self, t):
        return 0.5 * _LN2 * jnp.exp(-_LN2 * jnp.abs(t))

    def sorted_cdf_sums(self, z, w, temperature):
        left, right = self._tails(z, w, temperature)
        return jnp.cumsum(w, -1) - 0.5 * w - 0.5 * left + 0.5 * right

    def sorted_pdf_sums(self, z, w, temperature):
        left, right = self._tails(z, w, temperature)
        return 0.5 * _LN2 * _inverse(temperature) * (left + right)

    def _tails(self, z, w, temperature):
        """The decayed mass on the left, sum_{j<i} w_j 2^{-(z_i - z_j)/T}, and on the right."""
        decay, _ = _decay(z, temperature, _LN2)
        left = _recurrence(decay, decay * _shift_right(w))
        back = _shift_left(decay)
        right = _recurrence(back, back * _shift_left(w), reverse=True)
        return left, right


class Matern32(AbstractSortedKernel):
    r"""$F(t) = (2 + s)e^{-s}/4$ with $s = 1.146|t|$ for $t < 0$: as `Laplace`, twice differentiable, 1.4 times the
    cost.
    """

    def cdf(self, t):
        s = _MATERN_QUARTILE * jnp.abs(t)
        tail = 0.25 * (2 + s) * jnp.exp(-s)
        return jnp.where(t < 0, tail, 1 - tail)

    def pdf(self, t):
        s = _MATERN_QUARTILE * jnp.abs(t)
        return 0.25 * _MATERN_QUARTILE * (1 + s) * jnp.exp(-s)

    def sorted_cdf_sums(self, z, w, temperature):
        left, left_slope, right, right_slope = self._tails(z, w, temperature)
        return jnp.cumsum(w, -1) - 0.5 * w - 0.25 * (2 * left + left_slope) + 0.25 * (2 * right + right_slope)

    def sorted_pdf_sums(self, z, w, temperature):
        left, left_slope, right, right_slope = self._tails(z, w, temperature)
        return 0.25 * _MATERN_QUARTILE * _inverse(temperature) * (left + left_slope + right + right_slope)

    def _tails(self, z, w, temperature):
        """The sums of w e^{-s} and of w s e^{-s} over the items on the left, and on the right."""
        decay, slope = _decay(z, temperature, _MATERN_QUARTILE)
        w_left, w_right = _shift_right(w), _shift_left(w)
        left = _recurrence_with_slope(decay, slope, w_left)
        right = _recurrence_with_slope(_shift_left(decay), _shift_left(slope), w_right, reverse=True)
        return *left, *right


def _inverse(temperature):
    positive = temperature > 0
    return jnp.where(positive, 1 / jnp.where(positive, temperature, 1), 0)


def _shift_right(v):
    return jnp.concatenate([jnp.zeros_like(v[..., :1]), v[..., :-1]], -1)


def _shift_left(v):
    return jnp.concatenate([v[..., 1:], jnp.zeros_like(v[..., :1])], -1)


def _decay(z, temperature, rate):
    """exp(-t) and t exp(-t) of the scaled gaps t between neighbours; at T = 0 the indicator of a tie, and zero."""
    tied = z[..., 1:] == z[..., :-1]
    gap = jnp.where(tied, 0, z[..., 1:] - z[..., :-1])  # inf - inf is a tie, not NaN
    t = jnp.minimum(rate * gap * _inverse(temperature), 700)
    soft = temperature > 0
    decay = jnp.where(soft, jnp.exp(-t), tied.astype(z.dtype))
    slope = jnp.where(soft, t * jnp.exp(-t), 0)
    first = jnp.zeros_like(z[..., :1])
    return jnp.concatenate([first, decay], -1), jnp.concatenate([first, slope], -1)


def _recurrence(a, b, reverse=False):
    """h_k = a_k h_{k-1} + b_k along the last axis, from zero."""

    def combine(first, second):
        return second[0] * first[0], second[0] * first[1] + second[1]

    def advance(h, step):
        h = step[0] * h + step[1]
        return h, h

    return _along_axis(combine, lambda states: states[1], advance, jnp.zeros_like(b[..., 0]), (a, b), reverse)


def _recurrence_with_slope(a, m, w, reverse=False):
    """h_k = a_k (h_{k-1} + w_k) and g_k = a_k g_{k-1} + m_k (h_{k-1} + w_k) along the last axis, from zero."""

    def combine(first, second):
        a1, m1, h1, g1 = first
        a2, m2, h2, g2 = second
        return a2 * a1, a2 * m1 + m2 * a1, a2 * h1 + h2, a2 * g1 + m2 * h1 + g2

    def advance(state, step):
        h, g = state
        a, m, b, c = step
        state = a * h + b, a * g + m * h + c
        return state, state

    zero = jnp.zeros_like(w[..., 0])
    return _along_axis(combine, lambda states: states[2:], advance, (zero, zero), (a, m, a * w, m * w), reverse)


def _along_axis(combine, result, advance, start, steps, reverse):
    """A linear recurrence along the last axis: step by step where steps are cheap (CPU), else in logarithmic depth."""
    if jax.default_backend() != "cpu":
        return result(lax.associative_scan(combine, steps, axis=steps[0].ndim - 1, reverse=reverse))
    steps = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), steps)
    states = lax.scan(advance, start, steps, reverse=reverse)[1]
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), states)


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cdf(kernel: AbstractKernel, t):
    return kernel.cdf(t)


@_cdf.defjvp
def _cdf_jvp(kernel, primals, tangents):
    # The density is exact at zero too, where differentiating through `abs` and `where` depends on a convention.
    return _cdf(kernel, *primals), kernel.pdf(*primals) * tangents[0]


def soft_step(
    kernel: AbstractKernel, delta: Float[Array, "*shape"], temperature: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    r"""$F(\delta / T)$; at $T = 0$ the unit step $H(\delta)$ with $H(0) = 1/2$ and no gradient.

    `temperature` is a constant of the comparison: no gradient flows into it.
    """
    temperature = lax.stop_gradient(temperature)
    soft = temperature > 0
    smooth = _cdf(kernel, delta / jnp.where(soft, temperature, 1))
    return jnp.where(soft, smooth, 0.5 * (1 + jnp.sign(lax.stop_gradient(delta))))
