"""Nulls: what a model scores that knows nothing of the perturbation, or only what should not matter."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._context_means import on_genes_of
from ._fitted import FittedToData, gathered, named_keys, need
from ._interface import Baseline, Fairness, Fitted, mean_response, PertData, Prediction, rows_of


class FittedWrongTarget(FittedToData):
    """Effects of which each label gets one that is not its own."""

    table: Float[Array, "rows genes"]
    names: tuple[str, ...] = eqx.field(static=True)
    key: Array

    def predict(self, perts: Sequence[str]) -> Prediction:
        return self._drawn(perts, left_out=False)

    def leave_one_out(self) -> Prediction:
        """The prediction itself, which never uses a perturbation's own effect."""
        return self._drawn(self.data.perts, left_out=True)

    def _drawn(self, perts: Sequence[str], *, left_out: bool) -> Prediction:
        draws = jax.vmap(lambda key: jax.random.uniform(key, (len(self.names),)))(named_keys(self.key, perts))
        own = np.array([[name == pert for name in self.names] for pert in perts]).reshape(len(perts), len(self.names))
        row = jnp.argmax(jnp.where(jnp.asarray(own), -1, draws), axis=1)
        return self.prediction(perts, self.table[row], ~own.all(axis=1), left_out=left_out)


class WrongTarget(Baseline):
    """The measured effect of a random other perturbation: real effects, each under the wrong name.

    They come from the first of `external` (a gene that it lacks has the mean response), or from the training
    perturbations without any. The draw of a label depends on the key and its name alone; several keys give the
    distribution of a score under this null.
    """

    name: ClassVar[str] = "wrong_target"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Null: the effect of another perturbation, elsewhere or in training."
    source: ClassVar[str] = "transfer under permuted labels (wrong target)"
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedWrongTarget:
        need(key, "key", "perturbations are drawn at random", self.name)
        assert key is not None
        other = external[0] if external else data
        table, measured = on_genes_of(data, other.effects, other.genes)
        table = jnp.where(jnp.asarray(measured)[None, :], table, mean_response(data)[None, :])
        return FittedWrongTarget(data, self.name, self.fairness if external else "inductive", table, other.perts, key)


class FittedMetadataNeighbour(FittedToData):
    """Training perturbations and labels by what is known of their cells."""

    facts: Float[Array, "rows facts"]
    names: tuple[str, ...] = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        effect, covered = self._nearest(perts, np.zeros((len(perts), len(self.data.perts)), bool))
        return self.prediction(perts, effect, covered)

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        effect, covered = self._nearest(perts, np.eye(len(perts), dtype=bool))
        return self.prediction(perts, effect, covered, left_out=True)

    def _nearest(self, perts: Sequence[str], hidden: np.ndarray) -> tuple[Float[Array, "perts genes"], np.ndarray]:
        mine, train = rows_of(perts, self.names), rows_of(self.data.perts, self.names)
        open_ = (train >= 0)[None, :] & ~hidden
        facts = gathered(self.facts, train)
        weight = jnp.asarray(open_).astype(facts.dtype)
        # The unit of each fact is its spread over the perturbations that may be chosen, as a refit would have it.
        number = jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
        mean = _matmul(weight, facts) / number
        spread = _matmul(weight, facts * facts) / number - mean * mean
        gap = gathered(self.facts, mine)[:, None, :] - facts[None, :, :]
        usable = spread > 1e-12 * (mean * mean)
        square = jnp.where(usable, 1 / jnp.where(usable, spread, 1), 0)[:, None, :] * gap * gap
        distance = jnp.where(jnp.asarray(open_), jnp.sum(square, axis=2), jnp.inf)
        nearest = (distance <= jnp.min(distance, axis=1, keepdims=True)) & jnp.asarray(open_)
        share = nearest.astype(facts.dtype)
        effect = _matmul(share, self.data.effects) / jnp.maximum(jnp.sum(share, axis=1, keepdims=True), 1)
        return effect, (mine >= 0) & open_.any(axis=1)


