"""The linear model of Ahlmann-Eltze et al.: ridge regression between vectors of genes and vectors of perturbations."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ._features import AbstractFeatures, Features
from ._fitted import FittedToData
from ._interface import Baseline, Fairness, PertData, Prediction
from ._krr import held_out_smoother, inverse_of, regularised, smooth
from ._pca import gram, top_eigenvectors


class PCARidge(Baseline):
    r"""$\hat Y = G\,C\,P + b$ with $C = (G'G + \lambda_g I)^{-1} G' (Y - b) P' (PP' + \lambda_p I)^{-1}$, a gene a row.

    $G$ holds the scores of the genes on the first principal components of the training profiles, and the vector $P_p$
    of a perturbation is the row of $G$ of the gene that it is named after (the sum of rows for a combination): nothing
    but the training screen is used. $b$ is the mean effect. So it is kernel ridge regression between perturbations,
    smoothed over genes by $G(G'G + \lambda_g I)^{-1}G'$. A perturbation that names no measured gene is predicted the
    mean response, and counts in $b$ and in the components only. Components are constants of the differentiation.

    Leaving one out refits everything, components included, in each fold: one small eigenvalue problem a perturbation;
    with vectors from elsewhere it is a closed form.

    **Fields:**

    - `pert_embedding`: other vectors of perturbations: of genes by name, of another context (`profile_features`), or
        random. `gene_embedding`: other vectors of genes; one without a vector keeps $b$.
    - `identity_genes`: genes share nothing, $G = I$.
    - `log_gene_ridge`, `log_pert_ridge`: $\log\lambda_g$, $\log\lambda_p$.
    - `dims`: number of components, no more than there are profiles.
    - `include_control`: count the control as one more training perturbation, without effect, as the published code
        does: $b$ is then $n/(n + 1)$ of the mean response.
    """

    name: ClassVar[str] = "pca_ridge"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Ridge regression between principal components of genes and the perturbed gene's own."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (linear model; ridge 0.1, 10 components)"
    needs: ClassVar[tuple[str, ...]] = ("targets",)

    pert_embedding: AbstractFeatures | None = None
    gene_embedding: Features | None = None
    log_gene_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    log_pert_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    dims: int = eqx.field(static=True, default=10)
    identity_genes: bool = eqx.field(static=True, default=False)
    include_control: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.dims < 1:
            raise ValueError(f"`dims` is at least 1, got {self.dims}.")
        if self.identity_genes and self.gene_embedding is not None:
            raise ValueError("`identity_genes` and a `gene_embedding` exclude each other.")

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> "FittedPCARidge":
        """**Raises:** `ValueError` without names of genes where a vector is looked up by them, and where no training
        perturbation has a vector.
        """
        if not data.genes and (self.pert_embedding is None or self.gene_embedding is not None):
            raise ValueError("`genes` of the training screen are needed: vectors are found by the names of genes.")
        rows = _rows(data, self.include_control)
        _, vectors = top_eigenvectors(rows.products, self.dims)
        scores = jnp.matmul(rows.profiles.T, vectors, precision=lax.Precision.HIGHEST)
        table = _by_gene(scores, data.genes) if self.pert_embedding is None else self.pert_embedding
        trained, covered = table.of(data.perts)
        if not covered.any():
            raise ValueError(
                f"None of {len(data.perts)} training perturbations has a vector: none is named after such a gene."
            )
        genes = None if self.identity_genes else scores
        if self.gene_embedding is not None:
            genes = self.gene_embedding.of(data.genes)[0]
        centre = jnp.sum(data.effects, axis=0) / (len(data.perts) + int(self.include_control))
        slope = _ridge(trained.astype(centre.dtype), self.log_pert_ridge, data.effects - centre[None, :])
        fairness = "external" if self.pert_embedding is not None or self.gene_embedding is not None else self.fairness
        slope = over_genes(slope, genes, self.log_gene_ridge)
        return FittedPCARidge(data, self.name, fairness, self, table, genes, centre, slope)


class FittedPCARidge(FittedToData):
    """The linear model after the fit: vectors, the mean effect, and the effect of a unit of each vector's entries."""

    model: PCARidge
    table: AbstractFeatures
    genes: Float[Array, "genes k"] | None
    centre: Float[Array, " genes"]
    slope: Float[Array, "dims genes"]

    def predict(self, perts: Sequence[str]) -> Prediction:
        vectors, covered = self.table.of(perts)
        return self.prediction(perts, self.centre[None, :] + smooth(vectors, self.slope), covered)

    def leave_one_out(self) -> Prediction:
        model, effects = self.model, self.data.effects
        others = len(effects) - 1 + int(model.include_control)
        centres = (jnp.sum(effects, axis=0)[None, :] - effects) / others
        covered = self.table.of(self.data.perts)[1]
        own_genes = model.gene_embedding is None and not model.identity_genes
        if own_genes or model.pert_embedding is None:
            left = self._refitted(own_genes, others)
        else:
            weights = self._held_out()
            rest = jnp.sum(weights, axis=1, keepdims=True).astype(effects.dtype)
            left = over_genes(smooth(weights, effects) - rest * centres, self.genes, model.log_gene_ridge)
        return self.prediction(self.data.perts, centres + left, covered, left_out=True)

    def _held_out(self) -> Float[Array, "perts perts"]:
        vectors = self.table.of(self.data.perts)[0]
        ridge = jnp.exp(jnp.asarray(self.model.log_pert_ridge))
        return held_out_smoother(inverse_of(regularised(gram(vectors, vectors), ridge)), "none")

    def _refitted(self, own_genes: bool, others: int) -> Float[Array, "perts genes"]:
        """What each fold adds to its mean effect, from inner products of profiles alone."""
        model, effects = self.model, self.data.effects
        count = len(effects)
        rows = _rows(self.data, model.include_control)
        crossed = gram(rows.profiles, effects)
        # Before it is turned to the components of a fold, the vector of a perturbation is its gene's column.
        columns = _by_gene(rows.profiles.T, self.data.genes).of(self.data.perts)[0] if self._own_vectors else None
        gene_ridge = jnp.exp(jnp.asarray(model.log_gene_ridge)).astype(effects.dtype)

        def fold(args):
            i, other, kept = args
            values, vectors = top_eigenvectors(rows.products[kept][:, kept], model.dims)
            table = self.table.of(self.data.perts)[0] if columns is None else columns[:, kept] @ vectors
            table = table.astype(effects.dtype)
            share = _dual(table[other], model.log_pert_ridge, table[i])
            weights = jnp.zeros(count, effects.dtype).at[other].set(share - jnp.sum(share) / others)
            if not own_genes:
                return weights
            part = (vectors.T @ (crossed[kept] @ weights)) / (values + gene_ridge)
            return jnp.zeros(len(rows.profiles), effects.dtype).at[kept].set(vectors @ part)

        other = np.array([np.delete(np.arange(count, dtype=np.int32), i) for i in range(count)])
        control = np.full((count, len(rows.profiles) - count), count, np.int32)
        folds = (np.arange(count, dtype=np.int32), other, np.concatenate([other, control], axis=1))
        weights = lax.map(fold, tuple(jnp.asarray(x) for x in folds))
        if own_genes:
            return smooth(weights, rows.profiles)
        return over_genes(smooth(weights, effects), self.genes, model.log_gene_ridge)

    @property
    def _own_vectors(self) -> bool:
        return self.model.pert_embedding is None


class _Rows(NamedTuple):
    """Training profiles less their mean over genes, the control's last if it counts; and their inner products."""

    profiles: Float[Array, "rows genes"]
    products: Float[Array, "rows rows"]


def _rows(data: PertData, include_control: bool) -> _Rows:
    profiles = data.control[None, :] + data.effects
    if include_control:
        profiles = jnp.concatenate([profiles, data.control[None, :]])
    profiles = lax.stop_gradient(profiles - jnp.mean(profiles, axis=1, keepdims=True))
    return _Rows(profiles, gram(profiles, profiles))


def _by_gene(values: Float[Array, "genes dims"], genes: tuple[str, ...]) -> Features:
    """Rows by name of gene; of genes that share a name, the first."""
    first = {gene: i for i, gene in reversed(list(enumerate(genes)))}
    names = tuple(dict.fromkeys(genes))
    return Features(values[np.array([first[name] for name in names], np.int32)], names)


def over_genes(
    rows: Float[Array, "rows genes"], genes: Float[Array, "genes k"] | None, log_ridge: Float[ArrayLike, ""]
) -> Float[Array, "rows genes"]:
    r"""Rows smoothed over genes, $R\,G(G'G + \lambda I)^{-1}G'$; without vectors of genes, $R/(1 + \lambda)$."""
    ridge = jnp.exp(jnp.asarray(log_ridge)).astype(rows.dtype)
    if genes is None:
        return rows / (1 + ridge)
    genes = genes.astype(rows.dtype)
    matrix = gram(genes.T, genes.T) + ridge * jnp.eye(genes.shape[1], dtype=rows.dtype)
    scores = jnp.matmul(rows, genes, precision=lax.Precision.HIGHEST)
    return gram(jsl.cho_solve(jsl.cho_factor(matrix, lower=True), scores.T).T, genes)


def _ridge(
    table: Float[Array, "perts dims"], log_ridge: Float[ArrayLike, ""], effects: Float[Array, "perts genes"]
) -> Float[Array, "dims genes"]:
    return jsl.cho_solve(_factor(table, log_ridge), smooth(table.T, effects))


def _dual(
    table: Float[Array, "perts dims"], log_ridge: Float[ArrayLike, ""], vector: Float[Array, " dims"]
) -> Float[Array, " perts"]:
    """The weight of each training effect in the prediction for a vector."""
    return table @ jsl.cho_solve(_factor(table, log_ridge), vector)


def _factor(table, log_ridge):
    ridge = jnp.exp(jnp.asarray(log_ridge)).astype(table.dtype)
    return jsl.cho_factor(gram(table.T, table.T) + ridge * jnp.eye(table.shape[1], dtype=table.dtype), lower=True)
