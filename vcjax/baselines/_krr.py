r"""Kernel ridge regression in closed form: fit, exact refits without each perturbation or group, and bands.

Every prediction is linear in the effects, Ŷ = W Y with a row of W for each perturbation predicted, so all that follows
is algebra of small matrices and one product with Y. $Q = (K + \lambda\,\mathrm{diag}(v))^{-1}$ throughout.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float, as_float_matrix


Intercept = Literal["mean", "free", "none"]
"""What a perturbation without relatives gets: the mean of the training effects, refitted in every fold; an unpenalised
intercept, the generalised least squares mean; or nothing, the control."""

Groups = Sequence[Any] | np.ndarray | None


class KernelRidgeResult(NamedTuple):
    """What `krr` gives: predictions, exact leave-one-out predictions, and the variances of the first for unit scale."""

    effect: Float[Array, "new genes"]
    leave_one_out: Float[Array, "perts genes"]
    variance: Float[Array, " new"]


def krr(
    kernel: Real[ArrayLike, "perts perts"],
    cross: Real[ArrayLike, "new perts"],
    effects: Real[ArrayLike, "perts genes"],
    log_ridge: Real[ArrayLike, ""],
    *,
    noise: Real[ArrayLike, " perts"] | None = None,
    prior: Real[ArrayLike, " new"] | None = None,
    intercept: Intercept = "mean",
) -> KernelRidgeResult:
    r"""Kernel ridge regression of effects, $\hat Y = 1\mu' + K_{UO}\,Q\,(Y - 1\mu')$, with exact leave-one-out.

    **Arguments:**

    - `kernel`, `cross`: similarities among training perturbations, and of new ones to them.
    - `log_ridge`: $\log\lambda$. `noise`: $v$, the relative noise of each training perturbation, 1 by default.
    - `prior`: similarity of each new perturbation to itself, 1 by default.
    - `intercept`: where $\mu$ comes from, see `Intercept`.

    **Raises:** `ValueError` for shapes that do not fit and another intercept.
    """
    effects = as_float_matrix(effects, "effects")
    inverse = ridge_inverse(kernel, jnp.exp(as_float(log_ridge, "log_ridge")), noise)
    cross = as_float_matrix(cross, "cross").astype(inverse.dtype)
    if cross.shape[1] != len(inverse) or len(effects) != len(inverse):
        raise ValueError(
            f"A kernel of {len(inverse)} perturbations needs as many columns of `cross` and rows of `effects`, got "
            f"shapes {cross.shape} and {effects.shape}."
        )
    weights, left_out = smoother(inverse, cross, intercept), held_out_smoother(inverse, intercept)
    return KernelRidgeResult(
        smooth(weights, effects), smooth(left_out, effects), predictive_variance(inverse, cross, prior, intercept)
    )


def regularised(
    kernel: Real[ArrayLike, "perts perts"],
    ridge: Real[ArrayLike, ""],
    noise: Real[ArrayLike, " perts"] | None = None,
) -> Float[Array, "perts perts"]:
    r"""$K + \lambda\,\mathrm{diag}(v)$, in the widest precision that JAX is set to.

    **Raises:** `ValueError` for a kernel that is not square and noise of another length.
    """
    dtype = jnp.result_type(float)
    kernel = as_float_matrix(kernel, "kernel").astype(dtype)
    size = kernel.shape[0]
    noise = jnp.ones(size, dtype) if noise is None else as_float(noise, "noise").astype(dtype)
    if kernel.shape != (size, size) or noise.shape != (size,):
        raise ValueError(f"A square kernel and the noise of its rows are needed, got {kernel.shape} and {noise.shape}.")
    return kernel + jnp.diag(as_float(ridge, "ridge").astype(dtype) * noise)


def ridge_inverse(
    kernel: Real[ArrayLike, "perts perts"],
    ridge: Real[ArrayLike, ""],
    noise: Real[ArrayLike, " perts"] | None = None,
) -> Float[Array, "perts perts"]:
    r"""$Q = (K + \lambda\,\mathrm{diag}(v))^{-1}$, by Cholesky; arguments as for `regularised`.

    NaN where $K + \lambda\,\mathrm{diag}(v)$ is not positive definite.
    """
    return inverse_of(regularised(kernel, ridge, noise))


def inverse_of(matrix: Float[Array, "perts perts"]) -> Float[Array, "perts perts"]:
    """The inverse of a positive definite matrix, by Cholesky."""
    return jsl.cho_solve(jsl.cho_factor(matrix, lower=True), jnp.eye(len(matrix), dtype=matrix.dtype))


def smooth(weights: Float[Array, "new perts"], effects: Float[Array, "perts genes"]) -> Float[Array, "new genes"]:
    """The predictions of a linear smoother, in the precision of the effects."""
    return jnp.matmul(weights.astype(effects.dtype), effects, precision=lax.Precision.HIGHEST)


def smoother(
    inverse: Float[Array, "perts perts"], cross: Float[Array, "new perts"], intercept: Intercept = "mean"
) -> Float[Array, "new perts"]:
    r"""The weight of every training effect in every prediction: $KQ + (1 - KQ1) m'$, with $m'Y$ the intercept."""
    weights = cross @ inverse
    rest = 1 - jnp.sum(weights, axis=1, keepdims=True)
    return weights + rest * _intercept_weights(inverse, intercept)[None, :]


def held_out_smoother(
    inverse: Float[Array, "perts perts"], intercept: Intercept = "mean", groups: Groups = None
) -> Float[Array, "perts perts"]:
    r"""The H of $\hat Y = H Y$, every perturbation predicted from a refit without its group.

    Equal to the refits themselves, intercept included. With $B$ the matrix $Q$ cut to pairs of one group and
    $r = B^{-1} Q$, $H = I - r$; refitted means add $(r1)_i$ times the mean of the effects outside the group of $i$. An
    unpenalised intercept has $Q - Q11'Q/(1'Q1)$ in the place of $Q$.

    **Arguments:** `groups`, a label of each perturbation, known outside `jit`; by default each is alone.

    **Raises:** `ValueError` for another number of labels, and for a single group, which leaves nothing to train on.
    """
    size = len(inverse)
    q = precision_of(inverse, intercept)
    if groups is None:
        same = jnp.eye(size, dtype=bool)
        residual = q / jnp.diagonal(q)[:, None]
    else:
        same = jnp.asarray(same_group(groups, size))
        # One factorisation for all groups: sorted by group, B is block-diagonal.
        residual = jsl.cho_solve(jsl.cho_factor(jnp.where(same, q, 0), lower=True), q)
    weights = jnp.eye(size, dtype=q.dtype) - residual
    if intercept != "mean":
        return weights
    number = jnp.sum(~same, axis=1, keepdims=True, dtype=jnp.int32).astype(q.dtype)
    return weights + jnp.sum(residual, axis=1, keepdims=True) * jnp.where(same, 0, 1 / number)


def predictive_variance(
    inverse: Float[Array, "perts perts"],
    cross: Float[Array, "new perts"],
    prior: Real[ArrayLike, " new"] | None = None,
    intercept: Intercept = "mean",
) -> Float[Array, " new"]:
    r"""$v_u = k_{uu} - k_u' Q k_u$, and $(1 - k_u'Q1)^2/(1'Q1)$ more for an unpenalised intercept.

    That of a Gaussian process of unit scale; an intercept that is a mean counts as known.
    """
    weights = cross @ inverse
    prior = jnp.ones(len(cross), inverse.dtype) if prior is None else as_float(prior, "prior").astype(inverse.dtype)
    variance = prior - jnp.sum(weights * cross, axis=1)
    if intercept == "free":
        variance = variance + (1 - jnp.sum(weights, axis=1)) ** 2 / jnp.sum(inverse)
    return jnp.maximum(variance, 0)


def precision_of(inverse: Float[Array, "perts perts"], intercept: Intercept) -> Float[Array, "perts perts"]:
    """Q, or for an unpenalised intercept what of it is at right angles to a constant."""
    weights = _intercept_weights(inverse, intercept)
    if intercept != "free":
        return inverse
    return inverse - jnp.sum(inverse, axis=1, keepdims=True) * weights[None, :]


def same_group(groups: Sequence[Any] | np.ndarray, size: int) -> Bool[np.ndarray, "perts perts"]:
    """Which perturbations share a group.

    **Raises:** `ValueError` for another number of labels, and for a single group.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if codes.shape != (size,):
        raise ValueError(f"{size} perturbations need as many group labels, got {codes.size}.")
    same = codes[:, None] == codes[None, :]
    if same.all():
        raise ValueError("Two groups at least are needed: without the only one, nothing is left to train on.")
    return same


def _intercept_weights(inverse, intercept):
    size = len(inverse)
    if intercept == "mean":
        return jnp.full(size, 1 / size, inverse.dtype)
    if intercept == "free":
        return jnp.sum(inverse, axis=0) / jnp.sum(inverse)
    if intercept == "none":
        return jnp.zeros(size, inverse.dtype)
    raise ValueError(f'`intercept` is "mean", "free" or "none", got {intercept!r}.')