class MetadataNeighbour(Baseline):
    """The effect of the training perturbation whose metadata are nearest: number of cells, median UMI count.

    Each fact is measured in its standard deviation over training perturbations; equally near ones are averaged. What
    this scores above the mean is leaked by metadata, not predicted.

    **Fields:** `facts`, one row a label, of training and predicted perturbations alike; `perts`, their names. A label
    without a row is not covered.
    """

    name: ClassVar[str] = "metadata_neighbour"
    fairness: ClassVar[Fairness] = "transductive"
    summary: ClassVar[str] = "Null: the training perturbation with the nearest number of cells and UMI counts."
    source: ClassVar[str] = "C. Chu, Virtual Cell Challenge 2025 (nCells x nUMI)"
    needs: ClassVar[tuple[str, ...]] = ("metadata",)

    facts: Float[ArrayLike, "rows facts"] = eqx.field(converter=jnp.asarray)
    perts: tuple[str, ...] = eqx.field(static=True)

    def __check_init__(self):
        if np.shape(self.facts)[0] != len(self.perts):
            raise ValueError(f"`perts` must name the {np.shape(self.facts)[0]} rows of `facts`, got {len(self.perts)}.")

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> FittedMetadataNeighbour:
        facts = jnp.asarray(self.facts).astype(data.effects.dtype)
        return FittedMetadataNeighbour(data, self.name, self.fairness, facts, self.perts)


def _matmul(a: Float[Array, "a b"], b: Float[Array, "b c"]) -> Float[Array, "a c"]:
    return jnp.matmul(a, b, precision="highest")


class FittedRenamed(Fitted):
    """A fitted baseline under the name of the null that it serves."""

    inner: Fitted
    baseline: str = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        return self._renamed(self.inner.predict(perts))

    def leave_one_out(self) -> Prediction | None:
        found = self.inner.leave_one_out()
        return None if found is None else self._renamed(found)

    def _renamed(self, found: Prediction) -> Prediction:
        return dataclasses.replace(found, baseline=f"{self.baseline}({found.baseline})")


class PermutedLabels(Baseline):
    """Another baseline, fitted to training effects that have swapped their names at random.

    Repeated over keys it gives the distribution of a score for a model that cannot tell perturbations apart.

    **Fields:** `inner`, the baseline.
    """

    name: ClassVar[str] = "permuted_labels"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Null: another baseline, fitted to effects under permuted names."
    source: ClassVar[str] = "permutation test"
    needs: ClassVar[tuple[str, ...]] = ("baseline",)

    inner: Baseline

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedRenamed:
        need(key, "key", "names are permuted at random", self.name)
        assert key is not None
        shuffle, rest = jax.random.split(key)
        order = jax.random.permutation(shuffle, data.effects.shape[0])
        moved = lambda x: None if x is None else x[order]
        shuffled = dataclasses.replace(
            data, effects=data.effects[order], cells=moved(data.cells), noise=moved(data.noise)
        )
        return FittedRenamed(self.inner.fit(shuffled, external=external, key=rest), self.name)


class FittedGenePermuted(FittedRenamed):
    """Predictions whose genes are shuffled, for each label anew."""

    key: Array

    def _renamed(self, found: Prediction) -> Prediction:
        genes = found.effect.shape[1]
        order = jax.vmap(lambda key: jax.random.permutation(key, genes))(named_keys(self.key, found.perts))
        moved = lambda x: None if x is None else jnp.take_along_axis(x, order, axis=1)
        found = dataclasses.replace(found, effect=moved(found.effect), variance=moved(found.variance))
        return super()._renamed(found)


class GenePermuted(Baseline):
    """The predictions of another baseline with genes in random order: the same sizes of effects, on the wrong genes.

    **Fields:** `inner`, the baseline.
    """

    name: ClassVar[str] = "gene_permuted"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Null: the effects that another baseline predicts, on permuted genes."
    source: ClassVar[str] = "permutation test"
    needs: ClassVar[tuple[str, ...]] = ("baseline",)

    inner: Baseline

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedGenePermuted:
        need(key, "key", "genes are permuted at random", self.name)
        assert key is not None
        shuffle, rest = jax.random.split(key)
        return FittedGenePermuted(self.inner.fit(data, external=external, key=rest), self.name, shuffle)
