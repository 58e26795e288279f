"""What fitted baselines have in common: names, the fallback, and what a prediction was allowed to see."""

import zlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..references._means import means_of_others
from ._interface import Fairness, Fitted, mean_response, PertData, Prediction


class FittedToData(Fitted):
    """A baseline after the fit that keeps the training perturbations it was fitted to.

    **Fields:** `data`; `baseline` and `fairness`, of the recipe.
    """

    data: PertData
    baseline: str = eqx.field(static=True)
    fairness: Fairness = eqx.field(static=True)

    def prediction(
        self,
        perts: Sequence[str],
        effect: Float[Array, "perts genes"],
        covered: np.ndarray | np.bool | None = None,
        *,
        left_out: bool = False,
        **provenance: Any,
    ) -> Prediction:
        """These effects where they are `covered`, and the mean response elsewhere.

        A prediction of a training perturbation by what was fitted to it has seen an aggregate of what is scored, which
        makes it transductive, unless each row was predicted from the others (`left_out`).
        """
        covered = np.ones(len(perts), bool) if covered is None else np.asarray(covered)
        fallback = self.mean_of_others() if left_out else mean_response(self.data)[None, :]
        seen = not left_out and bool(np.any(self.data.rows(perts) >= 0))
        fairness = "transductive" if seen and self.fairness in ("inductive", "external") else self.fairness
        return Prediction(
            effect if covered.all() else jnp.where(jnp.asarray(covered)[:, None], effect, fallback),
            self.data.control,
            jnp.asarray(covered),
            perts=tuple(perts),
            baseline=self.baseline,
            fairness=fairness,
            provenance=(("trained_on", len(self.data.perts)), *provenance.items()),
        )

    def mean_of_others(self) -> Float[Array, "perts genes"]:
        """For each training perturbation the mean response of the others; NaN where there is no other."""
        return means_of_others(self.data.effects, jnp.ones_like(self.data.effects[:, 0]))


def need(present: object, name: str, what: str, baseline: str) -> None:
    """Refuses to fit without what a baseline needs.

    **Raises:** `ValueError` if `present` is `None` or empty.
    """
    if present is None or (isinstance(present, Sequence) and len(present) == 0):
        raise ValueError(f"The baseline {baseline!r} needs `{name}`: {what}.")


def gathered(table: Float[Array, "rows genes"], rows: np.ndarray) -> Float[Array, "perts genes"]:
    """The rows of a table by index; zero for an index of -1."""
    if table.shape[0] == 0:
        return jnp.zeros((len(rows), table.shape[1]), table.dtype)
    return jnp.where(jnp.asarray(rows >= 0)[:, None], table[np.maximum(rows, 0)], 0)


def cell_counts(data: PertData, baseline: str) -> Float[Array, " perts"]:
    """The number of cells of each training perturbation.

    **Raises:** `ValueError` where it is not known.
    """
    need(data.cells, "cells", "the number of cells of each training perturbation", baseline)
    return jnp.asarray(data.cells).astype(data.effects.dtype)


def named_keys(key: Array, names: Sequence[str]) -> Array:
    """A random key for each name, the same whatever the others are."""
    # A digest of the name, since Python's own hash differs between processes.
    words = jnp.asarray(np.array([zlib.crc32(name.encode()) for name in names], np.uint32))
    return jax.vmap(lambda word: jax.random.fold_in(key, word))(words)
