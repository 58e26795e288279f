"""What other contexts say of a perturbation, as one effect: pure functions of stacked effects.

Effects are (sources, perts, genes), on one scale, NaN where a source does not measure a perturbation or a gene: what is
not measured is never zero, and what no source measures stays NaN.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .._stats import norm, pearson, safe_divide
from ._interface import PertData


Stack = Float[Array, "sources perts genes"]


def source_mean(effects: Stack, weights: Float[Array, " sources"] | None = None) -> Float[Array, "perts genes"]:
    """The mean over the sources that measure an entry, weighted by source."""
    known = ~jnp.isnan(effects)
    share = jnp.ones(len(effects), effects.dtype) if weights is None else weights.astype(effects.dtype)
    amount = jnp.where(known, share[:, None, None], 0)
    return safe_divide(jnp.sum(amount * jnp.where(known, effects, 0), axis=0), jnp.sum(amount, axis=0))


def times(effects: Float[Array, "*shape"], factor: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """Effects times a factor that may carry a gradient, which what is not measured has no part in."""
    known = ~jnp.isnan(effects)
    return jnp.where(known, jnp.where(known, effects, 0) * factor.astype(effects.dtype), jnp.nan)


def source_median(effects: Stack) -> Float[Array, "perts genes"]:
    """The median over the sources that measure an entry; of an even number, the middle between two."""
    known = ~jnp.isnan(effects)
    ascending = jnp.sort(jnp.where(known, effects, jnp.inf), axis=0)
    count = jnp.sum(known, axis=0, dtype=jnp.int32)
    at = lambda place: jnp.take_along_axis(ascending, jnp.maximum(place, 0)[None], axis=0)[0]
    low, high = (jnp.where(count > 0, at(place), 0) for place in ((count - 1) // 2, count // 2))
    return jnp.where(count > 0, 0.5 * (low + high), jnp.nan)


def similarity_weights(
    similarity: Float[Array, " sources"],
    log_temperature: Float[Array, ""],
    prior: Float[Array, " sources"] | None = None,
) -> Float[Array, " sources"]:
    """The softmax of similarities over a temperature, times a prior; a source of unknown similarity counts as -1."""
    scaled = jnp.where(jnp.isnan(similarity), -1, similarity) / jnp.exp(log_temperature).astype(similarity.dtype)
    share = jax.nn.softmax(scaled)
    return share if prior is None else share * prior


def basal_similarity(
    controls: Float[Array, "sources genes"], control: Float[Array, " genes"]
) -> Float[Array, " sources"]:
    """The correlation of each source's control profile with that of the target context, over the genes of both."""
    known = ~jnp.isnan(controls)
    weights = known.astype(controls.dtype)
    return pearson(jnp.where(known, controls, 0), jnp.broadcast_to(control[None, :], controls.shape), weights)


def scale_products(
    pred: Float[Array, "perts genes"], real: Float[Array, "perts genes"]
) -> tuple[Float[Array, "perts genes"], Float[Array, "perts genes"]]:
    """`(L y, L^2)` entry by entry, 0 where either side is not known: what every scale is made of."""
    known = ~(jnp.isnan(pred) | jnp.isnan(real))
    pred, real = jnp.where(known, pred, 0), jnp.where(known, real, 0)
    return pred * real, pred * pred


def optimal_scale(pred: Float[Array, "perts genes"], real: Float[Array, "perts genes"]) -> Float[Array, ""]:
    r"""The multiple of `pred` with the least squared error, $a = \langle L, y \rangle / \langle L, L \rangle$.

    For a correlation $\rho$ without centring, the error that is left is $1 - \rho^2$ of that of no change. NaN where
    `pred` is zero.
    """
    product, square = scale_products(pred, real)
    return safe_divide(jnp.sum(product), jnp.sum(square))


def gene_scales(
    product: Float[Array, " genes"], square: Float[Array, " genes"], log_ridge: Float[Array, ""]
) -> Float[Array, " genes"]:
    r"""The multiple of each gene by ridge regression towards that of all, $(p_g + \lambda a)/(s_g + \lambda)$.

    With sums over perturbations $p_g$ of $L y$ and $s_g$ of $L^2$, the scale of all $a = \sum p / \sum s$, and
    $\lambda$ in units of the mean $s_g$. 1 for all genes where nothing is known.
    """
    ridge = jnp.exp(log_ridge).astype(square.dtype) * jnp.mean(square)
    common = safe_divide(jnp.sum(product), jnp.sum(square), otherwise=1.0)
    return safe_divide(product + ridge * common, square + ridge, otherwise=1.0)


