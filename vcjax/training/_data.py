"""What a model is trained on: perturbations with what is known of them, and minibatches of these."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._profiles import Profiles
from .._types import GeneMask, GeneWeights
from ..metrics import Bank


class Batch(eqx.Module):
    """Some of the perturbations, as the model and the loss are given them.

    **Fields:** as of `TrainingData`, of these perturbations; `rows`: which they are; `cells`: control cells drawn for
    each of them, (perts, cells, genes), or `None`.
    """

    inputs: PyTree[Array]
    real: Profiles
    rows: Int[Array, " perts"]
    weights: GeneWeights
    where: GeneMask
    bank: Bank | None
    cells: Float[Array, "perts cells genes"] | None

    def options(self) -> dict[str, Any]:
        """What a loss takes beside both sides."""
        return {"weights": self.weights, "where": self.where, "bank": self.bank}


class TrainingData(eqx.Module):
    """Perturbations to train on, or to validate with, as a pytree of arrays.

    **Fields:**

    - `inputs`: what the model is told of each perturbation: arrays with the axis of perturbations first.
    - `real`: their measured profiles. What is measured beyond the mean is measured from `real.train_mean`; `fit` puts
        the mean of the training perturbations there, for validation too, where it is not given. Without it metrics take
        the mean of a minibatch's others, of which a prediction of the common mean is a mirror of the truth.
    - `weights`, `where`: gene weights for the metrics that need them, and genes that count.
    - `bank`: profiles that predictions are ranked among, by default these perturbations themselves: a minibatch is then
        ranked among all of them. Give those of other cells, so that the model cannot tell its own by their noise.
    - `own`: the row in the bank of each perturbation, by default the same as here.
    - `cells`: control cells (cells, genes) that a model of cells starts from; each step draws some for each
        perturbation.
    - `perts`: labels, for messages.

    **Raises:** `ValueError` for axes of perturbations or of genes that differ, and for a bank whose rows do not say
    which perturbation is whose.
    """

    inputs: PyTree[Array]
    real: Profiles
    weights: GeneWeights = None
    where: GeneMask = None
    bank: Profiles | None = None
    own: Int[Array, " perts"] | None = None
    cells: Float[Array, "cells genes"] | None = None
    perts: tuple[str, ...] = eqx.field(static=True, default=())

    def __init__(
        self,
        inputs: PyTree,
        real: Profiles,
        *,
        weights: GeneWeights = None,
        where: GeneMask = None,
        bank: Profiles | None = None,
        own: Sequence[int] | Int[Array, " perts"] | None = None,
        cells: Float[Array, "cells genes"] | None = None,
        perts: Sequence[str] = (),
    ):
        self.inputs = jax.tree.map(jnp.asarray, inputs)
        self.real = real
        self.weights = None if weights is None else jnp.asarray(weights)
        self.where = None if where is None else jnp.asarray(where)
        self.bank = bank
        self.own = None if own is None else jnp.asarray(own)
        self.cells = None if cells is None else jnp.asarray(cells)
        self.perts = tuple(perts) or tuple(f"perturbation {i}" for i in range(len(self)))
        self._check()

    def __len__(self) -> int:
        return self.real.mean.shape[0]

    def batch(
        self, rows: Int[Array, " perts"] | None = None, *, cells: int | None = None, key: Array | None = None
    ) -> Batch:
        """The minibatch of these rows, by default all, with `cells` control cells drawn for each; works under `jit`."""
        count = len(self) if rows is None else len(rows)
        of_perts = lambda x: x if rows is None else x[rows]
        taken = lambda x: x if x is None or x.ndim == 1 else of_perts(x)
        drawn = None
        if cells is not None:
            assert self.cells is not None
            assert key is not None
            drawn = self.cells[jax.random.randint(key, (count, cells), 0, len(self.cells))]
        # A minibatch is ranked among all perturbations; all of them together need no bank for that.
        own = jnp.arange(len(self)) if self.own is None else self.own
        bank = None
        if self.bank is not None or count < len(self):
            bank = Bank(self.real if self.bank is None else self.bank, of_perts(own))
        return Batch(
            jax.tree.map(of_perts, self.inputs),
            self.real if rows is None else self.real.take(rows),
            jnp.arange(len(self)) if rows is None else rows,
            taken(self.weights),
            taken(self.where),
            bank,
            drawn,
        )

    def unnamed(self) -> "TrainingData":
        """The same without labels: they are a static part, and other labels would compile every program anew."""
        given = {name: getattr(self, name) for name in ("weights", "where", "bank", "own", "cells")}
        return TrainingData(self.inputs, self.real, perts=[""] * len(self), **given)

    def _check(self) -> None:
        genes = self.real.mean.shape[1]
        if not len(self):
            raise ValueError("There are no perturbations in these data: nothing to train on or to choose a model by.")
        for place, leaf in jax.tree_util.tree_leaves_with_path(self.inputs):
            if leaf.ndim == 0 or leaf.shape[0] != len(self):
                raise ValueError(
                    f"`inputs{jax.tree_util.keystr(place)}` has shape {leaf.shape}: its first axis must be that of "
                    f"the {len(self)} perturbations, or the model would be told of others."
                )
        for name, value in (("weights", self.weights), ("where", self.where)):
            if value is not None and jnp.shape(value) not in ((genes,), (len(self), genes)):
                raise ValueError(
                    f"`{name}` has shape {jnp.shape(value)}; {(genes,)} or {(len(self), genes)} is expected: one "
                    "number a gene, or one a perturbation and gene."
                )
        if len(self.perts) != len(self):
            raise ValueError(f"{len(self.perts)} labels for {len(self)} perturbations.")
        if self.cells is not None and self.cells.shape[1] != genes:
            raise ValueError(f"`cells` have {self.cells.shape[1]} genes, the profiles {genes}.")
        if self.bank is None:
            if self.own is not None:
                raise ValueError("`own` says which row of `bank` is whose, and there is no bank.")
            return
        if self.bank.mean.shape[1] != genes:
            raise ValueError(f"`bank` has {self.bank.mean.shape[1]} genes, the profiles {genes}.")
        candidates = len(self.bank.mean)
        if self.own is None and candidates != len(self):
            raise ValueError(
                f"`bank` has {candidates} candidates for {len(self)} perturbations: say with `own` which is whose."
            )
        if self.own is not None:
            own = np.asarray(self.own)
            if own.shape != (len(self),) or own.min() < 0 or own.max() >= candidates:
                raise ValueError(f"`own` needs one row of 0 to {candidates - 1} for each of {len(self)} perturbations.")


def with_train_mean(data: TrainingData, mean: Float[Array, " genes"]) -> TrainingData:
    """Data that know the mean of training perturbations: the one they were given, or this one."""
    if data.real.train_mean is not None:
        return data
    return eqx.tree_at(lambda d: d.real.train_mean, data, mean, is_leaf=lambda x: x is None)


def draw_rows(step: Int[Array, ""], size: int, batch: int | None, key: Array) -> Int[Array, " perts"] | None:
    """The rows of a step: all (`None`), or `batch` of a new shuffle each epoch; what is left of one takes part in the
    next.
    """
    if batch is None or batch >= size:
        return None
    per_epoch = size // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), size)
    return jax.lax.dynamic_slice_in_dim(order, (step % per_epoch) * batch, batch)
