"""Nulls of models with features: the same solver on vectors, or a kernel, that know nothing of the perturbations."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._embedding_ridge import fit_ridge, FittedEmbeddingRidge
from ._features import Features, RandomFeatures
from ._fitted import need
from ._interface import Baseline, Fairness, Fitted, PertData
from ._relatedness import NamedKernel


class RandomRidge(Baseline):
    """Ridge regression on random vectors: what a model with features must beat to have learnt from them.

    It scores above no change, since it reproduces the mean response.

    **Fields:** `log_ridge`, `dims`: as of the model that it stands beside.
    """

    name: ClassVar[str] = "random_features"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Null: ridge regression of effects on random vectors."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (random embedding)"
    needs: ClassVar[tuple[str, ...]] = ()

    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.1))
    dims: int = eqx.field(static=True, default=10)

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> FittedEmbeddingRidge:
        """**Raises:** `ValueError` without a key."""
        need(key, "key", "random vectors are drawn with it", self.name)
        assert key is not None
        return fit_ridge(self, RandomFeatures(key, self.dims), data, self.log_ridge)


class Permuted(Baseline):
    """A model with features or a similarity whose names are shuffled: the same numbers, for the wrong perturbations.

    **Fields:** `model`: a baseline with the field `features`, `pert_embedding` or `similarity`.
    """

    name: ClassVar[str] = "permuted_features"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Null: a model whose features or similarities belong to the wrong perturbations."
    source: ClassVar[str] = "Permutation null"
    needs: ClassVar[tuple[str, ...]] = ("features",)

    model: Baseline | None = None

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> Fitted:
        """**Raises:** `ValueError` without a key or a model, and for a model that has nothing to shuffle."""
        need(self.model, "model", "the model that this is the null of", self.name)
        need(key, "key", "names are shuffled with it", self.name)
        assert self.model is not None
        assert key is not None
        fitted = permuted(self.model, key).fit(data, external=external, key=key)
        named = {field.name for field in dataclasses.fields(fitted)}
        return dataclasses.replace(fitted, baseline=self.name) if "baseline" in named else fitted


def permuted(model: Baseline, key: Array) -> Baseline:
    """The model with the names of its features, or of its similarity, shuffled.

    **Raises:** `ValueError` for a model that has none.
    """
    for field in ("features", "pert_embedding", "similarity"):
        table = getattr(model, field, None)
        if isinstance(table, Features | NamedKernel):
            return dataclasses.replace(model, **{field: shuffled(table, key)})
    raise ValueError(f"{model.name!r} has no table of features or similarities by name to shuffle.")


def shuffled(table: Features | NamedKernel, key: Array) -> Any:
    """A table whose rows belong to other names: each takes the next one's in a random ring, so that none keeps its own
    (but for a single name).
    """
    names = table.names if isinstance(table, Features) else table.perts
    ring = jax.random.permutation(key, len(names))
    source = jnp.zeros_like(ring).at[ring].set(jnp.roll(ring, -1))
    values = table.values[source] if isinstance(table, Features) else table.values[source][:, source]
    return dataclasses.replace(table, values=values)


def null_distribution(
    null: Baseline,
    data: PertData,
    score: Callable[[Any, Any], Float[Array, "..."]],
    key: Array,
    *,
    repeats: int = 20,
    external: Sequence[PertData] = (),
) -> Float[Array, " repeats"]:
    """The score of leave-one-out predictions of a null, drawn `repeats` times.

    **Arguments:** `null`: such as `RandomRidge()` or `Permuted(model)`; `score`: of predicted and measured effects,
    whose mean over perturbations is taken.

    **Raises:** `ValueError` for a null that does not predict its own training perturbations when they are left out.
    """
    values = []
    for draw in jax.random.split(key, repeats):
        left_out = null.fit(data, external=external, key=draw).leave_one_out()
        if left_out is None:
            raise ValueError(f"{null.name!r} has no leave-one-out predictions.")
        values.append(jnp.mean(score(left_out.effect, data.effects)))
    return jnp.stack(values)