def with_norm(
    direction: Float[Array, "perts genes"], effects: Stack, weights: Float[Array, " sources"]
) -> Float[Array, "perts genes"]:
    """The direction at the size that effects have in the sources, on average: a mean of noisy effects is shorter.

    Sizes are root mean squares over the genes that a source measures. A direction of zero stays zero.
    """
    known = ~jnp.isnan(effects)
    size = _root_mean_square(effects, known)
    amount = jnp.where(jnp.any(known, axis=2), weights.astype(effects.dtype)[:, None], 0)
    wanted = safe_divide(jnp.sum(amount * size, axis=0), jnp.sum(amount, axis=0), otherwise=0.0)
    own = _root_mean_square(direction, ~jnp.isnan(direction))
    return times(direction, safe_divide(wanted, own, otherwise=0.0)[:, None])


def _root_mean_square(x: Float[Array, "*batch genes"], known: Bool[Array, "*batch genes"]) -> Float[Array, "*batch"]:
    count = jnp.sum(known, axis=-1, dtype=jnp.int32).astype(x.dtype)
    return norm(jnp.where(known, x, 0)) / jnp.sqrt(jnp.maximum(count, 1))


def source_agreement(effects: Stack) -> Float[Array, " perts"]:
    """How well the mean over sources is known, in [0, 1]: the mean correlation of two sources, by Spearman and Brown
    that of as many as measure the perturbation.

    NaN where fewer than two do, 0 where they do not agree.
    """
    known = ~jnp.isnan(effects)
    filled, counted = jnp.where(known, effects, 0), known.astype(effects.dtype)
    total, pairs = jnp.zeros_like(effects[0, :, 0]), jnp.zeros_like(effects[0, :, 0])
    for a, b in itertools.combinations(range(len(effects)), 2):
        value = pearson(filled[a], filled[b], counted[a] * counted[b])
        defined = ~jnp.isnan(value)
        total, pairs = total + jnp.where(defined, value, 0), pairs + defined.astype(effects.dtype)
    mean = safe_divide(total, pairs)
    number = jnp.sum(jnp.any(known, axis=2), axis=0, dtype=jnp.int32).astype(effects.dtype)
    positive = mean > 0
    raised = safe_divide(number * mean, jnp.where(positive, 1 + (number - 1) * mean, 0), otherwise=0.0)
    return jnp.where(jnp.isnan(mean), jnp.nan, raised)


def compressed(effects: Float[Array, "*shape"], power: Float[Array, ""]) -> Float[Array, "*shape"]:
    r"""$\mathrm{sign}(x)|x|^p$, with a derivative of zero at zero."""
    moved = effects != 0
    size = jnp.exp(power.astype(effects.dtype) * jnp.log(jnp.where(moved, jnp.abs(effects), 1)))
    return jnp.where(moved, jnp.sign(effects) * size, effects)


def nonnegative_weights(gram: Float[Array, "k k"], cross: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""The $w \ge 0$ with the least $\frac12 w'Aw - w'b$: non-negative least squares from its normal equations.

    Coordinate descent finds which weights are positive; they then solve their own equations exactly, which is also what
    is differentiated.
    """
    size = jnp.diagonal(gram)
    unit = jnp.where(size > 0, size, 1)
    scale = 1 / jnp.sqrt(unit)
    a, b = lax.stop_gradient((gram * scale[:, None] * scale[None, :], cross * scale))
    usable = lax.stop_gradient(size > 0)
    tolerance = 16 * jnp.finfo(gram.dtype).eps * jnp.maximum(jnp.max(jnp.abs(b)), jnp.finfo(gram.dtype).tiny)

    def sweep(state):
        old, _, count = state
        update = lambda i, w: w.at[i].set(jnp.where(usable[i], jnp.maximum(w[i] + b[i] - a[i] @ w, 0), 0))
        new = lax.fori_loop(0, len(b), update, old)
        return new, jnp.max(jnp.abs(new - old)), count + 1

    going = lambda state: (state[1] > tolerance) & (state[2] < 10_000)
    found, _, _ = lax.while_loop(going, sweep, (jnp.zeros_like(b), jnp.full((), jnp.inf, b.dtype), jnp.int32(0)))
    active = found > 0
    both = active[:, None] & active[None, :]
    matrix = jnp.where(both, gram, jnp.diag(jnp.where(active, 0, 1).astype(gram.dtype)))
    return jnp.where(active, jnp.linalg.solve(matrix, jnp.where(active, cross, 0)), 0)


def knockdown_depth(data: PertData) -> Float[Array, ""]:
    """The median size of the effect of a perturbation on the gene that it targets; NaN where no target is measured."""
    if data.targets is None or not len(data.perts):
        return jnp.full((), jnp.nan, data.effects.dtype)
    targets = jnp.asarray(data.targets)
    own = jnp.take_along_axis(data.effects, jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
    return source_median(jnp.where(targets >= 0, jnp.abs(own), jnp.nan)[:, None, None])[0, 0]
