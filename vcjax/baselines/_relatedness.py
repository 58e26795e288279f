"""How much perturbations resemble each other in one data set: from its own effects, over its own genes.

Data sets need not share genes, cell lines or units to be combined later: each gives similarities of perturbations only.
"""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import as_float_matrix
from .._stats import safe_divide, safe_sqrt
from ._interface import PertData, rows_of


Kind = Literal["pearson", "cosine", "sharpened", "rbf"]
Drop = Literal["own", "panel", "none"]


class Relatives(eqx.Module):
    r"""What one data set knows of how perturbations resemble each other, for any centring and length-scale.

    With $a_p$ the effect less the data set's mean response $b$, over the genes that count for $p$ (and both less their
    mean over these for a correlation), the effect less a share $c$ of the mean response is $a_p + (1 - c) b$. Its inner
    products are a quadratic in $c$, so that neither a kernel nor its derivative ever returns to the genes.

    **Fields:**

    - `products`: $\langle a_p, a_q \rangle$; `crossed`: $\langle a_p, b \rangle + \langle b, a_q \rangle$; `common`:
        $\langle b, b \rangle$, each over the genes that count for both. `None` for `kind="rbf"`.
    - `squares`: squared distances of principal component scores over their median; `None` but for `kind="rbf"`.
    - `reliability`: the share of $|a_p|^2$ that is not sampling noise; 1 where the noise is not known.
    - `perts`, `kind`, `context`: names, and what they were made with.
    """

    products: Float[Array, "perts perts"] | None
    crossed: Float[Array, "perts perts"] | None
    common: Float[Array, "perts perts"] | None
    squares: Float[Array, "perts perts"] | None
    reliability: Float[Array, " perts"]
    perts: tuple[str, ...] = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    context: str = eqx.field(static=True, default="")

    def rows(self, perts: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """The rows of these perturbations, -1 for one that this data set lacks."""
        return rows_of(perts, self.perts)

    def kernel(
        self,
        rows: Int[ArrayLike, " rows"],
        columns: Int[ArrayLike, " columns"],
        *,
        centre: Real[ArrayLike, ""] = 1.0,
        shrinkage: Real[ArrayLike, ""] = 0.0,
        log_length_scale: Real[ArrayLike, ""] = 0.0,
    ) -> Float[Array, "rows columns"]:
        r"""Similarities $\kappa_{pq} (\rho_p \rho_q)^{s/2}$ between perturbations by their rows here; 0 for row -1.

        $\kappa$ is the correlation or cosine $r$; $e^{(r - 1)/\ell^2}$ for `"sharpened"`; $e^{-d^2/2\ell^2}$ for
        `"rbf"`. All are positive semi-definite, and so is the shrunken one for $s \ge 0$.

        **Arguments:**

        - `rows`, `columns`: rows of this data set, -1 for a perturbation that it lacks.
        - `centre`: the share $c$ of the mean response that is taken from every effect. Distances do not depend on it.
        - `shrinkage`: $s$; 1 multiplies by $\sqrt{\rho_p \rho_q}$, which trusts noisy perturbations less; -1 divides by
            it (correction for attenuation), cut at ±1 and no longer semi-definite.
        - `log_length_scale`: $\log \ell$; for `"rbf"`, 0 is the median distance.

        A perturbation without any effect has the correlation 0, and one without reliability the similarity 0 unless
        $s = 0$.
        """
        rows, columns = jnp.asarray(rows), jnp.asarray(columns)
        here = (rows >= 0)[:, None] & (columns >= 0)[None, :]
        square = jnp.exp(2 * self._leaf(log_length_scale))
        if self.squares is not None:
            values = jnp.exp(-_part(self.squares, rows, columns) / (2 * square))
        else:
            values = self._correlation(rows, columns, self._leaf(centre))
        if self.kind == "sharpened":
            values = jnp.exp((values - 1) / square)
        factor = _power(self.reliability, 0.5 * self._leaf(shrinkage))
        values = jnp.clip(values * factor[rows][:, None] * factor[columns][None, :], -1, 1)
        return jnp.where(here, values, 0)

    def _correlation(self, rows, columns, centre):
        assert self.products is not None
        assert self.crossed is not None
        assert self.common is not None
        rest = 1 - centre
        parts = self.products, self.crossed, self.common
        at = lambda own, crossed, common: own + rest * crossed + rest * rest * common
        diagonals = [jnp.diagonal(x) for x in parts]
        root = _root_above_rounding(at(*diagonals), diagonals, rest)
        values = at(*(_part(x, rows, columns) for x in parts))
        return safe_divide(values, root[rows][:, None] * root[columns][None, :], otherwise=0.0)

    def _leaf(self, x):
        return jnp.asarray(x).astype(self.reliability.dtype)


class NamedKernel(eqx.Module):
    """Similarities that are known otherwise (gene sets, networks, embeddings), to stand beside those of data sets.

    **Fields:** `values`, symmetric, positive semi-definite, with at most 1 on the diagonal; `perts`, names of its rows.
    """

    values: Float[Array, "perts perts"]
    perts: tuple[str, ...] = eqx.field(static=True)
    context: str = eqx.field(static=True, default="")

    def __check_init__(self):
        if np.shape(self.values) != (len(self.perts),) * 2:
            raise ValueError(f"{len(self.perts)} names need as many rows and columns, got {np.shape(self.values)}.")

    def rows(self, perts: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """The rows of these perturbations, -1 for one that is not among them."""
        return rows_of(perts, self.perts)

    def kernel(
        self, rows: Int[ArrayLike, " rows"], columns: Int[ArrayLike, " columns"], **_
    ) -> Float[Array, "rows columns"]:
        """This part of the matrix, a constant of the differentiation; 0 for row -1."""
        rows, columns = jnp.asarray(rows), jnp.asarray(columns)
        here = (rows >= 0)[:, None] & (columns >= 0)[None, :]
        return jnp.where(here, _part(lax.stop_gradient(jnp.asarray(self.values)), rows, columns), 0)


def relate(data: PertData, *, kind: Kind = "pearson", drop: Drop = "own", components: int = 50) -> Relatives:
    r"""The resemblance of the perturbations of a data set, by one product of (perts, genes) matrices.

    **Arguments:**

    - `data`: effects against the data set's own control, over its own genes. With `noise`, each perturbation has a
        reliability $\rho_p = \max(0, 1 - C_p / |a_p|^2)$.
    - `kind`: `"pearson"` or `"cosine"` similarity of effects; `"sharpened"`, a Gaussian kernel between standardised
        effects; `"rbf"`, one between principal component scores.
    - `drop`: genes left out. `"own"` sets the gene that a perturbation targets to nothing in its own row, so that the
        product of two rows holds neither's target and the kernel stays semi-definite; `"panel"` leaves out the targets
        of all; `"none"`. Without `data.targets` nothing is left out.
    - `components`: of `"rbf"`; that one has no gradient back to the effects.

    **Raises:** `ValueError` for another word and for less than one component.

    Source: relatedness transfer, N. LaPierre (GRAFT), which neither centres nor drops targets.
    """
    for name, value, allowed in (("kind", kind, Kind), ("drop", drop, Drop)):
        if value not in allowed.__args__:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed.__args__))}, got {value!r}.")
    if components < 1:
        raise ValueError(f"`components` is at least 1, got {components}.")
    effects = as_float_matrix(data.effects, "effects")
    targets = jnp.full(len(data.perts), -1) if data.targets is None else lax.stop_gradient(jnp.asarray(data.targets))
    mean = jnp.mean(effects, axis=0)
    own, mean, targets, counted = _count(effects - mean[None, :], mean, targets, drop)
    level = kind in ("pearson", "sharpened")
    if level:
        number = jnp.sum(counted, axis=1, keepdims=True, dtype=jnp.int32).astype(own.dtype)
        own = jnp.where(counted, own - jnp.sum(own, axis=1, keepdims=True) / number, 0)
    products = jnp.matmul(own, own.T, precision=lax.Precision.HIGHEST)
    reliability = _reliability(lax.stop_gradient(jnp.diagonal(products)), data.noise, counted)
    if kind == "rbf":
        squares = _score_distances(products, components)
        return Relatives(None, None, None, squares, reliability, data.perts, kind, data.context)
    crossed, common = _with_mean(own, mean, targets, counted, level)
    return Relatives(products, crossed, common, None, reliability, data.perts, kind, data.context)


