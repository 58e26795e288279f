"""Transfer of effects that other contexts measure: what all rules share."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ._context_means import on_genes_of
from ._fitted import FittedToData, need
from ._interface import Baseline, Fairness, mean_response, PertData, Prediction
from ._leaves import optional
from ._transfer_rules import basal_similarity, knockdown_depth, source_mean, Stack, times


class Sources(eqx.Module):
    """Effects in other contexts, on the genes of the one that is predicted; NaN where a gene is not measured.

    **Fields:** `tables`, one a source; `generic`, the mean response in each; `similarity`, of each source's control
    profile to that of the context that is predicted; `depth`, the mean number of cells of a perturbation, NaN where it
    is not known; `names`, of the rows of each table.
    """

    tables: tuple[Float[Array, "_ genes"], ...]
    generic: Float[Array, "sources genes"]
    similarity: Float[Array, " sources"]
    depth: Float[Array, " sources"]
    names: tuple[tuple[str, ...], ...] = eqx.field(static=True)

    def of(self, perts: Sequence[str]) -> Stack:
        """The effects of these perturbations in every source; NaN where it does not measure one."""
        rows = self.rows(perts)
        missing = lambda row: jnp.asarray(row < 0)[:, None]
        parts = [jnp.where(missing(row), jnp.nan, _take(x, row)) for x, row in zip(self.tables, rows, strict=True)]
        return jnp.stack(parts)

    def rows(self, perts: Sequence[str]) -> list[np.ndarray]:
        """The row of each perturbation in every source, -1 for one that it does not measure."""
        places = [{name: row for row, name in enumerate(names)} for names in self.names]
        return [np.array([place.get(pert, -1) for pert in perts], np.int32) for place in places]

    def without(self, source: int) -> "Sources":
        """The other sources."""
        others = [i for i in range(len(self.tables)) if i != source]
        pick = lambda x: tuple(x[i] for i in others)
        index = np.array(others, np.int32)
        return Sources(
            pick(self.tables), self.generic[index], self.similarity[index], self.depth[index], pick(self.names)
        )


def gather_sources(
    data: PertData, external: Sequence[PertData], depth_power: Float[ArrayLike, ""] | None = None
) -> Sources:
    r"""The effects of other contexts on the genes of `data`.

    **Arguments:** `depth_power`, $\kappa$: effects of a source are multiplied by $(D/D_d)^\kappa$, with $D_d$ the
    median effect of a perturbation on its own target there, and $D$ the same in `data`; or, where nothing is measured
    there yet, the geometric mean over sources.

    **Raises:** `ValueError` for genes that cannot be matched.
    """
    tables, controls = [], []
    for other in external:
        values, measured = on_genes_of(data, other.effects, other.genes)
        control, _ = on_genes_of(data, other.control[None, :], other.genes)
        known = jnp.asarray(measured)[None, :]
        tables.append(jnp.where(known, values, jnp.nan))
        controls.append(jnp.where(known, control, jnp.nan))
    if depth_power is not None:
        factors = _depth_factors(data, external, jnp.asarray(depth_power).astype(data.effects.dtype))
        tables = [times(table, factors[i]) for i, table in enumerate(tables)]
    generic = jnp.stack([source_mean(table[:, None, :])[0] for table in tables])
    similarity = basal_similarity(jnp.concatenate(controls), data.control)
    depth = jnp.stack([_mean_cells(other).astype(data.effects.dtype) for other in external])
    return Sources(tuple(tables), generic, similarity, depth, tuple(other.perts for other in external))


class Transfer(Baseline):
    """What every rule of transfer is made of: a combination of sources, with knobs that are given or learnt.

    A gene that no source measures has the mean response, and so has a perturbation that none measures, which is not
    covered. Without any training perturbation the mean response is that of the sources, and what is measured nowhere
    stays NaN.

    **Fields:** `depth_power`: correction for how deep knock-downs are in each context, see `gather_sources`; without
    one there is no correction.
    """

    fairness: ClassVar[Fairness] = "external"
    needs: ClassVar[tuple[str, ...]] = ("external",)

    depth_power: Float[ArrayLike, ""] | None = eqx.field(converter=optional, default=None, kw_only=True)

    @property
    def learns(self) -> bool:
        """Whether `solve` needs perturbations that are measured both here and elsewhere."""
        return False

    @property
    def learns_from_sources(self) -> bool:
        """Whether what `solve` finds for one context serves another, so that each source can stand for the target."""
        return True

    def statistics(self, stack: Stack, real: Float[Array, "perts genes"], sources: Sources) -> Any:
        """What `solve` needs of each perturbation: arrays with that axis first, to be summed over it."""
        return ()

    def as_target(
        self, table: Float[Array, "perts genes"], generic: Float[Array, " genes"], response: Float[Array, " genes"]
    ) -> Float[Array, "perts genes"]:
        """Effects of a source, with the mean response there, as they would be in the context that is predicted."""
        return table

    def solve(self, totals: Any, response: Float[Array, " genes"]) -> Any:
        """What is learnt, from sums of `statistics` and the mean response."""
        return ()

    def prepare(self, sources: Sources) -> Any:
        """What `combine` needs of all that the sources measure: by default the sources."""
        return sources

    def combine(
        self, stack: Stack, prepared: Any, learnt: Any, response: Float[Array, " genes"]
    ) -> Float[Array, "perts genes"]:
        """One effect of each perturbation; NaN where no source measures it."""
        raise NotImplementedError

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> "FittedTransfer":
        """**Raises:** `ValueError` without external screens, for genes that cannot be matched, and where something is
        learnt but no perturbation is measured both here and elsewhere (nor in two of the other contexts).
        """
        need(external, "external", "screens of other contexts", self.name)
        sources = gather_sources(data, external, self.depth_power)
        statistics, totals = None, None
        if self.learns and measured(sources, data.perts).any():
            statistics = self.statistics(sources.of(data.perts), data.effects, sources)
            totals = jax.tree.map(lambda x: jnp.sum(x, axis=0), statistics)
        elif self.learns:
            totals = self._from_sources(sources, response_of(data, sources))
        identity = data, self.name, self.fairness
        return FittedTransfer(*identity, self, sources, self.prepare(sources), statistics, totals)

    def _from_sources(self, sources: Sources, response: Float[Array, " genes"]) -> Any:
        """The sums of `statistics` where each source in turn is predicted from the others."""
        total = None
        for i, (table, names) in enumerate(zip(sources.tables, sources.names, strict=True)):
            others = sources.without(i)
            if not self.learns_from_sources or not others.tables or not measured(others, names).any():
                continue
            real = self.as_target(table, sources.generic[i], response)
            part = jax.tree.map(lambda x: jnp.sum(x, axis=0), self.statistics(others.of(names), real, others))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        if total is None:
            raise ValueError(
                f"{self.name!r} learns from perturbations that are measured both here and in another context, and "
                "there is none; give its knobs instead."
            )
        return total


class FittedTransfer(FittedToData):
    """A rule of transfer after the fit: sources, and what is learnt from each training perturbation."""

    model: Transfer
    sources: Sources
    prepared: Any
    statistics: Any
    totals: Any

    def predict(self, perts: Sequence[str]) -> Prediction:
        response = response_of(self.data, self.sources)
        learnt = self.model.solve(self.totals, response)
        effect = self.model.combine(self.sources.of(perts), self.prepared, learnt, response)
        return self._filled(perts, effect, response[None, :])

    def leave_one_out(self) -> Prediction | None:
        """Each training perturbation as other contexts tell it, with what is learnt from the other ones."""
        perts = self.data.perts
        if not perts:
            return None
        responses = self.mean_of_others()

        def fold(args):
            rows, response, own = args
            totals = self.totals if own is None else jax.tree.map(jnp.subtract, self.totals, own)
            learnt = self.model.solve(totals, response)
            return self.model.combine(rows[:, None, :], self.prepared, learnt, response)[0]

        rows = jnp.moveaxis(self.sources.of(perts), 1, 0)
        effect = lax.map(fold, (rows, responses, self.statistics))
        return self._filled(perts, effect, responses, left_out=True)

    def _filled(self, perts, effect, response, left_out=False):
        effect = jnp.where(jnp.isnan(effect), response, effect)
        made = self.prediction(perts, effect, left_out=left_out, contexts=len(self.sources.tables))
        covered = jnp.asarray(measured(self.sources, perts))
        return eqx.tree_at(lambda prediction: prediction.covered, made, covered)


def response_of(data: PertData, sources: Sources) -> Float[Array, " genes"]:
    """The mean response of the training perturbations; without any, the mean over sources of theirs."""
    if data.perts:
        return mean_response(data)
    return source_mean(sources.generic[:, None, :])[0]


def measured(sources: Sources, perts: Sequence[str]) -> np.ndarray:
    """Which of these perturbations any source measures."""
    return np.any([row >= 0 for row in sources.rows(perts)], axis=0)


def _take(table, rows):
    # A table without rows has nothing to take from, and no label is among its names.
    table = table if len(table) else jnp.full((1, table.shape[1]), jnp.nan, table.dtype)
    return table[np.maximum(rows, 0)]


def _depth_factors(data, external, power):
    depths = jnp.stack([knockdown_depth(other).astype(data.effects.dtype) for other in external])
    known = depths > 0
    logs = jnp.log(jnp.where(known, depths, 1))
    count = jnp.sum(known, dtype=jnp.int32).astype(logs.dtype)
    common = jnp.sum(jnp.where(known, logs, 0)) / jnp.maximum(count, 1)
    own = knockdown_depth(data)
    reference = jnp.where(own > 0, jnp.log(jnp.where(own > 0, own, 1)), common)
    return jnp.where(known, jnp.exp(power * (reference - logs)), 1)


def _mean_cells(data):
    return jnp.full((), jnp.nan) if data.cells is None else jnp.mean(jnp.asarray(data.cells))
