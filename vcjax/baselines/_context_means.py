"""Means over contexts: of one context's perturbed cells, and of one perturbation's effects elsewhere."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ..references._means import mean_of, means_of_others
from ._fitted import cell_counts, FittedToData, gathered, need
from ._interface import Baseline, Fairness, mean_response, PertData, Prediction, rows_of
from ._means import FittedMean


def on_genes_of(
    data: PertData, table: Float[Array, "rows other"], genes: tuple[str, ...]
) -> tuple[Float[Array, "rows genes"], np.ndarray]:
    """`(values, measured)`: rows of another screen on the genes of `data`, and which of these it measures.

    Genes are matched by name; one that the other screen does not measure has zeros, which stand for nothing.

    **Raises:** `ValueError` where names are missing and the numbers of genes differ.
    """
    count = data.effects.shape[1]
    if not data.genes or not genes or data.genes == genes:
        if table.shape[1] != count:
            raise ValueError(
                f"Screens of {count} and {table.shape[1]} genes can only be matched by name: give both `genes`."
            )
        return table.astype(data.effects.dtype), np.ones(count, bool)
    place = {gene: i for i, gene in reversed(list(enumerate(genes)))}
    columns = np.array([place.get(gene, -1) for gene in data.genes], np.int32)
    values = jnp.where(jnp.asarray(columns >= 0)[None, :], table[:, np.maximum(columns, 0)], 0)
    return values.astype(data.effects.dtype), columns >= 0


class ContextMean(Baseline):
    r"""The mean perturbed cell of the context that is predicted, over all its screens:
    $s\,\big(\sum_p n_p x_p / \sum_p n_p - c\big)$.

    Screens of `external` that carry the name of this context (batches, replicates) count with it; without any it is
    `CellMean`.

    **Fields:** `scale`, the $s$.
    """

    name: ClassVar[str] = "context_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean perturbed cell of the context, whatever was perturbed."
    source: ClassVar[str] = "State (ContextMean)"
    needs: ClassVar[tuple[str, ...]] = ()

    scale: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMean:
        profiles, cells = [data.control[None, :] + data.effects], [cell_counts(data, self.name)]
        for other in external:
            if not data.context or other.context != data.context:
                continue
            more, measured = on_genes_of(data, other.control[None, :] + other.effects, other.genes)
            if not measured.all():
                raise ValueError(f"A second screen of {data.context!r} measures {int(measured.sum())} of its genes.")
            profiles.append(more)
            cells.append(cell_counts(other, self.name).astype(data.effects.dtype))
        rows, amount = jnp.concatenate(profiles), jnp.concatenate(cells)
        scale, count = jnp.asarray(self.scale).astype(rows.dtype), data.effects.shape[0]
        response = scale * (mean_of(rows, amount) - data.control)
        others = scale * (means_of_others(rows, amount)[:count] - data.control[None, :])
        return FittedMean(data, self.name, self.fairness, response, others)


class FittedCrossContext(FittedToData):
    """The effects of each perturbation in every context, on the genes of the one that is predicted."""

    tables: tuple[Float[Array, "_ genes"], ...]
    cells: tuple[Float[Array, " _"], ...]
    names: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    measured: tuple[tuple[bool, ...], ...] = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        effect, covered = self._average(perts, range(len(self.tables)), mean_response(self.data)[None, :])
        return self.prediction(perts, effect, covered, contexts=len(self.tables))

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        effect, covered = self._average(perts, range(1, len(self.tables)), self.mean_of_others())
        return self.prediction(perts, effect, covered, left_out=True, contexts=len(self.tables) - 1)

    def _average(
        self, perts: Sequence[str], contexts: Sequence[int], otherwise: Float[Array, "#perts genes"]
    ) -> tuple[Float[Array, "perts genes"], np.ndarray]:
        shape = (len(perts), self.data.effects.shape[1])
        total, covered = jnp.zeros(shape, self.data.effects.dtype), np.zeros(len(perts), bool)
        amount = total
        for i in contexts:
            rows = rows_of(perts, self.names[i])
            known = jnp.asarray((rows >= 0)[:, None] & np.array(self.measured[i])[None, :])
            weight = jnp.where(known, gathered(self.cells[i][:, None], rows), 0)
            total, amount = total + weight * gathered(self.tables[i], rows), amount + weight
            covered |= rows >= 0
        some = amount > 0
        return jnp.where(some, safe_divide(total, amount, 0.0), otherwise), covered


class CrossContextMean(Baseline):
    r"""The mean effect of the same perturbation over contexts, $\sum_d w_d y_p^{(d)} / \sum_d w_d$, each measured from
    its own control; the control it is added to is that of the context that is predicted.

    A context counts where it measures the perturbation and the gene; the training screen is one of them. A gene that
    none measures has the mean response, and a perturbation that none measures is not covered.

    **Fields:** `weighting`: `"context"` (all contexts alike) or `"cell"` (by number of cells).
    """

    name: ClassVar[str] = "cross_context_mean"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Mean effect of the same perturbation in other contexts."
    source: ClassVar[str] = "State (PerturbMean, contexts alike); TxPert (MeanBaseline, by cells)"
    needs: ClassVar[tuple[str, ...]] = ("external",)

    weighting: Literal["context", "cell"] = eqx.field(static=True, default="context")

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedCrossContext:
        need(external, "external", "screens of other contexts", self.name)
        if self.weighting not in ("context", "cell"):
            raise ValueError(f'`weighting` is "context" or "cell", got {self.weighting!r}.')
        screens = (data, *external)
        pairs = [on_genes_of(data, screen.effects, screen.genes) for screen in screens]
        dtype = data.effects.dtype
        by_cell = self.weighting == "cell"
        cells = [cell_counts(x, self.name) if by_cell else jnp.ones_like(x.effects[:, 0]) for x in screens]
        return FittedCrossContext(
            *(data, self.name, self.fairness),
            tuple(effects for effects, _ in pairs),
            tuple(x.astype(dtype) for x in cells),
            tuple(screen.perts for screen in screens),
            tuple(tuple(measured.tolist()) for _, measured in pairs),
        )
