"""What compares the cells of a screen with its control cells: tables of differential expression, energy distances."""

import dataclasses
import math
from typing import Any

import numpy as np

from ._de_cells import gather, GatheredCells, TooManyValues
from ._de_settings import DESettings
from ._de_table import beside, HostTable
from ._de_test import adjusted, energies, rank_tests
from ._errors import Refusal
from ._matrix import BLOCK_ENTRIES
from ._pseudobulk import Done
from ._screen import Screen


BYTES_PER_VALUE = 24  # at most: gathered value and index, and the sorted copies of the genes in flight
_LEAST_VALUES = 100_000.0


@dataclasses.dataclass(frozen=True)
class Tested:
    """What was found of the cells, and what is left of it for others.

    **Fields:** `table` and `energy`, the table and the energy distances of each perturbation's cells from the control
    cells, where they were asked for; `control`, the control cells, if they were to be kept and fit into memory; `sums`
    of the logarithms of each group's cells (the control last), where fold changes are made of logarithms, with the
    `sizes` of the groups and the library size `target_sum` that the cells were scaled to.
    """

    table: HostTable | None
    sizes: np.ndarray
    energy: np.ndarray | None = None
    control: GatheredCells | None = None
    sums: np.ndarray | None = None
    target_sum: float | None = None


def differential_expression(
    screen: Screen,
    settings: DESettings,
    *,
    control_of: Screen | None = None,
    control: GatheredCells | None = None,
    cells: GatheredCells | None = None,
    context: str | None = None,
    table: bool = True,
    energy: bool = False,
    threads: int | None = None,
    details: bool = False,
    keep_control: bool = False,
    max_entries: int = BLOCK_ENTRIES,
    max_memory: int | None = None,
    done: Done | None = None,
) -> Tested:
    """The table of a screen: a rank-sum test of every perturbation and gene against the control cells.

    A rank test needs all cells of a gene at once. The non-zero values are gathered in one walk over the screen, and
    normalised a few genes at a time; where they would take more than `max_memory`, the genes are tested in ranges, with
    a walk for each.

    **Arguments:**

    - `control_of`: the screen whose control cells are the reference, instead of this screen's own; `control`: the same
        cells, if they are at hand; `cells`: those that are tested, with their control unless it is another's.
    - `context`: only the cells of this context. A perturbation without cells has a row that is tested nowhere.
    - `table`, `energy`: what is wanted, the table, the energy distances (of logarithms, Euclidean), or both.
    - `threads`: of the rank test; all cores by default.
    - `details`: keep the means and the statistic in the table. `keep_control`: keep the control cells, for the table of
        the other side.
    - `max_entries`: number of stored values in a block that is read; `max_memory`: bytes, see above.

    **Raises:** `Refusal` for effects given as such, where there are no control cells, and where energy distances are
    asked for and the cells do not fit into `max_memory`.
    """
    _check(screen, control_of or screen, context)
    shared: dict[str, Any] = {"context": context, "max_entries": max_entries}
    shared["max_values"] = math.inf if max_memory is None else max(max_memory / BYTES_PER_VALUE, _LEAST_VALUES)

    def test(genes: slice, whole: bool) -> Tested:
        mine = cells if whole else None
        if mine is None:
            mine = gather(screen, settings, control=control_of is None, genes=genes, done=done, **shared)
        reference = control if whole else None
        if control_of is not None and reference is None:
            reference = gather(control_of, settings, perturbed=False, genes=genes, **shared)
        options = {"scale": screen.scale, "threads": threads, "details": details}
        ranked, sums = rank_tests(mine, reference, settings, **options) if table else (None, None)
        return Tested(
            ranked,
            mine.sizes,
            energies(mine, reference) if energy else None,
            mine.control() if keep_control and whole and control_of is None else None,
            sums if settings.mean == "geometric" else None,
            mine.target_sum,
        )

    parts, genes = 1, len(screen.genes)
    while True:
        edges = np.linspace(0, genes, parts + 1).astype(int).tolist()
        try:
            found = [test(slice(*ends), parts == 1) for ends in zip(edges[:-1], edges[1:], strict=True)]
        except TooManyValues as over:
            if parts >= genes or energy:
                raise _no_room(screen, max_memory, energy) from over
            parts = min(genes, math.ceil(parts * max(2.0, 1.3 / max(over.share, 1e-3))))
        else:
            sums = [part.sums for part in found if part.sums is not None]
            ranges = [part.table for part in found if part.table is not None]
            whole_table = adjusted(beside(ranges), settings) if ranges else None
            return dataclasses.replace(found[0], table=whole_table, sums=np.hstack(sums) if sums else None)


def _check(screen: Screen, reference: Screen, context: str | None) -> None:
    if screen.scale == "delta":
        raise Refusal(
            what="Differential expression is asked of effects that were given as such.",
            where=f"{screen.name}: {screen.scale_verdict or screen.scale}",
            why="A rank test compares cells with control cells, and a difference has neither.",
            fix="give cells, or a table (`de_pred=`, `de_real=` / `-dp`, `-dr`), or leave those metrics out "
            "(`profile='anndata'` / `--profile anndata`).",
        )
    controls = reference.codes == -1
    if context is not None and reference.context_codes is not None and context in reference.contexts:
        controls = controls & (reference.context_codes == reference.contexts.index(context))
    if not controls.any():
        raise Refusal(
            what="There are no control cells to test against.",
            where=f"{reference.name}, label {reference.control!r}{f', context {context!r}' if context else ''}",
            why="Every p-value compares a perturbation with the control cells.",
            fix="name their label: `control=` (`--control-pert`).",
        )


def _no_room(screen: Screen, max_memory: int | None, energy: bool) -> Refusal:
    return Refusal(
        what=f"The {'cells' if energy else 'cells of a single gene'} do not fit into the memory allowed.",
        where=f"{screen.name}, {screen.matrix.shape[0]} cells, {max_memory} bytes",
        why="Energy distances need all genes of a cell at once."
        if energy
        else "A rank test needs all cells of a gene.",
        fix="allow more: `max_memory=` (`--max-memory`)"
        + (", or leave pearson_edistance out: `skip=` (`--skip-metrics`)." if energy else "."),
    )