def _part(matrix, rows, columns):
    return matrix[rows][:, columns]


def _power(x: Float[Array, " n"], exponent: Float[Array, ""]) -> Float[Array, " n"]:
    """x to a power that may carry a gradient; 0, whatever the power but 0, where x is 0."""
    positive = x > 0
    raised = jnp.exp(exponent * jnp.log(jnp.where(positive, x, 1)))
    return jnp.where(positive, raised, (exponent == 0).astype(x.dtype))


def _root_above_rounding(square, parts, rest):
    """The norms of rows; 0 where a row differs from its reference by rounding, which has a direction and no meaning."""
    own, crossed, common = (lax.stop_gradient(jnp.abs(x)) for x in parts)
    rest, eps = lax.stop_gradient(jnp.abs(rest)), 16 * jnp.finfo(square.dtype).eps
    rounding = eps * eps * (own + common) + eps * (rest * crossed + rest * rest * common)
    return safe_sqrt(jnp.where(square > rounding, square, 0))


def _count(own, mean, targets, drop):
    """Effects and their mean with zeros for what does not count, the targets that each row leaves out, and the mask."""
    gene: Bool[Array, "perts genes"] = jnp.arange(own.shape[1], dtype=targets.dtype)[None, :] == targets[:, None]
    if drop == "own":
        return jnp.where(gene, 0, own), mean, targets, ~gene
    kept = ~jnp.any(gene, axis=0) if drop == "panel" else jnp.ones(own.shape[1], bool)
    own, mean = jnp.where(kept[None, :], own, 0), jnp.where(kept, mean, 0)
    return own, mean, jnp.full_like(targets, -1), jnp.broadcast_to(kept[None, :], own.shape)


def _with_mean(own, mean, targets, counted, level):
    """The inner products with the mean response, and of it with itself, over the genes that count for both.

    From sums over all genes less the targets of the two, so that no second product over genes is needed.
    """
    kept = jnp.any(counted, axis=0)
    total = jnp.sum(kept, dtype=jnp.int32).astype(own.dtype)
    mean = jnp.where(kept, mean - jnp.sum(mean) / total, 0) if level else mean
    has = targets >= 0
    gene = jnp.where(has, targets, 0)
    at = jnp.where(has, mean[gene], 0)
    # Without its target a row has another level, and the mean response that level less in this row.
    shift = -at / (total - 1) if level else jnp.zeros_like(at)
    here = jnp.where(has[None, :], own[:, gene], 0)  # the gene that q targets, in the row of p
    crossed = (own @ mean)[:, None] - here * (at - shift)[None, :]
    term = lambda at: (at - shift[:, None]) * (at - shift[None, :])
    first = jnp.where(has[:, None], term(at[:, None]), 0)
    second = jnp.where(has[None, :] & (targets[:, None] != targets[None, :]), term(at[None, :]), 0)
    common = jnp.sum(mean * mean) + total * shift[:, None] * shift[None, :] - first - second
    return crossed + crossed.T, common


def _reliability(square, noise, counted):
    if noise is None:
        return jnp.ones_like(square)
    noise = lax.stop_gradient(noise).astype(square.dtype)
    noise = noise if noise.ndim == 1 else jnp.sum(jnp.where(counted, noise, 0), axis=1)
    return jnp.clip(1 - safe_divide(noise, square, otherwise=1.0), 0, 1)


def _score_distances(products: Float[Array, "perts perts"], components: int) -> Float[Array, "perts perts"]:
    """Squared distances of principal component scores, in units of their median.

    A constant of the differentiation: the derivative of eigenvectors is undefined where eigenvalues meet.
    """
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(products))
    scores = vectors[:, -components:] * safe_sqrt(values[-components:])[None, :]
    square = jnp.sum(scores * scores, axis=1)
    inner = jnp.matmul(scores, scores.T, precision=lax.Precision.HIGHEST)
    distances = jnp.maximum(square[:, None] + square[None, :] - 2 * inner, 0)
    distances = jnp.where(jnp.eye(len(distances), dtype=bool), 0, distances)
    pairs = np.triu_indices(len(distances), 1)
    middle = jnp.median(distances[pairs]) if len(pairs[0]) else jnp.ones((), distances.dtype)
    return safe_divide(distances, jnp.broadcast_to(middle, distances.shape), otherwise=0.0)
